"""What every test may use; the fixtures lie in tests/support/, whose modules tests also import by name.

browser_fixtures: `browser`, `visit`: pages in Chromium, and what is wrong with them.
experiment_files: `experiment_text`, `write_experiment`: experiment files.
http_client: `Client`: requests to an ASGI application.
kill_fit, kill_search: A fit and a search that are killed with -9 again and again, and what is left.
postgres_server: `cluster`: a PostgreSQL server for as long as a block lasts.
scoring_fixtures: `simulated_events`, `scoring_folder`, `model`, `champions`: a small model.
spark_cluster: A job on a standalone Spark cluster, compared with one machine.
spark_fixtures: `spark`: a Spark session.
training_fixtures: `empty_store`, `store`, `small_training`, `trained`: MLflow and a small training.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

pytest_plugins = ["browser_fixtures", "scoring_fixtures", "spark_fixtures", "training_fixtures"]
collect_ignore = ["support"]

# In CI the property tests draw the same examples each time, so that a change is judged by what it changed; elsewhere
# they go on exploring.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real inputs beside the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no data folder beside the repository")
    return SHARED

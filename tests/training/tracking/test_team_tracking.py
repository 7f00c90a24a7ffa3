"""MLflow's server on a real PostgreSQL, and the whole path against it: train, promote, score."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiment_files import SMALL_GBDT, write_experiment
from features.simulation.simulator import simulate
from models.scoring.scorer import Scorer
from postgres_server import Cluster, cluster, programs
from serving.bento.serve import free_port
from training.config.experiment import load_experiment
from training.fitting.train import train
from training.scoring.scoring import score_file
from training.tracking.champions import promote
from training.tracking.registry import resolve
from training.tracking.tracking import connect

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed"),
    pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning"),
]
READY_WITHIN_S = 120.0


@dataclass(frozen=True)
class Desk:
    """A tracking server: its address, the database behind it, its folder of artifacts."""

    uri: str
    postgres: Cluster
    artifacts: Path

    def count(self, table: str) -> int:
        [(count,)] = self.postgres.sql(f"select count(*) from {table}", "mlflow")
        assert isinstance(count, int)
        return count


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    artifacts, port = folder / "artifacts", free_port()
    with cluster() as postgres:
        # As docs/team.md starts it: the store in the environment, since arguments can be read by everybody.
        environment = os.environ | {"MLFLOW_BACKEND_STORE_URI": postgres.database("mlflow"), "DO_NOT_TRACK": "true"}
        command = [sys.executable, "-m", "mlflow", "server", "--artifacts-destination", str(artifacts)]
        command += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
        with (folder / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                command, env=environment, cwd=folder, stdout=log, stderr=log, start_new_session=True
            )
        try:
            _wait(process, f"http://127.0.0.1:{port}/health", folder / "log.txt")
            yield Desk(f"http://127.0.0.1:{port}", postgres, artifacts)
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until and process.poll() is None:
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except OSError:
            time.sleep(0.2)
    pytest.fail(f"The tracking server did not start:\n{log.read_text()[-3000:]}")


def test_train_promote_and_score_against_a_server(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", desk.uri)
    monkeypatch.chdir(tmp_path)
    simulate(n_customers=600, days=320, seed=1).save(tmp_path)
    write_experiment(tmp_path, SMALL_GBDT, name="kill_search")
    experiment = load_experiment(tmp_path / "experiment.toml", ["search.trials=2", "allow_small=true"])
    result = train(experiment, runs=tmp_path / "runs")

    runs = desk.count("runs")
    assert runs == 1 + 2 + len(result.models)  # the search, its trials, the models
    assert desk.count("metrics") > 0
    assert list(desk.artifacts.rglob("MLmodel")), "models lie in the server's folder"
    assert not (tmp_path / "mlflow.db").exists()
    assert not (tmp_path / "mlruns").exists()

    again = train(experiment, runs=tmp_path / "runs")  # begins anew, beside the first
    assert again.train_id != result.train_id
    assert again.models["gbdt"]["metrics"] == result.models["gbdt"]["metrics"]
    assert desk.count("runs") == 2 * runs

    promotion = promote(result.models["gbdt"]["uri"])
    assert promotion.version == "1"
    [(alias, version)] = desk.postgres.sql("select alias, version from registered_model_aliases", "mlflow")
    assert (alias, version) == (promotion.alias, 1)
    found = resolve(promotion.model_uri)
    assert found.uri == result.models["gbdt"]["uri"]
    assert connect().get_model_version("kill_search", "1").description.startswith(promotion.alias)

    outcome = score_file(promotion.model_uri, tmp_path / "events.parquet", None, tmp_path / "scores.csv")
    scored = pd.read_csv(tmp_path / "scores.csv")
    assert outcome.rows == len(scored)
    local = result.folder / "artifacts" / "gbdt"
    assert local.is_dir()
    events = pd.read_parquet(tmp_path / "events.parquet")
    expected = Scorer.load(found.folder).score_events(events).frame
    both = scored.merge(expected, on="customer_id")
    assert len(both) == len(scored) > 100
    np.testing.assert_allclose(both["probability_x"], both["probability_y"], atol=1e-9)

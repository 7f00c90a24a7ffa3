"""docs/scaling.md: its Python runs, one snippet after the other, on a small log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from features.simulation.simulator import simulate
from training.config.experiment import load_experiment
from training.data.landing import land

ROOT = Path(__file__).resolve().parents[3]
EXPERIMENT = """
name = "docs_churn"
allow_small = true
[events]
path = "events.parquet"
[task]
kind = "churn"
activity = ["purchase"]
active_days = 60
horizon_days = 28
"""


def test_the_snippets_run(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(n_customers=120, days=260, seed=5).save(tmp_path)
    (tmp_path / "experiment.toml").write_text(EXPERIMENT)
    monkeypatch.chdir(tmp_path)
    land(load_experiment(tmp_path / "experiment.toml"), tmp_path / "features")
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, "scaling.md", "exec"), {})

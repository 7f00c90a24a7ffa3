"""docs/scaling.md: its Python runs, one snippet after the other, on a small log."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from experiment_files import write_experiment
from features.simulation.simulator import simulate
from training.config.experiment import load_experiment
from training.data.landing import land

ROOT = Path(__file__).resolve().parents[3]


def test_the_snippets_run(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulate(n_customers=120, days=260, seed=5).save(tmp_path)
    file = write_experiment(tmp_path, name="docs_churn")
    monkeypatch.chdir(tmp_path)
    land(load_experiment(file), tmp_path / "features")
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "scaling.md").read_text(), re.DOTALL)
    assert len(snippets) == 2
    for snippet in snippets:
        exec(compile(snippet, "scaling.md", "exec"), {})

"""The worked examples in docs/architecture run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from experiments.cli import data, entry_point
from features.labels.kinds import KINDS as TASKS
from features.simulation.simulator import simulate
from models.catalogue import KINDS
from serving.api.routes import OPEN_PATHS
from serving.champions.champions import Champions

ARCHITECTURE = Path(__file__).resolve().parents[2] / "docs" / "architecture"


def run_page(page: str, **names: object) -> dict[str, object]:
    """Execute a page's Python blocks one after the other and return all names."""
    text = (ARCHITECTURE / page).read_text(encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, page, "exec", dont_inherit=True), names)
    return names


def test_route(champions: Champions) -> None:
    names = run_page("route.md", champions=champions)
    assert names["touchpoints"].needs_token  # type: ignore[attr-defined]
    assert "/touchpoints" not in OPEN_PATHS


def test_command(simulated_events: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    simulated_events.head(150).to_parquet(tmp_path / "events.parquet")
    monkeypatch.setattr(data.commands, "registered_commands", list(data.commands.registered_commands))
    monkeypatch.setattr(entry_point.app, "registered_groups", list(entry_point.app.registered_groups))
    run_page("command.md", log=tmp_path / "events.parquet")


def test_model_kind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    snapshots = simulate(n_customers=200, days=100, seed=3).journeys.at(np.datetime64("2024-03-20", "us"))
    snapshots = snapshots.take(np.flatnonzero(snapshots.stop > snapshots.start))
    days = (snapshots.cutoff - snapshots.journeys.t[snapshots.stop - 1]) / 86_400_000_000
    monkeypatch.setitem(KINDS, "recency_bins", KINDS["base_rate"])  # taken out again after the test
    run_page("model_kind.md", snapshots=snapshots, labels=days > np.median(days), folder=tmp_path)


def test_task(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS, "event_count", TASKS["churn"])  # taken out again after the test
    run_page("task.md", journeys=simulate(n_customers=300, days=200, seed=3).journeys)

"""The search: trials over processes, what it finds, and that it goes on where it was."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from features.errors import ConfigError, JourneyLabError
from features.journeys.journeys import Journeys, Snapshots
from features.journeys.packing import pack
from training.data.splits import Fold, OverlapReport
from training.search.folder import Job, held, merged
from training.search.search import SearchResult, search
from training.search.storage import open_storage
from training.search.trials import SearchStudy
from training.search.worker import WorkerTask

# A model of one number, so that a trial takes milliseconds. Workers import it by name.
CATALOGUE = """
import os, time
from pathlib import Path
import numpy as np
from features.errors import DataError


class Fake:
    def __init__(self, settings):
        self.settings = settings
    def fit(self, snapshots, labels):
        time.sleep(self.settings.get("sleep_s", 0.0))
        if self.settings.get("die") and not Path(self.settings["die"]).exists():
            Path(self.settings["die"]).touch()
            os._exit(9)
        if self.settings.get("breaks"):
            raise DataError("the log has no purchases") if self.settings["breaks"] == "data" else RuntimeError("boom")
        self.rate = float(np.mean(labels))
        return self
    def predict(self, snapshots):
        print("libraries talk")
        odd = snapshots.customer % 2
        return np.clip(self.rate + (odd - 0.5) * 0.5 * (1 - abs(self.settings["x"] - 0.3)), 0.01, 0.99)

def make(kind, settings):
    return Fake(settings)

def search_starts(kind):
    return []


def search_space(kind, trial):
    if kind == "fixed":
        return {"x": 0.0}
    if kind == "few":
        return {"x": trial.suggest_categorical("x", [0.1, 0.2, 0.3])}
    return {"x": trial.suggest_float("x", 0.0, 1.0), "n": trial.suggest_int("n", 1, 5), "d": {"drop": [kind]}}
"""
APART = OverlapReport(0, 40, 0, 0.0, 0.0, 40)
FOLDS = [Fold(f"fold_{k}", np.arange(40), np.arange(40 + 20 * k, 60 + 20 * k), APART) for k in range(3)]


@pytest.fixture
def catalogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "fake_catalogue.py").write_text(CATALOGUE)
    monkeypatch.syspath_prepend(tmp_path / "path")
    return "fake_catalogue"


@pytest.fixture(scope="module")
def journeys() -> Journeys:
    who = [f"c{i}" for i in range(100)]
    return pack(pd.DataFrame({"customer_id": who, "timestamp": pd.Timestamp("2024-01-01"), "touchpoint": "visit"}))


@pytest.fixture
def rows(journeys: Journeys) -> tuple[Snapshots, np.ndarray[Any, Any]]:
    snapshots = journeys.at("2024-02-01")
    noise = np.random.default_rng(0).random(100) < 0.2
    return snapshots, (snapshots.customer % 2 ^ noise).astype(np.int8)


def run(rows: Any, folder: Path, kind: str = "fake", **options: Any) -> SearchResult:
    job = Job.of(
        kind, *rows, FOLDS, seed=options.pop("seed", 1), fixed=options.pop("fixed", None), catalogue="fake_catalogue"
    )
    return search(job, folder=folder, **{"trials": 8} | options)


def study_in(folder: Path, goal: int) -> SearchStudy:
    """The study of a search that ended, ready to begin other trials."""
    study = SearchStudy(Job.load(folder), open_storage(folder))
    study.set_goal(goal)
    return study


def comparable(result: SearchResult) -> pd.DataFrame:
    return result.trials.drop(columns="seconds")


def test_best_trial_has_the_least_log_loss(catalogue: str, rows: Any, tmp_path: Path) -> None:
    result = run(rows, tmp_path / "s", trials=14, jobs=2, fixed={"y": 2})
    assert len(result.trials) == 14
    assert set(result.trials["state"]) <= {"complete", "pruned"}
    assert not result.trials.filter(like="param_").duplicated().any()
    scores, check = np.concatenate(result.scores), np.concatenate([fold.check for fold in FOLDS])
    y = rows[1][check]
    assert result.best.log_loss == pytest.approx(-np.mean(np.log(np.where(y == 1, scores, 1 - scores))))
    assert result.best.log_loss == result.trials.query("state == 'complete'")["log_loss"].min()
    assert result.settings["y"] == 2
    assert result.settings["d"] == {"drop": ["fake"]}
    assert (tmp_path / "s" / "worker_0.log").read_text().startswith("libraries talk")


def test_pruned_trials_count(catalogue: str, rows: Any, tmp_path: Path) -> None:
    result = run(rows, tmp_path / "s", trials=16)
    pruned = result.trials.query("state == 'pruned'")
    assert 0 < len(pruned) < 11
    assert pruned["log_loss"].isna().all()


def test_search_in_parts_equals_search_in_one_go(catalogue: str, rows: Any, tmp_path: Path) -> None:
    whole = comparable(run(rows, tmp_path / "whole", trials=14))
    run(rows, tmp_path / "parts", trials=3)
    study_in(tmp_path / "parts", 14).ask()  # a trial that a dead process left running
    parts = comparable(run(rows, tmp_path / "parts", trials=14))
    pd.testing.assert_frame_equal(whole, parts)
    pd.testing.assert_frame_equal(comparable(run(rows, tmp_path / "parts", trials=14)), parts)


def test_interrupted_trial_continues_at_its_fold(catalogue: str, rows: Any, tmp_path: Path) -> None:
    run(rows, tmp_path / "s", trials=1)
    study = study_in(tmp_path / "s", 2)
    left = study.ask()
    assert left is not None
    np.save(tmp_path / "s" / "scores" / "trial_0001_fold_0.npy", np.full(20, 0.5))
    study.report(left, 0, 0.5, 1.0)
    result = run(rows, tmp_path / "s", trials=2)
    assert len(result.trials) == 2
    scored = np.load(tmp_path / "s" / "scores" / "trial_0001_fold_0.npy")
    np.testing.assert_array_equal(scored, np.full(20, 0.5))
    assert study.trials()[1].params == left.params


def test_resuming_reports_finished_trials_again(catalogue: str, rows: Any, tmp_path: Path) -> None:
    told: list[int] = []
    run(rows, tmp_path / "s", trials=2, on_trial=lambda trial: told.append(trial.number))
    run(rows, tmp_path / "s", trials=3, on_trial=lambda trial: told.append(trial.number))
    assert told == [0, 1, 0, 1, 2]


@pytest.mark.parametrize("change", [{"seed": 2}, {"fixed": {"y": 1}}, {"kind": "few"}, {"rows": "fewer"}])
def test_folder_refuses_other_configurations(catalogue: str, rows: Any, tmp_path: Path, change: dict[str, Any]) -> None:
    run(rows, tmp_path / "s", trials=1)
    if "rows" in change:
        change, rows = {}, (rows[0], 1 - rows[1])
    with pytest.raises(ConfigError, match="began with another configuration"):
        run(rows, tmp_path / "s", **({"trials": 1} | change))


def test_folder_has_one_search_at_a_time(catalogue: str, rows: Any, tmp_path: Path) -> None:
    with held(tmp_path / "s"), pytest.raises(ConfigError, match="Another search is running"):
        run(rows, tmp_path / "s")


def test_small_space_ends_the_search_without_repeats(catalogue: str, rows: Any, tmp_path: Path) -> None:
    assert sorted(run(rows, tmp_path / "few", kind="few").trials["param_x"]) == [0.1, 0.2, 0.3]
    assert len(run(rows, tmp_path / "fixed", kind="fixed").trials) == 1


def test_timeout_leaves_at_least_one_trial(catalogue: str, rows: Any, tmp_path: Path) -> None:
    result = run(rows, tmp_path / "s", timeout_s=0.0)
    assert len(result.trials) == 1
    assert len(run(rows, tmp_path / "s", trials=2).trials) == 2


def test_fixable_error_ends_the_search(catalogue: str, rows: Any, tmp_path: Path) -> None:
    with pytest.raises(JourneyLabError, match="stopped at trial 0: the log has no purchases"):
        run(rows, tmp_path / "s", fixed={"breaks": "data"})


def test_three_failures_in_a_row_end_the_search(catalogue: str, rows: Any, tmp_path: Path) -> None:
    with pytest.raises(JourneyLabError, match="stopped at trial 2: RuntimeError: boom"):
        run(rows, tmp_path / "s", fixed={"breaks": "always"})


def test_dead_workers_trial_continues_in_another(catalogue: str, rows: Any, tmp_path: Path) -> None:
    shown = io.StringIO()
    result = run(rows, tmp_path / "s", trials=2, fixed={"die": str(tmp_path / "once")}, progress=Console(file=shown))
    assert list(result.trials["state"]) == ["complete", "complete"]
    assert "A worker died (exit code 9); trial 0 goes on in a new one." in shown.getvalue()
    assert "search fake: 2 of 2, trial 1 log loss" in shown.getvalue()


def test_ctrl_c_says_how_to_continue(catalogue: str, rows: Any, tmp_path: Path) -> None:
    def interrupt(_: Any) -> None:
        raise KeyboardInterrupt

    shown = io.StringIO()
    with pytest.raises(KeyboardInterrupt):
        run(rows, tmp_path / "s", on_trial=interrupt, progress=Console(file=shown))
    assert "Stopped after 1 of 8 trials. The same command goes on from there" in shown.getvalue()


def test_workers_end_with_their_parent(catalogue: str, rows: Any, tmp_path: Path) -> None:
    job = Job.of("fake", *rows, FOLDS, seed=1, fixed={"sleep_s": 60.0}, catalogue="fake_catalogue")
    job.save(tmp_path / "s")
    study = study_in(tmp_path / "s", 1)
    worker = subprocess.Popen(
        [sys.executable, "-m", "training.search.worker"], stdin=subprocess.PIPE, text=True,
        env={"PYTHONPATH": os.pathsep.join([str(tmp_path / "path"), *(path for path in sys.path if path)])},
    )  # fmt: skip
    assert worker.stdin is not None
    task = WorkerTask(str(tmp_path / "s"), None, "owner/1", deadline=None, waits=True, grace_s=30)
    worker.stdin.write(json.dumps(asdict(task)) + "\n")
    worker.stdin.flush()
    while not study.trials():
        time.sleep(0.05)
    worker.stdin.close()
    worker.wait(timeout=30)
    assert [trial.state for trial in study.trials()] == ["running"]


def test_trial_settings_override_fixed_settings() -> None:
    assert merged({"a": {"b": 1, "c": [2, 3]}}, {"a": {"b": 2, "c": [1, 2]}}) == {"a": {"b": 2, "c": [2]}}

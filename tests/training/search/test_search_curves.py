"""Models that are fitted in epochs: pruned by their curve in the middle of a fold, resumed where they were."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from rich.console import Console

from features.journeys.journeys import Snapshots
from features.journeys.packing import pack
from training.data.splits import Fold, OverlapReport
from training.search.folder import Job, state_path
from training.search.search import SearchResult, search
from training.search.storage import open_storage
from training.search.trials import STARTUP_TRIALS, WARM_UP_EPOCHS, SearchStudy

EPOCHS, TRIALS = 4, 12

# The curve sinks towards a floor that x sets, at another height on each fold; scores agree with it. The state on disk
# is the number of the epoch, and a resumed fit reports its last epoch again, as a fit may.
CATALOGUE = """
import os, time
from pathlib import Path
import numpy as np
from models.contract import FitPruned


class Epochs:
    report = folder = None
    def __init__(self, settings):
        self.settings = settings
    def watch(self, report):
        self.report = report
    def resume_in(self, folder):
        self.folder = folder
    def fit(self, snapshots, labels):
        self.folder.mkdir(parents=True, exist_ok=True)
        state = self.folder / "epoch.txt"
        first = max(0, int(state.read_text()) if state.exists() else 0)
        base = 10 * (int(snapshots.customer.max()) // 20)
        for epoch in range(first, 4):
            time.sleep(self.settings.get("sleep_s", 0.0))
            state.write_text(str(epoch))
            loss = base + abs(self.settings["x"] - 0.3) + 1 / (epoch + 1)
            once = Path(self.settings["die"]) if "die" in self.settings else None
            if once and epoch == 2 and not once.exists():
                once.touch()
                os._exit(9)
            if self.report is not None and self.report(epoch, loss):
                raise FitPruned
        self.rate = float(np.mean(labels))
        return self
    def predict(self, snapshots):
        odd = snapshots.customer % 2
        return np.clip(self.rate + (odd - 0.5) * 0.5 * (1 - abs(self.settings["x"] - 0.3)), 0.01, 0.99)

def make(kind, settings):
    return Epochs(settings)

def search_starts(kind):
    return []


def search_space(kind, trial):
    return {"x": trial.suggest_float("x", 0.0, 1.0)}
"""
APART = OverlapReport(0, 40, 0, 0.0, 0.0, 40)
FOLDS = [Fold(f"fold_{k}", np.arange(20 * (k + 1)), np.arange(40 + 20 * k, 60 + 20 * k), APART) for k in range(2)]
Rows = tuple[Snapshots, np.ndarray[Any, Any]]


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("path")
    (folder / "curve_catalogue.py").write_text(CATALOGUE)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield folder


def make_rows() -> Rows:
    who = [f"c{i:03d}" for i in range(100)]
    log = pack(pd.DataFrame({"customer_id": who, "timestamp": pd.Timestamp("2024-01-01"), "touchpoint": "visit"}))
    snapshots = log.at("2024-02-01")
    noise = np.random.default_rng(0).random(100) < 0.2
    return snapshots, (snapshots.customer % 2 ^ noise).astype(np.int8)


@pytest.fixture(scope="module")
def rows() -> Rows:
    return make_rows()


def run(rows: Rows, folder: Path, fixed: Any = None, **options: Any) -> SearchResult:
    job = Job.of("epochs", *rows, FOLDS, seed=1, fixed=fixed, catalogue="curve_catalogue")
    return search(job, folder=folder, **{"trials": TRIALS} | options)


@pytest.fixture(scope="module")
def whole(catalogue: Path, rows: Rows, tmp_path_factory: pytest.TempPathFactory) -> tuple[SearchResult, str]:
    """A search in one go, and what it showed."""
    shown = io.StringIO()
    return run(rows, tmp_path_factory.mktemp("whole") / "s", progress=Console(file=shown)), shown.getvalue()


def study_in(folder: Path, goal: int = TRIALS) -> SearchStudy:
    """The study of a search that ended, ready to begin other trials."""
    study = SearchStudy(Job.load(folder), open_storage(folder))
    study.set_goal(goal)
    return study


def noted(result: SearchResult) -> tuple[pd.DataFrame, pd.DataFrame]:
    return result.trials.drop(columns="seconds"), result.curves


def same(one: SearchResult, other: SearchResult) -> None:
    """The same trials with the same curves, as far as the shorter search went."""
    count = min(len(one.trials), len(other.trials))
    for left, right in zip(noted(one), noted(other), strict=True):
        pd.testing.assert_frame_equal(left[left["number"] < count], right[right["number"] < count])


def test_curve_above_the_median_stops_the_trial(
    whole: tuple[SearchResult, str],
) -> None:
    result, shown = whole
    trials = study_in(result.folder).trials()
    stopped = [trial for trial in trials if trial.stopped]
    assert 2 <= len(stopped) <= TRIALS - STARTUP_TRIALS
    assert {trial.state for trial in stopped} == {"pruned"}
    assert all(not trial.stopped for trial in trials[:STARTUP_TRIALS])
    first = [trial for trial in stopped if trial.stopped == (0, WARM_UP_EPOCHS)]
    assert first, "as soon as the learning rate has risen"
    assert all(trial.losses == () and trial.log_loss is None for trial in first)
    assert all(len(trial.seconds) == 1 for trial in first)
    assert not list((result.folder / "scores").glob(f"trial_{first[0].number:04d}_*"))
    assert f"trial {first[0].number} pruned in fold 0 after epoch {WARM_UP_EPOCHS}, check loss" in shown
    assert list(result.curves.columns) == ["number", "fold", "epoch", "check_loss"]
    assert (result.curves.query("number == 0").groupby("fold").size() == EPOCHS).all()
    assert abs(result.settings["x"] - 0.3) == min(abs(trial.settings["x"] - 0.3) for trial in trials)


def test_states_of_fits_are_deleted(
    whole: tuple[SearchResult, str],
) -> None:
    assert list((whole[0].folder / "state").iterdir()) == []


def test_curve_search_in_parts_equals_search_in_one_go(
    whole: tuple[SearchResult, str], rows: Rows, tmp_path: Path
) -> None:
    run(rows, tmp_path / "parts", trials=7)
    left = study_in(tmp_path / "parts").ask()  # what a process left that was killed in the second epoch
    assert left is not None
    for epoch in range(2):
        study_in(tmp_path / "parts").report_epoch(left, 0, epoch, abs(left.settings["x"] - 0.3) + 1 / (epoch + 1))
    state = state_path(tmp_path / "parts", left.number, 0)
    state.mkdir(parents=True)
    (state / "epoch.txt").write_text("1")
    same(whole[0], run(rows, tmp_path / "parts"))


def test_decision_of_a_dead_process_stands(catalogue: Path, rows: Rows, tmp_path: Path) -> None:
    run(rows, tmp_path / "s", trials=6)
    left = study_in(tmp_path / "s").ask()
    assert left is not None
    assert study_in(tmp_path / "s").report_epoch(left, 0, WARM_UP_EPOCHS, 99.0)
    state_path(tmp_path / "s", left.number, 0).mkdir(parents=True)
    run(rows, tmp_path / "s", trials=7)
    ended = study_in(tmp_path / "s").trials()[left.number]
    assert (ended.state, ended.stopped) == ("pruned", (0, WARM_UP_EPOCHS))
    assert not state_path(tmp_path / "s", left.number, 0).exists()


def test_repeated_epoch_replaces_later_ones(catalogue: Path, rows: Rows, tmp_path: Path) -> None:
    run(rows, tmp_path / "s", trials=1)
    study = study_in(tmp_path / "s")
    left = study.ask()
    assert left is not None
    for epoch, loss in ((0, 3.0), (1, 2.0), (2, float("nan")), (1, 1.5)):
        study.report_epoch(left, 1, epoch, loss)
    assert study.trials()[1].curves == {1: {0: 3.0, 1: 1.5}}
    assert study.trials()[1].losses == (), "the log loss of folds is another thing"


def test_curves_of_folds_are_independent(whole: tuple[SearchResult, str]) -> None:
    """Losses on fold 1 are all ten higher than on fold 0, and no trial is stopped for that."""
    result, _ = whole
    heights = result.curves.query("epoch == 3 and number < 5").groupby("fold")["check_loss"].mean()
    assert heights[1] - heights[0] == pytest.approx(10, abs=1)
    assert "complete" in set(result.trials["state"].iloc[STARTUP_TRIALS:])


def test_worker_death_in_an_epoch_changes_nothing(whole: tuple[SearchResult, str], rows: Rows, tmp_path: Path) -> None:
    died = run(rows, tmp_path / "died", trials=2, fixed={"die": str(tmp_path / "once")})
    assert (tmp_path / "once").exists()
    same(died, whole[0])


@pytest.mark.slow
def test_killed_search_ends_like_any_other(
    catalogue: Path, whole: tuple[SearchResult, str], rows: Rows, tmp_path: Path
) -> None:
    fixed = {"sleep_s": 0.01}
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[1]); from test_search_curves import *; "
        f"run(make_rows(), Path(sys.argv[2]), trials=8, fixed={fixed})"
    )
    path = os.pathsep.join([str(catalogue), *(part for part in sys.path if part)])
    command = [sys.executable, "-c", code, str(Path(__file__).parent), str(tmp_path / "killed")]
    process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": path}, start_new_session=True)
    moment = time.monotonic() + 60
    while time.monotonic() < moment and not list((tmp_path / "killed").glob("scores/trial_0005_*")):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(study_in(tmp_path / "killed").trials()) < 8
    same(run(rows, tmp_path / "killed", trials=8, fixed=fixed), whole[0])

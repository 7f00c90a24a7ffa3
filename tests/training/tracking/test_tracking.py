"""MLflow: where runs are kept, and that nothing is there twice or in halves."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import pandas as pd
import pytest

from training.search.trials import Trial
from training.tracking.tracking import Tracker, _steps, connect, flat, tracking_uri

MOMENT = datetime(2024, 1, 2, tzinfo=UTC)


def a_trial(number: int = 0, state: str = "complete") -> Trial:
    params = {"x": 0.25, "n": 3}
    return Trial(number, state, params, params, (0.7, 0.6), 0.6, (1.0, 2.0), MOMENT, MOMENT, None)


@pytest.fixture
def tracker(store: Path) -> Tracker:
    return Tracker("a_task")


def search_run(tracker: Tracker) -> str:
    return tracker.search_run("s-1", name="search fake", params={"seed": 7}, tags={"task": "a_task"}, note="Said.")


def test_default_store_is_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://tracking.example:5000")
    assert tracking_uri() == "http://tracking.example:5000"


def test_files_of_runs_lie_beside_the_store(tracker: Tracker, store: Path) -> None:
    experiment = tracker.client.get_experiment(tracker.experiment_id)
    assert experiment.artifact_location == (store.parent / "mlruns" / "a_task").as_uri()
    assert Tracker("a_task").experiment_id == tracker.experiment_id


def test_a_store_that_was_not_built_to_the_end_is_built_anew(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "mlflow.db.new").write_bytes(b"SQLite format 3\0 and then the process died")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    code = "from training.tracking.tracking import Tracker; print(Tracker('both').experiment_id)"
    processes = [
        subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", "-c", code],
            env=os.environ | {"MLFLOW_TRACKING_URI": uri},
            stdout=subprocess.PIPE,
        )
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in processes]
    assert said[0] == said[1] == b"1\n"
    assert not (tmp_path / "mlflow.db.new").exists()
    assert capfd.readouterr().err == ""


def test_mlflow_keeps_its_remarks_to_itself_and_its_loggers_as_they_were(store: Path) -> None:
    before = logging.getLogger("mlflow").level
    connect()
    assert logging.getLogger("mlflow").level == before


def test_search_has_one_run(tracker: Tracker) -> None:
    run_id = search_run(tracker)
    tracker.stop_search(run_id, failed=False)
    assert tracker.client.get_run(run_id).info.status == "KILLED"
    assert search_run(tracker) == run_id
    run = tracker.client.get_run(run_id)
    assert run.info.status == "RUNNING"
    assert run.data.params == {"seed": "7"}
    assert run.data.tags["mlflow.note.content"] == "Said."


def test_trial_has_one_run(tracker: Tracker) -> None:
    parent = search_run(tracker)
    metrics = {"validation_auroc": 0.75, "validation_lift_at_5": float("nan")}
    run_id = tracker.log_trial(parent, a_trial(), metrics, {"task": "a_task"})
    assert tracker.log_trial(parent, a_trial(), metrics, {"task": "a_task"}) == run_id
    assert tracker.logged_trials(parent) == {0: run_id}
    run = tracker.client.get_run(run_id)
    assert run.data.metrics == {"validation_auroc": 0.75, "fold_log_loss": 0.6}
    assert run.data.params == {"x": "0.25", "n": "3"}
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.info.start_time == run.info.end_time == int(MOMENT.timestamp() * 1000)


def test_a_run_that_was_begun_by_a_dead_process_is_completed(tracker: Tracker) -> None:
    parent = search_run(tracker)
    half = tracker._trial_run(parent, a_trial(3), {}).info.run_id
    tracker._log(half, {"validation_auroc": 0.75}, {"x": 0.25}, int(MOMENT.timestamp() * 1000))
    assert tracker.logged_trials(parent) == {}
    assert tracker.log_trial(parent, a_trial(3), {"validation_auroc": 0.75}, {}) == half
    assert tracker.logged_trials(parent) == {3: half}
    history = tracker.client.get_metric_history(half, "fold_log_loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.7), (1, 0.6)]
    assert len(tracker.client.get_metric_history(half, "validation_auroc")) == 1


def test_half_a_final_run_is_deleted_and_the_trials_stay(tracker: Tracker) -> None:
    parent = search_run(tracker)
    trial = tracker.log_trial(parent, a_trial(), {}, {"train_id": "t-1", "kind": "fake"})
    own = {"role": "model", "name": "fake", "kind": "fake", "train_id": "t-1"}
    half = tracker.client.create_run(tracker.experiment_id, tags=own).info.run_id
    assert tracker.final_run("t-1", "fake") is None
    assert tracker.client.get_run(half).info.lifecycle_stage == "deleted"
    assert tracker.client.get_run(trial).info.lifecycle_stage == "active"


def test_settings_of_any_depth_are_parameters_and_long_ones_are_cut(tracker: Tracker) -> None:
    parent = search_run(tracker)
    tracker._log(parent, {}, {"features": {"groups": ["rfm"], "text": "a" * 9000}})
    params = tracker.client.get_run(parent).data.params
    assert params["features.groups"] == '["rfm"]'
    assert params["features.text"] == "a" * 4999 + "…"
    assert flat({"a": {"b": {"c": 1}}, "d": []}) == {"a.b.c": 1, "d": []}


def test_curves_are_metrics(tracker: Tracker) -> None:
    parent = search_run(tracker)
    curves = {0: {0: 0.9, 1: 0.8, 2: float("nan")}}
    stopped = Trial(4, "pruned", {}, {}, (), None, (1.0,), MOMENT, MOMENT, None, curves, (0, 2))
    run_id = tracker.log_trial(parent, stopped, {"n_folds": 0.0}, {})
    history = tracker.client.get_metric_history(run_id, "curve/fold_0/check_loss")
    assert [(metric.step, metric.value) for metric in history] == [(0, 0.9), (1, 0.8)]
    assert tracker.client.get_run(run_id).data.metrics.keys() == {"n_folds", "curve/fold_0/check_loss"}


def test_many_metrics_are_logged_in_several_calls(tracker: Tracker) -> None:
    run_id = search_run(tracker)
    curve = pd.DataFrame({"metric": "curve/member_1/train_loss", "epoch": range(1500), "value": 0.5})
    tracker._log_metrics(run_id, _steps(curve))
    tracker._log(run_id, {}, {f"p{i}": i for i in range(150)})
    assert len(tracker.client.get_metric_history(run_id, "curve/member_1/train_loss")) == 1500
    assert len(tracker.client.get_run(run_id).data.params) == 151

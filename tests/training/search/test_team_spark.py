"""Trials of a search in Spark's tasks, by MLflow's own `MlflowSparkStudy`, on a store in PostgreSQL."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import sys
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pandas as pd
import pytest

from features.journeys.packing import pack
from postgres_server import cluster, programs
from training.data.splits import Fold, OverlapReport
from training.search.folder import Job
from training.search.objective import Objective
from training.search.search import search
from training.tracking.tracking import Tracker

# A model of one number. Workers and Spark's tasks import it by name.
CATALOGUE = """
import numpy as np
class Fake:
    def __init__(self, settings):
        self.settings = settings
    def fit(self, snapshots, labels):
        self.rate = float(np.mean(labels))
        return self
    def predict(self, snapshots):
        odd = snapshots.customer % 2
        return np.clip(self.rate + (odd - 0.5) * 0.5 * (1 - abs(self.settings["x"] - 0.3)), 0.01, 0.99)
def make(kind, settings):
    return Fake(settings)
def search_starts(kind):
    return []


def search_space(kind, trial):
    return {"x": trial.suggest_float("x", 0.0, 1.0)}
"""
APART = OverlapReport(0, 40, 0, 0.0, 0.0, 40)
FOLDS = [Fold(f"fold_{k}", np.arange(40), np.arange(40 + 20 * k, 60 + 20 * k), APART) for k in range(3)]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A search's folder, and its catalogue where every process finds it."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "fake_of_spark.py").write_text(CATALOGUE)
    monkeypatch.syspath_prepend(tmp_path / "path")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    who = [f"c{i}" for i in range(100)]
    log = pd.DataFrame({"customer_id": who, "timestamp": pd.Timestamp("2024-01-01"), "touchpoint": "visit"})
    snapshots = pack(log).at("2024-02-01")
    labels = (snapshots.customer % 2 ^ (np.random.default_rng(0).random(100) < 0.2)).astype(np.int8)
    np.save(tmp_path / "labels.npy", labels)
    job = Job.of("fake", snapshots, labels, FOLDS, seed=1, catalogue="fake_of_spark")
    result = search(job, trials=1, folder=tmp_path / "job")
    (tmp_path / "expected").write_text(json.dumps([result.best.params["x"], result.best.log_loss]))
    for scores in (tmp_path / "job" / "scores").iterdir():
        scores.unlink()
    return tmp_path


def test_objective_equals_the_search(folder: Path) -> None:
    x, loss = json.loads((folder / "expected").read_text())
    study = optuna.create_study(direction="minimize")
    study.enqueue_trial({"x": x})
    study.optimize(Objective(folder / "job"), n_trials=1)
    assert study.best_value == pytest.approx(loss, abs=1e-12)


@pytest.mark.slow
@pytest.mark.skipif(programs() is None, reason="PostgreSQL is not installed")
@pytest.mark.skipif(importlib.util.find_spec("pyspark") is None, reason="pyspark is not installed")
@pytest.mark.skipif(shutil.which("java") is None, reason="Java is not installed")
@pytest.mark.filterwarnings("ignore")  # pyspark's and MLflow's about pandas 3
def test_spark_trials_in_mlflow(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mlflow.optuna.storage import MlflowStorage
    from mlflow.pyspark.optuna.study import MlflowSparkStudy

    from features.spark.session import session

    with cluster() as server:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", server.database("mlflow"))
        tracker = Tracker("spark_study")
        spark = session("local[2]")
        try:
            study = MlflowSparkStudy("gbdt", MlflowStorage(tracker.experiment_id, batch_flush_interval=1.0))
            study.optimize(Objective(folder / "job"), n_trials=6, n_jobs=2)
            trials = study.trials
        finally:
            spark.stop()
            mlflow.set_tracking_uri(None)
        assert sorted(trial.number for trial in trials) == list(range(6))
        assert {trial.state.name for trial in trials} <= {"COMPLETE", "PRUNED"}
        assert len({trial.params["x"] for trial in trials}) == 6
        finished = server.sql("select count(*) from runs where status = 'FINISHED'", "mlflow")
        assert finished[0][0] >= sum(trial.state.name == "COMPLETE" for trial in trials)  # type: ignore[operator]

"""Fixtures with an MLflow store and a small training: `empty_store`, `store`, `small_training`, `trained`.

Imports of `training` stay in the fixtures: they take seconds, and tests of other packages do without them.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from experiment_files import PROFILE, write_experiment
from features.simulation.simulator import simulate

if TYPE_CHECKING:
    from training.fitting.train import TrainResult

SMALL = """
[task.cutoffs]
n_train = 6
[features]
windows_days = [30]
groups = ["volume", "recency", "rfm", "profile"]
[models.settings.gbdt]
members = 2
max_trees = 25
[search]
trials = 2
[report]
fairness = ["country"]
"""


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs: building one takes seconds, copying it nothing."""
    from training.tracking.tracking import connect

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        connect()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty MLflow store of the test's own, where `connect` finds it."""
    return use_copy(empty_store, tmp_path, monkeypatch)


def use_copy(store: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copy a store into `folder` and make it MLflow's, also where an earlier test of the process set another one."""
    import mlflow

    path = Path(shutil.copy(store, folder / "mlflow.db"))
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
    mlflow.set_tracking_uri(f"sqlite:///{path}")
    return path


@pytest.fixture(scope="session")
def small_training(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A small experiment on simulated journeys, trained: its folder, with store and files, and the result."""
    from training.config.experiment import load_experiment
    from training.fitting.train import train

    folder = tmp_path_factory.mktemp("training")
    simulate(n_customers=500, days=260, seed=3).save(folder)
    write_experiment(folder, SMALL, events=PROFILE)
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        return folder, train(load_experiment(folder / "experiment.toml"), runs=folder / "runs")


@pytest.fixture
def trained(
    small_training: tuple[Path, TrainResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, TrainResult]:
    """The small training with a store of the test's own, which it may change."""
    folder, result = small_training
    use_copy(folder / "mlflow.db", tmp_path, monkeypatch)
    return folder, result

"""Rejected rows of a user's label table lie in a quarantine file beside the output of the run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from experiment_files import write_experiment
from features.simulation.simulator import simulate
from training.config.experiment import Experiment, load_experiment
from training.data.landing import land
from training.data.task_data import read_task_data

BAD_ROWS = [("nobody", "2024-04-01", "1"), ("c000000", "soon", "0"), ("c000000", "2024-04-01", "maybe")]


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    """An experiment whose label table has three bad rows after the good ones."""
    simulate(n_customers=200, days=260, seed=5).save(tmp_path)
    labels = load_experiment(write_experiment(tmp_path, name="churn", file="churn.toml"))
    journeys = read_task_data(labels, tmp_path / "home").journeys
    table = labels.labels(journeys).table[["customer_id", "cutoff", "label"]].astype("str")
    bad = pd.DataFrame(BAD_ROWS, columns=table.columns)
    pd.concat([table, bad]).to_csv(tmp_path / "labels.csv", index=False)
    return load_experiment(write_experiment(tmp_path, name="own", file="own.toml", task="labels"))


def check_quarantine(path: Path, n_good: int) -> None:
    quarantine = pd.read_csv(path, dtype="str")
    assert quarantine["row"].tolist() == [str(n_good + place) for place in (1, 2, 3)]
    assert quarantine["reason"].tolist() == [
        "customer_id is not in the log", "cutoff is not a time", "label is neither 0 nor 1",
    ]  # fmt: skip
    assert list(quarantine[["customer_id", "cutoff", "label"]].itertuples(index=False, name=None)) == BAD_ROWS


def test_training_writes_rejected_label_rows(experiment: Experiment, tmp_path: Path) -> None:
    data = read_task_data(experiment, tmp_path / "home")
    n_good = len(pd.read_csv(tmp_path / "labels.csv")) - 3
    check_quarantine(tmp_path / "home" / "label_quarantine.csv", n_good)
    assert any("customer_id is not in the log: 1" in note for note in data.notes)


def test_features_write_rejected_label_rows(experiment: Experiment, tmp_path: Path) -> None:
    land(experiment, tmp_path / "features")
    check_quarantine(tmp_path / "features_label_quarantine.csv", len(pd.read_csv(tmp_path / "labels.csv")) - 3)

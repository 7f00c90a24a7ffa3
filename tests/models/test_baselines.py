"""The baselines, against figures computed by hand and against scikit-learn."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from features.journeys.journeys import Journeys, Snapshots
from features.journeys.packing import pack
from models.baselines import BaseRate, Recency, RFMLogistic, rfm
from models.saving import load_model, save_model


def log(n_customers: int = 60, seed: int = 0) -> Journeys:
    rng = np.random.default_rng(seed)
    n = n_customers * 12
    return pack(
        pd.DataFrame(
            {
                "customer_id": rng.integers(0, n_customers, n).astype(str),
                "timestamp": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.uniform(0, 90, n), unit="D"),
                "touchpoint": rng.choice(["visit", "buy"], n),
                "value": np.where(rng.random(n) < 0.5, rng.gamma(2, 10, n), np.nan),
            }
        )
    )


@pytest.fixture
def rows() -> Snapshots:
    return log().at("2024-03-01")


def test_rfm_by_hand() -> None:
    journeys = pack(
        pd.DataFrame(
            {
                "customer_id": ["a", "a", "a", "b"],
                "timestamp": pd.to_datetime(
                    ["2024-01-01 06:00", "2024-01-01 18:00", "2024-01-05 00:00", "2024-02-01 00:00"]
                ),
                "touchpoint": ["visit", "buy", "buy", "visit"],
                "value": [np.nan, 10.0, 5.5, 99.0],
            }
        )
    )
    assert rfm(journeys.at("2024-01-11")).tolist() == [[6.0, 2.0, 3.0, 15.5, 9.75], [3652.0, 0.0, 0.0, 0.0, 3652.0]]


def test_a_batch_of_one_equals_a_batch_of_many(rows: Snapshots) -> None:
    batch = rfm(rows)
    single = np.concatenate([rfm(rows.take(np.array([i]))) for i in range(len(rows))])
    assert (batch == single).all()


@pytest.mark.parametrize("kind", [BaseRate, Recency, RFMLogistic])
def test_saved_and_loaded_gives_the_same_numbers(kind: type[RFMLogistic], rows: Snapshots, tmp_path: Path) -> None:
    labels = np.arange(len(rows)) % 3 == 0
    model = kind().fit(rows, labels)
    again = load_model(save_model(model, tmp_path / "model"))
    assert (again.predict(rows) == model.predict(rows)).all()
    assert not list(tmp_path.rglob("*.pkl"))


def test_recency_ranks_by_recency(rows: Snapshots) -> None:
    labels = rfm(rows)[:, 0] > np.median(rfm(rows)[:, 0])
    predicted = Recency().fit(rows, labels).predict(rows)
    assert (np.argsort(predicted, kind="stable") == np.argsort(rfm(rows)[:, 0], kind="stable")).all()


@pytest.mark.parametrize(
    ("labels", "says"), [([1] * 60, "all of them 1"), ([0, 1], "one label a snapshot"), ([2] * 60, "neither 0 nor 1")]
)
def test_labels_that_teach_nothing(labels: list[int], says: str, rows: Snapshots) -> None:
    with pytest.raises(DataError, match=says):
        BaseRate().fit(rows, labels)

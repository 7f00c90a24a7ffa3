"""LightGBM behind the contract: learns, calibrates, says why, and is the same after a save."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.journeys.journeys import Snapshots
from features.journeys.packing import pack
from models.boosting.gbdt import GBDT, GBDTSettings
from models.catalogue import make, search_space
from models.contract import Explainer, FeatureModel, Model
from models.saving import load_model, save_model

N_CUSTOMERS = 500


@pytest.fixture(scope="module")
def rows() -> tuple[Snapshots, np.ndarray]:
    """Customers who complain leave; three cutoffs each."""
    rng = np.random.default_rng(5)
    n = N_CUSTOMERS * 20
    who = rng.integers(0, N_CUSTOMERS, n)
    unhappy = (np.arange(N_CUSTOMERS) % 3 == 0)[who]
    log = pd.DataFrame(
        {
            "customer_id": who.astype(str),
            "timestamp": pd.Timestamp("2024-01-01") + pd.to_timedelta(rng.uniform(0, 120, n), unit="D"),
            "touchpoint": np.where(rng.random(n) < np.where(unhappy, 0.4, 0.1), "complaint", "visit"),
        }
    )
    journeys = pack(log)
    cutoffs = pd.date_range("2024-02-15", periods=3, freq="30D")
    customers = np.tile(np.arange(journeys.n_customers), len(cutoffs))
    snapshots = journeys.at(np.repeat(cutoffs, journeys.n_customers), customers)
    remaining = np.array([int(name) % 3 == 0 for name in snapshots.customer_ids])
    return snapshots, (rng.random(len(snapshots)) < np.where(remaining, 0.7, 0.2)).astype(float)


@pytest.fixture(scope="module")
def model(rows: tuple[Snapshots, np.ndarray]) -> GBDT:
    return GBDT(GBDTSettings(members=2, learning_rate=0.1)).fit(*rows)


def test_learns_and_is_calibrated(model: GBDT, rows: tuple[Snapshots, np.ndarray]) -> None:
    snapshots, y = rows
    p = model.predict(snapshots)
    assert p[y == 1].mean() > p[y == 0].mean() + 0.1
    assert p.mean() == pytest.approx(y.mean(), abs=0.03)
    assert ((p > 0) & (p < 1)).all()


def test_keeps_the_contract(model: GBDT) -> None:
    assert isinstance(model, Model)
    assert isinstance(model, Explainer)
    assert isinstance(model, FeatureModel)


def test_saved_and_loaded_gives_the_same_bits(model: GBDT, rows: tuple[Snapshots, np.ndarray], tmp_path: Path) -> None:
    again = load_model(save_model(model, tmp_path / "m"))
    assert (again.predict(rows[0]) == model.predict(rows[0])).all()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".txt"}


def test_same_seed_same_numbers(model: GBDT, rows: tuple[Snapshots, np.ndarray]) -> None:
    twin = GBDT(GBDTSettings(members=2, learning_rate=0.1)).fit(*rows)
    assert (twin.predict(rows[0]) == model.predict(rows[0])).all()


def test_a_batch_of_one_equals_a_batch_of_many(model: GBDT, rows: tuple[Snapshots, np.ndarray]) -> None:
    subset = np.arange(0, len(rows[0]), 97)
    single = np.concatenate([model.predict(rows[0].take(np.array([row]))) for row in subset])
    assert (single == model.predict(rows[0].take(subset))).all()


def test_reasons_add_up_and_point_the_right_way(model: GBDT, rows: tuple[Snapshots, np.ndarray]) -> None:
    snapshots = rows[0].take(np.arange(40))
    everything = model.reasons(snapshots, top=100)
    margins = model._margins(model.features_.transform(snapshots))
    sums = np.array([sum(reason.contribution for reason in why) for why in everything])
    assert np.ptp(margins - sums) < 1e-6  # the same base value for all
    unhappy = np.array([int(name) % 3 == 0 for name in snapshots.customer_ids])
    assert sums[unhappy].mean() > sums[~unhappy].mean() + 0.3
    assert all(abs(why[0].contribution) >= abs(why[-1].contribution) for why in everything if why)
    assert model.reasons(snapshots, top=1)[0] == everything[0][:1]


def test_importance_is_of_all_features_and_sums_to_one(model: GBDT) -> None:
    table = model.feature_table()
    assert list(table["name"]) == list(model.features_.get_feature_names_out())
    assert table["importance"].sum() == pytest.approx(1)
    assert table["meaning"].str.len().min() > 0


def test_one_cutoff_and_one_member_are_enough(rows: tuple[Snapshots, np.ndarray]) -> None:
    first = np.flatnonzero(rows[0].cutoff == rows[0].cutoff.min())
    fitted = make("gbdt", {"members": 1, "learning_rate": 0.1}).fit(rows[0].take(first), rows[1][first])
    assert np.isfinite(fitted.predict(rows[0])).all()


class Middle:
    """A trial that takes the first choice and the middle of every range."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int:
        return (low + high) // 2

    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float:
        return (low + high) / 2

    def suggest_categorical(self, name: str, choices: list[object]) -> object:
        return choices[0]


def test_every_suggestion_is_a_setting() -> None:
    built = make("gbdt", search_space("gbdt", Middle()))
    assert isinstance(built, GBDT)
    assert search_space("rfm", Middle()) == {}

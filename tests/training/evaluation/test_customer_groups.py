"""Groups of customers: slices that every log has, columns that the user names, and what is surely off."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from features.events.schema import EventSchema
from features.journeys.packing import pack
from features.simulation.simulator import simulate
from training.evaluation.customer_groups import (
    COLUMNS,
    customer_slices,
    group_table,
    profile_groups,
    quarters,
    sentences,
)


def drawn(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Calibrated predictions: labels, probabilities, customers with a row each."""
    rng = np.random.default_rng(seed)
    p = rng.uniform(0.05, 0.95, n)
    return (rng.random(n) < p).astype(np.int8), p, np.arange(n)


def test_a_group_by_hand() -> None:
    y, p = np.array([1, 0, 1, 0, 1, 0]), np.array([0.8, 0.2, 0.6, 0.4, 0.3, 0.7])
    table = group_table({"plan": ["a", "a", "a", "a", "b", "b"]}, y, p, np.arange(6), n_boot=50)
    first, second = table.to_dict("records")
    assert tuple(table.columns) == COLUMNS
    assert (first["group"], first["n_rows"], first["base_rate"]) == ("a", 4, 0.5)
    assert first["mean_prediction"] == pytest.approx(0.5)
    assert (first["auroc"], second["auroc"]) == (1.0, 0.0)
    assert (first["auroc_of_others"], first["auroc_difference"]) == (0.0, 1.0)
    assert sentences(table) == [], "six customers say nothing surely"


def test_calibrated_groups_are_rarely_flagged() -> None:
    told = 0
    for seed in range(20):
        y, p, who = drawn(800, seed)
        groups = np.random.default_rng(seed + 100).integers(0, 5, 800)
        told += bool(sentences(group_table({"country": groups.astype(str)}, y, p, who, n_boot=100, seed=seed)))
    assert told <= 3, "a table is wrong in 5 of 100"


def test_sentences_on_groups_that_are_off() -> None:
    y, p, who = drawn(2_000)
    groups = np.where(who % 2 == 0, "north", "south")
    off = np.where(groups == "south", np.clip(p + 0.2, 0, 1), p)
    table = group_table({"region": groups}, y, off, who, n_boot=100)
    (said,) = sentences(table)
    assert said.startswith("region 'south': probabilities are surely too high (")
    rng = np.random.default_rng(1)
    blind = np.where(groups == "south", rng.permutation(p), p)
    said = " ".join(sentences(group_table({"region": groups}, y, blind, who, n_boot=100)))
    assert "region 'south': they are surely ranked worse than the others" in said
    assert "region 'north': they are surely ranked better than the others" in said


def test_groups_without_positives_are_not_flagged() -> None:
    y, p, who = drawn(1_000)
    groups = np.where(who < 40, "few", "rest")
    y, p = np.where(who < 40, 0, y), np.where(who < 40, 0.03, p)  # 40 × .03: no positive in 3 of 10 draws
    assert sentences(group_table({"plan": groups}, y, p, who, n_boot=100)) == []


def test_quarters_come_from_training() -> None:
    names = quarters(np.array([1.0, 30.0, 99.0, np.nan]), "days", learnt_from=np.arange(101, dtype=np.float64))
    assert names.tolist() == ["1. below 25 days", "2. 25 to 50 days", "4. 75 and more days", "unknown"]


def test_slices_and_profile_groups_of_simulated_journeys() -> None:
    events = simulate(n_customers=200, days=200, seed=5).events
    journeys = pack(events, EventSchema(profile=("country", "plan")))
    last = int(journeys.t.max())
    train, test = journeys.at(np.int64(last - 60 * 86_400_000_000)), journeys.at(np.int64(last))
    train = train.take(train.stop > train.start)
    found = customer_slices(train, test)
    assert set(found) == {"tenure", "segment", "value", "channel"}
    assert {len(names) for names in found.values()} == {len(test)}
    groups = profile_groups(test, ["country", "value", "no_such_column"])
    assert set(groups) == {"country", "value"}
    assert set(groups["country"]) <= {*journeys.categories["country"].names, "unknown", "other"}


def test_rare_values_are_pooled() -> None:
    rows = [(f"c{place:02d}", f"plan {place if place < 20 else place % 3}") for place in range(80)]
    events = pd.DataFrame(rows, columns=["customer_id", "plan"])
    events = events.assign(timestamp=pd.Timestamp("2024-01-01"), touchpoint="visit")
    journeys = pack(events, EventSchema(profile=("plan",)))
    groups = profile_groups(journeys.at("2024-02-01"), ["plan"])["plan"]
    assert len(set(groups)) == 9
    assert {"other", "plan 0", "plan 1", "plan 2"} <= set(groups)


@pytest.mark.parametrize("one_sided", [0, 1])
def test_one_class_only_is_no_error(one_sided: int) -> None:
    table = group_table({"a": ["x"] * 40}, np.full(40, one_sided), np.full(40, 0.5), np.arange(40), n_boot=20)
    assert np.isnan(table["auroc"].iloc[0])

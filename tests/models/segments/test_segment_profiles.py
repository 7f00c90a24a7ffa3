"""Profiles of segments on a log small enough to work out by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from features.journeys.journeys import Journeys, Snapshots
from features.journeys.packing import pack
from models.segments.contract import Segment
from models.segments.insight.profiles import (
    current_rows,
    earlier_rows,
    growth_words,
    last_rows,
    segment_profiles,
    summarise_rows,
)

SEGMENTS = (Segment("s01", "Rich"), Segment("s02", "Poor"), Segment("s03", "Nobody"))
DAY = pd.Timedelta(days=1)
FIRST = pd.Timestamp("2024-03-01")


@pytest.fixture
def journeys() -> Journeys:
    rows = [
        ("ann", 0, 100.0, 5),
        ("ann", 1, 50.0, np.nan),
        ("ann", 40, 10.0, 1),
        ("bob", 2, 300.0, np.nan),
        ("cid", 3, 1.0, 4),
        ("dee", 5, np.nan, np.nan),
    ]
    return pack(
        pd.DataFrame(
            {
                "customer_id": [who for who, *_ in rows],
                "timestamp": [FIRST + days * DAY for _, days, *_ in rows],
                "touchpoint": "purchase",
                "value": [value for *_, value, _ in rows],
                "satisfaction": [float(score) for *_, score in rows],
            }
        )
    )


def at(journeys: Journeys, *days: int) -> Snapshots:
    """Everybody at each of the days, customer by customer."""
    n = journeys.n_customers
    cutoffs = np.tile([(FIRST + d * DAY).to_datetime64() for d in days], n)
    return journeys.at(cutoffs, np.repeat(np.arange(n), len(days)))


def test_what_rows_say(journeys: Journeys) -> None:
    figures = summarise_rows(at(journeys, 41))
    assert figures.value.tolist() == [160, 300, 1, 0]
    assert figures.events.tolist() == [3, 1, 1, 1]
    assert figures.active_days.tolist() == [3, 1, 1, 1]
    assert figures.recency_days.tolist() == [1, 39, 38, 36]
    assert figures.scores.tolist() == [2, 0, 1, 0]
    assert figures.score_sum.tolist() == [6, 0, 4, 0]
    assert summarise_rows(at(journeys, 41), value_days=39.5).value.tolist() == [10, 300, 1, 0]


def test_a_row_without_events_says_nothing(journeys: Journeys) -> None:
    figures = summarise_rows(journeys.at(FIRST + 2 * DAY, [-1, 1]))
    assert figures.value.tolist() == [0, 0]
    assert figures.active_days.tolist() == [0, 0]
    assert np.isnan(figures.recency_days).all()


def test_a_profile_by_hand(journeys: Journeys) -> None:
    snapshots = at(journeys, 20, 41)  # ann, ann, bob, bob, cid, cid, dee, dee
    place = [0, 0, 1, 0, 1, 1, 1, -1]
    churned = [1, np.nan, 0, np.nan, 1, np.nan, np.nan, np.nan]
    profiles = segment_profiles(SEGMENTS, snapshots, place, {"churn": churned})
    table = profiles.table
    assert table["id"].tolist() == ["s01", "s02", "s03"]
    assert table["customers"].tolist() == [2, 1, 0]
    assert table["share"].tolist() == [0.5, 0.25, 0]
    assert table["customers_before"].tolist() == [1, 3, 0]
    assert table["growth"].tolist() == pytest.approx([1.0, -2 / 3, np.nan], nan_ok=True)
    assert table["growth_words"][1] == "shrank from 3 to 1 customers in 21 days (−66.7 %)"
    assert table["value_mean"].tolist() == pytest.approx([230, 1, np.nan], nan_ok=True)
    assert table["value_median"][0] == 230
    assert table["satisfaction"].tolist() == pytest.approx([3, 4, np.nan], nan_ok=True)
    assert table["churn_rate"].tolist() == pytest.approx([1.0, 0.5, np.nan], nan_ok=True)
    assert table["churn_customers"].tolist() == [1, 2, 0]
    assert table["churn_rate_low"][1] == pytest.approx(0.0945, abs=1e-4)
    assert profiles.notes == ("1 of 4 customers (25.0%) are in no segment.",)


def test_rows_are_chosen_by_cutoff_or_by_customer(journeys: Journeys) -> None:
    shared = at(journeys, 20, 41)
    assert current_rows(shared).tolist() == [1, 3, 5, 7]
    assert earlier_rows(shared).tolist() == [0, 2, 4, 6]
    own = journeys.at((FIRST + pd.to_timedelta([10, 5, 7, 9], "D")).to_numpy(), [0, 0, 1, 2])
    assert current_rows(own).tolist() == last_rows(own).tolist() == [0, 2, 3]
    profiles = segment_profiles(SEGMENTS, own, [0, 0, 0, 0], earlier=[1])
    assert profiles.table["growth"][0] == 2.0


def test_notes_name_what_is_missing() -> None:
    bare = pack(pd.DataFrame({"customer_id": ["a"], "timestamp": [FIRST], "touchpoint": ["view"]}))
    profiles = segment_profiles(SEGMENTS[:1], bare.at(FIRST + DAY), [0])
    notes = " ".join(profiles.notes)
    assert all(word in notes for word in ("growth", "no values", "no satisfaction", "no labels"))
    assert np.isnan(profiles.table["value_mean"][0])
    assert profiles.table["events_median"][0] == 1


def test_growth_in_words() -> None:
    assert growth_words(5, float("nan"), 1.0) == "5 customers; an earlier count is unknown"
    assert growth_words(5, 0.0, 14.0) == "new: 5 customers, none 14 days before"
    assert growth_words(5, 5.0, 14.0) == "unchanged at 5 customers in 14 days"


@pytest.mark.parametrize(
    ("place", "labels", "said"),
    [
        ([0], {}, "8 snapshots and 1 places"),
        ([3] * 8, {}, "there are 3 segments"),
        ([0] * 8, {"churn": [2] * 8}, "labels 'churn' must be 0, 1 or NaN"),
    ],
)
def test_what_does_not_fit_is_refused(
    journeys: Journeys, place: list[int], labels: dict[str, list[int]], said: str
) -> None:
    with pytest.raises(DataError, match=said):
        segment_profiles(SEGMENTS, at(journeys, 20, 41), place, labels)

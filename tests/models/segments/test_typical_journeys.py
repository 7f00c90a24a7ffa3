"""Typical journeys: nearest to the centre, readable, and nothing in them that tells who it was."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from models.segments.contract import Segment
from models.segments.insight.typical_journeys import JourneySettings, journey_texts, medoids, typical_journeys

SEGMENTS = (Segment("s01", "Many"), Segment("s02", "Few"))
FIRST = pd.Timestamp("2024-03-01 08:13:27")
SETTINGS = JourneySettings(per_segment=1, fewest_customers=3, highest_share=0.9)


def log(lines: list[tuple[str, float, str, str, float]]) -> Journeys:
    """(customer, days, touchpoint, channel, value)."""
    columns = dict(
        zip(("customer_id", "days", "touchpoint", "channel", "value"), zip(*lines, strict=True), strict=True)
    )
    events = pd.DataFrame(columns)
    events["timestamp"] = FIRST + pd.to_timedelta(events.pop("days"), unit="D")
    events["item"] = "Ms Smith's ring"
    return pack(events)


@pytest.fixture
def journeys() -> Journeys:
    lines = []
    for n, who in enumerate(("ann-4711", "bob", "cid", "dee")):
        lines += [(who, n, "view", "web", np.nan)] * (12 + n)
        lines += [(who, n + 3, "purchase", "app", 23.17 if n else 9000.0)]
        lines += [(who, n + 31, "return", "web", -7.3)]
    lines += [("dee", 40, "letter to the queen", "pigeon", np.nan), ("eve", 0, "view", "web", np.nan)]
    return log(lines)


def test_medoids_are_nearest_to_the_mean() -> None:
    space = np.array([[0.0], [1], [2], [9], [8], [np.nan]])
    found = medoids(space, [0, 0, 0, 1, 1, 1], 3, 2)
    assert [rows.tolist() for rows in found] == [[1, 0], [3, 4], []]
    with pytest.raises(DataError, match="one point for each row"):
        medoids(space, [0], 1, 1)


def test_a_journey_reads_well(journeys: Journeys) -> None:
    snapshots = journeys.at(FIRST + pd.Timedelta(days=90))
    space = np.array([[5.0], [0], [-1], [-2], [3]])
    lines = typical_journeys(space, snapshots, [0, 0, 0, 0, 1], SEGMENTS, SETTINGS)
    assert lines["segment_id"].unique().tolist() == ["s01"]  # one customer is too few to show
    assert journey_texts(lines) == {
        "s01": [
            "start: view (web) × 10\n3 days later: purchase (app), worth about 20\n"
            "about 4 weeks later: return (web), about 7 returned"
        ]
    }
    assert lines["days_since_start"].tolist() == [0, 3, 28]
    assert lines["times"].tolist() == [10, 1, 1]


def test_nothing_says_who_it_was(journeys: Journeys) -> None:
    snapshots = journeys.at(FIRST + pd.Timedelta(days=90))
    settings = JourneySettings(per_segment=4, fewest_customers=3, highest_share=0.75)
    shown = typical_journeys(np.zeros((5, 1)), snapshots, [0] * 5, SEGMENTS, settings).to_csv()
    for secret in ("ann-", "4711", "bob", "9000", "9,000", "23.17", "2024", "08:", "Smith", "queen", "pigeon"):
        assert secret not in shown
    assert "worth over 20" in shown
    assert "other" in shown


def test_the_middle_of_a_long_journey_is_summed_up() -> None:
    journeys = log([(who, day, f"step {day % 2}", "web", np.nan) for who in "abc" for day in range(40)])
    snapshots = journeys.at(FIRST + pd.Timedelta(days=90))
    settings = JourneySettings(per_segment=1, most_lines=7, fewest_customers=2)
    lines = typical_journeys(np.zeros((3, 1)), snapshots, [0] * 3, SEGMENTS, settings)
    assert len(lines) == 7
    assert lines["text"][2] == "… about 30 more events …"
    assert lines["line"].tolist() == [1, 2, 3, 4, 5, 6, 7]
    assert lines["text"][3] == "1 day later: step 0 (web)"
    assert lines["days_since_start"][3] == 35  # told in weeks by then


def test_customers_without_events_or_channels() -> None:
    events = pd.DataFrame({"customer_id": list("abc"), "timestamp": [FIRST] * 3, "touchpoint": "view"})
    journeys = pack(events)
    before = typical_journeys(np.zeros((3, 1)), journeys.at(FIRST), [0] * 3, SEGMENTS, SETTINGS)
    assert before.empty
    assert "text" in before
    after = typical_journeys(np.zeros((3, 1)), journeys.at(FIRST + pd.Timedelta(days=1)), [0] * 3, SEGMENTS, SETTINGS)
    assert after["text"].tolist() == ["start: view"]
    with pytest.raises(DataError, match="one point for each row"):
        typical_journeys(np.zeros((2, 1)), journeys.at(FIRST), [0] * 3, SEGMENTS)

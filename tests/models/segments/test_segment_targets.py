"""The target table and the health report."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError

from features.errors import ConfigError
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from models.segments.contract import Segment
from models.segments.insight.profiles import segment_profiles
from models.segments.insight.targets import Goal, TargetSettings, health_report, reachable_by, target_table

SEGMENTS = (Segment("s01", "Rich"), Segment("s02", "Poor"))
FIRST = pd.Timestamp("2024-03-01")


@pytest.fixture
def journeys() -> Journeys:
    rows = [
        ("ann", 0, "view", "E-Mail"),
        ("ann", 290, "purchase", "store"),
        ("bob", 280, "push_opened", "App"),
        ("cid", 281, "view", "web"),
        ("cid", 300, "phone_call", "call centre"),
        ("dee", 250, "newsletter_click", "web"),
    ]
    events = pd.DataFrame(rows, columns=["customer_id", "days", "touchpoint", "channel"])
    events["timestamp"] = FIRST + pd.to_timedelta(events.pop("days"), unit="D")
    return pack(events.assign(value=[np.nan, 100.0, 60.0, np.nan, np.nan, 2.0]))


def test_who_can_be_reached(journeys: Journeys) -> None:
    snapshots = journeys.at(FIRST + pd.Timedelta(days=300))  # cid calls just then
    reached = reachable_by(snapshots, TargetSettings())
    assert reached.to_dict("list") == {
        "e-mail": [False, False, False, True],
        "app": [False, True, False, False],
        "phone": [False] * 4,
    }
    longer = reachable_by(snapshots, TargetSettings(within_days=400))
    assert longer["e-mail"].tolist() == [True, False, False, True]
    assert list(reachable_by(snapshots, TargetSettings(ways={"store": ("STORE",)}))) == ["store"]


def test_a_table_for_choosing(journeys: Journeys) -> None:
    snapshots = journeys.at(FIRST + pd.Timedelta(days=300))
    place = [0, 0, 1, 1]
    profiles = segment_profiles(SEGMENTS, snapshots, place, {"conversion": [1, 0, 0, 0]}).table
    table = target_table(profiles, SEGMENTS, snapshots, place)
    assert table["id"].tolist() == ["s01", "s02"]
    assert table["value_total"].tolist() == [160, 2]
    assert table["reachable"].tolist() == [0.5, 0.5]
    assert table["reachable_value"].tolist() == [80, 1]
    assert table["by_app"].tolist() == [0.5, 0]
    assert table["conversion_rate"].tolist() == [0.5, 0]
    assert table["words"][0] == "2 customers (50%), worth 80 each, 50% reachable (app 50%)"


def test_a_log_without_such_channels_does_not_say(journeys: Journeys) -> None:
    snapshots = journeys.at(FIRST + pd.Timedelta(days=300))
    profiles = segment_profiles(SEGMENTS, snapshots, [0, 0, 1, 1]).table
    table = target_table(profiles, SEGMENTS, snapshots, [0, 0, 1, 1], TargetSettings(ways={"fax": ("fax",)}))
    assert table[["reachable", "reachable_low", "reachable_value"]].isna().all(axis=None)
    assert table["words"][0] == "2 customers (50%), worth 80 each"


@pytest.fixture
def profiles() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": ["s01", "s02", "s03"],
            "name": ["Rich", "Poor", "New"],
            **{"churn_rate": [0.2, 0.5, 0.32], "churn_rate_low": [0.1, 0.4, 0.2], "churn_rate_high": [0.28, 0.6, 0.5]},
            **{"value_mean": [900.0, 40.0, np.nan], "value_low": [700.0, 30.0, np.nan]},
            "value_high": [1200.0, 55.0, np.nan],
        }
    )


def test_what_fell_short_comes_first(profiles: pd.DataFrame) -> None:
    report = health_report(profiles, [Goal(metric="churn", at_most=0.3)])
    assert report["segment_id"].tolist() == ["s02", "s03", "s01"]
    assert report["status"].tolist() == ["fell short", "probably fell short", "met"]
    assert report["short_by"].tolist() == pytest.approx([0.2, 0.02, 0])
    assert report["sentence"][0] == (
        "Poor fell short of churn rate at most 30.0 %: it is 50.0 % (95 % 40.0 % to 60.0 %), 20.0 points off."
    )


def test_a_goal_for_one_segment_by_id_or_name(profiles: pd.DataFrame) -> None:
    goals = [
        Goal(metric="value", at_least=50, segment="Poor"),
        Goal(metric="value", at_least=800, segment="s01"),
        Goal(metric="value", at_least=1, segment="New"),
        Goal(metric="satisfaction", at_least=4, segment="s01"),
    ]
    report = health_report(profiles, goals)
    assert report["status"].tolist() == ["probably fell short", "unknown", "unknown", "probably met"]
    assert report["short_by"][0] == 10
    assert report["sentence"][3] == "Rich probably met value per customer at least 800: it is 900 (95 % 700 to 1,200)."
    with pytest.raises(ConfigError, match="did you mean 'Poor'"):
        health_report(profiles, [Goal(metric="value", at_least=1, segment="Pour")])


def test_no_goals_no_report(profiles: pd.DataFrame) -> None:
    assert health_report(profiles, []).empty


@pytest.mark.parametrize(
    "wrong",
    [
        {"metric": "churn"},
        {"metric": "churn", "at_least": 0.1, "at_most": 0.2},
        {"metric": "churn", "at_most": 30},
        {"metric": "joy", "at_most": 1},
        {"metric": "churn", "at_mots": 0.3},
    ],
)
def test_a_wrong_goal_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Goal(**wrong)  # type: ignore[arg-type]

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.conditions.conditions import MeasureCondition, read_condition, read_measure
from features.conditions.measures import SnapshotView
from features.conditions.selections import Selection, number, percent
from features.conditions.thresholds import top_threshold
from features.errors import ConfigError, DataError
from features.events.schema import EventSchema
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from features.tabular.features import TabularFeatures

CUTOFF = "2024-06-01"
# customer, days before the cutoff, touchpoint, channel, stage, item, value, satisfaction
ROWS = [
    ("ann", 100.0, "visit", "web", "awareness", None, None, None),
    ("ann", 50.0, "purchase", "web", "purchase", "red", 10.0, None),
    ("ann", 50.0, "purchase", "web", "purchase", "blue", 20.0, None),
    ("ann", 20.0, "purchase", "app", "purchase", "red", 30.0, None),
    ("ann", 10.0, "complaint", "email", "post", None, None, 2.0),
    ("ann", 0.0, "purchase", "web", "purchase", "red", 500.0, None),  # at the cutoff: not seen
    ("bob", 40.0, "pricing", "web", "awareness", None, None, None),
    ("bob", 30.0, "support_call", "phone", "post", None, None, 1.0),
    ("bob", 30.0, "support_mail", "email", "post", None, None, 4.0),
    ("cat", 200.0, "visit", "app", "awareness", None, None, None),
    ("dan", -5.0, "visit", "app", "awareness", None, None, None),  # after the cutoff: an empty journey
]
SCHEMA = EventSchema(profile=("country",), profile_numeric=("age",))
COUNTRY = {"ann": "GB", "bob": "DE", "cat": None, "dan": "GB"}
AGE = {"ann": 40.0, "bob": 20.0, "cat": np.nan, "dan": 70.0}


def log(rows: list[tuple[Any, ...]] = ROWS) -> Journeys:
    columns = ["customer_id", "ago", "touchpoint", "channel", "stage", "item", "value", "satisfaction"]
    events = pd.DataFrame(rows, columns=columns)
    events["timestamp"] = pd.Timestamp(CUTOFF) - pd.to_timedelta(events.pop("ago"), unit="D")
    events["country"], events["age"] = events.customer_id.map(COUNTRY), events.customer_id.map(AGE)
    events = events.astype({"value": float, "satisfaction": float, "age": float, "item": object})
    return pack(events.sort_values(["customer_id", "timestamp"], kind="stable"), SCHEMA)


JOURNEYS = log()
VIEW = SnapshotView(JOURNEYS.at(CUTOFF))
NAN = np.nan


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"days_with": ["purchase"]}, [2, 0, 0, 0]),
        ({"days_with": "*"}, [4, 2, 1, 0]),
        ({"sum": "value"}, [60, 0, 0, 0]),
        ({"sum": "value", "within_days": 50}, [60, 0, 0, 0]),
        ({"sum": "value", "within_days": 49}, [30, 0, 0, 0]),
        ({"sum": "value", "skip_last_days": 20}, [30, 0, 0, 0]),
        ({"sum": "value", "items": "red"}, [40, 0, 0, 0]),
        ({"sum": "value", "value_at_least": 20, "value_at_most": 25}, [20, 0, 0, 0]),
        ({"mean": "value"}, [20, NAN, NAN, NAN]),
        ({"lowest": "satisfaction"}, [2, 1, NAN, NAN]),
        ({"highest": "satisfaction"}, [2, 4, NAN, NAN]),
        ({"latest": "value"}, [30, NAN, NAN, NAN]),
        ({"per_day": "value", "events": ["purchase"]}, [30, NAN, NAN, NAN]),
        ({"last": "*"}, [10, 30, 200, NAN]),
        ({"first": ["purchase", "pricing"]}, [50, 40, NAN, NAN]),
        ({"last": "*", "channels": ["app"]}, [20, NAN, 200, NAN]),
        ({"gap": "*"}, [30, 10, NAN, NAN]),
        ({"overdue": "*"}, [10 / 30, 30 / 10, NAN, NAN]),
        ({"overdue": "*", "usual_days": 20}, [10 / (110 / 4), 30 / (30 / 2), 200 / 20, NAN]),
        ({"share": ["purchase"]}, [3 / 5, 0, 0, NAN]),
        ({"share": ["purchase"], "of": ["purchase", "complaint"], "within_days": 20}, [1 / 2, NAN, NAN, NAN]),
        ({"share": "*", "channels": ["web"]}, [3 / 5, 1 / 3, 0, NAN]),
        ({"ratio": [{"sum": "value", "within_days": 30}, {"sum": "value"}]}, [1 / 2, NAN, NAN, NAN]),
        ({"profile": "age"}, [40, 20, NAN, NAN]),
    ],
)
def test_measures_by_hand(table: dict[str, Any], expected: list[float]) -> None:
    np.testing.assert_allclose(VIEW.values(read_measure(table).measure()), expected)


HOLDS: list[tuple[dict[str, Any], str, str]] = [
    ({"events": ["purchase"]}, "ann", "at least 1 event 'purchase'"),
    (
        {"events": ["support_*"], "within_days": 30, "exactly": 2},
        "bob",
        "exactly 2 events 'support_*' in the last 30 days",
    ),
    ({"events": ["support_*"], "exactly": 0}, "ann cat dan", "no event 'support_*'"),
    ({"events": "*", "more_than": 0, "less_than": 4}, "bob cat", "more than 0 and less than 4 events"),
    ({"stages": ["post"], "satisfaction_at_most": 1}, "bob", "satisfaction of at most 1"),
    ({"events": "*", "satisfaction_at_least": 3}, "bob", "satisfaction of at least 3"),
    ({"events": "purchase", "since": "2024-05-10", "until": "2024-05-20"}, "ann", "from 2024-05-10 before 2024-05-20"),
    ({"events": "purchase", "since": "2024-05-20"}, "", "from 2024-05-20"),
    ({"events": "*", "months": ["nov", 2]}, "ann cat", "in November or February"),
    ({"events": "purchase", "weekdays": ["sunday"]}, "ann", "on Sunday"),  # 12 May 2024
    ({"events": "*", "within_days": 45, "skip_last_days": 35}, "bob", "between 45 and 35 days ago"),
    ({"last": ["*"], "more_than_days": 29}, "bob cat", "the last event was more than 29 days ago"),
    (
        {"last": ["purchase"], "at_least_days": 20, "at_most_days": 20},
        "ann",
        "at least 20 days ago and at most 20 days",
    ),
    ({"last": ["purchase"], "more_than_days": 30, "or_never": True}, "bob cat dan", "or never happened"),
    ({"last": ["pricing"], "not_followed_by": ["purchase"]}, "bob", "not followed by 'purchase'"),
    ({"last": ["pricing"], "followed_by": ["support_*"]}, "bob", "followed by 'support_*'"),
    ({"first": ["visit"], "followed_by": ["purchase"], "less_than_days": 101}, "ann", "less than 101 days ago"),
    ({"sum": "value", "at_least": 60}, "ann", "the sum of value is at least 60"),
    ({"mean": "satisfaction", "at_most": 2.5}, "ann bob", "the mean of satisfaction is at most 2.5"),
    ({"share": ["purchase"], "at_least": 0.6}, "ann", "is at least 60 %"),
    ({"profile": "country", "equals": "GB"}, "ann", "country is 'GB'"),
    ({"profile": "country", "one_of": ["G*", "DE"]}, "ann bob", "country is 'G*' or 'DE'"),
    ({"profile": "country", "unknown": True}, "cat dan", "country is unknown"),
    ({"profile": "age", "more_than": 20}, "ann", "age is more than 20"),
    ({"profile": "age", "equals": 20}, "bob", "age is '20'"),
    ({"profile": "stage", "equals": "post"}, "ann bob", "stage is 'post'"),
    ({"dominant": "channel", "equals": "web", "min_share": 0.6}, "ann", "at least 60 % of the customer's"),
    ({"not": {"events": ["visit"]}}, "bob dan", "not (at least 1 event 'visit')"),
    ({"all": [{"events": "visit"}, {"not": {"events": "purchase"}}]}, "cat", "'visit' and not ("),
    ({"any": [{"events": "pricing"}, {"events": "complaint"}]}, "ann bob", "'pricing' or at least 1 event 'complaint'"),
    ({"gap": ["*"], "at_most": 10}, "bob", "at most 10 days"),
    ({"overdue": ["*"], "more_than": 2}, "bob", "is more than 2"),
    ({"events": ["never_seen"]}, "", "'never_seen'"),
]


@pytest.mark.parametrize(("table", "who", "told"), HOLDS)
def test_conditions_by_hand(table: dict[str, Any], who: str, told: str) -> None:
    condition = read_condition(table)
    flags = condition.holds(VIEW)
    assert " ".join(JOURNEYS.customer_ids.filter(flags).to_pylist()) == who
    assert told in condition.words()


@pytest.mark.parametrize("table", [table for table, _, _ in HOLDS])
def test_conditions_round_trip(table: dict[str, Any]) -> None:
    condition = read_condition(table)
    again = read_condition(json.loads(json.dumps(condition.toml())))
    assert again == condition
    assert again.words() == condition.words()


def test_top_share_threshold() -> None:
    condition = read_condition({"sum": "value", "top_share": 0.25})
    with pytest.raises(ConfigError, match="not learnt yet"):
        condition.holds(VIEW)
    fit = condition.fit(VIEW)
    assert fit.holds(VIEW).tolist() == [True, False, False, False]
    assert fit.words() == "the sum of value is in the top 25 % of customers (at least 60)"
    assert read_condition(fit.toml()) == fit
    assert top_threshold(np.array([0.0, 0, 0, 0, 5, 9]), 0.5) == 5
    assert top_threshold(np.array([7.0, 7, 7]), 0.1) == 7
    low = read_condition({"last": ["*"], "bottom_share": 0.34}).fit(VIEW)
    assert low.holds(VIEW).tolist() == [True, False, False, False]
    with pytest.raises(DataError, match="no customer in training has the mean of value"):
        read_condition({"mean": "value", "top_share": 0.5}).fit(SnapshotView(JOURNEYS.at("2020-01-01")))


def test_quantile_scores() -> None:
    rows = [(f"c{i}", float(i + 1), "purchase", "web", "s", None, 10.0 * (i + 1), None) for i in range(10)]
    view = SnapshotView(log([*rows, ("none", 5.0, "visit", "web", "s", None, None, None)]).at(CUTOFF))
    value = read_condition({"score": {"sum": "value"}, "at_least": 1}).fit(view)
    assert isinstance(value, MeasureCondition)
    assert view.values(value.measure()).tolist() == [1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 1]
    both = read_condition({"score": [{"sum": "value"}, {"last": ["purchase"]}], "exactly": 3}).fit(view)
    assert isinstance(both, MeasureCondition)
    assert view.values(both.measure())[:10].tolist() == [3] * 10  # recent ones spent little: 1 and 5, 2 and 4 …
    assert np.isnan(view.values(both.measure())[10])
    assert "rises above 20, 40, 60, 80" in both.words()
    assert "falls above 2 days, 4 days, 6 days, 8 days" in both.words()


def test_dominant_value() -> None:
    groups = {"warm": ["red", "orange"], "cold": ["blue"]}
    table = {"dominant": "item", "equals": "cold", "groups": groups, "min_lift": 0.5}
    condition = read_condition({**table, "at_least_events": 1}).fit(VIEW)
    assert condition.holds(VIEW).sum() == 0  # ann's share of each is everybody's: the first group is taken
    assert read_condition({**table, "equals": "warm"}).fit(VIEW).holds(VIEW).tolist() == [True, False, False, False]
    assert "everybody's share of 33.33 %" in condition.words()


def test_feature_condition() -> None:
    snapshots = JOURNEYS.at(CUTOFF)
    features = TabularFeatures(min_count=1, drop_redundant=False).fit(snapshots).select(["recency_days"])
    condition = read_condition({"feature": "recency_days", "at_least": 30}).fit(SnapshotView(snapshots, features))
    assert condition.holds(SnapshotView(snapshots, features)).tolist() == [False, True, True, False]
    assert condition.words() == "feature 'recency_days' (days since the last event) is at least 30"
    with pytest.raises(ConfigError, match="needs fitted tabular features"):
        condition.holds(VIEW)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"evnts": ["a"]}, "unknown key 'evnts'; did you mean 'events'?"),
        ({"events": ["a"], "within_day": 3}, "unknown key 'within_day'; did you mean 'within_days'?"),
        (
            {"any": [{"all": [{"last": ["x"], "mre_than_days": 3}]}]},
            "any.0: all.0: unknown key 'mre_than_days'; did you",
        ),
        ({"all": {"events": "a"}}, "'all' takes a list of conditions"),
        ({"any": []}, "'any' is empty"),
        ({"all": [{"events": "a"}], "events": "b"}, "'all' stands alone, but 'events' stands beside it"),
        ({"not": [{"events": "a"}]}, "a condition is a table"),
        ({"all": [5]}, "all.0: a condition is a table"),
        ({"sum": "value"}, "the sum of value is compared with nothing: add one of at_least"),
        ({"sum": "value", "mean": "value", "at_least": 1}, "'sum' and 'mean' in one condition"),
        ({"last": "a", "more_than": 3}, "write 'more_than_days'"),
        ({"last": "a", "events": "b", "more_than_days": 3}, "'last' says which events are meant"),
        ({"events": "a", "top_share": 20}, "a share between 0 and 1"),
        ({"events": []}, "the list is empty"),
        ({"events": "a", "within_days": -1}, "within_days: input should be greater than 0"),
        ({"events": "a", "within_days": 3, "skip_last_days": 3}, "skip_last_days must be less than within_days"),
        ({"events": "a", "months": ["brumaire"]}, "months: unknown name 'brumaire'"),
        ({"profile": "country"}, "profile 'country': give equals, one_of"),
        ({"dominant": "item", "equals": "a", "groups": {"b": ["b"]}}, "'a' is none of the groups b"),
        ({"ratio": [{"sum": "value", "at_least": 1}, {"sum": "value"}], "at_least": 1}, "without a comparison"),
        ({}, "a condition is empty"),
    ],
)
def test_mistakes_get_clear_errors(table: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        read_condition(table)
    assert sentence in str(error.value)
    assert "\n" not in str(error.value)


def test_numbers_keep_every_digit() -> None:
    assert [number(x) for x in (60, 12345.678, 1e-7, 0.1, -1000.0)] == [
        "60",
        "12,345.678",
        "0.0000001",
        "0.1",
        "-1,000",
    ]
    assert [percent(x) for x in (0.2, 0.125, 0.07)] == ["20 %", "12.5 %", "7 %"]


names = st.sampled_from(["visit", "purchase", "complaint", "support_call", "new"])
days = st.floats(0.5, 300).map(lambda x: round(x, 2))
selection = st.fixed_dictionaries(
    {}, optional={"within_days": st.floats(60, 300).map(round), "skip_last_days": st.floats(1, 50).map(round)}
)
leaves = st.one_of(
    st.builds(lambda s, n, k: {"events": [n], **s, "at_least": k}, selection, names, st.integers(0, 3)),
    st.builds(lambda s, x: {"sum": "value", **s, "more_than": x}, selection, days),
    st.builds(lambda s, n, x: {"last": [n], **s, "less_than_days": x}, selection, names, days),
    st.builds(lambda n, x: {"overdue": [n], "usual_days": x, "at_most": 2.5}, names, days),
    st.builds(lambda n, x: {"share": [n], "at_most": round(x / 300, 3)}, names, days),
    st.builds(lambda x: {"profile": "channel", "equals": x}, st.sampled_from(["web", "app", "none"])),
)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(
        st.lists(inner, min_size=1, max_size=3).map(lambda nested: {"all": nested}),
        st.lists(inner, min_size=1, max_size=3).map(lambda nested: {"any": nested}),
        inner.map(lambda single: {"not": single}),
    ),
    max_leaves=5,
)
events = st.lists(
    st.tuples(
        st.sampled_from(["a", "b"]), st.floats(-50, 300).map(lambda x: round(x, 1)), names,
        st.sampled_from(["web", "app"]), st.just("s"), st.none(), st.none() | st.floats(1, 50).map(round), st.none(),
    ),
    min_size=1, max_size=15,
)  # fmt: skip


def thresholds(table: Any) -> list[tuple[str, Any]]:
    if isinstance(table, list):
        return [bound for single in table for bound in thresholds(single)]
    if not isinstance(table, dict):
        return []
    return [(k, v) for k, v in table.items() if isinstance(v, int | float)] + thresholds(list(table.values()))


@settings(max_examples=60, deadline=None)
@given(trees, events)
def test_future_events_and_batches_change_nothing(table: Any, rows: list[tuple[Any, ...]]) -> None:
    condition = read_condition(table)
    whole = log([*rows, ("a", -1.0, "purchase", "web", "s", None, 9.0, None)])
    past = log([row for row in rows if row[1] > 0] or [("z", 1.0, "visit", "web", "s", None, None, None)])
    flags = condition.holds(SnapshotView(whole.at(CUTOFF)))
    for customer in whole.customer_ids.to_pylist():
        single = SnapshotView(past.at(CUTOFF, past.index_of([customer])))
        assert flags[whole.index_of([customer])[0]] == condition.holds(single)[0] == condition.holds_single(single)


@settings(max_examples=60, deadline=None)
@given(trees)
def test_words_mention_thresholds_and_names(table: Any) -> None:
    condition = read_condition(table)
    assert read_condition(condition.toml()) == condition
    words = condition.words()
    for key, value in thresholds(table):
        share = key == "at_most" and isinstance(value, float) and value <= 1
        none = "no event" in words and value == 0
        assert none or number(value) in words or (share and percent(value) in words), (key, value, words)
    for leaf in condition.parts():
        if isinstance(leaf, Selection) and leaf.events != ("*",):
            assert f"'{leaf.events[0]}'" in words


@settings(max_examples=40, deadline=None)
@given(events, names, st.integers(1, 200), st.integers(0, 3))
def test_counts_equal_a_loop(rows: list[tuple[Any, ...]], name: str, window: int, least: int) -> None:
    journeys = log(rows)
    flags = read_condition({"events": [name], "within_days": window, "at_least": least}).holds(
        SnapshotView(journeys.at(CUTOFF))
    )
    for place, customer in enumerate(journeys.customer_ids.to_pylist()):
        count = sum(row[0] == customer and row[2] == name and 0 < row[1] <= window for row in rows)
        assert flags[place] == (count >= least)

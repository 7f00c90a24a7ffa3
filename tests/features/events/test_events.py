"""The checks: which rows are rejected and why, that no row is lost, and what is no event log at all."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import DataError
from features.events.checks import CheckOptions, LogCheck, check_batch, check_events
from features.events.schema import EventSchema

T0 = "2024-03-01T10:00:00"


def frame(n=5, **columns):
    rows = {
        "customer_id": [f"c{i % 3}" for i in range(n)],
        "timestamp": [f"2024-03-0{i % 9 + 1}T10:00:00" for i in range(n)],
        "touchpoint": ["view"] * n,
    }
    return pd.DataFrame(rows | columns)


def times(checked):
    return np.asarray(checked.events["timestamp"].cast(pa.int64()))


def us(text):
    return int(np.datetime64(text, "us").astype(np.int64))


def test_good_rows_become_canonical():
    checked = check_events(frame(channel=["web", "", None, " ", "app"], value=[1, 2, None, -3, 5]))
    table = checked.events
    assert table.column_names == ["timestamp", "customer_id", "touchpoint", "channel", "value"]
    assert table["channel"].to_pylist() == ["web", None, None, None, "app"]
    np.testing.assert_array_equal(table["value"], [1, 2, np.nan, -3, 5])
    assert checked.quarantine.num_rows == 0
    assert checked.counts == {}
    assert checked.rows_in == 5


def test_naive_times_are_noted_once():
    assert check_events(frame()).notes == ("timestamp carries no time zone: taken as UTC",)
    assert check_events(frame(timestamp=[T0 + "Z"] * 5)).notes == ()


def test_columns_outside_the_schema_are_noted():
    table = frame(agent="bo", mood="blue", value=[1, "x", 2, 3, 4])
    checked = check_events(table, CheckOptions(EventSchema(properties=("agent",))))
    assert "columns not in the schema are ignored: mood" in checked.notes
    assert checked.events["agent"].to_pylist() == ["bo"] * 4
    assert checked.quarantine.to_pylist() == [
        {
            "row": 2,
            "reason": "value is not a number",
            "customer_id": "c1",
            "timestamp": "2024-03-02T10:00:00",
            "touchpoint": "view",
            "agent": "bo",
            "mood": "blue",
            "value": "x",
        }
    ]


@pytest.mark.parametrize(
    ("column", "bad", "reason"),
    [
        ("customer_id", None, "customer_id is missing"),
        ("customer_id", "  ", "customer_id is missing"),
        ("touchpoint", "", "touchpoint is missing"),
        ("timestamp", None, "timestamp is missing"),
        ("timestamp", "yesterday", "timestamp is not a time"),
        ("timestamp", "2024-13-01", "timestamp is not a time"),
        ("timestamp", "1970-01-01", "timestamp is before 1971"),
        ("timestamp", "0001-01-01", "timestamp is before 1971"),
        ("timestamp", "2200-01-01", "timestamp is after 2099"),
        ("value", float("inf"), "value is infinite"),
        ("value", "-inf", "value is infinite"),
        ("value", "12,50", "value is not a number"),
        ("duration_s", -0.5, "duration_s is below 0"),
        ("satisfaction", "good", "satisfaction is not a number"),
    ],
)
def test_a_bad_row_is_rejected_with_its_reason(column, bad, reason):
    table = frame(value=1.0, duration_s=2.0, satisfaction=3.0).astype(object)
    table.loc[3, column] = bad
    checked = check_events(table)
    assert checked.counts == {reason: 1}
    assert checked.quarantine["row"].to_pylist() == [4]
    assert checked.quarantine[column].to_pylist() == [bad if bad is None else str(bad)]
    assert checked.events.num_rows == 4


def test_missing_and_negative_values_are_allowed():
    checked = check_events(frame(value=["1", "NaN", "", "-2.5", "NA"], duration_s=[0, np.nan, None, 1, 2]))
    np.testing.assert_array_equal(checked.events["value"], [1, np.nan, np.nan, -2.5, np.nan])
    assert checked.counts == {}


def test_a_row_counts_once_under_its_first_reason():
    table = frame(value=[1, 2, 3, 4, np.inf])
    table.loc[4, "timestamp"] = "?"
    assert check_events(table).counts == {"timestamp is not a time": 1}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        (pd.DataFrame(), "No column 'customer_id': the input has no columns at all"),
        (frame(0), "No event rows"),
        (frame().drop(columns="touchpoint").assign(touch_point="x"), "No column 'touchpoint'.*Map 'touch_point'"),
        (frame().drop(columns="timestamp"), r"No column 'timestamp': the columns are .*\[events.columns\] timestamp"),
        (frame(timestamp=[1_709_290_000_000] * 5), "time_unit = 'ms'"),
        (frame(timestamp=[1.5] * 5), "holds numbers"),
        (frame(timestamp=[True] * 5), "not moments in time"),
        (frame(customer_id=[["a"]] * 5), "'customer_id' holds list"),
        (frame(customer_id=[None] * 5), "5 of 5 rows.*customer_id is missing: 5.*column mapping"),
        (
            frame(timestamp=["12/31/2024"] * 3 + [T0] * 2),
            "3 of 5 rows.*First timestamp: row 1: '12/31/2024'.*time_format",
        ),
        (frame(timestamp=["1970-01-01"] * 5), "before 1971: 5.*wrong unit"),
        (frame(value=["x"] * 5), "value is not a number: 5.*decimal point"),
    ],
)
def test_no_event_log_is_a_single_error(table, message):
    with pytest.raises(DataError, match=message):
        check_events(table)


def test_half_bad_is_still_a_log():
    assert check_events(frame(4, timestamp=["?", "?", T0, T0])).rows_in == 4


TIMES = {
    "s": pa.array([1709287200], pa.timestamp("s")),
    "ms": pa.array([1709287200_000], pa.timestamp("ms")),
    "us": pa.array([1709287200_000_000], pa.timestamp("us")),
    "ns": pa.array([1709287200_000_000_999], pa.timestamp("ns")),
    "zoned": pa.array([1709287200], pa.timestamp("s", "Europe/Berlin")),
    "date32": pa.array([dt.date(2024, 3, 1)], pa.date32()),
    "date64": pa.array([dt.date(2024, 3, 1)], pa.date64()),
    "text": pa.array([T0]),
    "text with a space": pa.array(["2024-03-01 10:00:00"]),
    "text with a zone": pa.array(["2024-03-01T12:00:00+02:00"]),
    "large text": pa.array([T0], pa.large_string()),
    "text view": pa.array([T0], pa.string_view()),
    "dictionary": pa.array([T0]).dictionary_encode(),
}


@pytest.mark.parametrize("kind", TIMES)
def test_every_kind_of_time(kind):
    table = pa.table({"customer_id": ["a"], "timestamp": TIMES[kind], "touchpoint": ["view"]})
    checked = check_events(table)
    assert times(checked).tolist() == [us("2024-03-01") if kind.startswith("date") else us(T0)]
    assert checked.events["timestamp"].type == pa.timestamp("us")


def test_zones_may_be_mixed():
    mixed = [T0, T0 + "Z", T0 + "+02:00", "2024-03-01", "2024-03-01T05:00:00-0500"]
    checked = check_events(frame(timestamp=mixed))
    assert times(checked).tolist() == [us(T0), us(T0), us("2024-03-01T08:00"), us("2024-03-01"), us(T0)]
    assert checked.notes == ("timestamp carries no time zone: taken as UTC",)
    objects = [pd.Timestamp(T0), pd.Timestamp(T0, tz="Asia/Tokyo"), dt.datetime(2024, 3, 1), pd.NaT, pd.Timestamp(T0)]
    checked = check_events(frame(timestamp=pd.Series(objects, dtype=object)))
    assert times(checked).tolist() == [us(T0), us("2024-03-01T01:00"), us("2024-03-01"), us(T0)]
    assert checked.counts == {"timestamp is missing": 1}


@pytest.mark.parametrize(("unit", "factor"), [("s", 1), ("ms", 10**3), ("us", 10**6), ("ns", 10**9)])
@pytest.mark.parametrize("kind", [pa.int64(), pa.float64(), pa.string()])
def test_numeric_times_need_their_unit(unit, factor, kind):
    numbers = pa.array([1709287200 * factor, 0, None, 3 * 1709287200 * factor, *[1709287200 * factor] * 3])
    numbers = numbers.cast(kind, safe=False)
    table = pa.table({"customer_id": ["a"] * 7, "timestamp": numbers, "touchpoint": ["view"] * 7})
    checked = check_events(table, CheckOptions(time_unit=unit))
    assert times(checked).tolist() == [us(T0)] * 4
    assert set(checked.counts) == {"timestamp is before 1971", "timestamp is missing", "timestamp is after 2099"}


def test_other_textual_times_need_their_format():
    table = frame(2, timestamp=["01.03.2024 10:00", "2.3.2024 10:00"])
    assert times(check_events(table, CheckOptions(time_format="%d.%m.%Y %H:%M"))).tolist() == [
        us(T0),
        us("2024-03-02T10:00"),
    ]


@pytest.mark.parametrize(
    ("ids", "texts"),
    [
        ([1, 2], ["1", "2"]),
        ([1.0, 2.5], ["1", "2.5"]),
        (["007", "7"], ["007", "7"]),
        (pd.Categorical(["b", "a"], categories=["a", "b", "unused"]), ["b", "a"]),
        (pd.array(["b", "a"], dtype="string"), ["b", "a"]),
        ([Decimal("3"), Decimal("4")], ["3", "4"]),
        ([b"x", b"y"], ["x", "y"]),
        (["é", "中"], ["é", "中"]),
        (["a", 1], ["a", "1"]),
    ],
)
def test_identifiers_become_text(ids, texts):
    checked = check_events(frame(2).assign(customer_id=ids))
    assert checked.events["customer_id"].to_pylist() == texts


def test_large_integers_keep_every_digit():
    checked = check_events(frame(1).assign(customer_id=np.array([2**63 - 1])))
    assert checked.events["customer_id"].to_pylist() == [str(2**63 - 1)]


@pytest.mark.parametrize("kind", [pa.string(), pa.large_string(), pa.string_view(), "dictionary", "nulls inside"])
def test_every_kind_of_text(kind):
    values = ["view", None, "buy", "view"]
    column = pa.array(values)
    if kind == "dictionary":
        column = column.dictionary_encode()
    elif kind == "nulls inside":
        column = pa.DictionaryArray.from_arrays(
            pa.array([0, 1, 2, 3], pa.int8()), pa.array(["view", None, "buy", "view"])
        )
    else:
        column = column.cast(kind)
    chunks = pa.chunked_array([column.slice(0, 1), column.slice(1)])
    table = pa.table({"customer_id": ["a"] * 4, "timestamp": [T0] * 4, "touchpoint": ["x"] * 4, "channel": chunks})
    checked = check_events(table)
    assert checked.events["channel"].to_pylist() == values
    table = table.set_column(2, "touchpoint", chunks)
    assert check_events(table).counts == {"touchpoint is missing": 1}


@pytest.mark.parametrize("kind", [pa.int8(), pa.uint64(), pa.float32(), pa.decimal128(21, 2), pa.string(), pa.null()])
def test_every_kind_of_number(kind):
    column = pa.nulls(3) if kind == pa.null() else pa.array([1, None, 3]).cast(kind)
    table = pa.table({"customer_id": ["a"] * 3, "timestamp": [T0] * 3, "touchpoint": ["x"] * 3, "value": column})
    got = check_events(table).events["value"]
    np.testing.assert_array_equal(got, [np.nan] * 3 if kind == pa.null() else [1, np.nan, 3])


def test_duplicates_are_rejected_on_request():
    table = pd.concat([frame(value=[1, 2, np.nan, 4, 5])] * 2 + [frame(value=9)], ignore_index=True)
    assert check_events(table).events.num_rows == 15
    checked = check_events(table, CheckOptions(duplicates="quarantine"))
    assert checked.counts == {"the same as an earlier row in every column": 5}
    assert checked.quarantine["row"].to_pylist() == [6, 7, 8, 9, 10]
    assert checked.rows_in == 15


def test_batches_add_up_and_number_their_rows():
    check, options = LogCheck(), CheckOptions()
    for first, column in ((1, ["?", T0]), (3, [T0, T0]), (5, [T0, "?"])):
        good, report = check_batch(frame(2, timestamp=column), options, first)
        check.add(report)
        assert good.num_rows == report.n_good == len(report.rows)
    check.finish()
    assert check.quarantine()["row"].to_pylist() == [1, 6]
    assert check.rows_in == 6


def test_source_row_numbers_win():
    table = frame(3, source_row=[10, 20, 30], value=[1, "x", 2])
    assert check_events(table).quarantine["row"].to_pylist() == [20]


cells = {
    "customer_id": st.sampled_from(["a", "b", "", None, 7, 7.0]),
    "timestamp": st.sampled_from([T0, T0 + "+05:00", "?", None, "1969-12-31", "2100-01-01", "2099-12-31", 3]),
    "touchpoint": st.sampled_from(["view", "buy", " ", None]),
    "value": st.sampled_from([1, -1.5, "2", "x", None, np.inf, np.nan]),
    "duration_s": st.sampled_from([0, 3, -3, None]),
}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.fixed_dictionaries(cells), min_size=1, max_size=30))
def test_no_row_is_lost(rows):
    good = [{"customer_id": "a", "timestamp": T0, "touchpoint": "view", "value": 1, "duration_s": 1}] * len(rows)
    table = pd.DataFrame(good + rows, dtype=object)
    checked = check_events(table)
    assert checked.events.num_rows + checked.quarantine.num_rows == 2 * len(rows)
    assert sum(checked.counts.values()) == checked.quarantine.num_rows
    assert checked.quarantine["row"].to_pylist() == sorted(set(checked.quarantine["row"].to_pylist()))
    for name in ("customer_id", "timestamp", "touchpoint"):
        assert checked.events[name].null_count == 0
    assert np.isfinite(np.asarray(checked.events["value"])[: len(rows)]).all()
    assert not (np.asarray(checked.events["duration_s"]) < 0).any()

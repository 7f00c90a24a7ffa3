from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from features.labels.churn import churn_labels
from features.labels.conversion import conversion_labels
from features.labels.label_table import check_label_table, read_label_table

DAY = pd.Timedelta(days=1)
START = pd.Timestamp("2024-01-01")


def log(rows: list[tuple[str, float, str]]) -> Journeys:
    """Journeys of (customer, days since the start, touchpoint)."""
    frame = pd.DataFrame(rows, columns=["customer_id", "day", "touchpoint"])
    frame["timestamp"] = START + pd.to_timedelta(frame.pop("day"), unit="D")
    return pack(frame)


def at(day: float) -> pd.Timestamp:
    return START + day * DAY


SHOP = log(
    [
        ("b", 0, "purchase"), ("b", 9, "view"), ("b", 15, "purchase"),   # buys again
        ("a", 5, "purchase"), ("a", 12, "view"),                         # only looks: churned
        ("c", 8, "view"), ("c", 12, "purchase"),                         # not active before
        ("d", 2, "purchase"), ("d", 10, "purchase"),                     # buys at the cutoff itself
        ("e", 1.9999, "purchase"), ("e", 18, "purchase"),                # active too long ago
        ("f", 4, "purchase"), ("f", 20, "purchase"),                     # buys when the window has just ended
        ("z", 30, "view"),
    ]
)  # fmt: skip


def test_churn_by_hand() -> None:
    table = churn_labels(SHOP, [at(10)], activity=["purchase"], active_days=8, horizon_days=10)
    assert table["customer_id"].tolist() == ["a", "d", "f"]
    assert table["label"].tolist() == [1, 0, 1]
    assert table.dtypes.astype(str).to_dict() == {"customer_id": "str", "cutoff": "datetime64[us]", "label": "int8"}


def test_churn_is_sorted_by_cutoff_then_name() -> None:
    table = churn_labels(SHOP, [at(11), at(10), at(11)], activity=["*"], active_days=10, horizon_days=10)
    assert table["cutoff"].is_monotonic_increasing
    assert not table.duplicated(["customer_id", "cutoff"]).any()
    for _, rows in table.groupby("cutoff"):
        assert rows["customer_id"].is_monotonic_increasing


def test_conversion_by_hand() -> None:
    loans = log(
        [
            ("paid", 0, "ask"), ("paid", 3, "paid"),
            ("late", 0, "ask"), ("late", 6, "paid"),                     # at the end of the window: not within
            ("refused", 0, "ask"), ("refused", 0.5, "refused"), ("refused", 2, "paid"),
            ("before", 0, "ask"), ("before", 0.9, "paid"), ("before", 3, "paid"),
            ("at", 0, "ask"), ("at", 1, "paid"),                         # at the cutoff itself: within
            ("open", 7, "ask"),                                          # its window is not closed
            ("z", 0, "ask"), ("z", 12.5, "ask"),
        ]
    )  # fmt: skip
    table = conversion_labels(loans, goal=["paid"], ended=["refused"], ages_days=[1], horizon_days=5)
    assert table[["customer_id", "label", "age_days"]].to_numpy().tolist() == [
        ["at", 1, 1], ["late", 0, 1], ["paid", 1, 1], ["z", 0, 1],
    ]  # fmt: skip
    by_date = conversion_labels(loans, goal=["paid"], ended=["refused"], cutoffs=[at(1)], horizon_days=5)
    pd.testing.assert_frame_equal(by_date, table.drop(columns="age_days"))
    assert "open" in set(
        conversion_labels(
            loans, goal=["paid"], ended=["refused"], ages_days=[1], horizon_days=5, observed_until=at(13)
        )["customer_id"]
    )


def test_conversion_candidates_are_recently_active() -> None:
    rows = log([("a", 0, "x"), ("b", 8, "x"), ("c", 9, "goal"), ("d", 20, "x")])
    table = conversion_labels(rows, goal=["goal"], cutoffs=[at(9)], horizon_days=5, active_days=3)
    assert table["customer_id"].tolist() == ["b"]


def brute_force(rows: pd.DataFrame, cutoffs: list[pd.Timestamp], active_days: float, horizon_days: float) -> list:
    buys = rows[rows["touchpoint"] == "buy"]
    out = []
    for cutoff in sorted(set(cutoffs)):
        for who in sorted(rows["customer_id"].unique()):
            t = buys.loc[buys["customer_id"] == who, "timestamp"]
            if ((t >= cutoff - active_days * DAY) & (t < cutoff)).any():
                stays = ((t >= cutoff) & (t < cutoff + horizon_days * DAY)).any()
                out.append((who, cutoff, int(not stays)))
    return out


events = st.lists(
    st.tuples(st.sampled_from("abcde"), st.integers(0, 40), st.sampled_from(["buy", "look"])), min_size=1, max_size=60
)


def frame_of(rows: list[tuple[str, int, str]]) -> pd.DataFrame:
    """Always with both touchpoints, and long enough for any cutoff of the tests."""
    rows = [*rows, ("first", 0, "buy"), ("last", 60, "look")]
    frame = pd.DataFrame(rows, columns=["customer_id", "day", "touchpoint"])
    return frame.assign(timestamp=START + pd.to_timedelta(frame["day"], unit="D")).drop(columns="day")


@given(events, st.lists(st.integers(1, 40), min_size=1, max_size=3), st.integers(1, 20), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_churn_agrees_with_brute_force(rows: list, days: list[int], active: int, horizon: int) -> None:
    frame, cutoffs = frame_of(rows), [at(day) for day in days]
    table = churn_labels(pack(frame), cutoffs, activity=["buy"], active_days=active, horizon_days=horizon)
    assert list(table.itertuples(index=False, name=None)) == brute_force(frame, cutoffs, active, horizon)


@given(events, events, st.integers(1, 30), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_nothing_before_the_cutoff_changes_a_label(rows: list, others: list, day: int, horizon: int) -> None:
    """Other events before the cutoff decide who is a candidate, never what a candidate's label is."""
    later = [row for row in rows if row[1] >= day]
    tables = []
    for before in (rows, others):
        journeys = pack(frame_of([*later, *(row for row in before if row[1] < day)]))
        churn = churn_labels(journeys, [at(day)], activity=["buy"], active_days=10, horizon_days=horizon)
        converted = conversion_labels(journeys, goal=["buy"], cutoffs=[at(day)], horizon_days=horizon)
        tables.append((churn.set_index("customer_id")["label"], converted.set_index("customer_id")["label"]))
    for one, other in zip(*tables, strict=True):
        both = one.index.intersection(other.index)
        assert one[both].equals(other[both])


@given(events, events, st.integers(1, 30), st.integers(1, 20))
@settings(max_examples=40, deadline=None)
def test_nothing_after_the_window_changes_a_label(rows: list, others: list, day: int, horizon: int) -> None:
    within = [row for row in rows if row[1] < day + horizon]
    tables = []
    for after in (rows, others):
        journeys = pack(frame_of([*within, *(row for row in after if row[1] >= day + horizon)]))
        churn = churn_labels(journeys, [at(day)], activity=["buy"], active_days=10, horizon_days=horizon)
        converted = conversion_labels(journeys, goal=["buy"], cutoffs=[at(day)], horizon_days=horizon)
        tables.append((churn, converted))
    for one, other in zip(*tables, strict=True):
        pd.testing.assert_frame_equal(one, other)


def test_unobserved_windows_are_an_error() -> None:
    with pytest.raises(DataError, match=r"2024-01-25.*not fully observed.*last possible cutoff is 2024-01-21"):
        churn_labels(SHOP, [at(10), at(24)], activity=["purchase"], active_days=8, horizon_days=10)
    assert len(churn_labels(SHOP, [at(20)], activity=["purchase"], active_days=8, horizon_days=10))
    watched = {"activity": ["purchase"], "active_days": 8, "horizon_days": 10, "observed_until": at(40)}
    assert len(churn_labels(SHOP, [at(24)], **watched))


def test_a_cutoff_before_all_events_is_an_error() -> None:
    with pytest.raises(DataError, match=r"2024-01-01: nothing is known before it, the log starts at 2024-01-01"):
        churn_labels(SHOP, [START], activity=["purchase"], active_days=8, horizon_days=10)


def test_a_misspelt_touchpoint_is_an_error() -> None:
    with pytest.raises(ConfigError, match=r"'purchse'.*Did you mean 'purchase'"):
        churn_labels(SHOP, [at(10)], activity=["purchse"], active_days=8, horizon_days=10)


def test_patterns_name_several_touchpoints() -> None:
    table = churn_labels(SHOP, [at(10)], activity=["p*", "vie?"], active_days=8, horizon_days=10)
    every = churn_labels(SHOP, [at(10)], activity=["*"], active_days=8, horizon_days=10)
    pd.testing.assert_frame_equal(table, every)


def test_either_cutoffs_or_ages() -> None:
    with pytest.raises(ConfigError, match="either cutoffs"):
        conversion_labels(SHOP, goal=["purchase"], horizon_days=3)


# The user's own label table


ROWS = pd.DataFrame(
    [
        ("a", "2024-01-08", 1), ("b", "2024-01-08", 0),
        ("nobody", "2024-01-08", 1), ("a", "soon", 1), ("a", None, 1),
        ("a", "2024-01-09", 2), ("a", "2024-01-10", None),
        ("a", "2023-12-01", 1), ("a", "2024-05-01", 1), ("b", "2024-01-25", 1),
        ("b", "2024-01-08", 0), ("d", "2024-01-09", 0), ("d", "2024-01-09", 1), (None, "2024-01-09", 1),
        *[(who, f"2024-01-{day}", label) for who in "bdef" for day, label in ((12, 1), (13, 0), (14, 0))],
    ],
    columns=["customer_id", "cutoff", "label"],
)  # fmt: skip


def test_a_label_table_is_checked() -> None:
    checked = check_label_table(ROWS, SHOP, horizon_days=10)
    assert len(checked.labels) == 2 + 12
    assert checked.labels.dtypes.astype(str).to_dict() == {
        "customer_id": "str", "cutoff": "datetime64[us]", "label": "int8",
    }  # fmt: skip
    assert dict(checked.quarantine.select(["row", "reason"]).to_pandas().itertuples(index=False)) == {
        3: "customer_id is not in the log",
        4: "cutoff is not a time",
        5: "cutoff is missing",
        6: "label is neither 0 nor 1",
        7: "label is neither 0 nor 1",
        8: "cutoff is before the customer's first event",
        9: "cutoff is after the log's end",
        10: "the window after the cutoff is not fully observed",
        11: "the same customer and cutoff as an earlier row",
        12: "the same customer and cutoff with another label or split",
        13: "the same customer and cutoff with another label or split",
        14: "customer_id is missing",
    }
    assert sum(checked.counts.values()) == checked.quarantine.num_rows
    longer = check_label_table(ROWS, SHOP, horizon_days=10, observed_until="2024-06-01")
    assert len(longer.labels) == len(checked.labels) + 2


@pytest.mark.parametrize("values", [[True, False] * 4, ["1", "0"] * 4, [1.0, 0.0] * 4, ["true", "False"] * 4])
def test_labels_come_in_many_forms(values: list) -> None:
    rows = pd.DataFrame({"customer_id": list("abcdefab"), "cutoff": "2024-01-15", "label": values})
    rows.loc[6:, "cutoff"] = "2024-01-16"
    assert check_label_table(rows, SHOP, horizon_days=5).labels["label"].tolist() == [1, 0] * 4


def test_mostly_bad_label_tables_are_an_error() -> None:
    rows = pd.DataFrame({"customer_id": ["x", "y", "a"], "cutoff": "2024-01-15", "label": [0, 1, 1]})
    with pytest.raises(DataError, match=r"2 of 3 label rows.*customer_id is not in the log: 2"):
        check_label_table(rows, SHOP, horizon_days=5)


def test_other_splits_are_rejected() -> None:
    rows = pd.DataFrame({"customer_id": list("abc"), "cutoff": "2024-01-15", "label": 1})
    checked = check_label_table(rows.assign(split=["Train", "test", "holdout"]), SHOP, horizon_days=5)
    assert checked.labels["split"].tolist() == ["train", "test"]


def test_read_label_table_maps_names(tmp_path) -> None:  # type: ignore[no-untyped-def]
    path = tmp_path / "labels.csv"
    path.write_text("who,when,left\n007,2024-01-15,1\n")
    with pytest.raises(DataError, match=r"no column 'customer_id'.*\[task.columns\] customer_id = "):
        read_label_table(path)
    rows = read_label_table(path, {"customer_id": "who", "cutoff": "when", "label": "left"})
    assert rows.to_dict("list") == {"customer_id": ["007"], "cutoff": ["2024-01-15"], "label": ["1"]}
    path.write_text("customer_id,cutoff,label\n")
    with pytest.raises(DataError, match="has no rows"):
        read_label_table(path)


def test_long_journeys_cost_a_window_only() -> None:
    """One customer with very many events costs a look into the window, not a walk through the journey."""
    n = 200_000
    t = START + pd.to_timedelta(np.arange(n), unit="min")
    journeys = pack(pd.DataFrame({"customer_id": "one", "timestamp": t, "touchpoint": "buy"}))
    cutoffs = [at(day) for day in range(1, 100)]
    assert len(churn_labels(journeys, cutoffs, activity=["buy"], active_days=1, horizon_days=1)) == 99

"""Batches of steps: held to plain Python on random logs, and to what a batch may never depend on."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import fields
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError
from features.events.schema import EventSchema
from features.journeys.journeys import Journeys, Snapshots
from features.journeys.packing import pack
from features.sequences.sequences import CONTEXT_NAMES, TIME_NAMES, SequenceBatch, SequenceFeatures, SequenceSettings

SCHEMA = EventSchema(properties=("agent",), profile_numeric=("has_years",))
START, CUTOFF = pd.Timestamp("2024-01-03"), pd.Timestamp("2024-01-28")
SLOT_H = 6  # times are multiples of it, so that many events share a moment and some fall on the cutoff
N_CUSTOMERS = 6
DAY_US = 86_400_000_000
SEEDS = st.integers(0, 10**6)


def random_events(seed: int, n_events: int, *, late: bool = False) -> pd.DataFrame:
    """Random events in every column; `late`: none before the cutoff."""
    r = np.random.default_rng(seed)
    hours = r.integers(0, 30 * 24 // SLOT_H, n_events) * SLOT_H

    def text(prefix: str, size: int, missing: float) -> pd.Series:
        values = pd.Series([f"{prefix}{k}" for k in r.integers(0, size, n_events)], dtype="str")
        return values.mask(pd.Series(r.random(n_events) < missing))

    def number(values: np.ndarray, missing: float) -> np.ndarray:
        return np.where(r.random(n_events) < missing, np.nan, values)

    return pd.DataFrame({
        "customer_id": [f"c{k}" for k in r.integers(0, N_CUSTOMERS, n_events)],
        "timestamp": ((CUTOFF if late else START) + pd.to_timedelta(hours, unit="h")).astype("datetime64[us]"),
        "touchpoint": r.choice(["view", "buy", "call"], n_events, p=[0.6, 0.3, 0.1]),
        "channel": text("ch", 3, 0.2), "item": text("it", 12, 0.2), "agent": text("ag", 4, 0.2),
        "value": number(np.round(r.normal(5, 10, n_events), 2), 0.3),
        "duration_s": number(r.exponential(60, n_events), 0.1), "satisfaction": number(r.integers(1, 6, n_events), 0.5),
        "has_years": r.integers(20, 70, n_events).astype(float),
    })  # fmt: skip


def at_cutoff(events: pd.DataFrame) -> Snapshots:
    """The customers at the cutoff, known to the log or not."""
    rows = pd.DataFrame({"customer_id": [f"c{k}" for k in range(N_CUSTOMERS)], "cutoff": CUTOFF})
    return pack(events, SCHEMA).at_ids(rows)


def fitted(**options: Any) -> SequenceFeatures:
    return SequenceFeatures(SequenceSettings(**{"min_count": 40, "top_items": 5} | options)).fit(TRAIN)


def unscaled(features: SequenceFeatures, tenth: float = 10.0) -> SequenceFeatures:
    """The same, but numbers are tenths of what they say: nothing is centred and nothing reaches the limit of eight."""
    data = json.loads(json.dumps(features.to_dict()))
    for mean, scale in (("mean", "scale"), ("context_mean", "context_scale")):
        size = len(data["layout"][mean])
        data["layout"] |= {mean: [0.0] * size, scale: [tenth] * size}
    return SequenceFeatures.from_dict(data)


def same(a: SequenceBatch, b: SequenceBatch) -> bool:
    """Bit for bit."""
    pairs = [(getattr(a, field.name), getattr(b, field.name)) for field in fields(SequenceBatch)]
    return all(x.shape == y.shape and x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in pairs)


def row(batch: SequenceBatch, rank: int) -> np.ndarray:
    """(T,) where the steps of a rank lie."""
    return batch.offsets[: batch.lengths[rank]] + rank


TRAIN = at_cutoff(random_events(0, 600))
PLAIN = fitted()


# --- against plain Python ---


def reference(features: SequenceFeatures, snapshots: Snapshots, at: int) -> list[dict[str, Any]]:
    """The steps of row `at`, one event at a time: codes, raw numbers by name, gap and age."""
    s, log = features.settings, snapshots.journeys
    touched = log.categories["touchpoint"].codes
    steps: list[list[int]] = []
    for j in range(snapshots.start[at], snapshots.stop[at]):
        if s.gather and steps and log.t[j] == log.t[steps[-1][-1]] and touched[j] == touched[steps[-1][-1]]:
            steps[-1].append(j)
        else:
            steps.append([j])
    steps = steps[-s.max_steps :]
    described: list[dict[str, Any]] = []
    for place, events in enumerate(steps):
        now = int(log.t[events[0]])
        gap = (now - int(log.t[steps[place - 1][0]])) / DAY_US if place else 0.0
        codes = [code_of(features, log, column, events[-1]) for column in features.layout_.vocabularies]
        numbers = {"events": math.log(len(events))}
        for column in features.layout_.columns:
            values = [v for v in log.numbers[column][events].tolist() if not math.isnan(v)]
            total = sum(values) if column in ("value", "duration_s") else sum(values) / max(len(values), 1)
            numbers[column] = math.copysign(math.log1p(abs(total)), total) if values else math.nan
            numbers[f"has_{column}"] = float(len(values) > 0)
        if "item" in features.layout_.vocabularies:
            items = log.categories["item"].codes
            earlier = {items[j] for j in range(snapshots.start[at], snapshots.stop[at]) if log.t[j] < now} - {-1}
            numbers["again"] = sum(items[j] in earlier for j in events) / len(events)
        age = (int(snapshots.cutoff[at]) - now) / DAY_US
        if s.time:
            numbers |= times(pd.Timestamp(now, unit="us"), gap, age, is_first=place == 0)
        described.append({"codes": codes, "numbers": numbers, "gap": gap * s.time, "age": age * s.time})
    return described


def code_of(features: SequenceFeatures, log: Journeys, column: str, event: int) -> int:
    code, values = log.categories[column].codes[event], features.layout_.vocabularies[column]
    if code < 0:
        return 0
    name = log.categories[column].names[code]
    return 2 + values.index(name) if name in values else 1


def times(when: pd.Timestamp, gap: float, age: float, *, is_first: bool) -> dict[str, float]:
    day, week = 2 * math.pi * (when.hour * 60 + when.minute) / 1440, 2 * math.pi * when.day_of_week / 7
    numbers = (math.log1p(gap * 1440), float(is_first), math.log1p(age * 1440))
    return dict(zip(TIME_NAMES, (*numbers, math.sin(day), math.cos(day), math.sin(week), math.cos(week)), strict=True))


def scaled(raw: float, mean: float, scale: float) -> float:
    return 0.0 if math.isnan(raw) else min(max((raw - mean) / scale, -8.0), 8.0)


FITTED = {
    (gather, most, time): fitted(gather=gather, max_steps=most, time=time)
    for gather, most, time in ((True, 256, True), (False, 256, True), (True, 3, True), (False, 5, False))
}


@settings(max_examples=30, deadline=None)
@given(seed=SEEDS, n_events=st.integers(1, 90), options=st.sampled_from(list(FITTED)))
def test_steps_are_those_of_plain_python(seed: int, n_events: int, options: tuple[bool, int, bool]) -> None:
    features, snapshots = FITTED[options], at_cutoff(random_events(seed, n_events))
    batch = features.batch(snapshots)
    expected = [reference(features, snapshots, at) for at in range(len(snapshots))]
    lengths = [len(steps) for steps in expected]
    assert features.lengths(snapshots).tolist() == lengths
    assert batch.rows.tolist() == sorted(range(len(lengths)), key=lambda at: -lengths[at])
    assert batch.lengths.tolist() == sorted(lengths, reverse=True)
    assert batch.batch_sizes.tolist() == [sum(n > step for n in lengths) for step in range(max(lengths))]
    assert batch.n_steps == sum(lengths)
    layout = features.layout_
    for rank, at in enumerate(batch.rows):
        assert (batch.owner[row(batch, rank)] == rank).all()
        for place, step in zip(row(batch, rank), expected[at], strict=True):
            assert batch.codes[:, place].tolist() == step["codes"]
            assert batch.gap_days[place] == pytest.approx(step["gap"], abs=1e-5)
            assert batch.age_days[place] == pytest.approx(step["age"], abs=1e-5)
            assert tuple(step["numbers"]) == layout.numbers
            numbers = map(scaled, step["numbers"].values(), layout.mean, layout.scale)
            np.testing.assert_allclose(batch.numbers[place], list(numbers), atol=2e-6)


def test_time_major_layout_and_its_padded_view() -> None:
    log = pack(pd.DataFrame({
        "customer_id": ["short", "long", "long", "long", "middle", "middle"],
        "timestamp": START + pd.to_timedelta([0, 0, 1, 2, 0, 5], unit="D"), "touchpoint": "view",
    }))  # fmt: skip
    batch = SequenceFeatures(SequenceSettings(min_count=1)).fit(log.at(CUTOFF)).batch(log.at(CUTOFF))
    assert batch.rows.tolist() == [1, 2, 0]
    assert batch.lengths.tolist() == [3, 2, 1]
    assert batch.batch_sizes.tolist() == [3, 2, 1]
    assert batch.offsets.tolist() == [0, 3, 5, 6]
    assert batch.owner.tolist() == [0, 1, 2, 0, 1, 0]
    assert batch.padded().tolist() == [[0, 3, 5], [1, 4, -1], [2, -1, -1]]
    assert batch.gap_days.tolist() == [0, 0, 0, 1, 5, 1]
    assert batch.age_days.tolist() == [25, 25, 25, 24, 20, 23]


# --- hand-computed ---


def invoice() -> pd.DataFrame:
    """A visit, then three lines of one invoice two days and 90 minutes later, the cutoff a day after that."""
    return pd.DataFrame({
        "customer_id": "c0", "touchpoint": ["view", "buy", "buy", "buy"],
        "timestamp": pd.to_datetime(["2024-01-24 22:30"] + ["2024-01-27 00:00"] * 3),
        "item": ["it1", "it1", "it2", None], "value": [np.nan, 10.0, -15.5, np.nan],
        "satisfaction": [np.nan, 2.0, 5.0, np.nan], "duration_s": np.nan,
    })  # fmt: skip


def test_lines_of_an_invoice_make_a_single_step() -> None:
    features = unscaled(PLAIN)
    batch = features.batch(at_cutoff(invoice()).take(np.arange(1)))
    names = features.layout_.numbers
    visit, bought = (dict(zip(names, 10.0 * numbers, strict=True)) for numbers in batch.numbers.astype(float))
    assert bought["events"] == pytest.approx(math.log(3))
    assert bought["value"] == pytest.approx(-math.log(6.5))  # 10 − 15.5 = −5.5
    assert bought["satisfaction"] == pytest.approx(math.log(4.5))  # the mean of 2 and 5
    assert (bought["has_value"], visit["has_value"], visit["value"]) == (pytest.approx(1), 0, 0)
    assert (bought["has_duration_s"], bought["duration_s"]) == (0, 0)
    assert bought["again"] == pytest.approx(1 / 3)  # only it1 had been there before
    assert bought["gap"] == pytest.approx(math.log1p(2 * 1440 + 90), rel=1e-6)
    assert bought["age"] == pytest.approx(math.log1p(1440), rel=1e-6)
    assert (visit["is_first"], visit["gap"], bought["is_first"]) == (pytest.approx(1), 0, 0)
    assert visit["day_sin"] == pytest.approx(math.sin(2 * math.pi * 22.5 / 24))
    assert visit["week_cos"] == pytest.approx(math.cos(2 * math.pi * 2 / 7))  # a Wednesday
    context = dict(zip(CONTEXT_NAMES, 10.0 * batch.context[0].astype(float), strict=True))
    expected = {"steps": math.log1p(4), "tenure": math.log1p(3 + 1.5 / 24), "recency": math.log1p(1)}
    assert context == pytest.approx(expected, rel=1e-6)


def test_without_gathering_each_line_is_a_step() -> None:
    batch = fitted(gather=False).batch(at_cutoff(invoice()).take(np.arange(1)))
    assert batch.lengths.tolist() == [4]
    assert batch.gap_days.tolist() == pytest.approx([0, 2.0625, 0, 0])


def test_only_the_last_steps_count() -> None:
    events = random_events(5, 300)
    whole, short = PLAIN.batch(at_cutoff(events)), fitted(max_steps=4).batch(at_cutoff(events))
    assert (short.lengths == 4).all()
    for rank, at in enumerate(short.rows):
        where = row(whole, int(np.flatnonzero(whole.rows == at)[0]))[-4:]
        np.testing.assert_array_equal(short.codes[:, row(short, rank)], whole.codes[:, where])
        np.testing.assert_array_equal(short.age_days[row(short, rank)], whole.age_days[where])
        assert short.gap_days[row(short, rank)].tolist() == [0, *whole.gap_days[where][1:]]
    np.testing.assert_array_equal(short.context[short.rows.argsort()], whole.context[whole.rows.argsort()])


# --- what a fit learns ---


def test_vocabularies_hold_frequent_values_of_training_and_scales_are_of_its_steps() -> None:
    events = random_events(0, 600)
    past = events[events["timestamp"] < CUTOFF]
    for column, size in (("touchpoint", 60), ("item", 5), ("agent", 60)):
        counts = past[column].value_counts()
        frequent = sorted(counts[counts >= 40].index, key=lambda name: (-counts[name], name))[:size]
        assert PLAIN.layout_.vocabularies[column] == tuple(frequent)
        assert PLAIN.sizes[column] == len(frequent) + 2
    assert next(iter(PLAIN.layout_.vocabularies)) == "touchpoint"
    numbers = PLAIN.batch(TRAIN).numbers.astype(float)
    by_name = dict(zip(PLAIN.layout_.numbers, numbers.T, strict=True))
    assert {name: round(abs(by_name[name].mean()), 5) for name in ("gap", "age", "events", "has_value")} == {
        "gap": 0, "age": 0, "events": 0, "has_value": 0,
    }  # fmt: skip
    value = by_name["value"][by_name["has_value"] > 0]
    assert (value.mean(), value.std()) == (pytest.approx(0, abs=1e-5), pytest.approx(1, abs=1e-5))


def test_unseen_and_rare_values_go_to_other() -> None:
    events = invoice().assign(touchpoint=["never seen", "call", "view", "buy"], agent=[None, "ag0", "new", "ag1"])
    batch = fitted(min_count=60).batch(at_cutoff(events).take(np.arange(1)))
    codes = dict(zip(PLAIN.layout_.vocabularies, batch.codes.tolist(), strict=True))
    assert codes["touchpoint"] == [1, 1, 2, 3]  # 'call' has fewer than 60 events
    assert codes["agent"] == [0, codes["agent"][1], 1, codes["agent"][3]]
    assert min(codes["agent"][1], codes["agent"][3]) >= 2
    assert codes["channel"] == [0, 0, 0, 0]  # no such column in this log


def test_categories_can_be_chosen() -> None:
    features = fitted(categories=("agent",))
    assert list(features.sizes) == ["touchpoint", "agent"]
    assert "again" not in features.layout_.numbers  # there are no items for it
    batch, whole = features.batch(TRAIN), PLAIN.batch(TRAIN)
    assert batch.numbers.shape == (whole.n_steps, features.n_numbers)
    np.testing.assert_array_equal(batch.numbers, np.delete(whole.numbers, PLAIN.layout_.numbers.index("again"), axis=1))
    with pytest.raises(ConfigError, match=r"no column 'agnet'.*'agent'"):
        fitted(categories=("agnet",))


def test_state_goes_through_json() -> None:
    again = SequenceFeatures.from_dict(json.loads(json.dumps(PLAIN.to_dict())))
    assert again.to_dict() == PLAIN.to_dict()
    snapshots = at_cutoff(random_events(9, 100))
    assert same(again.batch(snapshots), PLAIN.batch(snapshots))
    assert (again.n_numbers, again.n_context, again.sizes) == (PLAIN.n_numbers, PLAIN.n_context, PLAIN.sizes)


# --- what a batch must not depend on ---


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, n_events=st.integers(1, 90), options=st.sampled_from(list(FITTED)), shuffled=st.booleans())
def test_batch_size_changes_no_bit(seed: int, n_events: int, options: tuple[bool, int, bool], shuffled: bool) -> None:
    features = SHUFFLED if shuffled else FITTED[options]
    snapshots = at_cutoff(random_events(seed, n_events))
    many = features.batch(snapshots)
    for rank, at in enumerate(many.rows):
        single, where = features.batch(snapshots.take(np.array([at]))), row(many, rank)
        assert single.codes.tobytes() == np.ascontiguousarray(many.codes[:, where]).tobytes()
        for name in ("numbers", "gap_days", "age_days"):
            assert getattr(single, name).tobytes() == getattr(many, name)[where].tobytes()
        assert single.context.tobytes() == many.context[[rank]].tobytes()


@settings(max_examples=15, deadline=None)
@given(seed=SEEDS, first=st.integers(0, 10), last=st.integers(0, 10))
def test_a_sub_journey_equals_a_log_of_its_events(seed: int, first: int, last: int) -> None:
    events = random_events(seed, 40).assign(customer_id="c0").sort_values("timestamp", kind="stable")
    whole = at_cutoff(events[events["timestamp"] < CUTOFF])
    start, stop = whole.start[:1] + first, whole.stop[:1] - last
    cut = Snapshots(whole.journeys, whole.customer[:1], start, stop, whole.cutoff[:1])
    short_log = at_cutoff(events.iloc[int(start[0]) : int(stop[0])]).take(np.arange(1))
    assert same(PLAIN.batch(cut), PLAIN.batch(short_log))


SHUFFLED = fitted(order="shuffled")


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n_events=st.integers(1, 90))
def test_shuffling_keeps_the_moments_and_all_contents(seed: int, n_events: int) -> None:
    snapshots = at_cutoff(random_events(seed, n_events))
    ordered, mixed = PLAIN.batch(snapshots), SHUFFLED.batch(snapshots)
    contents = PLAIN.n_numbers - len(TIME_NAMES)
    np.testing.assert_array_equal(ordered.numbers[:, contents:], mixed.numbers[:, contents:])
    for name in ("gap_days", "age_days", "owner", "context", "batch_sizes", "lengths", "rows"):
        np.testing.assert_array_equal(getattr(ordered, name), getattr(mixed, name))
    for rank in range(len(ordered.lengths)):
        where = row(ordered, rank)
        carried = [
            Counter(batch.codes[:, place].tobytes() + batch.numbers[place, :contents].tobytes() for place in where)
            for batch in (ordered, mixed)
        ]
        assert carried[0] == carried[1]


def test_shuffling_does_change_the_order() -> None:
    snapshots = at_cutoff(random_events(5, 300))
    ordered, mixed = PLAIN.batch(snapshots), SHUFFLED.batch(snapshots)
    first = PLAIN.batch(snapshots.take(np.array([0]))).codes, SHUFFLED.batch(snapshots.take(np.array([0]))).codes
    assert (first[0] != first[1]).any()
    assert (ordered.codes != mixed.codes).any(axis=0).mean() > 0.5


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, n_events=st.integers(1, 90), order=st.sampled_from(["kept", "shuffled"]))
def test_without_time_nothing_depends_on_the_times(seed: int, n_events: int, order: str) -> None:
    features, events = TIMELESS[order], random_events(seed, n_events)
    events = events[events["timestamp"] < CUTOFF]
    moments = np.sort(events["timestamp"].unique())
    r = np.random.default_rng(seed)
    minutes = np.sort(r.choice(10**6, len(moments), replace=False)) + 1
    moved = dict(zip(moments, CUTOFF - pd.to_timedelta(minutes[::-1], unit="min"), strict=True))
    later = events.assign(timestamp=events["timestamp"].map(moved).astype("datetime64[us]"))
    if len(events):
        batch = features.batch(at_cutoff(events))
        assert same(batch, features.batch(at_cutoff(later)))
        assert not batch.gap_days.any()
        assert not batch.age_days.any()


TIMELESS = {order: fitted(time=False, order=order) for order in ("kept", "shuffled")}


def test_without_time_no_number_of_time() -> None:
    assert set(PLAIN.layout_.numbers) - set(TIMELESS["kept"].layout_.numbers) == set(TIME_NAMES)
    assert (TIMELESS["kept"].n_context, PLAIN.n_context) == (1, len(CONTEXT_NAMES))


@settings(max_examples=40, deadline=None)
@given(
    seed=SEEDS,
    n_events=st.integers(1, 90),
    n_added=st.integers(1, 60),
    change=st.sampled_from(["add", "alter", "delete", "at the cutoff", "unseen values"]),
    features=st.sampled_from([PLAIN, SHUFFLED, *FITTED.values()]),
)
def test_future_changes_no_bit(seed: int, n_events: int, n_added: int, change: str, features: SequenceFeatures) -> None:
    events = random_events(seed, n_events)
    before = features.batch(at_cutoff(events))
    past, future = events[events["timestamp"] < CUTOFF], events[events["timestamp"] >= CUTOFF]
    added = random_events(seed + 1, n_added, late=True)
    if change == "alter":
        added = random_events(seed + 2, len(future), late=True).assign(timestamp=future["timestamp"].to_numpy())
    elif change == "delete":
        added = added.iloc[:0]
    elif change == "at the cutoff":
        added["timestamp"] = CUTOFF
    elif change == "unseen values":
        added[["touchpoint", "channel", "item", "agent"]] = "never seen"
    visible = events if change in ("add", "at the cutoff") else past
    if len(visible) + len(added):
        shuffled = pd.concat([added, visible], ignore_index=True)  # the future first in the file: only time may count
        assert same(before, features.batch(at_cutoff(shuffled)))


@settings(max_examples=10, deadline=None)
@given(seed=SEEDS)
def test_fit_does_not_look_past_the_cutoff(seed: int) -> None:
    events = random_events(seed, 150)
    late = random_events(seed + 1, 500, late=True).assign(touchpoint="only later", agent="only later", value=1e9)
    options = SequenceSettings(min_count=2)
    a, b = (SequenceFeatures(options).fit(at_cutoff(log)) for log in (events, pd.concat([events, late])))
    assert a.to_dict() == b.to_dict()


# --- little, and other logs ---


def test_journeys_without_events_have_no_steps() -> None:
    snapshots = at_cutoff(random_events(1, 4))  # some of the customers are unknown to the log
    batch = PLAIN.batch(snapshots)
    empty = np.flatnonzero(snapshots.stop == snapshots.start)
    assert len(empty) >= 2
    assert set(empty) == set(batch.rows[batch.lengths == 0])
    assert (batch.padded()[batch.lengths == 0] == -1).all()
    only = PLAIN.batch(snapshots.take(empty))
    assert (only.n_steps, only.batch_sizes.tolist(), only.offsets.tolist()) == (0, [], [0])
    assert only.padded().shape == (len(empty), 0)
    assert only.context.tobytes() == batch.context[batch.lengths == 0].tobytes()
    none = PLAIN.batch(snapshots.take(np.arange(0)))
    assert none.context.shape == (0, PLAIN.n_context)
    assert none.codes.shape == (len(PLAIN.sizes), 0)


def test_absent_columns_count_as_missing() -> None:
    events = random_events(3, 80)
    gone = ["channel", "item", "value", "satisfaction", "has_years"]
    missing = events.assign(**{name: pd.Series([None] * len(events), dtype="str") for name in gone[:2]})
    missing[gone[2:]] = np.nan
    lacking, marked = at_cutoff(events.drop(columns=gone)), at_cutoff(missing)
    assert "value" not in lacking.journeys.numbers
    batch = PLAIN.batch(lacking)
    assert same(batch, PLAIN.batch(marked))
    assert np.isfinite(batch.numbers).all()


def test_a_log_with_further_columns_is_read_as_before() -> None:
    events = random_events(3, 80)
    more = events.assign(stage="loyalty")
    assert same(PLAIN.batch(at_cutoff(events)), PLAIN.batch(at_cutoff(more)))

"""Packed journeys against a plain reference; snapshots, look-ups, fingerprints, files."""

from __future__ import annotations

import json
import time

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import DataError
from features.events.schema import EventSchema
from features.events.text_index import TextIndex
from features.journeys import ordering
from features.journeys.duplicates import repeated, without
from features.journeys.journeys import Journeys
from features.journeys.packing import pack, pack_batches, pack_columns
from features.simulation.large_log import synthetic_log
from features.timestamps import microseconds

SCHEMA = EventSchema(properties=("agent",), profile_numeric=("age",))
CATEGORIES = ("touchpoint", "channel", "agent")
NUMBERS = ("value", "age")


def log_frame(n, n_customers, n_names=5, n_times=50, seed=0):
    rng = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "customer_id": [f"customer {i}" for i in rng.integers(0, n_customers, n)],
            "timestamp": rng.integers(10**15, 10**15 + n_times, n).astype("datetime64[us]"),
            "touchpoint": [f"t{i}" for i in rng.integers(0, n_names, n)],
            "channel": rng.choice(np.array(["web", "app", None], dtype=object), n),
            "agent": rng.choice(np.array(["é", "bo", None], dtype=object), n),
            "value": np.where(rng.random(n) < 0.3, np.nan, rng.normal(size=n)),
            "age": rng.integers(20, 80, n).astype(float),
        }
    )


def assert_packed(log, frame):
    """The same journeys, by `np.lexsort` and pandas."""
    ids = list(dict.fromkeys(frame["customer_id"]))
    code = frame["customer_id"].map({name: k for k, name in enumerate(ids)}).to_numpy(dtype=np.int64)
    t = frame["timestamp"].to_numpy().astype("datetime64[us]").astype(np.int64)
    order = np.lexsort((t, code))
    assert log.customer_ids.to_pylist() == ids
    np.testing.assert_array_equal(log.t, t[order])
    np.testing.assert_array_equal(log.offsets, np.append(0, np.cumsum(np.bincount(code, minlength=len(ids)))))
    for name, column in log.categories.items():
        wanted = frame[name].to_numpy(dtype=object)[order]
        wanted[pd.isna(wanted)] = None
        assert np.array([*column.names, None], dtype=object)[column.codes].tolist() == wanted.tolist()
        assert list(column.names) == sorted({one for one in wanted if one is not None})
        assert column.codes.dtype == np.int32
    for name, values in log.numbers.items():
        np.testing.assert_array_equal(values, frame[name].to_numpy()[order])
        assert values.dtype == np.float64


@pytest.mark.parametrize(
    ("n", "n_customers", "n_names"), [(1, 1, 1), (100, 7, 5), (3000, 3000, 200), (3000, 1, 5), (70_000, 400, 40_000)]
)
def test_packing_is_a_stable_sort(n, n_customers, n_names):
    frame = log_frame(n, n_customers, n_names)
    log = pack(frame, SCHEMA)
    assert set(log.categories) == set(CATEGORIES)
    assert set(log.numbers) == set(NUMBERS)
    assert_packed(log, frame)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_cutting_a_log_into_batches_changes_nothing(data):
    frame = log_frame(data.draw(st.integers(1, 300)), data.draw(st.integers(1, 40)), seed=data.draw(st.integers(0, 99)))
    table = pa.Table.from_pandas(frame, preserve_index=False)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(frame)), max_size=5)))
    parts = [table.slice(a, b - a) for a, b in zip([0, *cuts], [*cuts, len(frame)], strict=True)]
    for k in data.draw(st.lists(st.integers(0, len(parts) - 1))):
        place = parts[k].column_names.index("customer_id")
        encoded = parts[k]["customer_id"].combine_chunks().dictionary_encode()
        parts[k] = parts[k].set_column(place, "customer_id", encoded)
    log = pack_batches(parts, SCHEMA)
    assert_packed(log, frame)
    assert log.fingerprint() == pack(frame, SCHEMA).fingerprint()


def test_many_buckets_give_the_same(monkeypatch):
    frame = log_frame(20_000, 3000)
    plain = pack(frame, SCHEMA).fingerprint()
    monkeypatch.setattr(ordering, "EVENTS_A_BUCKET", 16)
    assert pack(frame, SCHEMA).fingerprint() == plain
    monkeypatch.setattr(ordering, "MOST_BUCKETS", 7)
    assert pack(frame, SCHEMA).fingerprint() == plain


def test_columns_missing_from_some_batches_are_missing_values():
    frame = log_frame(10, 3)
    log = pack_batches([pa.Table.from_pandas(frame[:5].drop(columns=["channel", "age"])), pa.table(frame[5:])], SCHEMA)
    frame.loc[:4, ["channel", "age"]] = None
    assert_packed(log, frame)


@pytest.mark.parametrize("kind", ["category", "string[pyarrow]", "object"])
def test_every_kind_of_frame(kind):
    frame = log_frame(500, 20)
    assert_packed(pack(frame.astype(dict.fromkeys(("customer_id", *CATEGORIES), kind)), SCHEMA), frame)


def test_unused_names_are_no_names():
    frame = log_frame(50, 4).assign(touchpoint=pd.Categorical(["b", "a"] * 25, categories=["z", "b", "a"]))
    frame["customer_id"] = pd.Categorical(frame["customer_id"], categories=[f"customer {i}" for i in range(9, -1, -1)])
    assert_packed(pack(frame, SCHEMA), frame)


def test_a_request_packs_like_a_log():
    frame = log_frame(50, 3)
    columns = {name: frame[name].tolist() for name in (*CATEGORIES, *NUMBERS)}
    t = frame["timestamp"].to_numpy().astype(np.int64)
    log = pack_columns(frame["customer_id"].tolist(), t, columns, SCHEMA)
    assert_packed(log, frame)
    assert log.fingerprint() == pack(frame, SCHEMA).fingerprint()


def test_a_request_packs_fast():
    frame = log_frame(50, 1)
    columns = {name: frame[name].tolist() for name in ("touchpoint", "channel", "value")}
    ids, t = frame["customer_id"].tolist(), frame["timestamp"].to_numpy().astype(np.int64)
    log = pack_columns(ids, t, columns)
    cutoff = int(t[20])
    assert fastest(lambda: pack_columns(ids, t, columns)) < 1e-3  # 0.1 ms on a quiet machine
    assert fastest(lambda: log.at(cutoff)) < 1e-4  # 5 µs


def fastest(call, repeats=200):
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return min(times)


def test_unchecked_rows_are_refused():
    frame = log_frame(5, 2)
    frame.loc[2, "customer_id"] = None
    with pytest.raises(DataError, match="check_events"):
        pack(frame)


def test_no_events_at_all():
    log = pack(log_frame(1, 1).iloc[:0], SCHEMA)
    assert (log.n_events, log.n_customers) == (0, 0)
    assert len(log.at("2024-01-01")) == 0
    assert log.index_of(["a"]).tolist() == [-1]


# --- snapshots


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 99), st.lists(st.tuples(st.integers(-1, 19), st.integers(-3, 53)), min_size=1, max_size=50))
def test_a_snapshot_ends_before_its_cutoff(seed, rows):
    log = pack(log_frame(200, 20, seed=seed))
    customers = np.minimum([customer for customer, _ in rows], log.n_customers - 1)
    cutoffs = 10**15 + np.array([moment for _, moment in rows])
    snapshots = log.at(cutoffs, customers)
    for customer, start, stop, cutoff in zip(customers, snapshots.start, snapshots.stop, cutoffs, strict=True):
        if customer < 0:
            assert start == stop == 0
            continue
        own = log.t[log.offsets[customer] : log.offsets[customer + 1]]
        assert start == log.offsets[customer]
        assert stop - start == (own < cutoff).sum()


def test_cutoffs_and_customers_broadcast():
    log = pack(log_frame(100, 5))
    assert len(log.at(10**15 + 5)) == log.n_customers
    assert log.at([10**15, 10**15 + 5], 2).customer.tolist() == [2, 2]
    snapshots = log.at(10**15 + 5, [1, 3])
    assert snapshots.cutoff.tolist() == [10**15 + 5] * 2
    assert snapshots.take(np.array([False, True])).customer.tolist() == [3]
    assert snapshots.frame().columns.tolist() == ["customer_id", "cutoff"]
    with pytest.raises(IndexError, match="asks for 5"):
        log.at(0, [1, 5])


def test_unknown_customers_have_no_events():
    log = pack(log_frame(100, 5))
    rows = pd.DataFrame({"customer_id": ["customer 3", "nobody", None], "cutoff": pd.Timestamp("2024-01-01", tz="UTC")})
    snapshots = log.at_ids(rows)
    assert snapshots.customer_ids.tolist() == ["customer 3", None, None]
    assert (snapshots.stop - snapshots.start).tolist()[1:] == [0, 0]


@pytest.mark.parametrize("n_customers", [5, 2000])
@pytest.mark.parametrize("kind", [list, np.array, pd.Series, pd.Categorical, pa.array])
def test_customers_are_found_by_identifier(n_customers, kind):
    frame = log_frame(3000, n_customers)
    log = pack(frame)
    asked = [*frame["customer_id"][:50], "nobody", ""]
    names = log.customer_ids.to_pylist()
    wanted = [names.index(name) if name in names else -1 for name in asked]
    assert log.index_of(kind(asked)).tolist() == wanted


@pytest.mark.parametrize("n", [3, 200])
def test_numeric_identifiers_are_found(n):
    frame = log_frame(n, 1).assign(customer_id=[str(i) for i in range(n)])
    log = pack(frame)
    assert log.index_of([2, 1]).tolist() == [2, 1]
    assert log.index_of(np.array([2.0, np.nan])).tolist() == [2, -1]
    assert log.index_of(["2", None, 1]).tolist() == [2, -1, 1]


@pytest.mark.parametrize(
    ("moment", "text"),
    [
        ("2024-01-02", "2024-01-02"),
        ("2024-01-02T03:00:00+02:00", "2024-01-02T01:00:00"),
        (pd.Timestamp("2024-01-02", tz="Asia/Tokyo"), "2024-01-01T15:00:00"),
        (np.datetime64("2024-01-02"), "2024-01-02"),
        (pd.Timestamp("2024-01-02").date(), "2024-01-02"),
        ("9999-01-01", "9999-01-01"),
        (["2024-01-02", "2024-01-02T03:00:00+02:00"], ["2024-01-02", "2024-01-02T01:00:00"]),
        (pd.Series(pd.to_datetime(["2024-01-02"])), ["2024-01-02"]),
        (pd.to_datetime(pd.Series(["2024-01-02"])).dt.tz_localize("Asia/Tokyo"), ["2024-01-01T15:00:00"]),
        (np.array(["2024-01-02"], "datetime64[ns]"), ["2024-01-02"]),
    ],
)
def test_every_kind_of_moment(moment, text):
    assert microseconds(moment).tolist() == np.array(text, "datetime64[us]").astype(np.int64).tolist()


@pytest.mark.parametrize("moment", ["soon", "31/12/2024", None, pd.NaT, ["2024-01-01", None], ["x"], 1.5])
def test_no_moment_is_an_error(moment):
    with pytest.raises(DataError, match=r"no time|cutoff"):
        microseconds(moment)


# --- fingerprints and files


def test_the_fingerprint_depends_on_every_column():
    frame = log_frame(40, 4)
    plain = pack(frame, SCHEMA).fingerprint()
    assert pack(frame.copy(), SCHEMA).fingerprint() == plain
    for name in frame.columns:
        changed = frame.copy()
        changed.loc[7, name] = {"timestamp": pd.Timestamp("2001-01-01"), "value": 9.0, "age": 9.0}.get(name, "other")
        assert pack(changed, SCHEMA).fingerprint() != plain


def test_save_and_load(tmp_path):
    log = pack(log_frame(500, 20), SCHEMA)
    log.save(tmp_path / "log")
    again = Journeys.load(tmp_path / "log")
    assert again.fingerprint() == log.fingerprint()
    assert again.customer_ids.to_pylist() == log.customer_ids.to_pylist()
    np.testing.assert_array_equal(again.at(10**15 + 20).stop, log.at(10**15 + 20).stop)
    assert again.index_of(["customer 3"]) == log.index_of(["customer 3"])
    empty = pack(log_frame(1, 1).iloc[:0], SCHEMA)
    empty.save(tmp_path / "empty")
    assert Journeys.load(tmp_path / "empty").n_customers == 0


@pytest.mark.parametrize(
    ("file", "values"),
    [
        ("offsets.npy", np.array([0, 900, 500], np.int64)),
        ("category_0.npy", np.full(500, 99, np.int32)),
        ("category_0.npy", np.zeros(3, np.int32)),
        ("number_0.npy", np.zeros(500, np.float32)),
        ("id_borders.npy", np.arange(0, 2100, 100, dtype=np.int32)),
        ("t.npy", np.array([None])),
    ],
)
def test_files_that_do_not_fit_are_refused(tmp_path, file, values):
    pack(log_frame(500, 20), SCHEMA).save(tmp_path)
    np.save(tmp_path / file, values)
    with pytest.raises(DataError, match="no packed log"):
        Journeys.load(tmp_path)


def test_a_folder_of_something_else_is_refused(tmp_path):
    (tmp_path / "journeys.json").write_text(json.dumps([1]))
    for folder in (tmp_path, tmp_path / "none"):
        with pytest.raises(DataError, match="no packed log"):
            Journeys.load(folder)


# --- duplicates


@pytest.mark.parametrize("n_times", [3, 200])
def test_repeats_are_what_pandas_calls_duplicates(n_times):
    frame = log_frame(3000, 12, n_names=3, n_times=n_times)
    frame["value"] = frame["value"].round(0)
    frame["age"] = 1.0
    log = pack(frame, SCHEMA)
    gone = repeated(log)
    assert gone.sum() == frame.duplicated().sum() > 5
    assert_packed(without(log, gone), frame[~frame.duplicated()].reset_index(drop=True))


# --- the index of texts


@settings(max_examples=50, deadline=None)
@given(st.lists(st.lists(st.text(max_size=20), max_size=60), max_size=4))
def test_texts_get_codes_by_first_appearance(batches):
    index, known = TextIndex(), {}
    for batch in batches:
        wanted = [known.setdefault(text, len(known)) for text in batch]
        assert index.add(pa.array(batch, pa.string())).tolist() == wanted
    assert index.texts().to_pylist() == list(known)
    assert index.find(pa.array([*known, "…"], pa.string())).tolist()[: len(known)] == list(range(len(known)))


def test_the_index_grows():
    texts = pa.array([f"{'x' * (i % 40)}{i}" for i in range(20_000)])
    index = TextIndex()
    for start in range(0, 20_000, 3000):
        index.add(texts.slice(start, 3000))
    assert index.texts().equals(texts)
    assert index.find(texts.slice(7000, 5)).tolist() == list(range(7000, 7005))


def test_the_synthetic_log_packs():
    table = synthetic_log(20_000, 300)
    assert_packed(pack(table), table.to_pandas())

"""Features, labels and scores on Spark are those of one machine: columns, times, ties, rows set aside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from features.errors import ConfigError, DataError
from features.events.source import EventSource
from features.journeys.event_log import Part, facts_of, partial_facts
from features.journeys.journeys import Journeys
from features.journeys.loading import load_log
from features.spark.log import SparkLog, session
from features.spark.reading import read_log, request_frame
from features.tabular.features import TabularFeatures
from features.tabular.fitting import feature_schema, features_at

SMALL_BLOCK = 300
DAY_US = 86_400_000_000


def events_folder(events: pd.DataFrame, folder: Path, files: int = 3) -> Path:
    """The same rows in several files whose names have the order of the rows."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pa.Table.from_pandas(events, preserve_index=False)
    size = -(-table.num_rows // files)
    for place in range(files):
        pq.write_table(table.slice(place * size, size), folder / f"part {place}.parquet", row_group_size=500)
    return folder


@pytest.fixture(scope="module")
def source(simulated_events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> EventSource:
    folder = events_folder(simulated_events, tmp_path_factory.mktemp("spark") / "events")
    return EventSource(path=folder, profile=("country", "plan"))


@pytest.fixture(scope="module")
def here(source: EventSource) -> Journeys:
    return load_log(source).journeys


@pytest.fixture(scope="module")
def there(spark: Any, source: EventSource) -> Iterator[SparkLog]:
    log = read_log(spark, source, partitions=3, rows_a_block=SMALL_BLOCK).named()
    yield log
    log.close()


def parts_of(log: SparkLog) -> list[Part]:
    """All parts of a log, fetched one by one."""
    return [part for parts in log.each(in_list) for part in parts]


def in_list(part: Part) -> list[Part]:
    return [part]


def rows_of(journeys: Journeys) -> dict[str, list[tuple[Any, ...]]]:
    """Customer → events in order, with names for codes."""
    found = {}
    texts = {
        name: [None if code < 0 else column.names[code] for code in column.codes]
        for name, column in journeys.categories.items()
    }
    numbers = {name: [None if np.isnan(one) else one for one in values] for name, values in journeys.numbers.items()}
    for place, who in enumerate(journeys.customer_ids.to_pylist()):
        own = slice(journeys.offsets[place], journeys.offsets[place + 1])
        columns = [journeys.t[own].tolist(), *(texts[one][own] for one in sorted(texts))]
        found[who] = list(zip(*columns, *(numbers[one][own] for one in sorted(numbers)), strict=True))
    return found


def all_rows(log: SparkLog) -> dict[str, list[tuple[Any, ...]]]:
    found: dict[str, list[tuple[Any, ...]]] = {}
    for part in parts_of(log):
        for who, rows in rows_of(part.journeys).items():
            assert who not in found
            found[who] = rows
    return found


def test_the_packed_events_are_those_of_one_machine(here: Journeys, there: SparkLog) -> None:
    assert len(parts_of(there)) > 6
    assert all_rows(there) == rows_of(here)
    firsts: dict[str, int] = {}
    for part in parts_of(there):
        firsts |= dict(zip(part.journeys.customer_ids.to_pylist(), part.firsts.tolist(), strict=True))
    assert sorted(firsts, key=lambda who: firsts[who]) == here.customer_ids.to_pylist()


def test_facts_of_the_whole_log(here: Journeys, there: SparkLog) -> None:
    facts = there.facts
    assert (facts.start_us, facts.end_us) == (here.t.min(), here.t.max())
    assert (facts.events, facts.customers) == (here.n_events, here.n_customers)
    assert facts.names == {name: column.names for name, column in here.categories.items()}


def test_many_partial_results_are_merged_on_the_cluster(there: SparkLog, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("features.spark.log.PARTIALS_AT_ONCE", 1)
    assert len(list(there.each(partial_facts))) == 1  # of three
    assert facts_of(there) == there.facts


def test_features_are_equal_bit_for_bit(here: Journeys, there: SparkLog) -> None:
    cutoffs = np.array([here.t.max() - 30 * DAY_US, here.t.max() + 1])
    features = TabularFeatures().fit(here.at(int(cutoffs[0])))
    state = json.dumps(features.to_dict())
    found = (
        there.rows(partial(features_at, state=state, cutoffs=cutoffs), feature_schema(features)).toArrow().to_pandas()
    )
    snapshots = here.at(np.repeat(cutoffs, here.n_customers), np.tile(np.arange(here.n_customers), 2))
    wanted = snapshots.frame()
    names = features.get_feature_names_out()
    x = pd.DataFrame(features.transform(snapshots), columns=names)
    both = pd.concat([wanted, x], axis=1).merge(found, on=["customer_id", "cutoff"], suffixes=("", "_there"))
    assert len(both) == len(wanted) == len(found)
    theirs = both[[f"{name}_there" for name in names]].to_numpy(np.float32)
    np.testing.assert_array_equal(both[names].to_numpy(np.float32), theirs)


def read(spark: Any, source: EventSource, **how: Any) -> tuple[dict[str, list[tuple[Any, ...]]], SparkLog]:
    """Every customer's events as Spark packs them, and the log, closed."""
    log = read_log(spark, source, **how)
    try:
        found = all_rows(log)
        assert log.facts
        return found, log
    finally:
        log.close()


def test_equal_moments_keep_the_source_order_across_files_and_row_groups(spark: Any, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n = 4000
    when = pd.Timestamp("2024-03-01") + pd.to_timedelta(rng.integers(0, 3, n), unit="h")
    who = [f"c{one}" for one in rng.integers(0, 40, n)]
    rows = pd.DataFrame({"customer_id": who, "timestamp": when, "touchpoint": [f"t{place}" for place in range(n)]})
    source = EventSource(path=events_folder(rows, tmp_path / "a b" / "log"))
    here = rows_of(load_log(source).journeys)
    assert read(spark, source, partitions=2, rows_a_block=150)[0] == here
    told, log = read(spark, source, partitions=3, order_by=None, frame=spark.read.parquet(str(source.path)))
    assert told.keys() == here.keys()
    assert "no order of its rows" in " ".join(log.notes)
    numbered = rows.assign(number=range(n)).sample(frac=1, random_state=1)
    frame = spark.createDataFrame(pa.Table.from_pandas(numbered, preserve_index=False))
    assert read(spark, source, frame=frame, order_by="number", partitions=2)[0] == here


@pytest.mark.parametrize("kind", ["ns", "us", "ms", "zone", "text", "seconds"])
def test_times_of_every_kind_are_the_same_moments(spark: Any, tmp_path: Path, kind: str) -> None:
    days = pd.date_range("2024-03-30", periods=60, freq="37min", tz="UTC")
    naive = days.tz_localize(None)
    if kind in ("ns", "us", "ms"):
        stamps = pa.array(naive.as_unit("us")).cast(pa.timestamp(kind))
    elif kind == "zone":
        stamps = pa.array(naive.as_unit("us")).cast(pa.timestamp("us", "Europe/London"))
    elif kind == "text":
        stamps = pa.array(naive.strftime("%Y-%m-%d %H:%M:%S").tolist())
    else:
        stamps = pa.array((naive.as_unit("s").asi8).tolist())
    who = pa.array([f"c{place % 7}" for place in range(60)])
    table = pa.table({"customer_id": who, "timestamp": stamps, "touchpoint": ["view"] * 60})
    pq.write_table(table, tmp_path / "log.parquet")
    timezone = None if kind in ("zone", "seconds") else "Europe/London"  # the clocks change on the second day
    unit = "s" if kind == "seconds" else None
    source = EventSource(path=tmp_path / "log.parquet", timezone=timezone, time_unit=unit)
    assert read(spark, source)[0] == rows_of(load_log(source).journeys)


def bad_table() -> pa.Table:
    return pa.table(
        {
            "client": [12.0, 12.0, None, 7.0, 7.0, 7.0, 3.5],
            "timestamp": pa.array(
                ["2024-01-02", "2024-01-01", "2024-01-01", "soon", "2024-01-05", "2024-01-05", "2024-01-03"]
            ),
            "touchpoint": ["view", "buy", "view", "buy", "view", "view", " "],
            "value": pa.array([1.5, None, 2.0, 3.0, 4.0, 4.0, 5.0]),
            "aside": list(range(7)),
        }
    )


@pytest.mark.parametrize("several", [False, True])
def test_rows_set_aside_are_the_same_and_said(spark: Any, tmp_path: Path, several: bool) -> None:
    folder = tmp_path / "log"
    folder.mkdir()
    for place in range(1 + several):
        pq.write_table(bad_table(), folder / f"{place}.parquet")
    source = EventSource(path=folder, columns={"customer_id": "client"}, stages={"v*": "look"}, duplicates="quarantine")
    here = load_log(source)
    log = read_log(spark, source, partitions=2)
    assert all_rows(log) == rows_of(here.journeys)
    counts, notes, events = log.rejected, log.notes, log.n_events
    assert counts == here.counts
    assert events == here.journeys.n_events
    assert set(here.notes) <= set(notes)
    path = log.quarantine(tmp_path / "bad.csv")
    log.close()
    assert path is not None
    columns = ["file", "row", "reason"] if several else ["row", "reason"]
    assert pd.read_csv(path)[columns].to_dict("records") == here.quarantine.select(columns).to_pylist()


def test_partitioned_folders_and_delta_logs(spark: Any, tmp_path: Path) -> None:
    table = bad_table().slice(0, 2).append_column("day", pa.array(["x=1", "y"]))
    folder = tmp_path / "table"
    pq.write_to_dataset(table, folder, partition_cols=["day"], basename_template="part-{i}.parquet")
    source = EventSource(path=folder, columns={"customer_id": "client"}, profile=("day",))
    (days,) = read(spark, source)[0].values()
    assert [row[1] for row in days] == ["y", "x=1"]  # a column of the folders' names
    gone = folder / "day=y" / "part-9.parquet"
    pq.write_table(bad_table().slice(0, 1), gone)
    files = sorted(file.relative_to(folder).as_posix() for file in folder.rglob("*.parquet"))
    (folder / "_delta_log").mkdir()
    added = [json.dumps({"add": {"path": file.replace("%", "%25"), "dataChange": True}}) for file in files]
    (folder / "_delta_log" / f"{0:020d}.json").write_text("\n".join(added))
    removed = json.dumps({"remove": {"path": gone.relative_to(folder).as_posix()}})
    (folder / "_delta_log" / f"{1:020d}.json").write_text(removed)
    assert read(spark, source)[0] == {"12": days}


def test_text_files_and_tables_by_name(spark: Any, tmp_path: Path, simulated_events: pd.DataFrame) -> None:
    folder = tmp_path / "csv"
    folder.mkdir()
    some = simulated_events.head(600).assign(timestamp=lambda rows: rows["timestamp"].dt.floor("D"))
    for place in range(2):
        some.iloc[300 * place : 300 * place + 300].to_csv(folder / f"{place}.csv", index=False, sep=";")
    source = EventSource(path=folder, profile=("country", "plan"))
    here = rows_of(load_log(source).journeys)
    assert read(spark, source, partitions=2)[0] == here
    table = pa.Table.from_pandas(some.assign(place=range(600)), preserve_index=False)
    spark.createDataFrame(table).createOrReplaceTempView("journey_events")
    assert read(spark, source.with_path("journey_events"), order_by="place")[0] == here


def test_a_customer_larger_than_a_block_and_customers_who_only_ask(spark: Any, tmp_path: Path) -> None:
    n = 3000
    who = pa.array(["big"] * n + [f"c{place}" for place in range(300)])
    when = pa.array(np.arange(n + 300)[::-1] * 1_000_000 + 1_700_000_000_000_000).cast(pa.timestamp("us"))
    table = pa.table({"customer_id": who, "timestamp": when, "touchpoint": ["view"] * (n + 300)})
    pq.write_table(table, tmp_path / "log.parquet")
    source = EventSource(path=tmp_path / "log.parquet")
    rows = pd.DataFrame({"customer_id": ["nobody", "big", "c3"], "cutoff": [1_800_000_000_000_000] * 3})
    log = read_log(spark, source, requests=request_frame(spark, rows), partitions=2, rows_a_block=100)
    parts = parts_of(log)
    log.close()
    assert sum(part.journeys.n_events for part in parts) == n + 300
    assert next(p.journeys.n_events for p in parts if "big" in p.journeys.customer_ids.to_pylist()) >= n
    assert sorted(who for p in parts if p.requests for who in p.requests["customer_id"].to_pylist()) == [
        "big",
        "c3",
        "nobody",
    ]
    assert max(p.journeys.n_events for p in parts if p.journeys.n_events < n) <= 200


def test_what_cannot_be_read_is_one_sentence(spark: Any, tmp_path: Path) -> None:
    table = bad_table()
    pq.write_table(table, tmp_path / "log.parquet")
    with pytest.raises(DataError, match="No column 'customer_id'"):
        read_log(spark, EventSource(path=tmp_path / "log.parquet"))
    pq.write_table(table.set_column(1, "timestamp", pa.array(range(7))), tmp_path / "unit.parquet")
    with pytest.raises(DataError, match=r"Say their unit with time_unit"):
        _ = read_log(spark, EventSource(path=tmp_path / "unit.parquet", columns={"customer_id": "client"})).facts
    bad = table.set_column(1, "timestamp", pa.array(["soon"] * 7))
    pq.write_table(bad, tmp_path / "bad.parquet")
    source = EventSource(path=tmp_path / "bad.parquet", columns={"customer_id": "client"})
    with pytest.raises(DataError, match="This is no event log: 7 of 7 rows") as on_spark:
        _ = read_log(spark, source).facts
    with pytest.raises(DataError) as in_memory:
        load_log(source)
    assert str(on_spark.value) == str(in_memory.value)
    with pytest.raises(ConfigError, match="stop it before"):
        session("local[7]")


def test_a_log_of_repeats_is_an_event_log(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("customer_id,timestamp,touchpoint\n" + "a,2024-01-01,view\n" * 4)
    source = EventSource(path=tmp_path / "log.csv", duplicates="quarantine")
    assert load_log(source).journeys.n_events == 1
    assert read_log(spark, source).facts.events == 1


def test_a_line_with_too_few_fields_is_said(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("customer_id,timestamp,touchpoint\na,2024-01-01,view\nb,2024-01-01\n")
    with pytest.raises(DataError, match="does not have the fields of the header"):
        _ = read_log(spark, EventSource(path=tmp_path / "log.csv")).facts

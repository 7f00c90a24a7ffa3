"""The speed of tabular features against Polars expressions and DuckDB SQL, of one journey, and of the full set.

    .venv/bin/python experiments/benchmarks/features_speed.py [--events 5000000] [--out runs/benchmarks]

The same 102 features, from columns in memory, in one run, with the values compared: 5 windows × (10 touchpoints,
6 channels, sum of value) + the recencies of each and of all events. Polars and DuckDB get what packing gives us: small
integer codes, one shared cutoff. Polars is tried in two ways and the faster one counts. Bars: at least 25 × Polars and
100 × DuckDB; one journey of 50 events, every feature, at most 0.1 ms. Writes `features_speed.json`.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import numba
import numpy as np
import numpy.typing as npt
import polars as pl
import pyarrow as pa

from features.journeys.journeys import Category, Journeys, Snapshots
from features.journeys.packing import pack
from features.simulation.large_log import synthetic_log
from features.tabular.features import TabularFeatures

DAY_US = 86_400_000_000
WINDOWS_DAYS = (7, 30, 90, 180, 365)
N_TOUCHPOINTS = 10
BARS = {"polars": 25.0, "duckdb": 100.0, "one_journey_ms": 0.1}

Matrix = npt.NDArray[np.float64]


def comparable(features: TabularFeatures) -> TabularFeatures:
    """The fitted features that the others compute too."""
    counts = [name for name in features.get_feature_names_out() if ".count_" in name and "_all" not in name]
    values = [f"value_{days}d" for days in WINDOWS_DAYS]
    recencies = [name for name in features.get_feature_names_out() if name.endswith("recency_days")]
    names = [name for name in (*counts, *values, *recencies) if ".other." not in name and ".missing." not in name]
    return features.select(names)


def peer_columns(journeys: Journeys, cutoff: int) -> pa.Table:
    """What packing gives us, as a table: customer and codes as small integers, age in µs."""
    customer_of = np.repeat(np.arange(journeys.n_customers, dtype=np.int32), np.diff(journeys.offsets))
    table = {
        "customer": customer_of,
        "touchpoint": journeys.categories["touchpoint"].codes.astype(np.uint8),
        "channel": journeys.categories["channel"].codes.astype(np.uint8),
        "value": pa.array(journeys.numbers["value"], from_pandas=True),
        "age": cutoff - journeys.t,
    }
    return pa.table(table)


class Codes:
    """Which codes the compared features speak of, in the order of their names."""

    def __init__(self, journeys: Journeys, features: TabularFeatures) -> None:
        learned = features.learned_
        assert learned is not None
        self.of = {
            column: [journeys.categories[column].names.index(value) for value in learned.vocabularies[column]]
            for column in ("touchpoint", "channel")
        }
        self.pairs = [(column, code) for column, codes in self.of.items() for code in codes]


def polars_expressions(table: pl.DataFrame, codes: Codes) -> Matrix:
    """One expression a feature."""
    inside = [pl.col("age") <= days * DAY_US for days in WINDOWS_DAYS]
    has = [pl.col(column) == code for column, code in codes.pairs]
    counts = [
        (member & window).sum().alias(f"{i}-{w}") for w, window in enumerate(inside) for i, member in enumerate(has)
    ]
    values = [pl.col("value").filter(window).sum().alias(f"value-{w}") for w, window in enumerate(inside)]
    recent = [pl.col("age").min(), *(pl.col("age").filter(member).min().alias(f"r{i}") for i, member in enumerate(has))]
    wide = table.group_by("customer").agg(*counts, *values, *recent).sort("customer").drop("customer")
    return in_days(wide.to_numpy().astype(np.float64), len(counts) + len(values))


def polars_pivots(table: pl.DataFrame, codes: Codes) -> Matrix:
    """Grouped by customer and code, then spread: fewer passes, more joins."""
    customers = int(table["customer"].max()) + 1  # type: ignore[arg-type]
    n_pairs, n_windows = len(codes.pairs), len(WINDOWS_DAYS)
    out = np.zeros((customers, n_windows * (n_pairs + 1) + n_pairs + 1))
    out[:, n_windows * (n_pairs + 1) :] = np.nan
    inside = [(pl.col("age") <= days * DAY_US) for days in WINDOWS_DAYS]
    for column, names_of in codes.of.items():
        counts = [window.sum().alias(f"n{w}") for w, window in enumerate(inside)]
        grouped = table.group_by("customer", column).agg(*counts, pl.col("age").min())
        place = np.full(256, -1)
        place[names_of] = codes.pairs.index((column, names_of[0])) + np.arange(len(names_of))
        where = place[grouped[column].to_numpy()]
        rows, is_present = grouped["customer"].to_numpy()[where >= 0], where >= 0
        for w in range(n_windows):
            out[rows, w * n_pairs + where[is_present]] = grouped[f"n{w}"].to_numpy()[is_present]
        out[rows, n_windows * (n_pairs + 1) + 1 + where[is_present]] = grouped["age"].to_numpy()[is_present]
    values = [pl.col("value").filter(window).sum().alias(f"v{w}") for w, window in enumerate(inside)]
    total = table.group_by("customer").agg(*values, pl.col("age").min())
    rows = total["customer"].to_numpy()
    for w in range(n_windows):
        out[rows, n_windows * n_pairs + w] = total[f"v{w}"].to_numpy()
    out[rows, n_windows * (n_pairs + 1)] = total["age"].to_numpy()
    return in_days(out, n_windows * (n_pairs + 1))


def duckdb_sql(connection: duckdb.DuckDBPyConnection, codes: Codes) -> Matrix:
    """One aggregate with a filter a feature."""
    inside = [f"age <= {days * DAY_US}" for days in WINDOWS_DAYS]
    has = [f"{column} = {code}" for column, code in codes.pairs]
    counts = [f"count(*) FILTER ({window} AND {member})" for window in inside for member in has]
    values = [f"coalesce(sum(value) FILTER ({window}), 0)" for window in inside]
    recent = ["min(age)", *(f"min(age) FILTER ({member})" for member in has)]
    chosen = ", ".join(f"{text} AS f{i}" for i, text in enumerate((*counts, *values, *recent)))
    fetched = connection.sql(f"SELECT customer, {chosen} FROM events GROUP BY customer ORDER BY customer").fetchnumpy()
    columns = [np.ma.filled(np.ma.asarray(fetched[f"f{i}"], np.float64), np.nan) for i in range(len(fetched) - 1)]
    return in_days(np.column_stack(columns), len(counts) + len(values))


def in_days(matrix: Matrix, first: int) -> Matrix:
    """Ages, from column `first` on, from µs to days."""
    matrix[:, first:] /= DAY_US
    return matrix


def best(call: Callable[[], Any], rounds: int) -> tuple[float, Any]:
    """The shortest of some rounds, in seconds, and what came out."""
    shortest, result = float("inf"), None
    for _ in range(rounds):
        result = None
        begun = time.perf_counter()
        result = call()
        shortest = min(shortest, time.perf_counter() - begun)
    return shortest, result


def differences(ours: npt.NDArray[np.float32], theirs: Matrix) -> int:
    """Cells that differ by more than the rounding to float32."""
    return int((~np.isclose(ours, theirs, rtol=1e-5, atol=1e-5, equal_nan=True)).sum())


def compare(journeys: Journeys, rounds: int) -> dict[str, Any]:
    """The three ways on one log."""
    cutoff = int(journeys.t.max()) + 1
    snapshots = journeys.at(cutoff)
    options: dict[str, Any] = {"windows_days": WINDOWS_DAYS, "top_touchpoints": N_TOUCHPOINTS}
    features = comparable(TabularFeatures(groups=("volume", "recency"), drop_redundant=False, **options).fit(snapshots))
    codes = Codes(journeys, features)
    packed = peer_columns(journeys, cutoff)
    frame = pl.DataFrame(pl.from_arrow(packed))
    connection = duckdb.connect()
    connection.execute(f"SET threads TO {numba.config.NUMBA_NUM_THREADS}")  # type: ignore[attr-defined]
    connection.execute("CREATE TABLE events AS SELECT * FROM packed")
    features.transform(snapshots)  # the compiler and the binding to the log are not what is compared
    ways: dict[str, tuple[Callable[[], Any], int]] = {
        "ours": (lambda: features.transform(snapshots), 3 * rounds),
        "polars expressions": (lambda: polars_expressions(frame, codes), rounds),
        "polars pivots": (lambda: polars_pivots(frame, codes), rounds),
        "duckdb": (lambda: duckdb_sql(connection, codes), 1),
        "ours again": (lambda: features.transform(snapshots), 3 * rounds),
    }
    seconds, results = {}, {}
    for name, (call, times) in ways.items():
        seconds[name], results[name] = best(call, times)
    ours = min(seconds["ours"], seconds["ours again"])
    wrong = {name: differences(results["ours"], results[name]) for name in ways if not name.startswith("ours")}
    polars = min(seconds["polars expressions"], seconds["polars pivots"])
    return {
        "features": len(features.features_),
        "seconds": {"ours": ours, **{name: seconds[name] for name in wrong}},
        "cells_that_differ": wrong,
        "times_faster": {"polars": polars / ours, "duckdb": seconds["duckdb"] / ours},
    }


def rich(journeys: Journeys, seed: int = 7) -> Journeys:
    """The log with every other column too: stage, item, durations, satisfaction, who handled it, a profile."""
    r = np.random.default_rng(seed)
    n = journeys.n_events

    def category(prefix: str, size: int) -> Category:
        codes = np.minimum(r.geometric(2.5 / size, n) - 1, size - 1).astype(np.int32)
        return Category(codes, tuple(f"{prefix} {k}" for k in range(size)))

    categories = {"stage": category("stage", 5), "item": category("item", 4_000), "agent": category("agent", 70)}
    numbers = {
        "duration_s": r.exponential(60, n),
        "satisfaction": np.where(r.random(n) < 0.9, np.nan, r.integers(1, 6, n)),
        "age": np.repeat(r.integers(20, 70, journeys.n_customers), np.diff(journeys.offsets)).astype(float),
    }
    return Journeys(
        journeys.customer_ids, journeys.offsets, journeys.t, {**journeys.categories, **categories},
        {**journeys.numbers, **numbers},
    )  # fmt: skip


def full_set(journeys: Journeys, rounds: int) -> dict[str, float]:
    """Every feature on the whole log, in threads and in one."""
    snapshots = journeys.at(int(journeys.t.max()) + 1)
    features = TabularFeatures().fit(snapshots)
    in_threads, matrix = best(lambda: features.transform(snapshots), rounds)
    threads = numba.config.NUMBA_NUM_THREADS  # type: ignore[attr-defined]
    vars(numba.config)["NUMBA_NUM_THREADS"] = 1
    seconds_threads, serial = best(lambda: features.transform(snapshots), rounds)
    vars(numba.config)["NUMBA_NUM_THREADS"] = threads
    assert matrix.tobytes() == serial.tobytes()
    return {"features": matrix.shape[1], "seconds": in_threads, "seconds_one_thread": seconds_threads}


def single_journey(journeys: Journeys, n_events: int = 50, times: int = 2_000) -> dict[str, float]:
    """Every feature of one journey, in ms: of a log that was met before, and of one just packed, as a request is."""
    features = TabularFeatures().fit(journeys.at(int(journeys.t.max()) + 1))
    long = np.flatnonzero(np.diff(journeys.offsets) >= n_events)[:20]
    single = [first_events(journeys, int(customer), n_events) for customer in long]
    snapshots = [log.at(int(log.t[-1]) + 1) for log in single]
    warm = [elapsed(features, snapshots[i % len(snapshots)]) for i in range(times)]
    new = [first_events(journeys, int(long[i % len(long)]), n_events) for i in range(times // 10)]
    fresh = [log.at(int(log.t[-1]) + 1) for log in new]
    first = [elapsed(features, member) for member in fresh]
    return {"features": len(features.features_), "median_ms": np.median(warm), "p99_ms": np.quantile(warm, 0.99),
            "median_with_mapping_ms": np.median(first)}  # fmt: skip


def elapsed(features: TabularFeatures, snapshots: Snapshots) -> float:
    """Of one transform, in ms."""
    begun = time.perf_counter()
    features.transform(snapshots)
    return (time.perf_counter() - begun) * 1e3


def first_events(journeys: Journeys, customer: int, n_events: int) -> Journeys:
    """A log of one customer's first events, with only the names that occur, as a request would pack it."""
    start = int(journeys.offsets[customer])
    part = slice(start, start + n_events)
    categories = {}
    for name, category in journeys.categories.items():
        used, codes = np.unique(category.codes[part], return_inverse=True)
        categories[name] = Category(codes.astype(np.int32), tuple(category.names[code] for code in used))
    numbers = {name: values[part].copy() for name, values in journeys.numbers.items()}
    ids = journeys.customer_ids.slice(customer, 1)
    return Journeys(ids, np.array([0, n_events]), journeys.t[part].copy(), categories, numbers)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=5_000_000)
    parser.add_argument("--customers", type=int, default=100_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    journeys = pack(synthetic_log(options.events, options.customers))
    everything = rich(journeys)
    report = {
        "events": journeys.n_events,
        "customers": journeys.n_customers,
        "comparison": compare(journeys, options.rounds),
        "full_set": full_set(journeys, options.rounds),
        "full_set_of_rich_log": full_set(everything, options.rounds),
        "one_journey": single_journey(journeys),
        "one_journey_of_rich_log": single_journey(everything),
        "bars": BARS,
    }
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "features_speed.json").write_text(json.dumps(report, indent=2))
    show(report)


def show(report: dict[str, Any]) -> None:
    """Print the report."""
    fetched = report["comparison"]
    print(
        f"{report['events']:,} events of {report['customers']:,} customers; {fetched['features']} comparable features"
    )
    for name, seconds in fetched["seconds"].items():
        differ = fetched["cells_that_differ"].get(name)
        same = "" if differ is None else ("same values" if differ == 0 else f"{differ} CELLS DIFFER")
        print(f"  {name:<20}{seconds:9.3f} s{seconds / fetched['seconds']['ours']:9.1f} ×  {same}")
    for name, times in fetched["times_faster"].items():
        print(f"  {times:.1f} × {name}: bar {BARS[name]:.0f}, {'met' if times >= BARS[name] else 'MISSED'}")
    for title in ("full_set", "full_set_of_rich_log"):
        member = report[title]
        seconds_threads = f"one thread {member['seconds_one_thread']:.3f} s"
        print(f"{title}: {member['features']} features in {member['seconds']:.3f} s, {seconds_threads}")
    for title in ("one_journey", "one_journey_of_rich_log"):
        member = report[title]
        times = f"median {member['median_ms']:.4f} ms, 99 % {member['p99_ms']:.4f} ms"
        print(
            f"{title}: {member['features']} features, {times}, with mapping {member['median_with_mapping_ms']:.4f} ms"
        )
        print(
            f"  bar {BARS['one_journey_ms']} ms: {'met' if member['median_ms'] <= BARS['one_journey_ms'] else 'MISSED'}"
        )


if __name__ == "__main__":
    main()

"""From a Parquet file of events to the feature matrix: speed against pyarrow and Polars, growth, and memory.

    .venv/bin/python experiments/benchmarks/file_to_matrix.py [--out runs/benchmarks] [--quick]

Bars, on 2 cores: 5 M events of 100,000 customers, checks included, in at most 4 × the time in which pyarrow alone reads
that file, and at least 2.5 × faster than a hand-written Polars pipeline (of the 102 comparable features that
`features_speed.py` compares, in two ways, the faster one counts); at 50 M events of a million customers at most 1.5 ×
the time per event and, the matrix apart, at a peak of at most 2.5 × the memory of the columns as pyarrow holds them.
Every size runs in a process of its own, after a small warm-up that loads the compiled kernels. Processor time per event
is given too: on a machine with other work it is the steadier figure.

A virtual machine may have to ask its host for memory that it has not used lately: 3 ns a byte where this was written,
fifteen times the usual, and more than all the rest. So before each timing of the speed the same amount is touched and
freed, for everybody; and the growth is timed in processes that keep what they freed, the first round apart. Peaks of
memory come from processes without either.

Writes `file_to_matrix.json` and `file_to_matrix.png`; logs are made once and kept in `--data`. `--quick` is a tenth.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.journeys.stream import load
from features.simulation.large_log import CHANNELS, TOUCHPOINTS, write_synthetic_log
from features.tabular.features import TabularFeatures

THREADS = 2
DAY_US = 86_400_000_000
WINDOWS_DAYS = (7, 30, 90, 180, 365)
SIZES = {5_000_000: 100_000, 10_000_000: 200_000, 20_000_000: 400_000, 50_000_000: 1_000_000}  # events: customers
COUNTED = {"touchpoint": [0, 1, 2, 3, 4, 5, 6, 8, 10, 11], "channel": [0, 1, 2, 3, 4, 5]}  # 102 features: 16 × 6 + 6
TOUCHED_BYTES = 3 << 29  # more than anybody needs for the smallest log
KEEP_FREED = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40), "ARROW_DEFAULT_MEMORY_POOL": "system"}
BARS = {"reading": 4.0, "polars": 2.5, "growth": 1.5, "memory": 2.5}


@dataclass
class Legs:
    """Seconds of one way from file to matrix."""

    load_s: float
    fit_s: float
    transform_s: float
    events: int
    columns: int
    matrix_bytes: int
    peak_before_matrix_bytes: int
    cpu_s: float

    @property
    def total_s(self) -> float:
        """Without the fit."""
        return self.load_s + self.transform_s


def ours(path: Path, fitted: TabularFeatures | None = None) -> tuple[Legs, TabularFeatures]:
    """File → checked, packed journeys → one snapshot a customer after the last event → every feature."""
    begun, cpu = time.perf_counter(), time.process_time()
    log = load(path, threads=THREADS).journeys
    snapshots = log.at(int(log.t.max()) + 1)
    loaded, cpu_loaded = time.perf_counter(), time.process_time()
    features = fitted or TabularFeatures().fit(snapshots)
    fit, cpu_fit, peak = time.perf_counter(), time.process_time(), peak_bytes()
    matrix = features.transform(snapshots)
    done = time.perf_counter()
    cpu_s = cpu_loaded - cpu + time.process_time() - cpu_fit
    legs = Legs(loaded - begun, fit - loaded, done - fit, log.n_events, matrix.shape[1], matrix.nbytes, peak, cpu_s)
    return legs, features


def polars_events(path: Path, integers: bool) -> Any:
    """The file with the age of every event; texts as the codes of dictionaries if wanted."""
    import polars as pl

    events = pl.scan_parquet(path)
    cutoff = events.select(pl.col("timestamp").max()).collect().item()
    age = (pl.lit(cutoff) - pl.col("timestamp")).dt.total_microseconds() + 1
    enums = {"touchpoint": pl.Enum(TOUCHPOINTS), "channel": pl.Enum(CHANNELS)}
    codes = {name: pl.col(name).cast(kind).to_physical() for name, kind in enums.items()}
    if integers:
        codes["customer_id"] = pl.col("customer_id").cast(pl.Categorical).to_physical()
    return events.select("customer_id", "value", "touchpoint", "channel", age=age).with_columns(**codes)


def polars_expressions(path: Path) -> npt.NDArray[np.float64]:
    """One expression a feature."""
    import polars as pl

    inside = [pl.col("age") <= days * DAY_US for days in WINDOWS_DAYS]
    has = [pl.col(column) == code for column, codes in COUNTED.items() for code in codes]
    counts = [(mask & window).sum().alias(f"{i}-{w}") for w, window in enumerate(inside) for i, mask in enumerate(has)]
    values = [pl.col("value").filter(window).sum().alias(f"value-{w}") for w, window in enumerate(inside)]
    recent = [pl.col("age").min(), *(pl.col("age").filter(mask).min().alias(f"r{i}") for i, mask in enumerate(has))]
    wide = polars_events(path, integers=False).group_by("customer_id").agg(*counts, *values, *recent).collect()
    return wide.drop("customer_id").to_numpy()  # type: ignore[no-any-return]


def polars_groups(path: Path) -> npt.NDArray[np.float64]:
    """Grouped by customer and code, then spread: fewer passes over the events."""
    import polars as pl

    events = polars_events(path, integers=True).collect()
    inside = [pl.col("age") <= days * DAY_US for days in WINDOWS_DAYS]
    counts = [window.sum().alias(f"n{w}") for w, window in enumerate(inside)]
    values = [pl.col("value").filter(window).sum().alias(f"v{w}") for w, window in enumerate(inside)]
    total = events.group_by("customer_id").agg(*values, pl.col("age").min()).with_row_index("row")
    out = np.zeros((len(total), 6 * (1 + sum(map(len, COUNTED.values())))))
    out[:, :6], at = total.drop("row", "customer_id").to_numpy(), 6
    for column, codes in COUNTED.items():
        grouped = (
            events.filter(pl.col(column).is_in(codes)).group_by("customer_id", column).agg(*counts, pl.col("age").min())
        )
        grouped = grouped.join(total.select("row", "customer_id"), on="customer_id")
        place = np.zeros(256, np.int64)
        place[codes] = at + 6 * np.arange(len(codes))
        out[grouped["row"].to_numpy()[:, None], place[grouped[column].to_numpy()][:, None] + np.arange(6)] = (
            grouped.drop("customer_id", column, "row").to_numpy()
        )
        at += 6 * len(codes)
    return out


def seconds(call: Callable[[], Any]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def warm_up() -> None:
    """Load or make the compiled kernels; nobody measures a compiler."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "small.parquet"
        write_synthetic_log(path, 200_000, 5000)
        _, features = ours(path)
        ours(path, features)


# --- one measurement a process


def measure_speed(path: Path, rounds: int) -> dict[str, Any]:
    """Everybody in turn, `rounds` times, in one process."""
    set_threads()
    warm_up()
    _, fitted = ours(path)
    times: dict[str, list[float]] = {}
    legs: list[Legs] = []
    for _ in range(rounds):
        touch(TOUCHED_BYTES)
        times.setdefault("pyarrow reads", []).append(seconds(lambda: pq.read_table(path)))
        touch(TOUCHED_BYTES)
        legs.append(ours(path, fitted)[0])
        times.setdefault("ours", []).append(legs[-1].total_s)
        touch(TOUCHED_BYTES)
        fresh = ours(path)[0]
        times.setdefault("ours, fit included", []).append(fresh.total_s + fresh.fit_s)
        touch(TOUCHED_BYTES)
        times.setdefault("polars, expressions", []).append(seconds(lambda: polars_expressions(path)))
        touch(TOUCHED_BYTES)
        times.setdefault("polars, groups", []).append(seconds(lambda: polars_groups(path)))
    return {
        "seconds": {name: {"median": median(all_), "least": min(all_)} for name, all_ in times.items()},
        "load_s": median(leg.load_s for leg in legs),
        "transform_s": median(leg.transform_s for leg in legs),
        "features": legs[0].columns,
    }


def touch(n_bytes: int) -> None:
    """Make the machine hold this much memory, and free it."""
    np.empty(n_bytes, np.uint8).fill(1)


def measure_growth(path: Path, rounds: int) -> dict[str, Any]:
    """The least time of some rounds from file to matrix, after a first one."""
    set_threads()
    warm_up()
    _, fitted = ours(path)
    legs = min((ours(path, fitted)[0] for _ in range(rounds)), key=lambda legs: legs.total_s)
    return {"events": legs.events, "total_s": legs.total_s, "load_s": legs.load_s, "cpu_s": legs.cpu_s}


def measure_memory(path: Path) -> dict[str, Any]:
    """The peak on the way from file to matrix, once, fit included; without the matrix where it is part of the peak."""
    set_threads()
    warm_up()
    legs, _ = ours(path)
    peak = max(legs.peak_before_matrix_bytes, peak_bytes() - legs.matrix_bytes)
    return {"peak_bytes": peak, "first_s": legs.total_s}


def measure_raw(path: Path) -> dict[str, Any]:
    """The bytes of the columns as pyarrow reads them, without holding them all."""
    source = pq.ParquetFile(path)
    return {"raw_bytes": sum(source.read_row_group(group).nbytes for group in range(source.num_row_groups))}


def set_threads() -> None:
    pa.set_cpu_count(THREADS)
    pa.set_io_thread_count(THREADS)


def in_a_process(measure: str, path: Path, rounds: int) -> dict[str, Any]:
    command = [sys.executable, __file__, "--measure", measure, "--file", str(path), "--rounds", str(rounds)]
    environment = os.environ | (KEEP_FREED if measure == "growth" else {})
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


# --- the report


def log_file(folder: Path, n_events: int, n_customers: int) -> Path:
    path = folder / f"events_{n_events}_{n_customers}.parquet"
    if not path.exists():
        print(f"writing {path.name}", flush=True)
        folder.mkdir(parents=True, exist_ok=True)
        write_synthetic_log(path.with_suffix(".part"), n_events, n_customers)
        path.with_suffix(".part").rename(path)
    return path


def run(out: Path, data: Path, scale: int, rounds: int) -> dict[str, Any]:
    files = [log_file(data, n // scale, customers // scale) for n, customers in SIZES.items()]
    speed = in_a_process("speed", files[0], rounds)
    growth = [
        {
            name: value
            for measure in ("growth", "memory", "raw")
            for name, value in in_a_process(measure, path, 2).items()
        }
        for path in files
    ]
    report = {"speed": speed, "growth": growth, "ratios": ratios(speed, growth)}
    out.mkdir(parents=True, exist_ok=True)
    (out / "file_to_matrix.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
    draw(report, out / "file_to_matrix.png")
    return report


def ratios(speed: dict[str, Any], growth: list[dict[str, Any]]) -> dict[str, float]:
    took = {name: each["median"] for name, each in speed["seconds"].items()}
    an_event = [each["total_s"] / each["events"] for each in growth]
    return {
        "reading": took["ours"] / took["pyarrow reads"],
        "reading, fit included": took["ours, fit included"] / took["pyarrow reads"],
        "polars": min(took["polars, expressions"], took["polars, groups"]) / took["ours"],
        "growth": an_event[-1] / an_event[0],
        "growth, processor time": (growth[-1]["cpu_s"] / growth[-1]["events"])
        / (growth[0]["cpu_s"] / growth[0]["events"]),
        "memory": growth[-1]["peak_bytes"] / growth[-1]["raw_bytes"],
    }


def draw(report: dict[str, Any], path: Path) -> None:
    figure, (first, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
    took = {name: each["median"] for name, each in report["speed"]["seconds"].items()}
    first.barh(list(took), list(took.values()))
    first.axvline(BARS["reading"] * took["pyarrow reads"], color="black", linestyle=":", label="4 × reading")
    first.set(xlabel="seconds", title=f"file to matrix, {report['growth'][0]['events'] / 1e6:g} M events")
    first.invert_yaxis()
    first.legend()
    events = [each["events"] / 1e6 for each in report["growth"]]
    an_event = [each["total_s"] / each["events"] * 1e9 for each in report["growth"]]
    middle.plot(events, an_event, marker="o")
    middle.axhline(BARS["growth"] * an_event[0], color="black", linestyle=":", label="1.5 × the smallest")
    middle.set(xlabel="million events", ylabel="ns an event", title="growth", ylim=(0, None))
    middle.legend()
    right.plot(events, [each["peak_bytes"] / each["raw_bytes"] for each in report["growth"]], marker="o")
    right.axhline(BARS["memory"], color="black", linestyle=":", label="2.5 ×")
    right.set(xlabel="million events", ylabel="× the raw columns", title="peak memory, matrix apart", ylim=(0, None))
    right.legend()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def show(report: dict[str, Any]) -> None:
    for name, each in report["speed"]["seconds"].items():
        print(f"{name:<20} {each['median']:6.2f} s (least {each['least']:.2f})")
    print(f"ours: load {report['speed']['load_s']:.2f} s, transform {report['speed']['transform_s']:.2f} s, "
          f"{report['speed']['features']} features")  # fmt: skip
    for each in report["growth"]:
        an_event, times_raw = each["total_s"] / each["events"] * 1e9, each["peak_bytes"] / each["raw_bytes"]
        peak = f"{each['peak_bytes'] / 2**20:,.0f} MiB = {times_raw:.2f} × raw"
        print(f"{each['events']:>11,} events: {an_event:4.0f} ns each, peak {peak}")
    for name, value in report["ratios"].items():
        bar = BARS.get(name)
        good = "" if bar is None else "met" if (value >= bar if name == "polars" else value <= bar) else "MISSED"
        print(f"{name:<24} {value:5.2f}  {'' if bar is None else f'bar {bar}'} {good}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--data", type=Path, default=Path("runs/benchmarks/data"))
    parser.add_argument("--quick", action="store_true", help="a tenth of the sizes; the bars are not meant for it")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--measure", choices=("speed", "growth", "memory", "raw"), help=argparse.SUPPRESS)
    parser.add_argument("--file", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure == "speed":
        print(json.dumps(measure_speed(options.file, options.rounds)))
    elif options.measure:
        measures = {
            "growth": lambda path: measure_growth(path, options.rounds),
            "memory": measure_memory,
            "raw": measure_raw,
        }
        print(json.dumps(measures[options.measure](options.file)))
    else:
        show(run(options.out, options.data, 10 if options.quick else 1, options.rounds))


if __name__ == "__main__":
    main()

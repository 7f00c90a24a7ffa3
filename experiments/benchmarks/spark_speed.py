"""Spark's cost: the whole feature job beside the same shuffle and sort with a count, growth, skew, memory.

    .venv/bin/python experiments/benchmarks/spark_speed.py [--events 1000000 4000000] [--rounds 2] [--skew 500000]

For each size, in one session on `local[2]`: read, hash by customer, shuffle, sort, and a `mapInArrow` that only counts;
then the whole feature job on the same plan: every row checked and packed, every tabular feature of every customer at a
given cutoff (just after the log's end), written as Parquet. It needs to know nothing of the whole log and so makes one
pass; the same by way of blocks, as jobs do that need the log's facts first, is `by_blocks`. In turns, `--rounds` times,
the fastest counts. Then the same features on one machine. Bars, at 20 M events: the feature job at most 1.3 × the
count; time an event within 1.3 × from 5 to 80 M; one customer with 5 M events among 100,000 ordinary ones (`--skew
5000000`) within 2 × of as many events without. Every size runs in a process of its own; the log is made once and kept
in `--data`. Writes `spark_speed.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil  # type: ignore[import-untyped]
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.events.source import EventSource
from features.journeys.loading import load_log
from features.journeys.packing import pack
from features.simulation.large_log import synthetic_log, write_synthetic_log
from features.spark.log import session
from features.spark.reading import read_log
from features.spark.session import quiet
from features.tabular.features import TabularFeatures
from features.tabular.fitting import feature_schema, features_at

EVENTS_EACH = 50
ORDINARY = 100_000
DAY_US = 86_400_000_000
COUNTED = pa.schema([("rows", pa.int64())])
BARS = {"features_of_count": 1.3, "growth": 1.3, "skew": 2.0}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--skew", type=int, default=0, help="events of one customer among ordinary ones; 0: left out")
    parser.add_argument("--ordinary", type=int, default=ORDINARY, help="customers beside that one")
    parser.add_argument("--memory", default="2g", help="of the JVM")
    parser.add_argument("--partitions", type=int, help="by default one for each million events")
    parser.add_argument("--data", type=Path, default=Path("runs/benchmarks/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--leg", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.leg:
        print(json.dumps(leg(Path(options.leg[0]), Path(options.leg[1]), options)))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    figures = run(options)
    (options.out / "spark_speed.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))


def run(options: argparse.Namespace) -> dict[str, Any]:
    """All sizes, then the skewed log beside an even one."""
    sizes = [_process(_log(options.data, events), options) for events in options.events]
    result: dict[str, Any] = {"bars": BARS, "sizes": sizes}
    if len(sizes) > 1:
        each = [part["features_s"] / part["events"] for part in sizes]
        result["growth"] = max(each) / min(each)
    if options.skew:
        total = options.skew + options.ordinary * EVENTS_EACH
        even = _process(_log(options.data, total), options)
        uneven = _process(_skewed(options.data, options.skew, options.ordinary), options)
        result |= {"even": even, "skewed": uneven, "skew": uneven["features_s"] / even["features_s"]}
    return result


def _log(data: Path, events: int) -> Path:
    path = data / f"events_{events}_{events // EVENTS_EACH}.parquet"  # as the other benchmarks call it
    if not path.exists():
        data.mkdir(parents=True, exist_ok=True)
        write_synthetic_log(path, events, events // EVENTS_EACH)
    return path


def _skewed(data: Path, of_largest: int, ordinary: int) -> Path:
    """One customer with many events, the others as ever."""
    path = data / f"skewed_{of_largest}_{ordinary}.parquet"
    if path.exists():
        return path
    rest = pq.read_table(_log(data, ordinary * EVENTS_EACH))
    big = synthetic_log(of_largest, 1, seed=9)
    columns = [field.name for field in rest.schema]
    part = pa.Table.from_pandas(big, preserve_index=False) if not isinstance(big, pa.Table) else big
    part = part.select(columns).cast(rest.schema)
    part = part.set_column(0, rest.schema.field(0), pa.array(["the one"] * of_largest).cast(rest.schema.field(0).type))
    pq.write_table(pa.concat_tables([rest, part]), path, row_group_size=1 << 20)
    return path


def _process(log: Path, options: argparse.Namespace) -> dict[str, Any]:
    """A size in a process of its own; its figures are its last line."""
    with tempfile.TemporaryDirectory() as scratch:
        arguments = ["--rounds", str(options.rounds), "--memory", options.memory]
        arguments += [] if options.partitions is None else ["--partitions", str(options.partitions)]
        command = [sys.executable, __file__, *arguments, "--leg", str(log), scratch]
        path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
        done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{log.name} failed")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def leg(path: Path, scratch: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One size: count and features in turns on Spark, then on one machine."""
    settings = {"spark.driver.memory": options.memory, "spark.local.dir": str(scratch / "spark")}
    with quiet():
        spark = session("local[2]", settings)
    features = _features()
    source = EventSource(path=path)
    small = scratch / "small.parquet"
    write_synthetic_log(small, 20_000, 400)
    _counting(spark, EventSource(path=small), 2)
    cutoff = int(pc.max(pq.read_table(path, columns=["timestamp"])["timestamp"].cast(pa.int64())).as_py()) + 1
    for way in (_at_once, _by_blocks):
        way(spark, EventSource(path=small), features, cutoff, scratch / "warm", 2)
    peaks = Peaks()
    peaks.start()
    counts: list[float] = []
    jobs: list[float] = []
    other_rounds: list[float] = []
    details: dict[str, Any] = {}
    for _ in range(options.rounds):
        begun = time.perf_counter()
        events = _counting(spark, source, options.partitions)
        counts.append(time.perf_counter() - begun)
        details["shuffle_bytes"] = _shuffled(scratch / "spark")
        for way, seconds in ((_at_once, jobs), (_by_blocks, other_rounds)):
            begun = time.perf_counter()
            details["partitions"] = way(spark, source, features, cutoff, scratch / way.__name__, options.partitions)
            seconds.append(time.perf_counter() - begun)
    memory = peaks.stop()
    spark.stop()
    begun = time.perf_counter()
    rows = _on_single_machine(source, features, scratch / "one.parquet")
    single_s = time.perf_counter() - begun
    for way in (_at_once, _by_blocks):
        written = pq.read_table(scratch / way.__name__, columns=["customer_id"]).num_rows
        if written != rows:
            raise RuntimeError(f"{written} rows on Spark, {rows} on one machine")
    return {
        "log": path.name, "events": events, "customers": rows, "count_s": min(counts), "features_s": min(jobs),
        "features_of_count": min(jobs) / min(counts), "counts_s": counts, "jobs_s": jobs, "one_machine_s": single_s,
        "features_of_one_machine": min(jobs) / single_s, "by_blocks_s": min(other_rounds),
        "by_blocks_of_count": min(other_rounds) / min(counts), "others_s": other_rounds,
        "shuffle_bytes_an_event": details["shuffle_bytes"] / events, **details, **memory,
    }  # fmt: skip


def _features() -> TabularFeatures:
    log = pack(synthetic_log(20_000 * EVENTS_EACH, 20_000, seed=1))
    return TabularFeatures().fit(log.at(int(log.t.max()) - 60 * DAY_US))


def count(batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """How many rows a partition has."""
    rows = sum(batch.num_rows for batch in batches)
    yield pa.record_batch([pa.array([rows])], schema=COUNTED)


def _counting(spark: Any, source: EventSource, partitions: int | None) -> int:
    """The same plan up to the sort, then a count."""
    log = read_log(spark, source, partitions=partitions)
    with quiet():
        return sum(row["rows"] for row in log.shuffled.mapInArrow(count, "rows bigint").collect())


def _at_once(
    spark: Any, source: EventSource, features: TabularFeatures, cutoff: int, out: Path, partitions: int | None
) -> int:
    """The whole job in one pass; how many partitions."""
    log = read_log(spark, source, partitions=partitions)
    log.write_once(_work(features, cutoff), feature_schema(features), out)
    log.close()
    return log.partitions


def _by_blocks(
    spark: Any, source: EventSource, features: TabularFeatures, cutoff: int, out: Path, partitions: int | None
) -> int:
    """The whole job after the log's facts were asked for."""
    log = read_log(spark, source, partitions=partitions)
    if log.facts.end_us + 1 > cutoff:
        raise RuntimeError("the cutoff is not just after the log's end")
    log.write(_work(features, cutoff), feature_schema(features), out)
    log.close()
    return log.partitions


def _work(features: TabularFeatures, cutoff: int) -> Any:
    return partial(features_at, state=json.dumps(features.to_dict()), cutoffs=np.array([cutoff]))


def _on_single_machine(source: EventSource, features: TabularFeatures, out: Path) -> int:
    journeys = load_log(source).journeys
    rows = journeys.at(int(journeys.t.max()) + 1)
    x = features.transform(rows)
    names = features.get_feature_names_out()
    columns = {name: pa.array(np.ascontiguousarray(x[:, place])) for place, name in enumerate(names)}
    pq.write_table(pa.table({"customer_id": journeys.customer_ids} | columns), out)
    return len(rows)


def _shuffled(folder: Path) -> int:
    """Bytes of the newest shuffle's files, as they lie on disk."""
    files = list(folder.rglob("shuffle_*.data"))
    numbers = [int(file.name.split("_")[1]) for file in files]
    newest = max(numbers, default=0)
    return sum(file.stat().st_size for file, number in zip(files, numbers, strict=True) if number == newest)


class Peaks(threading.Thread):
    """The most memory of the JVM and of the Python workers, looked at ten times a second."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._over = threading.Event()
        self.result = {"jvm_peak_bytes": 0, "python_worker_peak_bytes": 0, "python_workers_peak_bytes": 0}

    def run(self) -> None:
        """Look."""
        me = psutil.Process()
        while not self._over.wait(0.1):
            workers, jvm = [], 0
            for part in me.children(recursive=True):
                try:
                    size, name = part.memory_info().rss, part.name()
                except psutil.Error:
                    continue
                if name.startswith("java"):
                    jvm = max(jvm, size)
                else:
                    workers.append(size)
            self._most("jvm_peak_bytes", jvm)
            self._most("python_worker_peak_bytes", max(workers, default=0))
            self._most("python_workers_peak_bytes", sum(workers))

    def stop(self) -> dict[str, int]:
        """The peaks."""
        self._over.set()
        self.join()
        return self.result

    def _most(self, name: str, value: int) -> None:
        self.result[name] = max(self.result[name], value)


if __name__ == "__main__":
    try:
        main()
    finally:
        shutil.rmtree(Path("spark-warehouse"), ignore_errors=True)

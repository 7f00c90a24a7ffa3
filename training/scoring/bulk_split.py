"""The first pass of scoring in partitions: the log, checked, in runs that hold each partition's events side by side.

A run is a batch of about a million events as an Arrow file with one record batch a partition. Runs follow each other
in the order of the log, and within a run and a partition events keep theirs: a partition's blocks, read one run after
the other, are the events of its customers in source order. A run that is there is complete, so that a killed pass goes
on after the runs it has.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from rich.console import Console

from features.errors import DataError
from features.events.checks import SOURCE_ROW, TOO_MANY_BAD, BatchReport
from features.events.files import Batch, Malformed, size_of
from features.journeys.partitions import by_partition
from features.journeys.stream import Stream
from training.progress import bar
from training.scoring.bulk_plan import Desk, write_whole

ABOUT = b"journeylab"
SPLIT = "split.json"
LINES = "lines"  # the quarantine of lines that are no rows


@dataclass(frozen=True)
class Split:
    """What the first pass left.

    Attributes:
        runs: how many.
        events: good rows in them.
        last: µs, the last event; None where there is none.
        counts: reason → rows set aside.
        notes: what was assumed about the log.
    """

    runs: int
    events: int
    last: int | None
    counts: dict[str, int]
    notes: tuple[str, ...]


def split_log(desk: Desk, stream: Stream, keep_rows: bool, workers: int, progress: Console | None) -> Split:
    """Split a log, or go on with it, or read what had been done.

    Args:
        desk: where to.
        stream: the log.
        keep_rows: carry the row numbers along, for those who set rows aside later.
        workers: how many threads read, check and write.
        progress: where to show what is going on.

    Raises:
        DataError: no event log: no rows, or more than half of them bad.
    """
    path = desk.work / SPLIT
    if path.exists():
        return _read(path)
    malformed: Malformed = []
    abouts = []
    total = size_of(stream.path).batches
    with bar(progress, "Splitting the log", total) as advance:
        for about in _each_run(desk, stream, keep_rows, workers, malformed):
            abouts.append(about)
            advance(f"{sum(one['events'] for one in abouts):,} events")
    if malformed:
        bad = stream.malformed_rows(malformed)
        write_whole(desk.bad(LINES), partial(pq.write_table, bad))
        abouts.append(_about(None, BatchReport(0, np.zeros(0, np.int64), bad, (), ())))
    split = _summed(len(abouts) - bool(malformed), abouts, stream.notes)
    _require_a_log(split)
    write_whole(path, json.dumps(vars(split)))
    return split


def events_of(desk: Desk, split: Split, part: int) -> Iterator[pa.Table]:
    """The events of a partition in the order of the log; runs of the same columns and types make one table."""
    for schema, blocks in groupby(_blocks(desk, split, part), lambda block: block.schema):
        whole = pa.Table.from_batches(list(blocks), schema)
        yield whole.unify_dictionaries().combine_chunks()


def _blocks(desk: Desk, split: Split, part: int) -> Iterator[pa.RecordBatch]:
    """What each run has of a partition; mapped from disk, not copied."""
    for number in range(split.runs):
        with pa.memory_map(str(desk.run(number))) as source, pa.ipc.open_file(source) as runs:
            yield runs.get_batch(part).replace_schema_metadata(None)


def _each_run(
    desk: Desk, stream: Stream, keep_rows: bool, workers: int, malformed: Malformed
) -> Iterator[dict[str, Any]]:
    """What is to be said about each run, in order; those that are missing are made, a few ahead."""
    waiting: deque[Future[dict[str, Any]]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        for number, batch in enumerate(stream.batches(malformed)):
            waiting.append(pool.submit(_run, desk, stream, keep_rows, number, batch))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def _run(desk: Desk, stream: Stream, keep_rows: bool, number: int, batch: Batch) -> dict[str, Any]:
    path = desk.run(number)
    if (known := _known(path, desk.plan.partitions)) is not None:
        return known
    good, found = stream.check(batch)
    if keep_rows:
        good = good.append_column(SOURCE_ROW, pa.array(stream.numbered(batch, found)))
    if found.bad is not None:
        write_whole(desk.bad(path.stem), partial(pq.write_table, found.bad))
    about = _about(good, found)
    rows, borders = by_partition(good, desk.plan.partitions)
    write_whole(path, partial(_write, rows, borders.tolist(), about))
    return about


def _write(rows: pa.Table, borders: list[int], about: dict[str, Any], path: Path) -> None:
    schema = rows.schema.with_metadata({ABOUT: json.dumps(about)})
    only = rows.combine_chunks().to_batches()
    whole = only[0] if only else pa.RecordBatch.from_pylist([], schema)
    with pa.ipc.new_file(str(path), schema) as writer:
        for first, end in pairwise(borders):
            writer.write_batch(whole.slice(first, end - first).replace_schema_metadata(schema.metadata))


def _known(path: Path, partitions: int) -> dict[str, Any] | None:
    """What a run of an earlier attempt says of itself; None where there is none, or not all of it."""
    if not path.exists():
        return None
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as runs:
            about: dict[str, Any] = json.loads(runs.schema.metadata[ABOUT])
            return about if runs.num_record_batches == partitions else None
    except (pa.ArrowInvalid, OSError, KeyError, ValueError):  # the machine went down before the disk had it
        return None


def _about(good: pa.Table | None, found: BatchReport) -> dict[str, Any]:
    counted = [] if found.bad is None else pc.value_counts(found.bad["reason"]).to_pylist()
    last = pc.max(good["timestamp"].cast(pa.int64())).as_py() if good is not None and good.num_rows else None
    return {
        "events": found.n_good,
        "last": last,
        "counts": {item["values"]: item["counts"] for item in counted},
        "notes": list(found.notes),
    }


def _summed(runs: int, abouts: list[dict[str, Any]], notes: tuple[str, ...]) -> Split:
    counts: dict[str, int] = {}
    for about in abouts:
        for reason, n in about["counts"].items():
            counts[reason] = counts.get(reason, 0) + n
    lasts = [about["last"] for about in abouts if about["last"] is not None]
    said = dict.fromkeys(note for about in abouts for note in about["notes"])
    events = sum(about["events"] for about in abouts)
    return Split(runs, events, max(lasts, default=None), counts, (*said, *notes))


def _require_a_log(split: Split) -> None:
    bad = sum(split.counts.values())
    if split.events + bad == 0:
        raise DataError("No event rows: there is no data below the header.")
    if bad > TOO_MANY_BAD * (split.events + bad):
        why = ", ".join(f"{reason}: {n:,}" for reason, n in sorted(split.counts.items(), key=lambda item: -item[1]))
        raise DataError(f"This is no event log: {bad:,} of {split.events + bad:,} rows cannot be used ({why}).")


def _read(path: Path) -> Split:
    data = json.loads(path.read_text(encoding="utf-8"))
    return Split(**data | {"notes": tuple(data["notes"])})

"""The disk engine: a log larger than memory as partitions of customers on disk.

    log = DiskLog(Path("work"), stream, partitions=64)
    log.facts                               # first and last event, names: of the whole log
    total(log, count_something)             # partial results of all partitions, merged

    FOLDER/runs/run-000017.arrow     a batch of the log, checked, one record batch a partition
    FOLDER/rejected/….parquet        rejected rows of a run or of a partition
    FOLDER/packed/part-00003/        a partition packed, its columns mapped from disk when they are read
    FOLDER/split.json, facts.json    counts of all runs, facts of all partitions, written once they are complete

Runs follow each other in the order of the log, and events of a partition keep their order within a run: a partition's
record batches, one run after the other, are the events of its customers in source order. A file that is there is
complete, so a killed process goes on after what it finds. Memory is bounded by a batch of the log or a partition for
each worker.
"""

from __future__ import annotations

import json
import shutil
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from functools import cached_property, partial, reduce
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from features.events.checks import DUPLICATE, SOURCE_ROW, BatchReport, first_rejected_rows, require_event_log
from features.events.files import Batch, Malformed
from features.events.source import file_in_errors
from features.journeys.event_log import LogFacts, Part, ResultList, facts_from, merged, partial_facts, with_names
from features.journeys.journeys import Journeys
from features.journeys.packing import Packer, prepare
from features.journeys.partitions import by_partition
from features.journeys.stream import Stream, reject_duplicates
from features.journeys.whole_files import write_parquet, write_whole

T = TypeVar("T")
RUN_METADATA = b"journeylab"
LINES = "lines"  # the rejected lines that are no rows


def ignore(_: str) -> None:
    """Do nothing: the default progress callback."""


@dataclass(frozen=True)
class Split:
    """Counts from splitting the log.

    Attributes:
        runs: how many.
        events: good rows in them.
        last: µs, the last event; None where there is none.
        counts: reason → rejected rows.
        notes: what was assumed about the log.
    """

    runs: int
    events: int
    last: int | None
    counts: dict[str, int]
    notes: tuple[str, ...]


@dataclass
class DiskLog:
    """See `features.journeys.event_log.EventLog`.

    Attributes:
        folder: where the partitions lie; what an earlier attempt at the same log left there is used.
        stream: the log, batch by batch.
        partitions: how many.
        drop_duplicates: reject the second and later of equal events.
        numbered: carry row numbers along: for customers in the order of the source, and for rejected duplicates.
        workers: threads, each with a batch or a partition in memory.
        advance: called after each run and each packed partition with the state in words.
    """

    folder: Path
    stream: Stream
    partitions: int
    drop_duplicates: bool = False
    numbered: bool = True
    workers: int = 2
    advance: Callable[[str], None] = field(default=ignore, repr=False)

    # -- the log's runs ---------------------------------------------------------------------------------------------

    @cached_property
    def split(self) -> Split:
        """Split the log, resume an earlier attempt, or read its result.

        Raises:
            DataError: no event log: no rows, or more than half of them rejected.
        """
        path = self.folder / "split.json"
        if path.exists():
            data = json.loads(path.read_text(encoding="utf-8"))
            return Split(**data | {"notes": tuple(data["notes"])})
        for name in ("runs", "rejected"):
            (self.folder / name).mkdir(parents=True, exist_ok=True)
        malformed: Malformed = []
        summaries = []
        for summary in self._each_run(malformed):
            summaries.append(summary)
            self.advance(f"{sum(each['events'] for each in summaries):,} events")
        if malformed:
            bad = self.stream.malformed_rows(malformed)
            write_whole(self._rejected_file(LINES), partial(pq.write_table, bad))
            summaries.append(_summary(None, BatchReport(0, np.zeros(0, np.int64), bad, (), ())))
        split = _summed(len(summaries) - bool(malformed), summaries, self.stream.notes)
        rows_in = split.events + sum(split.counts.values())
        with file_in_errors(self.stream.path):
            require_event_log(rows_in, split.counts, self._first_rejected_rows, list(self.stream.theirs))
        write_whole(path, json.dumps(vars(split)))
        return split

    def _each_run(self, malformed: Malformed) -> Iterator[dict[str, Any]]:
        """The summary of each run, in order; runs that are missing are made, a few ahead."""
        waiting: deque[Future[dict[str, Any]]] = deque()
        with ThreadPoolExecutor(self.workers) as pool:
            for number, batch in enumerate(self.stream.batches(malformed)):
                waiting.append(pool.submit(self._run, number, batch))
                if len(waiting) > self.workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()

    def _run(self, number: int, batch: Batch) -> dict[str, Any]:
        path = self.folder / "runs" / f"run-{number:06d}.arrow"
        if (summary := _summary_of(path, self.partitions)) is not None:
            return summary
        good, report = self.stream.check(batch)
        if self.numbered or self.drop_duplicates:
            good = good.append_column(SOURCE_ROW, pa.array(self.stream.numbered(batch, report)))
        if report.bad is not None:
            write_whole(self._rejected_file(path.stem), partial(pq.write_table, report.bad))
        summary = _summary(good, report)
        rows, borders = by_partition(good, self.partitions)
        write_whole(path, partial(write_run, rows, borders.tolist(), summary))
        return summary

    # -- partitions -------------------------------------------------------------------------------------------------

    def events(self, number: int) -> Iterator[pa.Table]:
        """A partition's events in the order of the log; runs of the same columns and types make one table."""
        for schema, batches in groupby(self._batches(number), lambda batch: batch.schema):
            yield pa.Table.from_batches(list(batches), schema).unify_dictionaries().combine_chunks()

    def _batches(self, number: int) -> Iterator[pa.RecordBatch]:
        """What each run has of a partition; mapped from disk, not copied."""
        for run in range(self.split.runs):
            path = self.folder / "runs" / f"run-{run:06d}.arrow"
            with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as batches:
                yield batches.get_batch(number).replace_schema_metadata(None)

    def pack(self, number: int) -> tuple[Part, int]:
        """A partition packed from its events, and how many duplicates were rejected; `firsts` only where `numbered`."""
        packer = Packer()
        for events in self.events(number):
            packer.add(prepare(events, self.stream.options.schema))
        journeys, rows = packer.finish(threads=1)
        firsts = np.arange(0) if rows is None or not len(rows) else np.minimum.reduceat(rows, journeys.offsets[:-1])
        if not self.drop_duplicates or rows is None:
            return Part(journeys, firsts), 0
        distinct = reject_duplicates(journeys, rows, self.stream.file_names)
        if distinct is None:
            return Part(journeys, firsts), 0
        write_whole(self._rejected_file(f"part-{number:05d}"), partial(pq.write_table, distinct[1]))
        return Part(distinct[0], firsts), distinct[1].num_rows

    @cached_property
    def facts(self) -> LogFacts:
        """See `EventLog`; packs the partitions that are not packed yet."""
        path = self.folder / "facts.json"
        if not path.exists():
            partials = list(self._parallel(self._save_packed, range(self.partitions)))
            facts = facts_from(reduce(merged, partials))
            list(self._parallel(partial(self._rename, names=facts.names), range(self.partitions)))
            write_whole(path, json.dumps(asdict(facts), ensure_ascii=False))
        data = json.loads(path.read_text(encoding="utf-8"))
        names = {name: tuple(values) for name, values in data["names"].items()}
        numbers = {name: None if span is None else tuple(span) for name, span in data["numbers"].items()}
        return LogFacts(**data | {"names": names, "numbers": numbers})

    def part(self, number: int) -> Part:
        """A packed partition, its columns mapped from disk."""
        folder = self._packed(number)
        return Part(Journeys.load(folder), np.load(folder / "firsts.npy", allow_pickle=False))

    def _packed(self, number: int) -> Path:
        return self.folder / "packed" / f"part-{number:05d}"

    def _save_packed(self, number: int) -> tuple[Any, ...]:
        """Pack and save a partition unless it is there; its part of the facts."""
        folder = self._packed(number)
        if not folder.exists():
            self._save(number, self.pack(number)[0])
        self.advance(f"partition {number + 1:,} of {self.partitions:,} packed")
        return partial_facts(self.part(number))

    def _rename(self, number: int, names: dict[str, tuple[str, ...]]) -> None:
        """Give a packed partition the names of the whole log, and so its codes."""
        part = self.part(number)
        if any(column.names != names[name] for name, column in part.journeys.categories.items()):
            self._save(number, Part(with_names(part.journeys, names), part.firsts))

    def _save(self, number: int, part: Part) -> None:
        """Write a packed partition beside its place, then move it there: a kill leaves a whole one or none."""
        folder = self._packed(number)
        temporary, replaced = (folder.with_name(folder.name + ending) for ending in (".writing", ".replaced"))
        for path in (temporary, replaced):
            shutil.rmtree(path, ignore_errors=True)
        part.journeys.save(temporary)
        np.save(temporary / "firsts.npy", part.firsts)
        if folder.exists():
            folder.replace(replaced)
        temporary.replace(folder)
        shutil.rmtree(replaced, ignore_errors=True)

    # -- the protocol -----------------------------------------------------------------------------------------------

    @property
    def rejected(self) -> dict[str, int]:
        """See `EventLog`."""
        duplicates = sum(pq.read_metadata(file).num_rows for file in self._rejected_files("part-"))
        return self.split.counts | ({DUPLICATE: duplicates} if duplicates else {})

    @property
    def notes(self) -> tuple[str, ...]:
        """See `EventLog`."""
        return self.split.notes

    def each(self, function: Callable[[Part], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """See `Parts.each`."""
        yield from self._parallel(partial(self._apply, function=function), self._occupied)

    def write(
        self,
        function: Callable[[Part], Iterable[pa.RecordBatch]],
        schema: pa.Schema,
        folder: Path,
        columns: Sequence[str] | None = None,
    ) -> int:
        """See `EventLog.write`."""
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("part-*.parquet"):
            file.unlink()

        def write_part(number: int) -> int:
            path = folder / f"part-{number:05d}.parquet"
            rows: list[int] = []
            write_whole(
                path, lambda temporary: rows.append(write_parquet(temporary, schema, function(self.part(number))))
            )
            return rows[0]

        return sum(self._parallel(write_part, self._occupied))

    def keep(self, function: Callable[[Part], Any], columns: Sequence[str] | None = None) -> ResultList:
        """See `EventLog`; results are kept in memory."""
        return ResultList([result for result in self.each(function) if result is not None])

    def quarantine(self, path: Path) -> Path | None:
        """Write rejected rows as CSV, file by file, since they may be more than memory holds.

        Rows that the checks rejected come first, in the order of the log, then lines that are no rows, then duplicates.
        """
        files = [*self._rejected_files("run-"), *self._rejected_files(LINES), *self._rejected_files("part-")]
        if not files:
            return None
        header = list(dict.fromkeys(column for file in files for column in pq.read_schema(file).names))

        def write(temporary: Path) -> None:
            pd.DataFrame(columns=header).to_csv(temporary, index=False)
            for file in files:
                rows = pq.read_table(file).to_pandas().reindex(columns=header)
                rows.to_csv(temporary, index=False, header=False, mode="a")

        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, write)
        return path

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @cached_property
    def _occupied(self) -> list[int]:
        """The partitions that have events; the first one where none has."""
        _ = self.facts
        numbers = [n for n in range(self.partitions) if len(np.load(self._packed(n) / "t.npy", mmap_mode="r"))]
        return numbers or [0]

    def _apply(self, number: int, function: Callable[[Part], T]) -> T:
        return function(self.part(number))

    def _parallel(self, function: Callable[[int], T], numbers: Iterable[int]) -> Iterator[T]:
        """The results in order; `workers` partitions are in memory at a time."""
        pool = ThreadPoolExecutor(self.workers)
        try:
            yield from pool.map(function, numbers)
        finally:
            pool.shutdown(cancel_futures=True)

    def _rejected_file(self, name: str) -> Path:
        return self.folder / "rejected" / f"{name}.parquet"

    def _rejected_files(self, prefix: str) -> list[Path]:
        return sorted((self.folder / "rejected").glob(f"{prefix}*.parquet"))

    def _first_rejected_rows(self) -> pa.Table:
        """The first rejected rows of each run in the order of the log: all of them may be larger than memory."""
        files = [*self._rejected_files("run-"), *self._rejected_files(LINES)]
        tables = [first_rejected_rows(pq.read_table(file)) for file in files]
        return pa.concat_tables(tables, promote_options="default")


def write_run(rows: pa.Table, borders: list[int], summary: dict[str, Any], path: Path) -> None:
    """Write a run: a record batch a partition, the summary in the metadata."""
    schema = rows.schema.with_metadata({RUN_METADATA: json.dumps(summary)})
    batches = rows.combine_chunks().to_batches()
    whole = batches[0] if batches else pa.RecordBatch.from_pylist([], schema)
    with pa.ipc.new_file(str(path), schema) as writer:
        for first, end in pairwise(borders):
            writer.write_batch(whole.slice(first, end - first).replace_schema_metadata(schema.metadata))


def _summary_of(path: Path, partitions: int) -> dict[str, Any] | None:
    """The summary of a run of an earlier attempt; None where there is no such run, or only a part of it."""
    if not path.exists():
        return None
    try:
        with pa.memory_map(str(path)) as source, pa.ipc.open_file(source) as batches:
            summary: dict[str, Any] = json.loads(batches.schema.metadata[RUN_METADATA])
            return summary if batches.num_record_batches == partitions else None
    except (pa.ArrowInvalid, OSError, KeyError, ValueError):  # the machine went down before the disk had it
        return None


def _summary(good: pa.Table | None, report: BatchReport) -> dict[str, Any]:
    counted = [] if report.bad is None else pc.value_counts(report.bad["reason"]).to_pylist()
    last = pc.max(good["timestamp"].cast(pa.int64())).as_py() if good is not None and good.num_rows else None
    return {
        "events": report.n_good,
        "last": last,
        "counts": {item["values"]: item["counts"] for item in counted},
        "notes": list(report.notes),
    }


def _summed(runs: int, summaries: list[dict[str, Any]], notes: tuple[str, ...]) -> Split:
    counts: dict[str, int] = reduce(merged, (summary["counts"] for summary in summaries), {})
    lasts = [summary["last"] for summary in summaries if summary["last"] is not None]
    assumed = dict.fromkeys(note for summary in summaries for note in summary["notes"])
    events = sum(summary["events"] for summary in summaries)
    return Split(runs, events, max(lasts, default=None), counts, (*assumed, *notes))

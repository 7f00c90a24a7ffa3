"""From event files to packed journeys in one stream: read, check, encode batch by batch, then pack.

    loaded = load(Path("events.parquet"), EventSchema())
    loaded.journeys, loaded.quarantine, loaded.counts, loaded.notes

Two threads read and check a few batches ahead; one after the other, the batches' texts then get their codes. No more
than the packed columns and those few batches are ever in memory.
"""

from __future__ import annotations

import difflib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import DataError
from features.events.checks import (
    FILE,
    SOURCE_ROW,
    BatchReport,
    CheckOptions,
    LogCheck,
    check_batch,
    ignored_note,
    quarantine_duplicates,
    quarantine_lines,
    require_columns,
    schema_columns,
)
from features.events.files import Batch, Malformed, batches, columns_of, event_files
from features.journeys.duplicates import as_rows, repeated, without
from features.journeys.journeys import Journeys
from features.journeys.packing import THREADS, Packer, Prepared, prepare

FILE_BITS = 40  # a row number and the file's place share an int64
Convert = Callable[[pa.Table], pa.Table]


@dataclass(frozen=True)
class Loaded:
    """A packed log and what became of the rows that are not in it: `n_events + len(quarantine) == rows_in`.

    `quarantine`, `counts` and `notes` are those of `features.events.checks.CheckedEvents`; rows are numbered within
    their file, which a folder's quarantine names in a column `file`.
    """

    journeys: Journeys
    quarantine: pa.Table
    counts: dict[str, int]
    notes: tuple[str, ...]

    @property
    def rows_in(self) -> int:
        """How many rows the files have."""
        return int(self.journeys.n_events + self.quarantine.num_rows)


def load(
    path: Path,
    options: CheckOptions | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    convert: Convert | None = None,
    encoding: str = "utf8",
    added_columns: Sequence[str] = (),
    threads: int = THREADS,
) -> Loaded:
    """Read, check and pack a file or a folder of files.

    Args:
        path: Parquet, CSV, CSV.gz, TSV, or a folder of them.
        options: the schema and how to check.
        columns: canonical name → the file's name; names that agree need no entry. Others are not read, but noted.
        convert: changes to the renamed rows (stages from touchpoints, say), batch by batch, by any thread.
        encoding: of CSV files.
        added_columns: columns that `convert` adds, which the files need not have.
        threads: how many read and check.

    Raises:
        DataError: no such file, or no event log.
    """
    stream = open_stream(
        path, options, columns=columns, convert=convert, encoding=encoding, added_columns=added_columns
    )
    malformed: Malformed = []
    check, packer = LogCheck(), Packer()
    step = _Step(stream, stream.options.duplicates == "quarantine")
    for report, prepared in _ahead(step, stream.batches(malformed), threads):
        check.add(report)
        packer.add(prepared)
    if malformed:
        check.add_to_quarantine(stream.malformed_rows(malformed))
    check.finish()
    pa.default_memory_pool().release_unused()  # what reading took, before the packed columns need theirs
    journeys, rows = packer.finish(threads)
    if rows is not None and (again := reject_duplicates(journeys, rows, stream.file_names)) is not None:
        check.move_to_quarantine(again[1])
        journeys = again[0]
    return Loaded(journeys, check.quarantine(), check.counts, (*check.notes, *stream.notes))


@dataclass(frozen=True)
class Stream:
    """A log that is read and checked batch by batch; any thread may check any batch.

    Attributes:
        path: a file or a folder of files.
        options: the schema and how to check.
        theirs: canonical name → the file's name.
        convert: as for `load`.
        files: file → its place among them.
        encoding: of CSV files.
        notes: remarks about the files as a whole.
    """

    path: Path
    options: CheckOptions
    theirs: Mapping[str, str]
    convert: Convert | None
    files: Mapping[Path, int]
    encoding: str
    notes: tuple[str, ...]

    @property
    def file_names(self) -> list[str]:
        """The names that the quarantine gives files; empty where there is only one."""
        return [file.name for file in self.files] if len(self.files) > 1 else []

    def batches(self, malformed: Malformed) -> Iterator[Batch]:
        """The parts of the log in order; `malformed` gets the lines that are no rows."""
        return batches(self.path, list(self.theirs.values()), encoding=self.encoding, malformed=malformed)

    def check(self, batch: Batch) -> tuple[pa.Table, BatchReport]:
        """Check a batch; return its good rows and the report."""
        table = batch.read()
        ours = {name: table[theirs] for name, theirs in self.theirs.items() if theirs in table.column_names}
        if SOURCE_ROW in table.column_names:
            ours[SOURCE_ROW] = table[SOURCE_ROW]
        table = pa.table(ours)
        good, report = check_batch(self.convert(table) if self.convert else table, self.options, batch.first_row)
        if report.bad is not None and len(self.files) > 1:
            report = replace(report, bad=_with_file(report.bad, [batch.file.name] * report.bad.num_rows))
        return good, report

    def numbered(self, batch: Batch, report: BatchReport) -> npt.NDArray[np.int64]:
        """(n_good,) the row numbers of a batch's good rows with the place of their file, see `reject_duplicates`."""
        return report.rows + (self.files[batch.file] << FILE_BITS)

    def malformed_rows(self, malformed: Malformed) -> pa.Table:
        """Quarantine rows for lines that are no rows."""
        bad = quarantine_lines([(row, line) for _, row, line in malformed])
        return _with_file(bad, [file.name for file, _, _ in malformed]) if len(self.files) > 1 else bad


def open_stream(
    path: Path,
    options: CheckOptions | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    convert: Convert | None = None,
    encoding: str = "utf8",
    added_columns: Sequence[str] = (),
) -> Stream:
    """Look at the files' headers; the arguments and errors are those of `load`."""
    options = options or CheckOptions()
    header = columns_of(path, encoding=encoding)
    theirs = their_names(header, columns or {}, schema_columns(options.schema), added_columns)
    files = {file: place for place, file in enumerate(event_files(path))}
    ignored = [name for name in header if name not in theirs.values()]
    notes = (ignored_note(ignored),) if ignored else ()
    return Stream(path, options, theirs, convert, files, encoding, notes)


@dataclass(frozen=True)
class _Step:
    """The work on one batch that needs no other batch."""

    stream: Stream
    keep_rows: bool

    def __call__(self, batch: Batch) -> tuple[BatchReport, Prepared]:
        good, report = self.stream.check(batch)
        prepared = prepare(good, self.stream.options.schema)
        return report, replace(prepared, rows=self.stream.numbered(batch, report)) if self.keep_rows else prepared


def _ahead(step: _Step, parts: Iterable[Batch], threads: int) -> Iterator[tuple[BatchReport, Prepared]]:
    """Yield the steps' results in order; threads work a few batches ahead of the caller."""
    waiting: deque[Future[tuple[BatchReport, Prepared]]] = deque()
    with ThreadPoolExecutor(threads) as pool:
        for part in parts:
            waiting.append(pool.submit(step, part))
            if len(waiting) > threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()


def their_names(
    header: list[str], columns: Mapping[str, str], expected: tuple[str, ...], added_columns: Sequence[str]
) -> dict[str, str]:
    """Canonical name → the file's, for every expected column that the file has.

    Args:
        header: the file's columns.
        columns: canonical name → the file's, from the user's settings.
        expected: the canonical names.
        added_columns: columns that the file need not have.

    Raises:
        DataError: a column is missing.
    """
    for ours, theirs in columns.items():
        if theirs not in header:
            close = difflib.get_close_matches(theirs, header, n=1, cutoff=0.5)
            listing = ", ".join(f"'{name}'" for name in header)
            hint = f"Did you mean '{close[0]}'?" if close else "Name the column that holds it."
            raise DataError(f"No column '{theirs}', which is to be '{ours}': the columns are {listing}. {hint}")
    sources = set(columns.values())
    names = {name: name for name in expected if name in header and name not in sources} | dict(columns)
    require_columns([*names, *added_columns, *(name for name in header if name not in sources and name not in names)])
    return names


def _with_file(bad: pa.Table, names: list[str]) -> pa.Table:
    return bad.add_column(0, FILE, pa.array(names, pa.string()))


def reject_duplicates(
    journeys: Journeys, rows: npt.NDArray[np.int64], file_names: Sequence[str] = ()
) -> tuple[Journeys, pa.Table] | None:
    """Remove events equal to an earlier one in every column: the log and their quarantine rows, or None without any.

    Args:
        journeys: a packed log.
        rows: (n_events,) row numbers, from bit `FILE_BITS` on the place of the file.
        file_names: the files' names for the quarantine's column `file`; none without that column.
    """
    gone = repeated(journeys)
    if not gone.any():
        return None
    places = np.flatnonzero(gone)
    bad = quarantine_duplicates(as_rows(journeys, places), rows[places] & ((1 << FILE_BITS) - 1))
    if file_names:
        bad = _with_file(bad, [file_names[place] for place in rows[places] >> FILE_BITS])
    return without(journeys, gone), bad

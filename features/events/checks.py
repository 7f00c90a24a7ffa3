"""Checks of every event row: bad rows go to quarantine with a reason, nothing is dropped in silence.

    checked = check_events(frame, CheckOptions(EventSchema(properties=("agent",))))
    checked.events       # canonical columns, text as dictionaries, times as UTC µs
    checked.quarantine   # row, reason, and the row's own values as text
    checked.counts       # {"timestamp is before 1971": 3}

A table that is no event log at all raises one `DataError`. `check_batch` and `LogCheck` do the same for a log that
comes in batches (`features.journeys.stream`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import DataError, nearest
from features.events.columns import Column, Decimal, Mask, TimeUnit, number_column, text_column, time_column
from features.events.formats import TEXTS_READ, has_decimal_commas, time_formats
from features.events.schema import REQUIRED, EventSchema

SOURCE_ROW = "source_row"  # optional column: the 1-based data row of the user's file that a row came from
TOO_MANY_BAD = 0.5
ROWS_IN_ERROR = 3
FILE = "file"  # the quarantine's column for the file of a folder
MALFORMED = "the line has too many or too few fields"
DUPLICATE = "the same as an earlier row in every column"
REMEDIES = {
    "is not a time": "Give ISO 8601 text ('2024-05-31 13:00:00', with or without zone), timestamps, a time_format "
    "for other text, or a time_unit for numbers.",
    "before 1971": "A zero or the wrong unit: leave unknown times empty, or say the time_unit ('s', 'ms', 'us', 'ns').",
    "after 2099": "Probably the wrong unit: say the time_unit ('s', 'ms', 'us', 'ns').",
    "is missing": "Check that the column mapping names the right column.",
    "is not a number": "Use plain numbers with a decimal point; leave unknown ones empty.",
    "is infinite": "Leave unknown numbers empty.",
    "is below 0": "A duration counts seconds from its event on: swap the ends, or leave it empty.",
}


@dataclass(frozen=True)
class CheckedEvents:
    """Good and bad rows of a table; `len(events) + len(quarantine) == rows_in`.

    Attributes:
        events: the good rows in source order: canonical columns that the input has, then the schema's.
        quarantine: the bad rows: `row` (1-based data row of the source), `reason`, the input's columns as text.
        counts: reason → rows in quarantine for it; a row counts once, under its first reason.
        notes: what was assumed about the input, each said once.
    """

    events: pa.Table
    quarantine: pa.Table
    counts: dict[str, int]
    notes: tuple[str, ...]

    @property
    def rows_in(self) -> int:
        """How many rows were handed in."""
        return int(self.events.num_rows + self.quarantine.num_rows)


@dataclass(frozen=True)
class CheckOptions:
    """How to check.

    Attributes:
        schema: the columns beyond the canonical ones.
        time_unit: the unit of numeric times since 1970; without it they are refused.
        time_format: strptime format of textual times that are not ISO 8601.
        timezone: where times without a zone were written, such as "Europe/London"; UTC by default.
        decimal: what parts the decimals of numbers that are text.
        duplicates: "keep", or "quarantine" for the second and later of rows equal in every column of the schema. Who
            checks batch by batch compares them once all are there.
    """

    schema: EventSchema = field(default_factory=EventSchema)
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    timezone: str | None = None
    decimal: Decimal = "."
    duplicates: str = "keep"


def check_events(events: pa.Table | pd.DataFrame, options: CheckOptions | None = None) -> CheckedEvents:
    """Check a table with canonical column names.

    Args:
        events: a pandas frame or Arrow table. Columns outside the schema are ignored and noted; a column
            `source_row` gives the row numbers to report.
        options: how to check.

    Raises:
        DataError: no event log at all: no rows, a required column missing, more than half of the rows bad.
    """
    check, options = LogCheck(), options or CheckOptions()
    good, report = check_batch(events, options)
    check.add(report)
    check.finish()
    if options.duplicates == "quarantine" and (repeats := good.to_pandas().duplicated().to_numpy()).any():
        check.move_to_quarantine(quarantine_duplicates(good.filter(pa.array(repeats)), report.rows[repeats]))
        good = good.filter(pa.array(~repeats))
    return CheckedEvents(good, check.quarantine(), dict(check.counts), tuple(check.notes))


@dataclass(frozen=True)
class BatchReport:
    """Counts, bad rows and notes of one batch.

    Attributes:
        n_good: how many rows are good.
        rows: (n_good,) int64, their numbers in the source.
        bad: the rejected rows, as in `CheckedEvents.quarantine`; None where there are none.
        columns: the names that the batch has.
        notes: as in `CheckedEvents`.
    """

    n_good: int
    rows: npt.NDArray[np.int64]
    bad: pa.Table | None
    columns: tuple[str, ...]
    notes: tuple[str, ...]


def check_batch(
    batch: pa.Table | pd.DataFrame, options: CheckOptions, first_row: int = 1
) -> tuple[pa.Table, BatchReport]:
    """The good rows of one batch and the report. Touches nothing shared: threads may check side by side.

    Args:
        batch: rows with canonical names; `source_row` overrides the numbers.
        options: how to check.
        first_row: the number of its first row in the source.
    """
    table = as_table(batch)
    require_columns(table.column_names)
    names = [name for name in schema_columns(options.schema) if name in table.column_names]
    columns = {name: _column(name, table, options) for name in names}
    good = pa.table({name: column.values for name, column in columns.items()})
    numbered = SOURCE_ROW in table.column_names
    rows = np.asarray(table[SOURCE_ROW]) if numbered else np.arange(first_row, first_row + table.num_rows)
    bad, problems = None, [item for column in columns.values() for item in column.problems.items()]
    if problems:
        reasons = _first_reasons(problems, table.num_rows)
        is_bad = np.asarray(reasons != None)  # noqa: E711
        bad = quarantine_rows(table.filter(pa.array(is_bad)), rows[is_bad], reasons[is_bad])
        good, rows = good.filter(pa.array(~is_bad)), rows[~is_bad]
    notes = _notes(columns, table, options)
    return good, BatchReport(good.num_rows, rows, bad, tuple(table.column_names), notes)


class LogCheck:
    """The tally over batches in their order: `add` the report of each, `finish` at the end."""

    def __init__(self) -> None:
        self.rows_in = 0
        self.counts: dict[str, int] = {}
        self.notes: list[str] = []
        self._columns: tuple[str, ...] = ()
        self._bad: list[pa.Table] = []

    def add(self, report: BatchReport) -> None:
        """Count a batch."""
        self.rows_in += report.n_good
        if report.bad is not None:
            self.add_to_quarantine(report.bad)
        self.notes += [note for note in report.notes if note not in self.notes]
        self._columns = self._columns or report.columns

    def add_to_quarantine(self, bad: pa.Table) -> None:
        """Count rejected rows."""
        self._bad.append(bad)
        self.rows_in += bad.num_rows
        for item in pc.value_counts(bad["reason"]).to_pylist():
            self.counts[item["values"]] = self.counts.get(item["values"], 0) + item["counts"]

    def move_to_quarantine(self, bad: pa.Table) -> None:
        """Count rejected rows that were counted as good before."""
        self.rows_in -= bad.num_rows
        self.add_to_quarantine(bad)

    def finish(self) -> None:
        """Raise a `DataError` if the rows so far are no event log."""
        require_event_log(self.rows_in, self.counts, self.quarantine, self._columns)

    def quarantine(self) -> pa.Table:
        """The rejected rows so far: row, reason, and the values as text."""
        if not self._bad:
            columns = [name for name in self._columns if name != SOURCE_ROW]
            fields = [("row", pa.int64()), ("reason", pa.string()), *((name, pa.string()) for name in columns)]
            return pa.schema(fields).empty_table()
        bad = pa.concat_tables(self._bad, promote_options="default").combine_chunks()
        return bad.sort_by([(name, "ascending") for name in (FILE, "row") if name in bad.column_names])


def _column(name: str, table: pa.Table, options: CheckOptions) -> Column:
    chunks = table[name]
    values = chunks.chunk(0) if chunks.num_chunks == 1 else chunks.combine_chunks()
    if name == "timestamp":
        column = time_column(
            name, values, time_unit=options.time_unit, time_format=options.time_format, timezone=options.timezone
        )
    elif name in options.schema.number_columns:
        column = number_column(name, values, at_least=0.0 if name == "duration_s" else None, decimal=options.decimal)
    else:
        column = text_column(name, values, keep_clean=name == "customer_id")
    return _require_values(name, column) if name in REQUIRED else column


def _notes(columns: dict[str, Column], table: pa.Table, options: CheckOptions) -> tuple[str, ...]:
    notes = [note for column in columns.values() for note in column.notes]
    ignored = [name for name in table.column_names if name not in (*schema_columns(options.schema), SOURCE_ROW)]
    return (*notes, *((ignored_note(ignored),) if ignored else ()))


def ignored_note(columns: Iterable[str]) -> str:
    """The note on columns that nobody declared."""
    return f"columns not in the schema are ignored: {', '.join(columns)}"


def _first_reasons(problems: list[tuple[str, Mask]], n: int) -> npt.NDArray[np.object_]:
    reasons = np.full(n, None, dtype=object)
    for reason, mask in reversed(problems):  # the first column's problem is the one that stays
        reasons[mask] = reason
    return reasons


def quarantine_rows(rows: pa.Table, numbers: Any, reasons: Any) -> pa.Table:
    """Quarantine rows: their numbers in the source, why they were rejected, their values as text.

    Args:
        rows: (n,) rejected rows.
        numbers: (n,) whole numbers, an array of any kind.
        reasons: (n,) texts.
    """
    values = {name: _as_written(rows[name]) for name in rows.column_names if name != SOURCE_ROW}
    return pa.table({"row": pa.array(numbers, pa.int64()), "reason": pa.array(reasons, pa.string())} | values)


def quarantine_duplicates(rows: pa.Table, numbers: npt.NDArray[np.int64]) -> pa.Table:
    """Quarantine rows for exact duplicates."""
    return quarantine_rows(rows, numbers, [DUPLICATE] * len(numbers))


def quarantine_lines(lines: Sequence[tuple[int, str]]) -> pa.Table:
    """Quarantine rows for lines of a CSV file, (row, text), that have too many or too few fields."""
    rows, texts = zip(*lines, strict=True)
    return quarantine_rows(pa.table({"line": pa.array(texts, pa.string())}), rows, [MALFORMED] * len(rows))


def write_quarantine(rows: pa.Table | None, path: Path) -> None:
    """Write quarantine rows as CSV, where there are any."""
    if rows is not None and rows.num_rows:
        path.parent.mkdir(parents=True, exist_ok=True)
        rows.to_pandas().to_csv(path, index=False)


def require_event_log(
    rows_in: int, counts: dict[str, int], rejected: Callable[[], pa.Table], columns: Sequence[str] = ()
) -> None:
    """Raise a `DataError` where there are no rows, or more than half of them were rejected; the same on every engine.

    Args:
        rows_in: how many rows were read.
        counts: reason → rejected rows.
        rejected: gives rejected rows for the examples; all of them or some.
        columns: of the source, where they are known.
    """
    if rows_in == 0:
        header = f"{_column_list(columns)} but" if columns else "there is"
        raise DataError(f"No event rows: {header} no data below the header.")
    if sum(counts.values()) > TOO_MANY_BAD * rows_in:
        raise DataError(_no_event_log(rejected(), counts, rows_in))


def first_rejected_rows(rejected: pa.Table) -> pa.Table:
    """The first rows of each reason, as many as the error for a table that is no event log needs."""
    rejected = rejected.sort_by("row")
    reasons = rejected["reason"]
    first = (rejected.filter(pc.equal(reasons, reason)).slice(0, TEXTS_READ) for reason in reasons.unique())
    return pa.concat_tables(first)


def _no_event_log(quarantine: pa.Table, counts: dict[str, int], rows_in: int) -> str:
    share = f"{sum(counts.values()):,} of {rows_in:,} rows cannot be used"
    why = ", ".join(f"{reason}: {n:,}" for reason, n in sorted(counts.items(), key=lambda item: -item[1]))
    worst = max(counts, key=lambda reason: counts[reason])
    column = worst.split(" ")[0]
    column = column if column in quarantine.column_names else "line"
    bad = quarantine.filter(pc.equal(quarantine["reason"], worst)).slice(0, TEXTS_READ)
    texts = bad[column].to_pylist()
    rows = zip(bad["row"].to_pylist()[:ROWS_IN_ERROR], texts, strict=False)
    examples = ", ".join(f"row {row}: {text!r}" for row, text in rows)
    remedy = _setting_for(worst, texts) or next((text for part, text in REMEDIES.items() if part in worst), "")
    return f"This is no event log: {share} ({why}). First {column}: {examples}. {remedy}"


def _setting_for(reason: str, texts: list[str | None]) -> str:
    """The very setting that reads the texts, where there is one."""
    if "is not a time" in reason and (formats := time_formats(texts)):
        either = " or ".join(f'time_format = "{form}"' for form in formats[:2])
        return f"Write {either} in [events]: it reads these."
    if "is not a number" in reason and has_decimal_commas(texts):
        return 'Write decimal = "," in [events]: it reads these.'
    return ""


def as_table(events: pa.Table | pd.DataFrame) -> pa.Table:
    """A frame as an Arrow table; columns of mixed Python types become text, text views plain text."""
    if not isinstance(events, pd.DataFrame):
        table = pa.Table.from_batches([events]) if isinstance(events, pa.RecordBatch) else events
        for place, column in enumerate(table.schema):
            if pa.types.is_string_view(column.type):  # Arrow cannot filter these yet
                table = table.set_column(place, column.name, table[place].cast(pa.string()))
        return table
    return pa.table({str(name): _from_pandas(events[name]) for name in events.columns})


def _from_pandas(series: pd.Series) -> pa.Array:
    if isinstance(series.dtype, pd.DatetimeTZDtype):
        naive = series.dt.tz_convert(None).to_numpy()
        return pa.array(naive).cast(pa.timestamp(series.dt.unit, "UTC"))
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        missing = series.isna()
        return pa.array(
            [None if gone else str(value) for value, gone in zip(series, missing, strict=True)], pa.string()
        )


def require_columns(columns: Iterable[str]) -> None:
    """Raise a `DataError` that names a missing required column, the columns of the table, and the remedy."""
    names = list(columns)
    for required in REQUIRED:
        if required not in names:
            close = nearest(required, names)
            remedy = f"Map '{close}' to it" if close else "Map the column that holds it"
            raise DataError(
                f"No column '{required}': {_column_list(names)}. "
                f'{remedy} in the experiment file: [events.columns] {required} = "{close or "their name"}".'
                + (
                    ' If no column says what happened: touchpoint = "purchase" in [events].'
                    * (required == "touchpoint")
                )
            )


def _column_list(columns: Iterable[str]) -> str:
    names = [f"'{name}'" for name in columns if name != SOURCE_ROW]
    return f"the columns are {', '.join(names)}" if names else "the input has no columns at all"


def schema_columns(schema: EventSchema) -> tuple[str, ...]:
    """Every column that an event table may have, in the order in which it is checked."""
    return ("timestamp", "customer_id", *schema.category_columns, *schema.number_columns)


def _require_values(name: str, column: Column) -> Column:
    """A null in a required column is a problem, unless another reason explains it already."""
    if not has_nulls(column.values):
        return column
    missing = ~np.asarray(column.values.is_valid())
    if pa.types.is_dictionary(column.values.type):
        missing = np.asarray(column.values.dictionary_decode().is_null())
    for mask in column.problems.values():
        missing &= ~mask
    problems = column.problems | ({f"{name} is missing": missing} if missing.any() else {})
    return Column(column.values, problems, column.notes)


def has_nulls(values: pa.Array) -> bool:
    """Whether any value is null, in the codes or in the dictionary."""
    return bool(values.null_count or (pa.types.is_dictionary(values.type) and values.dictionary.null_count))


def _as_written(column: pa.ChunkedArray) -> pa.Array:
    """Any column as text, as the source has it."""
    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())

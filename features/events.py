"""The canonical event table: every row checked, bad ones set aside with a reason, nothing dropped in silence.

    checked = check_events(frame, EventSchema(properties=("agent",)))
    checked.events       # canonical columns, text as dictionaries, times as UTC µs
    checked.quarantine   # row, reason, and the row's own values as text
    checked.counts       # {"timestamp is before 1971": 3}

A table that is no event log at all raises one `DataError`. `EventCheck` does the same batch by batch.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.errors import DataError
from features.event_columns import Column, Mask, TimeUnit, number_column, text_column, time_column
from features.schema import REQUIRED, EventSchema

SOURCE_ROW = "source_row"  # optional column: the 1-based data row of the user's file that a row came from
TOO_MANY_BAD = 0.5
SHOWN_ROWS = 3
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
class Checked:
    """What came out of the checks; `len(events) + len(quarantine) == rows_in`.

    Attributes:
        events: the good rows in source order: canonical columns that the input has, then the schema's.
        quarantine: the bad rows: `row` (1-based data row of the source), `reason`, the input's columns as text.
        counts: reason → rows set aside for it; a row counts once, under its first reason.
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


def check_events(
    events: pa.Table | pd.DataFrame,
    schema: EventSchema | None = None,
    *,
    naive_ok: bool = True,
    time_unit: TimeUnit | None = None,
    time_format: str | None = None,
    duplicates: str = "keep",
) -> Checked:
    """Check a table with canonical column names.

    Args:
        events: a pandas frame or Arrow table. Columns outside the schema are ignored and noted; a column
            `source_row` gives the row numbers to report.
        schema: the columns beyond the canonical ones.
        naive_ok: take times without a zone as UTC; otherwise they are refused.
        time_unit: the unit of numeric times since 1970; without it they are refused.
        time_format: strptime format of textual times that are not ISO 8601.
        duplicates: "keep", or "quarantine" for the second and later of rows equal in every column of the schema.

    Raises:
        DataError: no event log at all: no rows, a required column missing, more than half of the rows bad.
    """
    check = EventCheck(schema, naive_ok=naive_ok, time_unit=time_unit, time_format=time_format)
    good = check.add(events)
    check.finish()
    if duplicates == "quarantine":
        good = check.set_duplicates_aside(good)
    return Checked(good.drop_columns(SOURCE_ROW), check.quarantine(), dict(check.counts), tuple(check.notes))


@dataclass
class EventCheck:
    """The checks over a log that comes in batches: `add` each, use what it returns, `finish` at the end."""

    schema: EventSchema | None = None
    naive_ok: bool = True
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    rows_in: int = 0
    rows_bad: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    columns: tuple[str, ...] = ()
    set_aside: list[pa.Table] = field(default_factory=list)

    def add(self, batch: pa.Table | pd.DataFrame) -> pa.Table:
        """Check one batch; returns its good rows in canonical form, with `source_row`."""
        schema = self.schema or EventSchema()
        table = as_table(batch)
        require_columns(table.column_names)
        self.columns = tuple(table.column_names)
        rows = self._rows(table)
        columns = {name: self._column(name, table) for name in _wanted(schema) if name in table.column_names}
        self._note_ignored(table, schema)
        bad = self._set_aside(table, rows, columns)
        canonical = {name: column.values for name, column in columns.items()} | {SOURCE_ROW: pa.array(rows)}
        self.rows_in += len(rows)
        good = pa.table(canonical)
        return good if bad is None else good.filter(pa.array(~bad))

    def finish(self) -> None:
        """Raise if what was seen is no event log."""
        if self.rows_in == 0:
            raise DataError(f"No event rows: {_columns_there(self.columns)} but no data below the header.")
        if self.rows_bad > TOO_MANY_BAD * self.rows_in or self.rows_bad == self.rows_in:
            raise DataError(self._no_log())

    def quarantine(self) -> pa.Table:
        """The rows set aside so far: row, reason, and the values as text."""
        if not self.set_aside:
            columns = [name for name in self.columns if name != SOURCE_ROW]
            fields = [("row", pa.int64()), ("reason", pa.string()), *((name, pa.string()) for name in columns)]
            return pa.schema(fields).empty_table()
        return pa.concat_tables(self.set_aside, promote_options="default").sort_by("row")

    def set_duplicates_aside(self, good: pa.Table) -> pa.Table:
        """The rows without the second and later of equal ones, which go to quarantine."""
        rows = good.drop_columns(SOURCE_ROW).to_pandas()
        again = rows.duplicated().to_numpy()
        if not again.any():
            return good
        why = "the same as an earlier row in every column"
        self._keep(good.filter(pa.array(again)), np.full(int(again.sum()), why, dtype=object))
        return good.filter(pa.array(~again))

    def _column(self, name: str, table: pa.Table) -> Column:
        schema = self.schema or EventSchema()
        chunks = table[name].combine_chunks() if table[name].num_chunks != 1 else table[name].chunk(0)
        if name == "timestamp":
            column = time_column(name, chunks, time_unit=self.time_unit, time_format=self.time_format)
            self._note_times(column)
        elif name in schema.number_columns:
            column = number_column(name, chunks, at_least=0.0 if name == "duration_s" else None)
        else:
            column = text_column(name, chunks)
        return _require_values(name, column) if name in REQUIRED else column

    def _note_times(self, column: Column) -> None:
        if column.notes and "time zone" in column.notes[0] and not self.naive_ok:
            raise DataError(f"{column.notes[0]}, but naive times are not allowed here. Add the zone to the times.")
        self.notes += [note for note in column.notes if note not in self.notes]

    def _note_ignored(self, table: pa.Table, schema: EventSchema) -> None:
        ignored = [name for name in table.column_names if name not in (*_wanted(schema), SOURCE_ROW)]
        note = f"columns not in the schema are ignored: {', '.join(ignored)}"
        if ignored and note not in self.notes:
            self.notes.append(note)

    def _rows(self, table: pa.Table) -> npt.NDArray[np.int64]:
        if SOURCE_ROW in table.column_names:
            return np.asarray(table[SOURCE_ROW]).astype(np.int64)
        return np.arange(self.rows_in + 1, self.rows_in + 1 + table.num_rows)

    def _set_aside(self, table: pa.Table, rows: npt.NDArray[np.int64], columns: dict[str, Column]) -> Mask | None:
        problems = [item for column in columns.values() for item in column.problems.items()]
        if not problems:
            return None
        reasons = np.full(len(rows), None, dtype=object)
        for reason, mask in reversed(problems):  # the first column's problem is the one that stays
            reasons[mask] = reason
        bad: Mask = np.asarray(reasons != None)  # noqa: E711
        with_rows = table.drop_columns(SOURCE_ROW) if SOURCE_ROW in table.column_names else table
        self._keep(with_rows.append_column(SOURCE_ROW, pa.array(rows)).filter(pa.array(bad)), reasons[bad])
        return bad

    def _keep(self, rows: pa.Table, reasons: npt.NDArray[np.object_]) -> None:
        originals = {name: _shown(rows[name]) for name in rows.column_names if name != SOURCE_ROW}
        self.set_aside.append(pa.table({"row": rows[SOURCE_ROW], "reason": pa.array(reasons, pa.string())} | originals))
        for reason, n in zip(*np.unique(reasons.astype(str), return_counts=True), strict=True):
            self.counts[str(reason)] = self.counts.get(str(reason), 0) + int(n)
        self.rows_bad += len(reasons)

    def _no_log(self) -> str:
        share = f"{self.rows_bad:,} of {self.rows_in:,} rows cannot be used"
        why = ", ".join(f"{reason}: {n:,}" for reason, n in sorted(self.counts.items(), key=lambda item: -item[1]))
        worst = max(self.counts, key=lambda reason: self.counts[reason])
        column = worst.split(" ")[0]
        first = self.quarantine().slice(0, 1000).filter(
            pa.array(np.asarray(self.quarantine().slice(0, 1000)["reason"], dtype=object) == worst)
        ).slice(0, SHOWN_ROWS)
        shown = ", ".join(
            f"row {row}: {column} = {value!r}"
            for row, value in zip(first["row"].to_pylist(), first[column].to_pylist(), strict=True)
        )
        remedy = next((text for part, text in REMEDIES.items() if part in worst), "")
        return f"This is no event log: {share} ({why}). First: {shown}. {remedy}"


def as_table(events: pa.Table | pd.DataFrame) -> pa.Table:
    """A frame as an Arrow table; columns of mixed Python types become text."""
    if not isinstance(events, pd.DataFrame):
        return pa.Table.from_batches([events]) if isinstance(events, pa.RecordBatch) else events
    return pa.table({str(name): _from_pandas(events[name]) for name in events.columns})


def _from_pandas(series: pd.Series) -> pa.Array:
    try:
        return pa.array(series, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError, pa.ArrowNotImplementedError, OverflowError):
        return pa.array([None if value is None or value is pd.NaT or value != value else str(value) for value in series])


def require_columns(columns: Iterable[str], names: Iterable[str] = REQUIRED) -> None:
    """Raise a `DataError` that names a missing column, what is there instead, and the remedy."""
    there = list(columns)
    for name in names:
        if name not in there:
            close = difflib.get_close_matches(name, there, n=1, cutoff=0.5)
            remedy = f"Map '{close[0]}' to it" if close else "Map the column that holds it"
            raise DataError(
                f"No column '{name}': {_columns_there(there)}. "
                f"{remedy} in the experiment file: [events.columns] {name} = \"{close[0] if close else 'their name'}\"."
            )


def _columns_there(columns: Iterable[str]) -> str:
    names = [f"'{name}'" for name in columns if name != SOURCE_ROW]
    return f"the columns are {', '.join(names)}" if names else "the input has no columns at all"


def _wanted(schema: EventSchema) -> tuple[str, ...]:
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


def _shown(column: pa.ChunkedArray) -> pa.Array:
    """Any column as text, the way it looked."""
    values = column.combine_chunks()
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    try:
        return values.cast(pa.string())
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
        return pa.array([None if value is None else str(value) for value in values.to_pylist()], pa.string())

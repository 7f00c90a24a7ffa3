"""From a user's file to journeys: which file, whose columns, which adapter; then the checks, then packing.

    theirs = {"customer_id": "customer", "timestamp": "time", "touchpoint": "event"}
    journeys = load_journeys(EventSource(path="log.csv", columns=theirs))

A plain table needs only the column mapping. A data set with ways of its own has an adapter
(`features.events.online_retail`, `features.events.bpi2012`). The same `EventSource` reads a new file later: it is JSON
(`model_dump(mode="json")`), and a file that is canonical already is taken as it is.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from features.errors import DataError
from features.events import bpi2012, online_retail
from features.events.adapters import REJECT, Adapter
from features.events.attributes import ProfileTable, profile_rows, with_profile
from features.events.checks import SOURCE_ROW, CheckedEvents, CheckOptions, as_table, check_events
from features.events.columns import Decimal, TimeUnit, time_column
from features.events.schema import CANONICAL, REQUIRED, EventSchema
from features.events.stages import with_stages
from features.settings import Section

ADAPTERS: dict[str, Adapter] = {
    "online_retail": Adapter(
        online_retail.online_retail, online_retail.COLUMNS, online_retail.SCHEMA, online_retail.notes
    ),
    "bpi2012": Adapter(bpi2012.bpi2012, bpi2012.COLUMNS, bpi2012.SCHEMA),
}
OF_TABLES = ("columns", "properties", "profile", "profile_numeric", "touchpoint")  # settings for plain tables alone
ZONED = r"\d.*:\d{2}.*(?:[zZ]|[+-]\d{2}(?::?\d{2})?)$"
DUPLICATE = "the same as an earlier row in every column"


class EventSource(Section):
    """Where events come from and how to read them; the `[events]` table of an experiment file.

    Attributes:
        path: a CSV, CSV.gz, TSV or Parquet file, or a folder of them.
        adapter: "table" for a plain table, or a data set's own adapter.
        columns: canonical name → their name, for a plain table; names that agree need no entry.
        touchpoint: what every row is, such as "purchase", where no column says what happened.
        properties: further columns of the event, as categories: who handled it, which campaign it belongs to.
        profile: columns that describe the customer, as categories; the last value before the cutoff is seen.
        profile_numeric: the same for numbers: age, number of employees.
        stages: touchpoint (or pattern such as `"A_*"`) → stage; the first match wins.
        duplicates: "keep", or "quarantine" for the second and later of exactly equal rows.
        time_unit: unit of numeric times since 1970, "s", "ms", "us" or "ns".
        time_format: strptime format of times that are text and not ISO 8601, such as "%d.%m.%Y %H:%M".
        timezone: where times without a zone were written ("Europe/London"); UTC by default.
        encoding: of CSV files, such as "cp1252".
        decimal: what parts the decimals of numbers that are text, "." or ",".
        profile_table: static facts to join.
    """

    path: Path
    adapter: str = "table"
    columns: dict[str, str] = Field(default_factory=dict)
    touchpoint: str | None = None
    properties: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    profile_numeric: tuple[str, ...] = ()
    stages: dict[str, str] = Field(default_factory=dict)
    duplicates: Literal["keep", "quarantine"] = "keep"
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    timezone: str | None = None
    encoding: str = "utf8"
    decimal: Decimal = "."
    profile_table: ProfileTable | None = None

    @field_validator("adapter")
    @classmethod
    def _known_adapter(cls, name: str) -> str:
        known = ["table", *ADAPTERS]
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            raise ValueError(f"no adapter '{name}'.{hint} There are: {', '.join(known)}")
        return name

    @field_validator("timezone")
    @classmethod
    def _known_timezone(cls, name: str | None) -> str | None:
        try:
            return name if name is None else ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"no time zone '{name}'; write one such as 'Europe/London'") from error

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        if self.adapter != "table" and (given := [name for name in OF_TABLES if getattr(self, name)]):
            raise ValueError(f"{given[0]} is for adapter = \"table\"; '{self.adapter}' knows its own columns")
        schema = self.schema()
        names = [*schema.properties, *schema.profile, *schema.profile_numeric]
        if twice := sorted({name for name in names if names.count(name) > 1 or name in CANONICAL}):
            raise ValueError(f"declared twice, or canonical already: {', '.join(twice)}")
        if self.touchpoint and "touchpoint" in self.columns:
            raise ValueError("touchpoint is said twice: keep `touchpoint`, for every row, or the column in `columns`")
        known = [*CANONICAL, *names]
        for name in self.columns:
            if name not in known:
                raise ValueError(
                    f"columns maps to '{name}', which is neither canonical nor declared in properties, profile or "
                    f'profile_numeric. There are: {", ".join(known)}. Write canonical = "theirs"'
                )
        return self

    def schema(self) -> EventSchema:  # type: ignore[override]
        """The columns beyond the canonical ones: the adapter's, the declared, and the profile table's."""
        own = ADAPTERS[self.adapter].schema if self.adapter in ADAPTERS else EventSchema()
        facts = self.profile_table
        return EventSchema(
            properties=(*own.properties, *self.properties),
            profile=(*own.profile, *self.profile, *(facts.columns if facts else ())),
            profile_numeric=(*own.profile_numeric, *self.profile_numeric, *(facts.numeric_columns if facts else ())),
        )

    def with_path(self, path: Path | str) -> EventSource:
        """The same way of reading, for another file."""
        return self.model_copy(update={"path": Path(path)})


def canonical_events(source: EventSource, raw: pa.Table | pd.DataFrame, *, base: Path | None = None) -> CheckedEvents:
    """Rows as the source's file has them, or canonical ones, through adapter, stages, profile and checks.

    Args:
        source: how to read them.
        raw: a table or frame in the layout of the source, or canonical. Canonical rows have their times in UTC, so
            the source's `time_unit`, `time_format` and `timezone` do not concern them.
        base: the folder that the profile table's relative path starts from.

    Raises:
        DataError: no event log.
    """
    raw = as_table(raw)
    reader = table_reader(source, raw.column_names, base)
    if reader is None:
        return _adapted(ADAPTERS[source.adapter], raw, source, base)
    return reader.check(_renamed(raw, reader.columns))


def is_canonical(source: EventSource, columns: list[str]) -> bool:
    """Whether a table is canonical although the source's own files are not."""
    own = source.adapter == "table" and set(source.columns.values()) <= set(columns)
    return set(REQUIRED) <= set(columns) and not own


@dataclass(frozen=True)
class TableReader:
    """What happens to rows with canonical names before they are checked, and how they are checked.

    Attributes:
        options: the schema and how times are written.
        columns: canonical name → theirs.
        duplicates: "keep" or "quarantine".
        stages: touchpoint or pattern → stage.
        timezone: of times without a zone.
        facts: the profile table, its identifiers under `customer_id`.
        touchpoint: what every row is, where no column says so.
    """

    options: CheckOptions
    columns: dict[str, str]
    duplicates: str
    stages: dict[str, str]
    timezone: str | None
    facts: pa.Table | None
    touchpoint: str | None = None

    @property
    def added_columns(self) -> tuple[str, ...]:
        """The columns that a file need not have."""
        return ("touchpoint",) if self.touchpoint else ()

    def __call__(self, table: pa.Table) -> pa.Table:
        """Touchpoint, stages, profile and time zone; any thread may call it with any part of a log."""
        if self.touchpoint and "touchpoint" not in table.column_names:
            table = table.append_column("touchpoint", pa.repeat(self.touchpoint, table.num_rows).dictionary_encode())
        table = with_profile(with_stages(table, self.stages), self.facts)
        return _localised(table, self.timezone, self.options) if self.timezone else table

    def check(self, table: pa.Table) -> CheckedEvents:
        """Apply them and check, in one go."""
        given = self.options
        return check_events(
            self(table), given.schema, time_unit=given.time_unit, time_format=given.time_format,
            decimal=given.decimal, duplicates=self.duplicates,
        )  # fmt: skip


def table_reader(source: EventSource, columns: list[str], base: Path | None) -> TableReader | None:
    """The rules for a plain or a canonical table with these columns; None where the adapter must see it first.

    Args:
        source: how to read.
        columns: what the table has.
        base: the folder that relative paths start from.

    Raises:
        DataError: a declared column is missing.
    """
    if is_canonical(source, columns):
        duplicates = source.duplicates if source.adapter == "table" else "keep"  # adapters compare their own rows
        facts = profile_rows(source.profile_table, base, columns)
        return TableReader(CheckOptions(source.schema()), {}, duplicates, source.stages, None, facts)
    if source.adapter != "table":
        return None
    _require_declared(source, columns)
    return _rules(source, base, columns, source.duplicates)


def _rules(source: EventSource, base: Path | None, columns: list[str], duplicates: str) -> TableReader:
    options = CheckOptions(
        source.schema(), time_unit=source.time_unit, time_format=source.time_format, decimal=source.decimal
    )
    facts = profile_rows(source.profile_table, base, columns)
    touchpoint = source.touchpoint if source.adapter == "table" else None
    return TableReader(options, source.columns, duplicates, source.stages, source.timezone, facts, touchpoint)


def _require_declared(source: EventSource, columns: list[str]) -> None:
    for setting in OF_TABLES[1:4]:
        for name in getattr(source, setting):
            if source.columns.get(name, name) not in columns:
                close = difflib.get_close_matches(name, columns, n=1, cutoff=0.5)
                hint = f"Did you mean '{close[0]}'?" if close else "Leave it out, or map it in [events.columns]."
                there = ", ".join(repr(column) for column in columns)
                raise DataError(f"No column '{name}', which {setting} declares: the columns are {there}. {hint}")


@contextmanager
def file_in_errors(path: Path) -> Iterator[None]:
    """Errors below say which file they are about."""
    try:
        yield
    except DataError as error:
        if path.name in str(error):
            raise
        raise DataError(f"{path}: {error}") from error


def _renamed(raw: pa.Table, columns: dict[str, str]) -> pa.Table:
    """Their names → ours; what is not mapped keeps its name, so that the checks can say what they ignore."""
    for ours, theirs in columns.items():
        if theirs not in raw.column_names:
            there = ", ".join(repr(name) for name in raw.column_names)
            raise DataError(f"No column '{theirs}', which is to be '{ours}': the columns are {there}.")
    rest = [name for name in raw.column_names if name not in columns and name not in columns.values()]
    return pa.table({ours: raw[theirs] for ours, theirs in columns.items()} | {name: raw[name] for name in rest})


def _adapted(adapter: Adapter, raw: pa.Table, source: EventSource, base: Path | None) -> CheckedEvents:
    """Through a data set's own adapter; the quarantine shows the raw rows, not the adapter's."""
    if absent := [name for name in adapter.columns if name not in raw.column_names]:
        raise DataError(_wrong_file(source.adapter, absent, raw.column_names))
    raw = _without_dictionaries(raw)
    table = adapter.convert(raw)
    if SOURCE_ROW not in table.column_names:
        table = table.append_column(SOURCE_ROW, pa.array(np.arange(1, raw.num_rows + 1)))
    reasons = _reasons(table, raw, source)
    table = table.drop_columns(REJECT) if REJECT in table.column_names else table
    rejected = reasons.is_valid()
    good = table.filter(pc.invert(rejected))
    counts = {item["values"]: item["counts"] for item in pc.value_counts(reasons.drop_null()).to_pylist()}
    if raw.num_rows and not good.num_rows:
        why = ", ".join(f"{reason}: {n:,}" for reason, n in counts.items())
        raise DataError(f"No row can be used ({why}). Is this the file that the adapter '{source.adapter}' is for?")
    # duplicates were compared as raw rows, which these are not
    reader = _rules(source, base, good.column_names, "keep")
    checked = reader.check(good)
    bad = checked.quarantine
    rows = pa.concat_arrays([table[SOURCE_ROW].filter(rejected).combine_chunks(), bad["row"].combine_chunks()])
    why = pa.concat_arrays([reasons.drop_null(), bad["reason"].combine_chunks()])
    quarantine = _quarantine(raw, rows, why)
    return CheckedEvents(checked.events, quarantine, counts | checked.counts, (*adapter.notes(raw), *checked.notes))


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Parquet files give text as dictionaries; adapters see plain columns."""
    plain = {name: table[name] for name in table.column_names}
    for name, column in plain.items():
        if pa.types.is_dictionary(column.type):
            plain[name] = column.cast(column.type.value_type)
    return pa.table(plain)


def _reasons(table: pa.Table, raw: pa.Table, source: EventSource) -> pa.Array:
    """(n,) why the adapter, or the rule for duplicates, sets a row aside; null where neither does."""
    nothing = pa.nulls(table.num_rows, pa.string())
    reasons = table[REJECT].combine_chunks() if REJECT in table.column_names else nothing
    if source.duplicates == "keep":
        return reasons
    again = pa.array(raw.to_pandas().duplicated().to_numpy())  # as the file has them, before the adapter drops columns
    again = again.take(pc.subtract(table[SOURCE_ROW].combine_chunks(), 1))
    return pc.coalesce(reasons, pc.if_else(again, DUPLICATE, pa.scalar(None, pa.string())))


def _quarantine(raw: pa.Table, rows: pa.Array, why: pa.Array) -> pa.Table:
    order = pc.sort_indices(rows)
    rows, why = rows.take(order), why.take(order)
    values = raw.take(pc.subtract(rows, 1))
    return pa.table({"row": rows, "reason": why} | {name: values[name].cast(pa.string()) for name in raw.column_names})


def _wrong_file(adapter: str, absent: list[str], there: list[str]) -> str:
    return (
        f"The adapter '{adapter}' needs the columns {', '.join(repr(name) for name in absent)}; the columns are "
        f"{', '.join(repr(name) for name in there)}. Give the data set as its publisher ships it, or canonical events "
        f"({', '.join(REQUIRED)})."
    )


def _localised(table: pa.Table, timezone: str, options: CheckOptions) -> pa.Table:
    """Times without a zone as moments of `timezone`; rows that are no time keep their text, for the checks to see."""
    if "timestamp" not in table.column_names:
        return table
    column = table["timestamp"].combine_chunks()
    read = time_column("timestamp", column, time_unit=options.time_unit, time_format=options.time_format)
    if not read.notes:
        return table  # every time has a zone
    local = pc.assume_timezone(read.values, timezone, ambiguous="earliest", nonexistent="latest")
    moments = local.cast(pa.timestamp("us", "UTC"))
    if pa.types.is_string(column.type):
        zoned = pc.match_substring_regex(column, ZONED)
        moments = pc.if_else(zoned, read.values.cast(pa.timestamp("us", "UTC")), moments)
    if read.problems:
        text = pc.strftime(moments, "%Y-%m-%dT%H:%M:%SZ")
        moments = pc.coalesce(text, column.cast(pa.string()))
    return table.set_column(table.column_names.index("timestamp"), "timestamp", moments)

"""Where events come from and how to read them: the `[events]` table of an experiment file.

    columns = {"customer_id": "customer", "timestamp": "time", "touchpoint": "event"}
    journeys = load_journeys(EventSource(path="log.csv", columns=columns))

A plain table needs only the column mapping. A data set of another shape has an adapter
(`features.events.adapters`). The same `EventSource` reads a new file later: it is JSON
(`model_dump(mode="json")`), and a file that is canonical already is taken as it is.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, Self
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import Field, field_validator, model_validator

from features.errors import DataError, nearest, unknown_name
from features.events.adapter import quoted
from features.events.adapters import ADAPTERS
from features.events.attributes import ProfileTable, profile_rows
from features.events.checks import CheckedEvents, CheckOptions, as_table, quarantine_rows
from features.events.columns import Decimal, TimeUnit
from features.events.schema import CANONICAL, REQUIRED, EventSchema
from features.events.table_reader import TableReader, canonical_reader
from features.settings import Section

DECLARATIONS = ("properties", "profile", "profile_numeric")
FOR_PLAIN_TABLES = ("columns", *DECLARATIONS, "touchpoint")  # settings that an adapter leaves no room for


class EventSource(Section):
    """The `[events]` table of an experiment file.

    Attributes:
        path: a CSV, CSV.gz, TSV or Parquet file, or a folder of them.
        adapter: "table" for a plain table, or a data set's own adapter.
        columns: canonical name → the file's name, for a plain table; names that agree need no entry.
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
    def _check_adapter(cls, name: str) -> str:
        names = ["table", *ADAPTERS]
        if name not in names:
            raise ValueError(unknown_name("adapter", name, names))
        return name

    @field_validator("timezone")
    @classmethod
    def _check_timezone(cls, name: str | None) -> str | None:
        try:
            return name if name is None else ZoneInfo(name).key
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"no time zone '{name}'; write one such as 'Europe/London'") from error

    @model_validator(mode="after")
    def _check_columns(self) -> Self:
        if self.adapter != "table" and (names := [name for name in FOR_PLAIN_TABLES if getattr(self, name)]):
            raise ValueError(f"{names[0]} is for adapter = \"table\"; '{self.adapter}' knows its own columns")
        schema = self.schema()
        names = [*schema.properties, *schema.profile, *schema.profile_numeric]
        if repeats := sorted({name for name in names if names.count(name) > 1 or name in CANONICAL}):
            raise ValueError(f"declared twice, or canonical already: {', '.join(repeats)}")
        if self.touchpoint and "touchpoint" in self.columns:
            raise ValueError("touchpoint is said twice: keep `touchpoint`, for every row, or the column in `columns`")
        allowed = [*CANONICAL, *names]
        for name in self.columns:
            if name not in allowed:
                raise ValueError(
                    f"columns maps to '{name}', which is neither canonical nor declared in properties, profile or "
                    f'profile_numeric. There are: {", ".join(allowed)}. Write canonical = "theirs"'
                )
        return self

    def schema(self) -> EventSchema:  # type: ignore[override]
        """The columns beyond the canonical ones: the adapter's, the declared, and the profile table's."""
        adapted = ADAPTERS[self.adapter].schema if self.adapter in ADAPTERS else EventSchema()
        joined = self.profile_table or ProfileTable(path=Path())
        return EventSchema(
            properties=(*adapted.properties, *self.properties),
            profile=(*adapted.profile, *self.profile, *joined.columns),
            profile_numeric=(*adapted.profile_numeric, *self.profile_numeric, *joined.numeric_columns),
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
    return _adapted(source, raw, base) if reader is None else reader.check(_renamed(raw, reader.columns))


def table_reader(source: EventSource, columns: list[str], base: Path | None) -> TableReader | None:
    """How a plain or a canonical table with these columns is read; None where the adapter must see it first.

    Args:
        source: how to read.
        columns: those of the table.
        base: the folder that relative paths start from.

    Raises:
        DataError: a declared column is missing.
    """
    plain = source.adapter == "table"
    if set(REQUIRED) <= set(columns) and not (plain and set(source.columns.values()) <= set(columns)):
        profiles = profile_rows(source.profile_table, base, columns)
        return canonical_reader(
            source.schema(), adapter=source.adapter, duplicates=source.duplicates, stages=source.stages,
            profiles=profiles,
        )  # fmt: skip
    if not plain:
        return None
    for setting in DECLARATIONS:
        for name in getattr(source, setting):
            if source.columns.get(name, name) not in columns:
                close = nearest(name, columns)
                hint = f"Did you mean '{close}'?" if close else "Leave it out, or map it in [events.columns]."
                raise DataError(
                    f"No column '{name}', which {setting} declares: the columns are {quoted(columns)}. {hint}"
                )
    return _reader(source, base, columns, source.duplicates)


def _reader(source: EventSource, base: Path | None, columns: list[str], duplicates: str) -> TableReader:
    options = CheckOptions(
        source.schema(), source.time_unit, source.time_format, source.timezone, source.decimal, duplicates
    )
    profiles = profile_rows(source.profile_table, base, columns)
    return TableReader(options, source.columns, source.stages, profiles, source.touchpoint)


@contextmanager
def file_in_errors(path: Path) -> Iterator[None]:
    """Errors below say which file they are about."""
    try:
        yield
    except DataError as error:
        if path.name in str(error):
            raise
        raise DataError(f"{path}: {error}") from error


def _renamed(raw: pa.Table, columns: Mapping[str, str]) -> pa.Table:
    """The table under canonical names; other columns keep theirs, so that the checks can say what they ignore."""
    for canonical, name in columns.items():
        if name not in raw.column_names:
            raise DataError(
                f"No column '{name}', which is to be '{canonical}': the columns are {quoted(raw.column_names)}."
            )
    rest = [name for name in raw.column_names if name not in columns and name not in columns.values()]
    mapped = {canonical: raw[name] for canonical, name in columns.items()}
    return pa.table(mapped | {name: raw[name] for name in rest})


def _adapted(source: EventSource, raw: pa.Table, base: Path | None) -> CheckedEvents:
    """Rows through the data set's own adapter; the quarantine shows the raw rows, not the adapter's."""
    adapter = ADAPTERS[source.adapter]
    raw = _without_dictionaries(raw)
    good, rejected = adapter.rows(raw, source.duplicates)
    checked = _reader(source, base, good.column_names, "keep").check(good)  # duplicates are compared as raw rows
    bad = pa.concat_tables([rejected, checked.quarantine.select(rejected.column_names)]).combine_chunks()
    bad = bad.take(pc.sort_indices(bad["row"]))
    counts = {item["values"]: item["counts"] for item in pc.value_counts(rejected["reason"]).to_pylist()}
    quarantine = quarantine_rows(raw.take(pc.subtract(bad["row"], 1)), bad["row"], bad["reason"])
    return CheckedEvents(checked.events, quarantine, counts | checked.counts, (*adapter.notes(raw), *checked.notes))


def _without_dictionaries(table: pa.Table) -> pa.Table:
    """Parquet files give text as dictionaries; adapters see plain columns."""
    return table.cast(
        pa.schema(
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in table.schema
        )
    )

"""From a user's file to journeys: which file, whose columns, which adapter; then the checks, then packing.

    source = EventSource(path="log.csv", columns={"customer_id": "customer", "timestamp": "time", "touchpoint": "event"})
    journeys = load_journeys(source)

A plain table needs only the column mapping. A data set with ways of its own has an adapter (`features.online_retail`,
`features.bpi2012`). The same `EventSource` serves a request or a new file later: it is JSON (`model_dump(mode="json")`),
and a file that is canonical already is taken as it is.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Literal, Self

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import Field, field_validator, model_validator

from features import bpi2012, online_retail
from features.adapters import REJECT, Adapter
from features.errors import ConfigError, DataError
from features.event_columns import TimeUnit, text_column, time_column
from features.events import SOURCE_ROW, Checked, as_table, check_events, require_columns
from features.journeys import Journeys, pack
from features.reading import read_table
from features.schema import CANONICAL, REQUIRED, EventSchema
from features.settings import Section

ADAPTERS: dict[str, Adapter] = {
    "online_retail": Adapter(online_retail.online_retail, online_retail.COLUMNS, online_retail.SCHEMA, online_retail.notes),
    "bpi2012": Adapter(bpi2012.bpi2012, bpi2012.COLUMNS, bpi2012.SCHEMA),
}
ZONED = r"\d.*:\d{2}.*(?:[zZ]|[+-]\d{2}(?::?\d{2})?)$"
DUPLICATE = "the same as an earlier row in every column"


class ProfileTable(Section):
    """A table of static facts, one row a customer, joined onto the events.

    It has no history: only put in what was already so at every cutoff (a sign-up channel, not today's status).
    """

    path: Path
    customer_id: str = "customer_id"
    columns: tuple[str, ...] = ()
    numeric_columns: tuple[str, ...] = ()


class EventSource(Section):
    """Where events come from and how to read them; the `[events]` table of an experiment file.

    Attributes:
        path: a CSV, CSV.gz, TSV or Parquet file, or a folder of them.
        adapter: "table" for a plain table, or a data set's own adapter.
        columns: canonical name → their name, for a plain table; names that agree need no entry.
        properties, profile, profile_numeric: columns beyond the canonical ones, see `EventSchema`.
        stages: touchpoint (or pattern such as `"A_*"`) → stage; the first match wins.
        duplicates: "keep", or "quarantine" for the second and later of exactly equal rows.
        time_unit: unit of numeric times since 1970. time_format: strptime format of other text.
        timezone: where times without a zone were written ("Europe/London"); UTC by default.
        encoding: of CSV files.
        profile_table: static facts to join.
    """

    path: Path
    adapter: str = "table"
    columns: dict[str, str] = {}
    properties: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    profile_numeric: tuple[str, ...] = ()
    stages: dict[str, str] = {}
    duplicates: Literal["keep", "quarantine"] = "keep"
    time_unit: TimeUnit | None = None
    time_format: str | None = None
    timezone: str | None = None
    encoding: str = "utf8"
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

    @model_validator(mode="after")
    def _columns_fit(self) -> Self:
        if self.adapter != "table" and self.columns:
            raise ValueError(f"columns are for adapter = \"table\"; '{self.adapter}' knows its own")
        schema = self.schema()
        names = [*schema.properties, *schema.profile, *schema.profile_numeric]
        if twice := sorted({name for name in names if names.count(name) > 1 or name in CANONICAL}):
            raise ValueError(f"declared twice, or canonical already: {', '.join(twice)}")
        known = [*CANONICAL, *names]
        for name in self.columns:
            if name not in known:
                raise ValueError(
                    f"columns maps to '{name}', which is neither canonical nor declared in properties, profile or "
                    f"profile_numeric. There are: {', '.join(known)}. Write canonical = \"theirs\""
                )
        return self

    def schema(self) -> EventSchema:
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


@dataclass(frozen=True)
class Log:
    """A log ready for use, and what became of the rows that are not in it."""

    journeys: Journeys
    checked: Checked


def load_journeys(source: EventSource, base: Path | None = None, quarantine_path: Path | None = None) -> Journeys:
    """Read, check and pack; bad rows go to `quarantine_path` (CSV) where one is given and there are any.

    Raises:
        DataError: no such file, or no event log.
    """
    return load_log(source, base, quarantine_path).journeys


def load_log(source: EventSource, base: Path | None = None, quarantine_path: Path | None = None) -> Log:
    """As `load_journeys`, with the checked table, the quarantine, its counts and the notes."""
    checked = read_events(source, base=base)
    if quarantine_path is not None and checked.quarantine.num_rows:
        write_quarantine(checked, quarantine_path)
    return Log(pack(checked.events, source.schema()), checked)


def write_quarantine(checked: Checked, path: Path) -> None:
    """The rows set aside, as CSV: row number, reason, and their own values."""
    path.parent.mkdir(parents=True, exist_ok=True)
    checked.quarantine.to_pandas().to_csv(path, index=False)


def read_events(source: EventSource, *, base: Path | None = None) -> Checked:
    """Read the source's file and check it.

    Args:
        source: what to read and how.
        base: the folder that relative paths start from; the working directory by default.
    """
    path = (base or Path()) / source.path.expanduser()
    try:
        raw = read_table(path, encoding=source.encoding)
        return canonical_events(source, raw, base=base)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error


def canonical_events(source: EventSource, raw: pa.Table | pd.DataFrame, *, base: Path | None = None) -> Checked:
    """Rows as the source's file has them, or canonical ones, through adapter, stages, profile and checks."""
    raw = as_table(raw)
    adapter = ADAPTERS.get(source.adapter)
    if is_canonical(source, raw.column_names):
        table = raw
    elif adapter is None:
        table = _renamed(raw, source)
    else:
        return _adapted(adapter, raw, source, base)
    table = _with_profile(_with_stages(table, source), source, base)
    duplicates = source.duplicates if adapter is None else "keep"  # adapters compare raw rows, which these are not
    return _checked(table, source, duplicates)


def is_canonical(source: EventSource, columns: list[str]) -> bool:
    """Whether a table can be taken as it is: canonical names are there, and it is not the source's own layout."""
    if not set(REQUIRED) <= set(columns):
        return False
    return source.adapter != "table" or not set(source.columns.values()) & set(columns) - set(source.columns)


def _renamed(raw: pa.Table, source: EventSource) -> pa.Table:
    """Their names → ours; what is not mapped keeps its name, so that the checks can say what they ignore."""
    missing = [theirs for theirs in source.columns.values() if theirs not in raw.column_names]
    if missing:
        close = difflib.get_close_matches(missing[0], raw.column_names, n=1, cutoff=0.5)
        hint = f" Did you mean '{close[0]}'?" if close else ""
        raise DataError(
            f"No column '{missing[0]}', which [events.columns] names: the columns are "
            f"{', '.join(repr(name) for name in raw.column_names)}.{hint}"
        )
    taken = set(source.columns.values())
    rest = [name for name in raw.column_names if name not in taken and name not in source.columns]
    ours = {name: raw[theirs] for name, theirs in source.columns.items()} | {name: raw[name] for name in rest}
    if absent := [name for name in REQUIRED if name not in ours]:
        require_columns(raw.column_names, absent)
    return pa.table(ours)


def _adapted(adapter: Adapter, raw: pa.Table, source: EventSource, base: Path | None) -> Checked:
    """Through a data set's own adapter; the quarantine shows the raw rows, not the adapter's."""
    if absent := [name for name in adapter.columns if name not in raw.column_names]:
        raise DataError(_wrong_file(source.adapter, absent, raw.column_names))
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
    good = _with_profile(_with_stages(good, source), source, base)
    checked = _checked(good, source, "keep")
    rows = pa.concat_arrays([table[SOURCE_ROW].filter(rejected).combine_chunks(), checked.quarantine["row"].combine_chunks()])
    why = pa.concat_arrays([reasons.drop_null(), checked.quarantine["reason"].combine_chunks()])
    quarantine = _quarantine(raw, rows, why)
    return Checked(checked.events, quarantine, counts | checked.counts, (*adapter.notes(raw), *checked.notes))


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


def _checked(table: pa.Table, source: EventSource, duplicates: str) -> Checked:
    table = _localised(table, source)
    unit, form = source.time_unit, source.time_format
    return check_events(table, source.schema(), time_unit=unit, time_format=form, duplicates=duplicates)


def _wrong_file(adapter: str, absent: list[str], there: list[str]) -> str:
    return (
        f"The adapter '{adapter}' needs the columns {', '.join(repr(name) for name in absent)}; the columns are "
        f"{', '.join(repr(name) for name in there)}. Give the data set as its publisher ships it, or canonical events "
        f"({', '.join(REQUIRED)})."
    )


def _with_stages(table: pa.Table, source: EventSource) -> pa.Table:
    """A `stage` for each touchpoint that the mapping knows; where it knows none, the log's own stage stays."""
    if not source.stages or "touchpoint" not in table.column_names:
        return table
    touchpoint = text_column("touchpoint", table["touchpoint"].combine_chunks()).values
    names = touchpoint.dictionary.to_pylist()
    by_code = pa.array([_stage_of(name, source.stages) for name in names], pa.string())
    stage = by_code.take(touchpoint.indices)
    if "stage" in table.column_names:
        own = text_column("stage", table["stage"].combine_chunks()).values.cast(pa.string())
        return table.drop_columns("stage").append_column("stage", pc.coalesce(stage, own))
    return table.append_column("stage", stage)


def _stage_of(touchpoint: str | None, stages: dict[str, str]) -> str | None:
    if touchpoint is None or touchpoint in stages:
        return stages.get(touchpoint or "")
    return next((stage for pattern, stage in stages.items() if fnmatchcase(touchpoint, pattern)), None)


def _with_profile(table: pa.Table, source: EventSource, base: Path | None) -> pa.Table:
    """The profile table's columns beside each event of its customer; events that carry them already keep theirs."""
    facts = source.profile_table
    if facts is None or "customer_id" not in table.column_names:
        return table
    names = [name for name in (*facts.columns, *facts.numeric_columns) if name not in table.column_names]
    if not names:
        return table
    rows = _profile_rows(facts, names, base)
    ids = text_column("customer_id", table["customer_id"].combine_chunks()).values
    known = text_column(facts.customer_id, rows[facts.customer_id].combine_chunks()).values.cast(pa.string())
    found = pc.index_in(ids.dictionary, known).take(ids.indices)
    for name in names:
        table = table.append_column(name, rows[name].combine_chunks().take(found))
    return table


def _profile_rows(facts: ProfileTable, names: list[str], base: Path | None) -> pa.Table:
    path = (base or Path()) / facts.path.expanduser()
    rows = read_table(path)
    for name in (facts.customer_id, *names):
        if name not in rows.column_names:
            raise DataError(f"The profile table {path} has no column '{name}'; it has {', '.join(rows.column_names)}.")
    ids = rows[facts.customer_id].to_pandas()
    if (twice := ids[ids.duplicated()].head(3).tolist()):
        raise DataError(f"The profile table {path} has several rows for customer {', '.join(map(str, twice))}: keep one.")
    return rows


def _localised(table: pa.Table, source: EventSource) -> pa.Table:
    """Times without a zone as moments of `source.timezone`; the checks then see that they carry one."""
    if source.timezone is None or "timestamp" not in table.column_names:
        return table
    column = table["timestamp"].combine_chunks()
    read = time_column("timestamp", column, time_unit=source.time_unit, time_format=source.time_format)
    if not read.notes:
        return table
    if pa.types.is_string(column.type) and pc.any(pc.match_substring_regex(column, ZONED)).as_py():
        raise DataError("Some times carry a zone and some do not, so timezone says nothing certain: write one kind.")
    local = pc.assume_timezone(read.values, source.timezone, ambiguous="earliest", nonexistent="latest")
    if not read.problems:
        return _replaced(table, "timestamp", local)
    iso = pc.strftime(local.cast(pa.timestamp("us", "UTC")), "%Y-%m-%dT%H:%M:%SZ")  # bad rows keep their own text
    return _replaced(table, "timestamp", pc.coalesce(iso, column.cast(pa.string())))


def _replaced(table: pa.Table, name: str, column: pa.Array) -> pa.Table:
    return table.set_column(table.column_names.index(name), name, column)

"""How rows with canonical names are completed and checked: one code and one order for every way to read events.

Tables, streams, Spark blocks and the service complete rows first (touchpoint, stages, profile), then check them, then
compare duplicates. Training and serving so keep the same events.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.events.checks import CheckedEvents, CheckOptions, as_table, check_events
from features.events.columns import text_column
from features.events.schema import EventSchema
from features.events.stages import with_stages


@dataclass(frozen=True)
class TableReader:
    """How the rows of one table are read.

    Attributes:
        options: the schema, how times and numbers are written, what becomes of duplicates.
        columns: canonical name → the table's name; who reads a file renames by it, names that agree need no entry.
        stages: touchpoint or pattern → stage.
        profiles: one row a customer: `customer_id` and static facts to join; None joins nothing.
        touchpoint: what every row is, where no column says so.
    """

    options: CheckOptions
    columns: Mapping[str, str] = field(default_factory=dict)
    stages: Mapping[str, str] = field(default_factory=dict)
    profiles: pa.Table | None = None
    touchpoint: str | None = None

    @property
    def added_columns(self) -> tuple[str, ...]:
        """The required columns that a file may lack."""
        return ("touchpoint",) if self.touchpoint else ()

    def complete(self, table: pa.Table) -> pa.Table:
        """Add touchpoint, stages and profile; any thread may call it with any part of a log."""
        if self.touchpoint and "touchpoint" not in table.column_names:
            table = table.append_column("touchpoint", pa.repeat(self.touchpoint, table.num_rows).dictionary_encode())
        return _with_profiles(with_stages(table, self.stages), self.profiles)

    def check(self, events: pa.Table | pd.DataFrame) -> CheckedEvents:
        """Complete and check a whole table.

        Raises:
            DataError: no event log.
        """
        return check_events(self.complete(as_table(events)), self.options)


def canonical_reader(
    schema: EventSchema,
    *,
    adapter: str = "table",
    duplicates: str = "keep",
    stages: Mapping[str, str] | None = None,
    profiles: pa.Table | None = None,
) -> TableReader:
    """How canonical rows are read; their times are in UTC.

    Args:
        schema: the columns beyond the canonical ones.
        adapter: which one made them. A data set's own adapter compares raw rows for duplicates; canonical rows are not
            those, and are kept.
        duplicates: "keep" or "quarantine".
        stages: touchpoint or pattern → stage.
        profiles: see `TableReader`.
    """
    options = CheckOptions(schema, duplicates=duplicates if adapter == "table" else "keep")
    return TableReader(options, stages=stages or {}, profiles=profiles)


def _with_profiles(table: pa.Table, profiles: pa.Table | None) -> pa.Table:
    """The facts beside each event of their customer; a column that the events carry already stays."""
    if profiles is None or "customer_id" not in table.column_names:
        return table
    ids = text_column("customer_id", table["customer_id"].combine_chunks()).values
    rows = pc.index_in(ids.dictionary, profiles["customer_id"].combine_chunks()).take(ids.indices)
    for name in profiles.column_names:
        if name not in table.column_names:
            table = table.append_column(name, profiles[name].combine_chunks().take(rows))
    return table

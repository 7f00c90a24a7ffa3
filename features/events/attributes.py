"""The profile table: static facts about customers, one row each, to be joined onto their events."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from features.errors import DataError, missing_path
from features.events.columns import text_column
from features.events.files import read_table
from features.settings import Section


class ProfileTable(Section):
    """A table of static facts, one row a customer, joined onto the events.

    It has no history: only put in what was already so at every cutoff (a sign-up channel, not today's status).

    Attributes:
        path: CSV or Parquet.
        customer_id: the column that says whose row it is.
        columns: to join, as categories; profile columns like those of the log.
        numeric_columns: to join, as numbers.
    """

    path: Path
    customer_id: str = "customer_id"
    columns: tuple[str, ...] = ()
    numeric_columns: tuple[str, ...] = ()


def profile_rows(facts: ProfileTable | None, base: Path | None, columns: list[str]) -> pa.Table | None:
    """The profile table, a row a customer; None where there is none or the events carry all of it.

    Args:
        facts: where it is.
        base: the folder that a relative path starts from.
        columns: those that the events have.

    Raises:
        DataError: no such file or column, or several rows for a customer.
    """
    if facts is None or set(names := (*facts.columns, *facts.numeric_columns)) <= set(columns):
        return None
    path = (base or Path()) / facts.path.expanduser()
    if not path.exists():
        raise DataError(f"No such profile table. {missing_path(path)} Or give events that carry {', '.join(names)}.")
    rows = read_table(path)
    for name in (facts.customer_id, *names):
        if name not in rows.column_names:
            raise DataError(f"The profile table {path} has no column '{name}'; it has {', '.join(rows.column_names)}.")
    ids = text_column(facts.customer_id, rows[facts.customer_id].combine_chunks()).values.cast(pa.string())
    counts = pc.value_counts(ids.drop_null())
    twice = counts.field("values").filter(pc.greater(counts.field("counts"), 1)).to_pylist()[:3]
    if twice:
        raise DataError(f"The profile table {path} has several rows for customer {', '.join(twice)}: keep one.")
    return pa.table({"customer_id": ids} | {name: rows[name] for name in names})

"""What an adapter is: a plain function from a data set's raw table to canonical columns, and what it declares.

An adapter never drops a row. Where it cannot use one it says why in a column `reject` (null for good rows), and where
it makes more than one event of a row it numbers them in `source_row` (1-based). Rejected rows go to quarantine with
that reason and their raw values.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import DataError
from features.events.checks import DUPLICATE, SOURCE_ROW
from features.events.schema import REQUIRED, EventSchema

REJECT = "reject"


@dataclass(frozen=True)
class Adapter:
    """How the raw rows of a data set become canonical ones.

    Attributes:
        name: how an experiment file names it, `adapter = "…"`.
        convert: raw table (CSV columns are text) → canonical columns, `reject` and `source_row` where needed.
        columns: the raw columns that it needs; nothing else is read.
        schema: the columns beyond the canonical ones that it makes.
        notes: remarks on a raw table, for the user to read once.
    """

    name: str
    convert: Callable[[pa.Table], pa.Table]
    columns: tuple[str, ...]
    schema: EventSchema
    notes: Callable[[pa.Table], list[str]] = lambda raw: []

    def rows(self, raw: pa.Table, duplicates: str) -> tuple[pa.Table, pa.Table]:
        """Good rows with canonical names and `source_row`; and `row, reason` of the rejected ones.

        Args:
            raw: the data set's own rows.
            duplicates: "quarantine" rejects rows equal to an earlier one. Raw rows are compared, because an adapter
                drops columns in which they may differ.

        Raises:
            DataError: the table lacks a column that the adapter needs, or no row is good.
        """
        if absent := [name for name in self.columns if name not in raw.column_names]:
            raise DataError(
                f"The adapter '{self.name}' needs the columns {quoted(absent)}; the columns are "
                f"{quoted(raw.column_names)}. Give the data set as its publisher ships it, or canonical events "
                f"({', '.join(REQUIRED)})."
            )
        table = self.convert(raw)
        if SOURCE_ROW not in table.column_names:
            table = table.append_column(SOURCE_ROW, pa.array(np.arange(1, raw.num_rows + 1)))
        reasons = pa.nulls(table.num_rows, pa.string())
        if REJECT in table.column_names:
            reasons, table = table[REJECT].combine_chunks(), table.drop_columns(REJECT)
        rows = table[SOURCE_ROW].combine_chunks()
        if duplicates == "quarantine":
            repeats = pa.array(raw.to_pandas().duplicated().to_numpy()).take(pc.subtract(rows, 1))
            reasons = pc.coalesce(reasons, pc.if_else(repeats, DUPLICATE, pa.scalar(None, pa.string())))
        rejected = pa.table({"row": rows, "reason": reasons}).filter(reasons.is_valid())
        good = table.filter(reasons.is_null())
        if raw.num_rows and not good.num_rows:
            counts = pc.value_counts(rejected["reason"]).to_pylist()
            why = ", ".join(f"{item['values']}: {item['counts']:,}" for item in counts)
            raise DataError(f"No row can be used ({why}). Is this the file that the adapter '{self.name}' is for?")
        return good, rejected


def quoted(names: list[str]) -> str:
    """Names for a message."""
    return ", ".join(repr(name) for name in names)


def first_reason(problems: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """(n,) text: the first reason whose mask is true, null where none is."""
    null = pa.scalar(None, pa.string())
    columns = [pc.if_else(mask.fill_null(False), reason, null) for reason, mask in problems.items()]
    return pc.coalesce(*columns)


def number_or_null(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Numbers from text or numbers, null where there is none."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column.cast(pa.float64(), safe=False)
    try:
        return column.cast(pa.float64())
    except pa.ArrowInvalid:
        number = pc.match_substring_regex(column, r"^\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*$")
        return pc.if_else(number, pc.utf8_trim_whitespace(column), pa.scalar(None, pa.string())).cast(pa.float64())

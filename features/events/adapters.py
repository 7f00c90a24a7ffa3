"""What an adapter is: a plain function from a user's raw table to canonical columns, and what it declares.

An adapter never drops a row. Where it cannot use one it says why in a column `reject` (null for good rows), and where
it makes more than one event of a row it numbers them in `source_row` (1-based); both end in the quarantine's words.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

from features.events.schema import EventSchema

REJECT = "reject"


@dataclass(frozen=True)
class Adapter:
    """A data set's way into the canonical table.

    Attributes:
        convert: raw table (CSV columns are text) → canonical columns, `reject` and `source_row` where needed.
        columns: the raw columns that it needs; nothing else is read.
        schema: the columns beyond the canonical ones that it makes.
        notes: what it has to say about a raw table, for the user to read once.
    """

    convert: Callable[[pa.Table], pa.Table]
    columns: tuple[str, ...]
    schema: EventSchema
    notes: Callable[[pa.Table], list[str]] = lambda raw: []


def first_reason(problems: Mapping[str, pa.ChunkedArray]) -> pa.ChunkedArray:
    """(n,) text: the first reason whose mask is true, null where none is."""
    nothing = pa.scalar(None, pa.string())
    columns = [pc.if_else(mask.fill_null(False), reason, nothing) for reason, mask in problems.items()]
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

"""Packing: checked event rows → `Journeys`, the flat columns sorted by customer, then time, then source order.

`pack` takes a whole table, `Packer` takes it batch by batch, `pack_columns` is the short way for a request of a few
events. All three give the same journeys. A batch is kept as narrow columns in source order (a touchpoint takes one
byte) until the last has come; then each column is written to its place and freed, so that a log needs little more
memory than its packed form (`features.journeys.ordering`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import DataError
from features.events.checks import SOURCE_ROW, as_table, has_nulls
from features.events.columns import as_text, text_column
from features.events.schema import EventSchema
from features.events.text_index import TextIndex
from features.journeys.journeys import Category, Journeys, as_readonly
from features.journeys.order_kernels import appearance
from features.journeys.ordering import Array, Each, Ints, Order

ROWS_A_BATCH = 1 << 20
FEW_ROWS = 1 << 17  # up to which threads cost more than they bring
THREADS = 2


@dataclass(frozen=True)
class Prepared:
    """A batch in source order as narrow as it goes, whose texts have not met those of other batches.

    Attributes:
        ids: the identifiers in order of first appearance, or one an event where `customers` is None.
        customers: (n,) whole numbers into `ids`.
        t: (n,) int64 µs.
        codes: the categorical columns, (n,) whole numbers into `names`, -1 where missing.
        names: for each of them its names.
        numbers: the number columns, (n,) float64, NaN where missing.
        rows: (n,) int64 row numbers, where they are carried along.
    """

    ids: pa.Array
    customers: npt.NDArray[np.int32] | None
    t: Ints
    codes: dict[str, Array] = field(default_factory=dict)
    names: dict[str, pa.Array] = field(default_factory=dict)
    numbers: dict[str, Array] = field(default_factory=dict)
    rows: Ints | None = None


def prepare(table: pa.Table, schema: EventSchema) -> Prepared:
    """Prepare one batch for packing; threads may prepare batches in parallel.

    Args:
        table: checked, canonical rows; a column `source_row` is carried along.
        schema: which columns to keep.
    """
    present = set(table.column_names)
    categories = {name: _category(table[name]) for name in schema.category_columns if name in present}
    ids, customers = _identifiers(table["customer_id"])
    return Prepared(
        ids,
        customers,
        _times(table["timestamp"]),
        {name: codes for name, (codes, _) in categories.items()},
        {name: names for name, (_, names) in categories.items()},
        {name: _numbers(table[name]) for name in schema.number_columns if name in present},
        np.asarray(_flat(table[SOURCE_ROW])) if SOURCE_ROW in present else None,
    )


class Packer:
    """Packs a log that comes in batches: `add` each in its order, then `finish` once."""

    def __init__(self) -> None:
        self._index = TextIndex()
        self._names: dict[str, TextIndex] = {}
        self._customers: list[npt.NDArray[np.int32]] = []
        self._times: list[Ints] = []
        self._codes: list[dict[str, Array]] = []
        self._tables: list[dict[str, npt.NDArray[np.int32]]] = []
        self._numbers: list[dict[str, Array]] = []
        self._rows: list[Array | None] = []

    def add(self, batch: Prepared) -> None:
        """Add a batch; the order of the batches is the source order."""
        codes = self._index.add(batch.ids)
        self._customers.append(codes if batch.customers is None else codes[batch.customers])
        self._times.append(batch.t)
        self._codes.append(dict(batch.codes))
        self._tables.append(
            {name: self._names.setdefault(name, TextIndex()).add(names) for name, names in batch.names.items()}
        )
        self._numbers.append(dict(batch.numbers))
        self._rows.append(batch.rows)

    def finish(self, threads: int = THREADS) -> tuple[Journeys, Ints | None]:
        """The packed log, and its events' row numbers where the batches carried them. Leaves the packer empty."""
        ids = self._index.texts()
        self._index = TextIndex()
        with _shared(threads if sum(map(len, self._customers)) > FEW_ROWS else 1) as each:
            order = Order(self._customers, self._times, len(ids), each)
            categories = {name: self._category(name, order) for name in self._names}
            present = dict.fromkeys(name for numbers in self._numbers for name in numbers)
            numbers = {
                name: order.column([numbers.pop(name, None) for numbers in self._numbers], np.nan) for name in present
            }
            rows = order.column(self._rows, -1) if any(rows is not None for rows in self._rows) else None
        self._customers, self._rows = [], []
        return Journeys(ids, order.offsets, order.t, categories, numbers), rows

    def _category(self, name: str, order: Order) -> Category:
        """Its names are sorted, so that they depend on the events alone and not on how the file was cut."""
        names = self._names[name].texts()
        by_name = np.asarray(pc.sort_indices(names)).astype(np.int64)
        rank = np.empty(len(names), np.int32)
        rank[by_name] = np.arange(len(names), dtype=np.int32)
        missing, nothing = np.array([-1], np.int32), np.empty(0, np.int32)
        tables = [np.concatenate((missing, rank[table.get(name, nothing)])) for table in self._tables]
        codes = order.names([codes.pop(name, None) for codes in self._codes], tables)
        return Category(codes, tuple(names.take(pa.array(by_name)).to_pylist()))


def pack(events: pa.Table | pd.DataFrame, schema: EventSchema | None = None) -> Journeys:
    """Pack a checked, canonical event table.

    Args:
        events: columns as in `features.events.schema`, every required value present.
        schema: which extra columns to keep; none by default.
    """
    schema = schema or EventSchema()
    table = as_table(events)
    columns = ("customer_id", "timestamp", *schema.category_columns, *schema.number_columns)
    table = table.select([name for name in columns if name in table.column_names])
    rows = range(0, max(1, table.num_rows), ROWS_A_BATCH)
    return pack_batches((table.slice(row, ROWS_A_BATCH) for row in rows), schema, THREADS if len(rows) > 1 else 1)


def pack_batches(batches: Iterable[pa.Table], schema: EventSchema | None = None, threads: int = THREADS) -> Journeys:
    """Pack checked, canonical tables that follow each other in source order."""
    packer, schema = Packer(), schema or EventSchema()
    with _shared(threads) as each:
        for batch in each(lambda table: prepare(table, schema), batches):
            packer.add(batch)
    return packer.finish(threads)[0]


@contextmanager
def _shared(threads: int) -> Iterator[Each]:
    """A `map` whose work these threads share; a single one needs no pool."""
    if threads == 1:
        yield map
        return
    with ThreadPoolExecutor(threads) as pool:
        yield pool.map


def pack_columns(
    customer_ids: Sequence[str],
    t: npt.ArrayLike,
    columns: Mapping[str, Sequence[Any] | npt.NDArray[Any]],
    schema: EventSchema | None = None,
) -> Journeys:
    """Pack the few events of a request, without a table in between.

    Args:
        customer_ids: (n,) text.
        t: (n,) int64 µs since 1970 UTC.
        columns: (n,) values by canonical name, `touchpoint` among them; None, NaN and blank text are missing.
        schema: which extra columns to keep; none by default.

    >>> log = pack_columns(["b", "a", "b"], [3, 2, 1], {"touchpoint": ["buy", "view", "view"]})
    >>> log.customer_ids.to_pylist(), log.t.tolist(), log.categories["touchpoint"].codes.tolist()
    (['b', 'a'], [1, 3, 2], [1, 0, 1])
    """
    schema, times = schema or EventSchema(), np.asarray(t, dtype=np.int64)
    customer_of = {name: place for place, name in enumerate(dict.fromkeys(customer_ids))}
    offsets: Ints = np.zeros(len(customer_of) + 1, np.int64)
    if len(customer_of) == 1:
        offsets[1], order = len(times), np.argsort(times, kind="stable")
    else:
        codes = np.array([customer_of[name] for name in customer_ids], np.int64)
        order = np.lexsort((times, codes))
        np.cumsum(np.bincount(codes, minlength=len(customer_of)), out=offsets[1:])
    categories = {name: _few_names(columns[name], order) for name in schema.category_columns if name in columns}
    numbers = {name: _few_numbers(columns[name], order) for name in schema.number_columns if name in columns}
    return Journeys(pa.array(list(customer_of), pa.string()), offsets, as_readonly(times[order]), categories, numbers)


def _few_names(values: Iterable[Any], order: Ints) -> Category:
    values = list(values)
    distinct = set(values)
    if not {*map(type, distinct)} <= {str, type(None)}:
        values = [None if value is None or value != value else str(value) for value in values]
        distinct = set(values)
    names = sorted(value for value in distinct if value is not None and value.strip())
    code = dict.fromkeys(distinct, -1) | {name: k for k, name in enumerate(names)}
    return Category(as_readonly(np.array([code[value] for value in values], np.int32)[order]), tuple(names))


def _few_numbers(values: Any, order: Ints) -> npt.NDArray[np.float64]:
    return as_readonly(np.asarray(values, dtype=np.float64)[order])  # None becomes NaN


def _flat(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    if isinstance(column, pa.ChunkedArray):
        return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()
    return column


def _identifiers(column: pa.ChunkedArray) -> tuple[pa.Array, npt.NDArray[np.int32] | None]:
    values = _flat(column)
    if has_nulls(values):
        raise DataError("Some events have no customer_id: pass the table through check_events before packing it.")
    if not pa.types.is_dictionary(values.type):
        return as_text("customer_id", values), None
    codes, names = _by_appearance(np.asarray(values.indices), as_text("customer_id", values.dictionary))
    return names, codes


def _category(column: pa.ChunkedArray) -> tuple[Array, pa.Array]:
    """Narrow codes in order of first appearance, -1 where missing, and the names that occur."""
    values = text_column("", _flat(column)).values
    indices = values.indices.fill_null(-1) if values.indices.null_count else values.indices
    return _by_appearance(np.asarray(indices), values.dictionary)


def _by_appearance(codes: Array, names: pa.Array) -> tuple[Array, pa.Array]:
    """Codes and names without the names that do not occur, the others in order of first appearance."""
    place: npt.NDArray[np.int32] = np.empty(len(names) + 1, np.int32)  # the last entry serves code -1
    n_names = appearance(codes, place[:-1])
    kind = np.int8 if n_names < 2**7 else np.int16 if n_names < 2**15 else np.int32
    if n_names == len(names) and (place[:-1] == np.arange(n_names)).all():
        return codes.astype(kind), names
    place[-1] = -1
    occurs = np.argsort(place[:-1], kind="stable")[len(names) - n_names :]
    return place.astype(kind)[codes], names.take(pa.array(occurs))


def _times(column: pa.ChunkedArray) -> Ints:
    return np.asarray(_flat(column).cast(pa.timestamp("us", column.type.tz), safe=False).cast(pa.int64()))


def _numbers(column: pa.ChunkedArray) -> Array:
    values = _flat(column).cast(pa.float64())
    return np.asarray(values.fill_null(np.nan) if values.null_count else values)

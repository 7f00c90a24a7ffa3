"""What a partition of a cluster does with its rows: checks and packs them block by block, writes blocks, reads them.

A partition's rows come in the order of `KEY`, a hash of the customer, so that a customer's rows are together. A block
is about `ROWS_A_BLOCK` events of whole customers, checked and packed by the functions that one machine uses
(`features.events.table_reader`, `features.journeys.packing`), and written as rows `block, name, payload` of at
most `CHUNK_BYTES` each: a cluster keeps, filters and moves them as any other rows. A customer who alone has more events
is a block of their own, held as narrow columns (about 25 bytes an event). Nothing here needs Spark.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import DataError
from features.events.checks import SOURCE_ROW, check_batch, quarantine_duplicates
from features.events.columns import as_text
from features.events.table_reader import TableReader
from features.journeys.duplicates import as_rows, repeated, without
from features.journeys.event_log import Least, Most, Part, partial_facts, with_names
from features.journeys.journeys import Category, Journeys, as_readonly
from features.journeys.packing import Packer, prepare

KEY, REQUEST_ROW, REQUEST_CUTOFF = "__key", "__request_row", "__request_cutoff"
ROWS_A_BLOCK = 1 << 18
CHUNK_BYTES = 1 << 20
BLOCKS = pa.schema([("block", pa.int32()), ("name", pa.string()), ("payload", pa.binary())])
REQUESTS = pa.schema([("row", pa.int64()), ("customer_id", pa.string()), ("cutoff", pa.int64())])
ABOUT, IDS, OFFSETS, TIMES, FIRSTS, BAD, REQUESTS_NAME = "about", "ids", "offsets", "t", "firsts", "bad", "requests"
ALWAYS = (ABOUT, IDS, OFFSETS, TIMES, FIRSTS, REQUESTS_NAME)

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Packed:
    """A block: a part and its rejected rows.

    Attributes:
        part: the customers.
        counts: reason → number of rejected rows.
        notes: assumptions of the checks.
        bad: the rejected rows, as in `features.events.checks.CheckedEvents.quarantine`; None where there are none.
    """

    part: Part
    counts: dict[str, int]
    notes: tuple[str, ...]
    bad: pa.Table | None


def packed_blocks(
    batches: Iterable[pa.RecordBatch], rules: TableReader, rows_a_block: int = ROWS_A_BLOCK
) -> Iterator[Packed]:
    """Pack a partition's rows.

    Args:
        batches: rows under canonical names, `KEY` (rising) and `SOURCE_ROW`; a row with `REQUEST_ROW` is no event
            but a request for its customer at `REQUEST_CUTOFF` (µs).
        rules: how rows are prepared and checked.
        rows_a_block: a block is closed at the next customer once it has so many rows.
    """
    packing = _Packing(rules)
    for rows in batches:
        while rows.num_rows and packing.n_rows + rows.num_rows >= rows_a_block:
            end = _next_customer(rows, packing.key, rows_a_block - packing.n_rows)
            if end is None:  # the customer goes on in the next batch
                break
            packing.add(rows.slice(0, end))
            yield packing.finish()
            packing, rows = _Packing(rules), rows.slice(end)
        packing.add(rows)
    if packing.n_rows:
        yield packing.finish()


def _next_customer(rows: pa.RecordBatch, key: int | None, enough: int) -> int | None:
    """The first row that begins a customer, once there are enough rows before it; None where there is none."""
    keys = np.asarray(rows[KEY])
    begins = np.flatnonzero(keys[1:] != keys[:-1]) + 1
    if key is not None and keys[0] != key:
        begins = np.concatenate(([0], begins))
    place = np.searchsorted(begins, max(enough, 0))
    return int(begins[place]) if place < len(begins) and (begins[place] or key is not None) else None


class _Packing:
    """A block in the making."""

    def __init__(self, rules: TableReader) -> None:
        self.rules = rules
        self.n_rows = 0
        self.key: int | None = None
        self._packer = Packer()
        self._n_events = 0
        self._notes: dict[str, None] = {}
        self._bad: list[pa.Table] = []
        self._requests: list[pa.Table] = []
        self._empty: pa.Table | None = None

    def add(self, rows: pa.RecordBatch) -> None:
        """Check rows and take the good ones."""
        if not rows.num_rows:
            return
        self.n_rows += rows.num_rows
        self.key = rows[KEY][rows.num_rows - 1].as_py()
        table = self._without_requests(pa.Table.from_batches([rows])).drop_columns(KEY)
        table = _plain(table)
        if not table.num_rows:
            self._empty = table
            return
        if table[SOURCE_ROW].null_count:
            raise DataError("Some rows have no place in the order of the source: fill the column that order_by names.")
        good, checked = check_batch(self.rules.complete(table), self.rules.options)
        if checked.bad is not None:
            self._bad.append(checked.bad)
        self._notes |= dict.fromkeys(checked.notes)
        self._take(good, checked.rows)

    def finish(self) -> Packed:
        """The block."""
        if self._empty is not None and not self._n_events:  # so that it has its columns all the same
            good, checked = check_batch(self.rules.complete(self._empty), self.rules.options)
            self._take(good, checked.rows)
        journeys, rows = self._packer.finish(threads=1)
        assert rows is not None
        journeys, rows = in_source_order(journeys, rows)
        firsts = _firsts(journeys, rows)
        if self.rules.options.duplicates == "quarantine" and (gone := repeated(journeys)).any():
            places = np.flatnonzero(gone)
            self._bad.append(quarantine_duplicates(as_rows(journeys, places), rows[places]))
            journeys = without(journeys, gone)
        bad = pa.concat_tables(self._bad, promote_options="default") if self._bad else None
        requests = pa.concat_tables(self._requests) if self._requests else None
        counts: dict[str, int] = {}
        for reason in [] if bad is None else bad["reason"].to_pylist():
            counts[reason] = counts.get(reason, 0) + 1
        return Packed(Part(journeys, firsts, requests), counts, tuple(self._notes), bad)

    def _take(self, good: pa.Table, rows: Ints) -> None:
        self._packer.add(replace(prepare(good, self.rules.options.schema), rows=rows))
        self._n_events += len(rows)

    def _without_requests(self, table: pa.Table) -> pa.Table:
        """The events; requests are collected apart."""
        if REQUEST_ROW not in table.column_names:
            return table
        requests = table.filter(table[REQUEST_ROW].is_valid())
        if requests.num_rows:
            ids = as_text("customer_id", requests["customer_id"].combine_chunks())
            columns = [requests[REQUEST_ROW].combine_chunks(), ids, requests[REQUEST_CUTOFF].combine_chunks()]
            self._requests.append(pa.table(columns, schema=REQUESTS))
            table = table.filter(table[REQUEST_ROW].is_null())
        return table.drop_columns([REQUEST_ROW, REQUEST_CUTOFF])


def _plain(table: pa.Table) -> pa.Table:
    """Text as `pa.string()`: some clusters hand it over as large strings."""
    for place, column in enumerate(table.schema):
        if pa.types.is_large_string(column.type):
            table = table.set_column(place, column.name, table[place].cast(pa.string()))
    return table


def in_source_order(journeys: Journeys, rows: Ints) -> tuple[Journeys, Ints]:
    """The log with events of one customer at one moment in the order of their rows, whatever order they came in.

    Args:
        journeys: packed, sorted by customer and time.
        rows: (n_events,) the events' places in the source.
    """
    tied = journeys.t[1:] == journeys.t[:-1]
    tied[journeys.offsets[1:-1][(journeys.offsets[1:-1] > 0) & (journeys.offsets[1:-1] < len(rows))] - 1] = False
    if not (tied & (rows[1:] < rows[:-1])).any():
        return journeys, rows
    group = np.concatenate(([0], np.cumsum(~tied)))  # events that could change places
    order = np.lexsort((rows, group))
    moved = Journeys(
        journeys.customer_ids,
        journeys.offsets,
        journeys.t,
        {name: Category(column.codes[order], column.names) for name, column in journeys.categories.items()},
        {name: values[order] for name, values in journeys.numbers.items()},
    )
    return moved, rows[order]


def _firsts(journeys: Journeys, rows: Ints) -> Ints:
    """(n_customers,) the first row of each in the source."""
    if not journeys.n_customers:
        return np.zeros(0, np.int64)
    return np.asarray(np.minimum.reduceat(rows, journeys.offsets[:-1]))


def written(packed: Packed, block: int) -> Iterator[pa.RecordBatch]:
    """A block as rows of `BLOCKS`, a column after the other."""
    log = packed.part.journeys
    about = {
        "counts": packed.counts,
        "notes": packed.notes,
        "names": {name: column.names for name, column in log.categories.items()},
        "numbers": list(log.numbers),
        "events": log.n_events,
        "facts": _as_json(partial_facts(packed.part)),
    }
    payloads: list[tuple[str, Any]] = [
        (ABOUT, json.dumps(about).encode()),
        (IDS, _ipc(pa.table({"id": log.customer_ids}))),
        (OFFSETS, log.offsets),
        (TIMES, log.t),
        (FIRSTS, packed.part.firsts),
        *((f"code:{name}", _narrow(column)) for name, column in log.categories.items()),
        *((f"number:{name}", values) for name, values in log.numbers.items()),
    ]
    payloads += [] if packed.part.requests is None else [(REQUESTS_NAME, _ipc(packed.part.requests))]
    payloads += [] if packed.bad is None else [(BAD, _ipc(packed.bad))]
    for name, payload in payloads:
        data = memoryview(payload).cast("B") if isinstance(payload, bytes) else _bytes(payload)
        chunks = [_small(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)] or [_small(data)]
        columns = [pa.array([block] * len(chunks), pa.int32()), [name] * len(chunks), pa.array(chunks, pa.binary())]
        yield pa.record_batch(columns, schema=BLOCKS)


def _small(data: memoryview) -> bytes:
    """A chunk for storage: its length (four bytes), then LZ4, which costs less than moving what it saves."""
    return len(data).to_bytes(4, "little") + bytes(pa.compress(pa.py_buffer(data), "lz4"))


def _large(payload: pa.Buffer) -> pa.Buffer:
    """The chunk before `_small`."""
    return pa.decompress(payload[4:], int.from_bytes(payload[:4].to_pybytes(), "little"), "lz4")


def _as_json(facts: tuple[Any, ...]) -> list[Any]:
    """`partial_facts` without the names, which the block stores separately."""
    first, last, events, customers, _, lows, highs = facts
    spans = {name: [lows[name].value, highs[name].value] for name in lows}
    return [first.value, last.value, events, customers, spans]


def block_facts(about: dict[str, Any]) -> tuple[Any, ...]:
    """`partial_facts` of a block, from its description."""
    first, last, events, customers, spans = about["facts"]
    return (
        Least(first),
        Most(last),
        events,
        customers,
        {name: frozenset(names) for name, names in about["names"].items()},
        {name: Least(low) for name, (low, _) in spans.items()},
        {name: Most(high) for name, (_, high) in spans.items()},
    )


def _bytes(values: npt.NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(values).view(np.uint8).data) if len(values) else memoryview(b"")


def _narrow(column: Category) -> npt.NDArray[Any]:
    """Codes as narrow as the number of names allows."""
    n = len(column.names)
    return column.codes.astype(np.int8 if n < 2**7 else np.int16 if n < 2**15 else np.int32)


def _ipc(table: pa.Table) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue())


def needed(columns: Sequence[str] | None) -> list[str] | None:
    """The names of the rows that hold some columns; None for all."""
    if columns is None:
        return None
    return [*ALWAYS, *(f"{kind}:{name}" for name in columns for kind in ("code", "number"))]


def read_blocks(batches: Iterable[pa.RecordBatch], names: dict[str, tuple[str, ...]] | None = None) -> Iterator[Part]:
    """The parts that rows of `BLOCKS` hold; columns without rows are missing.

    Args:
        batches: rows, block by block.
        names: of the categories of the whole log, where parts should have them.
    """
    for payloads in _gathered(batches):
        yield _part(payloads, names)


def _gathered(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, bytes]]:
    """Block by block the payloads by name."""
    block: int | None = None
    chunks: dict[str, list[Any]] = {}
    for rows in batches:
        numbers, names = rows["block"].to_pylist(), rows["name"].to_pylist()
        payloads = rows["payload"]
        for row, (number, name) in enumerate(zip(numbers, names, strict=True)):
            if (number != block or name == ABOUT) and chunks:
                yield {key: b"".join(parts) for key, parts in chunks.items()}
                chunks = {}
            block = number
            chunks.setdefault(name, []).append(_large(payloads[row].as_buffer()))
    if chunks:
        yield {key: b"".join(parts) for key, parts in chunks.items()}


def _part(payloads: dict[str, bytes], names: dict[str, tuple[str, ...]] | None) -> Part:
    about = json.loads(payloads[ABOUT])
    ids = _table(payloads[IDS])["id"].combine_chunks()
    ids = ids.chunk(0) if isinstance(ids, pa.ChunkedArray) else ids
    t = np.frombuffer(payloads[TIMES], np.int64)
    categories = {}
    for name, block_names in about["names"].items():
        if (data := payloads.get(f"code:{name}")) is not None:
            kind = np.int8 if len(block_names) < 2**7 else np.int16 if len(block_names) < 2**15 else np.int32
            categories[name] = Category(as_readonly(np.frombuffer(data, kind), np.int32), tuple(block_names))
    numbers = {
        name: np.frombuffer(payloads[f"number:{name}"], np.float64)
        for name in about["numbers"]
        if f"number:{name}" in payloads
    }
    journeys = Journeys(ids, np.frombuffer(payloads[OFFSETS], np.int64), t, categories, numbers)
    requests = _table(payloads[REQUESTS_NAME]) if REQUESTS_NAME in payloads else None
    return Part(
        journeys if names is None else with_names(journeys, names), np.frombuffer(payloads[FIRSTS], np.int64), requests
    )


def _table(data: bytes) -> pa.Table:
    with pa.ipc.open_stream(pa.py_buffer(data)) as reader:
        return reader.read_all()


def abouts(batches: Iterable[pa.RecordBatch]) -> Iterator[dict[str, Any]]:
    """The descriptions of blocks."""
    for payloads in _gathered(batches):
        yield json.loads(payloads[ABOUT])


def each_bad(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.Table]:
    """The quarantine rows of blocks that have some; rows named `ABOUT` and `BAD` are needed."""
    for payloads in _gathered(batches):
        if BAD in payloads:
            yield _table(payloads[BAD])


def build(
    batches: Iterable[pa.RecordBatch], rules: TableReader, rows_a_block: int = ROWS_A_BLOCK
) -> Iterator[pa.RecordBatch]:
    """A partition's rows → the rows of its blocks."""
    for number, packed in enumerate(packed_blocks(batches, rules, rows_a_block)):
        yield from written(packed, number)

"""Customers in partitions, by a hash of the identifier alone: neither the other customers nor their order matter.

>>> parts = partition_of(pa.array(["ann", "bob", "ann"]), 8)
>>> bool(parts[0] == parts[2]), bool((parts < 8).all())
(True, True)
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.errors import ConfigError
from features.events.columns import as_text
from features.events.text_index import text_buffers
from features.journeys.partition_kernels import hash_parts, order_by_part

MOST_PARTITIONS = 1 << 12
EVENTS_A_PARTITION = 1_000_000

Parts = npt.NDArray[np.uint16]


def partition_of(ids: pa.Array, n_partitions: int) -> Parts:
    """(n,) the partition of each identifier: text or a dictionary of it, no nulls."""
    if pa.types.is_dictionary(ids.type):
        of_names = partition_of(as_text("customer_id", ids.dictionary), n_partitions)
        return np.asarray(of_names[np.asarray(ids.indices)])
    parts: Parts = np.empty(len(ids), np.uint16)
    hash_parts(*text_buffers(ids), n_partitions, parts)
    return parts


def partition_count(requested: int | None, n_rows: int) -> int:
    """The number of partitions: the requested one, or one for each million rows.

    Raises:
        ConfigError: fewer than 1, or more than `MOST_PARTITIONS`.
    """
    if requested is None:
        return min(MOST_PARTITIONS, max(1, -(-n_rows // EVENTS_A_PARTITION)))
    if not 1 <= requested <= MOST_PARTITIONS:
        raise ConfigError(f"{requested} partitions: give 1 to {MOST_PARTITIONS:,}.")
    return requested


def sampled(ids: pa.Array, share: float) -> npt.NDArray[np.bool_]:
    """(n,) which identifiers are among a share of all, the same ones tomorrow and in every log."""
    if share >= 1:
        return np.ones(len(ids), np.bool_)
    return partition_of(ids, MOST_PARTITIONS) < round(share * MOST_PARTITIONS)


def by_partition(table: pa.Table, n_partitions: int) -> tuple[pa.Table, npt.NDArray[np.int64]]:
    """Checked event rows in the order of their partitions, source order within.

    Args:
        table: canonical rows; identifiers become plain text, the codes of dictionaries as narrow as they go.
        n_partitions: how many.

    Returns:
        The rows, and (n_partitions + 1,) where each partition begins.
    """
    table = table.combine_chunks()
    ids = _only(table["customer_id"])
    borders: npt.NDArray[np.int64] = np.empty(n_partitions + 1, np.int64)
    order: npt.NDArray[np.int32] = np.empty(table.num_rows, np.int32)
    order_by_part(partition_of(ids, n_partitions), borders, order)
    rows = pa.array(order)
    columns = {name: _take_rows(_only(table[name]), rows, name != "customer_id") for name in table.column_names}
    return pa.table(columns), borders


def _only(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _take_rows(values: pa.Array, rows: pa.Array, keep_dictionary: bool) -> pa.Array:
    if not pa.types.is_dictionary(values.type):
        return values.take(rows)
    codes = values.indices.take(rows)
    if not keep_dictionary:
        return as_text("", values.dictionary).take(codes)
    few = len(values.dictionary) < 2**7
    kind = pa.int8() if few else pa.int16() if len(values.dictionary) < 2**15 else pa.int32()
    return pa.DictionaryArray.from_arrays(codes.cast(kind), values.dictionary)

"""Compiled kernels that partition events by customer: a hash of each identifier, and a stable order by partition."""

from __future__ import annotations

import numba
import numpy as np

import features.kernel_cache  # noqa: F401  # before any kernel is declared
from features.events.text_index_kernels import _hash

HIGH_BITS = np.uint64(33)


@numba.njit(nogil=True, cache=True)
def hash_parts(offsets, data, n_parts, parts):  # type: ignore[no-untyped-def]
    """`parts` (n,) uint16: the hash of each text of an Arrow array, modulo `n_parts`.

    The upper bits decide: the lower ones place texts in the index of a partition, and are to differ there.
    """
    for row in range(len(parts)):
        hashed = _hash(data, np.uint64(offsets[row]), np.uint64(offsets[row + 1]))
        parts[row] = np.uint16((hashed >> HIGH_BITS) % np.uint64(n_parts))


@numba.njit(nogil=True, cache=True)
def order_by_part(parts, borders, order):  # type: ignore[no-untyped-def]
    """Rows in the order of their partitions, source order within; `borders` (n_parts + 1,) are filled."""
    borders[:] = 0
    for part in parts:
        borders[np.uint64(part) + np.uint64(1)] += 1
    for part in range(1, len(borders)):
        borders[part] += borders[part - 1]
    at = borders[:-1].copy()
    for row in range(len(parts)):
        part = np.uint64(parts[row])
        order[np.uint64(at[part])] = row
        at[part] += 1

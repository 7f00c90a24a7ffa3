"""Compiled kernel that adds up boosted trees for many rows at once.

The bit vectors of QuickScorer (C. Lucchese et al.: "QuickScorer: a fast algorithm to rank documents with additive
ensembles of regression trees", SIGIR 2015), with rows side by side as in its successor V-QuickScorer: a tree's leaves
are bits, numbered from the left; every node that a row leaves to the right clears the leaves on its left; the lowest
bit that is still set is the row's leaf. No branch depends on the data, so that one instruction serves many rows.

Serial, `nogil` and cached; threads call it side by side on different rows.
"""

from __future__ import annotations

import numba
import numpy as np
from numba.cpython.unsafe.numbers import trailing_zeros

import features.kernel_cache  # noqa: F401  # before any kernel is declared

LANES = 64  # rows side by side: their tested columns stay in a core's own cache
ABREAST = 16  # rows read together: a line of the cache is written at once, and memory is read ahead


@numba.njit(nogil=True, cache=True)
def add_trees(x, used, feature, threshold, cleared, borders, lowest, leaves, values, out):  # type: ignore[no-untyped-def]
    """Add the leaf values of every tree, in the order of the trees, to `out`.

    Of the arguments:
        x: (n, f) float32.
        used: (u,) columns of `x` that are tested.
        feature: (nodes,) places in `used`.
        threshold: (nodes,) float32; a row goes right where its value is above.
        cleared: (nodes,) unsigned, the leaves that stay where a row goes right.
        borders: (2 · trees + 1,): from `borders[2 k]` the nodes of tree k at which a missing value goes left, from
            `borders[2 k + 1]` those at which it goes right.
        lowest: (trees,) unsigned, all leaves of each tree.
        leaves: (trees + 1,) where the values of a tree's leaves begin.
        values: (leaves,) float64.
        out: (n,) float64, updated.
    """
    columns = np.empty((len(used), LANES), np.float32)
    bits = np.empty(LANES, cleared.dtype)
    for begin in range(0, len(x), LANES):
        n = min(LANES, len(x) - begin)
        for first in range(0, n, ABREAST):
            for place in range(len(used)):
                column = np.uint64(used[place])
                for lane in range(first, min(first + ABREAST, n)):
                    columns[place, lane] = x[begin + lane, column]
        for tree in range(len(lowest)):
            bits[:] = lowest[tree]
            for node in range(borders[2 * tree], borders[2 * tree + 1]):
                _clear_above(columns[feature[node]], threshold[node], cleared[node], bits, n)
            for node in range(borders[2 * tree + 1], borders[2 * tree + 2]):
                _clear_unless_below(columns[feature[node]], threshold[node], cleared[node], bits, n)
            leaf = leaves[tree]
            for lane in range(n):
                out[begin + lane] += values[leaf + np.int64(trailing_zeros(np.uint64(bits[lane])))]  # type: ignore[call-arg]


@numba.njit(inline="always")
def _clear_above(column, threshold, stays, bits, n):  # type: ignore[no-untyped-def]
    nothing = ~(stays ^ stays)
    for lane in range(n):
        bits[lane] &= stays if column[lane] > threshold else nothing


@numba.njit(inline="always")
def _clear_unless_below(column, threshold, stays, bits, n):  # type: ignore[no-untyped-def]
    nothing = ~(stays ^ stays)
    for lane in range(n):
        bits[lane] &= nothing if column[lane] <= threshold else stays

"""Compiled kernels for clustering: counts of values, normal scores, products, distances.

Every sum runs in one order whatever the number of rows, so that one customer alone gets the same bits as in a batch.
Serial, `nogil` and cached.
"""

from __future__ import annotations

import numba
import numpy as np

import features.kernel_cache  # noqa: F401  # before any kernel is declared


@numba.njit(nogil=True, cache=True)
def count_values(counts, start, stop, codes, t, place, gap_us):  # type: ignore[no-untyped-def]
    """Add to (n, w) `counts` how often each row's events have each value; a repeat within `gap_us` counts once.

    Of the arguments:
        start, stop: (n,) the rows' events in the log.
        codes: (n_events,) the log's codes, below 0 where missing.
        t: (n_events,) µs.
        place: (names,) the column of `counts` that each code counts in.
    """
    for row in range(len(start)):
        before = -1
        for i in range(start[row], stop[row]):
            code = codes[i]
            if code >= 0 and (code != before or t[i] - t[i - 1] > gap_us):
                counts[row, place[code]] += 1.0
            before = code


@numba.njit(nogil=True, cache=True)
def add_scores(themes, raw, theme, borders, values, scores):  # type: ignore[no-untyped-def]
    """Add to (n, axes) `themes` the score of each of the (n, c) `raw` numbers, read between the points of its table.

    Of the arguments:
        theme: (c,) the axis that each column is of.
        borders: (c + 1,) where each column's table begins in `values` and `scores`; an empty table gives 0.
        values: ascending in each table; below and above it the first and the last score hold. NaN gives 0.
    """
    for column in range(raw.shape[1]):
        low, high = borders[column], borders[column + 1]
        if low == high:
            continue
        for row in range(len(raw)):
            x = raw[row, column]
            if not np.isnan(x):
                at = low + np.searchsorted(values[low:high], x, side="right") - 1
                if at < low:
                    score = scores[low]
                elif at == high - 1 or values[at] == x:
                    score = scores[at]
                else:
                    slope = (scores[at + 1] - scores[at]) / (values[at + 1] - values[at])
                    score = slope * (x - values[at]) + scores[at]
                themes[row, theme[column]] += score


@numba.njit(nogil=True, cache=True)
def add_product(out, x, weights):  # type: ignore[no-untyped-def]
    """Add (n, c) `x` @ (c, k) `weights` to (n, k) `out`, column of `x` by column."""
    for row in range(len(x)):
        for column in range(x.shape[1]):
            factor = x[row, column]
            for axis in range(weights.shape[1]):
                out[row, axis] += factor * weights[column, axis]


@numba.njit(nogil=True, cache=True)
def squared_distances(out, x, centres):  # type: ignore[no-untyped-def]
    """Write into (n, k) `out` how far each row of (n, d) `x` is from each of the (k, d) centres, squared."""
    for row in range(len(x)):
        for cluster in range(len(centres)):
            total = 0.0
            for axis in range(x.shape[1]):
                offset = x[row, axis] - centres[cluster, axis]
                total += offset * offset
            out[row, cluster] = total

"""Compiled kernels that select order statistics in place: the k-th value, and medians of neighbouring groups.

All are serial, `nogil` and cached. Selection is by quickselect with a random pivot.
"""

from __future__ import annotations

import numpy as np
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared

STEP_A, STEP_B, HALF = np.uint64(6364136223846793005), np.uint64(1442695040888963407), np.uint64(32)


@njit(cache=True, nogil=True)
def kth(values, first, last, k):  # type: ignore[no-untyped-def]
    """The k-th smallest (from 0) of `values[first:last]`, which is reordered: smaller ones before its place."""
    low, high, place = first, last - 1, first + k
    draw = np.uint64(k + 1)
    while low < high:
        wide = np.uint64(high - low + 1)
        # three pseudo-random places, so that no order of the values makes it slow
        draw = draw * STEP_A + STEP_B
        a = values[low + np.int64((draw >> HALF) % wide)]
        draw = draw * STEP_A + STEP_B
        b = values[low + np.int64((draw >> HALF) % wide)]
        draw = draw * STEP_A + STEP_B
        c = values[low + np.int64((draw >> HALF) % wide)]
        pivot = max(min(a, b), min(max(a, b), c))
        i, j, at = low, high, low
        while at <= j:  # three ways, so that many equal values cost nothing
            if values[at] < pivot:
                values[at], values[i] = values[i], values[at]
                i += 1
                at += 1
            elif values[at] > pivot:
                values[at], values[j] = values[j], values[at]
                j -= 1
            else:
                at += 1
        if place < i:
            high = i - 1
        elif place > j:
            low = j + 1
        else:
            break
    return values[place]


@njit(cache=True, nogil=True)
def medians(values, borders):  # type: ignore[no-untyped-def]
    """(k,) float64 medians of `values[borders[g]:borders[g + 1]]`, NaN where empty; values are reordered inside."""
    out = np.full(len(borders) - 1, np.nan)
    for group in range(len(borders) - 1):
        first, last = borders[group], borders[group + 1]
        n = last - first
        if n > 0:
            upper = kth(values, first, last, n // 2)
            lower = upper
            if n % 2 == 0:
                lower = values[first]
                for i in range(first + 1, first + n // 2):
                    lower = max(lower, values[i])
            out[group] = 0.5 * lower + 0.5 * upper
    return out

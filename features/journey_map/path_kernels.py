"""Compiled passes of the journey map's paths and influence: common beginnings of journeys, ways to a conversion.

All are serial, `nogil` and cached; a code of -1 (missing) is taken as one past the last name.
"""

from __future__ import annotations

import numpy as np
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared

MIX_A, MIX_B = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xD6E8FEB86659FD93)
BLANK = -1


@njit(inline="always")
def _begin(codes, t, first, last, n_names, path):  # type: ignore[no-untyped-def]
    """Write the beginning of a journey into `path` (steps + 1,), repeats once; returns the µs that it takes.

    A journey that is over within the steps is closed by `n_names + 1`; the rest is blank.
    """
    path[:] = BLANK
    steps, n, moment = len(path) - 1, 0, t[first]
    for i in range(first, last):
        code = codes[i] if codes[i] >= 0 else n_names
        if n == 0 or path[n - 1] != code:
            if n == steps:
                return moment - t[first]
            path[n] = code
            n += 1
            moment = t[i]
    path[n] = n_names + 1
    return moment - t[first]


@njit(inline="always")
def _hash(path):  # type: ignore[no-untyped-def]
    h = np.uint64(0)
    for code in path:
        h = (h ^ np.uint64(code + 2)) * MIX_A
        h = (h ^ (h >> np.uint64(32))) * MIX_B
    return h ^ (h >> np.uint64(29))


@njit(inline="always")
def _find(path, slots, paths):  # type: ignore[no-untyped-def]
    """The slot that holds the path, or the free one where it belongs."""
    mask = np.uint64(len(slots) - 1)
    slot = _hash(path) & mask
    while slots[slot] >= 0 and not np.array_equal(paths[slots[slot]], path):
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _larger(slots, paths, n_paths):  # type: ignore[no-untyped-def]
    more = np.full(4 * len(slots), -1, np.int32)
    for place in range(n_paths):
        more[_find(paths[place], more, paths)] = place
    return more


@njit(cache=True, nogil=True)
def count_paths(codes, t, start, stop, n_names, steps, path_of, duration_us):  # type: ignore[no-untyped-def]
    """Which path each customer takes at first, into `path_of` (n,) int32, and the µs from its first step to its last.

    Returns:
        (paths, steps + 1) int32 codes, `n_names + 1` where the journey is over, `BLANK` after that; and how many
        customers take each.
    """
    slots = np.full(1 << 12, -1, np.int32)
    paths, counts = np.empty((1024, steps + 1), np.int32), np.zeros(1024, np.int64)
    path, n_paths = np.empty(steps + 1, np.int32), 0
    for row in range(len(start)):
        duration_us[row] = _begin(codes, t, start[row], stop[row], n_names, path)
        slot = _find(path, slots, paths)
        place = slots[slot]
        if place < 0:
            if n_paths == len(paths):
                wider, longer = np.empty((2 * n_paths, steps + 1), np.int32), np.zeros(2 * n_paths, np.int64)
                wider[:n_paths], longer[:n_paths] = paths, counts
                paths, counts = wider, longer
            place = n_paths
            slots[slot] = place
            paths[place] = path
            n_paths += 1
            if 2 * n_paths > len(slots):
                slots = _larger(slots, paths, n_paths)
        counts[place] += 1
        path_of[row] = place
    return paths[:n_paths].copy(), counts[:n_paths].copy()


@njit(cache=True, nogil=True)
def count_ways(codes, table, start, until, converted, size):  # type: ignore[no-untyped-def]
    """Count the ways up to the first conversion, or to the end of the journey.

    Of the arguments:
        codes: (n_events,) of touchpoints or channels. table: code → number below `size`; last for missing.
        until: (n,) one past the last event of the way: the goal itself is not on it.
        converted: (n,) whether the way ends in a conversion.

    Returns:
        steps: (size + 3, size + 3) int64; after the names come start, conversion and null.
        customers, first, last: (size,) int64: who has it on the way; conversions whose way begins or ends with it.
        linear: (size,) float64: conversions, each shared equally by the events of its way.
        untouched: conversions with nothing before them.
    """
    begin, goal, null = size, size + 1, size + 2
    steps = np.zeros((size + 3, size + 3), np.int64)
    customers, latest = np.zeros(size, np.int64), np.full(size, -1, np.int64)
    first, last, linear = np.zeros(size, np.int64), np.zeros(size, np.int64), np.zeros(size)
    untouched = 0
    for row in range(len(start)):
        source, n = begin, until[row] - start[row]
        for i in range(start[row], until[row]):
            number = table[codes[i]]
            steps[source, number] += 1
            if latest[number] != row:
                latest[number] = row
                customers[number] += 1
            if converted[row]:
                linear[number] += 1.0 / n
                if i == start[row]:
                    first[number] += 1
            source = number
        steps[source, goal if converted[row] else null] += 1
        if converted[row]:
            if n:
                last[source] += 1
            else:
                untouched += 1
    return steps, customers, first, last, linear, untouched

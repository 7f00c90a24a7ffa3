"""Compiled passes of the journey map: counts of touchpoints, transitions, steps, stages, cohorts; medians of groups.

All are serial, `nogil` and cached. They walk over the events `start:stop` of chosen customers; a code of -1 (missing)
is taken as one past the last name. All counts of parts of the customers add up to those of the whole.
"""

from __future__ import annotations

import numpy as np
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared

DENSE_CELLS = 1 << 20  # up to which a pair of touchpoints is looked up in a table of all pairs
MIX = np.uint64(0x9E3779B97F4A7C15)
STEP_A, STEP_B, HALF = np.uint64(6364136223846793005), np.uint64(1442695040888963407), np.uint64(32)


@njit(cache=True, nogil=True)
def count_codes(codes, start, stop, n_names):  # type: ignore[no-untyped-def]
    """(n_names + 1,) events of each code, missing ones last."""
    counts = np.zeros(n_names + 1, np.int64)
    for row in range(len(start)):
        for i in range(start[row], stop[row]):
            code = codes[i]
            counts[code if code >= 0 else n_names] += 1
    return counts


@njit(cache=True, nogil=True)
def count_crossed(codes, crossed, start, stop, n_names, n_crossed):  # type: ignore[no-untyped-def]
    """(n_names + 1, n_others) events of each code and other code; a missing other code does not count."""
    counts = np.zeros((n_names + 1, n_crossed), np.int64)
    for row in range(len(start)):
        for i in range(start[row], stop[row]):
            if crossed[i] >= 0:
                code = codes[i]
                counts[code if code >= 0 else n_names, crossed[i]] += 1
    return counts


@njit(cache=True, nogil=True)
def goal_places(codes, matches, start, stop):  # type: ignore[no-untyped-def]
    """(n,) the places of each customer's first and last matching event, -1 for none; `matches[-1]` is False."""
    first, last = np.full(len(start), -1, np.int64), np.full(len(start), -1, np.int64)
    for row in range(len(start)):
        for i in range(start[row], stop[row]):
            if matches[codes[i]]:
                if first[row] < 0:
                    first[row] = i
                last[row] = i
    return first, last


@njit(inline="always")
def _slot(key, slots, keys):  # type: ignore[no-untyped-def]
    """The slot that holds the key, or the free one where it belongs."""
    mask = np.uint64(len(slots) - 1)
    h = np.uint64(key) * MIX
    slot = (h ^ (h >> np.uint64(32))) & mask
    while slots[slot] >= 0 and keys[slots[slot]] != key:
        slot = (slot + np.uint64(1)) & mask
    return slot


@njit(cache=True, nogil=True)
def _larger(slots, keys, n_pairs):  # type: ignore[no-untyped-def]
    """A table four times as large with the same pairs."""
    more = np.full(4 * len(slots), -1, np.int32)
    for pair in range(n_pairs):
        more[_slot(keys[pair], more, keys)] = pair
    return more


@njit(cache=True, nogil=True)
def _doubled(values):  # type: ignore[no-untyped-def]
    more = np.zeros(2 * len(values), values.dtype)
    more[: len(values)] = values
    return more


@njit(cache=True, nogil=True)
def count_pairs(codes, start, stop, n_names, pair_of):  # type: ignore[no-untyped-def]
    """Count the steps from one touchpoint to the next, from the start, and to the end.

    Of the arguments:
        n_names: missing is number `n_names`, start `n_names + 1`, end `n_names + 2`.
        pair_of: (events,) int32 out, the pair that begins with each event, in the order of the walk.

    Returns:
        keys (source * (n_names + 3) + target), counts, customers, each (pairs,), in order of first appearance.
    """
    wide = n_names + 3
    dense = wide * wide <= DENSE_CELLS
    slots = np.full(wide * wide if dense else 1 << 16, -1, np.int32)
    keys, counts = np.zeros(1024, np.int64), np.zeros(1024, np.int64)
    customers, latest = np.zeros(1024, np.int64), np.full(1024, -1, np.int64)
    n_pairs, at = 0, 0
    for row in range(len(start)):
        source = n_names + 1
        for i in range(start[row], stop[row] + 1):
            target = n_names + 2
            if i < stop[row]:
                target = codes[i] if codes[i] >= 0 else n_names
            key = source * wide + target
            slot = np.uint64(key) if dense else _slot(key, slots, keys)
            pair = slots[slot]
            if pair < 0:
                pair = n_pairs
                slots[slot], keys[pair], latest[pair] = pair, key, -1
                n_pairs += 1
                if n_pairs == len(keys):
                    keys, counts, customers, latest = (
                        _doubled(keys),
                        _doubled(counts),
                        _doubled(customers),
                        _doubled(latest),
                    )
                if not dense and 2 * n_pairs > len(slots):
                    slots = _larger(slots, keys, n_pairs)
            counts[pair] += 1
            if latest[pair] != row:
                latest[pair] = row
                customers[pair] += 1
            if source != n_names + 1:
                pair_of[at] = pair
                at += 1
            source = target
    return keys[:n_pairs].copy(), counts[:n_pairs].copy(), customers[:n_pairs].copy()


@njit(cache=True, nogil=True)
def gaps_by_pair(t, start, stop, pair_of, begins, gaps):  # type: ignore[no-untyped-def]
    """Write the µs from each event to the next into `gaps`, pair by pair; `begins` (pairs,) is used up."""
    at = 0
    for row in range(len(start)):
        for i in range(start[row], stop[row] - 1):
            pair = pair_of[at]
            gaps[begins[pair]] = t[i + 1] - t[i]
            begins[pair] += 1
            at += 1
        at += 1  # the pair that ends the journey has no gap


@njit(cache=True, nogil=True)
def count_steps(codes, start, stop, table, places, links):  # type: ignore[no-untyped-def]
    """Count where customers are at each of their first steps, and from where to where they go.

    Of the arguments:
        table: (n_names + 1,) code → number below `end`; `end` is the last row.
        places: (steps, end + 1) int64 out, customers at each step; those whose journey is over at `end`.
        links: (links, end + 1, end + 1) int64 out, customers between step k and k + 1.
    """
    steps, end = places.shape[0], places.shape[1] - 1
    for row in range(len(start)):
        n = stop[row] - start[row]
        before = -1
        for step in range(steps):
            number = end if step >= n else table[codes[start[row] + step]]
            places[step, number] += 1
            if 0 < step <= links.shape[0] and before != end:
                links[step - 1, before, number] += 1
            before = number


@njit(cache=True, nogil=True)
def reach_stages(codes, table, t, start, stop, moments):  # type: ignore[no-untyped-def]
    """When each customer reaches the funnel's stages one after the other; stays as given where they do not.

    Of the arguments:
        codes: (n_events,) of stages or touchpoints. table: code → place of the stage, -1 for none; last for missing.
        moments: (n, stages) int64 out, µs.
    """
    stages = moments.shape[1]
    for row in range(len(start)):
        reached = 0
        for i in range(start[row], stop[row]):
            if table[codes[i]] == reached:
                moments[row, reached] = t[i]
                reached += 1
                if reached == stages:
                    break


@njit(cache=True, nogil=True)
def first_meetings(codes, table, start, stop, places):  # type: ignore[no-untyped-def]
    """The number of the event where each customer first meets each stage, into `places` (n, stages) int32."""
    for row in range(len(start)):
        for i in range(start[row], stop[row]):
            stage = table[codes[i]]
            if stage >= 0 and places[row, stage] < 0:
                places[row, stage] = i - start[row]


@njit(cache=True, nogil=True)
def count_cohorts(t, first_ever, start, stop, edges, sizes, active):  # type: ignore[no-untyped-def]
    """Count who of each cohort has an event in each period.

    Of the arguments:
        born: (n,) int64 µs, when each customer was first seen.
        edges: (periods + 1,) int64 µs, rising; every event lies inside.
        sizes: (periods,) int64 out. active: (periods, periods) int64 out, cohort × period.
    """
    for row in range(len(start)):
        cohort = np.searchsorted(edges, first_ever[row], side="right") - 1
        sizes[cohort] += 1
        period, until = -1, t[start[row]]
        for i in range(start[row], stop[row]):
            if t[i] >= until:
                period = np.searchsorted(edges, t[i], side="right") - 1
                until = edges[period + 1]
                active[cohort, period] += 1

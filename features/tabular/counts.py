"""Counts, sums of value and recencies by window and code: the volume, value, recency and trend groups.

Windows are nested and end at the cutoff. Events are walked from the newest window to the oldest, so the running
count at a window's edge is the window's count: no event is looked at twice, whatever the number of windows.

A kernel writes its features to `row[at:]` and returns where the next one starts; `features.tabular.catalogue` names
them in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from features.tabular.plan import (
    BASE,
    BEFORE_LAST,
    COUNT,
    DAYS,
    FIRST,
    HAS_VALUE,
    LAST,
    N_CODES,
    N_COLUMNS,
    N_WINDOWS,
    SIZE,
    TOUCHPOINT,
    TREND_WINDOW,
    VALUE,
    kernel,
)

Array = Any  # numba knows the types; see the shapes beside the arguments


@kernel
def window_edges(edges: Array, ticks: Array, n: int, windows: Array, times: int, cutoff: int) -> None:
    """The first event inside each window, made `times` as long; the last edge is 0: all time.

    A walk back, not a search: its branches are foreseen but for one a window.
    """
    low = n
    for w in range(len(windows)):
        since = cutoff - times * windows[w]
        while low > 0 and ticks[low - 1] >= since:
            low -= 1
        edges[w] = low
    edges[len(windows)] = 0


@kernel
def first_at_or_after(ticks: Array, stop: int, moment: int) -> int:
    """Binary search in `ticks[:stop]`."""
    low, high = 0, stop
    while low < high:
        middle = (low + high) >> 1
        if ticks[middle] < moment:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def tally(seen: Array, plan: Array, codes: Array, ticks: Array, n: int) -> None:
    """How often, first, last and before last, for each code: (4, N_CODES)."""
    for c in range(plan[N_CODES]):
        seen[COUNT, c] = 0.0
        seen[FIRST, c] = seen[LAST, c] = seen[BEFORE_LAST, c] = np.nan
    for column in range(N_COLUMNS):
        if plan[SIZE + column] > 0:
            for i in range(n):
                code = codes[column, i]
                seen[BEFORE_LAST, code] = seen[LAST, code]
                seen[LAST, code] = ticks[i]
                seen[COUNT, code] += 1.0
            for i in range(n - 1, -1, -1):
                seen[FIRST, codes[column, i]] = ticks[i]


@kernel
def last_of_each(seen: Array, plan: Array, codes: Array, ticks: Array, n: int) -> None:
    """The part of `tally` that recency needs."""
    for c in range(plan[N_CODES]):
        seen[LAST, c] = np.nan
    for column in range(N_COLUMNS):
        if plan[SIZE + column] > 0:
            for i in range(n):
                seen[LAST, codes[column, i]] = ticks[i]


@kernel
def sum_from(value_from: Array, numbers: Array, n: int) -> None:
    """`value_from[i]`: the value of event `i` and all later ones; newest first, so each window is one of them."""
    total = 0.0
    value_from[n] = 0.0
    for i in range(n - 1, -1, -1):
        value = numbers[VALUE, i]
        total += value if value == value else 0.0
        value_from[i] = total


@kernel
def volume(
    row: Array, at: int, plan: Array, edges: Array, codes: Array, value_from: Array, n: int, cells: Array
) -> int:
    """Events by window and code, then all events and their value by window."""
    n_codes, n_edges = plan[N_CODES], plan[N_WINDOWS] + 1
    for c in range(n_codes):
        cells[c] = 0.0
    high = n
    for w in range(n_edges):
        low = edges[w]
        for column in range(N_COLUMNS):
            if plan[SIZE + column] > 0:
                for i in range(low, high):
                    cells[codes[column, i]] += 1.0
        high = low
        for c in range(n_codes):
            row[at + c] = cells[c]
        at += n_codes
    for w in range(n_edges):
        row[at + w] = n - edges[w]
    at += n_edges
    if plan[HAS_VALUE]:
        for w in range(n_edges):
            row[at + w] = value_from[edges[w]]
        at += n_edges
    return at


@kernel
def value_of_codes(
    row: Array, at: int, plan: Array, edges: Array, value_windows: Array, codes: Array, numbers: Array, n: int,
    cells: Array,
) -> int:  # fmt: skip
    """Sum of value by code, in those windows that `value_windows` lists (ascending indices of edges)."""
    n_codes = plan[N_CODES]
    for c in range(n_codes):
        cells[c] = 0.0
    high = n
    for w in value_windows:
        for i in range(high - 1, edges[w] - 1, -1):
            value = numbers[VALUE, i]
            if value == value:
                for column in range(N_COLUMNS):
                    if plan[SIZE + column] > 0:
                        cells[codes[column, i]] += value
        high = edges[w]
        for c in range(n_codes):
            row[at + c] = cells[c]
        at += n_codes
    return at


@kernel
def recency(row: Array, at: int, plan: Array, seen: Array, ticks: Array, n: int, cutoff: int) -> int:
    """Days since the last event, and since the last of each code."""
    n_codes, moment = plan[N_CODES], float(cutoff)
    row[at] = (cutoff - ticks[n - 1]) * DAYS if n > 0 else np.nan
    at += 1
    for c in range(n_codes):
        row[at + c] = (moment - seen[LAST, c]) * DAYS
    at += n_codes
    return at


@kernel
def trend(
    row: Array, at: int, plan: Array, edges: Array, earlier: Array, seen: Array, codes: Array, value_from: Array,
    ticks: Array, n: int, cutoff: int, cells: Array,
) -> int:  # fmt: skip
    """Recent against earlier: each window in the next longer one, against the one before it, and by touchpoint."""
    n_windows = plan[N_WINDOWS]
    for w in range(n_windows):
        wider = n - edges[w + 1]
        row[at] = (n - edges[w]) / wider if wider > 0 else np.nan
        row[at + 1] = np.log((n - edges[w] + 1.0) / (edges[w] - earlier[w] + 1.0))
        at += 2
    if plan[HAS_VALUE]:
        for w in range(n_windows):
            recent, wider_value = value_from[edges[w]], value_from[edges[w + 1]]
            row[at] = recent / wider_value if wider_value > 0.0 else np.nan
            row[at + 1] = recent - (value_from[earlier[w]] - recent)
            at += 2
    half = cutoff - (cutoff - ticks[0]) // 2 if n > 0 else cutoff
    row[at] = (n - first_at_or_after(ticks, n, half)) / n if n > 0 else np.nan
    at += 1
    size, base = plan[SIZE + TOUCHPOINT], plan[BASE + TOUCHPOINT]
    for c in range(size):
        cells[c] = 0.0
    for i in range(edges[plan[TREND_WINDOW]], n):
        cells[codes[TOUCHPOINT, i] - base] += 1.0
    for c in range(size):
        count = seen[COUNT, base + c]
        row[at + c] = cells[c] / count if count > 0.0 else np.nan
    at += size
    return at

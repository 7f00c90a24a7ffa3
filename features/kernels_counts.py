"""Counts, sums of value and recencies by window and code: the volume, value, recency and trend groups.

Windows are nested and end at the cutoff. Events are walked from the newest window to the oldest, so the running
count at a window's edge is the window's count: no event is looked at twice, whatever the number of windows.

A kernel writes its features to `row[at:]` and returns where the next one starts; `features.tabular_catalogue` names
them in the same order.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from features.kernels_plan import (
    BASE,
    BEFORE_LAST,
    COUNT,
    DAY_US,
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
def window_edges(edges: Array, earlier: Array, ticks: Array, n: int, windows: Array, cutoff: int) -> None:
    """The first event inside each window, and inside one twice as long; the last edge is 0: all time."""
    low, low_earlier = n, n
    for w in range(len(windows)):
        low = first_at_or_after(ticks, low, cutoff - windows[w])
        edges[w] = low
        low_earlier = first_at_or_after(ticks, min(low_earlier, low), cutoff - 2 * windows[w])
        earlier[w] = low_earlier
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
def volume(row: Array, at: int, plan: Array, edges: Array, codes: Array, numbers: Array, n: int, cells: Array) -> int:
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
        at = value_by_window(row, at, edges, n_edges, numbers, n)
    return at


@kernel
def value_by_window(row: Array, at: int, edges: Array, n_edges: int, numbers: Array, n: int) -> int:
    """Sum of value in each window."""
    high, total = n, 0.0
    for w in range(n_edges):
        for i in range(edges[w], high):
            value = numbers[VALUE, i]
            if value == value:
                total += value
        high = edges[w]
        row[at + w] = total
    return at + n_edges


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
        low = edges[w]
        for column in range(N_COLUMNS):
            if plan[SIZE + column] > 0:
                for i in range(low, high):
                    value = numbers[VALUE, i]
                    if value == value:
                        cells[codes[column, i]] += value
        high = low
        for c in range(n_codes):
            row[at + c] = cells[c]
        at += n_codes
    return at


@kernel
def recency(row: Array, at: int, plan: Array, seen: Array, ticks: Array, n: int, cutoff: int) -> int:
    """Days since the last event, and since the last of each code."""
    row[at] = (cutoff - ticks[n - 1]) / DAY_US if n > 0 else np.nan
    at += 1
    for c in range(plan[N_CODES]):
        row[at + c] = (cutoff - seen[LAST, c]) / DAY_US
    return at + plan[N_CODES]


@kernel
def trend(
    row: Array, at: int, plan: Array, edges: Array, earlier: Array, seen: Array, codes: Array, numbers: Array,
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
            recent = sum_of(numbers, edges[w], n)
            wider_value = sum_of(numbers, edges[w + 1], n)
            row[at] = recent / wider_value if wider_value > 0.0 else np.nan
            row[at + 1] = recent - sum_of(numbers, earlier[w], edges[w])
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
    return at + size


@kernel
def sum_of(numbers: Array, start: int, stop: int) -> float:
    """The value of events `start:stop`."""
    total = 0.0
    for i in range(start, stop):
        value = numbers[VALUE, i]
        if value == value:
            total += value
    return total

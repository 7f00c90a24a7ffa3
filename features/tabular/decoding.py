"""What several groups read of a snapshot, computed once: columns, window edges, visits, days, counts of codes."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.tabular.plan import (
    BEFORE_LAST,
    COUNT,
    DAY_US,
    FIRST,
    LAST,
    N_CODES,
    N_COLUMNS,
    SESSION_GAP_US,
    SIZE,
    VALUE,
    kernel,
)

Array = Any  # numba knows the types; see the shapes in `features.tabular.group.Workspace`


@kernel
def decode_column(
    codes: Array, line: int, column: Array, start: int, n: int, lut: Array, offset: int
) -> None:  # fmt: skip
    """The log's own codes into the model's; a column that the log lacks is missing throughout."""
    if len(column) == 0:
        for i in range(n):
            codes[line, i] = lut[offset]
    else:
        for i in range(n):
            codes[line, i] = lut[np.uint64(offset + 1 + column[start + i])]


@kernel
def decode_numbers(numbers: Array, line: int, column: Array, start: int, n: int) -> None:
    """Copy a numeric column; NaN where the log lacks it."""
    if len(column) == 0:
        for i in range(n):
            numbers[line, i] = np.nan
    else:
        for i in range(n):
            numbers[line, i] = column[start + i]


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
def tally(occurrences: Array, plan: Array, codes: Array, ticks: Array, n: int) -> None:
    """How often, first, last and before last, for each code: (4, N_CODES)."""
    for c in range(plan[N_CODES]):
        occurrences[COUNT, c] = 0.0
        occurrences[FIRST, c] = occurrences[LAST, c] = occurrences[BEFORE_LAST, c] = np.nan
    for column in range(N_COLUMNS):
        if plan[SIZE + column] > 0:
            for i in range(n):
                code = codes[column, i]
                occurrences[BEFORE_LAST, code] = occurrences[LAST, code]
                occurrences[LAST, code] = ticks[i]
                occurrences[COUNT, code] += 1.0
            for i in range(n - 1, -1, -1):
                occurrences[FIRST, codes[column, i]] = ticks[i]


@kernel
def last_of_each(occurrences: Array, plan: Array, codes: Array, ticks: Array, n: int) -> None:
    """The part of `tally` that recency needs."""
    for c in range(plan[N_CODES]):
        occurrences[LAST, c] = np.nan
    for column in range(N_COLUMNS):
        if plan[SIZE + column] > 0:
            for i in range(n):
                occurrences[LAST, codes[column, i]] = ticks[i]


@kernel
def split_visits(visits: Array, plan: Array, ticks: Array, n: int) -> int:
    """Write where each visit starts, and `n` after the last; the number of visits."""
    if n == 0:
        visits[0] = 0
        return 0
    m, gap = 1, plan[SESSION_GAP_US]
    visits[0] = 0
    for i in range(1, n):
        if ticks[i] - ticks[i - 1] > gap:
            visits[m] = i
            m += 1
    visits[m] = n
    return m


@kernel
def active_days(days: Array, day_starts: Array, ticks: Array, n: int) -> int:
    """Write each day that has events, and its first event; `n` after the last; the number of days."""
    d = 0
    midnight = ticks[0] if n > 0 else 0
    for i in range(n):
        if ticks[i] >= midnight:
            days[d] = ticks[i] // DAY_US
            day_starts[d] = i
            midnight = (days[d] + 1) * DAY_US
            d += 1
    day_starts[d] = n
    return d

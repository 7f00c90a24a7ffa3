"""All subjects, snapshot by snapshot: the one compiled function that training, services and clusters call.

A snapshot's events are decoded once into scratch that stays in the processor's nearest memory, and every subject
reads them there. The function releases the interpreter's lock and shares nothing, so threads may call it side by
side; a batch of one runs the same instructions as a batch of many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared
from features.tabular.basket import returns, rfm
from features.tabular.calendar import calendar
from features.tabular.counts import last_of_each, recency, sum_from, tally, trend, value_of_codes, volume, window_edges
from features.tabular.firsts import order, touch, transitions
from features.tabular.items import table_bits, variety
from features.tabular.plan import (
    ACTIVE_DAYS,
    CALENDAR_GROUP,
    DAY_RHYTHM_GROUP,
    DURATION,
    FIRST_PROPERTY,
    HAS_DURATION,
    HAS_SATISFACTION,
    HAS_VALUE,
    N_CODES,
    N_PAIRS,
    N_PROPERTIES,
    N_PROPERTY_TOUCHPOINTS,
    N_UNITS,
    N_WINDOWS,
    NO_ITEM,
    OPEN_WORK_GROUP,
    ORDER_GROUP,
    PROFILE_GROUP,
    PROPERTIES_GROUP,
    RAW_ITEM,
    RECENCY_GROUP,
    RETURNS_GROUP,
    RFM_GROUP,
    RHYTHM_GROUP,
    SATISFACTION,
    SATISFACTION_GROUP,
    SESSIONS_GROUP,
    SIZE,
    SIZES_OF_PROPERTIES,
    TALLY,
    TENURE_GROUP,
    TOUCH_GROUP,
    TRANSITIONS_GROUP,
    TREND_GROUP,
    VALUE,
    VALUE_GROUP,
    VARIETY_GROUP,
    VISITS,
    VOLUME_GROUP,
    WORK,
    kernel,
)
from features.tabular.properties import profile, properties
from features.tabular.rhythm import active_days, day_rhythm, sessions, split_visits, tenure, visit_rhythm
from features.tabular.satisfaction import satisfaction
from features.tabular.work import open_work

Array = Any
SUBJECTS = (
    "plan", "counts", "basket", "rhythm", "items", "calendar", "satisfaction", "firsts", "work", "properties", "rows",
)  # fmt: skip


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
def decode_properties(
    codes: Array, plan: Array, columns: Array, start: int, n: int, lut: Array, lut_start: Array
) -> None:  # fmt: skip
    """The rows of the properties."""
    for p in range(plan[N_PROPERTIES]):
        for i in range(n):
            codes[FIRST_PROPERTY + p, i] = lut[lut_start[5 + p] + 1 + columns[p, start + i]]


@kernel
def decode_items(codes: Array, item: Array, start: int, n: int) -> None:
    """The log's own item codes."""
    for i in range(n):
        codes[RAW_ITEM, i] = NO_ITEM if len(item) == 0 or item[start + i] < 0 else item[start + i]


@kernel
def scratch_cells(plan: Array) -> Any:
    """The most cells that any subject counts in."""
    most = max(plan[N_CODES], plan[N_PAIRS] * plan[N_PAIRS], 16)
    for p in range(plan[N_PROPERTIES]):
        most = max(most, plan[SIZES_OF_PROPERTIES + p] + plan[N_PROPERTY_TOUCHPOINTS])
    return most


def _stamp() -> int:
    """A number that changes with any kernel's source."""
    digest = hashlib.sha256()
    for subject in SUBJECTS:
        digest.update((Path(__file__).parent / f"{subject}.py").read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _compiled(stamp: int) -> Callable[..., int]:
    """The driver. Numba's disk cache sees changes of this file alone; `stamp` makes it see those of all kernels."""

    @njit(nogil=True, error_model="numpy", cache=True)
    def fill(
        out: Array,  # (n, f) float32, written
        keep: Array,  # (f,) uint64: which of all columns are kept
        bounds: Array,  # (n, 3) int64: start, stop, cutoff
        plan: Array,  # see `kernels_plan`
        windows: Array,  # (w,) int64 µs, ascending
        value_windows: Array,  # indices of windows, w for all time
        bad: float,  # satisfaction of at most this is bad
        lut: Array,  # int32: for each categorical column, the model's code of missing, then of each local code
        lut_start: Array,  # where a column's part of `lut` starts: touchpoint, channel, stage, item, work, extras
        t: Array,  # (n_events,) int64 µs
        touchpoint: Array,  # (n_events,) int32, and so on; no rows where the log lacks the column
        channel: Array,
        stage: Array,
        item: Array,
        extras: Array,  # (n_properties + n_profile, n_events) int32
        value: Array,
        duration: Array,
        satisfied: Array,
        profile_numbers: Array,  # (n_profile_numbers, n_events) float64
        width: int,  # how many columns there are before `keep`
    ) -> int:
        if stamp < 0:
            return -1
        longest = 1
        for r in range(len(bounds)):
            longest = max(longest, bounds[r, 1] - bounds[r, 0])
        ticks = np.empty(longest, np.int64)
        codes = np.empty((FIRST_PROPERTY + plan[N_PROPERTIES], longest), np.uint32)
        numbers = np.empty((3, longest), np.float64)
        value_from = np.empty(longest + 1, np.float64)
        visits = np.empty(longest + 1, np.int64)
        days = np.empty(longest, np.int64)
        day_starts = np.empty(longest + 1, np.int64)
        gaps = np.empty(longest, np.float64)
        ranked = np.empty(longest, np.float64)
        table = np.empty((6, 1 << table_bits(longest if plan[VARIETY_GROUP] else 1)), np.int64)
        edges = np.zeros(plan[N_WINDOWS] + 1, np.int64)
        earlier = np.zeros(plan[N_WINDOWS] + 1, np.int64)
        seen = np.empty((4, plan[N_CODES]), np.float64)
        cells = np.empty(scratch_cells(plan), np.float64)
        units = np.empty((7, max(plan[N_UNITS], 1)), np.float64)
        row = np.empty(width, np.float32)
        at = 0
        for r in range(len(bounds)):
            start, stop, cutoff = bounds[r, 0], bounds[r, 1], bounds[r, 2]
            n = stop - start
            for i in range(n):
                ticks[i] = t[start + i]
            decode_column(codes, 0, touchpoint, start, n, lut, lut_start[0])
            if plan[SIZE + 1] > 0:
                decode_column(codes, 1, channel, start, n, lut, lut_start[1])
            if plan[SIZE + 2] > 0:
                decode_column(codes, 2, stage, start, n, lut, lut_start[2])
            if plan[SIZE + 3] > 0:
                decode_column(codes, 3, item, start, n, lut, lut_start[3])
            if plan[HAS_VALUE]:
                decode_numbers(numbers, VALUE, value, start, n)
                sum_from(value_from, numbers, n)
            window_edges(edges, ticks, n, windows, 1, cutoff)
            if plan[TALLY] == 2:
                tally(seen, plan, codes, ticks, n)
            elif plan[TALLY] == 1:
                last_of_each(seen, plan, codes, ticks, n)
            m = n_days = 0
            if plan[VISITS]:
                m = split_visits(visits, plan, ticks, n)
            if plan[ACTIVE_DAYS]:
                n_days = active_days(days, day_starts, ticks, n)
            at = 0
            if plan[VOLUME_GROUP]:
                at = volume(row, at, plan, edges, codes, value_from, n, cells)
            if plan[VALUE_GROUP]:
                at = value_of_codes(row, at, plan, edges, value_windows, codes, numbers, n, cells)
            if plan[RECENCY_GROUP]:
                at = recency(row, at, plan, seen, ticks, n, cutoff)
            if plan[TREND_GROUP]:
                window_edges(earlier, ticks, n, windows, 2, cutoff)
                at = trend(row, at, plan, edges, earlier, seen, codes, value_from, ticks, n, cutoff, cells)
            if plan[RFM_GROUP]:
                at = rfm(row, at, plan, edges, visits, m, ticks, numbers, n, cutoff, gaps, ranked)
            if plan[RHYTHM_GROUP]:
                at = visit_rhythm(row, at, visits, m, ticks, n, cutoff, gaps, ranked)
            if plan[DAY_RHYTHM_GROUP]:
                at = day_rhythm(row, at, days, n_days, cutoff, gaps, ranked)
            if plan[SESSIONS_GROUP]:
                if plan[HAS_DURATION]:
                    decode_numbers(numbers, DURATION, duration, start, n)
                at = sessions(row, at, plan, edges, visits, m, ticks, numbers, n, cutoff)
            if plan[TENURE_GROUP]:
                at = tenure(row, at, plan, edges, days, day_starts, n_days, ticks, n, cutoff)
            if plan[VARIETY_GROUP]:
                decode_items(codes, item, start, n)
                at = variety(row, at, plan, edges, seen, codes, visits, m, n, table)
            if plan[RETURNS_GROUP]:
                at = returns(row, at, plan, edges, visits, m, ticks, numbers, n, cutoff)
            if plan[CALENDAR_GROUP]:
                at = calendar(row, at, days, day_starts, n_days, ticks, n, cutoff, cells)
            if plan[SATISFACTION_GROUP] and plan[HAS_SATISFACTION]:
                decode_numbers(numbers, SATISFACTION, satisfied, start, n)
                at = satisfaction(row, at, plan, edges, bad, ticks, numbers, n, cutoff, gaps)
            if plan[TOUCH_GROUP]:
                at = touch(row, at, plan, seen, codes, visits, m, ticks, n, cutoff)
            if plan[ORDER_GROUP]:
                at = order(row, at, plan, seen, codes, ticks, n, cutoff)
            if plan[TRANSITIONS_GROUP]:
                at = transitions(row, at, plan, codes, n, cells)
            if plan[OPEN_WORK_GROUP]:
                decode_column(codes, WORK, touchpoint, start, n, lut, lut_start[4])
                at = open_work(row, at, plan, codes, ticks, n, cutoff, units)
            if plan[PROPERTIES_GROUP]:
                decode_properties(codes, plan, extras, start, n, lut, lut_start)
                at = properties(row, at, plan, codes, ticks, n, cutoff, cells)
            if plan[PROFILE_GROUP]:
                at = profile(row, at, plan, lut, lut_start, extras, profile_numbers, start, stop)
            for f in range(len(keep)):
                out[r, f] = row[keep[f]]
        return at

    return fill


fill_rows = _compiled(_stamp())

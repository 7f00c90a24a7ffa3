"""Counts, sums of value and recencies by window and code: the volume, value, recency and trend groups.

Windows are nested and end at the cutoff. Events are walked from the newest window to the oldest, so the running
count at a window's edge is the window's count: no event is looked at twice, whatever the number of windows.

A kernel writes its features to `row[at:]` and returns where the next one starts; its group names
them in the same order.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np

from features.tabular.decoding import window_edges
from features.tabular.group import Column, FeatureGroup, Names, OneSnapshot, Workspace
from features.tabular.plan import (
    BASE,
    COUNT,
    DAYS,
    HAS_VALUE,
    LAST,
    N_CODES,
    N_COLUMNS,
    N_WINDOWS,
    SIZE,
    TOUCHPOINT,
    TREND_WINDOW,
    VALUE,
    group_kernel,
    kernel,
)

Array = Any  # numba knows the types; see the shapes beside the arguments


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
def recency(row: Array, at: int, plan: Array, occurrences: Array, ticks: Array, n: int, cutoff: int) -> int:
    """Days since the last event, and since the last of each code."""
    n_codes, moment = plan[N_CODES], float(cutoff)
    row[at] = (cutoff - ticks[n - 1]) * DAYS if n > 0 else np.nan
    at += 1
    for c in range(n_codes):
        row[at + c] = (moment - occurrences[LAST, c]) * DAYS
    at += n_codes
    return at


@kernel
def trend(
    row: Array, at: int, plan: Array, edges: Array, earlier: Array, occurrences: Array, codes: Array, value_from: Array,
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
        count = occurrences[COUNT, base + c]
        row[at + c] = cells[c] / count if count > 0.0 else np.nan
    at += size
    return at


def _volume_columns(names: Names) -> Iterator[Column]:
    for label, text in names.windows:
        for code, subject in names.codes:
            yield f"{code}.count_{label}", f"events with {subject} {text}"
    for label, text in names.windows:
        yield f"events_{label}", f"events {text}"
    if names.has("value"):
        for label, text in names.windows:
            yield f"value_{label}", f"sum of value {text}"


@group_kernel
def _write_volume(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return volume(row, at, w.plan, w.edges, w.codes, w.value_from, s.n, w.cells)


VOLUME_GROUP = FeatureGroup("volume", _volume_columns, _write_volume)


def _value_columns(names: Names) -> Iterator[Column]:
    for label, text in names.value_windows:
        for code, subject in names.codes:
            yield f"{code}.value_{label}", f"sum of value of events with {subject} {text}"


@group_kernel
def _write_value(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return value_of_codes(row, at, w.plan, w.edges, w.value_windows, w.codes, w.numbers, s.n, w.cells)


VALUE_GROUP = FeatureGroup("value", _value_columns, _write_value, available=lambda learned: "value" in learned.has)


def _recency_columns(names: Names) -> Iterator[Column]:
    yield "recency_days", "days since the last event"
    for code, subject in names.codes:
        yield f"{code}.recency_days", f"days since the last event with {subject}"


@group_kernel
def _write_recency(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return recency(row, at, w.plan, w.occurrences, w.ticks, s.n, s.cutoff)


RECENCY_GROUP = FeatureGroup("recency", _recency_columns, _write_recency, needs=("last_times",))


def _trend_columns(names: Names) -> Iterator[Column]:
    windows = names.windows
    for (label, text), (wider, wider_text) in pairwise(windows):
        yield f"events_share_{label}_of_{wider}", f"share of the events {wider_text} that came {text}"
        yield f"events_growth_{label}", f"log of events {text} against as long a time before"
    if names.has("value"):
        for (label, text), (wider, wider_text) in pairwise(windows):
            yield f"value_share_{label}_of_{wider}", f"share of the value {wider_text} that came {text}"
            yield f"value_change_{label}", f"value {text} less that of as long a time before"
    yield "events_share_second_half", "share of events in the later half of the time since the first"
    trend = f"{names.widths.trend_window_days:g}d"
    for code, subject in names.values("touchpoint"):
        yield f"{code}.recent_share_{trend}", f"share of events with {subject} that came in the last {trend[:-1]} days"


@group_kernel
def _write_trend(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    window_edges(w.earlier, w.ticks, s.n, w.windows, 2, s.cutoff)
    return trend(
        row, at, w.plan, w.edges, w.earlier, w.occurrences, w.codes, w.value_from, w.ticks, s.n, s.cutoff, w.cells
    )


TREND_GROUP = FeatureGroup("trend", _trend_columns, _write_trend, needs=("tally",))

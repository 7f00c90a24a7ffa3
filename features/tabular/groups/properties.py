"""Who handled it, which campaign, which country: the properties and profile groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from features.tabular.group import Column, FeatureGroup, Names, OneSnapshot, Workspace
from features.tabular.plan import (
    BASE,
    DAYS,
    FIRST_PROPERTY,
    N_PROFILE,
    N_PROFILE_NUMBERS,
    N_PROPERTIES,
    N_PROPERTY_SHARES,
    N_PROPERTY_TOUCHPOINTS,
    SIZE,
    SIZES_OF_PROPERTIES,
    TOUCHPOINT,
    group_kernel,
    kernel,
)

Array = Any


@kernel
def properties(
    row: Array, at: int, plan: Array, codes: Array, ticks: Array, n: int, cutoff: int, cells: Array
) -> int:  # fmt: skip
    """Each categorical property of events: last and first value, changes, shares, the value at each touchpoint."""
    for p in range(plan[N_PROPERTIES]):
        size = plan[SIZES_OF_PROPERTIES + p]
        at = describe_property(row, at, plan, FIRST_PROPERTY + p, size, codes, ticks, n, cutoff, cells)
    return at


@kernel
def describe_property(
    row: Array, at: int, plan: Array, line: int, size: int, codes: Array, ticks: Array, n: int, cutoff: int,
    cells: Array,
) -> int:  # fmt: skip
    """`size` codes, the last one for missing; the last one but one for other."""
    shares = min(plan[N_PROPERTY_SHARES], size - 2)
    touchpoints = min(plan[N_PROPERTY_TOUCHPOINTS], plan[SIZE + TOUCHPOINT] - 1)
    base, missing = plan[BASE + TOUCHPOINT], size - 1
    at_touchpoint = size  # in `cells`, after the counts
    for c in range(size):
        cells[c] = 0.0
    for c in range(touchpoints):
        cells[at_touchpoint + c] = np.nan
    first = last = np.nan
    changed, streak, changed_at = 0, 0, np.nan
    for i in range(n):
        code = np.int64(codes[line, i])
        cells[code] += 1.0
        if code != missing:
            if code != last:
                changed += last == last
                streak, changed_at = 0, float(ticks[i])
            first = first if first == first else float(code)
            last = float(code)
            streak += 1
            touchpoint = np.int64(codes[TOUCHPOINT, i]) - base
            if touchpoint < touchpoints:
                cells[at_touchpoint + touchpoint] = last
    distinct, most, n_valued = 0, 0.0, n - cells[missing]
    for c in range(missing):
        distinct += cells[c] > 0.0
        most = max(most, cells[c])
    row[at] = last
    row[at + 1] = first
    row[at + 2] = distinct
    row[at + 3] = changed
    row[at + 4] = streak
    row[at + 5] = (cutoff - changed_at) * DAYS
    row[at + 6] = most / n_valued if n_valued > 0.0 else np.nan
    row[at + 7] = cells[missing] / n if n > 0 else np.nan
    row[at + 8] = cells[missing - 1] / n_valued if n_valued > 0.0 else np.nan
    at += 9
    for c in range(shares):
        row[at + c] = cells[c] / n_valued if n_valued > 0.0 else np.nan
    at += shares
    for c in range(touchpoints):
        row[at + c] = cells[at_touchpoint + c]
    at += touchpoints
    return at


@kernel
def profile(
    row: Array, at: int, plan: Array, lut: Array, lut_start: Array, columns: Array, values: Array, start: int, stop: int
) -> int:
    """The last known value of each column; the look goes back from the cutoff and mostly ends at the first event.

    `columns` is (n_properties + n_profile, n_events) int32, the log's own codes, -1 missing; `values` is
    (n_profile_numbers, n_events) float64.
    """
    for p in range(plan[N_PROPERTIES], plan[N_PROPERTIES] + plan[N_PROFILE]):
        i = stop - 1
        while i >= start and columns[p, i] < 0:
            i -= 1
        row[at] = lut[lut_start[5 + p] + columns[p, i] + 1] if i >= start else np.nan
        at += 1
    for p in range(plan[N_PROFILE_NUMBERS]):
        i = stop - 1
        while i >= start and values[p, i] != values[p, i]:
            i -= 1
        row[at] = values[p, i] if i >= start else np.nan
        at += 1
    return at


@kernel
def decode_properties(
    codes: Array, plan: Array, columns: Array, start: int, n: int, lut: Array, lut_start: Array
) -> None:  # fmt: skip
    """The rows of the properties."""
    for p in range(plan[N_PROPERTIES]):
        for i in range(n):
            codes[FIRST_PROPERTY + p, i] = lut[lut_start[5 + p] + 1 + columns[p, start + i]]


def _properties_columns(names: Names) -> Iterator[Column]:
    touchpoints = names.values("touchpoint")[:-1][: names.widths.property_touchpoints]
    for column in names.learned.properties:
        yield f"{column}.last", f"last known {column}", True
        yield f"{column}.first", f"first known {column}", True
        yield f"{column}.distinct", f"different values of {column} (all others count as one)"
        yield f"{column}.changes", f"changes of {column}"
        yield f"{column}.streak", f"events since {column} last changed"
        yield f"{column}.changed_days", f"days since {column} last changed"
        yield f"{column}.top_share", f"share of the most frequent {column} of this customer"
        yield f"{column}.missing_share", f"share of events without {column}"
        yield f"{column}.other_share", f"share of events with a rare or unseen {column}"
        for value in names.learned.vocabularies[column][: names.widths.property_shares]:
            yield f"{column}.{value}.share", f"share of events with {column} '{value}'"
        for code, subject in touchpoints:
            yield f"{column}.at.{code.removeprefix('touchpoint.')}", f"{column} at the last {subject}", True


@group_kernel
def _write_properties(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    decode_properties(w.codes, w.plan, w.extras, s.start, s.n, w.lut, w.lut_start)
    return properties(row, at, w.plan, w.codes, w.ticks, s.n, s.cutoff, w.cells)


PROPERTIES_GROUP = FeatureGroup(
    "properties", _properties_columns, _write_properties, available=lambda learned: bool(learned.properties)
)


def _profile_columns(names: Names) -> Iterator[Column]:
    for column in names.learned.profile:
        yield f"profile.{column}", f"last known {column}", True
    for column in names.learned.profile_numbers:
        yield f"profile.{column}", f"last known {column}"


@group_kernel
def _write_profile(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return profile(row, at, w.plan, w.lut, w.lut_start, w.extras, w.profile_numbers, s.start, s.stop)


PROFILE_GROUP = FeatureGroup(
    "profile",
    _profile_columns,
    _write_profile,
    available=lambda learned: bool(learned.profile or learned.profile_numbers),
)

"""All groups, snapshot by snapshot: the one compiled function that training, services and clusters call.

A snapshot's events are decoded once into scratch that stays in the processor's nearest memory, and every group reads
them there. The function releases the interpreter's lock and shares nothing, so threads may call it side by side; a
batch of one runs the same instructions as a batch of many.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared
from features.tabular.catalogue import GROUPS
from features.tabular.decoding import (
    active_days,
    decode_column,
    decode_numbers,
    last_of_each,
    split_visits,
    sum_from,
    tally,
    window_edges,
)
from features.tabular.group import FeatureGroup, OneSnapshot, Workspace
from features.tabular.groups.items import table_bits
from features.tabular.plan import (
    ACTIVE_DAYS,
    FIRST_PROPERTY,
    HAS_VALUE,
    ITEM_TABLE,
    N_CODES,
    N_PAIRS,
    N_PROPERTIES,
    N_PROPERTY_TOUCHPOINTS,
    N_UNITS,
    N_WINDOWS,
    SIZE,
    SIZES_OF_PROPERTIES,
    TALLY,
    VALUE,
    VISITS,
    group_kernel,
    kernel,
)

Array = Any
FOLDER = Path(__file__).parent
SHARED = ("decoding", "group", "numerics", "plan", "rows")  # beside the groups, what the compiled code is made of


@kernel
def scratch_cells(plan: Array) -> Any:
    """The most cells that any group counts in."""
    most = max(plan[N_CODES], plan[N_PAIRS] * plan[N_PAIRS], 16)
    for p in range(plan[N_PROPERTIES]):
        most = max(most, plan[SIZES_OF_PROPERTIES + p] + plan[N_PROPERTY_TOUCHPOINTS])
    return most


def kernel_files() -> list[Path]:
    """The files of all kernels."""
    return [*(FOLDER / f"{name}.py" for name in SHARED), *sorted((FOLDER / "groups").glob("*.py"))]


def _stamp() -> int:
    """A number that changes with the source of any kernel, and with the list of groups."""
    digest = hashlib.sha256("|".join(group.name for group in GROUPS).encode())
    for file in kernel_files():
        digest.update(file.read_bytes())
    return int.from_bytes(digest.digest()[:7], "big")


def _chain(groups: list[FeatureGroup], first: int = 0) -> Any:
    """One function that calls the kernels of all groups that are on, in their order.

    Numba has no loop over different functions: each half of the list becomes a function that the next one calls, and
    all end up in one body. `first` is the place of the first group among all.
    """
    if len(groups) == 1:
        write_group = groups[0].kernel

        @group_kernel
        def write(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
            on = w.plan[SIZES_OF_PROPERTIES + w.plan[N_PROPERTIES] + first]
            return write_group(row, at, w, s) if on else at

        return write
    half = len(groups) // 2
    write_first, write_second = _chain(groups[:half], first), _chain(groups[half:], first + half)

    @group_kernel
    def write_both(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
        return write_second(row, write_first(row, at, w, s), w, s)

    return write_both


write_groups = _chain(GROUPS)


@kernel
def fill_each(
    out: Array, keep: Array, bounds: Array, row: Array, t: Array, channel: Array, stage: Array, value: Array,
    w: Workspace,
) -> int:  # fmt: skip
    """Decode each snapshot and hand it to all groups; returns how many columns they wrote."""
    at = 0
    for r in range(len(bounds)):
        start, stop, cutoff = bounds[r, 0], bounds[r, 1], bounds[r, 2]
        n = stop - start
        for i in range(n):
            w.ticks[i] = t[start + i]
        decode_column(w.codes, 0, w.touchpoint, start, n, w.lut, w.lut_start[0])
        if w.plan[SIZE + 1] > 0:
            decode_column(w.codes, 1, channel, start, n, w.lut, w.lut_start[1])
        if w.plan[SIZE + 2] > 0:
            decode_column(w.codes, 2, stage, start, n, w.lut, w.lut_start[2])
        if w.plan[SIZE + 3] > 0:
            decode_column(w.codes, 3, w.item, start, n, w.lut, w.lut_start[3])
        if w.plan[HAS_VALUE]:
            decode_numbers(w.numbers, VALUE, value, start, n)
            sum_from(w.value_from, w.numbers, n)
        window_edges(w.edges, w.ticks, n, w.windows, 1, cutoff)
        if w.plan[TALLY] == 2:
            tally(w.occurrences, w.plan, w.codes, w.ticks, n)
        elif w.plan[TALLY] == 1:
            last_of_each(w.occurrences, w.plan, w.codes, w.ticks, n)
        n_visits = n_days = 0
        if w.plan[VISITS]:
            n_visits = split_visits(w.visits, w.plan, w.ticks, n)
        if w.plan[ACTIVE_DAYS]:
            n_days = active_days(w.days, w.day_starts, w.ticks, n)
        at = write_groups(row, 0, w, OneSnapshot(start, stop, cutoff, n, n_visits, n_days))
        for f in range(len(keep)):
            out[r, f] = row[keep[f]]
    return at


def _compiled(stamp: int) -> Callable[..., int]:
    """The driver. Numba's disk cache sees changes of this file alone; `stamp` makes it see those of all kernels."""

    @njit(nogil=True, error_model="numpy", cache=True)
    def fill(
        out: Array, keep: Array, bounds: Array, plan: Array, windows: Array, value_windows: Array, bad: float,
        lut: Array, lut_start: Array, t: Array, touchpoint: Array, channel: Array, stage: Array, item: Array,
        extras: Array, value: Array, duration: Array, satisfaction: Array, profile_numbers: Array, width: int,
    ) -> Any:  # fmt: skip
        """Fill `out`, (n, f) float32, with the columns `keep`, (f,) uint64, of all `width` columns.

        `bounds` is (n, 3) int64: start, stop, cutoff; `t` is (n_events,) int64 µs; the rest: see `Workspace`. Returns
        how many columns the groups write.
        """
        if stamp < 0:
            return -1
        longest = 1
        for r in range(len(bounds)):
            longest = max(longest, bounds[r, 1] - bounds[r, 0])
        workspace = Workspace(
            plan, windows, value_windows, bad, lut, lut_start,
            touchpoint, item, extras, duration, satisfaction, profile_numbers,
            np.empty(longest, np.int64),  # ticks
            np.empty((FIRST_PROPERTY + plan[N_PROPERTIES], longest), np.uint32),  # codes
            np.empty((3, longest), np.float64),  # numbers
            np.empty(longest + 1, np.float64),  # value_from
            np.zeros(plan[N_WINDOWS] + 1, np.int64),  # edges
            np.zeros(plan[N_WINDOWS] + 1, np.int64),  # earlier
            np.empty((4, plan[N_CODES]), np.float64),  # occurrences
            np.empty(longest + 1, np.int64),  # visits
            np.empty(longest, np.int64),  # days
            np.empty(longest + 1, np.int64),  # day_starts
            np.empty(longest, np.float64),  # gaps
            np.empty(longest, np.float64),  # ranked
            np.empty((6, 1 << table_bits(longest if plan[ITEM_TABLE] else 1)), np.int64),  # table
            np.empty(scratch_cells(plan), np.float64),  # cells
            np.empty((7, max(plan[N_UNITS], 1)), np.float64),  # units
        )  # fmt: skip
        row = np.empty(width, np.float32)
        return fill_each(out, keep, bounds, row, t, channel, stage, value, workspace)

    return fill


fill_rows = _compiled(_stamp())

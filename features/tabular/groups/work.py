"""Work that is scheduled, started and completed: the open_work group.

A unit of work is a pair or triple of touchpoints such as `call START`, `call COMPLETE`. It is open from a start
until as many completions as starts have come; it waits from its scheduling until the next start or completion.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from features.tabular.decoding import decode_column
from features.tabular.group import Column, FeatureGroup, Names, OneSnapshot, Workspace
from features.tabular.plan import DAYS, HOURS, N_UNITS, WORK, group_kernel, kernel

Array = Any
SCHEDULE, START, COMPLETE = 0, 1, 2
# rows of `units`, (7, units) float64; times in µs, NaN: not so
OPEN, OPEN_SINCE, WAITING_SINCE, WORKED, WAITED, DONE, BEGUN = 0, 1, 2, 3, 4, 5, 6


@kernel
def open_work(
    row: Array, at: int, plan: Array, codes: Array, ticks: Array, n: int, cutoff: int, units: Array
) -> int:  # fmt: skip
    """The state of each unit at the cutoff, then of all together."""
    n_units = plan[N_UNITS]
    follow(plan, codes, ticks, n, units)
    n_open = n_waiting = begun = done = 0.0
    oldest_open = oldest_waiting = np.nan
    worked = waited = 0.0
    for u in range(n_units):
        open_days = (cutoff - units[OPEN_SINCE, u]) * DAYS
        waiting_days = (cutoff - units[WAITING_SINCE, u]) * DAYS
        total = units[WORKED, u] + (cutoff - units[OPEN_SINCE, u] if open_days == open_days else 0.0)
        row[at] = units[OPEN, u]
        row[at + 1] = open_days
        row[at + 2] = waiting_days
        row[at + 3] = total * HOURS
        row[at + 4] = units[WAITED, u] * HOURS
        row[at + 5] = units[DONE, u]
        at += 6
        n_open += units[OPEN, u] > 0.0
        n_waiting += waiting_days == waiting_days
        oldest_open = np.fmax(oldest_open, open_days)
        oldest_waiting = np.fmax(oldest_waiting, waiting_days)
        worked += total
        waited += units[WAITED, u]
        begun += units[BEGUN, u]
        done += units[DONE, u]
    row[at] = n_open
    row[at + 1] = n_waiting
    row[at + 2] = oldest_open
    row[at + 3] = oldest_waiting
    row[at + 4] = worked * HOURS
    row[at + 5] = waited * HOURS
    row[at + 6] = done / begun if begun > 0.0 else np.nan
    return at + 7


@kernel
def follow(plan: Array, codes: Array, ticks: Array, n: int, units: Array) -> None:
    """Walk the events and keep each unit's state."""
    for u in range(plan[N_UNITS]):
        for k in range(7):
            units[k, u] = 0.0
        units[OPEN_SINCE, u] = units[WAITING_SINCE, u] = np.nan
    for i in range(n):
        unit, role = codes[WORK, i] // 3, codes[WORK, i] % 3
        if unit >= plan[N_UNITS]:
            continue
        if role == SCHEDULE:
            if units[WAITING_SINCE, unit] != units[WAITING_SINCE, unit]:
                units[WAITING_SINCE, unit] = ticks[i]
            continue
        if units[WAITING_SINCE, unit] == units[WAITING_SINCE, unit]:
            units[WAITED, unit] += ticks[i] - units[WAITING_SINCE, unit]
            units[WAITING_SINCE, unit] = np.nan
        if role == START:
            units[BEGUN, unit] += 1.0
            units[OPEN, unit] += 1.0
            if units[OPEN, unit] == 1.0:
                units[OPEN_SINCE, unit] = ticks[i]
        else:
            units[DONE, unit] += 1.0
            if units[OPEN, unit] == 1.0:
                units[WORKED, unit] += ticks[i] - units[OPEN_SINCE, unit]
                units[OPEN_SINCE, unit] = np.nan
            units[OPEN, unit] = max(units[OPEN, unit] - 1.0, 0.0)


def _open_work_columns(names: Names) -> Iterator[Column]:
    for unit in names.learned.units:
        code = f"work.{unit}"
        yield f"{code}.open", f"starts of '{unit}' not yet completed"
        yield f"{code}.open_days", f"days that '{unit}' has been open"
        yield f"{code}.waiting_days", f"days that '{unit}' has been scheduled and not begun"
        yield f"{code}.worked_hours", f"hours in which '{unit}' was open"
        yield f"{code}.waited_hours", f"hours from scheduling '{unit}' to the next start or completion"
        yield f"{code}.done", f"completions of '{unit}'"
    if names.learned.units:
        yield "work_open", "units of work that are open"
        yield "work_waiting", "units of work that are scheduled and not begun"
        yield "work_oldest_open_days", "age of the longest open unit of work, days"
        yield "work_oldest_waiting_days", "age of the longest waiting unit of work, days"
        yield "work_hours", "hours of work, all units"
        yield "work_waited_hours", "hours of waiting, all units"
        yield "work_done_share", "completions over starts, all units"


@group_kernel
def _write_open_work(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    decode_column(w.codes, WORK, w.touchpoint, s.start, s.n, w.lut, w.lut_start[4])
    return open_work(row, at, w.plan, w.codes, w.ticks, s.n, s.cutoff, w.units)


OPEN_WORK_GROUP = FeatureGroup(
    "open_work", _open_work_columns, _write_open_work, available=lambda learned: bool(learned.units)
)

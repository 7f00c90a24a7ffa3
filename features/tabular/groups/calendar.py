"""When in the day, week and year (UTC): the calendar group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from features.tabular.group import Column, FeatureGroup, Names, OneSnapshot, Workspace
from features.tabular.numerics import month_and_start
from features.tabular.plan import DAY_US, HOUR_US, HOURS, group_kernel, kernel

Array = Any
YEAR_DAYS = 365.2425
QUARTER = 6 * HOUR_US


@kernel
def calendar(
    row: Array, at: int, days: Array, day_starts: Array, n_days: int, ticks: Array, n: int, cutoff: int, cells: Array
) -> int:
    """Shares of events by part of the day and weekday, the last event's hour and day, the season of the cutoff."""
    for c in range(11):
        cells[c] = 0.0  # 4 parts of the day of six hours each, then 7 weekdays from Monday
    for d in range(n_days):
        cells[4 + (days[d] + 3) % 7] += day_starts[d + 1] - day_starts[d]  # 1970-01-01 was a Thursday
        six, noon, eighteen = days[d] * DAY_US + QUARTER, days[d] * DAY_US + 2 * QUARTER, days[d] * DAY_US + 3 * QUARTER
        for i in range(day_starts[d], day_starts[d + 1]):
            cells[(ticks[i] >= six) + (ticks[i] >= noon) + (ticks[i] >= eighteen)] += 1.0
    for c in range(11):
        row[at + c] = cells[c] / n if n > 0 else np.nan
    row[at + 11] = (cells[9] + cells[10]) / n if n > 0 else np.nan
    at += 12
    if n > 0:
        row[at] = (ticks[n - 1] - days[n_days - 1] * DAY_US) * HOURS
        row[at + 1] = (days[n_days - 1] + 3) % 7
    else:
        row[at] = row[at + 1] = np.nan
    day = cutoff // DAY_US
    season = 2.0 * np.pi * (cutoff / DAY_US / YEAR_DAYS)
    row[at + 2] = np.sin(season)
    row[at + 3] = np.cos(season)
    row[at + 4] = (day + 3) % 7
    row[at + 5] = (cutoff - day * DAY_US) * HOURS
    row[at + 6] = month_and_start(day)[0] % 12 + 1
    return at + 7


def _calendar_columns(names: Names) -> Iterator[Column]:
    for part in ("night", "morning", "afternoon", "evening"):
        yield f"{part}_share", f"share of events in the {part} (six hours each from midnight, UTC)"
    for day in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"):
        yield f"{day}_share", f"share of events on a {day} (UTC)"
    yield "weekend_share", "share of events on Saturday or Sunday (UTC)"
    yield "last_hour", "hour of the day of the last event (UTC)"
    yield "last_weekday", "weekday of the last event, 0 Monday"
    yield "season_sin", "sine of the cutoff's place in the year"
    yield "season_cos", "cosine of the cutoff's place in the year"
    yield "cutoff_weekday", "weekday of the cutoff, 0 Monday"
    yield "cutoff_hour", "hour of the day of the cutoff (UTC)"
    yield "cutoff_month", "month of the cutoff"


@group_kernel
def _write_calendar(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return calendar(row, at, w.days, w.day_starts, s.n_days, w.ticks, s.n, s.cutoff, w.cells)


CALENDAR_GROUP = FeatureGroup("calendar", _calendar_columns, _write_calendar, needs=("days",))

"""When in the day, week and year (UTC): the calendar group."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.kernels_plan import DAY_US, HOUR_US, kernel
from features.kernels_rhythm import month_of

Array = Any
YEAR_DAYS = 365.2425


@kernel
def calendar(row: Array, at: int, ticks: Array, n: int, cutoff: int, cells: Array) -> int:
    """Shares of events by part of the day and weekday, the last event's hour and day, the season of the cutoff."""
    for c in range(11):
        cells[c] = 0.0  # 4 parts of the day of six hours each, then 7 weekdays from Monday
    for i in range(n):
        day = ticks[i] // DAY_US
        hour = (ticks[i] - day * DAY_US) // HOUR_US
        cells[hour // 6] += 1.0
        cells[4 + (day + 3) % 7] += 1.0  # 1970-01-01 was a Thursday
    for c in range(11):
        row[at + c] = cells[c] / n if n > 0 else np.nan
    row[at + 11] = (cells[9] + cells[10]) / n if n > 0 else np.nan
    at += 12
    if n > 0:
        day = ticks[n - 1] // DAY_US
        row[at] = (ticks[n - 1] - day * DAY_US) / HOUR_US
        row[at + 1] = (day + 3) % 7
    else:
        row[at] = row[at + 1] = np.nan
    day = cutoff // DAY_US
    season = 2.0 * np.pi * (cutoff / DAY_US / YEAR_DAYS)
    sine, cosine = np.sin(season), np.cos(season)
    row[at + 2] = sine
    row[at + 3] = cosine
    row[at + 4] = (day + 3) % 7
    row[at + 5] = (cutoff - day * DAY_US) / HOUR_US
    row[at + 6] = month_of(day) % 12 + 1
    return at + 7

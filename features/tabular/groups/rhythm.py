"""Visits and the time between them: the rhythm, day_rhythm, sessions and tenure groups.

A visit is a run of events with no pause longer than the session gap; a gap runs from the end of a visit to the start
of the next, the current gap from the last event to the cutoff. The rhythm of active days is the same, by calendar day.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from features.tabular.decoding import decode_numbers
from features.tabular.group import Column, FeatureGroup, Names, OneSnapshot, Workspace
from features.tabular.numerics import month_and_start, quantile, sort_in_place, spread_and_slope
from features.tabular.plan import (
    DAY_US,
    DAYS,
    DURATION,
    HAS_DURATION,
    N_WINDOWS,
    SECONDS,
    SESSION_GAP_US,
    group_kernel,
    kernel,
)

Array = Any
FAR = 1 << 60
FAST, SLOW = 0.5, 0.2  # weights of the newest gap in the two exponentially weighted means


@kernel
def visit_rhythm(
    row: Array, at: int, visits: Array, m: int, ticks: Array, n: int, cutoff: int, gaps: Array, ranked: Array
) -> Any:
    """The rhythm of visits, in days."""
    for j in range(1, m):
        gaps[j - 1] = (ticks[visits[j]] - ticks[visits[j] - 1]) * DAYS
    current = (cutoff - ticks[n - 1]) * DAYS if n > 0 else np.nan
    return rhythm(row, at, gaps, max(m - 1, 0), current, ranked)


@kernel
def day_rhythm(row: Array, at: int, days: Array, n_days: int, cutoff: int, gaps: Array, ranked: Array) -> Any:
    """The rhythm of active days."""
    for d in range(1, n_days):
        gaps[d - 1] = days[d] - days[d - 1]
    current = float(cutoff // DAY_US - days[n_days - 1]) if n_days > 0 else np.nan
    return rhythm(row, at, gaps, max(n_days - 1, 0), current, ranked)


@kernel
def rhythm(row: Array, at: int, gaps: Array, m: int, current: float, ranked: Array) -> int:
    """What the gaps look like, and how the current one compares; NaN without a gap."""
    row[at] = current
    for k in range(1, 24):
        row[at + k] = np.nan
    if m == 0:
        return at + 24
    total, longer = 0.0, 0
    fast = slow = gaps[0]
    for j in range(m):
        gap = gaps[j]
        ranked[j] = gap
        total += gap
        longer += gap > current
        fast += FAST * (gap - fast)
        slow += SLOW * (gap - slow)
    mean = total / m
    sort_in_place(ranked, m)
    median, upper, last = quantile(ranked, m, 0.5), quantile(ranked, m, 0.75), gaps[m - 1]
    recent = 0.0
    for j in range(max(m - 3, 0), m):
        recent += gaps[j]
    recent /= min(m, 3)
    row[at + 1] = mean
    row[at + 2] = ranked[0]
    row[at + 3] = quantile(ranked, m, 0.25)
    row[at + 4] = median
    row[at + 5] = upper
    row[at + 6] = ranked[m - 1]
    row[at + 7] = last
    row[at + 8] = gaps[m - 2] if m > 1 else np.nan
    row[at + 9] = fast
    row[at + 10] = slow
    row[at + 11] = recent
    per_mean = 1.0 / mean
    row[at + 12] = recent * per_mean
    row[at + 13] = last * per_mean
    row[at + 14] = current * per_mean
    row[at + 15] = current / median
    row[at + 16] = current / upper
    row[at + 17] = current / ranked[m - 1]
    row[at + 18] = current / fast
    row[at + 19] = longer / m
    if m > 1:
        spread, slope = spread_and_slope(gaps, m, mean)
        row[at + 20] = spread
        row[at + 21] = spread * per_mean
        row[at + 22] = slope
        row[at + 23] = (current - mean) / spread if spread > 0.0 else np.nan
    return at + 24


@kernel
def sessions(
    row: Array, at: int, plan: Array, edges: Array, visits: Array, m: int, ticks: Array, numbers: Array, n: int,
    cutoff: int,
) -> int:  # fmt: skip
    """Visits by window, how long and how busy they are; then durations by window."""
    n_edges = plan[N_WINDOWS] + 1
    j = m
    for w in range(n_edges):
        while j > 0 and visits[j] > edges[w]:  # a visit counts where any of its events does
            j -= 1
        row[at + w] = m - j
    at += n_edges
    total, longest, bounced, busiest = 0, 0, 0, 0
    for j in range(m):
        length = ticks[visits[j + 1] - 1] - ticks[visits[j]]
        total += length
        longest = max(longest, length)
        bounced += visits[j + 1] - visits[j] == 1
        busiest = max(busiest, visits[j + 1] - visits[j])
    any_ = m > 0
    row[at] = total * SECONDS
    row[at + 1] = total * SECONDS / m if any_ else np.nan
    row[at + 2] = longest * SECONDS if any_ else np.nan
    row[at + 3] = (ticks[n - 1] - ticks[visits[m - 1]]) * SECONDS if any_ else np.nan
    row[at + 4] = n / m if any_ else np.nan
    row[at + 5] = busiest
    row[at + 6] = visits[m] - visits[m - 1] if any_ else np.nan
    row[at + 7] = (visits[m] - visits[m - 1]) * m / n if any_ else np.nan
    row[at + 8] = bounced / m if any_ else np.nan
    row[at + 9] = 1.0 if any_ and cutoff - ticks[n - 1] <= plan[SESSION_GAP_US] else 0.0
    at += 10
    if plan[HAS_DURATION]:
        at = durations(row, at, edges, n_edges, numbers, n)
    return at


@kernel
def durations(row: Array, at: int, edges: Array, n_edges: int, numbers: Array, n: int) -> int:
    """Sum by window, mean, longest and last duration of an event, in seconds."""
    high, total, count = n, 0.0, 0
    longest = last = np.nan
    for w in range(n_edges):
        for i in range(high - 1, edges[w] - 1, -1):
            value = numbers[DURATION, i]
            if value == value:
                last = value if count == 0 else last
                longest = value if count == 0 else max(longest, value)
                total += value
                count += 1
        high = edges[w]
        row[at + w] = total
    at += n_edges
    row[at] = total / count if count > 0 else np.nan
    row[at + 1] = longest
    row[at + 2] = last
    return at + 3


@kernel
def tenure(
    row: Array, at: int, plan: Array, edges: Array, days: Array, day_starts: Array, n_days: int, ticks: Array, n: int,
    cutoff: int,
) -> int:  # fmt: skip
    """How long the customer is known; active days, weeks and months by window."""
    n_edges = plan[N_WINDOWS] + 1
    weeks = months = 0
    week = month = FAR
    month_since = FAR  # days from here up to the one looked at are surely of the same month
    d = n_days
    for w in range(n_edges):
        while d > 0 and day_starts[d] > edges[w]:  # a day counts where any of its events does
            d -= 1
            if days[d] < week:
                week = days[d] - (days[d] + 3) % 7  # its Monday
                weeks += 1
            if days[d] < month_since:
                this_month, month_since = month_and_start(days[d])
                months += this_month != month
                month = this_month
        row[at + 3 * w] = n_days - d
        row[at + 3 * w + 1] = weeks
        row[at + 3 * w + 2] = months
    at += 3 * n_edges
    tenure_days = (cutoff - ticks[0]) * DAYS if n > 0 else np.nan
    row[at] = tenure_days
    row[at + 1] = (ticks[n - 1] - ticks[0]) * DAYS if n > 0 else np.nan
    row[at + 2] = n_days / ((cutoff - ticks[0]) // DAY_US + 1.0) if n > 0 else np.nan
    row[at + 3] = months / (month_and_start(cutoff // DAY_US)[0] - month + 1.0) if n > 0 else np.nan
    row[at + 4] = n / n_days if n > 0 else np.nan
    row[at + 5] = longest_streak(days, n_days)
    row[at + 6] = n / max(tenure_days, 1.0) if n > 0 else np.nan
    return at + 7


@kernel
def longest_streak(days: Array, n_days: int) -> int:
    """The longest run of days next to each other."""
    longest = streak = 1 if n_days > 0 else 0
    for d in range(1, n_days):
        streak = streak + 1 if days[d] == days[d - 1] + 1 else 1
        longest = max(longest, streak)
    return longest


GAP_COLUMNS = (
    ("current", "days from the last {one} to the cutoff"),
    ("mean", "mean days between {many}"),
    ("min", "shortest gap between {many}, days"),
    ("lower_quartile", "lower quartile of the gaps between {many}, days"),
    ("median", "median gap between {many}, days"),
    ("upper_quartile", "upper quartile of the gaps between {many}, days"),
    ("max", "longest gap between {many}, days"),
    ("last", "last gap between {many}, days"),
    ("before_last", "last gap but one between {many}, days"),
    ("ewm_fast", "exponentially weighted mean gap between {many}, newest weighs 1/2, days"),
    ("ewm_slow", "exponentially weighted mean gap between {many}, newest weighs 1/5, days"),
    ("last3", "mean of the last three gaps between {many}, days"),
    ("last3_to_mean", "mean of the last three gaps between {many} in units of the mean"),
    ("last_to_mean", "last gap between {many} in units of the mean"),
    ("current_to_mean", "current gap in units of the mean gap between {many}"),
    ("current_to_median", "current gap in units of the median gap between {many}"),
    ("current_to_upper", "current gap in units of the upper quartile of gaps between {many}"),
    ("current_to_max", "current gap in units of the longest gap between {many}"),
    ("current_to_ewm", "current gap in units of the weighted mean gap between {many}"),
    ("share_longer", "share of the own gaps between {many} that exceed the current one"),
    ("std", "standard deviation of the gaps between {many}, days"),
    ("variation", "standard deviation of the gaps between {many} over their mean"),
    ("slope", "change from one gap between {many} to the next, days"),
    ("current_z", "current gap less the mean gap between {many}, in standard deviations"),
)


def _rhythm_columns(names: Names) -> Iterator[Column]:
    for name, meaning in GAP_COLUMNS:
        yield f"gap_{name}", meaning.format(one="event", many="visits")


@group_kernel
def _write_rhythm(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return visit_rhythm(row, at, w.visits, s.n_visits, w.ticks, s.n, s.cutoff, w.gaps, w.ranked)


RHYTHM_GROUP = FeatureGroup("rhythm", _rhythm_columns, _write_rhythm, needs=("visits",))


def _day_rhythm_columns(names: Names) -> Iterator[Column]:
    for name, meaning in GAP_COLUMNS:
        yield f"day_gap_{name}", meaning.format(one="active day", many="active days")


@group_kernel
def _write_day_rhythm(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return day_rhythm(row, at, w.days, s.n_days, s.cutoff, w.gaps, w.ranked)


DAY_RHYTHM_GROUP = FeatureGroup("day_rhythm", _day_rhythm_columns, _write_day_rhythm, needs=("days",))


def _sessions_columns(names: Names) -> Iterator[Column]:
    for label, text in names.windows:
        yield f"visits_{label}", f"visits with an event {text}"
    yield "visit_seconds_total", "time from first to last event of a visit, all visits, seconds"
    yield "visit_seconds_mean", "mean length of a visit, seconds"
    yield "visit_seconds_max", "length of the longest visit, seconds"
    yield "visit_seconds_last", "length of the last visit, seconds"
    yield "visit_events_mean", "events in a visit, mean"
    yield "visit_events_max", "events in the busiest visit"
    yield "visit_events_last", "events in the last visit"
    yield "visit_events_last_to_mean", "events in the last visit in units of the mean"
    yield "bounce_share", "share of visits with one event only"
    yield "visit_ongoing", "1 where the last event is so recent that its visit may go on"
    if names.has("duration_s"):
        for label, text in names.windows:
            yield f"duration_s_{label}", f"sum of duration {text}, seconds"
        yield "duration_s_mean", "mean duration of an event, seconds"
        yield "duration_s_max", "longest duration of an event, seconds"
        yield "duration_s_last", "duration of the last event that has one, seconds"


@group_kernel
def _write_sessions(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    if w.plan[HAS_DURATION]:
        decode_numbers(w.numbers, DURATION, w.duration, s.start, s.n)
    return sessions(row, at, w.plan, w.edges, w.visits, s.n_visits, w.ticks, w.numbers, s.n, s.cutoff)


SESSIONS_GROUP = FeatureGroup("sessions", _sessions_columns, _write_sessions, needs=("visits",))


def _tenure_columns(names: Names) -> Iterator[Column]:
    for label, text in names.windows:
        for unit in ("days", "weeks", "months"):
            yield f"active_{unit}_{label}", f"calendar {unit} with an event {text}"
    yield "tenure_days", "days since the first event"
    yield "span_days", "days from the first event to the last"
    yield "active_days_share", "share of the days since the first event that have one"
    yield "active_months_share", "share of the calendar months since the first event that have one"
    yield "events_per_active_day", "events on a day with any"
    yield "longest_streak_days", "longest run of days with an event each"
    yield "events_per_day", "events for each day since the first"


@group_kernel
def _write_tenure(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return tenure(row, at, w.plan, w.edges, w.days, w.day_starts, s.n_days, w.ticks, s.n, s.cutoff)


TENURE_GROUP = FeatureGroup("tenure", _tenure_columns, _write_tenure, needs=("days",))

"""Visits and the time between them: the rhythm, day_rhythm, sessions and tenure groups.

A visit is a run of events with no pause longer than the session gap; a gap runs from the end of a visit to the start
of the next, the current gap from the last event to the cutoff. The rhythm of active days is the same, by calendar day.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from features.tabular.plan import DAY_US, DAYS, DURATION, HAS_DURATION, N_WINDOWS, SECONDS, SESSION_GAP_US, kernel

Array = Any
STEPS = np.array([int(-(-(9 * (9 / 4) ** k - 4) // 5)) for k in range(20, -1, -1)])  # 19 903 198 … 20, 9, 4, 1
FAR = 1 << 60
FAST, SLOW = 0.5, 0.2  # weights of the newest gap in the two exponentially weighted means


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
def visit_rhythm(
    row: Array, at: int, visits: Array, m: int, ticks: Array, n: int, cutoff: int, gaps: Array, ranked: Array
) -> Any:
    """The rhythm of visits, in days."""
    for j in range(1, m):
        gaps[j - 1] = (ticks[visits[j]] - ticks[visits[j] - 1]) * DAYS
    current = (cutoff - ticks[n - 1]) * DAYS if n > 0 else np.nan
    return rhythm(row, at, gaps, max(m - 1, 0), current, ranked)


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
def spread_and_slope(values: Array, m: int, mean: float) -> tuple[float, float]:
    """Sample standard deviation, and change from one value to the next by least squares; `m` ≥ 2."""
    squares, product, middle = 0.0, 0.0, (m - 1) / 2.0
    for j in range(m):
        squares += (values[j] - mean) * (values[j] - mean)
        product += (j - middle) * (values[j] - mean)
    return np.sqrt(squares / (m - 1)), product / (m * (m * m - 1.0) / 12.0)


@kernel
def sort_in_place(values: Array, m: int) -> None:
    """Sort `values[:m]`: Shell's sort with Tokuda's steps, fast on the few values of most customers, sound on many."""
    for step in STEPS:
        for j in range(step, m):
            value, k = values[j], j
            while k >= step and values[k - step] > value:
                values[k] = values[k - step]
                k -= step
            values[k] = value


@kernel
def quantile(ranked: Array, m: int, share: float) -> Any:
    """Linear interpolation between the sorted values, as numpy does; `m` ≥ 1."""
    place = share * (m - 1)
    low = int(place)
    if low + 1 >= m:
        return ranked[m - 1]
    return ranked[low] + (place - low) * (ranked[low + 1] - ranked[low])


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
    known_days = (cutoff - ticks[0]) * DAYS if n > 0 else np.nan
    row[at] = known_days
    row[at + 1] = (ticks[n - 1] - ticks[0]) * DAYS if n > 0 else np.nan
    row[at + 2] = n_days / ((cutoff - ticks[0]) // DAY_US + 1.0) if n > 0 else np.nan
    row[at + 3] = months / (month_and_start(cutoff // DAY_US)[0] - month + 1.0) if n > 0 else np.nan
    row[at + 4] = n / n_days if n > 0 else np.nan
    row[at + 5] = longest_streak(days, n_days)
    row[at + 6] = n / max(known_days, 1.0) if n > 0 else np.nan
    return at + 7


@kernel
def longest_streak(days: Array, n_days: int) -> int:
    """The longest run of days next to each other."""
    longest = streak = 1 if n_days > 0 else 0
    for d in range(1, n_days):
        streak = streak + 1 if days[d] == days[d - 1] + 1 else 1
        longest = max(longest, streak)
    return longest


@kernel
def month_and_start(day: int) -> tuple[int, int]:
    """Months since year 0 of a day counted from 1970-01-01, by the Gregorian calendar, and that month's first day.

    Years are counted from March, so that the leap day is the last of its year.
    """
    shifted = day + 719_468  # days since 0000-03-01
    era = shifted // 146_097  # 400 years
    of_era = shifted - era * 146_097
    year = (of_era - of_era // 1_460 + of_era // 36_524 - of_era // 146_096) // 365
    of_year = of_era - (365 * year + year // 4 - year // 100)
    month = (5 * of_year + 2) // 153
    return (era * 400 + year) * 12 + month + 2, day - of_year + (153 * month + 2) // 5

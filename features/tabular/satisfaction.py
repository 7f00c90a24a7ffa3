"""How satisfied the customer is, where any event says so: the satisfaction group."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.tabular.plan import DAYS, N_WINDOWS, SATISFACTION, kernel
from features.tabular.rhythm import spread_and_slope

Array = Any


@kernel
def satisfaction(
    row: Array, at: int, plan: Array, edges: Array, bad: float, ticks: Array, numbers: Array, n: int, cutoff: int,
    answers: Array,
) -> Any:  # fmt: skip
    """Answers, their mean and how many are bad (at most `bad`) by window; last, lowest, highest, trend."""
    n_edges = plan[N_WINDOWS] + 1
    high, count, n_bad, total = n, 0, 0, 0.0
    last_at = last_bad_at = np.nan
    for w in range(n_edges):
        for i in range(high - 1, edges[w] - 1, -1):
            value = numbers[SATISFACTION, i]
            if value == value:
                last_at = ticks[i] if count == 0 else last_at
                answers[count] = value  # newest first
                count += 1
                total += value
                if value <= bad:
                    last_bad_at = ticks[i] if n_bad == 0 else last_bad_at
                    n_bad += 1
        high = edges[w]
        row[at + 3 * w] = count
        row[at + 3 * w + 1] = total / count if count > 0 else np.nan
        row[at + 3 * w + 2] = n_bad
    at += 3 * n_edges
    return summary(row, at, answers, count, total, n_bad, (cutoff - last_at) * DAYS, (cutoff - last_bad_at) * DAYS)


@kernel
def summary(
    row: Array, at: int, answers: Array, m: int, total: float, n_bad: int, last_days: float, last_bad_days: float
) -> int:
    """Of `answers[:m]`, newest first."""
    for k in range(12):
        row[at + k] = np.nan
    row[at + 10] = last_days
    row[at + 11] = last_bad_days
    if m > 0:
        lowest = highest = answers[0]
        recent = 0.0
        for j in range(m):
            lowest, highest = min(lowest, answers[j]), max(highest, answers[j])
            if j < 3:
                recent += answers[j]
        mean, recent = total / m, recent / min(m, 3)
        row[at] = answers[0]
        row[at + 1] = answers[1] if m > 1 else np.nan
        row[at + 2] = answers[0] - answers[1] if m > 1 else np.nan
        row[at + 3] = lowest
        row[at + 4] = highest
        row[at + 5] = recent
        row[at + 6] = recent - mean
        row[at + 7] = n_bad / m
        if m > 1:
            spread, slope = spread_and_slope(answers, m, mean)
            row[at + 8] = spread
            row[at + 9] = -slope  # newest first, so time runs the other way
    return at + 12

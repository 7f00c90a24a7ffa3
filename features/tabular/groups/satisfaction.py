"""How satisfied the customer is, where any event says so: the satisfaction group."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from features.tabular.decoding import decode_numbers
from features.tabular.group import Column, FeatureGroup, Names, OneSnapshot, Workspace
from features.tabular.numerics import spread_and_slope
from features.tabular.plan import DAYS, N_WINDOWS, SATISFACTION, group_kernel, kernel

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


def _satisfaction_columns(names: Names) -> Iterator[Column]:
    for label, text in names.windows:
        yield f"answers_{label}", f"events with a satisfaction {text}"
        yield f"satisfaction_mean_{label}", f"mean satisfaction {text}"
        yield f"bad_answers_{label}", f"satisfactions of at most {names.learned.bad_satisfaction:g} {text}"
    yield "satisfaction_last", "last satisfaction"
    yield "satisfaction_before_last", "last satisfaction but one"
    yield "satisfaction_step", "last satisfaction less the one before"
    yield "satisfaction_min", "lowest satisfaction"
    yield "satisfaction_max", "highest satisfaction"
    yield "satisfaction_last3", "mean of the last three satisfactions"
    yield "satisfaction_last3_less_mean", "mean of the last three satisfactions less that of all"
    yield "bad_share", f"share of satisfactions of at most {names.learned.bad_satisfaction:g}"
    yield "satisfaction_std", "standard deviation of satisfaction"
    yield "satisfaction_slope", "change from one satisfaction to the next"
    yield "answer_recency_days", "days since the last satisfaction"
    yield "bad_recency_days", f"days since the last satisfaction of at most {names.learned.bad_satisfaction:g}"


@group_kernel
def _write_satisfaction(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    decode_numbers(w.numbers, SATISFACTION, w.satisfaction, s.start, s.n)
    return satisfaction(row, at, w.plan, w.edges, w.bad, w.ticks, w.numbers, s.n, s.cutoff, w.gaps)


SATISFACTION_GROUP = FeatureGroup(
    "satisfaction", _satisfaction_columns, _write_satisfaction, available=lambda learned: "satisfaction" in learned.has
)

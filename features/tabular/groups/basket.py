"""What a visit is worth, and what comes back: the rfm and returns groups."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from features.tabular.group import Column, FeatureGroup, Names, OneSnapshot, Workspace
from features.tabular.numerics import quantile, sort_in_place, spread_and_slope
from features.tabular.plan import DAYS, N_WINDOWS, VALUE, group_kernel, kernel

Array = Any
FAST = 0.5  # weight of the newest visit in the exponentially weighted mean


@kernel
def rfm(
    row: Array, at: int, plan: Array, edges: Array, visits: Array, m: int, ticks: Array, numbers: Array, n: int,
    cutoff: int, baskets: Array, ranked: Array,
) -> int:  # fmt: skip
    """Frequency and money: the value of a visit (its basket), of an event, of a month; by window the mean basket."""
    valued, total, highest = 0, 0.0, np.nan
    for j in range(m):
        basket = 0.0
        for i in range(visits[j], visits[j + 1]):
            value = numbers[VALUE, i]
            if value == value:
                basket += value
                highest = value if valued == 0 else max(highest, value)
                valued += 1
        baskets[j] = ranked[j] = basket
        total += basket
    row[at] = m
    row[at + 1] = total
    row[at + 2] = valued
    row[at + 3] = total / valued if valued > 0 else np.nan
    row[at + 4] = highest
    row[at + 5] = total / max((cutoff - ticks[0]) * DAYS, 1.0) if n > 0 else np.nan
    at = basket_shape(row, at + 6, baskets, m, total, ranked)
    n_edges = plan[N_WINDOWS] + 1
    j, spent = m, 0.0
    for w in range(n_edges):
        while j > 0 and visits[j] > edges[w]:
            j -= 1
            spent += baskets[j]
        row[at + w] = spent / (m - j) if m > j else np.nan
    at += n_edges
    return at


@kernel
def basket_shape(row: Array, at: int, baskets: Array, m: int, total: float, ranked: Array) -> int:
    """Mean, median, extremes, spread and trend of the value of a visit; NaN without a visit."""
    for k in range(10):
        row[at + k] = np.nan
    if m > 0:
        sort_in_place(ranked, m)
        mean, last = total / m, baskets[m - 1]
        fast = baskets[0]
        for j in range(m):
            fast += FAST * (baskets[j] - fast)
        row[at] = mean
        row[at + 1] = quantile(ranked, m, 0.5)
        row[at + 2] = ranked[0]
        row[at + 3] = ranked[m - 1]
        row[at + 4] = last
        row[at + 5] = baskets[m - 2] if m > 1 else np.nan
        row[at + 6] = last / mean if mean != 0.0 else np.nan
        row[at + 7] = fast
        if m > 1:
            row[at + 8], row[at + 9] = spread_and_slope(baskets, m, mean)
    return at + 10


@kernel
def returns(
    row: Array, at: int, plan: Array, edges: Array, visits: Array, m: int, ticks: Array, numbers: Array, n: int,
    cutoff: int,
) -> int:  # fmt: skip
    """Negative values: how many and how much by window, their share, how long ago."""
    n_edges = plan[N_WINDOWS] + 1
    high, count, amount, bought, zeros = n, 0, 0.0, 0.0, 0
    last = np.nan
    for w in range(n_edges):
        for i in range(high - 1, edges[w] - 1, -1):
            value = numbers[VALUE, i]
            if value < 0.0:
                last = (cutoff - ticks[i]) * DAYS if count == 0 else last
                count += 1
                amount -= value
            elif value > 0.0:
                bought += value
            elif value == 0.0:
                zeros += 1
        high = edges[w]
        row[at + 2 * w] = count
        row[at + 2 * w + 1] = amount
    at += 2 * n_edges
    in_last = 0
    for i in range(visits[m - 1] if m > 0 else n, n):
        in_last += numbers[VALUE, i] < 0.0
    row[at] = count / n if n > 0 else np.nan
    row[at + 1] = amount / bought if bought > 0.0 else np.nan
    row[at + 2] = last
    row[at + 3] = in_last
    row[at + 4] = zeros
    return at + 5


def _rfm_columns(names: Names) -> Iterator[Column]:
    yield "visits", "visits ever (runs of events without a long pause)"
    yield "value_total", "sum of value ever"
    yield "valued_events", "events that have a value"
    yield "value_mean", "mean value of an event that has one"
    yield "value_max", "highest value of an event"
    yield "value_per_day", "value for each day since the first event"
    for name, subject in (
        ("mean", "mean"),
        ("median", "median"),
        ("min", "lowest"),
        ("max", "highest"),
        ("last", "last visit's"),
        ("before_last", "the visit before the last one's"),
        ("last_to_mean", "last visit's in units of the mean"),
        ("ewm", "exponentially weighted mean (1/2)"),
        ("std", "standard deviation of the"),
        ("slope", "change from visit to visit of the"),
    ):
        yield f"basket_{name}", f"{subject} value of a visit"
    for label, text in names.windows:
        yield f"basket_mean_{label}", f"mean value of the visits {text}"


@group_kernel
def _write_rfm(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return rfm(row, at, w.plan, w.edges, w.visits, s.n_visits, w.ticks, w.numbers, s.n, s.cutoff, w.gaps, w.ranked)


RFM_GROUP = FeatureGroup(
    "rfm", _rfm_columns, _write_rfm, needs=("visits",), available=lambda learned: "value" in learned.has
)


def _returns_columns(names: Names) -> Iterator[Column]:
    for label, text in names.windows:
        yield f"returns_{label}", f"events of negative value {text}"
        yield f"returned_value_{label}", f"value given back {text}"
    yield "returns_share", "share of events of negative value"
    yield "returned_value_share", "value given back over value bought"
    yield "return_recency_days", "days since the last event of negative value"
    yield "returns_last_visit", "events of negative value in the last visit"
    yield "zero_value_events", "events of value zero"


@group_kernel
def _write_returns(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return returns(row, at, w.plan, w.edges, w.visits, s.n_visits, w.ticks, w.numbers, s.n, s.cutoff)


RETURNS_GROUP = FeatureGroup(
    "returns", _returns_columns, _write_returns, needs=("visits",), available=lambda learned: "value" in learned.has
)

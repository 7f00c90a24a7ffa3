"""Compiled arithmetic that several groups share: sorting, quantiles, spread and slope, the calendar."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.tabular.plan import kernel

Array = Any
STEPS = np.array([int(-(-(9 * (9 / 4) ** k - 4) // 5)) for k in range(20, -1, -1)])  # 19 903 198 … 20, 9, 4, 1


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
def spread_and_slope(values: Array, m: int, mean: float) -> tuple[float, float]:
    """Sample standard deviation, and change from one value to the next by least squares; `m` ≥ 2."""
    squares, product, middle = 0.0, 0.0, (m - 1) / 2.0
    for j in range(m):
        squares += (values[j] - mean) * (values[j] - mean)
        product += (j - middle) * (values[j] - mean)
    return np.sqrt(squares / (m - 1)), product / (m * (m * m - 1.0) / 12.0)


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

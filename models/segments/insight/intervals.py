"""Intervals of shares, means and differences of segments, with customers as the unit.

A customer can have several rows (one for each cutoff), which are not independent. Intervals therefore come from the
spread of the sums over each customer's rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.errors import DataError
from features.statistics import LEVEL, normal_quantile, wilson

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

MANY_CUSTOMERS = 20_000  # beyond these the mean is close to normal, and a bootstrap only costs time
CHUNK_CELLS = 2_000_000  # replicates × customers at a time
MISSING = float("nan")


@dataclass(frozen=True)
class Estimate:
    """An estimate with its interval.

    Attributes:
        value: NaN where there are no rows.
        low: of the interval.
        high: likewise.
        rows: their number.
        customers: the number of their customers.
    """

    value: float
    low: float
    high: float
    rows: int
    customers: int


NO_ESTIMATE = Estimate(MISSING, MISSING, MISSING, 0, 0)


def share_over_customers(y: npt.ArrayLike, customers: npt.ArrayLike, level: float = LEVEL) -> Estimate:
    """The share of ones among rows, with a Wilson interval on the effective number of rows.

    That is the number of rows over the design effect: the variance of the share with customers as the unit over that
    of independent rows (Kish 1965), at least 1.

    Args:
        y: (n,) 0 or 1; NaN is left out.
        customers: (n,) int codes of the rows' customers.
        level: of the interval.
    """
    values, codes, n_customers = _present(y, customers)
    n = len(values)
    if not n:
        return NO_ESTIMATE
    sums, counts = _by_customer(values, codes, n_customers)
    p = float(values.mean())
    effective = float(n_customers)  # if all rows have one label, each customer counts once
    if 0 < p < 1 and n_customers > 1:
        correction = n_customers / (n_customers - 1) * (n - 1) / n  # 1 where each customer has one row
        variance = float(((sums - p * counts) ** 2).sum()) / n**2 * correction
        effective = n / max(1.0, variance / (p * (1 - p) / n))
    low, high = wilson(p * effective, effective, level)
    return Estimate(p, float(low), float(high), n, n_customers)


def mean_over_customers(
    values: npt.ArrayLike, customers: npt.ArrayLike, *, n_boot: int = 1000, seed: int = 0, level: float = LEVEL
) -> Estimate:
    """The mean over rows with a percentile interval from a bootstrap over customers.

    Money has a long tail, which a normal interval ignores; beyond 20,000 customers the two agree, and the normal
    interval is taken. A single customer has no interval.

    Args:
        values: (n,) numbers; NaN is left out.
        customers: (n,) int codes of the rows' customers.
        n_boot: replicates.
        seed: of the resampling.
        level: of the interval.
    """
    present, codes, n_customers = _present(values, customers)
    if not len(present):
        return NO_ESTIMATE
    sums, counts = _by_customer(present, codes, n_customers)
    mean = float(sums.sum() / counts.sum())
    if n_customers < 2:
        return Estimate(mean, MISSING, MISSING, len(present), n_customers)
    if n_customers > MANY_CUSTOMERS:
        spread = np.sqrt(((sums - mean * counts) ** 2).sum() * n_customers / (n_customers - 1)) / counts.sum()
        half = normal_quantile(level) * float(spread)
        return Estimate(mean, mean - half, mean + half, len(present), n_customers)
    low, high = np.quantile(_means(sums, counts, n_boot, seed), [(1 - level) / 2, (1 + level) / 2])
    return Estimate(mean, float(low), float(high), len(present), n_customers)


def _present(values: npt.ArrayLike, customers: npt.ArrayLike) -> tuple[Floats, Ints, int]:
    """The finite values, and codes of their customers from 0 on without gaps."""
    numbers, ids = np.asarray(values, np.float64).reshape(-1), np.asarray(customers).reshape(-1)
    if len(numbers) != len(ids):
        raise DataError(f"{len(numbers)} figures and {len(ids)} customers: give one of each for every row")
    finite = np.isfinite(numbers)
    names, codes = np.unique(ids[finite], return_inverse=True)
    return numbers[finite], codes.astype(np.int64), len(names)


def _by_customer(values: Floats, codes: Ints, n_customers: int) -> tuple[Floats, Floats]:
    """(n_customers,) sums and counts of rows."""
    counts = np.bincount(codes, minlength=n_customers).astype(np.float64)
    return np.bincount(codes, values, n_customers).astype(np.float64, copy=False), counts


def _means(sums: Floats, counts: Floats, n_boot: int, seed: int) -> Floats:
    """(n_boot,) the mean of each bootstrap sample of customers."""
    rng = np.random.default_rng(seed)
    portion = max(1, CHUNK_CELLS // len(sums))
    means = []
    for first in range(0, n_boot, portion):
        drawn = rng.integers(len(sums), size=(min(portion, n_boot - first), len(sums)))
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    return np.concatenate(means)

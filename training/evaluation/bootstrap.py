"""Metrics with 95 % intervals, for any family of metrics: customers are resampled, rather than rows.

A customer often has several rows (one a cutoff) whose outcomes hang together, so rows are never resampled alone: each
replicate draws as many customers as there are, with replacement, and takes all their rows (cluster bootstrap,
percentile intervals). A replicate is thus a weight per customer, and a metric a weighted sum over rows sorted once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

LEVEL = 0.95
MOST_UNDEFINED = 0.1  # an interval from fewer than 90 % of the replicates would describe a favourable selection
CHUNK_CELLS = 200_000  # replicates × rows at a time: the arrays stay in the processor's cache


class MetricRows(Protocol):
    """Labels and predictions of some rows, and a family of metrics of them.

    Attributes:
        names: of the metrics.
        paired: those of them that two models are compared by.
        customer: (n,) which customer, 0 … n_customers − 1.
        n_customers: how many.
    """

    names: ClassVar[tuple[str, ...]]
    paired: ClassVar[tuple[str, ...]]

    @property
    def customer(self) -> Ints:
        """(n,) the customer of each row."""
        ...

    @property
    def n_customers(self) -> int:
        """How many customers."""
        ...

    def measure(self, weights: Floats) -> dict[str, Floats]:
        """All metrics for each replicate: weights (b, n_customers) -> (b,) each; NaN where one is not defined."""
        ...

    def summary(self, metrics: dict[str, float]) -> dict[str, float]:
        """Further figures of the rows, without an interval; `metrics` are those of all rows."""
        ...

    def counts(self) -> dict[str, float]:
        """`n_rows`, `n_customers` and further counts."""
        ...

    def other_intervals(self, n_boot: int, seed: int) -> dict[str, tuple[float, float]]:
        """Intervals of the metrics for which percentiles of replicates are none."""
        ...


def evaluate_rows(rows: MetricRows, *, n_boot: int = 500, seed: int = 0) -> dict[str, float]:
    """Every metric with `<name>_low` and `<name>_high`, and what it was measured on.

    Args:
        rows: labels and predictions.
        n_boot: replicates; 0 leaves the intervals out.
        seed: of the resampling.
    """
    everyone = np.ones((1, rows.n_customers))
    metrics = {name: float(values[0]) for name, values in rows.measure(everyone).items()}
    result = metrics | rows.summary(metrics)
    if n_boot:
        drawn = replicates(rows, n_boot=n_boot, seed=seed)
        intervals = {name: interval(drawn[name]) for name in rows.names} | rows.other_intervals(n_boot, seed)
        for name, (low, high) in intervals.items():
            result |= {f"{name}_low": low, f"{name}_high": high}
    return result | rows.counts()


def replicates(rows: MetricRows, *, n_boot: int, seed: int) -> dict[str, Floats]:
    """The metrics on `n_boot` resamplings of customers, (n_boot,) each; the same seed draws the same customers."""
    if rows.n_customers < 2:  # one customer drawn again and again is no sample
        return {name: np.full(n_boot, np.nan) for name in rows.names}
    drawn = draw_weights(rows.n_customers, len(rows.customer), n_boot, seed)
    chunks = [rows.measure(weights) for weights in drawn]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in rows.names}


def paired_differences(new: MetricRows, old: MetricRows, *, n_boot: int = 2000, seed: int = 0) -> dict[str, float]:
    """Differences new − old on the same rows, each replicate drawing the same customers for both.

    Returns:
        `<name>_difference`, `<name>_difference_low`, `<name>_difference_high` for the family's `paired` metrics, and
        the counts of rows.
    """
    everyone = np.ones((1, new.n_customers))
    points = new.measure(everyone), old.measure(everyone)
    draws = replicates(new, n_boot=n_boot, seed=seed), replicates(old, n_boot=n_boot, seed=seed)
    result: dict[str, float] = {}
    for name in new.paired:
        low, high = interval(draws[0][name] - draws[1][name])
        result[f"{name}_difference"] = float(points[0][name][0] - points[1][name][0])
        result |= {f"{name}_difference_low": low, f"{name}_difference_high": high}
    return result | new.counts()


def customer_codes(customers: npt.ArrayLike) -> tuple[Ints, int]:
    """(n,) int64 codes of customers in order of first appearance, and how many there are.

    Raises:
        DataError: rows without a customer.
    """
    codes, names = pd.factorize(np.asarray(customers).reshape(-1))
    if (missing := codes < 0).any():
        raise DataError(f"rows {np.flatnonzero(missing)[:3].tolist()} have no customer: leave them out or name them")
    return codes.astype(np.int64), len(names)


def draw_weights(n_customers: int, n_rows: int, n_boot: int, seed: int) -> Iterator[Floats]:
    """How often each customer was drawn: (replicates, n_customers), a portion at a time."""
    rng = np.random.default_rng(seed)
    portion = max(1, CHUNK_CELLS // max(n_rows, n_customers))
    for first in range(0, n_boot, portion):
        count = min(portion, n_boot - first)
        drawn = rng.integers(n_customers, size=(count, n_customers))
        flat = (drawn + np.arange(count)[:, None] * n_customers).ravel()
        yield np.bincount(flat, minlength=count * n_customers).reshape(count, n_customers).astype(np.float64)


def interval(draws: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of replicates; NaN where more than a tenth of them are undefined."""
    defined = draws[np.isfinite(draws)]
    if len(defined) < (1 - MOST_UNDEFINED) * len(draws) or not len(defined):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(defined, (tail, 1 - tail))
    return float(low), float(high)


def sums_by_customer(customer: Ints, values: Floats, n_customers: int) -> Floats:
    """(n_customers,) sums of row values."""
    return np.bincount(customer, values, n_customers).astype(np.float64, copy=False)


def require_equal_lengths(labels: Floats, predictions: Floats, customers: Ints) -> None:
    """Raise a `DataError` unless there is one of each for every row."""
    if not len(labels) == len(predictions) == len(customers):
        raise DataError(
            f"{len(labels)} labels, {len(predictions)} predictions and {len(customers)} customers: "
            "give one of each for every row"
        )

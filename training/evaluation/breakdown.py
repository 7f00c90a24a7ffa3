"""Metrics by kind of customer and by time, and whether the mean label moved between train and test.

>>> shift = base_rate_shift([1, 0] * 50, range(100), [1, 1, 1, 0] * 50, range(200, 400))
>>> shift.moved, round(shift.difference, 2)
(True, 0.25)
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from features.timestamps import DAY_US
from training.evaluation.bootstrap import customer_codes, draw_weights, interval
from training.evaluation.metrics import METRICS, check_labels, evaluate

MOST_PERIODS = 14
SPANS_DAYS = (1, 7, 14, 28, 91, 365)


def by_slice(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    customers: npt.ArrayLike,
    slices: npt.ArrayLike,
    *,
    n_boot: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Every metric for each value of a category, such as a tenure bucket or "one purchase".

    Args:
        y: (n,) labels.
        p: (n,) probabilities.
        customers: (n,) the customer of each row.
        slices: (n,) the category of each row; missing is a category of its own.
        n_boot: replicates for the intervals.
        seed: of the resampling.

    Returns:
        A row for each value that occurs, sorted: `slice`, `n_rows`, `n_positives`, `n_customers`, `base_rate`,
        `mean_prediction`, the metrics and their intervals; NaN where the slice does not define one.

    Raises:
        DataError: arrays of different lengths.
    """
    labels, scores, ids = np.asarray(y), np.asarray(p), np.asarray(customers)
    codes, names = pd.factorize(pd.Series(np.asarray(slices).reshape(-1)), sort=True)
    if len(codes) != len(labels):
        raise DataError(f"{len(labels)} labels and {len(codes)} slices: give one of each for every row")
    records = []
    for code in range(-1 if (codes < 0).any() else 0, len(names)):
        rows = codes == code
        figures = evaluate(labels[rows], scores[rows], ids[rows], n_boot=n_boot, seed=seed)
        records.append({"slice": names[code] if code >= 0 else "missing", **figures})
    table = pd.DataFrame(records)
    counts = ["n_rows", "n_positives", "n_customers"]
    front = ["slice", *counts, "base_rate", "mean_prediction"]
    rest = [name for metric in METRICS for name in (metric, f"{metric}_low", f"{metric}_high") if name in table]
    return table[front + rest].astype(dict.fromkeys(counts, np.int64))


def by_cutoff(
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    customers: npt.ArrayLike,
    cutoffs: npt.ArrayLike,
    *,
    n_boot: int = 200,
    seed: int = 0,
) -> pd.DataFrame:
    """Every metric over time: by cutoff where they are few, else by spans of equal length.

    Args:
        y: (n,) labels.
        p: (n,) probabilities.
        customers: (n,) the customer of each row.
        cutoffs: (n,) µs since 1970 UTC.
        n_boot: replicates for the intervals.
        seed: of the resampling.

    Returns:
        As `by_slice`, with `start` (UTC, naive) in place of `slice` and `days`, the length of the span (0: one cutoff).
    """
    when = np.asarray(cutoffs, dtype=np.int64).reshape(-1)
    days = span_days(when)
    midnight = when.min() - when.min() % DAY_US
    start = when if days == 0 else when - (when - midnight) % (days * DAY_US)
    table = by_slice(y, p, customers, start, n_boot=n_boot, seed=seed).rename(columns={"slice": "start"})
    table["start"] = table["start"].to_numpy(np.int64).view("datetime64[us]")
    table.insert(1, "days", days)
    return table


def span_days(cutoffs: npt.NDArray[np.int64]) -> int:
    """How long a period should be so that there are at most 14; 0 where there are so few cutoffs anyway."""
    if len(np.unique(cutoffs)) <= MOST_PERIODS:
        return 0
    spanned = float(cutoffs.max() - cutoffs.min()) / DAY_US
    fitting = [
        days for days in SPANS_DAYS if spanned / days < MOST_PERIODS - 1
    ]  # the first may start at midnight before
    return fitting[0] if fitting else int(np.ceil(spanned / (MOST_PERIODS - 2)))


@dataclass(frozen=True)
class BaseRateShift:
    """The share of positives in train and in test, and whether it surely moved.

    Attributes:
        train: share of positives.
        test: share of positives.
        difference: test − train.
        low: of the 95 % interval of the difference.
        high: likewise.
        moved: the interval leaves out 0.
        sentence: for the reviewer.
    """

    train: float
    test: float
    difference: float
    low: float
    high: float
    moved: bool
    sentence: str


def base_rate_shift(
    y_train: npt.ArrayLike,
    customers_train: npt.ArrayLike,
    y_test: npt.ArrayLike,
    customers_test: npt.ArrayLike,
    *,
    binary: bool = True,
    n_boot: int = 1000,
    seed: int = 0,
) -> BaseRateShift:
    """Did the mean label move? Customers are resampled over both sides at once: many have rows in train and in test.

    Args:
        y_train: (n,) labels.
        customers_train: (n,) the customer of each row.
        y_test: (m,) labels.
        customers_test: (m,) the same identifiers as in train where the customer is the same.
        binary: whether labels are 0 or 1, so that their mean is a share of positives.
        n_boot: replicates.
        seed: of the resampling.

    Raises:
        DataError: arrays of different lengths; other labels than 0 and 1 where they are `binary`.
    """
    train, test = (check_labels(y) if binary else np.asarray(y, np.float64).reshape(-1) for y in (y_train, y_test))
    both = np.concatenate([np.asarray(customers_train, dtype=object), np.asarray(customers_test, dtype=object)])
    codes, n_customers = customer_codes(both)
    if len(codes) != len(train) + len(test):
        raise DataError(f"{len(train) + len(test)} labels and {len(codes)} customers: give one of each for every row")
    sides = (codes[: len(train)], train), (codes[len(train) :], test)
    # (n_customers, 4): rows and positives in train, rows and positives in test
    sums = np.column_stack([np.bincount(side, w, n_customers) for side, y in sides for w in (np.ones(len(y)), y)])
    drawn = np.concatenate([weights @ sums for weights in draw_weights(n_customers, n_customers, n_boot, seed)])
    with np.errstate(divide="ignore", invalid="ignore"):
        low, high = interval(drawn[:, 3] / drawn[:, 2] - drawn[:, 1] / drawn[:, 0])
    rates = float(train.mean()), float(test.mean())
    moved = bool(low > 0 or high < 0)
    write = _shift_sentence if binary else _mean_shift_sentence
    return BaseRateShift(*rates, rates[1] - rates[0], low, high, moved, write(*rates, low, high, moved))


def _mean_shift_sentence(train: float, test: float, low: float, high: float, moved: bool) -> str:
    figures = (
        f"{train:.4g} in train, {test:.4g} in test (difference {test - train:+.4g}, 95% {low:+.4g} to {high:+.4g})"
    )
    verb = "moved" if moved else "did not surely move"
    return f"The mean label {verb}: {figures}.".replace("-", "−")


def _shift_sentence(train: float, test: float, low: float, high: float, moved: bool) -> str:
    figures = (
        f"{train:.1%} of rows are positive in train, {test:.1%} in test "
        f"(difference {test - train:+.1%}, 95% {low:+.1%} to {high:+.1%})"
    ).replace("-", "−")
    if not moved:
        return f"The base rate did not surely move: {figures}."
    too = "low" if test > train else "high"
    return (
        f"The base rate moved: {figures}. Probabilities calibrated on train will be too {too} on average, "
        f"unless the features explain the change: compare mean_prediction with base_rate."
    )

"""Curves as tables: ROC, precision and recall, lift, calibration; each with a 95 % band from resampling customers.

The first three are one walk down the rows from the highest prediction: positives and negatives passed so far. Across a
group of tied rows the walk is a straight line, the expected walk over their order; each curve reads it at a grid on its
own axis. So a table has at most 101 rows however many rows were evaluated.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.statistics import wilson
from training.evaluation.bootstrap import LEVEL, Floats, draw_weights
from training.evaluation.metrics import CALIBRATION_BINS, ProbabilityRows, tied_counts

GRID = np.linspace(0.0, 1.0, 101)


def roc_table(
    y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike, *, n_boot: int = 200, seed: int = 0
) -> pd.DataFrame:
    """`false_positive_rate` 0, .01 … 1 and `true_positive_rate` with `_low`, `_high`.

    Args:
        y: (n,) labels.
        p: (n,) probabilities.
        customers: (n,) the customer of each row.
        n_boot: replicates for the band; 0 leaves it out.
        seed: of the resampling.
    """

    def read(positives: Floats, negatives: Floats) -> Floats:
        return _share(_walk(negatives, positives, GRID * negatives[-1]), positives[-1])

    rows = ProbabilityRows.of(y, p, customers)
    return _table(rows, read, "false_positive_rate", "true_positive_rate", n_boot, seed)


def pr_table(
    y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike, *, n_boot: int = 200, seed: int = 0
) -> pd.DataFrame:
    """`recall` .01 … 1 and `precision` with `_low`, `_high`; arguments as `roc_table`."""

    def read(positives: Floats, negatives: Floats) -> Floats:
        hits = GRID[1:] * positives[-1]
        return _share(hits, hits + _walk(positives, negatives, hits, first=True))

    return _table(ProbabilityRows.of(y, p, customers), read, "recall", "precision", n_boot, seed, GRID[1:])


def lift_table(
    y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike, *, n_boot: int = 200, seed: int = 0
) -> pd.DataFrame:
    """`share` of rows .01 … 1, highest predictions first; `captured` of the positives and `lift`, both with bands."""

    def read(positives: Floats, negatives: Floats) -> Floats:
        counted = positives + negatives
        return _share(_walk(counted, positives, GRID[1:] * counted[-1]), positives[-1])

    table = _table(ProbabilityRows.of(y, p, customers), read, "share", "captured", n_boot, seed, GRID[1:])
    for end in ("", "_low", "_high"):
        if f"captured{end}" in table:
            table[f"lift{end}"] = table[f"captured{end}"] / table["share"]
    return table


def _share(part: Floats, of: Floats) -> Floats:
    return np.asarray(part / of, dtype=np.float64)


def _walk(x: Floats, y: Floats, places: Floats, first: bool = False) -> Floats:
    """Read the rising walk (x, y), which starts at (0, 0), at `places` values of x: (len(wanted),).

    Where the walk goes straight up, its highest point counts (the lowest with `first`).
    """
    xs, ys = np.concatenate(([0.0], x)), np.concatenate(([0.0], y))
    places = np.minimum(places, xs[-1])  # 0.29 × 100 rows may round to more rows than there are
    if first:
        after = np.clip(np.searchsorted(xs, places, side="left"), 1, len(xs) - 1)
    else:
        after = np.clip(np.searchsorted(xs, places, side="right"), 1, len(xs) - 1)
    before = after - 1
    width = xs[after] - xs[before]
    part = np.where(width > 0, (places - xs[before]) / np.where(width > 0, width, 1.0), 1.0)
    return np.asarray(ys[before] + part * (ys[after] - ys[before]))


def _table(
    rows: ProbabilityRows,
    read: Callable[[Floats, Floats], Floats],
    x: str,
    y: str,
    n_boot: int,
    seed: int,
    grid: Floats = GRID,
) -> pd.DataFrame:
    """The curve on its grid, and the band between the 2.5 and 97.5 percentiles of its replicates at each point."""
    table = pd.DataFrame({x: grid, y: _curves(rows, read, np.ones((1, rows.n_customers)))[0]})
    if n_boot and rows.n_customers > 1:
        portions = draw_weights(rows.n_customers, len(rows.y), n_boot, seed)
        drawn = np.concatenate([_curves(rows, read, weights) for weights in portions])
        drawn = drawn[np.isfinite(drawn).all(axis=1)]
        if len(drawn):
            tail = (1 - LEVEL) / 2
            table[f"{y}_low"], table[f"{y}_high"] = np.quantile(drawn, (tail, 1 - tail), axis=0)
    return table


def _curves(rows: ProbabilityRows, read: Callable[[Floats, Floats], Floats], weights: Floats) -> Floats:
    """(b, grid) the curve of each replicate; NaN for one without positives or without negatives."""
    positives, negatives = (counts.cumsum(axis=1) for counts in tied_counts(rows, weights))
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.stack([read(right, wrong) for right, wrong in zip(positives, negatives, strict=True)])


def calibration_table(y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike) -> pd.DataFrame:
    """Predicted against observed in bins of equal size, the bins of `calibration_error`.

    Returns:
        A row for each bin in use, predictions rising: `bin`, `rows`, `customers`, `predicted` (mean), `observed` (share
        of positives) with `observed_low`, `observed_high`: Wilson's interval (1927) on the number of rows that the bin
        is worth, which is fewer than it holds where customers come more than once (divided by the design effect).
    """
    rows = ProbabilityRows.of(y, p, customers)
    table = pd.DataFrame({"bin": rows.bins, "customer": rows.customer, "predicted": rows.p, "observed": rows.y})
    grouped = table.groupby("bin", sort=True)
    bins = grouped.agg(
        rows=("observed", "size"),
        customers=("customer", "nunique"),
        predicted=("predicted", "mean"),
        observed=("observed", "mean"),
    ).reset_index()
    worth = bins["rows"].to_numpy(np.float64) / _design_effect(rows)[bins["bin"].to_numpy()]
    bins["observed_low"], bins["observed_high"] = wilson(bins["observed"].to_numpy(np.float64) * worth, worth)
    return bins.sort_values("predicted", ignore_index=True).assign(bin=range(len(bins)))


def _design_effect(rows: ProbabilityRows) -> Floats:
    """(bins,) variance of the share of positives with customers kept whole ÷ the same with rows alone, 1 at least."""
    n = np.bincount(rows.bins, minlength=CALIBRATION_BINS)
    mean = np.bincount(rows.bins, rows.y, CALIBRATION_BINS) / np.maximum(n, 1)
    cell = rows.customer * CALIBRATION_BINS + rows.bins
    used, place = np.unique(cell, return_inverse=True)
    sums = np.bincount(place, rows.y - mean[rows.bins])
    by_customer = np.bincount(used % CALIBRATION_BINS, sums**2, CALIBRATION_BINS)
    by_row = n * mean * (1 - mean)
    ratio = np.divide(by_customer, by_row, out=np.ones(CALIBRATION_BINS), where=by_row > 0)
    return np.maximum(ratio, 1.0)

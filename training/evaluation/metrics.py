"""How good probabilities are: metrics of rows with labels 0 and 1, with intervals by resampling customers.

Definitions. Rows with equal predictions are tied; what depends on their order takes its expected value.
    auroc               share of (positive, negative) pairs that are ordered rightly, a tie counts half
    average_precision   sum over thresholds of (gain in recall) × precision, no interpolation
    brier, log_loss     mean squared error; mean negative log-likelihood, predictions kept 1e-15 away from 0 and 1
    calibration_error   mean over 10 bins of equal size of |mean prediction − share of positives|; chance alone makes
                        it positive, so `calibration_error_noise` and `calibration_error_debiased` stand beside it
    captured_at_10      share of all positives among the tenth of rows with the highest predictions
    lift_at_10          share of positives there, divided by the share of positives among all rows

>>> metrics = evaluate([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], ["ann", "bob", "cid", "dee"], n_boot=0)
>>> metrics["auroc"], metrics["base_rate"]
(0.75, 0.5)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from features.errors import DataError
from training.evaluation.bootstrap import (
    LEVEL,
    Floats,
    Ints,
    customer_codes,
    draw_weights,
    evaluate_rows,
    paired_differences,
    require_equal_lengths,
    sums_by_customer,
)

TOP_SHARES = {5: 0.05, 10: 0.10, 20: 0.20}
METRICS = (
    "auroc",
    "average_precision",
    "brier",
    "log_loss",
    "calibration_error",
    *(f"lift_at_{percent}" for percent in TOP_SHARES),
    *(f"captured_at_{percent}" for percent in TOP_SHARES),
)
PAIRED = ("auroc", "average_precision", "brier", "log_loss")
CALIBRATION_BINS = 10


@dataclass(frozen=True)
class ProbabilityRows:
    """Checked rows, highest prediction first, tied predictions grouped; `training.evaluation.bootstrap.MetricRows`.

    Attributes:
        y: (n,) 0.0 or 1.0.
        p: (n,) falling probabilities.
        customer: (n,) which customer, 0 … n_customers − 1.
        n_customers: how many.
        starts: (g,) the first row of each group of equal predictions.
        bins: (n,) which calibration bin, 0 … 9; tied rows share one.
    """

    names: ClassVar[tuple[str, ...]] = METRICS
    paired: ClassVar[tuple[str, ...]] = PAIRED

    y: Floats
    p: Floats
    customer: Ints
    n_customers: int
    starts: Ints
    bins: Ints

    @classmethod
    def of(cls, y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike) -> ProbabilityRows:
        """Check and sort.

        Raises:
            DataError: empty, unequal lengths, labels other than 0 and 1, predictions outside [0, 1] or NaN,
                rows without a customer.
        """
        labels, scores = check_labels(y), _checked_scores(p)
        codes, n_customers = customer_codes(customers)
        require_equal_lengths(labels, scores, codes)
        order = np.argsort(-scores, kind="stable")
        scores = scores[order]
        starts = np.flatnonzero(np.concatenate(([True], scores[1:] != scores[:-1])))
        return cls(labels[order], scores, codes[order], n_customers, starts, _equal_bins(starts, len(scores)))

    def measure(self, weights: Floats) -> dict[str, Floats]:
        """See `MetricRows`."""
        with np.errstate(divide="ignore", invalid="ignore"):  # a replicate of one class has 0 / 0: NaN, as documented
            return _ranked(*tied_counts(self, weights)) | _averaged(self, weights)

    def summary(self, metrics: dict[str, float]) -> dict[str, float]:
        """See `MetricRows`."""
        noise, error = calibration_noise(self), metrics["calibration_error"]
        return {
            "calibration_error_noise": noise,
            "calibration_error_debiased": float(np.sqrt(max(0.0, error**2 - noise**2))),
            "base_rate": float(self.y.mean()),
            "mean_prediction": float(self.p.mean()),
        }

    def counts(self) -> dict[str, float]:
        """See `MetricRows`."""
        counts = {"n_rows": len(self.y), "n_positives": int(self.y.sum()), "n_customers": self.n_customers}
        return {name: float(count) for name, count in counts.items()}

    def other_intervals(self, n_boot: int, seed: int) -> dict[str, tuple[float, float]]:
        """See `MetricRows`."""
        return {"calibration_error": _calibration_interval(self, n_boot, seed)}


def check_labels(y: npt.ArrayLike) -> Floats:
    """(n,) labels as 0.0 and 1.0; anything else is a DataError that shows the first offenders."""
    labels = np.asarray(y, dtype=np.float64).reshape(-1)
    if not len(labels):
        raise DataError("there are no rows to evaluate: check the cutoffs and the split")
    if (wrong := ~np.isin(labels, (0.0, 1.0))).any():
        where = np.flatnonzero(wrong)[:3]
        raise DataError(f"labels must be 0 or 1; rows {where.tolist()} hold {labels[where].tolist()}")
    return labels


def _checked_scores(p: npt.ArrayLike) -> Floats:
    scores = np.asarray(p, dtype=np.float64).reshape(-1)
    if (wrong := ~((scores >= 0) & (scores <= 1))).any():
        where = np.flatnonzero(wrong)[:3]
        raise DataError(
            f"predictions must be probabilities between 0 and 1; rows {where.tolist()} hold {scores[where].tolist()}"
        )
    return scores + 0.0  # −0.0 becomes 0.0, so the two are one group


def _equal_bins(starts: Ints, n: int, n_bins: int = CALIBRATION_BINS) -> Ints:
    """(n,) bin of each sorted row: bins of equal size, a group of tied rows goes where its middle lies."""
    ends = np.append(starts[1:], n)
    middle = (starts + ends) / (2 * n)
    return np.repeat((middle * n_bins).astype(np.int64), ends - starts)


def evaluate(
    y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike, *, n_boot: int = 500, seed: int = 0
) -> dict[str, float]:
    """Every metric of `METRICS` with `<name>_low` and `<name>_high`, and what they were measured on.

    Args:
        y: (n,) labels, 0 or 1.
        p: (n,) probabilities.
        customers: (n,) the customer of each row; a customer's rows are resampled together.
        n_boot: replicates; 0 leaves the intervals out.
        seed: of the resampling.

    Returns:
        The metrics; `calibration_error_noise`, what perfectly calibrated predictions would be expected to show on
        so few rows; `calibration_error_debiased`, the error without it; `base_rate`, `mean_prediction`, `n_rows`,
        `n_positives`, `n_customers`. A metric that the rows do not define is NaN (no positives: all but brier,
        log_loss and calibration_error); `remarks` says why.

    Raises:
        DataError: as `ProbabilityRows.of`.
    """
    return evaluate_rows(ProbabilityRows.of(y, p, customers), n_boot=n_boot, seed=seed)


def paired_bootstrap(
    y: npt.ArrayLike,
    p_new: npt.ArrayLike,
    p_old: npt.ArrayLike,
    customers: npt.ArrayLike,
    *,
    n_boot: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Differences new − old on the same rows, each replicate drawing the same customers for both.

    Args:
        y: (n,) labels.
        p_new: (n,) probabilities of the one model.
        p_old: (n,) probabilities of the other.
        customers: (n,) the customer of each row.
        n_boot: replicates.
        seed: of the resampling.

    Returns:
        `<name>_difference`, `<name>_difference_low`, `<name>_difference_high` for auroc, average_precision, brier,
        log_loss, and `n_rows`, `n_positives`, `n_customers`.
    """
    new, old = ProbabilityRows.of(y, p_new, customers), ProbabilityRows.of(y, p_old, customers)
    return paired_differences(new, old, n_boot=n_boot, seed=seed)


def tied_counts(rows: ProbabilityRows, weights: Floats) -> tuple[Floats, Floats]:
    """Weights (b, n_customers) -> positives and negatives in each group of tied rows, best first, (b, g) both."""
    counted = weights[:, rows.customer]  # (b, n)
    positives = counted * rows.y
    negatives = counted - positives
    if len(rows.starts) == len(rows.y):
        return positives, negatives
    return np.add.reduceat(positives, rows.starts, axis=1), np.add.reduceat(negatives, rows.starts, axis=1)


def _ranked(positives: Floats, negatives: Floats) -> dict[str, Floats]:
    """Metrics that only the order decides, from counts in groups of tied rows, best first, (b, g) both."""
    above, wrong = positives.cumsum(axis=1), negatives.cumsum(axis=1)
    n_positive, n_negative = above[:, -1], wrong[:, -1]
    n_positive = np.where(n_positive > 0, n_positive, np.nan)
    below = n_negative[:, None] - wrong + negatives / 2  # negatives ranked under each group, half of those tied with it
    precision = above / np.maximum(above + wrong, 1)
    metrics = {
        "auroc": np.einsum("bg,bg->b", positives, below) / (n_positive * n_negative),
        "average_precision": np.einsum("bg,bg->b", positives, precision) / n_positive,
    }
    for percent, share in TOP_SHARES.items():
        captured = reached(above, above + wrong, share) / n_positive
        metrics |= {f"captured_at_{percent}": captured, f"lift_at_{percent}": captured / share}
    return metrics


def reached(above: Floats, counted: Floats, share: float) -> Floats:
    """Positives among the first `share` of all rows, (b,): expected over the order of tied rows.

    Args:
        above: (b, g) positives up to and with each group.
        counted: (b, g) rows up to and with each group.
        share: of all rows; a broken number of rows counts the broken part of the last one.
    """
    n_first = share * counted[:, -1]
    group = np.minimum((counted < n_first[:, None]).sum(axis=1), counted.shape[1] - 1)
    each = np.arange(len(counted))
    before = np.where(group > 0, counted[each, group - 1], 0.0)
    above_before = np.where(group > 0, above[each, group - 1], 0.0)
    part = (n_first - before) / (counted[each, group] - before)
    return np.asarray(above_before + part * (above[each, group] - above_before))


def _averaged(rows: ProbabilityRows, weights: Floats) -> dict[str, Floats]:
    """Metrics that are sums over rows: summed by customer once, then weighted."""
    inner = np.clip(rows.p, 1e-15, 1 - 1e-15)
    loss = np.where(rows.y > 0, -np.log(inner), -np.log1p(-inner))
    n_rows = weights @ _by_customer(rows, np.ones(len(rows.y)))
    return {
        "brier": weights @ _by_customer(rows, (rows.p - rows.y) ** 2) / n_rows,
        "log_loss": weights @ _by_customer(rows, loss) / n_rows,
        "calibration_error": np.abs(weights @ _surplus(rows)).sum(axis=1) / n_rows,
    }


def _by_customer(rows: ProbabilityRows, values: Floats) -> Floats:
    return sums_by_customer(rows.customer, values, rows.n_customers)


def _surplus(rows: ProbabilityRows, residual: Floats | None = None) -> Floats:
    """(n_customers, bins) sum of prediction − label (or `residual`) of each customer in each bin."""
    values = rows.p - rows.y if residual is None else residual
    cell = rows.customer * CALIBRATION_BINS + rows.bins
    sums = np.bincount(cell, values, rows.n_customers * CALIBRATION_BINS).astype(np.float64, copy=False)
    return sums.reshape(-1, CALIBRATION_BINS)


def calibration_noise(rows: ProbabilityRows) -> float:
    """The calibration error that chance alone would show: sum over bins of E|gap| with a true gap of 0.

    The gap of a bin is about normal, so E|gap| = √(2/π) × its standard error, which is taken from the sums by customer.
    """
    residual = rows.p - rows.y
    counts = np.bincount(rows.bins, minlength=CALIBRATION_BINS)
    mean = np.bincount(rows.bins, residual, CALIBRATION_BINS) / np.maximum(counts, 1)
    spread = np.sqrt((_surplus(rows, residual - mean[rows.bins]) ** 2).sum(axis=0))  # (bins,)
    return float(np.sqrt(2 / np.pi) * spread.sum() / len(residual))


def _calibration_interval(rows: ProbabilityRows, n_boot: int, seed: int) -> tuple[float, float]:
    """An interval for the calibration error without noise: which true gaps could have shown the error that was seen?

    Resampling adds its own noise to absolute values, so plain percentiles lie too high and never reach 0. Here the true
    gaps of the bins are taken to be s times those seen, and the errors that they would show come from the resampled
    deviations; s is possible where the error seen lies within the middle 95 % of them (a test, inverted). On simulated
    customers the interval held the true error 89 to 96 times of 100, plain percentiles hardly ever.
    """
    if rows.n_customers < 2:
        return float("nan"), float("nan")
    surplus, counts = _surplus(rows), _by_customer(rows, np.ones(len(rows.y)))
    gaps = surplus.sum(axis=0) / len(rows.y)  # (bins,) each weighted by the share of its bin
    draws = draw_weights(rows.n_customers, len(rows.y), n_boot, seed)
    moved = np.concatenate([weights @ surplus / (weights @ counts)[:, None] for weights in draws]) - gaps  # (b, bins)
    error, most = float(np.abs(gaps).sum()), float(np.abs(moved).sum(axis=1).max())
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    sizes = np.linspace(0, error + most, 101)  # true errors to try
    shape = gaps / error if error > 0 else np.full(len(gaps), 1 / len(gaps))
    bounds = np.array([np.quantile(np.abs(size * shape + moved).sum(axis=1), tails) for size in sizes])
    possible = sizes[(bounds[:, 0] <= error) & (error <= bounds[:, 1])]
    # No error is smaller than the overall gap between mean prediction and base rate: nor is the upper limit.
    overall = float(np.abs(gaps.sum() + np.quantile(moved.sum(axis=1), tails)).max())
    return float(min([*possible, error])), float(max([*possible, error, overall]))


def remarks(y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike) -> list[str]:
    """Sentences on the limits of metrics of these rows; empty where there are none."""
    rows = ProbabilityRows.of(y, p, customers)
    n, n_positive = len(rows.y), int(rows.y.sum())
    texts = []
    if n_positive in (0, n):
        texts.append(f"All {n:,} labels are {int(rows.y[0])}: no metric that ranks rows is defined.")
    elif min(n_positive, n - n_positive) < 30:
        texts.append(f"Only {min(n_positive, n - n_positive)} rows of the rarer class: the intervals are rough.")
    if len(rows.starts) == 1 and n > 1:
        texts.append(f"All {n:,} predictions are {rows.p[0]:.4g}: nothing is ranked, AUROC is ½ by definition.")
    if rows.n_customers < 30:
        texts.append(f"Only {rows.n_customers} customers: intervals from resampling them are too narrow.")
    return texts

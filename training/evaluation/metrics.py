"""How good probabilities are: every metric with a 95 % interval, by resampling customers rather than rows.

A customer often has several rows (one a cutoff) whose outcomes hang together, so rows are never resampled alone: each
replicate draws as many customers as there are, with replacement, and takes all their rows (cluster bootstrap,
percentile intervals). A replicate is thus a weight per customer, and a metric a weighted sum over rows sorted once.

Definitions. Rows with equal predictions are tied; what depends on their order takes its expected value.
    auroc               share of (positive, negative) pairs that are ordered rightly, a tie counts half
    average_precision   sum over thresholds of (gain in recall) × precision, no interpolation
    brier, log_loss     mean squared error; mean negative log-likelihood, predictions kept 1e-15 away from 0 and 1
    calibration_error   mean over 10 bins of equal size of |mean prediction − share of positives|; chance alone makes
                        it positive, so `calibration_error_noise` and `calibration_error_debiased` stand beside it
    captured_at_10      share of all positives among the tenth of rows with the highest predictions
    lift_at_10          share of positives there, divided by the share of positives among all rows

>>> figures = evaluate([0, 0, 1, 1], [0.1, 0.4, 0.35, 0.8], ["ann", "bob", "cid", "dee"], n_boot=0)
>>> figures["auroc"], figures["base_rate"]
(0.75, 0.5)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

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
LOWER_IS_BETTER = frozenset({"brier", "log_loss", "calibration_error"})
PAIRED = ("auroc", "average_precision", "brier", "log_loss")
CALIBRATION_BINS = 10
LEVEL = 0.95
MOST_UNDEFINED = 0.1  # an interval from fewer than 90 % of the replicates would be one of luckier samples
CHUNK_CELLS = 200_000  # replicates × rows at a time: the arrays stay in the processor's cache


@dataclass(frozen=True)
class Rows:
    """Checked rows, highest prediction first, tied predictions grouped.

    Attributes:
        y: (n,) 0.0 or 1.0.
        p: (n,) falling probabilities.
        customer: (n,) which customer, 0 … n_customers − 1.
        starts: (g,) the first row of each group of equal predictions.
        bins: (n,) which calibration bin, 0 … 9; tied rows share one.
    """

    y: Floats
    p: Floats
    customer: Ints
    n_customers: int
    starts: Ints
    bins: Ints

    @classmethod
    def of(cls, y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike) -> Rows:
        """Check and sort.

        Raises:
            DataError: empty, unequal lengths, labels other than 0 and 1, predictions outside [0, 1] or NaN,
                rows without a customer.
        """
        labels, scores = check_labels(y), _checked_scores(p)
        codes, n_customers = customer_codes(customers)
        if not len(labels) == len(scores) == len(codes):
            raise DataError(
                f"{len(labels)} labels, {len(scores)} predictions and {len(codes)} customers: "
                "give one of each for every row"
            )
        order = np.argsort(-scores, kind="stable")
        scores = scores[order]
        starts = np.flatnonzero(np.concatenate(([True], scores[1:] != scores[:-1])))
        return cls(labels[order], scores, codes[order], n_customers, starts, _equal_bins(starts, len(scores)))


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


def customer_codes(customers: npt.ArrayLike) -> tuple[Ints, int]:
    """(n,) int64 codes of customers in order of first appearance, and how many there are.

    Raises:
        DataError: rows without a customer.
    """
    codes, names = pd.factorize(np.asarray(customers).reshape(-1))
    if (missing := codes < 0).any():
        raise DataError(f"rows {np.flatnonzero(missing)[:3].tolist()} have no customer: leave them out or name them")
    return codes.astype(np.int64), len(names)


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
        customers: (n,) who each row belongs to; their rows are resampled together.
        n_boot: replicates; 0 leaves the intervals out.
        seed: of the resampling.

    Returns:
        The metrics; `calibration_error_noise`, what perfectly calibrated predictions would be expected to show on
        so few rows; `calibration_error_debiased`, the error without it; `base_rate`, `mean_prediction`, `n_rows`,
        `n_positives`, `n_customers`. A metric that the rows do not define is NaN (no positives: all but brier,
        log_loss and calibration_error); `remarks` says why.

    Raises:
        DataError: as `Rows.of`.
    """
    rows = Rows.of(y, p, customers)
    figures = {name: float(values[0]) for name, values in _measure(rows, np.ones((1, rows.n_customers))).items()}
    noise = calibration_noise(rows)
    figures["calibration_error_noise"] = noise
    figures["calibration_error_debiased"] = float(np.sqrt(max(0.0, figures["calibration_error"] ** 2 - noise**2)))
    if n_boot:
        drawn = replicates(rows, n_boot=n_boot, seed=seed)
        for name in METRICS:
            low, high = (
                interval(drawn[name]) if name != "calibration_error" else _calibration_interval(rows, n_boot, seed)
            )
            figures |= {f"{name}_low": low, f"{name}_high": high}
    return figures | {
        "base_rate": float(rows.y.mean()),
        "mean_prediction": float(rows.p.mean()),
        "n_rows": float(len(rows.y)),
        "n_positives": float(rows.y.sum()),
        "n_customers": float(rows.n_customers),
    }


def replicates(rows: Rows, *, n_boot: int, seed: int) -> dict[str, Floats]:
    """The metrics on `n_boot` resamplings of customers, (n_boot,) each; the same seed draws the same customers."""
    if rows.n_customers < 2:  # one customer drawn again and again is no sample
        return {name: np.full(n_boot, np.nan) for name in METRICS}
    chunks = [_measure(rows, weights) for weights in draw_weights(rows.n_customers, len(rows.y), n_boot, seed)]
    return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in METRICS}


def draw_weights(n_customers: int, n_rows: int, n_boot: int, seed: int) -> Iterator[Floats]:
    """How often each customer was drawn: (replicates, n_customers), a portion at a time."""
    rng = np.random.default_rng(seed)
    portion = max(1, CHUNK_CELLS // max(n_rows, n_customers))
    for first in range(0, n_boot, portion):
        count = min(portion, n_boot - first)
        drawn = rng.integers(n_customers, size=(count, n_customers))
        flat = (drawn + np.arange(count)[:, None] * n_customers).ravel()
        yield np.bincount(flat, minlength=count * n_customers).reshape(count, n_customers).astype(np.float64)


def _measure(rows: Rows, weights: Floats) -> dict[str, Floats]:
    """All metrics for each replicate: weights (b, n_customers) -> (b,) each."""
    with np.errstate(divide="ignore", invalid="ignore"):  # a replicate of one class has 0 / 0: NaN, as documented
        return _ranked(*tied_counts(rows, weights)) | _averaged(rows, weights)


def tied_counts(rows: Rows, weights: Floats) -> tuple[Floats, Floats]:
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
    found = {
        "auroc": np.einsum("bg,bg->b", positives, below) / (n_positive * n_negative),
        "average_precision": np.einsum("bg,bg->b", positives, precision) / n_positive,
    }
    for percent, share in TOP_SHARES.items():
        captured = reached(above, above + wrong, share) / n_positive
        found |= {f"captured_at_{percent}": captured, f"lift_at_{percent}": captured / share}
    return found


def reached(above: Floats, counted: Floats, share: float) -> Floats:
    """Positives among the first `share` of all rows, (b,): expected over the order of tied rows.

    Args:
        above: (b, g) positives up to and with each group.
        counted: (b, g) rows up to and with each group.
        share: of all rows; a broken number of rows counts the broken part of the last one.
    """
    wanted = share * counted[:, -1]
    group = np.minimum((counted < wanted[:, None]).sum(axis=1), counted.shape[1] - 1)
    each = np.arange(len(counted))
    before = np.where(group > 0, counted[each, group - 1], 0.0)
    above_before = np.where(group > 0, above[each, group - 1], 0.0)
    part = (wanted - before) / (counted[each, group] - before)
    return np.asarray(above_before + part * (above[each, group] - above_before))


def _averaged(rows: Rows, weights: Floats) -> dict[str, Floats]:
    """Metrics that are sums over rows: summed by customer once, then weighted."""
    kept = np.clip(rows.p, 1e-15, 1 - 1e-15)
    loss = np.where(rows.y > 0, -np.log(kept), -np.log1p(-kept))
    n_rows = weights @ _by_customer(rows, np.ones(len(rows.y)))
    return {
        "brier": weights @ _by_customer(rows, (rows.p - rows.y) ** 2) / n_rows,
        "log_loss": weights @ _by_customer(rows, loss) / n_rows,
        "calibration_error": np.abs(weights @ _surplus(rows)).sum(axis=1) / n_rows,
    }


def _by_customer(rows: Rows, values: Floats) -> Floats:
    return np.bincount(rows.customer, values, rows.n_customers).astype(np.float64, copy=False)


def _surplus(rows: Rows, residual: Floats | None = None) -> Floats:
    """(n_customers, bins) sum of prediction − label (or `residual`) of each customer in each bin."""
    values = rows.p - rows.y if residual is None else residual
    cell = rows.customer * CALIBRATION_BINS + rows.bins
    sums = np.bincount(cell, values, rows.n_customers * CALIBRATION_BINS).astype(np.float64, copy=False)
    return sums.reshape(-1, CALIBRATION_BINS)


def calibration_noise(rows: Rows) -> float:
    """The calibration error that chance alone would show: sum over bins of E|gap| with a true gap of 0.

    The gap of a bin is about normal, so E|gap| = √(2/π) × its standard error, which is taken from the sums by customer.
    """
    residual = rows.p - rows.y
    counts = np.bincount(rows.bins, minlength=CALIBRATION_BINS)
    mean = np.bincount(rows.bins, residual, CALIBRATION_BINS) / np.maximum(counts, 1)
    spread = np.sqrt((_surplus(rows, residual - mean[rows.bins]) ** 2).sum(axis=0))  # (bins,)
    return float(np.sqrt(2 / np.pi) * spread.sum() / len(residual))


def _calibration_interval(rows: Rows, n_boot: int, seed: int) -> tuple[float, float]:
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
    seen, most = float(np.abs(gaps).sum()), float(np.abs(moved).sum(axis=1).max())
    tails = (1 - LEVEL) / 2, (1 + LEVEL) / 2
    sizes = np.linspace(0, seen + most, 101)  # true errors to try
    shape = gaps / seen if seen > 0 else np.full(len(gaps), 1 / len(gaps))
    bounds = np.array([np.quantile(np.abs(size * shape + moved).sum(axis=1), tails) for size in sizes])
    possible = sizes[(bounds[:, 0] <= seen) & (seen <= bounds[:, 1])]
    # No error is smaller than the overall gap between mean prediction and base rate: nor is the upper limit.
    overall = float(np.abs(gaps.sum() + np.quantile(moved.sum(axis=1), tails)).max())
    return float(min([*possible, seen])), float(max([*possible, seen, overall]))


def interval(draws: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The percentile interval of replicates; NaN where more than a tenth of them are undefined."""
    defined = draws[np.isfinite(draws)]
    if len(defined) < (1 - MOST_UNDEFINED) * len(draws) or not len(defined):
        return float("nan"), float("nan")
    tail = (1 - level) / 2
    low, high = np.quantile(defined, (tail, 1 - tail))
    return float(low), float(high)


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
        customers: (n,) who each row belongs to.
        n_boot: replicates.
        seed: of the resampling.

    Returns:
        `<name>_difference`, `<name>_difference_low`, `<name>_difference_high` for auroc, average_precision, brier,
        log_loss, and `n_rows`, `n_positives`, `n_customers`.
    """
    new, old = Rows.of(y, p_new, customers), Rows.of(y, p_old, customers)
    everyone = np.ones((1, new.n_customers))
    points = _measure(new, everyone), _measure(old, everyone)
    draws = replicates(new, n_boot=n_boot, seed=seed), replicates(old, n_boot=n_boot, seed=seed)
    found: dict[str, float] = {}
    for name in PAIRED:
        low, high = interval(draws[0][name] - draws[1][name])
        found[f"{name}_difference"] = float(points[0][name][0] - points[1][name][0])
        found |= {f"{name}_difference_low": low, f"{name}_difference_high": high}
    counts = {"n_rows": len(new.y), "n_positives": int(new.y.sum()), "n_customers": new.n_customers}
    return found | {name: float(count) for name, count in counts.items()}


def remarks(y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike) -> list[str]:
    """Sentences on what to mind when reading the figures of these rows; empty when there is nothing."""
    rows = Rows.of(y, p, customers)
    n, n_positive = len(rows.y), int(rows.y.sum())
    said = []
    if n_positive in (0, n):
        said.append(f"All {n:,} labels are {int(rows.y[0])}: no metric that ranks rows is defined.")
    elif min(n_positive, n - n_positive) < 30:
        said.append(f"Only {min(n_positive, n - n_positive)} rows of the rarer class: the intervals are rough.")
    if len(rows.starts) == 1 and n > 1:
        said.append(f"All {n:,} predictions are {rows.p[0]:.4g}: nothing is ranked, AUROC is ½ by definition.")
    if rows.n_customers < 30:
        said.append(f"Only {rows.n_customers} customers: intervals from resampling them are too narrow.")
    return said

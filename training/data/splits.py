"""Validation folds inside train: customers apart and later cutoffs, and what the horizons still share.

On Online Retail one and the same LightGBM showed a validation AUROC of .956 on random rows, .870 on later rows of the
same customers, .773 on later rows of other customers; the test rows gave .753. So there is one kind of fold here.

Every fold parts time at the same moment. Its check rows are one group of customers from that moment on, its train rows
the other groups before it: together the folds check every later row once, and their predictions can be pooled. Folds
are *closed* where the label window of each train row ends before the first check cutoff. Where that would cost too many
rows, label windows may reach into the checked time, and `OverlapReport` says how far: no customer is on both sides, but
a common shock in the shared weeks (a season, a campaign) is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import ConfigError, DataError
from features.journeys.holdout import Ints, Slice, moment_for_share, slice_at, stable_groups

Horizons = Literal["auto", "closed", "overlapping"]


@dataclass(frozen=True)
class OverlapReport:
    """How far the label windows of a fold's train rows reach into the time of its check rows.

    Attributes:
        since: µs since 1970 UTC, the first check cutoff is at or after it.
        rows: train rows.
        overlapping: those whose label window reaches past `since`.
        mean_share: of the horizon that lies past `since`, mean over the overlapping rows; 0 if there are none.
        largest_share: the same, of the row that reaches furthest.
        closed_rows: how many train rows closed folds would have left.
    """

    since: int
    rows: int
    overlapping: int
    mean_share: float
    largest_share: float
    closed_rows: int

    @property
    def sentence(self) -> str:
        """For the reviewer."""
        moment = _moment(self.since)
        if not self.overlapping:
            return f"Closed: the label windows of all {self.rows:,} train rows end before checking starts on {moment}."
        return (
            f"Overlapping horizons: {self.overlapping:,} of {self.rows:,} train rows have label windows reaching past "
            f"{moment}, where checking starts, by {self.mean_share:.0%} of the horizon on average and at most "
            f"{self.largest_share:.0%}. Customers are apart, but both sides share what happened to everyone then. "
            f"Closed folds would have left {self.closed_rows:,} train rows."
        )


@dataclass(frozen=True)
class Fold:
    """Rows to train on and rows to check on: other customers, later cutoffs.

    Attributes:
        name: stable, such as `fold_1`.
        train: (a,) row indices, rising.
        check: (b,) row indices, rising.
        overlap: what the label windows of `train` share with the time of `check`.
    """

    name: str
    train: Ints
    check: Ints
    overlap: OverlapReport


def make_folds(
    customers: npt.ArrayLike,
    cutoffs: npt.ArrayLike,
    horizon_us: int,
    *,
    labels: npt.ArrayLike | None = None,
    n_folds: int = 3,
    later_share: float = 0.35,
    seed: int = 0,
    horizons: Horizons = "auto",
    enough_share: float = 0.5,
    fewest_train: int = 100,
    fewest_check: int = 20,
) -> list[Fold]:
    """Folds of rows by customer and time.

    Args:
        customers: (n,) identifiers.
        cutoffs: (n,) µs since 1970 UTC.
        horizon_us: length of the label window.
        labels: (n,) 0 or 1; if given, each side of each fold needs enough of both.
        n_folds: groups of customers; each fold holds one out.
        later_share: of the rows, those to check on; the nearest share that whole cutoffs allow.
        seed: of the grouping of customers.
        horizons: "closed" or "overlapping", or "auto": closed if enough rows remain.
        enough_share: what "enough" is: the share of the earlier rows that closed folds keep, in every fold.
        fewest_train: positives, negatives (rows without `labels`) that the train side of a fold needs.
        fewest_check: the same for the check side.

    Raises:
        ConfigError: settings out of range.
        DataError: too few rows, positives or negatives; one cutoff only.
    """
    when = np.asarray(cutoffs, dtype=np.int64).reshape(-1)
    groups = stable_groups(customers, n_folds, seed)
    y = None if labels is None else np.asarray(labels, dtype=np.float64).reshape(-1)
    _check(len(groups), when, y, horizon_us, horizons)
    since = moment_for_share(when, later_share)
    overlapping = [slice_at(groups, when, group, since) for group in range(n_folds)]
    closed = [slice_at(groups, when, group, since, horizon_us) for group in range(n_folds)]
    enough = all(
        len(few.fit) >= enough_share * len(many.fit) and _fewest(few.fit, y) >= fewest_train
        for few, many in zip(closed, overlapping, strict=True)
    )
    chosen = closed if horizons == "closed" or (horizons == "auto" and enough) else overlapping
    _check_counts(chosen, y, fewest_train, fewest_check)
    return [
        Fold(f"fold_{part.group + 1}", part.fit, part.later, _overlap(when[part.fit], since, horizon_us, len(few.fit)))
        for part, few in zip(chosen, closed, strict=True)
    ]


def _check(n: int, when: Ints, y: npt.NDArray[np.float64] | None, horizon_us: int, horizons: str) -> None:
    if len(when) != n or (y is not None and len(y) != n):
        raise DataError(f"{n} customers, {len(when)} cutoffs, {n if y is None else len(y)} labels: one of each a row")
    if horizon_us <= 0:
        raise ConfigError(f"a horizon of {horizon_us} µs is no window: give a positive one")
    if horizons not in ("auto", "closed", "overlapping"):
        raise ConfigError(f"horizons = {horizons!r}: choose auto, closed or overlapping")


def _fewest(rows: Ints, y: npt.NDArray[np.float64] | None) -> int:
    """How many of the rarer class are among `rows`, or how many rows where there are no labels."""
    if y is None:
        return len(rows)
    positives = int(y[rows].sum())
    return min(positives, len(rows) - positives)


def _check_counts(
    slices: Sequence[Slice], y: npt.NDArray[np.float64] | None, fewest_train: int, fewest_check: int
) -> None:
    noun = "rows" if y is None else "rows of the rarer class"
    for part in slices:
        for side, rows, fewest in (("train", part.fit, fewest_train), ("check", part.later, fewest_check)):
            if (count := _fewest(rows, y)) < fewest:
                raise DataError(
                    f"fold {part.group + 1} of {len(slices)} has {count:,} {noun} to {side} on "
                    f"({len(rows):,} rows in all, checking starts on {_moment(part.since)}) and needs {fewest:,}: "
                    f"label more cutoffs or customers, take fewer folds, or lower fewest_{side}"
                )


def _overlap(cutoffs: Ints, since: int, horizon_us: int, closed_rows: int) -> OverlapReport:
    past = np.clip(
        (cutoffs + horizon_us - since) / horizon_us, 0.0, 1.0
    )  # (a,) share of each label window past `since`
    overlapping = past[past > 0]
    mean, largest = (float(overlapping.mean()), float(overlapping.max())) if len(overlapping) else (0.0, 0.0)
    return OverlapReport(since, len(cutoffs), len(overlapping), mean, largest, closed_rows)


def _moment(since: int) -> str:
    return str(pd.Timestamp(since, unit="us").strftime("%Y-%m-%d %H:%M UTC"))


def overlap_sentence(folds: Sequence[Fold]) -> str:
    """One sentence for all folds of `make_folds`: they differ by a few rows only, so counts are summed.

    Raises:
        ConfigError: there are no folds.
    """
    if not folds:
        raise ConfigError("there are no folds to report on")
    parts = [fold.overlap for fold in folds]
    overlapping = sum(part.overlapping for part in parts)
    mean = sum(part.overlapping * part.mean_share for part in parts) / max(overlapping, 1)
    rows, closed = sum(part.rows for part in parts), sum(part.closed_rows for part in parts)
    largest = max(part.largest_share for part in parts)
    everything = OverlapReport(parts[0].since, rows, overlapping, mean, largest, closed)
    return f"{len(folds)} folds, rows counted over all of them. {everything.sentence}"

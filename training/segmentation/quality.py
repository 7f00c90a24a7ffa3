"""The predictive value of segments: their rates against those of RFM cells of the same number, on held-out time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from sklearn.metrics import log_loss

from features.journeys.journeys import Snapshots
from models.segments.insight.profiles import summarise_rows
from training.evaluation.metrics import paired_bootstrap

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PRIOR_ROWS = 20.0  # rows at the overall rate that are added to each cell


class RFMCells:
    """Cells of recency, frequency and money by quantiles of training rows.

    The product of the three numbers of quantiles is as large as possible within the number of cells, then as even as
    possible, recency first: 5 cells are 5 × 1 × 1, 4 cells 2 × 2 × 1.

    Args:
        cells: at most so many.
    """

    def __init__(self, cells: int) -> None:
        self.parts = _parts(cells)

    def fit(self, snapshots: Snapshots) -> RFMCells:
        """Learn the quantiles from (n,) rows."""
        self.cuts_ = [
            np.unique(np.quantile(values, np.linspace(0, 1, parts + 1)[1:-1]))
            for values, parts in zip(_rfm(snapshots), self.parts, strict=True)
        ]
        return self

    def assign(self, snapshots: Snapshots) -> Ints:
        """(n,) numbers of cells."""
        place = np.zeros(len(snapshots), np.int64)
        for values, cuts, parts in zip(_rfm(snapshots), self.cuts_, self.parts, strict=True):
            place = place * parts + np.searchsorted(cuts, values, side="right")
        return place


def cell_rates(place_train: npt.ArrayLike, y_train: npt.ArrayLike, place: npt.ArrayLike) -> Floats:
    """(n,) the training rate of each row's cell, shrunk towards the overall rate in small cells.

    Args:
        place_train: (m,) cells of training rows, from −1 on.
        y_train: (m,) their labels.
        place: (n,) cells of the rows to predict.
    """
    cells, y = np.asarray(place_train, np.int64) + 1, np.asarray(y_train, np.float64)
    rows_cells = np.asarray(place, np.int64) + 1
    size = int(max(cells.max(initial=0), rows_cells.max(initial=0))) + 1
    hits, rows = np.bincount(cells, y, minlength=size), np.bincount(cells, minlength=size)
    rates = (hits + PRIOR_ROWS * y.mean()) / (rows + PRIOR_ROWS)
    return np.asarray(rates[rows_cells])


def predictive_value(
    segment_train: npt.ArrayLike,
    segment_test: npt.ArrayLike,
    n_segments: int,
    train: Snapshots,
    y_train: npt.ArrayLike,
    test: Snapshots,
    y_test: npt.ArrayLike,
    *,
    seed: int = 0,
) -> dict[str, float]:
    """Log loss of predicting a label from the segment alone, and from RFM cells of the same number.

    Args:
        segment_train: (m,) places of training rows, −1 for none.
        segment_test: (n,) places of held-out rows.
        n_segments: how many there are.
        train: (m,) rows.
        y_train: their labels.
        test: (n,) rows of later cutoffs.
        y_test: their labels.
        seed: of the bootstrap over customers.

    Returns:
        `log_loss_segment, log_loss_rfm_cells, log_loss_difference` (segment − RFM; below 0 is better) with its 95 %
        interval, and the two AUROCs.
    """
    cells = RFMCells(n_segments).fit(train)
    p = cell_rates(segment_train, y_train, segment_test)
    q = cell_rates(cells.assign(train), y_train, cells.assign(test))
    y = np.asarray(y_test, np.float64)
    paired = paired_bootstrap(y, p, q, test.customer_ids, n_boot=1000, seed=seed)
    losses = {"log_loss_segment": log_loss(y, p, labels=[0, 1]), "log_loss_rfm_cells": log_loss(y, q, labels=[0, 1])}
    return {name: float(value) for name, value in losses.items()} | {
        name: value for name, value in paired.items() if name.startswith(("log_loss", "auroc"))
    }


def _rfm(snapshots: Snapshots) -> tuple[Floats, Floats, Floats]:
    figures = summarise_rows(snapshots)
    return np.nan_to_num(figures.recency_days, nan=1e6), figures.active_days, np.nan_to_num(figures.value)


def _parts(cells: int) -> tuple[int, int, int]:
    """Numbers of quantiles: the largest product up to `cells`, then the most even."""
    options = [
        (r, f, m)
        for r in range(1, cells + 1)
        for f in range(1, cells // r + 1)
        for m in range(1, cells // (r * f) + 1)
        if r >= f >= m
    ]
    return max(options, key=lambda parts: (parts[0] * parts[1] * parts[2], -max(parts)))

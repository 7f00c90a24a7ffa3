"""Does a segment tell something about what comes? Its id against RFM cells of the same number, on held-out time."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import Snapshots
from models.segments.insight.profiles import summarise_rows
from training.evaluation.metrics import paired_bootstrap

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
PRIOR_ROWS = 20.0  # so many rows with everybody's rate are added to each cell


class RFMCells:
    """Cells of recency, frequency and money by quantiles of training rows, about as many as asked for.

    The numbers of quantiles are as even as their product allows without exceeding the number of cells, recency first:
    5 cells are 5 × 1 × 1 or 2 × 2 × 1, whichever has more cells.

    Args:
        cells: how many at most.
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
    """(n,) the training rate of each row's cell, drawn towards everybody's where the cell is small.

    Args:
        place_train: (m,) cells of training rows, from −1 on.
        y_train: (m,) their labels.
        place: (n,) cells of the rows to predict.
    """
    cells, y = np.asarray(place_train, np.int64) + 1, np.asarray(y_train, np.float64)
    wanted = np.asarray(place, np.int64) + 1
    size = int(max(cells.max(initial=0), wanted.max(initial=0))) + 1
    hits, rows = np.bincount(cells, y, minlength=size), np.bincount(cells, minlength=size)
    rates = (hits + PRIOR_ROWS * y.mean()) / (rows + PRIOR_ROWS)
    return np.asarray(rates[wanted])


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
    told = {"log_loss_segment": _log_loss(y, p), "log_loss_rfm_cells": _log_loss(y, q)}
    return told | {name: value for name, value in paired.items() if name.startswith(("log_loss", "auroc"))}


def _log_loss(y: Floats, p: Floats) -> float:
    return float(-np.mean(np.where(y > 0, np.log(p), np.log1p(-p))))


def _rfm(snapshots: Snapshots) -> tuple[Floats, Floats, Floats]:
    figures = summarise_rows(snapshots)
    known = np.nan_to_num(figures.recency_days, nan=np.inf), figures.active_days, np.nan_to_num(figures.value)
    recency = np.where(np.isinf(known[0]), 1e6, known[0])
    return recency, known[1], known[2]


def _parts(cells: int) -> tuple[int, int, int]:
    """The most even division whose product is the largest up to `cells`."""
    options = [
        (r, f, m)
        for r in range(1, cells + 1)
        for f in range(1, cells // r + 1)
        for m in range(1, cells // (r * f) + 1)
        if r >= f >= m
    ]
    return max(options, key=lambda parts: (parts[0] * parts[1] * parts[2], -max(parts)))

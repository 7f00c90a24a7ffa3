"""Which training rows a model keeps back to choose and to calibrate by: the late ones, of customers left out."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.journeys.holdout import moment_for_share


def late_rows(cutoffs: npt.NDArray[np.int64], share: float) -> npt.NDArray[np.bool_]:
    """(n,) which rows are among the latest; all of them where there is one cutoff only."""
    if cutoffs.min() == cutoffs.max():
        return np.ones(len(cutoffs), dtype=bool)
    return np.asarray(cutoffs >= moment_for_share(cutoffs, share))


def both_classes(y: npt.NDArray[np.float64]) -> bool:
    """Whether there are zeros and ones among (n,) labels."""
    return len(y) > 0 and bool(y.min() != y.max())

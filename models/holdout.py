"""The training rows that stop and calibrate a model: late rows of customers whom it did not learn from."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.journeys.holdout import moment_for_share, stable_groups
from features.journeys.journeys import Snapshots

Ints = npt.NDArray[np.int64]

FEWEST_GROUPS = 4  # a member leaves out a quarter of the customers at most


def member_splits(
    snapshots: Snapshots, y: npt.NDArray[np.float64], members: int, later_share: float, seed: int
) -> list[tuple[Ints, Ints]]:
    """For each member the rows that it learns from, and the late rows of the customers that it leaves out.

    Where those late rows have labels of one class only, all rows of these customers check the member.

    Args:
        snapshots: (n,) training rows.
        y: (n,) 0, 1, or NaN where a label is not known.
        members: how many.
        later_share: the share of all rows that are late.
        seed: of the groups of customers.
    """
    group = stable_groups(snapshots.customer_ids, max(members, FEWEST_GROUPS), seed)
    late, labelled = late_rows(snapshots.cutoff, later_share), ~np.isnan(y)
    splits = []
    for member in range(members):
        held_out = group == member
        check = held_out & late if both_classes(y[held_out & late & labelled]) else held_out
        splits.append((np.flatnonzero(~held_out), np.flatnonzero(check)))
    return splits


def late_rows(cutoffs: Ints, share: float) -> npt.NDArray[np.bool_]:
    """(n,) which rows are among the latest; all of them where there is one cutoff only."""
    if cutoffs.min() == cutoffs.max():
        return np.ones(len(cutoffs), dtype=bool)
    return np.asarray(cutoffs >= moment_for_share(cutoffs, share))


def both_classes(y: npt.NDArray[np.float64]) -> bool:
    """Whether there are zeros and ones among (n,) labels."""
    return len(y) > 0 and bool(y.min() != y.max())

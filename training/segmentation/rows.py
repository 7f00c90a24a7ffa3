"""The rows of a segmentation: customers at the moment of the fit, before, and held out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from features.errors import DataError
from features.journeys.journeys import Snapshots
from features.timestamps import DAY_US
from models.segments.clustering.clusters import with_events
from models.segments.insight.profiles import last_rows
from training.data.task_data import TaskData

Ints = npt.NDArray[np.int64]
SHARED_CUTOFF_ROWS = 2  # with fewer rows per cutoff, each customer has a cutoff of their own


@dataclass(frozen=True)
class Population:
    """The rows of a segmentation; each moment has a customer at most once.

    Attributes:
        now: the rows of the fit: as known at the last training cutoff, without anything of the test.
        earlier: the same one horizon before, for growth; empty where each customer has a cutoff of their own.
        later: the held-out moment.
        train: labelled training rows.
        test: labelled held-out rows.
        description: which customers these are.
        at: the moment of `now`, µs; None for the task's candidates, who have several.
    """

    now: Snapshots
    earlier: Snapshots
    later: Snapshots
    train: Snapshots
    test: Snapshots
    description: str
    at: int | None = None

    @cached_property
    def described(self) -> Snapshots:
        """`now`, `earlier` and `train`, in this order: the rows of profiles."""
        return concatenate(self.now, self.earlier, self.train)

    @property
    def is_now(self) -> npt.NDArray[np.bool_]:
        """(n,) of `described`."""
        return np.arange(len(self.described)) < len(self.now)

    @property
    def is_earlier(self) -> npt.NDArray[np.bool_]:
        """(n,) of `described`."""
        place = np.arange(len(self.described)) - len(self.now)
        return (place >= 0) & (place < len(self.earlier))


def population(data: TaskData, horizon_days: float, customers: str = "auto") -> Population:
    """Choose the rows.

    Args:
        data: of the experiment.
        horizon_days: of the task: how far back "earlier" lies.
        customers: "everyone", "candidates", or "auto": everyone where cutoffs are shared.

    Raises:
        DataError: nobody has an event before the last training cutoff.
    """
    individual = len(data.train) < SHARED_CUTOFF_ROWS * len(np.unique(data.train.cutoff))
    if customers == "candidates" or (customers == "auto" and individual):
        now, earlier = data.train.take(last_rows(data.train)), data.train.take(np.zeros(0, np.int64))
        later = data.test.take(last_rows(data.test))
        description, at = "the task's candidates, each as known at the last training cutoff", None
    else:
        cutoffs = np.unique(data.train.cutoff)
        at = int(cutoffs[-1])
        before = cutoffs[cutoffs <= at - horizon_days * DAY_US]
        now, later = _everyone(data, at), _everyone(data, int(data.test.cutoff.max()))
        earlier = _everyone(data, int(before[-1] if len(before) else cutoffs[0]))
        description = "everyone with an event before the last training cutoff"
    if not len(now):
        raise DataError("Nobody has an event before the last training cutoff: check the cutoffs of the task.")
    return Population(now, earlier, later, data.train, data.test, f"{description}: {len(now):,} customers", at)


def concatenate(*parts: Snapshots) -> Snapshots:
    """Rows of one log, one part after the other."""
    first = parts[0]
    columns = ("customer", "start", "stop", "cutoff")
    return Snapshots(first.journeys, *(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def _everyone(data: TaskData, at: int) -> Snapshots:
    return with_events(data.journeys.at(np.int64(at)))

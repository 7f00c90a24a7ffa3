"""Which customers, at which moments, a segmentation is fitted on, compared with and checked on."""

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
OWN_CUTOFFS = 2  # fewer rows a cutoff than this on average: cutoffs are each customer's own


@dataclass(frozen=True)
class Population:
    """The rows; those of one moment hold each customer once.

    Attributes:
        now: what segments are fitted on: as known at the last training cutoff; nothing of the test is in it.
        earlier: the same a horizon before, to see growth; empty where cutoffs are each customer's own.
        later: the held-out moment.
        train: labelled training rows.
        test: labelled held-out rows.
        said: who was chosen, in a sentence.
        at: the moment of `now`, µs, where it is everyone; None where it is the task's candidates.
    """

    now: Snapshots
    earlier: Snapshots
    later: Snapshots
    train: Snapshots
    test: Snapshots
    said: str
    at: int | None = None

    @cached_property
    def known(self) -> Snapshots:
        """`now`, `earlier` and `train`, in this order: what a profile describes."""
        return together(self.now, self.earlier, self.train)

    @property
    def is_now(self) -> npt.NDArray[np.bool_]:
        """(n,) of `known`."""
        return np.arange(len(self.known)) < len(self.now)

    @property
    def is_earlier(self) -> npt.NDArray[np.bool_]:
        """(n,) of `known`."""
        place = np.arange(len(self.known)) - len(self.now)
        return (place >= 0) & (place < len(self.earlier))


def population(data: TaskData, horizon_days: float, who: str = "auto") -> Population:
    """Choose the rows.

    Args:
        data: of the experiment.
        horizon_days: of the task: how far back "earlier" lies.
        who: "everyone", "candidates", or "auto": everyone where cutoffs are shared.

    Raises:
        DataError: nobody has an event before the last training cutoff.
    """
    own = len(data.train) < OWN_CUTOFFS * len(np.unique(data.train.cutoff))
    if who == "candidates" or (who == "auto" and own):
        now, earlier = data.train.take(last_rows(data.train)), data.train.take(np.zeros(0, np.int64))
        later = data.test.take(last_rows(data.test))
        said, at = "the task's candidates, each as known at the last training cutoff", None
    else:
        cutoffs = np.unique(data.train.cutoff)
        at = int(cutoffs[-1])
        before = cutoffs[cutoffs <= at - horizon_days * DAY_US]
        now, later = _everyone(data, at), _everyone(data, int(data.test.cutoff.max()))
        earlier = _everyone(data, int(before[-1] if len(before) else cutoffs[0]))
        said = "everyone with an event before the last training cutoff"
    if not len(now):
        raise DataError("Nobody has an event before the last training cutoff: check the cutoffs of the task.")
    return Population(now, earlier, later, data.train, data.test, f"{said}: {len(now):,} customers", at)


def together(*parts: Snapshots) -> Snapshots:
    """Rows of one log, one part after the other."""
    first = parts[0]
    columns = ("customer", "start", "stop", "cutoff")
    return Snapshots(first.journeys, *(np.concatenate([getattr(part, name) for part in parts]) for name in columns))


def _everyone(data: TaskData, at: int) -> Snapshots:
    return with_events(data.journeys.at(np.int64(at)))

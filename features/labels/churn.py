"""Churn by inactivity: no activity within the horizon, for customers active before the cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pandas as pd
from pydantic import AfterValidator

from features.journeys.journeys import Journeys, Snapshots
from features.labels.cutoffs import Ages, Counted, Cutoffs, Days, FixedCutoffs, Touchpoints, require_observed
from features.labels.task import CandidateRows, DraftLine, DraftLog, EventTask, Flags, TaskWords
from features.labels.windows import matching_names, occurs_after, occurs_within, touchpoint_text
from features.timestamps import microseconds

ACTIVITY = r"purchase|order|buy|bought|kauf|bestell|pay|checkout|renew|subscri|login|visit|(?<![a-z])use(?!r)"


def _no_ages(value: Any) -> Any:
    if isinstance(value, Ages):
        raise ValueError("ages_days is for conversion; churn takes dates (train, test) or every_days and n_train")
    return value


class ChurnTask(EventTask):
    """No activity within the horizon, for customers active before the cutoff.

    Attributes:
        kind: of task.
        horizon_days: the label looks this far from the cutoff on.
        observed_until: until when the log was watched, if longer than its last event.
        cutoffs: when.
        activity: touchpoints that count as activity; `["*"]` for any.
        active_days: candidates were active in these days before the cutoff.
    """

    kind: Literal["churn"]
    cutoffs: Annotated[Cutoffs, AfterValidator(_no_ages)] = Counted()
    activity: Touchpoints = ("*",)
    active_days: Days

    outcome: ClassVar[str] = "churned"

    @property
    def look_back_days(self) -> float:
        """How much history a cutoff needs."""
        return self.active_days

    def candidates(self, snapshots: Snapshots) -> Flags:
        """(n,) bool: active in the days before the cutoff."""
        return occurs_within(snapshots, self.activity, self.active_days)

    def labels(self, snapshots: Snapshots, end_us: int) -> Flags:
        """(n,) bool: no activity in the horizon."""
        return ~occurs_after(snapshots, self.activity, self.horizon_days)

    def words(self) -> TaskWords:
        """See `Task.words`."""
        activity = touchpoint_text(self.activity)
        return TaskWords(
            audience=f"Customers with {activity} in the {self.active_days:g} days before the cutoff.",
            label=f"1 where none of it happens in [cutoff, cutoff + {self.horizon_days:g} days), else 0.",
        )

    @classmethod
    def draft(cls, log: DraftLog) -> Sequence[DraftLine]:
        """See `Task.draft`."""
        days = log.horizon_days()
        activity = matching_names(log.touchpoints, ACTIVITY) or ["*"]
        return (
            DraftLine("activity", activity, '? what counts as being there; ["*"] for any'),
            DraftLine("active_days", days, "candidates did it in these days before the cutoff ..."),
            DraftLine("horizon_days", days, "? ... and churn if they do not in these days after"),
        )


def churn_labels(
    journeys: Journeys,
    cutoffs: Any,
    *,
    activity: Sequence[str],
    active_days: float,
    horizon_days: float,
    observed_until: Any = None,
) -> pd.DataFrame:
    """Churn by inactivity: 1 where a customer active before the cutoff shows no activity in the horizon.

    Args:
        journeys: the packed log.
        cutoffs: moments, one label table for each; duplicates count once.
        activity: the touchpoints that count as being active (`"*"` and other wildcards are allowed).
        active_days: candidates have activity in `[cutoff - active_days, cutoff)`.
        horizon_days: the label looks at `[cutoff, cutoff + horizon_days)`.
        observed_until: until when the log was watched; its last event by default.

    Returns:
        `customer_id, cutoff, label` (text, UTC naive µs, int8), by cutoff, then customer as text.

    Raises:
        DataError: a cutoff lies before the first event, or its window is not fully observed.
        ConfigError: a touchpoint that the log does not have.
    """
    task = ChurnTask(
        kind="churn", activity=tuple(activity), active_days=active_days, horizon_days=horizon_days,
        observed_until=observed_until,
    )  # fmt: skip
    fixed = FixedCutoffs(np.unique(microseconds(cutoffs)), np.zeros(0, np.int64))
    period = task.period(journeys.start_us, journeys.end_us)
    if journeys.n_customers:
        require_observed(period, fixed.cutoffs, horizon_days)
    return CandidateRows(task, period.end_us, fixed).labelled(journeys).table().drop(columns="split")

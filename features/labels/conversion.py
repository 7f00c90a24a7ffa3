"""Conversion: the goal within the horizon, for customers who have neither reached it nor ended before the cutoff."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import pandas as pd

from features.errors import ConfigError
from features.journeys.journeys import Journeys, Snapshots
from features.labels.cutoffs import AgeCutoffs, Ages, Days, FixedCutoffs, Touchpoints, require_observed
from features.labels.task import CandidateRows, DraftLine, DraftLog, EventTask, Flags, TaskWords
from features.labels.windows import matching_names, occurs_after, occurs_before, occurs_within, touchpoint_text
from features.timestamps import microseconds

GOALS = r"purchase|order|buy|kauf|bestell|checkout|subscri|activat|convert|signed|accept|(?<![a-z])won"


class ConversionTask(EventTask):
    """The goal within the horizon, for customers who have neither reached it nor ended before the cutoff.

    Attributes:
        kind: of task.
        horizon_days: the label looks this far from the cutoff on.
        observed_until: until when the log was watched, if longer than its last event.
        cutoffs: when; also as ages since the first event.
        goal: touchpoints that are the goal.
        ended: touchpoints after which a customer is no candidate any more.
        active_days: candidates had an event in these days before the cutoff; by default ever before.
    """

    kind: Literal["conversion"]
    goal: Touchpoints
    ended: tuple[str, ...] = ()
    active_days: Days | None = None

    outcome: ClassVar[str] = "converted"

    @property
    def look_back_days(self) -> float:
        """How much history a cutoff needs."""
        ages = self.cutoffs.ages_days if isinstance(self.cutoffs, Ages) else ()
        return self.active_days or min(ages, default=self.horizon_days)

    @property
    def conversion_goals(self) -> tuple[str, ...]:
        """See `Task.conversion_goals`."""
        return self.goal

    @property
    def conversion_ends(self) -> tuple[str, ...]:
        """See `Task.conversion_ends`."""
        return self.ended

    def candidates(self, snapshots: Snapshots) -> Flags:
        """(n,) bool: has events before the cutoff, none of them the goal or an end."""
        candidates = (snapshots.stop > snapshots.start) & ~occurs_before(snapshots, [*self.goal, *self.ended])
        return (
            candidates if self.active_days is None else candidates & occurs_within(snapshots, ["*"], self.active_days)
        )

    def labels(self, snapshots: Snapshots, end_us: int) -> Flags:
        """(n,) bool: the goal in the horizon."""
        return occurs_after(snapshots, self.goal, self.horizon_days)

    def words(self) -> TaskWords:
        """See `Task.words`."""
        goal = touchpoint_text(self.goal)
        ended = f" nor ended with {touchpoint_text(self.ended)}" if self.ended else ""
        active = f", with an event in the {self.active_days:g} days before the cutoff" if self.active_days else ""
        return TaskWords(
            audience=f"Customers who have not reached {goal}{ended}{active}.",
            label=f"1 where {goal} happens in [cutoff, cutoff + {self.horizon_days:g} days), else 0.",
        )

    @classmethod
    def draft(cls, log: DraftLog) -> Sequence[DraftLine]:
        """See `Task.draft`."""
        rarest = list(log.touchpoints[-1:]) or ["?"]
        return (
            DraftLine("goal", matching_names(log.touchpoints, GOALS) or rarest, "? reached within the horizon or not"),
            DraftLine("horizon_days", log.horizon_days(), "? the days after the cutoff"),
        )


def conversion_labels(
    journeys: Journeys,
    *,
    goal: Sequence[str],
    horizon_days: float,
    ended: Sequence[str] = (),
    cutoffs: Any = None,
    ages_days: Sequence[float] | None = None,
    active_days: float | None = None,
    observed_until: Any = None,
) -> pd.DataFrame:
    """Conversion: 1 where the goal is reached in the horizon, among those who neither reached it nor ended before.

    Args:
        journeys: the packed log.
        goal: the touchpoints that are the goal.
        horizon_days: the label looks at `[cutoff, cutoff + horizon_days)`.
        ended: touchpoints after which a journey is no candidate any more (declined, cancelled).
        cutoffs: moments, the same for every customer; or
        ages_days: days since each customer's first event. Rows whose window is not closed are left out.
        active_days: candidates have an event in the days before the cutoff; by default ever before.
        observed_until: until when the log was watched; its last event by default.

    Returns:
        `customer_id, cutoff, label` and, for ages, `age_days`; by cutoff (or age), then customer as text.

    Raises:
        DataError: a given cutoff lies before the first event, or its window is not fully observed.
        ConfigError: neither or both of `cutoffs` and `ages_days`; a touchpoint that the log does not have.
    """
    if (cutoffs is None) == (ages_days is None):
        raise ConfigError("Give either cutoffs (moments) or ages_days (days since each customer's first event).")
    task = ConversionTask(
        kind="conversion", goal=tuple(goal), ended=tuple(ended), active_days=active_days, horizon_days=horizon_days,
        observed_until=observed_until,
    )  # fmt: skip
    period = task.period(journeys.start_us, journeys.end_us)
    resolved: FixedCutoffs | AgeCutoffs
    if ages_days is None:
        resolved = FixedCutoffs(np.unique(microseconds(cutoffs)), np.zeros(0, np.int64))
        require_observed(period, resolved.cutoffs, horizon_days)
    else:
        resolved = AgeCutoffs(np.unique(np.asarray(ages_days)), Ages(ages_days=tuple(ages_days)))
    return CandidateRows(task, period.end_us, resolved).labelled(journeys).table().drop(columns="split")

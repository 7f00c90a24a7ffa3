"""Labels of a log in parts: what is global is decided once, then every part labels its own customers.

    plan = plan_labels(task, log)              # a `features.spark.SparkLog`, or any other parts of a log
    rows, is_test = plan.labelled(part)        # snapshots with labels, for one part

The cutoffs, the borders between train and test, and the checks are those of `training.label_build`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt

from features.errors import ConfigError
from features.labels import DAY_US, Labelled, churn_rows, conversion_rows, require_observed
from features.moments import microseconds
from features.parts import LogFacts, Part, Parts, total
from features.snapshots import Snapshots
from training.label_build import (
    Borders,
    LabelCounts,
    borders_of,
    cutoffs_of,
    label_counts,
    left_out,
    require_history,
    require_labels,
)
from training.tasks import Ages, ChurnTask, ConversionTask, Task

Int64s = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
LOOKED_AT = ("touchpoint",)


@dataclass(frozen=True)
class LabelPlan:
    """How the customers of any part are labelled.

    Attributes:
        task: what is to be predicted.
        end_us: until when the log is observed.
        cutoffs: (k,) µs, the same for everyone; None where ages make them.
        test: those of them that are test cutoffs.
        borders: between train and test, where ages make the cutoffs.
        notes: what there is to say.
    """

    task: ChurnTask | ConversionTask
    end_us: int
    cutoffs: Int64s | None = None
    test: Int64s | None = None
    borders: Borders | None = None
    notes: tuple[str, ...] = ()

    def everyone(self, part: Part) -> Labelled:
        """All candidates of a part, before train and test are parted."""
        task, log = self.task, part.journeys
        if isinstance(task, ChurnTask):
            assert self.cutoffs is not None
            return churn_rows(
                log, self.cutoffs, activity=task.activity, active_days=task.active_days, horizon_days=task.horizon_days
            )
        ages = task.cutoffs.ages_days if isinstance(task.cutoffs, Ages) else None
        return conversion_rows(
            log, self.end_us, goal=task.goal, horizon_days=task.horizon_days, ended=task.ended, cutoffs=self.cutoffs,
            ages_days=ages, active_days=task.active_days,
        )  # fmt: skip

    def labelled(self, part: Part) -> tuple[Labelled, Flags]:
        """The rows of a part, and which of them are test rows."""
        found = self.everyone(part)
        if self.borders is None:
            assert self.test is not None
            return found, np.isin(found.rows.cutoff, self.test)
        train, test = self.borders.sides(found.rows.cutoff, round(self.task.horizon_days * DAY_US))
        kept = np.flatnonzero(train | test)
        ages = None if found.age_days is None else found.age_days[kept]
        return Labelled(found.rows.take(kept), found.positive[kept], ages), test[kept]


def train_rows(part: Part, plan: LabelPlan) -> Snapshots:
    """The training snapshots of a part."""
    found, is_test = plan.labelled(part)
    return found.rows.take(np.flatnonzero(~is_test))


def plan_labels(
    task: Task, log: Parts, facts: LogFacts, *, min_class_count: int = 100, allow_small: bool = False
) -> tuple[LabelPlan, LabelCounts]:
    """Decide what is global, and check that the labels can be learned from.

    Args:
        task: what is to be predicted; no table of one's own.
        log: parts with the names of the whole log.
        facts: of the whole log.
        min_class_count: positives and negatives that training needs.
        allow_small: do with less.

    Raises:
        DataError: as `training.label_build.build_labels`.
        ConfigError: a label table, or a touchpoint that the log does not have.
    """
    if not isinstance(task, ChurnTask | ConversionTask):
        raise ConfigError("A label table of one's own is read on one machine: leave --engine spark out.")
    end = facts.end_us if task.observed_until is None else int(microseconds(task.observed_until))
    if not allow_small:
        require_history(task, facts.start_us, end)
    if isinstance(task.cutoffs, Ages):
        plan = _by_age(LabelPlan(task, end), task.cutoffs, log)
    else:
        train, test, notes = cutoffs_of(task, facts.start_us, end)
        cutoffs = np.unique(np.concatenate((train, test)))
        require_observed(facts.start_us, end, cutoffs, task.horizon_days)
        plan = LabelPlan(task, end, cutoffs, test, notes=notes)
    counts, skipped = total(log, partial(_counted, plan=plan), LOOKED_AT)
    require_labels(counts, task.horizon_days, 1 if allow_small else min_class_count)
    return (replace(plan, notes=(*plan.notes, left_out(skipped))) if skipped else plan), counts


def _by_age(plan: LabelPlan, ages: Ages, log: Parts) -> LabelPlan:
    moments = total(log, partial(_moments, plan=plan), LOOKED_AT)
    when = np.array(sorted(moments), np.int64)
    counts = np.array([moments[one] for one in when.tolist()], np.int64)
    borders, notes = borders_of(when, counts, ages.test_share, ages.train_until, ages.test_from, ages.test_until)
    return replace(plan, borders=borders, notes=tuple(notes))


def _moments(part: Part, plan: LabelPlan) -> dict[int, int]:
    """Distinct cutoffs of a part and how many rows have each."""
    moments, counts = np.unique(plan.everyone(part).rows.cutoff, return_counts=True)
    return dict(zip(moments.tolist(), counts.tolist(), strict=True))


def _counted(part: Part, plan: LabelPlan) -> tuple[LabelCounts, int]:
    found, is_test = plan.labelled(part)
    skipped = 0 if plan.borders is None else len(plan.everyone(part).rows) - len(found.rows)
    return label_counts(found.rows.cutoff, is_test, found.positive), skipped

"""From a task and a log to labels: decided once for the whole log, then applied to each part.

plan = plan_labels(task, log, facts)       # any parts of a log: memory, partitions, Spark
plan.labelled(part)                        # snapshots with labels, for one part
build_labels(task, journeys).table         # customer_id, cutoff, label, split of a log in memory
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pandas as pd
import pyarrow as pa

from features.errors import DataError
from features.journeys.event_log import LocalParts, LogFacts, Part, Parts, part_of, total
from features.journeys.journeys import Journeys, Snapshots
from features.labels.cutoffs import Period, between_note, require_closed
from features.labels.task import CATEGORIES, Labelled, LabelPlan, Task
from features.timestamps import DAY_US, moment_text


@dataclass(frozen=True)
class LabelBuild:
    """The label table of a log in memory.

    Attributes:
        table: `customer_id, cutoff, label, split` and further columns, such as `age_days` where ages were given.
        notes: what was left out or decided, each said once.
        quarantine: rejected rows of the user's own label table, with row and reason; None for other tasks.
    """

    table: pd.DataFrame
    notes: tuple[str, ...] = ()
    quarantine: pa.Table | None = None


@dataclass(frozen=True)
class LabelCounts:
    """What the checks of labels look at; those of parts add up.

    Attributes:
        rows: labelled snapshots.
        between: candidates that belong neither to train nor to test.
        classes: what must be many among the training rows, see `Task.class_counts`.
        train, test: first and last cutoff, µs; None where there is none.
    """

    rows: int
    between: int
    classes: dict[str, int]
    train: tuple[int, int] | None
    test: tuple[int, int] | None

    def __add__(self, other: LabelCounts) -> LabelCounts:
        classes = {name: count + other.classes[name] for name, count in self.classes.items()}
        return LabelCounts(
            self.rows + other.rows, self.between + other.between, classes,
            _joint_range(self.train, other.train), _joint_range(self.test, other.test),
        )  # fmt: skip


def plan_labels(
    task: Task,
    log: Parts,
    facts: LogFacts,
    *,
    min_class_count: int = 100,
    allow_small: bool = False,
    share: float = 1.0,
) -> LabelPlan:
    """Decide what concerns the whole log, and check that the labels can be learned from.

    Args:
        task: what is to be predicted; a label table of the user's is read here and travels to the parts.
        log: parts with the names of the whole log.
        facts: of the whole log.
        min_class_count: of each class, such as positives and negatives, that training needs.
        allow_small: do with less.
        share: of the customers that the log holds, where it is a sample.

    Raises:
        DataError: cutoffs that the log does not cover, a test cutoff before a training label has closed, a split
            without rows, too little data (the last not with `allow_small`, as long as no class is empty).
        ConfigError: a touchpoint that the log does not have.
    """
    plan = _unchecked_plan(task, log, task.period(facts.start_us, facts.end_us), allow_small, share)
    counts = total(log, partial(_part_counts, task=task, plan=plan), CATEGORIES)
    require_labels(counts, task.horizon_days, 1 if allow_small else min_class_count)
    return replace(plan, notes=(*plan.notes, *between_note(counts.between)))


def build_labels(
    task: Task, journeys: Journeys, *, min_class_count: int = 100, allow_small: bool = False
) -> LabelBuild:
    """The label table of a log in memory, checked as `plan_labels` checks; raises as it does."""
    log, period = LocalParts([part_of(journeys)]), task.period(journeys.start_us, journeys.end_us)
    plan = _unchecked_plan(task, log, period, allow_small, journeys.share)
    labelled, table = plan.source.table(journeys)
    counts = _counts(labelled, task)
    require_labels(counts, task.horizon_days, 1 if allow_small else min_class_count)
    return LabelBuild(table, (*plan.notes, *between_note(counts.between)), plan.quarantine)


def train_rows(part: Part, plan: LabelPlan) -> Snapshots:
    """The training snapshots of a part."""
    return plan.labelled(part).train_rows()


def require_labels(counts: LabelCounts, horizon_days: float, fewest: int) -> None:
    """Raise a `DataError` unless there are training rows before test rows, and enough of each class."""
    ranges = [cutoffs for cutoffs in (counts.train, counts.test) if cutoffs]
    if not (counts.train and counts.test):
        split = "test" if counts.train else "training"
        first, last = (min(first for first, _ in ranges), max(last for _, last in ranges)) if ranges else (0, 0)
        cutoffs_text = f" (from {moment_text(first)} to {moment_text(last)})" if ranges else ""
        raise DataError(
            f"There is no {split} row among {counts.rows:,} labelled snapshots{cutoffs_text}. "
            "Check the cutoffs against the log's first and last event, and the horizon."
        )
    require_closed(np.array(counts.train), np.array(counts.test), horizon_days)
    _require_classes(counts.classes, fewest)


def _require_classes(classes: dict[str, int], fewest: int) -> None:
    rarest = min(classes.values())
    if rarest >= fewest:
        return
    summary = f"{' and '.join(f'{count:,} {name}' for name, count in classes.items())} in {sum(classes.values()):,}"
    if rarest == 0:
        raise DataError(f"All training labels are equal: {summary} training rows. There is nothing to tell apart.")
    raise DataError(
        f"Too little data: {summary} training rows; fewer than {fewest} {' or '.join(classes)} are not modelled. "
        "More cutoffs or a longer log help; set allow_small = true to go on all the same."
    )


def _unchecked_plan(task: Task, log: Parts, period: Period, allow_small: bool, share: float) -> LabelPlan:
    history, needed = (period.end_us - period.start_us) / DAY_US, task.look_back_days + task.horizon_days
    if history < needed and not allow_small:
        raise DataError(
            f"Too little history: the log covers {history:.1f} days ({moment_text(period.start_us)} to "
            f"{moment_text(period.end_us)}), one look-back ({task.look_back_days:g} days) and one horizon "
            f"({task.horizon_days:g} days) take {needed:g}. Set allow_small = true to go on all the same."
        )
    return task.plan(log, period, share)


def _part_counts(part: Part, task: Task, plan: LabelPlan) -> LabelCounts:
    return _counts(plan.labelled(part), task)


def _counts(labelled: Labelled, task: Task) -> LabelCounts:
    cutoff, is_test = labelled.rows.cutoff, labelled.is_test
    classes = task.class_counts(labelled.labels[~is_test])
    return LabelCounts(len(cutoff), labelled.between, classes, _range(cutoff[~is_test]), _range(cutoff[is_test]))


def _range(cutoff: np.ndarray) -> tuple[int, int] | None:
    return (int(cutoff.min()), int(cutoff.max())) if len(cutoff) else None


def _joint_range(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    return (min(a[0], b[0]), max(a[1], b[1])) if a and b else a or b

"""Labels of a log in parts: what is global is decided once, then every part labels its own customers.

    plan = plan_labels(task, log)              # a `features.spark.log.SparkLog`, or any other parts of a log
    rows, is_test = plan.labelled(part)        # snapshots with labels, for one part

The cutoffs, the borders between train and test, and the checks are those of `training.data.label_build`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.journeys.event_log import Joined, LogFacts, Part, Parts, total
from features.journeys.journeys import Snapshots
from features.labels.label_table import check_label_rows, first_events, read_label_table
from features.labels.labels import DAY_US, Labelled, churn_rows, conversion_rows, require_observed
from features.timestamps import NOT_A_TIME, microseconds
from training.config.tasks import Ages, ChurnTask, LabelsTask, Task
from training.data.label_build import (
    Borders,
    LabelCounts,
    borders_of,
    build_of_table,
    cutoffs_of,
    label_counts,
    left_out,
    require_history,
    require_labels,
)

Int64s = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]
LOOKED_AT = ("touchpoint",)


@dataclass(frozen=True)
class LabelRows:
    """A label table of one's own, checked; by cutoff, then customer as text.

    Attributes:
        ids: (n,) customers.
        cutoff: (n,) µs.
        positive: (n,) their labels.
        is_test: (n,) their split.
    """

    ids: pa.Array
    cutoff: Int64s
    positive: Flags
    is_test: Flags


@dataclass(frozen=True)
class LabelPlan:
    """How the customers of any part are labelled.

    Attributes:
        task: what is to be predicted.
        end_us: until when the log is observed.
        cutoffs: (k,) µs, the same for everyone; None where ages make them.
        test: those of them that are test cutoffs.
        borders: between train and test, where ages make the cutoffs.
        table: the rows, where the user brought them.
        notes: what there is to say.
    """

    task: Task
    end_us: int
    cutoffs: Int64s | None = None
    test: Int64s | None = None
    borders: Borders | None = None
    table: LabelRows | None = None
    notes: tuple[str, ...] = ()

    @property
    def by_age(self) -> bool:
        """Whether ages make the cutoffs."""
        return self.borders is not None

    def everyone(self, part: Part) -> Labelled:
        """All candidates of a part, before train and test are parted."""
        task, log = self.task, part.journeys
        assert not isinstance(task, LabelsTask)
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
        if self.table is not None:
            index = part.journeys.index_of(self.table.ids)
            mine = np.flatnonzero(index >= 0)
            rows = part.journeys.at(self.table.cutoff[mine], index[mine])
            return Labelled(rows, self.table.positive[mine]), self.table.is_test[mine]
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
        task: what is to be predicted; a label table of one's own is read here and travels to the parts.
        log: parts with the names of the whole log.
        facts: of the whole log.
        min_class_count: positives and negatives that training needs.
        allow_small: do with less.

    Raises:
        DataError: as `training.data.label_build.build_labels`.
        ConfigError: a touchpoint that the log does not have.
    """
    end = facts.end_us if task.observed_until is None else int(microseconds(task.observed_until))
    if not allow_small:
        require_history(task, facts.start_us, end)
    if isinstance(task, LabelsTask):
        plan = _by_table(LabelPlan(task, end), task, log)
    elif isinstance(task.cutoffs, Ages):
        plan = _by_age(LabelPlan(task, end), task.cutoffs, log)
    else:
        train, test, notes = cutoffs_of(task, facts.start_us, end)
        cutoffs = np.unique(np.concatenate((train, test)))
        require_observed(facts.start_us, end, cutoffs, task.horizon_days)
        plan = LabelPlan(task, end, cutoffs, test, notes=notes)
    counts, skipped = total(log, partial(_counted, plan=plan), LOOKED_AT)
    require_labels(counts, task.horizon_days, 1 if allow_small else min_class_count)
    return (replace(plan, notes=(*plan.notes, left_out(skipped))) if skipped else plan), counts


def _by_table(plan: LabelPlan, task: LabelsTask, log: Parts) -> LabelPlan:
    rows = read_label_table(task.path, task.columns.model_dump())
    build = build_of_table(
        task, check_label_rows(rows, partial(_firsts, log), plan.end_us, horizon_days=task.horizon_days)
    )
    table = build.table.sort_values(["cutoff", "customer_id"], kind="stable")
    found = LabelRows(
        pa.array(table["customer_id"].tolist(), pa.string()),
        microseconds(table["cutoff"]),
        (table["label"] == 1).to_numpy(),
        (table["split"] == "test").to_numpy(),
    )
    return replace(plan, table=found, notes=build.notes)


def _firsts(log: Parts, ids: pa.Array) -> Int64s:
    """`features.labels.label_table.first_events` of a log in parts."""
    places, moments = total(log, partial(_firsts_of, ids=ids), ())
    first: Int64s = np.full(len(ids), NOT_A_TIME)
    first[places.array] = moments.array
    return first


def _firsts_of(part: Part, ids: pa.Array) -> tuple[Joined, Joined]:
    """The places of the identifiers that a part has, and their first events."""
    first = first_events(part.journeys, ids)
    there = np.flatnonzero(first != NOT_A_TIME)
    return Joined(there), Joined(first[there])


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
    skipped = 0 if not plan.by_age else len(plan.everyone(part).rows) - len(found.rows)
    return label_counts(found.rows.cutoff, is_test, found.positive), skipped

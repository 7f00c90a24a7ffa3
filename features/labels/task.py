"""The protocol of a task: everything that is particular to one kind of label, said in one class.

A kind is a subclass of `EventTask` (labels from the events after the cutoff) or of `Task` (labels from elsewhere) in a
file of its own, and an entry of `features.labels.kinds.KINDS`. Its fields are the `[task]` table of an experiment file.
Training, promotion, monitoring, reports and drafting ask the task; none of them looks at its kind.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.journeys.event_log import Part, Parts, total
from features.journeys.journeys import Journeys, Snapshots
from features.labels.cutoffs import (
    AgeCutoffs,
    Counted,
    CutoffCounts,
    Cutoffs,
    Days,
    FixedCutoffs,
    Moment,
    Period,
    Windows,
    moment_us,
    require_observed,
)
from features.settings import Section
from features.timestamps import days_us

Flags = npt.NDArray[np.bool_]
Values = npt.NDArray[Any]
CATEGORIES = ("touchpoint",)  # the columns that labels look at; a part need carry no other


@dataclass(frozen=True)
class Metric:
    """A metric that a task is judged by.

    Attributes:
        name: of the function in `training.evaluation`, and of the key in MLflow.
        title: for people.
        higher_is_better: its direction.
    """

    name: str
    title: str
    higher_is_better: bool = True

    def gain(self, differences: Mapping[Any, Any]) -> tuple[float, float]:
        """The interval of a paired difference, turned so that above 0 is better.

        Args:
            differences: `<name>_difference_low` and `_high`, as `training.evaluation.bootstrap` gives them.
        """
        low, high = (float(differences[f"{self.name}_difference_{end}"]) for end in ("low", "high"))
        return (low, high) if self.higher_is_better else (-high, -low)

    def difference_text(self, differences: Mapping[Any, Any]) -> str:
        """A paired difference with its interval, for a sentence."""
        values = (differences[f"{self.name}_difference{end}"] for end in ("", "_low", "_high"))
        return "{:+.4f} (95% {:+.4f} to {:+.4f})".format(*values).replace("-", "−")


@dataclass(frozen=True)
class PromotionRule:
    """When a challenger takes the champion's place, from paired differences on rows that neither has seen.

    Attributes:
        metric: that must surely not be worse by more than `margin`, and surely better than each baseline's.
        margin: in units of the metric.
        guard: a metric that must not be surely worse; "" for none.
        search_metric: that a search minimises and that the best model of a training has the least of.
    """

    metric: str
    margin: float
    guard: str = ""
    search_metric: str = "log_loss"


PROBABILITY_METRICS = (
    Metric("auroc", "AUROC"),
    Metric("average_precision", "average precision"),
    Metric("brier", "Brier", higher_is_better=False),
    Metric("log_loss", "log loss", higher_is_better=False),
    Metric("calibration_error", "calibration error", higher_is_better=False),
    Metric("lift_at_10", "lift at 10 %"),
)


@dataclass(frozen=True)
class TaskWords:
    """A task in words, for the model card and for those who read an answer.

    Attributes:
        audience: whom it is for.
        label: what the label is.
        answer: what an answer is and what it is for.
        limits: what it is not for.
    """

    audience: str
    label: str
    answer: str = (
        "A calibrated probability for each customer as known at a cutoff: to rank customers, to plan for how many, "
        "and to weigh what an action costs against what it may save."
    )
    limits: str = "other customers, other horizons, or what an action would change: it says who, not why."


@dataclass(frozen=True)
class DraftLog:
    """What the draft of a `[task]` table is made from.

    Attributes:
        touchpoints: of the log, the commonest first.
        days: that the log covers.
    """

    touchpoints: tuple[str, ...]
    days: float

    def horizon_days(self) -> int:
        """The longest usual window of which the log holds four."""
        usual = (90, 60, 30, 28, 14, 7, 3, 1)
        return next((days for days in usual if 4 * days <= self.days), usual[-1])


class DraftLine(NamedTuple):
    """A line of the draft: `key = value  # comment`; a comment with ? asks the user to check."""

    key: str
    value: Any
    comment: str


@dataclass(frozen=True)
class Labelled:
    """Candidates and what became of them; those of disjoint customers together are those of all.

    Attributes:
        rows: (n,) snapshots.
        labels: (n,) their labels.
        is_test: (n,) whether a row is a test row; the others are train rows.
        columns: further columns of the label table, (n,) each, such as `age_days`.
        between: how many candidates belong to neither side, because their window reaches over the border.
    """

    rows: Snapshots
    labels: Values
    is_test: Flags
    columns: dict[str, Values] = field(default_factory=dict)
    between: int = 0

    def train_rows(self) -> Snapshots:
        """The training snapshots."""
        return self.rows.take(np.flatnonzero(~self.is_test))

    def table(self) -> pd.DataFrame:
        """`customer_id, cutoff, label, split` and the further columns."""
        ids = self.rows.journeys.customer_ids.take(pa.array(self.rows.customer)).to_pandas().astype("str")
        label = self.labels.astype(np.int8) if self.labels.dtype == np.bool_ else self.labels
        table = pd.DataFrame({"customer_id": ids, "cutoff": self.rows.cutoff.view("datetime64[us]"), "label": label})
        return table.assign(**self.columns, split=np.where(self.is_test, "test", "train"))


class LabelSource(Protocol):
    """Where the labelled rows of a part come from; travels to the parts."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the further columns of the label table."""
        ...

    def labelled(self, journeys: Journeys) -> Labelled:
        """The labelled rows of some customers: by cutoff or age, then customer as text."""
        ...

    def table(self, journeys: Journeys) -> tuple[Labelled, pd.DataFrame]:
        """The labelled rows of a whole log, and the label table that training takes."""
        ...


@dataclass(frozen=True)
class LabelPlan:
    """What is decided once for a whole log, and how any part of it is then labelled.

    Attributes:
        source: of the labelled rows.
        notes: what was decided or left out, a sentence each.
        quarantine: rejected rows of the user's label table, with row and reason.
        binary: whether labels are 0 or 1; otherwise they are numbers.
    """

    source: LabelSource
    notes: tuple[str, ...] = ()
    quarantine: pa.Table | None = None
    binary: bool = True

    def labelled(self, part: Part) -> Labelled:
        """The labelled rows of a part."""
        return self.source.labelled(part.journeys)


class Task(Section):
    """What is predicted, for whom, and how a prediction is judged.

    Attributes:
        kind: of task, a key of `features.labels.kinds.KINDS`.
        horizon_days: the label looks this far from the cutoff on.
        observed_until: until when the log was watched, if longer than its last event.
    """

    kind: str
    horizon_days: Days
    observed_until: Moment | None = None

    binary: ClassVar[bool] = True  # labels are 0 or 1; otherwise they are numbers
    answers: ClassVar[tuple[str, ...]] = ("probability",)  # columns of an answer
    baselines: ClassVar[tuple[str, ...]] = ("rfm", "recency", "base_rate")  # kinds of `models.catalogue`
    metric_family: ClassVar[str] = "probabilities"  # a key of `training.evaluation.families.FAMILIES`
    metrics: ClassVar[tuple[Metric, ...]] = PROBABILITY_METRICS  # to show, the first ranks models
    promotion: ClassVar[PromotionRule] = PromotionRule("auroc", margin=0.005, guard="brier")
    outcome: ClassVar[str] = "positive"  # what a row with the label 1 is called: "12% churned"

    @property
    def look_back_days(self) -> float:
        """How much history a cutoff needs."""
        return self.horizon_days

    @property
    def conversion_goals(self) -> tuple[str, ...]:
        """Touchpoints that are the goal of a journey, for its map; none by default."""
        return ()

    @property
    def conversion_ends(self) -> tuple[str, ...]:
        """Touchpoints that end a journey without its goal, for its map; none by default."""
        return ()

    @property
    def label_file(self) -> Path | None:
        """The user's label table; None where labels come from the log."""
        return None

    def with_label_file(self, path: Path) -> Task:
        """The same task with its label table somewhere else; only for tasks that have a `label_file`."""
        raise NotImplementedError(f"a task of kind {self.kind} has no label table")

    def label_name(self, experiment: str) -> str:
        """What the label is called in tables of segments: the kind, or the experiment's name where that says more."""
        return self.kind

    def period(self, start_us: int, end_us: int) -> Period:
        """The time that a log with these first and last events is observed, µs."""
        return Period(start_us, end_us if self.observed_until is None else moment_us(self.observed_until))

    @classmethod
    def label_summary(cls, labels: Values, digits: int = 1) -> str:
        """The mean label in words: "12.3% churned", or "mean label 4.2" where labels are numbers."""
        return f"{labels.mean():.{digits}%} {cls.outcome}" if cls.binary else f"mean label {labels.mean():.4g}"

    @classmethod
    def metric(cls, name: str) -> Metric:
        """One of `metrics` by its name."""
        return next(metric for metric in cls.metrics if metric.name == name)

    @classmethod
    def class_counts(cls, labels: Values) -> dict[str, int]:
        """What must be many among training labels, name → how many: positives and negatives, or rows."""
        if not cls.binary:
            return {"rows": len(labels)}
        positives = int((labels == 1).sum())
        return {"positives": positives, "negatives": len(labels) - positives}

    @abstractmethod
    def plan(self, log: Parts, period: Period, share: float = 1.0) -> LabelPlan:
        """Decide what concerns the whole log.

        Args:
            log: parts with the names of the whole log.
            period: the time that the log is observed.
            share: of the customers that the log holds, where it is a sample.

        Raises:
            DataError: cutoffs that the log does not cover, a label table that cannot be used.
            ConfigError: a touchpoint that the log does not have.
        """

    @abstractmethod
    def words(self) -> TaskWords:
        """The task in words."""

    @classmethod
    def draft(cls, log: DraftLog) -> Sequence[DraftLine] | None:
        """The lines of a drafted `[task]` table; None where a kind cannot be drafted from a log alone."""
        return None


class EventTask(Task):
    """A task whose labels are what happens in the log after the cutoff.

    Attributes:
        kind: of task, a key of `features.labels.kinds.KINDS`.
        horizon_days: the label looks this far from the cutoff on.
        observed_until: until when the log was watched, if longer than its last event.
        cutoffs: when; also as ages since the first event.
    """

    cutoffs: Cutoffs = Counted()

    censored: ClassVar[bool] = False  # whether windows that the log does not cover make labels, too

    @abstractmethod
    def candidates(self, snapshots: Snapshots) -> Flags:
        """(n,) bool: which snapshots have a label; decided by events before the cutoff alone."""

    @abstractmethod
    def labels(self, snapshots: Snapshots, end_us: int) -> Values:
        """(n,) the labels of candidates.

        Args:
            snapshots: the candidates.
            end_us: until when the log is observed; only `censored` tasks need it.
        """

    def plan(self, log: Parts, period: Period, share: float = 1.0) -> LabelPlan:
        """See `Task.plan`."""
        cutoffs, notes = self.cutoffs.resolve(period, Windows(self.look_back_days, self.horizon_days))
        if isinstance(cutoffs, FixedCutoffs):
            require_observed(period, cutoffs.cutoffs, 0 if self.censored else self.horizon_days)
        rows = CandidateRows(self, period.end_us, cutoffs)
        cutoffs, more = cutoffs.with_borders(partial(_cutoff_counts, log, rows))
        return LabelPlan(CandidateRows(self, period.end_us, cutoffs), (*notes, *more), binary=self.binary)


@dataclass(frozen=True)
class CandidateRows:
    """Rows of the candidates that a task chooses at some cutoffs; a `LabelSource`.

    Attributes:
        task: chooses and labels.
        end_us: until when the log is observed.
        cutoffs: of the rows.
    """

    task: EventTask
    end_us: int
    cutoffs: FixedCutoffs | AgeCutoffs

    @property
    def columns(self) -> tuple[str, ...]:
        """See `LabelSource`."""
        return self.cutoffs.columns

    def labelled(self, journeys: Journeys) -> Labelled:
        """See `LabelSource`."""
        snapshots, columns = self.cutoffs.snapshots(journeys)
        chosen = self.task.candidates(snapshots)
        if not self.task.censored:
            chosen &= snapshots.cutoff + days_us(self.task.horizon_days) <= self.end_us
        train, test = self.cutoffs.split(snapshots.cutoff, self.task.horizon_days)
        places = np.flatnonzero(chosen & (train | test))
        rows = snapshots.take(places)
        labels = self.task.labels(rows, self.end_us)
        columns = {name: values[places] for name, values in columns.items()}
        return Labelled(rows, labels, test[places], columns, int(chosen.sum()) - len(places))

    def table(self, journeys: Journeys) -> tuple[Labelled, pd.DataFrame]:
        """See `LabelSource`."""
        labelled = self.labelled(journeys)
        return labelled, labelled.table()


def _cutoff_counts(log: Parts, rows: CandidateRows) -> CutoffCounts:
    counts: Mapping[int, int] = total(log, partial(_part_cutoff_counts, rows=rows), CATEGORIES)
    moments = np.array(sorted(counts), np.int64)
    return CutoffCounts(moments, np.array([counts[moment] for moment in moments.tolist()], np.int64))


def _part_cutoff_counts(part: Part, rows: CandidateRows) -> dict[int, int]:
    moments, counts = np.unique(rows.labelled(part.journeys).rows.cutoff, return_counts=True)
    return dict(zip(moments.tolist(), counts.tolist(), strict=True))

"""From a task and a log to the label table with its split, or to the figures that speak against it."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from features.journeys.holdout import moment_from_counts
from features.journeys.journeys import Journeys, id_texts
from features.journeys.partitions import sampled
from features.labels.label_table import CheckedLabels, check_label_table, read_label_table
from features.labels.labels import DAY_US, as_text, churn_labels, conversion_labels, log_end_us
from features.timestamps import microseconds
from training.config.tasks import Ages, ChurnTask, ConversionTask, Counted, Dates, LabelsTask, Task, moments

Int64s = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LabelBuild:
    """A label table and its story.

    Attributes:
        table: `customer_id, cutoff, label, split` and `age_days` where ages were given.
        notes: what was left out or decided, each said once.
        quarantine: rows of the user's own label table that cannot be used, with row and reason.
        counts: reason → rows.
    """

    table: pd.DataFrame
    notes: tuple[str, ...] = ()
    quarantine: pd.DataFrame = field(default_factory=pd.DataFrame)
    counts: dict[str, int] = field(default_factory=dict)


def build_labels(
    task: Task, journeys: Journeys, *, min_class_count: int = 100, allow_small: bool = False
) -> LabelBuild:
    """Label, split, and check that the result can be learned from.

    Raises:
        DataError: cutoffs that the log does not cover, a test cutoff before a training label has closed, a split
            without rows, too little data (the last not with `allow_small`, as long as both labels occur).
    """
    if not allow_small:
        require_history(task, journeys.start_us, log_end_us(journeys, task.observed_until))
    if isinstance(task, LabelsTask):
        build = _from_table(task, journeys)
    elif isinstance(task, ConversionTask) and isinstance(task.cutoffs, Ages):
        build = _from_ages(task, task.cutoffs, journeys)
    else:
        build = _from_cutoffs(task, journeys)
    cutoff, is_test = microseconds(build.table["cutoff"]), (build.table["split"] == "test").to_numpy()
    counts = label_counts(cutoff, is_test, (build.table["label"] == 1).to_numpy())
    require_labels(counts, task.horizon_days, 1 if allow_small else min_class_count)
    return build


def cutoffs_of(task: ChurnTask | ConversionTask, start: int, end: int) -> tuple[Int64s, Int64s, tuple[str, ...]]:
    """Training and test cutoffs (µs) of a log that is observed from `start` to `end`, and what there is to say."""
    if isinstance(task.cutoffs, Dates):
        train, test = (microseconds(moments(given)) for given in (task.cutoffs.train, task.cutoffs.test))
        notes: tuple[str, ...] = ()
    else:
        counted = task.cutoffs if isinstance(task.cutoffs, Counted) else Counted()
        train, test, notes = counted_cutoffs(task, counted, start, end)
    _require_closed(train, test, task.horizon_days)
    return train, test, notes


def _from_cutoffs(task: ChurnTask | ConversionTask, journeys: Journeys) -> LabelBuild:
    train, test, notes = cutoffs_of(task, journeys.start_us, log_end_us(journeys, task.observed_until))
    table = _labels(task, journeys, np.concatenate((train, test)))
    is_test = np.isin(microseconds(table["cutoff"]), test)
    return LabelBuild(table.assign(split=np.where(is_test, "test", "train")), notes)


def _labels(task: ChurnTask | ConversionTask, journeys: Journeys, cutoffs: Int64s) -> pd.DataFrame:
    if isinstance(task, ChurnTask):
        return churn_labels(
            journeys, cutoffs, activity=task.activity, active_days=task.active_days, horizon_days=task.horizon_days,
            observed_until=task.observed_until,
        )  # fmt: skip
    return conversion_labels(
        journeys, cutoffs=cutoffs, goal=task.goal, ended=task.ended, active_days=task.active_days,
        horizon_days=task.horizon_days, observed_until=task.observed_until,
    )  # fmt: skip


def counted_cutoffs(
    task: ChurnTask | ConversionTask, counted: Counted, start: int, end: int
) -> tuple[Int64s, Int64s, tuple[str, ...]]:
    """Training and test cutoffs counted back from the log's end (µs, rising), and what there is to say.

    Raises:
        DataError: the log is too short for a test and a training cutoff.
    """
    horizon, step = round(task.horizon_days * DAY_US), round(counted.every_days * DAY_US)
    last_test = end - horizon
    if task.horizon_days >= 1:
        last_test -= last_test % DAY_US  # midnight UTC, so that a cutoff can be read and written down
    test = last_test - step * np.arange(counted.n_test)[::-1]
    train = test[0] - horizon - step * np.arange(counted.n_train)[::-1]
    earliest = start + round(task.look_back_days * DAY_US)
    kept = train[train >= earliest]
    if not len(kept):
        raise DataError(
            f"The log ({as_text(start)} to {as_text(end)}) is too short for a test cutoff and a training cutoff before "
            f"it: they take {task.look_back_days:g} days of look-back and twice the horizon of {task.horizon_days:g} "
            "days. Shorten them, or give dates in [task.cutoffs]."
        )
    notes = [f"cutoffs from the log's end ({as_text(end)}): train {_span(kept)}, test {_span(test)}"]
    if len(kept) < len(train):
        notes.append(f"{len(kept)} of {len(train)} training cutoffs: earlier ones have no whole look-back")
    return kept, test, tuple(notes)


def _span(cutoffs: Int64s) -> str:
    first, last = as_text(int(cutoffs[0])), as_text(int(cutoffs[-1]))
    return first if first == last else f"{first} to {last} ({len(cutoffs)})"


def _from_ages(task: ConversionTask, ages: Ages, journeys: Journeys) -> LabelBuild:
    table = conversion_labels(
        journeys, ages_days=ages.ages_days, goal=task.goal, ended=task.ended, active_days=task.active_days,
        horizon_days=task.horizon_days, observed_until=task.observed_until,
    )  # fmt: skip
    return _parted(table, task.horizon_days, ages.test_share, ages.train_until, ages.test_from, ages.test_until)


def _from_table(task: LabelsTask, journeys: Journeys) -> LabelBuild:
    rows = read_label_table(task.path, task.columns.model_dump())
    mine = rows[_of_sample(rows["customer_id"], journeys.share)]
    checked = check_label_table(mine, journeys, horizon_days=task.horizon_days, observed_until=task.observed_until)
    build = build_of_table(task, checked)
    if len(mine) == len(rows):
        return build
    some = f"label rows of customers of the sample: {len(mine):,} of {len(rows):,}"
    return replace(build, notes=(some, *build.notes))


def _of_sample(customers: pd.Series, share: float) -> npt.NDArray[np.bool_]:
    """(n,) whose rows a log of a share of the customers can have; those of nobody are for the checks."""
    ids = id_texts(customers)
    found: npt.NDArray[np.bool_] = sampled(ids.fill_null(""), share) | np.asarray(ids.is_null())
    return found


def build_of_table(task: LabelsTask, checked: CheckedLabels) -> LabelBuild:
    """The user's rows with their split, given or by moments."""
    notes = tuple(f"label rows set aside, {reason}: {n:,}" for reason, n in checked.counts.items())
    if "split" in checked.labels:
        return LabelBuild(checked.labels, notes, checked.quarantine, checked.counts)
    build = _parted(checked.labels, task.horizon_days, task.cutoffs.test_share, None, task.cutoffs.test_from, None)
    return LabelBuild(build.table, notes + build.notes, checked.quarantine, checked.counts)


def _parted(
    table: pd.DataFrame,
    horizon_days: float,
    test_share: float,
    train_until: datetime | None,
    test_from: datetime | None,
    test_until: datetime | None,
) -> LabelBuild:
    """Train and test by moments; rows whose window reaches from one into the other belong to neither."""
    cutoff = microseconds(table["cutoff"])
    borders, notes = borders_of(*np.unique(cutoff, return_counts=True), test_share, train_until, test_from, test_until)
    train, test = borders.sides(cutoff, round(horizon_days * DAY_US))
    if between := int((~train & ~test).sum()):
        notes.append(left_out(between))
    table = table.assign(split=np.where(test, "test", "train"))
    return LabelBuild(table[train | test].reset_index(drop=True), tuple(notes))


@dataclass(frozen=True)
class Borders:
    """Where train ends and test begins, µs.

    Attributes:
        train_until: training labels close by then.
        test_from: test cutoffs lie from there on.
        test_until: test labels close by then; None for the log's end.
    """

    train_until: int
    test_from: int
    test_until: int | None = None

    def sides(self, cutoff: Int64s, horizon_us: int) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.bool_]]:
        """(n,) which rows are train, which are test; some are neither."""
        closes = cutoff + horizon_us
        test = cutoff >= self.test_from
        return closes <= self.train_until, test if self.test_until is None else test & (closes <= self.test_until)


def borders_of(
    moments_: Int64s,
    counts: Int64s,
    test_share: float,
    train_until: datetime | None,
    test_from: datetime | None,
    test_until: datetime | None,
) -> tuple[Borders, list[str]]:
    """The borders that were asked for, or those that make `test_share` of the rows test rows, and what to say.

    Args:
        moments_: (k,) the distinct cutoffs, µs, rising.
        counts: (k,) how many rows have each.
        test_share: of the rows.
        train_until: as asked for.
        test_from: the same.
        test_until: the same.
    """
    notes = []
    if test_from is None and train_until is None and len(moments_):
        border = moment_from_counts(moments_, counts, test_share)
        share = counts[moments_ >= border].sum() / counts.sum()
        notes.append(f"test rows start at {as_text(border)}, which makes them {share:.0%} of all")
    else:
        border = int(microseconds(test_from or train_until or 0))
    until = border if train_until is None else int(microseconds(train_until))
    return Borders(until, border, None if test_until is None else int(microseconds(test_until))), notes


def left_out(rows: int) -> str:
    """What is said about rows that are neither train nor test."""
    return f"{rows:,} rows left out: their window reaches over the border between train and test"


def _require_closed(train: Int64s, test: Int64s, horizon_days: float) -> None:
    closes = int(train.max()) + round(horizon_days * DAY_US)
    if closes > int(test.min()):
        raise DataError(
            f"The label of the training cutoff {as_text(int(train.max()))} closes on {as_text(closes)}, after the "
            f"test cutoff {as_text(int(test.min()))}: a model would be tested on what it has seen. Training cutoffs "
            f"must end by {as_text(int(test.min()) - round(horizon_days * DAY_US))}."
        )


@dataclass(frozen=True)
class LabelCounts:
    """What the checks of a label table look at; those of parts merge (`features.journeys.event_log.merged`).

    Attributes:
        rows: labelled snapshots.
        positives, negatives: of the training rows.
        train, test: first and last cutoff, µs; None where there is none.
    """

    rows: int
    positives: int
    negatives: int
    train: tuple[int, int] | None
    test: tuple[int, int] | None

    def __add__(self, other: LabelCounts) -> LabelCounts:
        return LabelCounts(
            self.rows + other.rows, self.positives + other.positives, self.negatives + other.negatives,
            _both_spans(self.train, other.train), _both_spans(self.test, other.test),
        )  # fmt: skip


def _both_spans(a: tuple[int, int] | None, b: tuple[int, int] | None) -> tuple[int, int] | None:
    return (min(a[0], b[0]), max(a[1], b[1])) if a and b else a or b


def label_counts(cutoff: Int64s, is_test: npt.NDArray[np.bool_], positive: npt.NDArray[np.bool_]) -> LabelCounts:
    """Of labelled rows: (n,) cutoffs in µs, which are test rows, which are positive."""
    spans = [(int(one.min()), int(one.max())) if len(one) else None for one in (cutoff[~is_test], cutoff[is_test])]
    hits = int(positive[~is_test].sum())
    return LabelCounts(len(cutoff), hits, int((~is_test).sum()) - hits, *spans)


def require_labels(counts: LabelCounts, horizon_days: float, fewest: int) -> None:
    """Raise a `DataError` unless there are training rows before test rows, and enough of both labels."""
    spans = [span for span in (counts.train, counts.test) if span]
    for split, span in (("training", counts.train), ("test", counts.test)):
        if span is None:
            first, last = (min(one[0] for one in spans), max(one[1] for one in spans)) if spans else (0, 0)
            have = f" (from {as_text(first)} to {as_text(last)})" if spans else ""
            raise DataError(
                f"There is no {split} row among {counts.rows:,} labelled snapshots{have}. "
                "Check the cutoffs against the log's first and last event, and the horizon."
            )
    assert counts.train
    assert counts.test
    _require_closed(np.array(counts.train), np.array(counts.test), horizon_days)
    _require_both_labels(counts.positives, counts.negatives, fewest)


def require_history(task: Task, start: int, end: int) -> None:
    """Raise a `DataError` where a log from `start` to `end` (µs) is shorter than a look-back and a horizon."""
    history, needed = (end - start) / DAY_US, task.look_back_days + task.horizon_days
    if history < needed:
        raise DataError(
            f"Too little history: the log covers {history:.1f} days ({as_text(start)} to {as_text(end)}), one "
            f"look-back ({task.look_back_days:g} days) and one horizon ({task.horizon_days:g} days) take {needed:g}. "
            "Set allow_small = true to go on all the same."
        )


def _require_both_labels(positives: int, negatives: int, fewest: int) -> None:
    if min(positives, negatives) >= fewest:
        return
    figures = f"{positives:,} positives and {negatives:,} negatives in {positives + negatives:,} training rows"
    if min(positives, negatives) == 0:
        raise DataError(f"All training labels are equal: {figures}. There is nothing to tell apart.")
    raise DataError(
        f"Too little data: {figures}; fewer than {fewest} of either are not modelled. "
        "More cutoffs or a longer log help; set allow_small = true to go on all the same."
    )

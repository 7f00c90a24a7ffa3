"""From a task and a log to the label table with its split, or to the figures that speak against it."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from features.journeys import Journeys
from features.label_tables import check_label_table, read_label_table
from features.labels import DAY_US, as_text, churn_labels, conversion_labels, log_end_us, log_start_us
from features.moments import microseconds
from features.slices import moment_for_share
from training.tasks import Ages, ChurnTask, ConversionTask, Counted, Dates, LabelsTask, Task, moments

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
        _require_history(task, journeys)
    if isinstance(task, LabelsTask):
        build = _from_table(task, journeys)
    elif isinstance(task, ConversionTask) and isinstance(task.cutoffs, Ages):
        build = _from_ages(task, task.cutoffs, journeys)
    else:
        build = _from_cutoffs(task, journeys)
    _require_order(build.table, task.horizon_days)
    _require_both_labels(build.table, 1 if allow_small else min_class_count)
    return build


def _from_cutoffs(task: ChurnTask | ConversionTask, journeys: Journeys) -> LabelBuild:
    if isinstance(task.cutoffs, Dates):
        train, test = (microseconds(moments(given)) for given in (task.cutoffs.train, task.cutoffs.test))
        notes: tuple[str, ...] = ()
    else:
        counted = task.cutoffs if isinstance(task.cutoffs, Counted) else Counted()
        train, test, notes = counted_cutoffs(task, counted, journeys)
    _require_closed(train, test, task.horizon_days)
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
    task: ChurnTask | ConversionTask, counted: Counted, journeys: Journeys
) -> tuple[Int64s, Int64s, tuple[str, ...]]:
    """Training and test cutoffs counted back from the log's end (µs, rising), and what there is to say."""
    start, end = log_start_us(journeys), log_end_us(journeys, task.observed_until)
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
    checked = check_label_table(
        read_label_table(task.path, task.columns.model_dump()), journeys, horizon_days=task.horizon_days,
        observed_until=task.observed_until,
    )  # fmt: skip
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
    closes = cutoff + round(horizon_days * DAY_US)
    notes = []
    if test_from is None and train_until is None and len(table):
        border = moment_for_share(cutoff, test_share)
        notes.append(f"test rows start at {as_text(border)}, which makes them {(cutoff >= border).mean():.0%} of all")
    else:
        border = int(microseconds(test_from or train_until or 0))
    train = closes <= (border if train_until is None else int(microseconds(train_until)))
    test = (cutoff >= border) & (True if test_until is None else closes <= int(microseconds(test_until)))
    if between := int((~train & ~test).sum()):
        notes.append(f"{between:,} rows left out: their window reaches over the border between train and test")
    table = table.assign(split=np.where(test, "test", "train"))
    return LabelBuild(table[train | test].reset_index(drop=True), tuple(notes))


def _require_closed(train: Int64s, test: Int64s, horizon_days: float) -> None:
    closes = int(train.max()) + round(horizon_days * DAY_US)
    if closes > int(test.min()):
        raise DataError(
            f"The label of the training cutoff {as_text(int(train.max()))} closes on {as_text(closes)}, after the "
            f"test cutoff {as_text(int(test.min()))}: a model would be tested on what it has seen. Training cutoffs "
            f"must end by {as_text(int(test.min()) - round(horizon_days * DAY_US))}."
        )


def _require_order(table: pd.DataFrame, horizon_days: float) -> None:
    cutoff, is_test = microseconds(table["cutoff"]), (table["split"] == "test").to_numpy()
    for split, rows in (("training", ~is_test), ("test", is_test)):
        if not rows.any():
            have = f" (from {as_text(cutoff.min())} to {as_text(cutoff.max())})" if len(table) else ""
            raise DataError(
                f"There is no {split} row among {len(table):,} labelled snapshots{have}. "
                "Check the cutoffs against the log's first and last event, and the horizon."
            )
    _require_closed(cutoff[~is_test], cutoff[is_test], horizon_days)


def _require_history(task: Task, journeys: Journeys) -> None:
    start, end = log_start_us(journeys), log_end_us(journeys, task.observed_until)
    history, needed = (end - start) / DAY_US, task.look_back_days + task.horizon_days
    if history < needed:
        raise DataError(
            f"Too little history: the log covers {history:.1f} days ({as_text(start)} to {as_text(end)}), one "
            f"look-back ({task.look_back_days:g} days) and one horizon ({task.horizon_days:g} days) take {needed:g}. "
            "Set allow_small = true to go on all the same."
        )


def _require_both_labels(table: pd.DataFrame, fewest: int) -> None:
    train = table.loc[table["split"] == "train", "label"]
    positives, negatives = int((train == 1).sum()), int((train == 0).sum())
    if min(positives, negatives) >= fewest:
        return
    figures = f"{positives:,} positives and {negatives:,} negatives in {len(train):,} training rows"
    if min(positives, negatives) == 0:
        raise DataError(f"All training labels are equal: {figures}. There is nothing to tell apart.")
    raise DataError(
        f"Too little data: {figures}; fewer than {fewest} of either are not modelled. "
        "More cutoffs or a longer log help; set allow_small = true to go on all the same."
    )

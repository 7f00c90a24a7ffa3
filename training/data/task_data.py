"""The rows of an experiment, ready to train on: snapshots, labels and folds."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console

from features.journeys.journeys import Journeys, Snapshots
from features.journeys.loading import load_log
from features.journeys.stream import Loaded
from features.labels.plan import LabelBuild
from features.labels.task import Task
from features.timestamps import days_us, moment_text
from training.config.experiment import Experiment
from training.data.splits import Fold, make_folds, overlap_sentence
from training.evaluation.breakdown import base_rate_shift
from training.progress import say, stage

LABEL_QUARANTINE = "label_quarantine.csv"
FEWEST_TRAIN, FEWEST_CHECK = 100, 20  # positives and negatives in a fold, unless too little data is allowed


@dataclass(frozen=True)
class TaskData:
    """The rows of an experiment, ready to train on.

    Attributes:
        task: what is predicted.
        journeys: the packed log.
        fingerprint: of the log.
        labels_fingerprint: of the label table.
        train, test: (n,) and (m,) snapshots.
        y_train, y_test: their labels.
        folds: inside train.
        trained_until: µs since 1970 UTC, when the last training label closed.
        notes: what a reviewer should know of reading, labelling and folds.
    """

    task: Task
    journeys: Journeys
    fingerprint: str
    labels_fingerprint: str
    train: Snapshots
    test: Snapshots
    y_train: npt.NDArray[Any]
    y_test: npt.NDArray[Any]
    folds: tuple[Fold, ...]
    trained_until: int
    notes: tuple[str, ...]

    def rows(self, split: str) -> pd.DataFrame:
        """`customer_id, cutoff, label` of "train" or "test"."""
        snapshots, y = (self.train, self.y_train) if split == "train" else (self.test, self.y_test)
        return snapshots.frame().assign(label=y)

    def scored(self, split: str) -> tuple[npt.NDArray[Any], npt.NDArray[np.object_], npt.NDArray[np.int64]]:
        """Labels, customers and cutoffs of "validation" (the check rows, fold by fold) or "test" (held-out rows)."""
        if split == "test":
            return self.y_test, self.test.customer_ids, self.test.cutoff
        rows = np.concatenate([fold.check for fold in self.folds])
        return self.y_train[rows], self.train.customer_ids[rows], self.train.cutoff[rows]

    @property
    def fold_of_checks(self) -> npt.NDArray[np.int64]:
        """(k,) the fold of each validation row, in the order of `scored`."""
        return np.repeat(np.arange(len(self.folds)), [len(fold.check) for fold in self.folds])


def read_task_data(experiment: Experiment, home: Path, progress: Console | None = None) -> TaskData:
    """Read and label the log of an experiment; rejected events and label rows go to quarantine files in `home`."""
    with stage(progress, f"Reading {experiment.events.path}"):
        log = load_log(experiment.events, quarantine_path=home / "quarantine.csv")
    with stage(progress, f"Labelling for {experiment.task.kind}, horizon {experiment.task.horizon_days:g} days"):
        build = experiment.labels(log.journeys, home / LABEL_QUARANTINE)
        data = task_data(experiment, log.journeys, build, log)
    for remark in data.notes:
        say(progress, f"  {remark}")
    return data


def task_data(experiment: Experiment, journeys: Journeys, build: LabelBuild, log: Loaded) -> TaskData:
    """Snapshots, labels and folds from a label table."""
    table, task = build.table, experiment.task
    horizon_us = days_us(task.horizon_days)
    snapshots, y = journeys.at_ids(table), table["label"].to_numpy()
    is_test = (table["split"] == "test").to_numpy()
    train, test = snapshots.take(np.flatnonzero(~is_test)), snapshots.take(np.flatnonzero(is_test))
    fewest = (1, 1) if experiment.allow_small else (FEWEST_TRAIN, FEWEST_CHECK)
    folds = make_folds(
        train.customer_ids,
        train.cutoff,
        horizon_us,
        labels=y[~is_test] if task.binary else None,
        seed=experiment.seed,
        fewest_train=fewest[0],
        fewest_check=fewest[1],
    )
    shift = base_rate_shift(
        y[~is_test], train.customer_ids, y[is_test], test.customer_ids, binary=task.binary, seed=experiment.seed
    )
    rejected = tuple(f"events rejected, {reason}: {n:,}" for reason, n in log.counts.items())
    return TaskData(
        task=task,
        journeys=journeys,
        fingerprint=journeys.fingerprint(),
        labels_fingerprint=labels_fingerprint(table),
        train=train,
        test=test,
        y_train=y[~is_test],
        y_test=y[is_test],
        folds=tuple(folds),
        trained_until=int(train.cutoff.max()) + horizon_us,
        notes=(*log.notes, *rejected, *build.notes, overlap_sentence(folds), shift.sentence),
    )


def labels_fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 of customers, cutoffs, labels and split, in the table's order."""
    columns = [table["customer_id"].astype(str), table["cutoff"].astype(str), table["label"].astype(str)]
    text = "\n".join("\x1f".join(row) for row in zip(*columns, table["split"].astype(str), strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def _rows_summary(task: Task, snapshots: Snapshots, y: npt.NDArray[Any]) -> str:
    """How many rows, their mean label, and which cutoffs."""
    first, last = moment_text(int(snapshots.cutoff.min())), moment_text(int(snapshots.cutoff.max()))
    return f"{len(y):,} snapshots, {task.label_summary(y)}, cutoffs {first} to {last}"


def data_lines(data: TaskData) -> tuple[str, str, str]:
    """A line each on the log, the training rows and the held-out rows, for notes and the model card."""
    journeys = data.journeys
    first, last = (moment_text(moment)[:10] for moment in (journeys.start_us, journeys.end_us))
    train, test = (_rows_summary(data.task, *rows) for rows in ((data.train, data.y_train), (data.test, data.y_test)))
    return (
        f"Log: {journeys.n_events:,} events of {journeys.n_customers:,} customers, {first} to {last} "
        f"(fingerprint `{data.fingerprint[:12]}`)",
        f"Train: {train}; the last label closed on {moment_text(data.trained_until)}",
        f"Held out: {test}; scored once, after all settings were fixed",
    )

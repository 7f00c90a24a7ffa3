"""A worker of a search: a process that asks for a trial, fits and scores its folds, and tells, until none is left.

`python -m training.search.worker` is started by `training.search.search`, which writes one line to its input, a
`WorkerTask` as JSON (the URL of a storage may hold a password, and arguments are seen by everybody). It ends when its
input closes, so it never outlives its parent.

A model that is fitted in epochs (`models.contract.Watchable`) is judged after each epoch, and one whose fit takes long
(`Resumable`) goes on where a killed one was.
"""

from __future__ import annotations

import importlib
import json
import os
import shutil
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from optuna.storages._heartbeat import get_heartbeat_thread  # Optuna starts it only within `Study.optimize`
from rich.console import Console

from features.errors import JourneyLabError
from models.contract import FitPruned, Report, Resumable, Watchable
from training.search.folder import Job, Scores, Settings, merged, read_scores, scores_path, state_path, write_scores
from training.search.storage import open_storage
from training.search.trials import SearchStudy, Trial, TrialTakenOver

NEVER_CERTAIN = 1e-15
MOST_FAILURES = 3  # failed trials in a row before the search is given up
PAUSE_S = 0.5  # between looks at trials that other processes are doing


@dataclass(frozen=True)
class WorkerTask:
    """What a worker is started with.

    Attributes:
        folder: of the search.
        storage: the URL of a shared storage; None: the trials lie in the folder.
        worker: its name, see `SearchStudy`.
        deadline: seconds since 1970, after which no trial begins; None: there is none.
        waits: stay until all trials are finished, also those of other processes: they may die.
        grace_s: how long a process on a shared storage keeps its trial without a heartbeat.
    """

    folder: str
    storage: str | None
    worker: str
    deadline: float | None
    waits: bool
    grace_s: int


def log_loss(labels: Any, scores: Scores) -> float:
    """Mean negative log-likelihood in nats of (n,) probabilities.

    >>> round(log_loss([1, 0], np.array([0.5, 0.5])), 4)
    0.6931
    """
    y, p = np.asarray(labels, dtype=np.float64), np.clip(scores, NEVER_CERTAIN, 1 - NEVER_CERTAIN)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))


def fold_losses(
    job: Job, folder: Path, trial: int, settings: Settings, report: Callable[[int, int, float], bool] | None = None
) -> Iterator[tuple[int, float, float]]:
    """Fit and score fold by fold: the fold, the log loss of all rows up to it, and the seconds that the fold took.

    Args:
        job: the search.
        folder: of the search; predictions of a fold that was done before are read from it.
        trial: its number.
        settings: of the trial.
        report: called with fold, epoch and check loss after every epoch; true stops the fit.

    Raises:
        FitPruned: `report` stopped a fit.
    """
    total, n_rows = 0.0, 0
    for fold, (_, check) in enumerate(job.folds):
        started = time.monotonic()
        path, state = scores_path(folder, trial, fold), state_path(folder, trial, fold)
        if not path.is_file():

            def report_fold(epoch: int, loss: float, fold: int = fold) -> bool:
                return report is not None and report(fold, int(epoch), float(loss))

            write_scores(path, _predict(job, fold, settings, state, report_fold))
        shutil.rmtree(state, ignore_errors=True)
        total += log_loss(job.labels[check], read_scores(path)) * len(check)
        n_rows += len(check)
        yield fold, total / n_rows, time.monotonic() - started


def _predict(job: Job, fold: int, settings: Settings, state: Path, report: Report) -> Scores:
    """(n_check,) predictions of a model that was fitted on the fold's first rows."""
    fit, check = job.folds[fold]
    model = importlib.import_module(job.catalogue).make(job.kind, merged(job.fixed, settings))
    if isinstance(model, Watchable):
        model.watch(report)
    if isinstance(model, Resumable):
        model.resume_in(state)
    model.fit(job.snapshots.take(fit), job.labels[fit])
    return np.asarray(model.predict(job.snapshots.take(check)), dtype=np.float64)


def work(task: WorkerTask) -> None:
    """Do trials until none is left."""
    folder = Path(task.folder)
    job, storage = Job.load(folder), open_storage(folder, task.storage, Console(stderr=True), task.grace_s)
    study, failures = SearchStudy(job, storage, task.worker), 0
    while failures < MOST_FAILURES:
        if task.deadline and time.time() > task.deadline and any(trial.is_finished for trial in study.trials()):
            study.set_goal(0)
        trial = study.ask()
        if trial is not None:
            with get_heartbeat_thread(study.id_of(trial), storage):
                failures = 0 if _do(study, folder, trial) else failures + 1
        elif task.waits and any(trial.state == "running" for trial in study.trials()):
            time.sleep(PAUSE_S)
        else:
            return


def _do(study: SearchStudy, folder: Path, trial: Trial) -> bool:
    """Do a trial; false where it failed."""
    try:
        _judge(study, folder, trial)
    except TrialTakenOver:
        print(f"Trial {trial.number} was taken over by another process; this one leaves it.", file=sys.stderr)
    except JourneyLabError as error:
        study.fail(trial, str(error), is_fixable=True)
        return False
    except Exception as error:  # a trial whose settings break a library must not end the search
        traceback.print_exc()
        study.fail(trial, f"{type(error).__name__}: {error}")
        return False
    return True


def _judge(study: SearchStudy, folder: Path, trial: Trial) -> None:
    """Fit and score fold by fold, as long as the trial is worth it."""
    loss, started, n_folds = float("nan"), time.monotonic(), len(study.job.folds)
    fold = -1
    try:
        if trial.stopped is not None:  # a process that died had decided so
            raise FitPruned

        def report(fold: int, epoch: int, loss: float) -> bool:
            return study.report_epoch(trial, fold, epoch, loss)

        for fold, loss, seconds in fold_losses(study.job, folder, trial.number, trial.settings, report):
            prune, started = study.report(trial, fold, loss, seconds), time.monotonic()
            if prune and fold + 1 < n_folds:
                break
    except FitPruned:
        if trial.stopped is None:
            study.note_seconds(trial, fold + 1, time.monotonic() - started)
        study.prune(trial)
    else:
        study.complete(trial, loss) if fold + 1 == n_folds else study.prune(trial)
    for each in range(n_folds):
        shutil.rmtree(state_path(folder, trial.number, each), ignore_errors=True)


def _read_task() -> WorkerTask:
    """The task from the input; at the end of the input the parent is gone, and with it the use of this process."""
    task = WorkerTask(**json.loads(sys.stdin.readline()))

    def wait() -> None:
        sys.stdin.read()
        os._exit(0)

    threading.Thread(target=wait, daemon=True).start()
    return task


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    work(_read_task())

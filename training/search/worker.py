"""One worker of a search: reads the job once, then fits and scores one fold of one trial for each line it gets.

`python -m training.search.worker FOLDER` is started by `training.search.search`. A line in is JSON with `trial`, `fold`
and `settings`; a line out repeats the first two and adds `log_loss`, `n_rows` and `seconds`, or `error`. A worker
touches
no database: what it finds out is a file of scores. It ends when its input closes, so it never outlives its parent.

A model that is fitted in epochs (`models.contract.Watchable`) also makes lines with `trial`, `fold`, `step` and `loss`;
after each it waits for a line "go" or "stop". A fit that was stopped is answered with `pruned` and `seconds`.
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
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TextIO

import numpy as np

from features.errors import JourneyLabError
from models.contract import FitPruned, Report, Resumable, Watchable
from training.search.folder import Job, Scores, merged, read_scores, scores_path, state_path, write_scores

NEVER_CERTAIN = 1e-15
GO, STOP = "go", "stop"  # what the parent says to an epoch


def log_loss(labels: Any, scores: Scores) -> float:
    """Mean negative log-likelihood in nats of (n,) probabilities.

    >>> round(log_loss([1, 0], np.array([0.5, 0.5])), 4)
    0.6931
    """
    y, p = np.asarray(labels, dtype=np.float64), np.clip(scores, NEVER_CERTAIN, 1 - NEVER_CERTAIN)
    return float(-np.mean(y * np.log(p) + (1 - y) * np.log1p(-p)))


def score_fold(
    job: Job, folder: Path, trial: int, fold: int, settings: dict[str, Any], report: Report | None = None
) -> dict[str, Any]:
    """Fit on the fold's first rows, predict its check rows, keep the predictions; a fold done before is read back.

    Args:
        job: the search.
        folder: of the search.
        trial: its number.
        fold: its number.
        settings: of the trial.
        report: is told of every epoch, and may stop the fit.
    """
    started = time.monotonic()
    path, state = scores_path(folder, trial, fold), state_path(folder, trial, fold)
    try:
        if not path.is_file():
            _score(job, fold, settings, path, state, report)
    except FitPruned:
        shutil.rmtree(state, ignore_errors=True)
        return {"pruned": True, "seconds": time.monotonic() - started}
    shutil.rmtree(state, ignore_errors=True)
    check = job.folds[fold][1]
    loss = log_loss(job.labels[check], read_scores(path))
    return {"log_loss": loss, "n_rows": len(check), "seconds": time.monotonic() - started}


def _score(job: Job, fold: int, settings: dict[str, Any], path: Path, state: Path, report: Report | None) -> None:
    fit, check = job.folds[fold]
    model = importlib.import_module(job.catalogue).make(job.kind, merged(job.fixed, settings))
    if isinstance(model, Watchable):
        model.watch(report)
    if isinstance(model, Resumable):
        model.resume_in(state)
    model.fit(job.snapshots.take(fit), job.labels[fit])
    write_scores(path, np.asarray(model.predict(job.snapshots.take(check)), dtype=np.float64))


def main(folder: Path) -> None:
    """Serve lines until the input closes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to handle
    answers = _private_output()
    lines: SimpleQueue[str] = SimpleQueue()
    threading.Thread(target=_read, args=(lines,), daemon=True).start()
    job = Job.load(folder)
    while True:
        task = json.loads(lines.get())
        about = {"trial": task["trial"], "fold": task["fold"]}

        def report(epoch: int, loss: float, about: dict[str, int] = about) -> bool:
            _say(answers, about | {"step": int(epoch), "loss": float(loss)})
            return lines.get().strip() == STOP

        _say(answers, about | _answer(job, folder, task, report))


def _say(answers: TextIO, answer: dict[str, Any]) -> None:
    answers.write(json.dumps(answer) + "\n")
    answers.flush()


def _answer(job: Job, folder: Path, task: dict[str, Any], report: Report) -> dict[str, Any]:
    try:
        return score_fold(job, folder, **task, report=report)
    except JourneyLabError as error:
        return {"error": str(error), "mendable": True}
    except Exception as error:  # a trial whose settings break a library must not end the search
        traceback.print_exc()
        return {"error": f"{type(error).__name__}: {error}", "mendable": False}


def _read(lines: SimpleQueue[str]) -> None:
    """Hand on lines; at the end of the input the parent is gone, and a fit that still runs is of no use to anyone."""
    for line in sys.stdin:
        lines.put(line)
    os._exit(0)


def _private_output() -> TextIO:
    """The real standard output for answers; whatever libraries print goes to the log instead."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return answers


if __name__ == "__main__":
    main(Path(sys.argv[1]))

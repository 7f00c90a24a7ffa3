"""The book of trials where several machines write it: every trial is done once, whoever dies.

Asking is one process's turn at a time, so that no two begin the same trial and none too many. Who works on a trial has
a lease on it (`training.search.storage`); a trial whose lease has run out is taken up by whoever is free, with its
number, its settings, and the folds that were done: their scores lie in the database too. Each machine keeps copies of
what it needs in the search's folder, so that nothing but the database need be shared.
"""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Callable
from contextlib import suppress
from functools import update_wrapper
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import numpy as np
import optuna
from optuna.exceptions import UpdateFinishedTrialError
from rich.console import Console

from features.errors import ConfigError
from training.search.folder import Job, read_scores, scores_path, write_scores
from training.search.storage import SearchStorage
from training.search.trials import SHARED, STUDY, Trial, TrialBook

MOST_TAKEN_UP = 5  # processes that may die over one trial before the trial is given up
IDENTITY, BEGUN, WANTED, ABOUT = "journeylab_id", "taken_up", "journeylab_wanted", "journeylab_about"

Asked = ParamSpec("Asked")
Answer = TypeVar("Answer")


def owner_of(folder: Path) -> str:
    """Who holds a folder, the same for as long as the folder is there."""
    path = folder / "owner"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex)
    return path.read_text().strip()


def study_name(job: Job) -> str:
    """The same for the same rows, folds and settings, on whatever machine."""
    return f"journeylab {job.kind} {job.fingerprint()[:20]}"


def announce(job: Job, storage: SearchStorage, wanted: int | None = None) -> None:
    """Begin the study of a search where there is none, for others to find."""

    def begin() -> None:
        with storage.alone(study_name(job)):
            study = optuna.create_study(
                storage=storage.optuna, study_name=study_name(job), load_if_exists=True, direction="minimize"
            )
            if IDENTITY not in study.user_attrs:
                study.set_user_attr(ABOUT, job.about())
                study.set_user_attr(IDENTITY, uuid.uuid4().hex)
            if wanted is not None:
                study.set_user_attr(WANTED, wanted)

    storage.patiently(begin)


def _patient(
    method: Callable[Concatenate[SharedBook, Asked], Answer],
) -> Callable[Concatenate[SharedBook, Asked], Answer]:
    """Where the server is away, wait for it and do all of it again: each of these methods may be done twice."""

    def patient(self: SharedBook, /, *args: Asked.args, **options: Asked.kwargs) -> Answer:
        return self.storage.patiently(lambda: method(self, *args, **options))

    update_wrapper(patient, method)
    return patient


class SharedBook(TrialBook):
    """The study of one search, on a storage that others write, too.

    Args:
        folder: this process's own.
        job: the search.
        url: of the storage.
        progress: where to say that the server is away.

    Raises:
        ConfigError: the storage cannot be used, or the folder holds a search that is not shared.
    """

    shared = True

    def __init__(self, folder: Path, job: Job, url: str, progress: Console | None = None) -> None:
        if (folder / "optuna.db").exists() and not (folder / SHARED).exists():
            raise ConfigError(f"{folder} holds a search that is not shared: give the shared one a folder of its own.")
        self.folder, self.name = folder, study_name(job)
        self.storage = SearchStorage(url, owner_of(folder), progress)
        self._given: set[int] = set()
        try:
            self.storage.patiently(lambda: self._begin(folder, job))
        except BaseException:
            self.storage.close()
            raise

    def _begin(self, folder: Path, job: Job) -> None:
        announce(job, self.storage)
        super().__init__(folder, job, self.storage.optuna, self.name)
        self._same(folder, str(self._study.user_attrs[IDENTITY]))

    def _same(self, folder: Path, identity: str) -> None:
        """Where the study was deleted and began anew, scores of its trials are not those of the trials now."""
        path = folder / SHARED
        if path.is_file() and path.read_text() == identity:
            return
        for name in ("scores", "state"):
            shutil.rmtree(folder / name, ignore_errors=True)
        (folder / "scores").mkdir(parents=True)
        path.write_text(identity)

    def close(self) -> None:
        """Let go of what this process holds."""
        self.storage.close()

    @_patient
    def want(self, trials: int) -> None:
        """Say for everybody how many trials shall be finished."""
        with self.storage.alone(self.name):
            self._study.set_user_attr(WANTED, trials)

    @_patient
    def wanted(self) -> int:
        """How many trials shall be finished."""
        return int(self._study.user_attrs.get(WANTED, 0))

    @_patient
    def take_up(self) -> Trial | None:
        """A trial that was begun and that nobody works on; None where there is none."""
        if all(trial.state != "running" or trial.number in self._given for trial in self.trials()):
            return None
        with self.storage.alone(self.name):
            taken = self._take_up()
        return self._give(taken)

    @_patient
    def ask(self, wanted: int | None = None) -> Trial | None:
        """A trial to do, of those that others left or a new one; None where there is nothing to begin."""
        if wanted is not None and self.counted() >= wanted:
            return None
        with self.storage.alone(self.name):
            trial = self._take_up() or super().ask(wanted)
            while trial is not None and self._is_double(trial):
                self.fail(trial, "another process began the same one while the server restarted")
                trial = super().ask(wanted)
            if trial is not None and not self.storage.take(self._lease(trial.number)):
                return None  # it is as good as begun by the one who has it
        return self._give(trial)

    def _is_double(self, trial: Trial) -> bool:
        """Whether another has begun these settings: a server that restarts forgets who was alone."""
        before = self.trials()[: trial.number]
        return bool(trial.params) and any(one.params == trial.params and one.state != "failed" for one in before)

    def _take_up(self) -> Trial | None:
        for trial in self.trials():
            name = self._lease(trial.number)
            if trial.state != "running" or trial.number in self._given:
                continue
            before = self.storage.owner_of(name)
            if not self.storage.take(name):
                continue
            if before in (None, self.storage.owner) or self._note_death(trial):
                return trial
        return None

    def _note_death(self, trial: Trial) -> bool:
        """Count the processes that died over a trial; False where it is to be given up."""
        trial_id = self._id(trial)
        deaths = int(self._storage.get_trial(trial_id).user_attrs.get(BEGUN, 0)) + 1
        self._storage.set_trial_user_attr(trial_id, BEGUN, deaths)
        if deaths < MOST_TAKEN_UP:
            return True
        self.fail(trial, f"{deaths} processes died over it")
        return False

    def _give(self, trial: Trial | None) -> Trial | None:
        if trial is not None:
            self.bring(trial)
            self._given.add(trial.number)
        return trial

    def others(self) -> bool:
        """Whether trials run in other processes."""
        return any(trial.state == "running" and trial.number not in self._given for trial in self.trials())

    def is_lost(self, trial: Trial) -> bool:
        """Whether another process has taken the trial up, since this one was silent for too long."""
        return self.storage.is_lost(self._lease(trial.number))

    def drop(self, trial: Trial) -> None:
        """Leave a trial to the process that has it now."""
        self._given.discard(trial.number)
        self.storage.release(self._lease(trial.number))

    def keep(self, trial: Trial, fold: int) -> None:
        """Hand a fold's scores on to the others."""
        scores = read_scores(scores_path(self.folder, trial.number, fold))
        content = io.BytesIO()
        np.save(content, scores)
        self.storage.keep_scores(self.name, trial.number, fold, content.getvalue())

    def bring(self, trial: Trial) -> None:
        """Put the scores that others found where this machine's own lie."""
        paths = [scores_path(self.folder, trial.number, fold) for fold in range(len(trial.losses))]
        if all(path.is_file() for path in paths):
            return
        for fold, content in self.storage.scores(self.name, trial.number).items():
            path = scores_path(self.folder, trial.number, fold)
            if not path.is_file():
                write_scores(path, np.load(io.BytesIO(content), allow_pickle=False))

    @_patient
    def copy(self) -> None:
        """Leave a copy of the study in the folder, as a search that is not shared leaves it."""
        path = self.folder / "optuna.db"
        fresh = path.with_name("optuna.db.new")
        fresh.unlink(missing_ok=True)
        to = optuna.storages.RDBStorage(f"sqlite:///{fresh}")
        optuna.copy_study(from_study_name=self.name, from_storage=self._storage, to_storage=to, to_study_name=STUDY)
        to.remove_session()
        to.engine.dispose()
        os.replace(fresh, path)

    trials = _patient(TrialBook.trials)
    note_seconds = _patient(TrialBook.note_seconds)
    is_stopped = _patient(TrialBook.is_stopped)

    @_patient
    def report(self, trial: Trial, step: int, loss: float, seconds: float) -> bool:
        """As `TrialBook.report`; a trial that another process has finished is not worth another fold."""
        with suppress(UpdateFinishedTrialError):
            return super().report(trial, step, loss, seconds)
        return True

    @_patient
    def report_epoch(self, trial: Trial, fold: int, step: int, loss: float) -> bool:
        """As `TrialBook.report_epoch`, likewise."""
        with suppress(UpdateFinishedTrialError):
            return super().report_epoch(trial, fold, step, loss)
        return True

    def complete(self, trial: Trial, loss: float) -> Trial:
        """The trial is done."""
        return self._end(trial, lambda: super(SharedBook, self).complete(trial, loss))

    def prune(self, trial: Trial) -> Trial:
        """The trial is done, without its last folds or epochs."""
        return self._end(trial, lambda: super(SharedBook, self).prune(trial))

    def fail(self, trial: Trial, error: str) -> Trial:
        """The trial cannot be done; it does not count."""
        return self._end(trial, lambda: super(SharedBook, self).fail(trial, error))

    def _end(self, trial: Trial, end: Callable[[], Trial]) -> Trial:
        def once() -> Trial:
            with suppress(UpdateFinishedTrialError):  # it had got through when the server went away
                return end()
            return self.trials()[trial.number]

        done = self.storage.patiently(once)
        self._given.discard(trial.number)
        self.storage.release(self._lease(trial.number))
        return done

    def _lease(self, number: int) -> str:
        return f"{self.name} trial {number}"

"""Searches that several machines share: one trains, the others help.

    with leading(url, searches(experiment, data), folder): ...   # around all that `journeylab train --storage` does
    work(experiment, url, progress=Console())                    # `journeylab work`, on as many machines as there are

All of them read the log for themselves and must find the same rows; nothing but the database is shared. Who helps fits
and scores trials. The training process does so too, tells MLflow of every trial, and fits the final models.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from features.errors import ConfigError
from models.contract import Settings
from training.config.experiment import Experiment
from training.data.task_data import TaskData, read_task_data
from training.progress import say
from training.search.folder import Job, held, prepare
from training.search.search import Search, job_of
from training.search.shared_trials import ABOUT, SharedBook, announce, owner_of, study_name
from training.search.storage import LEASE_S, SearchStorage
from training.search.trials import Trial

WAIT_S, LOOK_AGAIN_S = 600.0, 2.0


@dataclass(frozen=True)
class Wanted:
    """A search of an experiment.

    Attributes:
        job: what is searched.
        trials: how many shall be finished.
    """

    job: Job
    trials: int


@dataclass(frozen=True)
class Worked:
    """What a process that helps did.

    Attributes:
        trials: kind → trials that ended here.
    """

    trials: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"trials": self.trials, "total": sum(self.trials.values())}


def fixed_settings(experiment: Experiment, kind: str) -> Settings:
    """What no trial of a kind turns."""
    fixed = {"seed": experiment.seed, "features": experiment.features}
    return fixed | experiment.models.settings.get(kind, {})


def searches(experiment: Experiment, data: TaskData, catalogue: str = "models.catalogue") -> list[Wanted]:
    """The searches of an experiment, in their order."""
    return [
        Wanted(
            job_of(
                kind, data.train, data.y_train, data.folds,
                seed=experiment.search_seed, fixed=fixed_settings(experiment, kind), catalogue=catalogue,
            ),
            experiment.search.of(kind),
        )
        for kind in experiment.models.which
    ]  # fmt: skip


@contextmanager
def leading(url: str | None, wanted: Sequence[Wanted], folder: Path, progress: Console | None = None) -> Iterator[None]:
    """Announce all searches to those who help, and be the only one who trains on them; nothing without a storage.

    Raises:
        ConfigError: another process trains on them.
    """
    if url is None:
        yield
        return
    storage = SearchStorage(url, owner_of(folder), progress)
    try:
        if not storage.take(f"{study_name(wanted[0].job)} training"):
            raise ConfigError(
                f"Another `journeylab train` leads these searches on {storage.shown}. `journeylab work` with the same "
                f"file and storage helps it; if it has died, its place is free {LEASE_S:.0f} s later."
            )
        for each in wanted:
            announce(each.job, storage, each.trials)
        yield
    finally:
        storage.close()


def work(
    experiment: Experiment,
    storage: str,
    *,
    jobs: int | None = None,
    wait_s: float = WAIT_S,
    progress: Console | None = None,
    runs: Path = Path("runs"),
    catalogue: str = "models.catalogue",
) -> Worked:
    """Do trials of an experiment's searches until none is left to begin.

    Args:
        experiment: the very one that is trained.
        storage: the URL of the PostgreSQL database.
        jobs: worker processes; by default as the experiment says.
        wait_s: how long to wait for the training to begin.
        progress: where to show what is going on.
        runs: the folder for files of trainings.
        catalogue: the module that makes models and knows their search spaces.

    Raises:
        DataError: the events cannot be used.
        ConfigError: the storage cannot be used, or nothing of this experiment is searched there.
    """
    home = runs / experiment.name
    done: dict[str, int] = {}
    with _desk(home) as desk:
        data = read_task_data(experiment, desk, progress)
        for wanted in searches(experiment, data, catalogue):
            _wait(storage, wanted.job, desk, wait_s, progress)
            kind = wanted.job.kind
            done[kind] = _help(wanted.job, desk / f"search_{kind}", storage, jobs or experiment.search.jobs, progress)
    return Worked(done)


@contextmanager
def _desk(home: Path) -> Iterator[Path]:
    """A folder that no other helping process on this machine has; that of a dead one before a new one."""
    for number in count(1):
        folder = (home / f"work-{number}").resolve()
        with ExitStack() as stack:
            try:
                stack.enter_context(held(folder))
            except ConfigError:
                continue
            yield folder
            return


def _help(job: Job, folder: Path, url: str, jobs: int, progress: Console | None) -> int:
    """Do trials of one search; how many ended here."""
    try:
        resumed = prepare(job, folder)
    except ConfigError:  # what a helper of another search left
        shutil.rmtree(folder)
        resumed = prepare(job, folder)
    book = SharedBook(folder, job, url, progress)
    running = Search(book, job, folder, None, jobs, None, _nobody, progress)
    try:
        running.run(resumed)
    finally:
        book.close()
    return running.ended


def _nobody(trial: Trial) -> None:
    """Whoever leads tells MLflow."""


def _wait(url: str, job: Job, desk: Path, wait_s: float, progress: Console | None) -> None:
    storage, until, told = SearchStorage(url, owner_of(desk), progress), time.monotonic() + wait_s, False
    try:
        while not storage.patiently(lambda: study_name(job) in _studies(storage)):
            if time.monotonic() > until:
                raise ConfigError(_why_not(job, storage))
            if not told:
                say(progress, f"Waiting for `journeylab train` to begin the search of {job.kind}.")
            told = True
            time.sleep(LOOK_AGAIN_S)
    finally:
        storage.close()


def _studies(storage: SearchStorage) -> dict[str, dict[str, Any]]:
    """Name → what is noted of it, of every study on a storage."""
    found = optuna.get_all_study_summaries(storage=storage.optuna, include_best_trial=False)
    return {study.study_name: study.user_attrs for study in found}


def _why_not(job: Job, storage: SearchStorage) -> str:
    """What is searched there instead."""
    others = [attrs[ABOUT] for attrs in _studies(storage).values() if attrs.get(ABOUT, {}).get("kind") == job.kind]
    said = f"Nothing of this experiment is searched for {job.kind} on {storage.shown}."
    if not others:
        return f"{said} Start `journeylab train` with that storage first."
    changed = [name for name, value in job.about().items() if others[-1].get(name) != value]
    what = f"{', '.join(changed)} differ" if changed else "rows, labels or folds differ: is it the same log?"
    return f"{said} There is another search of {job.kind}; its {what}"

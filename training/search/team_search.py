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
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import optuna
from rich.console import Console

from features.errors import ConfigError
from training.config.experiment import Experiment
from training.data.task_data import TaskData, read_task_data
from training.progress import say
from training.search.folder import Job, held
from training.search.search import RunningSearch
from training.search.storage import TeamStorage
from training.search.trials import SUMMARY, SearchStudy, study_name

WAIT_S, LOOK_AGAIN_S = 600.0, 2.0


@dataclass(frozen=True)
class PlannedSearch:
    """A search of an experiment.

    Attributes:
        job: of the search.
        trials: how many shall be finished.
    """

    job: Job
    trials: int


@dataclass(frozen=True)
class WorkResult:
    """The work of a process that helped.

    Attributes:
        trials: kind → trials that were finished here.
    """

    trials: dict[str, int] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return {"trials": self.trials, "total": sum(self.trials.values())}


def searches(experiment: Experiment, data: TaskData, catalogue: str = "models.catalogue") -> list[PlannedSearch]:
    """The searches of an experiment, in their order."""
    fixed = {"seed": experiment.seed, "features": experiment.features}
    settings, seed = experiment.models.settings, experiment.search_seed
    return [
        PlannedSearch(
            Job.of(
                kind, data.train, data.y_train, data.folds,
                seed=seed, fixed=fixed | settings.get(kind, {}), catalogue=catalogue,
            ),
            experiment.search.of(kind),
        )
        for kind in experiment.models.which
    ]  # fmt: skip


@contextmanager
def leading(
    url: str | None, planned: Sequence[PlannedSearch], folder: Path, progress: Console | None = None
) -> Iterator[None]:
    """Announce all searches to those who help, and be the only one who trains on them; nothing without a storage.

    Raises:
        ConfigError: another process trains on them.
    """
    if url is None:
        yield
        return
    training = f"{study_name(planned[0].job)} training"
    with closing(TeamStorage(folder, url, progress)) as storage, storage.leading(training) as is_leader:
        if not is_leader:
            raise ConfigError(
                f"Another `journeylab train` leads these searches on {storage.label}. `journeylab work` with the "
                "same file and storage helps it; if its machine has died, its place is free about a minute later."
            )
        for each in planned:
            SearchStudy(each.job, storage).set_goal(each.trials)
        yield


def work(
    experiment: Experiment,
    storage: str,
    *,
    jobs: int | None = None,
    wait_s: float = WAIT_S,
    progress: Console | None = None,
    runs: Path = Path("runs"),
    catalogue: str = "models.catalogue",
) -> WorkResult:
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
    trials: dict[str, int] = {}
    with _helper_folder(runs / experiment.name) as folder:
        data = read_task_data(experiment, folder, progress)
        for planned in searches(experiment, data, catalogue):
            job = planned.job
            wait_for_study(storage, job, folder, wait_s, progress)
            jobs = jobs or experiment.search.jobs
            trials[job.kind] = help_search(job, folder / f"search_{job.kind}", storage, jobs, progress)
    return WorkResult(trials)


@contextmanager
def _helper_folder(home: Path) -> Iterator[Path]:
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


def help_search(job: Job, folder: Path, url: str, jobs: int, progress: Console | None = None) -> int:
    """Do trials of one search until there is none to begin; how many were finished here."""
    try:
        running = RunningSearch(job, folder, jobs, url, progress=progress)
    except ConfigError:  # a helper of another search left it
        shutil.rmtree(folder)
        running = RunningSearch(job, folder, jobs, url, progress=progress)
    with closing(running):
        running.run()
    return running.ended


def wait_for_study(url: str, job: Job, folder: Path, wait_s: float, progress: Console | None = None) -> None:
    """Wait until somebody trains on a search.

    Raises:
        ConfigError: nobody did for `wait_s` seconds; the message says what is searched instead.
    """
    end, announced = time.monotonic() + wait_s, False
    with closing(TeamStorage(folder, url, progress)) as storage:
        while study_name(job) not in (summaries := storage.patiently(lambda: _summaries(storage))):
            if time.monotonic() > end:
                raise ConfigError(_missing(job, storage.label, list(summaries.values())))
            if not announced:
                say(progress, f"Waiting for `journeylab train` to begin the search of {job.kind}.")
            announced = True
            time.sleep(LOOK_AGAIN_S)


def _summaries(storage: TeamStorage) -> dict[str, dict[str, Any]]:
    """Name of a study → its job's `about`, of every study on a storage."""
    studies = optuna.get_all_study_summaries(storage=storage, include_best_trial=False)
    return {study.study_name: study.user_attrs.get(SUMMARY, {}) for study in studies}


def _missing(job: Job, label: str, summaries: list[dict[str, Any]]) -> str:
    """Say that a search is not there, and which is instead."""
    similar = [summary for summary in summaries if summary.get("kind") == job.kind]
    message = f"Nothing of this experiment is searched for {job.kind} on {label}."
    if not similar:
        return f"{message} Start `journeylab train` with that storage first."
    changed = [name for name, value in job.about().items() if similar[-1].get(name) != value]
    difference = f"{', '.join(changed)} differ" if changed else "rows, labels or folds differ: is it the same log?"
    return f"{message} There is another search of {job.kind}; its {difference}"

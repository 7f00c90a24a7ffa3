"""Search for settings: Optuna's trials over processes of this machine, resumable after `kill -9`.

    from training.search.folder import Job
    from training.search.search import search
    job = Job.of("gbdt", snapshots, labels, folds, seed=7)
    result = search(job, trials=30, jobs=2, folder=Path("runs/mine"))
    model = make("gbdt", result.settings)

A trial is judged by its log loss over the check rows of all folds. Log loss is proper (it is least for the true
probabilities), so it pays for both order and calibration, which are what a champion is judged by; and it adds up over
rows, so the loss after each fold is the loss of the rows so far, and a trial that falls behind the median of the others
can be pruned there. AUROC does neither. A model that is fitted in epochs can be pruned after any epoch, too, by the
curve of its check loss (`training.search.trials`).

Workers (`training.search.worker`) ask for trials and tell what came of them. The parent starts them, replaces those
that die, and reports what it reads in the study. Whoever is killed with -9, nothing finished is lost: a dead worker's
trial goes on in another, and a dead parent's search when `search` is called again with the same folder. On a PostgreSQL
(`training.search.storage`) parents of several machines do so for one study.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import optuna
import pandas as pd
from rich.console import Console

from features.errors import ConfigError, JourneyLabError
from training.progress import Advance, bar, say
from training.search.folder import Job, Scores, Settings, held, merged, prepare, read_scores, scores_path
from training.search.storage import open_storage
from training.search.trials import MOST_DEATHS, SearchStudy, Trial, owner_of
from training.search.worker import MOST_FAILURES, WorkerTask

LOOK_S = 0.1  # between looks at the study
SHARED = "study.txt"  # in the folder of a search on a PostgreSQL: which study the scores are of

OnTrial = Callable[[Trial], None]


@dataclass(frozen=True)
class SearchResult:
    """The outcome of a search.

    Attributes:
        settings: of the best trial, over the fixed ones; ready for `make`.
        best: the best trial.
        trials: one row a trial: `number, state, log_loss, seconds`, the parameters as `param_<name>`, `error`.
        scores: per fold, the best trial's predictions for the check rows.
        curves: of models that are fitted in epochs: `number, fold, epoch, check_loss`.
        study: all trials, in memory.
        folder: of the search.
    """

    settings: Settings
    best: Trial
    trials: pd.DataFrame
    scores: tuple[Scores, ...]
    curves: pd.DataFrame
    study: optuna.Study
    folder: Path


def search(
    job: Job,
    *,
    trials: int,
    folder: Path,
    jobs: int = 1,
    timeout_s: float | None = None,
    progress: Console | None = None,
    on_trial: OnTrial | None = None,
    storage: str | None = None,
) -> SearchResult:
    """Search until `trials` trials are finished; on a folder with trials in it, go on from there.

    With `jobs=1` the same job gives the same trials, interrupted or not. On a storage, processes that
    search for the same share the trials; each waits until all are finished and returns all of them.

    Args:
        job: what is searched.
        trials: how many to finish, pruned ones included.
        folder: made where missing; one search each.
        jobs: worker processes; each gets an equal share of the cores.
        timeout_s: no new trial begins after so many seconds; what has begun is finished.
        progress: where to show a bar (terminal) or a line a trial (elsewhere).
        on_trial: called for every finished trial, by number for those of an earlier call, then as they finish.
        storage: the URL of a PostgreSQL database that other processes search on, too (`training.search.storage`);
            without one the trials lie in the folder.

    Raises:
        ConfigError: the folder holds another search, or another process runs it; the storage cannot be used.
        JourneyLabError: trials fail one after the other, or none could be finished.
    """
    if trials < 1 or jobs < 1:
        raise ConfigError(f"A search needs at least one trial and one job, not {trials} and {jobs}.")
    folder = folder.resolve()
    with held(folder):
        running = RunningSearch(job, folder, jobs, storage, trials, timeout_s, on_trial, progress)
        try:
            running.run()
            return _result(running.study, folder)
        except KeyboardInterrupt:
            done = len(running.reported)
            say(progress, f"Stopped after {done} of {trials} trials. The same command goes on from there ({folder}).")
            raise
        finally:
            running.close()


@dataclass
class Worker:
    """A worker process and the name that its trials carry."""

    name: str
    process: subprocess.Popen[str]
    log: Path


@dataclass
class RunningSearch:
    """The parent of the workers of one search in one folder.

    Attributes:
        job, folder, jobs, storage, timeout_s, on_trial, progress: as `search` takes them.
        trials: how many shall be finished; None: as many as the study says, and the end does not wait for others.
        reported: numbers of finished trials that `on_trial` was called for.
        failed: numbers of failed trials that were seen.
        failures: trials that failed in a row.
        ended: how many trials were finished here.
        workers: the processes that fit.
        idle_deaths: workers that died without a trial.
    """

    job: Job
    folder: Path
    jobs: int
    storage: str | None
    trials: int | None = None
    timeout_s: float | None = None
    on_trial: OnTrial | None = None
    progress: Console | None = None
    reported: set[int] = field(default_factory=set)
    failed: set[int] = field(default_factory=set)
    failures: int = 0
    ended: int = 0
    workers: list[Worker] = field(default_factory=list)
    idle_deaths: int = 0

    def __post_init__(self) -> None:
        self.resumed = prepare(self.job, self.folder)
        _check_folder(self.folder, self.storage)
        self.owner = owner_of(self.folder)
        self.study = SearchStudy(self.job, open_storage(self.folder, self.storage, self.progress))
        if self.storage is not None:
            _drop_other_scores(self.folder, self.study.identity)

    def close(self) -> None:
        """Let go of the storage."""
        self.study.storage.close()

    def run(self) -> None:
        """Finish the trials."""
        if self.trials is not None:
            self.study.set_goal(self.trials)
        self.study.release(self.owner, alive=set())
        before, goal = self.study.trials(), self.study.goal()
        finished = [trial for trial in before if trial.is_finished]
        self.failed = {trial.number for trial in before if trial.state == "failed"}
        if self.resumed and before:
            running = sum(trial.state == "running" for trial in before)
            counts = f"{len(finished)} of {goal} trials were finished, {running} had begun"
            say(self.progress, f"Resuming the search of {self.job.kind}: {counts}.")
        for trial in finished:
            self._report(trial)
        deadline = None if self.timeout_s is None else time.time() + self.timeout_s
        with bar(self.progress, f"search {self.job.kind}", goal, len(finished)) as advance:
            try:
                for number in range(self.jobs):
                    self._start(number, deadline)
                while self.workers:
                    self._look(advance)
                    self._replace_dead(deadline)
                    time.sleep(LOOK_S)
                self._look(advance)
            finally:
                for worker in self.workers:
                    _stop(worker.process)

    def _start(self, number: int, deadline: float | None) -> None:
        """Start a worker."""
        threads = str(max(1, len(os.sched_getaffinity(0)) // self.jobs))
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "NUMBA_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        name, log = f"{self.owner}/{uuid.uuid4().hex[:8]}", self.folder / f"worker_{number}.log"
        with log.open("ab") as output:
            process = subprocess.Popen(
                [sys.executable, "-m", "training.search.worker"],
                stdin=subprocess.PIPE, stdout=output, stderr=output, env=environment, text=True,
            )  # fmt: skip
        self.workers.append(Worker(name, process, log))
        waits = self.trials is not None
        task = WorkerTask(str(self.folder), self.storage, name, deadline, waits, self.study.storage.grace_s)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once; its exit code says so
            process.stdin.write(json.dumps(asdict(task)) + "\n")
            process.stdin.flush()

    def _replace_dead(self, deadline: float | None) -> None:
        """Start a worker for each that died; one that ended in order found nothing more to do."""
        ended = [worker for worker in self.workers if worker.process.poll() is not None]
        self.workers = [worker for worker in self.workers if worker not in ended]
        for worker in ended:
            _stop(worker.process)
        dead = {worker.name: worker for worker in ended if worker.process.returncode != 0}
        if not dead:
            return
        codes = {name: worker.process.returncode for name, worker in dead.items()}
        freed = self.study.release(self.owner, {worker.name for worker in self.workers}, codes)
        for trial in freed:
            code = codes.get(trial.worker, "unknown")
            say(self.progress, f"A worker died (exit code {code}); trial {trial.number} goes on in a new one.")
        self.idle_deaths += len(dead) - len(freed)
        if self.idle_deaths >= MOST_DEATHS:
            logs = ", ".join(sorted(str(worker.log) for worker in dead.values()))
            raise JourneyLabError(f"Workers of the search of {self.job.kind} die before they begin; see {logs}.")
        for worker in dead.values():
            self._start(int(worker.log.stem.removeprefix("worker_")), deadline)

    def _look(self, advance: Advance) -> None:
        """Report what was finished since the last look, here and elsewhere."""
        trials = self.study.trials()
        for trial in trials:
            if trial.is_finished and trial.number not in self.reported:
                is_ours = trial.worker.startswith(f"{self.owner}/")
                self.ended += is_ours
                self.failures = 0 if is_ours else self.failures
                self._report(trial)
                best = min((t.log_loss for t in trials if t.log_loss is not None), default=float("nan"))
                where = f"best {best:.4f}, {sum(trial.seconds):.1f} s" if is_ours else "elsewhere"
                advance(f"trial {trial.number} {_outcome(trial)}, {where}")
            if trial.state == "failed" and trial.number not in self.failed:
                self._fail(trial)

    def _report(self, trial: Trial) -> None:
        self.reported.add(trial.number)
        if self.on_trial is not None:
            self.study.fetch_scores(trial)
            self.on_trial(trial)

    def _fail(self, trial: Trial) -> None:
        self.failed.add(trial.number)
        if not trial.worker.startswith(f"{self.owner}/"):
            return
        self.failures += 1
        say(self.progress, f"Trial {trial.number} failed: {trial.error}")
        if trial.is_fixable or self.failures >= MOST_FAILURES:
            raise JourneyLabError(f"The search of {self.job.kind} stopped at trial {trial.number}: {trial.error}")


def _check_folder(folder: Path, storage: str | None) -> None:
    """Refuse a folder whose trials lie elsewhere."""
    if storage is None and (folder / SHARED).exists():
        raise ConfigError(f"{folder} holds a share of a search on a storage: give that storage, or another folder.")
    if storage is not None and (folder / "optuna.db").exists():
        raise ConfigError(f"{folder} holds a search that is not shared: give the shared one a folder of its own.")


def _drop_other_scores(folder: Path, identity: str) -> None:
    """Where the study was deleted and begun anew, scores of its trials are not those of the trials now."""
    path = folder / SHARED
    if path.is_file() and path.read_text() == identity:
        return
    for name in ("scores", "state"):
        shutil.rmtree(folder / name, ignore_errors=True)
    (folder / "scores").mkdir(parents=True)
    path.write_text(identity)


def _stop(process: subprocess.Popen[str]) -> None:
    """End a process, whatever it is doing."""
    process.kill()
    process.wait()
    assert process.stdin is not None
    with contextlib.suppress(BrokenPipeError):
        process.stdin.close()


def _outcome(trial: Trial) -> str:
    if trial.log_loss is not None:
        return f"log loss {trial.log_loss:.4f}"
    if trial.stopped is not None:
        fold, epoch = trial.stopped
        return f"pruned in fold {fold} after epoch {epoch}, check loss {trial.curves[fold][epoch]:.4f}"
    return f"pruned at {trial.losses[-1]:.4f}"


def _result(study: SearchStudy, folder: Path) -> SearchResult:
    trials, job = study.trials(), study.job
    complete = [trial for trial in trials if trial.log_loss is not None]
    if not complete:
        raise JourneyLabError(f"No trial of the search of {job.kind} was finished; see the worker logs in {folder}.")
    best = min(complete, key=lambda trial: (trial.log_loss, trial.number))
    study.fetch_scores(best)
    rows = [
        {"number": t.number, "state": t.state, "log_loss": t.log_loss, "seconds": sum(t.seconds), "error": t.error}
        | {f"param_{name}": value for name, value in t.params.items()}
        for t in trials
    ]
    scores = tuple(read_scores(scores_path(folder, best.number, fold)) for fold in range(len(job.folds)))
    epochs = [
        (t.number, fold, epoch, loss)
        for t in trials
        for fold, curve in t.curves.items()
        for epoch, loss in curve.items()
    ]
    curves = pd.DataFrame(epochs, columns=["number", "fold", "epoch", "check_loss"])
    settings = merged(job.fixed, best.settings)
    return SearchResult(settings, best, pd.DataFrame(rows), scores, curves, study.copy(), folder)

"""Search for settings: Optuna's trials over processes of this machine, resumable after `kill -9`.

    from training.search.search import search
    found = search("gbdt", snapshots, labels, folds, trials=30, seed=7, jobs=2, folder=Path("runs/mine"))
    model = make("gbdt", found.settings)

A trial is judged by its log loss over the check rows of all folds. Log loss is proper (it is least for the true
probabilities), so it pays for both order and calibration, which are what a champion is judged by; and it adds up over
rows, so the figure after each fold is the figure of the rows so far, and a trial that falls behind the median of the
others can be pruned there. AUROC does neither. A model that is fitted in epochs can be pruned after any epoch, too, by
the curve of its check loss (`training.search.trials`).

The parent process alone asks, prunes and writes its trials; workers (`training.search.worker`) only fit and score. So
there is no second writer and no lock that a dead process could leave behind, and whoever is killed with -9, nothing
finished is lost: a dead worker's trial is given to a new worker, and a dead parent's search goes on when `search` is
called again with the same folder. On a storage (`training.search.shared_trials`) parents of several machines do so for
one study.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console

from features.errors import ConfigError, JourneyLabError
from features.journeys.journeys import Snapshots
from training.data.splits import Fold
from training.progress import Advance, bar, say
from training.search.folder import Job, Scores, Settings, held, merged, prepare, read_scores, scores_path, state_path
from training.search.process import WorkerProcess
from training.search.shared_trials import SharedBook
from training.search.trials import Trial, TrialBook
from training.search.worker import GO, STOP

MOST_DEATHS = 3  # workers that may die over one trial before the trial is given up
MOST_FAILURES = 3  # failed trials in a row before the search is given up

OnTrial = Callable[[Trial], None]


@dataclass(frozen=True)
class SearchResult:
    """What a search found.

    Attributes:
        settings: of the best trial, over the fixed ones; ready for `make`.
        best: the best trial.
        trials: one row a trial: `number, state, log_loss, seconds`, the parameters as `param_<name>`, `error`.
        scores: per fold, the best trial's predictions for the check rows.
        curves: of models that are fitted in epochs: `number, fold, epoch, check_loss`.
        folder: where all of it lies.
    """

    settings: Settings
    best: Trial
    trials: pd.DataFrame
    scores: tuple[Scores, ...]
    curves: pd.DataFrame
    folder: Path


def search(
    kind: str,
    snapshots: Snapshots,
    labels: npt.ArrayLike,
    folds: Sequence[Fold],
    *,
    trials: int,
    folder: Path,
    seed: int = 0,
    jobs: int = 1,
    timeout_s: float | None = None,
    fixed: Settings | None = None,
    progress: Console | None = None,
    on_trial: OnTrial | None = None,
    catalogue: str = "models.catalogue",
    storage: str | None = None,
) -> SearchResult:
    """Search until `trials` trials are finished; on a folder with trials in it, go on from there.

    With `jobs=1` the same seed, rows and folds give the same trials, interrupted or not. On a storage, processes that
    search for the same share the trials; each waits until all are finished and returns all of them.

    Args:
        kind: the kind of model.
        snapshots: (n,) training rows.
        labels: (n,) 0 or 1.
        folds: see `training.data.splits.make_folds`.
        trials: how many to finish, pruned ones included.
        folder: made where missing; one search each.
        seed: of the sampler.
        jobs: worker processes; each gets an equal share of the cores.
        timeout_s: no new trial begins after so many seconds; what has begun is finished.
        fixed: settings that all trials share.
        progress: where to show a bar (terminal) or a line a trial (elsewhere).
        on_trial: called for every finished trial, by number for those of an earlier call, then as they finish.
        catalogue: the module that makes models and knows their search spaces.
        storage: the URL of a PostgreSQL database that other processes search on, too (`training.search.storage`);
            without one the trials lie in the folder.

    Raises:
        ConfigError: the folder holds another search, or another process runs it; the storage cannot be used.
        JourneyLabError: trials fail one after the other, or none could be finished.
    """
    if trials < 1 or jobs < 1:
        raise ConfigError(f"A search needs at least one trial and one job, not {trials} and {jobs}.")
    job = job_of(kind, snapshots, labels, folds, seed=seed, fixed=fixed, catalogue=catalogue)
    folder = folder.resolve()
    with held(folder):
        resumed = prepare(job, folder)
        book = TrialBook(folder, job) if storage is None else SharedBook(folder, job, storage, progress)
        running = Search(book, job, folder, trials, jobs, timeout_s, on_trial or _nobody, progress)
        try:
            book.want(trials)
            running.run(resumed)
            book.copy()
            return _result(book, job, folder)
        except KeyboardInterrupt:
            done = len(running.told)
            say(progress, f"Stopped after {done} of {trials} trials. The same command goes on from there ({folder}).")
            raise
        finally:
            book.close()


def job_of(
    kind: str,
    snapshots: Snapshots,
    labels: npt.ArrayLike,
    folds: Sequence[Fold],
    *,
    seed: int,
    fixed: Settings | None = None,
    catalogue: str = "models.catalogue",
) -> Job:
    """What a search with these arguments is about."""
    rows = tuple((fold.train, fold.check) for fold in folds)
    return Job(kind, snapshots, np.asarray(labels), rows, seed, fixed or {}, catalogue)


def _nobody(trial: Trial) -> None:
    """Who is told of a trial where nobody asked to be."""


@dataclass
class Search:
    """One call of `search`: which worker has which trial.

    Attributes:
        book, job, folder: what is searched and where.
        wanted: how many trials shall be finished; None: what the book says, and the end does not wait for others.
        jobs, timeout_s, on_trial, progress: as `search` takes them.
        answers: of workers.
        workers: the processes that fit.
        failures: trials that failed in a row.
        told: the trials that `on_trial` was called for.
        ended: how many of them ended here.
        over: the time is up.
    """

    book: TrialBook
    job: Job
    folder: Path
    wanted: int | None
    jobs: int
    timeout_s: float | None
    on_trial: OnTrial
    progress: Console | None
    answers: SimpleQueue[tuple[WorkerProcess, dict[str, Any] | None]] = field(default_factory=SimpleQueue)
    workers: list[WorkerProcess] = field(default_factory=list)
    failures: int = 0
    told: set[int] = field(default_factory=set)
    ended: int = 0
    over: bool = False

    def run(self, resumed: bool) -> None:
        """Finish the trials."""
        started = time.monotonic()
        before = self.book.trials()
        finished = [trial for trial in before if trial.is_finished]
        left = [trial for trial in before if trial.state == "running"]
        if resumed and before:
            said = f"{len(finished)} of {self._wanted()} trials were finished, {len(left)} had begun"
            say(self.progress, f"Resuming the search of {self.job.kind}: {said}.")
        for trial in finished:
            self._tell(trial)
        with bar(self.progress, f"search {self.job.kind}", self._wanted(), len(finished)) as advance:
            try:
                self._loop(started, advance)
            finally:
                for worker in self.workers:
                    worker.stop()

    def _wanted(self) -> int:
        return self.book.wanted() if self.wanted is None else self.wanted

    def _loop(self, started: float, advance: Advance) -> None:
        while True:
            self._hear(advance)
            while len(busy := [worker for worker in self.workers if worker.trial]) < self.jobs:
                late = self.timeout_s is not None and time.monotonic() - started > self.timeout_s
                if late and self._any_finished():
                    self._close()
                trial = self.book.take_up() or self._ask()
                if trial is None:
                    break
                if self.book.is_stopped(trial):  # a process that died had found so
                    self._end(self.book.prune(trial), advance)
                else:
                    self._idle_worker().begin(trial, deaths=0)
            if not busy and not any(worker.trial for worker in self.workers) and not self._waits():
                self._hear(advance)
                return
            self._handle(advance)

    def _ask(self) -> Trial | None:
        return None if self.over or self.book.exhausted else self.book.ask(self._wanted())

    def _close(self) -> None:
        """Begin no other trial, here and elsewhere."""
        if not self.over:
            self.over = True
            self.book.want(0)

    def _waits(self) -> bool:
        """Whether others' trials are still to come."""
        return self.wanted is not None and self.book.others()

    def _hear(self, advance: Advance) -> None:
        """What others have finished."""
        if self.book.shared:
            for trial in self.book.trials():
                if trial.is_finished and trial.number not in self.told:
                    self._tell(trial)
                    advance(f"trial {trial.number} {_outcome(trial)}, elsewhere")

    def _tell(self, trial: Trial) -> None:
        self.told.add(trial.number)
        if self.wanted is not None:
            self.book.bring(trial)
        self.on_trial(trial)

    def _any_finished(self) -> bool:
        return any(trial.is_finished for trial in self.book.trials())

    def _idle_worker(self) -> WorkerProcess:
        for worker in self.workers:
            if worker.trial is None:
                return worker
        worker = WorkerProcess(self.folder, len(self.workers), self.jobs, self.answers)
        self.workers.append(worker)
        return worker

    def _handle(self, advance: Advance) -> None:
        """One answer of one worker."""
        try:
            worker, answer = self.answers.get(timeout=1.0)
        except Empty:
            return
        trial = worker.trial
        if trial is not None and self.book.is_lost(trial):
            self._leave(worker, trial)
        elif answer is None:
            self._bury(worker)
            if trial is not None and self.book.is_stopped(trial):
                self._end(self.book.prune(trial), advance)
            elif trial is not None:
                self._revive(trial, worker)
        elif trial is not None:
            self._judge(worker, trial, answer, advance)

    def _bury(self, worker: WorkerProcess) -> None:
        if worker in self.workers:
            self.workers.remove(worker)
        worker.stop()

    def _leave(self, worker: WorkerProcess, trial: Trial) -> None:
        """Nothing was heard of this process for so long that another does the trial now."""
        say(self.progress, f"Trial {trial.number} was taken up by another process; this one leaves it.")
        worker.trial = None
        self.book.drop(trial)
        self._bury(worker)

    def _revive(self, trial: Trial, dead: WorkerProcess) -> None:
        """Give a dead worker's trial to another, unless trials of this kind seem to be what kills them."""
        code = dead.process.returncode
        if dead.deaths + 1 >= MOST_DEATHS:
            error = f"{MOST_DEATHS} workers died over it, the last with exit code {code}; see {dead.log}"
            self._failed(trial, error, mendable=False)
            return
        say(self.progress, f"A worker died (exit code {code}); trial {trial.number} goes on in a new one.")
        self._idle_worker().begin(trial, deaths=dead.deaths + 1, fold=dead.fold, total=dead.total, n_rows=dead.n_rows)

    def _judge(self, worker: WorkerProcess, trial: Trial, answer: dict[str, Any], advance: Advance) -> None:
        """An epoch or a fold is done: is the trial, too?"""
        if "error" in answer:
            worker.trial = None
            self._failed(trial, answer["error"], answer["mendable"])
            return
        if "step" in answer:
            stop = self.book.report_epoch(trial, answer["fold"], answer["step"], answer["loss"])
            worker.say(STOP if stop else GO)
            return
        if "pruned" in answer:
            worker.trial = None
            self.book.note_seconds(trial, answer["fold"], answer["seconds"])
            self._end(self.book.prune(trial), advance)
            return
        loss = worker.add(answer)
        self.book.keep(trial, answer["fold"])
        prune = self.book.report(trial, answer["fold"], loss, answer["seconds"])
        if worker.fold < len(self.job.folds) and not prune:
            worker.send()
            return
        worker.trial = None
        done = self.book.prune(trial) if worker.fold < len(self.job.folds) else self.book.complete(trial, loss)
        self._end(done, advance)

    def _end(self, done: Trial, advance: Advance) -> None:
        """A trial is finished."""
        self.failures = 0
        for fold in range(len(self.job.folds)):  # what a worker that died left of a stopped fit
            shutil.rmtree(state_path(self.folder, done.number, fold), ignore_errors=True)
        if done.number in self.told:
            return
        self.ended += 1
        self._tell(done)
        best = min((t.log_loss for t in self.book.trials() if t.log_loss is not None), default=float("nan"))
        advance(f"trial {done.number} {_outcome(done)}, best {best:.4f}, {sum(done.seconds):.1f} s")

    def _failed(self, trial: Trial, error: str, mendable: bool) -> None:
        self.book.fail(trial, error)
        self.failures += 1
        say(self.progress, f"Trial {trial.number} failed: {error}")
        if mendable or self.failures >= MOST_FAILURES:
            raise JourneyLabError(f"The search of {self.job.kind} stopped at trial {trial.number}: {error}")


def _outcome(trial: Trial) -> str:
    if trial.log_loss is not None:
        return f"log loss {trial.log_loss:.4f}"
    if trial.stopped is not None:
        fold, epoch = trial.stopped
        return f"pruned in fold {fold} after epoch {epoch}, check loss {trial.curves[fold][epoch]:.4f}"
    return f"pruned at {trial.losses[-1]:.4f}"


def _result(book: TrialBook, job: Job, folder: Path) -> SearchResult:
    trials = book.trials()
    complete = [trial for trial in trials if trial.log_loss is not None]
    if not complete:
        raise JourneyLabError(f"No trial of the search of {job.kind} was finished; see the worker logs in {folder}.")
    best = min(complete, key=lambda trial: (trial.log_loss, trial.number))
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
    return SearchResult(merged(job.fixed, best.settings), best, pd.DataFrame(rows), scores, curves, folder)

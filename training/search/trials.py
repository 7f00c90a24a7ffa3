"""The trials of a search: an Optuna study that several processes ask and tell, whole after any `kill -9`.

Three choices make a killed search end as if nothing had happened.

A trial's settings are sampled in memory, from the trials before it and a seed of its own (search seed, trial number),
and only then written, in one transaction, as a running trial with all its parameters. So a kill leaves either no trial
or a whole one, and with one worker a resumed search asks for the very settings that an uninterrupted one would.

Processes ask one at a time (`training.search.storage`), so that no two begin the same trial and none begins too many.

A trial that a dead process left running goes on, with its number, its settings and the folds it had done. Optuna's
`RetryHeartbeatStaleTrialCallback` fails it instead and queues a copy under a new number, which a search in one go would
not have; and between the two a kill loses the copy.

Models that are fitted in epochs are also judged within a fold, by the curve of their check loss. These losses are of
other rows than the fold's, so they are kept apart from the log loss of folds: as an attribute of the trial, compared
with the curves of other trials on the same fold. That a trial is to stop is written before its fit is stopped.
"""

from __future__ import annotations

import importlib
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import update_wrapper
from pathlib import Path
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from training.search.folder import Job, Settings
from training.search.storage import FolderStorage

optuna.logging.set_verbosity(optuna.logging.ERROR)

STARTUP_TRIALS = 5  # complete trials that the pruner compares with; TPE itself starts after ten
RANDOM_AFTER, EXHAUSTED_AFTER = 20, 200  # attempts to find settings that no trial had
WARM_UP_EPOCHS = 2  # in which no curve is judged: the learning rate is still rising
FEWEST_CURVES = 3  # that reach an epoch, to judge another by them
MOST_DEATHS = 5  # processes that may die over one trial before the trial is given up
STATES = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
IDENTITY, SUMMARY, GOAL, WORKER = "journeylab_id", "journeylab_about", "journeylab_wanted", "worker"

Curves = Mapping[int, Mapping[int, float]]  # fold -> epoch -> check loss
Parameters = ParamSpec("Parameters")
Answer = TypeVar("Answer")


class TrialTakenOver(Exception):
    """Nothing was heard of this process for so long that another does the trial now."""


@dataclass(frozen=True)
class Trial:
    """A trial of a search.

    Attributes:
        number: from 0.
        state: "running", "complete", "pruned" (finished after fewer folds, or in the middle of one) or "failed".
        params: the parameters that Optuna sampled, by the names of the search space.
        settings: of its model.
        losses: log loss over the rows of folds 0 … k, for each k that was done.
        log_loss: over all folds; None unless complete.
        curves: fold → epoch → check loss, of models that are fitted in epochs.
        stopped: the fold and the epoch after which its curve stopped it.
        seconds: by fold.
        error: why it failed.
        is_fixable: the user can do something about the error.
        worker: the process that works on it, "" where none does.
    """

    number: int
    state: str
    params: dict[str, Any]
    settings: Settings
    losses: tuple[float, ...]
    log_loss: float | None
    seconds: tuple[float, ...]
    started: datetime | None
    finished: datetime | None
    error: str | None
    curves: Curves = field(default_factory=dict)
    stopped: tuple[int, int] | None = None
    is_fixable: bool = False
    worker: str = ""

    @property
    def is_finished(self) -> bool:
        """Complete or pruned: counted among the trials that were asked for."""
        return self.state in ("complete", "pruned")


def patient(
    method: Callable[Concatenate[SearchStudy, Parameters], Answer],
) -> Callable[Concatenate[SearchStudy, Parameters], Answer]:
    """Where the server is away, wait for it and do all of it again: each of these methods may be done twice."""

    def call(self: SearchStudy, /, *args: Parameters.args, **options: Parameters.kwargs) -> Answer:
        return self.storage.patiently(lambda: method(self, *args, **options))

    update_wrapper(call, method)
    return call


class SearchStudy:
    """The Optuna study of one search.

    Args:
        job: the search.
        storage: where its trials lie.
        worker: the process that asks; "OWNER/NUMBER", where all workers of one folder have the same owner.
    """

    def __init__(self, job: Job, storage: FolderStorage, worker: str = "") -> None:
        self.job, self.storage, self.worker = job, storage, worker
        self.name = study_name(job) if storage.is_shared else "search"
        catalogue = importlib.import_module(job.catalogue)
        self._space = catalogue.search_space
        self._starts: list[dict[str, Any]] = catalogue.search_starts(job.kind)
        self._study, self._study_id, self.identity = self.storage.patiently(self._open)
        self._curve_pruner = optuna.pruners.MedianPruner(
            n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARM_UP_EPOCHS, n_min_trials=FEWEST_CURVES
        )
        self._curves: tuple[tuple[int, int], list[FrozenTrial]] = ((-1, -1), [])

    def _open(self) -> tuple[optuna.Study, int, str]:
        """The study, its id, and what tells it from another one, even of the same search, that was deleted before."""
        with self.storage.exclusive(self.name):
            study = optuna.create_study(
                storage=self.storage,
                study_name=self.name,
                load_if_exists=True,
                direction="minimize",
                pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
            )
            if IDENTITY not in study.user_attrs:
                study.set_user_attr(SUMMARY, self.job.about())
                study.set_user_attr(IDENTITY, uuid.uuid4().hex)
        return study, self.storage.get_study_id_from_name(self.name), str(study.user_attrs[IDENTITY])

    @patient
    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    @patient
    def copy(self) -> optuna.Study:
        """The study in memory."""
        memory = optuna.create_study(direction="minimize")
        memory.add_trials(self._study.get_trials(deepcopy=False))
        return memory

    @patient
    def set_goal(self, trials: int) -> None:
        """Say to all processes how many trials shall be finished; 0: no other shall begin."""
        self._study.set_user_attr(GOAL, trials)

    @patient
    def goal(self) -> int:
        """How many trials shall be finished."""
        return int(self._study.user_attrs.get(GOAL, 0))

    @patient
    def ask(self) -> Trial | None:
        """A trial to do, one that a dead process left or a new one; None where there is nothing to begin."""
        with self.storage.exclusive(self.name):
            trial = self._take_over() or self._begin()
            while trial is not None and self._is_duplicate(trial):
                self.fail(trial, "another process began the same one while the server restarted")
                trial = self._begin()
            if trial is not None and self.storage.is_shared:
                self.storage.record_heartbeat(self.id_of(trial))
        if trial is not None:
            self.fetch_scores(trial)
        return trial

    def _take_over(self) -> Trial | None:
        """A running trial whose process is dead."""
        running = [trial for trial in self.trials() if trial.state == "running"]
        silent = self.storage.abandoned(self._study_id) if running else set()
        for trial in running:
            if trial.worker in ("", self.worker) or self.id_of(trial) in silent:
                if trial.worker not in ("", self.worker) and not self._count_death(trial, "it fell silent"):
                    continue
                self._set(trial, WORKER, self.worker)
                return trial
        return None

    def _begin(self) -> Trial | None:
        """A new running trial with settings that no other has."""
        before = self._study.get_trials(deepcopy=False)
        count = sum(trial.state != TrialState.FAIL for trial in before)
        if count >= self.goal():
            return None
        sampled = [trial.params for trial in before]
        for attempt in range(EXHAUSTED_AFTER):
            params, distributions, settings = self._sample(before, attempt)
            if params not in sampled:
                attributes = {"settings": settings, WORKER: self.worker}
                self._study.add_trial(
                    optuna.trial.create_trial(
                        state=TrialState.RUNNING, params=params, distributions=distributions, user_attrs=attributes
                    )
                )
                return self.trials()[-1]
            if not params:
                break  # nothing to sample: one trial is all there is
        self.set_goal(count)  # there are no other settings, for nobody
        return None

    def _is_duplicate(self, trial: Trial) -> bool:
        """Whether another process has begun these settings: a server that restarts forgets its locks."""
        before = self.trials()[: trial.number]
        return bool(trial.params) and any(t.params == trial.params and t.state != "failed" for t in before)

    def release(self, owner: str, alive: set[str], codes: Mapping[str, int] | None = None) -> list[Trial]:
        """Free the trials of an owner's dead workers for the next who asks.

        Args:
            owner: of the workers.
            alive: its workers that live.
            codes: exit codes of those that died; without them it was the whole search that died, which says nothing
                about the trial.
        """
        mine = [t for t in self.trials() if t.state == "running" and t.worker.startswith(f"{owner}/")]
        dead = [trial for trial in mine if trial.worker not in alive]
        for trial in dead:
            code = "" if codes is None else f"the last with exit code {codes.get(trial.worker, 'unknown')}"
            if not code or self._count_death(trial, code):
                self._set(trial, WORKER, "")
        return dead

    def _count_death(self, trial: Trial, how: str) -> bool:
        """Count the processes that died over a trial; False where it is given up."""
        deaths = self._attributes(trial).get("deaths", 0) + 1
        self._set(trial, "deaths", deaths)
        if deaths < MOST_DEATHS:
            return True
        self.fail(trial, f"{deaths} processes died over it, {how}")
        return False

    @patient
    def report(self, trial: Trial, fold: int, loss: float, seconds: float) -> bool:
        """Note the log loss up to a fold; true where the trial is not worth another fold.

        Raises:
            TrialTakenOver: another process does it now.
        """
        self._check_ours(trial)
        self.storage.put_scores(self.name, trial.number, fold)
        live = optuna.Trial(self._study, self.id_of(trial))
        if fold not in self.storage.get_trial(self.id_of(trial)).intermediate_values:
            self.note_seconds(trial, fold, seconds)
            live.report(loss, fold)
        return live.should_prune()

    @patient
    def report_epoch(self, trial: Trial, fold: int, epoch: int, loss: float) -> bool:
        """Note the check loss after an epoch of a fold; true where the trial is not worth another epoch.

        An epoch that is reported again takes the place of what was noted of it and of later ones.

        Raises:
            TrialTakenOver: another process does it now.
        """
        self._check_ours(trial)
        noted = self._attributes(trial).get("curves", {})
        curve = {int(at): value for at, value in noted.get(str(fold), {}).items() if int(at) < epoch} | {epoch: loss}
        self._set(trial, "curves", noted | {str(fold): {str(at): value for at, value in curve.items()}})
        if not self._falls_behind(trial.number, fold, curve):
            return False
        self._set(trial, "stopped", [fold, epoch])
        return True

    def _falls_behind(self, number: int, fold: int, curve: Mapping[int, float]) -> bool:
        """Is this curve's best above the median of the others that were seen to the end of this fold?"""
        if max(curve) < WARM_UP_EPOCHS:
            return False
        memory = optuna.create_study(direction="minimize")
        memory.add_trials(self._whole_curves(number, fold))
        memory.add_trial(optuna.trial.create_trial(state=TrialState.RUNNING, intermediate_values=dict(curve)))
        return self._curve_pruner.prune(memory, memory.get_trials(deepcopy=False)[-1])

    def _whole_curves(self, number: int, fold: int) -> list[FrozenTrial]:
        """Curves of other trials on this fold at the time of its first epoch; reading the study is slow."""
        if self._curves[0] != (number, fold):
            rivals = [trial for trial in self.trials() if trial.number != number and len(trial.losses) > fold]
            curves = [dict(rival.curves[fold]) for rival in rivals if fold in rival.curves]
            whole = [optuna.trial.create_trial(value=0.0, intermediate_values=curve) for curve in curves]
            self._curves = ((number, fold), whole)
        return self._curves[1]

    @patient
    def note_seconds(self, trial: Trial, fold: int, seconds: float) -> None:
        """Note how long a fold took, whatever came of it."""
        self._set(trial, "seconds", [*self._attributes(trial).get("seconds", [])[:fold], round(seconds, 3)])

    @patient
    def fetch_scores(self, trial: Trial) -> None:
        """Fetch the scores of a trial's folds that other machines have made."""
        self.storage.fetch_scores(self.name, trial.number, len(trial.losses))

    def complete(self, trial: Trial, loss: float) -> None:
        """End a trial that has seen all folds."""
        self._end(trial, TrialState.COMPLETE, loss)

    def prune(self, trial: Trial) -> None:
        """End a trial without its last folds or epochs."""
        self._end(trial, TrialState.PRUNED)

    @patient
    def fail(self, trial: Trial, error: str, *, is_fixable: bool = False) -> None:
        """End a trial that cannot be done; it does not count."""
        self._set(trial, "error", error)
        self._set(trial, "is_fixable", is_fixable)
        self._end(trial, TrialState.FAIL)

    @patient
    def _end(self, trial: Trial, state: TrialState, loss: float | None = None) -> None:
        self._study.tell(trial.number, loss, state=state, skip_if_finished=True)

    def _sample(
        self, before: list[FrozenTrial], attempt: int
    ) -> tuple[dict[str, Any], dict[str, BaseDistribution], Settings]:
        seed = int(np.random.SeedSequence([self.job.seed, len(before), attempt]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler if attempt < RANDOM_AFTER else optuna.samplers.RandomSampler
        memory = optuna.create_study(direction="minimize", sampler=sampler(seed=seed))
        memory.add_trials(before)
        if attempt == 0 and len(before) < len(self._starts):
            memory.enqueue_trial(self._starts[len(before)])
        live = memory.ask()
        settings = self._space(self.job.kind, FixedSettings(live, self.job.fixed))
        return live.params, live.distributions, settings

    def _check_ours(self, trial: Trial) -> None:
        frozen = self.storage.get_trial(self.id_of(trial))
        if frozen.state != TrialState.RUNNING or frozen.user_attrs.get(WORKER, "") != self.worker:
            raise TrialTakenOver

    def _attributes(self, trial: Trial) -> dict[str, Any]:
        return self.storage.get_trial(self.id_of(trial)).user_attrs

    def _set(self, trial: Trial, name: str, value: Any) -> None:
        try:
            self.storage.set_trial_user_attr(self.id_of(trial), name, value)
        except UpdateFinishedTrialError:
            raise TrialTakenOver from None

    @patient
    def id_of(self, trial: Trial) -> int:
        """Optuna's id of a trial, which other studies' trials do not have."""
        return self.storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)


class FixedSettings:
    """An Optuna trial that does not sample what is fixed: the search space gets the fixed value back."""

    def __init__(self, live: optuna.Trial, fixed: Settings) -> None:
        self._live, self._fixed = live, fixed

    def __getattr__(self, method: str) -> Callable[..., Any]:
        suggest = getattr(self._live, method)
        return lambda name, *range_, **options: (
            self._fixed[name] if name in self._fixed else suggest(name, *range_, **options)
        )


def study_name(job: Job) -> str:
    """The same for the same rows, folds and settings, on whatever machine."""
    return f"journeylab {job.kind} {job.fingerprint()[:20]}"


def owner_of(folder: Path) -> str:
    """Who works in a folder, the same for as long as the folder is there."""
    path = folder / "owner"
    if not path.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        path.write_text(uuid.uuid4().hex)
    return path.read_text().strip()


def _trial(frozen: FrozenTrial) -> Trial:
    attributes = frozen.user_attrs
    return Trial(
        number=frozen.number,
        state=STATES.get(frozen.state, "running"),
        params=dict(frozen.params),
        settings=attributes.get("settings", {}),
        losses=tuple(value for _, value in sorted(frozen.intermediate_values.items())),
        log_loss=frozen.value if frozen.state == TrialState.COMPLETE else None,
        seconds=tuple(attributes.get("seconds", ())),
        started=frozen.datetime_start,
        finished=frozen.datetime_complete,
        error=attributes.get("error"),
        curves={
            int(fold): {int(epoch): loss for epoch, loss in curve.items()}
            for fold, curve in attributes.get("curves", {}).items()
        },
        stopped=(stopped[0], stopped[1]) if (stopped := attributes.get("stopped")) else None,
        is_fixable=attributes.get("is_fixable", False),
        worker=attributes.get(WORKER, ""),
    )

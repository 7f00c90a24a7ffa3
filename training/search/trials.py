"""The book of trials: an Optuna study in one SQLite file, written by one process, readable after any `kill -9`.

`training.search.shared_trials` is the same book on a storage that several machines write.

Two choices make a killed search end as if nothing had happened.

A trial's settings are sampled in memory, from the trials before it and a seed of its own (search seed, trial number),
and only then written, in one transaction, as a running trial with all its parameters. So a kill leaves either no trial
or a whole one, and with one worker a resumed search asks for the very settings that an uninterrupted one would.

A trial that a dead process left running is not failed and tried again under a new number: it goes on, with its number,
its settings and the folds it had done. The study therefore ends with exactly as many trials as were asked for.

Models that are fitted in epochs are also judged within a fold, by the curve of their check loss. These losses are of
other rows than the fold's, so they are kept apart from the log loss of folds: as an attribute of the trial, compared
with the curves that other trials showed on the same fold. That a trial is to stop is written before it is told so.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from features.errors import ConfigError
from training.search.folder import Job, Settings

optuna.logging.set_verbosity(optuna.logging.ERROR)

STUDY = "search"
SHARED = (
    "study.txt"  # in a folder whose search lies on a storage that others write, too (`training.search.shared_trials`)
)
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP_TRIALS = 5  # complete trials that the pruner compares with; TPE itself starts after ten
RANDOM_AFTER, EXHAUSTED_AFTER = 20, 200  # attempts to find settings that no trial had
WARM_UP_EPOCHS = 2  # in which no curve is judged: the learning rate is still rising
FEWEST_CURVES = 3  # that reach an epoch, to judge another by them

Curves = Mapping[int, Mapping[int, float]]  # fold -> epoch -> check loss


@dataclass(frozen=True)
class Trial:
    """A trial as the rest of the house sees it.

    Attributes:
        number: from 0.
        state: "running", "complete", "pruned" (finished after fewer folds, or in the middle of one) or "failed".
        params: what Optuna turned, by the names of the search space.
        settings: what the model is made with.
        losses: log loss over the rows of folds 0 … k, for each k that was done.
        log_loss: over all folds; None unless complete.
        curves: fold → epoch → check loss, of models that are fitted in epochs.
        stopped: the fold and the epoch after which its curve stopped it.
        seconds: by fold.
        error: why it failed.
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

    @property
    def is_finished(self) -> bool:
        """Complete or pruned: counted among the trials that were asked for."""
        return self.state in ("complete", "pruned")


class TrialBook:
    """The study of one search folder.

    Attributes:
        shared: whether other processes write it, too.
        exhausted: the space holds no settings that no trial had.
    """

    shared = False

    def __init__(
        self, folder: Path, job: Job, storage: optuna.storages.RDBStorage | None = None, name: str = STUDY
    ) -> None:
        if storage is None and (folder / SHARED).exists():
            raise ConfigError(f"{folder} holds a share of a search on a storage: give that storage, or another folder.")
        self.exhausted = False
        self._left: list[int] | None = None
        self._job = job
        catalogue = importlib.import_module(job.catalogue)
        self._space = catalogue.search_space
        self._starts: list[dict[str, Any]] = catalogue.STARTS.get(job.kind, [])
        self._storage = storage or optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=name,
            load_if_exists=True,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        )
        self._study_id = self._storage.get_study_id_from_name(name)
        self._curve_pruner = optuna.pruners.MedianPruner(
            n_startup_trials=STARTUP_TRIALS, n_warmup_steps=WARM_UP_EPOCHS, n_min_trials=FEWEST_CURVES
        )
        self._curves: tuple[tuple[int, int], list[FrozenTrial]] = ((-1, -1), [])

    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def counted(self) -> int:
        """How many trials there are, those that failed left out."""
        return sum(trial.state != "failed" for trial in self.trials())

    def take_up(self) -> Trial | None:
        """A trial that a dead process left running; None where there is none."""
        trials = self.trials()
        if self._left is None:
            self._left = [trial.number for trial in trials if trial.state == "running"]
        return trials[self._left.pop(0)] if self._left else None

    def ask(self, wanted: int | None = None) -> Trial | None:
        """A new running trial with settings that no other has; None where `wanted` are counted, or there are no others.

        What there are no others of sets `exhausted`.
        """
        if wanted is not None and self.counted() >= wanted:
            return None
        before = self._study.get_trials(deepcopy=False)
        known = [trial.params for trial in before]
        for attempt in range(EXHAUSTED_AFTER):
            params, distributions, settings = self._sample(before, attempt)
            if params not in known:
                self._study.add_trial(
                    optuna.trial.create_trial(
                        state=TrialState.RUNNING,
                        params=params,
                        distributions=distributions,
                        user_attrs={"settings": settings},
                    )
                )
                return self.trials()[-1]
            if not params:
                break  # nothing to turn: one trial says it all
        self.exhausted = True
        return None

    def report(self, trial: Trial, step: int, loss: float, seconds: float) -> bool:
        """Note the log loss up to fold `step`; true where the trial is not worth another fold."""
        live = self._live(trial)
        if step not in self._storage.get_trial(self._id(trial)).intermediate_values:
            self.note_seconds(trial, step, seconds)
            live.report(loss, step)
        return live.should_prune()

    def report_epoch(self, trial: Trial, fold: int, step: int, loss: float) -> bool:
        """Note the check loss after an epoch of a fold; true where the trial is not worth another epoch.

        An epoch that is reported again takes the place of what was noted of it and of later ones.
        """
        trial_id = self._id(trial)
        noted = self._storage.get_trial(trial_id).user_attrs.get("curves", {})
        curve = {int(at): value for at, value in noted.get(str(fold), {}).items() if int(at) < step} | {step: loss}
        curves = noted | {str(fold): {str(at): value for at, value in curve.items()}}
        self._storage.set_trial_user_attr(trial_id, "curves", curves)
        if not self._falls_behind(trial.number, fold, curve):
            return False
        self._storage.set_trial_user_attr(trial_id, "stopped", [fold, step])
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
        """Curves of other trials on this fold, those known when the first epoch asked; reading the study is slow."""
        if self._curves[0] != (number, fold):
            others = [trial for trial in self.trials() if trial.number != number and len(trial.losses) > fold]
            curves = [dict(other.curves[fold]) for other in others if fold in other.curves]
            whole = [optuna.trial.create_trial(value=0.0, intermediate_values=curve) for curve in curves]
            self._curves = ((number, fold), whole)
        return self._curves[1]

    def note_seconds(self, trial: Trial, fold: int, seconds: float) -> None:
        """How long a fold took, whatever came of it."""
        trial_id = self._id(trial)
        noted = self._storage.get_trial(trial_id).user_attrs.get("seconds", [])
        self._storage.set_trial_user_attr(trial_id, "seconds", [*noted[:fold], round(seconds, 3)])

    def complete(self, trial: Trial, loss: float) -> Trial:
        """The trial is done."""
        self._study.tell(trial.number, loss, skip_if_finished=True)
        return self.trials()[trial.number]

    def is_stopped(self, trial: Trial) -> bool:
        """Whether a curve has stopped it, whoever it was reported by."""
        return "stopped" in self._storage.get_trial(self._id(trial)).user_attrs

    def want(self, trials: int) -> None:
        """Say how many trials shall be finished to whoever else works on them."""

    def wanted(self) -> int:
        """How many trials shall be finished, where the book says it."""
        return 0

    def others(self) -> bool:
        """Whether trials run in other processes."""
        return False

    def is_lost(self, trial: Trial) -> bool:
        """Whether another process does a trial that this one began."""
        return False

    def drop(self, trial: Trial) -> None:
        """Leave a trial to the process that has it now."""

    def keep(self, trial: Trial, fold: int) -> None:
        """Hand a fold's scores on to whoever else may want them."""

    def bring(self, trial: Trial) -> None:
        """Put the scores that others found where this machine's own lie."""

    def copy(self) -> None:
        """Leave the study in the folder; here it lies there anyway."""

    def close(self) -> None:
        """Let go of what this process holds."""

    def prune(self, trial: Trial) -> Trial:
        """The trial is done, without its last folds or epochs."""
        self._study.tell(trial.number, state=TrialState.PRUNED, skip_if_finished=True)
        return self.trials()[trial.number]

    def fail(self, trial: Trial, error: str) -> Trial:
        """The trial cannot be done; it does not count."""
        self._live(trial).set_user_attr("error", error)
        self._study.tell(trial.number, state=TrialState.FAIL, skip_if_finished=True)
        return self.trials()[trial.number]

    def _sample(
        self, before: list[FrozenTrial], attempt: int
    ) -> tuple[dict[str, Any], dict[str, BaseDistribution], Settings]:
        seed = int(np.random.SeedSequence([self._job.seed, len(before), attempt]).generate_state(1)[0])
        sampler = optuna.samplers.TPESampler if attempt < RANDOM_AFTER else optuna.samplers.RandomSampler
        memory = optuna.create_study(direction="minimize", sampler=sampler(seed=seed))
        memory.add_trials(before)
        if attempt == 0 and len(before) < len(self._starts):
            memory.enqueue_trial(self._starts[len(before)])
        live = memory.ask()
        settings = self._space(self._job.kind, Fixed(live, self._job.fixed))
        return live.params, live.distributions, settings

    def _live(self, trial: Trial) -> optuna.Trial:
        """Optuna's handle on a running trial, whoever began it."""
        return optuna.Trial(self._study, self._id(trial))

    def _id(self, trial: Trial) -> int:
        return self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)


class Fixed:
    """A trial that does not turn what is fixed: the search space gets the fixed value back."""

    def __init__(self, live: optuna.Trial, fixed: Settings) -> None:
        self._live, self._fixed = live, fixed

    def __getattr__(self, method: str) -> Callable[..., Any]:
        suggest = getattr(self._live, method)
        return lambda name, *range_, **options: (
            self._fixed[name] if name in self._fixed else suggest(name, *range_, **options)
        )


def _trial(frozen: FrozenTrial) -> Trial:
    states = {TrialState.COMPLETE: "complete", TrialState.PRUNED: "pruned", TrialState.FAIL: "failed"}
    return Trial(
        number=frozen.number,
        state=states.get(frozen.state, "running"),
        params=dict(frozen.params),
        settings=frozen.user_attrs.get("settings", {}),
        losses=tuple(value for _, value in sorted(frozen.intermediate_values.items())),
        log_loss=frozen.value if frozen.state == TrialState.COMPLETE else None,
        seconds=tuple(frozen.user_attrs.get("seconds", ())),
        started=frozen.datetime_start,
        finished=frozen.datetime_complete,
        error=frozen.user_attrs.get("error"),
        curves={
            int(fold): {int(step): loss for step, loss in curve.items()}
            for fold, curve in frozen.user_attrs.get("curves", {}).items()
        },
        stopped=(stopped[0], stopped[1]) if (stopped := frozen.user_attrs.get("stopped")) else None,
    )

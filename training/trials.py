"""The book of trials: an Optuna study in one SQLite file, written by one process, readable after any `kill -9`.

Two choices make a killed search end as if nothing had happened.

A trial's settings are sampled in memory, from the trials before it and a seed of its own (search seed, trial number),
and only then written, in one transaction, as a running trial with all its parameters. So a kill leaves either no trial
or a whole one, and with one worker a resumed search asks for the very settings that an uninterrupted one would.

A trial that a dead process left running is not failed and tried again under a new number: it goes on, with its number,
its settings and the folds it had done. The study therefore ends with exactly as many trials as were asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from training.search_folder import Job, Settings

optuna.logging.set_verbosity(optuna.logging.ERROR)

STUDY = "search"
FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)
STARTUP_TRIALS = 5  # complete trials that the pruner compares with; TPE itself starts after ten
RANDOM_AFTER, EXHAUSTED_AFTER = 20, 200  # attempts to find settings that no trial had


@dataclass(frozen=True)
class Trial:
    """A trial as the rest of the house sees it.

    Attributes:
        number: from 0.
        state: "running", "complete", "pruned" (finished after fewer folds than the others) or "failed".
        params: what Optuna turned, by the names of the search space.
        settings: what the model is made with.
        losses: log loss over the rows of folds 0 … k, for each k that was done.
        log_loss: over all folds; None unless complete.
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

    @property
    def is_finished(self) -> bool:
        """Complete or pruned: counted among the trials that were asked for."""
        return self.state in ("complete", "pruned")


class TrialBook:
    """The study of one search folder."""

    def __init__(self, folder: Path, job: Job) -> None:
        self._job = job
        catalogue = importlib.import_module(job.catalogue)
        self._space = catalogue.search_space
        self._starts: list[dict[str, Any]] = catalogue.STARTS.get(job.kind, [])
        self._storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
        self._study = optuna.create_study(
            storage=self._storage,
            study_name=STUDY,
            load_if_exists=True,
            direction="minimize",
            pruner=optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS),
        )
        self._study_id = self._storage.get_study_id_from_name(STUDY)

    def trials(self) -> list[Trial]:
        """All trials, by number."""
        return [_trial(frozen) for frozen in self._study.get_trials(deepcopy=False)]

    def ask(self) -> Trial | None:
        """A new running trial with settings that no other trial has; None where the space holds no others."""
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
                return None  # nothing to turn: one trial says it all
        return None

    def report(self, trial: Trial, step: int, loss: float, seconds: float) -> bool:
        """Note the log loss up to fold `step`; true where the trial is not worth another fold."""
        live = self._live(trial)
        frozen = self._storage.get_trial(live._trial_id)
        if step not in frozen.intermediate_values:
            live.set_user_attr("seconds", [*frozen.user_attrs.get("seconds", [])[:step], round(seconds, 3)])
            live.report(loss, step)
        return live.should_prune()

    def complete(self, trial: Trial, loss: float) -> Trial:
        """The trial is done."""
        self._study.tell(trial.number, loss)
        return self.trials()[trial.number]

    def prune(self, trial: Trial) -> Trial:
        """The trial is done, without its last folds."""
        self._study.tell(trial.number, state=TrialState.PRUNED)
        return self.trials()[trial.number]

    def fail(self, trial: Trial, error: str) -> Trial:
        """The trial cannot be done; it does not count."""
        self._live(trial).set_user_attr("error", error)
        self._study.tell(trial.number, state=TrialState.FAIL)
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
        settings = self._space(self._job.kind, _Fixed(live, self._job.fixed))
        return live.params, live.distributions, settings

    def _live(self, trial: Trial) -> optuna.Trial:
        """Optuna's handle on a running trial, whoever began it."""
        trial_id = self._storage.get_trial_id_from_study_id_trial_number(self._study_id, trial.number)
        return optuna.Trial(self._study, trial_id)


class _Fixed:
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
    )

"""A search's trial as a function of an Optuna trial, for whoever else drives the study: `MlflowSparkStudy`, for one.

    prepare(job, folder)                                   # `training.search.folder`: a folder that all machines see
    study = MlflowSparkStudy("gbdt", MlflowStorage(experiment_id))
    study.optimize(Objective(folder), n_trials=30, n_jobs=8)

Spark then has each trial done by a task of its own. A trial is judged as `training.search.search` judges it, and pruned
after a fold, not within one. What a dead driver left running stays so; `journeylab train --storage` with `journeylab
work` (`training.search.team_search`) takes it up again.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import optuna

from training.search.folder import Job
from training.search.trials import FixedSettings
from training.search.worker import fold_losses


@dataclass(frozen=True)
class Objective:
    """The log loss of a trial over the check rows of all folds.

    Attributes:
        folder: with the job, seen by all machines; one study each.
    """

    folder: Path

    def __call__(self, trial: optuna.Trial) -> float:
        """Fit and score fold by fold.

        Raises:
            optuna.TrialPruned: the pruner thinks the trial is not worth another fold.
        """
        job = _job(self.folder)
        settings = importlib.import_module(job.catalogue).search_space(job.kind, FixedSettings(trial, job.fixed))
        loss = float("nan")
        for fold, loss, _ in fold_losses(job, self.folder, trial.number, settings):
            trial.report(loss, fold)
            if fold + 1 < len(job.folds) and trial.should_prune():
                raise optuna.TrialPruned
        return loss


@lru_cache(maxsize=1)
def _job(folder: Path) -> Job:
    """Read once in a process."""
    return Job.load(folder)

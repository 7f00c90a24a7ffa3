"""From an experiment to models in MLflow: read, label, search, fit, measure, record.

    result = train(load_experiment("experiments/configs/demo.toml"), progress=Console())
    result.model_uri                                    # the model that is best on validation
    result.models["gbdt"]["metrics"]["test"]["auroc"]

Each kind of model is searched and fitted; then come the companions that the catalogue names for the settings found
(ablations and probes that show what a model is worth, models on its embedding), combinations of all models, and the
baselines. Validation figures come from folds inside train (other customers, later cutoffs), for every one of them.
Held-out rows are predicted once for each final model, after its settings are fixed. Every step leaves what it made in
`runs/NAME/TRAIN_ID/`, so a training that was stopped, by `kill -9` too, goes on where it was when it is called again;
one that was finished begins anew.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.entities import Run
from rich.console import Console

import features
import models
from models.catalogue import Companion
from models.contract import Settings
from models.pyfunc import input_example, signature
from models.scoring.scorer import requirements
from training.config.experiment import Experiment
from training.data.provenance import (
    code_version,
    configuration_fingerprint,
    empty_folder,
    run_note,
    run_tags,
    write_provenance,
)
from training.data.task_data import TaskData, data_lines, read_task_data
from training.evaluation.customer_groups import customer_slices, group_table, profile_groups
from training.evaluation.families import evaluate_answers
from training.evaluation.metrics import remarks
from training.fitting.comparison import beats, differences_from_baselines, paired_differences, rows_of, sentences
from training.fitting.final_files import curve_metrics, write_files
from training.fitting.finals import Final, Finals, Floats
from training.progress import say, stage
from training.reports.model_card import CardContents, model_card
from training.search.folder import held, read_scores, scores_path
from training.search.report import draw_search, parameter_importance
from training.search.search import SearchResult, search
from training.search.team_search import PlannedSearch, leading, searches
from training.search.trials import Trial
from training.tracking.tracking import FinalRun, PyfuncModel, Tracker

SEARCHED = "Fitted on all training rows with the settings of the best trial; the held-out rows were scored once."
BASELINE_NOTE = "A baseline: what a model must surely beat to be worth it."
CANDIDATES = (
    "model",
    "baseline",
)  # roles that may be the best of a training; ablations and probes only show what is worth


@dataclass(frozen=True)
class TrainResult:
    """The outcome of a training.

    Attributes:
        run_id: the run of the best model.
        model_uri: the model with the least log loss on validation.
        best: its name.
        models: name → `uri`, `run_id`, `role`, `kind`, and `metrics` on "validation" and "test".
        train_id: tag of all runs of this training.
        folder: where its files lie.
        notes: what a reviewer should know.
    """

    run_id: str
    model_uri: str
    best: str
    models: dict[str, dict[str, Any]]
    train_id: str
    folder: Path
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"folder": str(self.folder), "notes": list(self.notes)}


def train(
    experiment: Experiment,
    *,
    progress: Console | None = None,
    runs: Path = Path("runs"),
    catalogue: str = "models.catalogue",
    storage: str | None = None,
) -> TrainResult:
    """Train the models and the baselines of an experiment and record them in MLflow.

    Args:
        experiment: see `training.config.experiment`.
        progress: where to show what is going on.
        runs: the folder for files of trainings.
        catalogue: the module that makes models, knows their search spaces, and names their companions.
        storage: the URL of a PostgreSQL database on which other machines help to search
            (`training.search.team_search`).

    Raises:
        DataError: the events cannot be used, or there is too little data.
        ConfigError: settings that do not exist, or this training is under way in another process.
    """
    home = runs / experiment.name
    data = read_task_data(experiment, home, progress)
    tracker = Tracker(experiment.name)
    folder = _folder(home, configuration_fingerprint(experiment, data))
    planned = searches(experiment, data, catalogue)
    with held(folder), leading(storage, planned, folder, progress):
        training = _Training(experiment, data, planned, tracker, folder.resolve(), progress, catalogue, storage)
        result = training.run()
        (folder / "done.json").write_text(json.dumps(result.to_dict(), indent=1), encoding="utf-8")
    return result


def _folder(home: Path, fingerprint: str) -> Path:
    """The folder of this configuration's unfinished training, or a new one."""
    number = 1
    while (home / f"{fingerprint[:8]}-{number}" / "done.json").is_file():
        number += 1
    return home / f"{fingerprint[:8]}-{number}"


@dataclass(frozen=True)
class _Training:
    experiment: Experiment
    data: TaskData
    planned: Sequence[PlannedSearch]
    tracker: Tracker
    folder: Path
    progress: Console | None
    catalogue: str
    storage: str | None = None
    search_runs: dict[str, str] = field(default_factory=dict)
    metrics: dict[str, dict[str, float]] = field(default_factory=dict)

    def run(self) -> TrainResult:
        finals = self._models()
        finals += [
            self.finals.fitted(Companion(kind, kind, {}, "baseline", BASELINE_NOTE))
            for kind in self.experiment.task.baselines
        ]
        with stage(self.progress, "Comparing models with their ablations, probes and members"):
            comparisons = paired_differences(finals, self.data, seed=self.experiment.seed)
        summaries = {final.name: _summary(self._recorded(final, finals, comparisons)) for final in finals}
        candidates = [name for name in summaries if summaries[name]["role"] in CANDIDATES]
        metric = self.experiment.task.metric(self.experiment.task.promotion.search_metric)
        sign = -1 if metric.higher_is_better else 1
        best = min(candidates, key=lambda name: sign * summaries[name]["metrics"]["validation"][metric.name])
        run_id, uri = summaries[best]["run_id"], summaries[best]["uri"]
        if best in self.experiment.task.baselines:
            say(self.progress, f"On validation no model is better than the baseline {best}: look at the data first.")
        self.tracker.tag(run_id, {"best_on_validation": "true"})
        return TrainResult(run_id, uri, best, summaries, self.train_id, self.folder, self.data.notes)

    @property
    def train_id(self) -> str:
        return self.folder.name

    @property
    def _shared(self) -> str:
        """Trials on a storage are others than those of a folder, and are kept apart from them."""
        return "" if self.storage is None else "_shared"

    @cached_property
    def finals(self) -> Finals:
        make = importlib.import_module(self.catalogue).make
        tags = run_tags(self.experiment, self.data) | {"train_id": self.train_id}
        return Finals(self.experiment, self.data, self.folder, make, tags, self.progress)

    def _models(self) -> list[Final]:
        """The searched models, their companions, and combinations of those that are models in their own right."""
        catalogue = importlib.import_module(self.catalogue)
        finals = [self._best(planned) for planned in self.planned]
        companions = catalogue.companions({final.kind: final.settings for final in finals})
        finals += [self.finals.fitted(companion) for companion in companions]
        members = [final for final in finals if final.role == "model"]
        combinations = catalogue.combinations(
            {final.name: final.model for final in members},
            {final.name: final.validation for final in members},
            self.data.scored("validation")[0],
            self.data.fold_of_checks,
        )
        return finals + [self.finals.combined(each) for each in combinations]

    def _best(self, planned: PlannedSearch) -> Final:
        """Search the settings of a kind, then fit it on all training rows."""
        kind, result = planned.job.kind, self._search(planned)
        best = Companion(kind, kind, result.settings, "model", SEARCHED)
        return self.finals.fitted(best, np.concatenate(result.scores))

    def _search(self, planned: PlannedSearch) -> SearchResult:
        kind = planned.job.kind
        run_id = self._search_run(kind, planned.job.fixed)
        logged = self.tracker.logged_trials(run_id)
        folder = self.folder / f"search_{kind}{self._shared}"

        def log_trial(trial: Trial) -> None:
            if trial.number not in logged:
                self.tracker.log_trial(run_id, trial, self._trial_metrics(folder, trial), self._tags(kind))

        options = self.experiment.search
        try:
            result = search(
                planned.job,
                trials=planned.trials,
                folder=folder,
                jobs=options.jobs,
                timeout_s=options.timeout_s,
                progress=self.progress,
                on_trial=log_trial,
                storage=self.storage,
            )
        except BaseException as error:
            self.tracker.stop_search(run_id, failed=isinstance(error, Exception))
            raise
        self._finish_search(run_id, kind, result)
        return result

    def _search_run(self, kind: str, fixed: Settings) -> str:
        text = f"Search for the settings of {kind}; one run a trial below."
        run_id = self.tracker.search_run(
            f"{self.train_id}-{kind}{self._shared}",
            name=f"search {kind}",
            params=fixed | {"search_seed": self.experiment.search_seed},
            tags=self._tags(kind),
            note=run_note(self.experiment, self.data, f"Search of {kind}", text, {}),
        )
        self.search_runs[kind] = run_id
        return run_id

    def _trial_metrics(self, folder: Path, trial: Trial) -> dict[str, float]:
        """The same metrics as everywhere for a complete trial; a pruned one has not seen all the rows they are of."""
        if trial.log_loss is None:
            loss = {"pruned_log_loss": trial.losses[-1]} if trial.losses else {}  # a curve may end it in its first fold
            return loss | {"n_folds": float(len(trial.losses))}
        scores = [read_scores(scores_path(folder, trial.number, fold)) for fold in range(len(self.data.folds))]
        return self._validation_metrics(np.concatenate(scores), n_boot=0) | {"n_folds": float(len(scores))}

    def _finish_search(self, run_id: str, kind: str, result: SearchResult) -> None:
        counts = result.trials["state"].value_counts().to_dict()
        metrics = self._validation_metrics(np.concatenate(result.scores), n_boot=0)
        states = ", ".join(f"{n} {state}" for state, n in counts.items())
        n_trials, n_folds, best = len(result.trials), len(self.data.folds), result.best.number
        text = (
            f"{n_trials} trials ({states}), judged by log loss over the check rows of {n_folds} folds. Trial {best} is "
            f"the best; as the best of {n_trials}, its validation metrics are a little too good."
        )
        files = empty_folder(self.folder / f"search_{kind}_artifacts")
        write_provenance(files, self.experiment)
        result.trials.to_csv(files / "trials.csv", index=False)
        if len(result.curves):
            result.curves.to_csv(files / "curves.csv", index=False)
        importance = parameter_importance(result.study)
        importance.to_csv(files / "parameter_importance.csv", index=False)
        draw_search(kind, result.trials, importance, files / "pictures" / "search.png")
        (files / "settings.json").write_text(json.dumps(result.settings, indent=1), encoding="utf-8")
        note = run_note(self.experiment, self.data, f"Search of {kind}", text, metrics)
        self.tracker.finish_search(run_id, metrics, files, note)

    def _recorded(self, final: Final, finals: Sequence[Final], comparisons: pd.DataFrame) -> Run:
        """The run of a final model; made where it is not there."""
        if (run := self.tracker.final_run(self.train_id, final.name)) is not None:
            return run
        with stage(self.progress, f"Recording {final.name} in MLflow"):
            contents = self._card_contents(final, finals, comparisons)
            tables = {"comparisons": rows_of(comparisons, final.name), "baselines": contents.baselines}
            tables |= {"slices": contents.slices, "fairness": contents.fairness}
            card = model_card(contents, self.experiment)
            to = self.folder / "artifacts" / final.name
            files = write_files(final, finals, tables, card, self.experiment, self.data, to)
            record = self._record(final, contents, files)
            return self.tracker.log_final(replace(record, tables=tables), self._pyfunc(final))

    def _card_contents(self, final: Final, finals: Sequence[Final], comparisons: pd.DataFrame) -> CardContents:
        """What the model card reports."""
        y, customers, _ = self.data.scored("test")
        commit, changed = code_version()
        seed, baselines = self.experiment.seed, [each for each in finals if each.role == "baseline"]
        groups = profile_groups(self.data.test, self.experiment.report.fairness)
        return CardContents(
            name=final.name,
            description=final.note,
            kind=final.kind,
            role=final.role,
            commit=commit,
            code_changed=changed,
            data=data_lines(self.data),
            limits=(*self.data.notes, *remarks(y, final.test, customers)),
            metrics={each.name: self._metrics(each) for each in (final, *baselines)},
            baselines=differences_from_baselines(final, finals, self.data, seed=seed),
            remarks=tuple(sentences(comparisons, final.name, type(self.data.task))),
            slices=group_table(self._slices, y, final.test, customers, seed=seed),
            fairness=group_table(groups, y, final.test, customers, seed=seed),
        )

    @cached_property
    def _slices(self) -> dict[str, Any]:
        return customer_slices(self.data.train, self.data.test)

    def _metrics(self, final: Final) -> dict[str, float]:
        """All metrics of a final model on both sides, measured once."""
        if final.name not in self.metrics:
            test = _prefixed("test", self._evaluated("test", final.test))
            self.metrics[final.name] = self._validation_metrics(final.validation) | test
        return self.metrics[final.name]

    def _record(self, final: Final, contents: CardContents, artifacts: Path) -> FinalRun:
        metrics = contents.metrics[final.name]
        notes = [*contents.remarks, *sentences(contents.baselines, final.name, type(self.data.task))]
        title = f"{final.name}: {self.experiment.name}"
        optional = {"encoder_version": final.encoder_version, "search_run_id": self.search_runs.get(final.name, "")}
        optional["candidate"] = str(final.role in CANDIDATES).lower()
        if final.role != "baseline":
            optional["beats_baselines"] = str(beats(contents.baselines, type(self.data.task))).lower()
        params = final.settings | ({"encoder_version": final.encoder_version} if final.encoder_version else {})
        return FinalRun(
            train_id=self.train_id,
            name=final.name,
            kind=final.kind,
            role=final.role,
            params=params,
            metrics={**metrics, **final.cost},
            tags=self._tags(final.kind) | {key: value for key, value in optional.items() if value},
            note=run_note(self.experiment, self.data, title, final.note, metrics, notes),
            artifacts=artifacts,
            datasets={split: self.data.rows(split) for split in ("train", "test")},
            fingerprint=self.data.labels_fingerprint,
            source=str(self.experiment.events.path),
            curves=curve_metrics(final),
        )

    def _pyfunc(self, final: Final) -> PyfuncModel:
        sample = pd.read_parquet(final.folder / "scoring" / "sample" / "events.parquet")
        return PyfuncModel(
            folder=final.folder / "scoring",
            signature=signature(self.experiment.events.schema()),
            input_example=input_example(sample),
            code_paths=(Path(features.__path__[0]), Path(models.__path__[0])),
            requirements=(f"mlflow=={mlflow.__version__}", *requirements(final.model)),
        )

    def _evaluated(self, split: str, scores: Floats, n_boot: int = 500) -> dict[str, float]:
        y, customers, _ = self.data.scored(split)
        task, seed = type(self.data.task), self.experiment.seed
        return evaluate_answers(task, y, {task.answers[0]: scores}, customers, n_boot=n_boot, seed=seed)

    def _validation_metrics(self, scores: Floats, n_boot: int = 500) -> dict[str, float]:
        return _prefixed("validation", self._evaluated("validation", scores, n_boot))

    def _tags(self, kind: str) -> dict[str, str]:
        return run_tags(self.experiment, self.data) | {"kind": kind, "train_id": self.train_id}


def _summary(run: Run) -> dict[str, Any]:
    """A run as the result of a training shows it."""
    return {
        "uri": run.data.tags["model_uri"],
        "run_id": run.info.run_id,
        "role": run.data.tags["role"],
        "kind": run.data.tags["kind"],
        "metrics": {split: dict(_without(run.data.metrics, f"{split}_")) for split in ("validation", "test")},
    }


def _prefixed(prefix: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in figures.items()}


def _without(metrics: Mapping[str, float], prefix: str) -> Iterator[tuple[str, float]]:
    return ((name.removeprefix(prefix), value) for name, value in metrics.items() if name.startswith(prefix))

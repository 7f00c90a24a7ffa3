"""From an experiment to models in MLflow: read, label, search, fit, measure, record.

    result = train(load_experiment("experiments/demo.toml"), progress=Console())
    result.model_uri                                    # the model that is best on validation
    result.models["gbdt"]["metrics"]["test"]["auroc"]

Validation figures come from folds inside train (other customers, later cutoffs), for the baselines as for the models.
Held-out rows are predicted once for each final model, after its settings are fixed. Every step leaves what it made in
`runs/NAME/TRAIN_ID/`, so a training that was stopped, by `kill -9` too, goes on where it was when it is called again;
one that was finished begins anew.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.entities import Run
from rich.console import Console

import features
import models
from features.sources import load_log
from models.catalogue import BASELINES, make
from models.contract import HasFeatures, Model
from models.packaged import Scorer, requirements, touchpoints_seen
from models.parity import record_sample
from models.pyfunc import input_example, signature
from training.curves import calibration_table, lift_table, pr_table, roc_table
from training.evaluation import evaluate
from training.experiment import Experiment
from training.pictures import Scored, draw_all
from training.progress import say, stage
from training.records import TaskData, configuration_fingerprint, note, tags, task_data, write_provenance
from training.search import SearchResult, search
from training.search_folder import Settings, held, read_scores, scores_path
from training.tracking import FinalRun, PyfuncModel, Tracker
from training.trials import Trial

Floats = npt.NDArray[np.float64]

CURVES = {"roc": roc_table, "pr": pr_table, "lift": lift_table, "calibration": calibration_table}


@dataclass(frozen=True)
class TrainResult:
    """What a training made.

    Attributes:
        run_id: the run of the best model.
        model_uri: the model with the least log loss on validation.
        best: its name.
        models: name → `uri`, `run_id`, `role`, and `metrics` on "validation" and "test".
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


@dataclass(frozen=True)
class Final:
    """A model fitted on all training rows, and what it predicted.

    Attributes:
        kind: of model.
        settings: what it was made with.
        folder: `scoring/` inside is the scoring folder.
        validation: (k,) predictions of models of the folds for all check rows, fold by fold.
        test: (m,) predictions for the held-out rows.
    """

    kind: str
    settings: Settings
    folder: Path
    validation: Floats
    test: Floats

    @classmethod
    def load(cls, folder: Path) -> Final:
        """Read what `_fit` wrote."""
        about = json.loads((folder / "final.json").read_text(encoding="utf-8"))
        scores = (np.load(folder / f"{name}.npy", allow_pickle=False) for name in ("validation", "test"))
        return cls(about["kind"], about["settings"], folder, *scores)


def train(experiment: Experiment, *, progress: Console | None = None, runs: Path = Path("runs")) -> TrainResult:
    """Train the models and the baselines of an experiment and record them in MLflow.

    Args:
        experiment: see `training.experiment`.
        progress: where to show what is going on.
        runs: the folder for files of trainings.

    Raises:
        DataError: the events cannot be used, or there is too little data.
        ConfigError: settings that do not exist, or this training is under way in another process.
    """
    home = runs / experiment.name
    with stage(progress, f"Reading {experiment.events.path}"):
        log = load_log(experiment.events, quarantine_path=home / "quarantine.csv")
    with stage(progress, f"Labelling for {experiment.task.kind}, horizon {experiment.task.horizon_days:g} days"):
        data = task_data(experiment, log.journeys, experiment.labels(log.journeys), log)
    for remark in data.notes:
        say(progress, f"  {remark}")
    tracker = Tracker(experiment.name)
    folder = _folder(home, configuration_fingerprint(experiment, data))
    with held(folder):
        training = _Training(experiment, data, tracker, folder.resolve(), progress)
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
    tracker: Tracker
    folder: Path
    progress: Console | None
    search_runs: dict[str, str] = field(default_factory=dict)

    def run(self) -> TrainResult:
        finals = [self._searched(kind) for kind in self.experiment.models.which]
        finals += [self._baseline(kind) for kind in BASELINES]
        runs = {final.kind: self._recorded(final, finals) for final in finals}
        told = {kind: _told(run) for kind, run in runs.items()}
        best = min(told, key=lambda kind: told[kind]["metrics"]["validation"]["log_loss"])
        if best in BASELINES:
            say(self.progress, f"On validation no model is better than the baseline {best}: look at the data first.")
        return TrainResult(
            told[best]["run_id"], told[best]["uri"], best, told, self.train_id, self.folder, self.data.notes
        )

    @property
    def train_id(self) -> str:
        return self.folder.name

    def _searched(self, kind: str) -> Final:
        """Search the settings of a kind, then fit it on all training rows."""
        fixed = {"seed": self.experiment.seed, "features": self.experiment.features}
        fixed |= self.experiment.models.settings.get(kind, {})
        run_id = self._search_run(kind, fixed)
        logged = self.tracker.logged_trials(run_id)
        folder = self.folder / f"search_{kind}"

        def log_trial(trial: Trial) -> None:
            if trial.number not in logged:
                self.tracker.log_trial(run_id, trial, self._trial_metrics(folder, trial), self._tags(kind))

        options = self.experiment.search
        try:
            found = search(
                kind,
                self.data.train,
                self.data.y_train,
                self.data.folds,
                trials=options.trials,
                folder=folder,
                seed=self.experiment.search_seed,
                jobs=options.jobs,
                timeout_s=options.timeout_s,
                fixed=fixed,
                progress=self.progress,
                on_trial=log_trial,
            )
        except BaseException as error:
            self.tracker.stop_search(run_id, failed=isinstance(error, Exception))
            raise
        self._finish_search(run_id, kind, found)
        return self._fitted(kind, found.settings, np.concatenate(found.scores))

    def _search_run(self, kind: str, fixed: Settings) -> str:
        said = f"Search for the settings of {kind}; one run a trial below."
        run_id = self.tracker.search_run(
            f"{self.train_id}-{kind}",
            name=f"search {kind}",
            params=fixed | {"search_seed": self.experiment.search_seed},
            tags=self._tags(kind),
            note=note(self.experiment, self.data, f"Search of {kind}", said, {}),
        )
        self.search_runs[kind] = run_id
        return run_id

    def _trial_metrics(self, folder: Path, trial: Trial) -> dict[str, float]:
        """The same metrics as everywhere for a complete trial; a pruned one has not seen all the rows they are of."""
        if trial.log_loss is None:
            return {"pruned_log_loss": trial.losses[-1], "n_folds": float(len(trial.losses))}
        scores = [read_scores(scores_path(folder, trial.number, fold)) for fold in range(len(self.data.folds))]
        return self._validation_metrics(np.concatenate(scores), n_boot=0) | {"n_folds": float(len(scores))}

    def _finish_search(self, run_id: str, kind: str, found: SearchResult) -> None:
        counts = found.trials["state"].value_counts().to_dict()
        metrics = self._validation_metrics(np.concatenate(found.scores), n_boot=0)
        ended = ", ".join(f"{n} {state}" for state, n in counts.items())
        said = (
            f"{len(found.trials)} trials ({ended}), judged by log loss over the check rows of {len(self.data.folds)} "
            f"folds. Trial {found.best.number} is the best; as the best of {len(found.trials)}, its validation figures "
            "are a little too good."
        )
        files = _fresh(self.folder / f"search_{kind}_artifacts")
        write_provenance(files, self.experiment)
        found.trials.to_csv(files / "trials.csv", index=False)
        (files / "settings.json").write_text(json.dumps(found.settings, indent=1), encoding="utf-8")
        text = note(self.experiment, self.data, f"Search of {kind}", said, metrics)
        self.tracker.finish_search(run_id, metrics, files, text)

    def _baseline(self, kind: str) -> Final:
        return self._fitted(kind, {}, None)

    def _fitted(self, kind: str, settings: Settings, validation: Floats | None) -> Final:
        """The final model, fitted on all training rows and kept with its predictions; or the one kept before."""
        folder = self.folder / "final" / kind
        if not (folder / "final.json").is_file():
            with stage(self.progress, f"Fitting {kind} on all {len(self.data.train):,} training rows"):
                checked = self._out_of_fold(kind, settings) if validation is None else validation
                self._fit(kind, settings, checked, folder)
        return Final.load(folder)

    def _out_of_fold(self, kind: str, settings: Settings) -> Floats:
        train, y = self.data.train, self.data.y_train
        return np.concatenate(
            [
                make(kind, settings).fit(train.take(fold.train), y[fold.train]).predict(train.take(fold.check))
                for fold in self.data.folds
            ]
        )

    def _fit(self, kind: str, settings: Settings, validation: Floats, folder: Path) -> None:
        temporary = _fresh(folder.with_name(f"{kind}.tmp"))
        model = make(kind, settings).fit(self.data.train, self.data.y_train)
        scorer = self._scorer(model)
        scorer.save(temporary / "scoring")
        record_sample(scorer, self.data.test, temporary / "scoring")
        np.save(temporary / "validation.npy", validation)
        np.save(temporary / "test.npy", model.predict(self.data.test))
        (temporary / "final.json").write_text(json.dumps({"kind": kind, "settings": settings}), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)

    def _scorer(self, model: Model) -> Scorer:
        task = self.experiment.task.model_dump(mode="json") | {"name": self.experiment.name}
        return Scorer(
            model=model,
            task=task,
            schema=self.experiment.events.schema(),
            source=self.experiment.events.model_dump(mode="json"),
            touchpoints=touchpoints_seen(self.data.train),
            about=self._tags(model.kind) | {"packages": list(requirements())},
        )

    def _recorded(self, final: Final, finals: Sequence[Final]) -> Run:
        """The run of a final model; made where it is not there."""
        if (there := self.tracker.final_run(self.train_id, final.kind)) is not None:
            return there
        with stage(self.progress, f"Recording {final.kind} in MLflow"):
            metrics = self._validation_metrics(final.validation)
            metrics |= _prefixed("test", self._evaluated("test", final.test))
            record = self._record(final, metrics, self._artifacts(final, finals))
            return self.tracker.log_final(record, self._pyfunc(final))

    def _record(self, final: Final, metrics: Mapping[str, float], artifacts: Path) -> FinalRun:
        baseline = final.kind in BASELINES
        said = (
            "A straw man: what a model must surely beat to be worth it."
            if baseline
            else "Fitted on all training rows with the settings of the best trial; the held-out rows were scored once."
        )
        search_run = self.search_runs.get(final.kind)
        return FinalRun(
            train_id=self.train_id,
            kind=final.kind,
            role="baseline" if baseline else "model",
            params=final.settings,
            metrics=metrics,
            tags=self._tags(final.kind) | ({"search_run_id": search_run} if search_run else {}),
            note=note(self.experiment, self.data, f"{final.kind}: {self.experiment.name}", said, metrics),
            artifacts=artifacts,
            datasets={split: self.data.rows(split) for split in ("train", "test")},
            fingerprint=self.data.labels_fingerprint,
            source=str(self.experiment.events.path),
        )

    def _pyfunc(self, final: Final) -> PyfuncModel:
        sample = pd.read_parquet(final.folder / "scoring" / "sample" / "events.parquet")
        return PyfuncModel(
            folder=final.folder / "scoring",
            signature=signature(self.experiment.events.schema()),
            input_example=input_example(sample),
            code_paths=(Path(features.__path__[0]), Path(models.__path__[0])),
            requirements=(f"mlflow=={mlflow.__version__}", *requirements()),
        )

    def _artifacts(self, final: Final, finals: Sequence[Final]) -> Path:
        """A folder of all that the run shows: files and pictures under stable names."""
        files = _fresh(self.folder / "artifacts" / final.kind)
        write_provenance(files, self.experiment)
        for split, scores in (("validation", final.validation), ("test", final.test)):
            self._write_predictions(files / "predictions", split, scores)
        (files / "curves").mkdir()
        y, customers, _ = self._rows("test")
        for name, curve in CURVES.items():
            curve(y, final.test, customers).to_csv(files / "curves" / f"{name}.csv", index=False)
        importance = self._write_features(final, files)
        others = [] if final.kind in BASELINES else [other for other in finals if other.kind != final.kind]
        shown = [self._scored(final, "test", importance), *(self._scored(other, "test") for other in others)]
        earlier = [self._scored(shown_final, "validation") for shown_final in (final, *others)]
        draw_all(shown, files / "pictures", earlier=earlier)
        return files

    def _write_predictions(self, folder: Path, split: str, scores: Floats) -> None:
        folder.mkdir(exist_ok=True)
        y, customers, cutoffs = self._rows(split)
        frame = pd.DataFrame({"customer_id": customers, "cutoff": cutoffs.view("datetime64[us]"), "label": y})
        frame.assign(probability=scores).to_csv(folder / f"{split}.csv", index=False)

    def _write_features(self, final: Final, files: Path) -> dict[str, float] | None:
        """`features.csv`, the inputs and their meanings; the importance by name, where the model knows it."""
        model = Scorer.load(final.folder / "scoring").model
        if not isinstance(model, HasFeatures):
            return None
        table = model.feature_table().sort_values("importance", ascending=False, kind="stable")
        table.to_csv(files / "features.csv", index=False)
        return dict(zip(table["name"], table["importance"].astype(float), strict=True))

    def _rows(self, split: str) -> tuple[npt.NDArray[Any], npt.NDArray[Any], npt.NDArray[np.int64]]:
        """Labels, customers and cutoffs of the check rows, fold by fold, or of the held-out rows."""
        if split == "test":
            return self.data.y_test, self.data.test.customer_ids, self.data.test.cutoff
        rows = np.concatenate([fold.check for fold in self.data.folds])
        return self.data.y_train[rows], self.data.train.customer_ids[rows], self.data.train.cutoff[rows]

    def _evaluated(self, split: str, scores: Floats, n_boot: int = 500) -> dict[str, float]:
        y, customers, _ = self._rows(split)
        return evaluate(y, scores, customers, n_boot=n_boot, seed=self.experiment.seed)

    def _validation_metrics(self, scores: Floats, n_boot: int = 500) -> dict[str, float]:
        return _prefixed("validation", self._evaluated("validation", scores, n_boot))

    def _scored(self, final: Final, split: str, importance: dict[str, float] | None = None) -> Scored:
        y, customers, cutoffs = self._rows(split)
        rows = {"test": "held-out rows", "validation": "validation rows"}[split]
        return Scored(final.kind, y, getattr(final, split), customers, cutoffs, importance, rows)

    def _tags(self, kind: str) -> dict[str, str]:
        return tags(self.experiment, self.data) | {"kind": kind, "train_id": self.train_id}


def _told(run: Run) -> dict[str, Any]:
    """A run as the result of a training shows it."""
    return {
        "uri": run.data.tags["model_uri"],
        "run_id": run.info.run_id,
        "role": run.data.tags["role"],
        "metrics": {split: dict(_without(run.data.metrics, f"{split}_")) for split in ("validation", "test")},
    }


def _prefixed(prefix: str, figures: Mapping[str, float]) -> dict[str, float]:
    return {f"{prefix}_{name}": value for name, value in figures.items()}


def _without(metrics: Mapping[str, float], prefix: str) -> Iterator[tuple[str, float]]:
    return ((name.removeprefix(prefix), value) for name, value in metrics.items() if name.startswith(prefix))


def _fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder

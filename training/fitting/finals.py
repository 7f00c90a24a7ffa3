"""Final models: fitted on all training rows, kept on disk with their predictions, so that a killed training goes on.

final/NAME/final.json           kind, settings, role and note of the model; written last
final/NAME/scoring/             the scoring folder
final/NAME/validation.npy       (k,) predictions of models of the folds for their check rows, fold by fold
final/NAME/test.npy             (m,) predictions of the final model for the held-out rows
final/NAME/history.csv          its learning curve, where the model keeps one
parts/NAME/fold_0.npy           validation predictions as they come, for models that no search has scored
parts/NAME/fold_0/ final/       where a long fit keeps its state until it is done
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import pandas as pd
from rich.console import Console

from features.journeys.journeys import Snapshots
from models.catalogue import Combination, Companion
from models.contract import EmbeddingModel, HistoryModel, Model, Resumable, Settings
from models.scoring.golden_sample import record_sample
from models.scoring.scorer import Scorer, requirements, visible_touchpoints
from models.scoring.training_reference import TrainingReference
from training.config.experiment import Experiment
from training.data.provenance import empty_folder
from training.data.task_data import TaskData
from training.evaluation.families import evaluate_answers
from training.progress import stage
from training.search.folder import read_scores, write_scores

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Final:
    """A model fitted on all training rows, and its predictions.

    Attributes:
        name: in this training, and of its run.
        kind: of model.
        settings: of the model, or the weights of a combination.
        role: "model", "ablation", "probe" or "baseline".
        note: a sentence for the reviewer.
        of: the models that it is compared with.
        encoder_version: of the embedding, "" where it has none.
        folder: `scoring/` inside is the scoring folder.
        validation: (k,) predictions of models of the folds for all check rows, fold by fold.
        test: (m,) predictions for the held-out rows.
        cost: `fit_seconds` (on all training rows, where that was done in one go; of what is combined, together),
            `rows_per_second` scored.
    """

    name: str
    kind: str
    settings: Settings
    role: str
    note: str
    of: tuple[str, ...]
    encoder_version: str
    folder: Path
    validation: Floats
    test: Floats
    cost: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: Path) -> Final:
        """Read what `Finals` wrote."""
        about = json.loads((folder / "final.json").read_text(encoding="utf-8"))
        about.setdefault("note", about.pop("said", ""))  # "said" in folders of earlier versions
        validation, test = (read_scores(folder / f"{split}.npy") for split in ("validation", "test"))
        return cls(**about | {"of": tuple(about["of"])}, folder=folder, validation=validation, test=test)

    @cached_property
    def model(self) -> Model:
        """The fitted model."""
        return cast(Model, Scorer.load(self.folder / "scoring").model)

    @property
    def history(self) -> pd.DataFrame | None:
        """How it learnt: `part, epoch, name, value`."""
        path = self.folder / "history.csv"
        return pd.read_csv(path) if path.is_file() else None


@dataclass(frozen=True)
class Finals:
    """Fits final models, or loads those that an earlier call has saved.

    Attributes:
        experiment: of the training.
        data: its rows.
        folder: of the training.
        make: kind and settings → an unfitted model.
        tags: for the scoring folder: where the model comes from.
        progress: where to show what is going on.
    """

    experiment: Experiment
    data: TaskData
    folder: Path
    make: Callable[[str, Settings], Model]
    tags: Mapping[str, str]
    progress: Console | None

    def fitted(self, companion: Companion, validation: Floats | None = None) -> Final:
        """The final model, fitted on all training rows.

        Args:
            companion: the model to fit.
            validation: (k,) predictions of models of the folds, where a search has made them.
        """
        about = _about(companion, companion.kind, companion.role)
        if (saved := self._saved(about)) is not None:
            return saved
        parts, n_folds = self._parts(about), len(self.data.folds)
        if validation is None:
            validation = np.concatenate([self._fold_predictions(companion, parts, fold) for fold in range(n_folds)])
        with stage(self.progress, f"Fitting {companion.name} on all {len(self.data.train):,} training rows"):
            # A fit that goes on from an earlier process does not know what it cost in all.
            started, is_whole = time.perf_counter(), not (parts / "final").exists()
            model = self._fit(companion, self.data.train, self.data.y_train, parts / "final")
            cost = {"fit_seconds": time.perf_counter() - started} if is_whole else {}
            final = self._save(about, model, validation, cost)
        shutil.rmtree(parts)
        return final

    def combined(self, combination: Combination) -> Final:
        """The final model of a combination of fitted ones."""
        about = _about(combination, combination.model.kind, "model")
        if (saved := self._saved(about)) is not None:
            return saved
        with stage(self.progress, f"Combining {', '.join(combination.of)} as {combination.name}"):
            costs = [Final.load(self.folder / "final" / name).cost for name in combination.of]
            has_all = all("fit_seconds" in cost for cost in costs)
            cost = {"fit_seconds": sum(cost["fit_seconds"] for cost in costs)} if has_all else {}
            return self._save(about, combination.model, combination.validation, cost)

    def _saved(self, about: dict[str, Any]) -> Final | None:
        """The saved model, unless its settings have changed: a search that went on may have found better ones."""
        folder = self.folder / "final" / about["name"]
        if not (folder / "final.json").is_file():
            return None
        saved = json.loads((folder / "final.json").read_text(encoding="utf-8"))
        return Final.load(folder) if all(saved[key] == about[key] for key in ("kind", "settings")) else None

    def _parts(self, about: dict[str, Any]) -> Path:
        """The folder of this model's finished parts; those of other settings are deleted."""
        folder = self.folder / "parts" / str(about["name"])
        settings = json.dumps({key: about[key] for key in ("kind", "settings")})
        path = folder / "parts.json"
        if not path.is_file() or path.read_text(encoding="utf-8") != settings:
            empty_folder(folder)
            path.write_text(settings, encoding="utf-8")
        return folder

    def _fold_predictions(self, companion: Companion, parts: Path, number: int) -> Floats:
        """(b,) predictions of a model of one fold for its check rows."""
        path, fold = parts / f"fold_{number}.npy", self.data.folds[number]
        if not path.is_file():
            with stage(self.progress, f"Fitting {companion.name} on fold {number + 1} of {len(self.data.folds)}"):
                rows, y = self.data.train.take(fold.train), self.data.y_train[fold.train]
                model = self._fit(companion, rows, y, path.with_suffix(""))
                write_scores(path, model.predict(self.data.train.take(fold.check)))
        shutil.rmtree(path.with_suffix(""), ignore_errors=True)
        return read_scores(path)

    def _fit(self, companion: Companion, rows: Snapshots, y: npt.NDArray[np.int8], state: Path) -> Model:
        model = self.make(companion.kind, companion.settings)
        if isinstance(model, Resumable):
            model.resume_in(state)
        return model.fit(rows, y)

    def _save(self, about: dict[str, Any], model: Model, validation: Floats, cost: Mapping[str, float]) -> Final:
        """Write all of a final model so that its folder is whole or not there."""
        folder = self.folder / "final" / about["name"]
        temporary = empty_folder(folder.with_name(f"{about['name']}.tmp"))
        scorer = self._scorer(model)
        scorer.save(temporary / "scoring")
        record_sample(scorer, self.data.test, temporary / "scoring")
        np.save(temporary / "validation.npy", validation)
        started = time.perf_counter()
        test = scorer.probabilities(self.data.test)
        cost = {**cost, "rows_per_second": len(test) / (time.perf_counter() - started)}
        np.save(temporary / "test.npy", test)
        self._reference(scorer, test).save(temporary / "scoring")
        if isinstance(model, HistoryModel):
            model.history().to_csv(temporary / "history.csv", index=False)
        version = model.version if isinstance(model, EmbeddingModel) else ""
        text = json.dumps(about | {"encoder_version": version, "cost": cost}, indent=1)
        (temporary / "final.json").write_text(text, encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        os.replace(temporary, folder)
        return Final.load(folder)

    def _reference(self, scorer: Scorer, test: Floats) -> TrainingReference:
        """The reference that a monitor compares the served rows with."""
        data, answers = self.data, {self.data.task.answers[0]: test}
        metrics = evaluate_answers(type(data.task), data.y_test, answers, data.test.customer, n_boot=0)
        return TrainingReference.of(scorer, data.train, answers, data.test, metrics)

    def _scorer(self, model: Model) -> Scorer:
        task = self.experiment.task.model_dump(mode="json") | {"name": self.experiment.name}
        return Scorer(
            model=model,
            task=task,
            schema=self.experiment.events.schema(),
            source=self.experiment.events.model_dump(mode="json"),
            touchpoints=visible_touchpoints(self.data.train),
            about={**self.tags, "kind": model.kind, "packages": list(requirements(model))},
        )


def _about(model: Companion | Combination, kind: str, role: str) -> dict[str, Any]:
    """The content of `final.json`, as JSON gives it back."""
    about = {"name": model.name, "kind": kind, "settings": model.settings, "role": role}
    parsed: dict[str, Any] = json.loads(json.dumps(about | {"note": model.note, "of": model.of}))
    return parsed

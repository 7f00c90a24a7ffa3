"""Make a run again from what MLflow holds, and say whether the numbers are the same.

    result = reproduce("RUN_ID", progress=Console())
    result.same, result.verdict                 # True, "The same to the last digit: 37 metrics and …"
    result.metrics                              # metric, recorded, again, difference

All that decides a model is in its run: the experiment as it was resolved, kind and settings, and the fingerprint of the
log, which is checked before anything is fitted. The model is then fitted anew on all training rows and scores the
held-out rows. A blend is made again from its members, each fitted anew, with weights learnt from the validation
predictions that the members' runs recorded. On one machine LightGBM and, on a CPU, sequence models give every digit
again; another machine, other versions or another number of threads may differ in the last ones, and the report says
what is different.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient
from rich.console import Console

from features.errors import ConfigError, DataError
from features.journeys.loading import load_log
from models.catalogue import make
from models.contract import Model, SavableModel, Settings
from models.ensembles.blend import Blend
from models.pyfunc import EventModel
from models.scoring.golden_sample import largest_difference
from models.scoring.scorer import Scorer
from models.segments.collection import SegmentCollection
from training.config.experiment import Experiment
from training.data.provenance import code_version, machine
from training.data.task_data import TaskData, task_data
from training.evaluation.metrics import evaluate
from training.fitting.final_files import SETTINGS
from training.progress import say, stage
from training.tracking.registry import ResolvedModel, experiment_of, fetched, resolve
from training.tracking.tracking import connect

Floats = npt.NDArray[np.float64]
DECISIVE_PACKAGES = ("numpy", "numba", "scipy", "lightgbm", "scikit-learn", "torch", "pandas")  # they can move a digit


@dataclass(frozen=True)
class Reproduction:
    """A run and the outcome of making it again.

    Attributes:
        run_id: of the run.
        name: of the model in its training.
        metrics: a row a recorded metric: `metric, recorded, again, difference`.
        predictions: the largest difference of the answers for held-out rows; infinite where the rows are others.
        sample: the largest difference from the answers of the recorded sample.
        circumstances: differences in code, packages and machine; a sentence each.
        same: no metric and no prediction differs in any digit.
        verdict: one sentence.
    """

    run_id: str
    name: str
    metrics: pd.DataFrame
    predictions: float
    sample: float
    circumstances: tuple[str, ...]
    same: bool
    verdict: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready; infinite differences are null."""
        result = {name: getattr(self, name) for name in ("run_id", "name", "same", "verdict", "predictions", "sample")}
        differ = self.metrics[self.metrics["difference"] != 0].to_dict("records")
        return _finite(result | {"circumstances": list(self.circumstances)}) | {
            "differ": [_finite(row) for row in differ]
        }


def _finite(row: Mapping[Any, Any]) -> dict[str, Any]:
    """With null for numbers that JSON does not have."""
    return {key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()}


def reproduce(
    run: str, *, events: Path | None = None, labels: Path | None = None, progress: Console | None = None
) -> Reproduction:
    """Fit the model of a run again and compare it with what the run recorded.

    Args:
        run: a run's id, or a model as `training.tracking.registry.resolve` takes it.
        events: where the log lies now, if it has moved.
        labels: where the label table lies now, if the task has one and it has moved.
        progress: where to show what is going on.

    Raises:
        ConfigError: there is no such run, or it has no final model; `labels` for a task without a label table.
        DataError: the log or the labels are gone or have changed since.
    """
    client = connect()
    model = resolve(run, client)
    experiment = _moved(experiment_of(model), events, labels)
    recorded = client.get_run(model.run_id)
    circumstances = _circumstances(model)
    for remark in circumstances:
        say(progress, f"  {remark}")
    if model.tags.get("engine") == "spark":
        raise ConfigError(
            f"Run {model.run_id} was made on Spark, of more customers than its sample has: run journeylab segment … "
            "--engine spark again and compare the two."
        )
    data = _data(experiment, model, progress)
    if model.tags.get("judged_by") == "stability":
        return _segments(experiment, data, model, recorded, circumstances, progress)
    refit = _Refit(experiment, data, client, progress)
    fitted = refit.model(model)
    with stage(progress, f"Scoring {len(data.test):,} held-out rows"):
        scorer = _with(model, fitted)
        scores = scorer.probabilities(data.test)
    metrics = evaluate(data.y_test, scores, data.test.customer_ids, n_boot=500, seed=experiment.seed)
    measured = {f"test_{name}": value for name, value in metrics.items()}
    predictions = _predictions(model.run_id, data, scores)
    return _reproduction(model, recorded, measured, predictions, _sample(model, scorer), circumstances)


def _moved(experiment: Experiment, events: Path | None, labels: Path | None) -> Experiment:
    """The experiment with its files where they are now."""
    changed: dict[str, Any] = {}
    if events is not None:
        changed["events"] = experiment.events.with_path(events.resolve())
    if labels is not None:
        if experiment.task.label_file is None:
            raise ConfigError(
                f"--labels {labels}: the task is {experiment.task.kind}, it has no label table of its own."
            )
        changed["task"] = experiment.task.with_label_file(labels.resolve())
    return experiment.model_copy(update=changed)


def _data(experiment: Experiment, model: ResolvedModel, progress: Console | None) -> TaskData:
    """The rows of the run, if the log is still the one that it was made of."""
    path = experiment.events.path
    try:
        with stage(progress, f"Reading {path}"):
            log = load_log(experiment.events)
    except DataError as error:
        raise DataError(
            f"Run {model.run_id} cannot be made again, its log cannot be read: {error} "
            "If it has moved, say where it is: --events PATH."
        ) from error
    now = log.journeys.fingerprint()
    if now != model.data_fingerprint:
        raise DataError(
            f"Run {model.run_id} cannot be made again: the log {path} has changed since (fingerprint {now[:12]}, then "
            f"{model.data_fingerprint[:12]}). Bring the old one back, or name it with --events PATH."
        )
    try:
        build = experiment.labels(log.journeys)
    except DataError as error:
        moved = " If the label table has moved, say where it is: --labels PATH." * (
            experiment.task.label_file is not None
        )
        raise DataError(
            f"Run {model.run_id} cannot be made again, its labels cannot be built: {error}{moved}"
        ) from error
    data = task_data(experiment, log.journeys, build, log)
    if data.labels_fingerprint != model.tags.get("labels_fingerprint", data.labels_fingerprint):
        raise DataError(
            f"Run {model.run_id} cannot be made again: the log is the same, but its labels are not (fingerprint "
            f"{data.labels_fingerprint[:12]}, then {model.tags['labels_fingerprint'][:12]}). The label table has "
            f"changed, or the code that builds it: the run was made with commit {model.tags.get('commit', '')[:12]}."
        )
    return data


@dataclass(frozen=True)
class _Refit:
    """Fits models of one training anew."""

    experiment: Experiment
    data: TaskData
    client: MlflowClient
    progress: Console | None

    def model(self, of: ResolvedModel) -> Model:
        """The model of a run, fitted on all training rows."""
        kind, settings, members = recorded_settings(of)
        if kind == Blend.kind:
            return self._blend(of, members)
        with stage(self.progress, f"Fitting {of.tags['name']} on all {len(self.data.train):,} training rows"):
            return make(kind, settings).fit(self.data.train, self.data.y_train)

    def _blend(self, of: ResolvedModel, names: tuple[str, ...]) -> Model:
        y, _, _ = self.data.scored("validation")
        members, validation = {}, {}
        for name in names:
            member = self._member(of, name)
            members[name] = self.model(member)
            validation[name] = _read_predictions(member.run_id, "validation")["probability"].to_numpy(np.float64)
        return Blend.of(members, validation, y)

    def _member(self, of: ResolvedModel, name: str) -> ResolvedModel:
        """The model of that name in the same training."""
        experiments = [self.client.get_run(of.run_id).info.experiment_id]
        query = f"tags.train_id = '{of.tags['train_id']}' and tags.name = '{name}' and tags.role = 'model'"
        for run in self.client.search_runs(experiments, query):
            if "model_uri" in run.data.tags:
                return resolve(run.data.tags["model_uri"], self.client)
        raise ConfigError(f"Run {of.run_id} is made of '{name}', whose run is not in this store any more.")


def recorded_settings(model: ResolvedModel) -> tuple[str, Settings, tuple[str, ...]]:
    """Kind, settings and members of a run's model.

    Raises:
        ConfigError: the run is of a version that did not record them.
    """
    path = fetched(model.run_id, SETTINGS)
    if path is None:
        raise ConfigError(
            f"Run {model.run_id} did not record its settings as {SETTINGS}: it was made by an older version of "
            "Journey Lab. Train again."
        )
    about = json.loads(path.read_text(encoding="utf-8"))
    return str(about["kind"]), about["settings"], tuple(about["of"])


def _segments(
    experiment: Experiment,
    data: TaskData,
    model: ResolvedModel,
    recorded: Run,
    circumstances: tuple[str, ...],
    progress: Console | None,
) -> Reproduction:
    """A segmentation: matched with the same version as then, and every figure and the recorded sample compared."""
    from training.segmentation.segmenting import refit_segments

    matched = model.tags.get("matched_with", "")
    before = Scorer.load(resolve(f"models:/{model.tags['task']}/{matched}").folder).model if matched else None
    book, figures = refit_segments(
        experiment, data, before if isinstance(before, SegmentCollection) else None, progress
    )
    sample = _sample(model, _with(model, book))
    return _reproduction(model, recorded, figures, None, sample, circumstances)


def _reproduction(
    model: ResolvedModel,
    recorded: Run,
    figures: Mapping[str, float],
    predictions: float | None,
    sample: float,
    circumstances: tuple[str, ...],
) -> Reproduction:
    metrics = _metrics(recorded, figures)
    differ = metrics[metrics["difference"] != 0]
    same = bool(len(metrics)) and differ.empty and not predictions and not sample
    name = str(model.tags["name"])
    verdict = _same(metrics, predictions) if same else _not_same(differ, len(metrics), predictions, sample)
    return Reproduction(model.run_id, name, metrics, predictions or 0.0, sample, circumstances, same, verdict)


def _metrics(recorded: Run, again: Mapping[str, float]) -> pd.DataFrame:
    """Each recorded metric beside its value now; a held-out one that is not measured any more differs."""
    rows = [
        (name, value, again.get(name, math.nan), abs(again.get(name, math.nan) - value))
        for name, value in recorded.data.metrics.items()
        if name in again or name.startswith("test_")
    ]
    table = pd.DataFrame(rows, columns=["metric", "recorded", "again", "difference"])
    return table.fillna({"difference": math.inf})


def _same(metrics: pd.DataFrame, predictions: float | None) -> str:
    rows = " and every held-out prediction" if predictions is not None else ""
    return f"The same to the last digit: {len(metrics)} metrics{rows}, and the answers of the recorded sample."


def _not_same(differ: pd.DataFrame, n: int, predictions: float | None, sample: float) -> str:
    texts = [f"{len(differ)} of {n} metrics differ"]
    if len(differ):
        most = differ.iloc[int(differ["difference"].to_numpy().argmax())]
        texts[0] += f", most of all {most['metric']}: {float(most['recorded'])!r} then, {float(most['again'])!r} now"
    if predictions:
        texts.append(f"held-out predictions by up to {predictions:.2g}" if predictions < 1 else "other held-out rows")
    if sample:
        texts.append(f"answers of the recorded sample by up to {sample:.2g}" if sample < 1 else "other answers")
    return f"Not the same: {'; '.join(texts)}."


def _with(model: ResolvedModel, fitted: SavableModel) -> Scorer:
    """The recorded scorer with the new model in place of its own."""
    return replace(Scorer.load(model.folder), model=fitted)


def _sample(model: ResolvedModel, scorer: Scorer) -> float:
    """The largest difference from the answers of the recorded sample."""
    return largest_difference(model.folder, EventModel(scorer).predict)


def _predictions(run_id: str, data: TaskData, scores: Floats) -> float:
    """The largest difference from the recorded held-out predictions; infinite where the rows are others."""
    recorded = _read_predictions(run_id, "test")
    customers = recorded["customer_id"].to_numpy(object)
    if len(recorded) != len(scores) or (customers != data.test.customer_ids.astype(str)).any():
        return math.inf
    return float(np.abs(recorded["probability"].to_numpy(np.float64) - scores).max(initial=0.0))


def _read_predictions(run_id: str, split: str) -> pd.DataFrame:
    path = fetched(run_id, f"predictions/{split}.csv")
    if path is None:
        raise ConfigError(f"Run {run_id} holds no predictions/{split}.csv any more: it cannot be compared.")
    return pd.read_csv(path, dtype={"customer_id": str}, keep_default_na=False)


def _circumstances(model: ResolvedModel) -> tuple[str, ...]:
    """What is not as it was: code, packages, machine."""
    texts = []
    commit, changed = code_version()
    then = model.tags.get("commit", "")
    if commit != then:
        texts.append(f"The code is at commit {commit[:12] or 'none'}, the run was made with {then[:12] or 'none'}.")
    if changed or model.tags.get("commit_changed") == "true":
        when = "now" if model.tags.get("commit_changed") != "true" else "then and now" if changed else "then"
        texts.append(f"Files differ from the commit ({when}).")
    folder = fetched(model.run_id, "environment")
    return tuple(texts) if folder is None else (*texts, *_machine(folder), *_packages(folder))


def _machine(folder: Path) -> list[str]:
    """Of the machine: what can move a digit."""
    file = folder / "machine.json"
    then = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if then.get("gpu"):
        import torch  # noqa: F401  # heavy; `machine` names a GPU only where torch is loaded
    now = machine()
    names = {"python": "Python", "processor": "processor", "cores": "cores", "threads": "OMP_NUM_THREADS", "gpu": "GPU"}
    return [
        f"{title}: {now[name] or 'none'} now, {then[name] or 'none'} then."
        for name, title in names.items()
        if name in then and then[name] != now[name]
    ]


def _packages(folder: Path) -> list[str]:
    file = folder / "packages.txt"
    lines = file.read_text(encoding="utf-8").split() if file.exists() else []
    then = dict(line.lower().split("==", 1) for line in lines if "==" in line)
    now = {name: _version(name) for name in DECISIVE_PACKAGES if name in then}
    return [f"{name}: {now[name] or 'none'} now, {then[name]} then." for name in now if now[name] != then[name]]


def _version(name: str) -> str:
    try:
        return version(name).lower()
    except PackageNotFoundError:
        return ""

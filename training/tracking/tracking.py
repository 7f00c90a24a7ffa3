"""Runs in MLflow: a search, its trials and the final models get there once each, whoever is killed.

By default everything lies in `mlflow.db` and `mlruns/` of the working directory; `MLFLOW_TRACKING_URI` points
elsewhere.

    tracker = Tracker("online_retail_churn")
    parent = tracker.search_run("2f0c-1", name="search gbdt", params={...}, tags={...}, note="...")
    tracker.log_trial(parent, trial, {"validation_auroc": 0.76})

Tags say what a run is about (`search_id`, `trial`, `train_id` and `kind`), and every call looks for them first. So a
process that was killed at any moment can do all of it again: whole runs stay, half ones are completed or begun anew,
and none is there twice.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")

import mlflow
import pandas as pd
from mlflow.data.pandas_dataset import from_pandas
from mlflow.entities import Metric, Param, Run, RunTag
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from PIL import Image

from training.search.trials import Trial
from training.tracking.saved_views import GRID, KIND, PICTURES, views

SQLITE = "sqlite:///"
NOTE = "mlflow.note.content"
LONGEST_VALUE = 5_000  # characters; MLflow refuses a little more than that
MOST_METRICS, MOST_PARAMS = 1_000, 100  # in one call of MLflow's
GUIDE = """Choose a question under "Views", at the upper right; its filter, order and columns follow.

One experiment a task. By hand, choose what to compare by a tag, in the filter above the list:

- `tags.candidate = 'true'`: models and baselines: what could be promoted, and what it must be better than
- `tags.candidate = 'false'`: ablations and probes: a model without something it sees, or something
  simple on its embedding; `comparisons.csv` has the differences
- `tags.best_on_validation = 'true'`: the best of each training; `tags.beats_baselines = 'true'`: surely better than
  every baseline on held-out rows
- `tags.role = 'search'`: searches, their trials below them
- `tags.role = 'map'`: journey maps: a page, tables and pictures

`validation_…` is measured on folds inside train (other customers, later cutoffs), `test_…` on rows that were scored
once. `…_low` and `…_high` are 95% intervals over customers. Runs of one training share the tag `train_id`."""
NOISY_LOGGERS = ("mlflow", "alembic")


def tracking_uri() -> str:
    """Where runs are kept: `MLFLOW_TRACKING_URI`, or `mlflow.db` in the working directory."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"{SQLITE}{Path('mlflow.db').absolute()}"


def connect() -> MlflowClient:
    """A client for `tracking_uri()`; a SQLite store that is not there yet is made."""
    uri = tracking_uri()
    with quiet():
        if (path := sqlite_path(uri)) is not None and not path.exists():
            _make_store(path)
        mlflow.set_tracking_uri(uri)
        mlflow.set_registry_uri(uri)
        return MlflowClient(uri, uri)


def sqlite_path(uri: str) -> Path | None:
    """The file of a SQLite store, None for a store of another kind.

    >>> sqlite_path("sqlite:////tmp/mlflow.db"), sqlite_path("http://localhost:5000")
    (PosixPath('/tmp/mlflow.db'), None)
    """
    return Path(unquote(uri.removeprefix(SQLITE))) if uri.startswith(SQLITE) else None


def _make_store(path: Path) -> None:
    """Build the tables in a file beside and rename it: a store is whole or not there, however many begin at once.

    MLflow builds them in some forty migrations, which take seconds; a kill in between leaves a store that no version
    of it opens.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.with_name(f"{path.name}.lock").open("a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            return
        fresh = path.with_name(f"{path.name}.new")
        fresh.unlink(missing_ok=True)
        MlflowClient(f"{SQLITE}{fresh}").search_experiments(max_results=1)
        fresh.rename(path)


@contextmanager
def quiet() -> Iterator[None]:
    """MLflow without its remarks about itself; errors still show."""
    loggers = [logging.getLogger(name) for name in NOISY_LOGGERS]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        # Label columns are whole numbers without gaps, and the source of a data set is a path: both are meant.
        warnings.filterwarnings("ignore", message=".*integer column.*", category=UserWarning)
        warnings.filterwarnings("ignore", message="(?s).*dataset source.*", category=UserWarning)
        warnings.filterwarnings("ignore", message="(?s).*select_dtypes.*")  # MLflow's own, on writing a table
        # MLflow 3.17's own code, on Pydantic 2 and on pandas 3.
        warnings.filterwarnings("ignore", message=".*inferred as AnyType.*", category=UserWarning)
        warnings.filterwarnings("ignore", message="Operation with range is deprecated")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@dataclass(frozen=True)
class FinalRun:
    """The record of a final model or a baseline.

    Attributes:
        train_id: of the training it belongs to; with `name` it says which run this is.
        name: of the model in this training; also the run's name.
        kind: of model.
        role: "model", "baseline", "ablation" or "probe".
        params: settings, flat.
        metrics: with the prefix `validation_` or `test_`.
        tags: task, data fingerprint, commit and so on.
        note: for the reviewer, Markdown.
        artifacts: a folder, logged as it is.
        datasets: context ("train", "test") → its rows with `label`.
        fingerprint: of the data, at most 36 characters.
        source: the path of the events.
        curves: metrics with a value an epoch: `metric, epoch, value`.
        tables: name → a table that MLflow shows for several runs side by side; those without rows are left out.
    """

    train_id: str
    name: str
    kind: str
    role: str
    params: Mapping[str, Any]
    metrics: Mapping[str, float]
    tags: Mapping[str, str]
    note: str
    artifacts: Path
    datasets: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    fingerprint: str = ""
    source: str = ""
    curves: pd.DataFrame | None = None
    tables: Mapping[str, pd.DataFrame] = field(default_factory=dict)


@dataclass(frozen=True)
class PyfuncModel:
    """A scoring folder, with what MLflow records beside it; see `models.pyfunc`."""

    folder: Path
    signature: Any
    input_example: pd.DataFrame | None
    code_paths: tuple[Path, ...]
    requirements: tuple[str, ...]
    loader_module: str = "models.pyfunc"


class Tracker:
    """The MLflow experiment of one task."""

    def __init__(self, experiment: str) -> None:
        self.name = experiment
        self.client = connect()
        self.experiment_id = self._experiment()

    def search_run(
        self, search_id: str, *, name: str, params: Mapping[str, Any], tags: Mapping[str, str], note: str
    ) -> str:
        """The run of a search, made where there is none; its id."""
        runs = self._runs(f"tags.search_id = '{search_id}' and tags.role = 'search'")
        labels = {"role": "search", "search_id": search_id, NOTE: note}
        run = runs[0] if runs else self.client.create_run(self.experiment_id, run_name=name, tags={**labels, **tags})
        self._log(run.info.run_id, {}, params)
        self.client.update_run(run.info.run_id, "RUNNING")
        return str(run.info.run_id)

    def log_trial(self, parent_id: str, trial: Trial, metrics: Mapping[str, float], tags: Mapping[str, str]) -> str:
        """The run of a finished trial, below that of its search; made, or completed, where it is not whole."""
        runs = self._runs(f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.trial = '{trial.number}'")
        run_id = str((runs[0] if runs else self._trial_run(parent_id, trial, tags)).info.run_id)
        if runs and runs[0].info.status == "FINISHED":
            return run_id
        ended = _milliseconds(trial.finished)
        self._log(run_id, metrics, trial.params, ended)
        losses = [Metric("fold_log_loss", loss, ended, step) for step, loss in enumerate(trial.losses)]
        for fold, curve in trial.curves.items():
            name = f"curve/fold_{fold}/check_loss"
            losses += [Metric(name, loss, ended, step) for step, loss in curve.items() if math.isfinite(loss)]
        self._log_metrics(run_id, losses)
        self.client.set_terminated(run_id, "FINISHED", ended)
        return run_id

    def logged_trials(self, parent_id: str) -> dict[int, str]:
        """Number → run of every whole trial of a search."""
        runs = self._runs(f"tags.`mlflow.parentRunId` = '{parent_id}' and tags.role = 'trial'")
        return {int(run.data.tags["trial"]): run.info.run_id for run in runs if run.info.status == "FINISHED"}

    def finish_search(self, run_id: str, metrics: Mapping[str, float], artifacts: Path, note: str) -> None:
        """The search is done: its best figures, the table of trials, and the note for the reviewer."""
        self._log(run_id, metrics, {})
        self.client.set_tag(run_id, NOTE, note)
        self.client.log_artifacts(run_id, str(artifacts))
        self.client.set_terminated(run_id)

    def stop_search(self, run_id: str, *, failed: bool) -> None:
        """The search ended before its time; `search_run` takes it up again."""
        self.client.set_terminated(run_id, "FAILED" if failed else "KILLED")

    def final_run(self, train_id: str, name: str) -> Run | None:
        """The whole run of a final model, None where there is none; what a dead process left of one is deleted."""
        whole = None
        query = f"tags.train_id = '{train_id}' and tags.name = '{name}'"
        for run in self._runs(f"{query} and tags.role != 'search' and tags.role != 'trial'"):
            if run.info.status == "FINISHED" and "model_uri" in run.data.tags:
                whole = run
            else:
                self.client.delete_run(run.info.run_id)
        return whole

    def log_final(self, record: FinalRun, model: PyfuncModel) -> Run:
        """Log a final model: the run counts as whole only when all of it is there."""
        labels = {"name": record.name, "role": record.role, "kind": record.kind, "train_id": record.train_id}
        tags = {**labels, NOTE: record.note, **record.tags}
        run_id = self.client.create_run(self.experiment_id, run_name=record.name, tags=tags).info.run_id
        with quiet(), mlflow.start_run(run_id=run_id):
            self._log(run_id, {}, record.params)
            if record.curves is not None:
                self._log_metrics(run_id, _steps(record.curves))
            self.client.log_artifacts(run_id, str(record.artifacts))
            self._log_pictures(run_id, record.artifacts / PICTURES)
            for name, table in record.tables.items():
                if len(table):
                    self.client.log_table(run_id, _keyed(table), f"tables/{name}.json")
            for context, rows in record.datasets.items():
                name = f"{self.name} {context}"
                mlflow.log_input(_dataset(rows, name, record.fingerprint, record.source), context=context)
            info = mlflow.pyfunc.log_model(
                name=record.name,
                loader_module=model.loader_module,
                data_path=str(model.folder),
                code_paths=[str(path) for path in model.code_paths],
                signature=model.signature,
                input_example=model.input_example,
                pip_requirements=list(model.requirements),
                tags=dict(record.tags),
            )
            mlflow.log_metrics(_finite(record.metrics), model_id=info.model_id)
            self.client.set_tag(run_id, "model_uri", info.model_uri)
        return self.client.get_run(run_id)

    def _log_pictures(self, run_id: str, pictures: Path) -> None:
        """Log the pictures that the chart view lays side by side: it does not look into the artifacts."""
        for path in (pictures / f"{name}.png" for name in GRID):
            if path.is_file():
                with Image.open(path) as picture:
                    self.client.log_image(run_id, picture.convert("RGB"), key=f"{PICTURES}/{path.stem}", step=0)

    def log_artifacts_run(
        self, name: str, role: str, metrics: Mapping[str, float], params: Mapping[str, Any], artifacts: Path, note: str
    ) -> str:
        """A run without a model: figures, settings and a folder; its id."""
        run = self.client.create_run(self.experiment_id, run_name=name, tags={"role": role, NOTE: note})
        run_id = str(run.info.run_id)
        self._log(run_id, metrics, params)
        with quiet():
            self.client.log_artifacts(run_id, str(artifacts))
        self.client.set_terminated(run_id, "FINISHED")
        return run_id

    def _experiment(self) -> str:
        tags = {NOTE: GUIDE, **KIND, **views()}
        if existing := self.client.get_experiment_by_name(self.name):
            for key in tags.keys() - existing.tags.keys():  # a reviewer may have changed the others
                self.client.set_experiment_tag(existing.experiment_id, key, tags[key])
            return str(existing.experiment_id)
        path = sqlite_path(tracking_uri())
        # Beside the store, whatever the working directory is when it is used the next time.
        location = (path.absolute().parent / "mlruns" / self.name).as_uri() if path else None
        try:
            return str(self.client.create_experiment(self.name, artifact_location=location, tags=tags))
        except MlflowException:  # another process was faster
            if existing := self.client.get_experiment_by_name(self.name):
                return str(existing.experiment_id)
            raise

    def _trial_run(self, parent_id: str, trial: Trial, tags: Mapping[str, str]) -> Run:
        labels = {"mlflow.parentRunId": parent_id, "role": "trial", "trial": str(trial.number), "state": trial.state}
        return self.client.create_run(
            self.experiment_id,
            start_time=_milliseconds(trial.started),
            run_name=f"trial {trial.number:03d}",
            tags={**labels, **tags},
        )

    def _runs(self, filter_string: str) -> list[Run]:
        runs: list[Run] = []
        token: str | None = None
        while True:
            page = self.client.search_runs([self.experiment_id], filter_string, page_token=token)
            runs.extend(page)
            token = page.token
            if not token:
                return runs

    def _log(self, run_id: str, metrics: Mapping[str, float], params: Mapping[str, Any], at: int | None = None) -> None:
        at = int(time.time() * 1000) if at is None else at
        self._log_metrics(run_id, [Metric(key, value, at, 0) for key, value in _finite(metrics).items()])
        entries = [Param(key, _text(value)) for key, value in flat(params).items()]
        for first in range(0, len(entries), MOST_PARAMS):
            self.client.log_batch(run_id, params=entries[first : first + MOST_PARAMS])

    def _log_metrics(self, run_id: str, metrics: Sequence[Metric]) -> None:
        for first in range(0, len(metrics), MOST_METRICS):
            self.client.log_batch(run_id, metrics=metrics[first : first + MOST_METRICS])

    def tag(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])


def flat(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings with dotted names.

    >>> flat({"seed": 1, "features": {"dropped_groups": ["touch"]}})
    {'seed': 1, 'features.dropped_groups': ['touch']}
    """
    out: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            out |= flat(value, f"{prefix}{name}.")
        else:
            out[f"{prefix}{name}"] = value
    return out


def _text(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 1]}…"


def _keyed(table: pd.DataFrame) -> pd.DataFrame:
    """With the run's own name last: MLflow lays tables of runs side by side by their first column."""
    return table[sorted(table.columns, key=lambda name: name == "model")].reset_index(drop=True)


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    """Without NaN, for metrics that the rows do not define: stores disagree about it."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def _steps(curves: pd.DataFrame) -> list[Metric]:
    now = int(time.time() * 1000)
    rows = zip(curves["metric"], curves["epoch"].astype(int), curves["value"].astype(float), strict=True)
    return [Metric(str(name), value, now, epoch) for name, epoch, value in rows if math.isfinite(value)]


def _milliseconds(moment: datetime | None) -> int:
    return int((moment.timestamp() if moment else time.time()) * 1000)


def _dataset(rows: pd.DataFrame, name: str, fingerprint: str, source: str) -> Any:
    return from_pandas(
        rows.reset_index(drop=True), source=source, targets="label", name=name, digest=fingerprint[:36] or None
    )

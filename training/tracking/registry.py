"""Registered models: what a URI means, and the version of a model.

resolve("models:/online_retail_churn@champion")     # the version now, its run, its files on this machine
register("models:/m-0123456789abcdef", "online_retail_churn")
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model as MLmodel
from mlflow.tracking import MlflowClient

from features.errors import ConfigError, nearest, unknown_name
from training.config.experiment import Experiment
from training.data.provenance import resolved_experiment
from training.tracking.tracking import connect, quiet

Floats = npt.NDArray[np.float64]

CHAMPION: Literal["champion"] = "champion"
CHALLENGER: Literal["challenger"] = "challenger"
CHAMPION_COMPARISON = "comparison/with_champion.html"  # an artifact of the candidate's run
CHANGE = "change"  # among the figures of a decision: what would be different from the champion


@dataclass(frozen=True)
class ResolvedModel:
    """The model that a URI means at this moment.

    Attributes:
        uri: `models:/m-…`, which always means this very model.
        run_id: the run that made it.
        name: registered name, "" where it is not registered.
        version: of the registered model, "" likewise.
        aliases: of that version.
        folder: the scoring folder, on this machine.
        data_fingerprint: of the log that it was trained on.
        tags: of the run.
    """

    uri: str
    run_id: str
    name: str
    version: str
    aliases: tuple[str, ...]
    folder: Path
    data_fingerprint: str
    tags: Mapping[str, str]

    @property
    def trained_until_us(self) -> int:
        """µs since 1970 UTC, when the last label that it was fitted on closed."""
        return int(self.tags["trained_until_us"])


def resolve(uri: str, client: MlflowClient | None = None) -> ResolvedModel:
    """The model that a URI means now, its files fetched.

    Args:
        uri: `models:/m-…`, `models:/NAME@ALIAS`, `models:/NAME/VERSION`, `NAME@ALIAS`, `NAME/VERSION`, or a run's id.
        client: of the store; by default that of `training.tracking.tracking`.

    Raises:
        ConfigError: there is no such model, or it was not made by `journeylab train`.
    """
    client = client or connect()
    try:
        with quiet():
            return _resolved(uri, client)
    except MlflowException as error:
        raise ConfigError(
            f"There is no model {uri!r} in this store{_suggestion(uri, client)} "
            "`journeylab ui` shows what there is; MLFLOW_TRACKING_URI says which store is asked."
        ) from error


def _suggestion(uri: str, client: MlflowClient) -> str:
    """A registered name like the one in the URI, or the aliases and versions of that name."""
    name, mark, label = uri.removeprefix("models:/").partition("@" if "@" in uri else "/")
    with quiet():
        models = {model.name: model for model in client.search_registered_models()}
        if mark and name in models:
            aliases = sorted(models[name].aliases)
            close = nearest(label, aliases)
            existing = ", ".join(f"{name}@{alias}" for alias in aliases) or "no alias yet"
            return f"{f'; did you mean {name}@{close}?' if close else '.'} There is: {existing}."
        if mark and name != "m-":
            return f": {unknown_name('registered model', name, models)}." if models else ": nothing is registered yet."
    return f": it is no run and no model here. Registered are: {', '.join(sorted(models)) or 'none yet'}."


def fetched(run_id: str, artifact: str) -> Path | None:
    """A folder among a run's artifacts, on this machine; None where the run has none of that name."""
    connect()
    with quiet():
        try:
            return Path(download_artifacts(artifact_uri=f"runs:/{run_id}/{artifact}"))
        except (MlflowException, OSError):
            return None


def register(model_uri: str, name: str, client: MlflowClient | None = None) -> str:
    """Register a model, or find it registered; its version.

    Args:
        model_uri: `models:/m-…`.
        name: of the registered model, made where missing.
        client: of the store.
    """
    client = client or connect()
    model_id = model_uri.removeprefix("models:/")
    with quiet():
        _registered_model(name, client)
        for version in client.search_model_versions(f"name = '{name}'"):
            if version.source == model_uri or version.model_id == model_id:
                return str(version.version)
        run_id = client.get_logged_model(model_id).source_run_id
        created = client.create_model_version(name, source=model_uri, run_id=run_id, model_id=model_id)
    return str(created.version)


def _registered_model(name: str, client: MlflowClient) -> None:
    try:
        client.create_registered_model(name)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def experiment_of(model: ResolvedModel) -> Experiment:
    """The experiment that made a model, as its run recorded it."""
    folder = download_artifacts(artifact_uri=f"runs:/{model.run_id}/experiment")
    return resolved_experiment(Path(folder))


def _resolved(uri: str, client: MlflowClient) -> ResolvedModel:
    version = _named_version(uri, client)
    if version is not None:
        model_id = version.model_id or str(version.source).removeprefix("models:/")
    elif uri.startswith("models:/"):
        model_id = uri.removeprefix("models:/")
    else:
        model_id = _tag(client.get_run(uri.removeprefix("runs:/")), "model_uri").removeprefix("models:/")
    run_id = str(client.get_logged_model(model_id).source_run_id)
    run = client.get_run(run_id)
    _tag(run, "train_id")
    return ResolvedModel(
        uri=f"models:/{model_id}",
        run_id=run_id,
        name=version.name if version else "",
        version=str(version.version) if version else "",
        aliases=tuple(version.aliases) if version else (),
        folder=_scoring_folder(f"models:/{model_id}"),
        data_fingerprint=_tag(run, "data_fingerprint"),
        tags=dict(run.data.tags),
    )


def _named_version(uri: str, client: MlflowClient) -> ModelVersion | None:
    """The version that the URI names, None where it names a model or a run."""
    text = uri.removeprefix("models:/")
    name, at, alias = text.partition("@")
    if at:
        return client.get_model_version_by_alias(name, alias)
    name, slash, version = text.partition("/")
    return client.get_model_version(name, version) if slash and not uri.startswith("runs:/") else None


def _tag(run: Run, key: str) -> str:
    if key not in run.data.tags:
        raise ConfigError(
            f"Run {run.info.run_id} has no final model of `journeylab train` (no tag {key!r}): "
            "give the URI of a model, or a run of role model or baseline."
        )
    return str(run.data.tags[key])


def _scoring_folder(uri: str) -> Path:
    """The folder inside the logged model, as its MLmodel file names it."""
    folder = Path(download_artifacts(artifact_uri=uri))
    return folder / str(MLmodel.load(str(folder)).flavors["python_function"]["data"])

"""Registered models: what an URI means, and who becomes champion.

    resolve("models:/online_retail_churn@champion")     # the version now, its run, its files on this machine
    promote("models:/m-0123456789abcdef")               # registers it; moves `champion` if it has earned it

`promote` compares on the most recent closed rows that neither model was fitted or tuned on
(`training.tracking.promotion` has the rule). The rows come from the candidate's own experiment, as its run recorded it,
read anew: where the log has grown since, cutoffs whose label windows have closed in the meantime count too.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from mlflow.artifacts import download_artifacts
from mlflow.entities import Run
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model as MLmodel
from mlflow.tracking import MlflowClient
from rich.console import Console

from features.errors import ConfigError, DataError, nearest, unknown_name
from features.journeys.journeys import Journeys, Snapshots
from features.journeys.loading import load_journeys
from features.timestamps import DAY_US, microseconds
from models.scoring.scorer import Scorer
from training.config.experiment import Experiment
from training.data.provenance import resolved_experiment
from training.progress import say, stage
from training.reports.model_card import CARD_FILE, short_form
from training.tracking.promotion import Decision, change, change_sentence, comparison_rows, decide, decide_by_stability
from training.tracking.tracking import connect, quiet

Floats = npt.NDArray[np.float64]

CHAMPION: Literal["champion"] = "champion"
CHALLENGER: Literal["challenger"] = "challenger"
CHAMPION_COMPARISON = "comparison/with_champion.html"  # an artifact of the candidate's run
CHANGE = "change"  # among the figures of a decision: what would be different from the champion


@dataclass(frozen=True)
class ResolvedModel:
    """What an URI means at this moment.

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


@dataclass(frozen=True)
class Promotion:
    """What `promote` did.

    Attributes:
        name: of the registered model.
        version: the candidate's.
        alias: "champion" or "challenger".
        reason: why, with figures.
        model_uri: `models:/NAME@ALIAS`.
        run_id: the candidate's.
        rows: which rows decided.
    """

    name: str
    version: str
    alias: Literal["champion", "challenger"]
    reason: str
    model_uri: str
    run_id: str
    rows: str

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self)


def resolve(uri: str, client: MlflowClient | None = None) -> ResolvedModel:
    """The model that an URI means now, its files fetched.

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
            f"There is no model {uri!r} in this store{_meant(uri, client)} "
            "`journeylab ui` shows what there is; MLFLOW_TRACKING_URI says which store is asked."
        ) from error


def _meant(uri: str, client: MlflowClient) -> str:
    """What was probably meant: a registered name like it, or the aliases and versions of that name."""
    name, mark, rest = uri.removeprefix("models:/").partition("@" if "@" in uri else "/")
    with quiet():
        models = {model.name: model for model in client.search_registered_models()}
        if mark and name in models:
            aliases = sorted(models[name].aliases)
            close = nearest(rest, aliases)
            there = ", ".join(f"{name}@{alias}" for alias in aliases) or "no alias yet"
            return f"{f'; did you mean {name}@{close}?' if close else '.'} There is: {there}."
        if mark and name != "m-":
            return f": {unknown_name('registered model', name, models)}." if models else ": nothing is registered yet."
    known = ", ".join(sorted(models)) or "none yet"
    return f": it is no run and no model here. Registered are: {known}."


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
        made = client.create_model_version(name, source=model_uri, run_id=run_id, model_id=model_id)
    return str(made.version)


def promote(model: str, *, name: str | None = None, progress: Console | None = None) -> Promotion:
    """Register a model and give its version the alias that it has earned.

    Args:
        model: as `resolve` takes it.
        name: of the registered model; by default the experiment's.
        progress: where to show what is going on.

    Raises:
        ConfigError: there is no such model.
        DataError: the events of its experiment cannot be read any more.
    """
    client = connect()
    candidate = resolve(model, client)
    name = name or candidate.tags["task"]
    version = register(candidate.uri, name, client)
    champion = _champion(name, client)
    if champion is not None and champion.uri == candidate.uri:
        return _promotion(candidate, name, version, Decision(CHAMPION, "It is the champion already."), "")
    decision, rows = _compare(candidate, champion, client, progress)
    with quiet():
        moved = _move(client, name, version, champion, decision)
        _write_reason(client, name, version, moved, rows, champion)
    return _promotion(candidate, name, version, moved, rows)


def _promotion(candidate: ResolvedModel, name: str, version: str, decision: Decision, rows: str) -> Promotion:
    uri = f"models:/{name}@{decision.alias}"
    return Promotion(name, version, decision.alias, decision.reason, uri, candidate.run_id, rows)


def _compare(
    candidate: ResolvedModel, champion: ResolvedModel | None, client: MlflowClient, progress: Console | None
) -> tuple[Decision, str]:
    """The decision, and which rows it is on."""
    if candidate.tags.get("judged_by") == "stability":
        figures = [client.get_run(each.run_id).data.metrics for each in (candidate, champion) if each is not None]
        return decide_by_stability(figures[0], figures[1] if champion is not None else None), ""
    experiment = experiment_of(candidate)
    with stage(progress, f"Reading {experiment.events.path}"):
        journeys = load_journeys(experiment.events)
    rivals = [champion] if champion is not None else _baselines(candidate, client)
    try:
        snapshots, y, said = comparison_snapshots(experiment, journeys, [candidate, *rivals])
    except DataError as error:
        return Decision(CHALLENGER, str(error)), ""
    say(progress, f"  {said}")
    with stage(progress, f"Scoring {len(snapshots):,} rows with {1 + len(rivals)} models"):
        scores = {rival.uri: _scores(rival, snapshots) for rival in (candidate, *rivals)}
    baselines = {} if champion is not None else {rival.tags["kind"]: scores[rival.uri] for rival in rivals}
    old = scores[champion.uri] if champion is not None else None
    customers = snapshots.customer_ids
    decision = decide(
        y, scores[candidate.uri], old, baselines, customers, task=type(experiment.task), seed=experiment.seed
    )
    if champion is not None and old is not None:
        decision = replace(decision, figures={**decision.figures, CHANGE: change(scores[candidate.uri], old)})
        same = (snapshots, y, scores[candidate.uri], old, said, experiment.seed)
        with stage(progress, f"Laying it beside the champion: {CHAMPION_COMPARISON} of its run"):
            _log_beside(candidate, champion, same, client)
    return decision, said


def _log_beside(
    candidate: ResolvedModel,
    champion: ResolvedModel,
    same: tuple[Snapshots, npt.NDArray[np.int8], Floats, Floats, str, int],
    client: MlflowClient,
) -> None:
    """Candidate and champion side by side on one page, among the artifacts of the candidate's run."""
    from training.review.compare import SameRows, side_by_side, write_comparison  # it imports this module

    names = candidate.uri, f"{candidate.tags['task']}@{CHAMPION}"
    found = side_by_side(names, (candidate, champion), SameRows(*same), client, n_boot=1000)
    with tempfile.TemporaryDirectory() as folder, quiet():
        page = write_comparison(found, Path(folder) / Path(CHAMPION_COMPARISON).name)
        client.log_artifact(candidate.run_id, str(page), str(Path(CHAMPION_COMPARISON).parent))


def comparison_snapshots(
    experiment: Experiment, journeys: Journeys, compared: list[ResolvedModel]
) -> tuple[Snapshots, npt.NDArray[np.int8], str]:
    """The most recent closed rows that none of the models has seen, their labels, and which they are in a sentence.

    Raises:
        DataError: there is no such row.
    """
    table = experiment.build_labels(journeys)
    horizon_us = round(experiment.task.horizon_days * DAY_US)
    chosen = comparison_rows(
        microseconds(table["cutoff"]),
        horizon_us,
        observed_until_us=experiment.task.period(journeys.start_us, journeys.end_us).end_us,
        trained_until_us=[model.trained_until_us for model in compared],
    )
    rows = table.iloc[chosen.rows].reset_index(drop=True)
    return journeys.at_ids(rows), rows["label"].to_numpy(np.int8), chosen.sentence


def _scores(model: ResolvedModel, snapshots: Snapshots) -> Floats:
    return Scorer.load(model.folder).probabilities(snapshots)


def _baselines(candidate: ResolvedModel, client: MlflowClient) -> list[ResolvedModel]:
    """The baselines of the candidate's own training, without the candidate."""
    experiment_id = client.get_run(candidate.run_id).info.experiment_id
    wanted = f"tags.train_id = '{candidate.tags['train_id']}' and tags.role = 'baseline'"
    runs = [run for run in client.search_runs([experiment_id], wanted) if run.info.run_id != candidate.run_id]
    return [resolve(run.data.tags["model_uri"], client) for run in runs if "model_uri" in run.data.tags]


def _champion(name: str, client: MlflowClient) -> ResolvedModel | None:
    found = _version_of(client, name, CHAMPION)
    return resolve(f"models:/{name}/{found.version}", client) if found else None


def _version_of(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException:
        return None


def _move(
    client: MlflowClient, name: str, version: str, champion: ResolvedModel | None, decision: Decision
) -> Decision:
    """Set the alias; where another process has made another champion meanwhile, the comparison does not hold."""
    now = _version_of(client, name, CHAMPION)
    if decision.alias == CHAMPION and (str(now.version) if now else "") != (champion.version if champion else ""):
        decision = Decision(CHALLENGER, "Another champion was made during the comparison: promote again.")
    client.set_registered_model_alias(name, decision.alias, version)
    challenger = _version_of(client, name, CHALLENGER)
    if decision.alias == CHAMPION and challenger is not None and str(challenger.version) == version:
        client.delete_registered_model_alias(name, CHALLENGER)
    return decision


def _write_reason(
    client: MlflowClient, name: str, version: str, decision: Decision, rows: str, champion: ResolvedModel | None
) -> None:
    against = f" It was compared with version {champion.version}." if champion is not None else ""
    said = f"{decision.alias}: {decision.reason} {rows}{against}".strip()
    said += f" {change_sentence(decision.figures[CHANGE])}" if CHANGE in decision.figures else ""
    card = fetched(str(client.get_model_version(name, version).run_id), CARD_FILE)
    if card is not None:
        said += f"\n\n{short_form(card.read_text(encoding='utf-8'))}"
    client.update_model_version(name, version, said)
    for key, value in {
        "decision": decision.alias,
        "reason": decision.reason,
        "rows": rows,
        "compared_with": champion.version if champion is not None else "baselines",
        "figures": json.dumps(decision.figures),
    }.items():
        client.set_model_version_tag(name, version, key, value)


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
    version = _asked_version(uri, client)
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


def _asked_version(uri: str, client: MlflowClient) -> ModelVersion | None:
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

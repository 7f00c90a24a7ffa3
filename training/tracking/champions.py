"""Promotion: a model is registered, and its version gets the alias that it has earned.

    promote("models:/m-0123456789abcdef")               # registers it; moves `champion` if it has earned it

`promote` compares on the most recent closed rows that neither model was fitted or tuned on
(`training.tracking.promotion` has the rule). The rows come from the candidate's own experiment, as its run recorded it,
read anew: where the log has grown since, cutoffs whose label windows have closed in the meantime count too.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from rich.console import Console

from features.errors import DataError
from features.journeys.loading import load_journeys
from training.progress import say, stage
from training.reports.model_card import CARD_FILE, short_form
from training.tracking.comparison import ScoredRows, score_rows, side_by_side, write_comparison
from training.tracking.promotion import Decision, change, change_sentence, decide, decide_by_stability
from training.tracking.registry import CHALLENGER, CHAMPION, ResolvedModel, experiment_of, fetched, register, resolve
from training.tracking.tracking import connect, quiet

CHAMPION_COMPARISON = "comparison/with_champion.html"  # an artifact of the candidate's run
CHANGE = "change"  # among the figures of a decision: what would be different from the champion


@dataclass(frozen=True)
class Promotion:
    """The outcome of `promote`.

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


def promote(model: str, *, name: str | None = None, progress: Console | None = None) -> Promotion:
    """Register a model and give its version the alias that it has earned.

    Args:
        model: as `training.tracking.registry.resolve` takes it.
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
    now = _version_of(client, name, CHAMPION)
    champion = resolve(f"models:/{name}/{now.version}", client) if now else None
    if champion is not None and champion.uri == candidate.uri:
        decision, rows = Decision(CHAMPION, "It is the champion already."), ""
    else:
        decision, rows = _compare(candidate, champion, client, progress)
        with quiet():
            decision = _move_alias(client, name, version, champion, decision)
            _write_reason(client, name, version, decision, rows, champion)
    uri = f"models:/{name}@{decision.alias}"
    return Promotion(name, version, decision.alias, decision.reason, uri, candidate.run_id, rows)


def _compare(
    candidate: ResolvedModel, champion: ResolvedModel | None, client: MlflowClient, progress: Console | None
) -> tuple[Decision, str]:
    """The decision, and which rows it is on."""
    if candidate.tags.get("judged_by") == "stability":
        metrics = [client.get_run(each.run_id).data.metrics for each in (candidate, champion) if each is not None]
        return decide_by_stability(metrics[0], metrics[1] if champion is not None else None), ""
    experiment = experiment_of(candidate)
    with stage(progress, f"Reading {experiment.events.path}"):
        journeys = load_journeys(experiment.events)
    rivals = [champion] if champion is not None else _baselines(candidate, client)
    try:
        rows = score_rows(experiment, journeys, [candidate, *rivals], progress)
    except DataError as error:
        return Decision(CHALLENGER, str(error)), ""
    say(progress, f"  {rows.sentence}")
    new, *others = rows.scores
    old = others[0] if champion is not None else None
    baselines = {} if champion is not None else {rival.tags["kind"]: p for rival, p in zip(rivals, others, strict=True)}
    decision = decide(
        rows.y, new, old, baselines, rows.snapshots.customer_ids, task=type(experiment.task), seed=experiment.seed
    )
    if champion is not None and old is not None:
        decision = replace(decision, figures={**decision.figures, CHANGE: change(new, old)})
        with stage(progress, f"Laying it beside the champion: {CHAMPION_COMPARISON} of its run"):
            _log_comparison(candidate, champion, rows, client)
    return decision, rows.sentence


def _log_comparison(candidate: ResolvedModel, champion: ResolvedModel, rows: ScoredRows, client: MlflowClient) -> None:
    """Candidate and champion side by side on one page, among the artifacts of the candidate's run."""
    names = candidate.uri, f"{candidate.tags['task']}@{CHAMPION}"
    comparison = side_by_side(names, (candidate, champion), rows, client, n_boot=1000)
    with tempfile.TemporaryDirectory() as folder, quiet():
        page = write_comparison(comparison, Path(folder) / Path(CHAMPION_COMPARISON).name)
        client.log_artifact(candidate.run_id, str(page), str(Path(CHAMPION_COMPARISON).parent))


def _baselines(candidate: ResolvedModel, client: MlflowClient) -> list[ResolvedModel]:
    """The baselines of the candidate's own training, without the candidate."""
    experiment_id = client.get_run(candidate.run_id).info.experiment_id
    query = f"tags.train_id = '{candidate.tags['train_id']}' and tags.role = 'baseline'"
    runs = [run for run in client.search_runs([experiment_id], query) if run.info.run_id != candidate.run_id]
    return [resolve(run.data.tags["model_uri"], client) for run in runs if "model_uri" in run.data.tags]


def _version_of(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException:
        return None


def _move_alias(
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
    """Write why it got its alias, and the short model card, as the version's description and tags."""
    against = f" It was compared with version {champion.version}." if champion is not None else ""
    text = f"{decision.alias}: {decision.reason} {rows}{against}".strip()
    text += f" {change_sentence(decision.figures[CHANGE])}" if CHANGE in decision.figures else ""
    card = fetched(str(client.get_model_version(name, version).run_id), CARD_FILE)
    if card is not None:
        text += f"\n\n{short_form(card.read_text(encoding='utf-8'))}"
    client.update_model_version(name, version, text)
    for key, value in {
        "decision": decision.alias,
        "reason": decision.reason,
        "rows": rows,
        "compared_with": champion.version if champion is not None else "baselines",
        "figures": json.dumps(decision.figures),
    }.items():
        client.set_model_version_tag(name, version, key, value)

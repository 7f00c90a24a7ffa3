"""The saved views of the run list: MLflow takes them, their filters find runs, their columns are there."""

from __future__ import annotations

import json
from pathlib import Path

from mlflow.entities import Run

from training.fitting.train import TrainResult
from training.tracking.champions import CHAMPION_COMPARISON, promote
from training.tracking.saved_views import KIND, SHARED_VIEW, VIEWS, View, views
from training.tracking.tracking import Tracker

Trained = tuple[Path, TrainResult]
COMPANIONS = {"sequence"}  # needs ablations for more than the models themselves
OTHER_COMMANDS = {"segments", "maps"}  # runs of `journeylab segment` and `journeylab map`


def found(view: View) -> list[Run]:
    return Tracker("small_churn")._runs(view.filter)


def test_views_keep_a_reviewers_changes(trained: Trained) -> None:
    tracker = Tracker("small_churn")
    key = f"{SHARED_VIEW}best"
    tags = tracker.client.get_experiment(tracker.experiment_id).tags
    assert tags.items() >= (views() | KIND).items()
    saved = json.loads(tags[key])
    assert {type(saved["name"]), type(saved["state"])} == {str}
    assert json.loads(saved["state"])["orderByKey"] == "metrics.`validation_log_loss`"
    tracker.client.set_experiment_tag(tracker.experiment_id, key, "of my own")
    assert Tracker("small_churn").client.get_experiment(tracker.experiment_id).tags[key] == "of my own"


def test_view_filters_and_columns_exist(trained: Trained) -> None:
    for view in VIEWS:
        runs = found(view)
        assert bool(runs) == (view.id not in OTHER_COMMANDS), view.id
        metrics = {name for run in runs for name in run.data.metrics}
        tags = {name for run in runs for name in run.data.tags}
        if runs:
            assert {*view.metrics, view.order} - {""} <= metrics, view.id
            assert set(view.tags) <= tags, view.id


def test_search_view_has_no_models(trained: Trained) -> None:
    roles = {view.id: {run.data.tags["role"] for run in found(view)} for view in VIEWS}
    assert roles["search"] == {"search", "trial"}
    assert roles["best"] == {"model", "baseline"}
    assert roles["sequence"] == {"model"}


def test_views_fit_into_tags() -> None:
    assert all(len(value) <= 5_000 for value in views().values())
    assert len({view.id for view in VIEWS}) == len({view.name for view in VIEWS}) == len(VIEWS)
    assert list(views()) == [f"{SHARED_VIEW}{view.id}" for view in VIEWS]


def test_run_holds_the_comparison_with_the_champion(trained: Trained) -> None:
    _, result = trained
    promote(result.models["gbdt"]["uri"])
    client = Tracker("small_churn").client
    client.set_registered_model_alias("small_churn", "champion", "1")
    promote(result.models["rfm"]["uri"])
    files = {file.path for file in client.list_artifacts(result.models["rfm"]["run_id"], "comparison")}
    assert files == {CHAMPION_COMPARISON}

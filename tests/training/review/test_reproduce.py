"""A run made again from what MLflow holds: the same digits, or one sentence on why not."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pandas as pd
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from features.errors import ConfigError, DataError
from features.journeys.loading import load_journeys
from features.simulation.simulator import simulate
from training.config.experiment import load_experiment
from training.fitting.train import TrainResult, train
from training.review.reproduce import reproduce
from training.segmentation.large_logs import segment_log
from training.tracking.champions import promote
from training.tracking.tracking import connect

Trained = tuple[Path, TrainResult]
THREADS_THEN = os.environ.get("OMP_NUM_THREADS", "")  # when the fixture trains
QUICK_GRU = (
    'models.settings.gru={hidden=16,objective="next",pretraining_epochs=1,epochs=1,dropout=0.1,learning_rate=0.002,'
    "weight_decay=0.01,head=0,head_dropout=0.1}"
)


@pytest.mark.parametrize("name", ["gbdt", "rfm", "recency", "base_rate"])
def test_reproduction_has_the_same_digits(trained: Trained, name: str) -> None:
    found = reproduce(trained[1].models[name]["run_id"])
    assert found.same, found.verdict
    assert (found.metrics["recorded"] == found.metrics["again"]).all()
    recorded = {key for key in connect().get_run(found.run_id).data.metrics if key.startswith("test_")}
    assert set(found.metrics["metric"]) == recorded
    assert (found.predictions, found.sample) == (0.0, 0.0)


def test_report_has_both_numbers(trained: Trained) -> None:
    run_id = trained[1].models["gbdt"]["run_id"]
    client = connect()
    was = client.get_run(run_id).data.metrics["test_auroc"]
    client.log_metric(run_id, "test_auroc", was + 1e-12)
    found = reproduce(run_id)
    assert not found.same
    assert found.verdict.startswith(f"Not the same: 1 of {len(found.metrics)} metrics differ, most of all test_auroc:")
    done = CliRunner().invoke(app, ["reproduce", run_id, "--json"])
    assert done.exit_code == 3, done.output
    told = json.loads(done.stdout.splitlines()[-1])
    assert [row["metric"] for row in told["differ"]] == ["test_auroc"]


def test_the_command_ends_with_status_0_where_all_is_the_same(trained: Trained) -> None:
    done = CliRunner().invoke(app, ["reproduce", trained[1].models["recency"]["run_id"]])
    assert done.exit_code == 0, done.output
    assert "The same to the last digit" in done.stdout


def test_changed_log_is_a_clear_error(trained: Trained, tmp_path: Path) -> None:
    folder, result = trained
    run_id = result.models["recency"]["run_id"]
    events = pd.read_parquet(folder / "events.parquet")
    events.iloc[1:].to_parquet(tmp_path / "changed.parquet")
    with pytest.raises(DataError, match="has changed since"):
        reproduce(run_id, events=tmp_path / "changed.parquet")
    with pytest.raises(DataError, match="its log cannot be read"):
        reproduce(run_id, events=tmp_path / "gone.parquet")
    shutil.copy(folder / "events.parquet", tmp_path / "moved.parquet")
    assert reproduce(run_id, events=tmp_path / "moved.parquet").same


def test_report_lists_code_and_packages(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    run_id = trained[1].models["recency"]["run_id"]
    connect().set_tag(run_id, "commit", "0123456789abcdef")
    monkeypatch.setattr("training.review.reproduce._version", lambda name: "0.0.1" if name == "lightgbm" else "")
    told = " ".join(reproduce(run_id).circumstances)
    assert "the run was made with 0123456789ab." in told
    assert "lightgbm: 0.0.1 now, " in told


@pytest.mark.parametrize("threads", ["1", "2"])
def test_threads_change_no_digit_of_lightgbm(trained: Trained, monkeypatch: pytest.MonkeyPatch, threads: str) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    found = reproduce(trained[1].models["gbdt"]["run_id"])
    assert found.same, found.verdict
    told = " ".join(found.circumstances)
    assert (f"OMP_NUM_THREADS: {threads} now" in told) == (threads != THREADS_THEN)


def test_a_figure_that_is_measured_no_more_is_not_the_same(trained: Trained) -> None:
    run_id = trained[1].models["recency"]["run_id"]
    connect().log_metric(run_id, "test_something_else", 1.0)
    found = reproduce(run_id)
    assert not found.same
    assert "1 of " in found.verdict
    assert "test_something_else: 1.0 then, nan now" in found.verdict


def test_a_label_table_is_for_tasks_that_have_one(trained: Trained, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--labels .*: the task is churn, it has no label table of its own"):
        reproduce(trained[1].models["recency"]["run_id"], labels=tmp_path / "labels.csv")


def test_a_label_table_may_move_and_may_not_change(trained: Trained, tmp_path: Path) -> None:
    folder, _ = trained
    experiment = load_experiment(folder / "experiment.toml")
    table = experiment.build_labels(load_journeys(experiment.events))
    table.to_csv(tmp_path / "labels.csv", index=False)
    own = [f'task={{kind="labels",path="{tmp_path / "labels.csv"}",horizon_days=28}}', "name=own_labels"]
    result = train(load_experiment(folder / "experiment.toml", own), runs=tmp_path / "runs")
    run_id = result.models["recency"]["run_id"]
    (tmp_path / "labels.csv").rename(tmp_path / "moved.csv")
    with pytest.raises(DataError, match=r"its labels cannot be built: .* say where it is: --labels PATH"):
        reproduce(run_id)
    assert reproduce(run_id, labels=tmp_path / "moved.csv").same
    table.assign(label=1 - table["label"]).to_csv(tmp_path / "labels.csv", index=False)
    with pytest.raises(DataError, match="the log is the same, but its labels are not"):
        reproduce(run_id)


def test_only_final_models_are_reproduced(trained: Trained) -> None:
    search = connect().get_run(trained[1].models["gbdt"]["run_id"]).data.tags["search_run_id"]
    with pytest.raises(ConfigError, match="no final model"):
        reproduce(search)
    with pytest.raises(ConfigError, match="There is no model"):
        reproduce("nobody@champion")


@pytest.mark.slow
def test_sequence_models_their_twins_and_the_blend_give_the_same_digits(
    small_training: Trained, store: Path, tmp_path: Path
) -> None:
    simulate(n_customers=250, days=260, seed=3).save(tmp_path)
    shutil.copy(small_training[0] / "experiment.toml", tmp_path)
    asked = ['models.which=["gbdt","gru"]', QUICK_GRU, "search.trials=1"]
    result = train(load_experiment(tmp_path / "experiment.toml", asked), runs=tmp_path / "runs")
    assert {"gru", "gru_shuffled", "untrained_probe", "embedding_gbdt", "blend"} <= set(result.models)
    told = {name: reproduce(model["run_id"]).verdict for name, model in result.models.items()}
    assert {name: said for name, said in told.items() if not said.startswith("The same to the last digit")} == {}


@pytest.mark.slow
def test_segments_are_reproduced(small_training: Trained, store: Path, tmp_path: Path) -> None:
    asked = ['segments.which=["found","rfm"]', "segments.found.segments=3"]
    experiment = load_experiment(small_training[0] / "experiment.toml", asked)
    first = segment_log(experiment, runs=tmp_path / "runs")
    assert reproduce(first.run_id).same
    promote(first.model_uri)
    second = segment_log(experiment, runs=tmp_path / "runs")
    assert second.run_id != first.run_id
    assert reproduce(second.run_id).same

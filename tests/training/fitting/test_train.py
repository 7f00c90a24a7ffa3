"""A whole training: what comes back, what MLflow holds, and that it goes on after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.entities import Run

from features.errors import DataError
from models.catalogue import BASELINES
from training.config.experiment import load_experiment
from training.evaluation.metrics import METRICS
from training.fitting.train import TrainResult, train
from training.tracking.tracking import NOTE, Tracker

pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")


def active_runs(name: str = "small_churn") -> list[Run]:
    return Tracker(name)._runs("")


def artifacts(run_id: str, path: str = "") -> set[str]:
    found: set[str] = set()
    for file in Tracker("small_churn").client.list_artifacts(run_id, path):
        found |= artifacts(run_id, file.path) if file.is_dir else {file.path}
    return found


def test_all_models_have_all_metrics(trained: tuple[Path, TrainResult]) -> None:
    _, result = trained
    assert set(result.models) == {"gbdt", *BASELINES}
    for told in result.models.values():
        for split in ("validation", "test"):
            assert {"auroc", "auroc_low", "auroc_high", "brier", "log_loss", "n_rows"} <= set(told["metrics"][split])
            assert set(METRICS) <= set(told["metrics"][split])
    best = min(result.models, key=lambda name: result.models[name]["metrics"]["validation"]["log_loss"])
    assert (result.best, result.model_uri) == (best, result.models[best]["uri"])
    assert result.to_dict()["run_id"] == result.models[best]["run_id"]


def test_mlflow_has_one_run_each(
    trained: tuple[Path, TrainResult],
) -> None:
    _, result = trained
    runs = active_runs()
    roles = sorted(run.data.tags["role"] for run in runs)
    assert roles == ["baseline"] * 3 + ["model", "search", "trial", "trial"]
    assert {run.info.status for run in runs} == {"FINISHED"}
    [search] = [run for run in runs if run.data.tags["role"] == "search"]
    trials = [run for run in runs if run.data.tags["role"] == "trial"]
    assert {run.data.tags["mlflow.parentRunId"] for run in trials} == {search.info.run_id}
    for run in runs:
        tags = run.data.tags
        assert tags["train_id"] == result.train_id
        assert {"data_fingerprint", "commit", "trained_until", "task", "kind"} <= set(tags)
        assert "validation_auroc" in run.data.metrics


def test_run_describes_its_origin(trained: tuple[Path, TrainResult]) -> None:
    folder, result = trained
    run = Tracker("small_churn").client.get_run(result.models["gbdt"]["run_id"])
    files = artifacts(run.info.run_id)
    assert {
        "experiment/experiment.toml", "experiment/resolved.json", "environment/packages.txt",
        "environment/machine.json", "features.csv", "predictions/validation.csv", "predictions/test.csv",
        "curves/roc.csv", "curves/pr.csv", "curves/lift.csv", "curves/calibration.csv",
        "pictures/roc.png", "pictures/pr.png", "pictures/calibration.png", "pictures/lift.png", "pictures/scores.png",
        "pictures/importance.png", "pictures/score_over_time.png",
    } <= files  # fmt: skip
    note = run.data.tags[NOTE]
    assert "| auroc |" in note
    assert "Held out:" in note
    assert "base rate" in note
    assert str(folder / "events.parquet") in note
    datasets = {tag.value: put.dataset.name for put in run.inputs.dataset_inputs for tag in put.tags}
    assert datasets == {"train": "small_churn train", "test": "small_churn test"}
    meanings = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{run.info.run_id}/features.csv"))
    assert meanings["meaning"].str.len().min() > 0
    assert meanings["importance"].sum() == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["gbdt", "rfm"])
def test_the_logged_model_gives_the_recorded_numbers_for_raw_events(
    trained: tuple[Path, TrainResult], name: str
) -> None:
    folder, result = trained
    uri, run_id = result.models[name]["uri"], result.models[name]["run_id"]
    files = Path(mlflow.artifacts.download_artifacts(uri))
    assert not [file for file in files.rglob("*") if "pkl" in file.suffix or "pickle" in file.name]
    assert (files / "code" / "models" / "pyfunc.py").is_file()
    recorded = pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{run_id}/predictions/test.csv"))
    events = pd.read_parquet(folder / "events.parquet")
    events = events[events["customer_id"].isin(recorded["customer_id"].head(20))]
    asked = recorded.head(20)[["customer_id", "cutoff"]]
    answer = mlflow.pyfunc.load_model(uri).predict(events.merge(asked, on="customer_id"))
    both = answer.merge(recorded, on="customer_id", suffixes=("", "_recorded"))
    assert len(both) == 20
    assert (both["probability"] - both["probability_recorded"]).abs().max() < 1e-9


def test_metrics_are_linked_to_the_model(trained: tuple[Path, TrainResult]) -> None:
    _, result = trained
    model = Tracker("small_churn").client.get_logged_model(result.model_uri.removeprefix("models:/"))
    linked = {metric.key: metric.value for metric in model.metrics}
    assert linked["test_auroc"] == result.models[result.best]["metrics"]["test"]["auroc"]
    assert model.tags["task"] == "small_churn"


def test_an_interrupted_training_goes_on_and_gives_the_same_numbers(
    small_training: tuple[Path, TrainResult], store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, first = small_training
    experiment = load_experiment(folder / "experiment.toml")
    log_final, calls = Tracker.log_final, []

    def interrupted(self: Tracker, *arguments: Any) -> Run:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return log_final(self, *arguments)

    monkeypatch.setattr(Tracker, "log_final", interrupted)
    with pytest.raises(KeyboardInterrupt):
        train(experiment, runs=tmp_path / "runs")
    again = train(experiment, runs=tmp_path / "runs")
    assert again.train_id == first.train_id
    assert len(calls) == 5
    assert (
        sorted(run.data.tags["role"] for run in active_runs()) == ["baseline"] * 3 + ["model", "search"] + ["trial"] * 2
    )
    for name, told in first.models.items():
        assert again.models[name]["metrics"] == told["metrics"]


def test_finished_training_starts_anew(trained: tuple[Path, TrainResult]) -> None:
    from training.fitting.train import _folder

    folder, result = trained
    fingerprint, number = result.train_id.split("-")
    assert _folder(folder / "runs" / "small_churn", fingerprint).name == f"{fingerprint}-{int(number) + 1}"


def test_too_little_data_is_an_error(small_training: tuple[Path, TrainResult], store: Path, tmp_path: Path) -> None:
    folder, _ = small_training
    experiment = load_experiment(folder / "experiment.toml", ["allow_small=false", "min_class_count=100000"])
    with pytest.raises(DataError, match="Too little data"):
        train(experiment, runs=tmp_path / "runs")

"""A kind of task that only this file knows goes through labels, folds, features, metrics, promotion, card and draft."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from experiment_files import write_experiment
from features.errors import ConfigError
from features.journeys.event_log import LocalParts, facts_of, part_of, slices
from features.journeys.journeys import Snapshots
from features.labels.kinds import KINDS
from features.labels.plan import plan_labels
from features.labels.task import DraftLine, DraftLog, EventTask, Flags, Metric, PromotionRule, TaskWords, Values
from features.labels.windows import journey_ends
from features.simulation.simulator import simulate
from features.timestamps import days_us
from training.config.experiment import Experiment, load_experiment
from training.data.landing import land
from training.data.provenance import run_note, run_tags
from training.data.task_data import TaskData, read_task_data
from training.drafting.drafting import draft
from training.evaluation.families import evaluate_answers
from training.tracking.promotion import decide


class EventCountTask(EventTask):
    """How many events a customer has in the horizon.

    Attributes:
        kind: of task.
        horizon_days: the label looks this far from the cutoff on.
        observed_until: until when the log was watched, if longer than its last event.
        cutoffs: when.
    """

    kind: Literal["event_count"]

    binary: ClassVar[bool] = False
    answers: ClassVar[tuple[str, ...]] = ("expected_value",)
    metric_family: ClassVar[str] = "amounts"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("rmse", "RMSE", higher_is_better=False), Metric("mae", "MAE", higher_is_better=False),
    )  # fmt: skip
    promotion: ClassVar[PromotionRule] = PromotionRule("rmse", margin=0.01, search_metric="rmse")
    outcome: ClassVar[str] = "events expected"

    def candidates(self, snapshots: Snapshots) -> Flags:
        return snapshots.stop > snapshots.start

    def labels(self, snapshots: Snapshots, end_us: int) -> Values:
        t, until = snapshots.journeys.t, snapshots.cutoff + days_us(self.horizon_days)
        windows = zip(snapshots.stop, journey_ends(snapshots), until, strict=True)
        return np.array([np.searchsorted(t[stop:end], edge) for stop, end, edge in windows], np.float64)

    def words(self) -> TaskWords:
        return TaskWords(audience="Everybody with an event.", label="Events.", answer="A number of events.")

    @classmethod
    def draft(cls, log: DraftLog) -> tuple[DraftLine, ...]:
        return (DraftLine("horizon_days", log.horizon_days(), "? the days after the cutoff"),)


@pytest.fixture(autouse=True)
def with_event_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(KINDS, "event_count", EventCountTask)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("counts")
    simulate(n_customers=300, days=260, seed=5).save(folder)
    return folder


@pytest.fixture
def experiment(folder: Path) -> Experiment:
    file = write_experiment(folder, name="counts", file="counts.toml")
    text = file.read_text().replace("active_days = 60\n", "").replace('activity = ["purchase"]\n', "")
    file.write_text(text.replace('kind = "churn"', 'kind = "event_count"'))
    return load_experiment(file)


@pytest.fixture
def data(experiment: Experiment, tmp_path: Path) -> TaskData:
    return read_task_data(experiment, tmp_path)


def test_the_task_table_is_read_and_checked(experiment: Experiment) -> None:
    assert isinstance(experiment.task, EventCountTask)
    assert Experiment.model_validate(experiment.model_dump(mode="json")).task == experiment.task
    assert experiment.file is not None
    with pytest.raises(ConfigError, match="task: unknown key 'goal'"):
        load_experiment(experiment.file, ["task.goal=['buy']"])


def test_labels_count_events(data: TaskData) -> None:
    rows = data.rows("test")
    times = pd.Series(data.journeys.t).groupby(
        np.repeat(np.arange(data.journeys.n_customers), np.diff(data.journeys.offsets))
    )
    for customer, cutoff, label in zip(data.test.customer[:50], data.test.cutoff[:50], rows["label"], strict=False):
        t = times.get_group(customer).to_numpy()
        assert label == ((t >= cutoff) & (t < cutoff + days_us(28))).sum()
    assert rows["label"].max() > 1
    assert "The mean label" in data.notes[-1]


def test_parts_have_the_labels_of_the_whole(experiment: Experiment, data: TaskData) -> None:
    facts = facts_of(LocalParts([part_of(data.journeys)]))
    parts = slices(data.journeys, 3)
    plan = plan_labels(experiment.task, LocalParts(parts), facts, allow_small=True)
    tables = [plan.labelled(part).table() for part in parts]
    keys = ["cutoff", "customer_id"]
    joined = pd.concat(tables).sort_values(keys).reset_index(drop=True)
    whole = experiment.labels(data.journeys).table.sort_values(keys).reset_index(drop=True)
    pd.testing.assert_frame_equal(joined, whole)


def test_folds_tags_and_note_need_no_classes(experiment: Experiment, data: TaskData) -> None:
    assert len(data.folds) == 3
    assert run_tags(experiment, data)["task_kind"] == "event_count"
    assert "| rmse | " in run_note(experiment, data, "Counts", "", {"validation_rmse": 2.0, "test_rmse": 2.5})


def test_features_are_written_with_numeric_labels(experiment: Experiment, data: TaskData, tmp_path: Path) -> None:
    land(experiment, tmp_path / "features")
    labels = pq.read_table(tmp_path / "features")["label"].to_numpy()
    assert labels.sum() == data.y_train.sum() + data.y_test.sum()


def test_metrics_have_their_direction_in_promotion(data: TaskData) -> None:
    y, customers = data.y_test, data.test.customer_ids
    noise = np.random.default_rng(0).normal(0, 0.5, len(y))
    metrics = evaluate_answers(EventCountTask, y, {"expected_value": y + noise}, customers, n_boot=50)
    assert metrics["rmse_low"] < metrics["rmse"] < metrics["rmse_high"]
    assert abs(metrics["rmse"] - np.sqrt((noise**2).mean())) < 1e-9
    rough, mean = y + 3 * noise, np.full(len(y), y.mean())

    def alias(challenger: np.ndarray, champion: np.ndarray | None) -> str:
        return decide(y, challenger, champion, {"mean": mean}, customers, task=EventCountTask, n_boot=200).alias

    assert alias(y + noise, rough) == "champion"
    assert alias(rough, y + noise) == "challenger"
    assert alias(y + noise, None) == "champion"
    assert alias(mean, None) == "challenger"


def test_a_draft_is_written(folder: Path, tmp_path: Path) -> None:
    drafted = draft(folder / "events.parquet", tmp_path / "drafted.toml", kind="event_count")
    assert isinstance(drafted.experiment.task, EventCountTask)
    assert "horizon_days = 60" in (tmp_path / "drafted.toml").read_text()

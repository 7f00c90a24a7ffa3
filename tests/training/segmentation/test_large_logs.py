"""Segments of a log on Spark: those of one machine, though what one machine holds is a sample."""

from __future__ import annotations

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from experiment_files import write_experiment
from experiments.cli import app
from features.errors import ConfigError
from features.journeys.event_log import LocalParts, LogFacts, facts_of, part_of, slices
from features.journeys.journeys import Snapshots
from features.journeys.loading import load_log
from features.simulation.simulator import simulate
from features.spark.reading import read_log
from features.timestamps import microseconds
from models.segments.clustering import clusters
from models.segments.clustering.clusters import ClusterSegments, with_events
from models.segments.clustering.refinement import refined
from models.segments.collection import SegmentCollection
from models.segments.rules.rule_segments import RuleSegments
from training.config.engines import Engine
from training.config.experiment import Experiment, load_experiment
from training.review.reproduce import reproduce
from training.scoring.scoring import load_scorer
from training.segmentation.large_logs import LogCustomers, everyone_at, rows_of, segment_log
from training.segmentation.segmenting import SegmentationRun, SegmentResult
from training.tracking.registry import resolve
from training.tracking.tracking import connect

SEGMENTS = """
[segments]
which = ["found", "value"]
[segments.found]
segments = 4
methods = ["kmeans"]
rounds = 2
restarts = 3
dimensions = [3]
fit_rows = 150
groups = ["behaviour"]
[[segments.rules]]
name = "Listed in spring"
when = { events = ["purchase"], at_least = 2 }
frozen_at = 2024-05-01
"""

LATE = int(microseconds("2024-07-20")[()])


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("spread")
    simulate(n_customers=400, days=240, seed=3).save(folder)
    return load_experiment(write_experiment(folder, SEGMENTS, name="spread"))


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return tmp_path


def book_of(result: SegmentResult) -> SegmentCollection:
    book = load_scorer(result.model_uri).model
    assert isinstance(book, SegmentCollection)
    return book


@pytest.mark.parametrize("representation", ["tabular", "embedding"])
def test_everyone_is_where_one_machine_puts_them(
    spark: Any, experiment: Experiment, representation: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clusters, "refined", partial(refined, most_steps=4))  # each step is a job
    encoder = {"hidden": 8, "pretraining_epochs": 1}
    asked = {"representation": representation, "encoder": encoder, "methods": ("mixture",)}
    settings = experiment.segmentation.found.model_copy(update=asked)
    rows = everyone_at(part_of(load_log(experiment.events).journeys), at=LATE)
    mine = ClusterSegments(settings).fit(rows)
    log = read_log(spark, experiment.events, partitions=3).named()
    customers = LogCustomers(log, partial(everyone_at, at=LATE), None)
    theirs = ClusterSegments(settings).fit(rows, everyone=customers.points)
    log.close()
    for name, values in mine.clustering_.arrays.items():
        assert np.allclose(values, theirs.clustering_.arrays[name], rtol=1e-6, atol=1e-6), name
    assert np.allclose(mine.shares_, theirs.shares_, atol=1e-12)
    assert (mine.assign(rows) == theirs.assign(rows)).all()
    assert mine.segments == theirs.segments


def test_a_sample_chooses_and_everyone_says_where_the_centres_are(
    spark: Any, experiment: Experiment, store: Path
) -> None:
    result = segment_log(experiment, engine=Engine("spark", "local[2]"), share=0.4, runs=store)
    assert any("are of a sample" in note and "of 400 customers;" in note for note in result.notes)
    book, log = book_of(result), load_log(experiment.events).journeys
    found, rules = book.partitions["found"], book.partitions["rules"]
    assert isinstance(found, ClusterSegments)
    assert isinstance(rules, RuleSegments)
    at = max(resolve_cutoffs(experiment))
    rows = log.at(np.int64(at))
    rows = rows.take(np.flatnonzero(rows.stop > rows.start))
    place, points = found.assign(rows), found.space(rows).astype(float)
    assert np.allclose(found.shares_, np.bincount(place, minlength=4) / len(place))
    wanted = np.stack([points[place == cluster].mean(axis=0) for cluster in range(4)])
    assert np.abs(wanted - found.clustering_.arrays["centres"]).max() < 1e-3
    then = log.at("2024-05-01")
    bought = [
        int((log.categories["touchpoint"].codes[a:b] == log.categories["touchpoint"].names.index("purchase")).sum())
        for a, b in zip(then.start, then.stop, strict=True)
    ]
    listed = rules.assign(log.at(log.end_us)) == 0
    assert listed.tolist() == [n >= 2 for n in bought]
    assert listed.sum() > 20
    run = connect().get_run(resolve(result.model_uri).run_id)
    assert run.data.metrics["largest_share"] == pytest.approx(found.shares_.max())
    with pytest.raises(ConfigError, match=r"made on Spark.*journeylab segment … --engine spark"):
        reproduce(result.model_uri)


def resolve_cutoffs(experiment: Experiment) -> list[int]:
    table = experiment.labels(load_log(experiment.events).journeys).table
    cutoffs = pd.to_datetime(table.loc[table["split"] == "train", "cutoff"])
    return [int(one) for one in cutoffs.astype("datetime64[us]").astype("int64").unique()]


class Whole(LocalParts):
    """A log in parts that knows its facts, as one on Spark does."""

    @property
    def facts(self) -> LogFacts:
        return facts_of(self)


@pytest.mark.parametrize("kind", ["churn", "conversion", "labels"])
def test_candidates_of_parts_are_those_of_the_whole(experiment: Experiment, tmp_path: Path, kind: str) -> None:
    """Rows on which segments are fitted, part by part, where they are not everyone at one moment."""
    file = write_experiment(tmp_path, SEGMENTS, name="spread", task=kind)
    own_labels = experiment.labels(load_log(experiment.events).journeys).table.drop(columns="split")
    own_labels.sample(frac=0.7, random_state=1).to_csv(tmp_path / "labels.csv", index=False)
    other = load_experiment(file, ["segments.who=candidates", f"events.path={experiment.events.path}"])
    log = load_log(other.events)
    segmenting = SegmentationRun.of(other, log, tmp_path, None)
    whole = Whole(slices(log.journeys, 5))
    rows = rows_of(other, segmenting, whole)  # type: ignore[arg-type]
    found = [row for part in whole.parts for row in zip(*keys_of(rows(part)), strict=True)]
    now = with_events(segmenting.rows.now)
    assert segmenting.rows.at is None
    assert sorted(found) == sorted(zip(*keys_of(now), strict=True))
    assert len(found) > 50


def keys_of(rows: Snapshots) -> tuple[list[str], list[int]]:
    return [str(one) for one in rows.customer_ids], rows.cutoff.tolist()


def test_bad_input_gets_a_sentence(experiment: Experiment, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="share of customers is 0: give one above 0"):
        segment_log(experiment, engine=Engine("spark"), share=0, runs=tmp_path)
    done = CliRunner().invoke(app, ["segment", str(experiment.file), "--sample", "0.5"])
    assert isinstance(done.exception, ConfigError)
    assert str(done.exception) == "--sample is for --engine disk and --engine spark: a log in memory is taken whole."

"""Segments of a log of any size: `journeylab segment …`, on each engine.

    result = segment_log(load_experiment("churn.toml"), engine=Engine("disk"))
    result.model_uri                      # promote it, package it, score with it as with a churn model
    result.tables["found/profiles"]       # one row for each segment

A log in memory is segmented as it is. On disk and on Spark, method, number and axes of clusters, names and the page are
chosen on a sample of the customers that fits in memory. The centres of clusters are then refined on all customers:
points are computed part by part, and each step adds up the parts' results
(`models.segments.clustering.refinement`). `journeylab score` assigns segments, on every engine.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

from features.errors import ConfigError
from features.journeys.event_log import EventLog, Joined, MemoryLog, Part, PartialResults, total
from features.journeys.journeys import Snapshots
from features.journeys.loading import load_log
from features.labels.plan import plan_labels, train_rows
from features.labels.task import LabelPlan
from features.spark.log import SparkLog
from models.segments.clustering.algorithms import Points
from models.segments.clustering.clusters import ClusterSegments, with_events
from models.segments.insight.profiles import last_rows
from models.segments.rules.rule_segments import RuleSegments
from models.segments.rules.static_lists import Hashes
from training.config.engines import AUTOMATIC, Engine
from training.config.experiment import Experiment
from training.data.landing import Sample, land_journeys, require_share
from training.data.open_log import open_event_log
from training.progress import say, stage
from training.scoring.spark_files import received, sent
from training.segmentation.segmenting import SegmentationRun, SegmentResult

Rows = Callable[[Part], Snapshots]
SAMPLE_CUSTOMERS = 200_000
SAMPLE = "sample"  # its folder while it is needed


def segment_log(
    experiment: Experiment,
    *,
    engine: Engine = AUTOMATIC,
    share: float | None = None,
    progress: Console | None = None,
    runs: Path = Path("runs"),
) -> SegmentResult:
    """Fit and explain the segments of an experiment on any engine, and record them in MLflow.

    Args:
        experiment: with `[segments]`, or the defaults of it.
        engine: where the log is processed.
        share: of the customers that the sample has; by default what leaves about 200,000.
        progress: where to show progress.
        runs: the folder for files of runs.

    Raises:
        ConfigError: Spark or Java is missing; a share that is none; settings that do not exist; no partition that this
            log has the columns for.
        DataError: the events cannot be used, or too few customers.
    """
    if share is not None:
        require_share(share)
    home = runs / experiment.name
    with open_event_log(experiment.events, engine, home / "log.parts", progress) as log:
        log.quarantine(home / "quarantine.csv")
        if isinstance(log, MemoryLog):
            if share is not None:
                raise ConfigError("--sample is for --engine disk and --engine spark: a log in memory is taken whole.")
            return SegmentationRun.of(experiment, log.loaded, home, progress).run()
        customers = log.facts.customers
        sample = Sample(min(1.0, SAMPLE_CUSTOMERS / max(customers, 1)) if share is None else share)
        try:
            with stage(progress, "Writing a sample of the customers"):
                land_journeys(experiment, log, home / SAMPLE, sample)
            source = experiment.events.with_path((home / SAMPLE).resolve())
            segmenting = SegmentationRun.of(experiment, load_log(source), home, progress)
            segmenting.origin = json.dumps(asdict(log.facts), sort_keys=True)
            segmenting.everyone = LogCustomers(log, rows_of(experiment, segmenting, log), progress)
            segmenting.findings.notes += _notes(customers, segmenting.data.journeys.n_customers)
            return segmenting.run()
        finally:
            shutil.rmtree(home / SAMPLE, ignore_errors=True)


def rows_of(experiment: Experiment, segmenting: SegmentationRun, log: EventLog) -> Rows:
    """What gives the rows of a part that segments are fitted on.

    Args:
        experiment: of the segmentation.
        segmenting: of the sample, of which the borders between train and test are.
        log: whose parts they are.
    """
    at, data = segmenting.rows.at, segmenting.data
    if at is not None:
        return partial(everyone_at, at=at)
    labelled = log if experiment.task.label_file else MemoryLog.of(data.journeys)
    plan = plan_labels(
        experiment.task,
        labelled,
        labelled.facts,
        min_class_count=experiment.min_class_count,
        allow_small=experiment.allow_small,
    )
    return partial(candidates, plan=plan, until=int(data.train.cutoff.max()))


def everyone_at(part: Part, at: int) -> Snapshots:
    """All customers of a part who have an event before a moment."""
    return with_events(part.journeys.at(np.int64(at)))


def candidates(part: Part, plan: LabelPlan, until: int) -> Snapshots:
    """The task's candidates of a part, each at the last training cutoff up to a moment."""
    rows = train_rows(part, plan)
    rows = rows.take(np.flatnonzero(rows.cutoff <= until))
    return with_events(rows.take(last_rows(rows)))


@dataclass(frozen=True)
class LogCustomers:
    """See `training.segmentation.partitions.AllCustomers`.

    Attributes:
        log: whose customers they are, with the names of the whole.
        rows: a function for the rows of a part.
        progress: where to show progress.
    """

    log: EventLog
    rows: Rows
    progress: Console | None

    def points(self, clusters: ClusterSegments) -> PartialResults:
        """The points of each part, kept on their machines."""
        say(self.progress, f"  Method and number are chosen; now the centres of all {self.log.facts.customers:,}.")
        return self.log.keep(partial(points_of, segments=self._portable(clusters), rows=self.rows))

    def members(self, rules: RuleSegments) -> dict[str, Hashes]:
        """From all parts."""
        members_by_slug = total(self.log, partial(members_of, segments=self._portable(rules)))
        return {slug: hashes.array for slug, hashes in members_by_slug.items()}

    def _portable(self, segments: ClusterSegments | RuleSegments) -> Any:
        """The segments, or on Spark the name of a folder that executors load them from."""
        if not isinstance(self.log, SparkLog):
            return segments
        with tempfile.TemporaryDirectory() as scratch:
            segments.save(Path(scratch))
            return sent(self.log, Path(scratch))


def _notes(customers: int, sample_size: int) -> list[str]:
    """Notes for a reader of the page."""
    if sample_size == customers:
        return []
    sample = f"a sample, {sample_size:,} of {customers:,} customers"
    return [f"Counts, thresholds, quantiles and look-alikes are of {sample}; centres and static lists are of everyone."]


def points_of(part: Part, segments: ClusterSegments | str, rows: Rows) -> Points | None:
    """(n, d) points of the rows of a part; None where it has none."""
    part_rows = rows(part)
    clusters = _clusters(segments) if isinstance(segments, str) else segments
    return clusters.space(part_rows) if len(part_rows) else None


def members_of(part: Part, segments: RuleSegments | str) -> dict[str, Joined]:
    """Slug → hashes of the members that a part has."""
    rules = _rules(segments) if isinstance(segments, str) else segments
    return {slug: Joined(hashes) for slug, hashes in rules.members_of(part.journeys).items()}


@cache
def _clusters(name: str) -> ClusterSegments:
    return received(name, ClusterSegments.load)


@cache
def _rules(name: str) -> RuleSegments:
    return received(name, RuleSegments.load)

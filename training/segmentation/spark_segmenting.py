"""Segments of a log on Spark: `journeylab segment … --engine spark --master …`.

    segment_on_spark(load_experiment("churn.toml"), master="local[2]").model_uri

What has to be weighed against much else is settled on a sample of customers that one machine holds: method, number and
axes of what is found, names, the page. The centres of what is found are then those of everyone: points are made where
the customers are, and each step adds up what the parts say (`models.segments.clustering.refinement`). `journeylab
score` says who is in which segment, on Spark too.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cache, partial
from pathlib import Path

import numpy as np
from rich.console import Console

from features.journeys.event_log import Joined, LocalParts, Part, facts_of, part_of, total
from features.journeys.journeys import Snapshots
from features.journeys.loading import load_log
from features.labels.plan import plan_labels, train_rows
from features.labels.task import LabelPlan
from features.spark.log import Kept, SparkLog, read_log, session
from models.segments.clustering.algorithms import Points
from models.segments.clustering.clusters import ClusterSegments, with_events
from models.segments.insight.profiles import last_rows
from models.segments.rules.rule_segments import RuleSegments
from models.segments.rules.static_lists import Hashes
from training.config.experiment import Experiment
from training.data.landing import Sample, land_journeys, require_share
from training.progress import say, stage
from training.scoring.spark_files import received, sent
from training.segmentation.segmenting import SegmentationRun, SegmentResult

Rows = Callable[[Part], Snapshots]
CUSTOMERS_HERE = 200_000  # as many as a sample has where nothing else is asked for
SAMPLE = "sample"  # its folder while it is needed


def segment_on_spark(
    experiment: Experiment,
    *,
    master: str | None = None,
    settings: dict[str, str] | None = None,
    partitions: int | None = None,
    share: float | None = None,
    progress: Console | None = None,
    runs: Path = Path("runs"),
) -> SegmentResult:
    """Fit and explain segments of a log that Spark reads, and record them in MLflow; see `segmenting.segment`.

    Args:
        experiment: with `[segments]`, or the defaults of it.
        master: of Spark.
        settings: of Spark.
        partitions: of customers.
        share: of the customers that the sample has; by default what leaves about 200,000.
        progress: where to show what is going on.
        runs: the folder for files of runs.

    Raises:
        ConfigError: Spark or Java is missing; a share that is none; as `segment`.
        DataError: as `segment`.
    """
    if share is not None:
        require_share(share)
    home = runs / experiment.name
    log = read_log(session(master, settings), experiment.events, partitions=partitions)
    try:
        with stage(progress, f"Packing {experiment.events.path} on Spark"):
            customers = log.named().facts.customers
        sample = Sample(min(1.0, CUSTOMERS_HERE / max(customers, 1)) if share is None else share)
        with stage(progress, "Landing a sample of the customers"):
            land_journeys(experiment, log, home / SAMPLE, sample)
            log.quarantine(home / "quarantine.parquet")
        there = experiment.events.with_path((home / SAMPLE).resolve())
        segmenting = SegmentationRun.of(experiment, load_log(there), home, progress)
        segmenting.origin = json.dumps(asdict(log.facts), sort_keys=True)
        segmenting.everyone = SparkCustomers(log, rows_of(experiment, segmenting, log), progress)
        segmenting.findings.notes += _notes(log.facts.customers, segmenting.data.journeys.n_customers)
        return segmenting.run()
    finally:
        log.close()
        shutil.rmtree(home / SAMPLE, ignore_errors=True)


def rows_of(experiment: Experiment, segmenting: SegmentationRun, log: SparkLog) -> Rows:
    """What gives the rows of a part that segments are fitted on.

    Args:
        experiment: of the segmentation.
        segmenting: of the sample, of which the borders between train and test are.
        log: whose parts they are.
    """
    at, data = segmenting.rows.at, segmenting.data
    if at is not None:
        return partial(everyone_at, at=at)
    here = LocalParts([part_of(data.journeys)])
    parts, facts = (log, log.facts) if experiment.task.label_file else (here, facts_of(here))
    plan = plan_labels(
        experiment.task, parts, facts, min_class_count=experiment.min_class_count, allow_small=experiment.allow_small
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
class SparkCustomers:
    """See `training.segmentation.partitions.AllCustomers`.

    Attributes:
        log: whose customers they are, with the names of the whole.
        rows: what gives the rows of a part.
        progress: where to show what is going on.
    """

    log: SparkLog
    rows: Rows
    progress: Console | None

    def points(self, found: ClusterSegments) -> Kept:
        """They stay where they were made."""
        say(self.progress, f"  Method and number are chosen; now the centres of all {self.log.facts.customers:,}.")
        return self.log.kept(partial(points_of, name=_sent(self.log, found), rows=self.rows))

    def members(self, rules: RuleSegments) -> dict[str, Hashes]:
        """From all parts."""
        found = total(self.log, partial(members_of, name=_sent(self.log, rules)))
        return {slug: hashes.array for slug, hashes in found.items()}


def _notes(customers: int, here: int) -> list[str]:
    """What a reader of the page should know."""
    if here == customers:
        return []
    some = f"a sample, {here:,} of {customers:,} customers"
    return [f"Counts, thresholds, quantiles and look-alikes are of {some}; centres and static lists are of everyone."]


def _sent(log: SparkLog, segments: ClusterSegments | RuleSegments) -> str:
    with tempfile.TemporaryDirectory() as scratch:
        segments.save(Path(scratch))
        return sent(log, Path(scratch))


def points_of(part: Part, name: str, rows: Rows) -> Points | None:
    """(n, d) where the rows of a part lie; None where it has none."""
    some = rows(part)
    return _found(name).space(some) if len(some) else None


def members_of(part: Part, name: str) -> dict[str, Joined]:
    """Slug → hashes of the members that a part has."""
    return {slug: Joined(hashes) for slug, hashes in _rules(name).members_of(part.journeys).items()}


@cache
def _found(name: str) -> ClusterSegments:
    return received(name, ClusterSegments.load)


@cache
def _rules(name: str) -> RuleSegments:
    return received(name, RuleSegments.load)

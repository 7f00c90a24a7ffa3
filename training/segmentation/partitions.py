"""Every partition of an experiment, fitted, and matched with the one in use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Protocol

import numpy as np
import pandas as pd
from rich.console import Console

from features.errors import ConfigError
from features.journeys.journeys import Snapshots
from features.tabular.features import TabularFeatures
from models.segments.clustering.clusters import ClusterSegments
from models.segments.clustering.refinement import PointParts
from models.segments.collection import SegmentCollection
from models.segments.contract import Segmentation
from models.segments.insight.effects import segment_effects
from models.segments.insight.names import name_segments
from models.segments.rules.rule_segments import RuleSegments
from models.segments.rules.schemes import fit_schemes
from models.segments.rules.static_lists import Hashes
from training.config.experiment import Experiment
from training.config.segment_settings import CLUSTERS, RULES
from training.progress import stage
from training.segmentation.rows import Population

SAMPLE_ROWS = 20_000  # customers for effects, trees and typical journeys
REFIT_TABLES = ("kept", "moved", "split", "merged", "appeared", "vanished")


class AllCustomers(Protocol):
    """All customers of a log, where the rows at hand are a sample."""

    def points(self, clusters: ClusterSegments) -> PointParts:
        """Where they lie in the space that was chosen."""
        ...

    def members(self, rules: RuleSegments) -> Mapping[str, Hashes]:
        """The members of each static list; see `RuleSegments.members_of`."""
        ...


@dataclass
class Findings:
    """Results of a segmentation run so far.

    Attributes:
        notes: for the reader, alarms first.
        tables: "partition/table" → frame.
        metrics: of the main partition.
    """

    notes: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class FitData:
    """What partitions are fitted on.

    Attributes:
        experiment: with the settings of the segments.
        rows: the customers, by moment.
        everyone: all customers of the log, where the rows are a sample.
    """

    experiment: Experiment
    rows: Population
    everyone: AllCustomers | None = None

    @cached_property
    def sample(self) -> Snapshots:
        """At most `SAMPLE_ROWS` of the current rows."""
        n = len(self.rows.now)
        if n <= SAMPLE_ROWS:
            return self.rows.now
        chosen = np.random.default_rng(self.experiment.seed).choice(n, SAMPLE_ROWS, replace=False)
        return self.rows.now.take(np.sort(chosen))

    @cached_property
    def tabular(self) -> TabularFeatures:
        """All tabular features of the sample, for effects and rules; clusters have a space of their own."""
        return TabularFeatures().fit(self.sample)


def fit_partitions(
    data: FitData, in_use: SegmentCollection | None, findings: Findings, progress: Console | None
) -> dict[str, Segmentation]:
    """Every partition, in the order of the settings; those for which the log lacks a column are noted and left out.

    Args:
        data: what to fit on.
        in_use: the segments of the champion, whose ids and names go on.
        findings: to add notes, tables and metrics to.
        progress: where to show progress.

    Raises:
        ConfigError: no partition can be made from this log.
        DataError: too few customers to cluster.
    """
    settings, now = data.experiment.segmentation, data.rows.now
    partitions: dict[str, Segmentation] = {}
    if CLUSTERS in settings.partitions:
        with stage(progress, f"Looking for segments among {len(now):,} customers"):
            partitions[CLUSTERS] = _fit_clusters(data, in_use, findings)
    with stage(progress, "Fitting schemes and rules"):
        built_in = [name for name in settings.partitions if name not in (CLUSTERS, RULES)]
        schemes, notes = fit_schemes(built_in, now, settings.schemes)
        partitions |= schemes
        findings.notes += notes
        if RULES in settings.partitions:
            rules = RuleSegments(settings.rules, scheme=RULES, rest=settings.rest).fit(now)
            if data.everyone and rules.lists_:
                rules.take_members(data.everyone.members(rules))
            partitions[RULES] = rules
            findings.notes += rules.notes_
    if not partitions:
        raise ConfigError(f"None of the partitions can be made from this log: {' '.join(findings.notes)}")
    return {name: partitions[name] for name in settings.partitions if name in partitions}


def _fit_clusters(data: FitData, in_use: SegmentCollection | None, findings: Findings) -> ClusterSegments:
    """Clusters, matched with those in use before they are named, so that ids and names stay."""
    previous = None if in_use is None else in_use.partitions.get(CLUSTERS)
    previous = previous if isinstance(previous, ClusterSegments) else None
    settings = data.experiment.segmentation.found
    settings = settings.model_copy(update={"seed": settings.seed or data.experiment.seed})
    points = data.everyone.points if data.everyone else None
    clusters = ClusterSegments(settings).fit(data.rows.now, previous, points)
    effects = segment_effects(data.tabular, data.sample, clusters.assign(data.sample), clusters.segments)
    names = {segment.id: segment.name for segment in previous.segments} if previous else None
    clusters.rename(name_segments(clusters.segments, effects, names))
    findings.tables[f"{CLUSTERS}/choice"] = clusters.choice
    findings.metrics |= {"stability": clusters.stability_, "segments": float(len(clusters.segments))}
    findings.metrics |= {
        "largest_share": float(clusters.shares_.max()),
        "smallest_share": float(clusters.shares_.min()),
    }
    if (report := clusters.report_) is not None:
        findings.notes += report.sentences
        findings.metrics["kept_share"] = report.kept_share
        findings.tables |= {f"{CLUSTERS}/refit_{name}": getattr(report, name) for name in REFIT_TABLES}
    return clusters

"""Tables and metrics that explain a partition: profiles, targets, effects, rules, journeys, drift, predictive value."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from models.segments.clustering.clusters import ClusterSegments
from models.segments.contract import Segmentation
from models.segments.insight.drift import segment_drift
from models.segments.insight.effects import segment_effects
from models.segments.insight.profiles import segment_profiles
from models.segments.insight.targets import health_report, target_table
from models.segments.insight.tree import SegmentTree
from models.segments.insight.typical_journeys import typical_journeys
from training.data.task_data import TaskData
from training.segmentation.partitions import Findings, FitData
from training.segmentation.quality import predictive_value

Places = npt.NDArray[np.int32]


@dataclass
class PartitionExplainer:
    """Adds the tables of partitions to the findings; metrics, alarms and goals are of the main partition.

    Attributes:
        fit_data: what the partitions were fitted on.
        data: labelled rows of the experiment.
        main: the name of the main partition.
        clusters: the clusters, whose space shows which journeys are typical; None without any.
        findings: to add notes, tables and metrics to.
    """

    fit_data: FitData
    data: TaskData
    main: str
    clusters: ClusterSegments | None
    findings: Findings

    def explain(self, partition: Segmentation) -> None:
        """All tables of one partition."""
        scheme, segments, rows = partition.scheme, partition.segments, self.fit_data.rows
        settings, sample = self.fit_data.experiment.segmentation, self.fit_data.sample
        place = partition.assign(rows.described)
        profiles = self._profiles(partition, place)
        self._add(scheme, "segments", pd.DataFrame([asdict(segment) for segment in segments]))
        targets = target_table(profiles, segments, rows.described, place, settings.targets, now=rows.is_now)
        self._add(scheme, "targets", targets)
        if settings.goals and scheme == self.main:
            health = health_report(profiles, settings.goals)
            self._add(scheme, "health", health)
            self.findings.notes += [str(text) for text in health.loc[health["status"] == "fell short", "sentence"]]
        sampled = partition.assign(sample)
        if len(np.unique(sampled[sampled >= 0])) > 1:
            self._add(scheme, "effects", segment_effects(self.fit_data.tabular, sample, sampled, segments))
            if isinstance(partition, ClusterSegments):  # schemes and rules are rules already
                self._tree(partition, sampled)
        if self.clusters is not None:
            journeys = typical_journeys(self.clusters.space(sample), sample, sampled, segments)
            self._add(scheme, "journeys", journeys)
        self._drift(partition)
        self._predictive_value(partition)

    def _add(self, scheme: str, name: str, table: pd.DataFrame) -> None:
        self.findings.tables[f"{scheme}/{name}"] = table

    def _profiles(self, partition: Segmentation, place: Places) -> pd.DataFrame:
        """Profiles of the current rows, with the rates of the held-out rows beside them."""
        rows, experiment = self.fit_data.rows, self.fit_data.experiment
        task = experiment.task.label_name(experiment.name)
        unlabelled = np.full(len(rows.now) + len(rows.earlier), np.nan)
        labels = {task: np.concatenate([unlabelled, self.data.y_train.astype(np.float64)])}
        profiles = segment_profiles(
            *(partition.segments, rows.described, place, labels),
            now=rows.is_now,
            earlier=rows.is_earlier,
            seed=experiment.seed,
        )
        held_out = segment_profiles(
            partition.segments, rows.test, partition.assign(rows.test), {task: self.data.y_test}
        ).table
        rates = [column for column in held_out.columns if str(column).startswith(f"{task}_")]
        held_out = held_out[["id", *rates]].rename(columns=lambda name: name if name == "id" else f"held_out_{name}")
        table = profiles.table.merge(held_out)
        self._add(partition.scheme, "profiles", table)
        notes = self.findings.notes
        notes += [note for note in profiles.notes if note not in notes]  # most concern the log, not the partition
        return table

    def _tree(self, partition: ClusterSegments, place: Places) -> None:
        """A short decision tree in place of the clusters."""
        try:
            tree = SegmentTree().fit(self.fit_data.tabular, self.fit_data.sample, place, partition.segments)
        except DataError as error:
            self.findings.notes.append(f"{partition.scheme}: {error}")
            return
        self._add(partition.scheme, "rules", tree.rules)
        fidelity = {"": tree.fidelity.value, "_low": tree.fidelity.low, "_high": tree.fidelity.high}
        self.findings.metrics |= {f"rule_fidelity{end}": value for end, value in fidelity.items()}

    def _drift(self, partition: Segmentation) -> None:
        """From the moment of the fit to the held-out moment."""
        now, later = self.fit_data.rows.now, self.fit_data.rows.later
        drift = segment_drift(
            *(partition.segments, partition.assign(now), partition.assign(later), now.customer, later.customer),
            self.fit_data.experiment.segmentation.drift,
        )
        self._add(partition.scheme, "drift", drift.shares)
        self._add(partition.scheme, "migration", drift.migration)
        if partition.scheme == self.main:
            self.findings.metrics |= {
                "population_stability_index": drift.psi,
                "stayed_share": drift.stayed,
                "drift_alarm": float(drift.alarm),
            }
        if drift.alarm:
            self.findings.notes.insert(0, f"ALARM, {partition.scheme}: {drift.sentence}")

    def _predictive_value(self, partition: Segmentation) -> None:
        """Log loss by segment, against RFM cells of the same number."""
        train, test, data = self.fit_data.rows.train, self.fit_data.rows.test, self.data
        metrics = predictive_value(
            segment_train=partition.assign(train),
            segment_test=partition.assign(test),
            n_segments=len(partition.segments),
            train=train,
            y_train=data.y_train,
            test=test,
            y_test=data.y_test,
            seed=self.fit_data.experiment.seed,
        )
        self._add(partition.scheme, "information", pd.DataFrame([metrics]))
        if partition.scheme == self.main:
            self.findings.metrics |= {f"test_{name}": value for name, value in metrics.items()}

"""A segmentation run: segments of packed journeys are fitted, matched with those in use, explained, recorded in MLflow.

`training.segmentation.large_logs.segment_log` calls this for a log on any engine. Segments are fitted on what was known
at the last training cutoff. If the experiment has a champion already, new clusters are matched with its clusters before
they are named, so that ids survive.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import mlflow
import pandas as pd
from mlflow.entities import Run
from rich.console import Console

from features.errors import ConfigError
from features.journeys.stream import Loaded
from features.privacy.keyed_hashes import new_key, write_key
from models.pyfunc import code_paths, input_example, signature
from models.scoring.golden_sample import record_sample
from models.scoring.scorer import Scorer, requirements, visible_touchpoints
from models.scoring.training_reference import TrainingReference
from models.segments.clustering.clusters import ClusterSegments
from models.segments.collection import SegmentCollection
from models.segments.lookalikes import Lookalikes
from models.sequence.embedder import Embedder
from models.sequence.settings import EncoderSettings
from training.config.experiment import Experiment
from training.config.segment_settings import CLUSTERS, SEGMENTS_SUFFIX
from training.data.provenance import configuration_fingerprint, empty_folder, run_note, run_tags, write_provenance
from training.data.task_data import LABEL_QUARANTINE, TaskData, task_data
from training.progress import say, stage
from training.segmentation.explaining import PartitionExplainer
from training.segmentation.page import write_segment_page
from training.segmentation.partitions import AllCustomers, Findings, FitData, fit_partitions
from training.segmentation.rows import Population, population
from training.tracking.registry import CHAMPION, resolve
from training.tracking.tracking import FinalRun, PyfuncModel, Tracker

NAME, ROLE = "segments", "segmentation"
MOST_NOTES = 12  # in the note of the MLflow run


@dataclass(frozen=True)
class SegmentResult:
    """Result of a segmentation run.

    Attributes:
        run_id: of its MLflow run.
        model_uri: the logged model.
        name: of the registered model, once it is promoted.
        metrics: of the main partition.
        tables: "partition/table" → frame, as logged.
        notes: for the reader, alarms first.
        page: the page with all results.
    """

    run_id: str
    model_uri: str
    name: str
    metrics: dict[str, float]
    tables: dict[str, pd.DataFrame]
    notes: tuple[str, ...]
    page: Path

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready, without the tables."""
        fields = asdict(self)
        del fields["tables"]
        return fields | {"page": str(self.page), "notes": list(self.notes)}


def refit_segments(
    experiment: Experiment, data: TaskData, matched_with: SegmentCollection | None, progress: Console | None = None
) -> tuple[SegmentCollection, dict[str, float]]:
    """Fit the segments of an experiment again, recording nothing.

    Args:
        experiment: as its run recorded it.
        data: its rows.
        matched_with: the segments with which the recorded ones were matched, if any.
        progress: where to show progress.

    Returns:
        The segments and the metrics that their run records.
    """
    rows = population(data, experiment.task.horizon_days, experiment.segmentation.who)
    findings = Findings()
    return _fit(FitData(experiment, rows), data, matched_with, findings, progress), findings.metrics


def _fit(
    fit_data: FitData,
    data: TaskData,
    in_use: SegmentCollection | None,
    findings: Findings,
    progress: Console | None,
) -> SegmentCollection:
    """Fit and explain every partition."""
    settings = fit_data.experiment.segmentation
    partitions = fit_partitions(fit_data, in_use, findings, progress)
    clusters = partitions.get(CLUSTERS)
    clusters = clusters if isinstance(clusters, ClusterSegments) else None
    explainer = PartitionExplainer(fit_data, data, settings.main_partition, clusters, findings)
    for partition in partitions.values():
        with stage(progress, f"Explaining {len(partition.segments)} segments of '{partition.scheme}'"):
            explainer.explain(partition)
    main = settings.main_partition
    return SegmentCollection(tuple(partitions.values()), main if main in partitions else next(iter(partitions)))


@dataclass
class SegmentationRun:
    """One segmentation with its files and its MLflow run.

    Attributes:
        experiment, data, rows: what is segmented.
        tracker, home, progress: where it is recorded, the folder of its files, where to show progress.
        findings: notes, tables and metrics so far.
        everyone: the customers of the whole log, where the rows are a sample.
        origin: facts of that log, because `data` knows the sample only.
    """

    experiment: Experiment
    data: TaskData
    rows: Population
    tracker: Tracker
    home: Path
    progress: Console | None
    findings: Findings = field(default_factory=Findings)
    everyone: AllCustomers | None = None
    origin: str = ""

    @classmethod
    def of(cls, experiment: Experiment, log: Loaded, home: Path, progress: Console | None) -> Self:
        """Label a log and choose the rows."""
        data = task_data(experiment, log.journeys, experiment.labels(log.journeys, home / LABEL_QUARANTINE), log)
        rows = population(data, experiment.task.horizon_days, experiment.segmentation.who)
        say(progress, f"  Segments of {rows.description}.")
        return cls(experiment, data, rows, Tracker(experiment.name), home, progress)

    def run(self) -> SegmentResult:
        """Fit, explain, write the files, record."""
        folder = empty_folder(self.home / f"segments_{self.identity[:8]}")
        fit_data = FitData(self.experiment, self.rows, self.everyone)
        in_use = None if self._champion is None else self._champion[0]
        segments = _fit(fit_data, self.data, in_use, self.findings, self.progress)
        scorer, later = self._scorer(segments), self.rows.later
        scorer.save(folder / "scoring")
        record_sample(scorer, later, folder / "scoring")
        TrainingReference.of(scorer, self.rows.now, scorer.answers(later), later).save(folder / "scoring")
        page = self._write_files(folder / "artifacts", segments)
        with stage(self.progress, "Recording the segments in MLflow"):
            run = self._record(folder, scorer)
        return SegmentResult(
            run_id=str(run.info.run_id),
            model_uri=str(run.data.tags["model_uri"]),
            name=self.name,
            metrics=self.findings.metrics,
            tables=self.findings.tables,
            notes=tuple(self.findings.notes),
            page=page.resolve(),
        )

    @property
    def name(self) -> str:
        """Of the registered model."""
        return f"{self.experiment.name}{SEGMENTS_SUFFIX}"

    @cached_property
    def identity(self) -> str:
        """A hash of the configuration and the segments with which these are matched."""
        settings = self.experiment.segmentation.model_dump_json()
        text = configuration_fingerprint(self.experiment, self.data) + settings
        text += (self._champion[1] if self._champion else "") + self.origin
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _champion(self) -> tuple[SegmentCollection, str] | None:
        """The champion's segments and its version; None where there is none."""
        try:
            champion = resolve(f"models:/{self.name}@{CHAMPION}", self.tracker.client)
        except ConfigError:
            return None
        model = Scorer.load(champion.folder).model
        return (model, champion.version) if isinstance(model, SegmentCollection) else None

    @cached_property
    def _tags(self) -> dict[str, str]:
        engine = {"engine": "spark"} if self.everyone else {}
        task = {"task": self.name, "task_kind": "segment", "judged_by": "stability"}
        return run_tags(self.experiment, self.data) | task | engine

    def _scorer(self, segments: SegmentCollection) -> Scorer:
        return Scorer(
            model=segments,
            task={"name": self.name, "kind": "segment", "experiment": self.experiment.name},
            schema=self.experiment.events.schema(),
            source=self.experiment.events.model_dump(mode="json"),
            touchpoints=visible_touchpoints(self.rows.now),
            about={**self._tags, "kind": segments.kind, "segments": segments.table().to_dict("records")},
        )

    def _write_files(self, folder: Path, segments: SegmentCollection) -> Path:
        """Tables, notes, provenance, look-alikes and the page; the page's path."""
        empty_folder(folder)
        write_provenance(folder, self.experiment)
        for name, table in self.findings.tables.items():
            path = folder / "tables" / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(path, index=False)
        text = json.dumps(self.findings.notes, indent=1, ensure_ascii=False)
        (folder / "notes.json").write_text(text, encoding="utf-8")
        segments.table().to_csv(folder / "segments.csv", index=False)
        if self.experiment.segmentation.lookalikes is not None:
            self._write_lookalikes(folder)
        page, results = folder / "segments.html", self.findings
        arguments = (segments, results.tables, results.metrics, results.notes)
        write_segment_page(page, self.experiment.name, self.rows.description, *arguments)
        return page

    def _write_lookalikes(self, folder: Path) -> None:
        """Vectors of all current customers with their encoder; the key of their hashes lies beside the artefacts."""
        settings, now = self.experiment.segmentation, self.rows.now
        with stage(self.progress, "Embedding journeys for look-alikes"):
            options = EncoderSettings.from_dict({"seed": self.experiment.seed} | (settings.found.encoder or {}))
            embedder, key = Embedder(options).fit(now), new_key()
            lookalikes = Lookalikes(settings.lookalikes)
            lookalikes.fit(embedder.embed(now), embedder.version, list(now.customer_ids), key)
            lookalikes.save(folder / "lookalikes")
            (folder / "lookalikes" / "encoder").mkdir()
            embedder.save(folder / "lookalikes" / "encoder")
        write_key(key, folder.parent / "lookalikes.key")
        self.findings.notes.append(
            f"Look-alikes are kept under keyed hashes; the key is {folder.parent.name}/lookalikes.key."
        )

    def _record(self, folder: Path, scorer: Scorer) -> Run:
        run_name = f"{self.identity[:8]}-segments"
        if (recorded := self.tracker.final_run(run_name, NAME)) is not None:
            return recorded
        settings = self.experiment.segmentation
        text = f"{len(settings.partitions)} partitions, the main one '{settings.main_partition}', of "
        text += f"{self.rows.description}. The page `segments.html` among the artifacts shows all of them."
        title, notes = f"Segments: {self.experiment.name}", self.findings.notes[:MOST_NOTES]
        matched = {"matched_with": self._champion[1]} if self._champion else {}
        record = FinalRun(
            train_id=run_name,
            name=NAME,
            kind=SegmentCollection.kind,
            role=ROLE,
            params=settings.model_dump(mode="json", exclude={"rules"}),
            metrics=self.findings.metrics,
            tags=self._tags | {"kind": SegmentCollection.kind, "train_id": run_name} | matched,
            note=run_note(self.experiment, self.data, title, text, {}, notes),
            artifacts=folder / "artifacts",
            datasets={split: self.data.rows(split) for split in ("train", "test")},
            fingerprint=self.data.labels_fingerprint,
            source=str(self.experiment.events.path),
        )
        model = PyfuncModel(
            folder=folder / "scoring",
            signature=signature(self.experiment.events.schema(), scorer.answer_columns),
            input_example=input_example(pd.read_parquet(folder / "scoring" / "sample" / "events.parquet")),
            code_paths=code_paths(),
            requirements=(f"mlflow=={mlflow.__version__}", *requirements(scorer.model)),
        )
        return self.tracker.log_final(record, model)

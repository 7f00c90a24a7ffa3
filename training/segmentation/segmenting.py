"""From an experiment to segments in MLflow: fit, match with those in use, explain, check, record.

    result = segment(load_experiment("experiments/configs/online_retail_churn.toml"), progress=Console())
    result.model_uri                      # promote it, package it, score with it as with a model of churn
    result.tables["found/profiles"]       # a row a segment

What `journeylab segment` does. Segments are fitted on what was known at the last training cutoff; where segments of
this experiment are in use already, the new ones are matched with them before they are named, so that ids survive.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, Self

import mlflow
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.entities import Run
from rich.console import Console

from features.errors import ConfigError, DataError
from features.journeys.loading import load_log
from features.journeys.stream import Loaded
from features.privacy.keyed_hashes import new_key, write_key
from features.tabular.features import TabularFeatures
from models.pyfunc import code_paths, input_example, signature
from models.scoring.golden_sample import record_sample
from models.scoring.scorer import Scorer, requirements, visible_touchpoints
from models.scoring.training_reference import TrainingReference
from models.segments.clustering.clusters import ClusterSegments
from models.segments.clustering.refinement import PointParts
from models.segments.collection import SegmentCollection
from models.segments.contract import Segmentation
from models.segments.insight.drift import segment_drift
from models.segments.insight.effects import segment_effects
from models.segments.insight.names import name_segments
from models.segments.insight.profiles import segment_profiles
from models.segments.insight.targets import health_report, target_table
from models.segments.insight.tree import SegmentTree
from models.segments.insight.typical_journeys import typical_journeys
from models.segments.lookalikes import Lookalikes
from models.segments.rules.rule_segments import RuleSegments
from models.segments.rules.schemes import fit_schemes
from models.segments.rules.static_lists import Hashes
from models.sequence.embedder import Embedder
from models.sequence.settings import EncoderSettings
from training.config.experiment import Experiment
from training.config.segment_settings import CLUSTERS, RULES, SEGMENTS_SUFFIX, Segments
from training.data.provenance import configuration_fingerprint, empty_folder, run_note, run_tags, write_provenance
from training.data.task_data import LABEL_QUARANTINE, TaskData, task_data
from training.progress import say, stage
from training.segmentation.page import write_segment_page
from training.segmentation.quality import predictive_value
from training.segmentation.rows import Population, population
from training.tracking.tracking import FinalRun, PyfuncModel, Tracker

Places = npt.NDArray[np.int32]
EFFECT_ROWS = 20_000
NAME, ROLE = "segments", "segmentation"


@dataclass(frozen=True)
class SegmentResult:
    """What a segmentation made.

    Attributes:
        run_id: of its MLflow run.
        model_uri: the logged model.
        name: under which it is registered when it is promoted.
        metrics: of the main partition.
        tables: "partition/table" → frame, as logged.
        notes: what a reader should know, alarms first.
        page: the page with all of it.
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
        told = asdict(self)
        del told["tables"]
        return told | {"page": str(self.page), "notes": list(self.notes)}


def segment(experiment: Experiment, *, progress: Console | None = None, runs: Path = Path("runs")) -> SegmentResult:
    """Fit and explain the segments of an experiment, and record them in MLflow.

    Args:
        experiment: with `[segments]`, or the defaults of it.
        progress: where to show what is going on.
        runs: the folder for files of runs.

    Raises:
        DataError: the events cannot be used, or too few customers.
        ConfigError: settings that do not exist, or no partition that this log has the columns for.
    """
    home = runs / experiment.name
    with stage(progress, f"Reading {experiment.events.path}"):
        log = load_log(experiment.events, quarantine_path=home / "quarantine.csv")
    return SegmentationRun.of(experiment, log, home, progress).run()


def refit_segments(
    experiment: Experiment, data: TaskData, matched_with: SegmentCollection | None, progress: Console | None = None
) -> tuple[SegmentCollection, dict[str, float]]:
    """Fit the segments of an experiment again, recording nothing.

    Args:
        experiment: as its run recorded it.
        data: its rows.
        matched_with: the segments that they were matched with, if any.
        progress: where to show what is going on.

    Returns:
        The segments and the figures that their run records.
    """
    settings = experiment.segmentation
    rows = population(data, experiment.task.horizon_days, settings.who)
    again = SegmentationRun(experiment, settings, data, rows, Tracker(experiment.name), Path(), progress)
    again.__dict__["_in_use"] = None if matched_with is None else (matched_with, "")
    return again.fitted(), again.metrics


class AllCustomers(Protocol):
    """All customers of a log of which a sample is at hand."""

    def points(self, found: ClusterSegments) -> PointParts:
        """Where they lie in the space that was chosen."""
        ...

    def members(self, rules: RuleSegments) -> Mapping[str, Hashes]:
        """Who is on each static list; see `RuleSegments.members_of`."""
        ...


@dataclass
class SegmentationRun:
    """One segmentation under way.

    Attributes:
        experiment, settings, data, rows: what is segmented, and how.
        tracker, home, progress: where it is recorded, where its files lie, where to show what is going on.
        notes, tables, metrics: what has come of it so far.
        everyone: the customers of the whole log, where the rows are of a sample.
        origin: what is known of that log, of which the data says only a part.
    """

    experiment: Experiment
    settings: Segments
    data: TaskData
    rows: Population
    tracker: Tracker
    home: Path
    progress: Console | None
    notes: list[str] = field(default_factory=list)
    tables: dict[str, pd.DataFrame] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)
    everyone: AllCustomers | None = None
    origin: str = ""
    _clusters: ClusterSegments | None = None

    @classmethod
    def of(cls, experiment: Experiment, log: Loaded, home: Path, progress: Console | None) -> Self:
        """Label a log and choose the rows."""
        data = task_data(experiment, log.journeys, experiment.labels(log.journeys, home / LABEL_QUARANTINE), log)
        settings = experiment.segmentation
        rows = population(data, experiment.task.horizon_days, settings.who)
        say(progress, f"  Segments of {rows.said}.")
        return cls(experiment, settings, data, rows, Tracker(experiment.name), home, progress)

    def run(self) -> SegmentResult:
        """Fit, explain, write the files, record."""
        folder = empty_folder(self.home / f"segments_{self.identity[:8]}")
        book = self.fitted()
        scorer = self._scorer(book)
        scorer.save(folder / "scoring")
        record_sample(scorer, self.rows.later, folder / "scoring")
        TrainingReference.of(scorer, self.rows.now, scorer.answers(self.rows.later), self.rows.later).save(
            folder / "scoring"
        )
        page = self._files(folder / "artifacts", book)
        with stage(self.progress, "Recording the segments in MLflow"):
            run = self._record(folder, scorer)
        uri = str(run.data.tags["model_uri"])
        return SegmentResult(
            str(run.info.run_id), uri, self.name, self.metrics, self.tables, tuple(self.notes), page.resolve()
        )

    def fitted(self) -> SegmentCollection:
        """Fit and explain every partition; fills tables, figures and notes."""
        partitions = self._partitions()
        for partition in partitions.values():
            with stage(self.progress, f"Explaining {len(partition.segments)} segments of '{partition.scheme}'"):
                self._explain(partition)
        return SegmentCollection(tuple(partitions.values()), self._main(partitions))

    @property
    def name(self) -> str:
        """Under which the segments are registered."""
        return f"{self.experiment.name}{SEGMENTS_SUFFIX}"

    @cached_property
    def identity(self) -> str:
        """Of the configuration and the segments that these are matched with."""
        text = configuration_fingerprint(self.experiment, self.data) + self.settings.model_dump_json()
        text += (self._in_use[1] if self._in_use else "") + self.origin
        return hashlib.sha256(text.encode()).hexdigest()

    @cached_property
    def _in_use(self) -> tuple[SegmentCollection, str] | None:
        """The champion's book and its version; None where there is none."""
        from training.tracking.registry import CHAMPION, resolve

        try:
            found = resolve(f"models:/{self.name}@{CHAMPION}", self.tracker.client)
        except ConfigError:
            return None
        book = Scorer.load(found.folder).model
        return (book, found.version) if isinstance(book, SegmentCollection) else None

    @cached_property
    def _tabular(self) -> TabularFeatures:
        """Of everything, for effects and rules; not what is clustered."""
        return TabularFeatures().fit(self._sampled)

    @cached_property
    def _sampled(self) -> Any:
        """At most `EFFECT_ROWS` of the rows that are now."""
        n = len(self.rows.now)
        if n <= EFFECT_ROWS:
            return self.rows.now
        chosen = np.random.default_rng(self.experiment.seed).choice(n, EFFECT_ROWS, replace=False)
        return self.rows.now.take(np.sort(chosen))

    def _partitions(self) -> dict[str, Segmentation]:
        """Every partition, fitted; those that the log lacks something for are noted and left out."""
        wanted = self.settings.partitions
        fitted: dict[str, Segmentation] = {}
        if CLUSTERS in wanted:
            with stage(self.progress, f"Looking for segments among {len(self.rows.now):,} customers"):
                fitted[CLUSTERS] = self._clusters = self._found()
        built_in = [name for name in wanted if name not in (CLUSTERS, RULES)]
        with stage(self.progress, "Fitting schemes and rules"):
            schemes, notes = fit_schemes(built_in, self.rows.now, self.settings.schemes)
            self.notes += notes
            fitted |= schemes
            if RULES in wanted:
                rules = RuleSegments(self.settings.rules, scheme=RULES, rest=self.settings.rest).fit(self.rows.now)
                if self.everyone and rules.lists_:
                    rules.take_members(self.everyone.members(rules))
                self.notes += rules.notes_
                fitted[RULES] = rules
        if not fitted:
            raise ConfigError(f"None of the partitions can be made from this log: {' '.join(self.notes)}")
        return {name: fitted[name] for name in wanted if name in fitted}

    def _main(self, partitions: Mapping[str, Segmentation]) -> str:
        main = self.settings.main_partition
        return main if main in partitions else next(iter(partitions))

    def _found(self) -> ClusterSegments:
        previous = None
        if self._in_use is not None:
            before = self._in_use[0].partitions.get(CLUSTERS)
            previous = before if isinstance(before, ClusterSegments) else None
        options = self.settings.found.model_copy(update={"seed": self.settings.found.seed or self.experiment.seed})
        found = ClusterSegments(options).fit(self.rows.now, previous, self.everyone.points if self.everyone else None)
        effects = segment_effects(self._tabular, self._sampled, found.assign(self._sampled), found.segments)
        kept = {one.id: one.name for one in previous.segments} if previous else None
        found.rename(name_segments(found.segments, effects, kept))
        self.tables[f"{CLUSTERS}/choice"] = found.choice
        self.metrics |= {"stability": found.stability_, "segments": float(len(found.segments))}
        self.metrics |= {"largest_share": float(found.shares_.max()), "smallest_share": float(found.shares_.min())}
        if found.report_ is not None:
            self.notes += found.report_.sentences
            self.metrics["kept_share"] = found.report_.kept_share
            parts = ("kept", "moved", "split", "merged", "appeared", "vanished")
            self.tables |= {f"{CLUSTERS}/refit_{part}": getattr(found.report_, part) for part in parts}
        return found

    def _explain(self, partition: Segmentation) -> None:
        """All tables of one partition; figures for its `metrics` where it is the one that was found."""
        scheme, segments = partition.scheme, partition.segments
        place = partition.assign(self.rows.known)
        profiles = self._profiles(partition, place)
        self.tables[f"{scheme}/segments"] = pd.DataFrame([asdict(one) for one in segments])
        now = self.rows.is_now
        self.tables[f"{scheme}/targets"] = target_table(
            profiles, segments, self.rows.known, place, self.settings.targets, now=now
        )
        if self.settings.goals and self._is_main(scheme):
            health = health_report(profiles, self.settings.goals)
            self.tables[f"{scheme}/health"] = health
            self.notes += [str(row) for row in health.loc[health["status"] == "fell short", "sentence"]]
        sampled = partition.assign(self._sampled)
        if len(np.unique(sampled[sampled >= 0])) > 1:
            self.tables[f"{scheme}/effects"] = segment_effects(self._tabular, self._sampled, sampled, segments)
            self._rule_of_thumb(partition, sampled)
        self._journeys(partition, sampled)
        self._drift(partition)
        self._usefulness(partition)

    def _profiles(self, partition: Segmentation, place: Places) -> pd.DataFrame:
        task = self.experiment.task.label_name(self.experiment.name)
        unknown = np.full(len(self.rows.now) + len(self.rows.earlier), np.nan)
        labels = {task: np.concatenate([unknown, self.data.y_train.astype(np.float64)])}
        found = segment_profiles(
            partition.segments,
            self.rows.known,
            place,
            labels,
            now=self.rows.is_now,
            earlier=self.rows.is_earlier,
            seed=self.experiment.seed,
        )
        held = segment_profiles(
            partition.segments, self.rows.test, partition.assign(self.rows.test), {task: self.data.y_test}
        ).table
        rates = [column for column in held.columns if str(column).startswith(f"{task}_")]
        table = found.table.merge(held[["id", *rates]].rename(columns=lambda c: c if c == "id" else f"held_out_{c}"))
        self.tables[f"{partition.scheme}/profiles"] = table
        self.notes += [said for said in found.notes if said not in self.notes]  # most are of the log, not of a scheme
        return table

    def _rule_of_thumb(self, partition: Segmentation, place: Places) -> None:
        """A short tree in place of the clusters; rules are rules already."""
        if not isinstance(partition, ClusterSegments):
            return
        try:
            tree = SegmentTree().fit(self._tabular, self._sampled, place, partition.segments)
        except DataError as error:
            self.notes.append(f"{partition.scheme}: {error}")
            return
        self.tables[f"{partition.scheme}/rules"] = tree.rules
        figure = tree.fidelity
        self.metrics |= {"rule_fidelity": figure.value, "rule_fidelity_low": figure.low}
        self.metrics["rule_fidelity_high"] = figure.high

    def _journeys(self, partition: Segmentation, place: Places) -> None:
        """Real journeys nearest to each centre, in the space of the found segments."""
        if self._clusters is not None:
            space = self._clusters.space(self._sampled)
            shown = typical_journeys(space, self._sampled, place, partition.segments)
            self.tables[f"{partition.scheme}/journeys"] = shown

    def _drift(self, partition: Segmentation) -> None:
        """From the fit to the held-out moment."""
        now, later = self.rows.now, self.rows.later
        moved = segment_drift(
            partition.segments,
            partition.assign(now),
            partition.assign(later),
            now.customer,
            later.customer,
            self.settings.drift,
        )
        scheme = partition.scheme
        self.tables[f"{scheme}/drift"] = moved.shares
        self.tables[f"{scheme}/migration"] = moved.migration
        if self._is_main(scheme):
            self.metrics |= {"population_stability_index": moved.psi, "stayed_share": moved.stayed}
            self.metrics["drift_alarm"] = float(moved.alarm)
        if moved.alarm:
            self.notes.insert(0, f"ALARM, {scheme}: {moved.sentence}")

    def _usefulness(self, partition: Segmentation) -> None:
        """Does the segment alone tell more about what comes than RFM cells of the same number?"""
        train, test = self.rows.train, self.rows.test
        found = predictive_value(
            partition.assign(train),
            partition.assign(test),
            len(partition.segments),
            train,
            self.data.y_train,
            test,
            self.data.y_test,
            seed=self.experiment.seed,
        )
        self.tables[f"{partition.scheme}/information"] = pd.DataFrame([found])
        if self._is_main(partition.scheme):
            self.metrics |= {f"test_{name}": value for name, value in found.items()}

    def _is_main(self, scheme: str) -> bool:
        return scheme == self.settings.main_partition

    def _scorer(self, book: SegmentCollection) -> Scorer:
        task = {"name": self.name, "kind": "segment", "experiment": self.experiment.name}
        return Scorer(
            model=book,
            task=task,
            schema=self.experiment.events.schema(),
            source=self.experiment.events.model_dump(mode="json"),
            touchpoints=visible_touchpoints(self.rows.now),
            about={**self._tags, "kind": book.kind, "segments": book.table().to_dict("records")},
        )

    @cached_property
    def _tags(self) -> dict[str, str]:
        own = {"task": self.name, "task_kind": "segment", "judged_by": "stability"}
        return run_tags(self.experiment, self.data) | own | ({"engine": "spark"} if self.everyone else {})

    def _keep_lookalikes(self, folder: Path) -> None:
        """Vectors of everyone with the encoder that made them; the key of their hashes lies apart, beside the run."""
        if self.settings.lookalikes is None:
            return
        with stage(self.progress, "Embedding journeys for look-alikes"):
            options = EncoderSettings.from_dict({"seed": self.experiment.seed} | (self.settings.found.encoder or {}))
            embedder = Embedder(options).fit(self.rows.now)
            key, ids = new_key(), list(self.rows.now.customer_ids)
            vectors = Lookalikes(self.settings.lookalikes)
            vectors.fit(embedder.embed(self.rows.now), embedder.version, ids, key).save(folder / "lookalikes")
            (folder / "lookalikes" / "encoder").mkdir()
            embedder.save(folder / "lookalikes" / "encoder")
        write_key(key, folder.parent / "lookalikes.key")
        self.notes.append(f"Look-alikes are under keyed hashes; the key lies in {folder.parent.name}/lookalikes.key.")

    def _files(self, folder: Path, book: SegmentCollection) -> Path:
        """The tables, the page, and where they come from; the page's path."""
        empty_folder(folder)
        write_provenance(folder, self.experiment)
        for name, table in self.tables.items():
            path = folder / "tables" / f"{name}.csv"
            path.parent.mkdir(parents=True, exist_ok=True)
            table.to_csv(path, index=False)
        (folder / "notes.json").write_text(json.dumps(self.notes, indent=1, ensure_ascii=False), encoding="utf-8")
        book.table().to_csv(folder / "segments.csv", index=False)
        self._keep_lookalikes(folder)
        page = folder / "segments.html"
        write_segment_page(page, self.experiment.name, self.rows.said, book, self.tables, self.metrics, self.notes)
        return page

    def _record(self, folder: Path, scorer: Scorer) -> Run:
        run_name = f"{self.identity[:8]}-segments"
        if (there := self.tracker.final_run(run_name, NAME)) is not None:
            return there
        said = f"{len(self.settings.partitions)} partitions, the main one '{self.settings.main_partition}', of "
        said += f"{self.rows.said}. The page `segments.html` among the artifacts shows all of them."
        text = run_note(self.experiment, self.data, f"Segments: {self.experiment.name}", said, {}, self.notes[:12])
        matched = {"matched_with": self._in_use[1]} if self._in_use else {}
        record = FinalRun(
            train_id=run_name,
            name=NAME,
            kind=SegmentCollection.kind,
            role=ROLE,
            params=self.settings.model_dump(mode="json", exclude={"rules"}),
            metrics=self.metrics,
            tags=self._tags | {"kind": SegmentCollection.kind, "train_id": run_name} | matched,
            note=text,
            artifacts=folder / "artifacts",
            datasets={split: self.data.rows(split) for split in ("train", "test")},
            fingerprint=self.data.labels_fingerprint,
            source=str(self.experiment.events.path),
        )
        return self.tracker.log_final(record, self._pyfunc(folder / "scoring", scorer))

    def _pyfunc(self, folder: Path, scorer: Scorer) -> PyfuncModel:
        sample = pd.read_parquet(folder / "sample" / "events.parquet")
        return PyfuncModel(
            folder=folder,
            signature=signature(self.experiment.events.schema(), scorer.answer_columns),
            input_example=input_example(sample),
            code_paths=code_paths(),
            requirements=(f"mlflow=={mlflow.__version__}", *requirements(scorer.model)),
        )

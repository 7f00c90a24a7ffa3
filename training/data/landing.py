"""Labelled snapshots with their features as Parquet, for models that stream from disk: `journeylab features`.

    land(load_experiment("experiments/configs/demo.toml"), Path("features"), engine=Engine("spark", "local[2]"))

    OUT/part-….parquet     customer_id, cutoff, label, split (train, test), weight, then the features (float32)
    OUT/_journeys/         what these customers did, a row a customer (`features.journeys.landed`)
    OUT/_features.json     the fitted features (`TabularFeatures.from_dict`) and what there is to say; written last

Readers of Parquet folders pass over names that begin with `_`. One machine and Spark write the same rows. Where not
all customers are needed, a share of them is kept, by a hash of the identifier: every row has then the weight 1 / share.
With `keep_positives` all rows labelled 1 stay, with the weight 1, and the share concerns the others: weighted means,
and so the probabilities of a model that is fitted with the weights, are those of all rows. The journeys are those of
the share, whoever is labelled what: `[events] path = OUT` trains and segments on them, and needs no weights.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from features.errors import ConfigError
from features.events.checks import write_quarantine
from features.journeys.event_log import EventLog, LogFacts, MemoryLog, Part
from features.journeys.journeys import Snapshots
from features.journeys.landed import JOURNEYS, STATE, about_journeys, is_landed, journey_batches, journey_schema
from features.journeys.partitions import MOST_PARTITIONS, sampled
from features.journeys.whole_files import BEING_WRITTEN, write_whole
from features.labels.plan import plan_labels, train_rows
from features.labels.task import CATEGORIES, LabelPlan
from features.spark.destinations import RemoteLocation, begin, require_local, write, write_remote_quarantine, write_text
from features.spark.log import SparkLog, session, translated_errors
from features.spark.session import quiet
from features.tabular.features import TabularFeatures
from features.tabular.fitting import batches_of, feature_schema, fit_features
from features.tabular.settings import TabularSettings
from training.config.engines import AUTOMATIC, SPARK, Engine
from training.config.experiment import Experiment
from training.data.open_log import open_event_log
from training.data.task_data import LABEL_QUARANTINE
from training.progress import say, stage

LABEL_FIELDS = pa.schema(
    [("label", pa.int8()), ("split", pa.string()), ("weight", pa.float32()), ("age_days", pa.float64())]
)
KEYS = pa.schema([("customer_id", pa.string()), ("cutoff", pa.int64()), ("order", pa.float64())])


@dataclass(frozen=True)
class Sample:
    """Which rows are kept.

    Attributes:
        share: of the customers.
        keep_positives: whether rows labelled 1 stay, whoever's they are.
    """

    share: float = 1.0
    keep_positives: bool = False

    def weights(self, rows: Snapshots, positive: npt.NDArray[np.bool_]) -> npt.NDArray[np.float32]:
        """(n,) of each row; 0 for one that is left out."""
        if self.share >= 1:
            return np.ones(len(rows), np.float32)
        chosen = sampled(rows.journeys.customer_ids, self.share)
        weight = np.where(chosen[rows.customer], MOST_PARTITIONS / round(self.share * MOST_PARTITIONS), 0.0)
        return np.where(positive, 1.0, weight).astype(np.float32) if self.keep_positives else weight.astype(np.float32)


@dataclass(frozen=True)
class Landed:
    """What came of it.

    Attributes:
        out: the folder, or what stands for it.
        rows: how many.
        features: how many.
        notes: what there is to say.
    """

    out: Path | RemoteLocation
    rows: int
    features: int
    notes: tuple[str, ...]


def land(
    experiment: Experiment,
    out: Path | RemoteLocation,
    *,
    engine: Engine = AUTOMATIC,
    sample: Sample = Sample(),
    progress: Console | None = None,
) -> Landed:
    """Label, learn the features on the training rows, and write rows and features.

    Args:
        experiment: events, task and settings of the features.
        out: a folder, new or of an earlier run; on Spark also a place that only Spark reaches.
        engine: where the log is processed.
        sample: which rows are kept.
        progress: where to show what is going on.

    Raises:
        ConfigError: a folder with other files, a share that is none; Spark or Java is missing.
        DataError: events or labels that cannot be used.
    """
    require_share(sample.share)
    if isinstance(out, Path):
        _require_free(out)
    if is_landed(experiment.events.path):
        raise ConfigError(f"{experiment.events.path} was landed already: give the log itself.")
    if engine.name != SPARK:
        out = require_local(out)
    elif isinstance(out, RemoteLocation):
        begin(session(engine.master, engine.settings), out)
    work = None if isinstance(out, RemoteLocation) else out.with_name(f"{out.name}.parts")
    with open_event_log(experiment.events, engine, work, progress) as log:
        plan, state, notes = _fitted(experiment, log, progress)
        about, notes = _about(experiment, log.facts, sample), (*log.notes, *notes)
        schema = _schema(state, plan)
        make = partial(landed_batches, state=state, plan=plan, sample=sample, schema=schema)
        if isinstance(out, RemoteLocation):
            assert isinstance(log, SparkLog)
            return _write_remotely(log, out, plan, make, schema, sample, (state, about, notes), progress)
        _begin(out)
        with stage(progress, "Writing features and journeys"):
            log.write(make, schema, out)
            log.write(*_journeys(log.facts, sample), out / JOURNEYS)
        log.quarantine(out.with_name(f"{out.name}_quarantine.csv"))
        write_quarantine(plan.quarantine, out.with_name(f"{out.name}_{LABEL_QUARANTINE}"))
        return _finish(out, state, about, notes, progress)


def _write_remotely(
    log: SparkLog,
    out: RemoteLocation,
    plan: LabelPlan,
    make: Callable[[Part], Iterator[pa.RecordBatch]],
    schema: pa.Schema,
    sample: Sample,
    description: tuple[str, dict[str, Any], tuple[str, ...]],
    progress: Console | None,
) -> Landed:
    """Rows, journeys, quarantine and description at a URI or in tables, written by Spark."""
    write_text(log.spark, "{}", out.within(STATE))  # not whole
    with stage(progress, f"Writing features and journeys into {out}"), translated_errors():
        rows = write(log.rows(make, schema), out)
        write(log.rows(*_journeys(log.facts, sample)), out.within(JOURNEYS))
    write_remote_quarantine(log.spark, log.set_aside(), out)
    if plan.quarantine is not None and plan.quarantine.num_rows:
        rejected = plan.quarantine.to_pandas().to_csv(index=False)
        write_text(log.spark, rejected, out.within(f"_{LABEL_QUARANTINE}"))
    text, landed = _description(out, rows, *description, progress)
    write_text(log.spark, text, out.within(STATE))
    return landed


def _require_free(out: Path) -> None:
    if out.exists() and (not out.is_dir() or (any(out.iterdir()) and not (out / STATE).exists())):
        raise ConfigError(f"{out} holds other files: name a new folder for the features.")


def require_share(share: float) -> None:
    """Raise a `ConfigError` where a share of customers is none."""
    if not 0 < share <= 1 or round(share * MOST_PARTITIONS) < 1:
        raise ConfigError(f"The share of customers is {share:g}: give one above 0, up to 1.")


def land_journeys(experiment: Experiment, log: EventLog, out: Path, sample: Sample) -> None:
    """Journeys alone: those of a share of a log's customers, without labels and features.

    Args:
        experiment: how the log is read.
        log: with the names of the whole.
        out: a folder, which is written over.
        sample: whose.
    """
    _begin(out)
    log.write(*_journeys(log.facts, sample), out / JOURNEYS)
    write_whole(out / STATE, json.dumps({"journeys": _about(experiment, log.facts, sample)}, ensure_ascii=False))


def _journeys(facts: LogFacts, sample: Sample) -> tuple[Callable[[Part], Iterator[pa.RecordBatch]], pa.Schema]:
    """What is done to each part, and the schema of what comes of it."""
    schema = journey_schema(facts)
    return partial(journey_batches, share=sample.share, schema=schema), schema


def _begin(out: Path) -> None:
    """An empty folder that says of itself that it is not whole, and may be written over."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    (out / STATE).write_text("{}", encoding="utf-8")


def _about(experiment: Experiment, facts: LogFacts, sample: Sample) -> dict[str, Any]:
    source = experiment.events.model_dump(mode="json", exclude={"path"})
    return about_journeys(facts, source, round(sample.share * MOST_PARTITIONS) / MOST_PARTITIONS)


def _fitted(experiment: Experiment, log: EventLog, progress: Console | None) -> tuple[LabelPlan, str, tuple[str, ...]]:
    """Labels planned and features learned; the latter as JSON."""
    with stage(progress, f"Labelling for {experiment.task.kind}, horizon {experiment.task.horizon_days:g} days"):
        plan = plan_labels(
            experiment.task, log, log.facts, min_class_count=experiment.min_class_count,
            allow_small=experiment.allow_small,
        )  # fmt: skip
    with stage(progress, "Learning features"):
        settings = TabularSettings(**experiment.features)
        pick = partial(_pick, log, plan)
        features = fit_features(log, log.facts, settings, partial(train_rows, plan=plan), pick)
    return plan, json.dumps(features.to_dict(), ensure_ascii=False), plan.notes


def _finish(
    out: Path, state: str, journeys: dict[str, Any], notes: tuple[str, ...], progress: Console | None
) -> Landed:
    files = sorted(out.glob("part-*.parquet"))
    rows = sum(pq.read_metadata(file).num_rows for file in files)
    text, landed = _description(out, rows, state, journeys, notes, progress)
    write_whole(out / STATE, text)
    (out / (STATE + BEING_WRITTEN)).unlink(missing_ok=True)
    return landed


def _description(
    out: Path | RemoteLocation,
    rows: int,
    state: str,
    journeys: dict[str, Any],
    notes: tuple[str, ...],
    progress: Console | None,
) -> tuple[str, Landed]:
    """The text of `STATE`, and the result."""
    data = json.loads(state)
    whole = {"features": data, "journeys": journeys, "notes": notes, "rows": rows}
    for note in notes:
        say(progress, f"  {note}")
    return json.dumps(whole, indent=1, ensure_ascii=False), Landed(out, rows, len(data["names"]), tuple(notes))


def _schema(state: str, plan: LabelPlan) -> pa.Schema:
    fields = [field for field in LABEL_FIELDS if field.name != "age_days" or "age_days" in plan.source.columns]
    if not plan.binary:
        fields[0] = pa.field("label", pa.float64())
    return feature_schema(_features(state), pa.schema(fields))


@cache
def _features(state: str) -> TabularFeatures:
    return TabularFeatures.from_dict(json.loads(state))


def landed_batches(
    part: Part, state: str, plan: LabelPlan, sample: Sample, schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """The rows of a part that are kept, with labels and features.

    Args:
        part: some customers.
        state: fitted features as JSON.
        plan: how they are labelled.
        sample: the choice of rows.
        schema: of the batches.
    """
    labelled = plan.labelled(part)
    weights = sample.weights(labelled.rows, labelled.labels.astype(np.bool_))
    chosen = np.flatnonzero(weights)
    label_columns: dict[str, Any] = {
        "label": labelled.labels[chosen].astype(np.int8 if plan.binary else np.float64),
        "split": np.where(labelled.is_test[chosen], "test", "train").astype(object),
        "weight": weights[chosen],
        **{name: values[chosen] for name, values in labelled.columns.items()},
    }
    yield from batches_of(labelled.rows.take(chosen), _features(state), label_columns, schema)


def _pick(log: EventLog, plan: LabelPlan, places: npt.NDArray[np.int64]) -> Any:
    """What gives the training rows at some places of the order that one machine has: by cutoff or age, then name."""
    if isinstance(log, MemoryLog):
        return partial(_at_places, plan=plan, places=places)
    if len(places) == places[-1] + 1:
        return partial(train_rows, plan=plan)
    if isinstance(log, SparkLog):
        with quiet(), translated_errors():
            keys = log.rows(partial(train_keys, plan=plan), KEYS, CATEGORIES).sort("order", "customer_id").persist()
            try:
                chosen = _numbered(keys, places)
            finally:
                keys.unpersist()
    else:
        tables = log.each(partial(_key_table, plan=plan), CATEGORIES)
        chosen = pa.concat_tables(tables).sort_by([("order", "ascending"), ("customer_id", "ascending")]).take(places)
    return partial(_chosen, plan=plan, chosen=chosen)


def _key_table(part: Part, plan: LabelPlan) -> pa.Table:
    return pa.Table.from_batches(train_keys(part, plan), KEYS)


def _at_places(part: Part, plan: LabelPlan, places: npt.NDArray[np.int64]) -> Snapshots:
    return train_rows(part, plan).take(places)


def train_keys(part: Part, plan: LabelPlan) -> Iterator[pa.RecordBatch]:
    """The training rows of a part by customer, cutoff and what they are sorted by."""
    labelled = plan.labelled(part)
    rows, age_days = labelled.train_rows(), labelled.columns.get("age_days")
    order = rows.cutoff if age_days is None else age_days[~labelled.is_test]
    ids = rows.journeys.customer_ids.take(pa.array(rows.customer))
    yield pa.record_batch([ids, pa.array(rows.cutoff), pa.array(order, pa.float64())], schema=KEYS)


def _numbered(keys: Any, places: npt.NDArray[np.int64]) -> pa.Table:
    """The rows at some places of a sorted frame."""
    from pyspark.sql import functions as F

    from features.spark.log import spark_schema

    sizes = keys.groupBy(F.spark_partition_id().alias("id")).count().collect()
    count = {row["id"]: row["count"] for row in sizes}
    firsts, at = {}, 0
    for number in sorted(count):
        firsts[number] = at
        at += count[number]
    chosen = keys.mapInArrow(partial(_among, firsts=firsts, places=places), spark_schema(KEYS))
    return chosen.toArrow()


def _among(
    batches: Iterator[pa.RecordBatch], firsts: dict[int, int], places: npt.NDArray[np.int64]
) -> Iterator[pa.RecordBatch]:
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    at = firsts.get(context.partitionId(), 0)
    for batch in batches:
        low, high = np.searchsorted(places, [at, at + batch.num_rows])
        yield batch.take(pa.array(places[low:high] - at))
        at += batch.num_rows


def _chosen(part: Part, plan: LabelPlan, chosen: pa.Table) -> Snapshots:
    """The training rows of a part that are among some rows."""
    rows = train_rows(part, plan)
    customers = part.journeys.index_of(chosen["customer_id"].combine_chunks())
    cutoffs = np.asarray(chosen["cutoff"])
    valid = customers >= 0
    pairs = set(zip(customers[valid].tolist(), cutoffs[valid].tolist(), strict=True))
    mine = zip(rows.customer.tolist(), rows.cutoff.tolist(), strict=True)
    return rows.take(np.array([pair in pairs for pair in mine], bool))

"""Scores for a log of events: what `journeylab score` does.

score_file("models:/demo_churn@champion", Path("events.parquet"), None, Path("scores.csv"))

A log that fits in memory is scored at once; a larger one, or one whose scores go to a folder, in partitions
(`training.scoring.partitioned`).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rich.console import Console

from features.errors import ConfigError
from features.events.files import size_of
from features.events.source import EventSource
from features.journeys.loading import load_log, stream_log
from features.spark.destinations import RemoteLocation, require_local
from models.scoring.scorer import Scorer
from training.config.engines import AUTOMATIC, DISK, SPARK, Engine
from training.progress import say, stage
from training.scoring.partitioned import SINGLE, WORKERS, Outcome, read_requests, score_in_partitions
from training.tracking.registry import resolve

EVENTS_AT_ONCE = 20_000_000  # about 1 GB packed


def score_file(
    model: str,
    events: Path,
    snapshots: Path | None,
    out: Path | RemoteLocation,
    *,
    as_of: Any = None,
    engine: Engine = AUTOMATIC,
    workers: int = WORKERS,
    progress: Console | None = None,
) -> Outcome:
    """Score customers of a log; at once, a row out for each row asked for, in the same order.

    Args:
        model: an MLflow model URI as `training.tracking.registry.resolve` takes it, or a scoring folder.
        events: a file or folder, raw as the model was trained on or canonical; read through the model's own adapter.
        snapshots: a table of `customer_id, cutoff`; by default every customer, just after the last event.
        out: where to write `customer_id, cutoff`, the answers, `reason`; `.csv` or `.parquet`, or a folder, which
            gets a part a partition; on Spark also a place that only Spark reaches.
        as_of: the cutoff of every customer, where there are no `snapshots`.
        engine: where the log is processed.
        workers: threads that score partitions on disk.
        progress: where to show what is going on.

    Raises:
        ConfigError: no such model; an ending of `out` that is neither; `as_of` beside `snapshots`.
        DataError: events or snapshots that cannot be used.
    """
    if isinstance(out, Path) and out.suffix and out.suffix not in SINGLE and not out.is_dir():
        raise ConfigError(f"Cannot write {out}: name a file that ends in .csv or .parquet, or a folder.")
    if as_of is not None and snapshots is not None:
        raise ConfigError("The snapshots say their own cutoffs: leave --as-of out, or the snapshots.")
    folder = scoring_folder(model)
    if engine.name == SPARK:
        from training.scoring.spark_scoring import score_on_spark  # PySpark is an extra

        outcome = score_on_spark(
            folder, str(events), out, engine=engine, snapshots=snapshots, as_of=as_of, progress=progress
        )
        _report(outcome, progress)
        return outcome
    out = require_local(out)
    if engine.name == DISK or out.suffix not in SINGLE or (engine.name is None and _is_large(folder, events)):
        outcome = score_in_partitions(
            folder, events, out, partitions=engine.partitions, snapshots=snapshots, as_of=as_of, workers=workers,
            progress=progress,
        )  # fmt: skip
    else:
        outcome = _score_at_once(folder, events, snapshots, out, as_of, progress)
    _report(outcome, progress)
    return outcome


def scoring_folder(model: str) -> Path:
    """The scoring folder of a model URI, or the folder itself."""
    folder = Path(model)
    return folder if folder.is_dir() else resolve(model).folder


def load_scorer(model: str) -> Scorer:
    """The scorer of a model URI or of a scoring folder."""
    return Scorer.load(scoring_folder(model))


def _is_large(folder: Path, events: Path) -> bool:
    """Whether a log should be split, and can be: some adapters need all of it at once."""
    if size_of(events).rows <= EVENTS_AT_ONCE:
        return False
    source = EventSource.model_validate(Scorer.load(folder).source).with_path(events)
    return stream_log(source) is not None


def _score_at_once(
    folder: Path, events: Path, snapshots: Path | None, out: Path, as_of: Any, progress: Console | None
) -> Outcome:
    requests = None if snapshots is None else read_requests(snapshots)
    scorer = Scorer.load(folder)
    quarantine = out.with_name(f"{out.stem}_quarantine.csv")
    with stage(progress, f"Reading {events}"):
        log = load_log(EventSource.model_validate(scorer.source).with_path(events), quarantine_path=quarantine)
    with stage(progress, "Scoring"):
        scored = scorer.score_journeys(log.journeys, requests, as_of=as_of)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        scored.frame.to_csv(out, index=False)
    else:
        scored.frame.to_parquet(out, index=False)
    without = int(scored.frame["reason"].notna().sum())
    rejected_path = quarantine if log.counts else None
    return Outcome(
        out, len(scored.frame), without, log.journeys.n_events, log.counts, scored.unknown, 1, rejected_path, log.notes
    )


def _report(outcome: Outcome, progress: Console | None) -> None:
    if outcome.quarantined:
        n = sum(outcome.quarantined.values())
        say(progress, f"  {n:,} events set aside, with reasons, in {outcome.quarantine}")
    if outcome.unknown:
        n = sum(outcome.unknown.values())
        say(progress, f"  {n:,} events of {len(outcome.unknown)} touchpoints unseen in training")

"""Scores of a log larger than memory, partition by partition of customers: `journeylab score … --partitions N`.

    score_in_partitions(Path("runs/churn/scoring"), Path("events.parquet"), Path("scores"), partitions=64)

First the log is split (`features.journeys.disk_log`), then each partition is packed and scored by itself
(`training.scoring.partition_scores`), with one cutoff for all. Memory is bounded: each worker holds one batch of the
log or one partition each. The numbers are those of the whole log at once, whatever the partitions and workers: a score
depends on its own customer's events and on nothing else. Killed at any moment, the same command goes on from the parts
that are there (`training.scoring.run_folder` says how it knows that they fit).
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from features.errors import ConfigError, DataError, JourneyLabError
from features.events.files import file_stamp, log_stamps, read_table, size_of
from features.events.source import EventSource
from features.journeys.disk_log import DiskLog
from features.journeys.landed import is_landed
from features.journeys.loading import stream_log
from features.journeys.partitions import partition_count
from features.journeys.stream import Stream
from features.journeys.whole_files import write_whole
from features.spark.destinations import RemoteLocation
from models.scoring.scorer import Scorer, as_of_moment, check_cutoffs
from training.progress import bar, say
from training.scoring.partition_scores import ROW, Work, part_summaries, score_parts, with_requests
from training.scoring.run_folder import RunFolder, ScoringPlan, model_digest, open_run_folder

WORKERS = min(4, os.cpu_count() or 1)
SINGLE = (".csv", ".parquet")  # what a file of scores ends in
PARTS = ".parts"  # beside a single file: the folder it is put together from


@dataclass(frozen=True)
class Outcome:
    """What came of scoring a log.

    Attributes:
        out: the file or folder of scores.
        rows: how many.
        without_answer: rows with a `reason` instead.
        events: that were scored on.
        quarantined: reason → events set aside.
        unknown: touchpoint never seen in training → events of it.
        partitions: how many.
        quarantine: where the events set aside lie; None where there are none.
        notes: what was assumed about the log.
    """

    out: Path | RemoteLocation
    rows: int
    without_answer: int
    events: int
    quarantined: dict[str, int] = field(default_factory=dict)
    unknown: dict[str, int] = field(default_factory=dict)
    partitions: int = 1
    quarantine: Path | RemoteLocation | None = None
    notes: tuple[str, ...] = ()


def score_in_partitions(
    folder: Path,
    events: Path,
    out: Path,
    *,
    partitions: int | None = None,
    snapshots: Path | None = None,
    as_of: Any = None,
    workers: int = WORKERS,
    progress: Console | None = None,
) -> Outcome:
    """Score a log in partitions; what an earlier attempt at the same left is gone on with.

    Args:
        folder: the scoring folder.
        events: a file or folder, as the model's source has them, or canonical.
        out: a folder for `part-….parquet` and `_SUCCESS`, or a `.csv` or `.parquet` file put together at the end.
        partitions: how many; by default one for each million events.
        snapshots: a table of `customer_id, cutoff`; by default every customer.
        as_of: the cutoff of every customer; by default just after the last event of the whole log.
        workers: threads that split and score, each with a partition in memory.
        progress: where to show what is going on.

    Raises:
        ConfigError: a folder that holds other files, or that another run writes to; too many partitions.
        DataError: events or snapshots that cannot be used.
    """
    scorer = Scorer.load(folder)
    stream, drop_repeats = _stream(scorer, events)
    plan = ScoringPlan(
        model_digest(folder),
        log_stamps(events),
        scorer.source,
        None if as_of is None else as_of_moment(as_of),
        None if snapshots is None else file_stamp(snapshots),
        partition_count(partitions, size_of(events).rows),
    )
    single = out.suffix in SINGLE
    with open_run_folder(out.with_name(out.name + PARTS) if single else out, plan) as run:
        if run.done.exists():
            say(progress, f"{run.folder} is complete already, of the same model, log and settings")
        else:
            _score(run, scorer, stream, drop_repeats, snapshots, workers, progress)
        outcome = _read(run, out)
        if single:
            join_parts(map(run.part, range(run.plan.partitions)), out, in_order=snapshots is not None)
    if single:
        shutil.rmtree(run.folder)
    return outcome


def _stream(scorer: Scorer, events: Path) -> tuple[Stream, bool]:
    if is_landed(events):
        raise ConfigError(
            f"{events} holds journeys that were landed: leave --partitions out and name a .csv or .parquet file, or "
            "give the log itself."
        )
    stream = stream_log(EventSource.model_validate(scorer.source).with_path(events))
    if stream is None:
        raise ConfigError(
            f"{events} is read by the adapter '{scorer.source.get('adapter')}', which needs all of it at once: "
            "leave --partitions out and name a .csv or .parquet file, or give canonical events."
        )
    return stream


def _score(
    run: RunFolder, scorer: Scorer, stream: Stream, drop_repeats: bool, snapshots: Path | None, workers: int,
    progress: Console | None,
) -> None:  # fmt: skip
    if run.resumed:
        say(progress, f"Going on with what an earlier attempt left in {run.folder}")
    requests = None if snapshots is None else read_requests(snapshots)
    with bar(progress, "Splitting the log", size_of(stream.path).batches) as advance:
        log = DiskLog(
            run.work,
            stream,
            run.plan.partitions,
            drop_repeats,
            numbered=drop_repeats,
            workers=workers,
            advance=advance,
        )
        _ = log.split
    work = Work(run, log, scorer)
    work = work if requests is None else with_requests(work, requests)
    score_parts(work, workers, progress)
    _finish(run, log)


def _finish(run: RunFolder, log: DiskLog) -> None:
    """Count, write the quarantine and the mark of success, and remove what is not needed any more."""
    summaries = list(part_summaries(run))
    strange = [about["part"] for about in summaries if about["plan"] != run.plan.key]
    events = sum(about["events"] for about in summaries)
    if strange or events != log.split.events:
        raise JourneyLabError(
            f"{run.folder} does not add up ({events:,} of {log.split.events:,} events in the parts; of another "
            f"plan: {strange}): delete the folder and start again."
        )
    unknown: dict[str, int] = {}
    for about in summaries:
        for name, n in about["unknown"].items():
            unknown[name] = unknown.get(name, 0) + n
    quarantine = log.quarantine(run.folder.with_name(f"{_stem(run.folder)}_quarantine.csv"))
    done = {
        "key": run.plan.key,
        "rows": sum(about["rows"] for about in summaries),
        "without_answer": sum(about["without_answer"] for about in summaries),
        "events": events - sum(about["repeated"] for about in summaries),
        "quarantined": log.rejected,
        "unknown": unknown,
        "partitions": len(summaries),
        "quarantine": None if quarantine is None else quarantine.name,
        "notes": list(log.notes),
        "parts": {run.part(about["part"]).name: about["rows"] for about in summaries},
        "plan": asdict(run.plan),
    }
    write_whole(run.done, json.dumps(done, indent=1, ensure_ascii=False, default=str))
    shutil.rmtree(run.work)


def _stem(folder: Path) -> str:
    """The output's name without its ending: `scores` of `scores.csv.parts` as of `scores`."""
    return folder.name.removesuffix(PARTS).removesuffix(".csv").removesuffix(".parquet")


def _read(run: RunFolder, out: Path) -> Outcome:
    """The outcome in the mark of success."""
    done = json.loads(run.done.read_text(encoding="utf-8"))
    quarantine_path = None if done["quarantine"] is None else out.with_name(done["quarantine"])
    names = ("rows", "without_answer", "events", "quarantined", "unknown", "partitions")
    return Outcome(out, **{name: done[name] for name in names}, quarantine=quarantine_path, notes=tuple(done["notes"]))


def read_requests(path: Path) -> pd.DataFrame:
    """Read a table of requested rows.

    Raises:
        DataError: it has none, or no `customer_id` or `cutoff`.
    """
    frame: pd.DataFrame = read_table(path).to_pandas()
    check_cutoffs(frame)
    if frame.empty:
        raise DataError(f"{path} has no rows: give a table of customer_id, cutoff with one row a wanted score.")
    return frame


def join_parts(parts: Iterable[Path], out: Path, in_order: bool) -> None:
    """One file of all parts.

    Args:
        parts: Parquet files of one schema.
        out: a `.csv` or `.parquet` file.
        in_order: of the rows asked for, where rows were (they are in memory anyway).
    """
    tables: Iterator[pa.Table] = (pq.read_table(part) for part in parts)
    if in_order:
        tables = iter([pa.concat_tables(tables).sort_by(ROW).drop_columns(ROW)])
    write_whole(out, lambda path: write_tables(tables, path, is_csv=out.suffix == ".csv"))


def write_tables(tables: Any, path: Path, is_csv: bool) -> None:
    """Write tables of one schema, one after the other, into one file."""
    first = next(tables).replace_schema_metadata(None)
    if is_csv:
        first.to_pandas().to_csv(path, index=False)
        for table in tables:
            table.to_pandas().to_csv(path, index=False, header=False, mode="a")
        return
    with pq.ParquetWriter(path, first.schema) as writer:
        writer.write_table(first)
        for table in tables:
            writer.write_table(table.replace_schema_metadata(None))

"""Scores on Spark: `journeylab score … --engine spark --master …`.

    score_on_spark("models:/churn@champion", "events/", Path("scores"), master="local[2]")

The scoring folder is sent to the executors; each of them scores its customers with the same code
(`models.scoring.scorer.Scorer`). Every number is that of one machine.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from features.errors import ConfigError
from features.events.source import EventSource
from features.journeys.event_log import Part, total
from features.journeys.journeys import id_texts
from features.spark.destinations import RemoteLocation, begin, read, write, write_remote_quarantine
from features.spark.log import SUCCESS, WRITING, WRITTEN, SparkLog, session, translated_errors
from features.spark.reading import read_log, request_frame
from models.scoring.scorer import Scorer, as_of_moment, moments_of, unknown_touchpoints
from training.config.engines import AUTOMATIC, Engine
from training.progress import stage
from training.scoring.partition_scores import KINDS, ROW
from training.scoring.partitioned import PARTS, SINGLE, Outcome, join_parts, read_requests
from training.scoring.run_folder import plan_key
from training.scoring.spark_files import received, sent

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def score_on_spark(
    folder: Path,
    events: str,
    out: Path | RemoteLocation,
    *,
    engine: Engine = AUTOMATIC,
    snapshots: Path | None = None,
    as_of: Any = None,
    progress: Console | None = None,
) -> Outcome:
    """Score customers of a log that Spark reads.

    Args:
        folder: the scoring folder.
        events: a path, a URI or the name of a table, raw as the model was trained on or canonical.
        out: a folder for Parquet files, or a `.csv` or `.parquet` file put together at the end; or a place that only
            Spark reaches.
        engine: where Spark runs, and how many partitions of customers there are.
        snapshots: a table of `customer_id, cutoff`; by default every customer.
        as_of: the cutoff of every customer; by default just after the last event of the whole log.
        progress: where to show progress.

    Raises:
        ConfigError: Spark or Java is missing; a folder that holds other files.
        DataError: events or snapshots that cannot be used.
    """
    if isinstance(out, Path):
        _require_free(_target(out))
    scorer = Scorer.load(folder)
    requests = None if snapshots is None else request_table(read_requests(snapshots))
    spark = session(engine.master, engine.settings)
    if isinstance(out, RemoteLocation):
        begin(spark, out)
    source = EventSource.model_validate({**scorer.source, "path": events})
    request_rows = None if requests is None else request_frame(spark, requests)
    log = read_log(spark, source, requests=request_rows, partitions=engine.partitions)
    job = _Job(log, folder, scorer, events, requests is not None, as_of, progress)
    try:
        return job.write_remotely(out) if isinstance(out, RemoteLocation) else job.write_files(out)
    finally:
        log.close()


def _target(out: Path) -> Path:
    """The folder of the tasks' files; a single file is put together from one beside it."""
    return out.with_name(out.name + PARTS) if out.suffix in SINGLE else out


@dataclass(frozen=True)
class _Job:
    """A log to score.

    Attributes:
        log, folder, scorer: the log and the model.
        events: the name of the log.
        has_requests: whether the log has requested rows.
        as_of: the cutoff of everyone; None for just after the last event.
        progress: where to show progress.
    """

    log: SparkLog
    folder: Path
    scorer: Scorer
    events: str
    has_requests: bool
    as_of: Any
    progress: Console | None

    def write_files(self, out: Path) -> Outcome:
        """Write files from the tasks."""
        log, target = self.log, _target(out)
        unknown: dict[str, int] | None
        if not self.has_requests and self.as_of is None:
            cutoff = self._cutoff()
            with stage(self.progress, "Scoring on Spark"):
                rows = log.write(*scoring_work(log, self.folder, cutoff), target)
                unknown = self._unknown()
        else:
            with stage(self.progress, f"Packing and scoring {self.events} on Spark"):
                work, schema = scoring_work(log, self.folder, None if self.has_requests else as_of_moment(self.as_of))
                rows, unknown = log.write_once(work, schema, target, self._unknown_of)
        outcome = _outcome(log, unknown or {}, target, out, rows)
        if target != out:
            join_parts(sorted(target.glob("part-*.parquet")), out, in_order=self.has_requests)
            shutil.rmtree(target)
        return outcome

    def write_remotely(self, out: RemoteLocation) -> Outcome:
        """Write rows with Spark."""
        log, cutoff = self.log, self._cutoff()
        with stage(self.progress, f"Scoring into {out}"), translated_errors():
            rows = write(scores(log, self.folder, cutoff), out)
            without = read(log.spark, out).filter("reason IS NOT NULL").count()
            unknown = self._unknown()
        aside = write_remote_quarantine(log.spark, log.set_aside(), out)
        counts, notes, events = log.rejected, log.notes, log.n_events
        return Outcome(out, rows, without, events, counts, unknown, log.partitions, aside, notes)

    def _cutoff(self) -> int | None:
        """Of everyone, µs, once the log is known to be one; None for requested rows."""
        with stage(self.progress, f"Packing {self.events} on Spark"):
            end_us = self.log.facts.end_us
        if self.has_requests:
            return None
        return end_us + 1 if self.as_of is None else as_of_moment(self.as_of)

    @property
    def _unknown_of(self) -> Any:
        return partial(unknown_of, touchpoints=self.scorer.touchpoints)

    def _unknown(self) -> dict[str, int]:
        return total(self.log, self._unknown_of, ("touchpoint",))


def _ours(folder: Path) -> bool:
    """Whether a folder's mark of success is this package's: an empty one may be Spark's."""
    mark = folder / SUCCESS
    content = mark.read_bytes() if mark.is_file() else b"?"
    if not content:  # of an earlier version, whose files have no random number in their names as Spark's have
        names = [file.name for file in folder.iterdir() if file.name not in (SUCCESS, WRITING)]
        return all(re.fullmatch(r"part-\d{5}\.parquet", name) for name in names)
    return content == WRITTEN.encode() or (mark.is_file() and plan_key(folder) is not None)


def _require_free(target: Path) -> None:
    """A folder of an earlier run is written over, another one is not."""
    has_files = target.is_dir() and any(file.name != WRITING for file in target.iterdir())
    if has_files and not _ours(target):
        raise ConfigError(f"{target} holds other files: name a new folder for the scores.")


def request_table(requests: pd.DataFrame) -> pd.DataFrame:
    """Requested rows with text and µs, as `request_frame` takes them."""
    ids = id_texts(requests["customer_id"]).to_pylist()
    return pd.DataFrame({"customer_id": pd.Series(ids, dtype=object), "cutoff": moments_of(requests["cutoff"])})


def scores(log: SparkLog, folder: Path, cutoff: int | None) -> DataFrame:
    """A DataFrame of scores: everyone at `cutoff` (µs), or the requested rows."""
    return log.rows(*scoring_work(log, folder, cutoff))


def scoring_work(log: SparkLog, folder: Path, cutoff: int | None) -> tuple[Any, pa.Schema]:
    """The function of each part and the schema of its rows; see `scores`."""
    scorer = Scorer.load(folder)
    answers = [(name, KINDS[kind]) for name, kind in scorer.answer_columns.items()]
    fields = [("customer_id", pa.string()), ("cutoff", pa.timestamp("us")), *answers, ("reason", pa.string())]
    schema = pa.schema(fields if cutoff is not None else [(ROW, pa.int64()), *fields])
    name = sent(log, folder)
    return partial(scored_batches, name=name, cutoff=cutoff, schema=schema), schema


@cache
def _scorer(name: str) -> Scorer:
    """The scorer on an executor, unpacked and loaded once a process."""
    return received(name, Scorer.load)


def scored_batches(part: Part, name: str, cutoff: int | None, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The scores of a part.

    Args:
        part: some customers.
        name: of the scoring folder among Spark's files.
        cutoff: of everyone, µs; None for requested rows.
        schema: of the answer.
    """
    scorer = _scorer(name)
    if cutoff is not None:
        if not part.journeys.n_customers:
            return
        frame = scorer.score_journeys(part.journeys, as_of=pd.Timestamp(cutoff, unit="us"), count_unknown=False).frame
    else:
        if part.requests is None:
            return
        ids = pd.Series(part.requests["customer_id"].to_pylist(), dtype=object)
        when = np.asarray(part.requests["cutoff"]).view("datetime64[us]")
        requests = pd.DataFrame({"customer_id": ids, "cutoff": when})
        frame = scorer.score_journeys(part.journeys, requests, count_unknown=False).frame
        frame = frame.assign(**{ROW: np.asarray(part.requests["row"]) + 1})
    table = pa.Table.from_pandas(frame, schema, preserve_index=False)
    yield from table.to_batches(max_chunksize=1 << 14)


def _outcome(log: SparkLog, unknown: dict[str, int], target: Path, out: Path, rows: int) -> Outcome:
    reasons = (pq.read_table(part, columns=["reason"])["reason"] for part in target.glob("part-*.parquet"))
    without = sum(len(column) - column.null_count for column in reasons)
    counts, notes, events = log.rejected, log.notes, log.n_events
    quarantine = log.quarantine(out.with_name(f"{out.stem}_quarantine.csv"))
    return Outcome(out, rows, without, events, counts, unknown, log.partitions, quarantine, notes)


def unknown_of(part: Part, touchpoints: tuple[str, ...]) -> dict[str, int]:
    """Touchpoint of a part that is not in `touchpoints` → its events."""
    return unknown_touchpoints(part.journeys, touchpoints)

"""Scores on Spark: `journeylab score … --engine spark --master …`.

    score_on_spark("models:/churn@champion", "events/", Path("scores"), master="local[2]")

The scoring folder travels to the executors; each of them scores its customers with the one code that scores
(`models.packaged.Scorer`). Every number is that of one machine.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from features.errors import ConfigError
from features.journeys import id_texts
from features.parts import Part, total
from features.sources import EventSource
from features.spark import SUCCESS, WRITING, WRITTEN, SparkLog, asked_frame, our_errors, read_log, session
from features.spark_places import Away, begin, read, write, write_aside
from models.packaged import Scorer, as_of_moment, moments_of, unknown_touchpoints
from training.bulk import PARTS, Outcome, put_together, read_asked
from training.bulk_parts import KINDS, ROW
from training.progress import stage
from training.spark_files import received, sent

if TYPE_CHECKING:
    from pyspark.sql import DataFrame


def score_on_spark(
    folder: Path,
    events: str,
    out: Path | Away,
    *,
    master: str | None = None,
    settings: dict[str, str] | None = None,
    snapshots: Path | None = None,
    as_of: Any = None,
    partitions: int | None = None,
    progress: Console | None = None,
) -> Outcome:
    """Score customers of a log that Spark reads.

    Args:
        folder: the scoring folder.
        events: a path, a URI or the name of a table, raw as the model was trained on or canonical.
        out: a folder for Parquet files, or a `.csv` or `.parquet` file put together at the end; or a place that only
            Spark reaches.
        master: of Spark.
        settings: of Spark.
        snapshots: a table of `customer_id, cutoff`; by default every customer.
        as_of: the cutoff of every customer; by default just after the last event of the whole log.
        partitions: of customers; by default one for each million events.
        progress: where to show what is going on.

    Raises:
        ConfigError: Spark or Java is missing; a folder that holds other files.
        DataError: events or snapshots that cannot be used.
    """
    single = isinstance(out, Path) and out.suffix in (".csv", ".parquet")
    target = out.with_name(out.name + PARTS) if isinstance(out, Path) and single else out
    if isinstance(target, Path):
        _require_free(target)
    scorer = Scorer.load(folder)
    asked = None if snapshots is None else asked_rows(read_asked(snapshots))
    spark = session(master, settings)
    if isinstance(target, Away):
        begin(spark, target)
    source = EventSource.model_validate({**scorer.source, "path": events})
    wanted = None if asked is None else asked_frame(spark, asked)
    log = read_log(spark, source, asked=wanted, partitions=partitions)
    try:
        if isinstance(target, Away):
            return _score_away(log, folder, scorer, target, asked is not None, as_of, progress)
        if asked is None and as_of is None:
            with stage(progress, f"Packing {events} on Spark"):
                cutoff = log.facts.end_us + 1
            with stage(progress, "Scoring on Spark"):
                rows = log.write(*scoring_work(log, folder, cutoff), target)
                unknown = total(log, partial(unknown_of, known=scorer.touchpoints), ("touchpoint",))
        else:
            with stage(progress, f"Packing and scoring {events} on Spark"):
                work, schema = scoring_work(log, folder, None if asked is not None else as_of_moment(as_of))
                rows, counted = log.write_once(work, schema, target, partial(unknown_of, known=scorer.touchpoints))
                unknown = counted or {}
        assert isinstance(out, Path)
        outcome = _outcome(log, unknown, target, out, rows)
    finally:
        log.close()
    if single:
        put_together(sorted(target.glob("part-*.parquet")), out, in_order=asked is not None)
        shutil.rmtree(target)
    return outcome


def _ours(mark: Path, names: list[str]) -> bool:
    """Whether a mark of success is this package's: says so, or is that of one machine; an empty one may be Spark's."""
    said = mark.read_bytes() if mark.is_file() else b"?"
    if not said:  # of an earlier version, whose files have no random number in their names as Spark's have
        return all(re.fullmatch(r"part-\d{5}\.parquet", name) for name in names if name != SUCCESS)
    return said == WRITTEN.encode() or (said.startswith(b"{") and b'"key"' in said)


def _score_away(
    log: SparkLog, folder: Path, scorer: Scorer, out: Away, asked: bool, as_of: Any, progress: Console | None
) -> Outcome:
    """Rows that Spark writes itself."""
    with stage(progress, "Packing on Spark"):
        end_us = log.facts.end_us
        cutoff = None if asked else end_us + 1 if as_of is None else as_of_moment(as_of)
        unknown = total(log, partial(unknown_of, known=scorer.touchpoints), ("touchpoint",))
        counts, notes, events = log.told
    with stage(progress, f"Scoring into {out}"), our_errors():
        rows = write(scores(log, folder, cutoff), out)
        without = read(log.spark, out).filter("reason IS NOT NULL").count()
    aside = write_aside(log.spark, log.set_aside(), out)
    return Outcome(out, rows, without, events, counts, unknown, log.partitions, aside, notes)


def _require_free(target: Path) -> None:
    """A folder of an earlier run is written over, another one is not."""
    others = [one.name for one in target.iterdir() if one.name != WRITING] if target.is_dir() else []
    if others and not _ours(target / SUCCESS, others):
        raise ConfigError(f"{target} holds other files: name a new folder for the scores.")


def asked_rows(asked: pd.DataFrame) -> pd.DataFrame:
    """Rows asked for with text and µs, as `asked_frame` takes them."""
    ids = id_texts(asked["customer_id"]).to_pylist()
    return pd.DataFrame({"customer_id": pd.Series(ids, dtype=object), "cutoff": moments_of(asked["cutoff"])})


def scores(log: SparkLog, folder: Path, cutoff: int | None) -> DataFrame:
    """A DataFrame of scores: everyone at `cutoff` (µs), or the rows that the log was asked for."""
    return log.rows(*scoring_work(log, folder, cutoff))


def scoring_work(log: SparkLog, folder: Path, cutoff: int | None) -> tuple[Any, pa.Schema]:
    """What is done to each part, and the schema of what comes of it; see `scores`."""
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
        cutoff: of everyone, µs; None for the rows asked for.
        schema: of the answer.
    """
    scorer = _scorer(name)
    if cutoff is not None:
        if not part.journeys.n_customers:
            return
        frame = scorer.score_journeys(part.journeys, as_of=pd.Timestamp(cutoff, unit="us"), count_unknown=False).frame
    else:
        if part.asked is None:
            return
        ids = pd.Series(part.asked["customer_id"].to_pylist(), dtype=object)
        when = np.asarray(part.asked["cutoff"]).view("datetime64[us]")
        asked = pd.DataFrame({"customer_id": ids, "cutoff": when})
        frame = scorer.score_journeys(part.journeys, asked, count_unknown=False).frame
        frame = frame.assign(**{ROW: np.asarray(part.asked["row"]) + 1})
    table = pa.Table.from_pandas(frame, schema, preserve_index=False)
    yield from table.to_batches(max_chunksize=1 << 14)


def _outcome(log: SparkLog, unknown: dict[str, int], target: Path, out: Path, rows: int) -> Outcome:
    reasons = (pq.read_table(part, columns=["reason"])["reason"] for part in target.glob("part-*.parquet"))
    without = sum(len(column) - column.null_count for column in reasons)
    counts, notes, events = log.told
    quarantine = log.quarantine(out.with_name(f"{out.stem}_quarantine.parquet"))
    return Outcome(out, rows, without, events, counts, unknown, log.partitions, quarantine, notes)


def unknown_of(part: Part, known: tuple[str, ...]) -> dict[str, int]:
    """Touchpoint of a part that is not among those known → its events."""
    return unknown_touchpoints(part.journeys, known)

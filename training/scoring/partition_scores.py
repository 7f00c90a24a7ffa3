"""Scoring in partitions: a partition's events packed, its customers scored, its part written.

A part that exists is complete and says in its metadata what went into it, so every customer is scored exactly once,
however often the run was killed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from features.journeys.disk_log import DiskLog
from features.journeys.journeys import id_texts
from features.journeys.partitions import partition_of
from features.journeys.whole_files import write_whole
from models.scoring.scorer import Scorer
from training.progress import bar
from training.scoring.run_folder import RunFolder

PART_METADATA = b"journeylab"
ROW = "row"  # of the snapshots table, 1-based: parts of requested rows name the row of each answer
KINDS = {"double": pa.float64(), "string": pa.string()}


@dataclass(frozen=True)
class Work:
    """The work on each partition.

    Attributes:
        run: the run folder.
        log: the events on disk.
        scorer: the model.
        requests: requested rows of `customer_id, cutoff`; None for everyone.
        request_parts: (rows,) the partition of each.
    """

    run: RunFolder
    log: DiskLog
    scorer: Scorer
    requests: pd.DataFrame | None = None
    request_parts: npt.NDArray[np.uint16] | None = None

    def columns(self) -> pa.Schema:
        """The columns of every part."""
        answers = [(name, KINDS[kind]) for name, kind in self.scorer.answer_columns.items()]
        fields = [("customer_id", pa.string()), ("cutoff", pa.timestamp("us")), *answers, ("reason", pa.string())]
        return pa.schema(fields if self.requests is None else [(ROW, pa.int64()), *fields])

    def missing(self) -> list[int]:
        """The partitions without a part."""
        return [part for part in range(self.run.plan.partitions) if not self.run.part(part).exists()]

    def do(self, part: int) -> dict[str, Any]:
        """Score a partition, write its part and return its counts."""
        packed, duplicates = self.log.pack(part)
        journeys = packed.journeys
        requests = self._part_requests(part)
        cutoff = self.run.plan.as_of if self.run.plan.as_of is not None else (self.log.split.last or 0) + 1
        scored = self.scorer.score_journeys(journeys, requests, as_of=None if requests is not None else _moment(cutoff))
        frame = scored.frame if requests is None else scored.frame.assign(**{ROW: requests.index.to_numpy() + 1})
        without = int(scored.frame["reason"].notna().sum())
        about = {
            "plan": self.run.plan.key, "part": part, "rows": len(frame), "without_answer": without,
            "events": journeys.n_events + duplicates, "repeated": duplicates, "unknown": scored.unknown,
        }  # fmt: skip
        table = pa.Table.from_pandas(frame, self.columns(), preserve_index=False)
        write_whole(self.run.part(part), partial(_write, table, about))
        return about

    def _part_requests(self, part: int) -> pd.DataFrame | None:
        return None if self.requests is None else self.requests.iloc[np.flatnonzero(self.request_parts == part)]


def with_requests(work: Work, requests: pd.DataFrame) -> Work:
    """The same work for the rows of a table of `customer_id, cutoff`."""
    requests = requests[["customer_id", "cutoff"]].reset_index(drop=True)
    parts = partition_of(id_texts(requests["customer_id"]).fill_null(""), work.run.plan.partitions)
    return replace(work, requests=requests, request_parts=parts)


def score_parts(work: Work, workers: int, progress: Console | None) -> None:
    """Score the partitions that are missing, `workers` at a time; each holds one partition in memory."""
    missing, total = work.missing(), work.run.plan.partitions
    if not missing:
        return
    pool = ThreadPoolExecutor(workers)
    try:
        with bar(progress, "Scoring partitions", total, total - len(missing)) as advance:
            for done in as_completed([pool.submit(work.do, part) for part in missing]):
                advance(f"{done.result()['rows']:,} rows")
    finally:
        pool.shutdown(cancel_futures=True)


def part_summaries(run: RunFolder) -> Iterator[dict[str, Any]]:
    """The description of each part, in order."""
    for part in range(run.plan.partitions):
        about: dict[str, Any] = json.loads(pq.read_metadata(run.part(part)).metadata[PART_METADATA])
        yield about


def _write(table: pa.Table, about: dict[str, Any], path: Path) -> None:
    metadata = {PART_METADATA: json.dumps(about, ensure_ascii=False)}
    repeating = [name for name in table.column_names if name in ("cutoff", "reason") or table[name].type == pa.string()]
    pq.write_table(
        table.replace_schema_metadata(metadata),
        path,
        use_dictionary=[name for name in repeating if name != "customer_id"],
    )


def _moment(microseconds: int) -> pd.Timestamp:
    return pd.Timestamp(microseconds, unit="us")

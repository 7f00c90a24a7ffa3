"""A log on Spark: blocks of whole customers, read by the same functions as on one machine.

    log = read_log(session("local[2]"), EventSource(path="events/"))
    log.facts                               # first and last event, names: of the whole log
    total(log, count_something)             # partial results of all parts, merged
    log.rows(make_rows, schema)             # a DataFrame of the rows that a function makes of each part

Rows are renamed, hashed by customer, shuffled, and sorted by that hash; each partition is then checked and packed into
blocks (`features.spark.blocks`), which Spark keeps on its executors' disks until `close`. All further work reads blocks
only. `features.spark.reading` reads and shuffles the rows.
"""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features import errors
from features.errors import DataError
from features.events.checks import (
    DUPLICATE,
    FILE,
    first_rejected_rows,
    require_event_log,
    write_quarantine,
)
from features.events.source import file_in_errors
from features.events.table_reader import TableReader
from features.journeys.event_log import LogFacts, Part, facts_from, merged
from features.journeys.stream import FILE_BITS
from features.spark.blocks import ABOUT, BAD, BLOCKS, ROWS_A_BLOCK, needed
from features.spark.session import quiet
from features.spark.session import session as session
from features.spark.tasks import (
    PART,
    PAYLOAD,
    SET_ASIDE,
    bad_rows,
    build_blocks,
    loads,
    merged_abouts,
    merged_partials,
    part_results,
    partials,
    partials_again,
    plain,
    rows_of,
    written,
    written_at_once,
)

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

T = TypeVar("T")
SUCCESS, WRITING = "_SUCCESS", "_writing"
WRITTEN = "written by journeylab\n"  # text of the mark; Spark writes an empty one
PARTIALS_AT_ONCE = 256  # more than these are merged on the cluster before the driver merges them


@dataclass
class SparkLog:
    """A log in blocks on a cluster; `close` frees them.

    Attributes:
        spark: the session.
        shuffled: rows by customer.
        rules: how they are read and checked.
        source_notes: on the source as a whole.
        partitions: their number.
        rows_a_block: events that a block has.
        files: the names of the files in order, where there are several.
        path: of the log, for errors; None for a frame.
    """

    spark: SparkSession
    shuffled: DataFrame
    rules: TableReader
    source_notes: tuple[str, ...] = ()
    partitions: int = 1
    rows_a_block: int = ROWS_A_BLOCK
    files: tuple[str, ...] = ()
    path: Path | None = None
    names: dict[str, tuple[str, ...]] | None = field(default=None, repr=False)
    _result_frames: list[DataFrame] = field(default_factory=list, repr=False)
    _bad: Path | None = field(default=None, repr=False)  # the folder of the rejected rows after one pass

    @cached_property
    def blocks(self) -> DataFrame:
        """Rows of `features.spark.blocks.BLOCKS`, kept on the executors' disks."""
        from pyspark import StorageLevel

        work = partial(build_blocks, rules=self.rules, rows_a_block=self.rows_a_block)
        with quiet():
            return self.shuffled.mapInArrow(work, spark_schema(BLOCKS)).persist(StorageLevel.DISK_ONLY)

    def each(self, function: Callable[[Part], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """The results of a function for the parts, merged task by task; see `features.journeys.event_log.Parts`."""
        work = partial(partials, function=function, names=self.names)
        with quiet(), translated_errors():
            results = _collected(self._block_rows(columns).mapInArrow(work, spark_schema(PAYLOAD)), self.partitions)
        yield from results

    def keep(self, function: Callable[[Part], Any], columns: Sequence[str] | None = None) -> KeptResults:
        """The results of a function for each part, computed once and kept on the executors until `close`.

        Args:
            function: of a module, or a partial of one; a result of None is dropped.
            columns: the categories and numbers that it reads; all by default.
        """
        from pyspark import StorageLevel

        work = partial(part_results, function=function, names=self.names)
        with quiet():
            frame = self._block_rows(columns).mapInArrow(work, spark_schema(PAYLOAD)).persist(StorageLevel.DISK_ONLY)
        self._result_frames.append(frame)
        return KeptResults(frame, self.partitions)

    def rows(
        self,
        function: Callable[[Part], Iterable[pa.RecordBatch]],
        schema: pa.Schema,
        columns: Sequence[str] | None = None,
    ) -> DataFrame:
        """A DataFrame of the rows that a function makes of each part, computed on demand.

        Args:
            function: of a module, or a partial of one.
            schema: of its rows; dictionaries become their values.
            columns: the categories and numbers that it reads; all by default.
        """
        schema = plain(schema)
        with quiet():
            work = partial(rows_of, function=function, names=self.names, schema=schema)
            return self._block_rows(columns).mapInArrow(work, spark_schema(schema))

    def write(
        self,
        function: Callable[[Part], Iterable[pa.RecordBatch]],
        schema: pa.Schema,
        folder: Path,
        columns: Sequence[str] | None = None,
    ) -> int:
        """Write the rows that a function makes of the parts as Parquet, one file for each partition, from the tasks.

        Spark's own writer takes rows one by one, which is slow with hundreds of columns.

        Args:
            function: of a module, or a partial of one.
            schema: of its rows.
            folder: on storage that all workers reach; Parquet files of an earlier run are removed.
            columns: the categories and numbers that it reads; all by default.

        Returns:
            The number of rows.
        """
        with _writing(folder) as place:
            work = partial(written, function=function, names=self.names, schema=schema, folder=place)
            with quiet(), translated_errors():
                counts = self._block_rows(columns).mapInArrow(work, "rows bigint").collect()
            return sum(row["rows"] for row in counts)

    def write_once(
        self,
        function: Callable[[Part], Iterable[pa.RecordBatch]],
        schema: pa.Schema,
        folder: Path,
        extra: Callable[[Part], T] | None = None,
    ) -> tuple[int, T | None]:
        """As `write`, for work that needs no facts of the whole log: in one pass over the rows, without blocks.

        `facts`, `rejected` and `quarantine` are known after it. Any later work on parts makes blocks.

        Args:
            function: of a module, or a partial of one; parts have names of their own.
            schema: of its rows.
            folder: on storage that all workers reach; Parquet files of an earlier run are removed.
            extra: a second function of each part.

        Returns:
            The number of rows, and the merged results of `extra`.

        Raises:
            DataError: no event log: no rows, or more than half of them bad.
        """
        with _writing(folder) as place:
            work = partial(
                written_at_once, rules=self.rules, rows_a_block=self.rows_a_block, function=function, extra=extra,
                schema=schema, folder=place,
            )  # fmt: skip
            with quiet(), translated_errors():
                payloads = self.shuffled.mapInArrow(work, spark_schema(PAYLOAD)).collect()
            results = [loads(bytes(row["payload"])) for row in payloads]
            rows, about, result = reduce(merged, results) if results else (0, ({}, {}, None), None)
            self.__dict__["_abouts"] = about
            self._bad = Path(place)
            self._require_a_log(Path(place))
        self._bad = folder
        return rows, None if extra is None else result

    @cached_property
    def facts(self) -> LogFacts:
        """Of the whole log.

        Raises:
            DataError: no event log: no rows, or more than half of them bad.
        """
        self._require_a_log()
        return facts_from(self._abouts[2])

    def named(self) -> SparkLog:
        """The same log, whose parts have the names of the whole."""
        if self.names is None:
            self.names = self.facts.names
        return self

    @property
    def rejected(self) -> dict[str, int]:
        """See `EventLog`."""
        return self._abouts[0]

    @property
    def notes(self) -> tuple[str, ...]:
        """See `EventLog`."""
        return (*self._abouts[1], *self.source_notes)

    @property
    def n_events(self) -> int:
        """How many good events there are."""
        facts = self._abouts[2]
        return facts[2] if facts else 0

    @cached_property
    def _abouts(self) -> tuple[dict[str, int], dict[str, int], Any]:
        """Reason → number of rejected rows; note → number of blocks; partial facts, merged."""
        from pyspark.sql import functions as F

        with quiet(), translated_errors():
            about = self.blocks.filter(F.col("name") == ABOUT).mapInArrow(merged_abouts, spark_schema(PAYLOAD))
            block_abouts = [loads(bytes(row["payload"])) for row in about.collect()]
        return reduce(merged, block_abouts) if block_abouts else ({}, {}, None)

    def quarantine(self, path: Path) -> Path | None:
        """See `EventLog`."""
        rows = self.set_aside()
        write_quarantine(rows, path)
        return None if rows is None else path

    def set_aside(self) -> pa.Table | None:
        """The rejected rows, row and reason before the values; None where there are none."""
        return self._rejected_rows(self._bad) if self.rejected else None

    def _rejected_rows(self, folder: Path | None, first_only: bool = False) -> pa.Table:
        """The rejected rows in source order.

        Args:
            folder: where one pass wrote them; None for those in the blocks.
            first_only: the first of each reason in each file or block: all of them may be larger than memory.
        """
        from pyspark.sql import functions as F

        if folder is not None:
            tables = [pq.read_table(file) for file in sorted(folder.glob(f"{SET_ASIDE}-*"))]
            tables = [first_rejected_rows(table) for table in tables] if first_only else tables
        else:
            with quiet(), translated_errors():
                rows = self.blocks.filter(F.col("name").isin(ABOUT, BAD))
                payloads = rows.mapInArrow(partial(bad_rows, first_only=first_only), spark_schema(PAYLOAD))
                tables = [loads(bytes(row["payload"])) for row in payloads.toLocalIterator()]
        whole = pa.concat_tables(tables, promote_options="default").sort_by([("row", "ascending")])
        if self.files:
            place = np.asarray(whole["row"])
            whole = whole.set_column(0, "row", pa.array(place & ((1 << FILE_BITS) - 1)))
            whole = whole.add_column(0, FILE, pa.array([self.files[number] for number in place >> FILE_BITS]))
        return whole

    def close(self) -> None:
        """Free the blocks and the kept results."""
        for file in self._bad.glob(f"{SET_ASIDE}-*") if self._bad else ():
            file.unlink(missing_ok=True)
        while self._result_frames:
            self._result_frames.pop().unpersist()
        if "blocks" in self.__dict__:
            self.blocks.unpersist()

    def _block_rows(self, columns: Sequence[str] | None) -> DataFrame:
        from pyspark.sql import functions as F

        row_names = needed(columns)
        return self.blocks.filter(F.col("name") != BAD if row_names is None else F.col("name").isin(row_names))

    def _require_a_log(self, folder: Path | None = None) -> None:
        rows_in = self.n_events + sum(self.rejected.values())
        unusable = {reason: n for reason, n in self.rejected.items() if reason != DUPLICATE}  # a log of repeats is one
        with nullcontext() if self.path is None else file_in_errors(self.path):
            require_event_log(rows_in, unusable, lambda: self._rejected_rows(folder, first_only=True))


@dataclass(frozen=True)
class KeptResults:
    """Results of parts, kept on executors for repeated use.

    Attributes:
        frame: a result a row, as Spark sends what Python functions give back.
        partitions: their number.
    """

    frame: DataFrame
    partitions: int

    def total(self, function: Callable[[Any], T]) -> T:
        """The merged results of a function for the kept results, of which there is at least one."""
        with quiet(), translated_errors():
            results = self.frame.mapInArrow(partial(partials_again, function=function), spark_schema(PAYLOAD))
            result: T = reduce(merged, _collected(results, self.partitions))
        return result


def _collected(results: DataFrame, partitions: int) -> list[Any]:
    """Results of tasks; where there are many, merged on the cluster first."""
    if partitions > PARTIALS_AT_ONCE:
        results = results.repartition(math.isqrt(partitions)).mapInArrow(merged_partials, spark_schema(PAYLOAD))
    return [loads(bytes(row["payload"])) for row in results.collect()]


@contextmanager
def _writing(folder: Path) -> Iterator[str]:
    """A temporary folder; once it is complete, its files replace those of an earlier run, and a mark is written."""
    folder = folder.resolve()
    place = folder / WRITING
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    try:
        yield str(place)
        for old in (*folder.glob(f"{PART}-*.parquet"), *folder.glob(f"{SET_ASIDE}-*"), folder / SUCCESS):
            old.unlink(missing_ok=True)
        for kind in (PART, SET_ASIDE):
            for file in place.glob(f"{kind}-*.parquet"):
                file.replace(folder / file.name)
        (folder / SUCCESS).write_text(WRITTEN)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def spark_schema(schema: pa.Schema) -> Any:
    """An Arrow schema as Spark writes it; times without a zone stay so."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema, prefer_timestamp_ntz=True)


@contextmanager
def translated_errors() -> Iterator[None]:
    """Raise the errors of checks on an executor here, without the stack.

    Raises:
        DataError: unusable data.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        match = re.search(r"features\.errors\.(\w+): (.*)", str(error))
        kind = getattr(errors, match[1], None) if match else None
        if "FAILFAST" in str(error) and kind is None:
            raise DataError(
                "A line of the text files does not have the fields of the header. Mend or drop it; one machine sets "
                "such lines aside, Spark's reader does not."
            ) from None
        if kind is None or match is None:
            raise
        raise kind(match[2]) from None

"""A log on Spark: whole customers in blocks, looked at by the very functions that one machine runs.

    log = read_log(session("local[2]"), EventSource(path="events/"))
    log.facts                               # first and last event, names: of the whole log
    total(log, count_something)             # partial results of all parts, merged
    log.rows(make_rows, schema)             # a DataFrame of what a function makes of each part

Rows are renamed, hashed by customer, shuffled, and sorted by that hash; each partition is then checked and packed into
blocks (`features.spark_blocks`), which Spark keeps on its executors' disks until `close`. All further work reads blocks
only. The order of equal moments is that of the source: for Parquet the file and the row in it, for text the file and
the byte, for a table of another kind the column that `order_by` names.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property, partial, reduce
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import unquote

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features import errors
from features.errors import ConfigError, DataError
from features.events import FILE, SOURCE_ROW, TOO_MANY_BAD, ignored_note, wanted_columns
from features.loading import FILE_BITS, their_names
from features.parts import LogFacts, Part, facts_from, merged, merged_stream
from features.reading import CSV, PARQUET, event_files
from features.sources import EventSource, Rules, rules_for
from features.spark_blocks import (
    ABOUT,
    ASKED_CUTOFF,
    ASKED_ROW,
    BAD,
    BLOCKS,
    KEY,
    ROWS_A_BLOCK,
    abouts,
    build,
    each_bad,
    facts_said,
    needed,
    read_blocks,
)
from features.spark_session import quiet
from features.spark_session import session as session

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

T = TypeVar("T")
EVENTS_A_PARTITION = 1_000_000
SUCCESS, UNFINISHED = "_SUCCESS", ".writing"
PARTIALS_AT_ONCE = 256  # more than these are merged on the cluster before the driver merges them
PAYLOAD = pa.schema([("payload", pa.binary())])
FILE_SYSTEM = re.compile(r"^([a-z][a-z0-9+.-]+):/+(.*)$", re.IGNORECASE)
TIES_BY_VALUE = (
    "the table says no order of its rows: events of a customer at the same moment are put in the order of a hash of "
    "their values; name a column that says their order to keep it"
)


def read_log(
    spark: SparkSession,
    source: EventSource,
    *,
    base: Path | None = None,
    frame: DataFrame | None = None,
    order_by: str | None = None,
    asked: DataFrame | None = None,
    partitions: int | None = None,
    rows_a_block: int = ROWS_A_BLOCK,
) -> SparkLog:
    """Shuffle a log by customer and pack it; nothing runs before something is asked of it.

    Args:
        spark: the session.
        source: what to read and how; its path may be a URI that Spark reads, or the name of a table.
        base: the folder that a relative path starts from.
        frame: rows as the source's file would have them, instead of its path.
        order_by: a column of whole numbers that rise in source order; needed for tables only.
        asked: `row` (whole number), `customer_id` (text), `cutoff` (µs, whole number): rows asked for, which travel
            to their customers' parts.
        partitions: of customers; by default one for each million events.
        rows_a_block: events that a block has, if no customer has more.

    Raises:
        DataError: no such file or column.
        ConfigError: an adapter that needs all rows at once.
    """
    from pyspark.sql import functions as F

    with quiet(), our_errors():
        notes: list[str] = []
        files: list[str] = []
        if frame is not None:
            rows, order = _of_frame(frame, order_by, notes)
        else:
            rows, order = _opened(spark, source, base, order_by, notes, files)
        there = [name for name in rows.columns if name != SOURCE_ROW]
        rules = rules_for(source, there, base)
        if rules is None:
            raise ConfigError(
                f"The adapter '{source.adapter}' needs all rows at once, which a cluster never has: give canonical "
                "events, or read the log on one machine."
            )
        theirs = their_names(there, rules.columns, wanted_columns(rules.options.schema), rules.made)
        if ignored := [name for name in there if name not in theirs.values()]:
            notes.append(ignored_note(ignored))
        events = _canonical(rows, theirs, order)
        n = partitions or _partitions(spark, events)
        if asked is not None:
            events = events.withColumn(
                "customer_id", _text(F.col("customer_id"), events.schema["customer_id"].dataType)
            )
            events = events.unionByName(_asking(asked), allowMissingColumns=True)
        shuffled = events.repartition(n, KEY).sortWithinPartitions(KEY)
        return SparkLog(spark, shuffled, rules, tuple(notes), n, rows_a_block, tuple(files))


def _opened(
    spark: SparkSession,
    source: EventSource,
    base: Path | None,
    order_by: str | None,
    notes: list[str],
    files: list[str],
) -> tuple[DataFrame, Column | None]:
    """The source's rows and what says their order; `files` gets their names in order, where there are several."""
    text = str(source.path)
    local = (base or Path()) / source.path.expanduser()
    if not local.exists():
        if found := FILE_SYSTEM.match(text):
            return _remote(spark, f"{found[1]}://{found[2]}", source, order_by, notes, files)
        if re.fullmatch(r"[\w`-]+(\.[\w`-]+){0,2}", text) and spark.catalog.tableExists(text):
            return _of_frame(spark.table(text), order_by, notes)
    return _local(spark, local, source, order_by, notes, files)


def _of_frame(frame: DataFrame, order_by: str | None, notes: list[str]) -> tuple[DataFrame, Column | None]:
    from pyspark.sql import functions as F

    if order_by is not None:
        if order_by not in frame.columns:
            raise DataError(f"No column '{order_by}' that says the order: the columns are {', '.join(frame.columns)}.")
        return frame, F.col(order_by).cast("bigint")
    notes.append(TIES_BY_VALUE)
    return frame, F.xxhash64(*frame.columns)


def _remote(
    spark: SparkSession, path: str, source: EventSource, order_by: str | None, notes: list[str], files: list[str]
) -> tuple[DataFrame, Column | None]:
    """A path that only Spark can look into."""
    kind = "csv" if path.lower().rstrip("/").endswith(CSV) else "parquet"
    frame = _reader(spark, source, kind).load(path)
    return _in_order(frame, kind, order_by, notes, files)


def _local(
    spark: SparkSession, path: Path, source: EventSource, order_by: str | None, notes: list[str], names: list[str]
) -> tuple[DataFrame, Column | None]:
    files = _current_files(path) if (path / "_delta_log").is_dir() else event_files(path)
    kinds = {"parquet" if file.name.lower().endswith(PARQUET) else "csv" for file in files}
    if len(kinds) > 1:
        raise DataError(f"{path} holds Parquet and text files: Spark reads folders of one kind. Part them.")
    (kind,) = kinds
    reader = _reader(spark, source, kind, files[0])
    if path.is_dir():
        reader = reader.option("basePath", str(path.resolve()))
    frame = reader.load([str(file.resolve()) for file in files])
    if kind == "parquet":
        frame = _without_nanoseconds(frame, files[0])
    return _in_order(frame, kind, order_by, notes, names)


def _current_files(path: Path) -> list[Path]:
    """The files of a Delta table that its log has added and not removed.

    Raises:
        DataError: the log has what only Delta itself can read.
    """
    current: dict[str, None] = {}
    log = path / "_delta_log"
    begun = -1
    if (mark := log / "_last_checkpoint").is_file():
        begun = int(json.loads(mark.read_text())["version"])
        rows = pq.read_table(log / f"{begun:020d}.checkpoint.parquet", columns=["add"])["add"].to_pylist()
        current = {row["path"]: None for row in rows if row}
    for commit in sorted(log.glob("*.json")):
        if int(commit.stem) <= begun:
            continue
        for line in commit.read_text(encoding="utf-8").splitlines():
            action = json.loads(line)
            if (removed := action.get("remove")) is not None:
                current.pop(removed["path"], None)
            if (added := action.get("add")) is not None:
                if added.get("deletionVector"):
                    raise DataError(f"{path} has deletion vectors: read it as a table of a session with Delta's jars.")
                current[added["path"]] = None
    if not current:
        raise DataError(f"The Delta table {path} has no files.")
    return sorted(path / unquote(name) for name in current)


def _reader(spark: SparkSession, source: EventSource, kind: str, file: Path | None = None) -> Any:
    reader = spark.read.format(kind)
    if kind == "parquet":
        return reader.option("mergeSchema", "true")
    parts = "\t" if file is not None and ".tsv" in file.name.lower() else _delimiter(file, source.encoding)
    encoding = codecs.lookup(source.encoding).name
    said: dict[str, Any] = {
        "header": True,
        "sep": parts,
        "quote": '"',
        "escape": '"',
        "encoding": encoding,
        "mode": "FAILFAST",
    }
    return reader.options(**said, nullValue="", emptyValue="", enforceSchema=False, columnPruning=False)


def _delimiter(file: Path | None, encoding: str) -> str:
    from features.reading import delimiter_of

    return "," if file is None else delimiter_of(file, encoding)


def _without_nanoseconds(frame: DataFrame, file: Path) -> DataFrame:
    """Spark knows no nanoseconds and gives the whole number: as µs, naive or not, as the file says."""
    from pyspark.sql import functions as F

    kinds = {one.name: one.type for one in pq.read_schema(file)}
    for name in frame.columns:
        kind = kinds.get(name)
        if kind is not None and pa.types.is_timestamp(kind) and kind.unit == "ns":
            moment = F.timestamp_micros(F.expr(f"`{name}` div 1000"))
            frame = frame.withColumn(name, moment if kind.tz else moment.cast("timestamp_ntz"))
    return frame


def _in_order(
    frame: DataFrame, kind: str, order_by: str | None, notes: list[str], names: list[str]
) -> tuple[DataFrame, Column | None]:
    """Rows with `SOURCE_ROW`: the place of the file and the row in it."""
    from pyspark.sql import functions as F

    if order_by is not None:
        return _of_frame(frame, order_by, notes)
    files = sorted(set(frame.inputFiles()), key=lambda uri: Path(unquote(uri)).parts)  # as on one machine
    if len(files) > 1:
        names += [Path(unquote(uri)).name for uri in files]
    if kind != "parquet":
        return _with_ranks(_text_rows(frame), files), None
    row = F.col("_metadata.row_index").cast("bigint") + 1
    if len(files) == 1:
        return frame.withColumn(SOURCE_ROW, row), None
    placed = frame.withColumn("__file", F.col("_metadata.file_path")).withColumn("__row", row)
    return _with_ranks(placed, files), None


def _with_ranks(frame: DataFrame, files: Sequence[str]) -> DataFrame:
    """`SOURCE_ROW` from `__file` and `__row`, the files being in order."""
    from pyspark.sql import functions as F

    ranks = {form: rank for rank, uri in enumerate(files) for form in (uri, re.sub(r"^file:/+", "file:/", uri))}
    table = pa.table({"__file": list(ranks), "__rank": pa.array(ranks.values(), pa.int64())})
    joined = frame.join(F.broadcast(frame.sparkSession.createDataFrame(table)), "__file", "left")
    place = F.shiftleft(F.col("__rank"), FILE_BITS) + F.col("__row")
    return joined.withColumn(SOURCE_ROW, place).drop("__rank", "__file", "__row")


def _text_rows(frame: DataFrame) -> DataFrame:
    """`__file` and `__row` of text, which has no row numbers: a split's first byte and the row in it say as much.

    A split of n bytes has no more than n rows, so that the sum of both rises from split to split.
    """
    from pyspark.sql import functions as F

    placed = frame.withColumn("__file", F.col("_metadata.file_path"))
    placed = placed.withColumn("__byte", F.col("_metadata.file_block_start")).withColumn(
        "__n", F.monotonically_increasing_id()
    )
    splits = placed.groupBy("__file", "__byte").agg(F.min("__n").alias("__first"))
    firsts = frame.sparkSession.createDataFrame(splits.toArrow())
    placed = placed.join(F.broadcast(firsts), ["__file", "__byte"])
    row = F.col("__byte") + F.col("__n") - F.col("__first") + 1
    return placed.withColumn("__row", row).drop("__byte", "__n", "__first")


def _canonical(rows: DataFrame, theirs: dict[str, str], order: Column | None) -> DataFrame:
    """Our columns, the order, and the hash of the customer."""
    from pyspark.sql import functions as F

    source_row = F.col(SOURCE_ROW) if order is None else order
    columns = [F.col(f"`{name}`").alias(ours) for ours, name in theirs.items()]
    chosen = rows.select(*columns, source_row.alias(SOURCE_ROW))
    return chosen.withColumn(KEY, F.xxhash64(_text(F.col("customer_id"), chosen.schema["customer_id"].dataType)))


def _text(column: Column, kind: Any) -> Column:
    """Equal for identifiers that the checks take for equal: 12.0 is '12'."""
    from pyspark.sql import functions as F
    from pyspark.sql import types

    if isinstance(kind, types.FloatType | types.DoubleType):
        whole = (column == F.round(column)) & (F.abs(column) < F.lit(2.0**53))
        return F.when(whole, column.cast("bigint").cast("string")).otherwise(column.cast("string"))
    return column.cast("string")


def _asking(asked: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    who = F.col("customer_id").cast("string")
    return asked.select(
        who.alias("customer_id"),
        F.col("row").cast("bigint").alias(ASKED_ROW),
        F.col("cutoff").cast("bigint").alias(ASKED_CUTOFF),
        F.xxhash64(who).alias(KEY),
    )


def _partitions(spark: SparkSession, events: DataFrame) -> int:
    return max(spark.sparkContext.defaultParallelism, math.ceil(events.count() / EVENTS_A_PARTITION))


@dataclass
class SparkLog:
    """A log in blocks on a cluster; `close` lets go of them.

    Attributes:
        spark: the session.
        shuffled: rows by customer.
        rules: how they are read and checked.
        said: notes on the source.
        partitions: how many.
        rows_a_block: events that a block has.
        files: the names of the files in order, where there are several.
    """

    spark: SparkSession
    shuffled: DataFrame
    rules: Rules
    said: tuple[str, ...] = ()
    partitions: int = 1
    rows_a_block: int = ROWS_A_BLOCK
    files: tuple[str, ...] = ()
    names: dict[str, tuple[str, ...]] | None = field(default=None, repr=False)

    @cached_property
    def blocks(self) -> DataFrame:
        """Rows of `features.spark_blocks.BLOCKS`, kept on the executors' disks."""
        from pyspark import StorageLevel

        work = partial(_build, rules=self.rules, rows_a_block=self.rows_a_block)
        with quiet():
            return self.shuffled.mapInArrow(work, spark_schema(BLOCKS)).persist(StorageLevel.DISK_ONLY)

    def each(self, function: Callable[[Part], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """What a function says of the parts, merged task by task; see `features.parts.Parts`."""
        work = partial(_partials, function=function, names=self.names)
        with quiet(), our_errors():
            found = self._some(columns).mapInArrow(work, spark_schema(PAYLOAD))
            if self.partitions > PARTIALS_AT_ONCE:
                fewer = found.repartition(math.isqrt(self.partitions))
                found = fewer.mapInArrow(_merged_partials, spark_schema(PAYLOAD))
            payloads = found.collect()
        for row in payloads:
            yield _loads(bytes(row["payload"]))

    def rows(
        self,
        function: Callable[[Part], Iterable[pa.RecordBatch]],
        schema: pa.Schema,
        columns: Sequence[str] | None = None,
    ) -> DataFrame:
        """A DataFrame of what a function makes of each part, once something is asked of it.

        Args:
            function: of a module, or a partial of one.
            schema: of what it makes.
            columns: the categories and numbers that it looks at; all by default.
        """
        with quiet():
            work = partial(_rows, function=function, names=self.names)
            return self._some(columns).mapInArrow(work, spark_schema(schema))

    def write(
        self,
        function: Callable[[Part], Iterable[pa.RecordBatch]],
        schema: pa.Schema,
        folder: Path,
        columns: Sequence[str] | None = None,
    ) -> int:
        """What a function makes of the parts as Parquet, a file a partition, written by the tasks themselves.

        Spark's own writer takes rows one by one, which for hundreds of columns costs more than all the rest.

        Args:
            function: of a module, or a partial of one.
            schema: of what it makes.
            folder: on storage that all workers reach; Parquet files of an earlier run go.
            columns: the categories and numbers that it looks at; all by default.

        Returns:
            How many rows there are.
        """
        folder = folder.resolve()
        folder.mkdir(parents=True, exist_ok=True)
        for old in (*folder.glob("part-*.parquet"), *folder.glob(f"*{UNFINISHED}"), folder / SUCCESS):
            old.unlink(missing_ok=True)
        work = partial(_write, function=function, names=self.names, schema=schema, folder=str(folder))
        with quiet(), our_errors():
            written = self._some(columns).mapInArrow(work, "rows bigint").collect()
        for left in folder.glob(f"*{UNFINISHED}"):  # of a task that died
            left.unlink(missing_ok=True)
        (folder / SUCCESS).touch()
        return sum(row["rows"] for row in written)

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
    def told(self) -> tuple[dict[str, int], tuple[str, ...], int]:
        """Reason → rows set aside; notes; how many events there are."""
        counts, notes, facts = self._abouts
        return counts, (*notes, *self.said), facts[2] if facts else 0

    @cached_property
    def _abouts(self) -> tuple[dict[str, int], dict[str, int], Any]:
        """Reason → rows set aside; note → blocks that say it; partial facts, merged."""
        from pyspark.sql import functions as F

        with quiet(), our_errors():
            about = self.blocks.filter(F.col("name") == ABOUT).mapInArrow(_abouts, spark_schema(PAYLOAD))
            found = [_loads(bytes(row["payload"])) for row in about.collect()]
        return reduce(merged, found) if found else ({}, {}, None)

    def quarantine(self, path: Path) -> Path | None:
        """Write the rows set aside as Parquet, row and reason before the values; None where there are none."""
        from pyspark.sql import functions as F

        if not self.told[0]:
            return None
        path.parent.mkdir(parents=True, exist_ok=True)
        with quiet(), our_errors():
            some = self.blocks.filter(F.col("name").isin(ABOUT, BAD)).mapInArrow(_bad, spark_schema(PAYLOAD))
            tables = [_loads(bytes(row["payload"])) for row in some.toLocalIterator()]
        whole = pa.concat_tables(tables, promote_options="default").sort_by([("row", "ascending")])
        if self.files:
            place = np.asarray(whole["row"])
            whole = whole.set_column(0, "row", pa.array(place & ((1 << FILE_BITS) - 1)))
            whole = whole.add_column(0, FILE, pa.array([self.files[one] for one in place >> FILE_BITS]))
        pq.write_table(whole, path)
        return path

    def close(self) -> None:
        """Let go of the blocks."""
        if "blocks" in self.__dict__:
            self.blocks.unpersist()

    def _some(self, columns: Sequence[str] | None) -> DataFrame:
        from pyspark.sql import functions as F

        wanted = needed(columns)
        return self.blocks.filter(F.col("name") != BAD if wanted is None else F.col("name").isin(wanted))

    def _require_a_log(self) -> None:
        counts, _, events = self.told
        bad = sum(counts.values())
        if events + bad == 0:
            raise DataError("No event rows: there is no data below the header.")
        if bad > TOO_MANY_BAD * (events + bad):
            why = ", ".join(f"{reason}: {n:,}" for reason, n in sorted(counts.items(), key=lambda item: -item[1]))
            raise DataError(f"This is no event log: {bad:,} of {events + bad:,} rows cannot be used ({why}).")


def _build(batches: Iterable[pa.RecordBatch], rules: Rules, rows_a_block: int) -> Iterator[pa.RecordBatch]:
    _one_thread()
    return build(batches, rules, rows_a_block)


def _partials(
    batches: Iterable[pa.RecordBatch], function: Callable[[Part], Any], names: dict[str, tuple[str, ...]] | None
) -> Iterator[pa.RecordBatch]:
    """The merged result of a task, if it has a block."""
    _one_thread()
    for result in merged_stream(map(function, read_blocks(batches, names))):
        yield _payload(result)


def _merged_partials(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    found = [_loads(one.as_py()) for rows in batches for one in rows["payload"]]
    if found:
        yield _payload(reduce(merged, found))


def _rows(
    batches: Iterable[pa.RecordBatch],
    function: Callable[[Part], Iterable[pa.RecordBatch]],
    names: dict[str, tuple[str, ...]] | None,
) -> Iterator[pa.RecordBatch]:
    _one_thread()
    for part in read_blocks(batches, names):
        yield from function(part)


def _write(
    batches: Iterable[pa.RecordBatch],
    function: Callable[[Part], Iterable[pa.RecordBatch]],
    names: dict[str, tuple[str, ...]] | None,
    schema: pa.Schema,
    folder: str,
) -> Iterator[pa.RecordBatch]:
    """A task's file: whole, or not at all; a second attempt makes the same again."""
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    _one_thread()
    rows, unfinished = 0, Path(folder) / f"_{context.partitionId()}-{context.taskAttemptId()}{UNFINISHED}"
    repeating = [field.name for field in schema if field.type == pa.string() and field.name != "customer_id"]
    with pq.ParquetWriter(unfinished, schema, use_dictionary=repeating) as writer:
        for part in read_blocks(batches, names):
            for batch in function(part):
                writer.write_batch(batch)
                rows += batch.num_rows
    unfinished.replace(Path(folder) / f"part-{context.partitionId():05d}.parquet")
    yield pa.record_batch([pa.array([rows], pa.int64())], names=["rows"])


def _abouts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """What the blocks of a task say of themselves, merged."""
    each = ((about["counts"], dict.fromkeys(about["notes"], 1), facts_said(about)) for about in abouts(batches))
    for result in merged_stream(each):
        yield _payload(result)


def _bad(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for table in each_bad(batches):
        yield _payload(table)


def _payload(result: Any) -> pa.RecordBatch:
    return pa.record_batch([pa.array([_dumps(result)], pa.binary())], schema=PAYLOAD)


def _dumps(result: Any) -> bytes:
    """As Spark itself sends what Python functions give back."""
    from pyspark.serializers import CPickleSerializer

    return bytes(CPickleSerializer().dumps(result))  # type: ignore[no-untyped-call]


def _loads(data: bytes) -> Any:
    from pyspark.serializers import CPickleSerializer

    return CPickleSerializer().loads(data)  # type: ignore[no-untyped-call]


def _one_thread() -> None:
    """A cluster runs a task a core."""
    import os

    import numba

    os.environ["OMP_NUM_THREADS"] = "1"
    numba.config.NUMBA_NUM_THREADS = 1  # type: ignore[attr-defined]
    pa.set_cpu_count(1)


def spark_schema(schema: pa.Schema) -> Any:
    """An Arrow schema as Spark writes it; times without a zone stay so."""
    from pyspark.sql.pandas.types import from_arrow_schema

    return from_arrow_schema(schema, prefer_timestamp_ntz=True)


@contextmanager
def our_errors() -> Iterator[None]:
    """What the checks say on an executor is said here, without the stack.

    Raises:
        DataError: what an executor found wrong with the data.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (PySparkException, Py4JJavaError) as error:
        found = re.search(r"features\.errors\.(\w+): (.*)", str(error))
        kind = getattr(errors, found[1], None) if found else None
        if "FAILFAST" in str(error) and kind is None:
            raise DataError(
                "A line of the text files does not have the fields of the header. Mend or drop it; one machine sets "
                "such lines aside, Spark's reader does not."
            ) from None
        if kind is None or found is None:
            raise
        raise kind(found[2]) from None


def asked_frame(spark: SparkSession, rows: pd.DataFrame) -> DataFrame:
    """`row, customer_id, cutoff` for `read_log`, from a frame in memory.

    Args:
        spark: the session.
        rows: `customer_id` (text) and `cutoff` (int64 µs).
    """
    table = pa.table(
        {
            "row": pa.array(range(len(rows)), pa.int64()),
            "customer_id": pa.array(rows["customer_id"].tolist(), pa.string()),
            "cutoff": pa.array(rows["cutoff"].to_numpy(), pa.int64()),
        }
    )
    with quiet():
        return spark.createDataFrame(table)

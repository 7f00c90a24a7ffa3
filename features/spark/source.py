"""Where Spark reads a log from, and how the order of its rows is known: files, folders, tables, Delta-style folders."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import ConfigError, DataError
from features.events.checks import SOURCE_ROW
from features.events.files import CSV, PARQUET, delimiter_of, event_files
from features.events.source import EventSource
from features.journeys.landed import is_landed
from features.journeys.stream import FILE_BITS
from features.spark.destinations import NO_HOST, quoted, reached, table_parts

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession

FILE_SYSTEM = re.compile(r"^([a-z][a-z0-9+.-]+):/+(.*)$", re.IGNORECASE)
TIES_BY_VALUE = (
    "the table says no order of its rows: events of a customer at the same moment are put in the order of a hash of "
    "their values; name a column that says their order to keep it"
)


def opened(
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
        if uri := FILE_SYSTEM.match(text):
            slashes = "///" if uri[1].lower() in NO_HOST else "//"  # a Path keeps one of them
            return _remote(spark, f"{uri[1]}:{slashes}{uri[2]}", source, order_by, notes, files)
        if (parts := table_parts(text)) and spark.catalog.tableExists(quoted(parts)):
            return of_frame(spark.table(quoted(parts)), order_by, notes)
    return _local(spark, local, source, order_by, notes, files)


def of_frame(frame: DataFrame, order_by: str | None, notes: list[str]) -> tuple[DataFrame, Column | None]:
    """The rows and what says their order: the column that is named, or a hash of their values.

    Raises:
        DataError: no such column.
    """
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
    with reached(path):
        frame = _reader(spark, source, kind).load(path)
    return _in_order(frame, kind, order_by, notes, files)


def _local(
    spark: SparkSession, path: Path, source: EventSource, order_by: str | None, notes: list[str], names: list[str]
) -> tuple[DataFrame, Column | None]:
    if is_landed(path):
        raise ConfigError(f"{path} holds features and journeys that were landed for one machine: give the log itself.")
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
    text_options: dict[str, Any] = {
        "header": True,
        "sep": parts,
        "quote": '"',
        "escape": '"',
        "encoding": encoding,
        "mode": "FAILFAST",
    }
    return reader.options(**text_options, nullValue="", emptyValue="", enforceSchema=False, columnPruning=False)


def _delimiter(file: Path | None, encoding: str) -> str:
    return "," if file is None else delimiter_of(file, encoding)


def _without_nanoseconds(frame: DataFrame, file: Path) -> DataFrame:
    """Spark knows no nanoseconds and gives the whole number: as µs, naive or not, as the file says."""
    from pyspark.sql import functions as F

    kinds = {field.name: field.type for field in pq.read_schema(file)}
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
        return of_frame(frame, order_by, notes)
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

"""Read a log on Spark: rename the columns, hash the customers, shuffle the rows.

    log = read_log(session("local[2]"), EventSource(path="events/"))
    log.facts   # see `features.spark.log`

The order of equal moments is that of the source: for Parquet the file and the row in it, for text the file and the
byte, for a table of another kind the column that `order_by` names.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from features.errors import ConfigError
from features.events.checks import SOURCE_ROW, ignored_note, schema_columns
from features.events.source import EventSource, table_reader
from features.journeys.partitions import EVENTS_A_PARTITION
from features.journeys.stream import their_names
from features.spark.blocks import KEY, REQUEST_CUTOFF, REQUEST_ROW, ROWS_A_BLOCK
from features.spark.log import SparkLog, translated_errors
from features.spark.session import quiet
from features.spark.source import of_frame, opened

if TYPE_CHECKING:
    from pyspark.sql import Column, DataFrame, SparkSession


def read_log(
    spark: SparkSession,
    source: EventSource,
    *,
    base: Path | None = None,
    frame: DataFrame | None = None,
    order_by: str | None = None,
    requests: DataFrame | None = None,
    partitions: int | None = None,
    rows_a_block: int = ROWS_A_BLOCK,
) -> SparkLog:
    """Shuffle a log by customer and pack it, on demand.

    Args:
        spark: the session.
        source: the log and how to read it; its path may be a URI that Spark reads, or the name of a table.
        base: the folder that a relative path starts from.
        frame: rows as the source's file would have them, instead of its path.
        order_by: a column of whole numbers that rise in source order; needed for tables only.
        requests: requested rows: `row` (whole number), `customer_id` (text), `cutoff` (µs, whole number); each goes to
            the part of its customer.
        partitions: of customers; by default one for each million events.
        rows_a_block: events that a block has, if no customer has more.

    Raises:
        DataError: no such file or column.
        ConfigError: an adapter that needs all rows at once.
    """
    from pyspark.sql import functions as F

    with quiet(), translated_errors():
        notes: list[str] = []
        files: list[str] = []
        if frame is not None:
            rows, order = of_frame(frame, order_by, notes)
        else:
            rows, order = opened(spark, source, base, order_by, notes, files)
        names = [name for name in rows.columns if name != SOURCE_ROW]
        rules = table_reader(source, names, base)
        if rules is None:
            raise ConfigError(
                f"The adapter '{source.adapter}' needs all rows at once, which a cluster never has: give canonical "
                "events, or read the log on one machine."
            )
        theirs = their_names(names, rules.columns, schema_columns(rules.options.schema), rules.added_columns)
        if ignored := [name for name in names if name not in theirs.values()]:
            notes.append(ignored_note(ignored))
        events = _canonical(rows, theirs, order)
        log_path = source.path if frame is None else None
        n = partitions or _partitions(spark, events)
        if requests is not None:
            events = events.withColumn(
                "customer_id", _text(F.col("customer_id"), events.schema["customer_id"].dataType)
            )
            events = events.unionByName(_request_rows(requests), allowMissingColumns=True)
        shuffled = events.repartition(n, KEY).sortWithinPartitions(KEY)
        return SparkLog(spark, shuffled, rules, tuple(notes), n, rows_a_block, tuple(files), log_path)


def _canonical(rows: DataFrame, theirs: dict[str, str], order: Column | None) -> DataFrame:
    """Canonical columns, the order, and the hash of the customer."""
    from pyspark.sql import functions as F

    source_row = F.col(SOURCE_ROW) if order is None else order
    columns = [F.col(f"`{name}`").alias(ours) for ours, name in theirs.items()]
    chosen = rows.select(*columns, source_row.alias(SOURCE_ROW))
    return chosen.withColumn(KEY, F.xxhash64(_text(F.col("customer_id"), chosen.schema["customer_id"].dataType)))


def _text(column: Column, kind: Any) -> Column:
    """Identifiers as text, as the checks compare them: 12.0 is '12'."""
    from pyspark.sql import functions as F
    from pyspark.sql import types

    if isinstance(kind, types.FloatType | types.DoubleType):
        whole = (column == F.round(column)) & (F.abs(column) < F.lit(2.0**53))
        return F.when(whole, column.cast("bigint").cast("string")).otherwise(column.cast("string"))
    return column.cast("string")


def _request_rows(requests: DataFrame) -> DataFrame:
    from pyspark.sql import functions as F

    customer = F.col("customer_id").cast("string")
    return requests.select(
        customer.alias("customer_id"),
        F.col("row").cast("bigint").alias(REQUEST_ROW),
        F.col("cutoff").cast("bigint").alias(REQUEST_CUTOFF),
        F.xxhash64(customer).alias(KEY),
    )


def _partitions(spark: SparkSession, events: DataFrame) -> int:
    return max(spark.sparkContext.defaultParallelism, math.ceil(events.count() / EVENTS_A_PARTITION))


def request_frame(spark: SparkSession, rows: pd.DataFrame) -> DataFrame:
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

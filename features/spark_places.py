"""Results of a cluster that go to no folder of this machine: to a URI that Spark writes to, or to a table.

    out = destination("s3a://bucket/scores")      # "table:crm.scores" for a table; a path for a folder
    require_ours(spark, out)                      # empty, or written by an earlier run
    begin(spark, out)
    write(log.rows(make, schema), out)            # rows are written by Spark itself
    read(spark, out)

What belongs to a result lies in its folder under a name that begins with `_`, which readers pass over, or in a table
whose name begins with that of the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from features.errors import ConfigError
from features.landed import JOURNEYS, STATE
from features.spark_session import quiet

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TABLE = "table:"
NAME = re.compile(r"[\w`-]+(\.[\w`-]+){0,2}")
URI = re.compile(r"[a-z][a-z0-9+.-]+:/+.", re.IGNORECASE)
MARK = "_journeylab"  # in a folder, and a property of a table: written here
QUARANTINE = "_quarantine"


@dataclass(frozen=True)
class Away:
    """A place that only Spark reaches.

    Attributes:
        name: a URI, or a table after `table:`.
    """

    name: str

    @property
    def table(self) -> str | None:
        """The name of the table; None where it is a folder."""
        return self.name.removeprefix(TABLE) if self.name.startswith(TABLE) else None

    def within(self, name: str) -> Away:
        """The place of something that belongs to this.

        >>> Away("s3a://bucket/scores").within("_quarantine").name
        's3a://bucket/scores/_quarantine'
        >>> Away("table:crm.features").within("_features.json").name
        'table:crm.features_features'
        """
        return Away(f"{self.name.rstrip('/')}/{name}" if self.table is None else self.name + name.split(".")[0])

    def __str__(self) -> str:
        """The name."""
        return self.name


def destination(text: str) -> Path | Away:
    """Where a command's results go.

    >>> destination("scores"), destination("hdfs:///data/scores"), destination("table:crm.scores")
    (PosixPath('scores'), Away(name='hdfs:///data/scores'), Away(name='table:crm.scores'))

    Raises:
        ConfigError: no name of a table.
    """
    if text.startswith(TABLE):
        if not NAME.fullmatch(text.removeprefix(TABLE)):
            raise ConfigError(f"'{text}' names no table: write table:NAME or table:SCHEMA.NAME.")
        return Away(text)
    return Away(text) if URI.match(text) else Path(text)


def require_here(out: Path | Away) -> Path:
    """A folder or file of this machine.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(out, Away):
        raise ConfigError(f"Only Spark writes to {out}: add --engine spark, or name a file or folder.")
    return out


def require_ours(spark: SparkSession, out: Away) -> None:
    """Raise a `ConfigError` where a place holds what was not written by this package, or cannot be reached."""
    with quiet(), reached(out):
        if out.table is not None:
            names = [out.table, *_belongings(out)]
            others = [name for name in names if not _is_our_table(spark, name)]
            if others:
                raise ConfigError(f"The table {others[0]} was not written by journeylab: name a new one.")
            return
        system, path = _folder(spark, out)
        if system.exists(path) and len(system.listStatus(path)) and not system.exists(_child(spark, path, MARK)):
            raise ConfigError(f"{out} holds other files: name a new folder.")


def begin(spark: SparkSession, out: Away) -> None:
    """Remove what an earlier run left, and mark the place as ours."""
    require_ours(spark, out)
    with quiet(), reached(out):
        if out.table is not None:
            for name in _belongings(out):  # the table itself stays until its rows are written
                spark.sql(f"DROP TABLE IF EXISTS {name}")
        else:
            system, path = _folder(spark, out)
            system.delete(path, True)
            system.mkdirs(path)
            system.create(_child(spark, path, MARK), True).close()


def write(frame: DataFrame, out: Away) -> int:
    """Write rows, as Parquet or as a table; how many."""
    from pyspark.sql import functions as F

    with quiet():
        if out.table is None:
            frame.write.mode("append").parquet(out.name)
        else:
            frame.write.mode("overwrite").saveAsTable(out.table)
            frame.sparkSession.sql(f"ALTER TABLE {out.table} SET TBLPROPERTIES ('{MARK}' = 'yes')")
        rows: int = read(frame.sparkSession, out).select(F.count(F.lit(1))).collect()[0][0]
    return rows


def write_table(spark: SparkSession, rows: pa.Table, out: Away) -> Away:
    """Write rows that are here; columns of nothing as text."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_null(field.type):
            rows = rows.set_column(place, field.name, rows[place].cast(pa.string()))
    with quiet():
        write(spark.createDataFrame(rows), out)
    return out


def write_text(spark: SparkSession, text: str, out: Away) -> None:
    """A file, or a table of one row with the column `text`."""
    if out.table is not None:
        write_table(spark, pa.table({"text": [text]}), out)
        return
    with reached(out):
        system, path = _folder(spark, out)
        stream = system.create(path, True)
        stream.write(bytearray(text.encode()))
        stream.close()


def read(spark: SparkSession, out: Away) -> DataFrame:
    """The rows written there."""
    return spark.read.parquet(out.name) if out.table is None else spark.table(out.table)


def _belongings(out: Away) -> list[str]:
    """The names of the tables that may come with a table."""
    return [str(out.within(name).table) for name in (QUARANTINE, JOURNEYS, STATE)]


def _is_our_table(spark: SparkSession, name: str) -> bool:
    """Whether there is no such table, or one that was written here."""
    if not spark.catalog.tableExists(name):
        return True
    return any(row["key"] == MARK for row in spark.sql(f"SHOW TBLPROPERTIES {name}").collect())


def _folder(spark: SparkSession, out: Away) -> tuple[Any, Any]:
    """The Hadoop file system of a URI, and the path there."""
    path = spark._jvm.org.apache.hadoop.fs.Path(out.name)  # type: ignore[union-attr]
    return path.getFileSystem(spark._jsc.hadoopConfiguration()), path


def _child(spark: SparkSession, path: Any, name: str) -> Any:
    return spark._jvm.org.apache.hadoop.fs.Path(path, name)  # type: ignore[union-attr]


@contextmanager
def reached(place: object) -> Iterator[None]:
    """Where Spark cannot get to a place, one sentence says why.

    Raises:
        ConfigError: with the file system's own words.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except Py4JJavaError as error:
        why = str(error.java_exception.getMessage() or error.java_exception.getClass().getSimpleName())
    except PySparkException as error:
        why = str(error)
    else:
        return
    raise ConfigError(
        f"Spark cannot get to {place}: {why.splitlines()[0].rstrip('.')}. What its storage needs, jars "
        "(spark.jars.packages) and keys, goes to Spark by --conf."
    )

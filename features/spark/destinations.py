"""Results of a cluster that go to no folder of this machine: to a URI that Spark writes to, or to a table.

    out = destination("s3a://bucket/scores")      # "table:crm.scores" for a table; a path for a folder
    begin(spark, out)                             # refuses what others wrote
    write(log.rows(make, schema), out)            # Spark writes the rows itself, then those of an earlier run go
    read(spark, out)

What belongs to a result lies in its folder under a name that begins with `_`, which readers pass over, or in a table
whose name begins with that of the result.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from features.errors import ConfigError
from features.journeys.landed import JOURNEYS, STATE
from features.spark.session import quiet

if TYPE_CHECKING:
    from pyspark.sql import DataFrame, SparkSession

TABLE = "table:"
PART_OF_A_NAME = re.compile(r"`([^`]+)`|(\w+)")
NO_HOST = ("file", "dbfs")  # after the slashes the path begins
URI = re.compile(rf"[a-z][a-z0-9+.-]+://|({'|'.join(NO_HOST)}):/", re.IGNORECASE)
MARK = "_journeylab"  # in a folder; as a property of a table it says to which result the table belongs
QUARANTINE = "_quarantine"
WRITING = "_writing"
CASE = "spark.sql.caseSensitive"


@dataclass(frozen=True)
class RemoteLocation:
    """A URI or a table that only Spark reaches.

    Attributes:
        name: a URI, or a table after `table:`.
        of: the place of the result that this belongs to; its own name by default.
    """

    name: str
    of: str | None = None

    @property
    def table(self) -> str | None:
        """The name of the table as SQL has it; None where it is a folder.

        >>> RemoteLocation("table:crm.`churn scores`").table
        '`crm`.`churn scores`'
        """
        if not self.name.startswith(TABLE):
            return None
        return quoted(table_parts(self.name))

    @property
    def owner(self) -> str:
        """The result that this belongs to."""
        return self.of or self.name

    def within(self, name: str) -> RemoteLocation:
        """The place of something that belongs to this.

        >>> RemoteLocation("s3a://bucket/scores").within("_quarantine").name
        's3a://bucket/scores/_quarantine'
        >>> RemoteLocation("table:crm.features").within("_features.json").name
        'table:`crm`.`features_features`'
        """
        if self.table is None:
            return RemoteLocation(f"{self.name.rstrip('/')}/{name}", self.owner)
        return RemoteLocation(f"{TABLE}{self.table[:-1]}{name.split('.')[0]}`", self.owner)

    def __str__(self) -> str:
        """The name."""
        return self.name


def table_parts(text: str) -> list[str]:
    """The parts of a table's name, after `table:`; empty where it is none.

    >>> table_parts("table:crm.`churn-scores`"), table_parts("table:crm scores")
    (['crm', 'churn-scores'], [])
    """
    rest, parts = text.removeprefix(TABLE), []
    while part_match := PART_OF_A_NAME.match(rest):
        parts.append(part_match[1] or part_match[2])
        rest = rest[part_match.end() :]
        if not rest:
            return parts if len(parts) <= 3 else []
        if not rest.startswith("."):
            return []
        rest = rest[1:]
    return []


def quoted(parts: Sequence[str]) -> str:
    """A name as SQL has it."""
    return ".".join(f"`{part}`" for part in parts)


def destination(text: str) -> Path | RemoteLocation:
    """Where a command's results go.

    >>> destination("scores"), destination("table:crm.scores")
    (PosixPath('scores'), RemoteLocation(name='table:crm.scores', of=None))

    Raises:
        ConfigError: no name of a table, no folder.
    """
    if text.startswith(TABLE):
        if not table_parts(text):
            raise ConfigError(f"'{text}' names no table: write table:NAME, table:SCHEMA.NAME or table:SCHEMA.`NAME`.")
        return RemoteLocation(text)
    if Path(text).exists() or not URI.match(text):
        return Path(text)
    if text.lower().endswith(".csv") or re.search(r"[*?{\[]", text):
        raise ConfigError(f"Spark writes a folder of Parquet files: '{text}' is no name for one.")
    return RemoteLocation(text)


def require_local(out: Path | RemoteLocation) -> Path:
    """A folder or file of this machine.

    Raises:
        ConfigError: it is none.
    """
    if isinstance(out, RemoteLocation):
        raise ConfigError(f"Only Spark writes to {out}: add --engine spark, or name a file or folder.")
    return out


def begin(spark: SparkSession, out: RemoteLocation) -> None:
    """Mark a folder as ours; what an earlier run wrote stays until new rows are there.

    Raises:
        ConfigError: a place that holds what was not written by this package, or that cannot be written to.
    """
    with quiet(), reached(out):
        if out.table is not None:
            _require_our_tables(spark, out)
            return
        system, path = _folder(spark, out)
        if path.getParent() is None:
            raise ConfigError(f"{out} is no folder: name one in it.")
        mark = _child(spark, path, MARK)
        if system.exists(mark):
            return
        if system.exists(path) and len(system.listStatus(path)):
            raise ConfigError(f"{out} holds other files: name a new folder.")
        system.mkdirs(path)
        system.create(mark, True).close()


def write(frame: DataFrame, out: RemoteLocation) -> int:
    """Write rows, as Parquet or as a table; then remove those of an earlier run. How many there are now."""
    from pyspark.sql import functions as F

    spark = frame.sparkSession
    with quiet(), reached(out), _names_by_case(spark):
        if out.table is None:
            before = _parts(spark, out)
            frame.write.mode("append").parquet(out.name)
            for file in before:
                _delete(spark, file)
        else:
            new = str(out.within(WRITING).table)
            _drop(spark, new)
            frame.writeTo(new).using("parquet").tableProperty(MARK, out.owner).create()
            _drop(spark, out.table)
            spark.sql(f"ALTER TABLE {new} RENAME TO {out.table}")
        rows: int = read(spark, out).select(F.count(F.lit(1))).collect()[0][0]
    return rows


def write_remote_quarantine(spark: SparkSession, rows: pa.Table | None, out: RemoteLocation) -> RemoteLocation | None:
    """The rows set aside, beside a result; where there are none, those of an earlier run go."""
    place = out.within(QUARANTINE)
    if rows is not None:
        return write_table(spark, rows, place)
    with quiet(), reached(place):
        if place.table is not None:
            _drop(spark, place.table)
        else:
            for file in _parts(spark, place):
                _delete(spark, file)
    return None


def write_table(spark: SparkSession, rows: pa.Table, out: RemoteLocation) -> RemoteLocation:
    """Write rows that are here; columns of nothing as text."""
    for place, field in enumerate(rows.schema):
        if pa.types.is_null(field.type):
            rows = rows.set_column(place, field.name, rows[place].cast(pa.string()))
    with quiet():
        write(spark.createDataFrame(rows), out)
    return out


def write_text(spark: SparkSession, text: str, out: RemoteLocation) -> None:
    """A file, or a table of one row with the column `text`."""
    if out.table is not None:
        write_table(spark, pa.table({"text": [text]}), out)
        return
    with reached(out):
        system, path = _folder(spark, out)
        stream = system.create(path, True)
        stream.write(bytearray(text.encode()))
        stream.close()


def read(spark: SparkSession, out: RemoteLocation) -> DataFrame:
    """The rows written there."""
    return spark.read.parquet(out.name) if out.table is None else spark.table(out.table)


def _require_our_tables(spark: SparkSession, out: RemoteLocation) -> None:
    parts = table_parts(out.name)
    if len(parts) > 1 and not spark.catalog.databaseExists(quoted(parts[:-1])):
        raise ConfigError(f"There is no schema {'.'.join(parts[:-1])}: create it first.")
    for place in (out, *(out.within(name) for name in (QUARANTINE, JOURNEYS, STATE, WRITING))):
        name = str(place.table)
        if not spark.catalog.tableExists(name):
            continue
        properties = {row["key"]: row["value"] for row in spark.sql(f"SHOW TBLPROPERTIES {name}").collect()}
        if properties.get(MARK) != out.owner:
            reason = f"belongs to {properties[MARK]}" if MARK in properties else "was not written by journeylab"
            raise ConfigError(f"The table {name} {reason}: name a new one.")


def _drop(spark: SparkSession, name: str) -> None:
    spark.sql(f"DROP TABLE IF EXISTS {name}")


def _folder(spark: SparkSession, out: RemoteLocation) -> tuple[Any, Any]:
    """The Hadoop file system of a URI, and the path there."""
    path = spark._jvm.org.apache.hadoop.fs.Path(out.name)  # type: ignore[union-attr]
    return path.getFileSystem(spark._jsc.hadoopConfiguration()), path


def _child(spark: SparkSession, path: Any, name: str) -> Any:
    return spark._jvm.org.apache.hadoop.fs.Path(path, name)  # type: ignore[union-attr]


def _parts(spark: SparkSession, out: RemoteLocation) -> list[Any]:
    """The files of rows in a folder."""
    system, path = _folder(spark, out)
    paths = [entry.getPath() for entry in system.listStatus(path)] if system.exists(path) else []
    return [entry for entry in paths if entry.getName().startswith("part-")]


def _delete(spark: SparkSession, file: Any) -> None:
    system = file.getFileSystem(spark._jsc.hadoopConfiguration())
    if not system.delete(file, False) and system.exists(file):
        raise ConfigError(f"Rows of an earlier run stay beside the new ones: {file.toString()} cannot be deleted.")


@contextmanager
def _names_by_case(spark: SparkSession) -> Iterator[None]:
    """Names of columns that differ in case only are different: features carry values of the log in theirs."""
    before = spark.conf.get(CASE)
    spark.conf.set(CASE, "true")
    try:
        yield
    finally:
        spark.conf.set(CASE, str(before))


@contextmanager
def reached(place: object) -> Iterator[None]:
    """Where Spark cannot get to a place, one sentence says why; what went wrong in Python or with the data passes.

    Raises:
        ConfigError: with the file system's or the catalogue's own words.
    """
    from py4j.protocol import Py4JJavaError
    from pyspark.errors import PySparkException

    try:
        yield
    except (Py4JJavaError, PySparkException) as error:
        if any(other in str(error) for other in ("PythonException", "features.errors.", "FAILFAST")):
            raise
        java = getattr(error, "java_exception", None)
        why = str(error) if java is None else str(java.getMessage() or java.getClass().getSimpleName())
    else:
        return
    why = re.sub(r"\.?( SQLSTATE: \w+)?$", "", why.splitlines()[0])
    sentence = f"Spark cannot get to {place}: {why}."
    if not str(place).startswith(TABLE) and "PATH_NOT_FOUND" not in why:
        sentence += " What its storage needs, jars (spark.jars.packages) and keys, goes to Spark by --conf."
    raise ConfigError(sentence)

"""A Spark session as this package needs it, or one sentence that says what to install.

    spark = session("local[2]")

A session that runs already is taken as it is, but for `NEEDED_SETTINGS`. One that is made here listens on loopback only
where its master is this machine, shows no web page, and keeps its log to errors.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from functools import cache
from typing import TYPE_CHECKING

from features.errors import ConfigError

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

NEEDED_JAVA = 17
LOOPBACK = re.compile(r"local(\[|$|-cluster)|spark://(127\.\d+\.\d+\.\d+|localhost)[:,]")
NEEDED_SETTINGS = {
    "spark.sql.legacy.parquet.nanosAsLong": "true",  # else Spark refuses files that pandas writes
    "spark.sql.legacy.javaCharsets": "true",  # text in encodings beyond Unicode and Latin 1
    "spark.sql.execution.arrow.maxRecordsPerBatch": "65536",
    "spark.sql.execution.arrow.maxBytesPerBatch": str(8 << 20),
}
LOOPBACK_SETTINGS = {"spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1"}
QUIET = {
    "spark.ui.enabled": "false",
    "spark.ui.showConsoleProgress": "false",
    "spark.log.level": "ERROR",
    "spark.sql.session.timeZone": "UTC",
    "spark.executorEnv.OMP_NUM_THREADS": "1",
    "spark.executorEnv.NUMBA_NUM_THREADS": "1",
}


def session(master: str | None = None, settings: dict[str, str] | None = None) -> SparkSession:
    """The session that runs, or a new one.

    Args:
        master: `local[2]`, `spark://host:7077`, `yarn` …; what the environment says by default, else this machine.
        settings: of Spark, such as `{"spark.executor.memory": "8g"}`; for a new session.

    Raises:
        ConfigError: pyspark or Java is missing or too old, or the running session has another master.
    """
    require_spark()
    from pyspark.sql import SparkSession

    with quiet():
        running = SparkSession.getActiveSession()
        if running is not None:
            if master is not None and running.sparkContext.master != master:
                raise ConfigError(
                    f"A Spark session with master {running.sparkContext.master} runs in this process: "
                    f"stop it before asking for {master}."
                )
            spark = running
        else:
            spark = _new_session(master, settings or {})
    for name, value in NEEDED_SETTINGS.items():
        spark.conf.set(name, value)
    return spark


def _new_session(master: str | None, settings: dict[str, str]) -> SparkSession:
    from pyspark.sql import SparkSession

    builder = SparkSession.builder.appName("journeylab")
    defaults = dict(QUIET)
    where = master or os.environ.get("SPARK_MASTER") or ("" if "SPARK_CONF_DIR" in os.environ else "local[*]")
    if LOOPBACK.match(where):
        defaults |= LOOPBACK_SETTINGS
        os.environ.setdefault("PYSPARK_PYTHON", sys.executable)  # its workers are on this machine
        os.environ.setdefault("SPARK_LOCAL_IP", LOOPBACK_SETTINGS["spark.driver.bindAddress"])
    if where:
        builder = builder.master(where)
    for name, value in (defaults | settings).items():
        builder = builder.config(name, value)
    return builder.getOrCreate()


def require_spark() -> None:
    """Raise a `ConfigError` where Spark cannot run."""
    try:
        with quiet():
            import pyspark  # noqa: F401
    except ImportError:
        raise ConfigError("--engine spark needs PySpark: pip install 'journeylab[spark]'.") from None
    version = java_version()
    if version is None or version < NEEDED_JAVA:
        fault = "Java is not there" if version is None else f"Java {version} is too old"
        raise ConfigError(
            f"Spark needs Java {NEEDED_JAVA} or newer, and {fault}: apt-get install openjdk-17-jre-headless, or set "
            "JAVA_HOME."
        )


@cache
def java_version() -> int | None:
    """The major version of the Java that Spark would find; None where there is none."""
    home = os.environ.get("JAVA_HOME")
    java = shutil.which("java", path=f"{home}/bin") if home else shutil.which("java")
    if java is None:
        return None
    output = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    version = re.search(r'version "(\d+)(?:\.(\d+))?', output)
    if version is None:
        return None
    return int(version[2] if version[1] == "1" and version[2] else version[1])


class quiet(warnings.catch_warnings):
    """Without PySpark's warning that it was not tried with this pandas: Arrow does all that is done here."""

    def __enter__(self) -> None:
        """Filter this warning only."""
        super().__enter__()
        warnings.filterwarnings("ignore", message=".*pandas.*", module=r"pyspark\..*")

"""The fixture `spark`: a session on two threads."""

from __future__ import annotations

from typing import Any

import pytest


@pytest.fixture(scope="session")
def spark() -> Any:
    """A Spark session on two threads; tests skip where PySpark or Java is missing."""
    from features.errors import ConfigError
    from features.spark.session import session

    java = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}  # short work: compiled once
    settings = {"spark.sql.shuffle.partitions": "2", "spark.driver.memory": "1g"} | java
    try:
        spark_session = session("local[2]", settings)
    except ConfigError as error:
        pytest.skip(str(error))
    yield spark_session
    spark_session.stop()

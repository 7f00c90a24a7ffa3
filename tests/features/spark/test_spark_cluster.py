"""A standalone cluster of two workers gives the numbers of one machine, also where executors are killed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from features.errors import ConfigError
from features.spark.session import java_version, require_spark

SCRIPT = Path(__file__).resolve().parents[2] / "support" / "spark_cluster.py"


def run(out: Path, *options: str) -> dict[str, Any]:
    try:
        require_spark()
    except ConfigError as error:
        pytest.skip(str(error))
    command = [sys.executable, str(SCRIPT), "--out", str(out), *options]
    done = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    found: dict[str, Any] = json.loads((out / "spark_cluster.json").read_text())
    return found


def test_two_workers_give_the_numbers_of_one_machine(tmp_path: Path) -> None:
    found = run(tmp_path, "--customers", "250", "--partitions", "2")
    assert found["ok"]
    assert found["tables"] >= 12
    assert found["unequal"] == []


@pytest.mark.slow
def test_killed_executors_change_no_number(tmp_path: Path) -> None:
    found = run(tmp_path, "--customers", "1500", "--kill")
    assert found["ok"]
    assert found["executors_killed"] >= 1


def test_what_is_missing_is_said_in_one_sentence(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    java_version.cache_clear()
    with pytest.raises(ConfigError, match=r"Java is not there: apt-get install openjdk-17-jre-headless"):
        require_spark()
    (tmp_path / "bin").mkdir()
    java = tmp_path / "bin" / "java"
    java.write_text("#!/bin/sh\necho 'openjdk version \"1.8.0_392\"' >&2\n")
    java.chmod(0o755)
    java_version.cache_clear()
    with pytest.raises(ConfigError, match="Java 8 is too old"):
        require_spark()
    monkeypatch.setitem(sys.modules, "pyspark", None)
    with pytest.raises(ConfigError, match=r"pip install 'journeylab\[spark\]'"):
        require_spark()
    java_version.cache_clear()

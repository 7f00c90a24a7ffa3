"""Folders that travel to a cluster's executors: a model, segments."""

from __future__ import annotations

import shutil
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from features.spark.log import SparkLog
from training.scoring.run_folder import model_digest

T = TypeVar("T")


def sent(log: SparkLog, folder: Path) -> str:
    """Send a folder as an archive; returns its name on the executors."""
    from pyspark import SparkFiles

    name = f"folder-{model_digest(folder)[:16]}.zip"
    archive = Path(SparkFiles.getRootDirectory()) / "to-send" / name  # executors fetch it from here
    if not archive.exists():
        archive.parent.mkdir(exist_ok=True)
        log.spark.sparkContext.addFile(shutil.make_archive(str(archive.with_suffix("")), "zip", folder))
    return name


def received(name: str, load: Callable[[Path], T]) -> T:
    """Load a sent folder on an executor."""
    from pyspark import SparkFiles

    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(SparkFiles.get(name)) as archive:
        archive.extractall(scratch)
        return load(Path(scratch))

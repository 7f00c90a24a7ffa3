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
    """Send a folder, as an archive; its name there."""
    from pyspark import SparkFiles

    name = f"folder-{model_digest(folder)[:16]}.zip"
    kept = Path(SparkFiles.getRootDirectory()) / "to-send" / name  # executors fetch it from there, whenever they start
    if not kept.exists():
        kept.parent.mkdir(exist_ok=True)
        log.spark.sparkContext.addFile(shutil.make_archive(str(kept.with_suffix("")), "zip", folder))
    return name


def received(name: str, load: Callable[[Path], T]) -> T:
    """What a function reads from a folder that was sent, on an executor."""
    from pyspark import SparkFiles

    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(SparkFiles.get(name)) as archive:
        archive.extractall(scratch)
        return load(Path(scratch))

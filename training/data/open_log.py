"""The event log of a command on the engine that its options name, or that the size of the log asks for."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console

from features.errors import ConfigError, JourneyLabError
from features.events.files import file_stamp, log_stamps, size_of
from features.events.source import EventSource
from features.journeys.disk_log import DiskLog
from features.journeys.event_log import EventLog, MemoryLog
from features.journeys.landed import is_landed
from features.journeys.loading import load_log, stream_log
from features.journeys.partitions import partition_count
from features.journeys.whole_files import locked, write_whole
from training.config.engines import DISK, SPARK, Engine
from training.progress import bar, say, stage

BYTES_AN_EVENT = 100  # of a log in memory while it is packed and looked at
SHARE_OF_MEMORY = 0.5  # that a log may take; the rest is for features, scores and tables


@contextmanager
def open_event_log(
    source: EventSource, engine: Engine, work: Path | None, progress: Console | None
) -> Iterator[EventLog]:
    """Open the log for as long as the block lasts; parts have the names of the whole log.

    Args:
        source: what to read and how.
        engine: where.
        work: the folder of the disk engine; an interrupted command leaves it for the next attempt. None only on Spark.
        progress: where to show what is going on.

    Raises:
        ConfigError: a source that the engine cannot read; Spark or Java is missing; another run uses the folder.
        DataError: no such file, or no event log.
    """
    if engine.name == SPARK:
        from features.spark.log import session  # PySpark is an extra, and heavy
        from features.spark.reading import read_log

        spark_log = read_log(session(engine.master, engine.settings), source, partitions=engine.partitions)
        try:
            with stage(progress, f"Packing {source.path} on Spark"):
                spark_log.named()
            yield spark_log
        finally:
            spark_log.close()
    elif engine.name == DISK or (engine.name is None and too_large(source)):
        assert work is not None
        with _disk_log(source, engine, work, progress) as disk_log:
            yield disk_log
    else:
        with stage(progress, f"Reading {source.path}"):
            memory_log = MemoryLog(load_log(source))
        yield memory_log


def too_large(source: EventSource) -> bool:
    """Whether a log should go to disk: its events would take half of the free memory, and it can be read in batches."""
    if is_landed(source.path):
        return False
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    large = size_of(source.path).rows * BYTES_AN_EVENT > SHARE_OF_MEMORY * free
    return large and stream_log(source) is not None


@contextmanager
def _disk_log(source: EventSource, engine: Engine, work: Path, progress: Console | None) -> Iterator[DiskLog]:
    opened = None if is_landed(source.path) else stream_log(source)
    if opened is None:
        raise ConfigError(
            f"{source.path} cannot be read in batches (adapter '{source.adapter}', or landed journeys): "
            "use --engine memory, or give canonical events."
        )
    stream, drop_duplicates = opened
    size = size_of(source.path)
    partitions = partition_count(engine.partitions, size.rows)
    key = _key(source, partitions)
    with locked(work):
        if (work / "key").exists() and (work / "key").read_text() == key:
            say(progress, f"  Going on with what an earlier attempt left in {work}")
        else:
            if any(work.iterdir()) and not (work / "key").exists():
                raise ConfigError(f"{work} holds other files, and is needed for the log on disk: move it away.")
            for path in work.iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            write_whole(work / "key", key)
        log = DiskLog(work, stream, partitions, drop_duplicates)
        try:
            with bar(progress, f"Splitting {source.path}", size.batches + partitions) as log.advance:
                _ = log.facts
            yield log
        except JourneyLabError:  # the next attempt needs other input; an interruption is resumed from the folder
            log.close()
            raise
        log.close()


def _key(source: EventSource, partitions: int) -> str:
    """The same for the same files, read in the same way into as many partitions."""
    files = log_stamps(source.path)
    if source.profile_table is not None and source.profile_table.path.is_file():
        files.append(file_stamp(source.profile_table.path))
    text = json.dumps([files, source.model_dump(mode="json"), partitions], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()

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
from features.events.files import event_files, size_of
from features.events.source import EventSource
from features.journeys.disk_log import DiskLog
from features.journeys.event_log import EventLog, MemoryLog
from features.journeys.landed import is_landed
from features.journeys.loading import load_log, stream_log
from features.journeys.partitions import MOST_PARTITIONS
from features.journeys.whole_files import write_whole
from training.config.engines import DISK, SPARK, Engine
from training.progress import bar, say, stage

EVENTS_A_PARTITION = 1_000_000
BYTES_AN_EVENT = 100  # of a log in memory while it is packed and looked at
SHARE_OF_MEMORY = 0.5  # that a log may take; the rest is for what is made of it


@contextmanager
def open_event_log(source: EventSource, engine: Engine, work: Path, progress: Console | None) -> Iterator[EventLog]:
    """Open the log for as long as the block lasts; parts have the names of the whole log.

    Args:
        source: what to read and how.
        engine: where.
        work: the folder of the disk engine; a killed command goes on with what lies there, a finished one deletes it.
        progress: where to show what is going on.

    Raises:
        ConfigError: a source that the engine cannot read; Spark or Java is missing.
        DataError: no such file, or no event log.
    """
    if engine.name == SPARK:
        from features.spark.log import session  # PySpark is an extra, and heavy
        from features.spark.reading import read_log

        with stage(progress, f"Packing {source.path} on Spark"):
            spark = session(engine.master, engine.settings)
            log: EventLog = read_log(spark, source, partitions=engine.partitions).named()
    elif engine.name == DISK or (engine.name is None and too_large(source)):
        log = _on_disk(source, engine, work, progress)
    else:
        with stage(progress, f"Reading {source.path}"):
            log = MemoryLog(load_log(source))
    try:
        yield log
    except BaseException as error:
        if engine.name == SPARK or isinstance(error, JourneyLabError):  # partitions on disk stay for the next attempt
            log.close()
        raise
    log.close()


def too_large(source: EventSource) -> bool:
    """Whether a log should go to disk: it can be read in batches, and its events would take half of the free memory."""
    if is_landed(source.path) or stream_log(source) is None:
        return False
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return size_of(source.path).rows * BYTES_AN_EVENT > SHARE_OF_MEMORY * free


def _on_disk(source: EventSource, engine: Engine, work: Path, progress: Console | None) -> DiskLog:
    opened = None if is_landed(source.path) else stream_log(source)
    if opened is None:
        raise ConfigError(
            f"{source.path} cannot be read in batches (adapter '{source.adapter}', or landed journeys): "
            "use --engine memory, or give canonical events."
        )
    stream, drop_duplicates = opened
    rows = size_of(source.path).rows
    partitions = engine.partitions or min(MOST_PARTITIONS, max(1, -(-rows // EVENTS_A_PARTITION)))
    if partitions > MOST_PARTITIONS:
        raise ConfigError(f"{partitions} partitions: give 1 to {MOST_PARTITIONS:,}.")
    files = [(str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns) for file in event_files(source.path)]
    text = json.dumps([files, source.model_dump(mode="json"), partitions], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()
    if (work / "key").exists() and (work / "key").read_text() == key:
        say(progress, f"  Going on with what an earlier attempt left in {work}")
    else:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        write_whole(work / "key", key)
    with bar(progress, f"Splitting {source.path}", size_of(source.path).batches + partitions) as advance:
        log = DiskLog(work, stream, partitions, drop_duplicates, advance=advance)
        _ = log.facts
    return log

"""Packed journeys from an experiment's event source: read, checked and packed, or opened if landed already."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa

from features.errors import ConfigError, DataError
from features.events.checks import CheckedEvents, write_quarantine
from features.events.files import columns_of, read_table
from features.events.source import EventSource, canonical_events, file_in_errors, table_reader
from features.journeys.journeys import Journeys
from features.journeys.landed import is_landed, open_landed
from features.journeys.packing import pack
from features.journeys.stream import Loaded, Stream, load, open_stream


def load_journeys(source: EventSource, base: Path | None = None, quarantine_path: Path | None = None) -> Journeys:
    """Read, check and pack; bad rows go to `quarantine_path` (CSV) where one is given and there are any.

    Args:
        source: what to read and how.
        base: the folder that relative paths start from; the working directory by default.
        quarantine_path: where to write the rejected rows.

    Raises:
        DataError: no such file, or no event log.
    """
    return load_log(source, base, quarantine_path).journeys


def load_log(source: EventSource, base: Path | None = None, quarantine_path: Path | None = None) -> Loaded:
    """As `load_journeys`, with the rejected rows, their counts and the notes. Plain tables go batch by batch."""
    path = (base or Path()) / source.path.expanduser()
    if is_landed(path):
        return _landed(source, path)
    with file_in_errors(path):
        rules = table_reader(source, columns_of(path, encoding=source.encoding), base)
        if rules is None:
            loaded = _load_adapted(source, base)
        else:
            loaded = load(
                path, rules.options, columns=rules.columns, convert=rules.complete, encoding=source.encoding,
                added_columns=rules.added_columns,
            )  # fmt: skip
    if quarantine_path is not None:
        write_quarantine(loaded.quarantine, quarantine_path)
    return loaded


def _landed(source: EventSource, folder: Path) -> Loaded:
    """Journeys that were checked and packed when they were landed, by the settings of then."""
    log = open_landed(folder)
    now, plain = (_settings(events.model_dump(mode="json")) for events in (source, EventSource(path=folder)))
    then = _settings(log.source)
    for name, value in now.items() if now != plain else ():
        if then.get(name) != value:
            raise ConfigError(
                f"{folder} was landed with other settings: [events] {name} is {json.dumps(value)} now and was "
                f"{json.dumps(then.get(name))}. Land it again with journeylab features."
            )
    return Loaded(log.journeys, pa.table({}), {}, log.notes)


def _settings(source: dict[str, Any]) -> dict[str, Any]:
    """Without where files lie, which a cluster may call by other names."""
    table = source.get("profile_table")
    settings = {name: value for name, value in source.items() if name != "path"}
    return settings | {"profile_table": {**table, "path": ""} if table else None}


def stream_log(source: EventSource, base: Path | None = None) -> tuple[Stream, bool] | None:
    """The log batch by batch, and whether duplicates are rejected; None where an adapter needs all rows at once.

    Args:
        source: what to read and how.
        base: the folder that relative paths start from; the working directory by default.

    Raises:
        DataError: no such file, or no event log.
    """
    path = (base or Path()) / source.path.expanduser()
    if is_landed(path):
        return None
    with file_in_errors(path):
        rules = table_reader(source, columns_of(path, encoding=source.encoding), base)
        if rules is None:
            return None
        stream = open_stream(
            path,
            rules.options,
            columns=rules.columns,
            convert=rules.complete,
            encoding=source.encoding,
            added_columns=rules.added_columns,
        )
        return stream, rules.options.duplicates == "quarantine"


def read_events(source: EventSource, *, base: Path | None = None) -> CheckedEvents:
    """Read the source's file as one checked table, for those who want the events themselves.

    Args:
        source: what to read and how.
        base: the folder that relative paths start from; the working directory by default.

    Raises:
        DataError: no such file, or no event log.
    """
    path = (base or Path()) / source.path.expanduser()
    if is_landed(path):
        raise DataError(f"{path} holds journeys that were landed: load_log opens them, events are in the log itself.")
    with file_in_errors(path):
        return canonical_events(source, read_table(path, encoding=source.encoding), base=base)


def _load_adapted(source: EventSource, base: Path | None) -> Loaded:
    checked = read_events(source, base=base)
    return Loaded(pack(checked.events, source.schema()), checked.quarantine, checked.counts, tuple(checked.notes))

"""Atomic writes, so that a killed run leaves no partial file; Parquet files of record batches."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import ConfigError

BEING_WRITTEN = ".writing"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder and lock it for this process; a killed process holds no lock.

    Raises:
        ConfigError: another run has it locked.
    """
    folder.mkdir(parents=True, exist_ok=True)
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(f"Another run is writing to {folder}: let it end, or choose another folder.") from None
        yield
    finally:
        os.close(handle)


def write_whole(path: Path, content: str | Callable[[Path], None]) -> None:
    """Write a temporary file, then rename it to `path`.

    Args:
        path: the final name.
        content: the text, or a function that writes the file to a given path.
    """
    temporary = path.with_name(path.name + BEING_WRITTEN)
    if isinstance(content, str):
        temporary.write_text(content, encoding="utf-8")
    else:
        content(temporary)
    temporary.replace(path)


def write_parquet(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a file, one row group per batch, repeated text as dictionaries; return the number of rows."""
    text = [field.name for field in schema if field.type == pa.string() and field.name != "customer_id"]
    lists = [field.name for field in schema if pa.types.is_list(field.type)]
    lists = [f"{name}.list.element" for name in lists if pa.types.is_dictionary(schema.field(name).type.value_type)]
    rows = 0
    options: dict[str, Any] = {
        "use_dictionary": text + lists,
        "write_statistics": [field.name for field in schema if field.type != pa.float32()],  # features need none
        "write_batch_size": 1 << 16,
    }
    with pq.ParquetWriter(path, schema, **options) as writer:
        for batch in batches:
            writer.write_batch(batch)
            rows += batch.num_rows
    return rows

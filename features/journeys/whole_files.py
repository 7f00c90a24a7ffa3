"""Files that exist whole or not at all, so that a killed run leaves no half of one; Parquet files of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

BEING_WRITTEN = ".writing"


def write_whole(path: Path, content: str | Callable[[Path], None]) -> None:
    """Write a file beside its name, then move it there.

    Args:
        path: its name in the end.
        content: its text, or what writes it to the path that it is given.
    """
    beside = path.with_name(path.name + BEING_WRITTEN)
    if isinstance(content, str):
        beside.write_text(content, encoding="utf-8")
    else:
        content(beside)
    beside.replace(path)


def write_parquet(path: Path, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """Write a file, a row group a batch; text that repeats as dictionaries. How many rows there are."""
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

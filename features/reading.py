"""Reading event files: Parquet, CSV, CSV.gz, and folders of them, whole or in batches.

CSV columns come as text exactly as in the file, so that '007' stays '007' and the checks can show what was wrong.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from features.errors import DataError

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
CSV_BLOCK_BYTES = 16 << 20


def event_files(path: Path) -> list[Path]:
    """The event files behind a path: itself, or those of a folder, sorted by name."""
    if not path.exists():
        raise DataError(f"No such file: {path}. Check events.path.")
    if path.is_file():
        return [path]
    files = sorted(file for file in path.rglob("*") if file.is_file() and _suffix(file))
    if not files:
        raise DataError(f"The folder {path} holds no {', '.join((*PARQUET, *CSV))} file.")
    return files


def read_table(path: Path, columns: Sequence[str] | None = None, *, encoding: str = "utf8") -> pa.Table:
    """The whole of a file or folder as one table; `columns` (their names) limits what is read."""
    return pa.concat_tables(list(iter_tables(path, columns, encoding=encoding)), promote_options="permissive")


def iter_tables(path: Path, columns: Sequence[str] | None = None, *, encoding: str = "utf8") -> Iterator[pa.Table]:
    """Batches of a file or folder in order; a file without rows still gives one empty table with its columns."""
    for file in event_files(path):
        yield from _parquet(file, columns) if _suffix(file) in PARQUET else _csv(file, columns, encoding)


def _suffix(file: Path) -> str | None:
    name = file.name.lower()
    return next((suffix for suffix in (*PARQUET, *CSV) if name.endswith(suffix)), None)


def _parquet(file: Path, columns: Sequence[str] | None) -> Iterator[pa.Table]:
    try:
        source = pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file.name} is no Parquet file: {error}") from error
    wanted = None if columns is None else [name for name in source.schema_arrow.names if name in columns]
    if source.num_row_groups == 0:
        yield source.read(columns=wanted)
    for group in range(source.num_row_groups):
        yield source.read_row_group(group, columns=wanted)


def _csv(file: Path, columns: Sequence[str] | None, encoding: str) -> Iterator[pa.Table]:
    names = _header(file, encoding)
    wanted = [name for name in names if columns is None or name in columns]
    text = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), include_columns=wanted,
        strings_can_be_null=True, quoted_strings_can_be_null=True, null_values=[""],
    )
    parse = pa.csv.ParseOptions(delimiter=_delimiter(file), newlines_in_values=True)
    read = pa.csv.ReadOptions(encoding=encoding, block_size=CSV_BLOCK_BYTES)
    try:
        with pa.csv.open_csv(file, read_options=read, parse_options=parse, convert_options=text) as batches:
            empty = True
            for batch in batches:
                empty = False
                yield pa.Table.from_batches([batch])
            if empty:
                yield batches.schema.empty_table()
    except pa.ArrowInvalid as error:
        raise DataError(f"{file.name} cannot be read as CSV: {error}") from error


def _delimiter(file: Path) -> str:
    return "\t" if ".tsv" in file.name.lower() else ","


def _header(file: Path, encoding: str) -> list[str]:
    import csv
    import gzip

    opened = gzip.open if file.name.lower().endswith(".gz") else open
    with opened(file, "rt", encoding=encoding, newline="", errors="replace") as text:
        names = next(csv.reader(text, delimiter=_delimiter(file)), [])
    if not names:
        raise DataError(f"{file.name} is empty: not even a header. Give a file with one line of column names.")
    return [name.removeprefix("\ufeff") for name in names]

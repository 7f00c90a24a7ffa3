"""Reading event files: Parquet, CSV, CSV.gz, TSV, and folders of them, whole or batch by batch.

CSV columns come as text exactly as in the file, so that '007' stays '007' and the checks can show what was wrong.
Parquet text comes as dictionaries where the file stores it so: nothing is spelt out a million times.
"""

from __future__ import annotations

import csv
import gzip
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from io import TextIOWrapper
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from features.errors import DataError, missing_path
from features.events.checks import SOURCE_ROW

PARQUET = (".parquet", ".pq")
CSV = (".csv", ".csv.gz", ".tsv", ".tsv.gz")
CSV_BLOCK_BYTES = 16 << 20
ROWS_A_BATCH = 1 << 20
CSV_ROW_BYTES = 50  # and what gzip saves of them: for guesses
GZIP_GAIN = 6
DICTIONARY_BYTES = 4  # a row of a text column; where it takes more, the file spells most values out

Malformed = list[tuple[Path, int, str]]


@dataclass(frozen=True)
class Batch:
    """A part of a file, to be read once, by any thread.

    Attributes:
        file: where it is from.
        first_row: the number of its first row in that file, 1 being the first of the data.
        read: gives its rows; a column `source_row` where they do not simply follow each other.
    """

    file: Path
    first_row: int
    read: Callable[[], pa.Table]


def event_files(path: Path) -> list[Path]:
    """The event files behind a path: itself, or those of a folder, sorted by name.

    Raises:
        DataError: no such file, a folder without event files, or another kind of file.
    """
    if not path.exists():
        raise DataError(f"No such file: {missing_path(path)}")
    if path.is_file():
        if not _suffix(path):
            raise DataError(f"{path.name}: event files end in {', '.join((*PARQUET, *CSV))}. Rename or convert it.")
        return [path]
    files = sorted(
        file
        for file in path.rglob("*")
        if file.is_file() and _suffix(file) and not any(map(_hidden, file.relative_to(path).parts))
    )
    if not files:
        raise DataError(f"The folder {path} holds no {', '.join((*PARQUET, *CSV))} file.")
    return files


def _hidden(part: str) -> bool:
    return part.startswith((".", "_"))  # what other tools leave behind: _temporary, .crc files, checkpoints


def read_table(path: Path, columns: Sequence[str] | None = None, *, encoding: str = "utf8") -> pa.Table:
    """The whole of a file or folder as one table; `columns` limits what is read.

    Raises:
        DataError: no such file, no such format, or a CSV row of the wrong length.
    """
    try:
        return pa.concat_tables(list(iter_tables(path, columns, encoding=encoding)), promote_options="permissive")
    except pa.ArrowTypeError as error:
        raise DataError(f"The files in {path} do not fit together: {error}. Give a column one type in all.") from error


def iter_tables(path: Path, columns: Sequence[str] | None = None, *, encoding: str = "utf8") -> Iterator[pa.Table]:
    """Tables of a file or folder in order; a file without rows still gives an empty one with its columns."""
    for batch in batches(path, columns, encoding=encoding):
        yield batch.read()


def batches(
    path: Path,
    columns: Sequence[str] | None = None,
    *,
    encoding: str = "utf8",
    malformed: Malformed | None = None,
) -> Iterator[Batch]:
    """The parts of a file or folder in order, of about a million rows.

    Args:
        path: a file or a folder of files.
        columns: the names to read, where present; all by default.
        encoding: of CSV files.
        malformed: gets (file, row, line) of CSV lines with too many or too few fields; without it they are an error.
    """
    for file in event_files(path):
        yield from _parquet(file, columns) if _suffix(file) in PARQUET else _csv(file, columns, encoding, malformed)


def log_stamps(path: Path) -> list[list[Any]]:
    """The stamp of each event file behind a path: whether a log has changed."""
    return [file_stamp(file) for file in event_files(path)]


def file_stamp(file: Path) -> list[Any]:
    """Path, bytes, and time of change in ns."""
    status = file.stat()
    return [str(file.resolve()), status.st_size, status.st_mtime_ns]


@dataclass(frozen=True)
class Size:
    """How large a log is, without reading it: exact for Parquet, from the bytes for text."""

    rows: int
    batches: int


def size_of(path: Path) -> Size:
    """About how many rows and batches a file or folder has."""
    sizes = [_parquet_size(file) if _suffix(file) in PARQUET else _csv_size(file) for file in event_files(path)]
    return Size(sum(size.rows for size in sizes), sum(size.batches for size in sizes))


def _parquet_size(file: Path) -> Size:
    metadata = _open_parquet(file).metadata
    runs = [sum(metadata.row_group(group).num_rows for group in run) for run in _grouped(metadata)]
    return Size(metadata.num_rows, sum(-(-rows // ROWS_A_BATCH) if rows > 4 * ROWS_A_BATCH else 1 for rows in runs))


def _csv_size(file: Path) -> Size:
    size = file.stat().st_size * (GZIP_GAIN if file.name.lower().endswith(".gz") else 1)
    return Size(size // CSV_ROW_BYTES, max(1, -(-size // CSV_BLOCK_BYTES)))


def columns_of(path: Path, *, encoding: str = "utf8") -> list[str]:
    """The column names of a file, or of all files in a folder together."""
    headers = [
        _open_parquet(file).schema_arrow.names if _suffix(file) in PARQUET else _header(file, encoding)[0]
        for file in event_files(path)
    ]
    return list(dict.fromkeys(name for header in headers for name in header))


def _suffix(file: Path) -> str | None:
    name = file.name.lower()
    return next((suffix for suffix in (*PARQUET, *CSV) if name.endswith(suffix)), None)


def _open_parquet(file: Path) -> pq.ParquetFile:
    if file.stat().st_size == 0:
        raise DataError(f"{file.name} is empty: 0 bytes.")
    try:
        return pq.ParquetFile(file)
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{file.name} is no Parquet file: {error}") from error


def _parquet(file: Path, columns: Sequence[str] | None) -> Iterator[Batch]:
    """A batch for about a million rows: several row groups, one, or a part of one."""
    source = _open_parquet(file)
    selected = [name for name in source.schema_arrow.names if columns is None or name in columns]
    if source.metadata.num_rows == 0:
        yield Batch(file, 1, lambda: source.schema_arrow.empty_table().select(selected))
    row = 1
    for groups in _grouped(source.metadata):
        size = sum(source.metadata.row_group(group).num_rows for group in groups)
        dictionaries = _as_dictionaries(source, groups[0])
        if size > 4 * ROWS_A_BATCH:  # one huge row group
            yield from _in_parts(file, row, source.metadata, dictionaries, groups, selected)
        else:
            yield Batch(file, row, partial(_read_row_groups, file, source.metadata, dictionaries, groups, selected))
        row += size


def _grouped(metadata: pq.FileMetaData) -> Iterator[list[int]]:
    """Row groups in runs of about `ROWS_A_BATCH` rows; a large one by itself."""
    run: list[int] = []
    rows = 0
    for group in range(metadata.num_row_groups):
        size = metadata.row_group(group).num_rows
        if run and rows + size > ROWS_A_BATCH:
            yield run
            run, rows = [], 0
        run.append(group)
        rows += size
    if rows:
        yield run


def _read_row_groups(
    file: Path, metadata: pq.FileMetaData, dictionaries: list[str], groups: list[int], selected: list[str]
) -> pa.Table:
    with pq.ParquetFile(file, metadata=metadata, read_dictionary=dictionaries) as source:
        return source.read_row_groups(groups, columns=selected, use_threads=True)


def _in_parts(
    file: Path, row: int, metadata: pq.FileMetaData, dictionaries: list[str], groups: list[int], selected: list[str]
) -> Iterator[Batch]:
    with pq.ParquetFile(file, metadata=metadata, read_dictionary=dictionaries) as source:
        for rows in source.iter_batches(ROWS_A_BATCH, row_groups=groups, columns=selected):
            yield Batch(file, row, partial(pa.Table.from_batches, [rows]))
            row += rows.num_rows


def _as_dictionaries(source: pq.ParquetFile, group: int) -> list[str]:
    """The text columns that a row group stores as dictionaries, by the bytes they take."""
    rows, names = source.metadata.row_group(group), []
    for place in range(rows.num_columns):
        column = rows.column(place)
        name = column.path_in_schema
        is_text = "." not in name and pa.types.is_string(source.schema_arrow.field(name).type)
        if is_text and column.total_uncompressed_size < DICTIONARY_BYTES * max(rows.num_rows, 1):
            names.append(name)
    return names


def _csv(file: Path, columns: Sequence[str] | None, encoding: str, malformed: Malformed | None) -> Iterator[Batch]:
    names, delimiter = _header(file, encoding)
    wrong: Malformed = [] if malformed is None else malformed
    before = len(wrong)

    def reject(row: Any) -> str:
        wrong.append((file, row.number - 1, row.text))  # the header is row 1 to Arrow
        return "error" if malformed is None else "skip"

    text = pa.csv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()),
        include_columns=[name for name in names if columns is None or name in columns],
        strings_can_be_null=True,
        quoted_strings_can_be_null=True,
        null_values=[""],
    )
    parse = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=reject)
    # without Arrow's own threads it knows the numbers of bad rows; the checks meanwhile run in ours
    read = pa.csv.ReadOptions(encoding=encoding, block_size=CSV_BLOCK_BYTES, use_threads=False)
    try:
        with _opened(file) as opened, pa.csv.open_csv(opened, read, parse, text) as source:
            n = 0
            for rows in source:
                yield Batch(file, n + 1, partial(_numbered, pa.Table.from_batches([rows]), n, wrong[before:]))
                n += rows.num_rows
            if n == 0:
                yield Batch(file, 1, source.schema.empty_table)
    except pa.ArrowInvalid as error:
        if "Empty CSV" not in str(error):  # Arrow's word for a header without an end of line
            raise DataError(f"{file.name}: {_csv_problem(error, names, wrong, encoding)}") from error
        yield Batch(file, 1, lambda: pa.table({name: pa.nulls(0, pa.string()) for name in names}))
    except (UnicodeDecodeError, OSError, EOFError) as error:
        raise DataError(f"{file.name}: {_csv_problem(error, names, wrong, encoding)}") from error


def _numbered(rows: pa.Table, before: int, wrong: Malformed) -> pa.Table:
    """Rows of a CSV file with their numbers in it, where rejected lines leave gaps."""
    if not wrong:
        return rows
    good_before = np.array([row for _, row, _ in wrong]) - 1 - np.arange(len(wrong))
    place = np.arange(before + 1, before + rows.num_rows + 1)
    return rows.append_column(SOURCE_ROW, pa.array(place + np.searchsorted(good_before, place, side="left")))


def _csv_problem(error: Exception, names: list[str], wrong: Malformed, encoding: str) -> str:
    """Arrow's message in the words of the file: which row, which column, what to do."""
    match = re.search(r"CSV column #(\d+): (?:Row #(\d+): )?.*invalid UTF8", str(error))
    if match or isinstance(error, UnicodeDecodeError):
        where = f"row {int(match[2]) - 1}, column '{names[int(match[1])]}', " if match and match[2] else ""
        return f"{where}is not {encoding} text. Say its encoding, for example encoding = 'latin-1' or 'cp1252'."
    if wrong:
        _, row, line = wrong[-1]
        return f"row {row} does not have the {len(names)} fields of the header: {line!r}. Mend or drop it."
    return f"cannot be read as CSV: {error}"


def _opened(file: Path) -> IO[bytes]:
    return cast(IO[bytes], gzip.open(file, "rb")) if file.name.lower().endswith(".gz") else file.open("rb")


def delimiter_of(file: Path, encoding: str = "utf8") -> str:
    """The delimiter of a text file."""
    return _header(file, encoding)[1]


def _header(file: Path, encoding: str) -> tuple[list[str], str]:
    """The column names and the delimiter: a tab in a TSV file, else the commonest of , ; | and tab."""
    try:
        with _opened(file) as opened, TextIOWrapper(opened, encoding, errors="replace", newline="") as lines:
            first = lines.readline().removeprefix("\ufeff")
    except (OSError, EOFError, UnicodeError, LookupError) as error:
        raise DataError(f"{file.name} cannot be read: {error}.") from error
    delimiter = "\t" if ".tsv" in file.name.lower() else max(",;|\t", key=first.count)
    names = next(csv.reader([first], delimiter=delimiter), [])
    if not first.strip():
        raise DataError(f"{file.name} is empty: not even a header. Give a file with one line of column names.")
    if twice := [name for name in names if names.count(name) > 1]:
        raise DataError(f"{file.name} has two columns '{twice[0]}'. Rename one.")
    return names, delimiter

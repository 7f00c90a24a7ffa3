"""Arrow IPC streams and Parquet files from the network: read whole, within limits, without trust in their content.

A stream's buffers may be compressed a thousandfold and its offsets may point anywhere. So compressed streams are
refused, sizes are checked before anything is unpacked, and the table is validated in full.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from serving.requests.schemas import RequestError

ROWS, UNPACKED_BYTES, COLUMNS = 2_000_000, 512 * 1024 * 1024, 500
RECORD_BATCH, DICTIONARY_BATCH = 3, 2  # of Arrow's `MessageHeader`


def read_stream(body: bytes) -> pa.Table:
    """An Arrow IPC stream.

    Raises:
        RequestError: when it is none, is compressed, or is too large.
    """
    try:
        _refuse_compressed(body)
        with pa.ipc.open_stream(pa.py_buffer(body)) as reader:
            _check_columns(len(reader.schema))
            return pa.Table.from_batches(_bounded(reader), reader.schema)
    except (pa.ArrowException, OSError, ValueError, struct.error) as error:
        raise RequestError(400, f"The body is no Arrow IPC stream: {_first_line(error)}.") from None


def read_parquet(body: bytes) -> pa.Table:
    """A Parquet file.

    Raises:
        RequestError: when it is none, or too large.
    """
    try:
        file = pq.ParquetFile(pa.BufferReader(body), pre_buffer=False)
        metadata = file.metadata
        _check_columns(metadata.num_columns)
        unpacked = sum(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))
        _check_size(metadata.num_rows, unpacked)
        table = file.read(use_threads=False)
        _check_size(table.num_rows, table.nbytes)
        table.validate(full=True)
        return table
    except (pa.ArrowException, OSError, ValueError) as error:
        raise RequestError(400, f"The body is no Parquet file: {_first_line(error)}.") from None


def _bounded(reader: pa.RecordBatchReader) -> Iterator[pa.RecordBatch]:
    rows = size = 0
    for batch in reader:
        rows, size = rows + batch.num_rows, size + batch.nbytes
        _check_size(rows, size)
        batch.validate(full=True)
        yield batch


def _check_size(rows: int, size: int) -> None:
    if rows > ROWS or size > UNPACKED_BYTES:
        raise RequestError(413, f"The table holds {rows:,} rows and {size:,} bytes: send up to {ROWS:,} rows a call.")


def _check_columns(columns: int) -> None:
    if columns > COLUMNS:
        raise RequestError(413, f"The table has {columns:,} columns: send the ones that the service reads.")


def _refuse_compressed(body: bytes) -> None:
    for message in pa.ipc.MessageReader.open_stream(pa.py_buffer(body)):
        if is_compressed(message.metadata.to_pybytes()):
            raise RequestError(415, "The Arrow stream is compressed: write it without compression.")


def is_compressed(metadata: bytes) -> bool:
    """Whether a message's record batch says `compression`, read from its flatbuffer (Arrow's Message.fbs).

    Args:
        metadata: of an encapsulated message.
    """
    message = struct.unpack_from("<I", metadata, 0)[0]
    kind_at, header_at = _field(metadata, message, 1), _field(metadata, message, 2)
    if kind_at is None or header_at is None:
        return False
    kind = metadata[kind_at]
    batch = header_at + struct.unpack_from("<I", metadata, header_at)[0]
    if kind == DICTIONARY_BATCH:
        data_at = _field(metadata, batch, 1)
        if data_at is None:
            return False
        batch = data_at + struct.unpack_from("<I", metadata, data_at)[0]
    return kind in (RECORD_BATCH, DICTIONARY_BATCH) and _field(metadata, batch, 3) is not None


def _field(buffer: bytes, table: int, number: int) -> int | None:
    """Where a table's field lies; None where it is not there."""
    vtable = table - struct.unpack_from("<i", buffer, table)[0]
    if vtable < 0:
        raise ValueError("a table lies outside the message")
    size = struct.unpack_from("<H", buffer, vtable)[0]
    if 4 + 2 * number >= size:
        return None
    offset = struct.unpack_from("<H", buffer, vtable + 4 + 2 * number)[0]
    return table + offset if offset else None


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0].strip().rstrip(".")[:200]

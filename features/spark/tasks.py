"""The tasks of an executor: build blocks, apply a function to them, write its results.

Every function takes the Arrow batches of a task and gives Arrow batches, as `mapInArrow` requires.
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import reduce
from pathlib import Path
from typing import Any, TypeVar

import numba
import pyarrow as pa
import pyarrow.parquet as pq

from features.events.checks import first_rejected_rows
from features.events.table_reader import TableReader
from features.journeys.event_log import Part, merged, merged_stream, partial_facts
from features.journeys.whole_files import write_parquet
from features.spark.blocks import abouts, block_facts, build, each_bad, packed_blocks, read_blocks

T = TypeVar("T")
PAYLOAD = pa.schema([("payload", pa.binary())])
UNFINISHED = ".writing"
PART, SET_ASIDE = "part", "_set_aside"  # names of files, before the partition
_modules = 0  # imported when `gc.freeze` was called last


def build_blocks(batches: Iterable[pa.RecordBatch], rules: TableReader, rows_a_block: int) -> Iterator[pa.RecordBatch]:
    """Blocks of whole customers, checked and packed, from rows sorted by the customers' hash."""
    _begin()
    return build(batches, rules, rows_a_block)


def partials(
    batches: Iterable[pa.RecordBatch], function: Callable[[Part], Any], names: dict[str, tuple[str, ...]] | None
) -> Iterator[pa.RecordBatch]:
    """The merged result of a task, if it has a block."""
    _begin()
    for result in merged_stream(map(function, read_blocks(batches, names))):
        yield _payload(result)


def part_results(
    batches: Iterable[pa.RecordBatch], function: Callable[[Part], Any], names: dict[str, tuple[str, ...]] | None
) -> Iterator[pa.RecordBatch]:
    """The result of a function for each part; None is dropped."""
    _begin()
    for result in map(function, read_blocks(batches, names)):
        if result is not None:
            yield _payload(result)


def partials_again(batches: Iterable[pa.RecordBatch], function: Callable[[Any], Any]) -> Iterator[pa.RecordBatch]:
    """A function applied to the results of `part_results`, merged; nothing where there are none."""
    _begin()
    for result in merged_stream(function(loads(payload.as_py())) for rows in batches for payload in rows["payload"]):
        yield _payload(result)


def merged_partials(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """One result of those of several tasks."""
    results = [loads(payload.as_py()) for rows in batches for payload in rows["payload"]]
    if results:
        yield _payload(reduce(merged, results))


def rows_of(
    batches: Iterable[pa.RecordBatch],
    function: Callable[[Part], Iterable[pa.RecordBatch]],
    names: dict[str, tuple[str, ...]] | None,
    schema: pa.Schema,
) -> Iterator[pa.RecordBatch]:
    """The batches that a function makes of each part, in a schema from `plain`."""
    _begin()
    for part in read_blocks(batches, names):
        for batch in function(part):
            yield batch.cast(schema)


def plain(schema: pa.Schema) -> pa.Schema:
    """A schema without dictionaries, which Spark does not know.

    >>> plain(pa.schema([("channels", pa.list_(pa.dictionary(pa.int32(), pa.string())))])).field(0).type
    ListType(list<item: string>)
    """

    def of(kind: pa.DataType) -> pa.DataType:
        if pa.types.is_list(kind):
            return pa.list_(of(kind.value_type))
        return kind.value_type if pa.types.is_dictionary(kind) else kind

    return pa.schema([(field.name, of(field.type)) for field in schema])


def written(
    batches: Iterable[pa.RecordBatch],
    function: Callable[[Part], Iterable[pa.RecordBatch]],
    names: dict[str, tuple[str, ...]] | None,
    schema: pa.Schema,
    folder: str,
) -> Iterator[pa.RecordBatch]:
    """The file of a task, written whole or not at all; a second attempt writes the same."""
    _begin()
    parts = read_blocks(batches, names)
    rows = _file(folder, schema, (batch for part in parts for batch in function(part)))
    yield pa.record_batch([pa.array([rows], pa.int64())], names=["rows"])


def _file(folder: str, schema: pa.Schema, batches: Iterable[pa.RecordBatch]) -> int:
    """The file of this task; how many rows it has."""
    return _in_place(folder, PART, lambda path: write_parquet(path, schema, batches))


def _in_place(folder: str, kind: str, write: Callable[[Path], T]) -> T:
    """Write a file of this task under another name, then give it its own."""
    from pyspark import TaskContext

    context = TaskContext.get()
    assert context is not None
    unfinished = Path(folder) / f"_{context.partitionId()}-{context.taskAttemptId()}{UNFINISHED}"
    result = write(unfinished)
    unfinished.replace(Path(folder) / f"{kind}-{context.partitionId():05d}.parquet")
    return result


def written_at_once(
    batches: Iterable[pa.RecordBatch],
    rules: TableReader,
    rows_a_block: int,
    function: Callable[[Part], Iterable[pa.RecordBatch]],
    extra: Callable[[Part], Any] | None,
    schema: pa.Schema,
    folder: str,
) -> Iterator[pa.RecordBatch]:
    """As `written`, straight from rows sorted by the customers' hash; rejected rows go to a separate file.

    Gives the number of rows, the merged descriptions of the blocks and the merged result of `extra`; nothing where
    there is no block.
    """
    _begin()
    totals: list[tuple[Any, ...]] = []
    bad: list[pa.Table] = []

    def packed_rows() -> Iterator[pa.RecordBatch]:
        for packed in packed_blocks(batches, rules, rows_a_block):
            about = (packed.counts, dict.fromkeys(packed.notes, 1), partial_facts(packed.part))
            block = (about, 0 if extra is None else extra(packed.part))
            totals[:] = [merged(totals[0], block) if totals else block]
            bad.extend([] if packed.bad is None else [packed.bad])
            yield from function(packed.part)

    rows = _file(folder, schema, packed_rows())
    if bad:
        table = pa.concat_tables(bad, promote_options="default")
        _in_place(folder, SET_ASIDE, lambda path: pq.write_table(table, path))
    if totals:
        yield _payload((rows, *totals[0]))


def merged_abouts(batches: Iterable[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    """The descriptions of the blocks of a task, merged."""
    each = ((about["counts"], dict.fromkeys(about["notes"], 1), block_facts(about)) for about in abouts(batches))
    for result in merged_stream(each):
        yield _payload(result)


def bad_rows(batches: Iterable[pa.RecordBatch], first_only: bool = False) -> Iterator[pa.RecordBatch]:
    """The rejected rows of each block; with `first_only` the first of each reason."""
    for table in each_bad(batches):
        yield _payload(first_rejected_rows(table) if first_only else table)


def _payload(result: Any) -> pa.RecordBatch:
    return pa.record_batch([pa.array([_dumps(result)], pa.binary())], schema=PAYLOAD)


def _dumps(result: Any) -> bytes:
    """As Spark itself sends what Python functions give back."""
    from pyspark.serializers import CPickleSerializer

    return bytes(CPickleSerializer().dumps(result))  # type: ignore[no-untyped-call]


def loads(data: bytes) -> Any:
    """Read the bytes of `_dumps`, which executors of this job wrote."""
    from pyspark.serializers import CPickleSerializer

    return CPickleSerializer().loads(data)  # type: ignore[no-untyped-call]


def _begin() -> None:
    """Of a task, in a Python process that has others before and after it.

    A cluster runs a task a core: one thread. After each task PySpark looks through all objects for cycles that nothing
    needs any more, and with pandas, pyarrow and numba imported that takes .14 s: what the process has just imported
    will never be one.
    """
    global _modules
    if len(sys.modules) > _modules:
        gc.freeze()
        _modules = len(sys.modules)
    os.environ["OMP_NUM_THREADS"] = "1"
    numba.config.NUMBA_NUM_THREADS = 1  # type: ignore[attr-defined]
    pa.set_cpu_count(1)

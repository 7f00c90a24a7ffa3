"""Journeys as Parquet, a row a customer, that models learn from without holding the log in memory.

    schema = journey_schema(facts)
    log.write(partial(journey_batches, share=0.1, schema=schema), schema, folder / JOURNEYS)    # on a cluster
    open_landed(folder).journeys                                                                # anywhere else

`journeylab features` writes them beside the features, and a folder that it wrote can be the `path` of any log. Opened
for the first time, the lists become columns on disk (`_packed`), in the order of one machine, with one row group in
memory at a time. From then on they are mapped: a fit reads the pages that its batches need, and the system keeps what
there is room for.

    FOLDER/_features.json               what was landed, whole or not
    FOLDER/_journeys/part-….parquet     customer_id, its place in the source, how many events, then a list a column
    FOLDER/_packed/                     `Journeys.save`; made when it is missing
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import DataError
from features.journeys.event_log import LogFacts, Part
from features.journeys.journeys import Category, Journeys
from features.journeys.partitions import sampled

STATE, JOURNEYS, PACKED = "_features.json", "_journeys", "_packed"
FIRST, EVENTS = "__first", "__events"
KEYS = ("customer_id", FIRST, EVENTS)
TIMES = "timestamp"
EVENTS_A_BATCH = 1 << 18
MISSING = -1

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class LandedLog:
    """Landed journeys.

    Attributes:
        journeys: mapped from disk.
        source: how the log was read, `EventSource` as JSON but for its path.
        notes: what a reader should know of them.
    """

    journeys: Journeys
    source: dict[str, Any]
    notes: tuple[str, ...]


def journey_schema(facts: LogFacts) -> pa.Schema:
    """`customer_id`, its first row in the source, how many events; `timestamp` and the columns of the log as lists."""
    text = pa.dictionary(pa.int32(), pa.string())
    columns = {TIMES: pa.timestamp("us")} | dict.fromkeys(facts.names, text)
    columns |= dict.fromkeys(facts.numbers, pa.float64())
    keys = zip(KEYS, (pa.string(), pa.int64(), pa.int64()), strict=True)
    return pa.schema([*keys, *((name, pa.list_(kind)) for name, kind in columns.items())])


def journey_batches(part: Part, share: float, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The journeys of a part's customers, or of those that a hash chooses.

    Args:
        part: with the names of the whole log.
        share: of the customers.
        schema: see `journey_schema`.
    """
    log = part.journeys
    customers = np.flatnonzero(sampled(log.customer_ids, share))
    lengths = np.diff(log.offsets)[customers]
    lots = np.flatnonzero(np.diff(np.cumsum(lengths) // EVENTS_A_BATCH)) + 1
    for low, high in pairwise([0, *lots.tolist(), len(customers)]):
        if high > low:
            yield _batch(part, customers[low:high], schema)


def _batch(part: Part, customers: Ints, schema: pa.Schema) -> pa.RecordBatch:
    log = part.journeys
    lengths = np.diff(log.offsets)[customers]
    events = runs(log.offsets[:-1][customers], lengths)
    borders = pa.array(np.concatenate(([0], np.cumsum(lengths))), pa.int32())
    columns: list[pa.Array] = [
        log.customer_ids.take(pa.array(customers)),
        pa.array(part.firsts[customers]),
        pa.array(lengths),
    ]
    for name in schema.names[len(KEYS) :]:
        if name == TIMES:
            values = pa.array(log.t[events]).cast(pa.timestamp("us"))
        elif name in log.categories:
            values = _text(log.categories[name], events)
        else:
            values = pa.array(log.numbers[name][events], from_pandas=True)
        columns.append(pa.ListArray.from_arrays(borders, values))
    return pa.record_batch(columns, schema=schema)


def _text(column: Category, events: Ints) -> pa.DictionaryArray:
    """The values of some events, with the names that occur among them: each row group keeps its own."""
    codes = column.codes[events]
    missing = codes == MISSING
    used, places = np.unique(codes[~missing], return_inverse=True)
    indices = np.zeros(len(codes), np.int32)
    indices[~missing] = places
    names = pa.array([column.names[code] for code in used.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(indices, mask=missing), names)


def runs(starts: Ints, lengths: Ints) -> Ints:
    """The places of events of customers who own runs of them.

    >>> runs(np.array([5, 0]), np.array([2, 3])).tolist()
    [5, 6, 0, 1, 2]
    """
    before = np.cumsum(lengths) - lengths
    return np.repeat(starts - before, lengths) + np.arange(lengths.sum())


def about_journeys(facts: LogFacts, source: dict[str, Any], share: float) -> dict[str, Any]:
    """The entry "journeys" of `STATE`."""
    return {
        "span": [facts.start_us, facts.end_us], "events": facts.events, "customers": facts.customers, "share": share,
        "names": facts.names, "numbers": list(facts.numbers), "source": source,
    }  # fmt: skip


def is_landed(path: Path) -> bool:
    """Whether a folder is one that `journeylab features` wrote."""
    return (path / STATE).is_file()


def read_state(folder: Path) -> dict[str, Any]:
    """The description that `journeylab features` left in its folder: `features`, `journeys`, `notes`, `rows`.

    Raises:
        DataError: it wrote none, or did not come to its end.
    """
    if not is_landed(folder):
        raise DataError(f"{folder} holds no features that journeylab features wrote: there is no {STATE}.")
    state: dict[str, Any] = json.loads((folder / STATE).read_text(encoding="utf-8"))
    if "journeys" not in state or not (folder / JOURNEYS).is_dir():
        raise DataError(f"{folder} is not whole: run journeylab features again.")
    return state


def open_landed(folder: Path) -> LandedLog:
    """The journeys of a folder that `journeylab features` wrote.

    Raises:
        DataError: as `read_state`.
    """
    about = read_state(folder)["journeys"]
    home = folder / PACKED
    journeys = Journeys.load(home if home.is_dir() else _pack(folder, about))
    notes: tuple[str, ...] = ()
    if about["share"] < 1:
        customers = f"{journeys.n_customers:,} of {about['customers']:,} customers, chosen by a hash"
        events = f"{journeys.n_events:,} of {about['events']:,} events"
        notes = (f"a sample: {customers}, with {events}; the cutoffs are those of the whole log",)
    return LandedLog(journeys, about["source"], notes)


def _pack(folder: Path, about: dict[str, Any]) -> Path:
    """Make the columns and move them to their place; beside it in a temporary folder where nothing can be written."""
    files = sorted((folder / JOURNEYS).glob("part-*.parquet"))
    try:
        scratch = Path(tempfile.mkdtemp(prefix=f"{PACKED}-", dir=folder))
    except OSError:
        scratch = Path(tempfile.mkdtemp(prefix="journeylab-packed-"))
        atexit.register(shutil.rmtree, scratch, ignore_errors=True)
    scratch.chmod(folder.stat().st_mode & 0o777)  # others may open it, too
    try:
        _fill(scratch, files, about)
    except OSError as error:
        shutil.rmtree(scratch, ignore_errors=True)
        raise DataError(f"The journeys of {folder} cannot be laid out in {scratch.parent}: {error}") from error
    except BaseException:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    if scratch.parent != folder:
        return scratch
    home = folder / PACKED
    try:
        os.replace(scratch, home)
    except OSError:  # another process was faster
        shutil.rmtree(scratch, ignore_errors=True)
    return home


def _fill(home: Path, files: list[Path], about: dict[str, Any]) -> None:
    keys = pa.concat_tables([pq.read_table(file, columns=list(KEYS)) for file in files])
    order = np.argsort(keys[FIRST].to_numpy(), kind="stable")
    ids = keys["customer_id"].combine_chunks().take(pa.array(order))
    offsets = np.concatenate(([0], np.cumsum(keys[EVENTS].to_numpy()[order])))
    starts = np.empty(len(order), np.int64)  # of each row of the files in the columns
    starts[order] = offsets[:-1]
    names = {name: tuple(texts) for name, texts in about["names"].items()}
    span = tuple(about["span"])
    log = Journeys.created(home, ids, offsets, names, about["numbers"], span, about["share"])
    code_of = {name: {text: code for code, text in enumerate(texts)} for name, texts in names.items()}
    at = 0
    for file in files:
        with pq.ParquetFile(file) as parquet:
            for number in range(parquet.num_row_groups):
                rows = parquet.read_row_group(number)
                _put(log, code_of, rows, runs(starts[at : at + rows.num_rows], rows[EVENTS].to_numpy()))
                at += rows.num_rows


def _put(log: Journeys, code_of: dict[str, dict[str, int]], rows: pa.Table, places: Ints) -> None:
    """Write the events of some customers to their places."""
    log.t[places] = _flat(rows, TIMES).cast(pa.int64()).to_numpy()
    for name, category in log.categories.items():
        values = _flat(rows, name).dictionary_encode()
        table = np.array([*(code_of[name][text] for text in values.dictionary.to_pylist()), MISSING], np.int32)
        category.codes[places] = table[values.indices.fill_null(len(table) - 1).to_numpy()]
    for name, numbers in log.numbers.items():
        numbers[places] = _flat(rows, name).to_numpy(zero_copy_only=False)


def _flat(rows: pa.Table, name: str) -> pa.Array:
    column = rows[name].combine_chunks()
    lists = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    return lists.flatten()

"""Journeys: a log of events as flat columns, sorted by customer, then time, then source order."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.errors import DataError
from features.events.columns import as_text
from features.events.text_index import TextIndex, text_buffers
from features.journeys.order_kernels import first_at_or_after
from features.timestamps import microseconds

FEW = 64  # customers up to which a plain dictionary finds them faster
HASHED_ROWS = 1 << 20
UNKNOWN_CUSTOMER = -1


@dataclass(frozen=True)
class Category:
    """A categorical column: codes into the log's own names.

    Attributes:
        codes: (n_events,) int32, -1 where missing.
        names: the values that occur in this log; a model maps them to the vocabulary it was trained with.
    """

    codes: npt.NDArray[np.int32]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Journeys:
    """A packed log. Customer `i` owns events `offsets[i]:offsets[i + 1]` of every column.

    Attributes:
        customer_ids: (n_customers,) text, in order of first appearance.
        offsets: (n_customers + 1,) int64.
        t: (n_events,) int64, µs since 1970 UTC.
        categories: the categorical columns that the log has; `touchpoint` always.
        numbers: the numeric columns that the log has, (n_events,) float64, NaN where missing.
        span: first and last event, µs, of the log that these are some customers of; None where these are all of it.
        share: of that log's customers, chosen by `features.journeys.partitions.sampled`.
    """

    customer_ids: pa.Array
    offsets: npt.NDArray[np.int64]
    t: npt.NDArray[np.int64]
    categories: dict[str, Category]
    numbers: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)
    span: tuple[int, int] | None = None
    share: float = 1.0

    @cached_property
    def readonly(self) -> dict[str, npt.NDArray[Any]]:
        """Column → (n_events,) int32 codes or float64 numbers, and "" → int64 times, as kernels are compiled for."""
        codes = {name: as_readonly(category.codes, np.int32) for name, category in self.categories.items()}
        numbers = {name: as_readonly(values, np.float64) for name, values in self.numbers.items()}
        return {"": as_readonly(self.t, np.int64), **codes, **numbers}

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return len(self.t)

    @property
    def n_customers(self) -> int:
        """How many customers there are."""
        return len(self.offsets) - 1

    @property
    def start_us(self) -> int:
        """The log's first event, µs since 1970 UTC; needs an event."""
        return int(self.t.min()) if self.span is None else self.span[0]

    @property
    def end_us(self) -> int:
        """The log's last event."""
        return int(self.t.max()) if self.span is None else self.span[1]

    def index_of(self, ids: Any) -> npt.NDArray[np.int64]:
        """(n,) int64 indices of customers by identifier, -1 where the log does not know them.

        Args:
            ids: (n,) identifiers as text, in any list, array or Series; numbers are matched by their text.
        """
        if self.n_customers <= FEW and len(ids) <= FEW:
            places = self._few
            return np.array(
                [places.get(value if isinstance(value, str) else _id_text(value), -1) for value in ids], np.int64
            )
        texts = id_texts(ids)
        indices = self._index.find(texts.fill_null("") if texts.null_count else texts).astype(np.int64)
        if texts.null_count:
            indices[np.asarray(texts.is_null())] = UNKNOWN_CUSTOMER
        return indices

    @cached_property
    def _few(self) -> dict[str | None, int]:
        return {name: place for place, name in enumerate(self.customer_ids.to_pylist())}

    @cached_property
    def _index(self) -> TextIndex:
        index = TextIndex()
        index.add(self.customer_ids)
        return index

    def at(self, cutoffs: Any, customers: npt.ArrayLike | None = None) -> Snapshots:
        """Snapshots of `customers` (indices, default all) at `cutoffs`; the two broadcast.

        Args:
            cutoffs: a moment or (n,) moments: datetime64, Timestamp, text, or int64 µs since 1970 UTC.
            customers: (n,) indices; -1 gives a snapshot without events.

        Raises:
            DataError: a cutoff is missing or no time.
            IndexError: the log has no such customer.
        """
        indices = np.arange(self.n_customers) if customers is None else np.atleast_1d(np.asarray(customers, np.int64))
        when = np.atleast_1d(microseconds(cutoffs))
        if len(indices) != len(when):
            indices, when = (
                np.array(each) for each in np.broadcast_arrays(indices, when)
            )  # kernels take no broadcast views
        indices, when = np.ascontiguousarray(indices), np.ascontiguousarray(when)
        start, stop = np.empty_like(indices), np.empty_like(indices)
        wrong = first_at_or_after(self.t, self.offsets, indices, when, start, stop)
        if wrong >= 0:
            raise IndexError(
                f"Customers are numbered 0 to {self.n_customers - 1}; row {wrong} asks for {indices[wrong]}."
            )
        return Snapshots(self, indices, start, stop, when)

    def at_ids(self, rows: pd.DataFrame) -> Snapshots:
        """Snapshots for a frame with `customer_id` and `cutoff`, in its order; unknown customers have no events."""
        return self.at(rows["cutoff"], self.index_of(rows["customer_id"]))

    def fingerprint(self) -> str:
        """SHA-256 over customers, times and columns: the same events in the same order give the same text."""
        digest = hashlib.sha256()
        borders, data = text_buffers(self.customer_ids)
        for part in (borders - borders[:1], data[slice(*borders[[0, -1]])], self.offsets, self.t):
            digest.update(_bytes(part))
        for name in sorted(self.categories):
            category = self.categories[name]
            digest.update(json.dumps([name, category.names]).encode())
            digest.update(_bytes(category.codes))
        for name in sorted(self.numbers):
            digest.update(json.dumps(name).encode())
            values = self.numbers[name]
            for row in range(0, len(values), HASHED_ROWS):
                chunk = values[row : row + HASHED_ROWS] + 0.0  # so that −0 is 0
                chunk[np.isnan(chunk)] = np.nan  # one NaN of the many
                digest.update(_bytes(chunk))
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the columns as `.npy` files and `journeys.json`; column names must be fit for file names."""
        self._save_customers(folder)
        np.save(folder / "t.npy", self.t)
        for place, category in enumerate(self.categories.values()):
            np.save(folder / f"category_{place}.npy", category.codes)
        for place, values in enumerate(self.numbers.values()):
            np.save(folder / f"number_{place}.npy", values)

    @classmethod
    def created(
        cls,
        folder: Path,
        customer_ids: pa.Array,
        offsets: npt.NDArray[np.int64],
        names: dict[str, tuple[str, ...]],
        numbers: Sequence[str],
        span: tuple[int, int] | None = None,
        share: float = 1.0,
    ) -> Journeys:
        """Create the files of `save`, with the columns of events mapped from disk and not yet filled.

        Args:
            folder: a new one.
            customer_ids: (n_customers,) text.
            offsets: (n_customers + 1,).
            names: of each categorical column.
            numbers: the numeric columns.
            span: as of `Journeys`.
            share: the same.

        Raises:
            OSError: there is no room on the disk.
        """

        def column(file: str, kind: Any) -> Any:
            array = np.lib.format.open_memmap(folder / file, mode="w+", dtype=kind, shape=(int(offsets[-1]),))
            if hasattr(os, "posix_fallocate"):  # a mapped page that finds no room kills the process
                with (folder / file).open("r+b") as opened:
                    os.posix_fallocate(opened.fileno(), 0, os.fstat(opened.fileno()).st_size)
            return array

        folder.mkdir(parents=True, exist_ok=True)
        log = cls(
            customer_ids,
            offsets,
            column("t.npy", np.int64),
            {
                name: Category(column(f"category_{k}.npy", np.int32), texts)
                for k, (name, texts) in enumerate(names.items())
            },
            {name: column(f"number_{k}.npy", np.float64) for k, name in enumerate(numbers)},
            span,
            share,
        )
        log._save_customers(folder)
        return log

    def _save_customers(self, folder: Path) -> None:
        """Write everything but the columns of events."""
        folder.mkdir(parents=True, exist_ok=True)
        borders, data = text_buffers(self.customer_ids)
        np.save(folder / "ids.npy", data[slice(*borders[[0, -1]])])
        np.save(folder / "id_borders.npy", borders - borders[:1])
        np.save(folder / "offsets.npy", self.offsets)
        names = {name: list(category.names) for name, category in self.categories.items()}
        about = {"categories": names, "numbers": list(self.numbers), "span": self.span, "share": self.share}
        (folder / "journeys.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Journeys:
        """Read what `save` wrote; the columns are mapped from disk, not copied.

        Raises:
            DataError: the folder holds something else, or files that do not fit each other.
        """
        try:
            return _checked_parts(_loaded(folder))
        except (OSError, KeyError, TypeError, AttributeError, pa.ArrowInvalid, ValueError) as error:
            raise DataError(f"{folder} holds no packed log as `Journeys.save` writes it: {error}") from error


@dataclass(frozen=True)
class Snapshots:
    """A customer, a start, a stop and a cutoff a row; no event is copied.

    Attributes:
        journeys: the packed log that the rows point into.
        customer: (n,) int64, index into `journeys.customer_ids`; -1 where the log does not know the customer.
        start: (n,) int64, the customer's first event.
        stop: (n,) int64, the first event at or after the cutoff: rows see events `start:stop` and nothing else.
        cutoff: (n,) int64, µs since 1970 UTC.
    """

    journeys: Journeys
    customer: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    cutoff: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, rows: npt.NDArray[Any] | slice) -> Snapshots:
        """The snapshots at `rows` (indices, a mask or a slice), in that order."""
        return Snapshots(self.journeys, self.customer[rows], self.start[rows], self.stop[rows], self.cutoff[rows])

    @property
    def customer_ids(self) -> npt.NDArray[np.object_]:
        """(n,) the customers' identifiers as text; None where the customer is unknown."""
        rows = pa.array(self.customer, mask=self.customer == UNKNOWN_CUSTOMER)
        return np.asarray(self.journeys.customer_ids.take(rows).to_numpy(zero_copy_only=False))

    def frame(self) -> pd.DataFrame:
        """The rows as `customer_id, cutoff` (UTC, naive, µs)."""
        return pd.DataFrame({"customer_id": self.customer_ids, "cutoff": self.cutoff.view("datetime64[us]")})


def _loaded(folder: Path) -> Journeys:
    about = json.loads((folder / "journeys.json").read_text(encoding="utf-8"))
    borders, data = _column(folder / "id_borders.npy", np.int32), _column(folder / "ids.npy", np.uint8)
    ids = pa.StringArray.from_buffers(len(borders) - 1, pa.py_buffer(borders), pa.py_buffer(data))
    ids.validate(full=True)
    return Journeys(
        ids,
        _column(folder / "offsets.npy", np.int64),
        _column(folder / "t.npy", np.int64),
        {
            name: Category(_column(folder / f"category_{place}.npy", np.int32), tuple(names))
            for place, (name, names) in enumerate(about["categories"].items())
        },
        {name: _column(folder / f"number_{place}.npy", np.float64) for place, name in enumerate(about["numbers"])},
        tuple(about["span"]) if about.get("span") else None,
        about.get("share", 1.0),
    )


def _column(path: Path, kind: type[np.generic]) -> npt.NDArray[Any]:
    values = np.load(path, mmap_mode="r", allow_pickle=False)
    if values.dtype != kind or values.ndim != 1:
        raise ValueError(f"{path.name} holds {values.dtype} in {values.ndim} dimensions")
    return np.asarray(values)


def _checked_parts(log: Journeys) -> Journeys:
    """Check offsets and codes from a file, since compiled kernels do not check bounds."""
    offsets, n = log.offsets, log.n_events
    if len(offsets) != len(log.customer_ids) + 1 or offsets[0] != 0 or offsets[-1] != n or (np.diff(offsets) < 0).any():
        raise ValueError("offsets.npy does not divide the events among the customers")
    for name, category in log.categories.items():
        codes, end = category.codes, len(category.names)
        if len(codes) != n or (n and not -1 <= codes.min() <= codes.max() < end):
            raise ValueError(f"the codes of '{name}' do not fit the events or its names")
    if any(len(values) != n for values in log.numbers.values()):
        raise ValueError("the number columns do not fit the events")
    return log


def _bytes(part: npt.NDArray[Any]) -> memoryview:
    return memoryview(np.ascontiguousarray(part).view(np.uint8).data)


def id_texts(ids: Any) -> pa.Array:
    """Identifiers of any kind as `pa.string()`, as the checks write them; None and NaN are null."""
    values = ids.array if isinstance(ids, pd.Series) else ids
    try:
        column = pa.array(values, from_pandas=True)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        column = pa.array([_id_text(value) for value in ids], pa.string())
    if isinstance(column, pa.ChunkedArray):
        column = column.combine_chunks()
    if pa.types.is_null(column.type):
        return column.cast(pa.string())
    return as_text("customer_id", column.dictionary_decode() if pa.types.is_dictionary(column.type) else column)


def _id_text(value: Any) -> str | None:
    if value is None or value != value:
        return None
    return str(int(value)) if isinstance(value, float) and value == int(value) else str(value)


def as_readonly(values: Any, dtype: Any = None) -> npt.NDArray[Any]:
    """Contiguous and read-only, whatever it was: mapped from disk or not, the kernels are compiled once."""
    array: npt.NDArray[Any] = np.ascontiguousarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array

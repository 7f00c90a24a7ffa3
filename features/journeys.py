"""Journeys: a log of events as flat columns, sorted by customer, then time, then source order."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.schema import EventSchema
from features.snapshots import UNKNOWN_CUSTOMER, Snapshots


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
    """

    customer_ids: pa.Array
    offsets: npt.NDArray[np.int64]
    t: npt.NDArray[np.int64]
    categories: dict[str, Category]
    numbers: dict[str, npt.NDArray[np.float64]] = field(default_factory=dict)

    @property
    def n_events(self) -> int:
        """How many events there are."""
        return len(self.t)

    @property
    def n_customers(self) -> int:
        """How many customers there are."""
        return len(self.offsets) - 1

    def index_of(self, ids: npt.ArrayLike | pd.Series) -> npt.NDArray[np.int64]:
        """(n,) int64 indices of customers by identifier, -1 where the log does not know them."""
        found = pc.index_in(pa.array(np.asarray(ids, dtype=object), pa.string()), self.customer_ids.cast(pa.string()))
        return np.asarray(found.fill_null(UNKNOWN_CUSTOMER)).astype(np.int64)

    def at(self, cutoffs: Any, customers: npt.ArrayLike | None = None) -> Snapshots:
        """Snapshots of `customers` (indices, default all) at `cutoffs`; the two broadcast.

        Args:
            cutoffs: a moment or (n,) moments: datetime64, Timestamp, text, or int64 µs since 1970 UTC.
            customers: (n,) indices; -1 gives a snapshot without events.
        """
        who = np.arange(self.n_customers) if customers is None else np.asarray(customers, dtype=np.int64)
        who, when = np.broadcast_arrays(np.atleast_1d(who), np.atleast_1d(microseconds(cutoffs)))
        known = who >= 0
        start = np.where(known, self.offsets[who], 0)
        end = np.where(known, self.offsets[who + 1], 0)
        stop = _first_at_or_after(self.t, start, end, when)
        return Snapshots(self, np.ascontiguousarray(who), start, stop, np.ascontiguousarray(when))

    def at_ids(self, rows: pd.DataFrame) -> Snapshots:
        """Snapshots for a frame with `customer_id` and `cutoff`, in its order; unknown customers have no events."""
        return self.at(rows["cutoff"], self.index_of(rows["customer_id"]))

    def fingerprint(self) -> str:
        """SHA-256 over customers, times and columns: the same events in the same order give the same text."""
        digest = hashlib.sha256("\n".join(self.customer_ids.to_pylist()).encode())
        for part in (self.offsets, self.t):
            digest.update(np.ascontiguousarray(part).view(np.uint8))
        for name in sorted(self.categories):
            category = self.categories[name]
            digest.update("\n".join((name, *category.names)).encode())
            digest.update(np.ascontiguousarray(category.codes).view(np.uint8))
        for name in sorted(self.numbers):
            digest.update(name.encode())
            digest.update(np.ascontiguousarray(self.numbers[name]).view(np.uint8))
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the columns as `.npy` files and `journeys.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "offsets.npy", self.offsets)
        np.save(folder / "t.npy", self.t)
        for name, category in self.categories.items():
            np.save(folder / f"category_{name}.npy", category.codes)
        for name, values in self.numbers.items():
            np.save(folder / f"number_{name}.npy", values)
        about = {
            "customer_ids": self.customer_ids.to_pylist(),
            "categories": {name: list(category.names) for name, category in self.categories.items()},
            "numbers": list(self.numbers),
        }
        (folder / "journeys.json").write_text(json.dumps(about, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Journeys:
        """Read what `save` wrote; the columns are mapped from disk, not copied."""
        about = json.loads((folder / "journeys.json").read_text(encoding="utf-8"))
        return cls(
            customer_ids=pa.array(about["customer_ids"], pa.string()),
            offsets=_column(folder / "offsets.npy"),
            t=_column(folder / "t.npy"),
            categories={
                name: Category(_column(folder / f"category_{name}.npy"), tuple(names))
                for name, names in about["categories"].items()
            },
            numbers={name: _column(folder / f"number_{name}.npy") for name in about["numbers"]},
        )


def _column(path: Path) -> npt.NDArray[Any]:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def microseconds(moments: Any) -> npt.NDArray[np.int64]:
    """Moments as int64 µs since 1970 UTC; naive ones are taken as UTC.

    >>> microseconds("1970-01-02").tolist()
    86400000000
    """
    if isinstance(moments, int | np.integer) or (isinstance(moments, np.ndarray) and moments.dtype.kind in "iu"):
        return np.asarray(moments, dtype=np.int64)
    if isinstance(moments, pd.Series):
        moments = moments.reset_index(drop=True)
    stamps = pd.to_datetime(moments, utc=True)
    if isinstance(stamps, pd.Timestamp):
        return stamps.tz_localize(None).to_datetime64().astype("datetime64[us]").astype(np.int64).reshape(())
    return np.asarray(pd.DatetimeIndex(stamps).as_unit("us").asi8)


def _first_at_or_after(
    t: npt.NDArray[np.int64], start: npt.NDArray[np.int64], end: npt.NDArray[np.int64], when: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Binary search for every row at once: the first event in `start:end` with `t >= when`."""
    low, high = start.copy(), end.copy()
    while (open_ := low < high).any():
        middle = (low + high) // 2
        before = open_ & (t[np.minimum(middle, len(t) - 1)] < when)
        low = np.where(before, middle + 1, low)
        high = np.where(open_ & ~before, middle, high)
    return low


def pack(events: pa.Table | pd.DataFrame, schema: EventSchema | None = None) -> Journeys:
    """Pack a checked, canonical event table.

    Args:
        events: columns as in `features.schema`, every required value present.
        schema: which extra columns to keep; none by default.
    """
    schema = schema or EventSchema()
    table = pa.Table.from_pandas(events, preserve_index=False) if isinstance(events, pd.DataFrame) else events
    who = _dictionary(table["customer_id"])
    codes = np.asarray(who.indices).astype(np.int64)
    t = np.asarray(table["timestamp"].cast(pa.timestamp("us")).combine_chunks()).view(np.int64)
    order = np.lexsort((t, codes))
    present = set(table.column_names)
    categories = {name: _category(table[name], order) for name in schema.category_columns if name in present}
    numbers = {
        name: np.asarray(table[name].cast(pa.float64()).combine_chunks().fill_null(np.nan))[order]
        for name in schema.number_columns
        if name in present
    }
    counts = np.bincount(codes, minlength=len(who.dictionary))
    offsets = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return Journeys(who.dictionary.cast(pa.string()), offsets, t[order], categories, numbers)


def _dictionary(column: pa.ChunkedArray) -> pa.DictionaryArray:
    return column.combine_chunks().dictionary_encode()


def _category(column: pa.ChunkedArray, order: npt.NDArray[np.int64]) -> Category:
    encoded = _dictionary(column)
    codes = np.asarray(encoded.indices.fill_null(-1)).astype(np.int32)[order]
    return Category(codes, tuple(encoded.dictionary.cast(pa.string()).to_pylist()))

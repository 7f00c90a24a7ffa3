"""The order of a log's events by customer, then time, then source order; built once, used for each column."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features.journeys.order_kernels import apply_order, count_buckets, names_to_buckets, order_buckets, to_buckets

EVENTS_A_BUCKET = 1 << 16  # what a bucket holds should stay in a core's own cache
MOST_BUCKETS = 1 << 10  # writing to more places at once outruns the cache of addresses
BUCKETS_A_TASK = 8

Array = npt.NDArray[Any]
Ints = npt.NDArray[np.int64]
Each = Callable[[Callable[..., Any], Iterable[Any]], Iterable[Any]]


class Order:
    """The order of the events of several batches, taken one after the other as the source order.

    Attributes:
        offsets: (n_customers + 1,) int64, where each customer's events begin.
        t: (n_events,) int64 µs, in order.
    """

    def __init__(
        self, customers: Sequence[npt.NDArray[np.int32]], times: list[Ints], n_customers: int, each: Each
    ) -> None:
        """Order the events; `times` is emptied on the way.

        Args:
            customers: (n,) codes of customers, an array a batch.
            times: (n,) µs, an array a batch.
            n_customers: codes lie below it.
            each: `map`, or the `map` of a pool of threads that share the work.
        """
        self._customers, self._each = customers, each
        self.n_events = sum(map(len, customers))
        self._shift = _shift(self.n_events, n_customers)
        self._borders, self._starts = self._buckets(n_customers)
        self.offsets: Ints = np.zeros(n_customers + 1, np.int64)
        self._from = self._scattered(np.int32, list(customers))
        self.t: Ints = self._scattered(np.int64, times)
        self._each_bucket(order_buckets, self._borders, self._shift, self._from, self.t, self.offsets)

    def column(self, parts: list[Array | None], missing: float) -> Array:
        """A number column in order; `parts`, an array a batch or None where it lacks the column, is emptied."""
        kind = next(part.dtype for part in parts if part is not None)
        filled = [
            np.full(len(customers), missing, kind) if part is None else part
            for part, customers in zip(parts, self._customers, strict=True)
        ]
        parts.clear()
        return self._ordered(self._scattered(kind, filled))

    def names(self, parts: list[Array | None], tables: list[npt.NDArray[np.int32]]) -> npt.NDArray[np.int32]:
        """A categorical column in order: `table[code + 1]` of every event, with a table a batch; empties `parts`."""
        out: npt.NDArray[np.int32] = np.empty(self.n_events, np.int32)

        def write(batch: int) -> None:
            customers, source = self._customers[batch], parts[batch]
            parts[batch] = None
            codes = np.full(len(customers), -1, np.int8) if source is None else source
            names_to_buckets(customers, self._shift, self._starts[batch].copy(), codes, tables[batch], out)

        list(self._each(write, range(len(parts))))
        return self._ordered(out)

    def _buckets(self, n_customers: int) -> tuple[Ints, Ints]:
        """(buckets + 1,) event numbers where buckets begin, and (batches, buckets) where each batch writes to."""
        n_buckets = max(1, -(-n_customers >> self._shift))
        counts: Ints = np.zeros((len(self._customers), n_buckets), np.int64)

        def count(batch: int) -> None:
            count_buckets(self._customers[batch], self._shift, counts[batch])

        list(self._each(count, range(len(counts))))
        borders = np.concatenate(([0], np.cumsum(counts.sum(axis=0)))).astype(np.int64)
        before = np.cumsum(counts, axis=0) - counts  # of the same bucket, in earlier batches
        return borders, np.ascontiguousarray(borders[:-1] + before)

    def _scattered(self, kind: npt.DTypeLike, parts: list[Array]) -> Array:
        """The batches' arrays, every event in its bucket, in source order within; frees each array once written."""
        out: Array = np.empty(self.n_events, kind)

        def write(batch: int) -> None:
            source, parts[batch] = parts[batch], np.empty(0, kind)
            to_buckets(self._customers[batch], self._shift, self._starts[batch].copy(), source, out)

        list(self._each(write, range(len(parts))))
        return out

    def _ordered(self, column: Array) -> Array:
        self._each_bucket(apply_order, self._borders, self._from, column)
        return column

    def _each_bucket(self, kernel: Callable[..., Any], *arguments: Any) -> None:
        n_buckets = len(self._borders) - 1
        firsts = range(0, n_buckets, BUCKETS_A_TASK)
        list(self._each(lambda low: kernel(low, min(low + BUCKETS_A_TASK, n_buckets), *arguments), firsts))


def _shift(n_events: int, n_customers: int) -> int:
    """log2 of the customers in a bucket."""
    few = max(1, n_customers * EVENTS_A_BUCKET // max(n_events, 1))
    return max(few.bit_length() - 1, (max(n_customers - 1, 0) // MOST_BUCKETS).bit_length())

"""Exact duplicates in a packed log: events of one customer at one moment that agree in every column."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.journeys.journeys import Category, Journeys
from features.journeys.order_kernels import first_equal, mix_into

Ints = npt.NDArray[np.int64]


def repeated(log: Journeys) -> npt.NDArray[np.bool_]:
    """(n_events,) whether an earlier event (in source order) is the same in every column; NaN equals NaN."""
    columns = [_bits(category.codes) for category in log.categories.values()]
    columns += [_bits(values) for values in log.numbers.values()]
    hashes: npt.NDArray[np.uint64] = np.zeros(log.n_events, np.uint64)
    for column in columns:
        mix_into(hashes, column)
    earlier: Ints = np.empty(log.n_events, np.int64)
    first_equal(log.offsets, log.t, hashes, earlier)
    later = np.flatnonzero(earlier >= 0)
    same = np.ones(len(later), bool)
    for column in columns:  # two rows may share a hash
        same &= column[later] == column[earlier[later]]
    is_duplicate = np.zeros(log.n_events, bool)
    is_duplicate[later[same]] = True
    return is_duplicate


def _bits(values: npt.NDArray[Any]) -> npt.NDArray[np.uint64]:
    if values.dtype != np.float64:
        return values.astype(np.uint64)
    plain = values + 0.0  # so that −0 is 0
    plain[np.isnan(plain)] = np.nan  # one NaN of the many
    return plain.view(np.uint64)


def without(log: Journeys, gone: npt.NDArray[np.bool_]) -> Journeys:
    """The log without the events `gone` (n_events,); customers stay, if need be without events."""
    remaining = ~gone
    lost = np.concatenate(([0], np.cumsum(gone)))
    return replace(
        log,
        offsets=log.offsets - lost[log.offsets],
        t=log.t[remaining],
        categories={name: Category(column.codes[remaining], column.names) for name, column in log.categories.items()},
        numbers={name: values[remaining] for name, values in log.numbers.items()},
    )


def as_rows(log: Journeys, events: Ints) -> pa.Table:
    """Canonical rows of some events, by their places in the packed columns."""
    customer = np.searchsorted(log.offsets, events, side="right") - 1
    columns = {"customer_id": log.customer_ids.take(pa.array(customer)), "timestamp": _stamps(log.t[events])}
    for name, column in log.categories.items():
        codes = column.codes[events]
        columns[name] = pa.array(column.names, pa.string()).take(pa.array(codes, mask=codes < 0))
    for name, values in log.numbers.items():
        columns[name] = pa.array(values[events], from_pandas=True)
    return pa.table(columns)


def _stamps(t: Ints) -> pa.Array:
    return pa.array(t).cast(pa.timestamp("us"))

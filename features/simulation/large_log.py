"""A large plain event log in time order, for benchmarks: fast to make, bounded in memory, the same for the same seed.

It has the shape of a real log (heavy-tailed customers, visits of a few events, weeks and evenings), but no hidden
state and no truth; for journeys with a known truth see `features.simulation.simulator`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

TOUCHPOINTS = (
    "page_view", "product_view", "search", "category_view", "review_read", "add_to_cart", "remove_from_cart",
    "checkout", "purchase", "return", "email_open", "email_click", "push_open", "ad_click", "wishlist",
    "support_chat", "support_call", "survey", "account_update", "share",
)  # fmt: skip
TOUCHPOINT_WEIGHTS = np.array([30, 18, 8, 9, 4, 6, 2, 3, 4, 0.6, 6, 2, 2, 2, 1.2, 0.5, 0.3, 0.5, 0.6, 0.3])
CHANNELS = ("web", "app", "email", "store", "call_centre", "social")
CHANNEL_WEIGHTS = np.array([45, 30, 10, 9, 3, 3])
PURCHASE = TOUCHPOINTS.index("purchase")

FIRST_DAY = np.datetime64("2023-01-01", "us")
SPAN_DAYS = 730
EVENTS_PER_VISIT = 3
GAP_IN_VISIT_S = 45.0
CHUNK_EVENTS = 1_000_000
DAY_US = 86_400_000_000

SCHEMA = pa.schema(
    [
        ("customer_id", pa.string()),
        ("timestamp", pa.timestamp("us")),
        ("touchpoint", pa.string()),
        ("channel", pa.string()),
        ("value", pa.float64()),
    ]
)


def synthetic_log(n_events: int, n_customers: int, seed: int = 7) -> pa.Table:
    """A log of `n_events` rows in time order, in memory.

    Returns:
        customer_id (text such as `c0001234`), timestamp (µs, UTC, naive), touchpoint (20), channel (6), value (null
        except on purchases).

    >>> synthetic_log(1_000, 50).column_names
    ['customer_id', 'timestamp', 'touchpoint', 'channel', 'value']
    """
    return pa.Table.from_batches(list(_batches(n_events, n_customers, seed)), SCHEMA)


def write_synthetic_log(path: Path | str, n_events: int, n_customers: int, seed: int = 7) -> None:
    """Write the rows of `synthetic_log` to a Parquet file, one row group for each million: memory stays bounded."""
    with pq.ParquetWriter(path, SCHEMA) as writer:
        for batch in _batches(n_events, n_customers, seed):
            writer.write_batch(batch, row_group_size=CHUNK_EVENTS)


def _batches(n_events: int, n_customers: int, seed: int) -> Iterator[pa.RecordBatch]:
    rng = np.random.default_rng(seed)
    ids = pa.array([f"c{i:07d}" for i in range(n_customers)], pa.string())
    share = np.cumsum(rng.lognormal(0.0, 1.0, n_customers))  # heavy tails: a few customers make most events
    n_chunks = max(1, -(-n_events // CHUNK_EVENTS))
    borders = np.linspace(0, n_events, n_chunks + 1).astype(np.int64)
    for chunk, size in enumerate(np.diff(borders)):
        low, high = (SPAN_DAYS * DAY_US * (chunk + np.arange(2)) / n_chunks).astype(np.int64)
        yield _batch(rng, int(size), share / share[-1], ids, int(low), int(high))


def _batch(
    rng: np.random.Generator, size: int, share: npt.NDArray[np.float64], ids: pa.Array, low_us: int, high_us: int
) -> pa.RecordBatch:
    """One chunk: `size` rows with `low_us <= t - FIRST_DAY < high_us`, sorted by time."""
    n_visits = max(1, size // EVENTS_PER_VISIT)
    visit = np.sort(rng.integers(0, n_visits, size))  # which visit each event belongs to
    customer = np.searchsorted(share, rng.random(n_visits), side="right")[visit]
    opened = _visit_times(rng, n_visits, low_us, high_us)[visit]
    gap = np.cumsum(rng.exponential(GAP_IN_VISIT_S * 1e6, size).astype(np.int64))
    within = gap - gap[np.searchsorted(visit, visit)]  # time since the visit's first event
    t = np.minimum(opened + within, high_us - 1)
    order = np.argsort(t, kind="stable")
    touchpoint = _draw(rng, TOUCHPOINT_WEIGHTS, size)
    value = np.round(rng.lognormal(3.3, 0.8, size), 2)
    return pa.RecordBatch.from_arrays(
        [
            ids.take(pa.array(customer[order])),
            pa.array(FIRST_DAY + t[order].astype("timedelta64[us]")),
            pa.array(TOUCHPOINTS, pa.string()).take(pa.array(touchpoint)),
            pa.array(CHANNELS, pa.string()).take(pa.array(_draw(rng, CHANNEL_WEIGHTS, n_visits)[visit][order])),
            pa.array(value, mask=touchpoint != PURCHASE),
        ],
        schema=SCHEMA,
    )


def _visit_times(rng: np.random.Generator, n: int, low_us: int, high_us: int) -> npt.NDArray[np.int64]:
    """(n,) µs since the first day; two of three visits that fall in the night move to the evening of that day."""
    t = rng.integers(low_us, high_us, n)
    hour = (t % DAY_US) // (DAY_US // 24)
    evening = t - t % DAY_US + 18 * (DAY_US // 24) + rng.integers(0, 4 * (DAY_US // 24), n)
    moves = (hour < 6) & (rng.random(n) < 2 / 3) & (evening < high_us)
    return np.where(moves, evening, t)


def _draw(rng: np.random.Generator, weights: npt.NDArray[np.float64], n: int) -> npt.NDArray[np.int64]:
    edges = np.cumsum(weights) / weights.sum()
    return np.searchsorted(edges, rng.random(n, dtype=np.float32), side="right").clip(max=len(weights) - 1)

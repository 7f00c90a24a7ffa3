"""Compiled kernels that bring events into the order of a packed log, and search in it.

Packing is a counting sort in two levels, so that writes stay in the cache however many customers there are: first
into buckets of neighbouring customers, then inside each bucket. Both are stable; customers whose events do not come
in time order are sorted (stably) at the end.

All are serial, `nogil` and cached; threads call them side by side on different chunks or buckets. Computed indices are
unsigned: a signed one is tested for being negative, which costs as much as the rest of these loops.
"""

from __future__ import annotations

import numba
import numpy as np

import features.kernel_cache  # noqa: F401  # before any kernel is declared

FEW = 24  # events of a customer up to which insertion sort is the fastest


@numba.njit(nogil=True, cache=True)
def appearance(codes, place):  # type: ignore[no-untyped-def]
    """Number the codes that occur by first appearance, into `place` (names,), -1 for the others; returns how many.

    `codes` (n,) are whole numbers, negative where missing.
    """
    place[:] = -1
    n_names = 0
    for code in codes:
        if code >= 0 and place[code] < 0:
            place[code] = n_names
            n_names += 1
            if n_names == len(place):
                break
    return n_names


@numba.njit(nogil=True, cache=True)
def count_buckets(codes, shift, counts):  # type: ignore[no-untyped-def]
    """Count the events of each bucket of 2^shift customers, into `counts`."""
    for code in codes:
        counts[np.uint64(code >> shift)] += 1


@numba.njit(nogil=True, cache=True)
def to_buckets(codes, shift, starts, source, out):  # type: ignore[no-untyped-def]
    """Write `source` to the places of its buckets, in source order; `starts` (buckets,) is used up."""
    for row in range(len(codes)):
        bucket = np.uint64(codes[row] >> shift)
        at = starts[bucket]
        out[np.uint64(at)] = source[row]
        starts[bucket] = at + 1


@numba.njit(nogil=True, cache=True)
def names_to_buckets(codes, shift, starts, source, table, out):  # type: ignore[no-untyped-def]
    """As `to_buckets` for a categorical column: writes `table[source + 1]`."""
    for row in range(len(codes)):
        bucket = np.uint64(codes[row] >> shift)
        at = starts[bucket]
        out[np.uint64(at)] = table[np.uint64(np.int64(source[row]) + 1)]
        starts[bucket] = at + 1


@numba.njit(nogil=True, cache=True)
def _sort_segment(order, t, times, first, last):  # type: ignore[no-untyped-def]
    """Sort `order[first:last]` by the times it points to, stably; `times[first:last]` follow."""
    if last - first > FEW:
        order[first:last] = order[first:last][np.argsort(times[first:last], kind="mergesort")]
        for i in range(first, last):
            times[i] = t[order[i]]
        return
    for i in range(first + 1, last):
        held, moment, k = order[i], times[i], i
        while k > first and times[k - 1] > moment:
            order[k], times[k] = order[k - 1], times[k - 1]
            k -= 1
        order[k], times[k] = held, moment


@numba.njit(nogil=True, cache=True)
def _order_bucket(codes, t, first_customer, border, offsets, order, times):  # type: ignore[no-untyped-def]
    """Order one bucket: writes its part of `offsets`, leaves in `codes` where each place takes its event from.

    Of the arguments:
        codes: (m,) int32 customers; out: the permutation within the bucket.
        t: (m,) int64; out: ordered.
        first_customer, border: the bucket's customers are `first_customer:border`.
        offsets: (n_customers + 1,) int64 of the whole log; `offsets[first_customer]` is given.
        order, times: scratch of at least m.
    """
    n_customers, begin = border - first_customer, offsets[first_customer]
    place = np.zeros(n_customers + 1, np.uint32)
    for code in codes:
        place[np.uint64(code - first_customer + 1)] += np.uint32(1)
    for k in range(n_customers):
        place[k + 1] += place[k]
        offsets[first_customer + k + 1] = begin + np.int64(place[k + 1])
    for row in range(len(codes)):
        customer = np.uint64(codes[row] - first_customer)
        at = np.uint64(place[customer])
        order[at] = row
        times[at] = t[row]
        place[customer] = np.uint32(at + np.uint64(1))
    first = np.int64(0)
    for k in range(n_customers):  # place[k] is now where customer k ends
        last = np.int64(place[k])
        for i in range(first + 1, last):
            if times[i] < times[i - 1]:
                _sort_segment(order, t, times, first, last)
                break
        first = last
    t[:], codes[:] = times[: len(t)], order[: len(t)]


@numba.njit(nogil=True, cache=True)
def order_buckets(begin, end, borders, shift, codes, t, offsets):  # type: ignore[no-untyped-def]
    """Order the buckets `begin:end`, each in place; see `_order_bucket`. `borders` (buckets + 1,) are event numbers."""
    longest = 0
    for bucket in range(begin, end):
        longest = max(longest, borders[bucket + 1] - borders[bucket])
    order, times = np.empty(longest, np.int32), np.empty(longest, np.int64)
    for bucket in range(begin, end):
        first, last = borders[bucket], borders[bucket + 1]
        customer, border = bucket << shift, min((bucket + 1) << shift, len(offsets) - 1)
        offsets[customer] = first
        _order_bucket(codes[first:last], t[first:last], customer, border, offsets, order, times)


@numba.njit(nogil=True, cache=True)
def apply_order(begin, end, borders, order, column):  # type: ignore[no-untyped-def]
    """Bring the buckets `begin:end` of a column into the order that `order_buckets` left."""
    longest = 0
    for bucket in range(begin, end):
        longest = max(longest, borders[bucket + 1] - borders[bucket])
    scratch = np.empty(longest, column.dtype)
    for bucket in range(begin, end):
        first, last = borders[bucket], borders[bucket + 1]
        part, places = column[first:last], order[first:last]
        for i in range(len(places)):
            scratch[i] = part[np.uint64(places[i])]
        part[:] = scratch[: len(places)]


@numba.njit(nogil=True, cache=True)
def first_at_or_after(t, offsets, customers, cutoffs, start, stop):  # type: ignore[no-untyped-def]
    """Binary search a row: `start` the customer's first event, `stop` its first with `t >= cutoff`; both 0 for -1.

    Returns the first row whose customer does not exist, -1 if all do.
    """
    for row in range(len(customers)):
        customer = customers[row]
        if customer < -1 or customer >= len(offsets) - 1:
            return row
        if customer < 0:
            start[row] = stop[row] = 0
            continue
        low, high = offsets[customer], offsets[customer + 1]
        start[row] = low
        while low < high:
            middle = (low + high) >> 1
            if t[middle] < cutoffs[row]:
                low = middle + 1
            else:
                high = middle
        stop[row] = low
    return -1


@numba.njit(nogil=True, cache=True)
def mix_into(hashes, bits):  # type: ignore[no-untyped-def]
    """Fold a column's bits into one 64-bit hash an event."""
    for i in range(len(hashes)):
        h = (hashes[i] ^ np.uint64(bits[i])) * np.uint64(0x9E3779B97F4A7C15)
        hashes[i] = h ^ (h >> np.uint64(29))


@numba.njit(nogil=True, cache=True)
def first_equal(offsets, t, hashes, earlier):  # type: ignore[no-untyped-def]
    """For each event the first one of the same customer, time and hash: `earlier` (n,) int64, -1 where it is itself."""
    earlier[:] = -1
    for customer in range(len(offsets) - 1):
        first = offsets[customer]
        while first < offsets[customer + 1]:
            last = first + 1
            while last < offsets[customer + 1] and t[last] == t[first]:
                last += 1
            if last - first > 1:
                _first_equal_in_tie(hashes, first, last, earlier)
            first = last


@numba.njit(nogil=True, cache=True)
def _first_equal_in_tie(hashes, first, last, earlier):  # type: ignore[no-untyped-def]
    if last - first <= FEW:
        for i in range(first + 1, last):
            for k in range(first, i):
                if hashes[k] == hashes[i]:
                    earlier[i] = k
                    break
        return
    order = np.argsort(hashes[first:last], kind="mergesort")
    held = first + order[0]
    for k in range(1, last - first):
        i = first + order[k]
        if hashes[i] == hashes[held]:
            earlier[i] = held
        else:
            held = i

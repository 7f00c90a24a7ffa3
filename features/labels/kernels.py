"""Compiled searches around a cutoff: is there an event of some touchpoints just before it, or from it on?

One row a snapshot. Both kernels walk outwards from the cutoff and stop at the first match or at the window's edge, so
that a customer with a million events costs no more than the events of the window.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared

Int64s = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]


@njit(cache=True, nogil=True)
def any_before(
    t: Int64s, codes: npt.NDArray[np.int32], chosen: Flags, start: Int64s, stop: Int64s, since: Int64s
) -> Flags:
    """(n,) bool: a chosen event among `start:stop` with `since <= t`; `stop` is the first event at the cutoff.

    Args:
        t: (n_events,) µs, sorted within a customer.
        codes: (n_events,) touchpoint codes, -1 where missing.
        chosen: (n_names + 1,) bool by code; the last entry is for -1 and is False.
        start: (n,) the customer's first event.
        stop: (n,) one past the last event before the cutoff.
        since: (n,) µs, the window's inclusive lower edge.
    """
    result = np.zeros(len(start), np.bool_)
    for row in range(len(start)):
        j = stop[row] - 1
        while j >= start[row] and t[j] >= since[row]:
            if chosen[codes[j]]:
                result[row] = True
                break
            j -= 1
    return result


@njit(cache=True, nogil=True)
def any_after(
    t: Int64s, codes: npt.NDArray[np.int32], chosen: Flags, stop: Int64s, end: Int64s, until: Int64s
) -> Flags:
    """(n,) bool: a chosen event among `stop:end` with `t < until`.

    Args:
        t: (n_events,) µs, sorted within a customer.
        codes: (n_events,) touchpoint codes, -1 where missing.
        chosen: (n_names + 1,) bool by code; the last entry is for -1 and is False.
        stop: (n,) the first event at or after the cutoff.
        end: (n,) one past the customer's last event.
        until: (n,) µs, the window's exclusive upper edge.
    """
    result = np.zeros(len(stop), np.bool_)
    for row in range(len(stop)):
        j = stop[row]
        while j < end[row] and t[j] < until[row]:
            if chosen[codes[j]]:
                result[row] = True
                break
            j += 1
    return result

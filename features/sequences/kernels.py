"""Compiled kernels that lay journeys out as sequences: which events make a step, where it lies, which items repeat.

A step is a run of events of one customer at one moment with one touchpoint: forty lines of an invoice are one purchase.
Steps lie time-major, as recurrent networks read them: first steps of all rows, then all second steps, with the longest
row first, so that the rows which still have a step s are the first `batch_sizes[s]` ones and nothing is padded.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared

Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

DAY_US, MINUTE_US = 86_400_000_000, 60_000_000
SINE_OF_MINUTE = np.sin(np.arange(1440) * (2 * np.pi / 1440))
SINE_OF_WEEKDAY, COSINE_OF_WEEKDAY = np.sin(np.arange(7) * (2 * np.pi / 7)), np.cos(np.arange(7) * (2 * np.pi / 7))


@njit(cache=True, nogil=True)
def count_steps(
    t: Int64s, codes: Int32s, start: Int64s, stop: Int64s, most: int, gather: bool, first: Int64s, lengths: Int64s
) -> None:
    """How many steps each row has, and at which event the first of its last `most` ones begins.

    Args:
        t: (n_events,) µs.
        codes: (n_events,) touchpoints.
        start: (n,) the rows' first events.
        stop: (n,) one past their last.
        most: steps that a row keeps, the latest.
        gather: whether events at one moment with one touchpoint are one step.
        first: (n,) out.
        lengths: (n,) out.
    """
    for row in range(len(start)):
        j, steps = stop[row], 0
        while j > start[row] and steps < most:
            j -= 1
            if gather:
                while j > start[row] and t[j - 1] == t[j] and codes[j - 1] == codes[j]:
                    j -= 1
            steps += 1
        first[row] = j
        lengths[row] = steps


@njit(cache=True, nogil=True)
def lay_out(
    t: Int64s, codes: Int32s, first: Int64s, stop: Int64s, cutoff: Int64s, rows: Int64s, lengths: Int64s,
    offsets: Int64s, gather: bool, shuffled: bool, begin: Int64s, end: Int64s, moment: Int64s, before: Int64s,
    owner: Int64s,
) -> None:  # fmt: skip
    """Where every step's events lie and when it was, time-major.

    Args:
        t: see `count_steps`.
        codes: see `count_steps`.
        first: (n,) the first event of each row, as `count_steps` wrote it.
        stop: (n,) one past its last.
        cutoff: (n,) µs.
        rows: (n,) the rows, the longest first.
        lengths: (n,) steps by row.
        offsets: (most steps + 1,) where step s of the longest row lies.
        gather: see `count_steps`.
        shuffled: whether contents change places among a row's steps, while the moments stay.
        begin: (E,) out: the first event of a step.
        end: (E,) out: one past its last.
        moment: (E,) out: µs.
        before: (E,) out: µs of the step before; of itself for a row's first.
        owner: (E,) out: rank of the row, 0 for the longest.
    """
    for rank in range(len(rows)):
        row = rows[rank]
        j, previous = first[row], np.int64(0)
        for step in range(lengths[row]):
            at = offsets[step] + rank
            begin[at] = j
            j += 1
            if gather:
                while j < stop[row] and t[j] == t[j - 1] and codes[j] == codes[j - 1]:
                    j += 1
            end[at] = j
            moment[at] = t[j - 1]
            before[at] = moment[at] if step == 0 else previous
            previous = moment[at]
            owner[at] = rank
        if shuffled:
            _shuffle(begin, end, offsets, rank, lengths[row], cutoff[row])


@njit(cache=True, nogil=True)
def _shuffle(begin: Int64s, end: Int64s, offsets: Int64s, rank: int, steps: int, seed: int) -> None:
    """Fisher-Yates with a generator seeded by the row's own cutoff and length: the same alone and in any batch."""
    state = np.uint64(seed) ^ (np.uint64(steps) * np.uint64(0x9E3779B97F4A7C15))
    for step in range(steps - 1, 0, -1):
        state = state * np.uint64(6364136223846793005) + np.uint64(1442695040888963407)
        other = np.int64((state >> np.uint64(33)) % np.uint64(step + 1))
        a, b = offsets[step] + rank, offsets[other] + rank
        begin[a], begin[b] = begin[b], begin[a]
        end[a], end[b] = end[b], end[a]


@njit(cache=True, nogil=True)
def code_steps(codes: Int32s, lut: Int32s, end: Int64s, out: Int32s) -> None:
    """(E,) the code that a fit gave to the category of each step's last event.

    Args:
        codes: (n_events,) as the log codes them, -1 where missing.
        lut: (1 + names,) the fit's code for missing, then for each of the log's.
        end: (E,) one past the last event of each step.
        out: (E,) out.
    """
    for step in range(len(end)):
        out[step] = lut[codes[end[step] - 1] + 1]


@njit(cache=True, nogil=True)
def number_steps(
    values: Floats, summed: bool, begin: Int64s, end: Int64s, mean: Floats, scale: Floats, at: int, out: Singles
) -> None:
    """Two columns: the sum (or mean) of the values of a step, by its logarithm, and whether there is any value.

    Args:
        values: (n_events,), NaN where missing.
        summed: add up; otherwise take the mean.
        begin: (E,) see `lay_out`.
        end: (E,) the same.
        mean: (F,) what is taken off each column before it is divided by its scale.
        scale: (F,) 0 in place 0 leaves all as it is, missing ones as NaN.
        at: the first of the two columns.
        out: (E, F) out.
    """
    for step in range(len(begin)):
        total, n_values = 0.0, 0
        for j in range(begin[step], end[step]):
            if values[j] == values[j]:
                total += values[j]
                n_values += 1
        if not summed and n_values > 1:
            total /= n_values
        squeezed = np.log1p(total) if total >= 0 else -np.log1p(-total)
        out[step, at] = _scaled(squeezed if n_values else np.nan, mean, scale, at)
        out[step, at + 1] = _scaled(1.0 if n_values else 0.0, mean, scale, at + 1)


@njit(cache=True, nogil=True)
def _scaled(value: float, mean: Floats, scale: Floats, at: int) -> float:
    """In standard deviations of training, at most eight; 0 for what is missing."""
    if scale[0] == 0.0:
        return value
    if value != value:
        return 0.0
    scaled: float = min(max((value - mean[at]) / scale[at], -8.0), 8.0)
    return scaled


@njit(cache=True, nogil=True)
def count_in_steps(begin: Int64s, end: Int64s, mean: Floats, scale: Floats, at: int, out: Singles) -> None:
    """One column: how many events a step has beyond the first, by the logarithm; arguments as of `number_steps`."""
    for step in range(len(begin)):
        count = end[step] - begin[step]
        out[step, at] = _scaled(np.log(float(count)), mean, scale, at)


@njit(cache=True, nogil=True)
def repeats_in_steps(
    previous: Int64s, first: Int64s, begin: Int64s, end: Int64s, owner: Int64s, mean: Floats, scale: Floats, at: int,
    out: Singles,
) -> None:  # fmt: skip
    """One column: the share of a step's events whose item the customer had at an earlier moment, since the row began.

    Args:
        previous: (n_events,) see `previous_alike`; empty where there are no items.
        first: (n,) the first event that a row may know of, by rank.
        begin: (E,) see `lay_out`.
        end: (E,) the same.
        owner: (E,) the same.
        mean: (F,) see `number_steps`.
        scale: (F,) the same.
        at: the column.
        out: (E, F) out.
    """
    for step in range(len(begin)):
        repeats = 0
        if len(previous):
            for j in range(begin[step], end[step]):
                repeats += previous[j] >= first[owner[step]]
        out[step, at] = _scaled(repeats / (end[step] - begin[step]), mean, scale, at)


@njit(cache=True, nogil=True)
def time_steps(
    moment: Int64s, before: Int64s, cutoff: Int64s, owner: Int64s, n_first: int, mean: Floats, scale: Floats, at: int,
    out: Singles, gap_days: Singles, age_days: Singles,
) -> None:  # fmt: skip
    """Seven columns, in the order of `features.sequences.sequences.TIME_NAMES`, and the gaps and ages in days.

    Args:
        moment: (E,) see `lay_out`.
        before: (E,) the same.
        cutoff: (B,) µs, by rank.
        owner: (E,) see `lay_out`.
        n_first: how many steps are the first of their row; they come first.
        mean: (F,) see `number_steps`.
        scale: (F,) the same.
        at: the first column.
        out: (E, F) out.
        gap_days: (E,) out.
        age_days: (E,) out.
    """
    for step in range(len(moment)):
        gap = (moment[step] - before[step]) / DAY_US
        age = (cutoff[owner[step]] - moment[step]) / DAY_US
        gap_days[step], age_days[step] = gap, age
        minute = (moment[step] // MINUTE_US) % 1440
        weekday = (moment[step] // DAY_US + 3) % 7  # 1970 began on a Thursday; Monday is 0
        out[step, at] = _scaled(np.log1p(gap * 1440.0), mean, scale, at)
        out[step, at + 1] = _scaled(1.0 if step < n_first else 0.0, mean, scale, at + 1)
        out[step, at + 2] = _scaled(np.log1p(age * 1440.0), mean, scale, at + 2)
        out[step, at + 3] = _scaled(SINE_OF_MINUTE[minute], mean, scale, at + 3)
        out[step, at + 4] = _scaled(SINE_OF_MINUTE[(minute + 360) % 1440], mean, scale, at + 4)
        out[step, at + 5] = _scaled(SINE_OF_WEEKDAY[weekday], mean, scale, at + 5)
        out[step, at + 6] = _scaled(COSINE_OF_WEEKDAY[weekday], mean, scale, at + 6)


@njit(cache=True, nogil=True)
def previous_alike(t: Int64s, codes: Int32s, offsets: Int64s, n_names: int) -> Int64s:
    """(n_events,) the customer's last event at an earlier moment with the same code, -1 where there is none."""
    previous = np.full(len(codes), -1, np.int64)
    latest = np.full(n_names, -1, np.int64)
    for customer in range(len(offsets) - 1):
        for j in range(offsets[customer], offsets[customer + 1]):
            code = codes[j]
            if code < 0:
                continue
            k = latest[code]
            if k >= offsets[customer]:
                previous[j] = k if t[k] < t[j] else previous[k]
            latest[code] = j
    return previous

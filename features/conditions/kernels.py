"""Compiled kernels behind `measures`: one pass over the events of a snapshot that a selection lets through.

Each figure reads its own snapshot's events and nothing else, so that one customer alone gets the same bits as in a
batch. All are serial, `nogil` and cached. Selections come as plain arrays:

* `touch`, `place` (channel), `stage`, `item`: (n_events,) int32 codes, empty where the log lacks the column;
* `allowed`: the names that pass, one byte each, missing first, for all columns behind each other;
* `begin` (4,) int64: where a column's bytes begin, -1 where all pass;
* `limits` (4,) float64: lowest and highest value, lowest and highest satisfaction, NaN for none;
* `calendar` (2,) int64: bits of the months and of the weekdays that pass, -1 for all;
* `window` (4,) int64 µs: not longer ago than, longer ago than, from, until; -1 for none.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared
from features.tabular.numerics import month_and_start
from features.tabular.plan import DAY_US, kernel

COUNT, DAYS, SUM, MEAN, LOWEST, HIGHEST, LATEST, PER_DAY, GAP_DAYS, OVERDUE = 0, 1, 2, 3, 4, 5, 6, 7, 8, 9
LAST_DAYS, FIRST_DAYS, LAST_PLACE, FIRST_PLACE = 10, 11, 12, 13  # found without looking at every event
# As `features.tabular.plan.kernel`: they allocate nothing, so they need not count references in each call.
entry_kernel: Any = njit(nogil=True, cache=True, error_model="numpy", _nrt=False)  # type: ignore[call-overload]


@kernel
def _first_at_or_after(t, low, high, moment):  # type: ignore[no-untyped-def]
    while low < high:
        middle = (low + high) >> 1
        if t[middle] < moment:
            low = middle + 1
        else:
            high = middle
    return low


@kernel
def _borders(t, start, stop, cutoff, window):  # type: ignore[no-untyped-def]
    """The events of `start:stop` that the window holds, as a slice; two binary searches at the most."""
    earliest, latest = window[2], window[3]
    if window[0] >= 0:
        earliest = max(earliest, cutoff - window[0])
    if window[1] >= 0 and (latest < 0 or cutoff - window[1] < latest):
        latest = cutoff - window[1]
    low = start if earliest < 0 else _first_at_or_after(t, start, stop, earliest)
    high = stop if latest < 0 else _first_at_or_after(t, low, stop, latest)
    return low, high


@kernel
def _name_passes(codes, allowed, begin, i):  # type: ignore[no-untyped-def]
    return begin < 0 or allowed[np.uint64(begin + 1 + (codes[i] if len(codes) else -1))] != 0


@kernel
def _number_passes(numbers, lowest, highest, i):  # type: ignore[no-untyped-def]
    x = numbers[i] if len(numbers) else np.nan
    return (lowest != lowest or x >= lowest) and (highest != highest or x <= highest)


@kernel
def _day_passes(moment, calendar):  # type: ignore[no-untyped-def]
    day = moment // DAY_US
    if calendar[1] >= 0 and (calendar[1] >> ((day + 3) % 7)) & 1 == 0:  # 1970-01-01 was a Thursday
        return False
    return calendar[0] < 0 or (calendar[0] >> (month_and_start(day)[0] % 12)) & 1 == 1


@kernel
def _passes(i, t, touch, place, stage, item, allowed, begin, rare, value, satisfaction, limits, calendar):  # type: ignore[no-untyped-def]
    """Whether an event passes; `rare` says whether there is anything beyond names to ask for."""
    if not _name_passes(touch, allowed, begin[0], i) or not _name_passes(stage, allowed, begin[2], i):
        return False
    if not rare:
        return True
    return (
        _name_passes(place, allowed, begin[1], i)
        and _name_passes(item, allowed, begin[3], i)
        and _number_passes(value, limits[0], limits[1], i)
        and _number_passes(satisfaction, limits[2], limits[3], i)
        and _day_passes(t[i], calendar)
    )


@kernel
def _is_rare(begin, limits, calendar):  # type: ignore[no-untyped-def]
    numbers = False
    for limit in limits:
        numbers |= limit == limit
    return numbers or begin[1] >= 0 or begin[3] >= 0 or calendar[0] >= 0 or calendar[1] >= 0


@entry_kernel
def tally(  # type: ignore[no-untyped-def]
    out, op, start, stop, cutoff, window, t, touch, place, stage, item, allowed, begin, value, satisfaction, limits,
    calendar, number, usual_days,
):  # fmt: skip
    """Write the figure `op` of each snapshot into `out` (n,) float64.

    Counts and sums of no event are 0, everything else NaN. `number` (n_events,) is the column that is added up, empty
    where the log lacks it. `GAP_DAYS` is the mean time between days with an event. `OVERDUE` is the time since the last
    one in units of the customer's own rhythm, into which one gap of `usual_days` is mixed (NaN: none is).
    """
    rare = _is_rare(begin, limits, calendar)
    for row in range(len(start)):
        low, high = _borders(t, start[row], stop[row], cutoff[row], window)
        if op >= LAST_DAYS:
            step, i, match = (-1, high - 1, -1) if op in (LAST_DAYS, LAST_PLACE) else (1, low, -1)
            while match < 0 and low <= i < high:
                if _passes(
                    i, t, touch, place, stage, item, allowed, begin, rare, value, satisfaction, limits, calendar
                ):  # fmt: skip
                    match = i
                i += step
            if match < 0:
                out[row] = np.nan
            else:
                out[row] = match if op in (LAST_PLACE, FIRST_PLACE) else (cutoff[row] - t[match]) / DAY_US
            continue
        count = days = valued = 0
        total, lowest, highest, latest = 0.0, np.inf, -np.inf, np.nan
        first = last = np.int64(0)
        next_day = np.int64(-1)
        for i in range(low, high):
            if not _passes(
                i, t, touch, place, stage, item, allowed, begin, rare, value, satisfaction, limits, calendar
            ):  # fmt: skip
                continue
            count += 1
            if op == COUNT:
                continue
            if op == SUM:
                total += number[i] if len(number) and number[i] == number[i] else 0.0
                continue
            if t[i] >= next_day:
                next_day = (t[i] // DAY_US + 1) * DAY_US
                days += 1
            first = t[i] if count == 1 else first
            last = t[i]
            if len(number) and number[i] == number[i]:
                valued += 1
                total += number[i]
                lowest, highest, latest = min(lowest, number[i]), max(highest, number[i]), number[i]
        if op == COUNT:
            out[row] = count
        elif op == DAYS:
            out[row] = days
        elif op == SUM:
            out[row] = total
        elif op == PER_DAY:
            out[row] = total / days if valued else np.nan
        elif op == GAP_DAYS:
            out[row] = (last - first) / DAY_US / (days - 1) if days > 1 else np.nan
        elif op == OVERDUE:
            unmixed = usual_days != usual_days
            gaps, span_days = days - unmixed, (last - first) / DAY_US + (0.0 if unmixed else usual_days)
            has_rhythm = count > 0 and gaps > 0 and span_days > 0.0
            out[row] = (cutoff[row] - last) / DAY_US / (span_days / gaps) if has_rhythm else np.nan
        elif valued == 0:
            out[row] = np.nan
        elif op == MEAN:
            out[row] = total / valued
        elif op == LOWEST:
            out[row] = lowest
        elif op == HIGHEST:
            out[row] = highest
        else:
            out[row] = latest


@entry_kernel
def dominant(  # type: ignore[no-untyped-def]
    out, start, stop, cutoff, window, t, touch, place, stage, item, allowed, begin, value, satisfaction, limits,
    calendar, column, group_of, base, at_least, min_share, min_lift, counts,
):  # fmt: skip
    """Write the group that stands out among a snapshot's events into `out` (n,) float64, NaN where none does.

    It has at least `at_least` events, `min_share` of those with a known value and `min_lift` times its `base` (groups,)
    share; of several, the one furthest above its base. `column` (n_events,) codes, empty where the log lacks it;
    `group_of` (1 + names,) the group of each name, missing first, -1 for none; `counts` (groups,) int64 scratch.
    """
    rare = _is_rare(begin, limits, calendar)
    for row in range(len(start)):
        out[row] = np.nan
        if len(column) == 0:
            continue
        low, high = _borders(t, start[row], stop[row], cutoff[row], window)
        counts[:] = 0
        valued = 0
        for i in range(low, high):
            if column[i] >= 0 and _passes(
                i, t, touch, place, stage, item, allowed, begin, rare, value, satisfaction, limits, calendar
            ):  # fmt: skip
                valued += 1
                if group_of[column[i] + 1] >= 0:
                    counts[group_of[column[i] + 1]] += 1
        most = -np.inf
        for g in range(len(base)):
            if counts[g] >= at_least and counts[g] > 0:
                share = counts[g] / valued
                if share >= min_share and share >= min_lift * base[g] and share - base[g] > most:
                    most = share - base[g]
                    out[row] = g


@entry_kernel
def last_code(out, start, stop, codes):  # type: ignore[no-untyped-def]
    """Write each snapshot's last known code into `out` (n,) int64, -1 where there is none."""
    for row in range(len(start)):
        out[row] = -1
        for i in range(stop[row] - 1, start[row] - 1, -1):
            if codes[i] >= 0:
                out[row] = codes[i]
                break


@entry_kernel
def last_number(out, start, stop, numbers):  # type: ignore[no-untyped-def]
    """Write each snapshot's last known number into `out` (n,) float64, NaN where there is none."""
    for row in range(len(start)):
        out[row] = np.nan
        for i in range(stop[row] - 1, start[row] - 1, -1):
            if numbers[i] == numbers[i]:
                out[row] = numbers[i]
                break

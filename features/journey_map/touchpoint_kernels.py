"""Compiled passes of the journey map's touchpoint table and pain points: what happens at and after each touchpoint.

All are serial, `nogil` and cached; a code of -1 (missing) is taken as one past the last name. All counts of disjoint
sets of customers add up, the moments of the pain points included.
"""

from __future__ import annotations

import numpy as np
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared

CUSTOMERS, CONVERTED, ENTRIES, BOUNCES, IMPRESSIONS, CLICKS, SCORES, TOP, PROMOTERS, DETRACTORS, DURATIONS, STAYS = (
    range(12)
)
N_COUNTS = 12
LEAVE, LOOP, WAIT, COMPLAIN = range(4)
N_KINDS = 4
# sums over the customers who have a touchpoint: how many, y, y², Y, M, yY, yM, Y², YM, M², and customers with y > 0
N_MOMENTS = 11
LONG_AGO = np.int64(-(2**62))


@njit(cache=True, nogil=True)
def touch_counts(  # type: ignore[no-untyped-def]
    codes, t, start, stop, last_goal, n_names, session_us, durations, scores, marks, shows, clicks, n_pairs,
):  # fmt: skip
    """(n_names + 1, N_COUNTS) int64 counts of each touchpoint.

    Of the arguments:
        last_goal: (n,) place of the customer's last goal, -1 for none.
        session_us: a longer gap begins a new session.
        durations, scores: (n_events,) float64, or empty.
        marks: lowest score of the top two, of promoters, highest of detractors.
        shows, clicks: (n_names + 1,) the pair of impression and click that a touchpoint belongs to, -1 for none.
    """
    counts = np.zeros((n_names + 1, N_COUNTS), np.int64)
    latest = np.full(n_names + 1, -1, np.int64)
    pending = np.full(n_pairs, -1, np.int64)
    for row in range(len(start)):
        pending[:] = -1
        first, end = start[row], stop[row]
        for i in range(first, end):
            code = codes[i] if codes[i] >= 0 else n_names
            if latest[code] != row:
                latest[code] = row
                counts[code, CUSTOMERS] += 1
                if i < last_goal[row]:
                    counts[code, CONVERTED] += 1
            ends = i + 1 == end or t[i + 1] - t[i] > session_us
            if i == first or t[i] - t[i - 1] > session_us:
                counts[code, ENTRIES] += 1
                if ends:
                    counts[code, BOUNCES] += 1
            if not ends:
                counts[code, STAYS] += 1
            if len(durations) and durations[i] >= 0:
                counts[code, DURATIONS] += 1
            if len(scores) and not np.isnan(scores[i]):
                counts[code, SCORES] += 1
                if scores[i] >= marks[0]:
                    counts[code, TOP] += 1
                if scores[i] >= marks[1]:
                    counts[code, PROMOTERS] += 1
                if scores[i] <= marks[2]:
                    counts[code, DETRACTORS] += 1
            if n_pairs:
                pair = clicks[code]
                if pair >= 0 and pending[pair] >= 0:
                    counts[pending[pair], CLICKS] += 1
                    pending[pair] = -1
                pair = shows[code]
                if pair >= 0:
                    counts[code, IMPRESSIONS] += 1
                    pending[pair] = code
    return counts


@njit(cache=True, nogil=True)
def dwell_times(  # type: ignore[no-untyped-def]
    codes, t, start, stop, n_names, session_us, durations, measured, begins, out,
):  # fmt: skip
    """Write seconds at each touchpoint into `out`, touchpoint by touchpoint; `begins` (n_names + 1,) is used up.

    Where a touchpoint has durations (`measured`) these are taken, elsewhere the time to the next event in the session.
    """
    for row in range(len(start)):
        for i in range(start[row], stop[row]):
            code = codes[i] if codes[i] >= 0 else n_names
            if measured[code]:
                if durations[i] >= 0:
                    out[begins[code]] = durations[i]
                    begins[code] += 1
            elif i + 1 < stop[row] and t[i + 1] - t[i] <= session_us:
                out[begins[code]] = (t[i + 1] - t[i]) / 1e6
                begins[code] += 1


@njit(cache=True, nogil=True)
def pain_moments(  # type: ignore[no-untyped-def]
    codes, t, start, stop, goes_on, closed, n_names, judged, may_leave, complains, leave_until, complain_until,
    waits_us, loop_us, complain_us,
):  # fmt: skip
    """Sums from which rates, their differences from the rest and the errors of these follow, touchpoint by touchpoint.

    For each customer and touchpoint there is one y in 0..1 a kind: whether they left after it, were in a loop, the
    share of their gaps after it that are long, the share of their visits that a complaint follows. Y and M are a
    customer's sums of y and of touchpoints with a y.

    Of the arguments:
        goes_on: (n,) whether the customer has events after the last one here.
        closed: (n,) the place of the event that rightly closes the journey, -1 for none; later visits are not judged.
        judged: (N_KINDS,) which kinds are wanted.
        may_leave, complains: (n_names + 1,) whether a touchpoint can be left after; whether it is a complaint.
        leave_until, complain_until: µs; later visits cannot be judged, as the log ends too soon after them.
        waits_us: a longer gap is long. loop_us: three visits within it are a loop. complain_us: see `MapSettings`.

    Returns:
        (N_KINDS, n_names + 1, N_MOMENTS) float64 and, over all customers, (N_KINDS, 5): Y, M, Y², YM, M².
    """
    moments = np.zeros((N_KINDS, n_names + 1, N_MOMENTS))
    totals = np.zeros((N_KINDS, 5))
    n, y = np.zeros((N_KINDS, n_names + 1), np.int8), np.zeros((N_KINDS, n_names + 1))
    gaps, long = np.zeros(n_names + 1, np.int64), np.zeros(n_names + 1, np.int64)
    visits, regretted = np.zeros(n_names + 1, np.int64), np.zeros(n_names + 1, np.int64)
    later, later2 = np.full(n_names + 1, -LONG_AGO), np.full(n_names + 1, -LONG_AGO)
    touched = np.empty(n_names + 1, np.int64)
    for row in range(len(start)):
        n_touched, complaint = 0, -LONG_AGO
        for i in range(stop[row] - 1, start[row] - 1, -1):
            code = codes[i] if codes[i] >= 0 else n_names
            if n[LOOP, code] == 0:
                n[LOOP, code] = 1
                touched[n_touched] = code
                n_touched += 1
            if t[i] <= leave_until and may_leave[code] and not 0 <= closed[row] <= i:
                n[LEAVE, code] = 1
                if i + 1 == stop[row] and not goes_on[row]:
                    y[LEAVE, code] = 1.0
            if i == start[row] or codes[i - 1] != codes[i]:
                if later2[code] - t[i] <= loop_us:
                    y[LOOP, code] = 1.0
                later2[code], later[code] = later[code], t[i]
            if i + 1 < stop[row]:
                gaps[code] += 1
                if t[i + 1] - t[i] > waits_us:
                    long[code] += 1
            if complains[code]:
                complaint = t[i]
            elif t[i] <= complain_until:
                n[COMPLAIN, code] = 1
                visits[code] += 1
                if complaint - t[i] <= complain_us:
                    regretted[code] += 1
        for place in range(n_touched):
            code = touched[place]
            if gaps[code]:
                n[WAIT, code] = 1
                y[WAIT, code] = long[code] / gaps[code]
            if visits[code]:
                y[COMPLAIN, code] = regretted[code] / visits[code]
        for kind in range(N_KINDS):
            if judged[kind]:
                _add_customer(n[kind], y[kind], touched, n_touched, moments[kind], totals[kind])
        for place in range(n_touched):
            code = touched[place]
            n[:, code], y[:, code] = 0, 0.0
            gaps[code], long[code], visits[code], regretted[code] = 0, 0, 0, 0
            later[code], later2[code] = -LONG_AGO, -LONG_AGO
    return moments, totals


@njit(cache=True, nogil=True)
def _add_customer(n, y, touched, n_touched, moments, totals):  # type: ignore[no-untyped-def]
    """Add one customer's n and y of one kind to the sums."""
    all_y, all_n = 0.0, 0.0
    for place in range(n_touched):
        all_y += y[touched[place]]
        all_n += n[touched[place]]
    totals[0] += all_y
    totals[1] += all_n
    totals[2] += all_y * all_y
    totals[3] += all_y * all_n
    totals[4] += all_n * all_n
    for place in range(n_touched):
        code = touched[place]
        if n[code]:
            value, sums = y[code], moments[code]
            sums[0] += 1.0
            sums[1] += value
            sums[2] += value * value
            sums[3] += all_y
            sums[4] += all_n
            sums[5] += value * all_y
            sums[6] += value * all_n
            sums[7] += all_y * all_y
            sums[8] += all_y * all_n
            sums[9] += all_n * all_n
            if value > 0:
                sums[10] += 1.0

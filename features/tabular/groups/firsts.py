"""What came first, what last, and what followed what: the touch, order and transitions groups.

A code is written as a number from 0, most frequent in training first, so that it works as a category and as a rank;
NaN where there is none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from features.tabular.group import Column, FeatureGroup, Names, OneSnapshot, Workspace
from features.tabular.plan import (
    BASE,
    BEFORE_LAST,
    COUNT,
    DAYS,
    FIRST,
    LAST,
    N_CODES,
    N_COLUMNS,
    N_LAST,
    N_PAIR_STAGES,
    N_PAIRS,
    SIZE,
    STAGE,
    TOUCHPOINT,
    group_kernel,
    kernel,
)

Array = Any


@kernel
def touch(
    row: Array, at: int, plan: Array, occurrences: Array, codes: Array, visits: Array, m: int, ticks: Array, n: int,
    cutoff: int,
) -> int:  # fmt: skip
    """First and last code of each column, the last touchpoints, the last visit's door; days since each code's first."""
    for column in range(N_COLUMNS):
        if plan[SIZE + column] > 0:
            row[at] = code_at(plan, codes, column, 0, n)
            row[at + 1] = code_at(plan, codes, column, n - 1, n)
            at += 2
    for k in range(1, plan[N_LAST]):
        row[at] = code_at(plan, codes, TOUCHPOINT, n - 1 - k, n)
        row[at + 1] = (ticks[n - k] - ticks[n - 1 - k]) * DAYS if n > k else np.nan
        at += 2
    row[at] = code_at(plan, codes, TOUCHPOINT, visits[m - 1], n) if m > 0 else np.nan
    at += 1
    n_codes, moment = plan[N_CODES], float(cutoff)
    for c in range(n_codes):
        row[at + c] = (moment - occurrences[FIRST, c]) * DAYS
    at += n_codes
    return at


@kernel
def code_at(plan: Array, codes: Array, column: int, i: int, n: int) -> float:
    """The code of event `i` from 0; NaN where there is no such event or its value is missing."""
    if i < 0 or i >= n:
        return np.nan
    code = np.int64(codes[column, i]) - plan[BASE + column]
    if column != TOUCHPOINT and code == plan[SIZE + column] - 1:
        return np.nan
    return float(code)


@kernel
def order(row: Array, at: int, plan: Array, occurrences: Array, codes: Array, ticks: Array, n: int, cutoff: int) -> int:
    """Delays until first and last occurrence, ranks of firsts, times between; how long in the current stage."""
    for column in (TOUCHPOINT, STAGE):
        base, size = plan[BASE + column], plan[SIZE + column]
        n_named = max(size - 1 if column == TOUCHPOINT else size - 2, 0)  # without other and missing
        for c in range(base, base + n_named):
            at = times_of_code(row, at, occurrences, base, n_named, c, ticks, cutoff)
        pairs = min(n_named, plan[N_PAIRS] if column == TOUCHPOINT else plan[N_PAIR_STAGES])
        for a in range(base, base + pairs):
            for b in range(a + 1, base + pairs):
                row[at] = (occurrences[FIRST, b] - occurrences[FIRST, a]) * DAYS
                row[at + 1] = (occurrences[LAST, b] - occurrences[LAST, a]) * DAYS
                at += 2
    if plan[SIZE + STAGE] > 0:
        since = n - 1
        while since > 0 and codes[STAGE, since - 1] == codes[STAGE, n - 1]:
            since -= 1
        row[at] = (cutoff - ticks[since]) * DAYS if n > 0 else np.nan
        row[at + 1] = n - since if n > 0 else 0
        at += 2
    return at


@kernel
def times_of_code(
    row: Array, at: int, occurrences: Array, base: int, n_named: int, c: int, ticks: Array, cutoff: int
) -> int:
    """One code: delays from the start, its rank among the firsts, and the rhythm of its own occurrences."""
    count, first, last = occurrences[COUNT, c], occurrences[FIRST, c], occurrences[LAST, c]
    if count == 0.0:
        for k in range(6):
            row[at + k] = np.nan
        return at + 6
    start, rank = ticks[0], 0
    for other in range(base, base + n_named):
        rank += occurrences[FIRST, other] < first
    row[at] = (first - start) * DAYS
    row[at + 1] = (last - start) * DAYS
    row[at + 2] = rank
    row[at + 3] = (last - occurrences[BEFORE_LAST, c]) * DAYS
    mean = (last - first) * DAYS / (count - 1.0) if count > 1.0 else np.nan
    row[at + 4] = mean
    row[at + 5] = (cutoff - last) * DAYS / mean if mean > 0.0 else np.nan
    return at + 6


@kernel
def transitions(row: Array, at: int, plan: Array, codes: Array, n: int, cells: Array) -> int:
    """How often touchpoint b came right after a, for the most frequent ones."""
    pairs = min(plan[N_PAIRS], plan[SIZE + TOUCHPOINT] - 1)
    base = plan[BASE + TOUCHPOINT]
    for c in range(pairs * pairs):
        cells[c] = 0.0
    for i in range(1, n):
        a, b = np.int64(codes[TOUCHPOINT, i - 1]) - base, np.int64(codes[TOUCHPOINT, i]) - base
        if a < pairs and b < pairs:
            cells[a * pairs + b] += 1.0
    for c in range(pairs * pairs):
        row[at + c] = cells[c]
    at += pairs * pairs
    return at


def _touch_columns(names: Names) -> Iterator[Column]:
    for column in names.columns:
        yield f"first_{column}", f"{column} of the first event", True
        yield f"last_{column}", f"{column} of the last event", True
    for k in range(1, names.widths.last_touchpoints):
        yield f"touchpoint_before_last_{k}", f"touchpoint {k} before the last", True
        yield f"last_step_{k}_days", f"days between the touchpoints {k} and {k - 1} before the last"
    yield "last_visit_door", "touchpoint that opened the last visit", True
    for code, subject in names.codes:
        yield f"{code}.first_days", f"days since the first event with {subject}"


@group_kernel
def _write_touch(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return touch(row, at, w.plan, w.occurrences, w.codes, w.visits, s.n_visits, w.ticks, s.n, s.cutoff)


TOUCH_GROUP = FeatureGroup("touch", _touch_columns, _write_touch, needs=("tally", "visits"))


def _order_columns(names: Names) -> Iterator[Column]:
    for column in ("touchpoint", "stage"):
        codes = names.values(column)[: -1 if column == "touchpoint" else -2]
        for code, subject in codes:
            yield f"{code}.delay_first_days", f"days from the start to the first event with {subject}"
            yield f"{code}.delay_last_days", f"days from the start to the last event with {subject}"
            yield f"{code}.first_rank", f"how many {column}s came for the first time before {subject}"
            yield f"{code}.last_gap_days", f"days between the last two events with {subject}"
            yield f"{code}.mean_gap_days", f"mean days between events with {subject}"
            yield f"{code}.current_to_mean_gap", f"days since the last event with {subject} in units of their mean gap"
        most = names.widths.order_pairs if column == "touchpoint" else names.widths.stage_pairs
        for i, (a, subject_a) in enumerate(codes[:most]):
            for b, subject_b in codes[i + 1 : most]:
                short = b.removeprefix(f"{column}.")
                yield f"{a}.to_{short}.first_days", f"days from the first {subject_a} to the first {subject_b}"
                yield f"{a}.to_{short}.last_days", f"days from the last {subject_a} to the last {subject_b}"
    if "stage" in names.columns:
        yield "stage_days", "days since the current stage was entered"
        yield "stage_events", "events since the current stage was entered"


@group_kernel
def _write_order(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return order(row, at, w.plan, w.occurrences, w.codes, w.ticks, s.n, s.cutoff)


ORDER_GROUP = FeatureGroup("order", _order_columns, _write_order, needs=("tally",))


def _transitions_columns(names: Names) -> Iterator[Column]:
    codes = names.values("touchpoint")[:-1][: names.widths.order_pairs]
    for a, subject_a in codes:
        for b, subject_b in codes:
            yield f"{a}.then_{b.removeprefix('touchpoint.')}", f"times that {subject_b} came right after {subject_a}"


@group_kernel
def _write_transitions(row: Array, at: int, w: Workspace, s: OneSnapshot) -> Any:
    return transitions(row, at, w.plan, w.codes, s.n, w.cells)


TRANSITIONS_GROUP = FeatureGroup("transitions", _transitions_columns, _write_transitions)

"""Reasons of sequence models: the change of the log-odds when a touchpoint is removed from the journey (occlusion).

Nothing is approximated. For each touchpoint the journey is built again without its events, with the gaps that then
result, and scored. The contribution is the log-odds with these events minus the log-odds without them.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import Category, Journeys, Snapshots
from models.contract import Reason, Vector

DAY_US = 86_400_000_000
MOST_TOUCHPOINTS = 24  # the most frequent ones of a journey; the others hardly ever move the log-odds
ROWS_AT_ONCE = 64

Ints = npt.NDArray[np.int64]
Margins = Callable[[Snapshots], Vector]


def occlusion_reasons(margins: Margins, snapshots: Snapshots, top: int) -> list[list[Reason]]:
    """For each of (n,) snapshots at most `top` touchpoints, the strongest first.

    Args:
        margins: snapshots → (n,) log-odds before calibration.
        snapshots: (n,) to explain.
        top: how many for each.
    """
    reasons: list[list[Reason]] = []
    for at in range(0, len(snapshots), ROWS_AT_ONCE):
        block = snapshots.take(np.arange(at, min(at + ROWS_AT_ONCE, len(snapshots))))
        reasons += _reasons(margins, block, top)
    return reasons


def remove_touchpoint(snapshots: Snapshots, rows: Ints, codes: Ints) -> Snapshots:
    """The snapshots at (k,) `rows`, each in a log of its own without the events of one touchpoint.

    Args:
        snapshots: of any log.
        rows: (k,) which snapshots.
        codes: (k,) the code of the touchpoint to remove; -2 removes none.
    """
    log = snapshots.journeys
    touchpoints = log.categories["touchpoint"].codes
    events_of_rows = [
        np.arange(start, stop)[touchpoints[start:stop] != code]
        for start, stop, code in zip(snapshots.start[rows], snapshots.stop[rows], codes, strict=True)
    ]
    events = np.concatenate(events_of_rows) if events_of_rows else np.zeros(0, np.int64)
    offsets = np.concatenate(([0], np.cumsum([len(part) for part in events_of_rows]))).astype(np.int64)
    small = Journeys(
        log.customer_ids.take(np.maximum(snapshots.customer[rows], 0)),
        offsets,
        np.asarray(log.t)[events],
        {
            name: Category(np.asarray(category.codes)[events], category.names)
            for name, category in log.categories.items()
        },
        {name: np.asarray(values)[events] for name, values in log.numbers.items()},
    )
    return Snapshots(small, np.arange(len(rows)), offsets[:-1], offsets[1:], snapshots.cutoff[rows])


def _reasons(margins: Margins, snapshots: Snapshots, top: int) -> list[list[Reason]]:
    rows, codes = _pairs(snapshots)
    full = margins(snapshots)
    moved = full[rows] - margins(remove_touchpoint(snapshots, rows, codes)) if len(rows) else np.zeros(0)
    out: list[list[Reason]] = [[] for _ in range(len(snapshots))]
    for place in np.lexsort((-np.abs(moved), rows)):
        row = int(rows[place])
        if len(out[row]) < top and moved[place] != 0.0:
            out[row].append(_reason(snapshots, row, int(codes[place]), float(moved[place])))
    return out


def _pairs(snapshots: Snapshots) -> tuple[Ints, Ints]:
    """(k,) rows and (k,) touchpoints that occur in them."""
    touchpoints = snapshots.journeys.categories["touchpoint"].codes
    rows, codes = [], []
    for row, (start, stop) in enumerate(zip(snapshots.start, snapshots.stop, strict=True)):
        values, counts = np.unique(touchpoints[start:stop], return_counts=True)
        if len(values) > 1:  # without its only touchpoint a journey would be empty
            chosen = values[np.argsort(-counts, kind="stable")[:MOST_TOUCHPOINTS]]
            rows.append(np.full(len(chosen), row))
            codes.append(chosen.astype(np.int64))
    if not rows:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    return np.concatenate(rows), np.concatenate(codes)


def _reason(snapshots: Snapshots, row: int, code: int, moved: float) -> Reason:
    journeys = snapshots.journeys
    start, stop = int(snapshots.start[row]), int(snapshots.stop[row])
    its = start + np.flatnonzero(journeys.categories["touchpoint"].codes[start:stop] == code)
    days = float(snapshots.cutoff[row] - journeys.t[its[-1]]) / DAY_US
    name = journeys.categories["touchpoint"].names[code] if code >= 0 else "no touchpoint"
    direction = "raises" if moved > 0 else "lowers"
    times = "once" if len(its) == 1 else f"{len(its)} times"
    return Reason(
        subject=name,
        text=f"{name}: {times}, last {days:.1f} days before the cutoff ({direction} the probability)",
        feature=f"touchpoint.{name}",
        value=float(len(its)),
        contribution=moved,
    )

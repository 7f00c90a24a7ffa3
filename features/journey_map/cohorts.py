"""Cohorts and retention of a journey map: of those who came in one month or week, how many are active in later ones.

A customer's cohort is the period (UTC) of their first event in the whole log, even where the map begins later.
Retention counts the cohort's customers with an event in the period. Periods that the map does not cover to their end
are left out, but for a cohort's own; a cohort that began before the map has no cells before it.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journey_map.kernels import count_cohorts
from features.journey_map.selection import DAY_US, Int64s, MapSelection, MapSource
from features.journey_map.settings import MapSettings
from features.statistics import ratio, wilson

COLUMNS = ("cohort", "size", "period", "active", "retention", "retention_low", "retention_high")
KINDS = ("datetime64[us]", "int64", "int64", "int64", "float64", "float64", "float64")
MOST_PERIODS = 600
DAYS = {"week": 7, "month": 30, "year": 365}
UNITS = {"week": "W", "month": "M", "year": "Y"}
NEARLY_US = DAY_US  # a period that ends within a day after the map's last event counts as covered


def period_edges(first_us: int, last_us: int, unit: str) -> npt.NDArray[np.int64]:
    """(periods + 1,) µs: the beginnings of the periods from that of `first_us` to the one after that of `last_us`.

    Args:
        first_us: µs since 1970 UTC.
        last_us: the same, not before it.
        unit: "week" (from Monday), "month" or "year".
    """
    if unit == "week":
        monday = -3 * DAY_US  # 1969-12-29
        first = monday + (first_us - monday) // (7 * DAY_US) * 7 * DAY_US
        return np.arange(first, last_us + 7 * DAY_US + 1, 7 * DAY_US, dtype=np.int64)[
            : (last_us - first) // (7 * DAY_US) + 2
        ]
    low, high = np.array([first_us, last_us]).astype("datetime64[us]").astype(f"datetime64[{UNITS[unit]}]")
    return np.arange(low, high + 2).astype("datetime64[us]").astype(np.int64)


def cohort_counts(part: MapSelection, edges: Int64s) -> tuple[Int64s, Int64s]:
    """Sizes (periods,) and active (periods, periods) of cohorts between edges; those of disjoint customers add up."""
    t = part.journeys.t
    first_ever = t[part.journeys.offsets[part.customer]]
    sizes, active = np.zeros(len(edges) - 1, np.int64), np.zeros((len(edges) - 1,) * 2, np.int64)
    count_cohorts(t, first_ever, part.start, part.stop, edges, sizes, active)
    return sizes, active


def cohorts(selection: MapSource, settings: MapSettings) -> tuple[pd.DataFrame, list[str]]:
    """Tabulate cohorts and say what is to say.

    Returns:
        One row a cell that was observed: cohort (beginning of its period), size (of its customers in the map), period
        (0 for their first), active, retention with Wilson's interval.
    """
    unit, notes = _unit(selection, settings)
    if unit is None:
        return pd.DataFrame({name: pd.Series(dtype=kind) for name, kind in zip(COLUMNS, KINDS, strict=True)}), notes
    edges = period_edges(selection.first_ever, selection.last, unit)  # to the selection's last event
    sizes, active = selection.total(partial(cohort_counts, edges=edges))
    from_the_first = selection.since <= selection.first_ever
    begun = (edges[:-1] >= selection.since - NEARLY_US) | from_the_first
    ended = edges[1:] <= selection.until + NEARLY_US
    same_period = np.eye(len(sizes), dtype=bool)
    later = np.triu(np.ones_like(same_period), 1)
    observed = (sizes > 0)[:, None] & ((same_period & ended_or_open(begun, ended)) | (later & begun & ended))
    cohort, period = np.nonzero(observed)
    n, n_active = sizes[cohort], active[cohort, period]
    values = (
        edges[cohort].view("datetime64[us]"),
        n,
        period - cohort,
        n_active,
        ratio(n_active, n),
        *wilson(n_active, n),
    )
    if not ended[-1]:
        notes.append(f"The last {unit} of the map is not over: it shows only who came in it, nobody's return.")
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True))), notes


def ended_or_open(begun: npt.NDArray[np.bool_], ended: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """(periods,) periods inside the map, the last one even where it is not over: a cohort is active in its own."""
    inside = begun & ended
    inside[-1] |= begun[-1]
    return inside


def _unit(selection: MapSource, settings: MapSettings) -> tuple[str | None, list[str]]:
    """The period asked for, a longer one where the log would have too many, None where there is no end to it."""
    days = (selection.last - selection.first_ever) / DAY_US
    units = list(DAYS)[list(DAYS).index(settings.cohort) :]
    unit = next((candidate for candidate in units if days / DAYS[candidate] <= MOST_PERIODS), None)
    if unit == settings.cohort:
        return unit, []
    notes = (
        f"cohorts are by {unit}, not by {settings.cohort}" if unit else "are all the times right? There are no cohorts"
    )
    return unit, [f"The log goes on for {days:,.0f} days: {notes}."]

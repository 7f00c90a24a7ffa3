"""The two groups of customers that a journey map compares: converted or not, before and after a date, by a column."""

from __future__ import annotations

import difflib
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import ConfigError
from features.journey_map import journey_map
from features.journeys import Journeys
from features.map_comparison import MapComparison, compare, compare_maps
from features.map_selection import select, wanted
from features.map_settings import MapSettings

CONVERTED = "converted"
HOW = 'write --group converted, a date such as --group 2024-06-01, or --group "column=value"'
Flags = npt.NDArray[np.bool_]


def compared(
    journeys: Journeys, settings: MapSettings, group: str, start: Any = None, end: Any = None
) -> MapComparison:
    """Compare the groups that `group` names.

    Args:
        journeys: the packed log.
        settings: of both maps.
        group: "converted": who reached a goal, beside who did not; a date: events before and from it on; or
            "column=value": customers whose last known value it is, beside all others.
        start: events from this moment on.
        end: events before this moment.

    Raises:
        ConfigError: no such group.
        DataError: a group without events.
    """
    if group == CONVERTED:
        flags = converted(journeys, settings, start, end)
        return compare(journeys, flags, ~flags, settings, names=("converted", "not converted"), start=start, end=end)
    if "=" in group:
        column, _, value = (part.strip() for part in group.partition("="))
        flags = by_value(journeys, column, value)
        names = (value, f"other than {value}")
        return compare(journeys, flags, ~flags, settings, names=names, start=start, end=end)
    return _periods(journeys, settings, group, start, end)


def converted(journeys: Journeys, settings: MapSettings, start: Any = None, end: Any = None) -> Flags:
    """(n_customers,) who reached a goal between the dates.

    Raises:
        ConfigError: no goals, or nobody on one of the two sides.
    """
    if not settings.goals:
        raise ConfigError("--group converted needs a goal: add --goal TOUCHPOINT, or goals under [map] in the file.")
    chosen = select(journeys, None, start, end)
    first, _ = chosen.goals(wanted(chosen.touchpoint.names, settings.goals))
    flags = np.zeros(journeys.n_customers, bool)
    flags[chosen.customer] = first >= 0
    if (first >= 0).all() or (first < 0).all():
        who = "Everybody" if len(first) and first[0] >= 0 else "Nobody"
        raise ConfigError(f"{who} reached {' or '.join(settings.goals)}: there are no two groups to compare.")
    return flags


def by_value(journeys: Journeys, column: str, value: str) -> Flags:
    """(n_customers,) whose last known value of a column is `value`.

    Raises:
        ConfigError: the log has no such column or value, or nobody else has another.
    """
    if column not in journeys.categories:
        there = ", ".join(journeys.categories)
        hint = _nearest(column, list(journeys.categories))
        raise ConfigError(
            f"--group {column}={value}: the log has no column '{column}' of names.{hint} There are: {there}"
        )
    category = journeys.categories[column]
    if value not in category.names:
        some = ", ".join(sorted(category.names)[:12]) + (", …" if len(category.names) > 12 else "")
        hint = _nearest(value, list(category.names))
        raise ConfigError(f"--group {column}={value}: nobody has this {column}.{hint} There are: {some}")
    flags: Flags = _last_known(journeys, category.codes) == category.names.index(value)
    if not flags.any() or flags.all():
        whose = "everybody's" if flags.all() else "nobody's"
        raise ConfigError(
            f"--group {column}={value}: it is {whose} last {column}, so there are no two groups to compare."
        )
    return flags


def _nearest(name: str, known: list[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f" Did you mean '{close[0]}'?" if close else ""


def _last_known(journeys: Journeys, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """(n_customers,) the last code that is not missing, -1 where there is none."""
    places = np.flatnonzero(codes >= 0)
    owner = np.searchsorted(journeys.offsets, places, side="right") - 1
    last = np.full(journeys.n_customers, -1, np.int64)
    last[owner] = codes[places]  # of several for one customer the last assignment stays
    return last


def _periods(journeys: Journeys, settings: MapSettings, group: str, start: Any, end: Any) -> MapComparison:
    try:
        moment = pd.Timestamp(group)
    except ValueError as error:
        raise ConfigError(f"--group {group} names no groups: {HOW}.") from error
    if pd.isna(moment):
        raise ConfigError(f"--group {group} names no groups: {HOW}.")
    moment = moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment
    first, last = (pd.Timestamp(int(edge), unit="us") for edge in (journeys.t.min(), journeys.t.max()))
    since, until = (first if start is None else start), (last if end is None else end)
    if not since < moment <= until:
        raise ConfigError(
            f"--group {group} is not between {since:%Y-%m-%d} and {until:%Y-%m-%d}: one side has no events."
        )
    both = [journey_map(journeys, settings, start=one, end=other) for one, other in ((start, moment), (moment, end))]
    shared = _in_both(journeys, start, moment, end)
    return compare_maps(both[0], both[1], (f"before {moment:%Y-%m-%d}", f"from {moment:%Y-%m-%d} on"), shared=shared)


def _in_both(journeys: Journeys, start: Any, moment: Any, end: Any) -> int:
    sides = (select(journeys, None, start, moment).customer, select(journeys, None, moment, end).customer)
    return len(np.intersect1d(*sides))

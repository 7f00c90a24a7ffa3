"""The two groups of customers that a journey map compares: converted or not, before and after a date, by a column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import ConfigError, nearest
from features.journey_map.comparison import MapComparison, compare, compare_maps
from features.journey_map.selection import matching, select
from features.journey_map.settings import MapSettings
from features.journey_map.tables import journey_map
from features.journeys.journeys import Journeys

CONVERTED = "converted"
GROUP_FORMS = 'write --group converted, a date such as --group 2024-06-01, or --group "column=value"'
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
    require_goals(settings)
    chosen = select(journeys, None, start, end)
    first, _ = chosen.goals(matching(chosen.touchpoint.names, settings.goals))
    flags = np.zeros(journeys.n_customers, bool)
    flags[chosen.customer] = first >= 0
    require_two(settings, int((first >= 0).sum()), len(first))
    return flags


def require_goals(settings: MapSettings) -> None:
    """Raise a `ConfigError` where no goal is named."""
    if not settings.goals:
        raise ConfigError("--group converted needs a goal: add --goal TOUCHPOINT, or goals under [map] in the file.")


def require_two(settings: MapSettings, reached: int, of: int) -> None:
    """Raise a `ConfigError` where everybody or nobody reached a goal."""
    if reached in (0, of):
        subject = "Everybody" if reached else "Nobody"
        raise ConfigError(f"{subject} reached {' or '.join(settings.goals)}: there are no two groups to compare.")


def by_value(journeys: Journeys, column: str, value: str) -> Flags:
    """(n_customers,) whose last known value of a column is `value`.

    Raises:
        ConfigError: the log has no such column or value, or nobody else has another.
    """
    code = code_of({name: category.names for name, category in journeys.categories.items()}, column, value)
    flags: Flags = latest_codes(journeys, journeys.categories[column].codes) == code
    require_both(column, value, int(flags.sum()), len(flags))
    return flags


def code_of(names: Mapping[str, tuple[str, ...]], column: str, value: str) -> int:
    """The code of a value.

    Args:
        names: of the log's categorical columns.
        column: one of them.
        value: one of its values.

    Raises:
        ConfigError: the log has no such column or value.
    """
    if column not in names:
        hint = _hint(column, names)
        raise ConfigError(
            f"--group {column}={value}: the log has no column '{column}' of names.{hint} There are: {', '.join(names)}"
        )
    values = names[column]
    if value not in values:
        examples = ", ".join(sorted(values)[:12]) + (", …" if len(values) > 12 else "")
        hint = _hint(value, values)
        raise ConfigError(f"--group {column}={value}: nobody has this {column}.{hint} There are: {examples}")
    return values.index(value)


def require_both(column: str, value: str, n_with: int, of: int) -> None:
    """Raise a `ConfigError` where a value is everybody's or nobody's."""
    if n_with in (0, of):
        possessor = "everybody's" if n_with else "nobody's"
        raise ConfigError(
            f"--group {column}={value}: it is {possessor} last {column}, so there are no two groups to compare."
        )


def _hint(name: str, choices: Iterable[str]) -> str:
    close = nearest(name, choices)
    return f" Did you mean '{close}'?" if close else ""


def latest_codes(journeys: Journeys, codes: npt.NDArray[np.int32]) -> npt.NDArray[np.int64]:
    """(n_customers,) the last code that is not missing, -1 where there is none."""
    places = np.flatnonzero(codes >= 0)
    owner = np.searchsorted(journeys.offsets, places, side="right") - 1
    last = np.full(journeys.n_customers, -1, np.int64)
    last[owner] = codes[places]  # of several for one customer the last assignment stays
    return last


def _periods(journeys: Journeys, settings: MapSettings, group: str, start: Any, end: Any) -> MapComparison:
    moment = moment_of(group, journeys.start_us, journeys.end_us, start, end)
    both = [
        journey_map(journeys, settings, start=since, end=until) for since, until in ((start, moment), (moment, end))
    ]
    shared = _in_both(journeys, start, moment, end)
    return compare_maps(both[0], both[1], period_names(moment), shared=shared)


def moment_of(group: str, first_us: int, last_us: int, start: Any, end: Any) -> pd.Timestamp:
    """The moment that `--group` names.

    Args:
        group: a date.
        first_us: the log's first event.
        last_us: its last.
        start: of the map.
        end: of the map.

    Raises:
        ConfigError: no date, or none between the others.
    """
    moment = read_date(group, f"--group {group} names no groups: {GROUP_FORMS}.")
    first, last = (pd.Timestamp(edge, unit="us") for edge in (first_us, last_us))
    since, until = (first if start is None else start), (last if end is None else end)
    if not since < moment <= until:
        raise ConfigError(
            f"--group {group} is not between {since:%Y-%m-%d} and {until:%Y-%m-%d}: one side has no events."
        )
    return moment


def read_date(text: str, problem: str) -> pd.Timestamp:
    """A moment in UTC.

    Args:
        text: as the user wrote it.
        problem: what to say where it is none.

    Raises:
        ConfigError: it is no date.
    """
    try:
        moment = pd.Timestamp(text)
    except ValueError as error:
        raise ConfigError(problem) from error
    if pd.isna(moment):
        raise ConfigError(problem)
    return moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment


def period_names(moment: pd.Timestamp) -> tuple[str, str]:
    """What the two sides of a moment are called."""
    return f"before {moment:%Y-%m-%d}", f"from {moment:%Y-%m-%d} on"


def _in_both(journeys: Journeys, start: Any, moment: Any, end: Any) -> int:
    sides = (select(journeys, None, start, moment).customer, select(journeys, None, moment, end).customer)
    return len(np.intersect1d(*sides))

"""The two groups of customers that a journey map compares: converted or not, before and after a date, by a column."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import ConfigError, nearest
from features.journey_map.comparison import MapComparison, compare_maps, naming_group
from features.journey_map.distributed import Chosen, choice_of, select_customers
from features.journey_map.funnel import stages_of
from features.journey_map.influence import first_goals
from features.journey_map.selection import MapSelection
from features.journey_map.settings import MapSettings
from features.journey_map.tables import build_map
from features.journeys.event_log import LogFacts, Part, Parts, total
from features.journeys.journeys import Journeys

CONVERTED = "converted"
GROUP_FORMS = 'write --group converted, a date such as --group 2024-06-01, or --group "column=value"'
Flags = npt.NDArray[np.bool_]


def compared(
    log: Parts, facts: LogFacts, settings: MapSettings, group: str, start: Any = None, end: Any = None
) -> MapComparison:
    """Compare the groups that `group` names.

    Args:
        log: whose parts have the names of the whole log.
        facts: of the whole log.
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
        require_goals(settings)
        everyone = select_customers(log, facts, start, end)
        converted = everyone.total(partial(_count, members=partial(_converts, goals=settings.goals)))
        require_two(settings, converted, everyone.n_customers)
        sides = [partial(_converts, goals=settings.goals, reached=reached) for reached in (True, False)]
        return _compare_sides(log, facts, settings, sides, ("converted", "not converted"), start, end)
    if "=" in group:
        column, _, value = (part.strip() for part in group.partition("="))
        code = code_of(facts.names, column, value)
        sides = [partial(_has_value, column=column, code=code, equal=equal) for equal in (True, False)]
        with_value = select_customers(log, facts, columns=(column,)).total(partial(_count, members=sides[0]))
        require_both(column, value, with_value, facts.customers)
        return _compare_sides(log, facts, settings, sides, (value, f"other than {value}"), start, end, (column,))
    moment = moment_of(group, facts.start_us, facts.end_us, start, end)
    periods = ((start, moment), (moment, end))
    maps = [build_map(select_customers(log, facts, *period), settings) for period in periods]
    before, after = (choice_of(facts, *period) for period in periods)
    shared = total(log, partial(_in_both, a=before, b=after), ("touchpoint",))
    return compare_maps(maps[0], maps[1], period_names(moment), shared=shared)


def _compare_sides(
    log: Parts,
    facts: LogFacts,
    settings: MapSettings,
    sides: list[Any],
    names: tuple[str, str],
    start: Any,
    end: Any,
    columns: tuple[str, ...] = (),
) -> MapComparison:
    stages, _ = stages_of(select_customers(log, facts, start, end), settings)
    settings = settings.model_copy(update={"stages": stages.names})
    maps = []
    for name, members in zip(names, sides, strict=True):
        with naming_group(name):
            maps.append(build_map(select_customers(log, facts, start, end, members, columns), settings))
    return compare_maps(maps[0], maps[1], names)


def _converts(part: MapSelection, goals: tuple[str, ...], reached: bool = True) -> Flags:
    """(n,) who reaches a goal between the dates, or who does not."""
    return np.asarray((first_goals(part, goals) >= 0) == reached)


def _has_value(part: MapSelection, column: str, code: int, equal: bool) -> Flags:
    """(n,) whose last known value has a code, or another one."""
    log = part.journeys
    return np.asarray((latest_codes(log, log.categories[column].codes) == code)[part.customer] == equal)


def _count(part: MapSelection, members: Any) -> int:
    return int(members(part).sum())


def _in_both(part: Part, a: Chosen, b: Chosen) -> int:
    return len(np.intersect1d(a.of(part).customer, b.of(part).customer))


def require_goals(settings: MapSettings) -> None:
    """Raise a `ConfigError` where no goal is named."""
    if not settings.goals:
        raise ConfigError("--group converted needs a goal: add --goal TOUCHPOINT, or goals under [map] in the file.")


def require_two(settings: MapSettings, reached: int, of: int) -> None:
    """Raise a `ConfigError` where everybody or nobody reached a goal."""
    if reached in (0, of):
        subject = "Everybody" if reached else "Nobody"
        raise ConfigError(f"{subject} reached {' or '.join(settings.goals)}: there are no two groups to compare.")


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

"""The journey map on Spark: `journeylab map … --engine spark --master …`; the page and tables are those of one machine.

draw_on_spark(plan_of(Path("log.parquet")), Path("map.html"), master="local[2]")
"""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console

from features.journey_map.comparison import MapComparison, compare_maps, naming_group
from features.journey_map.distributed import Chosen, Spread, spread
from features.journey_map.funnel import stages_of
from features.journey_map.influence import first_goals
from features.journey_map.selection import MapSelection
from features.journey_map.settings import MapSettings
from features.journey_map.tables import build_map
from features.journeys.event_log import LogFacts, Part, Parts, total
from features.spark.log import read_log, session
from training.journey_map.groups import (
    CONVERTED,
    code_of,
    latest_codes,
    moment_of,
    period_names,
    require_both,
    require_goals,
    require_two,
)
from training.journey_map.mapping import MapChoice, MapPlan, MapResult, check_page_path, date_range, publish, with_goals
from training.progress import stage

Flags = npt.NDArray[np.bool_]


def draw_on_spark(
    plan: MapPlan,
    out: Path,
    choice: MapChoice | None = None,
    *,
    master: str | None = None,
    settings: dict[str, str] | None = None,
    partitions: int | None = None,
    log: bool | None = None,
    tables: Path | None = None,
    progress: Console | None = None,
) -> MapResult:
    """Read a log with Spark, draw its map, write the page, and log it; see `training.journey_map.mapping.make_map`.

    Args:
        plan: what to draw.
        out: the HTML file.
        choice: dates, goals, groups.
        master: of Spark.
        settings: of Spark.
        partitions: of customers.
        log: to MLflow; by default what the plan says.
        tables: a folder for the tables as CSV.
        progress: where to show what is going on.

    Raises:
        ConfigError: Spark or Java is missing; dates, goals or groups that do not fit.
        DataError: no event log, or none of its events is left.
    """
    choice = choice or MapChoice()
    check_page_path(out)
    start, end = date_range(choice)
    there = read_log(session(master, settings), plan.events, partitions=partitions)
    try:
        with stage(progress, f"Packing {plan.events.path} on Spark"):
            facts = there.named().facts
        asked = with_goals(plan.map, choice.goals, facts.names["touchpoint"])
        with stage(progress, f"Drawing the map of {facts.events:,} events"):
            drawn = build_map(spread(there, facts, start, end), asked)
            comparison = compared_in_parts(there, facts, asked, choice.group, start, end) if choice.group else None
        there.quarantine(out.with_name(f"{out.stem}_quarantine.parquet"))
        counts, notes, _ = there.told
    finally:
        there.close()
    return publish(plan, out, choice, drawn, comparison, counts, notes, log, tables, progress)


def compared_in_parts(
    parts: Parts, facts: LogFacts, settings: MapSettings, group: str, start: Any = None, end: Any = None
) -> MapComparison:
    """Compare the groups that `group` names; see `training.journey_map.groups.compared`.

    Args:
        parts: with the names of the whole log.
        facts: of the whole log.
        settings: of both maps.
        group: "converted", a date, or "column=value".
        start: events from this moment on.
        end: events before this moment.

    Raises:
        ConfigError: no such group.
        DataError: a group without events.
    """
    if group == CONVERTED:
        require_goals(settings)
        everyone = spread(parts, facts, start, end)
        reached = everyone.total(partial(_how_many, members=partial(_converts, goals=settings.goals)))
        require_two(settings, reached, everyone.n_customers)
        sides = [partial(_converts, goals=settings.goals, reached=yes) for yes in (True, False)]
        return _groups(parts, facts, settings, sides, ("converted", "not converted"), start, end)
    if "=" in group:
        column, _, value = (part.strip() for part in group.partition("="))
        code = code_of(facts.names, column, value)
        sides = [partial(_has, column=column, code=code, it=yes) for yes in (True, False)]
        with_it = spread_of(parts, facts, (column,)).total(partial(_how_many, members=sides[0]))
        require_both(column, value, with_it, facts.customers)
        return _groups(parts, facts, settings, sides, (value, f"other than {value}"), start, end, (column,))
    moment = moment_of(group, facts.start_us, facts.end_us, start, end)
    both = [spread(parts, facts, one, other) for one, other in ((start, moment), (moment, end))]
    shared = total(parts, partial(_in_both, a=both[0].chosen, b=both[1].chosen), ("touchpoint",))
    first, second = (build_map(one, settings) for one in both)
    return compare_maps(first, second, period_names(moment), shared=shared)


def spread_of(parts: Parts, facts: LogFacts, columns: tuple[str, ...]) -> Spread:
    """The whole log."""
    return spread(parts, facts, columns=columns)


def _groups(
    parts: Parts, facts: LogFacts, settings: MapSettings, sides: list[Any], names: tuple[str, str], start: Any,
    end: Any,
    columns: tuple[str, ...] = (),
) -> MapComparison:  # fmt: skip
    stages, _ = stages_of(spread(parts, facts, start, end), settings)
    same = settings.model_copy(update={"stages": stages.names})
    maps = []
    for name, members in zip(names, sides, strict=True):
        with naming_group(name):
            maps.append(build_map(spread(parts, facts, start, end, members, columns), same))
    return compare_maps(maps[0], maps[1], names)


def _converts(part: MapSelection, goals: tuple[str, ...], reached: bool = True) -> Flags:
    """(n,) who reaches a goal between the dates, or who does not."""
    return np.asarray((first_goals(part, goals) >= 0) == reached)


def _has(part: MapSelection, column: str, code: int, it: bool) -> Flags:
    """(n,) whose last known value has a code, or another one."""
    log = part.journeys
    return np.asarray((latest_codes(log, log.categories[column].codes) == code)[part.customer] == it)


def _how_many(part: MapSelection, members: Any) -> int:
    return int(members(part).sum())


def _in_both(part: Part, a: Chosen, b: Chosen) -> int:
    return len(np.intersect1d(a.of(part).customer, b.of(part).customer))

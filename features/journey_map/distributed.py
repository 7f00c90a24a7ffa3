"""The journey map of a log in parts, such as one on Spark: the same tables, from merged counts of the parts.

    drawn = build_map(select_customers(log, log.facts), MapSettings(goals=("purchase",)))

Counts of parts add up; medians and quantiles are found exactly, by passes that count (`features.journeys.quantiles`). A
part is gone through by the functions that go through a whole log.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, TypeVar

import numpy as np

from features.errors import DataError
from features.journey_map.kernels import count_codes
from features.journey_map.selection import (
    Int64s,
    MapSelection,
    MapSource,
    display_names,
    no_events_message,
    select_part,
)
from features.journeys.event_log import Least, LogFacts, MemoryLog, Most, Part, Parts, total
from features.journeys.journeys import Category
from features.journeys.quantiles import Ranks, Values
from features.timestamps import microseconds

T = TypeVar("T")
COLUMNS = ("touchpoint", "channel", "stage", "duration_s", "satisfaction")
Members = Callable[[MapSelection], Any]


@dataclass(frozen=True)
class Chosen:
    """Which part of a log, for every part of it.

    Attributes:
        between: µs, the dates; None for the log's own.
        log: µs, the log's first event and one past its last.
        members: which of the customers between the dates, as a mask or indices; None for all.
    """

    between: tuple[int | None, int | None]
    log: tuple[int, int]
    members: Members | None = None

    def of(self, part: Part) -> MapSelection:
        """The selection of a part."""
        log = part.journeys
        who = np.arange(log.n_customers, dtype=np.int64)
        if self.members is not None:
            everyone = select_part(log, who, self.between, self.log, part.firsts)
            who = everyone.customer[self.members(everyone)]
        return select_part(log, who, self.between, self.log, part.firsts)


def _on_part(part: Part, chosen: Chosen, function: Callable[[MapSelection], T]) -> T:
    return function(chosen.of(part))


@dataclass(frozen=True)
class DistributedSelection:
    """A selection of customers who lie in many places; see `features.journey_map.selection.MapSource`.

    Attributes:
        parts: with the names of the whole log.
        facts: of the whole log.
        chosen: which part of it.
        columns: that are looked at.
    """

    parts: Parts
    facts: LogFacts
    chosen: Chosen
    columns: tuple[str, ...] = COLUMNS

    def total(self, function: Callable[[MapSelection], T]) -> T:
        """See `MapSource`."""
        work = partial(_on_part, chosen=self.chosen, function=function)
        return total(self.parts, work, self.columns)

    def ranks(self, values: Values) -> Ranks:
        """See `MapSource`."""
        return Ranks(self.total, values)

    def category(self, name: str) -> Category:
        """The names of a categorical column."""
        return Category(np.empty(0, np.int32), self.facts.names.get(name, ()))

    @property
    def touchpoint(self) -> Category:
        """The log's touchpoints."""
        return self.category("touchpoint")

    @property
    def names(self) -> tuple[str, ...]:
        """As `MapSelection.names`."""
        return display_names(self.touchpoint.names)

    @property
    def since(self) -> int:
        """µs, see `MapSelection`."""
        since = self.chosen.between[0]
        return self.facts.start_us if since is None else since

    @property
    def until(self) -> int:
        """µs, see `MapSelection`."""
        until = self.chosen.between[1]
        return self.log_end if until is None else until

    @property
    def log_end(self) -> int:
        """µs, see `MapSelection`."""
        return self.facts.end_us + 1

    @property
    def scores(self) -> tuple[float, float] | None:
        """The lowest and highest satisfaction in the log."""
        return self.facts.numbers.get("satisfaction")

    @cached_property
    def _figures(self) -> tuple[int, int, int, int, int, Int64s]:
        n, events, begin, last, first_ever, visits = self.total(figures)
        if not n:
            raise DataError(no_events_message("customers", self.since, self.until, self.facts.start_us, self.log_end))
        return n, events, begin.value, last.value, first_ever.value, visits

    @property
    def n_customers(self) -> int:
        """How many."""
        return self._figures[0]

    @property
    def n_events(self) -> int:
        """How many."""
        return self._figures[1]

    @property
    def begin(self) -> int:
        """µs, the first selected event."""
        return self._figures[2]

    @property
    def last(self) -> int:
        """µs, the last selected event."""
        return self._figures[3]

    @property
    def first_ever(self) -> int:
        """µs, the first event ever of any of the customers."""
        return self._figures[4]

    @property
    def visits(self) -> Int64s:
        """(n_names + 1,) events of each touchpoint, missing ones last."""
        return self._figures[5]


def figures(part: MapSelection) -> tuple[int, int, Least, Most, Least, Int64s]:
    """Customers, events, first and last event, first event ever, visits of a part."""
    names = part.touchpoint.names
    visits = np.asarray(count_codes(part.touchpoint.codes, part.start, part.stop, len(names)))
    if not part.n_customers:
        return 0, 0, Least(None), Most(None), Least(None), visits
    return part.n_customers, part.n_events, Least(part.begin), Most(part.last), Least(part.first_ever), visits


def select_customers(
    log: Parts,
    facts: LogFacts,
    start: Any = None,
    end: Any = None,
    members: Members | None = None,
    columns: tuple[str, ...] = (),
) -> MapSource:
    """Choose customers and dates, as `features.journey_map.selection.select`, on any engine.

    Args:
        log: whose parts have the names of the whole log.
        facts: of the whole log.
        start: events from here on, any moment.
        end: events before this moment.
        members: which of a part's customers between the dates, as a mask or indices; a function of a module, or a
            partial of one.
        columns: that `members` looks at beyond those of the map.

    Raises:
        DataError: nothing is left.
    """
    chosen = choice_of(facts, start, end, members)
    if isinstance(log, MemoryLog):  # one part: its selection needs no merging
        selection = chosen.of(log.part)
        if not selection.n_customers:
            raise DataError(
                no_events_message("customers", selection.since, selection.until, facts.start_us, selection.log_end)
            )
        return selection
    distributed = DistributedSelection(log, facts, chosen, (*COLUMNS, *columns))
    distributed._figures  # noqa: B018  # raises where nobody is left
    return distributed


def choice_of(facts: LogFacts, start: Any = None, end: Any = None, members: Members | None = None) -> Chosen:
    """Customers and dates as every part understands them; the arguments are those of `select_customers`."""
    log_end = facts.end_us + 1
    since = None if start is None else int(microseconds(start))
    until = None if end is None else min(int(microseconds(end)), log_end)
    return Chosen((since, until), (facts.start_us, log_end), members)

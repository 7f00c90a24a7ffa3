"""What a map is drawn from: some customers of a log, their events between two dates, and the names of touchpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError, nearest
from features.events.stages import fits
from features.journey_map.kernels import count_codes, goal_places
from features.journey_map.settings import END, MISSING, OTHER, START
from features.journeys.journeys import Category, Journeys
from features.journeys.quantiles import Ranks, Values
from features.timestamps import microseconds

DAY_US = 86_400_000_000
Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
NO_CODES = Category(np.empty(0, np.int32), ())
T = TypeVar("T")


class MapSource(Protocol):
    """What the tables of a map are made from: a `MapSelection`, or one whose customers lie in many places.

    Functions over events take a `MapSelection`, a part of the whole; tables call `total` and `ranks` with them.

    Attributes:
        n_customers, n_events: how many, all in all.
        since, until, log_end: as in `MapSelection`.
        begin, last: µs, the first and last of the selected events.
        born: µs, the first event ever of any of the customers.
    """

    @property
    def n_customers(self) -> int: ...  # noqa: D102
    @property
    def n_events(self) -> int: ...  # noqa: D102
    @property
    def since(self) -> int: ...  # noqa: D102
    @property
    def until(self) -> int: ...  # noqa: D102
    @property
    def log_end(self) -> int: ...  # noqa: D102
    @property
    def begin(self) -> int: ...  # noqa: D102
    @property
    def last(self) -> int: ...  # noqa: D102
    @property
    def first_ever(self) -> int: ...  # noqa: D102
    @property
    def names(self) -> tuple[str, ...]: ...  # noqa: D102
    @property
    def visits(self) -> Int64s: ...  # noqa: D102
    @property
    def touchpoint(self) -> Category: ...  # noqa: D102
    @property
    def scores(self) -> tuple[float, float] | None: ...  # noqa: D102

    def category(self, name: str) -> Category:
        """A categorical column; only its names where the customers lie in many places."""
        ...

    def total(self, function: Callable[[MapSelection], T]) -> T:
        """What a function (of a module, or a partial of one) counts on the parts, merged."""
        ...

    def ranks(self, values: Values) -> Ranks:
        """For medians and quantiles of values that a function gives of a part."""
        ...


@dataclass(frozen=True)
class MapSelection:
    """Some customers' events between two dates; no event is copied.

    Attributes:
        journeys: the packed log.
        customer: (n,) int64 indices of the customers that have an event between the dates.
        start, stop: (n,) int64, they own events `start:stop`.
        since, until: µs since 1970 UTC, what was observed: `since <= t < until`.
        log_end: µs, one past the log's last event.
        firsts: (n_customers of the log,) as in `features.journeys.event_log.Part`, where the log is a part of one.
        kept: what was counted once and is wanted again.
    """

    journeys: Journeys
    customer: Int64s
    start: Int64s
    stop: Int64s
    since: int
    until: int
    log_end: int
    firsts: Int64s | None = None
    cache: dict[str, Any] = field(default_factory=dict, compare=False, repr=False)

    def total(self, function: Callable[[MapSelection], T]) -> T:
        """See `MapSource`: there is one part."""
        return function(self)

    def ranks(self, values: Values) -> Ranks:
        """See `MapSource`."""
        return Ranks(lambda function: function(self), values, only_part=self)

    def cached(self, name: str, make: Callable[[], T]) -> T:
        """What `make` gives, made once."""
        if name not in self.cache:
            self.cache[name] = make()
        value: T = self.cache[name]
        return value

    @cached_property
    def begin(self) -> int:
        """µs, the first of the events."""
        return int(self.journeys.t[self.start].min())

    @cached_property
    def last(self) -> int:
        """µs, the last of the events."""
        return int(self.journeys.t[self.stop - 1].max())

    @cached_property
    def first_ever(self) -> int:
        """µs, the first event of any of the customers, selected or not."""
        return int(self.journeys.t[self.journeys.offsets[self.customer]].min())

    @cached_property
    def scores(self) -> tuple[float, float] | None:
        """The lowest and highest satisfaction in the log; None where there is none."""
        values = self.number("satisfaction")
        with np.errstate(invalid="ignore"):
            low, high = float(np.fmin.reduce(values, initial=np.inf)), float(np.fmax.reduce(values, initial=-np.inf))
        return (low, high) if low <= high else None

    @cached_property
    def appearance(self) -> Int64s:
        """(n,) numbers that rise with the customers' first appearance in the source."""
        return self.customer if self.firsts is None else self.firsts[self.customer]

    @property
    def n_customers(self) -> int:
        """How many customers there are, each with an event at least."""
        return len(self.customer)

    @cached_property
    def n_events(self) -> int:
        """How many events they have between the dates."""
        return int((self.stop - self.start).sum())

    @property
    def touchpoint(self) -> Category:
        """The log's touchpoints."""
        return self.journeys.categories["touchpoint"]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """(n_names + 1,) names of touchpoints as they are shown; the last one stands for missing ones."""
        return display_names(self.touchpoint.names)

    def category(self, name: str) -> Category:
        """A categorical column; without codes where the log does not have it."""
        return self.journeys.categories.get(name, NO_CODES)

    def number(self, name: str) -> npt.NDArray[np.float64]:
        """(n_events,) a number column; empty where the log does not have it."""
        return self.journeys.numbers.get(name, np.empty(0))

    @cached_property
    def visits(self) -> Int64s:
        """(n_names + 1,) events of each touchpoint, missing ones last."""
        return np.asarray(count_codes(self.touchpoint.codes, self.start, self.stop, len(self.touchpoint.names)))

    @cached_property
    def goes_on(self) -> Flags:
        """(n,) whether the customer has events after the later date."""
        return np.asarray(self.stop < self.journeys.offsets[self.customer + 1])

    def goals(self, matching: Flags) -> tuple[Int64s, Int64s]:
        """(n,) places of each customer's first and last wanted event, -1 where there is none."""
        first, last = goal_places(self.touchpoint.codes, matching, self.start, self.stop)
        return first, last


def select(journeys: Journeys, customers: Any = None, start: Any = None, end: Any = None) -> MapSelection:
    """Choose customers and dates.

    Args:
        journeys: the packed log.
        customers: (k,) indices, or a (n_customers,) mask; everyone by default.
        start: events from here on, any moment; from the log's beginning by default.
        end: events before this moment; to the log's end by default.

    Raises:
        DataError: nothing is left, or a customer that the log does not have.
    """
    if journeys.n_events == 0:
        raise DataError("The log has no events: there is no map to draw.")
    chosen = _chosen(journeys, customers)
    log_end = journeys.end_us + 1
    since = None if start is None else int(microseconds(start))
    until = None if end is None else min(int(microseconds(end)), log_end)
    selection = select_part(journeys, chosen, (since, until), (journeys.start_us, log_end))
    if not len(selection.customer):
        requested = f"{len(chosen):,} chosen customers" if customers is not None else "customers"
        raise DataError(no_events_message(requested, selection.since, selection.until, journeys.start_us, log_end))
    return selection


def select_part(
    journeys: Journeys,
    chosen: Int64s,
    between: tuple[int | None, int | None],
    log: tuple[int, int],
    firsts: Int64s | None = None,
) -> MapSelection:
    """The selection of a log, or of a part of one; it may be empty.

    Args:
        journeys: the packed log, or a part of it.
        chosen: (k,) indices of customers.
        between: µs, the dates; None for the log's own.
        log: µs, the first event of the whole log and one past its last.
        firsts: as in `MapSelection`.
    """
    since, until = between
    first = journeys.offsets[chosen] if since is None else journeys.at(since, chosen).stop
    last = journeys.offsets[chosen + 1] if until is None else journeys.at(until, chosen).stop
    active = first < last
    since, until = log[0] if since is None else since, log[1] if until is None else until
    return MapSelection(journeys, chosen[active], first[active], last[active], since, until, log[1], firsts)


def no_events_message(requested: str, since: int, until: int, log_start: int, log_end: int) -> str:
    """What is said where nobody has an event between the dates, all in µs."""
    return (
        f"None of the {requested} has an event between {_day(since)} and {_day(until)}: the log goes from "
        f"{_day(log_start)} to {_day(log_end)}. Choose other dates or other customers."
    )


def _chosen(journeys: Journeys, customers: Any) -> Int64s:
    if customers is None:
        return np.arange(journeys.n_customers, dtype=np.int64)
    requested = np.atleast_1d(np.asarray(customers))
    if requested.dtype == bool:
        if len(requested) != journeys.n_customers:
            raise DataError(f"A mask of customers needs {journeys.n_customers} entries, not {len(requested)}.")
        return np.flatnonzero(requested)
    chosen = np.unique(requested.astype(np.int64))
    if len(chosen) and not 0 <= chosen[0] <= chosen[-1] < journeys.n_customers:
        raise DataError(f"Customers are numbered 0 to {journeys.n_customers - 1}, not {chosen[0]} to {chosen[-1]}.")
    return chosen


def _day(moment_us: int) -> str:
    return f"{pd.Timestamp(moment_us, unit='us'):%Y-%m-%d %H:%M}"


def display_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of touchpoints or channels, those that a map uses itself told apart, then one for missing values."""
    reserved = {START, END, OTHER, MISSING}
    return (*(f"{name} (touchpoint)" if name in reserved else name for name in names), MISSING)


def matching(names: tuple[str, ...], patterns: Iterable[str]) -> Flags:
    """(n_names + 1,) which names are meant by any of the patterns; missing ones, the last, never are."""
    requested = tuple(patterns)
    return np.array([any(fits(name, pattern) for pattern in requested) for name in names] + [False])


def unmatched(names: tuple[str, ...], patterns: Iterable[str], role: str) -> list[str]:
    """A sentence for each pattern that no touchpoint of the log fits."""
    sentences = []
    for pattern in patterns:
        if not any(fits(name, pattern) for name in names):
            close = nearest(pattern, names)
            hint = f" Did you mean '{close}'?" if close else ""
            sentences.append(f"No touchpoint of the log fits '{pattern}', which is asked for as {role}.{hint}")
    return sentences


@dataclass(frozen=True)
class Pool:
    """The most frequent names with numbers of their own, the rest together as "other".

    Attributes:
        table: (n_names + 1,) int32: code → number; the last entry answers for missing values.
        names: (k,) the name of each number.
    """

    table: Int32s
    names: tuple[str, ...]


def pool_rare(names: tuple[str, ...], counts: Int64s, most: int) -> Pool:
    """Keep the `most` frequent names that occur, in order of frequency; pool the others, if any occur."""
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    frequent = order if len(order) <= most + 1 else order[:most]  # a pool of one is shown by its name
    table = np.full(len(names), len(frequent), np.int32)
    table[frequent] = np.arange(len(frequent))
    return Pool(table, (*(names[code] for code in frequent), *((OTHER,) if len(frequent) < len(order) else ())))

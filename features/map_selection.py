"""What a map is drawn from: some customers of a log, their events between two dates, and the names of touchpoints."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from features.journeys import Category, Journeys
from features.kernels_map import count_codes, goal_places
from features.map_settings import END, MISSING, OTHER, START
from features.moments import microseconds
from features.stages import fits

DAY_US = 86_400_000_000
Int64s = npt.NDArray[np.int64]
Int32s = npt.NDArray[np.int32]
Flags = npt.NDArray[np.bool_]
NO_CODES = Category(np.empty(0, np.int32), ())


@dataclass(frozen=True)
class Selection:
    """Some customers' events between two dates; no event is copied.

    Attributes:
        journeys: the packed log.
        customer: (n,) int64 indices of the customers that have an event between the dates.
        start, stop: (n,) int64, they own events `start:stop`.
        since, until: µs since 1970 UTC, what was observed: `since <= t < until`.
        log_end: µs, one past the log's last event.
    """

    journeys: Journeys
    customer: Int64s
    start: Int64s
    stop: Int64s
    since: int
    until: int
    log_end: int

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
        return shown_names(self.touchpoint.names)

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

    def goals(self, wanted: Flags) -> tuple[Int64s, Int64s]:
        """(n,) places of each customer's first and last wanted event, -1 where there is none."""
        first, last = goal_places(self.touchpoint.codes, wanted, self.start, self.stop)
        return first, last


def select(journeys: Journeys, customers: Any = None, start: Any = None, end: Any = None) -> Selection:
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
    who = _chosen(journeys, customers)
    log_end = int(journeys.t.max()) + 1
    since = int(journeys.t.min()) if start is None else int(microseconds(start))
    until = log_end if end is None else min(int(microseconds(end)), log_end)
    first = journeys.offsets[who] if start is None else journeys.at(since, who).stop
    last = journeys.offsets[who + 1] if end is None else journeys.at(until, who).stop
    kept = first < last
    if not kept.any():
        asked = f"{len(who):,} chosen customers" if customers is not None else "customers"
        raise DataError(
            f"None of the {asked} has an event between {_day(since)} and {_day(until)}: the log goes from "
            f"{_day(int(journeys.t.min()))} to {_day(log_end)}. Choose other dates or other customers."
        )
    return Selection(journeys, who[kept], first[kept], last[kept], since, until, log_end)


def _chosen(journeys: Journeys, customers: Any) -> Int64s:
    if customers is None:
        return np.arange(journeys.n_customers, dtype=np.int64)
    asked = np.atleast_1d(np.asarray(customers))
    if asked.dtype == bool:
        if len(asked) != journeys.n_customers:
            raise DataError(f"A mask of customers needs {journeys.n_customers} entries, not {len(asked)}.")
        return np.flatnonzero(asked)
    who = np.unique(asked.astype(np.int64))
    if len(who) and not 0 <= who[0] <= who[-1] < journeys.n_customers:
        raise DataError(f"Customers are numbered 0 to {journeys.n_customers - 1}, not {who[0]} to {who[-1]}.")
    return who


def _day(moment_us: int) -> str:
    return f"{pd.Timestamp(moment_us, unit='us'):%Y-%m-%d %H:%M}"


def shown_names(names: Iterable[str]) -> tuple[str, ...]:
    """Names of touchpoints or channels, those that a map uses itself told apart, then one for missing values."""
    own = {START, END, OTHER, MISSING}
    return (*(f"{name} (touchpoint)" if name in own else name for name in names), MISSING)


def wanted(names: tuple[str, ...], patterns: Iterable[str]) -> Flags:
    """(n_names + 1,) which names are meant by any of the patterns; missing ones, the last, never are."""
    asked = tuple(patterns)
    return np.array([any(fits(name, pattern) for pattern in asked) for name in names] + [False])


def unmet(names: tuple[str, ...], patterns: Iterable[str], what: str) -> list[str]:
    """A sentence for each pattern that no touchpoint of the log fits."""
    found = []
    for pattern in patterns:
        if not any(fits(name, pattern) for name in names):
            close = difflib.get_close_matches(pattern, names, n=1, cutoff=0.5)
            hint = f" Did you mean '{close[0]}'?" if close else ""
            found.append(f"No touchpoint of the log fits '{pattern}', which is asked for as {what}.{hint}")
    return found


@dataclass(frozen=True)
class Pool:
    """The most frequent names with numbers of their own, the rest together as "other".

    Attributes:
        table: (n_names + 1,) int32: code → number; the last entry answers for missing values.
        names: (k,) the name of each number.
    """

    table: Int32s
    names: tuple[str, ...]


def pooled(names: tuple[str, ...], counts: Int64s, most: int) -> Pool:
    """Keep the `most` frequent names that occur, in order of frequency; pool the others, if any occur."""
    order = np.argsort(-counts, kind="stable")
    order = order[counts[order] > 0]
    kept = order if len(order) <= most + 1 else order[:most]  # a pool of one is shown by its name
    table = np.full(len(names), len(kept), np.int32)
    table[kept] = np.arange(len(kept))
    return Pool(table, (*(names[code] for code in kept), *((OTHER,) if len(kept) < len(order) else ())))

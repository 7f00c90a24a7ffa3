"""A log in parts: whole customers apart, and what is counted on each part adds up to what is counted on the whole.

    parts = LocalParts([part_of(journeys)])
    total(parts, count_something)       # `count_something(part)` gives a partial result; results are merged

One machine's log is one part; `features.spark.log.SparkLog` holds a log as many. The functions that look at parts are
the same. A partial result is a number or an array (they add up), a tuple or a dictionary of such, `Least`, `Most`, or
anything with a `+` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import reduce
from itertools import pairwise
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import Category, Journeys, as_readonly

T = TypeVar("T")
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Some customers of a log with all of their events.

    Attributes:
        journeys: they, packed; the names of categories are those of the whole log where they are known.
        firsts: (n_customers,) int64 that rise with the customers' first appearance in the source.
        asked: rows that were asked for of these customers, see `features.spark.blocks.ASKED`; None where nobody asked.
    """

    journeys: Journeys
    firsts: Ints
    asked: Any = None


def part_of(journeys: Journeys) -> Part:
    """A whole log as one part: customers are numbered by their first appearance."""
    return Part(journeys, np.arange(journeys.n_customers, dtype=np.int64))


class Parts(Protocol):
    """A log in parts."""

    def each(self, function: Callable[[Part], T], columns: Sequence[str] | None = None) -> Iterable[T]:
        """What a function says of the parts, merged or not, in any order.

        Args:
            function: of a module, or a partial of one, so that it can travel.
            columns: the categories and numbers that it looks at; all by default.
        """
        ...


@dataclass(frozen=True)
class LocalParts:
    """Parts in memory.

    Attributes:
        parts: with the same names of categories, or alone.
    """

    parts: Sequence[Part]

    def each(self, function: Callable[[Part], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """See `Parts.each`."""
        return map(function, self.parts)


class Least(NamedTuple):
    """A number of which the least counts; None is nothing."""

    value: Any


class Most(NamedTuple):
    """A number of which the most counts; None is nothing."""

    value: Any


@dataclass(frozen=True)
class Joined:
    """(n, …) rows; those of parts go below each other."""

    array: npt.NDArray[Any]

    def __add__(self, other: Joined) -> Joined:
        return Joined(np.concatenate((self.array, other.array)))


def merged(a: Any, b: Any) -> Any:
    """Two partial results as one.

    >>> merged((1, {"a": 1}, Least(3)), (2, {"a": 1, "b": 1}, Least(None)))
    (3, {'a': 2, 'b': 1}, Least(value=3))
    """
    if isinstance(a, Least | Most):
        known = [one for one in (a.value, b.value) if one is not None]
        return type(a)((min(known) if isinstance(a, Least) else max(known)) if known else None)
    if isinstance(a, tuple):
        return tuple(merged(one, other) for one, other in zip(a, b, strict=True))
    if isinstance(a, dict):
        both = dict(a)
        for key, value in b.items():
            both[key] = merged(both[key], value) if key in both else value
        return both
    if isinstance(a, bool):
        return a or b
    if isinstance(a, frozenset):
        return a | b
    return a + b


def total(parts: Parts, function: Callable[[Part], T], columns: Sequence[str] | None = None) -> T:
    """The merged result over all parts, of which there must be one at least."""
    return reduce(merged, parts.each(function, columns))


@dataclass(frozen=True)
class LogFacts:
    """What is known of a log as a whole.

    Attributes:
        start_us, end_us: its first and last event, µs since 1970 UTC.
        events, customers: how many.
        names: of each categorical column, in alphabetical order.
        numbers: name of a number column → its least and greatest value; None where it has none.
    """

    start_us: int
    end_us: int
    events: int
    customers: int
    names: dict[str, tuple[str, ...]] = field(default_factory=dict)
    numbers: dict[str, tuple[float, float] | None] = field(default_factory=dict)


def facts_of(parts: Parts) -> LogFacts:
    """Look at every part once."""
    return facts_from(total(parts, partial_facts))


def facts_from(partial: tuple[Any, ...]) -> LogFacts:
    """The facts that merged results of `partial_facts` say."""
    first, last, events, customers, names, lows, highs = partial
    numbers = {
        name: None if lows[name].value is None else (float(lows[name].value), float(highs[name].value)) for name in lows
    }
    known = {name: tuple(sorted(found)) for name, found in names.items()}
    return LogFacts(first.value or 0, last.value or 0, events, customers, known, numbers)


def partial_facts(part: Part) -> tuple[Any, ...]:
    """What `facts_of` needs of a part."""
    log = part.journeys
    some = bool(log.n_events)
    spans = {name: _span(values) for name, values in log.numbers.items()}
    return (
        Least(log.start_us if some else None),
        Most(log.end_us if some else None),
        log.n_events,
        log.n_customers,
        {name: frozenset(column.names) for name, column in log.categories.items()},
        {name: Least(low) for name, (low, _) in spans.items()},
        {name: Most(high) for name, (_, high) in spans.items()},
    )


def _span(values: npt.NDArray[np.float64]) -> tuple[float | None, float | None]:
    with np.errstate(invalid="ignore"):
        low = float(np.fmin.reduce(values, initial=np.inf))
        high = float(np.fmax.reduce(values, initial=-np.inf))
    return (low, high) if low <= high else (None, None)


def with_names(journeys: Journeys, names: dict[str, tuple[str, ...]]) -> Journeys:
    """The same log with the names, and so the codes, of the log that it is a part of."""
    columns = {}
    for name, column in journeys.categories.items():
        wide = names.get(name, column.names)
        if wide == column.names:
            columns[name] = column
            continue
        place = {one: code for code, one in enumerate(wide)}
        table = np.array([*(place[one] for one in column.names), -1], np.int32)  # the last entry serves code -1
        columns[name] = Category(as_readonly(table[column.codes]), wide)
    return Journeys(journeys.customer_ids, journeys.offsets, journeys.t, columns, journeys.numbers)


def slices(journeys: Journeys, n: int) -> list[Part]:
    """A log cut into `n` parts of neighbouring customers, for tests and for work in parallel."""
    edges = np.linspace(0, journeys.n_customers, n + 1).astype(int)
    found = []
    for low, high in pairwise(edges.tolist()):
        first, last = journeys.offsets[low], journeys.offsets[high]
        found.append(
            Part(
                Journeys(
                    journeys.customer_ids.slice(low, high - low),
                    journeys.offsets[low : high + 1] - first,
                    journeys.t[first:last],
                    {name: Category(c.codes[first:last], c.names) for name, c in journeys.categories.items()},
                    {name: values[first:last] for name, values in journeys.numbers.items()},
                ),
                np.arange(low, high, dtype=np.int64),
            )
        )
    return found


def merged_stream(results: Iterable[T]) -> Iterator[T]:
    """All results as one; none where there are none."""
    found: list[T] = []
    for result in results:
        found = [result] if not found else [merged(found[0], result)]
    yield from found

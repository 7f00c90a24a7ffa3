"""The event log: parts of whole customers, and partial results of parts that add up to those of the whole log.

    log = MemoryLog(load_log(source))
    total(log, count_something)         # `count_something(part)` gives a partial result; results are merged

A log in memory is one part; `features.journeys.disk_log` and `features.spark.log` hold a log as many parts, which the
same functions look at. A partial result is a number or an array (they add up), a tuple or a dictionary of such,
`Least`, `Most`, or anything with a `+` of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, reduce
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.events.checks import write_quarantine
from features.journeys.journeys import Category, Journeys, as_readonly
from features.journeys.stream import Loaded
from features.journeys.whole_files import write_parquet

T = TypeVar("T")
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Part:
    """Some customers of a log with all of their events.

    Attributes:
        journeys: they, packed; the names of categories are those of the whole log where they are known.
        firsts: (n_customers,) int64 that rise with the customers' first appearance in the source.
        requests: the requested rows of these customers, see `features.spark.blocks.REQUESTS`; None without requests.
    """

    journeys: Journeys
    firsts: Ints
    requests: Any = None


def part_of(journeys: Journeys) -> Part:
    """A whole log as one part: customers are numbered by their first appearance."""
    return Part(journeys, np.arange(journeys.n_customers, dtype=np.int64))


class Parts(Protocol):
    """Whole customers in parts, which functions look at one by one."""

    def each(self, function: Callable[[Part], T], columns: Sequence[str] | None = None) -> Iterable[T]:
        """Apply a function to the parts; results come merged or not, in any order.

        Args:
            function: of a module, or a partial of one, so that it can travel.
            columns: the categories and numbers that it looks at; all by default.
        """
        ...


class EventLog(Parts, Protocol):
    """The events of all customers on one engine: `MemoryLog`, `DiskLog`, `features.spark.log.SparkLog`.

    Parts have the names of the whole log, so that codes of different parts mean the same.
    """

    @property
    def facts(self) -> LogFacts:
        """Of the whole log; raises a `DataError` where the source is no event log."""
        ...

    @property
    def rejected(self) -> dict[str, int]:
        """Reason → rejected rows."""
        ...

    @property
    def notes(self) -> tuple[str, ...]:
        """What was assumed about the source."""
        ...

    def write(
        self,
        function: Callable[[Part], Iterable[pa.RecordBatch]],
        schema: pa.Schema,
        folder: Path,
        columns: Sequence[str] | None = None,
    ) -> int:
        """Write the batches that a function makes from the parts as `part-….parquet`; return the number of rows.

        Args:
            function: of a module, or a partial of one.
            schema: of what it makes.
            folder: made where missing; Parquet files of an earlier run go.
            columns: the categories and numbers that it looks at; all by default.
        """
        ...

    def keep(self, function: Callable[[Part], Any], columns: Sequence[str] | None = None) -> PartialResults:
        """Results of a function of each part, computed once and held on their machine until `close`.

        Args:
            function: of a module, or a partial of one; None is nothing.
            columns: the categories and numbers that it looks at; all by default.
        """
        ...

    def quarantine(self, path: Path) -> Path | None:
        """Write the rejected rows as CSV; None where there are none."""
        ...

    def close(self) -> None:
        """Release what the engine holds."""
        ...


class PartialResults(Protocol):
    """Results of the parts, for functions that look at them again and again."""

    def total(self, function: Callable[[Any], T]) -> T:
        """The merged results of a function of each; there must be one at least."""
        ...


@dataclass(frozen=True)
class ResultList:
    """Partial results in memory; see `PartialResults`."""

    results: Sequence[Any]

    def total(self, function: Callable[[Any], T]) -> T:
        """See `PartialResults`."""
        return reduce(merged, map(function, self.results))


@dataclass(frozen=True)
class MemoryLog:
    """A log in memory: one part.

    Attributes:
        loaded: the packed log, and its rejected rows.
    """

    loaded: Loaded

    @classmethod
    def of(cls, journeys: Journeys) -> MemoryLog:
        """A packed log without rejected rows or notes."""
        return cls(Loaded(journeys, pa.table({}), {}, ()))

    @cached_property
    def part(self) -> Part:
        """The log's only part."""
        return part_of(self.loaded.journeys)

    @cached_property
    def facts(self) -> LogFacts:
        """See `EventLog`."""
        return facts_of(self)

    @property
    def rejected(self) -> dict[str, int]:
        """See `EventLog`."""
        return self.loaded.counts

    @property
    def notes(self) -> tuple[str, ...]:
        """See `EventLog`."""
        return self.loaded.notes

    def each(self, function: Callable[[Part], T], columns: Sequence[str] | None = None) -> Iterator[T]:
        """See `Parts.each`."""
        yield function(self.part)

    def write(
        self,
        function: Callable[[Part], Iterable[pa.RecordBatch]],
        schema: pa.Schema,
        folder: Path,
        columns: Sequence[str] | None = None,
    ) -> int:
        """See `EventLog.write`."""
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.glob("part-*.parquet"):
            file.unlink()
        return write_parquet(folder / "part-00000.parquet", schema, function(self.part))

    def keep(self, function: Callable[[Part], Any], columns: Sequence[str] | None = None) -> ResultList:
        """See `EventLog`."""
        return ResultList([result for result in self.each(function) if result is not None])

    def quarantine(self, path: Path) -> Path | None:
        """See `EventLog`."""
        write_quarantine(self.loaded.quarantine, path)
        return path if self.loaded.quarantine.num_rows else None

    def close(self) -> None:
        """Nothing is held."""


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
        values = [value for value in (a.value, b.value) if value is not None]
        return type(a)((min(values) if isinstance(a, Least) else max(values)) if values else None)
    if isinstance(a, tuple):
        return tuple(merged(first, second) for first, second in zip(a, b, strict=True))
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
    """Facts about a whole log.

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
    """The facts from merged results of `partial_facts`."""
    first, last, events, customers, names, lows, highs = partial
    numbers = {
        name: None if lows[name].value is None else (float(lows[name].value), float(highs[name].value)) for name in lows
    }
    category_names = {name: tuple(sorted(values)) for name, values in names.items()}
    return LogFacts(first.value or 0, last.value or 0, events, customers, category_names, numbers)


def partial_facts(part: Part) -> tuple[Any, ...]:
    """What `facts_of` needs of a part."""
    log = part.journeys
    has_events = bool(log.n_events)
    spans = {name: _span(values) for name, values in log.numbers.items()}
    return (
        Least(log.start_us if has_events else None),
        Most(log.end_us if has_events else None),
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
        place = {text: code for code, text in enumerate(wide)}
        table = np.array([*(place[text] for text in column.names), -1], np.int32)  # the last entry serves code -1
        columns[name] = Category(as_readonly(table[column.codes]), wide)
    return Journeys(journeys.customer_ids, journeys.offsets, journeys.t, columns, journeys.numbers)


def slices(journeys: Journeys, n: int) -> list[Part]:
    """A log cut into `n` parts of neighbouring customers, for tests and for work in parallel."""
    edges = np.linspace(0, journeys.n_customers, n + 1).astype(int)
    parts = []
    for low, high in pairwise(edges.tolist()):
        first, last = journeys.offsets[low], journeys.offsets[high]
        parts.append(
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
    return parts


def merged_stream(results: Iterable[T]) -> Iterator[T]:
    """All results as one; none where there are none."""
    sum_so_far: list[T] = []
    for result in results:
        sum_so_far = [result] if not sum_so_far else [merged(sum_so_far[0], result)]
    yield from sum_so_far

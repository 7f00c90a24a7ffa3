"""Figures of a snapshot, one number each: how many, how much, how long ago. Pure functions of snapshots.

    view = View(journeys.at("2024-06-01"))
    view.values(Tally(selection, COUNT))           # (n,) float64, NaN where unknown

`features.conditions.conditions` compares them; equal figures are computed once a view, however many conditions ask.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from math import floor
from typing import Any, Protocol, TypeVar
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt

from features.conditions.kernels import COUNT, dominant, last_code, last_number, tally
from features.conditions.selections import Selection, allowed
from features.errors import ConfigError
from features.journeys.journeys import Snapshots, as_readonly
from features.tabular.features import TabularFeatures

Floats = npt.NDArray[np.float64]
COLUMNS = ("touchpoint", "channel", "stage", "item")
NO_CODES, NO_NUMBERS = as_readonly([], np.int32), as_readonly([], np.float64)


F = TypeVar("F", bound="Measure")


class Measure(Protocol):
    """One number a snapshot; hashable, so that a view computes it once."""

    def values(self, view: SnapshotView) -> Floats:
        """(n,) float64, NaN where unknown."""
        ...


class SnapshotView:
    """Snapshots as conditions look at them, with what has been computed so far.

    Args:
        snapshots: the rows.
        features: fitted tabular features, where a condition names some.
    """

    def __init__(self, snapshots: Snapshots, features: TabularFeatures | None = None) -> None:
        self.snapshots = snapshots
        self.journeys = snapshots.journeys
        self.features = features
        self._measures: dict[int, tuple[Measure, Floats]] = {}  # by identity: `canonical` makes equal ones one
        self._allowed: dict[tuple[str, tuple[str, ...]], npt.NDArray[np.uint8]] = {}
        self._matrix: npt.NDArray[np.float32] | None = None
        rows = (snapshots.start, snapshots.stop, snapshots.cutoff)
        self.rows = tuple(as_readonly(column, np.int64) for column in rows)
        self.t = self.journeys.readonly[""]
        self.codes = tuple(self.column(name) for name in COLUMNS)
        self._single: dict[int, float] = {}

    def __len__(self) -> int:
        return len(self.snapshots)

    def values(self, measure: Measure) -> Floats:
        """(n,) the figure of each snapshot, computed at the first asking."""
        entry = self._measures.get(id(measure))
        if entry is None:
            measure = canonical(measure)
            entry = self._measures.get(id(measure))
        if entry is None:
            entry = self._measures[id(measure)] = measure, measure.values(self)
        return entry[1]

    def value(self, measure: Measure) -> float:
        """The figure of a single snapshot."""
        number = self._single.get(id(measure))
        if number is None:
            number = self._single[id(measure)] = float(self.values(measure)[0])
        return number

    def column(self, name: str) -> npt.NDArray[np.int32]:
        """(n_events,) codes of a categorical column, empty where the log lacks it."""
        return self.journeys.readonly[name] if name in self.journeys.categories else NO_CODES

    def numbers(self, name: str) -> Floats:
        """(n_events,) a numeric column, empty where the log lacks it."""
        return self.journeys.readonly[name] if name in self.journeys.numbers else NO_NUMBERS

    def names(self, column: str) -> Sequence[str]:
        """The names of a categorical column."""
        category = self.journeys.categories.get(column)
        return () if category is None else category.names

    def allowed(self, column: str, patterns: tuple[str, ...]) -> npt.NDArray[np.uint8]:
        """(1 + names,) which of the column's names fit, missing first."""
        key = column, patterns
        if key not in self._allowed:
            self._allowed[key] = allowed(self.names(column), patterns)
        return self._allowed[key]

    def chosen(self, selection: Selection) -> tuple[Any, ...]:
        """The arguments of the kernels that say which events pass."""
        tables, begin, place = [], np.full(4, -1, np.int64), 0
        for k, (column, patterns) in enumerate(zip(COLUMNS, selection.names, strict=True)):
            if "*" not in patterns:
                tables.append(self.allowed(column, patterns))
                begin[k], place = place, place + len(tables[-1])
        table = as_readonly(np.concatenate(tables) if tables else (), np.uint8)
        value, satisfaction = self.numbers("value"), self.numbers("satisfaction")
        rest = value, satisfaction, selection.limits, selection.calendar_bits
        return *self.rows, selection.window_us, self.t, *self.codes, table, begin, *rest

    def feature(self, name: str) -> Floats:
        """(n,) a tabular feature.

        Raises:
            ConfigError: no features were fitted for these conditions.
        """
        if self.features is None:
            raise ConfigError(
                f"the condition on feature '{name}' needs fitted tabular features: fit the segments first"
            )
        if self._matrix is None:
            self._matrix = self.features.transform(self.snapshots)
        return self._matrix[:, self.features.get_feature_names_out().index(name)].astype(np.float64)


@dataclass(frozen=True)
class EventTally:
    """One of the figures of `features.conditions.kernels.tally` over the selected events.

    Attributes:
        op: which.
        column: the numeric column that sums and means are of.
        usual_days: the gap that is mixed into a customer's rhythm; NaN for none.
    """

    selection: Selection
    op: int
    column: str = ""
    usual_days: float = float("nan")

    def values(self, view: SnapshotView) -> Floats:
        """(n,) float64."""
        out = np.empty(len(view))
        start, stop, cutoff, *chosen = view.chosen(self.selection)
        number = view.numbers(self.column) if self.column else NO_NUMBERS
        tally(out, self.op, start, stop, cutoff, *chosen, number, self.usual_days)
        return out


@dataclass(frozen=True)
class MeasureRatio:
    """One figure over another; NaN where that is zero or below."""

    part: Measure
    whole: Measure

    def values(self, view: SnapshotView) -> Floats:
        """(n,) float64."""
        part, whole = view.values(self.part), view.values(self.whole)
        out = np.full(len(view), np.nan)
        np.divide(part, whole, out=out, where=whole > 0)
        return out


@dataclass(frozen=True)
class FeatureValue:
    """A tabular feature by name (`features.tabular.catalogue`)."""

    name: str

    def values(self, view: SnapshotView) -> Floats:
        """(n,) float64."""
        return view.feature(self.name)


@dataclass(frozen=True)
class LatestNumber:
    """The last known value of a numeric column."""

    column: str

    def values(self, view: SnapshotView) -> Floats:
        """(n,) float64."""
        out, numbers = np.full(len(view), np.nan), view.numbers(self.column)
        if len(numbers):
            last_number(out, view.rows[0], view.rows[1], numbers)
        return out


@dataclass(frozen=True)
class LatestName:
    """The last known value of a categorical column, as the log's own code; -1 where there is none."""

    column: str

    def values(self, view: SnapshotView) -> Floats:
        """(n,) float64 codes."""
        out, codes = np.full(len(view), -1, np.int64), view.column(self.column)
        if len(codes):
            last_code(out, view.rows[0], view.rows[1], codes)
        return out.astype(np.float64)


@dataclass(frozen=True)
class DominantGroup:
    """The group of a column's names that stands out among the selected events, by place; NaN where none does.

    Attributes:
        groups: names or patterns of each group; the first that fits a name has it.
        base: each group's share of everybody's events.
        at_least: events of the group.
        min_share: the group's share of the customer's events.
        min_lift: that share over the base.
    """

    selection: Selection
    column: str
    groups: tuple[tuple[str, ...], ...]
    base: tuple[float, ...]
    at_least: int
    min_share: float
    min_lift: float

    def values(self, view: SnapshotView) -> Floats:
        """(n,) float64 places in `groups`."""
        group_of = np.full(len(view.names(self.column)) + 1, -1, np.int64)
        for place in range(len(self.groups) - 1, -1, -1):
            group_of[view.allowed(self.column, self.groups[place]) > 0] = place
        out = np.empty(len(view))
        start, stop, cutoff, *chosen = view.chosen(self.selection)
        limits = np.array(self.base), self.at_least, self.min_share, self.min_lift, np.zeros(len(self.base), np.int64)
        dominant(out, start, stop, cutoff, *chosen, view.column(self.column), group_of, *limits)
        return out


@dataclass(frozen=True)
class MeanScore:
    """The mean of quantile scores of some figures, rounded half up; NaN where one of them is unknown.

    Attributes:
        parts: the figures.
        cuts: for each, ascending: a figure above k of them scores k + 1.
        falling: for each, whether less is better: a figure above k of the m cuts scores m + 1 - k.
    """

    parts: tuple[Measure, ...]
    cuts: tuple[tuple[float, ...], ...]
    falling: tuple[bool, ...]

    def values(self, view: SnapshotView) -> Floats:
        """(n,) float64 scores from 1."""
        if len(view) == 1:
            return np.array([self._value(view)])
        total = np.zeros(len(view))
        for part, cuts, falling in zip(self.parts, self.cuts, self.falling, strict=True):
            x = view.values(part)
            above = np.searchsorted(np.array(cuts), x, side="left")  # cuts below x
            total += np.where(np.isnan(x), np.nan, len(cuts) + 1 - above if falling else above + 1)
        return np.floor(total / len(self.parts) + 0.5)

    def _value(self, view: SnapshotView) -> float:
        """The same by plain numbers: a service has microseconds."""
        total = 0
        for part, cuts, falling in zip(self.parts, self.cuts, self.falling, strict=True):
            x = view.value(part)
            if x != x:
                return x
            above = bisect_left(cuts, x)
            total += len(cuts) + 1 - above if falling else above + 1
        return floor(total / len(self.parts) + 0.5)


_CANONICAL: WeakValueDictionary[Measure, Measure] = WeakValueDictionary()


def canonical(measure: F) -> F:
    """The one object that stands for all figures equal to this one."""
    return _CANONICAL.setdefault(measure, measure)  # type: ignore[return-value]


def count(selection: Selection) -> EventTally:
    """How many of the selected events."""
    return EventTally(selection, COUNT)

"""Exact medians and quantiles of values that lie in many places: by passes that only count, in bounded memory.

    ranks = Ranks(total, values)      # `total(function)` merges function(part) over the parts, see `event_log`
    ranks.medians([borders])          # of neighbouring groups of values

A first pass finds how many values each group has and between what they lie; further passes count them in ever finer
steps around the wanted ranks, until few enough are left to be sent. The answers are those of sorting everything. Where
all values are in one place (`alone`), they are reordered there, by the kernels of `features.journey_map.kernels`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
import numpy.typing as npt

from features.journeys.quantile_kernels import kth, medians

STEPS = 1 << 11
FEW, FEW_IN_ALL = 2_000, 4_000_000  # values of one wanted rank, and of all together, that are sent
LONGEST = np.iinfo(np.int64).max

Ints = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]
Grouped = tuple[npt.NDArray[Any], Ints]  # values group by group, and (groups + 1,) where each begins
Values = Callable[[Any], Grouped]
Total = Callable[[Callable[[Any], Any]], Any]


@dataclass(frozen=True)
class Spans:
    """How many values each group has, and between which keys they lie.

    Attributes:
        n: (groups,). low, high: (groups,) keys; where a group is empty, low is above high.
        is_float: whether the values are no whole numbers.
    """

    n: Ints
    low: Ints
    high: Ints
    is_float: bool

    def __add__(self, other: Spans) -> Spans:
        low, high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)
        return Spans(self.n + other.n, low, high, self.is_float or other.is_float)


@dataclass(frozen=True)
class Wanted:
    """Ranks that are looked for, each among the values of some neighbouring groups.

    Attributes:
        first, last: (k,) the groups `first:last`.
        low, high: (k,) keys between which the value lies.
        rank: (k,) its rank among the values there, from 0.
        inside: (k,) how many values there are.
    """

    first: Ints
    last: Ints
    low: Ints
    high: Ints
    rank: Ints
    inside: Ints

    def take(self, places: Any) -> Wanted:
        """Some of them."""
        return Wanted(*(getattr(self, name)[places] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Sent:
    """The distinct keys of each wanted rank with how often they occur; they merge."""

    keys: tuple[Ints, ...]
    counts: tuple[Ints, ...]

    def __add__(self, other: Sent) -> Sent:
        both = [_joined(*four) for four in zip(self.keys, other.keys, self.counts, other.counts, strict=True)]
        return Sent(tuple(keys for keys, _ in both), tuple(counts for _, counts in both))


def _joined(a: Ints, b: Ints, n_a: Ints, n_b: Ints) -> tuple[Ints, Ints]:
    keys, place = np.unique(np.concatenate((a, b)), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, place, np.concatenate((n_a, n_b)))
    return keys, counts


class Ranks:
    """Values in groups, of which ranks are asked.

    Args:
        total: merges what a function says of each part.
        values: what the values of a part are; of a module, or a partial of one.
        alone: the only part, where there is one.
    """

    def __init__(self, total: Total, values: Values, alone: Any = None) -> None:
        self._total, self._values, self._alone = total, values, alone

    @cached_property
    def _here(self) -> Grouped | None:
        return None if self._alone is None else self._values(self._alone)

    @cached_property
    def _spans(self) -> Spans:
        found: Spans = self._total(partial(spans, values=self._values))
        return found

    @property
    def sizes(self) -> Ints:
        """(groups,) how many values each has."""
        return np.diff(self._here[1]) if self._here is not None else self._spans.n

    def medians(self, borders: Sequence[Ints]) -> list[Floats]:
        """For each of some ways to part the groups, the medians of the parts; NaN where one is empty.

        Args:
            borders: each (parts + 1,) numbers of groups, rising; the finest first.
        """
        if self._here is not None:
            values, edges = self._here
            return [np.asarray(medians(values, edges[one])) for one in borders]
        before = np.concatenate(([0], np.cumsum(self._spans.n)))
        asked = [(one[:-1], one[1:], before[one[1:]] - before[one[:-1]]) for one in borders]
        first, last, n = (np.concatenate(columns) for columns in zip(*asked, strict=True))
        some = np.flatnonzero(n)
        ranks = np.concatenate(((n[some] - 1) // 2, n[some] // 2))
        lower, upper = np.split(self._at(np.tile(first[some], 2), np.tile(last[some], 2), ranks), 2)
        found = np.full(len(n), np.nan)
        found[some] = 0.5 * lower + 0.5 * upper
        return np.split(found, np.cumsum([len(one) - 1 for one in borders])[:-1])

    def at(self, first: int, last: int, rank: int) -> float:
        """The value of a rank (from 0) among the groups `first:last`, which have more values than that."""
        if self._here is not None:
            values, edges = self._here
            return float(kth(values, edges[first], edges[last], rank))
        return float(self._at(np.array([first]), np.array([last]), np.array([rank]))[0])

    def up_to(self, limit: int) -> int:
        """How many values are no greater than a limit."""
        if self._here is not None:
            return int((self._here[0] <= limit).sum())
        return int(self._total(partial(up_to, values=self._values, limit=limit)))

    def quantiles(self, shares: Sequence[float]) -> Floats:
        """(groups, shares) quantiles between neighbouring values, as `numpy.quantile`; NaN where a group is empty."""
        sizes = self.sizes
        found = np.full((len(sizes), len(shares)), np.nan)
        if self._here is not None:
            values, edges = self._here
            for group in np.flatnonzero(sizes):
                found[group] = np.quantile(values[edges[group] : edges[group + 1]], shares)
            return found
        some = np.flatnonzero(sizes)
        place = np.array(shares) * (sizes[some, None] - 1)  # (groups, shares)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, sizes[some, None] - 1)
        groups: Ints = np.repeat(some, len(shares)).astype(np.int64)
        a, b = (self._at(groups, groups + 1, ranks.reshape(-1)).reshape(below.shape) for ranks in (below, above))
        weight = place - below
        found[some] = np.where(weight < 0.5, a + (b - a) * weight, b - (b - a) * (1 - weight))
        return found

    def _at(self, first: Ints, last: Ints, rank: Ints) -> Floats:
        """(k,) the values of ranks among the groups `first:last`."""
        if not len(first):
            return np.zeros(0)
        wanted = self._whole(first, last, rank)
        few = max(FEW, FEW_IN_ALL // len(first))
        while len(many := np.flatnonzero((wanted.inside > few) & (wanted.low < wanted.high))):
            some = wanted.take(many)
            counts = self._total(partial(counted, values=self._values, wanted=some))
            _narrow(wanted, many, counts)
        open_ = np.flatnonzero(wanted.low < wanted.high)
        keys = wanted.low.copy()
        if len(open_):
            found: Sent = self._total(partial(sent, values=self._values, wanted=wanted.take(open_)))
            for place, of, n in zip(open_, found.keys, found.counts, strict=True):
                keys[place] = of[np.searchsorted(np.cumsum(n), wanted.rank[place], side="right")]
        return _values_of(keys) if self._spans.is_float else keys.astype(np.float64)

    def _whole(self, first: Ints, last: Ints, rank: Ints) -> Wanted:
        spans_, low, high = self._spans, np.empty(len(first), np.int64), np.empty(len(first), np.int64)
        inside = np.empty(len(first), np.int64)
        for place, (a, b) in enumerate(zip(first, last, strict=True)):
            low[place], high[place] = spans_.low[a:b].min(), spans_.high[a:b].max()
            inside[place] = spans_.n[a:b].sum()
        return Wanted(first.copy(), last.copy(), low, high, np.asarray(rank).copy(), inside)


def _narrow(wanted: Wanted, places: Ints, counts: Ints) -> None:
    """Keep of each wanted rank the step that it lies in."""
    shifts = shift_of(wanted.low[places], wanted.high[places])
    for place, shift, n in zip(places, shifts.tolist(), counts, strict=True):
        below = np.cumsum(n) - n
        step = int(np.searchsorted(below + n, wanted.rank[place], side="right"))
        low = int(wanted.low[place]) + (step << shift)
        wanted.high[place] = min(int(wanted.high[place]), low + (1 << shift) - 1)
        wanted.low[place] = low
        wanted.rank[place] -= below[step]
        wanted.inside[place] = n[step]


def shift_of(low: Ints, high: Ints) -> Ints:
    """(k,) by how many bits a step between two keys is wide, so that there are at most `STEPS`."""
    wide = high.view(np.uint64) - low.view(np.uint64)
    return np.array([max(0, int(one).bit_length() - STEPS.bit_length() + 1) for one in wide], np.int64)


def spans(part: Any, values: Values) -> Spans:
    """`Spans` of a part."""
    found, borders = values(part)
    keys, n = keys_of(found), np.diff(borders)
    low, high = np.full(len(n), LONGEST), np.full(len(n), -LONGEST - 1)
    some = np.flatnonzero(n)
    if len(some):
        low[some], high[some] = (f.reduceat(keys, borders[some]) for f in (np.minimum, np.maximum))
    return Spans(n.astype(np.int64), low, high, found.dtype.kind == "f")


def up_to(part: Any, values: Values, limit: int) -> int:
    """How many values of a part are no greater than a limit."""
    return int((values(part)[0] <= limit).sum())


def counted(part: Any, values: Values, wanted: Wanted) -> Ints:
    """(k, STEPS) how many values of a part lie in each step of each wanted rank."""
    counts = np.zeros((len(wanted.first), STEPS), np.int64)
    shifts = shift_of(wanted.low, wanted.high)
    for place, keys in _between(part, values, wanted):
        steps = (keys.view(np.uint64) - wanted.low[place : place + 1].view(np.uint64)) >> np.uint64(shifts[place])
        counts[place] = np.bincount(steps.astype(np.int64), minlength=STEPS)
    return counts


def sent(part: Any, values: Values, wanted: Wanted) -> Sent:
    """The values of a part that may have the wanted ranks."""
    found = [np.unique(keys, return_counts=True) for _, keys in _between(part, values, wanted)]
    return Sent(tuple(keys for keys, _ in found), tuple(counts.astype(np.int64) for _, counts in found))


def _between(part: Any, values: Values, wanted: Wanted) -> Any:
    found, borders = values(part)
    keys = keys_of(found)
    for place in range(len(wanted.first)):
        some = keys[borders[wanted.first[place]] : borders[wanted.last[place]]]
        yield place, np.ascontiguousarray(some[(some >= wanted.low[place]) & (some <= wanted.high[place])])


def keys_of(values: npt.NDArray[Any]) -> Ints:
    """(n,) int64 in the order of the values: they themselves, or the bits of floats, negative ones reversed."""
    if values.dtype.kind != "f":
        return np.ascontiguousarray(values, np.int64)
    bits = (values.astype(np.float64) + 0.0).view(np.int64)  # −0 is 0
    return np.where(bits < 0, bits ^ LONGEST, bits)


def _values_of(keys: Ints) -> Floats:
    return np.asarray(np.where(keys < 0, keys ^ LONGEST, keys)).view(np.float64)

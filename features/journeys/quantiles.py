"""Exact medians and quantiles of values that lie in many places: by passes that only count, in bounded memory.

    ranks = Ranks(total, values)      # `total(function)` merges function(part) over the parts, see `event_log`
    ranks.medians([borders])          # of neighbouring groups of values

A first pass finds how many values each group has and between what they lie; further passes count them in ever finer
steps around the target ranks, until few candidates remain, which are collected. The results equal those of sorting
everything. Where all values are in one place (`only_part`), they are reordered there, by the kernels of
`features.journeys.quantile_kernels`.
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
FEW, FEW_IN_ALL = 2_000, 4_000_000  # candidates of one target rank, and of all together, that are collected
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
class Targets:
    """The target ranks, each among the values of some neighbouring groups.

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

    def take(self, places: Any) -> Targets:
        """A subset of the targets."""
        return Targets(*(getattr(self, name)[places] for name in self.__dataclass_fields__))


@dataclass(frozen=True)
class Candidates:
    """The distinct keys of each target rank with how often they occur; they merge."""

    keys: tuple[Ints, ...]
    counts: tuple[Ints, ...]

    def __add__(self, other: Candidates) -> Candidates:
        both = [_joined(*four) for four in zip(self.keys, other.keys, self.counts, other.counts, strict=True)]
        return Candidates(tuple(keys for keys, _ in both), tuple(counts for _, counts in both))


def _joined(a: Ints, b: Ints, n_a: Ints, n_b: Ints) -> tuple[Ints, Ints]:
    keys, place = np.unique(np.concatenate((a, b)), return_inverse=True)
    counts = np.zeros(len(keys), np.int64)
    np.add.at(counts, place, np.concatenate((n_a, n_b)))
    return keys, counts


class Ranks:
    """Ranks of values in groups.

    Args:
        total: merges a function's results of the parts.
        values: returns the values of a part; a function of a module, or a partial of one.
        only_part: the only part, where there is one.
    """

    def __init__(self, total: Total, values: Values, only_part: Any = None) -> None:
        self._total, self._values, self._only_part = total, values, only_part

    @cached_property
    def _local(self) -> Grouped | None:
        return None if self._only_part is None else self._values(self._only_part)

    @cached_property
    def _spans(self) -> Spans:
        result: Spans = self._total(partial(spans, values=self._values))
        return result

    @property
    def sizes(self) -> Ints:
        """(groups,) how many values each has."""
        return np.diff(self._local[1]) if self._local is not None else self._spans.n

    def medians(self, borders: Sequence[Ints]) -> list[Floats]:
        """For each of some ways to part the groups, the medians of the parts; NaN where one is empty.

        Args:
            borders: each (parts + 1,) numbers of groups, rising; the finest first.
        """
        if self._local is not None:
            values, edges = self._local
            return [np.asarray(medians(values, edges[groups])) for groups in borders]
        before = np.concatenate(([0], np.cumsum(self._spans.n)))
        intervals = [(groups[:-1], groups[1:], before[groups[1:]] - before[groups[:-1]]) for groups in borders]
        first, last, n = (np.concatenate(columns) for columns in zip(*intervals, strict=True))
        occupied = np.flatnonzero(n)
        ranks = np.concatenate(((n[occupied] - 1) // 2, n[occupied] // 2))
        lower, upper = np.split(self._at(np.tile(first[occupied], 2), np.tile(last[occupied], 2), ranks), 2)
        out = np.full(len(n), np.nan)
        out[occupied] = 0.5 * lower + 0.5 * upper
        return np.split(out, np.cumsum([len(groups) - 1 for groups in borders])[:-1])

    def at(self, first: int, last: int, rank: int) -> float:
        """The value of a rank (from 0) among the groups `first:last`, which have more values than that."""
        if self._local is not None:
            values, edges = self._local
            return float(kth(values, edges[first], edges[last], rank))
        return float(self._at(np.array([first]), np.array([last]), np.array([rank]))[0])

    def up_to(self, limit: int) -> int:
        """How many values are no greater than a limit."""
        if self._local is not None:
            return int((self._local[0] <= limit).sum())
        return int(self._total(partial(up_to, values=self._values, limit=limit)))

    def quantiles(self, shares: Sequence[float]) -> Floats:
        """(groups, shares) quantiles between neighbouring values, as `numpy.quantile`; NaN where a group is empty."""
        sizes = self.sizes
        out = np.full((len(sizes), len(shares)), np.nan)
        if self._local is not None:
            values, edges = self._local
            for group in np.flatnonzero(sizes):
                out[group] = np.quantile(values[edges[group] : edges[group + 1]], shares)
            return out
        occupied = np.flatnonzero(sizes)
        place = np.array(shares) * (sizes[occupied, None] - 1)  # (groups, shares)
        below = np.floor(place).astype(np.int64)
        above = np.minimum(below + 1, sizes[occupied, None] - 1)
        groups: Ints = np.repeat(occupied, len(shares)).astype(np.int64)
        a, b = (self._at(groups, groups + 1, ranks.reshape(-1)).reshape(below.shape) for ranks in (below, above))
        weight = place - below
        out[occupied] = np.where(weight < 0.5, a + (b - a) * weight, b - (b - a) * (1 - weight))
        return out

    def _at(self, first: Ints, last: Ints, rank: Ints) -> Floats:
        """(k,) the values of ranks among the groups `first:last`."""
        if not len(first):
            return np.zeros(0)
        targets = self._whole(first, last, rank)
        few = max(FEW, FEW_IN_ALL // len(first))
        while len(many := np.flatnonzero((targets.inside > few) & (targets.low < targets.high))):
            subset = targets.take(many)
            counts = self._total(partial(step_counts, values=self._values, targets=subset))
            _narrow(targets, many, counts)
        open_ = np.flatnonzero(targets.low < targets.high)
        keys = targets.low.copy()
        if len(open_):
            remaining: Candidates = self._total(partial(candidates, values=self._values, targets=targets.take(open_)))
            for place, of, n in zip(open_, remaining.keys, remaining.counts, strict=True):
                keys[place] = of[np.searchsorted(np.cumsum(n), targets.rank[place], side="right")]
        return _values_of(keys) if self._spans.is_float else keys.astype(np.float64)

    def _whole(self, first: Ints, last: Ints, rank: Ints) -> Targets:
        spans_, low, high = self._spans, np.empty(len(first), np.int64), np.empty(len(first), np.int64)
        inside = np.empty(len(first), np.int64)
        for place, (a, b) in enumerate(zip(first, last, strict=True)):
            low[place], high[place] = spans_.low[a:b].min(), spans_.high[a:b].max()
            inside[place] = spans_.n[a:b].sum()
        return Targets(first.copy(), last.copy(), low, high, np.asarray(rank).copy(), inside)


def _narrow(targets: Targets, places: Ints, counts: Ints) -> None:
    """Narrow each target to the step that its rank lies in."""
    shifts = shift_of(targets.low[places], targets.high[places])
    for place, shift, n in zip(places, shifts.tolist(), counts, strict=True):
        below = np.cumsum(n) - n
        step = int(np.searchsorted(below + n, targets.rank[place], side="right"))
        low = int(targets.low[place]) + (step << shift)
        targets.high[place] = min(int(targets.high[place]), low + (1 << shift) - 1)
        targets.low[place] = low
        targets.rank[place] -= below[step]
        targets.inside[place] = n[step]


def shift_of(low: Ints, high: Ints) -> Ints:
    """(k,) by how many bits a step between two keys is wide, so that there are at most `STEPS`."""
    wide = high.view(np.uint64) - low.view(np.uint64)
    return np.array([max(0, int(width).bit_length() - STEPS.bit_length() + 1) for width in wide], np.int64)


def spans(part: Any, values: Values) -> Spans:
    """`Spans` of a part."""
    grouped, borders = values(part)
    keys, n = keys_of(grouped), np.diff(borders)
    low, high = np.full(len(n), LONGEST), np.full(len(n), -LONGEST - 1)
    occupied = np.flatnonzero(n)
    if len(occupied):
        low[occupied], high[occupied] = (f.reduceat(keys, borders[occupied]) for f in (np.minimum, np.maximum))
    return Spans(n.astype(np.int64), low, high, grouped.dtype.kind == "f")


def up_to(part: Any, values: Values, limit: int) -> int:
    """How many values of a part are no greater than a limit."""
    return int((values(part)[0] <= limit).sum())


def step_counts(part: Any, values: Values, targets: Targets) -> Ints:
    """(k, STEPS) how many values of a part lie in each step of each target."""
    counts = np.zeros((len(targets.first), STEPS), np.int64)
    shifts = shift_of(targets.low, targets.high)
    for place, keys in _between(part, values, targets):
        steps = (keys.view(np.uint64) - targets.low[place : place + 1].view(np.uint64)) >> np.uint64(shifts[place])
        counts[place] = np.bincount(steps.astype(np.int64), minlength=STEPS)
    return counts


def candidates(part: Any, values: Values, targets: Targets) -> Candidates:
    """The values of a part that may have the target ranks."""
    pairs = [np.unique(keys, return_counts=True) for _, keys in _between(part, values, targets)]
    return Candidates(tuple(keys for keys, _ in pairs), tuple(counts.astype(np.int64) for _, counts in pairs))


def _between(part: Any, values: Values, targets: Targets) -> Any:
    grouped, borders = values(part)
    keys = keys_of(grouped)
    for place in range(len(targets.first)):
        group = keys[borders[targets.first[place]] : borders[targets.last[place]]]
        yield place, np.ascontiguousarray(group[(group >= targets.low[place]) & (group <= targets.high[place])])


def keys_of(values: npt.NDArray[Any]) -> Ints:
    """(n,) int64 in the order of the values: they themselves, or the bits of floats, negative ones reversed."""
    if values.dtype.kind != "f":
        return np.ascontiguousarray(values, np.int64)
    bits = (values.astype(np.float64) + 0.0).view(np.int64)  # −0 is 0
    return np.where(bits < 0, bits ^ LONGEST, bits)


def _values_of(keys: Ints) -> Floats:
    return np.asarray(np.where(keys < 0, keys ^ LONGEST, keys)).view(np.float64)

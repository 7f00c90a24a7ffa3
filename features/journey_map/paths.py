"""The most common paths of a journey map: how journeys begin, how many customers go so, how it ends for them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journey_map.influence import first_goals
from features.journey_map.path_kernels import BLANK, count_paths
from features.journey_map.selection import DAY_US, Int32s, Int64s, MapSelection, MapSource
from features.journey_map.settings import END, MapSettings
from features.statistics import ratio, wilson

COLUMNS = (
    "rank", "path", "text", "customers", "share", "converted_share", "converted_low", "converted_high", "days_median",
)  # fmt: skip
ENOUGH = 0.25  # of the customers that the top paths hold


@dataclass(frozen=True)
class PathCounts:
    """How many customers take which path; counts of disjoint customers with the same names add up.

    Attributes:
        codes: (paths, steps + 1) int32, `END` as one past the missing touchpoint, then `BLANK`.
        counts: (paths,) customers.
        first: (paths,) rises with the first appearance of any of them in the source.
        end: the code of the end.
    """

    codes: Int32s
    counts: Int64s
    first: Int64s
    end: int

    def __add__(self, other: PathCounts) -> PathCounts:
        return _summed(
            np.concatenate((self.codes, other.codes)),
            np.concatenate((self.counts, other.counts)),
            np.concatenate((self.first, other.first)),
            self.end,
        )

    def shortened(self) -> PathCounts:
        """The paths of one step less: a journey that goes on after its last step is cut, one that is over stays."""
        codes = self.codes[:, :-1].copy()
        codes[codes[:, -1] != self.end, -1] = BLANK
        return _summed(codes, self.counts, self.first, self.end)

    def top(self, most: int) -> Int64s:
        """The places of the most common ones; ties: who came first."""
        return np.lexsort((self.first, -self.counts))[:most]


def _summed(codes: Int32s, counts: Int64s, first: Int64s, end: int) -> PathCounts:
    """Equal paths as one."""
    order = np.lexsort(codes.T[::-1])
    rows = codes[order]
    begins = np.flatnonzero(np.concatenate(([True], (rows[1:] != rows[:-1]).any(1)))[: len(rows)])
    if not len(begins):
        return PathCounts(codes, counts, first, end)
    summed = np.add.reduceat(counts[order], begins)
    return PathCounts(rows[begins], summed, np.minimum.reduceat(first[order], begins), end)


def paths(selection: MapSource, settings: MapSettings, has_goals: bool) -> pd.DataFrame:
    """The most common beginnings of journeys.

    Args:
        selection: what the map is drawn from.
        settings: of the map; a path has `path_steps` touchpoints, immediate repeats counted once.
        has_goals: whether a goal is known at all.

    Returns:
        rank, path (tuple of names, "end" last where the journey is over by then), text ("a → b → c"), customers, share,
        converted_share with Wilson's interval (NaN without goals), days_median (from the first event to the path's last
        touchpoint).
    """
    counted, top = _frequent_paths(selection, settings)
    codes, counts = counted.codes[top], counted.counts[top]
    reached = selection.total(partial(_reached, codes=codes, goals=settings.goals))
    (medians,) = selection.ranks(partial(_durations, codes=codes)).medians([np.arange(len(top) + 1)])
    n = counts if has_goals else np.zeros(len(top), np.int64)
    names = (*selection.names, END)
    texts = [tuple(names[code] for code in row if code != BLANK) for row in codes]
    values = (
        np.arange(1, len(top) + 1),
        texts,
        pd.Series([" → ".join(path) for path in texts], dtype="str"),
        counts,
        counts / selection.n_customers,
        ratio(reached, n),
        *wilson(reached, n),
        medians / DAY_US,
    )
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def _frequent_paths(selection: MapSource, settings: MapSettings) -> tuple[PathCounts, Int64s]:
    """The longest paths whose top ones hold enough customers, and the places of these."""
    counted = selection.total(partial(path_counts, steps=settings.path_steps))
    for _ in range(settings.path_steps - 1):
        top = counted.top(settings.top_paths)
        if counted.counts[top].sum() >= ENOUGH * selection.n_customers:
            return counted, top
        counted = counted.shortened()
    return counted, counted.top(settings.top_paths)


def _each_path(part: MapSelection, steps: int) -> tuple[Int32s, Int64s, Int32s, Int64s]:
    """Paths, their customers; each customer's path and the µs that it takes."""

    def take() -> tuple[Int32s, Int64s, Int32s, Int64s]:
        path_of, duration_us = np.empty(part.n_customers, np.int32), np.empty(part.n_customers, np.int64)
        codes, counts = count_paths(
            part.touchpoint.codes, part.journeys.t, part.start, part.stop, len(part.touchpoint.names), steps, path_of,
            duration_us,
        )  # fmt: skip
        return codes, counts, path_of, duration_us

    return part.cached(f"paths of {steps}", take)


def path_counts(part: MapSelection, steps: int) -> PathCounts:
    """The paths of a part."""
    codes, counts, path_of, _ = _each_path(part, steps)
    first = np.full(len(codes), np.iinfo(np.int64).max)
    np.minimum.at(first, path_of, part.appearance)
    return PathCounts(codes, counts, first, len(part.touchpoint.names) + 1)


def _ranked(part: MapSelection, codes: Int32s) -> tuple[npt.NDArray[np.int64], Int64s]:
    """(n,) the place of each customer's path among `codes`, -1 for another; and the µs that it takes."""
    distinct, _, path_of, duration_us = _each_path(part, codes.shape[1] - 1)
    rank = np.full(len(distinct), -1)
    for place, row in enumerate(codes):
        rank[_equal(distinct, row)] = place
    return (rank[path_of] if len(distinct) else np.zeros(0, np.int64)), duration_us


def _equal(rows: Int32s, row: Int32s) -> Int64s:
    """The places of the rows that are equal to one."""
    matches = np.flatnonzero(rows[:, 0] == row[0])
    for column in range(1, len(row)):
        matches = matches[rows[matches, column] == row[column]]
    return matches


def _reached(part: MapSelection, codes: Int32s, goals: tuple[str, ...]) -> Int64s:
    """(k,) who of each path's customers reach a goal, ever."""
    rank, _ = _ranked(part, codes)
    return np.bincount(rank[(rank >= 0) & (first_goals(part, goals) >= 0)], minlength=len(codes))


def _durations(part: MapSelection, codes: Int32s) -> tuple[Int64s, Int64s]:
    """µs of the customers of each path, path by path."""
    rank, duration_us = _ranked(part, codes)
    order = np.argsort(rank, kind="stable")
    order = order[np.searchsorted(rank[order], 0) :]
    return duration_us[order], np.searchsorted(rank[order], np.arange(len(codes) + 1)).astype(np.int64)

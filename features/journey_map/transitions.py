"""Transitions of a journey map: from each touchpoint to the next, how often, how likely, after how long."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journey_map.kernels import count_pairs, gaps_by_pair
from features.journey_map.selection import Int32s, Int64s, MapSelection, MapSource
from features.journey_map.settings import END, START

WAIT_SHARE = 0.9  # of gaps that are no long wait
RETURN_SHARE = 0.95  # of returns to a new session that come within the pause after which a customer counts as gone


@dataclass(frozen=True)
class PairCounts:
    """Counts of pairs; those of two disjoint sets of customers with the same names add up.

    Attributes:
        source, target: (pairs,) int64 codes of touchpoints; `n_names` missing, then start, then end. By source, then
            target.
        count, customers: (pairs,) how often, and by how many customers.
        n_names: how many touchpoints the log has.
    """

    source: Int64s
    target: Int64s
    count: Int64s
    customers: Int64s
    n_names: int

    def __add__(self, other: PairCounts) -> PairCounts:
        wide = self.n_names + 3
        keys = np.concatenate([self.source * wide + self.target, other.source * wide + other.target])
        distinct, place = np.unique(keys, return_inverse=True)
        summed: list[Int64s] = [np.zeros(len(distinct), np.int64) for _ in range(2)]
        np.add.at(summed[0], place, np.concatenate([self.count, other.count]))
        np.add.at(summed[1], place, np.concatenate([self.customers, other.customers]))
        return PairCounts(distinct // wide, distinct % wide, summed[0], summed[1], self.n_names)


@dataclass(frozen=True)
class Pauses:
    """How long it takes from one event to the next.

    Attributes:
        by_pair_us: (pairs,) float64 medians, NaN where a pair has no gap.
        by_source_us: (n_names + 1,) the same after each touchpoint.
        median_us: of all gaps; NaN where nobody has two events.
        waits_us: the gap that `WAIT_SHARE` of all gaps do not exceed; NaN likewise.
        return_us: the gap that `RETURN_SHARE` of the gaps between sessions do not exceed; NaN where there are none.
    """

    by_pair_us: npt.NDArray[np.float64]
    by_source_us: npt.NDArray[np.float64]
    median_us: float
    waits_us: float
    return_us: float


def transition_counts(selection: MapSource, session_us: int = 0) -> tuple[PairCounts, Pauses]:
    """Count the transitions and take the medians of their gaps, in two passes over the events.

    Args:
        selection: what the map is drawn from.
        session_us: a longer gap lies between two sessions.
    """
    pairs = selection.total(pair_counts)
    return pairs, _pauses(selection, pairs, session_us)


def _walked(part: MapSelection) -> tuple[Int64s, Int64s, Int64s, Int32s]:
    """Keys, counts, customers of the pairs of a part in order of appearance, and the pair that each event begins."""

    def walk() -> tuple[Int64s, Int64s, Int64s, Int32s]:
        pair_of = np.empty(part.n_events, np.int32)
        codes, n_names = part.touchpoint.codes, len(part.touchpoint.names)
        return (*count_pairs(codes, part.start, part.stop, n_names, pair_of), pair_of)

    return part.cached("pairs", walk)


def pair_counts(part: MapSelection) -> PairCounts:
    """The pairs of a part, by source, then target."""
    keys, count, customers, _ = _walked(part)
    order = np.argsort(keys)
    n_names = len(part.touchpoint.names)
    source, target = np.divmod(keys[order], n_names + 3)
    return PairCounts(source, target, count[order], customers[order], n_names)


def _gaps(part: MapSelection, pair_keys: Int64s, n_names: int) -> tuple[Int64s, Int64s]:
    """The µs from each event to the next, pair by pair of the `pair_keys` keys, which rise."""
    keys, count, _, pair_of = _walked(part)
    place = np.searchsorted(pair_keys, keys)
    source, target = np.divmod(keys, n_names + 3)
    sizes = np.zeros(len(pair_keys), np.int64)
    sizes[place] = np.where((source <= n_names) & (target <= n_names), count, 0)
    borders = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    gaps = np.empty(int(borders[-1]), np.int64)
    gaps_by_pair(part.journeys.t, part.start, part.stop, pair_of, borders[place], gaps)
    return gaps, borders


def _pauses(selection: MapSource, pairs: PairCounts, session_us: int) -> Pauses:
    """Gaps lie pair by pair, so source by source; each median reorders only what is needed no more."""
    pair_keys, n = pairs.source * (pairs.n_names + 3) + pairs.target, len(pairs.source)
    ranks = selection.ranks(partial(_gaps, pair_keys=pair_keys, n_names=pairs.n_names))
    by_name = np.searchsorted(pairs.source, np.arange(pairs.n_names + 2))
    by_pair, by_source, median = ranks.medians([np.arange(n + 1), by_name, np.array([0, n])])
    gaps = int(ranks.sizes.sum())
    if not gaps:
        return Pauses(by_pair, by_source, *[float("nan")] * 3)
    short = ranks.up_to(session_us)
    waits = ranks.at(0, n, int(WAIT_SHARE * (gaps - 1)))
    returns = ranks.at(0, n, short + int(RETURN_SHARE * (gaps - short - 1))) if short < gaps else float("nan")
    return Pauses(by_pair, by_source, float(median[0]), waits, returns)


def transition_frame(selection: MapSource, pairs: PairCounts, pauses: Pauses) -> pd.DataFrame:
    """Transitions as a table, by source in order of frequency, then by count.

    Returns:
        source, target (names, "start", "end"), count, probability (of the target given the source; they sum to 1 for
        each source), gap_s_median, customers (who made the step at least once). The end is where the observed journey
        stops, whether the customer has left or is still on the way.
    """
    names = np.array([*selection.names, START, END], dtype=object)
    leaving = np.bincount(pairs.source, pairs.count, len(names))
    order = np.lexsort((pairs.target, -pairs.count, pairs.source, -leaving[pairs.source]))
    source, target, count = pairs.source[order], pairs.target[order], pairs.count[order]
    return pd.DataFrame(
        {
            "source": pd.Series(names[source], dtype="str"),
            "target": pd.Series(names[target], dtype="str"),
            "count": count,
            "probability": count / leaving[source],
            "gap_s_median": pauses.by_pair_us[order] / 1e6,
            "customers": pairs.customers[order],
        }
    )


def transitions(selection: MapSource) -> pd.DataFrame:
    """Count and tabulate; see `transition_frame`."""
    return transition_frame(selection, *transition_counts(selection))

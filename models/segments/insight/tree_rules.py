"""The leaves of a tree as rules in words: one for each segment, with its recall and precision."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.segments.contract import Segment
from models.segments.insight.columns import ReadableColumn
from models.segments.insight.effects import number_words
from models.segments.insight.intervals import share_over_customers
from models.segments.insight.tree_nodes import LEAF, TreeNodes

Ints = npt.NDArray[np.int64]
Bounds = dict[int, tuple[float, float, bool]]  # column -> above, at most, may be unknown
NO_RULE = "no rule: the tree is too short to separate this segment from the others"


def rules_table(
    nodes: TreeNodes,
    columns: Sequence[ReadableColumn],
    x: npt.NDArray[np.float32],
    segments: Sequence[Segment],
    places: Ints,
    predicted: Ints,
    customers: Ints,
) -> pd.DataFrame:
    """A row a segment.

    Args:
        nodes: the tree.
        columns: (c,) the columns that it tests.
        x: (n, c) the rows that it was fitted on.
        segments: the partition.
        places: (n,) the segments of the rows.
        predicted: (n,) the segments predicted by trees that were fitted without the row's customer.
        customers: (n,) codes of the rows' customers.
    """
    counts = np.bincount(nodes.leaves(x), minlength=len(nodes.column))
    ranges = [ValueRange.of(x[:, c]) for c in range(len(columns))]
    texts: dict[int, list[str]] = {}
    for leaf, bounds in sorted(paths(nodes), key=lambda path: -counts[path[0]]):  # the largest leaf first
        texts.setdefault(int(nodes.place[leaf]), []).append(path_words(bounds, columns, ranges))
    rows = []
    for s, segment in enumerate(segments):
        inside, chosen = places == s, predicted == s
        recall = share_over_customers(chosen[inside], customers[inside])
        precision = share_over_customers(inside[chosen], customers[chosen])
        rows.append(
            {
                **{"id": segment.id, "segment": segment.name, "rule": "; or ".join(texts.get(s, [NO_RULE]))},
                **{"leaves": len(texts.get(s, [])), "customers": recall.customers},
                **{"found": recall.value, "found_low": recall.low, "found_high": recall.high},
                **{"right": precision.value, "right_low": precision.low, "right_high": precision.high},
            }
        )
    return pd.DataFrame(rows)


def paths(nodes: TreeNodes) -> Iterator[tuple[int, Bounds]]:
    """Each leaf with the bounds that lead to it, one for each column."""
    waiting: list[tuple[int, Bounds]] = [(0, {})]
    while waiting:
        node, bounds = waiting.pop()
        column = int(nodes.column[node])
        if column == LEAF:
            yield node, bounds
            continue
        above, most, unknown = bounds.get(column, (-np.inf, np.inf, True))
        threshold, goes_left = float(nodes.threshold[node]), bool(nodes.unknown_left[node])
        left = (above, min(most, threshold), unknown and goes_left)
        right = (max(above, threshold), most, unknown and not goes_left)
        waiting += [(int(nodes.right[node]), {**bounds, column: right})]
        waiting += [(int(nodes.left[node]), {**bounds, column: left})]


@dataclass(frozen=True)
class ValueRange:
    """The values of a column that the tree was fitted on.

    Attributes:
        low: the lowest.
        high: the highest.
        whole: all are whole numbers.
        gaps: some are missing.
    """

    low: float
    high: float
    whole: bool
    gaps: bool

    @classmethod
    def of(cls, values: npt.NDArray[np.float32]) -> ValueRange:
        """From (n,) values."""
        finite = values[np.isfinite(values)].astype(np.float64)
        if not len(finite):
            return cls(np.inf, -np.inf, False, True)
        return cls(float(finite.min()), float(finite.max()), bool((finite % 1 == 0).all()), len(finite) < len(values))


def path_words(bounds: Bounds, columns: Sequence[ReadableColumn], ranges: Sequence[ValueRange]) -> str:
    """The bounds of one leaf, joined by "and"."""
    words = [condition_words(columns[c], *bound, ranges[c]) for c, bound in bounds.items()]
    return ", and ".join(words) or "everybody"


def condition_words(column: ReadableColumn, above: float, most: float, unknown: bool, values: ValueRange) -> str:
    """One bound in words.

    >>> events, counts = ReadableColumn("n", "n", "volume", "events ever"), ValueRange(1, 9, True, False)
    >>> condition_words(events, 2.5, float("inf"), False, counts)
    'events ever at least 3'
    >>> plan = ReadableColumn("p=a", "p", "", "plan is 'a'", level=0)
    >>> condition_words(plan, 0.5, float("inf"), False, ValueRange(0, 1, True, False))
    "plan is 'a'"
    >>> satisfaction = ReadableColumn("s", "s", "", "last satisfaction")
    >>> condition_words(satisfaction, 5.0, float("inf"), True, ValueRange(1, 5, True, True))
    'last satisfaction unknown'
    """
    if column.level is not None:
        return column.meaning if above >= 0 else column.meaning.replace(" is '", " is not '")
    if unknown and (above >= values.high or most < values.low):
        return f"{column.meaning} unknown"
    above, most = above if above >= values.low else -np.inf, most if most < values.high else np.inf
    if above == -np.inf and most == np.inf:
        return f"{column.meaning} known" if not unknown else f"any {column.meaning}"
    whole, parts = values.whole, []
    if above > -np.inf:
        parts.append(f"at least {_count(np.floor(above) + 1)}" if whole else f"above {number_words(above)}")
    if most < np.inf:
        parts.append(f"at most {_count(np.floor(most)) if whole else number_words(most)}")
    if whole and len(parts) == 2 and np.floor(above) + 1 == np.floor(most):
        parts = [_count(np.floor(most))]
    return f"{column.meaning} {' and '.join(parts)}" + (" or unknown" if unknown and values.gaps else "")


def _count(value: float) -> str:
    """A whole number, all digits."""
    return f"{value:,.0f}".replace("-", "−")

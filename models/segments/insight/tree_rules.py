"""The leaves of a tree as rules that a person can read: one a segment, with how much of it the rule finds."""

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
NO_RULE = "no rule: the tree is too short to tell this segment from others"


def rules_table(
    nodes: TreeNodes,
    columns: Sequence[ReadableColumn],
    x: npt.NDArray[np.float32],
    segments: Sequence[Segment],
    places: Ints,
    said: Ints,
    customers: Ints,
) -> pd.DataFrame:
    """A row a segment.

    Args:
        nodes: the tree.
        columns: (c,) what it asks.
        x: (n, c) the rows that it was grown on.
        segments: the partition.
        places: (n,) the segments that the rows are in.
        said: (n,) the segments that trees said which did not see the row's customer.
        customers: (n,) codes of whom the rows belong to.
    """
    counts = np.bincount(nodes.leaves(x), minlength=len(nodes.column))
    seen = [ValueRange.of(x[:, c]) for c in range(len(columns))]
    by_segment: dict[int, list[tuple[int, str]]] = {}
    for leaf, bounds in paths(nodes):
        text = path_words(bounds, columns, seen)
        by_segment.setdefault(int(nodes.place[leaf]), []).append((int(counts[leaf]), text))
    return pd.DataFrame(
        [_row(s, segment, by_segment.get(s, []), places, said, customers) for s, segment in enumerate(segments)]
    )


def _row(
    s: int, segment: Segment, leaves: list[tuple[int, str]], places: Ints, said: Ints, customers: Ints
) -> dict[str, object]:
    texts = [text for _, text in sorted(leaves, key=lambda leaf: -leaf[0])]
    inside, told = places == s, said == s
    found = share_over_customers(told[inside], customers[inside])
    right = share_over_customers(inside[told], customers[told])
    return {
        "id": segment.id,
        "segment": segment.name,
        "rule": "; or ".join(texts) if texts else NO_RULE,
        "leaves": len(texts),
        "customers": found.customers,
        **{"found": found.value, "found_low": found.low, "found_high": found.high},
        **{"right": right.value, "right_low": right.low, "right_high": right.high},
    }


def paths(nodes: TreeNodes) -> Iterator[tuple[int, Bounds]]:
    """Each leaf with the bounds that lead to it, several on one column drawn together."""
    waiting: list[tuple[int, Bounds]] = [(0, {})]
    while waiting:
        node, bounds = waiting.pop()
        column = int(nodes.column[node])
        if column == LEAF:
            yield node, bounds
            continue
        above, most, unknown = bounds.get(column, (-np.inf, np.inf, True))
        threshold, unknown_left = float(nodes.threshold[node]), bool(nodes.unknown_left[node])
        left = (above, min(most, threshold), unknown and unknown_left)
        right = (max(above, threshold), most, unknown and not unknown_left)
        waiting += [(int(nodes.right[node]), {**bounds, column: right})]
        waiting += [(int(nodes.left[node]), {**bounds, column: left})]


@dataclass(frozen=True)
class ValueRange:
    """What values of a column the tree was grown on.

    Attributes:
        low: the lowest.
        high: the highest.
        whole: all are whole numbers.
        gaps: some are not known.
    """

    low: float
    high: float
    whole: bool
    gaps: bool

    @classmethod
    def of(cls, values: npt.NDArray[np.float32]) -> ValueRange:
        """From (n,) values."""
        known = values[np.isfinite(values)].astype(np.float64)
        if not len(known):
            return cls(np.inf, -np.inf, False, True)
        return cls(float(known.min()), float(known.max()), bool((known % 1 == 0).all()), len(known) < len(values))


def path_words(bounds: Bounds, columns: Sequence[ReadableColumn], seen: Sequence[ValueRange]) -> str:
    """The bounds of one leaf, joined by "and"."""
    told = [condition_words(columns[c], *bound, seen[c]) for c, bound in bounds.items()]
    return ", and ".join(told) if told else "everybody"


def condition_words(column: ReadableColumn, above: float, most: float, unknown: bool, seen: ValueRange) -> str:
    """One bound in words.

    >>> condition_words(Column("n", "n", "volume", "events ever"), 2.5, float("inf"), False, Seen(1, 9, True, False))
    'events ever at least 3'
    >>> condition_words(Column("p=a", "p", "", "plan is 'a'", 0), 0.5, float("inf"), False, Seen(0, 1, True, False))
    "plan is 'a'"
    >>> condition_words(Column("s", "s", "", "last satisfaction"), 5.0, float("inf"), True, Seen(1, 5, True, True))
    'last satisfaction not known'
    """
    if column.level is not None:
        return column.meaning if above >= 0 else column.meaning.replace(" is '", " is not '")
    if unknown and (above >= seen.high or most < seen.low):
        return f"{column.meaning} not known"
    above, most = above if above >= seen.low else -np.inf, most if most < seen.high else np.inf
    if above == -np.inf and most == np.inf:
        return f"{column.meaning} known" if not unknown else f"any {column.meaning}"
    whole, parts = seen.whole, []
    if above > -np.inf:
        parts.append(f"at least {_count(np.floor(above) + 1)}" if whole else f"above {number_words(above)}")
    if most < np.inf:
        parts.append(f"at most {_count(np.floor(most)) if whole else number_words(most)}")
    if whole and len(parts) == 2 and np.floor(above) + 1 == np.floor(most):
        parts = [_count(np.floor(most))]
    return f"{column.meaning} {' and '.join(parts)}" + (" or not known" if unknown and seen.gaps else "")


def _count(value: float) -> str:
    """A whole number, all digits."""
    return f"{value:,.0f}".replace("-", "−")

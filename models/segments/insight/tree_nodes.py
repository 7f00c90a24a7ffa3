"""A fitted decision tree as arrays: read from scikit-learn, pruned, followed without scikit-learn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from features.errors import DataError

if TYPE_CHECKING:
    from sklearn.tree import DecisionTreeClassifier

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]
LEAF = -1


@dataclass(frozen=True)
class TreeNodes:
    """A binary tree as arrays; node 0 is the root, and children come after their parents.

    Attributes:
        column: (m,) the column that a node tests, -1 at a leaf.
        threshold: (m,) at most this goes left.
        left: (m,) the node to the left.
        right: (m,) likewise.
        unknown_left: (m,) whether a missing value goes left.
        place: (m,) the segment of a leaf.
    """

    column: Ints
    threshold: npt.NDArray[np.float64]
    left: Ints
    right: Ints
    unknown_left: npt.NDArray[np.bool_]
    place: Ints

    @classmethod
    def from_sklearn(cls, classifier: DecisionTreeClassifier) -> Self:
        """The tree of a fitted classifier, with thresholds of three digits and without splits that change nothing."""
        tree = classifier.tree_
        leaf = tree.children_left == LEAF
        nodes = cls(
            column=np.where(leaf, LEAF, tree.feature).astype(np.int64),
            threshold=np.array([0.0 if end else _rounded(t) for t, end in zip(tree.threshold, leaf, strict=True)]),
            left=tree.children_left.astype(np.int64),
            right=tree.children_right.astype(np.int64),
            unknown_left=tree.missing_go_to_left.astype(bool),
            place=classifier.classes_[tree.value[:, 0, :].argmax(axis=1)].astype(np.int64),
        )
        return nodes._pruned()

    @classmethod
    def from_dict(cls, data: Mapping[str, list[Any]], n_columns: int, n_segments: int) -> Self:
        """The inverse of `dataclasses.asdict`, checked: a file must not send the descent in circles or out of bounds.

        Raises:
            DataError: the arrays do not make a tree over so many columns and segments.
        """
        types = {"threshold": np.float64, "unknown_left": np.bool_}
        nodes = cls(**{name: np.array(data[name], types.get(name, np.int64)) for name in cls.__dataclass_fields__})
        m, inner = len(nodes.column), nodes.column != LEAF
        number = np.arange(m)
        fits = all(len(values) == m for values in asdict(nodes).values()) and m > 0
        if not fits or not (
            (nodes.column < n_columns).all()
            and (nodes.column >= LEAF).all()
            and all(((side > number) & (side < m))[inner].all() for side in (nodes.left, nodes.right))
            and ((nodes.place >= 0) & (nodes.place < n_segments)).all()
        ):
            raise DataError("no tree as `SegmentTree.save` writes it: save it again")
        return nodes

    def leaves(self, x: Floats32) -> Ints:
        """(n,) the leaf of each row of (n, c) columns."""
        node = np.zeros(len(x), np.int64)
        rows = np.arange(len(x))
        while (inner := self.column[node] != LEAF).any():
            at, open_rows = node[inner], rows[inner]
            value = x[open_rows, self.column[at]]
            left = np.where(np.isnan(value), self.unknown_left[at], value <= self.threshold[at])
            node[open_rows] = np.where(left, self.left[at], self.right[at])
        return node

    def _pruned(self) -> Self:
        """The same answers without splits whose two leaves are of one segment; nodes out of reach become leaves."""
        column, place = self.column.copy(), self.place.copy()
        for node in reversed(range(len(column))):
            left, right = self.left[node], self.right[node]
            if column[node] != LEAF and column[left] == column[right] == LEAF and place[left] == place[right]:
                column[node], place[node] = LEAF, place[left]
        reached, open_nodes = np.zeros(len(column), bool), [0]
        while open_nodes:
            node = open_nodes.pop()
            reached[node] = True
            open_nodes += [] if column[node] == LEAF else [int(self.left[node]), int(self.right[node])]
        return replace(self, column=np.where(reached, column, LEAF), place=place)


def _rounded(threshold: float) -> float:
    """To three digits, and finite: a split on missing values alone has an infinite threshold."""
    largest = float(np.finfo(np.float32).max)
    return float(np.clip(float(f"{threshold:.3g}"), -largest, largest))

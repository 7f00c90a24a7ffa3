"""Boosted trees compiled for many rows at once: a LightGBM booster's margins to the last bit, in a tenth of the time.

    trees = BoostedTrees(booster.model_to_string())
    trees.margins(x)               # (n,) as booster.predict(x, raw_score=True) gives them

Categorical splits, linear leaves, several outputs and trees of more than 64 leaves stay with LightGBM,
which is loaded only then, or when its booster is asked for.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from models.boosting.kernels import add_trees

MOST_LEAVES = 64
FEW_ROWS = 100
CATEGORICAL, DEFAULT_LEFT, ZERO_IS_MISSING, NAN_IS_MISSING = 1, 2, 4, 8  # bits of LightGBM's decision_type
ZERO = np.float32(1e-35)
SINGLE_OUTPUT = ("num_class=1", "num_tree_per_iteration=1")

Ints = npt.NDArray[np.int32]
Lines = dict[str, str]


@dataclass(frozen=True)
class CompiledTrees:
    """The arrays of `models.boosting.kernels.add_trees`.

    Attributes:
        n_columns: how many columns a row has.
        used, feature, threshold, cleared, borders, lowest, leaves, values: see the kernel.
    """

    n_columns: int
    used: Ints
    feature: Ints
    threshold: npt.NDArray[np.float32]
    cleared: npt.NDArray[Any]
    borders: npt.NDArray[np.int64]
    lowest: npt.NDArray[Any]
    leaves: npt.NDArray[np.int64]
    values: npt.NDArray[np.float64]

    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """(n,) sums of the leaf values of (n, f) rows.

        Raises:
            ValueError: rows of another width: the kernel would read beyond them.
        """
        if x.ndim != 2 or x.shape[1] != self.n_columns:
            raise ValueError(f"rows of shape {x.shape} for trees of {self.n_columns} columns")
        out = np.zeros(len(x))
        rows = np.ascontiguousarray(x, np.float32)
        add_trees(
            rows, self.used, self.feature, self.threshold, self.cleared, self.borders, self.lowest, self.leaves,
            self.values, out,
        )  # fmt: skip
        return out


@dataclass(frozen=True)
class _Tree:
    """A tree's nodes: those at which a missing value goes left first."""

    feature: Ints
    threshold: npt.NDArray[np.float64]
    cleared: list[int]
    n_left: int
    values: npt.NDArray[np.float64]  # the leaves from left to right


@dataclass(frozen=True)
class BoostedTrees:
    """A booster, as LightGBM writes it.

    Attributes:
        text: of `Booster.model_to_string` or `save_model`.
    """

    text: str

    @cached_property
    def booster(self) -> Any:
        """LightGBM's own."""
        import lightgbm as lgb

        return lgb.Booster(model_str=self.text)

    @cached_property
    def compiled(self) -> CompiledTrees | None:
        """The trees as arrays, where the kernel knows all that they have."""
        return compile_trees(self.text)

    def margins(self, x: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
        """(n,) log-odds of (n, f) rows: the same with and without LightGBM.

        Raises:
            ValueError: rows of another width.
        """
        if self.compiled is not None:
            return self.compiled.margins(x)
        return np.asarray(self.booster.predict(x, raw_score=True, **threads_for(x)), dtype=np.float64)


def threads_for(x: npt.NDArray[np.float32]) -> dict[str, int]:
    """One thread for a request: waking the others costs more than they bring."""
    return {"num_threads": 1} if len(x) <= FEW_ROWS else {}


def compile_trees(text: str) -> CompiledTrees | None:
    """The trees of a LightGBM booster; None where the kernel cannot say exactly what LightGBM would."""
    head, *blocks = text.split("\nTree=")
    last = re.search(r"\nmax_feature_idx=(\d+)\n", head)
    if (
        last is None
        or not all(f"\n{line}\n" in head for line in SINGLE_OUTPUT)
        or "\naverage_output" in head
        or not blocks
    ):
        return None
    trees = [_tree(_lines(block.split("\nend of trees")[0])) for block in blocks]
    known = [tree for tree in trees if tree is not None]
    return _packed(known, int(last[1]) + 1) if len(known) == len(trees) else None


def _lines(block: str) -> Lines:
    return dict(line.split("=", 1) for line in block.splitlines() if "=" in line)


def _tree(lines: Lines) -> _Tree | None:
    values = _numbers(lines["leaf_value"], np.float64)
    if len(values) > MOST_LEAVES or lines.get("num_cat", "0") != "0" or lines.get("is_linear", "0") != "0":
        return None
    if len(values) == 1:
        return _Tree(np.zeros(0, np.int32), np.zeros(0), [], 0, values)
    decision = _numbers(lines["decision_type"], np.int64)
    threshold = _numbers(lines["threshold"], np.float64)
    if (decision & (CATEGORICAL | ZERO_IS_MISSING)).any():
        return None
    left, right = _numbers(lines["left_child"], np.int64), _numbers(lines["right_child"], np.int64)
    leaves, cleared = _leaves_in_order(left.tolist(), right.tolist())
    # where NaN is not a value of its own, LightGBM reads it as zero
    goes_left = np.where(decision & NAN_IS_MISSING, (decision & DEFAULT_LEFT) > 0, threshold >= 0)
    order = np.argsort(~goes_left, kind="stable")
    feature = _numbers(lines["split_feature"], np.int64).astype(np.int32)
    return _Tree(
        feature[order], threshold[order], [cleared[node] for node in order], int(goes_left.sum()), values[leaves]
    )


def _numbers(text: str, kind: Any) -> npt.NDArray[Any]:
    return np.array(text.split(), dtype=np.float64).astype(kind)


def _leaves_in_order(left: list[int], right: list[int]) -> tuple[list[int], list[int]]:
    """The leaves from left to right, and for each node those on its left, as bits; children below 0 are leaves."""
    leaves: list[int] = []
    under = [0] * len(left)
    stack = [(0, False)]
    while stack:
        node, is_between = stack.pop()
        if node < 0:
            leaves.append(~node)
        elif is_between:  # all on its left have been met
            under[node] = (1 << len(leaves)) - 1 & ~under[node]
        else:
            under[node] = (1 << len(leaves)) - 1
            stack += [(right[node], False), (node, True), (left[node], False)]
    return leaves, under


def _packed(trees: list[_Tree], n_columns: int) -> CompiledTrees:
    most = max(len(tree.values) for tree in trees)
    kind: Any = np.uint32 if most <= 32 else np.uint64
    every = int(np.iinfo(kind).max)
    used, feature = np.unique(np.concatenate([tree.feature for tree in trees]), return_inverse=True)
    sizes = np.array([[tree.n_left, len(tree.feature) - tree.n_left] for tree in trees]).ravel()
    n_leaves = [len(tree.values) for tree in trees]
    return CompiledTrees(
        n_columns,
        used.astype(np.int32),
        feature.astype(np.int32),
        _at_most(np.concatenate([tree.threshold for tree in trees])),
        np.array([every & ~bits for tree in trees for bits in tree.cleared], kind),
        np.concatenate(([0], np.cumsum(sizes))).astype(np.int64),
        np.array([every >> (np.iinfo(kind).bits - n) for n in n_leaves], kind),
        np.concatenate(([0], np.cumsum(n_leaves))).astype(np.int64),
        np.concatenate([tree.values for tree in trees]),
    )


def _at_most(threshold: npt.NDArray[np.float64]) -> npt.NDArray[np.float32]:
    """The largest float32 that each threshold sends left: a float32 is not above that one where it goes left.

    LightGBM reads what lies within `ZERO` of zero as zero.
    """
    edge = np.finfo(np.float32)
    near = np.clip(threshold, edge.min, edge.max).astype(np.float32)
    below = np.where(near > threshold, np.nextafter(near, np.float32(-np.inf)), near)
    sends_zero = np.where(threshold >= 0, ZERO, np.nextafter(-ZERO, np.float32(-np.inf)))
    return np.where((threshold >= -ZERO) & (threshold < ZERO), sends_zero, below).astype(np.float32)

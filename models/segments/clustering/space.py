"""The space that customers are clustered in: a few axes from their snapshots, learnt in training, numpy when served.

    space = ClusterSpace(views).learn(raw)           # raw = space.read(snapshots)
    space.place(space.read(snapshots), 3)            # (n, 3) float32
    space.named_dimensions                           # what the axes of the views are, in words

The weight of a view (`models.segments.clustering.views`) is its share of the variance, whatever the number of its axes,
so that neither the many columns of behaviour nor a long list of items dominates (as in multiple factor analysis:
Escofier & Pagès 1994). The principal axes of all views are the space.

Lasting preferences show in touchpoints, channels and items alike; what a customer needs at the moment shows in one of
them. `shared` keeps of composition the axes that two or more columns agree on: principal axes of the whitened columns
with a variance above 1, which one column alone cannot reach (generalised canonical correlation, MAXVAR: Kettenring
1971).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import Snapshots
from models.segments.clustering.embedding_view import EmbeddingView
from models.segments.clustering.views import (
    FLAT,
    Behaviour,
    ClusterView,
    Composition,
    Dimension,
    Matrix,
    principal_axes,
    product,
)

ROWS_AT_ONCE = 20_000
AGREED = 2.0  # times the root of axes over rows: a variance further above 1 is not chance
FARTHEST = 3.0  # standard deviations at which an axis is cut off, so that outliers get no segment of their own
LEARNT = ("limits", "spread", "centre", "variance", "turn")
KINDS: dict[str, Any] = {"behaviour": Behaviour, "composition": Composition, "embedding": EmbeddingView}


class ClusterSpace:
    """Views side by side: cut off, weighted and rotated to principal axes.

    Args:
        views: fitted views.
        weights: the share of variance of each kind of view, relative to the others; views of a kind share alike.
        shared: of composition only the axes that columns agree on, where there are any.
    """

    def __init__(
        self, views: Sequence[ClusterView], weights: dict[str, float] | None = None, shared: bool = False
    ) -> None:
        self.views = list(views)
        self.weights = weights or {}
        self.shared = shared

    def read(self, snapshots: Snapshots) -> list[Matrix]:
        """(n, w) plain numbers of each view."""
        return [view.read(snapshots) for view in self.views]

    def learn(self, raw: Sequence[Matrix]) -> Self:
        """Learn views, weights and axes from (m, w) training rows of each view."""
        placed = []
        for view, numbers in zip(self.views, raw, strict=True):
            view.learn(numbers)
            placed.append(view.place(numbers))
        axes = np.hstack(placed)
        self.limits_ = FARTHEST * axes.std(axis=0)
        axes = np.clip(axes, -self.limits_, self.limits_)
        self.spread_, self.centre_ = axes.std(axis=0), axes.mean(axis=0)
        weighed = self._weighed([view.shape[1] for view in placed], axes - self.centre_)  # (a, m)
        centred = (axes - self.centre_) @ weighed
        self.variance_, turn = principal_axes(centred.T @ centred / len(centred))
        self.turn_ = weighed @ turn  # (a, m)
        return self

    def relearn(self, raw: Sequence[Matrix]) -> ClusterSpace:
        """Another space of the same views, learnt from other rows; this one does not change."""
        return ClusterSpace([copy(view) for view in self.views], self.weights, self.shared).learn(raw)

    @property
    def width(self) -> int:
        """How many principal axes vary."""
        return int((self.variance_ > FLAT).sum())

    def place(self, raw: Sequence[Matrix], dimensions: int) -> npt.NDArray[np.float32]:
        """(n, d) the first principal axes; d is `dimensions` or, where there are fewer, `width`."""
        turned = product(self._cut(raw) - self.centre_, self.turn_[:, : min(dimensions, self.width)])
        return turned.astype(np.float32)

    def transform(self, snapshots: Snapshots, dimensions: int) -> npt.NDArray[np.float32]:
        """(n, d) as `place`, in blocks of rows."""
        if len(snapshots) <= ROWS_AT_ONCE:
            return self.place(self.read(snapshots), dimensions)
        blocks = [
            self.place(self.read(snapshots.take(np.arange(low, min(low + ROWS_AT_ONCE, len(snapshots))))), dimensions)
            for low in range(0, len(snapshots), ROWS_AT_ONCE)
        ]
        return np.concatenate(blocks)

    def named(self, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        """(n, a) the axes of the views before they are weighted and rotated, in the order of `named_dimensions`."""
        return self._cut(self.read(snapshots)).astype(np.float32)

    @property
    def named_dimensions(self) -> list[Dimension]:
        """(a,) what the axes of the views are."""
        return [dimension for view in self.views for dimension in view.dimensions]

    def to_dict(self) -> dict[str, Any]:
        """The fitted state as JSON-ready data; numbers survive exactly."""
        learnt = {name: getattr(self, f"{name}_").tolist() for name in LEARNT}
        return {
            "views": [{"kind": view.kind, **view.to_dict()} for view in self.views if view.kind != "embedding"],
            "embedding": [view.to_dict() for view in self.views if view.kind == "embedding"],
            "weights": self.weights,
            "shared": self.shared,
            **learnt,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], embedder: Any = None) -> Self:
        """The inverse of `to_dict`; an embedding view needs its encoder, which is saved separately."""
        views: list[ClusterView] = [KINDS[view["kind"]].from_dict(view) for view in data["views"]]
        views += [EmbeddingView.from_dict(view, embedder) for view in data["embedding"]]
        space = cls(views, data["weights"], data["shared"])
        for name in LEARNT:
            setattr(space, f"{name}_", np.array(data[name], float))
        space.turn_ = space.turn_.reshape(len(space.centre_), len(space.variance_))
        return space

    def _cut(self, raw: Sequence[Matrix]) -> Matrix:
        """(n, a) the views' axes side by side, far values as far as the limit."""
        axes = np.hstack([view.place(numbers) for view, numbers in zip(self.views, raw, strict=True)])
        return np.clip(axes, -self.limits_, self.limits_)

    def _weighed(self, widths: Sequence[int], centred: Matrix) -> Matrix:
        """(a, m) factors that give each view, or what columns agree on, its weight as variance."""
        owner = np.repeat(np.arange(len(widths)), widths)  # (a,) the view of each axis
        kinds = np.array([self.views[view].kind for view in owner], dtype=object)
        agreed = agreed_axes(owner[kinds == "composition"], centred[:, kinds == "composition"]) if self.shared else None
        variance, parts = centred.var(axis=0), []
        for kind in dict.fromkeys(view.kind for view in self.views):
            share = self.weights.get(kind, 1.0)
            if kind == "composition" and agreed is not None:
                turned = centred[:, kinds == kind] @ agreed
                part = np.zeros((len(owner), agreed.shape[1]))
                part[kinds == kind] = agreed * np.sqrt(share / turned.var(axis=0).sum())
                parts.append(part)
                continue
            views = [v for v in np.unique(owner[kinds == kind]) if variance[owner == v].sum() > FLAT]
            for view in views:
                scale = np.sqrt(share / len(views) / variance[owner == view].sum())
                parts.append(np.eye(len(owner))[:, owner == view] * scale)
        return np.hstack(parts) if parts else np.zeros((len(owner), 0))


def agreed_axes(owner: npt.NDArray[np.int64], centred: Matrix) -> Matrix | None:
    """(a, m) axes that two or more views agree on; None where there are none.

    Args:
        owner: (a,) the view of each axis.
        centred: (n, a) axes.
    """
    whitened = []
    for view in np.unique(owner):
        mine = np.eye(len(owner))[:, owner == view]
        covariance = centred[:, owner == view].T @ centred[:, owner == view] / len(centred)
        variance, axes = principal_axes(covariance)
        varying = variance > FLAT
        whitened.append(mine @ (axes[:, varying] / np.sqrt(variance[varying])))
    if len(whitened) < 2:
        return None
    white = np.hstack(whitened)
    variance, axes = principal_axes(white.T @ (centred.T @ centred / len(centred)) @ white)
    agreed = variance > 1 + AGREED * np.sqrt(len(owner) / len(centred))
    return white @ axes[:, agreed] if agreed.any() else None

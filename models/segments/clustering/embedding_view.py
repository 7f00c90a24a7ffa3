"""A view of an encoder's embeddings for clustering: their principal axes."""

from __future__ import annotations

from typing import Any, Self

import numpy as np

from features.journeys.journeys import Snapshots
from models.segments.clustering.views import FLAT, Dimension, Matrix, principal_axes, product
from models.sequence.embedder import Embedder, standardize

MOST_AXES = 6


class EmbeddingView:
    """The first principal axes of standardize embeddings, named by their numbers.

    Args:
        embedder: fitted on training journeys.
        most_axes: how many principal axes are kept.
    """

    kind = "embedding"

    def __init__(self, embedder: Embedder, most_axes: int = MOST_AXES) -> None:
        self.embedder = embedder
        self.most_axes = most_axes

    def read(self, snapshots: Snapshots) -> Matrix:
        """(n, e) embeddings."""
        return self.embedder.embed(snapshots).astype(np.float64)

    def learn(self, raw: Matrix) -> None:
        """Learn mean, spread and principal axes."""
        self.mean_, spread = raw.mean(axis=0), raw.std(axis=0)
        self.spread_ = np.where(spread > FLAT, spread, np.inf)  # a constant unit stays at 0
        x = standardize(raw, self.mean_, self.spread_)
        _, axes = principal_axes(x.T @ x / len(x))
        self.axes_ = axes[:, : self.most_axes]

    def place(self, raw: Matrix) -> Matrix:
        """(n, axes)."""
        return product(standardize(raw, self.mean_, self.spread_), self.axes_)

    @property
    def dimensions(self) -> list[Dimension]:
        """One for each axis."""
        words = "what the encoder of journeys sees"
        return [Dimension(f"embedding {axis + 1}", words, self.kind) for axis in range(self.axes_.shape[1])]

    def to_dict(self) -> dict[str, Any]:
        """The fitted state as JSON-ready data, without the encoder."""
        return {
            "version": self.embedder.version,
            "mean": self.mean_.tolist(),
            "spread": [None if np.isinf(s) else s for s in self.spread_.tolist()],
            "axes": self.axes_.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any], embedder: Embedder) -> Self:
        """The inverse of `to_dict`."""
        axes = np.array(data["axes"], float)
        view = cls(embedder, axes.shape[1])
        view.mean_, view.axes_ = np.array(data["mean"], float), axes
        view.spread_ = np.array([np.inf if s is None else s for s in data["spread"]], float)
        return view

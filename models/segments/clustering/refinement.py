"""Centres of all customers from partial results: further steps of k-means and of a mixture, wherever the points lie.

    points = LocalPoints(space.transform(everyone, 3))
    clustering, sizes = refined(clustering, points)

Number and method are chosen on a sample that one machine fits (`models.segments.clustering.clusters`); the centres need
not stay those of the sample. A step asks each part for its moments, adds them up, and moves the centres (Lloyd 1982) or
the components (Dempster, Laird & Rubin 1977). Parts may lie anywhere, on a cluster too: what they say is small and adds
up.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial, reduce
from typing import Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from features.journeys.event_log import merged
from models.segments.clustering.algorithms import SMALLEST_VARIANCE, Clustering, Points, levels, whitenings
from models.segments.clustering.views import Matrix

T = TypeVar("T")
Counts = npt.NDArray[np.int64]

MOST_STEPS = 30
STILL = 1e-4  # standard deviations of the space: centres that move less have settled
NOBODY = 1e-9  # a smaller share of the points tells nothing about where a cluster is
POINTS_AT_ONCE = 1 << 16


class PointParts(Protocol):
    """Points in parts."""

    def total(self, function: Callable[[Points], T]) -> T:
        """The merged result (`features.journeys.event_log.merged`) of a function over all parts; one part at least.

        Args:
            function: of (n, d) points; of a module, or a partial of one, so that it can travel.
        """
        ...


@dataclass(frozen=True)
class LocalPoints:
    """Points of this machine.

    Attributes:
        points: (n, d).
    """

    points: Points

    def total(self, function: Callable[[Points], T]) -> T:
        """See `PointParts.total`."""
        parts = (self.points[low : low + POINTS_AT_ONCE] for low in range(0, max(len(self.points), 1), POINTS_AT_ONCE))
        return reduce(merged, map(function, parts))


@dataclass(frozen=True)
class ClusterMoments:
    """What a step needs of a part; those of all parts add up.

    Attributes:
        n: points.
        weight: (k,) of each cluster: how many points, or how much of them.
        sums: (k, d) of weighted points.
        products: (k, d, d) of a mixture, else (k, 0, 0).
        total: (d,) of all points.
        squares: of all points' lengths.
    """

    n: int
    weight: Matrix
    sums: Matrix
    products: Matrix
    total: Matrix
    squares: float

    def __add__(self, other: ClusterMoments) -> ClusterMoments:
        return ClusterMoments(*(getattr(self, name) + getattr(other, name) for name in self.__dataclass_fields__))

    @property
    def variance(self) -> float:
        """Of the space, the mean over its axes."""
        mean = self.total / max(self.n, 1)
        return float(self.squares / max(self.n, 1) - mean @ mean) / len(mean)


def moments(points: Points, clustering: Clustering) -> ClusterMoments:
    """Of (n, d) points, each with its nearest centre, or spread over the components by how probable they are."""
    x, k = points.astype(np.float64), clustering.n_clusters
    total, squares = x.sum(axis=0), float((x * x).sum())
    if clustering.method == "mixture":
        share = clustering.memberships(points)
        products = np.stack([(x * share[:, [cluster]]).T @ x for cluster in range(k)])
        return ClusterMoments(len(x), share.sum(axis=0), share.T @ x, products, total, squares)
    place = clustering.assign(points)
    member = (place[:, None] == np.arange(k)).astype(np.float64)  # (n, k)
    sums, weight = member.T @ x, member.sum(axis=0)
    return ClusterMoments(len(x), weight, sums, np.zeros((k, 0, 0)), total, squares)


def sizes(points: Points, clustering: Clustering) -> Counts:
    """(k,) how many of the points each cluster has."""
    return np.bincount(clustering.assign(points), minlength=clustering.n_clusters).astype(np.int64)


def refined(clustering: Clustering, points: PointParts, most_steps: int = MOST_STEPS) -> tuple[Clustering, Counts]:
    """Steps over all points until the centres stand still, and (k,) the points of each cluster at the end.

    A clustering by density has no centres; it stays as it is.

    Args:
        clustering: where to begin.
        points: all of them.
        most_steps: after so many it is left as it is.
    """
    for _ in range(0 if clustering.method == "density" else most_steps):
        found = points.total(partial(moments, clustering=clustering))
        after = moved(clustering, found)
        away = np.abs(after.arrays["centres"] - clustering.arrays["centres"]).max()
        clustering = after
        if away <= STILL * np.sqrt(max(found.variance, 0.0)):
            break
    return clustering, points.total(partial(sizes, clustering=clustering))


def moved(clustering: Clustering, found: ClusterMoments) -> Clustering:
    """The clustering after one step; a cluster that nobody is near stays where it is."""
    near = found.weight > NOBODY * found.n
    weight = np.where(near, found.weight, 1.0)[:, None]
    centres = np.where(near[:, None], found.sums / weight, clustering.arrays["centres"])
    if clustering.method == "kmeans":
        return Clustering("kmeans", {"centres": centres})
    spread = found.products / weight[:, :, None] - centres[:, :, None] * centres[:, None, :]
    floor = max(SMALLEST_VARIANCE * found.variance, 1e-9)
    whitening = clustering.arrays["whitening"].copy()
    whitening[near] = whitenings(spread[near] + floor * np.eye(centres.shape[1]))
    arrays = {"centres": centres, "whitening": whitening, "level": levels(found.weight / found.n, whitening)}
    return Clustering("mixture", arrays)

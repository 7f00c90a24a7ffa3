"""Centres of all customers from partial results: further steps of k-means or of a mixture, part by part.

    points = LocalPoints(space.transform(everyone, 3))
    clustering, sizes = refined(clustering, points)

Number and method are chosen on a sample (`models.segments.clustering.clusters`); the centres are then moved to those of
all customers. A step adds up the moments of all parts and moves the centres (Lloyd 1982) or the components (Dempster,
Laird & Rubin 1977). Parts can lie on a cluster of machines, because moments are small and add up exactly as rows do.
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
SETTLED = 1e-4  # standard deviations of the space: centres that move less have converged
EMPTY = 1e-9  # a cluster with a smaller share of the points stays where it is
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
    """What a step needs of a part; the moments of parts add up.

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
    """Of (n, d) points: each in its nearest cluster, or spread over a mixture's components by their probability."""
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
    """Steps over all points until the centres converge, and (k,) the points of each cluster at the end.

    A clustering by density has no centres and does not change.

    Args:
        clustering: where to begin.
        points: all of them.
        most_steps: the end where the centres have not converged.
    """
    for _ in range(0 if clustering.method == "density" else most_steps):
        total_moments = points.total(partial(moments, clustering=clustering))
        after = moved(clustering, total_moments)
        shift = np.abs(after.arrays["centres"] - clustering.arrays["centres"]).max()
        clustering = after
        if shift <= SETTLED * np.sqrt(max(total_moments.variance, 0.0)):
            break
    return clustering, points.total(partial(sizes, clustering=clustering))


def moved(clustering: Clustering, total_moments: ClusterMoments) -> Clustering:
    """The clustering after one step; a cluster without points stays where it is."""
    near = total_moments.weight > EMPTY * total_moments.n
    weight = np.where(near, total_moments.weight, 1.0)[:, None]
    centres = np.where(near[:, None], total_moments.sums / weight, clustering.arrays["centres"])
    if clustering.method == "kmeans":
        return Clustering("kmeans", {"centres": centres})
    spread = total_moments.products / weight[:, :, None] - centres[:, :, None] * centres[:, None, :]
    floor = max(SMALLEST_VARIANCE * total_moments.variance, 1e-9)
    whitening = clustering.arrays["whitening"].copy()
    whitening[near] = whitenings(spread[near] + floor * np.eye(centres.shape[1]))
    arrays = {
        "centres": centres,
        "whitening": whitening,
        "level": levels(total_moments.weight / total_moments.n, whitening),
    }
    return Clustering("mixture", arrays)

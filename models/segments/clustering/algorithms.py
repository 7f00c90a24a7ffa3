"""Clusterings of points: fitted by scikit-learn, assigned without it.

`fit_clustering` fits k-means, a Gaussian mixture or clusters by density (HDBSCAN: Campello, Moulavi & Sander 2013). A
new point goes to the nearest centre, to the most probable component, or to the cluster of the nearest core point. Sums
run in one order whatever the number of points, so that one point alone gets the same cluster as in a batch.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import as_readonly
from models.segments.clustering.kernels import squared_distances
from models.segments.clustering.views import Matrix, product

Method = Literal["kmeans", "mixture", "density"]
METHODS: tuple[Method, ...] = ("kmeans", "mixture", "density")
Points = npt.NDArray[np.float32]
Arrays = dict[str, Matrix]

MOST_CORES = 2_000  # labelled points that a density-based clustering keeps
ROWS_AT_ONCE = 4_096
SMALLEST_VARIANCE = 1e-3  # added to a component's, in units of the space's mean variance


@dataclass(frozen=True)
class Clustering:
    """A fitted clustering of a space with d axes.

    Attributes:
        method: which of `METHODS`.
        arrays: of k-means `centres` (k, d); of a mixture `centres`, `whitening` (k, d, d) and `level` (k,), the log of
            weight over volume; by density `cores` (c, d) and `labels` (c,).
    """

    method: Method
    arrays: Arrays

    @property
    def n_clusters(self) -> int:
        """How many clusters there are."""
        if self.method == "density":
            return int(self.arrays["labels"].max()) + 1
        return len(self.arrays["centres"])

    def distances(self, points: Points) -> Matrix:
        """(n, k) to the centre (a mixture: in standard deviations of the component), by density to the nearest core."""
        return np.sqrt(self._squares(points))

    def assign(self, points: Points) -> npt.NDArray[np.int32]:
        """(n,) the cluster of each point."""
        squares = self._squares(points)
        if self.method == "mixture":
            squares = squares - 2 * self.arrays["level"]
        return np.asarray(squares.argmin(axis=1), np.int32)

    def memberships(self, points: Points) -> Matrix:
        """(n, k) of a mixture: how probable each component is for each point; rows sum to 1."""
        odds = self.arrays["level"] - 0.5 * self._squares(points)
        share = np.exp(odds - odds.max(axis=1, keepdims=True))
        return np.asarray(share / share.sum(axis=1, keepdims=True))

    def reordered(self, order: npt.NDArray[Any]) -> Clustering:
        """The same clusters renumbered: cluster i was cluster `order[i]`."""
        if self.method == "density":
            places = np.argsort(order).astype(np.float64)
            labels = places[self.arrays["labels"].astype(np.int64)]
            return Clustering(self.method, {**self.arrays, "labels": labels})
        return Clustering(self.method, {name: values[order] for name, values in self.arrays.items()})

    def _squares(self, points: Points) -> Matrix:
        """(n, k) squared distances."""
        x, out = points.astype(np.float64), np.empty((len(points), self.n_clusters))
        if self.method == "density":
            for low in range(0, len(x), ROWS_AT_ONCE):
                out[low : low + ROWS_AT_ONCE] = self._to_cores(x[low : low + ROWS_AT_ONCE])
            return out
        if self.method == "kmeans":
            squared_distances(out, as_readonly(x, np.float64), as_readonly(self.arrays["centres"], np.float64))
            return out
        for cluster, centre in enumerate(self.arrays["centres"]):
            offsets = product(x - centre, self.arrays["whitening"][cluster])
            out[:, cluster] = product(offsets * offsets, np.ones((offsets.shape[1], 1)))[:, 0]
        return out

    def _to_cores(self, x: Matrix) -> Matrix:
        squares = np.zeros((len(x), len(self.arrays["cores"])))
        for axis in range(x.shape[1]):
            distances = x[:, axis : axis + 1] - self.arrays["cores"][:, axis]
            squares += distances * distances
        labels = self.arrays["labels"]
        return np.column_stack([squares[:, labels == cluster].min(axis=1) for cluster in range(self.n_clusters)])


def fit_clustering(
    points: Points, method: Method, k: int, seed: int, restarts: int = 10, iterations: int = 200
) -> Clustering | None:
    """Cluster (n, d) points; None where there are fewer than two clusters by density.

    Args:
        points: rows of the space.
        method: which of `METHODS`.
        k: clusters; by density a cluster has at least the share 1 / (8 k) of the points, and their number may differ.
        seed: of the restarts.
        restarts: the best is kept.
        iterations: of a mixture, at most.
    """
    if method == "kmeans":
        return _kmeans(points, k, seed, restarts)
    return _mixture(points, k, seed, restarts, iterations) if method == "mixture" else _density(points, k, seed)


def _kmeans(points: Points, k: int, seed: int, restarts: int) -> Clustering:
    from sklearn.cluster import KMeans  # which only a fit needs

    fit = KMeans(k, n_init=restarts, random_state=seed, tol=1e-6).fit(points.astype(np.float64))
    return Clustering("kmeans", {"centres": np.asarray(fit.cluster_centers_, np.float64)})


def _mixture(points: Points, k: int, seed: int, restarts: int, iterations: int) -> Clustering:
    """Full covariances; k-means gives the start, because the likelihood has many local maxima."""
    from sklearn.mixture import GaussianMixture

    x = points.astype(np.float64)
    start = _kmeans(points, k, seed, restarts).arrays["centres"]
    floor = SMALLEST_VARIANCE * float(x.var(axis=0).mean())
    fit = GaussianMixture(k, means_init=start, reg_covar=max(floor, 1e-9), max_iter=iterations, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # a mixture that has not converged is still a clustering; its stability is measured
        fit.fit(x)
    whitening = np.asarray(fit.precisions_cholesky_, np.float64)  # (k, d, d)
    arrays = {"centres": np.asarray(fit.means_), "whitening": whitening, "level": levels(fit.weights_, whitening)}
    return Clustering("mixture", arrays)


def whitenings(covariances: Matrix) -> Matrix:
    """(k, d, d) factors W of the inverse covariances, W Wᵀ = Σ⁻¹: (x − centre) W has unit covariance."""
    return np.stack([np.linalg.inv(np.linalg.cholesky(covariance)).T for covariance in covariances])


def levels(weights: Matrix, whitening: Matrix) -> Matrix:
    """(k,) the log of weight over volume."""
    volumes = np.log(np.diagonal(whitening, axis1=1, axis2=2)).sum(axis=1)
    return np.asarray(np.log(np.maximum(weights, 1e-12)) + volumes)


def _density(points: Points, k: int, seed: int) -> Clustering | None:
    from sklearn.cluster import HDBSCAN

    x = points.astype(np.float64)
    fit = HDBSCAN(min_cluster_size=max(5, len(x) // (8 * k)), min_samples=10, copy=True).fit(x)
    if fit.labels_.max() < 1:
        return None
    inside = np.flatnonzero(fit.labels_ >= 0)
    if len(inside) > MOST_CORES:
        inside = np.sort(np.random.default_rng(seed).choice(inside, MOST_CORES, replace=False))
    labels = np.unique(fit.labels_[inside], return_inverse=True)[1]
    return Clustering("density", {"cores": x[inside], "labels": labels.astype(np.float64)})

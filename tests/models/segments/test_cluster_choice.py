"""The choice of number and method by stability, and the clusterings that numpy assigns by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import multivariate_normal
from sklearn.cluster import KMeans
from sklearn.metrics import adjusted_rand_score
from sklearn.mixture import GaussianMixture

from models.segments.clustering.algorithms import METHODS, Clustering, fit_clustering
from models.segments.clustering.choice import BootstrapSamples, Candidate, ChoiceLimits, choose, poisson_draws
from models.segments.clustering.space import ClusterSpace
from models.segments.clustering.views import Dimension


class Plain:
    """A view whose numbers are its axes."""

    kind = "behaviour"

    def read(self, snapshots: object) -> np.ndarray:
        raise AssertionError

    def learn(self, raw: np.ndarray) -> None:
        self.width = raw.shape[1]

    def place(self, raw: np.ndarray) -> np.ndarray:
        return raw

    @property
    def dimensions(self) -> list[Dimension]:
        return [Dimension(f"x{i}", "", self.kind) for i in range(self.width)]


def blobs(n: int, centres: list[tuple[float, float]], seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    label = rng.integers(0, len(centres), n)
    return np.array(centres)[label] + rng.normal(0, 0.3, (n, 2)), label


FOUR = [(0.0, 0.0), (4.0, 0.0), (0.0, 4.0), (5.0, 5.0)]


def samples(x: np.ndarray, limits: ChoiceLimits) -> BootstrapSamples:
    names = np.array([f"c{i}" for i in range(len(x))], object)
    space = ClusterSpace([Plain()]).learn([x])
    return BootstrapSamples({"tabular": space}, {"tabular": [x]}, names, limits)


def test_the_true_number_is_the_most_stable() -> None:
    x, _ = blobs(400, FOUR)
    candidates = [Candidate("tabular", "kmeans", 2, k) for k in range(2, 8)]
    best, table = choose(samples(x, ChoiceLimits(fewest=2, most=7)), candidates, rounds=6)
    assert best.segments == 4
    chosen = table[table["chosen"]].iloc[0]
    assert chosen["stability"] > 0.99
    assert chosen["stability_low"] <= chosen["stability"] <= 1
    assert (table.loc[~table["chosen"], "why_not"] != "").all()


def test_sizes_rule_candidates_out() -> None:
    x, _ = blobs(400, FOUR)
    two, four = (Candidate("tabular", "kmeans", 2, k) for k in (2, 4))
    best, table = choose(samples(x, ChoiceLimits(fewest=2, most=6)), [two, four], 3)
    assert best == four
    assert table.loc[table["k"] == 2, "why_not"].iloc[0].startswith("its largest segment has")
    _, table = choose(
        samples(x, ChoiceLimits(fewest=2, most=6, smallest_share=0.24, largest_share=0.8)), [two, four], 3
    )
    assert table.loc[table["k"] == 4, "why_not"].iloc[0].startswith("its smallest segment has")
    best, table = choose(samples(x, ChoiceLimits(fewest=2, most=6)), [two], 3)
    assert best == two  # nothing else is there: better than none
    assert table["chosen"].tolist() == [True]


def test_draws_are_poisson_and_of_the_customer_alone() -> None:
    hashes = np.random.default_rng(0).integers(0, 2**61, 40_000).astype(np.uint64)
    draws = poisson_draws(hashes, 3)
    assert draws.mean() == pytest.approx(1, abs=0.02)
    assert draws.var() == pytest.approx(1, abs=0.04)
    assert (draws[100:200] == poisson_draws(hashes[100:200], 3)).all()
    assert np.corrcoef(draws, poisson_draws(hashes, 4))[0, 1] == pytest.approx(0, abs=0.02)


def test_kmeans_assigns_as_scikit_learn() -> None:
    x, _ = blobs(300, FOUR)
    x = x.astype(np.float32)
    found = fit_clustering(x, "kmeans", 5, seed=0)
    assert found is not None
    theirs = KMeans(5, n_init=10, random_state=0, tol=1e-6).fit(x.astype(float))
    assert adjusted_rand_score(found.assign(x), theirs.labels_) == 1
    np.testing.assert_allclose(found.distances(x).min(axis=1), theirs.transform(x.astype(float)).min(axis=1))


def test_a_mixture_assigns_as_scikit_learn() -> None:
    x = blobs(400, FOUR)[0].astype(np.float32)
    found = fit_clustering(x, "mixture", 4, seed=0)
    assert found is not None
    theirs = GaussianMixture(4, means_init=found.arrays["centres"], random_state=0).fit(x.astype(float))
    assert adjusted_rand_score(found.assign(x), theirs.predict(x.astype(float))) == 1
    # the posterior's ranking, by hand, from what was saved
    covariance = [np.linalg.inv(w @ w.T) for w in found.arrays["whitening"]]
    volume = [np.log(np.diag(w)).sum() for w in found.arrays["whitening"]]
    weight = np.exp(found.arrays["level"] - volume)
    density = [
        w * multivariate_normal(m, c).pdf(x)
        for w, m, c in zip(weight, found.arrays["centres"], covariance, strict=True)
    ]
    assert (np.argmax(density, axis=0) == found.assign(x)).all()


def test_density_keeps_cores_and_takes_the_nearest() -> None:
    x, label = blobs(400, FOUR)
    x = x.astype(np.float32)
    found = fit_clustering(x, "density", 4, seed=0)
    assert found is not None
    assert found.n_clusters == 4
    assert adjusted_rand_score(found.assign(x), label) > 0.99
    assert found.assign(np.array([[4.2, 0.1]], np.float32)) == found.assign(np.array([[4.0, 0.0]], np.float32))
    one = np.random.default_rng(0).normal(0, 1, (300, 2)).astype(np.float32)
    noise = fit_clustering(one, "density", 4, seed=0)
    assert noise is None or noise.n_clusters >= 2


@pytest.mark.parametrize("method", METHODS)
def test_one_point_alone_and_another_order(method: str) -> None:
    x = blobs(300, FOUR)[0].astype(np.float32)
    found = fit_clustering(x, method, 4, seed=0)  # type: ignore[arg-type]
    assert found is not None
    together, distances = found.assign(x), found.distances(x)
    for row in range(0, 300, 17):
        assert found.assign(x[row : row + 1])[0] == together[row]
        assert (found.distances(x[row : row + 1])[0] == distances[row]).all()
    order = np.array([2, 0, 3, 1])
    turned = found.reordered(order)
    assert (order[turned.assign(x)] == together).all()
    assert (turned.distances(x) == distances[:, order]).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(0, 1000))
def test_distances_never_depend_on_the_batch(n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.normal(0, 1, (n, 3)).astype(np.float32)
    clustering = Clustering("kmeans", {"centres": rng.normal(0, 1, (4, 3))})
    some = rng.integers(0, n, 5)
    assert (clustering.distances(x)[some] == clustering.distances(x[some])).all()

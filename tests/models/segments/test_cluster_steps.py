"""Centres from partial results: the same wherever the points lie, and those that scikit-learn finds on all of them."""

from __future__ import annotations

from functools import partial
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from sklearn.cluster import KMeans
from sklearn.mixture import GaussianMixture

from features.journeys.event_log import merged
from features.journeys.packing import pack
from features.simulation.simulator import SCHEMA, simulate
from models.segments.clustering.algorithms import Clustering, Points, fit_clustering, levels, whitenings
from models.segments.clustering.clusters import ClusterSegments, ClusterSettings
from models.segments.clustering.refinement import ClusterMoments, LocalPoints, moments, moved, refined, sizes


@pytest.fixture(scope="module")
def points() -> Points:
    """Four clouds, of which one is long and thin."""
    rng = np.random.default_rng(0)
    middles = np.array([[0, 0, 0], [4, 0, 1], [0, 5, 0], [4, 4, -3]], float)
    spreads = np.array([[1, 1, 1], [2.5, 0.3, 0.5], [0.7, 0.7, 0.7], [1, 0.5, 1]])
    which = rng.integers(0, 4, 6000)
    found: npt.NDArray[np.float32] = rng.normal(middles[which], spreads[which]).astype(np.float32)
    return found


def begun(points: Points, method: str) -> Clustering:
    """What a sample would have given."""
    found = fit_clustering(points[:300], method, 4, seed=0)  # type: ignore[arg-type]
    assert found is not None
    return found


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_moments_of_parts_add_up(points: Points, method: str) -> None:
    clustering = begun(points, method)
    whole = moments(points, clustering)
    for cuts in ([0, 1, 17, 6000], [0, 3000, 6000]):
        parts = [moments(points[low:high], clustering) for low, high in pairwise(cuts)]
        found = parts[0]
        for part in parts[1:]:
            found = merged(found, part)
        for name in ClusterMoments.__dataclass_fields__:
            assert np.allclose(getattr(found, name), getattr(whole, name), rtol=1e-12, atol=1e-9), name
    assert whole.n == 6000
    assert whole.weight.sum() == pytest.approx(6000)
    assert whole.variance == pytest.approx(points.astype(float).var(axis=0).mean())


def test_a_step_of_means_is_lloyds(points: Points) -> None:
    clustering = begun(points, "kmeans")
    place = clustering.assign(points)
    wanted = np.stack([points[place == cluster].astype(float).mean(axis=0) for cluster in range(4)])
    assert np.allclose(moved(clustering, moments(points, clustering)).arrays["centres"], wanted, atol=1e-12)


def test_means_end_where_scikit_learn_ends(points: Points) -> None:
    clustering = begun(points, "kmeans")
    found, counts = refined(clustering, LocalPoints(points), most_steps=200)
    wanted = KMeans(4, init=clustering.arrays["centres"], n_init=1, tol=1e-8).fit(points.astype(float))
    assert np.allclose(found.arrays["centres"], wanted.cluster_centers_, atol=0.01)
    assert np.abs(clustering.arrays["centres"] - wanted.cluster_centers_).max() > 0.03  # the sample's were elsewhere
    assert counts.tolist() == np.bincount(found.assign(points)).tolist()


def test_a_step_of_a_mixture_is_scikit_learns(points: Points) -> None:
    weights, means = np.array([0.2, 0.3, 0.25, 0.25]), points[[5, 900, 31, 77]].astype(float)
    precisions = np.stack([np.diag([1.0, 0.5, 2.0]) + 0.1 * k for k in range(4)])
    whitening = np.linalg.cholesky(precisions)
    clustering = Clustering("mixture", {"centres": means, "whitening": whitening, "level": levels(weights, whitening)})
    floor = 1e-3 * points.astype(float).var(axis=0).mean()
    model = GaussianMixture(
        4, weights_init=weights, means_init=means, precisions_init=precisions, max_iter=1, reg_covar=floor
    )
    with pytest.warns(UserWarning, match="converge"):
        model.fit(points.astype(float))
    found = moved(clustering, moments(points, clustering))
    assert np.allclose(found.arrays["centres"], model.means_, atol=1e-9)
    inverse = np.stack([one @ one.T for one in found.arrays["whitening"]])
    assert np.allclose(inverse, model.precisions_, rtol=1e-6, atol=1e-9)
    assert np.allclose(found.memberships(points), model.predict_proba(points.astype(float)), atol=1e-8)
    assert np.allclose(
        whitenings(np.linalg.inv(inverse)) @ np.swapaxes(whitenings(np.linalg.inv(inverse)), 1, 2), inverse
    )


@pytest.mark.parametrize("method", ["kmeans", "mixture"])
def test_no_difference_where_points_lie(points: Points, method: str) -> None:
    class Apart:
        def total(self, function):  # type: ignore[no-untyped-def]
            parts = [function(part) for part in np.array_split(points[::-1], 23)]
            found = parts[0]
            for part in parts[1:]:
                found = merged(found, part)
            return found

    clustering = begun(points, method)
    here, there = refined(clustering, LocalPoints(points)), refined(clustering, Apart())
    for name, values in here[0].arrays.items():
        assert np.allclose(values, there[0].arrays[name], atol=1e-9), name
    assert here[1].tolist() == there[1].tolist()


def test_density_has_no_centres_to_move(points: Points) -> None:
    clustering = begun(points, "density")
    found, counts = refined(clustering, LocalPoints(points))
    assert found is clustering
    assert counts.sum() == 6000


def test_a_cluster_that_nobody_is_near_stays(points: Points) -> None:
    centres = np.vstack([points[:2].astype(float), [[1e6, 1e6, 1e6]]])
    found, counts = refined(Clustering("kmeans", {"centres": centres}), LocalPoints(points))
    assert found.arrays["centres"][2].tolist() == [1e6] * 3
    assert counts[2] == 0
    begin = begun(points, "mixture").arrays
    far = {**begin, "centres": np.vstack([begin["centres"][:3], [[1e6, 1e6, 1e6]]])}
    found, counts = refined(Clustering("mixture", far), LocalPoints(points), most_steps=3)
    assert found.arrays["centres"][3].tolist() == [1e6] * 3
    assert np.array_equal(found.arrays["whitening"][3], begin["whitening"][3])
    assert counts[3] == 0


def test_found_segments_have_the_centres_of_everyone() -> None:
    rows = pack(simulate(n_customers=500, days=150, seed=5).events, SCHEMA).at("2024-05-01")
    settings = ClusterSettings(methods=("kmeans",), dimensions=(3,), segments=4, rounds=2, restarts=5, fit_rows=100)
    found = ClusterSegments(settings).fit(rows)
    seen = rows.take(np.flatnonzero(rows.stop > rows.start))
    points, places = LocalPoints(found.space(seen)), found.assign(seen)
    assert np.allclose(found.shares_, np.bincount(places, minlength=4) / len(places))
    step = moved(found.clustering_, points.total(partial(moments, clustering=found.clustering_)))
    assert np.abs(step.arrays["centres"] - found.clustering_.arrays["centres"]).max() < 1e-3
    sample = ClusterSegments(settings).fit(rows, everyone=lambda _: None)
    assert np.abs(sample.clustering_.arrays["centres"] - found.clustering_.arrays["centres"]).max() > 0.01
    assert points.total(partial(sizes, clustering=found.clustering_)).tolist() == np.bincount(places).tolist()

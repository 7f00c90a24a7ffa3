"""How many segments, by which method and on how many axes: the most stable choice with acceptable sizes.

Every candidate (representation, method, number of axes, number of segments) is fitted on bootstrap samples of the
customers, with axes learnt from each sample, and each fit assigns all customers. The mean adjusted Rand index (Hubert &
Arabie 1985) of all pairs of fits is the candidate's stability (Fang & Wang 2012). Stability alone favours few segments;
each segment and each axis therefore adds a little to the score, so that the finest stable partition wins.

A hash of the identifier decides how often a customer is in a sample, so the choice depends neither on the order of the
customers nor on a seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journeys.holdout import stable_groups
from models.segments.clustering.algorithms import Clustering, Method, Points, fit_clustering
from models.segments.clustering.space import ClusterSpace
from models.segments.clustering.views import Matrix

HASH = 2**61 - 1
GOLDEN, MIX_A, MIX_B = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))
SCREENING = ((2, 0.5), (4, 0.25))  # after so many rounds, this share of the candidates goes on
FEWEST_FINALISTS = 6
MARGIN = 0.1  # sizes keep this distance (a share) from the limits, because fits on other rows differ a little
LOW = 0.1  # the quantile of the pairs' indices that `stability_low` gives
UNSTABLE = 10.0  # subtracted from scores, so that no unstable candidate beats a stable one
CHOICE_RESTARTS, CHOICE_ITERATIONS = 3, 40


@dataclass(frozen=True)
class ChoiceLimits:
    """Limits of a good partition, and what a segment or an axis adds to its score; see `clusters.ClusterSettings`."""

    fewest: int = 4
    most: int = 12
    smallest_share: float = 0.02
    largest_share: float = 0.5
    stable_enough: float = 0.85
    worth_of_a_segment: float = 0.02
    worth_of_an_axis: float = 0.02


@dataclass(frozen=True, order=True)
class Candidate:
    """One way to cluster; a method by density can return another number of `segments`."""

    representation: str
    method: Method
    dimensions: int
    segments: int


@dataclass
class CandidateTrial:
    """A candidate with the sizes of its clusters of all rows, and its bootstrap rounds."""

    candidate: Candidate
    k: int
    smallest: float
    largest: float
    faults: list[str] = field(default_factory=list)
    labels: list[npt.NDArray[np.int32]] = field(default_factory=list)  # of each round: (n,)
    indices: list[float] = field(default_factory=list)  # the adjusted Rand index of each pair of rounds

    def add(self, labels: npt.NDArray[np.int32]) -> None:
        """One more round: (n,) clusters of all rows, compared with those of each round before."""
        from sklearn.metrics import adjusted_rand_score  # which only a fit needs

        self.indices += [float(adjusted_rand_score(before, labels)) for before in self.labels]
        self.labels.append(labels)

    @property
    def stability(self) -> float:
        """The mean index; NaN where nothing was fitted twice."""
        return float(np.mean(self.indices)) if self.indices else float("nan")


class BootstrapSamples:
    """Bootstrap samples of some rows in each representation.

    Args:
        spaces: fitted views by name of the representation.
        raw: what each space read of (n,) rows.
        customers: (n,) identifiers; rows of a customer are drawn together.
        limits: of a good partition.
    """

    def __init__(
        self,
        spaces: dict[str, ClusterSpace],
        raw: dict[str, list[Matrix]],
        customers: npt.NDArray[np.object_],
        limits: ChoiceLimits,
    ) -> None:
        self.spaces, self.raw, self.limits = spaces, raw, limits
        self.hashes = stable_groups(customers, HASH, 0).astype(np.uint64)
        self._all = {
            name: space.relearn(raw[name]).place(raw[name], len(space.named_dimensions) or 1)
            for name, space in spaces.items()
        }
        self._rounds: dict[tuple[str, int], tuple[Points, npt.NDArray[np.int64]]] = {}

    def trial(self, candidate: Candidate) -> CandidateTrial:
        """The candidate fitted on all rows, with the faults of its number and sizes."""
        points = self._all[candidate.representation][:, : candidate.dimensions]
        clustering = fit_clustering(points, candidate.method, candidate.segments, 0, CHOICE_RESTARTS, CHOICE_ITERATIONS)
        if clustering is None:
            return CandidateTrial(candidate, 1, 1.0, 1.0, ["it has one cluster only"])
        shares = np.bincount(clustering.assign(points), minlength=clustering.n_clusters) / len(points)
        trial = CandidateTrial(candidate, clustering.n_clusters, float(shares.min()), float(shares.max()))
        trial.faults = self._faults(trial)
        return trial

    def rounds(self, trials: Sequence[CandidateTrial], rounds: int) -> None:
        """Add bootstrap rounds to each trial until it has so many."""
        for number in range(rounds):
            for trial in trials:
                if len(trial.labels) == number and trial.k > 1:
                    trial.add(self._labels(trial.candidate, number))

    def _labels(self, candidate: Candidate, number: int) -> npt.NDArray[np.int32]:
        points, drawn = self._round(candidate.representation, number)
        points = points[:, : candidate.dimensions]
        clustering: Clustering | None = fit_clustering(
            points[drawn], candidate.method, candidate.segments, 1 + number, CHOICE_RESTARTS, CHOICE_ITERATIONS
        )
        return np.zeros(len(points), np.int32) if clustering is None else clustering.assign(points)

    def _round(self, representation: str, number: int) -> tuple[Points, npt.NDArray[np.int64]]:
        """(n, d) all rows in axes learnt on a sample, and the (m,) rows of the sample."""
        key = (representation, number)
        if key not in self._rounds:
            raw = self.raw[representation]
            drawn = np.repeat(np.arange(len(self.hashes)), poisson_draws(self.hashes, number))
            space = self.spaces[representation].relearn([numbers[drawn] for numbers in raw])
            self._rounds[key] = (space.place(raw, len(space.named_dimensions) or 1), drawn)
        return self._rounds[key]

    def _faults(self, trial: CandidateTrial) -> list[str]:
        w, faults = self.limits, []
        if not w.fewest <= trial.k <= w.most:
            faults.append(f"{trial.k} segments, not {w.fewest} to {w.most}")
        if trial.smallest < w.smallest_share * (1 + MARGIN):
            faults.append(f"its smallest segment has {trial.smallest:.1%} of the rows")
        if trial.largest > w.largest_share * (1 - MARGIN / 2):
            faults.append(f"its largest segment has {trial.largest:.0%} of the rows")
        return faults

    def score(self, trial: CandidateTrial) -> float:
        """Stability, plus what segments and axes are worth; far below zero for an unstable candidate."""
        w = self.limits
        if not trial.stability >= w.stable_enough:
            return trial.stability - UNSTABLE
        more = w.worth_of_a_segment * (trial.k - w.fewest)
        return trial.stability + more + w.worth_of_an_axis * trial.candidate.dimensions


def choose(samples: BootstrapSamples, candidates: Sequence[Candidate], rounds: int) -> tuple[Candidate, pd.DataFrame]:
    """The best candidate and the table of all.

    Candidates of acceptable sizes get a few rounds, the better ones more, the finalists all (successive halving: most
    of the time goes to candidates that can win). If none is stable enough, the most stable one wins; if none has
    acceptable sizes, the one nearest to them.

    Returns:
        The candidate, and one row each: method, representation, dimensions, k, stability, stability_low, largest_share,
        smallest_share, chosen, why_not.
    """
    trials = [samples.trial(candidate) for candidate in candidates]
    good = [trial for trial in trials if not trial.faults]
    if not good:
        good = [min(trials, key=lambda trial: _excess(trial, samples.limits))]
    for so_far, share in SCREENING:
        samples.rounds(good, min(rounds, so_far))
        good = sorted(good, key=lambda trial: -samples.score(trial))[: max(FEWEST_FINALISTS, int(share * len(good)))]
    samples.rounds(good, rounds)
    best = max(good, key=lambda trial: samples.score(trial))
    return best.candidate, _table(trials, best, samples)


def _excess(trial: CandidateTrial, limits: ChoiceLimits) -> float:
    """How far sizes and number are outside the limits."""
    number = max(limits.fewest - trial.k, trial.k - limits.most, 0)
    return number + max(limits.smallest_share - trial.smallest, 0) + max(trial.largest - limits.largest_share, 0)


def _table(trials: Sequence[CandidateTrial], best: CandidateTrial, samples: BootstrapSamples) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "method": trial.candidate.method,
                "representation": trial.candidate.representation,
                "dimensions": trial.candidate.dimensions,
                "k": trial.k,
                "stability": trial.stability,
                "stability_low": float(np.quantile(trial.indices, LOW)) if trial.indices else float("nan"),
                "largest_share": trial.largest,
                "smallest_share": trial.smallest,
                "chosen": trial is best,
                "why_not": "; ".join(trial.faults) or ("" if trial is best else _why_not(trial, best, samples)),
            }
            for trial in trials
        ]
    )


def _why_not(trial: CandidateTrial, best: CandidateTrial, samples: BootstrapSamples) -> str:
    if not trial.stability >= samples.limits.stable_enough:
        return f"stability {trial.stability:.2f} is below {samples.limits.stable_enough:g}"
    gap = samples.score(best) - samples.score(trial)
    return f"worth {gap:.2f} less, segments and axes counted"


def poisson_draws(hashes: npt.NDArray[np.uint64], number: int) -> npt.NDArray[np.int64]:
    """(n,) how often each customer is in sample `number`.

    Poisson with mean 1, the limit of drawing n of n with replacement (Oza & Russell 2001): each customer's count is
    independent of the others, as a hash needs it.
    """
    with np.errstate(over="ignore"):
        x = hashes + GOLDEN * np.uint64(number + 1)
        x = (x ^ (x >> np.uint64(30))) * MIX_A
        x = (x ^ (x >> np.uint64(27))) * MIX_B  # the mixing steps of splitmix64 (Steele et al. 2014)
        x = x ^ (x >> np.uint64(31))
    uniform = (x >> np.uint64(11)).astype(np.float64) / 2**53
    chances = np.cumsum(np.exp(-1.0) / np.cumprod(np.maximum(1.0, np.arange(12.0))))
    return np.searchsorted(chances, uniform, side="right")

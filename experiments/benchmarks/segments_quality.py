"""Are found segments true, steady and of use? Each bar with its figure.

    .venv/bin/python -m experiments.benchmarks.segments_quality                 # the bars; test rows are scored
    .venv/bin/python -m experiments.benchmarks.segments_quality --validate      # use, on validation folds inside train
    .venv/bin/python -m experiments.benchmarks.segments_quality --only simulated

*True*: on simulated journeys, agreement with the hidden kinds, against the same clustering of the true rates; beside it
the agreement of the most probable kind given all events and the whole truth but the kind, which nothing can beat that
reads events. *Steady*: on Online Retail and BPI 2012, sizes, bootstrap agreement, and who keeps the id on a refit with
another seed. *Of use*: log loss of churn and conversion by segment on later rows, against as many RFM quantile cells.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
from sklearn.metrics import adjusted_rand_score

from experiments.benchmarks.peers.coles import read_task
from features.journeys.holdout import stable_groups
from features.journeys.journeys import Snapshots
from features.simulation.simulator import Simulation, simulate
from features.simulation.truth import customer_numbers, true_beliefs
from features.simulation.world import CHANNELS, CHOICES, DAY_US, FIRST_DAY, GONE, ITEMS, tables
from models.baselines import rfm
from models.segments.clustering.algorithms import fit_clustering
from models.segments.clustering.clusters import ClusterSegments, ClusterSettings
from models.segments.clustering.views import Composition, Matrix
from models.segments.matching import match
from training.data.task_data import TaskData

TASKS = ("online_retail_churn", "bpi2012_conversion")
CUSTOMERS, DAYS = 4_000, 400
LONG = 200  # events from which on a journey says much about its kind
KINDS = ClusterSettings(segments=3, groups=("composition",), shared=True, methods=("kmeans",))
EXACT = 1e6  # events that make shares out of rates without noise
SMOOTHING = 5.0  # rows at the overall rate that each cell starts with

Places = npt.NDArray[np.int64]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=("simulated", *TASKS))
    parser.add_argument("--validate", action="store_true", help="validation folds inside train instead of test rows")
    parser.add_argument("--seed", type=int, default=7)
    arguments = parser.parse_args()
    if arguments.only in (None, "simulated"):
        simulated(arguments.seed)
    for name in TASKS:
        if arguments.only in (None, name):
            real(name, arguments.seed, arguments.validate)


def simulated(seed: int) -> None:
    """Found segments against hidden kinds."""
    simulation = simulate(CUSTOMERS, DAYS, seed)
    journeys = simulation.journeys
    snapshots = journeys.at(simulation.end)
    begun = time.perf_counter()
    clusters = ClusterSegments(KINDS.model_copy(update={"seed": seed})).fit(snapshots)
    took = time.perf_counter() - begun
    kind = hidden_kinds(simulation)
    ours = clusters.assign(snapshots)
    reference = {name: clustered_truth(raw, clusters) for name, raw in true_rates(simulation, clusters).items()}
    best = most_probable_kinds(simulation)
    long = np.diff(journeys.offsets) >= LONG
    print(
        f"simulated, seed {seed}: {CUSTOMERS:,} customers, {DAYS} days, 3 segments asked for, {took:.1f} s",
        clusters.chosen_,
    )
    print(clusters.choice.to_string(index=False))
    for label, selected in (("all customers", np.ones(len(kind), bool)), (f"{LONG} events and more", long)):
        figure, limit = (
            adjusted_rand_score(ours[selected], kind[selected]),
            adjusted_rand_score(best[selected], kind[selected]),
        )
        print(f"  {label} ({selected.sum():,}): adjusted Rand index {figure:.3f}; best from events {limit:.3f}", end="")
        print(f" ({figure / limit:.3f} of it)")
        for name, places in reference.items():
            same = adjusted_rand_score(places[selected], kind[selected])
            print(f"    the same clustering of {name}: {same:.3f}; ours is {figure / same:.3f} of it; bar ≥ .95")


def hidden_kinds(simulation: Simulation) -> Places:
    """(n_customers,) in the order of the packed log."""
    first = simulation.states[customer_numbers(simulation.journeys), 0]
    return np.asarray(tables(simulation.world).kind[first])


def most_probable_kinds(simulation: Simulation) -> Places:
    """(n_customers,) the kind that the exact filter finds most probable after the last event."""
    journeys, t = simulation.journeys, tables(simulation.world)
    day = (journeys.t[journeys.offsets[1:] - 1] - FIRST_DAY.astype(np.int64)) // DAY_US + 1
    beliefs = true_beliefs(journeys, simulation.world, np.arange(journeys.n_customers), day)
    return np.asarray(np.stack([beliefs[:, t.kind == k].sum(axis=1) for k in range(3)], axis=1).argmax(axis=1))


def true_rates(simulation: Simulation, clusters: ClusterSegments) -> dict[str, list[Matrix]]:
    """What `clusters` counts, as it would be without chance: from hidden states, averaged over each customer's days."""
    journeys, t = simulation.journeys, tables(simulation.world)
    states = simulation.states[customer_numbers(journeys), :DAYS].astype(np.int64)
    joined = (journeys.t[journeys.offsets[:-1]] - FIRST_DAY.astype(np.int64)) // DAY_US
    is_active = (np.arange(DAYS) >= joined[:, None]) & (states != GONE)
    visits = (
        np.stack([((states == s) & is_active).sum(axis=1) for s in range(len(t.rate))], axis=1) * t.rate
    )  # (n, states)
    visits += np.eye(len(t.rate))[states[np.arange(len(states)), joined]]  # the day of joining has one for sure
    exact, exposed = [], []
    for view in clusters.space_.views:
        assert isinstance(view, Composition), "the bar is about composition"
        rates, names = {"item": (t.item, ITEMS), "channel": (t.channel, CHANNELS), "touchpoint": (t.choice, CHOICES)}[
            view.column
        ]
        vocabulary = view.vocabulary_
        shares = visits @ rates / visits.sum(axis=1, keepdims=True)
        counts = np.zeros((len(visits), len(vocabulary) + 1))
        for place, name in enumerate(names):
            counts[:, vocabulary.index(name) if name in vocabulary else -1] += shares[:, place]
        exact.append(counts * EXACT)
        exposed.append(counts * view.read(journeys.at(simulation.end)).sum(axis=1, keepdims=True))
    return {"the true rates": exact, "the true rates, with as many events as each has": exposed}


def clustered_truth(raw: list[Matrix], clusters: ClusterSegments) -> Places:
    """(n,) clusters by the same procedure."""
    space = clusters.space_.relearn(raw)
    points = space.place(raw, clusters.chosen_.dimensions)
    s = clusters.settings
    clustering = fit_clustering(points, clusters.chosen_.method, clusters.chosen_.segments, s.seed, s.restarts)
    assert clustering is not None
    return clustering.assign(points).astype(np.int64)


def real(name: str, seed: int, validate: bool) -> None:
    """Sizes, steadiness and use on the rows of an experiment."""
    data = read_task(name)
    rows = latest(data.train)
    begun = time.perf_counter()
    clusters = ClusterSegments(ClusterSettings(seed=seed)).fit(rows)
    took = time.perf_counter() - begun
    print(f"\n{name}: {len(rows):,} customers, fitted in {took:.1f} s: {clusters.chosen_}")
    for segment, share in zip(clusters.segments, clusters.shares_, strict=True):
        print(f"    {segment.id} {share:6.1%}  {segment.words}")
    k = len(clusters.segments)
    print(f"  segments {k} (bar 4 to 12), largest {clusters.shares_.max():.1%} (≤ 50 %), smallest", end=" ")
    print(f"{clusters.shares_.min():.1%} (≥ 2 %)")
    chosen = clusters.choice[clusters.choice["chosen"]].iloc[0]
    print(f"  bootstrap adjusted Rand index {chosen['stability']:.3f}, low {chosen['stability_low']:.3f} (bar ≥ .8)")
    print(clusters.choice.sort_values("stability", ascending=False).head(12).to_string(index=False))
    rivals = [ClusterSegments(ClusterSettings(seed=seed + 1 + extra)) for extra in range(3)]
    fitted = (other.fit(rows, previous=clusters).report_ for other in rivals)
    shares_of_rivals = [report.kept_share for report in fitted if report is not None]
    formatted = ", ".join(f"{share:.1%}" for share in shares_of_rivals)
    print(f"  keep their id on a refit with another seed: {formatted} (bar ≥ 95 %)")
    second = ClusterSegments(ClusterSettings(seed=seed + 1)).fit(rows)
    print(f"  with another seed, not knowing of the first: {len(second.segments)} segments,", end=" ")
    print(f"{separation(clusters.assign(rows), second.assign(rows), k, len(second.segments)):.1%} after matching")
    print(
        f"  on nine tenths of the customers, ids matched: {', '.join(rival_shares(clusters, rows))} of all keep theirs"
    )
    use(data, clusters, validate)


def latest(snapshots: Snapshots) -> Snapshots:
    """The last row of each customer."""
    order = np.lexsort((snapshots.cutoff, snapshots.customer))
    last = np.append(snapshots.customer[order][1:] != snapshots.customer[order][:-1], True)
    return snapshots.take(np.sort(order[last]))


def rival_shares(clusters: ClusterSegments, rows: Snapshots) -> Iterator[str]:
    """The share of customers with the same id after refits that each lack a tenth of them."""
    ids = np.array([segment.id for segment in clusters.segments])[clusters.assign(rows)]
    for part in range(3):
        fewer = rows.take(np.flatnonzero(stable_groups(rows.customer_ids, 10, 0) != part))
        again = ClusterSegments(clusters.settings).fit(fewer, previous=clusters)
        now = np.array([segment.id for segment in again.segments])[again.assign(rows)]
        yield f"{(now == ids).mean():.1%}"


def separation(old: npt.NDArray[np.int32], new: npt.NDArray[np.int32], n_old: int, n_new: int) -> float:
    """The share of customers in the successor of their segment."""
    successor = match(old, new, n_old, n_new).new_of_old
    return float((successor[old] == new).mean())


def use(data: TaskData, clusters: ClusterSegments, validate: bool) -> None:
    """Log loss by segment and by RFM cell; the cells are split as does best on validation folds."""
    y = data.y_train.astype(float)
    ours = clusters.assign(data.train).astype(np.int64)
    cells = dict(rfm_cells(rfm(data.train), rfm(data.train), len(clusters.segments)))
    checked = {split: validation_loss(places, y, data) for split, places in cells.items()}
    best = min(checked, key=lambda split: checked[split])
    base = validation_loss(np.zeros(len(y), np.int64), y, data)
    print(f"  validation log loss: segments {validation_loss(ours, y, data):.4f}; RFM cells {best}", end=" ")
    print(
        f"{checked[best]:.4f} ({', '.join(f'{split} {loss:.4f}' for split, loss in sorted(checked.items()))})", end=""
    )
    print(f"; base rate {base:.4f}")
    if validate:
        return
    theirs = dict(rfm_cells(rfm(data.train), rfm(data.test), len(clusters.segments)))
    figures = {split: log_loss(cells[split], y, theirs[split], data.y_test) for split in cells}
    mine = log_loss(ours, y, clusters.assign(data.test).astype(np.int64), data.y_test)
    nothing = log_loss(np.zeros(len(y), np.int64), y, np.zeros(len(data.test), np.int64), data.y_test)
    print(f"  held out: segments {mine:.4f}; RFM cells {best} {figures[best]:.4f}; base rate {nothing:.4f}", end="; ")
    print(f"any split of RFM {min(figures.values()):.4f} to {max(figures.values()):.4f}; bar: lower than RFM")


def rfm_cells(train: Matrix, rows: Matrix, k: int) -> Iterator[tuple[tuple[int, int, int], Places]]:
    """Every split of k into quantiles of recency, frequency (active days) and money, with the cell of each row."""
    for r in range(1, k + 1):
        for f in range(1, k // r + 1):
            if k % (r * f) == 0:
                cell, split = np.zeros(len(rows), np.int64), (r, f, k // (r * f))
                for column, parts in zip((0, 1, 3), split, strict=True):
                    edges = np.quantile(train[:, column], np.linspace(0, 1, parts + 1)[1:-1])
                    cell = cell * parts + np.searchsorted(edges, rows[:, column], side="right")
                yield split, cell


def validation_loss(places: Places, y: Matrix, data: TaskData) -> float:
    """Mean over the folds."""
    folds = [log_loss(places[f.train], y[f.train], places[f.check], y[f.check]) for f in data.folds]
    return float(np.mean(folds))


def log_loss(train: Places, y: Matrix, rows: Places, answers: npt.NDArray[np.generic]) -> float:
    """Of the smoothed rate of each cell in training; customers in no segment get the overall rate."""
    k = int(max(train.max(), rows.max())) + 2  # the last is for those in none
    n = np.bincount(train % k, minlength=k)
    rate = (np.bincount(train % k, y, minlength=k) + SMOOTHING * y.mean()) / (n + SMOOTHING)
    p = np.clip(rate[rows % k], 1e-6, 1 - 1e-6)
    return float(-np.mean(np.where(np.asarray(answers, float) == 1, np.log(p), np.log(1 - p))))


if __name__ == "__main__":
    main()

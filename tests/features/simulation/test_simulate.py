"""Simulated journeys: the truth is exact, calibrated, knows nothing after the cutoff, and repeats itself."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow.parquet as pq
import pytest

from features.errors import ConfigError
from features.labels.churn import churn_labels
from features.labels.conversion import conversion_labels
from features.simulation import truth as simulate_truth
from features.simulation import world as simulate_world
from features.simulation.large_log import synthetic_log, write_synthetic_log
from features.simulation.simulator import LABELS, Simulation, simulate
from features.simulation.world import (
    CHANNELS,
    CHOICES,
    COUNTRIES,
    DAY_US,
    FIRST_DAY,
    GOALS,
    GONE,
    ITEMS,
    PLANS,
    RESEARCH,
    STAGES,
    STEPS,
    TOUCHPOINTS,
    Tables,
    World,
)

ATOL = 1e-9
TINY = (0, 7, 20, 33, GONE)
BOTH = ["probability_hidden", "probability_observed"]


@pytest.fixture(scope="module")
def simulation() -> Simulation:
    return simulate(n_customers=1_500, days=260, seed=11)


def label_table(simulation: Simulation, label: str, cutoffs: pd.DatetimeIndex) -> pd.DataFrame:
    settings = {**LABELS[label], "cutoffs": cutoffs, "observed_until": simulation.end}
    build = churn_labels if label == "churn" else conversion_labels
    return build(simulation.journeys, **settings)


def some_snapshots(simulation: Simulation) -> pd.DataFrame:
    ids = simulation.events["customer_id"].unique()
    return pd.DataFrame({"customer_id": ids, "cutoff": simulation.first_day + pd.Timedelta(days=200)})


# --- events ---


def test_events_are_canonical_and_in_order(simulation: Simulation) -> None:
    events = simulation.events
    assert set(events["touchpoint"]) == set(TOUCHPOINTS)
    assert (events["stage"] == events["touchpoint"].map(STAGES)).all()
    assert events["timestamp"].dtype == "datetime64[us]"
    assert (events.groupby("customer_id")["timestamp"].diff().dropna() >= pd.Timedelta(0)).all()
    assert events["timestamp"].between(simulation.first_day, simulation.end, inclusive="left").all()
    assert (events.groupby("customer_id")["touchpoint"].first() == "sign_up").all()
    assert (events["touchpoint"] == "sign_up").sum() == events["customer_id"].nunique() == 1_500
    goals = events[events["touchpoint"].isin(GOALS)]
    assert not goals.duplicated(["customer_id", "touchpoint"]).any()


def test_details_belong_to_their_touchpoints(simulation: Simulation) -> None:
    events = simulation.events
    rated = events["touchpoint"].isin(simulate_world.RATED)
    assert (events["satisfaction"].notna() == rated).all()
    assert events["satisfaction"].dropna().isin(range(1, 6)).all()
    assert (events["item"].notna() == events["touchpoint"].isin(simulate_world.ITEMED)).all()
    assert (events.loc[events["touchpoint"] == "purchase", "value"] > 0).all()
    assert (events.loc[events["touchpoint"] == "return_item", "value"] < 0).all()
    assert (events.groupby("customer_id")[["country", "plan"]].nunique() == 1).all(axis=None)
    assert (events["duration_s"] > 0).all()


def test_departures_are_final(simulation: Simulation) -> None:
    last_day = (simulation.events.groupby("customer_id")["timestamp"].max() - simulation.first_day).dt.days.to_numpy()
    left = simulation.states == GONE
    assert (left[:, 1:] >= left[:, :-1]).all()
    gone = left.any(axis=1)
    assert (last_day[gone] < left.argmax(axis=1)[gone]).all()
    joined = simulation.events.groupby("customer_id")["timestamp"].min()
    assert 0.2 < (joined > simulation.first_day + pd.Timedelta(days=90)).mean() < 0.5


def test_seed_and_number_of_customers() -> None:
    few, again, more = (simulate(n, days=60, seed=3) for n in (40, 40, 700))
    pd.testing.assert_frame_equal(few.events, again.events)
    same = more.events[more.events["customer_id"] < "c000040"]
    pd.testing.assert_frame_equal(few.events, same)
    assert not few.events.equals(simulate(40, days=60, seed=4).events)


@pytest.mark.parametrize(("customers", "days"), [(0, 30), (5, 1)])
def test_too_small_is_refused(customers: int, days: int) -> None:
    with pytest.raises(ConfigError, match="at least 1 customer and 2 days"):
        simulate(customers, days=days)


def test_save_round_trip(simulation: Simulation, tmp_path: Path) -> None:
    small = simulate(5, days=40)
    path = small.save(tmp_path / "out", labels=["churn"], cutoffs=[pd.Timestamp("2024-01-30")])
    pd.testing.assert_frame_equal(pd.read_parquet(path), small.events)
    truth = pd.read_parquet(tmp_path / "out" / "truth.parquet")
    assert list(truth.columns) == ["label", "customer_id", "cutoff", *BOTH]


# --- the filter, against a slow one written from the definition, and against paths counted one by one ---


def day_likelihood(t: Tables, events: pd.DataFrame, season: float, memory: dict[str, int]) -> npt.NDArray[np.float64]:
    """(N_HIDDEN,) chance of a customer's day, event by event; `memory` holds the last research place and the goals."""
    visits = int((events["touchpoint"] == "visit").sum())
    chance = np.exp(-t.rate * season) * (t.rate * season) ** visits  # / visits!, the same for every state
    for row in events.to_dict("records"):
        touchpoint = row["touchpoint"]
        if touchpoint in ("sign_up", "visit"):
            chance = chance * t.channel[:, CHANNELS.index(row["channel"])]
            for i, goal in enumerate(GOALS):  # each visit passes a goal by, until the one that reaches it
                chance = chance * (1 - t.goal[:, i] if goal not in memory else 1.0)
        elif touchpoint in CHOICES:
            chance = chance * t.choice[:, CHOICES.index(touchpoint)]
        elif touchpoint in RESEARCH:
            place = RESEARCH.index(touchpoint)
            if "place" in memory:
                move = {0: 0, 1: 1, 2: -1}[(place - memory["place"]) % 3]
                chance = chance * t.step[:, STEPS.index(move)]
            memory["place"] = place
        else:
            i = GOALS.index(touchpoint)
            chance = chance * t.goal[:, i] / (1 - t.goal[:, i])
            memory[touchpoint] = 1
        if pd.notna(row["item"]):
            chance = chance * t.item[:, ITEMS.index(row["item"])]
        if pd.notna(row["satisfaction"]):
            chance = chance * t.rating[:, round(row["satisfaction"]) - 1]
    return np.asarray(chance)


def likelihoods(simulation: Simulation, t: Tables, customer: str, day: int) -> list[npt.NDArray[np.float64]]:
    """The chances of each day's events, from the day of joining until before `day`."""
    events = simulation.events[simulation.events["customer_id"] == customer]
    days = (events["timestamp"] - pd.Timestamp(FIRST_DAY)).dt.days
    joined, memory, season = int(days.iloc[0]), dict[str, int](), simulation.world.season(day)
    return [day_likelihood(t, events[days == d], season[d], memory) for d in range(joined, day)]


def prior(simulation: Simulation, t: Tables, customer: str) -> npt.NDArray[np.float64]:
    first = simulation.events[simulation.events["customer_id"] == customer].iloc[0]
    kind = np.asarray(simulation.world.kind_share) * t.country[:, COUNTRIES.index(first["country"])]
    kind = kind * t.plan[:, PLANS.index(first["plan"])]
    return np.asarray(kind @ t.start / kind.sum())


def test_filter_equals_its_definition() -> None:
    simulation = simulate(n_customers=12, days=120, seed=5)
    t, day = simulate_world.tables(simulation.world), 90
    journeys = simulation.journeys
    end_us = FIRST_DAY.astype(np.int64) + day * DAY_US
    joined_by_then = np.flatnonzero(journeys.t[journeys.offsets[:-1]] < end_us)
    days = np.full(len(joined_by_then), day)
    beliefs = simulate_truth.true_beliefs(journeys, simulation.world, joined_by_then, days)
    assert len(beliefs) >= 6
    for i, belief in zip(joined_by_then.tolist(), beliefs, strict=True):
        customer = f"c{i:06d}"
        slow = prior(simulation, t, customer)
        for chance in likelihoods(simulation, t, customer, day):
            slow = (slow * chance / (slow @ chance)) @ t.transition
        np.testing.assert_allclose(belief, slow, atol=ATOL)


def test_truth_equals_a_sum_over_hidden_paths(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four days seen and two ahead, every path of hidden states that has any chance counted one by one."""
    busy = replace(World(), visits_per_day=(0.9, 1.2, 1.5))
    simulation = simulate(n_customers=4, days=400, seed=9, world=busy)
    t = tiny(simulate_world.tables(busy))
    monkeypatch.setattr(simulate_truth, "tables", lambda _: t)
    monkeypatch.setitem(LABELS["churn"], "horizon_days", 2)
    for customer in simulation.events["customer_id"].unique():
        joined = simulation.events[simulation.events["customer_id"] == customer]["timestamp"].min().floor("D")
        cutoff = joined + pd.Timedelta(days=4)
        day = (cutoff - simulation.first_day).days
        visited = likelihoods(simulation, t, customer, day)
        season = busy.season(day + 2)
        quiet = [np.exp(-t.rate * season[d] * simulate_truth._matters(t, "churn")) for d in (day, day + 1)]
        start = prior(simulation, t, customer)
        total = nothing = 0.0
        for path in itertools.product(TINY, repeat=6):
            chance = start[path[0]] * np.prod([t.transition[a, b] for a, b in itertools.pairwise(path)])
            chance *= np.prod([step[state] for step, state in zip(visited, path[:4], strict=True)])
            total += chance
            nothing += chance * quiet[0][path[4]] * quiet[1][path[5]]
        truth = simulation.truth(pd.DataFrame({"customer_id": [customer], "cutoff": [cutoff]}), "churn")
        np.testing.assert_allclose(truth["probability_observed"], nothing / total, rtol=1e-9)


def tiny(t: Tables) -> Tables:
    """The same tables, starting and staying within four states and LEFT, so that paths can be counted."""
    selected = np.array(TINY)
    transition = np.zeros_like(t.transition)
    rng = np.random.default_rng(0)
    transition[np.ix_(selected, selected)] = rng.dirichlet(np.ones(len(selected)), len(selected))
    transition[GONE] = np.eye(len(t.rate))[GONE]
    start = np.zeros_like(t.start)
    start[:, selected[:-1]] = rng.dirichlet(np.ones(len(selected) - 1), len(t.start))
    return replace(t, transition=transition, start=start)


def test_hidden_probability_equals_simulated_futures() -> None:
    """The backward recursion against futures drawn by the simulator's own chances."""
    world, rng, n = World(), np.random.default_rng(2), 40_000
    t, day = simulate_world.tables(world), 100
    season = world.season(200)
    edges = np.cumsum(t.transition, axis=1)
    for label in LABELS:
        horizon, matters = int(LABELS[label]["horizon_days"]), simulate_truth._matters(t, label)
        nothing = simulate_truth.event_free_chance(t, world, label, np.array([day]))[0]
        for start in (0, 27, 40):
            state, reached = np.full(n, start), np.zeros(n, dtype=bool)
            for d in range(day, day + horizon):
                visits = rng.poisson(t.rate[state] * season[d])
                if label == "churn":  # a purchase is one of the touches of a visit
                    bought = t.choice[state, CHOICES.index("purchase")]
                    reached |= rng.binomial(rng.poisson(t.touches * visits), bought) > 0
                else:
                    reached |= rng.binomial(visits, matters[state]) > 0
                state = (rng.random(n)[:, None] >= edges[state]).sum(axis=1)
            error = np.sqrt(nothing[start] * (1 - nothing[start]) / n)
            assert abs((~reached).mean() - nothing[start]) < 4.5 * error, (label, start)


# --- calibration and information ---


@pytest.mark.parametrize("label", list(LABELS))
def test_both_probabilities_are_calibrated(simulation: Simulation, label: str) -> None:
    cutoffs = pd.date_range("2024-03-04", "2024-08-12", freq="28D")  # horizons do not overlap
    y = label_table(simulation, label, cutoffs)
    truth = simulation.truth(y, label)
    assert truth[["customer_id", "cutoff"]].equals(y[["customer_id", "cutoff"]])
    for column in BOTH:
        p = truth[column].to_numpy()
        for rows in np.array_split(np.argsort(p, kind="stable"), 8):
            error = np.sqrt((p[rows] * (1 - p[rows])).sum()) / len(rows)
            assert abs(y["label"].to_numpy()[rows].mean() - p[rows].mean()) < 4 * error + 1e-4


@pytest.mark.parametrize("label", list(LABELS))
def test_labels_are_predictable_in_part(simulation: Simulation, label: str) -> None:
    y = label_table(simulation, label, pd.date_range("2024-06-24", "2024-08-12", freq="28D"))
    truth = simulation.truth(y, label)
    observed, hidden = (auroc(y["label"].to_numpy(), truth[c].to_numpy()) for c in reversed(BOTH))
    assert 0.72 < observed < 0.90
    assert hidden > observed


def auroc(y: npt.NDArray[np.int8], p: npt.NDArray[np.float64]) -> float:
    ranks = pd.Series(p).rank().to_numpy()
    positives = int(y.sum())
    return float((ranks[y == 1].sum() - positives * (positives + 1) / 2) / (positives * (len(y) - positives)))


@pytest.mark.parametrize("label", list(LABELS))
def test_truth_ignores_later_events(simulation: Simulation, label: str) -> None:
    rows = some_snapshots(simulation)[:300]
    whole = simulation.truth(rows, label)
    known_values = simulation.events["timestamp"] < rows["cutoff"].iloc[0]
    cut = replace(simulation, events=simulation.events[known_values].reset_index(drop=True))
    pd.testing.assert_frame_equal(cut.truth(rows, label), whole)


@pytest.mark.parametrize("label", list(LABELS))
def test_truth_keeps_row_order(simulation: Simulation, label: str) -> None:
    rows = some_snapshots(simulation).sample(100, random_state=1)
    whole = simulation.truth(rows, label)
    item = simulation.truth(rows.iloc[7:8], label)
    np.testing.assert_allclose(item[BOTH], whole.iloc[7:8][BOTH], atol=ATOL)
    assert whole["customer_id"].tolist() == rows["customer_id"].tolist()


def test_truth_after_the_goal_and_for_unknown_customers(simulation: Simulation) -> None:
    events, cutoff = simulation.events, simulation.first_day + pd.Timedelta(days=150)
    done = events[(events["touchpoint"] == "subscribe") & (events["timestamp"] < cutoff)]["customer_id"].iloc[0]
    late = events[(events["touchpoint"] == "sign_up") & (events["timestamp"] >= cutoff)]["customer_id"].iloc[0]
    rows = pd.DataFrame({"customer_id": [done, late, "nobody"], "cutoff": cutoff})
    truth = simulation.truth(rows, "conversion")
    assert (truth[BOTH].to_numpy()[0] == 0.0).all()
    assert np.isnan(truth[BOTH].to_numpy()[1:]).all()


def test_clear_errors(simulation: Simulation) -> None:
    rows = some_snapshots(simulation)[:2]
    with pytest.raises(ConfigError, match="Unknown label 'churned'"):
        simulation.truth(rows, "churned")
    for moment in ("2024-05-01 12:00", "2023-12-01", "2030-01-01"):
        with pytest.raises(ConfigError, match="no true probability"):
            simulation.truth(rows.assign(cutoff=pd.Timestamp(moment)), "churn")


def test_order_label_needs_order(simulation: Simulation) -> None:
    """Drifting and climbing customers differ in nothing that is emitted but the direction of their steps."""
    t = simulate_world.tables(simulation.world)
    drifting, climbing = slice(0, GONE, 2), slice(1, GONE, 2)
    for name in ("rate", "choice", "rating", "channel", "item"):
        np.testing.assert_array_equal(getattr(t, name)[drifting], getattr(t, name)[climbing])
    assert (t.step[drifting] != t.step[climbing]).any()
    assert (t.goal[climbing, 1] > 10 * t.goal[drifting, 1]).all()
    np.testing.assert_allclose(t.step.sum(axis=1), 1)


# --- the plain log ---


def test_synthetic_log(tmp_path: Path) -> None:
    table = synthetic_log(20_000, 300, seed=1)
    assert table.equals(synthetic_log(20_000, 300, seed=1))
    assert not table.equals(synthetic_log(20_000, 300, seed=2))
    frame = table.to_pandas()
    assert len(frame) == 20_000
    assert frame["timestamp"].is_monotonic_increasing
    assert frame["touchpoint"].nunique() == 20
    assert frame["channel"].nunique() == 6
    assert (frame["value"].notna() == (frame["touchpoint"] == "purchase")).all()
    write_synthetic_log(tmp_path / "log.parquet", 20_000, 300, seed=1)
    assert pq.read_table(tmp_path / "log.parquet").equals(table)

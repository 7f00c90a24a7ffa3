"""What journeys teach without labels: the objectives against brute force, slices, and nothing from the future."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from features.journeys.journeys import Journeys, Snapshots
from features.journeys.packing import pack
from features.sequences.sequences import SequenceFeatures, SequenceSettings
from features.simulation.simulator import simulate
from models.sequence.embedder import Embedder, plain_weights
from models.sequence.encoder import steps_of
from models.sequence.pretraining import (
    BINS,
    SHARE,
    SHORTEST,
    JourneyBatches,
    NextStep,
    all_journeys,
    coles_loss,
    length_buckets,
    next_steps,
    pretrain_encoder,
    slices,
    time_edges,
)
from models.sequence.settings import EncoderSettings, Objective

DAY_US = 86_400_000_000
CUTOFF = pd.Timestamp("2024-02-20")
SHORT = SequenceSettings(max_steps=12, min_count=5)
TINY = {"hidden": 8, "sequences": SHORT, "pretraining_epochs": 1, "pretraining_batch": 20, "splits": 2}
SEEDS = st.integers(0, 10**6)

SIMULATION = simulate(n_customers=60, days=80, seed=2)
TRAIN = SIMULATION.journeys.at(np.array(["2024-01-30", CUTOFF], "datetime64[us]"), np.array([0, 1]))
SEQUENCES = SequenceFeatures(SHORT).fit(TRAIN)


def log_of(gaps_h: list[list[int]]) -> Journeys:
    """A customer for each list of gaps in hours between events."""
    hours = [np.cumsum(gaps) for gaps in gaps_h]
    return pack(pd.DataFrame({
        "customer_id": np.repeat([f"c{k}" for k in range(len(hours))], [len(h) for h in hours]),
        "timestamp": pd.Timestamp("2024-01-01") + pd.to_timedelta(np.concatenate(hours), unit="h"),
        "touchpoint": "view",
    }))  # fmt: skip


# --- next step ---


@settings(max_examples=20, deadline=None)
@given(st.lists(st.integers(0, 6), max_size=6).map(lambda found: sorted(found, reverse=True)))
def test_next_steps_are_of_the_same_row(lengths: list[int]) -> None:
    sizes = tuple(sum(n > step for n in lengths) for step in range(max(lengths, default=0)))
    offsets = [sum(sizes[:step]) for step in range(len(sizes))]
    pairs = {(offsets[s] + r, offsets[s + 1] + r) for r, n in enumerate(lengths) for s in range(n - 1)}
    now, following = next_steps(sizes)
    assert set(zip(now.tolist(), following.tolist(), strict=True)) == pairs
    assert len(now) == len(pairs)


def test_chances_of_all_bins_and_of_silence_sum_to_one() -> None:
    edges = np.array([0.5, 1.0, 4.0], np.float32)
    head = NextStep(4, touchpoints=3, edges=edges).double()
    state = torch.randn(1, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    hazards = torch.sigmoid(head.hazard(state))[0].tolist()
    came = [hazards[b] * math.prod(1 - p for p in hazards[:b]) for b in range(len(hazards))]
    silent = math.prod(1 - p for p in hazards)
    assert sum(came) + silent == pytest.approx(1)


@pytest.mark.parametrize(("gap_h", "age_h", "came", "silent"), [(6, 12, 0, 0), (12, 13, 0, 1), (36, 900, 2, 3)])
def test_the_loss_of_next_steps_is_what_its_formula_says(gap_h: int, age_h: int, came: int, silent: int) -> None:
    journeys = log_of([[0, gap_h]])
    sequences = SequenceFeatures(SequenceSettings(min_count=1)).fit(journeys.at(int(journeys.t[-1]) + 1))
    steps = steps_of(sequences.batch(journeys.at(int(journeys.t[-1]) + age_h * DAY_US // 24)))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        head, states = NextStep(4, touchpoints=3, edges=np.array([0.5, 1.0, 4.0], np.float32)), torch.randn(2, 4)
    hazards = torch.sigmoid(head.hazard(states)).tolist()
    time = math.log(hazards[0][came]) + sum(math.log(1 - p) for p in hazards[0][:came])
    time += sum(math.log(1 - p) for p in hazards[1][:silent])
    touchpoint = torch.log_softmax(head.touchpoint(states[0]), 0)[steps.codes[0, 1]].item()
    assert head.loss(states, steps).item() == pytest.approx(-time / 2 - touchpoint, rel=1e-5)


def test_bins_of_time_hold_equally_many_gaps() -> None:
    edges = time_edges(SEQUENCES, TRAIN)
    assert (np.diff(edges) > 0).all()
    assert (edges > 0).all()
    batch = SEQUENCES.batch(TRAIN)
    gaps = batch.gap_days[int(batch.batch_sizes[0]) :]
    counts = np.bincount(np.searchsorted(edges, gaps), minlength=BINS)
    assert counts.max() < 2.5 * len(gaps) / BINS
    assert time_edges(SEQUENCES, TRAIN.take(np.arange(0))).tolist() == [1.0]


# --- CoLES ---


@settings(max_examples=25, deadline=None)
@given(customers=st.lists(st.integers(0, 3), min_size=1, max_size=9), margin=st.floats(0.2, 1.5), seed=SEEDS)
def test_coles_is_the_brute_force(customers: list[int], margin: float, seed: int) -> None:
    r = np.random.default_rng(seed)
    embeddings, whose = r.normal(size=(len(customers), 5)), np.array(customers)
    unit = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    pairs = [(i, j) for i in range(len(whose)) for j in range(i)]
    same = [float(((unit[i] - unit[j]) ** 2).sum()) for i, j in pairs if whose[i] == whose[j]]
    apart = sorted(math.sqrt(((unit[i] - unit[j]) ** 2).sum()) for i, j in pairs if whose[i] != whose[j])
    near = [max(0.0, margin - distance) ** 2 for distance in apart[: len(same)]]
    wanted = np.mean(same) + np.mean(near) if same and near else 0.0
    found = coles_loss(torch.from_numpy(embeddings), torch.from_numpy(whose), margin)
    assert found.item() == pytest.approx(wanted, rel=1e-6, abs=1e-9)


def test_coles_has_a_finite_gradient_where_two_slices_are_one() -> None:
    embeddings = torch.ones(4, 3, requires_grad=True)
    coles_loss(embeddings, torch.tensor([0, 0, 1, 1]), 0.5).backward()
    assert torch.isfinite(embeddings.grad).all()


@settings(max_examples=30, deadline=None)
@given(
    gaps=st.lists(st.lists(st.integers(0, 50), min_size=2, max_size=12), min_size=1, max_size=5),
    cutoff_h=st.integers(1, 300),
    seed=SEEDS,
)
def test_slices_stay_inside_their_journey_and_before_its_next_event(
    gaps: list[list[int]], cutoff_h: int, seed: int
) -> None:
    journeys = log_of(gaps)
    begin = int(pd.Timestamp("2024-01-01").value // 1000)
    known = all_journeys(journeys.at(begin + cutoff_h * DAY_US // 24))
    assert (known.stop - known.start >= SHORTEST).all()
    rows = np.repeat(np.arange(len(known)), 3)
    cut = slices(known.take(rows), np.random.default_rng(seed))
    again = slices(known.take(rows), np.random.default_rng(seed))
    for row in range(len(cut)):
        start, stop, whole = cut.start[row], cut.stop[row], rows[row]
        events = known.stop[whole] - known.start[whole]
        assert known.start[whole] <= start < stop <= known.stop[whole]
        assert max(SHORTEST, int(SHARE[0] * events)) <= stop - start <= events
        last = journeys.t[stop - 1]
        assert last < cut.cutoff[row] <= known.cutoff[whole]
        if stop < known.stop[whole] and journeys.t[stop] > last:  # not one of the same moment
            assert cut.cutoff[row] <= journeys.t[stop]
        assert (again.start[row], again.stop[row], again.cutoff[row]) == (start, stop, cut.cutoff[row])
    assert (cut.customer == known.customer[rows]).all()


# --- batches ---


@settings(max_examples=20, deadline=None)
@given(n=st.integers(1, 400), size=st.integers(1, 20), seed=SEEDS)
def test_buckets_hold_every_row_once(n: int, size: int, seed: int) -> None:
    lengths = np.random.default_rng(seed).integers(0, 50, n)
    batches = length_buckets(lengths, size, np.random.default_rng(seed))
    assert sorted(np.concatenate(batches)) == list(range(n))
    assert len(batches) == -(-n // size)
    assert max(len(rows) for rows in batches) <= size


def test_buckets_are_of_like_lengths() -> None:
    lengths = np.arange(4096) % 256
    spread = [np.ptp(lengths[rows]) for rows in length_buckets(lengths, 64, np.random.default_rng(0))]
    assert np.mean(spread) < 32


@pytest.mark.parametrize("objective", ["next", "both"])
def test_batches_are_functions_of_epoch_and_number(objective: Objective) -> None:
    options, journeys = EncoderSettings(**TINY, objective=objective), all_journeys(TRAIN)
    one, other = (JourneyBatches(journeys, SEQUENCES, options) for _ in range(2))
    drawn = [one.batch(0, 1), one.batch(1, 0), one.batch(0, 1), other.batch(0, 1)]
    for again in drawn[2:]:
        assert torch.equal(drawn[0].steps.numbers, again.steps.numbers)
        assert torch.equal(drawn[0].customers, again.customers)
    assert not torch.equal(drawn[0].steps.context, drawn[1].steps.context)
    copies = 1 if objective == "next" else options.splits
    assert torch.bincount(drawn[0].customers).tolist() == [copies] * options.pretraining_batch
    assert sum(len(one.batch(0, k).customers) for k in range(len(one))) == copies * len(journeys)


# --- the whole ---


def test_unlabelled_journeys_are_all_that_were_known_at_the_latest_cutoff() -> None:
    known = all_journeys(TRAIN)
    assert set(known.cutoff) == {TRAIN.cutoff.max()}
    wanted = SIMULATION.journeys.at(CUTOFF)
    assert set(known.customer) == set(wanted.customer[wanted.stop - wanted.start >= SHORTEST])
    assert len(known) > 2 * len(TRAIN)
    assert (known.journeys.t[known.stop - 1] < TRAIN.cutoff.max()).all()


def snapshots_of(events: pd.DataFrame) -> Snapshots:
    rows = pd.DataFrame({"customer_id": SIMULATION.events["customer_id"].unique()[:40], "cutoff": CUTOFF})
    return pack(events, SIMULATION.schema).at_ids(rows)


def test_nothing_at_or_after_the_latest_cutoff_is_learnt_from() -> None:
    events = SIMULATION.events
    late = events["timestamp"] >= CUTOFF
    changed = events.assign(
        touchpoint=events["touchpoint"].mask(late, "never seen"), value=events["value"].mask(late, 1e9)
    )
    changed.loc[changed.index[late][:50], "timestamp"] = CUTOFF
    options = EncoderSettings(**TINY, objective="both")
    logs = events, changed, events[~late]
    a, b, c = (Embedder(options).fit(snapshots_of(log)) for log in logs)
    assert late.sum() > 100
    for other in (b, c):
        assert a.sequences_.to_dict() == other.sequences_.to_dict()
        assert all(a.weights_[name].tobytes() == other.weights_[name].tobytes() for name in a.weights_)
        assert a.version == other.version
    assert Embedder(options).fit(snapshots_of(events[~late].iloc[5:])).version != a.version


@pytest.mark.parametrize("objective", ["next", "coles"])
def test_pretraining_lowers_its_loss_and_is_the_same_again(objective: Objective) -> None:
    options = EncoderSettings(**TINY | {"pretraining_epochs": 4, "pretraining_rate": 0.03}, objective=objective)
    encoder, history = pretrain_encoder(options, SEQUENCES, TRAIN)
    assert history["train_loss"].iloc[-1] < history["train_loss"].iloc[0]
    assert history["epoch"].tolist() == [0, 1, 2, 3]
    again, _ = pretrain_encoder(options, SEQUENCES, TRAIN)
    weights, same = plain_weights(encoder), plain_weights(again)
    assert all(weights[name].tobytes() == same[name].tobytes() for name in weights)


def test_an_objective_of_none_only_draws() -> None:
    options = EncoderSettings(hidden=8, objective="none", seed=5)
    drawn, history = pretrain_encoder(options, SEQUENCES, TRAIN)
    assert len(history) == 0
    weights, again = plain_weights(drawn), plain_weights(pretrain_encoder(options, SEQUENCES, TRAIN)[0])
    assert all(weights[name].tobytes() == again[name].tobytes() for name in weights)

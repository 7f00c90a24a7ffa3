"""What serves is what was trained: the compiled GRU against PyTorch, one journey against thousands, threads."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import models.sequence.runtime
from features.journeys.journeys import Snapshots
from features.sequences.sequences import SequenceBatch, SequenceFeatures, SequenceSettings
from features.simulation.simulator import simulate
from models.calibration import BetaCalibration
from models.sequence.embedder import plain_weights
from models.sequence.encoder import Encoder, steps_of
from models.sequence.finetuning import Classifier
from models.sequence.model import GRUModel, SequenceModel, TransformerModel
from models.sequence.runtime import CompiledGRU, Runtime, over_blocks, runtime
from models.sequence.settings import Network, SequenceModelSettings
from models.sequence.torch_runtime import TorchRuntime

JOURNEYS = simulate(n_customers=80, days=150, seed=6).journeys
# Three moments of each, and customers that nobody knows.
ROWS = JOURNEYS.at(
    np.repeat(np.array(["2024-02-01", "2024-04-01", "2024-05-30"], "datetime64[us]"), 82),
    np.tile(np.append(np.arange(80), [-1, -1]), 3),
)
SEQUENCES = SequenceFeatures(SequenceSettings(max_steps=60)).fit(ROWS)
BATCH = SEQUENCES.batch(ROWS)
NETWORKS: tuple[Network, ...] = ("gru", "transformer")


def drawn(hidden: int = 8, network: Network = "gru", seed: int = 0, stretch: float = 1.5) -> Encoder:
    """An encoder with larger weights than a fresh one has, biases too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        encoder = Encoder(SequenceModelSettings(network=network, hidden=hidden, heads=1, layers=1), SEQUENCES).eval()
        for name, parameter in encoder.named_parameters():
            if not name.endswith(("log_rate", "slope")):
                parameter.data = stretch * parameter.data + 0.1 * torch.randn_like(parameter)
    return encoder


def by_torch(encoder: Encoder, batch: SequenceBatch) -> np.ndarray:
    with torch.inference_mode():
        result: np.ndarray = encoder(steps_of(batch))[0].numpy()
    return result


def of(encoder: Encoder) -> Runtime:
    return runtime(encoder.settings, plain_weights(encoder), SEQUENCES)


@settings(max_examples=25, deadline=None)
@given(hidden=st.integers(1, 40), n_rows=st.integers(1, 40), seed=st.integers(0, 999))
def test_the_compiled_gru_pools_as_the_encoder_does(hidden: int, n_rows: int, seed: int) -> None:
    rows = ROWS.take(np.random.default_rng(seed).integers(0, len(ROWS), n_rows))
    encoder, batch = drawn(hidden, seed=seed), SEQUENCES.batch(rows)
    np.testing.assert_allclose(of(encoder).pooled(batch), by_torch(encoder, batch), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("hidden", [64, 100])
def test_larger_ones_too(hidden: int) -> None:
    encoder = drawn(hidden, stretch=1.0)
    compiled = of(encoder)
    assert isinstance(compiled, CompiledGRU)
    np.testing.assert_allclose(compiled.pooled(BATCH), by_torch(encoder, BATCH), rtol=1e-5, atol=1e-5)


def test_long_silences_and_old_journeys() -> None:
    encoder = drawn(12)
    r = np.random.default_rng(0)
    gaps, ages = (r.exponential(size=BATCH.n_steps) * 10.0 ** r.integers(-4, 5, BATCH.n_steps) for _ in range(2))
    odd = replace(BATCH, gap_days=gaps.astype(np.float32), age_days=ages.astype(np.float32))
    np.testing.assert_allclose(of(encoder).pooled(odd), by_torch(encoder, odd), rtol=1e-5, atol=1e-5)


def test_numbers_at_their_limits_saturate_alike() -> None:
    encoder = drawn(12, stretch=20.0)
    odd = replace(BATCH, numbers=np.sign(BATCH.numbers) * np.float32(8.0))
    result = of(encoder).pooled(odd)
    assert np.isfinite(result).all()
    np.testing.assert_allclose(result, by_torch(encoder, odd), rtol=1e-4, atol=1e-4)


def test_a_transformer_runs_in_pytorch() -> None:
    encoder = drawn(network="transformer")
    engine = of(encoder)
    assert isinstance(engine, TorchRuntime)
    np.testing.assert_array_equal(engine.pooled(BATCH), by_torch(encoder, BATCH))


# --- many rows ---


@pytest.fixture
def blocks_of_20(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Blocks so small that all rows are many."""
    monkeypatch.setattr(models.sequence.runtime, "ROWS_AT_ONCE", 20)
    monkeypatch.setattr(models.sequence.runtime, "SERIAL_EVENTS", 0)
    return


def embedded(engine: Runtime, rows: Snapshots) -> np.ndarray:
    result: np.ndarray = over_blocks(SEQUENCES, rows, engine.pooled)
    return result


@pytest.mark.parametrize(("network", "most"), [("gru", 1e-6), ("transformer", 1e-5)])
@pytest.mark.usefixtures("blocks_of_20")
def test_one_journey_equals_thousands(network: Network, most: float) -> None:
    engine = of(drawn(network=network))
    many, batch = embedded(engine, ROWS), engine.pooled(BATCH)
    np.testing.assert_allclose(many[BATCH.rows], batch, rtol=0, atol=most)
    for row in range(0, len(ROWS), 17):
        single = embedded(engine, ROWS.take(np.array([row])))
        np.testing.assert_allclose(single[0], many[row], rtol=0, atol=most)
    mixed = np.random.default_rng(0).permutation(len(ROWS))
    np.testing.assert_allclose(embedded(engine, ROWS.take(mixed)), many[mixed], rtol=0, atol=most)


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.usefixtures("blocks_of_20")
def test_threads_give_the_same_bits(network: Network) -> None:
    engine = of(drawn(16, network=network))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.sequence.runtime.os, "sched_getaffinity", lambda _: {0}, raising=False)
        single = embedded(engine, ROWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(models.sequence.runtime.os, "sched_getaffinity", lambda _: set(range(4)), raising=False)
        assert embedded(engine, ROWS).tobytes() == single.tobytes()
    with ThreadPoolExecutor(4) as pool:
        result = list(pool.map(lambda _: embedded(engine, ROWS), range(6)))
    assert all(each.tobytes() == single.tobytes() for each in result)


@pytest.mark.parametrize("network", NETWORKS)
def test_nothing_and_nobody_can_be_embedded(network: Network) -> None:
    engine, encoder = of(drawn(network=network)), drawn(network=network)
    assert embedded(engine, ROWS.take(np.arange(0))).shape == (0, encoder.dim)
    unknown = embedded(engine, ROWS.take(np.flatnonzero(ROWS.customer < 0)[:1]))
    assert unknown.shape == (1, encoder.dim)
    assert not unknown[:, : 4 * 8].any()


# --- up to the probability ---


def unfitted(network: Network, head: int) -> tuple[SequenceModel, list[Classifier]]:
    """A model of two members that were only drawn, and the members in PyTorch."""
    options = SequenceModelSettings(network=network, hidden=8, heads=1, layers=1, head=head, members=2)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        members = [Classifier(drawn(network=network, seed=seed), options, 2, None).eval() for seed in range(2)]
        for parameter in (parameter for member in members for parameter in member.heads.parameters()):
            parameter.data += 0.3 * torch.randn_like(parameter)
    model = {"gru": GRUModel, "transformer": TransformerModel}[network](options)
    model.sequences_, model.members_ = SEQUENCES, [plain_weights(member) for member in members]
    model.calibrations_ = [BetaCalibration(), BetaCalibration(1.3, 0.7, -0.4)]
    model.tasks_, model.chosen = ("first", "second"), "first"
    return model, members


@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("head", [0, 12])
def test_probabilities_are_those_of_pytorch(network: Network, head: int) -> None:
    model, members = unfitted(network, head)
    with torch.inference_mode():
        odds = np.mean([member(steps_of(BATCH))[0].double().numpy() for member in members], axis=0)  # (B, tasks)
    for place, task in enumerate(model.tasks_):
        expected = np.empty(len(ROWS))
        expected[BATCH.rows] = model.calibrations_[place].probability(odds[:, place])
        result = model.task(task).predict(ROWS)
        np.testing.assert_allclose(result, expected, rtol=0, atol=1e-6)
        for row in range(0, len(ROWS), 29):
            first = model.task(task).predict(ROWS.take(np.array([row])))
            np.testing.assert_allclose(first, expected[[row]], rtol=0, atol=1e-6)
        assert np.ptp(result) > 0.01

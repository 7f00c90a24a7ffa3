"""Encoders: what a step is made of, what the pools hold, and journeys of which there is nothing to read."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from features.journeys.journeys import Snapshots
from features.sequences.sequences import SequenceFeatures
from features.simulation.simulator import simulate
from models.sequence.encoder import POOLS, Encoder, Steps, steps_of
from models.sequence.settings import EncoderSettings, Network

HIDDEN = 8
NETWORKS: tuple[Network, ...] = ("gru", "transformer")


@pytest.fixture(scope="module")
def rows() -> Snapshots:
    """40 customers of a simulated log, and two that nobody knows in between."""
    journeys = simulate(n_customers=40, days=60, seed=4).journeys
    customers = np.insert(np.arange(journeys.n_customers), [3, 20], -1)
    return journeys.at("2024-02-20", customers)


@pytest.fixture(scope="module")
def sequences(rows: Snapshots) -> SequenceFeatures:
    return SequenceFeatures().fit(rows)


def built(network: Network, sequences: SequenceFeatures) -> Encoder:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Encoder(EncoderSettings(network=network, hidden=HIDDEN, heads=2, layers=1), sequences).eval()


def encoded(encoder: Encoder, sequences: SequenceFeatures, rows: Snapshots) -> tuple[Steps, Tensor, Tensor]:
    """Steps, embeddings by rank, states."""
    steps = steps_of(sequences.batch(rows))
    with torch.no_grad():
        return steps, *encoder(steps)


@pytest.mark.parametrize("network", NETWORKS)
def test_pools_are_those_of_plain_python(network: Network, rows: Snapshots, sequences: SequenceFeatures) -> None:
    encoder = built(network, sequences)
    steps, embedding, states = encoded(encoder, sequences, rows)
    batch = sequences.batch(rows)
    assert embedding.shape == (len(rows), encoder.dim) == (len(rows), len(POOLS) * HIDDEN + sequences.n_context)
    rate = encoder.log_rate.detach().exp()
    for rank, length in enumerate(batch.lengths):
        h = [states[batch.offsets[step] + rank] for step in range(length)]
        ages = [float(batch.age_days[batch.offsets[step] + rank]) for step in range(length)]
        assert ages == sorted(ages, reverse=True)
        faded = [state * torch.exp(-age * rate) for state, age in zip(h, ages, strict=True)]
        nothing = torch.zeros(HIDDEN)
        last = faded[-1] if h else nothing
        mean = sum(h, nothing) / max(length, 1)
        most = torch.stack(h).max(dim=0).values if h else nothing
        recent = torch.asinh(sum(faded, nothing))
        expected = torch.cat([last, mean, most, recent, torch.from_numpy(batch.context[rank])])
        torch.testing.assert_close(embedding[rank], expected, rtol=1e-4, atol=1e-5)
    assert steps.rows.tolist() == batch.rows.tolist()


def test_a_step_is_the_sum_of_its_categories_and_numbers(rows: Snapshots, sequences: SequenceFeatures) -> None:
    encoder, visible = built("gru", sequences), []
    encoder.network.register_forward_pre_hook(lambda _, inputs: visible.append(inputs[0]))
    steps, _, _ = encoded(encoder, sequences, rows)
    place = steps.codes.shape[1] // 2
    expected = encoder.numbers(steps.numbers[place])
    for table, codes in zip(encoder.tables, steps.codes, strict=True):
        assert isinstance(table, torch.nn.Embedding)
        expected = expected + table.weight[codes[place]]
    torch.testing.assert_close(visible[0][place], expected.detach())
    assert [table.weight.shape[0] for table in encoder.tables] == list(sequences.sizes.values())
    assert encoder.touchpoints == sequences.sizes["touchpoint"]


@pytest.mark.parametrize("network", NETWORKS)
def test_a_batch_of_one_equals_a_batch_of_many(network: Network, rows: Snapshots, sequences: SequenceFeatures) -> None:
    encoder = built(network, sequences)
    steps, embedding, _ = encoded(encoder, sequences, rows)
    for rank in (0, 7, 25, len(rows) - 1):
        _, single, _ = encoded(encoder, sequences, rows.take(steps.rows[[rank]]))
        torch.testing.assert_close(single[0], embedding[rank], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("network", NETWORKS)
def test_journeys_without_steps_have_an_embedding_of_zeros(
    network: Network, rows: Snapshots, sequences: SequenceFeatures
) -> None:
    encoder, unknown = built(network, sequences), rows.take(np.flatnonzero(rows.customer < 0))
    steps, embedding, states = encoded(encoder, sequences, unknown)
    assert (len(unknown), states.shape) == (2, (0, HIDDEN))
    assert not embedding[:, : len(POOLS) * HIDDEN].any()
    torch.testing.assert_close(embedding[:, len(POOLS) * HIDDEN :], steps.context)
    nobody = encoded(encoder, sequences, rows.take(np.arange(0)))[1]
    assert nobody.shape == (0, encoder.dim)


@pytest.mark.parametrize("network", NETWORKS)
def test_every_parameter_learns(network: Network, rows: Snapshots, sequences: SequenceFeatures) -> None:
    encoder = built(network, sequences).train()
    embedding, states = encoder(steps_of(sequences.batch(rows)))
    (embedding.square().mean() + states.square().mean()).backward()
    for name, parameter in encoder.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        assert parameter.grad.any(), name


def test_steps_move_to_a_device_as_a_whole(rows: Snapshots, sequences: SequenceFeatures) -> None:
    steps = steps_of(sequences.batch(rows))
    moved = steps.to("meta")
    assert {moved.codes.device.type, moved.padded.device.type, moved.last.device.type} == {"meta"}
    assert moved.sizes == steps.sizes
    assert (moved.rows == steps.rows).all()

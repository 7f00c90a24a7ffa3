"""The recurrence in continuous time: its gradients, PyTorch's GRU where nothing fades, a closed form where all does."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from models.sequence.gru import FASTEST_DAYS, SLOWEST_DAYS, DecayGRU, Recurrence, log_rates, previous_states

HIDDEN, INPUTS = 4, 3
# Lengths of journeys, the longest first.
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=5).map(lambda result: sorted(result, reverse=True))


def sizes_of(lengths: list[int]) -> tuple[int, ...]:
    return tuple(sum(n > step for n in lengths) for step in range(max(lengths, default=0)))


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def layer(seed: int = 0, *, fades: bool = True) -> DecayGRU:
    """In double precision, every parameter drawn."""
    gru = DecayGRU(INPUTS, HIDDEN).double()
    for place, parameter in enumerate(gru.parameters()):
        parameter.data = drawn(seed + place, *parameter.shape) * 0.5
    if not fades:
        gru.log_rate.data.fill_(-math.inf)
    return gru


@settings(max_examples=4, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 999))
def test_the_written_gradient_is_the_gradient(lengths: list[int], seed: int) -> None:
    steps = sum(lengths)
    parts = [drawn(seed, steps, 3 * HIDDEN), drawn(seed + 1, steps, HIDDEN).sigmoid()]
    parts += [drawn(seed + 2, HIDDEN, 3 * HIDDEN), drawn(seed + 3, 3 * HIDDEN)]
    inputs = [part.requires_grad_() for part in parts]
    assert torch.autograd.gradcheck(lambda *given: Recurrence.apply(*given, sizes_of(lengths)), inputs)


def test_gradients_reach_inputs_times_and_rates() -> None:
    gru, x, gaps = layer(3), drawn(1, 6, INPUTS).requires_grad_(), drawn(2, 6).abs().requires_grad_()
    names = [name for name, _ in gru.named_parameters()]

    def states(x: Tensor, gaps: Tensor, *parameters: Tensor) -> Tensor:
        given = dict(zip(names, parameters, strict=True))
        return torch.func.functional_call(gru, given, (x, gaps, (3, 2, 1)))

    assert torch.autograd.gradcheck(states, (x, gaps, *gru.parameters()))


@settings(max_examples=10, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 999))
def test_without_decay_it_is_the_gru_of_pytorch(lengths: list[int], seed: int) -> None:
    gru, theirs = layer(seed, fades=False), torch.nn.GRU(INPUTS, HIDDEN).double()
    theirs.weight_ih_l0.data, theirs.bias_ih_l0.data = gru.inputs.weight.data, gru.inputs.bias.data
    theirs.weight_hh_l0.data, theirs.bias_hh_l0.data = gru.weight.data.t().contiguous(), gru.bias.data
    x, gaps = drawn(seed + 9, sum(lengths), INPUTS).requires_grad_(), drawn(seed + 8, sum(lengths)).abs() * 100
    packed = PackedSequence(x, torch.tensor(sizes_of(lengths)))
    ours, labelled = gru(x, gaps, sizes_of(lengths)), theirs(packed)[0].data
    torch.testing.assert_close(ours, labelled)
    weights = drawn(seed + 7, *ours.shape)
    mine = torch.autograd.grad((ours * weights).sum(), [x, gru.inputs.weight, gru.weight, gru.bias])
    expected = torch.autograd.grad(
        (labelled * weights).sum(), [x, theirs.weight_ih_l0, theirs.weight_hh_l0, theirs.bias_hh_l0]
    )
    for a, b in zip(mine, (*expected[:2], expected[2].t(), expected[3]), strict=True):
        torch.testing.assert_close(a, b)


def test_a_memory_that_takes_nothing_up_fades_exponentially() -> None:
    gaps = torch.tensor([7.0, 1.0, 0.0, 2.5], dtype=torch.float64)  # the first gap says nothing: there is no memory yet
    rate = torch.tensor([0.0, 0.1, 1.0, 5.0], dtype=torch.float64)
    gates = torch.zeros(4, 3 * HIDDEN, dtype=torch.float64)
    gates[0, HIDDEN : 2 * HIDDEN], gates[1:, HIDDEN : 2 * HIDDEN] = -50, 50  # z: take all, then keep all
    gates[0, 2 * HIDDEN :] = 0.5
    zero = torch.zeros(HIDDEN, 3 * HIDDEN, dtype=torch.float64)
    states = Recurrence.apply(gates, torch.exp(-gaps[:, None] * rate), zero, zero[0], (1, 1, 1, 1))
    since = torch.tensor([0.0, 1.0, 1.0, 3.5], dtype=torch.float64)
    torch.testing.assert_close(states, math.tanh(0.5) * torch.exp(-since[:, None] * rate))


def test_a_long_silence_makes_a_journey_begin_anew() -> None:
    gru, x = layer(1), drawn(5, 2, INPUTS)
    late = gru(x, torch.tensor([0.0, 1e9], dtype=torch.float64), (1, 1))[1]
    torch.testing.assert_close(late, gru(x[1:], torch.zeros(1, dtype=torch.float64), (1,))[0])
    soon = gru(x, torch.tensor([0.0, 0.1], dtype=torch.float64), (1, 1))[1]
    assert (late - soon).abs().max() > 0.01


@settings(max_examples=10, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 999))
def test_journeys_do_not_touch_each_other(lengths: list[int], seed: int) -> None:
    gru, x, gaps = layer(seed), drawn(seed, sum(lengths), INPUTS), drawn(seed + 1, sum(lengths)).abs()
    sizes = sizes_of(lengths)
    batch = gru(x, gaps, sizes)
    offsets = [sum(sizes[:step]) for step in range(len(sizes))]
    before = previous_states(batch, sizes)
    for rank, length in enumerate(lengths):
        where = [offset + rank for offset in offsets[:length]]
        torch.testing.assert_close(batch[where], gru(x[where], gaps[where], (1,) * length))
        assert torch.equal(before[where[0]], torch.zeros(HIDDEN, dtype=torch.float64))
        assert torch.equal(before[where[1:]], batch[where[:-1]])


def test_no_steps_no_states() -> None:
    gru = layer()
    states = gru(torch.zeros(0, INPUTS, dtype=torch.float64), torch.zeros(0, dtype=torch.float64), ())
    assert states.shape == (0, HIDDEN)
    states.sum().backward()
    assert not gru.weight.grad.any()


def test_memories_begin_spread_from_hours_to_years() -> None:
    days = 1 / log_rates(5).exp()
    assert days[0].item() == pytest.approx(SLOWEST_DAYS, rel=1e-5)
    assert days[-1].item() == pytest.approx(FASTEST_DAYS, rel=1e-5)
    ratios = days[1:] / days[:-1]
    torch.testing.assert_close(ratios, ratios[:1].expand(4))

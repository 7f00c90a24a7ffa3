"""Attention in continuous time: looks back only, not at padding, and by its slopes for time and order."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from models.sequence.transformer import Block, CausalTransformer, StepDistances

HIDDEN, HEADS, INPUTS = 8, 2, 3
OFF, STEEP = -60.0, 60.0  # a slope before softplus: next to nothing, and so steep that only a distance of 0 counts
LENGTHS = st.lists(st.integers(1, 6), min_size=1, max_size=4).map(lambda found: sorted(found, reverse=True))


@pytest.fixture(scope="module", autouse=True)
def in_double() -> object:
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def network(time: float | None = None, order: float | None = None, layers: int = 2) -> CausalTransformer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        made = CausalTransformer(INPUTS, HIDDEN, layers, HEADS, dropout=0.3).double().eval()
    for block in made.blocks:
        for slope, value in ((block.time_slope, time), (block.order_slope, order)):
            if value is not None:
                slope.data.fill_(value)
    return made


def padded_of(lengths: list[int]) -> Tensor:
    """(B, T) where the steps of each rank lie, time-major."""
    sizes = [sum(n > step for n in lengths) for step in range(lengths[0])]
    return torch.tensor(
        [[sum(sizes[:step]) + rank if step < n else -1 for step in range(lengths[0])] for rank, n in enumerate(lengths)]
    )


def one(made: CausalTransformer, x: Tensor, days: Tensor) -> Tensor:
    """States of a single journey."""
    with torch.no_grad():
        states: Tensor = made(x, days, torch.arange(len(x))[None])
    return states


def test_attention_is_what_its_formula_says() -> None:
    block, h, days = network(layers=1).blocks[0], drawn(1, 1, 5, HIDDEN), torch.tensor([[0.0, 0.0, 1.0, 4.0, 9.0]])
    assert isinstance(block, Block)
    q, k, v = block.queries_keys_values(h)[0].detach().chunk(3, dim=1)  # (T, H)
    wide = HIDDEN // HEADS
    wanted = torch.zeros(5, HIDDEN)
    for head in range(HEADS):
        part = slice(head * wide, (head + 1) * wide)
        a, b = (math.log1p(math.exp(slope[head].item())) for slope in (block.time_slope, block.order_slope))
        for i in range(5):
            hours = [24 * float(days[0, i] - days[0, j]) for j in range(i + 1)]
            scores = [
                float(q[i, part] @ k[j, part]) / math.sqrt(wide) - a * math.log1p(hours[j]) - b * (i - j)
                for j in range(i + 1)
            ]
            weights = torch.softmax(torch.tensor(scores), 0)
            wanted[i, part] = weights @ v[: i + 1, part]
    torch.testing.assert_close(block._attend(h, StepDistances.between(days))[0], block.out(wanted))


@settings(max_examples=15, deadline=None)
@given(length=st.integers(2, 7), seed=st.integers(0, 999), data=st.data())
def test_later_steps_change_no_earlier_state(length: int, seed: int, data: st.DataObject) -> None:
    made, x, days = network(), drawn(seed, length, INPUTS), drawn(seed + 1, length).abs().cumsum(0)
    seen = data.draw(st.integers(1, length - 1))
    other_x, other_days = x.clone(), days.clone()
    other_x[seen:], other_days[seen:] = 9.0, days[seen:] + 3.0
    before, after = one(made, x, days), one(made, other_x, other_days)
    torch.testing.assert_close(before[:seen], after[:seen])
    torch.testing.assert_close(before[:seen], one(made, x[:seen], days[:seen]))
    assert (before[seen:] - after[seen:]).abs().max() > 1e-3


@settings(max_examples=15, deadline=None)
@given(lengths=LENGTHS, seed=st.integers(0, 999))
def test_padding_and_other_journeys_change_nothing(lengths: list[int], seed: int) -> None:
    made, steps = network(), sum(lengths)
    x, days, padded = drawn(seed, steps, INPUTS), drawn(seed + 1, steps).cumsum(0), padded_of(lengths)
    with torch.no_grad():
        together = made(x, days, padded)
        wider = made(x, days, torch.nn.functional.pad(padded, (0, 3), value=-1))
    torch.testing.assert_close(together, wider)
    for rank, length in enumerate(lengths):
        where = padded[rank, :length]
        torch.testing.assert_close(together[where], one(made, x[where], days[where]))


def test_only_differences_of_time_count() -> None:
    made, x, days = network(), drawn(0, 5, INPUTS), torch.tensor([0.0, 1.0, 1.0, 5.0, 30.0])
    torch.testing.assert_close(one(made, x, days), one(made, x, days - 400.0))
    assert (one(made, x, days) - one(made, x, days * 2))[1:].abs().max() > 1e-4


def test_without_both_slopes_the_past_is_a_bag() -> None:
    made, x, days = network(OFF, OFF, layers=1), drawn(0, 5, INPUTS), torch.arange(5.0)
    mixed = torch.tensor([2, 0, 3, 1, 4])
    torch.testing.assert_close(one(made, x, days)[-1], one(made, x[mixed], days**2)[-1])


def test_the_slope_of_order_sees_places_and_no_times() -> None:
    made, x, days = network(OFF, 0.0, layers=1), drawn(0, 5, INPUTS), torch.arange(5.0)
    torch.testing.assert_close(one(made, x, days), one(made, x, days**2))
    mixed = torch.tensor([2, 0, 3, 1, 4])
    assert (one(made, x, days)[-1] - one(made, x[mixed], days)[-1]).abs().max() > 1e-4
    steep = network(OFF, STEEP)
    alone = torch.cat([one(steep, x[[i]], days[[i]]) for i in range(5)])
    torch.testing.assert_close(one(steep, x, days), alone)  # each step sees itself only


def test_the_slope_of_time_sees_times_and_no_places() -> None:
    made, x, days = network(0.0, OFF, layers=1), drawn(0, 4, INPUTS), torch.tensor([0.0, 3.0, 3.0, 9.0])
    swapped = torch.tensor([0, 2, 1, 3])  # two steps of one moment
    torch.testing.assert_close(one(made, x, days)[-1], one(made, x[swapped], days)[-1])
    steep = network(STEEP, OFF, layers=1)
    last = one(steep, x, days)[[2, 3]]
    torch.testing.assert_close(last[:1], one(steep, x[1:3], days[1:3])[1:])  # the step of three days ago is forgotten
    torch.testing.assert_close(last[1:], one(steep, x[3:], days[3:]))


def test_no_steps_no_states() -> None:
    nothing = torch.zeros(2, 0, dtype=torch.int64)
    assert network()(torch.zeros(0, INPUTS), torch.zeros(0), nothing).shape == (0, HIDDEN)


def test_gradients_reach_the_slopes() -> None:
    made = network()
    made(drawn(0, 6, INPUTS), torch.arange(6.0), padded_of([3, 2, 1])).square().sum().backward()
    for name, parameter in made.named_parameters():
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
    assert all(block.time_slope.grad.any() and block.order_slope.grad.any() for block in made.blocks)

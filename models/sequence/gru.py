"""A gated recurrent unit in continuous time, from its equations to its gradients.

A GRU (Cho et al. 2014, in the variant of cuDNN) reads a journey step by step. Between two steps its memory fades, each
unit at a rate λ of its own that is learned (the decay of Che et al. 2018, "GRU-D", applied to the hidden state):

    k = h · exp(−λ Δ)                       the memory that remains after Δ days
    r = σ(x_r + k U_r + b_r)                the share of it that the new content may use
    z = σ(x_z + k U_z + b_z)                the share of it that stays
    n = tanh(x_n + r · (k U_n + b_n))       the new content
    h = (1 − z) · n + z · k

Steps come time-major (`features.sequences.sequences`): the rows that have a step s are the first `sizes[s]` of those
that had the one before, so a step is a slice and nothing is padded. The inputs' share of the gates and the decay do not
depend on the step before: they are computed for all steps at once.

The gradient is written out (`Recurrence.backward`) instead of being recorded by PyTorch: whatever does not depend on
the step after is computed for all steps at once, above all the gradient of U, one large matrix product instead of one
for each step. On two CPU cores that is two to three times as fast as `torch.nn.GRU` on packed sequences
(`experiments/benchmarks/sequence_speed.py`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

SLOWEST_DAYS, FASTEST_DAYS = 730.0, 0.25  # initial memories of the units: two years to a quarter of a day


class DecayGRU(nn.Module):
    """The layer: (E, D) inputs and (E,) gaps → (E, H) states, time-major."""

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.inputs = nn.Linear(inputs, 3 * hidden)
        self.weight = nn.Parameter(torch.empty(hidden, 3 * hidden))  # U: [r, z, n]
        self.bias = nn.Parameter(torch.zeros(3 * hidden))
        for gate in self.weight.data.chunk(3, dim=1):
            nn.init.orthogonal_(gate)
        self.log_rate = nn.Parameter(log_rates(hidden))

    def forward(self, x: Tensor, gap_days: Tensor, sizes: Sequence[int]) -> Tensor:
        """States after each step.

        Args:
            x: (E, D) inputs of each step.
            gap_days: (E,) days since the step before.
            sizes: (T,) rows that have a step s, falling.
        """
        decay = torch.exp(-gap_days[:, None] * self.log_rate.exp())  # (E, H)
        gates = self.inputs(x).to(decay.dtype)  # with mixed precision the recurrence itself stays in float32
        states: Tensor = Recurrence.apply(gates, decay, self.weight, self.bias, sizes)  # type: ignore[no-untyped-call]
        return states


class Recurrence(torch.autograd.Function):
    """The recurrence above, and its gradient.

    In the names of the backward pass, `d_a` is the gradient of the loss by a.
    """

    @staticmethod
    def forward(ctx: Any, gates: Tensor, decay: Tensor, weight: Tensor, bias: Tensor, sizes: Sequence[int]) -> Tensor:
        """(E, 3H) inputs' share of the gates, (E, H) decay, (H, 3H) U, (3H,) b → (E, H)."""
        steps, hidden = decay.shape
        states, faded, new = (gates.new_empty(steps, hidden) for _ in range(3))
        doors, recalled = gates.new_empty(steps, 2 * hidden), torch.empty_like(gates)  # r and z; k U + b
        state = gates.new_zeros(sizes[0] if len(sizes) else 0, hidden)
        for begin, end in _slices(sizes):
            now, rows = slice(begin, end), end - begin
            k = torch.mul(state[:rows], decay[now], out=faded[now])
            u = torch.addmm(bias, k, weight, out=recalled[now])  # (rows, 3H)
            rz = torch.add(gates[now, : 2 * hidden], u[:, : 2 * hidden], out=doors[now]).sigmoid_()
            n = torch.addcmul(gates[now, 2 * hidden :], rz[:, :hidden], u[:, 2 * hidden :], out=new[now]).tanh_()
            state = torch.lerp(n, k, rz[:, hidden:], out=states[now])
        ctx.save_for_backward(decay, weight, states, faded, doors, new, recalled)
        ctx.sizes = sizes
        return states

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, None]:
        """Gradients of gates, decay, U and b."""
        (d_states,) = grads
        decay, weight, states, faded, doors, new, recalled = ctx.saved_tensors
        hidden = states.shape[1]
        r, z = doors[:, :hidden], doors[:, hidden:]
        # By h, as far as it does not depend on the steps after: d_n before tanh, d_z before σ; by d_n: d_r before σ.
        by_n = (1 - z).mul_(1 - new * new)
        by_z = (faded - new).mul_(z).mul_(1 - z)
        by_r = recalled[:, 2 * hidden :].mul(r).mul_(1 - r)
        d_gates, d_recalled, d_faded = torch.empty_like(recalled), torch.empty_like(recalled), torch.empty_like(faded)
        transposed = weight.t().contiguous()
        later = states.new_zeros(ctx.sizes[0] if len(ctx.sizes) else 0, hidden)  # d_h from the step after
        for begin, end in reversed(_slices(ctx.sizes)):
            now, rows = slice(begin, end), end - begin
            d_h = d_states[now] + later[:rows]
            d_now, d_u = d_gates[now], d_recalled[now]
            d_n = torch.mul(d_h, by_n[now], out=d_now[:, 2 * hidden :])
            torch.mul(d_h, by_z[now], out=d_now[:, hidden : 2 * hidden])
            torch.mul(d_n, by_r[now], out=d_now[:, :hidden])
            d_u[:, : 2 * hidden] = d_now[:, : 2 * hidden]
            torch.mul(d_n, r[now], out=d_u[:, 2 * hidden :])
            d_k = torch.mul(d_h, z[now], out=d_faded[now]).addmm_(d_u, transposed)
            torch.mul(d_k, decay[now], out=later[:rows])
        d_decay = d_faded * previous_states(states, ctx.sizes)
        return d_gates, d_decay, faded.t() @ d_recalled, d_recalled.sum(0), None


def previous_states(states: Tensor, sizes: Sequence[int]) -> Tensor:
    """(E, H) the state before each step: that of the same row one step earlier, 0 before the first."""
    before = torch.zeros_like(states)
    for (begin, _), (now, end) in pairwise(_slices(sizes)):
        before[now:end] = states[begin : begin + end - now]
    return before


def log_rates(units: int) -> Tensor:
    """(units,) logarithms of rates a day, so that their memories are spread evenly in order of magnitude."""
    return -torch.linspace(math.log(SLOWEST_DAYS), math.log(FASTEST_DAYS), units)


def _slices(sizes: Sequence[int]) -> list[tuple[int, int]]:
    """(T,) begin and end of each step's rows."""
    slices, begin = [], 0
    for size in sizes:
        slices.append((begin, begin + size))
        begin += size
    return slices

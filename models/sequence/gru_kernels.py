"""The compiled GRU of services: `gru` and the pools of `encoder`, forward only, without PyTorch.

Eight journeys go through their steps together, so that a weight is read from the cache once for several of them. What
a step carries has been multiplied into the gates beforehand: a category is one row to add. `tests/test_runtime.py`
holds this to the numbers of `models.sequence.encoder`.

The matrix product is written in vectors of eight (`Lanes`), as the compiler by itself does not keep a block of sums in
registers: that alone makes it 1.5 (hidden 128) to 2.3 times (256) as fast. Weights lie in panels of 24 columns for it,
so 3H is rounded up to 3H' = 24 P.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from llvmlite import ir  # type: ignore[import-untyped]
from numba import njit, types
from numba.extending import intrinsic, register_model
from numba.extending import models as datamodels

import features.kernel_cache  # noqa: F401  # before any kernel is declared

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

TOGETHER = 8  # journeys
LANES, PANEL = 8, 24  # numbers of a vector; columns of a panel: for four journeys twelve sums, which fill the registers
VECTOR = ir.VectorType(ir.FloatType(), LANES)
# What it makes is called without the first of the arguments that it is declared with.
_instruction: Callable[[Callable[..., Any]], Callable[..., Any]] = intrinsic


class Lanes(types.Type):
    """Eight numbers side by side, inside a kernel only."""

    def __init__(self) -> None:
        super().__init__("Lanes")


@register_model(Lanes)
class _LanesModel(datamodels.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)  # type: ignore[no-untyped-call]


@_instruction
def _load(_: Any, array: Any, at: Any) -> Any:
    """Eight numbers of an (n,) array, from `at` on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        return builder.load(_place(context, builder, signature, values), align=4)

    return Lanes()(array, types.intp), generate


@_instruction
def _store(_: Any, array: Any, at: Any, numbers: Any) -> Any:
    """Put eight numbers into an (n,) array, from `at` on."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        builder.store(values[2], _place(context, builder, signature, values), align=4)
        return context.get_dummy_value()

    return types.void(array, types.intp, Lanes()), generate


@_instruction
def _plus(_: Any, total: Any, factor: Any, numbers: Any) -> Any:
    """Total + factor · numbers, in each lane."""

    def generate(context: Any, builder: Any, signature: Any, values: Any) -> Any:
        nothing, integer = ir.Constant(VECTOR, ir.Undefined), ir.IntType(32)
        one = builder.insert_element(nothing, values[1], ir.Constant(integer, 0))
        everywhere = ir.Constant(ir.VectorType(integer, LANES), [0] * LANES)
        product = builder.fmul(builder.shuffle_vector(one, nothing, everywhere), values[2], flags=("contract",))
        return builder.fadd(values[0], product, flags=("contract",))

    return Lanes()(Lanes(), types.float32, Lanes()), generate


def _place(context: Any, builder: Any, signature: Any, values: Any) -> Any:
    array = context.make_array(signature.args[0])(context, builder, values[0])
    return builder.bitcast(builder.gep(array.data, [values[1]]), VECTOR.as_pointer())


@njit(cache=True, nogil=True)
def _add_product(a: Floats, begin: int, rows: int, weight: Floats, out: Floats) -> None:
    """Add a[begin : begin + rows] @ weight to the first rows of `out`.

    Each number is summed in the order of the units, in a block of four rows or alone: a row does not depend on others.

    Args:
        a: (n, U).
        begin: its first row.
        rows: how many.
        weight: (P, 24 U) panels.
        out: (m, 24 P); m is a multiple of four, as rows beyond the last may be written to.
    """
    last = begin + rows - 1
    for p in range(len(weight)):
        panel, column = weight[p], p * PANEL
        for r in range(0, rows, 4):
            at = begin + r
            if at == last:
                _one_row(a[at], panel, out[r], column)
            else:
                a1, a2, a3 = a[at + 1], a[min(at + 2, last)], a[min(at + 3, last)]
                _four_rows(a[at], a1, a2, a3, panel, out[r : r + 4], column)


@njit(cache=True, nogil=True)
def _four_rows(a0: Floats, a1: Floats, a2: Floats, a3: Floats, panel: Floats, out: Floats, c: int) -> None:
    o0, o1, o2, o3 = out[0], out[1], out[2], out[3]
    s00, s01, s02 = _load(o0, c), _load(o0, c + 8), _load(o0, c + 16)
    s10, s11, s12 = _load(o1, c), _load(o1, c + 8), _load(o1, c + 16)
    s20, s21, s22 = _load(o2, c), _load(o2, c + 8), _load(o2, c + 16)
    s30, s31, s32 = _load(o3, c), _load(o3, c + 8), _load(o3, c + 16)
    for u in range(len(a0)):
        w0, w1, w2 = _load(panel, u * PANEL), _load(panel, u * PANEL + 8), _load(panel, u * PANEL + 16)
        s00, s01, s02 = _plus(s00, a0[u], w0), _plus(s01, a0[u], w1), _plus(s02, a0[u], w2)
        s10, s11, s12 = _plus(s10, a1[u], w0), _plus(s11, a1[u], w1), _plus(s12, a1[u], w2)
        s20, s21, s22 = _plus(s20, a2[u], w0), _plus(s21, a2[u], w1), _plus(s22, a2[u], w2)
        s30, s31, s32 = _plus(s30, a3[u], w0), _plus(s31, a3[u], w1), _plus(s32, a3[u], w2)
    _store(o0, c, s00), _store(o0, c + 8, s01), _store(o0, c + 16, s02)
    _store(o1, c, s10), _store(o1, c + 8, s11), _store(o1, c + 16, s12)
    _store(o2, c, s20), _store(o2, c + 8, s21), _store(o2, c + 16, s22)
    _store(o3, c, s30), _store(o3, c + 8, s31), _store(o3, c + 16, s32)


@njit(cache=True, nogil=True)
def _one_row(a: Floats, panel: Floats, out: Floats, c: int) -> None:
    s0, s1, s2 = _load(out, c), _load(out, c + 8), _load(out, c + 16)
    for u in range(len(a)):
        s0 = _plus(s0, a[u], _load(panel, u * PANEL))
        s1 = _plus(s1, a[u], _load(panel, u * PANEL + 8))
        s2 = _plus(s2, a[u], _load(panel, u * PANEL + 16))
    _store(out, c, s0), _store(out, c + 8, s1), _store(out, c + 16, s2)


@njit(cache=True, nogil=True, fastmath=True)
def _begin_sums(
    inputs_bias: Floats,
    bias: Floats,
    codes: npt.NDArray[np.int32],
    bases: Ints,
    tables: Floats,
    at: int,
    gates: Floats,
    recalled: Floats,
) -> None:
    """(3H',) of one row before the products are added: biases, and the categories of the step at place `at`."""
    for j in range(len(bias)):
        gates[j] = inputs_bias[j]
        recalled[j] = bias[j]
    for c in range(len(codes)):
        row = tables[bases[c] + codes[c, at]]
        for j in range(len(row)):
            gates[j] += row[j]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _tanh(x: np.float32) -> tuple[np.float32, np.float32]:
    """Tanh to about 2e-7, as a numerator and a denominator, without a branch, so that eight are computed at once.

    The rational minimax approximation of degree 13 over 6 that Eigen uses (MathFunctionsImpl.h, `ptanh_float`).
    """
    x = min(max(x, np.float32(-7.9053111)), np.float32(7.9053111))
    s = x * x
    p = np.float32(-2.76076847742355e-16) * s + np.float32(2.00018790482477e-13)
    p = p * s + np.float32(-8.60467152213735e-11)
    p = p * s + np.float32(5.12229709037114e-08)
    p = p * s + np.float32(1.48572235717979e-05)
    p = p * s + np.float32(6.37261928875436e-04)
    p = p * s + np.float32(4.89352455891786e-03)
    q = np.float32(1.19825839466702e-06) * s + np.float32(1.18534705686654e-04)
    q = q * s + np.float32(2.26843463243900e-03)
    q = q * s + np.float32(4.89352518554385e-03)
    return x * p, q


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _sigmoid(x: np.float32) -> np.float32:
    above, below = _tanh(np.float32(0.5) * x)
    return np.float32(0.5) + np.float32(0.5) * (above / below)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _fade(rate: Floats, days: np.float32, state: Floats, out: Floats) -> None:
    """State · exp(−rate · days), by tanh: e^−2y = (1 − tanh y) / (1 + tanh y); what is off is below 3e-7 of 1."""
    for j in range(len(state)):
        above, below = _tanh(np.float32(0.5) * rate[j] * days)
        out[j] = state[j] * ((below - above) / (below + above))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _update(gates: Floats, recalled: Floats, kept: Floats, state: Floats) -> None:
    """One row's new state."""
    hidden = len(state)
    for j in range(hidden):
        r = _sigmoid(gates[j] + recalled[j])
        z = _sigmoid(gates[hidden + j] + recalled[hidden + j])
        above, below = _tanh(gates[2 * hidden + j] + r * recalled[2 * hidden + j])
        n = above / below
        state[j] = n + z * (kept[j] - n)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _add_to_pools(state: Floats, faded: Floats, is_first: bool, pool: Floats) -> None:
    """Note a state in a row's pools: faded last, sum, maximum, faded sum."""
    hidden = len(state)
    for j in range(hidden):
        pool[j] = faded[j]
        pool[hidden + j] += state[j]
        pool[2 * hidden + j] = state[j] if is_first else max(pool[2 * hidden + j], state[j])
        pool[3 * hidden + j] += faded[j]


@njit(cache=True, nogil=True)
def pool_journeys(
    codes: npt.NDArray[np.int32],
    carried: Floats,
    gap_days: Floats,
    age_days: Floats,
    offsets: Ints,
    lengths: Ints,
    low: int,
    high: int,
    bases: Ints,
    tables: Floats,
    by_number: Floats,
    inputs_bias: Floats,
    weight: Floats,
    bias: Floats,
    rate: Floats,
    pool_rate: Floats,
    out: Floats,
) -> None:
    """Pools of the journeys with ranks `low` to `high`; may run side by side on other ranks.

    Args:
        codes: (C, E), see `features.sequences.sequences.SequenceBatch`.
        carried: (E, F) its numbers.
        gap_days: (E,).
        age_days: (E,).
        offsets: (T + 1,) where the steps lie.
        lengths: (B,) falling.
        low: the first rank.
        high: one past the last.
        bases: (C,) where each category begins in `tables`.
        tables: (values of all categories, 3H') what each value puts into the gates.
        by_number: (P, 24 F) panels: what a number of 1 puts into them.
        inputs_bias: (3H',).
        weight: (P, 24 H) panels of U.
        bias: (3H',) b.
        rate: (H,) of forgetting between steps, a day.
        pool_rate: (H,) of forgetting up to the cutoff.
        out: (B, 4H) zeros; faded last state, sum, maximum, faded sum.
    """
    hidden, width = len(rate), len(bias)
    state, kept = np.zeros((TOGETHER, hidden), np.float32), np.zeros((TOGETHER, hidden), np.float32)
    gates, recalled = np.zeros((TOGETHER, width), np.float32), np.zeros((TOGETHER, width), np.float32)
    faded = np.zeros(hidden, np.float32)
    for first in range(low, high, TOGETHER):
        active = min(TOGETHER, high - first)
        state[:] = np.float32(0.0)
        for step in range(lengths[first]):
            while lengths[first + active - 1] <= step:
                active -= 1
            at = offsets[step] + first
            for r in range(active):
                _fade(rate, gap_days[at + r], state[r], kept[r])
                _begin_sums(inputs_bias, bias, codes, bases, tables, at + r, gates[r], recalled[r])
            _add_product(carried, at, active, by_number, gates)
            _add_product(kept, 0, active, weight, recalled)
            for r in range(active):
                _update(gates[r], recalled[r], kept[r], state[r])
                _fade(pool_rate, age_days[at + r], state[r], faded)
                _add_to_pools(state[r], faded, step == 0, out[first + r])

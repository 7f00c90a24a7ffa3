"""The compiled GRU of services: `gru` and the pools of `encoder`, forward only, without PyTorch.

Eight journeys go through their steps together, so that a weight is read from the cache once for several of them. What
a step carries has been multiplied into the gates beforehand: a category is one row to add. The tests hold this to the
numbers of `models.sequence.encoder`.

The matrix product is written as loops: four journeys and four units at a time, so that a number of the sum is read and
written once for four units, and a weight is read once for four journeys. Against the same product in hand-written LLVM
vectors, which stood here before, medians of 9 to 60 repeats in turn on two busy cores, one thread, 100 steps a journey:

| hidden | one journey | block of 256 journeys |
|---|---|---|
| 64 | 0.084 ms against 0.096 (0.87 ×) | 27.8 ms against 33.3 (0.83 ×) |
| 128 | 0.179 ms against 0.275 (0.65 ×) | 68.2 ms against 87.7 (0.78 ×) |
| 256 | 0.709 ms against 0.949 (0.75 ×) | 346 ms against 299 (1.16 ×) |

`np.dot` takes 1.2, 1.0 and 0.5 times as long at one journey, 2.2 to 2.9 times at a block of 256, and its sums depend on
how many rows go through at once. The loops give the bits that the vectors gave.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

import features.kernel_cache  # noqa: F401  # before any kernel is declared

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

JOURNEYS_AT_ONCE = 8


# "contract" lets a product and a sum become one instruction (fused multiply-add). It does not let the compiler reorder
# sums: each number is summed in the order of the units, so a row has the same bits alone and in a batch.
@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _add_product(a: Floats, begin: int, rows: int, weight: Floats, out: Floats) -> None:
    """Add a[begin : begin + rows] @ weight to the first rows of `out`: (n, U), (U, J), (m, J)."""
    fours = rows - rows % 4
    for r in range(0, fours, 4):
        _add_four_rows(a[begin + r : begin + r + 4], weight, out[r : r + 4])
    for r in range(fours, rows):
        total, factors = out[r], a[begin + r]
        for u in range(len(weight)):
            for j in range(len(total)):
                total[j] += factors[u] * weight[u, j]


@njit(cache=True, nogil=True, fastmath={"contract"}, error_model="numpy")
def _add_four_rows(a: Floats, weight: Floats, out: Floats) -> None:
    """The same for (4, U) rows, four units at a time."""
    o0, o1, o2, o3 = out[0], out[1], out[2], out[3]
    fours = len(weight) - len(weight) % 4
    for u in range(0, fours, 4):
        w0, w1, w2, w3 = weight[u], weight[u + 1], weight[u + 2], weight[u + 3]
        a00, a01, a02, a03 = a[0, u], a[0, u + 1], a[0, u + 2], a[0, u + 3]
        a10, a11, a12, a13 = a[1, u], a[1, u + 1], a[1, u + 2], a[1, u + 3]
        a20, a21, a22, a23 = a[2, u], a[2, u + 1], a[2, u + 2], a[2, u + 3]
        a30, a31, a32, a33 = a[3, u], a[3, u + 1], a[3, u + 2], a[3, u + 3]
        for j in range(len(w0)):
            o0[j] = o0[j] + a00 * w0[j] + a01 * w1[j] + a02 * w2[j] + a03 * w3[j]
            o1[j] = o1[j] + a10 * w0[j] + a11 * w1[j] + a12 * w2[j] + a13 * w3[j]
            o2[j] = o2[j] + a20 * w0[j] + a21 * w1[j] + a22 * w2[j] + a23 * w3[j]
            o3[j] = o3[j] + a30 * w0[j] + a31 * w1[j] + a32 * w2[j] + a33 * w3[j]
    for u in range(fours, len(weight)):
        for r in range(4):
            for j in range(out.shape[1]):
                out[r, j] += a[r, u] * weight[u, j]


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
    """(3H,) of one row before the products are added: biases, and the categories of the step at place `at`."""
    for j in range(len(bias)):
        gates[j] = inputs_bias[j]
        recalled[j] = bias[j]
    for c in range(len(codes)):
        row = tables[bases[c] + codes[c, at]]
        for j in range(len(row)):
            gates[j] += row[j]


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _tanh(x: np.float32) -> tuple[np.float32, np.float32]:
    """Tanh to about 2e-7, as a numerator and a denominator.

    The rational minimax approximation of degree 13 over 6 that Eigen uses (MathFunctionsImpl.h, `ptanh_float`). It has
    no branch and calls no library, so the compiler computes eight at once; `np.tanh` would be computed one by one.
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
    top, bottom = _tanh(np.float32(0.5) * x)
    return np.float32(0.5) + np.float32(0.5) * (top / bottom)


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _fade(rate: Floats, days: np.float32, state: Floats, out: Floats) -> None:
    """State · exp(−rate · days), by tanh: e^−2y = (1 − tanh y) / (1 + tanh y); the error is below 3e-7."""
    for j in range(len(state)):
        top, bottom = _tanh(np.float32(0.5) * rate[j] * days)
        out[j] = state[j] * ((bottom - top) / (bottom + top))


@njit(cache=True, nogil=True, fastmath=True, error_model="numpy")
def _update(gates: Floats, recalled: Floats, faded_state: Floats, state: Floats) -> None:
    """One row's new state."""
    hidden = len(state)
    for j in range(hidden):
        r = _sigmoid(gates[j] + recalled[j])
        z = _sigmoid(gates[hidden + j] + recalled[hidden + j])
        top, bottom = _tanh(gates[2 * hidden + j] + r * recalled[2 * hidden + j])
        n = top / bottom
        state[j] = n + z * (faded_state[j] - n)


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
    """Pools of the journeys that have a step.

    Args:
        codes: (C, E), see `features.sequences.sequences.SequenceBatch`.
        carried: (E, F) its numbers.
        gap_days: (E,).
        age_days: (E,).
        offsets: (T + 1,) where the steps lie.
        lengths: (B,) falling, each at least 1.
        bases: (C,) where each category begins in `tables`.
        tables: (values of all categories, 3H) what each value puts into the gates.
        by_number: (F, 3H) what a number of 1 puts into them.
        inputs_bias: (3H,).
        weight: (H, 3H) U.
        bias: (3H,) b.
        rate: (H,) of forgetting between steps, a day.
        pool_rate: (H,) of forgetting up to the cutoff.
        out: (B, 4H) zeros; faded last state, sum, maximum, faded sum.
    """
    hidden, width = len(rate), len(bias)
    state = np.zeros((JOURNEYS_AT_ONCE, hidden), np.float32)
    faded_state = np.zeros((JOURNEYS_AT_ONCE, hidden), np.float32)
    gates = np.zeros((JOURNEYS_AT_ONCE, width), np.float32)
    recalled = np.zeros((JOURNEYS_AT_ONCE, width), np.float32)
    faded = np.zeros(hidden, np.float32)
    for first in range(0, len(lengths), JOURNEYS_AT_ONCE):
        active = min(JOURNEYS_AT_ONCE, len(lengths) - first)
        state[:] = np.float32(0.0)
        for step in range(lengths[first]):
            while lengths[first + active - 1] <= step:
                active -= 1
            at = offsets[step] + first
            for r in range(active):
                _fade(rate, gap_days[at + r], state[r], faded_state[r])
                _begin_sums(inputs_bias, bias, codes, bases, tables, at + r, gates[r], recalled[r])
            _add_product(carried, at, active, by_number, gates)
            _add_product(faded_state, 0, active, weight, recalled)
            for r in range(active):
                _update(gates[r], recalled[r], faded_state[r], state[r])
                _fade(pool_rate, age_days[at + r], state[r], faded)
                _add_to_pools(state[r], faded, step == 0, out[first + r])

"""Runs a fitted encoder, without Lightning and, for a GRU, without PyTorch.

A GRU runs in `models.sequence.gru_kernels`, compiled, on one thread for a request and on all cores for thousands. A
Transformer runs in PyTorch, eager. Measured against `torch.compile` and ONNX Runtime, these were the fastest:
`experiments/benchmarks/sequence_speed.py`, figures in `experiments/LOG.md`.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import Snapshots
from features.sequences.sequences import SequenceBatch, SequenceFeatures
from models.sequence.gru_kernels import pool_journeys
from models.sequence.settings import EncoderSettings, Floats, Weights

ROWS_AT_ONCE, FEWEST_ROWS = 256, 16  # of a block
BLOCKS = 8  # at least, where there are rows enough: the first ones have the longest journeys
SERIAL_EVENTS = 2_000  # below this many events a thread costs more than it brings


class Runtime(Protocol):
    """Embeds a batch: (B, D) float32 by rank."""

    def pooled(self, batch: SequenceBatch) -> Floats: ...  # noqa: D102


def runtime(settings: EncoderSettings, weights: Weights, sequences: SequenceFeatures) -> Runtime:
    """The runtime of an encoder with these weights, by the names of `Encoder.state_dict`."""
    if settings.network == "gru":
        return CompiledGRU(weights)
    from models.sequence.torch_runtime import TorchRuntime  # PyTorch is there only where a model needs it

    return TorchRuntime(settings, weights, sequences)


class CompiledGRU:
    """The compiled kernel, with all that precedes the gates multiplied into them."""

    def __init__(self, weights: Weights) -> None:
        inputs = np.asarray(weights["network.inputs.weight"].T, np.float64)  # (D, 3H)
        names = sorted(
            (name for name in weights if name.startswith("tables.")), key=lambda name: int(name.split(".")[1])
        )
        tables = [weights[name] for name in names]
        self.bases = np.cumsum([0, *(len(table) for table in tables[:-1])]).astype(np.int64)
        self.tables = _float32(np.concatenate(tables) @ inputs)
        self.by_number = _float32(weights["numbers.weight"].T @ inputs)
        self.inputs_bias = _float32(weights["numbers.bias"] @ inputs + weights["network.inputs.bias"])
        self.weight, self.bias = _float32(weights["network.weight"]), _float32(weights["network.bias"])
        self.rate, self.pool_rate = _float32(np.exp(weights["network.log_rate"])), _float32(np.exp(weights["log_rate"]))

    def pooled(self, batch: SequenceBatch) -> Floats:
        """(B, 4H + K) by rank."""
        hidden = len(self.rate)
        out = np.zeros((len(batch.lengths), 4 * hidden), np.float32)
        lengths = batch.lengths[: np.count_nonzero(batch.lengths)]  # the empty journeys come last and keep their zeros
        pool_journeys(
            batch.codes, batch.numbers, batch.gap_days, batch.age_days, batch.offsets, lengths, self.bases, self.tables,
            self.by_number, self.inputs_bias, self.weight, self.bias, self.rate, self.pool_rate, out,
        )  # fmt: skip
        out[:, hidden : 2 * hidden] /= np.maximum(batch.lengths, 1)[:, None]
        np.arcsinh(out[:, 3 * hidden :], out=out[:, 3 * hidden :])
        return np.concatenate([out, batch.context], axis=1)


def over_blocks(
    sequences: SequenceFeatures,
    snapshots: Snapshots,
    work: Callable[[SequenceBatch], npt.NDArray[Any]],
    workers: int | None = None,
) -> npt.NDArray[Any]:
    """(n, …) results of `work` on the steps of (n,) snapshots, in the order of the snapshots.

    Rows of about one length go through together, in blocks that bound the memory; blocks run side by side where there
    is enough to do. Each row depends on itself alone.

    Args:
        sequences: fitted.
        snapshots: (n,).
        work: a batch → (B, …) by rank.
        workers: blocks that run side by side; by default as many as this process has cores.
    """
    events = snapshots.stop - snapshots.start
    if len(snapshots) <= ROWS_AT_ONCE and int(events.sum()) <= SERIAL_EVENTS:
        batch = sequences.batch(snapshots)
        ranked = work(batch)
        out = np.empty_like(ranked)
        out[batch.rows] = ranked
        return out
    order = np.argsort(-events, kind="stable")
    # The size does not depend on the number of cores, so a log gets the same bits on every machine.
    size = min(ROWS_AT_ONCE, max(FEWEST_ROWS, -(-len(order) // BLOCKS)))
    blocks = [order[at : at + size] for at in range(0, len(order), size)]

    def block(rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        batch = sequences.batch(snapshots.take(rows))
        return rows[batch.rows], work(batch)

    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        done = list(pool.map(block, blocks))
    out = np.empty((len(snapshots), *done[0][1].shape[1:]), done[0][1].dtype)
    for rows, ranked in done:
        out[rows] = ranked
    return out


def _float32(values: npt.NDArray[Any]) -> Floats:
    return np.ascontiguousarray(values, np.float32)

"""What runs an encoder in a service: the fastest that was measured, without anything that training needs.

A GRU runs in `models.sequence.gru_kernels`, compiled, on one thread for a request and on all cores for thousands;
PyTorch is not even imported. A Transformer runs in PyTorch, eager. Against `torch.compile` and ONNX Runtime:
`experiments/benchmarks/sequence_speed.py`, figures in `experiments/LOG.md`.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import Snapshots
from features.sequences.sequences import SequenceBatch, SequenceFeatures
from models.sequence.gru_kernels import PANEL, pool_journeys
from models.sequence.settings import EncoderSettings

Floats = npt.NDArray[np.float32]
Weights = Mapping[str, Floats]

ROWS_AT_ONCE, FEWEST_ROWS = 256, 16  # of a block
BLOCKS = 8  # at least, where there are rows enough: the first ones have the longest journeys
SERIAL_EVENTS = 2_000  # below this many events a thread costs more than it brings


class Runtime(Protocol):
    """Embeds a batch: (B, D) float32 by rank."""

    def pooled(self, batch: SequenceBatch) -> Floats: ...  # noqa: D102


def runtime(settings: EncoderSettings, weights: Weights, sequences: SequenceFeatures) -> Runtime:
    """What runs an encoder with these weights, as `Encoder.state_dict` names them."""
    if settings.network == "gru":
        return CompiledGRU(weights)
    from models.sequence.torch_runtime import TorchRuntime  # PyTorch is there only where a model needs it

    return TorchRuntime(settings, weights, sequences)


class CompiledGRU:
    """The compiled kernel, with all that precedes the gates multiplied into them."""

    def __init__(self, weights: Weights) -> None:
        inputs = _columns(weights["network.inputs.weight"].T)  # (H, 3H')
        tables = [weights[name] for name in sorted(_names(weights, "tables."), key=lambda n: int(n.split(".")[1]))]
        self.bases = np.cumsum([0, *(len(table) for table in tables[:-1])]).astype(np.int64)
        self.tables = _plain(np.concatenate(tables) @ inputs)
        self.by_number = _panels(weights["numbers.weight"].T @ inputs)
        self.inputs_bias = _plain(weights["numbers.bias"] @ inputs + _columns(weights["network.inputs.bias"]))
        self.weight = _panels(_columns(weights["network.weight"]))
        self.bias = _plain(_columns(weights["network.bias"]))
        self.rate, self.pool_rate = (_plain(np.exp(weights[n])) for n in ("network.log_rate", "log_rate"))

    def pooled(self, batch: SequenceBatch) -> Floats:
        """(B, 4H + K) by rank."""
        hidden, rows = len(self.rate), len(batch.lengths)
        out = np.zeros((rows, 4 * hidden), np.float32)
        there = int(np.count_nonzero(batch.lengths))
        pool_journeys(
            batch.codes, batch.numbers, batch.gap_days, batch.age_days, batch.offsets, batch.lengths, 0, there,
            self.bases, self.tables, self.by_number, self.inputs_bias, self.weight, self.bias, self.rate,
            self.pool_rate, out,
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
    """(n, …) what `work` makes of the steps of (n,) snapshots, in their order.

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
        found = work(batch)
        out = np.empty_like(found)
        out[batch.rows] = found
        return out
    order = np.argsort(-events, kind="stable")
    size = min(ROWS_AT_ONCE, max(FEWEST_ROWS, -(-len(order) // BLOCKS)))  # whatever the cores: the same bits anywhere
    blocks = [order[at : at + size] for at in range(0, len(order), size)]

    def one(rows: npt.NDArray[np.int64]) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        batch = sequences.batch(snapshots.take(rows))
        return rows[batch.rows], work(batch)

    with ThreadPoolExecutor(workers or len(os.sched_getaffinity(0))) as pool:
        done = list(pool.map(one, blocks))
    out = np.empty((len(snapshots), *done[0][1].shape[1:]), done[0][1].dtype)
    for rows, found in done:
        out[rows] = found
    return out


def _names(weights: Weights, prefix: str) -> list[str]:
    return [name for name in weights if name.startswith(prefix)]


def _plain(values: npt.NDArray[Any]) -> Floats:
    return np.ascontiguousarray(values, np.float32)


def _columns(values: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """(…, 3H) in double precision, with zeros up to a whole number of panels."""
    spare = -values.shape[-1] % PANEL
    return np.pad(np.asarray(values, np.float64), [(0, 0)] * (values.ndim - 1) + [(0, spare)])


def _panels(values: npt.NDArray[Any]) -> Floats:
    """(n, 24 P) → (P, 24 n): 24 columns together, row after row."""
    return _plain(values.reshape(len(values), -1, PANEL).transpose(1, 0, 2).reshape(-1, PANEL * len(values)))

"""How fast journeys of 100 events are scored: thousands against a bare `torch.nn.GRU`, and one at a time."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.benchmarks.sequences.worlds import (
    LENGTH,
    FigureBar,
    Way,
    as_request,
    as_steps,
    encoder_of,
    long_journeys,
    medians,
    model_of,
)
from features.journeys.journeys import Snapshots
from models.sequence.embedder import plain_weights
from models.sequence.model import SequenceModel
from models.sequence.runtime import over_blocks, runtime
from models.sequence.settings import Network

PARTS = (12, 3)  # of the journeys; the bare GRU reads one at a time, and the better division counts
NETWORKS: tuple[Network, ...] = ("gru", "transformer")
SHARE, SINGLE_MS = 0.9, 4.0


def thousands(n_rows: int, widths: tuple[int, ...], rounds: int) -> tuple[dict[str, Any], list[FigureBar]]:
    """Steps a second: ours from packed journeys to embeddings, the bare GRU from tensors that lie ready."""
    rows = long_journeys(n_rows)
    sequences = as_steps(rows)
    results: dict[str, Any] = {}
    bars = []
    for hidden in widths:
        ways = bare_ways(n_rows, hidden)
        for network in NETWORKS:
            encoder = encoder_of(network, hidden, sequences)
            engine = runtime(encoder.settings, plain_weights(encoder), sequences)
            ways[f"{network}, end to end"] = partial(over_blocks, sequences, rows, engine.pooled)
            ways[f"{network}, one block at a time"] = partial(over_blocks, sequences, rows, engine.pooled, workers=1)
        seconds = medians(ways, rounds)
        speed = {name: n_rows * LENGTH / seconds_ for name, seconds_ in seconds.items()}
        results[f"hidden {hidden}"] = speed
        share = speed["gru, end to end"] / max(value for name, value in speed.items() if name.startswith("bare"))
        bars.append(FigureBar(f"GRU end to end by bare nn.GRU, hidden {hidden}", share, SHARE, True, "×"))
    return results, bars


def bare_ways(n_rows: int, hidden: int) -> dict[str, Way]:
    """`torch.nn.GRU` alone on as many journeys of 100 steps, its inputs as wide as itself: padded and packed."""
    gru = nn.GRU(hidden, hidden).eval()
    ways: dict[str, Way] = {}
    for parts in PARTS:
        size = n_rows // parts
        padded = torch.randn(LENGTH, size, hidden)
        packed = nn.utils.rnn.pack_padded_sequence(padded, torch.full((size,), LENGTH))
        ways[f"bare nn.GRU padded, {size} at once"] = partial(_repeated, gru, padded, parts)
        ways[f"bare nn.GRU packed, {size} at once"] = partial(_repeated, gru, packed, parts)
    return ways


def _repeated(gru: nn.GRU, inputs: Any, times: int) -> None:
    with torch.inference_mode():
        for _ in range(times):
            gru(inputs)


def _of_the_next(model: SequenceModel, requests: Iterator[Snapshots]) -> Any:
    return model.predict(next(requests))


def single_journey(hidden: int, times: int) -> tuple[dict[str, Any], list[FigureBar]]:
    """Milliseconds from one journey to its probability: of a log that was met before, and of one just packed."""
    rows = long_journeys(100)
    sequences = as_steps(rows)
    met, results = rows.take(np.arange(1)), {}
    for network, members in itertools.product(NETWORKS, (1, 4)):
        model = model_of(network, hidden, members, sequences)
        requests = iter([as_request(rows, number % len(rows)) for number in range(times + 1)])
        ways: dict[str, Way] = {
            "log met before": partial(model.predict, met),
            "log just packed": partial(_of_the_next, model, requests),
        }
        seconds = medians(ways, times)
        results[f"{network}, members: {members}"] = {name: 1e3 * seconds_ for name, seconds_ in seconds.items()}
    slowest = max(results["gru, members: 1"].values())
    return results, [FigureBar(f"one journey, GRU, hidden {hidden}, one member", slowest, SINGLE_MS, False, "ms")]

"""How fast encoders learn: forward and backward against `torch.nn.GRU`, and how long batches keep them waiting."""

from __future__ import annotations

import copy
import itertools
from functools import partial
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from experiments.benchmarks.sequences.worlds import FigureBar, Way, encoder_of, medians
from features.journeys.journeys import Snapshots
from features.sequences.sequences import SequenceFeatures
from models.sequence.encoder import Encoder, Steps, steps_of
from models.sequence.finetuning import Classifier, LabelledBatches
from models.sequence.gru import DecayGRU
from models.sequence.pretraining import JourneyBatches, Pretraining, all_journeys, length_buckets, time_edges
from models.sequence.settings import SequenceModelSettings

WAITING = 0.1  # of a step, at most
BATCH, HIDDEN = 64, 128


class Source(Protocol):
    """Batches, as `models.sequence.fitting` takes them."""

    def __len__(self) -> int: ...

    def batch(self, epoch: int, number: int) -> Any: ...  # noqa: D102


def throughput(
    rows: Snapshots, batches: tuple[int, ...], widths: tuple[int, ...], rounds: int, most: int
) -> dict[str, Any]:
    """Real steps a second, forward and backward, inputs' gradient included, over a few batches of like lengths."""
    sequences = SequenceFeatures().fit(rows)
    report = {}
    for size, hidden in itertools.product(batches, widths):
        cut = length_buckets(sequences.lengths(rows), size, np.random.default_rng(0))[:most]
        steps = [steps_of(sequences.batch(rows.take(chosen))) for chosen in cut]
        real = sum(len(step_batch.gap_days) for step_batch in steps)
        seconds = medians(learning_ways(steps, encoder_of("gru", hidden, sequences), hidden), rounds)
        speed = {name: real / elapsed for name, elapsed in seconds.items()}
        report[f"batch {size}, hidden {hidden}"] = speed | {
            "encoder by packed": speed["encoder"] / speed["nn.GRU packed"],
            "encoder by padded": speed["encoder"] / speed["nn.GRU padded"],
            "layer by packed": speed["DecayGRU alone"] / speed["nn.GRU packed"],
            "layer by padded": speed["DecayGRU alone"] / speed["nn.GRU padded"],
        }
    return report


def learning_ways(steps: list[Steps], encoder: Encoder, hidden: int) -> dict[str, Way]:
    """Forward and backward of the whole encoder, of its layer, and of PyTorch's on the same lengths."""
    layer, bare = DecayGRU(hidden, hidden), nn.GRU(hidden, hidden)
    flat = [torch.randn(len(step_batch.gap_days), hidden, requires_grad=True) for step_batch in steps]
    dense = [torch.randn(*step_batch.padded.t().shape, hidden, requires_grad=True) for step_batch in steps]  # (T, B, H)
    packed = [
        nn.utils.rnn.PackedSequence(x, torch.tensor(step_batch.sizes))
        for x, step_batch in zip(flat, steps, strict=True)
    ]

    def whole(step_batch: Steps) -> Tensor:
        embedding, states = encoder(step_batch)
        total: Tensor = embedding.sum() + states.sum()
        return total

    def over(*parts: Any) -> None:
        for loss in parts:
            loss().backward()

    return {
        "encoder": partial(over, *(partial(whole, step_batch) for step_batch in steps)),
        "DecayGRU alone": partial(
            over,
            *(
                lambda x=x, step_batch=step_batch: layer(x, step_batch.gap_days, step_batch.sizes).sum()
                for x, step_batch in zip(flat, steps, strict=True)
            ),
        ),
        "nn.GRU packed": partial(over, *(lambda x=x: bare(x)[0].data.sum() for x in packed)),
        "nn.GRU padded": partial(over, *(lambda x=x: bare(x)[0].sum() for x in dense)),
    }


def waiting(name: str, rows: Snapshots, most: int, rounds: int) -> tuple[dict[str, Any], list[FigureBar]]:
    """The share of a step's time in which its batch is made: pretraining, both ways, and fine-tuning."""
    sequences = SequenceFeatures().fit(rows)
    settings = SequenceModelSettings(
        hidden=HIDDEN, pretraining_batch=BATCH, batch_size=BATCH, objective="next", next_weight=0.0
    )
    report, bars = {}, []
    for title, source, network in sources(rows, sequences, settings):
        numbers = range(min(most, len(source)))
        optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
        prepared = _make(source, numbers)
        ways: dict[str, Way] = {
            "batches": partial(_make, source, numbers),
            "steps": partial(_take, network, optimizer, prepared),
        }
        seconds = medians(ways, rounds)
        share = seconds["batches"] / sum(seconds.values())
        per = {f"{part}, ms each": 1e3 * elapsed / len(prepared) for part, elapsed in seconds.items()}
        report[title] = per | {"events a batch": float(np.mean([len(batch.steps.gap_days) for batch in prepared]))}
        bars.append(FigureBar(f"batches' share of a training step, {name}, {title}", share, WAITING, False, "of 1"))
    return report, bars


def sources(
    rows: Snapshots, sequences: SequenceFeatures, settings: SequenceModelSettings
) -> list[tuple[str, Source, nn.Module]]:
    """What is learnt from: a name, its batches, the network that takes them."""
    encoder = encoder_of("gru", settings.hidden, sequences).train()
    edges = time_edges(sequences, rows)
    report: list[tuple[str, Source, nn.Module]] = []
    for objective in ("next", "coles"):
        chosen = SequenceModelSettings(**vars(settings) | {"objective": objective})
        network = Pretraining(copy.deepcopy(encoder), chosen, edges)
        report.append((f"pretraining {objective!r}", JourneyBatches(all_journeys(rows), sequences, chosen), network))
    labels = (np.arange(len(rows))[:, None] % 3 == 0).astype(np.float32)
    batches = LabelledBatches(rows, labels, sequences, settings.batch_size, settings.seed)
    return [*report, ("fine-tuning", batches, Classifier(copy.deepcopy(encoder), settings, 1, None))]


def _make(source: Source, numbers: range) -> list[Any]:
    return [source.batch(0, number) for number in numbers]


def _take(network: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Any]) -> None:
    """The steps of training that these batches make."""
    loss: Any = network.loss
    for batch in batches:
        optimizer.zero_grad()
        loss(batch).backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()

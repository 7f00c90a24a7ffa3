"""Fine-tuning: an encoder and a head for each task, fitted to labels; several tasks share one encoder.

The loss is the sum over tasks of the binary cross-entropy of the rows with a known label, plus, with `next_weight`,
next-step prediction on the same journeys. There are no class weights, as they would distort the probabilities.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.journeys.journeys import Snapshots
from features.sequences.sequences import SequenceFeatures
from models.contract import Report
from models.sequence.encoder import Encoder, Steps, steps_of
from models.sequence.fit_settings import FitSettings
from models.sequence.fitting import fit_network
from models.sequence.pretraining import NextStep, length_buckets, time_edges
from models.sequence.settings import SequenceModelSettings

Labels = npt.NDArray[np.float32]
CHECK_BATCH = 1024


@dataclass(frozen=True)
class LabelledBatch:
    """A batch of fine-tuning.

    Attributes:
        steps: of B journeys.
        labels: (B, tasks) by rank: 0, 1, or NaN where not known.
    """

    steps: Steps
    labels: Tensor

    def to(self, device: torch.device | str) -> LabelledBatch:
        """The same on another device."""
        return LabelledBatch(self.steps.to(device), self.labels.to(device))


class Head(nn.Module):
    """Embedding → log-odds: a norm, then one or two layers."""

    def __init__(self, dim: int, hidden: int, dropout: float) -> None:
        super().__init__()
        self.norm, self.dropout = nn.LayerNorm(dim), nn.Dropout(dropout)
        self.inner = nn.Linear(dim, hidden) if hidden else None
        self.out = nn.Linear(hidden or dim, 1)

    def forward(self, embedding: Tensor) -> Tensor:
        """(B, D) → (B,)."""
        x = self.dropout(self.norm(embedding))
        if self.inner is not None:
            x = self.dropout(F.silu(self.inner(x)))
        odds: Tensor = self.out(x)[:, 0]
        return odds


class Classifier(nn.Module):
    """An encoder with its heads, as `models.sequence.fitting` fits it."""

    def __init__(
        self, encoder: Encoder, settings: SequenceModelSettings, tasks: int, edges: npt.NDArray[np.float32] | None
    ) -> None:
        super().__init__()
        self.encoder, self.next_weight = encoder, settings.next_weight
        self.heads = nn.ModuleList([Head(encoder.dim, settings.head, settings.head_dropout) for _ in range(tasks)])
        self.next = None if edges is None else NextStep(settings.hidden, encoder.touchpoints, edges)

    def forward(self, steps: Steps) -> tuple[Tensor, Tensor]:
        """(B, tasks) log-odds by rank, (E, H) states."""
        embedding, states = self.encoder(steps)
        return torch.stack([head(embedding) for head in self.heads], dim=1), states

    def loss(self, batch: LabelledBatch) -> Tensor:
        """Mean over the known labels of each task, summed over tasks."""
        odds, states = self(batch.steps)
        labelled = ~batch.labels.isnan()
        each = F.binary_cross_entropy_with_logits(odds, batch.labels.nan_to_num(), reduction="none") * labelled
        total: Tensor = (each.sum(0) / labelled.sum(0).clamp(min=1)).sum()
        return total if self.next is None else total + self.next_weight * self.next.loss(states, batch.steps)

    def check(self, batch: LabelledBatch) -> tuple[Tensor, int]:
        """The cross-entropy of the first task, summed over the rows."""
        odds, _ = self(batch.steps)
        labelled = ~batch.labels[:, 0].isnan()
        loss = F.binary_cross_entropy_with_logits(odds[labelled, 0], batch.labels[labelled, 0], reduction="sum")
        return loss, int(labelled.sum())


class LabelledBatches:
    """Batches of labelled snapshots: pure functions of (epoch, number). In order where there is no seed."""

    def __init__(
        self,
        snapshots: Snapshots,
        labels: Labels,
        sequences: SequenceFeatures,
        size: int,
        seed: int | None,
        devices: int = 1,
    ) -> None:
        self.snapshots, self.labels, self.sequences, self.size, self.seed = snapshots, labels, sequences, size, seed
        self.devices = devices
        self._lengths = sequences.lengths(snapshots)
        self._epoch: tuple[int, list[npt.NDArray[np.int64]]] = (-1, [])

    def __len__(self) -> int:
        return -(-len(self.snapshots) // self.size)

    def batch(self, epoch: int, number: int) -> LabelledBatch:
        """Batch `number` of an epoch."""
        if self._epoch[0] != epoch:
            self._epoch = epoch, self._cut(epoch)
        rows = self._epoch[1][number]
        batch = self.sequences.batch(self.snapshots.take(rows))
        return LabelledBatch(steps_of(batch), torch.from_numpy(self.labels[rows[batch.rows]]))

    def _cut(self, epoch: int) -> list[npt.NDArray[np.int64]]:
        if self.seed is None:
            order = np.argsort(self._lengths, kind="stable")
            return [order[at : at + self.size] for at in range(0, len(order), self.size)]
        return length_buckets(self._lengths, self.size, np.random.default_rng((self.seed, epoch)), self.devices)


def fine_tune(
    base: Encoder,
    sequences: SequenceFeatures,
    snapshots: Snapshots,
    labels: Labels,
    fit: npt.NDArray[np.int64],
    check: npt.NDArray[np.int64],
    settings: SequenceModelSettings,
    seed: int,
    *,
    folder: Path | None = None,
    report: Report | None = None,
) -> tuple[Classifier, pd.DataFrame]:
    """A copy of an encoder, fitted with fresh heads to the labels of some rows.

    Args:
        base: the encoder to copy.
        sequences: its inputs.
        snapshots: (n,) training rows.
        labels: (n, tasks), NaN where a label is not known.
        fit: rows to learn from.
        check: rows for the check loss.
        settings: of the whole model.
        seed: of this copy.
        folder: where the state of an interrupted fit is kept.
        report: called after each epoch.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        edges = time_edges(sequences, snapshots.take(fit)) if settings.next_weight else None
        network = Classifier(copy.deepcopy(base), settings, labels.shape[1], edges)
    learn = LabelledBatches(snapshots.take(fit), labels[fit], sequences, settings.batch_size, seed, settings.devices)
    look = LabelledBatches(snapshots.take(check), labels[check], sequences, CHECK_BATCH, None)
    options = FitSettings(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        patience=0,
        keep="last",
        devices=settings.devices,
        seed=seed,
    )
    return network, fit_network(network, learn, look, options, folder=folder, report=report)

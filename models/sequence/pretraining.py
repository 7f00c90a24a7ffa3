"""Self-supervised pretraining: learning from journeys without a label.

*Next step.* From the state after each step, which touchpoint comes next, and when. The time is a discrete hazard
(Singer & Willett 1993) over bins of equal frequency: with p_b the chance that the next step comes in bin b if it did
not come before, a gap in bin b has the likelihood p_b Π_{a<b} (1 − p_a). Nothing has followed a journey's last step by
the cutoff, so it is a censored gap: Π_{a<b} (1 − p_a) with b the bin of the time since.

*CoLES* (Babaev et al. 2022, "CoLES: Contrastive Learning for Event Sequences with Self-Supervision"). Slices of one
customer's journey get similar embeddings, slices of different customers dissimilar ones: with unit embeddings,
Σ |u − v|² over pairs of one customer plus Σ max(0, m − |u − v|)² over as many of the nearest pairs of two.

Both see every journey, labelled or not, up to the latest training cutoff and nothing beyond.
"""

from __future__ import annotations

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
from models.sequence.encoder import Encoder, Steps, steps_of
from models.sequence.fit_settings import FitSettings
from models.sequence.fitting import fit_network
from models.sequence.settings import EncoderSettings

BINS = 15
SHORTEST, SHARE = 2, (0.2, 1.0)  # a slice has at least two events, and a share of the journey's in this range
TEMPER = 1e-6  # least squared distance: the gradient of the root is infinite at 0
BUCKETED = 16  # batches that are cut from one chunk of journeys, sorted by length

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PretrainingBatch:
    """A batch of pretraining.

    Attributes:
        steps: of journeys, or of their slices.
        customers: (B,) int64, which customer of the batch each rank is a slice of.
    """

    steps: Steps
    customers: Tensor

    def to(self, device: torch.device | str) -> PretrainingBatch:
        """The same on another device."""
        return PretrainingBatch(self.steps.to(device), self.customers.to(device))


class NextStep(nn.Module):
    """The head that predicts the next touchpoint and the time to it."""

    edges: Tensor

    def __init__(self, hidden: int, touchpoints: int, edges: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self.touchpoint = nn.Linear(hidden, touchpoints)
        self.hazard = nn.Linear(hidden, len(edges) + 1)
        self.register_buffer("edges", torch.from_numpy(edges))

    def loss(self, states: Tensor, steps: Steps) -> Tensor:
        """Mean cross-entropy of the touchpoint plus mean negative log-likelihood of the time."""
        now, following = next_steps(steps.sizes)
        now, following = now.to(states.device), following.to(states.device)
        odds = self.hazard(states)  # (E, bins) log-odds that the step comes in this bin
        waited = F.pad(F.logsigmoid(-odds).cumsum(1), (1, 0))  # (E, bins + 1) log-chance of none before the bin
        came = torch.bucketize(steps.gap_days[following], self.edges)
        silent = torch.bucketize(steps.age_days[steps.last], self.edges)
        times = (waited[now, came] + F.logsigmoid(odds[now, came])).sum() + waited[steps.last, silent].sum()
        loss: Tensor = -times / max(len(states), 1)
        if len(now):
            loss = loss + F.cross_entropy(self.touchpoint(states[now]), steps.codes[0, following])
        return loss


def next_steps(sizes: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """(P,) places of the steps that have a next one, and (P,) places of those."""
    borders = np.concatenate(([0], np.cumsum(sizes))).astype(np.int64)
    following = np.arange(borders[1] if len(sizes) else 0, borders[-1])
    distance = (
        np.repeat(np.asarray(sizes[:-1], np.int64), np.asarray(sizes[1:], np.int64))
        if len(sizes) > 1
        else following[:0]
    )
    return torch.from_numpy(following - distance), torch.from_numpy(following)


def time_edges(sequences: SequenceFeatures, journeys: Snapshots) -> npt.NDArray[np.float32]:
    """Edges in days between bins of equally many gaps."""
    batch = sequences.batch(journeys.take(np.arange(min(len(journeys), 5_000))))
    gaps = batch.gap_days[batch.batch_sizes[:1].sum() :]
    if len(gaps) == 0:
        return np.array([1.0], np.float32)
    edges = np.unique(np.quantile(gaps, np.linspace(0, 1, BINS + 1)[1:-1]).astype(np.float32))
    return edges[edges > 0] if (edges > 0).any() else np.array([1.0], np.float32)


def coles_loss(embeddings: Tensor, customers: Tensor, margin: float) -> Tensor:
    """The contrastive loss above, both sums as means, for (B, D) embeddings and (B,) customers."""
    unit = F.normalize(embeddings, dim=1)
    squared = (2 - 2 * unit @ unit.t()).clamp(min=TEMPER)  # (B, B)
    alike = customers[:, None] == customers[None, :]
    pairs = torch.ones_like(alike).triu(1)
    same, other = squared[alike & pairs], squared[~alike & pairs].sqrt()
    if len(same) == 0 or len(other) == 0:
        return squared.sum() * 0
    near = other.topk(min(len(same), len(other)), largest=False).values
    return same.mean() + F.relu(margin - near).square().mean()


class Pretraining(nn.Module):
    """An encoder with its self-supervised objective, as `models.sequence.fitting` fits it."""

    def __init__(self, encoder: Encoder, settings: EncoderSettings, edges: npt.NDArray[np.float32]) -> None:
        super().__init__()
        self.encoder, self.settings = encoder, settings
        coles = settings.objective == "coles"
        self.next = None if coles else NextStep(settings.hidden, encoder.touchpoints, edges)

    def loss(self, batch: PretrainingBatch) -> Tensor:
        """The objective on one batch."""
        embeddings, states = self.encoder(batch.steps)
        total: Tensor = embeddings.new_zeros(())
        if self.next is not None:
            total = total + self.next.loss(states, batch.steps)
        if self.settings.objective != "next":
            total = total + coles_loss(embeddings, batch.customers, self.settings.margin)
        return total

    def check(self, batch: PretrainingBatch) -> tuple[Tensor, int]:
        """The objective, as a sum over the rows."""
        return self.loss(batch) * len(batch.customers), len(batch.customers)


class JourneyBatches:
    """Batches of whole journeys, or of slices of them: pure functions of (epoch, number)."""

    def __init__(self, journeys: Snapshots, sequences: SequenceFeatures, settings: EncoderSettings) -> None:
        self.journeys, self.sequences, self.settings = journeys, sequences, settings
        self._lengths = sequences.lengths(journeys)
        self._epoch: tuple[int, list[Ints]] = (-1, [])

    def __len__(self) -> int:
        return -(-len(self.journeys) // self.settings.pretraining_batch)

    def batch(self, epoch: int, number: int) -> PretrainingBatch:
        """Batch `number` of an epoch."""
        if self._epoch[0] != epoch:
            rng = np.random.default_rng((self.settings.seed, epoch))
            self._epoch = (
                epoch,
                length_buckets(self._lengths, self.settings.pretraining_batch, rng, self.settings.devices),
            )
        rows = self._epoch[1][number]
        chosen = self.journeys.take(rows)
        customers = np.arange(len(rows))
        if self.settings.objective != "next":
            customers = np.repeat(customers, self.settings.splits)
            rng = np.random.default_rng((self.settings.seed, epoch, number))
            chosen = slices(self.journeys.take(np.repeat(rows, self.settings.splits)), rng)
        batch = self.sequences.batch(chosen)
        return PretrainingBatch(steps_of(batch), torch.from_numpy(customers[batch.rows]))


def all_journeys(snapshots: Snapshots) -> Snapshots:
    """Every journey of the log with two events or more, as known at the latest cutoff of (n,) training snapshots."""
    journeys = snapshots.journeys.at(np.int64(snapshots.cutoff.max()))
    return journeys.take(np.flatnonzero(journeys.stop - journeys.start >= SHORTEST))


def slices(journeys: Snapshots, rng: np.random.Generator) -> Snapshots:
    """A random run of events of each row, seen from a random moment before its next event."""
    events = journeys.stop - journeys.start
    size = np.clip((events * rng.uniform(*SHARE, len(events))).astype(np.int64), SHORTEST, events)
    start = journeys.start + (rng.random(len(events)) * (events - size + 1)).astype(np.int64)
    stop, t = start + size, journeys.journeys.t
    ends = np.where(stop < journeys.stop, t[np.minimum(stop, len(t) - 1)], journeys.cutoff)
    last = t[stop - 1]
    cutoff = last + 1 + (rng.random(len(events)) * np.maximum(ends - last - 1, 0)).astype(np.int64)
    return Snapshots(journeys.journeys, journeys.customer, start, stop, cutoff)


def length_buckets(lengths: Ints, batch_size: int, rng: np.random.Generator, devices: int = 1) -> list[Ints]:
    """Rows in random batches of similar lengths: chunks of 16 batches are sorted by length, then batches are shuffled.

    Several devices take batches in turn and wait for the slowest, so the rows of one step are dealt out to them evenly.
    """
    order = rng.permutation(len(lengths))
    steps = []
    for at in range(0, len(order), batch_size * BUCKETED):
        lot = order[at : at + batch_size * BUCKETED]
        lot = lot[np.argsort(lengths[lot], kind="stable")]
        for low in range(0, len(lot), batch_size * devices):
            rows = lot[low : low + batch_size * devices]
            parts = -(-len(rows) // batch_size)
            steps.append([rows[part::parts] for part in range(parts)])
    drawn = [steps[place] for place in rng.permutation(len(steps))]
    drawn.sort(
        key=lambda step: len(step) < devices
    )  # stable: a step with too few batches goes last, as it would shift all after it
    return [batch for step in drawn for batch in step]


def pretrain_encoder(
    settings: EncoderSettings, sequences: SequenceFeatures, snapshots: Snapshots, folder: Path | None = None
) -> tuple[Encoder, pd.DataFrame]:
    """A pretrained encoder, and the curve of its loss.

    Args:
        settings: what it is like and what it learns.
        sequences: fitted on the training snapshots.
        snapshots: (n,) training rows; every journey of their log up to their latest cutoff is learnt from.
        folder: where an interrupted fit goes on.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        encoder = Encoder(settings, sequences)
        if settings.objective == "none":
            return encoder.eval(), pd.DataFrame()
        journeys = all_journeys(snapshots)
        network = Pretraining(encoder, settings, time_edges(sequences, journeys))
    options = FitSettings(
        epochs=settings.pretraining_epochs,
        learning_rate=settings.pretraining_rate,
        devices=settings.devices,
        seed=settings.seed,
    )
    history = fit_network(network, JourneyBatches(journeys, sequences, settings), None, options, folder=folder)
    return encoder, history

"""Encoders: from a ragged batch of steps to a state after each step and one embedding a journey.

    encoder = Encoder(EncoderSettings(hidden=128), sequences)
    embedding, states = encoder(steps_of(sequences.batch(snapshots)))     # (B, D), (E, H)

A step's categories and numbers are each mapped to a vector and summed; the network (`models.sequence.gru`,
`models.sequence.transformer`) reads them in order. The embedding pools its states: the last one, faded up to the
cutoff, their mean, their maximum, and a sum in which each unit forgets at a rate of its own, so that recent activity
counts beside all activity.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.sequences.sequences import SequenceBatch, SequenceFeatures
from models.sequence.gru import DecayGRU, log_rates
from models.sequence.settings import EncoderSettings
from models.sequence.transformer import CausalTransformer

EMBEDDING_SPREAD = 0.3  # standard deviation of fresh embeddings of categories
POOLS = ("last", "mean", "max", "recent")


@dataclass(frozen=True)
class Steps:
    """A `SequenceBatch` as tensors on one device; see there for C, E, F, K and ranks.

    Attributes:
        codes: (C, E) int64.
        numbers: (E, F).
        gap_days, age_days: (E,).
        owner: (E,) int64, rank of the row.
        context: (B, K).
        lengths: (B,) int64.
        last: (rows with a step,) int64, the place of each rank's last step.
        padded: (B, T) int64, the place of each row's steps, -1 beyond its end.
        sizes: (T,) rows that have a step s.
        rows: (B,) the row of the snapshots at each rank; stays in numpy.
    """

    codes: Tensor
    numbers: Tensor
    gap_days: Tensor
    age_days: Tensor
    owner: Tensor
    context: Tensor
    lengths: Tensor
    last: Tensor
    padded: Tensor
    sizes: tuple[int, ...]
    rows: npt.NDArray[np.int64]

    def to(self, device: torch.device | str) -> Steps:
        """The same on another device."""
        moved: dict[str, Any] = {
            field.name: part.to(device)
            for field in fields(self)
            if isinstance(part := getattr(self, field.name), Tensor)
        }
        return replace(self, **moved)


def steps_of(batch: SequenceBatch) -> Steps:
    """The tensors of a batch; they share its memory where possible."""
    offsets, active = batch.offsets, int((batch.lengths > 0).sum())
    last = offsets[batch.lengths[:active] - 1] + np.arange(active)
    return Steps(
        codes=torch.from_numpy(batch.codes.astype(np.int64)),
        numbers=torch.from_numpy(batch.numbers),
        gap_days=torch.from_numpy(batch.gap_days),
        age_days=torch.from_numpy(batch.age_days),
        owner=torch.from_numpy(batch.owner),
        context=torch.from_numpy(batch.context),
        lengths=torch.from_numpy(batch.lengths),
        last=torch.from_numpy(last),
        padded=torch.from_numpy(batch.padded()),
        sizes=tuple(batch.batch_sizes.tolist()),
        rows=batch.rows,
    )


class Encoder(nn.Module):
    """Steps → embedding and states.

    Args:
        settings: size and kind.
        sequences: fitted; its categories and numbers are a step's inputs.
    """

    def __init__(self, settings: EncoderSettings, sequences: SequenceFeatures) -> None:
        super().__init__()
        self.settings = settings
        hidden, inputs = settings.hidden, settings.inputs or settings.hidden
        self.tables = nn.ModuleList([nn.Embedding(size, inputs) for size in sequences.sizes.values()])
        self.touchpoints = next(iter(sequences.sizes.values()))  # codes of the first category
        for table in self.tables:
            nn.init.normal_(table.weight, std=EMBEDDING_SPREAD)  # type: ignore[arg-type]
        self.numbers = nn.Linear(sequences.n_numbers, inputs)
        self.dropout = nn.Dropout(settings.dropout)
        self.network: DecayGRU | CausalTransformer
        if settings.network == "gru":
            self.network = DecayGRU(inputs, hidden)
        else:
            self.network = CausalTransformer(inputs, hidden, settings.layers, settings.heads, settings.dropout)
        self.log_rate = nn.Parameter(log_rates(hidden))  # a day, at which the pools forget
        self.dim = len(POOLS) * hidden + sequences.n_context

    def forward(self, steps: Steps) -> tuple[Tensor, Tensor]:
        """(B, D) embeddings by rank, (E, H) states."""
        states = self.states(steps)
        return self.pool(states, steps), states

    def states(self, steps: Steps) -> Tensor:
        """(E, H) states of the network after each step."""
        x = self.numbers(steps.numbers)  # (E, D)
        for table, codes in zip(self.tables, steps.codes, strict=True):
            x = x + table(codes)
        x = self.dropout(x)
        if isinstance(self.network, DecayGRU):
            states: Tensor = self.network(x, steps.gap_days, steps.sizes)
            return states
        attended: Tensor = self.network(x, -steps.age_days, steps.padded)
        return attended

    def pool(self, states: Tensor, steps: Steps) -> Tensor:
        """(B, 4H + K) the journey as of its cutoff; zeros (and its context) for one without steps."""
        rows = len(steps.lengths)
        remaining = torch.exp(-steps.age_days[:, None] * self.log_rate.exp())  # (E, H) share that remains at the cutoff
        faded = states * remaining
        last = F.pad(faded[steps.last], (0, 0, 0, rows - len(steps.last)))
        zeros = states.new_zeros(rows, states.shape[1])
        mean = zeros.index_add(0, steps.owner, states) / steps.lengths.clamp(min=1)[:, None]
        owner = steps.owner[:, None].expand(-1, states.shape[1])
        most = zeros.scatter_reduce(0, owner, states, "amax", include_self=False)
        recent = torch.asinh(zeros.index_add(0, steps.owner, faded))
        return torch.cat([last, mean, most, recent, steps.context], dim=1)

"""How a fit is set up and what it leaves behind: settings, networks, batches, the curve of its losses."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import pandas as pd

from features.errors import ConfigError

if TYPE_CHECKING:
    from torch import Tensor

CHECKPOINT = "last.safetensors"


@dataclass(frozen=True)
class FitSettings:
    """How a network is fitted: AdamW, a linear warm-up, then a cosine down to zero over all steps.

    Attributes:
        epochs: at most so many passes over the training batches; the schedule is laid out for all of them.
        learning_rate: at the end of the warm-up.
        weight_decay: of matrices; biases, norms (parameters of one dimension) and embeddings are never decayed.
        warmup_share: share of all steps in which the learning rate climbs.
        clip_norm: the gradient's norm is cut to this; 0 = never.
        patience: stop after so many epochs without a better check loss; 0 = never.
        keep: the weights of the "best" check loss, or of the "last" epoch. With few check rows the best loss is luck,
            and the schedule ends with a rate of zero anyway.
        precision: Lightning's name for it; "auto" = bf16-mixed on a GPU, 32-true on a CPU.
        devices: Lightning's `devices`: how many GPUs where there are any, otherwise how many processes; "auto" = all.
        strategy: Lightning's `strategy`. "auto" with several devices is "ddp_spawn": Lightning's "ddp" would start
            the whole program again for each device.
        seed: of all randomness; a step's randomness is a function of the seed and of the step's number.
        checkpoint_every_s: seconds between two checkpoints inside an epoch; each epoch's end writes one as well.
    """

    epochs: int = 30
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    warmup_share: float = 0.1
    clip_norm: float = 1.0
    patience: int = 5
    keep: Literal["best", "last"] = "best"
    precision: str = "auto"
    devices: int | str = 1
    strategy: str = "auto"
    seed: int = 0
    checkpoint_every_s: float = 30.0

    def __post_init__(self) -> None:
        for name in ("weight_decay", "warmup_share", "clip_norm", "patience", "seed", "checkpoint_every_s"):
            if getattr(self, name) < 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it cannot be below 0.")
        if self.epochs < 1 or self.learning_rate <= 0 or self.warmup_share > 1:
            raise ConfigError(
                f"epochs={self.epochs}, learning_rate={self.learning_rate}, warmup_share={self.warmup_share}: "
                "a fit needs at least one epoch, a rate above 0 and a share of at most 1."
            )


class Network(Protocol):
    """A `torch.nn.Module` with a training loss and a check loss."""

    def loss(self, batch: Any) -> Tensor:
        """The training loss of a batch, a scalar with gradients."""
        ...

    def check(self, batch: Any) -> tuple[Tensor, int]:
        """The validation loss summed over the rows of a batch, and their number; called in eval mode."""
        ...


class Batches(Protocol):
    """Batches, each a pure function of its epoch and its number, so that a resumed fit gets the same ones.

    A batch is tensors, nested at will, or an object with `.to(device)`.
    """

    def __len__(self) -> int:
        """How many batches an epoch has: the same in every epoch."""
        ...

    def batch(self, epoch: int, number: int) -> Any:
        """Batch `number` of `epoch`, both counted from 0; check batches are those of epoch 0."""
        ...


@dataclass
class FitCurve:
    """The losses and the best weights so far; part of each checkpoint.

    Attributes:
        rows: one an epoch, as in the table that `fit_network` returns.
        best: the network's state, on the CPU, after the epoch of the lowest check loss; without check batches after
            the last one.
        best_epoch: that epoch; -1 = none yet.
        ended: why there is no next epoch: "epochs", "patience", "pruned" or "diverged"; empty while there is one.
    """

    rows: list[dict[str, float]] = field(default_factory=list)
    best: dict[str, Tensor] = field(default_factory=dict)
    best_epoch: int = -1
    ended: str = ""

    def table(self) -> pd.DataFrame:
        """One row an epoch, typed."""
        columns = ["epoch", "train_loss", "check_loss", "learning_rate", "seconds", "data_seconds"]
        return pd.DataFrame(self.rows, columns=columns).astype(dict.fromkeys(columns, "float64") | {"epoch": "int64"})


def rate_share(step: int, steps: int, warmup_share: float) -> float:
    """The share of the highest learning rate at `step` of `steps`: linear up, then a cosine down to 0 at the end.

    >>> [round(rate_share(step, 10, 0.2), 2) for step in (0, 1, 2, 6, 9)]
    [0.5, 1.0, 1.0, 0.5, 0.04]
    """
    warmup = round(warmup_share * steps)
    if step < warmup:
        return (step + 1) / warmup
    return 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / max(1, steps - warmup))))

"""Settings of the sequence models, as plain dataclasses that need no PyTorch.

They are flat, so that an experiment file and a search name each setting once: `[models.settings.gru]`, `hidden = 64`.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any, Literal, Self, get_args

import numpy as np
import numpy.typing as npt
from pydantic import ValidationError

from features.errors import ConfigError
from features.sequences.sequences import SequenceSettings
from features.settings import explain, unknown_key

Floats = npt.NDArray[np.float32]
Weights = dict[str, Floats]  # by the names of `Encoder.state_dict`
Network = Literal["gru", "transformer"]
Objective = Literal["none", "next", "coles", "both"]
MAY_BE_ZERO = ("seed", "head", "inputs")  # of the whole numbers among the settings


@dataclass(frozen=True)
class EncoderSettings:
    """Settings of an encoder and of its pretraining.

    Attributes:
        network: "gru" (`models.sequence.gru`) or "transformer" (`models.sequence.transformer`).
        sequences: what a step carries, see `features.sequences.sequences.SequenceSettings`.
        hidden: H, units.
        inputs: D, width of the vector that a step's categories and numbers are summed to; 0: as wide as `hidden`.
        layers, heads: of a Transformer.
        dropout: of what a step carries, and inside a Transformer.
        objective: of pretraining (`models.sequence.pretraining`): "next" (touchpoint and time of the next step),
            "coles" (which sub-journeys are of one customer), "both", or "none": the encoder stays as it was drawn.
        pretraining_epochs: over all journeys as they were known at the latest training cutoff.
        pretraining_batch: journeys a batch.
        pretraining_rate: the highest learning rate, after the warm-up.
        splits: sub-journeys that CoLES draws of each journey.
        margin: CoLES: how far apart those of different customers are pushed, on the unit sphere.
        seed: of everything random.
        devices: processes that learn together by Lightning's DDP, each from its own batches: as many GPUs (NCCL) where
            there are any, else as many CPU processes (gloo). What a step learns from is so many batches.
    """

    network: Network = "gru"
    sequences: SequenceSettings = field(default_factory=SequenceSettings)
    hidden: int = 128
    inputs: int = 0
    layers: int = 2
    heads: int = 4
    dropout: float = 0.1
    objective: Objective = "next"
    pretraining_epochs: int = 10
    pretraining_batch: int = 64
    pretraining_rate: float = 3e-3
    splits: int = 4
    margin: float = 0.5
    seed: int = 0
    devices: int = 1

    def __post_init__(self) -> None:
        for name, allowed in (("network", get_args(Network)), ("objective", get_args(Objective))):
            if getattr(self, name) not in allowed:
                raise ConfigError(f"{name} is {getattr(self, name)!r}; it can be {', '.join(allowed)}.")
        for setting in fields(self):
            value, least = getattr(self, setting.name), int(setting.name not in MAY_BE_ZERO)
            if isinstance(setting.default, int) and not (isinstance(value, int | np.integer) and value >= least):
                raise ConfigError(f"{setting.name} is {value!r}; it must be a whole number of at least {least}.")
        if self.network == "transformer" and self.hidden % self.heads:
            raise ConfigError(
                f"hidden is {self.hidden}, which {self.heads} heads cannot share. Change hidden or heads."
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        return asdict(self) | {"sequences": self.sequences.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; what is missing takes its default.

        Raises:
            ConfigError: a key that does not exist, or a value that cannot be.
        """
        names = [setting.name for setting in fields(cls)]
        for key in data:
            if key not in names:
                raise ConfigError(unknown_key(key, names))
        values = dict(data)
        if isinstance(values.get("sequences"), dict):
            try:
                values["sequences"] = SequenceSettings.model_validate(values["sequences"])
            except ValidationError as error:
                raise ConfigError("settings of the sequences:\n" + explain(error).replace("the file: ", "")) from error
        return cls(**values)

    def encoder(self) -> EncoderSettings:
        """The encoder's part alone."""
        return EncoderSettings(**{setting.name: getattr(self, setting.name) for setting in fields(EncoderSettings)})


@dataclass(frozen=True)
class ProbeSettings(EncoderSettings):
    """A linear probe on an encoder's embeddings.

    Attributes:
        strengths: of the ridge penalty, C in scikit-learn's words; the best on held-out customers' late rows is taken.
        groups: of customers; each is held out once.
        later_share: the share of the latest rows that choose the penalty and calibrate.
    """

    strengths: tuple[float, ...] = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2)
    groups: int = 4
    later_share: float = 0.4


@dataclass(frozen=True)
class SequenceModelSettings(EncoderSettings):
    """An encoder fine-tuned to the label.

    Attributes:
        members: fine-tuned copies that are averaged; each leaves out one group of customers.
        later_share: the share of the latest rows that show how well it goes, and calibrate.
        epochs, batch_size, learning_rate, weight_decay: of fine-tuning; the rate falls to 0 by the last epoch.
        head: units between embedding and output; 0 for a linear head.
        head_dropout: of the embedding and of the head's units.
        next_weight: of next-step prediction, which may go on beside the label.
    """

    members: int = 4
    later_share: float = 0.4
    epochs: int = 6
    batch_size: int = 128
    learning_rate: float = 2e-3
    weight_decay: float = 0.01
    head: int = 64
    head_dropout: float = 0.5
    next_weight: float = 0.0

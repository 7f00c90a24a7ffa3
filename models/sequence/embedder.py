"""Embeddings of journeys: a pretrained encoder together with the sequences that it reads.

    embedder = Embedder(EncoderSettings(objective="next")).fit(train)
    embedder.embed(snapshots)          # (n, d) float32
    embedder.version                   # "3f0c…": embeddings of two versions must not be compared

Only fitting needs PyTorch. A fitted embedder is arrays, which `models.sequence.runtime` runs, saved as safetensors and
JSON.
"""

from __future__ import annotations

import hashlib
import json
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors.numpy import load_file, save_file

from features.journeys.journeys import Snapshots
from features.sequences.sequences import SequenceFeatures
from models.sequence.runtime import Runtime, over_blocks, runtime
from models.sequence.settings import EncoderSettings, Floats, Network, Weights


class Embedder:
    """An encoder, pretrained on the journeys of a log or with random weights."""

    def __init__(self, settings: EncoderSettings | None = None) -> None:
        self.settings = settings or EncoderSettings()

    def fit(self, snapshots: Snapshots, folder: Path | None = None) -> Self:
        """Learn vocabularies from (n,) training snapshots and the encoder from every journey up to their last cutoff.

        Args:
            snapshots: training rows.
            folder: where the state of an interrupted fit is kept.
        """
        from models.sequence.pretraining import pretrain_encoder  # local: only a fit needs PyTorch and Lightning

        self.sequences_ = SequenceFeatures(self.settings.sequences).fit(snapshots)
        encoder, history = pretrain_encoder(self.settings, self.sequences_, snapshots, folder)
        self.weights_ = plain_weights(encoder)
        for cached in ("version", "_engine"):  # cached from an earlier fit
            self.__dict__.pop(cached, None)
        self.history_ = long_history("pretraining", history)
        return self

    def embed(self, snapshots: Snapshots) -> Floats:
        """(n, d) embeddings."""
        return over_blocks(self.sequences_, snapshots, self._engine.pooled)

    @cached_property
    def version(self) -> str:
        """12 hexadecimal digits of SHA-256 over settings, vocabularies and weights."""
        return version_of(self.sequences_, self.weights_)

    def save(self, folder: Path) -> None:
        """Write `encoder.safetensors` and `encoder.json`."""
        save_weights(self.weights_, folder / "encoder.safetensors")
        data = {"settings": self.settings.to_dict(), "sequences": self.sequences_.to_dict(), "version": self.version}
        (folder / "encoder.json").write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        data = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
        embedder = cls(EncoderSettings.from_dict(data["settings"]))
        embedder.sequences_ = SequenceFeatures.from_dict(data["sequences"])
        embedder.weights_ = load_file(folder / "encoder.safetensors")
        embedder.history_ = long_history("pretraining", pd.DataFrame())
        return embedder

    @cached_property
    def _engine(self) -> Runtime:
        return runtime(self.settings, self.weights_, self.sequences_)


def plain_weights(network: Any) -> Weights:
    """The parameters and buffers of a `torch.nn.Module` as arrays, by name."""
    return {name: values.detach().cpu().contiguous().numpy().copy() for name, values in network.state_dict().items()}


def save_weights(weights: Weights, path: Path) -> None:
    """Write arrays as safetensors."""
    save_file({name: np.ascontiguousarray(values) for name, values in weights.items()}, path)


def version_of(sequences: SequenceFeatures, weights: Weights) -> str:
    """12 hexadecimal digits of SHA-256 over what a step carries and the encoder's weights."""
    digest = hashlib.sha256(json.dumps(sequences.to_dict(), sort_keys=True).encode())
    for name in sorted(weights):
        digest.update(name.encode() + np.ascontiguousarray(weights[name]).tobytes())
    return digest.hexdigest()[:12]


def long_history(part: str, history: pd.DataFrame) -> pd.DataFrame:
    """One row for each epoch and figure: `part, epoch, name, value`; missing figures are left out."""
    if len(history) == 0:
        return pd.DataFrame({"part": [], "epoch": [], "name": [], "value": []})
    long = history.melt(id_vars="epoch", var_name="name", value_name="value").dropna(subset="value")
    return long.assign(part=part)[["part", "epoch", "name", "value"]].reset_index(drop=True)


def packages_of(network: Network) -> tuple[str, ...]:
    """What running an encoder needs beyond what every model needs."""
    return ("safetensors",) if network == "gru" else ("safetensors", "torch")


def standardize(x: npt.NDArray[Any], mean: Floats, scale: Floats, most: float = 4.0) -> npt.NDArray[np.float64]:
    """(n, d) in standard deviations of training, clipped at `most`: beyond it training had hardly any rows."""
    return np.clip((np.asarray(x, np.float64) - mean) / scale, -most, most)

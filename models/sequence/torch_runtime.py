"""Runs an encoder in PyTorch, eager; a service runs Transformers with it."""

from __future__ import annotations

import numpy as np
import torch

from features.sequences.sequences import SequenceBatch, SequenceFeatures
from models.sequence.encoder import Encoder, steps_of
from models.sequence.settings import EncoderSettings, Floats, Weights


class TorchRuntime:
    """An encoder in evaluation mode."""

    def __init__(self, settings: EncoderSettings, weights: Weights, sequences: SequenceFeatures) -> None:
        self.encoder = encoder_with(weights, settings, sequences).eval()

    def pooled(self, batch: SequenceBatch) -> Floats:
        """(B, D) by rank."""
        with torch.inference_mode():
            embedding, _ = self.encoder(steps_of(batch))
        return np.asarray(embedding.numpy(), np.float32)


def encoder_with(weights: Weights, settings: EncoderSettings, sequences: SequenceFeatures) -> Encoder:
    """An encoder with these weights, as `Encoder.state_dict` names them."""
    encoder = Encoder(settings, sequences)
    encoder.load_state_dict({name: torch.from_numpy(np.array(values)) for name, values in weights.items()})
    return encoder

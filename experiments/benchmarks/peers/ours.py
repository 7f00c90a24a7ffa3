"""Our side of the benchmark against pytorch-lifestream: the same rows, objective and probe, our encoders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from experiments.benchmarks.peers.exchange import ColesSettings
from features.journeys import Journeys
from training.records import TaskData

Matrix = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Throughput:
    """Real (unpadded) events a second of CoLES training, after the warm-up steps.

    Attributes:
        events_per_s_in_steps: forward, backward and optimiser step alone.
        events_per_s: with the time for making batches.
        events_a_step: real events of a batch, mean.
    """

    events_per_s_in_steps: float
    events_per_s: float
    events_a_step: float


@dataclass(frozen=True)
class TimeToQuality:
    """How soon the probe on our embedding reaches the peer's figure.

    Attributes:
        seconds: training until then, making batches included, probing not; what the peer's `fit_s` counts.
        auroc: of the probe then, mean over the folds; or the best one, where `reached` is false.
        reached: whether it got there.
        said: which encoder and objective.
    """

    seconds: float
    auroc: float
    reached: bool
    said: str


def ours_throughput(journeys: Journeys, trained_until: int, settings: ColesSettings) -> Throughput:
    """Train CoLES with our GRU for `settings.max_steps` steps.

    Args:
        journeys: the packed log.
        trained_until: µs since 1970 UTC; events before it are trained on.
        settings: hidden width, batch, threads, slices, steps: those that the peer ran with.
    """
    raise NotImplementedError("our encoder's throughput")


def ours_time_to_quality(data: TaskData, trained_until: int, target: float, settings: ColesSettings) -> TimeToQuality:
    """Pretrain an encoder of ours until the probe reaches `target`, or give up.

    Args:
        data: the task; `probe.validate(probe.linear, embeddings, data).mean` is the figure to reach.
        trained_until: as in `ours_throughput`.
        target: the AUROC of the same probe on the peer's finished embedding.
        settings: threads and seed; the rest is free.
    """
    raise NotImplementedError("our time to the peer's quality")


def ours_embeddings(data: TaskData, trained_until: int, settings: ColesSettings) -> tuple[Matrix, Matrix]:
    """(n, d) and (m, d) embeddings of `data.train` and `data.test` by a finished encoder of ours.

    Args:
        data: the task; labels are for heads, not for the encoder.
        trained_until: as in `ours_throughput`.
        settings: threads and seed; the rest is free.
    """
    raise NotImplementedError("our embeddings")

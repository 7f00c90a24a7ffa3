"""Our side of the benchmark against pytorch-lifestream: the same rows, objective and probe, our encoders."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch

from experiments.benchmarks.peers.exchange import ColesSettings
from experiments.benchmarks.peers.probe import linear, validate
from features.journeys.journeys import Journeys
from features.sequences.sequences import SequenceFeatures, SequenceSettings
from models.sequence.embedder import Embedder
from models.sequence.encoder import Encoder
from models.sequence.pretraining import JourneyBatches, Pretraining, time_edges
from models.sequence.settings import EncoderSettings
from training.data.task_data import TaskData

Matrix = npt.NDArray[np.float32]

EPOCHS = (1, 2, 4, 8)
STEP_WIDTH = 64  # of what the GRU reads; theirs reads 16 a category and one a number side by side, about as much


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
        words: the encoder and its objective.
    """

    seconds: float
    auroc: float
    reached: bool
    words: str


def ours_throughput(journeys: Journeys, trained_until: int, settings: ColesSettings) -> Throughput:
    """Train CoLES with our GRU for `settings.max_steps` steps.

    Args:
        journeys: the packed log.
        trained_until: µs since 1970 UTC; events before it are trained on.
        settings: hidden width, batch, threads, slices, steps: those that the peer ran with.
    """
    torch.set_num_threads(settings.threads)
    torch.manual_seed(settings.seed)
    snapshots = journeys.at(np.int64(trained_until))
    snapshots = snapshots.take(np.flatnonzero(snapshots.stop - snapshots.start >= settings.shortest))
    options = EncoderSettings(
        sequences=SequenceSettings(gather=False, max_steps=settings.longest),  # an event a step, as theirs
        hidden=settings.hidden,
        inputs=STEP_WIDTH,
        objective="coles",
        pretraining_batch=settings.batch,
        splits=settings.split_count,
        seed=settings.seed,
    )
    sequences = SequenceFeatures(options.sequences).fit(snapshots)
    network = Pretraining(Encoder(options, sequences), options, time_edges(sequences, snapshots)).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=settings.learning_rate)
    return _measured(network, optimizer, JourneyBatches(snapshots, sequences, options), settings)


def _measured(
    network: Pretraining, optimizer: torch.optim.Optimizer, batches: JourneyBatches, settings: ColesSettings
) -> Throughput:
    """Steps of forward, backward and optimiser, timed apart from the making of batches."""
    events, making, stepping = 0, 0.0, 0.0
    for step in range(settings.max_steps):
        begun = time.perf_counter()
        batch = batches.batch(*divmod(step, len(batches)))
        ready = time.perf_counter()
        optimizer.zero_grad()
        network.loss(batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done = time.perf_counter()
        if step >= settings.warm_up_steps:
            events += len(batch.steps.gap_days)
            making, stepping = making + ready - begun, stepping + done - ready
    measured = settings.max_steps - settings.warm_up_steps
    return Throughput(events / stepping, events / (making + stepping), events / measured)


def ours_time_to_quality(data: TaskData, trained_until: int, target: float, settings: ColesSettings) -> TimeToQuality:
    """Pretrain an encoder of ours until the probe reaches `target`, or give up.

    One, two, four and eight epochs are trained from the start each, and the seconds of all attempts are counted.

    Args:
        data: the task; `probe.validate(probe.linear, embeddings, data).mean` is the figure to reach.
        trained_until: as in `ours_throughput`.
        target: the AUROC of the same probe on the peer's finished embedding.
        settings: threads and seed; the rest is free.
    """
    torch.set_num_threads(settings.threads)
    seconds, best, words = 0.0, 0.0, ""
    for epochs in EPOCHS:
        begun = time.perf_counter()
        embedder = Embedder(EncoderSettings(pretraining_epochs=epochs, seed=settings.seed)).fit(data.train)
        seconds += time.perf_counter() - begun
        auroc = validate(linear, embedder.embed(data.train), data).mean
        if auroc > best:
            best, words = auroc, f"GRU of {embedder.settings.hidden} units, next-step pretraining, {epochs} epochs"
        if auroc >= target:
            return TimeToQuality(seconds, auroc, True, words)
    return TimeToQuality(seconds, best, False, words)


def ours_embeddings(data: TaskData, trained_until: int, settings: ColesSettings) -> tuple[Matrix, Matrix]:
    """(n, d) and (m, d) embeddings of `data.train` and `data.test` by a finished encoder of ours.

    Args:
        data: the task; labels are for heads, not for the encoder.
        trained_until: as in `ours_throughput`; it is the latest cutoff of the training rows, where ours stops, too.
        settings: threads and seed; the rest is free.
    """
    torch.set_num_threads(settings.threads)
    embedder = Embedder(EncoderSettings(seed=settings.seed)).fit(data.train)
    return embedder.embed(data.train), embedder.embed(data.test)

"""What the sequence benchmarks measure on, and how: journeys of a known length, models that need no fit, medians.

Ways to do a thing are timed in turns, so that a neighbour on the machine slows all of them alike; the median counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from features.journeys.journeys import Category, Journeys, Snapshots
from features.journeys.loading import load_log
from features.journeys.packing import pack
from features.sequences.sequences import SequenceFeatures, SequenceSettings
from features.simulation.large_log import synthetic_log
from features.simulation.simulator import simulate
from models.calibration import BetaCalibration
from models.sequence.embedder import plain_weights
from models.sequence.encoder import Encoder
from models.sequence.finetuning import Classifier
from models.sequence.model import GRUModel, SequenceModel, TransformerModel
from models.sequence.settings import Network, SequenceModelSettings, Weights
from training.config.experiment import load_experiment

EXPERIMENTS = Path(__file__).resolve().parents[2] / "configs"
SHARED = EXPERIMENTS.parents[2] / "shared"
REAL = {"online_retail_churn": "online_retail.csv.gz", "bpi2012_conversion": "bpi2012.csv.gz"}
LENGTH = 100  # steps of the journeys that are scored
Way = Callable[[], Any]


@dataclass(frozen=True)
class FigureBar:
    """A figure that must be reached.

    Attributes:
        name: what was measured.
        figure: as measured.
        bar: to be reached.
        at_least: whether the figure must not be below; otherwise not above.
        unit: for people.
    """

    name: str
    figure: float
    bar: float
    at_least: bool
    unit: str

    @property
    def met(self) -> bool:
        """Whether it is reached."""
        return self.figure >= self.bar if self.at_least else self.figure <= self.bar


def medians(ways: Mapping[str, Way], rounds: int) -> dict[str, float]:
    """Seconds of each way: the median of some rounds in turns, after one that does not count."""
    for way in ways.values():
        way()
    timings: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            begun = time.perf_counter()
            way()
            timings[name].append(time.perf_counter() - begun)
    return {name: float(np.median(each)) for name, each in timings.items()}


def long_journeys(n_rows: int) -> Snapshots:
    """(n_rows,) stretches of exactly 100 events of simulated customers, each seen just after its last event."""
    log = pack(synthetic_log(150 * n_rows + 3_000, max(2, n_rows // 3)))
    events = np.diff(log.offsets)
    customer = np.repeat(np.arange(log.n_customers), events // LENGTH)
    first = np.concatenate(([0], np.cumsum(events // LENGTH)))[:-1]
    start = log.offsets[customer] + (np.arange(len(customer)) - first[customer]) * LENGTH
    stop = start + LENGTH
    assert len(customer) >= n_rows, "the log is too short"
    return Snapshots(log, customer, start, stop, log.t[stop - 1] + 1).take(np.arange(n_rows))


def as_steps(snapshots: Snapshots) -> SequenceFeatures:
    """Fitted so that each event is a step."""
    return SequenceFeatures(SequenceSettings(max_steps=LENGTH, gather=False)).fit(snapshots)


def as_request(snapshots: Snapshots, row: int) -> Snapshots:
    """One row with a log of its own, as a request packs it: only its events, only the names that occur."""
    part = slice(int(snapshots.start[row]), int(snapshots.stop[row]))
    log, categories = snapshots.journeys, {}
    for name, category in log.categories.items():
        used, codes = np.unique(category.codes[part], return_inverse=True)
        categories[name] = Category(codes.astype(np.int32), tuple(category.names[code] for code in used))
    numbers = {name: values[part].copy() for name, values in log.numbers.items()}
    ids = log.customer_ids.slice(int(snapshots.customer[row]), 1)
    single = Journeys(ids, np.array([0, part.stop - part.start]), log.t[part].copy(), categories, numbers)
    return single.at(int(snapshots.cutoff[row]))


def encoder_of(network: Network, hidden: int, sequences: SequenceFeatures) -> Encoder:
    """An encoder as it is drawn: speed does not ask what was learnt."""
    torch.manual_seed(0)
    return Encoder(SequenceModelSettings(network=network, hidden=hidden), sequences).eval()


def model_of(network: Network, hidden: int, members: int, sequences: SequenceFeatures) -> SequenceModel:
    """A whole model of drawn weights, heads and calibration included."""
    settings = SequenceModelSettings(network=network, hidden=hidden, members=members)
    model = (GRUModel if network == "gru" else TransformerModel)(settings)
    model.sequences_, model.tasks_ = sequences, (model.chosen,)
    model.members_ = [_member(settings, sequences) for _ in range(members)]
    odds = np.linspace(-3.0, 3.0, 40)
    model.calibrations_ = [BetaCalibration.fit(odds, (np.sin(9 * odds) + odds > 0).astype(np.float64))]
    return model


def _member(settings: SequenceModelSettings, sequences: SequenceFeatures) -> Weights:
    torch.manual_seed(settings.seed)
    return plain_weights(Classifier(Encoder(settings, sequences), settings, 1, None))


def simulated(n_customers: int) -> Snapshots:
    """Training rows of simulated journeys with every column, one a customer."""
    return simulate(n_customers, days=400).journeys.at("2024-12-01")


def real_training_rows(name: str, shared: Path = SHARED) -> Snapshots | None:
    """Training rows of one of the two real tasks; None where its file is not there."""
    path = shared / "data" / REAL[name]
    if not path.exists():
        return None
    experiment = load_experiment(EXPERIMENTS / f"{name}.toml", [f"events.path={path}"])
    journeys = load_log(experiment.events).journeys
    table = experiment.build_labels(journeys)
    return journeys.at_ids(table[table["split"] == "train"])

"""Compile every kernel once, into the user's cache, so that the first run does not wait: `make install` calls it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from features.events.source import EventSource
from features.journey_map.tables import MapSettings, journey_map
from features.journeys.journeys import Journeys
from features.journeys.loading import load_journeys
from features.journeys.partitions import by_partition
from features.labels.churn import churn_labels
from features.labels.conversion import conversion_labels
from features.sequences.sequences import SequenceFeatures
from features.simulation.simulator import LABELS, simulate
from features.tabular.features import TabularFeatures
from models.boosting.compiled_trees import CompiledTrees
from models.segments.rules.schemes import SCHEMES, fit_schemes
from models.sequence.runtime import CompiledGRU


def main() -> None:
    """Take a small simulated log the whole way: file, checks, packing, labels, features; fresh and read back."""
    simulation = simulate(n_customers=40, days=200)
    with tempfile.TemporaryDirectory() as folder:
        events = simulation.save(Path(folder))
        journeys = load_journeys(EventSource(path=events, profile=simulation.schema.profile, duplicates="quarantine"))
        journeys.save(Path(folder) / "packed")
        for log in (journeys, Journeys.load(Path(folder) / "packed")):
            churn_labels(log, "2024-05-01", **LABELS["churn"])
            conversion_labels(log, cutoffs="2024-05-01", **LABELS["conversion"])
            journey_map(log, MapSettings(goals=("subscribe",), complaints=("support_contact",)), start="2024-02-01")
            features = TabularFeatures().fit(log.at("2024-05-01"))
            features.transform(log.at("2024-05-01", [0]))
            fit_schemes(SCHEMES, log.at("2024-05-01"))
            sequences = SequenceFeatures().fit(log.at("2024-05-01"))
            CompiledGRU(blank_weights(sequences, hidden=8)).pooled(sequences.batch(log.at("2024-05-01")))
    by_partition(pa.table({"customer_id": ["a"]}), 2)
    for kind in (np.uint32, np.uint64):
        blank_tree(kind).margins(np.zeros((1, 1), np.float32))


def blank_tree(kind: type[np.unsignedinteger[Any]]) -> CompiledTrees:
    """A tree without a split, of at most 32 or 64 leaves."""
    nothing, ints = np.zeros(0, np.int32), np.int64
    return CompiledTrees(
        1, nothing, nothing, np.zeros(0, np.float32), np.zeros(0, kind), np.zeros(3, ints), np.ones(1, kind),
        np.array([0, 1], ints), np.zeros(1),
    )  # fmt: skip


def blank_weights(sequences: SequenceFeatures, hidden: int) -> dict[str, npt.NDArray[np.float32]]:
    """Zeros in the shapes of a GRU encoder's weights, so that its kernel can run without PyTorch."""
    shapes = {
        **{f"tables.{place}.weight": (size, hidden) for place, size in enumerate(sequences.sizes.values())},
        "numbers.weight": (hidden, sequences.n_numbers),
        "numbers.bias": (hidden,),
        "network.inputs.weight": (3 * hidden, hidden),
        "network.inputs.bias": (3 * hidden,),
        "network.weight": (hidden, 3 * hidden),
        "network.bias": (3 * hidden,),
        "network.log_rate": (hidden,),
        "log_rate": (hidden,),
    }
    return {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}


if __name__ == "__main__":
    main()

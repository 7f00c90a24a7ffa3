"""Compile every kernel once, into the user's cache, so that the first run does not wait: `make install` calls it."""

from __future__ import annotations

import tempfile
from pathlib import Path

from features.journeys import Journeys
from features.labels import churn_labels, conversion_labels
from features.simulate import LABELS, simulate
from features.sources import EventSource, load_journeys
from features.tabular import TabularFeatures


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
            features = TabularFeatures().fit(log.at("2024-05-01"))
            features.transform(log.at("2024-05-01", [0]))


if __name__ == "__main__":
    main()

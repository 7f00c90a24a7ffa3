"""Fixtures with a small boosted model: `simulated_events`, `scoring_folder`, `model`, `champions`."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.events.schema import EventSchema
from features.journeys.packing import pack
from features.simulation.simulator import simulate
from models.boosting.gbdt import GBDT, GBDTSettings
from models.scoring.golden_sample import record_sample
from models.scoring.scorer import Scorer, visible_touchpoints
from serving.champions.champions import Champions, Origin

SIMULATED = EventSchema(profile=("country", "plan"))


@pytest.fixture(scope="session")
def simulated_events() -> pd.DataFrame:
    """Canonical rows of 150 simulated customers."""
    return simulate(n_customers=150, days=200, seed=11).events


@pytest.fixture(scope="session")
def scoring_folder(simulated_events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small boosted model on them as a scoring folder, with a recorded sample of journeys."""
    journeys = pack(simulated_events, SIMULATED)
    last = int(journeys.t.max())
    customers = np.arange(journeys.n_customers)
    days = np.array([90, 60, 30], dtype=np.int64) * 86_400_000_000
    snapshots = journeys.at(np.tile(last - days, len(customers)), np.repeat(customers, 3))
    snapshots = snapshots.take(snapshots.stop > snapshots.start)
    since_days = (snapshots.cutoff - journeys.t[snapshots.stop - 1]) / 86_400_000_000
    labels = np.random.default_rng(0).random(len(snapshots)) < 1 / (1 + np.exp(-(since_days - 15) / 10))
    model = GBDT(GBDTSettings(members=2, max_trees=25, min_data_in_leaf=10)).fit(snapshots, labels.astype(int))
    scorer = Scorer(
        model,
        {"name": "demo_churn", "kind": "churn", "horizon_days": 30},
        SIMULATED,
        source={"adapter": "table", "duplicates": "keep", "stages": {"sign_*": "awareness"}},
        touchpoints=visible_touchpoints(snapshots),
        about={"data_fingerprint": journeys.fingerprint()},
    )
    folder = scorer.save(tmp_path_factory.mktemp("scoring") / "demo_churn")
    record_sample(scorer, snapshots, folder, n=20)
    return folder


@pytest.fixture(scope="session")
def model(scoring_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That folder with a source that names a path, as a training run saves it."""
    scorer = Scorer.load(scoring_folder)
    source = scorer.source | {"path": "events.parquet", "profile": list(scorer.schema.profile)}
    return replace(scorer, source=source).save(tmp_path_factory.mktemp("model") / "model")


@pytest.fixture(scope="module")
def champions(scoring_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Champions:
    """That folder as the one champion of a service, as the registry would name it."""
    folder = tmp_path_factory.mktemp("champions")
    shutil.copytree(scoring_folder, folder / "demo_churn")
    Origin("demo_churn", "3", "champion", "run-1", "f00d").write(folder / "demo_churn")
    return Champions(folder)

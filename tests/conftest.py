"""What every test may ask for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.pack import pack
from features.schema import EventSchema
from features.simulate import simulate
from models.gbdt import GBDT, GBDTSettings
from models.packaged import Scorer, touchpoints_seen
from models.parity import record_sample

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real inputs beside the repository."""
    if not (SHARED / "data").is_dir():
        pytest.skip("no data folder beside the repository")
    return SHARED


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
        touchpoints=touchpoints_seen(snapshots),
        about={"data_fingerprint": journeys.fingerprint()},
    )
    folder = scorer.save(tmp_path_factory.mktemp("scoring") / "demo_churn")
    record_sample(scorer, snapshots, folder, n=20)
    return folder

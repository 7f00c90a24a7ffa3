"""Several processes that learn together: what they learn, how batches are dealt to them, and where it is asked for."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import ConfigError
from models.sequence.pretraining import length_buckets
from models.sequence.settings import SequenceModelSettings

SCRIPT = Path(__file__).resolve().parents[3] / "experiments" / "benchmarks" / "ddp_speed.py"


@given(n=st.integers(1, 700), size=st.integers(1, 40), devices=st.integers(1, 4), seed=st.integers(0, 99))
def test_every_row_is_dealt_to_one_batch_however_many_devices_there_are(
    n: int, size: int, devices: int, seed: int
) -> None:
    lengths = np.random.default_rng(seed).integers(1, 500, n)
    one = length_buckets(lengths, size, np.random.default_rng(seed))
    batches = length_buckets(lengths, size, np.random.default_rng(seed), devices)
    assert sorted(np.concatenate(batches)) == list(range(n))
    assert len(batches) == len(one) == -(-n // size)
    assert max(len(rows) for rows in batches) <= size


def test_devices_of_one_step_get_journeys_of_like_lengths() -> None:
    lengths = np.random.default_rng(0).geometric(0.02, 20_000)

    def longest(devices: int) -> float:
        """What the slowest of two devices has, over what they have on average."""
        batches = length_buckets(lengths, 64, np.random.default_rng(1), devices)
        work = np.array([lengths[rows].sum() for rows in batches[: len(batches) // 2 * 2]]).reshape(-1, 2)
        return float(work.max(1).sum() / work.mean(1).sum())

    assert longest(2) < 1.05
    assert longest(1) > 1.2


def test_one_device_gets_the_batches_that_it_always_got() -> None:
    lengths = np.random.default_rng(0).geometric(0.02, 300)
    rng = np.random.default_rng(1)
    order = rng.permutation(300)
    expected = []
    for at in range(0, 300, 7 * 16):
        lot = order[at : at + 7 * 16]
        lot = lot[np.argsort(lengths[lot], kind="stable")]
        expected += [lot[low : low + 7] for low in range(0, len(lot), 7)]
    expected = [expected[place] for place in rng.permutation(len(expected))]
    found = length_buckets(lengths, 7, np.random.default_rng(1))
    assert len(found) == len(expected)
    assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_how_many_devices_is_a_setting_of_the_sequence_models() -> None:
    assert SequenceModelSettings.from_dict({"devices": 2}).encoder().devices == 2
    assert SequenceModelSettings.from_dict({}).devices == 1
    with pytest.raises(ConfigError, match="devices is 0"):
        SequenceModelSettings(devices=0)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [
    {"kind": "gru", "objective": "both"},
    {"kind": "transformer", "objective": "next", "next_weight": 0.1},
])  # fmt: skip
def test_every_objective_learns_in_two_processes(settings: dict[str, object]) -> None:
    from features.simulation.simulator import simulate
    from models.catalogue import make

    small = {"hidden": 16, "inputs": 8, "members": 1, "epochs": 2, "pretraining_epochs": 1, "devices": 2}
    kind = str(settings.pop("kind"))
    simulation = simulate(n_customers=200, days=200, seed=1)
    snapshots = simulation.journeys.at("2024-06-01")
    snapshots = snapshots.take(np.flatnonzero(snapshots.stop > snapshots.start))
    labels = np.arange(len(snapshots)) % 3 == 0
    model = make(kind, small | settings).fit(snapshots, labels.astype(int))
    p = model.predict(snapshots)
    assert np.isfinite(p).all()
    assert len(np.unique(p)) > 10


@pytest.mark.slow
def test_two_processes_are_as_good_as_one() -> None:
    command = [sys.executable, str(SCRIPT), "--customers", "1500", "--rounds", "1", "--epochs", "4"]
    result = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True).stdout)
    assert result["auroc_within_interval"], result
    assert result["rounds"]["2"][0]["auroc"] > 0.55


@pytest.mark.slow
def test_a_search_fits_models_that_learn_in_two_processes(tmp_path: Path) -> None:
    from features.simulation.simulator import simulate
    from training.data.splits import Fold, OverlapReport
    from training.search.folder import Job
    from training.search.search import search

    snapshots = simulate(n_customers=150, days=200, seed=1).journeys.at("2024-06-01")
    snapshots = snapshots.take(np.flatnonzero(snapshots.stop > snapshots.start))
    labels = (np.arange(len(snapshots)) % 3 == 0).astype(np.int8)
    half = len(snapshots) // 2
    fold = Fold("fold", np.arange(half), np.arange(half, len(snapshots)), OverlapReport(0, half, 0, 0.0, 0.0, half))
    fixed = {"hidden": 8, "inputs": 8, "members": 1, "epochs": 2, "objective": "none", "batch_size": 16, "devices": 2}
    found = search(Job.of("gru", snapshots, labels, [fold], fixed=fixed), trials=1, folder=tmp_path)
    assert found.best.log_loss is not None
    assert list(found.curves["epoch"]) == [0, 1]  # from the first process, through the worker, to the study
    assert found.settings["devices"] == 2

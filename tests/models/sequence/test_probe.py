"""The linear probe: ridge logistic regression on embeddings, its penalty chosen on customers that were left out."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logit
from sklearn.linear_model import LogisticRegression

from features.errors import DataError
from features.journeys.holdout import stable_groups
from features.journeys.journeys import Snapshots
from features.simulation.simulator import simulate
from models.catalogue import make
from models.contract import EmbeddingModel, Explainer, ExtraPackages, HistoryModel, Model, Resumable
from models.saving import load_model, save_model
from models.sequence.embedder import Embedder
from models.sequence.probe import Probe
from models.sequence.settings import ProbeSettings

SHORT: dict[str, Any] = {
    "sequences": {"max_steps": 10, "min_count": 5}, "hidden": 8, "objective": "next", "pretraining_epochs": 1,
}  # fmt: skip
Rows = tuple[Snapshots, np.ndarray]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Simulated customers at three moments; who came lately comes again."""
    journeys = simulate(n_customers=120, days=100, seed=5).journeys
    cutoffs = np.array(["2024-02-20", "2024-03-10", "2024-03-30"], "datetime64[us]")
    snapshots = journeys.at(np.repeat(cutoffs, 120), np.tile(np.arange(120), 3))
    snapshots = snapshots.take(np.flatnonzero(snapshots.stop > snapshots.start))
    days = (snapshots.cutoff - journeys.t[snapshots.stop - 1]) / 86_400_000_000
    chance = 1 / (1 + np.exp(2 * (days - np.median(days))))
    return snapshots, (np.random.default_rng(0).random(len(snapshots)) < chance).astype(float)


@pytest.fixture(scope="module")
def probe(rows: Rows) -> Probe:
    result = make("probe", SHORT).fit(*rows)
    assert isinstance(result, Probe)
    return result


def test_keeps_the_contract(probe: Probe) -> None:
    for protocol in (Model, Explainer, Resumable, HistoryModel, EmbeddingModel, ExtraPackages):
        assert isinstance(probe, protocol), protocol
    assert probe.packages == ("safetensors",)
    assert Probe(ProbeSettings(network="transformer")).packages == ("safetensors", "torch")


def test_learns_and_is_calibrated(probe: Probe, rows: Rows) -> None:
    snapshots, y = rows
    p = probe.predict(snapshots)
    assert p[y == 1].mean() > p[y == 0].mean() + 0.1
    assert p.mean() == pytest.approx(y.mean(), abs=0.08)
    assert ((p > 0) & (p < 1)).all()


def test_it_is_a_logistic_regression_on_clipped_embeddings(probe: Probe, rows: Rows) -> None:
    snapshots, y = rows
    embedding = probe.embed(snapshots).astype(np.float64)
    assert embedding.shape == (len(y), 4 * 8 + 3)
    spread = embedding.std(axis=0)
    x = np.clip((embedding - embedding.mean(axis=0)) / np.where(spread > 1e-6, spread, 1), -4, 4)
    theirs = LogisticRegression(C=probe.strength_, tol=1e-10, max_iter=5000).fit(x, y)  # another solver
    np.testing.assert_allclose(probe.margins(snapshots), theirs.decision_function(x), atol=1e-3)
    assert probe.strength_ in ProbeSettings().strengths


def test_the_penalty_is_chosen_and_calibrated_on_customers_left_out(probe: Probe, rows: Rows) -> None:
    snapshots, y = rows
    margins, late = probe._held_out_margins(np.zeros((len(y), 1)), y, snapshots)
    assert set(margins) == set(ProbeSettings().strengths)
    assert (snapshots.cutoff[late] >= np.sort(snapshots.cutoff)[len(y) // 3]).all()
    group = stable_groups(snapshots.customer_ids, ProbeSettings().groups, seed=0)
    rates = [y[group != group[row]].mean() for row in late]  # with nothing to go by, that of the other customers
    for result in margins.values():
        np.testing.assert_allclose(result, logit(rates), atol=1e-4)


def test_saved_and_loaded_gives_the_same(probe: Probe, rows: Rows, tmp_path: Path) -> None:
    again = load_model(save_model(probe, tmp_path))
    assert isinstance(again, Probe)
    np.testing.assert_allclose(again.predict(rows[0]), probe.predict(rows[0]), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(again.embed(rows[0]), probe.embed(rows[0]))
    assert again.version == probe.version
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    assert list(again.history().columns) == list(probe.history().columns)


def test_same_seed_same_numbers_and_a_batch_of_one(probe: Probe, rows: Rows) -> None:
    twin = make("probe", SHORT).fit(*rows)
    many = probe.predict(rows[0])
    assert (twin.predict(rows[0]) == many).all()
    for row in range(0, len(many), 47):
        assert probe.predict(rows[0].take(np.array([row])))[0] == pytest.approx(many[row], abs=1e-6)


def test_the_untrained_encoder_is_the_one_that_training_begins_with(rows: Rows) -> None:
    snapshots, y = rows
    drawn = make("probe", SHORT | {"objective": "none"}).fit(snapshots, y)
    assert isinstance(drawn, Probe)
    assert len(drawn.history()) == 0
    other = make("probe", SHORT | {"objective": "none", "seed": 1}).fit(snapshots, y)
    assert drawn.version != other.version
    assert drawn.predict(snapshots)[y == 1].mean() > drawn.predict(snapshots)[y == 0].mean()


def test_pretraining_goes_on_in_its_folder(probe: Probe, rows: Rows, tmp_path: Path) -> None:
    remaining = [make("probe", SHORT), make("probe", SHORT)]
    for first in remaining:
        assert isinstance(first, Probe)
        first.resume_in(tmp_path)
        first.fit(*rows)
        assert first.version == probe.version
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["last.safetensors"]


def test_reasons_and_history_are_told(probe: Probe, rows: Rows) -> None:
    reasons = probe.reasons(rows[0].take(np.arange(4)), top=2)
    assert all(len(each) <= 2 for each in reasons)
    assert any(reasons)
    assert set(probe.history()["part"]) == {"pretraining"}
    assert "train_loss" in set(probe.history()["name"])


def test_labels_are_checked(rows: Rows) -> None:
    with pytest.raises(DataError, match="Nothing to learn"):
        Probe().fit(rows[0], np.ones(len(rows[0])))


def test_an_embedder_is_saved_by_itself_and_fitted_anew(rows: Rows, tmp_path: Path) -> None:
    options = ProbeSettings.from_dict(SHORT | {"objective": "none"}).encoder()
    embedder, subset = Embedder(options).fit(rows[0]), rows[0].take(np.arange(30))
    embedder.save(tmp_path)
    again = Embedder.load(tmp_path)
    np.testing.assert_array_equal(again.embed(subset), embedder.embed(subset))
    assert again.version == embedder.version
    before = embedder.embed(subset)
    early = rows[0].take(rows[0].cutoff == rows[0].cutoff.min())
    embedder.fit(early)  # the vocabularies and scales differ
    assert embedder.version != again.version
    assert (embedder.embed(subset) != before).any()


def test_a_service_needs_no_scikit_learn() -> None:
    blocked = (
        "import sys; sys.modules['sklearn'] = None; import models.sequence.probe, "
        "models.sequence.model, models.ensembles.embedding_gbdt"
    )
    subprocess.run([sys.executable, "-c", blocked], check=True)

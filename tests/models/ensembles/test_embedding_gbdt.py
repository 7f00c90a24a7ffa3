"""LightGBM on tabular features beside an embedding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from features.journeys.journeys import Snapshots
from features.simulation.simulator import simulate
from features.tabular.features import TabularFeatures
from features.tabular.settings import TabularSettings
from models.catalogue import make
from models.contract import EmbeddingModel, Explainer, ExtraPackages, FeatureModel, HistoryModel, Model, Resumable
from models.ensembles.embedding_gbdt import EmbeddingGBDT, EmbeddingGBDTSettings
from models.saving import load_model, save_model
from models.sequence.embedder import Embedder
from models.sequence.settings import EncoderSettings

ENCODER: dict[str, Any] = {
    "sequences": {"max_steps": 10, "min_count": 5}, "hidden": 8, "objective": "next", "pretraining_epochs": 1,
}  # fmt: skip
FEATURES = {"groups": ["volume", "recency", "rfm"], "windows_days": [30]}
SHORT: dict[str, Any] = {
    "encoder": ENCODER, "features": FEATURES, "members": 2, "max_trees": 20, "min_data_in_leaf": 10,
    "feature_fraction": 0.5,
}  # fmt: skip
Rows = tuple[Snapshots, np.ndarray]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Simulated customers at two moments; who came lately comes again."""
    journeys = simulate(n_customers=120, days=100, seed=5).journeys
    cutoffs = np.array(["2024-02-20", "2024-03-20"], "datetime64[us]")
    snapshots = journeys.at(np.repeat(cutoffs, 120), np.tile(np.arange(120), 2))
    snapshots = snapshots.take(np.flatnonzero(snapshots.stop > snapshots.start))
    days = (snapshots.cutoff - journeys.t[snapshots.stop - 1]) / 86_400_000_000
    chance = 1 / (1 + np.exp(2 * (days - np.median(days))))
    return snapshots, (np.random.default_rng(0).random(len(snapshots)) < chance).astype(float)


def fitted(rows: Rows, **options: Any) -> EmbeddingGBDT:
    result = make("embedding_gbdt", SHORT | options).fit(*rows)
    assert isinstance(result, EmbeddingGBDT)
    return result


@pytest.fixture(scope="module")
def model(rows: Rows) -> EmbeddingGBDT:
    return fitted(rows)


def test_keeps_the_contract(model: EmbeddingGBDT) -> None:
    for protocol in (Model, Explainer, FeatureModel, Resumable, HistoryModel, EmbeddingModel, ExtraPackages):
        assert isinstance(model, protocol), protocol
    assert model.packages == ("safetensors",)


def test_columns_are_tabular_features_then_the_embedding(model: EmbeddingGBDT, rows: Rows) -> None:
    snapshots, _ = rows
    tabular = TabularFeatures(TabularSettings.model_validate(FEATURES)).fit(snapshots)
    embedder = Embedder(EncoderSettings.from_dict(ENCODER)).fit(snapshots)
    x = model.features_.transform(snapshots)
    expected = np.hstack([tabular.transform(snapshots), embedder.embed(snapshots)])
    np.testing.assert_array_equal(x, expected)
    names = model.features_.get_feature_names_out()
    dim = 4 * 8 + 3
    assert names == [*tabular.get_feature_names_out(), *(f"embedding.{place}" for place in range(dim))]
    assert model.version == embedder.version
    table = model.feature_table()
    assert list(table["name"]) == names
    assert (table["group"] == "embedding").sum() == dim
    assert table["importance"].sum() == pytest.approx(1)


def test_learns(model: EmbeddingGBDT, rows: Rows) -> None:
    snapshots, y = rows
    p = model.predict(snapshots)
    assert p[y == 1].mean() > p[y == 0].mean() + 0.1
    assert ((p > 0) & (p < 1)).all()


@pytest.mark.parametrize("tabular", [True, False])
def test_saved_and_loaded_gives_the_same(tabular: bool, model: EmbeddingGBDT, rows: Rows, tmp_path: Path) -> None:
    first = model if tabular else fitted(rows, tabular=False, encoder=ENCODER | {"objective": "none"})
    again = load_model(save_model(first, tmp_path))
    assert isinstance(again, EmbeddingGBDT)
    np.testing.assert_allclose(again.predict(rows[0]), first.predict(rows[0]), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(again.embed(rows[0]), first.embed(rows[0]))
    assert (again.version, again.settings) == (first.version, first.settings)
    assert again.feature_table().equals(first.feature_table())
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors", ".txt"}


def test_without_tabular_features_there_is_the_embedding_alone(rows: Rows) -> None:
    model = fitted(rows, tabular=False, encoder=ENCODER | {"objective": "none"})
    np.testing.assert_array_equal(model.features_.transform(rows[0]), model.embed(rows[0]))
    assert set(model.feature_table()["group"]) == {"embedding"}
    assert len(model.history()) == 0


def test_same_seed_same_numbers_and_a_batch_of_one(model: EmbeddingGBDT, rows: Rows) -> None:
    many = model.predict(rows[0])
    assert (fitted(rows).predict(rows[0]) == many).all()
    for row in range(0, len(many), 37):
        assert model.predict(rows[0].take(np.array([row])))[0] == pytest.approx(many[row], abs=1e-6)


def test_reasons_and_history_are_told(model: EmbeddingGBDT, rows: Rows) -> None:
    reasons = model.reasons(rows[0].take(np.arange(4)), top=3)
    assert all(0 < len(each) <= 3 for each in reasons)
    assert set(model.history()["part"]) == {"pretraining"}


def test_pretraining_goes_on_in_its_folder(model: EmbeddingGBDT, rows: Rows, tmp_path: Path) -> None:
    first = make("embedding_gbdt", SHORT)
    assert isinstance(first, EmbeddingGBDT)
    first.resume_in(tmp_path)
    assert (first.fit(*rows).predict(rows[0]) == model.predict(rows[0])).all()
    assert [path.name for path in tmp_path.rglob("*.safetensors")] == ["last.safetensors"]


def test_settings_go_through_json() -> None:
    settings = EmbeddingGBDTSettings.from_dict(SHORT)
    assert settings.encoder.hidden == 8
    assert EmbeddingGBDTSettings.from_dict(settings.to_dict()) == settings

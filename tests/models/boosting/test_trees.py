"""Compiled trees give LightGBM's margins to the last bit; what they do not know stays with LightGBM."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

from features.events.schema import EventSchema
from features.journeys.packing import pack
from models.boosting.compiled_trees import BoostedTrees, CompiledTrees, compile_trees
from models.boosting.gbdt import GBDT
from models.scoring.scorer import Scorer

Matrix = npt.NDArray[np.float32]


def rows(n: int, seed: int = 0) -> Matrix:
    """(n, 7) with ties, zeros, missing values, and magnitudes from tiny to huge."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 7)).astype(np.float32)
    x[:, 1] = rng.integers(0, 5, n)
    x[:, 2] *= 1e-30
    x[:, 3] *= 1e30
    x[:, 4][rng.random(n) < 0.5] = 0
    x[:, 5][rng.random(n) < 0.3] = np.nan
    return x


def boosted(x: Matrix, trees: int = 20, **parameters: Any) -> Any:
    rng = np.random.default_rng(1)
    y = rng.random(len(x)) < 1 / (1 + np.exp(-np.nan_to_num(x[:, 0] + x[:, 1] - x[:, 5])))
    given = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_in_leaf": 3} | parameters
    text = lgb.train(given, lgb.Dataset(x, y, params=given), trees).model_to_string()
    return lgb.Booster(model_str=text)


def at_thresholds(trees: CompiledTrees) -> Matrix:
    """Rows whose values are the thresholds, and the floats on either side of them."""
    found = np.unique(trees.threshold)[:300]
    near = np.concatenate(
        [found, -found, np.nextafter(found, np.float32(np.inf)), np.nextafter(found, np.float32(-np.inf))]
    )
    extremes = np.array(
        [0.0, -0.0, 1e-35, -1e-35, 1e-36, -1e-36, 1e-38, 3e38, -3e38, np.inf, -np.inf, np.nan], np.float32
    )
    return np.repeat(np.concatenate([near, extremes])[:, None], trees.n_columns, axis=1).astype(np.float32)


@pytest.mark.parametrize("leaves", [2, 8, 31, 32, 33, 64])
@pytest.mark.parametrize("more", [{}, {"use_missing": False}, {"extra_trees": True, "feature_fraction": 0.3}])
def test_margins_are_lightgbms(leaves: int, more: dict[str, Any]) -> None:
    x = rows(1500)
    booster = boosted(x, num_leaves=leaves, **more)
    trees = compile_trees(booster.model_to_string())
    assert trees is not None
    for asked in (x, rows(200, seed=5), at_thresholds(trees)):
        np.testing.assert_array_equal(trees.margins(asked), booster.predict(asked, raw_score=True))


@pytest.mark.parametrize("n", [0, 1, 15, 16, 17, 63, 64, 65, 130])
def test_any_number_of_rows(n: int) -> None:
    x = rows(500)
    trees = compile_trees(boosted(x).model_to_string())
    assert trees is not None
    np.testing.assert_array_equal(trees.margins(x[:n]), trees.margins(x)[:n])
    np.testing.assert_array_equal(trees.margins(np.asfortranarray(x[:n])), trees.margins(x)[:n])


def test_trees_without_a_split() -> None:
    x = rows(300)
    booster = boosted(x, trees=3, min_data_in_leaf=299)
    trees = compile_trees(booster.model_to_string())
    assert trees is not None
    np.testing.assert_array_equal(trees.margins(x), booster.predict(x, raw_score=True))


@pytest.mark.parametrize(
    "parameters",
    [
        {"num_leaves": 100, "min_data_in_leaf": 1},
        {"zero_as_missing": True},
        {"linear_tree": True},
        {"objective": "multiclass", "num_class": 2},
        {"boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.5},
    ],
)
def test_what_is_not_known_is_left_to_lightgbm(parameters: dict[str, Any]) -> None:
    assert compile_trees(boosted(rows(1500), **parameters).model_to_string()) is None


def test_categorical_splits_are_left_to_lightgbm() -> None:
    x = rows(1500)
    given = {"objective": "binary", "verbosity": -1, "num_threads": 1, "min_data_per_group": 1, "cat_smooth": 0.0}
    data = lgb.Dataset(x, np.isin(x[:, 1], (1, 3)).astype(int), categorical_feature=[1], params=given)
    assert compile_trees(lgb.train(given, data, 3).model_to_string()) is None


def test_rows_of_another_width_are_refused() -> None:
    trees = compile_trees(boosted(rows(300)).model_to_string())
    assert trees is not None
    with pytest.raises(ValueError, match="7 columns"):
        trees.margins(rows(10)[:, :6])


def test_a_model_gives_the_same_with_and_without(
    scoring_folder: Path, simulated_events: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = Scorer.load(scoring_folder).model
    assert isinstance(model, GBDT)
    log = pack(simulated_events, EventSchema(profile=("country", "plan")))
    snapshots = log.at(int(log.t.max()) + 1)
    fast = model.predict(snapshots)
    monkeypatch.setattr("models.boosting.compiled_trees.compile_trees", lambda text: None)
    model.members_ = [BoostedTrees(member.text) for member in model.members_]
    np.testing.assert_array_equal(model.predict(snapshots), fast)

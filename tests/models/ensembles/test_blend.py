"""The blend: its weights, what it says, and that it comes back from disk as it was."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from scipy.special import expit

from features.journeys.journeys import Journeys, Snapshots
from features.journeys.packing import pack
from models.baselines import BaseRate, Recency, RFMLogistic
from models.boosting.gbdt import GBDT, GBDTSettings
from models.catalogue import combinations, make
from models.contract import EmbeddingModel, Explainer, ExtraPackages, FeatureModel, Model, Reason
from models.ensembles.blend import Blend, cross_fitted, log_odds, stack
from models.saving import load_model, save_model
from models.scoring.scorer import BASE_PACKAGES, package_names, requirements

DAY_US = 86_400_000_000
Rows = tuple[Snapshots, npt.NDArray[np.int8]]


class FixedModel:
    """A fitted model that says what it was told to."""

    kind = "fixed"

    def __init__(self, p: npt.ArrayLike, reasons: list[Reason] | None = None) -> None:
        self.p, self.fixed_reasons = np.asarray(p, dtype=np.float64), reasons or []

    def fit(self, snapshots: Snapshots, labels: npt.ArrayLike) -> Any:
        return self

    def predict(self, snapshots: Snapshots) -> npt.NDArray[np.float64]:
        return self.p

    def reasons(self, snapshots: Snapshots, top: int = 5) -> list[list[Reason]]:
        return [self.fixed_reasons[:top] for _ in range(len(snapshots))]

    def save(self, folder: Path) -> None: ...

    @classmethod
    def load(cls, folder: Path) -> Any: ...


class Embedding(FixedModel):
    version = "0123456789ab"
    packages = ("torch", "safetensors")

    def embed(self, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        return np.ones((len(snapshots), 3), dtype=np.float32)


def noisy(n: int = 2000, seed: int = 0) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], npt.NDArray[Any]]:
    """(n,) true log-odds, noise of the same spread, labels."""
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 1.5, n)
    return z, rng.normal(0, 1.5, n), (rng.random(n) < expit(z)).astype(float)


def names(*members: str) -> dict[str, Model]:
    return {name: FixedModel([0.5]) for name in members}


@pytest.fixture(scope="module")
def rows(simulated_events: pd.DataFrame) -> Rows:
    journeys: Journeys = pack(simulated_events)
    last = int(journeys.t.max())
    customers = np.arange(journeys.n_customers)
    days = np.array([90, 60, 30], dtype=np.int64) * DAY_US
    snapshots = journeys.at(np.tile(last - days, len(customers)), np.repeat(customers, 3))
    snapshots = snapshots.take(snapshots.stop > snapshots.start)
    since_days = (snapshots.cutoff - journeys.t[snapshots.stop - 1]) / DAY_US
    return snapshots, (np.random.default_rng(0).random(len(snapshots)) < expit((since_days - 15) / 10)).astype(np.int8)


@pytest.fixture(scope="module")
def fitted(rows: Rows) -> Blend:
    gbdt = GBDT(GBDTSettings(members=2, max_trees=20, min_data_in_leaf=10))
    return Blend({"gbdt": gbdt, "rfm": RFMLogistic(), "recency": Recency()}, seed=3).fit(*rows)


def test_weights_are_not_negative_even_where_a_member_is_wrong() -> None:
    z, noise, y = noisy()
    weights, _ = stack(np.column_stack([z, -z, noise]), y)
    assert weights.min() == 0.0
    assert weights[1] == 0.0


def test_a_member_beside_noise_is_recovered() -> None:
    z, noise, y = noisy()
    validation = {"good": expit(z), "noise": expit(noise)}
    blend = Blend.of(names("good", "noise"), validation, y)
    assert blend.weights_["good"] == pytest.approx(1.0, abs=0.1)
    assert blend.weights_["noise"] < 0.05
    assert abs(blend.bias_) < 0.1


def test_two_halves_of_the_truth_are_better_than_either() -> None:
    rng = np.random.default_rng(1)
    first, second = rng.normal(0, 1, (2, 3000))
    y = (rng.random(3000) < expit(first + second)).astype(float)
    validation = {"first": expit(first), "second": expit(second)}
    scores = cross_fitted(("first", "second"), validation, y, np.arange(3000) % 3)

    def loss(p: npt.NDArray[np.float64]) -> float:
        return float(-np.mean(np.log(np.where(y == 1, p, 1 - p))))

    assert loss(scores) < min(loss(p) for p in validation.values()) - 0.05
    np.testing.assert_allclose(list(Blend.of(names("first", "second"), validation, y).weights_.values()), 1, atol=0.15)


def test_cross_fitted_scores_of_a_fold_do_not_depend_on_its_labels() -> None:
    z, noise, y = noisy(600)
    validation, folds = {"good": expit(z), "noise": expit(noise)}, np.repeat([0, 1, 2], 200)
    changed = np.where(folds == 1, 1 - y, y)
    before, after = (cross_fitted(("good", "noise"), validation, labels, folds) for labels in (y, changed))
    np.testing.assert_array_equal(before[folds == 1], after[folds == 1])
    assert np.abs(before - after)[folds != 1].min() > 0
    rest = folds != 1
    weights, bias = stack(np.column_stack([z, noise])[rest], y[rest])
    np.testing.assert_allclose(before[folds == 1], expit(np.column_stack([z, noise])[~rest] @ weights + bias))
    assert len(cross_fitted(("good",), {"good": expit(z)}, y, np.zeros(600, np.int64))) == 600


def test_few_rows_leave_the_plain_average() -> None:
    blend = Blend.of(names("a", "b"), {"a": np.array([0.5]), "b": np.array([0.5])}, [1.0])
    assert blend.weights_ == {"a": 0.5, "b": 0.5}


def test_it_rises_strictly_with_each_member_that_has_a_weight(rows: Rows) -> None:
    one = rows[0].take(np.arange(1))
    blend = Blend(names("a", "b", "c")).with_weights([0.7, 1e-3, 0.0], -0.2)

    def at(**p: float) -> float:
        blend.members = {name: FixedModel([p.get(name, 0.4)]) for name in blend.members}
        return float(blend.predict(one)[0])

    grid = np.linspace(0.001, 0.999, 50)
    for name in ("a", "b"):
        assert (np.diff([at(**{name: p}) for p in grid]) > 0).all()
    assert at(c=0.1) == at(c=0.9)
    assert 0 < at(a=0.0, b=0.0) < at(a=1.0, b=1.0) <= 1
    assert np.isfinite(log_odds([0.0, 1e-320, 1.0])).all()


def test_it_learns_on_its_own_and_is_no_worse_than_its_members(rows: Rows, fitted: Blend) -> None:
    p = fitted.predict(rows[0])
    assert ((p > 0) & (p < 1)).all()
    assert min(fitted.weights_.values()) >= 0
    assert sum(fitted.weights_.values()) > 0.3
    again = Blend({"gbdt": fitted.members["gbdt"], "rfm": RFMLogistic(), "recency": Recency()}, seed=3).fit(*rows)
    np.testing.assert_array_equal(again.predict(rows[0]), p)


def test_it_learns_from_one_cutoff_too(rows: Rows) -> None:
    snapshots, y = rows
    one = np.flatnonzero(snapshots.cutoff == snapshots.cutoff.max())
    p = Blend({"rfm": RFMLogistic(), "rate": BaseRate()}).fit(snapshots.take(one), y[one]).predict(snapshots.take(one))
    assert p.std() > 0


def test_from_disk_it_gives_the_same_numbers_and_a_batch_of_one_the_same_as_many(
    rows: Rows, fitted: Blend, tmp_path: Path
) -> None:
    outer = Blend.of({"inner": fitted, "rfm": fitted.members["rfm"]}, *_validation(rows, fitted))
    for number, blend in enumerate((fitted, outer)):
        again = load_model(save_model(blend, tmp_path / str(number)))
        assert isinstance(again, Blend)
        np.testing.assert_allclose(again.predict(rows[0]), blend.predict(rows[0]), rtol=0, atol=1e-12)
        assert (again.weights_, again.bias_, again.seed) == (blend.weights_, blend.bias_, blend.seed)
        one = again.predict(rows[0].take(np.array([5])))
        np.testing.assert_allclose(one, blend.predict(rows[0])[5], rtol=0, atol=1e-12)
    assert (tmp_path / "1" / "member_0" / "member_0" / "booster_0.txt").is_file()


def _validation(rows: Rows, fitted: Blend) -> tuple[dict[str, npt.NDArray[np.float64]], npt.NDArray[np.int8]]:
    return {"inner": fitted.predict(rows[0]), "rfm": fitted.members["rfm"].predict(rows[0])}, rows[1]


def test_reasons_are_the_members_weighted_and_one_a_subject(rows: Rows) -> None:
    two = rows[0].take(np.arange(2))
    first = [Reason("rhythm", "a gap (raises)", "gap", 3.0, 1.0), Reason("returns", "none", "n", 0.0, -0.2)]
    second = [Reason("rhythm", "late (raises)", "late", 1.0, 2.0), Reason("order", "abc", "x", 1.0, -4.0)]
    blend = Blend({"a": FixedModel([0.5, 0.5], first), "b": FixedModel([0.5, 0.5], second), "rate": BaseRate()})
    blend.with_weights([0.5, 0.25, 1.0], 0.0)
    assert isinstance(blend, Explainer)
    [one, other] = blend.reasons(two)
    assert one == other
    assert [(each.subject, each.contribution) for each in one] == [("order", -1.0), ("rhythm", 1.0), ("returns", -0.1)]
    assert [each.feature for each in one] == ["x", "gap", "n"], "told by the strongest, weighted: a draw goes to a"
    assert len(blend.reasons(two, top=1)[0]) == 1
    silent = Blend({"rate": BaseRate()}).with_weights([1.0], 0.0)
    assert silent.reasons(two) == [[], []]


def test_the_features_of_the_members_stay_known(rows: Rows, fitted: Blend) -> None:
    assert isinstance(fitted, FeatureModel)
    table = fitted.feature_table()
    assert list(table.columns) == ["name", "group", "meaning", "importance"]
    assert table["importance"].sum() == pytest.approx(1.0)
    assert list(Blend({"rate": BaseRate()}).with_weights([1.0], 0.0).feature_table().columns) == list(table.columns)


def test_it_embeds_where_a_member_does_and_says_what_it_needs(rows: Rows, fitted: Blend) -> None:
    assert not isinstance(fitted, EmbeddingModel)
    assert not isinstance(Blend({"a": Embedding([0.5])}), EmbeddingModel), "not before it is fitted"
    other = Embedding([0.5])
    other.version = "ffffffffffff"
    blend = Blend({"a": Embedding([0.5]), "b": other, "rate": BaseRate()}).with_weights([0.2, 0.1, 0.9], 0.0)
    assert isinstance(blend, EmbeddingModel)
    assert blend.version == "0123456789ab", "that of the embedding member with the largest weight"
    assert blend.embed(rows[0].take(np.arange(2))).shape == (2, 3)
    assert isinstance(blend, ExtraPackages)
    assert blend.packages == ("safetensors", "torch")
    assert package_names(blend) == (*BASE_PACKAGES, "safetensors", "torch")
    assert package_names(fitted) == package_names() == BASE_PACKAGES
    assert requirements(fitted) == requirements()


def test_the_label_of_a_local_build_stays_out_of_requirements(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("models.scoring.scorer.version", lambda name: "2.13.0+cpu")
    assert "torch==2.13.0" in requirements(Embedding([0.5]))


def test_the_catalogue_makes_one_from_settings_and_combines_what_is_fitted() -> None:
    unfitted = make("blend", {"members": {"rfm": {"kind": "rfm"}, "g": {"kind": "gbdt", "settings": {"members": 2}}}})
    assert isinstance(unfitted, Blend)
    assert {name: member.kind for name, member in unfitted.members.items()} == {"rfm": "rfm", "g": "gbdt"}
    z, noise, y = noisy(300)
    validation, folds = {"good": expit(z), "noise": expit(noise)}, np.repeat([0, 1, 2], 100)
    assert combinations(names("good"), validation, y, folds) == []
    [combined] = combinations(names("good", "noise"), validation, y, folds)
    assert (combined.name, combined.of) == ("blend", ("good", "noise"))
    np.testing.assert_array_equal(combined.validation, cross_fitted(("good", "noise"), validation, y, folds))
    assert f"good {combined.settings['weights']['good']:.2f}" in combined.note


def test_a_blend_needs_no_pytorch() -> None:
    import subprocess

    code = "import sys, models.ensembles.blend, models.saving, models.scoring.scorer; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"

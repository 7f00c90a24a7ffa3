"""Sequence models behind the contract of every model: fitted, saved, watched, cut off, and served without PyTorch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

from features.errors import ConfigError, DataError
from features.journeys.journeys import Snapshots
from features.journeys.packing import pack
from features.sequences.sequences import SequenceSettings
from features.simulation.simulator import simulate
from models.catalogue import companions, make
from models.contract import (
    EmbeddingModel,
    Explainer,
    ExtraPackages,
    FitPruned,
    HistoryModel,
    Model,
    Resumable,
    Watchable,
)
from models.holdout import late_rows, member_splits
from models.saving import load_model, save_model
from models.sequence.model import GRUModel, SequenceModel
from models.sequence.settings import SequenceModelSettings

SEQUENCES = {"max_steps": 10, "min_count": 5}
SHORT: dict[str, Any] = {
    "sequences": SEQUENCES, "hidden": 8, "heads": 2, "layers": 1, "objective": "next", "pretraining_epochs": 1,
    "members": 2, "epochs": 2, "head": 8,
}  # fmt: skip
LEARNS = SHORT | {"epochs": 8, "learning_rate": 0.02, "head_dropout": 0.1}  # long enough to have learnt something
ROOT = Path(__file__).resolve().parents[3]
Rows = tuple[Snapshots, np.ndarray]


@pytest.fixture(scope="module")
def rows() -> Rows:
    """Simulated customers at three moments; who came lately and by some ways comes again."""
    simulation = simulate(n_customers=110, days=100, seed=3)
    journeys = simulation.journeys
    cutoffs = np.array(["2024-02-20", "2024-03-10", "2024-03-30"], "datetime64[us]")
    snapshots = journeys.at(np.repeat(cutoffs, 110), np.tile(np.arange(110), 3))
    snapshots = snapshots.take(np.flatnonzero(snapshots.stop > snapshots.start))
    days = (snapshots.cutoff - journeys.t[snapshots.stop - 1]) / 86_400_000_000
    chance = 1 / (1 + np.exp(days - np.median(days)))
    return snapshots, (np.random.default_rng(0).random(len(snapshots)) < chance).astype(float)


@pytest.fixture(scope="module")
def model(rows: Rows) -> SequenceModel:
    result = make("gru", LEARNS).fit(*rows)
    assert isinstance(result, GRUModel)
    return result


@pytest.fixture(scope="module")
def transformer(rows: Rows) -> Model:
    return make("transformer", SHORT | {"members": 1}).fit(*rows)


def weights_of(model: SequenceModel) -> list[bytes]:
    return [values.tobytes() for member in model.members_ for _, values in sorted(member.items())]


# --- the contract ---


def test_keeps_the_contract(model: SequenceModel, transformer: Model) -> None:
    for one in (model, transformer):
        for protocol in (Model, Explainer, Watchable, Resumable, HistoryModel, EmbeddingModel, ExtraPackages):
            assert isinstance(one, protocol), protocol
    assert (model.packages, transformer.packages) == (("safetensors",), ("safetensors", "torch"))
    assert [model.kind, transformer.kind] == ["gru", "transformer"]


def test_learns_and_is_calibrated(model: SequenceModel, rows: Rows) -> None:
    snapshots, y = rows
    p = model.predict(snapshots)
    assert p[y == 1].mean() > p[y == 0].mean() + 0.1
    assert p.mean() == pytest.approx(y.mean(), abs=0.08)
    assert ((p > 0) & (p < 1)).all()


def test_a_transformer_learns_finite_numbers(transformer: SequenceModel, rows: Rows) -> None:
    assert all(np.isfinite(values).all() for member in transformer.members_ for values in member.values())
    assert np.ptp(transformer.predict(rows[0])) > 0


def test_members_leave_customers_out_and_are_checked_on_their_late_rows(model: SequenceModel, rows: Rows) -> None:
    snapshots, y = rows
    late = late_rows(snapshots.cutoff, model.settings.later_share)
    settings = model.settings
    checks = member_splits(snapshots, y, settings.members, settings.later_share, settings.seed)
    assert len(checks) == 2
    for fit, check in checks:
        assert not set(snapshots.customer[fit]) & set(snapshots.customer[check])
        assert late[check].all()
        assert 0.5 < len(fit) / len(y) < 0.9


@pytest.mark.parametrize("which", ["model", "transformer"])
def test_saved_and_loaded_gives_the_same(
    which: str, rows: Rows, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    model: SequenceModel = request.getfixturevalue(which)
    again = load_model(save_model(model, tmp_path / "m"))
    assert isinstance(again, SequenceModel)
    np.testing.assert_allclose(again.predict(rows[0]), model.predict(rows[0]), rtol=0, atol=1e-12)
    np.testing.assert_array_equal(again.embed(rows[0]), model.embed(rows[0]))
    assert (again.version, again.settings) == (model.version, model.settings)
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".json", ".safetensors"}
    assert list(again.history().columns) == list(model.history().columns)
    assert json.loads((tmp_path / "m" / "sequence_model.json").read_text())["version"] == model.version


def test_same_seed_same_numbers(rows: Rows) -> None:
    fits = [make("gru", SHORT | {"seed": seed}).fit(*rows) for seed in (4, 4, 5)]
    p = [fit.predict(rows[0]) for fit in fits]
    assert (p[0] == p[1]).all()
    assert (p[0] != p[2]).any()
    assert weights_of(fits[0]) == weights_of(fits[1])
    assert fits[0].version == fits[1].version != fits[2].version


def test_one_row_equals_many_and_nobody_gets_a_number(model: SequenceModel, rows: Rows) -> None:
    many = model.predict(rows[0])
    for row in range(0, len(many), 41):
        assert model.predict(rows[0].take(np.array([row])))[0] == pytest.approx(many[row], abs=1e-6)
    unknown = rows[0].journeys.at("2024-03-01", np.array([-1]))
    assert 0 < model.predict(unknown)[0] < 1
    assert model.predict(rows[0].take(np.arange(0))).shape == (0,)


def test_reasons_name_touchpoints_and_are_differences_of_margins(model: SequenceModel, rows: Rows) -> None:
    subset = rows[0].take(np.arange(5))
    events = [(subset.journeys.categories["touchpoint"].names, subset.start[k], subset.stop[k]) for k in range(5)]
    for row, reasons in enumerate(model.reasons(subset, top=3)):
        names, start, stop = events[row]
        visible = {names[code] for code in subset.journeys.categories["touchpoint"].codes[start:stop]}
        assert len(reasons) <= 3
        assert {reason.subject for reason in reasons} <= visible
    assert any(model.reasons(subset))


def test_history_tells_of_pretraining_and_of_each_member(model: SequenceModel) -> None:
    history = model.history()
    assert list(history.columns) == ["part", "epoch", "name", "value"]
    assert history["part"].unique().tolist() == ["pretraining", "member 1", "member 2"]
    parts = history[history["name"] == "check_loss"].groupby("part")["epoch"].apply(list).to_dict()
    assert parts == {"member 1": list(range(8)), "member 2": list(range(8))}  # pretraining has nothing to check
    assert not history["value"].isna().any()


# --- versions ---


def test_a_version_is_of_weights_and_vocabularies(model: SequenceModel, rows: Rows, tmp_path: Path) -> None:
    def version(changed: Callable[[SequenceModel], None]) -> str:
        again = type(model).load(save_model(model, tmp_path))
        changed(again)
        return again.version

    def bend(name: str) -> Callable[[SequenceModel], None]:
        def change(again: SequenceModel) -> None:
            again.members_[0][name] = again.members_[0][name] + np.float32(1e-6)

        return change

    def rename(again: SequenceModel) -> None:
        layout = again.sequences_.layout_
        vocabularies = layout.vocabularies | {"touchpoint": layout.vocabularies["touchpoint"][::-1]}
        again.sequences_.layout_ = replace(layout, vocabularies=vocabularies)

    def last_member(again: SequenceModel) -> None:
        again.members_[1] = {name: values + 1 for name, values in again.members_[1].items()}

    assert version(lambda _: None) == model.version
    assert len(model.version) == 12
    assert version(bend("encoder.network.weight")) != model.version
    assert version(rename) != model.version
    assert version(bend("heads.0.out.bias")) == model.version  # not of the encoder
    assert version(last_member) == model.version  # the first one embeds


def test_a_second_fit_has_its_own_version_and_numbers(rows: Rows) -> None:
    snapshots, y = rows
    half = np.arange(0, len(y), 2)
    fresh = make("gru", SHORT | {"members": 1}).fit(snapshots.take(half), y[half])
    used = make("gru", SHORT | {"members": 1}).fit(snapshots, 1 - y)
    before = used.version, used.embed(snapshots)
    used.fit(snapshots.take(half), y[half])
    assert used.version == fresh.version != before[0]
    np.testing.assert_array_equal(used.embed(snapshots), fresh.embed(snapshots))
    assert (used.embed(snapshots) != before[1]).any()


# --- several tasks ---


def test_tasks_share_an_encoder_and_are_saved_alone(rows: Rows, tmp_path: Path) -> None:
    snapshots, y = rows
    few = np.where(np.arange(len(y)) % 3 == 0, np.nan, 1 - y)  # the other way round, and not known for all
    options = SequenceModelSettings.from_dict(LEARNS | {"objective": "none"})
    both = GRUModel(options).fit_tasks(snapshots, {"stays": y, "leaves": few})
    stays, leaves = both.task("stays"), both.task("leaves")
    assert (stays.version, stays.chosen) == (leaves.version, "stays")
    np.testing.assert_array_equal(stays.embed(snapshots), leaves.embed(snapshots))
    p, q = stays.predict(snapshots), leaves.predict(snapshots)
    np.testing.assert_array_equal(both.predict(snapshots), p)
    assert np.corrcoef(p, q)[0, 1] < 0
    for name, expected in (("stays", p), ("leaves", q)):
        again = load_model(save_model(both.task(name), tmp_path / name))
        np.testing.assert_allclose(again.predict(snapshots), expected, rtol=0, atol=1e-12)
    with pytest.raises(ConfigError, match=r"no task 'churn'.*stays, leaves"):
        both.task("churn")


def test_a_task_of_one_kind_of_label_is_named(rows: Rows) -> None:
    snapshots, y = rows
    with pytest.raises(DataError, match="Task 'leaves': Nothing to learn"):
        GRUModel().fit_tasks(snapshots, {"stays": y, "leaves": np.where(y == 1, 1.0, np.nan)})
    with pytest.raises(DataError, match="neither 0 nor 1"):
        GRUModel().fit(snapshots, y * 2)


# --- ablations ---


def test_twins_are_robbed_of_order_and_of_time(rows: Rows) -> None:
    snapshots, y = rows
    ablations = {ablation.name: ablation for ablation in companions({"gru": SHORT}) if ablation.role == "ablation"}
    assert sorted(ablations) == ["gru_shuffled", "gru_without_time"]
    shuffled, timeless = (make(ablation.kind, ablation.settings) for _, ablation in sorted(ablations.items()))
    assert isinstance(shuffled, GRUModel)
    assert isinstance(timeless, GRUModel)
    assert shuffled.settings.sequences == SequenceSettings(**SEQUENCES, order="shuffled")
    assert timeless.settings.sequences == SequenceSettings(**SEQUENCES, time=False)
    for ablation in (shuffled, timeless):
        assert replace(ablation.settings, sequences=SequenceSettings(**SEQUENCES)) == SequenceModelSettings.from_dict(
            SHORT
        )
    timeless.settings = replace(timeless.settings, members=1, objective="none", epochs=1)
    timeless.fit(snapshots, y)
    journeys = snapshots.journeys
    earlier = replace(journeys, t=journeys.t - (journeys.t.max() - journeys.t) // 3)  # stretched into the past
    moved = replace(snapshots, journeys=earlier)
    np.testing.assert_array_equal(timeless.predict(moved), timeless.predict(snapshots))


# --- watching, going on ---


def test_a_watcher_sees_the_first_member_and_may_stop_it(rows: Rows) -> None:
    visible: list[tuple[int, float]] = []

    def report(epoch: int, loss: float) -> bool:
        visible.append((epoch, loss))
        return False

    model = GRUModel(SequenceModelSettings.from_dict(SHORT | {"objective": "none"}))
    model.watch(report)
    history = model.fit(*rows).history()
    first = history[(history["part"] == "member 1") & (history["name"] == "check_loss")]
    assert visible == list(zip(first["epoch"], first["value"], strict=True))
    assert [epoch for epoch, _ in visible] == [0, 1]
    model.watch(lambda epoch, loss: True)
    with pytest.raises(FitPruned):
        model.fit(*rows)
    model.watch(None)
    model.fit(*rows)


class Killed(Exception):
    """What stands for the end of a process."""


@pytest.mark.parametrize("kind", ["gru", "transformer"])
def test_a_fit_that_was_cut_off_goes_on_to_the_same_weights(kind: str, rows: Rows, tmp_path: Path) -> None:
    def fitted(folder: Path | None, report: Callable[[int, float], bool] | None = None) -> SequenceModel:
        model = make(kind, SHORT)
        assert isinstance(model, SequenceModel)
        model.watch(report)
        if folder is not None:
            model.resume_in(folder)
        return model.fit(*rows)

    def kill(epoch: int, loss: float) -> bool:
        if epoch == 1:
            raise Killed
        return False

    with pytest.raises(Killed):
        fitted(tmp_path, kill)
    visible: list[int] = []
    went_on = fitted(tmp_path, lambda epoch, loss: bool(visible.append(epoch)))
    assert visible == [1]  # nothing is learnt twice
    whole, finished = fitted(None), fitted(tmp_path)
    assert weights_of(went_on) == weights_of(whole) == weights_of(finished)
    assert (went_on.predict(rows[0]) == whole.predict(rows[0])).all()
    assert {path.suffix for path in tmp_path.rglob("*") if path.is_file()} == {".safetensors"}


# --- settings ---


@pytest.mark.parametrize(
    ("kind", "settings", "message"),
    [
        ("gru", {"hiden": 8}, "'hiden'.*did you mean 'hidden'"),
        ("transformer", {"head_droput": 0.1}, "did you mean 'head_dropout'"),
        ("probe", {"pretraning_epochs": 1}, "did you mean 'pretraining_epochs'"),
        ("embedding_gbdt", {"encoder": {"objectiv": "next"}}, "did you mean 'objective'"),
        ("gru", {"sequences": {"max_step": 5}}, "(?s)sequences.*did you mean 'max_steps'"),
        ("gru", {"sequences": {"order": "random"}}, "(?s)sequences.*order.*'kept' or 'shuffled'"),
        ("probe", {"network": "lstm"}, "network is 'lstm'; it can be gru, transformer"),
        ("gru", {"objective": "nxt"}, "objective is 'nxt'; it can be none, next, coles, both"),
        ("gru", {"members": 0}, "members is 0.*at least 1"),
        ("gru", {"hidden": 8.5}, "hidden is 8.5.*whole number"),
        ("transformer", {"hidden": 10}, "hidden is 10, which 4 heads cannot share"),
    ],
)
def test_a_wrong_setting_is_named(kind: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make(kind, settings)


def test_settings_go_through_json() -> None:
    settings = SequenceModelSettings.from_dict(SHORT)
    assert SequenceModelSettings.from_dict(json.loads(json.dumps(settings.to_dict()))) == settings
    assert settings.encoder().hidden == 8


def test_a_kind_decides_its_network() -> None:
    for kind in ("gru", "transformer"):
        built = make(kind, {"network": "gru", "features": {"groups": ["rfm"]}})
        assert isinstance(built, SequenceModel)
        assert built.settings.network == kind


# --- processes that only predict ---

PREDICTS = """
import sys
from pathlib import Path
import numpy as np, pandas as pd
from features.journeys import pack
from models.saving import load_model
UNWANTED = ("torch", "lightning", "optuna", "mlflow")
for folder in sys.argv[2:]:
    model = load_model(Path(folder))
    snapshots = pack(pd.read_parquet(sys.argv[1])).at("2024-03-20")
    p = model.predict(snapshots)
    assert ((p > 0) & (p < 1)).all()
    model.embed(snapshots), model.version, model.reasons(snapshots.take(np.arange(2)))
    print(folder.rsplit("/", 1)[-1], *(name for name in UNWANTED if name in sys.modules))
"""


def test_predicting_needs_no_lightning_and_a_gru_no_torch(
    model: SequenceModel, transformer: Model, rows: Rows, tmp_path: Path
) -> None:
    events = simulate(n_customers=20, days=90, seed=8).events.drop(columns=["country", "plan"])
    events.to_parquet(tmp_path / "events.parquet")
    drawn = {"sequences": SEQUENCES, "hidden": 8, "objective": "none"}
    booster = {"encoder": drawn, "tabular": False, "members": 2, "max_trees": 5}
    result = {
        "gru": model,
        "probe": make("probe", drawn).fit(*rows),
        "embedding_gbdt": make("embedding_gbdt", booster).fit(*rows),
        "transformer": transformer,
    }
    folders = [str(save_model(one, tmp_path / name)) for name, one in result.items()]
    command = [sys.executable, "-c", PREDICTS, str(tmp_path / "events.parquet"), *folders]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:-1] == ["gru", "probe", "embedding_gbdt", "transformer torch"]


def test_a_saved_model_is_finite_float32(model: SequenceModel, tmp_path: Path) -> None:
    save_model(model, tmp_path)
    for path in sorted(tmp_path.glob("member_*.safetensors")):
        for name, values in load_file(path).items():
            assert values.dtype == np.float32, name
            assert np.isfinite(values).all(), name


def test_a_log_of_other_columns_can_be_scored(model: SequenceModel) -> None:
    log = pd.DataFrame({
        "customer_id": ["a", "a", "b"], "touchpoint": ["never seen", "visit", "visit"],
        "timestamp": pd.to_datetime(["2030-01-01", "2030-01-02", "2030-01-02"]),
    })  # fmt: skip
    p = model.predict(pack(log).at("2030-01-03"))
    assert ((p > 0) & (p < 1)).all()

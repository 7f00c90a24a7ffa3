"""A training of several models with their ablations, probes and blend: what runs, is recorded, and may be best."""

from __future__ import annotations

import importlib
import json
import shutil
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run

from experiment_files import write_experiment
from features.simulation.simulator import simulate
from models.catalogue import BASELINES, KINDS
from models.ensembles.blend import Blend
from models.pyfunc import EventModel
from models.scoring.golden_sample import largest_difference
from models.scoring.scorer import Scorer
from training.config.experiment import load_experiment
from training.fitting.finals import Finals
from training.fitting.train import TrainResult, train
from training.reports.pictures import MOST_MODELS
from training.tracking.champions import promote
from training.tracking.registry import resolve
from training.tracking.tracking import NOTE, Tracker

pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")

# Two kinds that learn nothing but logistic regressions, with all that a sequence model can do beside; a search imports
# them by name. `recent` embeds, learns in epochs and can be resumed.
CATALOGUE = """
import numpy as np
import pandas as pd
from models.baselines import RFMLogistic, rfm
from models.catalogue import *
from models.catalogue import Companion, Kind


class Rare(RFMLogistic):
    kind = "rare"
    columns = ("active_days", "value", "age_days")

class Recent(RFMLogistic):
    kind = "recent"
    columns = ("recency_days", "events")
    packages = ("pip",)
    version = "0123456789ab"
    folders = []
    def __init__(self, settings=None):
        self.settings = settings or {}
    def fit(self, snapshots, labels):
        if hasattr(self, "folder"):
            self.folder.mkdir(parents=True)
            self.folders.append(self.folder)
        if self.settings.get("robbed"):
            labels = np.random.default_rng(0).permutation(labels)
        return super().fit(snapshots, labels)
    def resume_in(self, folder):
        self.folder = folder
    def watch(self, report):
        pass
    def embed(self, snapshots):
        return rfm(snapshots).astype(np.float32)
    def history(self):
        rows = [("pretraining", 0, "train_loss", 3.0), ("pretraining", 1, "train_loss", 2.0)]
        rows += [(f"member {m}", e, name, 1 / (1 + e + m)) for m in (1, 2) for e in range(3)
                 for name in ("train_loss", "check_loss", "seconds")]
        return pd.DataFrame(rows, columns=["part", "epoch", "name", "value"])

KINDS["rare"] = Kind(lambda: Rare, lambda settings: Rare(), search_space=lambda trial: {})
KINDS["recent"] = Kind(
    lambda: Recent, Recent, search_space=lambda trial: {"x": trial.suggest_float("x", 0.0, 1.0)}
)

def companions(found):
    robbed = found["recent"] | {"robbed": True}
    return [
        Companion("recent_shuffled", "recent", robbed, "ablation", "Without the order.", ("recent",)),
        Companion("recent_probe", "rare", {}, "probe", "On random numbers.", ("recent",)),
    ]
"""
SMALL = '[task.cutoffs]\nn_train = 6\n[models]\nwhich = ["rare", "recent"]\n[search]\ntrials = 1'
Trained = tuple[Path, TrainResult]


def run(folder: Path, runs: Path) -> TrainResult:
    return train(load_experiment(folder / "experiment.toml"), runs=runs, catalogue="beside_catalogue")


def draw_little(evaluations: Any, folder: Path, **_: Any) -> None:
    """In place of pictures that other tests look at and that take long."""
    assert 1 <= len(evaluations) <= MOST_MODELS
    folder.mkdir()
    (folder / "roc.png").touch()


@pytest.fixture(scope="module")
def made(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The training in a folder of its own, with its store; the fake kinds are known as long as the module runs."""
    folder = tmp_path_factory.mktemp("beside")
    simulate(n_customers=400, days=260, seed=3).save(folder)
    write_experiment(folder, SMALL, name="beside")
    (folder / "path").mkdir()
    (folder / "path" / "beside_catalogue.py").write_text(CATALOGUE)
    shutil.copy(empty_store, folder / "mlflow.db")
    known = dict(KINDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder / "path")
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setattr("training.fitting.final_files.draw_evaluation", draw_little)
        importlib.import_module("beside_catalogue")
        yield folder, run(folder, folder / "runs")
    KINDS.clear()
    KINDS.update(known)


@pytest.fixture
def beside(made: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Trained:
    """The training with a store of the test's own, which it may change."""
    folder, result = made
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return folder, result


def logged(result: TrainResult, name: str) -> Run:
    return Tracker("beside").client.get_run(result.models[name]["run_id"])


def read(result: TrainResult, name: str, path: str) -> pd.DataFrame:
    return pd.read_csv(mlflow.artifacts.download_artifacts(f"runs:/{result.models[name]['run_id']}/{path}"))


def test_result_has_roles_and_metrics(beside: Trained) -> None:
    _, result = beside
    roles = {name: told["role"] for name, told in result.models.items()}
    assert roles == {
        "rare": "model", "recent": "model", "recent_shuffled": "ablation", "recent_probe": "probe", "blend": "model",
        **dict.fromkeys(BASELINES, "baseline"),
    }  # fmt: skip
    assert result.models["recent_shuffled"]["kind"] == "recent"
    metrics = {frozenset(told["metrics"][split]) for told in result.models.values() for split in ("validation", "test")}
    assert len(metrics) == 1, "the same figures for all"
    candidates = [name for name, role in roles.items() if role in ("model", "baseline")]
    losses = {name: result.models[name]["metrics"]["validation"]["log_loss"] for name in roles}
    assert result.best == min(candidates, key=losses.__getitem__)


def test_a_twin_or_a_probe_is_never_the_best(beside: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder, result = beside
    fitted = Finals.fitted

    def flattered(self: Finals, wanted: Any, validation: Any = None) -> Any:
        final = fitted(self, wanted, validation)
        if wanted.role == "probe":
            y = self.data.scored("validation")[0]
            object.__setattr__(final, "validation", np.where(y == 1, 0.99, 0.01))
        return final

    monkeypatch.setattr(Finals, "fitted", flattered)
    shutil.copytree(result.folder, tmp_path / "runs" / "beside" / result.train_id)
    (tmp_path / "runs" / "beside" / result.train_id / "done.json").unlink()
    Tracker("beside").client.delete_run(result.models["recent_probe"]["run_id"])
    again = run(folder, tmp_path / "runs")
    assert again.models["recent_probe"]["metrics"]["validation"]["auroc"] == 1.0
    assert again.best == result.best


def test_companion_names_its_model(beside: Trained) -> None:
    _, result = beside
    ablation = logged(result, "recent_shuffled")
    assert [ablation.data.tags[key] for key in ("role", "kind", "name")] == ["ablation", "recent", "recent_shuffled"]
    assert ablation.info.run_name == "recent_shuffled"
    assert "Without the order." in ablation.data.tags[NOTE]
    assert "AUROC of recent − recent_shuffled (ablation): " in ablation.data.tags[NOTE]
    assert "on validation rows" in ablation.data.tags[NOTE]
    assert ablation.data.params["robbed"] == "true"
    assert "search_run_id" not in ablation.data.tags
    assert "search_run_id" in logged(result, "recent").data.tags


def test_differences_use_the_same_rows(beside: Trained) -> None:
    _, result = beside
    table = read(result, "recent", "comparisons.csv")
    told = set(table[["model", "against", "role", "rows"]].itertuples(index=False, name=None))
    for against, role in (("recent_shuffled", "ablation"), ("recent_probe", "probe")):
        assert {("recent", against, role, split) for split in ("validation", "test")} <= told
    assert ("blend", "recent", "model", "validation") in told
    metrics = {name: result.models[name]["metrics"]["test"]["auroc"] for name in result.models}
    row = table.query("against == 'recent_shuffled' and rows == 'test'").iloc[0]
    assert row["auroc_difference"] == pytest.approx(metrics["recent"] - metrics["recent_shuffled"])
    assert row["auroc_difference_low"] > 0, "an ablation that was taught nonsense"
    assert set(read(result, "blend", "comparisons.csv")["against"]) == {"rare", "recent"}
    files = Tracker("beside").client.list_artifacts(result.models["rfm"]["run_id"])
    assert "comparisons.csv" not in {file.path for file in files}


def test_how_a_model_learnt_is_in_mlflow(beside: Trained) -> None:
    _, result = beside
    client, run_id = Tracker("beside").client, result.models["recent"]["run_id"]
    curve = client.get_metric_history(run_id, "curve/member_1/check_loss")
    assert [(metric.step, metric.value) for metric in curve] == [(0, 1 / 2), (1, 1 / 3), (2, 1 / 4)]
    assert len(client.get_metric_history(run_id, "curve/pretraining/train_loss")) == 2
    assert len(read(result, "recent", "curves/learning.csv")) == 20
    pictures = {file.path for file in client.list_artifacts(run_id, "pictures")}
    assert "pictures/learning.png" in pictures
    others = {file.path for file in client.list_artifacts(result.models["rare"]["run_id"], "pictures")}
    assert "pictures/roc.png" in others
    assert "pictures/learning.png" not in others


def test_an_embedding_carries_its_encoders_version(beside: Trained) -> None:
    _, result = beside
    for name in ("recent", "blend"):
        data = logged(result, name).data
        assert data.tags["encoder_version"] == data.params["encoder_version"] == "0123456789ab"
    assert "encoder_version" not in logged(result, "rare").data.tags


def test_requirements_list_extra_packages(beside: Trained) -> None:
    _, result = beside
    needed = {}
    for name in ("rare", "recent", "blend"):
        path = Path(mlflow.artifacts.download_artifacts(result.models[name]["uri"])) / "requirements.txt"
        needed[name] = {line.split("==")[0] for line in path.read_text().splitlines()}
    assert needed["recent"] - needed["rare"] == needed["blend"] - needed["rare"] == {"pip"}


def test_states_of_fits_lie_in_the_trainings_folder_and_are_gone(beside: Trained) -> None:
    _, result = beside
    folders = importlib.import_module("beside_catalogue").Recent.folders
    assert result.folder / "parts" / "recent" / "final" in folders
    assert result.folder / "parts" / "recent_shuffled" / "fold_1" in folders
    assert list((result.folder / "parts").iterdir()) == []
    assert not any(folder.exists() for folder in folders)


def test_blend_takes_raw_events(beside: Trained) -> None:
    _, result = beside
    params = logged(result, "blend").data.params
    weights = {name: float(params[f"weights.{name}"]) for name in ("rare", "recent")}
    assert min(weights.values()) >= 0
    promotion = promote(result.models["blend"]["uri"])
    assert promotion.rows
    found = resolve(f"models:/beside@{promotion.alias}")
    scorer = Scorer.load(found.folder)
    assert isinstance(scorer.model, Blend)
    assert scorer.model.weights_ == pytest.approx(weights, abs=1e-4)
    assert largest_difference(found.folder, EventModel(scorer).predict) < 1e-12
    task = json.loads((found.folder / "task.json").read_text())
    assert task["about"]["kind"] == "blend"


def test_a_training_that_stopped_in_a_companion_goes_on_after_its_last_fold(
    beside: Trained, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, result = beside
    fit, calls = Finals._fit, []

    def stopped(self: Finals, wanted: Any, *rest: Any) -> Any:
        calls.append((wanted.name, rest[-1].name))
        if len(calls) == 5:  # two searched models, then the ablation on its third fold
            raise KeyboardInterrupt
        return fit(self, wanted, *rest)

    monkeypatch.setattr(Finals, "_fit", stopped)
    with pytest.raises(KeyboardInterrupt):
        run(folder, tmp_path / "runs")
    again = run(folder, tmp_path / "runs")
    assert again.train_id == result.train_id
    assert [part for name, part in calls if name == "recent_shuffled"] == [
        "fold_0", "fold_1", "fold_2", "fold_2", "final",
    ]  # fmt: skip
    assert [part for name, part in calls if name == "recent"] == ["final"]
    for name in result.models:
        for part in ("validation", "test"):
            one, other = (np.load(each.folder / "final" / name / f"{part}.npy") for each in (result, again))
            np.testing.assert_array_equal(one, other)

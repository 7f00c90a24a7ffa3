"""MLflow in a browser, as a reviewer drives it: every question of docs/reviewing.md is answered where it says.

`JOURNEYLAB_SCREENSHOTS=FOLDER` keeps a picture of every page, for people to look at.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run

from experiment_files import PROFILE, write_experiment
from features.simulation.simulator import simulate
from serving.bento.serve import free_port
from training.config.experiment import load_experiment
from training.fitting.train import train
from training.segmentation.large_logs import segment_log
from training.tracking.champions import promote
from training.tracking.saved_views import VIEWS
from training.tracking.tracking import Tracker

pytestmark = pytest.mark.slow

MORE = """
[task.cutoffs]
n_train = 5
[features]
windows_days = [30]
groups = ["volume", "recency", "rfm", "profile"]
[models]
which = ["gbdt", "probe"]
[models.settings.gbdt]
members = 2
max_trees = 20
[models.settings.probe]
hidden = 8
objective = "next"
pretraining_epochs = 1
dropout = 0.1
sequences = { max_steps = 24 }
[search]
trials = 16
trials_of = { probe = 1 }
[report]
fairness = ["country"]
[segments]
which = ["rfm"]
"""
# MLflow's own: without accounts nobody is logged in, which its page asks all the same.
# A request that is on its way when the reviewer goes on is given up.
THEIRS = (
    re.compile(r"404.* \S+/ajax-api/2\.0/mlflow/users/current$"),
    re.compile(r"^failed: .*net::ERR_ABORTED$"),
    re.compile(r"^console: \S* ?ResizeObserver loop completed with undelivered notifications"),
)
PATIENCE_MS = 45_000


@dataclass(frozen=True)
class Desk:
    """MLflow on the runs of a small experiment."""

    url: str
    experiment: str
    runs: dict[str, Run]

    def view(self, name: str, mode: str = "TABLE") -> str:
        return f"{self.url}/#/experiments/{self.experiment}/runs?viewStateShareKey={name}&compareRunsMode={mode}"

    def run(self, name: str, tab: str = "") -> str:
        return f"{self.url}/#/experiments/{self.experiment}/runs/{self.runs[name].info.run_id}{tab}"


@pytest.fixture(scope="module")
def desk(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    folder = tmp_path_factory.mktemp("desk")
    simulate(n_customers=400, days=260, seed=3).save(folder)
    write_experiment(folder, MORE, name="desk", events=PROFILE)
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        experiment = load_experiment(folder / "experiment.toml")
        result = train(experiment, runs=folder / "runs")
        segment_log(experiment, runs=folder / "runs")
        tracker = Tracker("desk")
        promote(result.models["rfm"]["uri"])
        tracker.client.set_registered_model_alias("desk", "champion", "1")
        promote(result.models["gbdt"]["uri"])
        runs = {run.info.run_name: run for run in reversed(tracker._runs(""))}
    with _served(folder) as url:
        yield Desk(url, tracker.experiment_id, runs)


class _served:
    """MLflow's server on the store of a folder."""

    def __init__(self, folder: Path) -> None:
        self.port = free_port()
        options = ["--backend-store-uri", f"sqlite:///{folder / 'mlflow.db'}", "--workers", "1"]
        command = [sys.executable, "-m", "mlflow", "ui", "--port", str(self.port), "--host", "127.0.0.1", *options]
        with (folder / "mlflow.log").open("w") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, start_new_session=True)

    def __enter__(self) -> str:
        url, until = f"http://127.0.0.1:{self.port}", time.monotonic() + 180
        while time.monotonic() < until:
            try:
                urllib.request.urlopen(f"{url}/health", timeout=5).close()
                return url
            except (urllib.error.URLError, ConnectionError, TimeoutError):
                time.sleep(0.5)
        raise AssertionError("MLflow did not start")

    def __exit__(self, *_: object) -> None:
        os.killpg(self.process.pid, signal.SIGKILL)  # its job runners take half a minute to leave when asked
        self.process.wait(timeout=60)


@pytest.fixture(scope="module")
def pages(visit: Callable[..., Any]) -> dict[int, Any]:
    """Width → a page; one each for all questions, as a reviewer goes on from page to page."""
    return {width: visit(width) for width in (1440, 390)}


@pytest.fixture
def look(pages: dict[int, Any]) -> Iterator[Callable[..., Any]]:
    """An address and what must be read there → the page; at the end it must have had no fault."""

    def at(url: str, *texts: str, name: str = "", width: int = 1440) -> Any:
        page = pages[width].page
        page.goto("about:blank")
        page.goto(url)
        reads(page, *texts)
        if name:
            wait_for(page, f"{name}_{width}")
        return page

    yield at
    faults = [fault for visited in pages.values() for fault in visited.faults]
    for visited in pages.values():
        visited.faults.clear()
    assert [fault for fault in faults if not any(their.search(fault) for their in THEIRS)] == []


def wait_for(page: Any, name: str) -> None:
    """A picture of what the page has become."""
    if folder := os.environ.get("JOURNEYLAB_SCREENSHOTS"):
        page.wait_for_timeout(2_000)
        page.screenshot(path=Path(folder) / f"mlflow_{name}.png")


def reads(page: Any, *texts: str) -> None:
    """Wait until each text is on the page, in a frame of it, or in one of its fields."""
    for text in texts:
        deadline = time.monotonic() + PATIENCE_MS / 1000
        while not any(text in _text(frame) for frame in page.frames):
            assert time.monotonic() < deadline, f"{text!r} is not on {page.url}: {_text(page.frames[0])[:2000]}"
            page.wait_for_timeout(300)


def _text(frame: Any) -> str:
    from playwright.sync_api import Error

    try:
        return str(frame.evaluate("() => document.body ? document.body.innerText : ''"))
    except Error:  # it is going elsewhere
        return ""


@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.id)
def test_every_view_of_the_run_list_shows_its_columns(desk: Desk, look: Callable[..., Any], view: Any) -> None:
    names = {run.info.run_name for run in desk.runs.values() if run.data.tags["role"] in ("model", "baseline")}
    first = {"segments": ["segments"], "maps": [], "search": ["search gbdt"], "sequence": ["probe_shuffled"]}
    expected = first.get(view.id, sorted(names))
    columns = sorted(view.metrics) or list(view.tags)  # as MLflow orders them; those further right come with scrolling
    logged = {name for run in desk.runs.values() for name in (*run.data.metrics, *run.data.tags)}
    visible = [name for name in columns if name in logged][:2] if expected else []
    look(desk.view(view.id), view.name[:20], *expected, *visible, name=f"view_{view.id}")


def test_which_run_is_best_stands_first(desk: Desk, look: Callable[..., Any]) -> None:
    page = look(desk.view("best"), "blend", "rfm")
    scored = [run for run in desk.runs.values() if run.data.tags.get("candidate") == "true"]
    best = min(scored, key=lambda run: run.data.metrics["validation_log_loss"])
    assert best.data.tags["best_on_validation"] == "true"
    text = _text(page.frames[0])
    assert min((run.info.run_name for run in scored), key=lambda name: text.index(f"\n{name}\n")) == best.info.run_name


def test_tables_lie_side_by_side(desk: Desk, look: Callable[..., Any]) -> None:
    page = look(desk.view("customers", "ARTIFACT"), "Table")
    page.get_by_text("tables/").first.wait_for(timeout=PATIENCE_MS)
    wait_for(page, "tables")


def test_comparison_of_two_runs(desk: Desk, look: Callable[..., Any]) -> None:
    chosen = json.dumps([desk.runs[name].info.run_id for name in ("gbdt", "rfm")]).replace(" ", "")
    url = f'{desk.url}/#/compare-runs?runs={chosen}&experiments=["{desk.experiment}"]'
    look(url, "gbdt", "rfm", "test_auroc", "test_auroc_low", "test_auroc_high", "num_leaves", name="compare")


def test_description_of_a_run(desk: Desk, look: Callable[..., Any]) -> None:
    look(
        desk.run("gbdt"), "gbdt: desk", "held out", "desk train", "num_leaves", "trained_until", name="run",
    )  # fmt: skip


ARTIFACTS = {
    "baselines.csv": "base_rate",
    "slices.csv": "tenure",
    "fairness.csv": "country",
    "comparisons.csv": "probe_shuffled",
    "model_card.md": "Not for: other customers",
    "features.csv": "recency_days",
    "settings.json": "num_leaves",
    "environment/machine.json": "cores",
    "curves/calibration.csv": "observed_low",
}
PICTURES = ("calibration", "lift", "roc", "pr", "scores", "score_over_time", "importance")


@pytest.mark.parametrize("path", ARTIFACTS)
def test_an_artifact_can_be_read_on_its_run(desk: Desk, look: Callable[..., Any], path: str) -> None:
    name = "probe" if path == "comparisons.csv" else "gbdt"
    look(desk.run(name, f"/artifacts/{path}"), ARTIFACTS[path], name=f"artifact_{Path(path).stem}")


@pytest.mark.parametrize("picture", PICTURES)
def test_pictures_of_a_run(desk: Desk, look: Callable[..., Any], picture: str) -> None:
    page = look(desk.run("gbdt", f"/artifacts/pictures/{picture}.png"), f"{picture}.png")
    page.wait_for_function(
        "() => [...document.images].some((image) => image.naturalWidth > 900)", timeout=PATIENCE_MS
    )  # fmt: skip


def test_search_of_a_run(desk: Desk, look: Callable[..., Any]) -> None:
    page = look(desk.run("search gbdt", "/artifacts/pictures/search.png"), "search.png")
    page.wait_for_function("() => [...document.images].some((image) => image.naturalWidth > 900)", timeout=PATIENCE_MS)
    look(desk.run("search gbdt", "/artifacts/parameter_importance.csv"), "num_leaves")


def test_learning_curves_of_a_run(desk: Desk, look: Callable[..., Any]) -> None:
    look(desk.run("probe", "/model-metrics"), "pretraining", "train_loss", name="learning")


@pytest.mark.parametrize("width", [1440, 390])
def test_registered_version_has_a_card(desk: Desk, look: Callable[..., Any], width: int) -> None:
    look(f"{desk.url}/#/models/desk", "Version 2", "champion", name="model", width=width)
    look(
        f"{desk.url}/#/models/desk/versions/2", "What would change: of the tenth of rows", "Model card: gbdt, desk",
        "Groups of country", "Limits", name="version", width=width,
    )  # fmt: skip


def test_champion_and_challenger_on_one_page(desk: Desk, look: Callable[..., Any]) -> None:
    look(
        desk.run("gbdt", "/artifacts/comparison/with_champion.html"), "Side by side: gbdt", "First − second",
        "tenure: ", name="beside",
    )  # fmt: skip

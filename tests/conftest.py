"""What every test may ask for."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import httpx
import numpy as np
import pandas as pd
import pytest
from hypothesis import settings

from features.events.schema import EventSchema
from features.journeys.packing import pack
from features.simulation.simulator import simulate
from models.boosting.gbdt import GBDT, GBDTSettings
from models.scoring.golden_sample import record_sample
from models.scoring.scorer import Scorer, touchpoints_seen
from serving.champions.champions import Champions, Origin

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page
    from starlette.applications import Starlette

    from training.fitting.train import TrainResult

# In CI the property tests draw the same examples each time, so that a change is judged by what it changed; elsewhere
# they go on exploring.
settings.register_profile("ci", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("ci")

SHARED = Path(__file__).resolve().parents[2] / "shared"


class Client:
    """The application without a server."""

    def __init__(self, app: Starlette) -> None:
        self.transport = httpx.ASGITransport(app, raise_app_exceptions=False)

    def ask(self, method: str, path: str, **how: Any) -> httpx.Response:
        async def once() -> httpx.Response:
            async with httpx.AsyncClient(transport=self.transport, base_url="http://test") as client:
                return await client.request(method, path, **how)

        return asyncio.run(once())

    def get(self, path: str) -> httpx.Response:
        return self.ask("GET", path)

    def post(self, path: str, **how: Any) -> httpx.Response:
        return self.ask("POST", path, **how)


@pytest.fixture(scope="session")
def client_of() -> type[Client]:
    """An ASGI application → something to send requests to."""
    return Client


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


SMALL_EXPERIMENT = """
name = "small_churn"
allow_small = true
[events]
path = "events.parquet"
profile = ["country", "plan"]
[task]
kind = "churn"
activity = ["purchase"]
active_days = 60
horizon_days = 28
[task.cutoffs]
n_train = 6
[features]
windows_days = [30]
groups = ["volume", "recency", "rfm", "profile"]
[models.settings.gbdt]
members = 2
max_trees = 25
[search]
trials = 2
[report]
fairness = ["country"]
"""


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow store without runs: building one takes seconds, copying it nothing."""
    from training.tracking.tracking import connect

    path = tmp_path_factory.mktemp("store") / "mlflow.db"
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{path}")
        connect()
    return path


@pytest.fixture
def store(empty_store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty MLflow store of the test's own, where `connect` finds it."""
    shutil.copy(empty_store, tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return tmp_path / "mlflow.db"


@pytest.fixture(scope="session")
def small_training(empty_store: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, TrainResult]:
    """A small experiment on simulated journeys, trained: its folder, with store and files, and the result."""
    from training.config.experiment import load_experiment
    from training.fitting.train import train

    folder = tmp_path_factory.mktemp("training")
    simulate(n_customers=500, days=260, seed=3).save(folder)
    (folder / "experiment.toml").write_text(SMALL_EXPERIMENT)
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        return folder, train(load_experiment(folder / "experiment.toml"), runs=folder / "runs")


@pytest.fixture
def trained(
    small_training: tuple[Path, TrainResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Path, TrainResult]:
    """The small training with a store of the test's own, which it may change."""
    folder, result = small_training
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return folder, result


QUIET_CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
LAYOUT = """
() => {
  const root = document.documentElement;
  const text = (node) => node.outerHTML.slice(0, 160);
  const clipped = (node) => {
    for (let up = node.parentElement; up && up !== document.body; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== "visible") return true;
    return false;
  };
  const beyond = (node) => node.getBoundingClientRect().right > root.clientWidth + 1 && !clipped(node);
  const all = (wanted) => [...document.body.querySelectorAll(wanted)];
  return {
    overflow: root.scrollWidth > root.clientWidth ? all("*").filter(beyond).map(text).concat("the page") : [],
    missing: all("img").filter((image) => !image.complete || !image.naturalWidth).map(text),
    empty: all("[data-figure]").filter((box) => !box.querySelector("svg.main-svg")).map(text),
  };
}
"""
BY_AXE = """
async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.map((found) =>
  [found.impact, found.id, ...found.nodes.slice(0, 4).map((node) => `${node.target}: ${node.html.slice(0, 160)}`)])
"""


class Visit:
    """A page in a browser, and all that went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("requestfailed", lambda asked: self.faults.append(f"failed: {asked.url} {asked.failure}"))
        page.on("response", lambda got: self.faults.append(f"{got.status}: {got.url}") if got.status >= 400 else None)

    def _console(self, said: ConsoleMessage) -> None:
        if said.type == "error":
            self.faults.append(f"console: {said.text} {said.location['url']}")

    def layout(self) -> dict[str, list[str]]:
        """What reaches past the right edge of the page; pictures that are not there."""
        found: dict[str, list[str]] = self.page.evaluate(LAYOUT)
        return found

    def serious(self) -> list[list[str]]:
        """What axe-core calls serious or critical."""
        axe = files("axe_playwright_python") / "axe.min.js"
        self.page.evaluate(axe.read_text(encoding="utf-8"))
        return [found for found in self.page.evaluate(BY_AXE) if found[0] in ("serious", "critical")]

    def keep(self, name: str) -> None:
        """A picture of the page for people to look at, in the folder JOURNEYLAB_SCREENSHOTS, if there is one."""
        if folder := os.environ.get("JOURNEYLAB_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine, without a window and with a profile of its own.

    Of a module: while it is open an event loop runs in this thread, which `Client` of other tests would stumble on.
    """
    if (path := shutil.which("chromium")) is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=list(QUIET_CHROMIUM))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """A width and a colour scheme → a page that nobody has been on, open as long as the module."""
    opened = []

    def new(width: int = 1440, scheme: Literal["light", "dark"] = "light") -> Visit:
        size = {"width": width, "height": 900 if width > 700 else 844}
        opened.append(browser.new_context(viewport=size, color_scheme=scheme))
        return Visit(opened[-1].new_page())

    yield new
    for context in opened:
        context.close()


@pytest.fixture(scope="session")
def spark() -> Any:
    """A Spark session on two threads; tests skip where PySpark or Java is missing."""
    from features.errors import ConfigError
    from features.spark.session import session

    java = {"spark.driver.extraJavaOptions": "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"}  # short work: compiled once
    settings = {"spark.sql.shuffle.partitions": "2", "spark.driver.memory": "1g"} | java
    try:
        found = session("local[2]", settings)
    except ConfigError as error:
        pytest.skip(str(error))
    yield found
    found.stop()

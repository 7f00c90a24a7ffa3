"""Our own pages as a browser shows them, wide and narrow, light and dark: no error, nothing missing, nothing cut off.

`JOURNEYLAB_SCREENSHOTS=FOLDER` keeps a picture of every page, for people to look at.
"""

from __future__ import annotations

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.journey_map.comparison import compare as compare_maps
from features.journey_map.settings import MapSettings
from features.journey_map.tables import journey_map
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from features.simulation.simulator import simulate
from serving.api.application import application
from serving.champions.champions import Champions, Origin
from serving.monitor.files import RowFiles
from serving.monitor.monitoring import AnswerMonitor, MonitorSettings
from training.config.experiment import load_experiment
from training.fitting.train import TrainResult
from training.journey_map.page import MapText, write_map_page
from training.monitoring.monitor import monitor
from training.monitoring.page import write_monitor_page
from training.review.compare import compare
from training.segmentation.large_logs import segment_log
from training.tracking.comparison import write_comparison
from training.tracking.registry import resolve
from training.tracking.tracking import connect

pytestmark = pytest.mark.slow

DAY_US = 86_400_000_000
SEGMENTS = """
[segments]
which = ["found", "rfm", "engagement"]
[segments.found]
segments = 4
rounds = 2
restarts = 3
dimensions = [3]
methods = ["kmeans"]
groups = ["behaviour"]
representation = "tabular"
[[segments.rules]]
name = "Complained lately"
when = { events = ["support_contact"], within_days = 60 }
[[segments.goals]]
metric = "churn"
at_most = 0.3
"""
Trained = tuple[Path, TrainResult]


@pytest.fixture(scope="module")
def urls(small_training: Trained, tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Name → where the page is; each is made by what makes it for users."""
    training, result = small_training
    folder = tmp_path_factory.mktemp("pages")
    shutil.copy(training / "mlflow.db", folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.setenv("JOURNEYLAB_MONITOR_KEY", "a key of the service")
        scored = resolve(result.models["gbdt"]["uri"], connect()).folder
        paths = {
            "map": _map_page(folder),
            "segments": _segments_page(training, folder),
            "compare": write_comparison(
                compare(result.models["gbdt"]["uri"], result.models["rfm"]["uri"]), folder / "compare.html"
            ),
            "monitor": _monitor_page(scored, folder),
        }
    with _api_page(scored, folder) as url:
        yield {name: path.as_uri() for name, path in paths.items()} | {"api": url}


def _journeys() -> Journeys:
    return pack(simulate(n_customers=300, days=200, seed=11).events)


def _map_page(folder: Path) -> Path:
    journeys, settings = _journeys(), MapSettings(goals=("subscribe",))
    half = np.arange(journeys.n_customers) % 2 == 0
    compared = compare_maps(journeys, half, ~half, settings, names=("even", "odd"))
    return write_map_page(
        journey_map(journeys, settings), folder / "map.html", MapText("demo", goals=("subscribe",)), compared
    )


def _segments_page(training: Path, folder: Path) -> Path:
    file = training / "segments.toml"
    file.write_text((training / "experiment.toml").read_text() + SEGMENTS)
    return segment_log(load_experiment(file), runs=folder / "runs").page


def _monitor_page(scored: Path, folder: Path) -> Path:
    """Answers about a log that stopped a while ago, with outcomes: some checks alarm, others do not."""
    shutil.copytree(scored, folder / "watched" / "small_churn")
    Origin("small_churn", "3").write(folder / "watched" / "small_churn")
    champions = Champions(folder / "watched")
    journeys = _journeys()
    at = int(journeys.t.max()) - 40 * DAY_US
    snapshots = journeys.at(at)
    snapshots = snapshots.take(snapshots.stop > snapshots.start)
    rows: list[dict[str, Any]] = []
    watch = AnswerMonitor(MonitorSettings(None, 1e9), rows.extend)
    watch.start()
    scores = champions.scorers["small_churn"].answers(snapshots)["probability"]
    for place, customer in enumerate(snapshots.customer_ids):
        snapshot = snapshots.take(np.array([place]))
        watch.record(champions, "small_churn", snapshot, [float(scores[place])], [str(customer)])
    watch.close()
    for place, row in enumerate(rows):
        row["at"] = f"2024-06-{1 + place % 10:02d}T10:00:00Z"
    RowFiles(folder / "rows", 10**9).write(rows)
    came_true = np.random.default_rng(0).random(len(scores)) < scores
    labels = pd.DataFrame({"customer_id": snapshots.customer_ids, "label": came_true.astype(int)})
    labels.to_csv(folder / "labels.csv", index=False)
    (folder / "key").write_text(b"a key of the service".hex())
    report = monitor(
        folder / "rows", str(folder / "watched" / "small_churn"), labels=folder / "labels.csv", key_file=folder / "key"
    )
    return write_monitor_page(report, folder / "monitor.html")


@contextmanager
def _api_page(scored: Path, folder: Path) -> Iterator[str]:
    """The service's routes with the files that BentoML serves beside them, in a thread."""
    import uvicorn
    from starlette.applications import Starlette
    from starlette.routing import Mount
    from starlette.staticfiles import StaticFiles

    shutil.copytree(scored, folder / "champions" / "small_churn")
    Origin("small_churn", "3").write(folder / "champions" / "small_churn")
    ours = application(Champions(folder / "champions"))
    viewer = StaticFiles(packages=[("bentoml", "_internal/server/static_content")])
    app = Starlette(routes=[Mount("/static_content", viewer), Mount("/", ours)])
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    yield f"http://127.0.0.1:{port}/"
    server.should_exit = True
    thread.join(timeout=20)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1440, 390])
@pytest.mark.parametrize("name", ["map", "segments", "compare", "monitor", "api"])
def test_a_page_is_whole_and_for_everybody(
    urls: dict[str, str], visit: Callable[..., Any], name: str, width: int, scheme: str
) -> None:
    visited = visit(width, scheme)
    visited.page.goto(urls[name])
    ready = "#swagger-ui .opblock-summary" if name == "api" else "html[data-drawn=yes]"
    visited.page.wait_for_selector(ready, state="attached", timeout=30_000)
    visited.keep(f"{name}_{width}_{scheme}")
    assert visited.faults == []
    assert visited.layout() == {"overflow": [], "missing": [], "empty": []}
    assert visited.serious() == []


def test_a_slider_hides_and_a_header_sorts(urls: dict[str, str], visit: Callable[..., Any]) -> None:
    visited = visit()
    page = visited.page
    page.goto(urls["map"])
    page.wait_for_selector("html[data-drawn=yes]", state="attached", timeout=30_000)
    head = page.locator("thead button").nth(1)
    head.focus()
    page.keyboard.press("Enter")
    table = head.locator("xpath=ancestor::table")
    assert table.locator("th[aria-sort=descending]").count() == 1
    values = [float(snapshot or "nan") for snapshot in table.locator("tbody td:nth-child(2)").evaluate_all(
        "cells => cells.map((cell) => cell.dataset.value)")]  # fmt: skip
    assert values == sorted(values, reverse=True)
    slider = page.locator("input[data-filter]").first
    output = page.locator("output").first.text_content()
    slider.focus()
    page.keyboard.press("End")
    assert page.locator("output").first.text_content() != output
    assert visited.faults == []

"""`journeylab map`: from a log or an experiment file to a page; what it says about bad input; what MLflow holds."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from features.errors import ConfigError, DataError, JourneyLabError
from features.events.schema import EventSchema
from features.journey_map.settings import MapSettings
from features.journey_map.tables import journey_map
from features.journeys.event_log import MemoryLog
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from features.simulation.simulator import simulate
from training.config.experiment import load_experiment
from training.journey_map.groups import code_of, compared, latest_codes
from training.journey_map.mapping import MapChoice, date_range, make_map, map_plan, write_tables
from training.journey_map.page import MapText, map_page
from training.journey_map.pictures import draw_map
from training.reports.pages import render_page
from training.tracking.tracking import Tracker

pytestmark = pytest.mark.filterwarnings("ignore:.*inferred as AnyType:UserWarning")
DAY = pd.Timedelta(days=1)

EXPERIMENT = """
name = "small_conversion"
[events]
path = "log.csv"
profile = ["country"]
[task]
kind = "conversion"
goal = ["buy"]
ended = ["leave"]
horizon_days = 28
[map]
cohort = "week"
"""


@pytest.fixture
def log(tmp_path: Path) -> Path:
    """40 customers who look, half of them buy; their country is on every row."""
    rows = []
    for chosen in range(40):
        first = pd.Timestamp("2024-01-01") + chosen * DAY
        names = ["look", "look", "buy"] if chosen % 2 else ["look", "leave"]
        rows += [
            (f"customer-{chosen}", first + step * DAY, name, "UK" if chosen % 4 else "DE")
            for step, name in enumerate(names)
        ]
    frame = pd.DataFrame(rows, columns=["customer_id", "timestamp", "touchpoint", "country"])
    frame.to_csv(tmp_path / "log.csv", index=False)
    (tmp_path / "map.toml").write_text(EXPERIMENT)
    return tmp_path / "log.csv"


def run(*words: str) -> tuple[int, str]:
    """The command line's exit code, and what it printed or the sentence it ended with."""
    result = CliRunner().invoke(app, ["map", *words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        assert isinstance(result.exception, JourneyLabError), result.exception
        return 2, str(result.exception)
    return result.exit_code, result.stdout


def test_map_command(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "new" / "page.html"
    code, notes = run(str(log), "--out", str(out), "--goal", "buy", "--group", "country=DE", "--json")
    assert code == 0
    output = json.loads(notes.splitlines()[-1])
    assert (output["page"], output["run_id"]) == (str(out), "")
    text = out.read_text(encoding="utf-8")
    assert "Journey map: log" in text
    assert "20 customers (50%) reached the goal, which is buy." in text
    assert "Compared: DE and other than DE" in text
    assert "customer-" not in text, "no identifiers"
    assert str(tmp_path) not in text, "no paths of this machine"


def test_their_names_dates_and_tables(log: Path, tmp_path: Path) -> None:
    theirs = tmp_path / "theirs.csv"
    pd.read_csv(log).rename(columns={"customer_id": "client", "timestamp": "at"}).to_csv(theirs, index=False)
    words = ["--columns", "customer_id=client", "--columns", "timestamp=at", "--start", "2024-01-10"]
    out = tmp_path / "map.html"
    code, notes = run(str(theirs), *words, "--end", "2024-02-01", "--tables", str(tmp_path / "t"), "--out", str(out))
    assert (code, notes.splitlines()[-1]) == (0, str(out))
    assert "10 January 2024 to 31 January 2024" in out.read_text(encoding="utf-8")
    touchpoints = pd.read_csv(tmp_path / "t" / "touchpoints.csv")
    assert set(touchpoints["touchpoint"]) == {"look", "buy", "leave"}


def test_map_of_an_experiment(log: Path, tmp_path: Path, store: Path) -> None:
    plan = map_plan(tmp_path / "map.toml")
    assert (plan.map.goals, plan.map.ended, plan.map.cohort, plan.logged) == (("buy",), ("leave",), "week", True)
    drawn = make_map(plan, tmp_path / "map.html", MapChoice(group="converted"))
    tracker = Tracker("small_conversion")
    found = tracker.client.get_run(drawn.run_id)
    assert (found.data.tags["role"], found.info.status) == ("map", "FINISHED")
    assert found.data.metrics["converted_share"] == 0.5
    assert found.data.params["map.cohort"] == "week"
    files = {item.path for item in tracker.client.list_artifacts(drawn.run_id)}
    assert {"map.html", "tables", "pictures"} <= files
    tables = {item.path for item in tracker.client.list_artifacts(drawn.run_id, "tables")}
    assert {"tables/touchpoints.csv", "tables/transitions.csv", "tables/comparison_touchpoints.csv"} <= tables
    pictures = {item.path for item in tracker.client.list_artifacts(drawn.run_id, "pictures")}
    assert {"pictures/flows.png", "pictures/moves.png", "pictures/steps.png"} <= pictures


def test_log_option(log: Path, tmp_path: Path, store: Path) -> None:
    drawn = make_map(map_plan(log), tmp_path / "map.html", log=True)
    assert Tracker("log").client.get_run(drawn.run_id).data.tags["role"] == "map"


@pytest.mark.parametrize(
    ("words", "notes"),
    [
        (["nowhere.csv"], "There is no nowhere.csv"),
        (["nowhere.toml"], "No experiment file. There is no nowhere.toml"),
        (["LOG", "--out", "map.txt"], "name a file that ends in .html"),
        (["LOG", "--goal", "bui"], "Did you mean 'buy'?"),
        (["LOG", "--start", "soon"], "--start soon is no date"),
        (["LOG", "--start", "2024-03-01", "--end", "2024-02-01"], "is not before --end"),
        (["LOG", "--start", "2030-01-01"], "None of the customers has an event"),
        (["LOG", "--group", "converted"], "--group converted needs a goal"),
        (["LOG", "--goal", "look", "--group", "converted"], "Everybody reached look"),
        (["LOG", "--group", "country=FR"], "nobody has this country"),
        (["LOG", "--group", "touchpoints=look"], "touchpoints"),
        (["LOG", "--group", "whatever"], "--group whatever names no groups"),
        (["LOG", "--group", "2031-01-01"], "one side has no events"),
        (["LOG", "--columns", "customer_id=costumer_id"], "Did you mean 'customer_id'?"),
        (["LOG", "--columns", "customer=client"], "neither canonical nor declared"),
        (["LOG", "--set", "map.cohort=year"], "map.cohort"),
        (["LOG", "--set", "map.goal=buy"], "did you mean 'goals'?"),
    ],
)
def test_clear_errors(log: Path, tmp_path: Path, words: list[str], notes: str) -> None:
    out = [] if "--out" in words else ["--out", str(tmp_path / "map.html")]
    code, output = run(*[str(log) if word == "LOG" else word for word in words], *out)
    assert code == 2
    assert notes in output
    assert not (tmp_path / "map.html").exists()


def test_dates_may_carry_a_zone() -> None:
    assert date_range(MapChoice(start="2024-06-01T00:00+02:00"))[0] == pd.Timestamp("2024-05-31 22:00")
    with pytest.raises(ConfigError, match="no date"):
        date_range(MapChoice(end="NaT"))


def journeys(rows: dict[str, object], schema: EventSchema | None = None) -> Journeys:
    return pack(pd.DataFrame(rows), schema)


def test_groups_by_latest_value() -> None:
    when = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-01", "2024-01-01"])
    rows = {
        "customer_id": ["a", "a", "b", "c"],
        "timestamp": when,
        "touchpoint": "x",
        "plan": ["free", "paid", None, "free"],
    }
    found = journeys(rows, EventSchema(profile=("plan",)))
    plan = found.categories["plan"]
    latest = latest_codes(found, plan.codes)
    assert (latest == code_of({"plan": plan.names}, "plan", "paid")).tolist() == [True, False, False]
    assert (latest == code_of({"plan": plan.names}, "plan", "free")).tolist() == [False, False, True]
    with pytest.raises(ConfigError, match="Did you mean 'plan'"):
        code_of({"plan": plan.names}, "plans", "paid")


def test_periods_compare_before_and_after() -> None:
    log = pack(simulate(n_customers=60, days=120, seed=2).events)
    middle = pd.Timestamp(int(np.median(log.t)), unit="us").normalize()
    both = compared(MemoryLog.of(log), MemoryLog.of(log).facts, MapSettings(), f"{middle:%Y-%m-%d}")
    assert both.names == (f"before {middle:%Y-%m-%d}", f"from {middle:%Y-%m-%d} on")
    assert sum(item.summary["events"] for item in both.maps) == log.n_events


START = pd.Timestamp("2024-01-01")
HOURS = pd.date_range(START, periods=400, freq="h")
ODD = {
    "one event a customer": {"customer_id": [f"c{i}" for i in range(50)], "timestamp": START, "touchpoint": "only"},
    "one customer": {"customer_id": "c", "timestamp": HOURS[:3], "touchpoint": list("aba")},
    "a single event": {"customer_id": ["c"], "timestamp": [START], "touchpoint": ["a"]},
    "cycles only": {"customer_id": "c", "timestamp": HOURS, "touchpoint": ["a", "b"] * 200},
    "all in one second": {"customer_id": np.arange(300) % 7, "timestamp": START, "touchpoint": list("abc") * 100},
    "a name that is markup": {"customer_id": list("aabb"), "timestamp": START, "touchpoint": ["<script>", "$x$"] * 2},
    "ten thousand touchpoints": {
        "customer_id": np.arange(20_000) % 900,
        "timestamp": pd.date_range(START, periods=20_000, freq="min"),
        "touchpoint": [f"page {i % 10_000}" for i in range(20_000)],
    },
}  # fmt: skip


@pytest.mark.parametrize("name", list(ODD))
def test_odd_logs_get_a_page(name: str, tmp_path: Path) -> None:
    drawn = journey_map(journeys({**ODD[name]}), MapSettings(goals=("b",)))
    text = render_page(map_page(drawn, MapText(name, goals=("b",))))
    assert 1_000_000 < len(text) < 5_000_000
    assert "Main findings" in text
    assert "<script>&" not in text
    draw_map(drawn, tmp_path)
    write_tables(drawn, tmp_path / "tables")
    assert (tmp_path / "tables" / "touchpoints.csv").exists()


def test_empty_log_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.csv").write_text("customer_id,timestamp,touchpoint\n")
    with pytest.raises(DataError):
        make_map(map_plan(tmp_path / "empty.csv"), tmp_path / "map.html")


def test_map_settings_leave_training_alone(log: Path, tmp_path: Path) -> None:
    experiment = load_experiment(tmp_path / "map.toml", ["map.steps=4"])
    assert (experiment.map.steps, experiment.map.cohort) == (4, "week")
    with pytest.raises(ConfigError, match="did you mean 'steps'"):
        load_experiment(tmp_path / "map.toml", ["map.step=4"])

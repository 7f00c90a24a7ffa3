"""Segments of an experiment from the log to the registry: fitted, explained, matched, promoted, scored, served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest

from experiment_files import PROFILE, experiment_text
from features.errors import ConfigError
from features.events.schema import EventSchema
from features.journeys.packing import pack
from features.simulation.simulator import simulate
from http_client import Client
from models.scoring.golden_sample import largest_difference
from models.segments.collection import SegmentCollection
from serving.api.application import application
from serving.champions.champions import Champions
from training.config.experiment import Experiment, load_experiment
from training.scoring.scoring import load_scorer
from training.segmentation.large_logs import segment_log
from training.segmentation.quality import RFMCells, cell_rates
from training.segmentation.rows import population
from training.segmentation.segmenting import SegmentResult
from training.tracking.champions import promote
from training.tracking.promotion import decide_by_stability
from training.tracking.registry import resolve
from training.tracking.tracking import connect

FILE = experiment_text(
    "small",
    """
[task.cutoffs]
n_train = 4
[segments]
which = ["found", "rfm", "value"]
[segments.found]
segments = 4
rounds = 2
restarts = 3
dimensions = [3]
methods = ["kmeans"]
groups = ["behaviour"]
representation = "tabular"
encoder = { hidden = 8, pretraining_epochs = 1 }
[[segments.rules]]
name = "Complained lately"
when = { events = ["support_contact"], within_days = 30, at_least = 3 }
[[segments.rules]]
name = "Listed in spring"
when = { events = ["purchase"], at_least = 3 }
frozen_at = 2024-05-01
[[segments.goals]]
metric = "churn"
at_most = 0.01
[segments.lookalikes]
""",
    events=PROFILE,
)


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("segments")
    simulate(n_customers=300, days=240, seed=3).save(folder)
    (folder / "experiment.toml").write_text(FILE)
    return load_experiment(folder / "experiment.toml")


@pytest.fixture(scope="module")
def store_with_segments(
    experiment: Experiment, empty_store: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, SegmentResult]:
    folder = tmp_path_factory.mktemp("store_segments")
    shutil.copy(empty_store, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        return folder, segment_log(experiment, runs=folder / "runs")


@pytest.fixture
def made(
    store_with_segments: tuple[Path, SegmentResult], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> SegmentResult:
    folder, result = store_with_segments
    shutil.copy(folder / "mlflow.db", tmp_path / "mlflow.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'mlflow.db'}")
    return result


def test_every_partition_is_explained(made: SegmentResult) -> None:
    profiles = made.tables["found/profiles"]
    assert len(profiles) == 4
    assert profiles["share"].sum() == pytest.approx(1)
    assert {"churn_rate", "held_out_churn_rate", "growth", "value_mean"} <= set(profiles.columns)
    assert profiles["name"].is_unique
    for scheme in ("found", "rfm", "value", "rules"):
        for table in ("segments", "profiles", "effects", "targets", "journeys", "drift", "migration", "information"):
            assert f"{scheme}/{table}" in made.tables, (scheme, table)
    assert made.metrics["segments"] == 4
    assert 0 <= made.metrics["rule_fidelity"] <= 1
    assert any("churn" in note for note in made.notes), "a goal that nobody reaches is told"


def test_the_page_names_every_segment_and_no_customer(made: SegmentResult, experiment: Experiment) -> None:
    page = made.page.read_text()
    for name in made.tables["found/segments"]["name"]:
        assert str(name) in page
    events = pd.read_parquet(experiment.events.path)
    assert not any(str(customer) in page for customer in events["customer_id"].unique())
    assert "<script src" not in page
    assert "http://" not in page
    assert "https://" not in page


def test_promoted_scored_and_served_like_a_model(made: SegmentResult, experiment: Experiment, tmp_path: Path) -> None:
    promotion = promote(made.model_uri)
    assert promotion.name == "small_segments"
    if promotion.alias != "champion":
        assert "Its segments would change" in promotion.reason  # two rounds of few customers may not be stable
    events = pd.read_parquet(experiment.events.path)
    told = mlflow.pyfunc.load_model(f"models:/small_segments@{promotion.alias}").predict(events)
    assert list(told.columns)[:4] == ["customer_id", "cutoff", "segment", "segment_name"]
    assert {"rfm", "value", "rules"} <= set(told.columns)
    folder = resolve(made.model_uri).folder
    assert largest_difference(folder, mlflow.pyfunc.load_model(made.model_uri).predict) == 0
    shutil.copytree(folder, tmp_path / "champions" / "small_segments")
    client = Client(application(Champions(tmp_path / "champions")))
    one = told.dropna(subset=["segment"]).iloc[0]
    own = events[events["customer_id"] == one["customer_id"]].drop(columns="customer_id")
    rows = json.loads(own.to_json(orient="records", date_format="iso"))
    sent = [{k: v for k, v in row.items() if v is not None} for row in rows]
    body = {"events": sent, "as_of": pd.Timestamp(one["cutoff"]).isoformat()}
    for route in ("/segment", "/small_segments"):
        answer = client.post(route, json=body).json()
        assert (answer["segment"], answer["rfm"]) == (one["segment"], one["rfm"]), answer
    spec = client.get("/openapi.json").json()
    assert "segment_name" in spec["components"]["schemas"]["SegmentAnswer"]["properties"]


def test_a_refit_keeps_ids_and_names(made: SegmentResult, experiment: Experiment, tmp_path: Path) -> None:
    client = connect()
    client.set_registered_model_alias("small_segments", "champion", promote(made.model_uri).version)
    other = experiment.model_copy(update={"seed": 99})
    again = segment_log(other, runs=tmp_path)
    before, after = (one.tables["found/segments"].set_index("id")["name"] for one in (made, again))
    assert again.metrics["kept_share"] > 0.9
    assert after.loc[before.index].tolist() == before.tolist()


def test_lookalikes_lie_apart_and_without_identifiers(made: SegmentResult, experiment: Experiment) -> None:
    folder = made.page.parent
    assert (folder / "lookalikes" / "encoder").is_dir()
    assert (folder.parent / "lookalikes.key").is_file()
    assert not list(folder.rglob("*.key"))
    customer = str(pd.read_parquet(experiment.events.path)["customer_id"].iloc[0]).encode()
    assert not any(customer in path.read_bytes() for path in (folder / "lookalikes").rglob("*") if path.is_file())


def test_the_service_finds_lookalikes_of_customers_and_of_a_journey(
    made: SegmentResult, experiment: Experiment, tmp_path: Path
) -> None:
    champion = tmp_path / "small_segments"
    shutil.copytree(resolve(made.model_uri).folder, champion)
    shutil.copytree(made.page.parent / "lookalikes", champion / "lookalikes")
    client = Client(application(Champions(tmp_path)))
    events = [{"timestamp": f"2024-03-0{day}", "touchpoint": "purchase", "value": 20.0} for day in range(1, 6)]
    near = client.post("/lookalikes", json={"events": events, "as_of": "2024-04-01", "top": 7}).json()
    assert len(near["nearest"]) == 7
    similar = [one["similarity"] for one in near["nearest"]]
    assert similar == sorted(similar, reverse=True)
    seeds = [one["customer"] for one in near["nearest"][:2]]
    more = client.post("/lookalikes", json={"customers": seeds, "top": 5}).json()
    assert not {one["customer"] for one in more["nearest"]} & set(seeds)
    assert more["version"] == near["version"]
    for body, part in (
        ({"top": 3}, "either customers or events"),
        ({"customers": ["0" * 64]}, "1 of 1 customers have no vector"),
        ({"customers": ["x"]}, "customers[0]"),
        ({"customers": seeds, "top": 0}, "top"),
        ({"customers": seeds, "tpo": 3}, "tpo is no field"),
    ):
        answer = client.post("/lookalikes", json=body)
        assert (answer.status_code, part in answer.json()["error"]) == (422, True), answer.json()
    spec = client.get("/openapi.json").json()
    shown = spec["paths"]["/lookalikes"]["post"]["requestBody"]["content"]["application/json"]["example"]
    assert client.post("/lookalikes", json=shown).status_code == 200


def test_a_static_list_stays_as_it_was(made: SegmentResult) -> None:
    book = load_scorer(made.model_uri).model
    assert isinstance(book, SegmentCollection)
    rules = book.partitions["rules"]
    names = [one.name for one in rules.segments]
    assert names == ["Complained lately", "Listed in spring"]


def test_settings_that_do_not_exist_are_named(tmp_path: Path) -> None:
    (tmp_path / "e.toml").write_text(FILE.replace("restarts", "restart"))
    with pytest.raises(ConfigError, match="restarts"):
        load_experiment(tmp_path / "e.toml")
    (tmp_path / "e.toml").write_text(FILE.replace('"rfm"', '"rmf"'))
    with pytest.raises(ConfigError, match="rmf"):
        load_experiment(tmp_path / "e.toml")


@pytest.mark.parametrize(
    ("candidate", "champion", "alias"),
    [
        ({"stability": 0.9}, None, "champion"),
        ({"stability": 0.7}, None, "challenger"),
        ({}, None, "champion"),
        ({"stability": 0.9, "kept_share": 0.95}, {"stability": 0.92}, "champion"),
        ({"stability": 0.85, "kept_share": 0.95}, {"stability": 0.92}, "challenger"),
        ({"stability": 0.95, "kept_share": 0.5}, {"stability": 0.9}, "challenger"),
        ({"stability": 0.95}, {"stability": 0.9}, "challenger"),
    ],
)
def test_promotion_by_stability(candidate: dict[str, float], champion: dict[str, float] | None, alias: str) -> None:
    assert decide_by_stability(candidate, champion).alias == alias


def test_rates_of_cells_are_drawn_to_everybodys() -> None:
    rates = cell_rates([0] * 980 + [1] * 20, [0.0] * 980 + [1.0] * 20, [0, 1, -1, 7])
    base = 0.02
    expected = [20 * base / 1000, (20 + 20 * base) / 40, base, base]
    np.testing.assert_allclose(rates, expected)


def test_as_many_rfm_cells_as_segments(simulated_events: pd.DataFrame) -> None:
    journeys = pack(simulated_events, EventSchema())
    rows = journeys.at("2024-06-01")
    rows = rows.take(rows.stop > rows.start)
    for wanted in range(1, 13):
        cells = RFMCells(wanted).fit(rows)
        assert np.prod(cells.parts) <= wanted
        assert len(np.unique(cells.assign(rows))) > wanted / 2


def test_nothing_of_the_test_is_fitted_on(experiment: Experiment) -> None:
    from features.journeys.loading import load_log
    from training.data.task_data import task_data

    log = load_log(experiment.events)
    data = task_data(experiment, log.journeys, experiment.labels(log.journeys), log)
    for who in ("everyone", "candidates"):
        rows = population(data, 28, who)
        assert rows.described.cutoff.max() <= data.train.cutoff.max()
        assert rows.later.cutoff.min() >= data.test.cutoff.min()
        assert len(np.unique(rows.now.customer)) == len(rows.now)

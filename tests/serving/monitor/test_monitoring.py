"""Watching: rows without identifiers, pseudonyms, rates, files, BentoML's monitor, and the reference of a training."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from features.errors import ConfigError, DataError
from features.events.schema import EventSchema
from features.journeys.journeys import Snapshots
from features.journeys.packing import pack
from features.privacy.pseudonyms import KEY, KEY_FILE, Pseudonyms
from models.baselines import BaseRate
from models.scoring.scorer import Scorer
from models.scoring.training_reference import BINS, DIGITS, MOST_FEATURES, TrainingReference, absent
from serving.answers.answers import Answerer
from serving.answers.batches import BatchAnswerer
from serving.bento.package import request_bodies
from serving.champions.champions import Champions, Origin
from serving.monitor.files import RowFiles
from serving.monitor.monitoring import COLUMNS, MIN_ANSWERS_COUNTED, AnswerMonitor, MonitorSettings
from serving.requests.schemas import JSON

ROOT = Path(__file__).resolve().parents[3]
SCHEMA = EventSchema(profile=("country", "plan"))
SECRET = "sixteen characters and more"
Row = dict[str, Any]


@pytest.fixture(scope="module")
def snapshots(simulated_events: pd.DataFrame) -> Snapshots:
    journeys = pack(simulated_events, SCHEMA)
    return journeys.at(int(journeys.t.max()) + 1)


@pytest.fixture(scope="module")
def folder(scoring_folder: Path, snapshots: Snapshots, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of one champion with a reference."""
    place = tmp_path_factory.mktemp("champions") / "demo_churn"
    shutil.copytree(scoring_folder, place)
    Origin("demo_churn", "3", "champion", "run-1", "f00d").write(place)
    scorer = Scorer.load(place)
    TrainingReference.of(scorer, snapshots, scorer.answers(snapshots), snapshots, {"auroc": 0.7}).save(place)
    return place


@pytest.fixture(scope="module")
def champions(folder: Path) -> Champions:
    return Champions(folder.parent)


def _bodies(events: pd.DataFrame, n: int = 40) -> list[dict[str, Any]]:
    few = events[events["customer_id"].isin(events["customer_id"].unique()[:n])]
    return list(request_bodies(few.assign(cutoff=events["timestamp"].max())).values())


def _recorded(
    champions: Champions, bodies: list[dict[str, Any]], rate: float = 1e6, route: str = "churn"
) -> tuple[list[Row], list[Row]]:
    """Rows of answers and rows of touchpoints after these requests."""
    rows: list[Row] = []
    monitor = AnswerMonitor(MonitorSettings(None, rate), rows.extend)
    monitor.start()
    answerer = Answerer(champions, monitor)
    for body in bodies:
        answerer.answer(route, json.dumps(body).encode(), "r")
    monitor.close()
    assert monitor.lost == 0
    return [row for row in rows if row["touchpoints"] is None], [row for row in rows if row["touchpoints"] is not None]


def test_a_row_has_no_identifiers(
    champions: Champions, simulated_events: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, SECRET)
    bodies = _bodies(simulated_events)
    bodies[0]["events"].append(
        bodies[0]["events"][-1] | {"touchpoint": "jane@example.org", "channel": "secret-channel"}
    )
    bodies[0]["as_of"] = "2025-06-01T10:00:00.5Z"
    answers, touchpoints = _recorded(champions, bodies)
    assert len(answers) == len(bodies)
    assert all(set(row) == set(COLUMNS) for row in (*answers, *touchpoints))
    row = answers[0]
    reply = Answerer(champions).answer("churn", json.dumps(bodies[0]).encode(), "r")
    assert row["score"] == pytest.approx(reply["probability"], rel=1e-5)
    assert (row["champion"], row["version"], row["stands_for"]) == ("demo_churn", "3", 1.0)
    assert row["as_of"] == "2025-06-01T10:00:00Z"
    assert (row["events"], row["unknown"]) == (len(bodies[0]["events"]), 1)
    assert row["who"] == Pseudonyms(SECRET.encode()).of(bodies[0]["customer_id"])
    assert row["key"] == Pseudonyms(SECRET.encode()).key_id
    written = json.dumps([answers, touchpoints])
    names = {
        str(item) for column in ("channel", "item", "country", "plan") for item in simulated_events[column].dropna()
    }
    for word in (*(body["customer_id"] for body in bodies), *names, "jane@example.org", "secret-channel", SECRET):
        assert f'"{word}"' not in written, word
    (counted,) = touchpoints
    assert counted["answers"] == len(bodies) >= MIN_ANSWERS_COUNTED
    assert all(n <= len(bodies) for n in counted["touchpoints"].values())
    assert set(counted["touchpoints"]) <= champions.scorers["demo_churn"].touchpoint_set


def test_few_answers_leave_no_counts_of_touchpoints(champions: Champions, simulated_events: pd.DataFrame) -> None:
    answers, touchpoints = _recorded(champions, _bodies(simulated_events, MIN_ANSWERS_COUNTED - 1), route="score")
    assert (len(answers), touchpoints) == (MIN_ANSWERS_COUNTED - 1, [])


def test_a_request_without_a_customer_has_no_pseudonym(champions: Champions, simulated_events: pd.DataFrame) -> None:
    body = _bodies(simulated_events, 1)[0]
    nobody = {"as_of": body["as_of"], "events": [{**event} for event in body["events"]]}
    for event in nobody["events"]:
        event.pop("customer_id", None)
    (row,), _ = _recorded(champions, [nobody])
    assert (row["who"], row["key"]) == (None, None)


def test_pseudonyms_agree_within_a_process(
    champions: Champions, simulated_events: pd.DataFrame, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(KEY, raising=False)
    body = _bodies(simulated_events, 1)[0]
    (first, again), _ = _recorded(champions, [body, body])
    (other,), _ = _recorded(champions, [body])
    assert first["who"] == again["who"] != other["who"]
    assert first["key"] != other["key"]


def test_answers_beyond_the_rate_are_counted(champions: Champions, simulated_events: pd.DataFrame) -> None:
    bodies = _bodies(simulated_events, 30)
    answers, _ = _recorded(champions, bodies, rate=0.001)
    assert len(answers) == 1
    rows: list[Row] = []
    monitor = AnswerMonitor(MonitorSettings(None, 0.001), rows.extend)
    monitor.start()
    answerer = Answerer(champions, monitor)
    for body in bodies:
        answerer.answer("churn", json.dumps(body).encode(), "r")
    monitor._limiters[champions.origins["demo_churn"]].tokens = 1.0  # as time would have it
    answerer.answer("churn", json.dumps(bodies[0]).encode(), "r")
    monitor.close()
    assert [row["stands_for"] for row in rows if row["touchpoints"] is None] == [1.0, len(bodies)]


def test_a_call_with_many_customers_is_sampled(champions: Champions, simulated_events: pd.DataFrame) -> None:
    rows: list[Row] = []
    monitor = AnswerMonitor(MonitorSettings(None, 0.2), rows.extend)
    monitor.start()
    monitor._limiter(champions.origins["demo_churn"]).tokens = 12.0
    batches = BatchAnswerer(champions, monitor)
    bodies = _bodies(simulated_events)
    call = {"customers": [{**body, "as_of": body["as_of"]} for body in bodies]}
    call["customers"][3]["as_of"] = "1999-01-01"  # nothing to say about them
    reply = b"".join(batches.answer(batches.decode(json.dumps(call).encode(), JSON), JSON, "r"))
    monitor.close()
    scores = {
        item["customer_id"]: item["answers"]["demo_churn"].get("probability") for item in json.loads(reply)["customers"]
    }
    answers = [row for row in rows if row["touchpoints"] is None]
    assert 10 <= len(answers) <= 12
    assert sum(row["stands_for"] for row in answers) == pytest.approx(len(bodies) - 1, rel=1e-3)
    ordered = sorted(score for score in scores.values() if score is not None)
    assert all(min(abs(row["score"] - score) for score in ordered) < 1e-5 for row in answers)


def test_a_failed_record_costs_no_answer(
    champions: Champions, simulated_events: pd.DataFrame, caplog: pytest.LogCaptureFixture
) -> None:
    def full(rows: Any) -> None:
        raise OSError(f"no space left for {rows}")

    monitor = AnswerMonitor(MonitorSettings(None, 1e6), full)
    monitor.start()
    body = _bodies(simulated_events, 1)[0]
    with caplog.at_level(logging.DEBUG):
        assert "probability" in Answerer(champions, monitor).answer("churn", json.dumps(body).encode(), "r")
        monitor.record(champions, "no such champion", None, [], [])  # type: ignore[arg-type]
        monitor.close()
    assert monitor.lost == 2
    assert "OSError" in caplog.text
    assert body["customer_id"] not in caplog.text


def test_a_record_costs_little(champions: Champions, snapshots: Snapshots) -> None:
    monitor = AnswerMonitor(MonitorSettings(None, 1e6), lambda rows: None)
    monitor._thread = object()  # type: ignore[assignment]  # the queue alone
    item = snapshots.take(np.array([0]))
    best = min(_seconds(lambda: monitor.record(champions, "demo_churn", item, [0.5], ["c"])) for _ in range(5))
    assert best < 50e-6


def _seconds(call: Any, n: int = 1000) -> float:
    begun = time.perf_counter()
    for _ in range(n):
        call()
    return (time.perf_counter() - begun) / n


def test_nothing_is_watched_unless_somebody_says_so() -> None:
    assert AnswerMonitor.from_environment({}) is None
    assert MonitorSettings.from_environment({"JOURNEYLAB_MONITOR": "bentoml"}) == MonitorSettings(None)
    reply = {"JOURNEYLAB_MONITOR": "rows", "JOURNEYLAB_MONITOR_RATE": "0.5", "JOURNEYLAB_MONITOR_MB": "10"}
    assert MonitorSettings.from_environment(reply) == MonitorSettings(Path("rows"), 0.5, 10_000_000)
    with pytest.raises(ConfigError, match="JOURNEYLAB_MONITOR_RATE='many' is no positive number"):
        MonitorSettings.from_environment(reply | {"JOURNEYLAB_MONITOR_RATE": "many"})


def test_keys_come_from_a_file_or_the_environment(tmp_path: Path) -> None:
    from features.privacy.keyed_hashes import new_key, write_key

    assert Pseudonyms.from_environment({}) is None
    with pytest.raises(ConfigError, match="short"):
        Pseudonyms.from_environment({KEY: "abc"})
    write_key(key := new_key(), tmp_path / "key")
    assert Pseudonyms.from_environment({KEY_FILE: str(tmp_path / "key"), KEY: SECRET}) == Pseudonyms(key)
    assert Pseudonyms.from_environment({KEY: SECRET}, tmp_path / "key") == Pseudonyms(key)
    assert key.hex() not in repr(Pseudonyms(key))
    with pytest.raises(ConfigError, match="holds no key"):
        Pseudonyms.from_environment({}, tmp_path / "none")


def test_files_of_rows_are_the_owners_and_the_oldest_go_first(tmp_path: Path) -> None:
    files = RowFiles(tmp_path / "rows", 1)  # as little as there may be: a megabyte, in parts of 50 kB
    days = [datetime(2024, 6, day, tzinfo=UTC) for day in range(1, 31)]
    for day in days:
        files.write([{"text": "x" * 60_000, "day": day.day}], day)
    remaining = sorted((tmp_path / "rows").iterdir())
    assert sum(path.stat().st_size for path in remaining) <= 1_000_000
    assert json.loads(remaining[-1].read_text())["day"] == 30
    assert json.loads(remaining[0].read_text())["day"] > 10
    assert {path.stat().st_mode & 0o777 for path in remaining} == {0o600}
    assert (tmp_path / "rows").stat().st_mode & 0o777 == 0o700


def test_rows_go_through_bentoml_and_a_failure_does_not_stop_the_next(tmp_path: Path) -> None:
    """BentoML's own monitor is broken for good by an exception in its block."""
    code = """
import logging, sys
logging.basicConfig(stream=sys.stdout)
from pathlib import Path
from serving.monitor.bentoml_monitor import Recorder
record = Recorder({"a": ("feature", "numerical"), "b": ("prediction", "numerical")}, Path(sys.argv[1]), 10**9)
record([{"a": 1, "b": None}, {"a": 2, "b": [3]}])
class Wrong:
    pass
for broken in ([{"a": 1}], [{"a": Wrong(), "b": 2}]):
    try:
        record(broken)
    except (KeyError, TypeError) as error:
        print(type(error).__name__)
record([])
record([{"a": 4, "b": 5}])
"""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code, str(tmp_path)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == ["KeyError", "TypeError"], done.stderr[-2000:]
    rows = [json.loads(line) for path in tmp_path.iterdir() for line in path.read_text().splitlines()]
    assert rows == [{"a": 1, "b": None}, {"a": 2, "b": [3]}, {"a": 4, "b": 5}]


def test_a_reference_is_saved_and_loaded(folder: Path, snapshots: Snapshots, tmp_path: Path) -> None:
    reference = TrainingReference.load(folder)
    assert reference is not None
    assert 0 < len(reference.names) <= MOST_FEATURES
    assert list(reference.importance) == sorted(reference.importance, reverse=True)
    assert reference.metrics == {"auroc": 0.7}
    assert sum(reference.answer_counts.values()) == len(snapshots)
    assert (folder / "reference.json").stat().st_size < 100_000
    again = TrainingReference.from_dict(json.loads(json.dumps(reference.to_dict())))
    assert again.id == reference.id
    assert again.sketch(snapshots) == reference.sketch(snapshots)
    assert TrainingReference.load(tmp_path) is None
    (tmp_path / "reference.json").write_text('{"format": 1}')
    with pytest.raises(DataError, match="cannot be used"):
        TrainingReference.load(tmp_path)


def test_sketches_count_up_to_the_reference(folder: Path, snapshots: Snapshots) -> None:
    """Bins of the rows that a reference was taken from are its counts: the same code cuts both."""
    reference = TrainingReference.load(folder)
    assert reference is not None
    sketches = reference.sketch(snapshots)
    x = reference.features.transform(snapshots)
    for column, (edges, counts) in enumerate(zip(reference.edges, reference.counts, strict=True)):
        digits = [text[column] for text in sketches]
        cells = [*DIGITS[: len(edges) + 1], "-"]
        assert tuple(digits.count(cell) for cell in cells) == counts
        assert len(edges) <= BINS
        finite = x[:, column][np.isfinite(x[:, column])]
        assert [int((finite > edge).sum()) for edge in edges] == [
            sum(counts[place + 1 : -1]) for place in range(len(edges))
        ]


def test_a_model_without_features_has_a_reference(snapshots: Snapshots) -> None:
    labels = np.arange(len(snapshots)) % 2
    scorer = Scorer(BaseRate().fit(snapshots, labels), {"name": "x", "kind": "churn"}, SCHEMA)
    segments = np.array(["a", "b", None], dtype=object)[np.arange(len(snapshots)) % 3]
    reference = TrainingReference.of(scorer, snapshots, {"segment": segments}, snapshots)
    assert 5 < len(reference.names) <= MOST_FEATURES
    assert (reference.answer, reference.answer_edges) == ("segment", ())
    assert reference.answer_counts == {"a": int((segments == "a").sum()), "b": int((segments == "b").sum())}


def test_columns_without_a_value(simulated_events: pd.DataFrame) -> None:
    few = simulated_events[simulated_events["customer_id"].isin(simulated_events["customer_id"].unique()[:3])].copy()
    few.loc[few["customer_id"] == few["customer_id"].unique()[1], "value"] = np.nan
    journeys = pack(few, SCHEMA)
    every = journeys.at(int(journeys.t.max()) + 1)
    assert absent(every, "value").tolist() == [False, True, False]
    assert [bool(absent(every.take(np.array([row])), "value")[0]) for row in range(3)] == [False, True, False]
    assert absent(every, "no such column").all()


def test_the_service_records_answers(champions: Champions, simulated_events: pd.DataFrame, tmp_path: Path) -> None:
    """In a process of its own, as BentoML starts a worker; the invented requests of its warm-up leave no row."""
    body = _bodies(simulated_events, 1)[0]
    code = """
import sys
import serving.service as service
assert service.monitor is not None
service.JourneyLab()
sys.stdout.write(str(service.application.service.answerer.answer("score", sys.stdin.buffer.read(), "r")["answers"]))
"""
    places = {"JOURNEYLAB_CHAMPIONS": str(champions.folder), "JOURNEYLAB_MONITOR": str(tmp_path / "rows"), KEY: SECRET}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=ROOT,
        env={"PATH": "/usr/bin", "HOME": str(Path.home())} | places,
        input=json.dumps(body),
        capture_output=True,
        text=True,
        check=False,
    )
    assert "probability" in done.stdout, done.stderr[-2000:]
    assert body["customer_id"] not in done.stderr
    (row,) = [json.loads(line) for path in (tmp_path / "rows").iterdir() for line in path.read_text().splitlines()]
    assert row["who"] == Pseudonyms(SECRET.encode()).of(body["customer_id"])
    assert row["bins"] is not None

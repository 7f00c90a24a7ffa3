"""The service's routes, without a server: answers, refusals in one sentence, limits, and what it must not import."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from features.errors import DataError
from http_client import Client
from models.scoring.golden_sample import read_sample
from models.scoring.scorer import Scorer
from serving.answers.answers import Answerer
from serving.api.application import application
from serving.api.route import BODY_BYTES
from serving.api.routes import example, service_of
from serving.bento.package import request_bodies
from serving.champions.champions import Champions, Origin, route_name
from serving.requests.schemas import EVENTS, Columns, Decoder, RequestError

ROOT = Path(__file__).resolve().parents[3]
GOOD = {"timestamp": "2024-05-01T10:00:00Z", "touchpoint": "visit"}
AS_OF = "2024-06-01T00:00:00Z"


@pytest.fixture(scope="module")
def client(champions: Champions) -> Client:
    return Client(application(champions))


def test_answers_agree_with_the_scorer(client: Client, scoring_folder: Path) -> None:
    events, scores = read_sample(scoring_folder)
    bodies = request_bodies(events)
    for customer, probability in zip(scores["customer_id"], scores["probability"], strict=True):
        answer = client.post("/churn", json=bodies[customer]).json()
        assert answer["probability"] == probability
        assert answer["customer_id"] == customer
        assert pd.Timestamp(answer["as_of"]) == pd.Timestamp(bodies[customer]["as_of"])


def test_fields_of_an_answer(client: Client) -> None:
    request = {"events": [GOOD, GOOD | {"touchpoint": "teleport", "mood": "good"}], "as_of": AS_OF}
    response = client.post("/demo_churn", json=request, headers={"X-Request-ID": "abc-1"})
    answer = response.json()
    assert response.status_code == 200
    assert response.headers["X-Request-ID"] == answer["request_id"] == "abc-1"
    assert answer["model"] == {"name": "demo_churn", "version": "3"}
    assert answer["unknown"] == {"teleport": 1}
    assert answer["ignored_fields"] == ["mood"]
    assert answer["as_of"] == AS_OF
    assert 0 <= answer["probability"] <= 1


def test_as_of_defaults_to_now(client: Client) -> None:
    before = datetime.now(UTC)
    answer = client.post("/churn", json={"events": [GOOD]}).json()
    assert before <= datetime.fromisoformat(answer["as_of"]) <= datetime.now(UTC)
    assert len(answer["request_id"]) == 32


def test_reasons_on_request(client: Client, scoring_folder: Path) -> None:
    body = next(iter(request_bodies(read_sample(scoring_folder)[0]).values()))
    reasons = client.post("/churn", json=body | {"reasons": 2}).json()["reasons"]
    assert 1 <= len(reasons) <= 2
    assert set(reasons[0]) == {"subject", "text", "contribution", "value"}


def test_time_zones_are_converted(client: Client) -> None:
    utc = {"events": [GOOD | {"timestamp": "2024-05-01T10:00:00"}], "as_of": AS_OF}
    paris = {"events": [GOOD | {"timestamp": "2024-05-01T12:00:00+02:00"}], "as_of": "2024-06-01T02:00:00+02:00"}
    first, two = (client.post("/churn", json=request).json() for request in (utc, paris))
    assert (first["probability"], first["as_of"]) == (two["probability"], two["as_of"])


def _event(**fields: Any) -> bytes:
    return json.dumps({"events": [GOOD | fields], "as_of": AS_OF}).encode()


BAD = {
    "nothing": (b"", 400, "no JSON"),
    "broken": (b'{"events": [', 400, "no JSON"),
    "not UTF-8": (b'{"events": "\xff\xfe"}', 400, "no JSON"),
    "deep": (b"[" * 100_000, 400, "no JSON: recursion limit"),
    "deep inside": (b'{"events": [{"timestamp": "2024-05-01", "touchpoint": "a", "x": ' + b"[" * 9_999, 400, "no JSON"),
    "a lone surrogate": (_event(touchpoint="x").replace(b'"x"', b'"\\ud800"'), 400, "no JSON"),
    "a list": (b"[]", 422, "no JSON object"),
    "null": (b"null", 422, "no JSON object"),
    "no events": (b"{}", 422, "events is missing"),
    "events of the wrong type": (b'{"events": {}}', 422, "events must be a list (it is an object)"),
    "empty events": (b'{"events": []}', 422, "events is empty"),
    "an event of the wrong type": (b'{"events": [7]}', 422, "events[0] must be an object (it is 7)"),
    "no touchpoint": (b'{"events": [{"timestamp": "2024-05-01"}]}', 422, "events[0].touchpoint is missing"),
    "no timestamp": (b'{"events": [{"touchpoint": "a"}]}', 422, "events[0].timestamp is missing"),
    "a null touchpoint": (_event(touchpoint=None), 422, "events[0].touchpoint must be text in quotes (it is null)"),
    "a blank touchpoint": (_event(touchpoint="  "), 422, "events[0].touchpoint is blank"),
    "a number as touchpoint": (_event(touchpoint=3), 422, "events[0].touchpoint must be text in quotes (it is 3)"),
    "a long touchpoint": (_event(touchpoint="a" * 501), 422, "must have at most 500 characters"),
    "10 MB of touchpoint": (_event(touchpoint="a" * 10**7), 413, "larger than"),
    "a number as time": (_event(timestamp=1714557600), 422, "events[0].timestamp must be text in quotes"),
    "no time": (_event(timestamp="yesterday"), 422, "must be an ISO 8601 time"),
    "an impossible date": (_event(timestamp="2024-02-30T00:00:00Z"), 422, "which is no time"),
    "an impossible zone": (_event(timestamp="2024-02-01T00:00:00+99:00"), 422, "which is no time"),
    "a date long ago": (_event(timestamp="1816-06-14"), 422, "times from 1971 to 2099"),
    "a date far ahead": (_event(timestamp="2200-01-01"), 422, "times from 1971 to 2099"),
    "the end of time": (_event(timestamp="9999-12-31T23:59:59-12:00"), 422, "events[0].timestamp is"),
    "NaN": (_event(value=float("nan")), 422, "events[0].value must be a finite number"),
    "infinity": (_event(value=float("inf")), 422, "events[0].value must be a finite number"),
    "a number in quotes": (_event(value="3"), 422, 'events[0].value must be a number (it is "3")'),
    "a truth as number": (_event(value=True), 422, "events[0].value must be a number (it is true)"),
    "a negative duration": (_event(duration_s=-1), 422, "events[0].duration_s must be at least 0"),
    "a profile of the wrong type": (_event(country=["DE"]), 422, "events[0].country must be text in quotes"),
    "another field": (json.dumps({"asof": AS_OF, "events": [GOOD]}).encode(), 422, "asof is no field of a request"),
    "two customers": (
        json.dumps({"customer_id": "a", "events": [GOOD | {"customer_id": "b"}]}).encode(),
        422,
        "2 different customers",
    ),
    "a long identifier": (json.dumps({"customer_id": "a" * 201, "events": [GOOD]}).encode(), 422, "at most 200"),
    "a bad as_of": (json.dumps({"as_of": "noon", "events": [GOOD]}).encode(), 422, "as_of must be an ISO 8601 time"),
    "a future as_of": (json.dumps({"as_of": "2098-01-01", "events": [GOOD]}).encode(), 422, "lies in the future"),
    "as_of before all": (json.dumps({"as_of": "2001-01-01", "events": [GOOD]}).encode(), 422, "No event lies before"),
    "as_of of an event": (
        json.dumps({"as_of": GOOD["timestamp"], "events": [GOOD]}).encode(),
        422,
        "No event lies before as_of, 2024-05-01T10:00:00Z",
    ),
    "half a reason": (json.dumps({"reasons": 0.5, "events": [GOOD]}).encode(), 422, "reasons must be a whole number"),
    "many reasons": (json.dumps({"reasons": 10**9, "events": [GOOD]}).encode(), 422, "reasons must be at most 20"),
    "too many events": (
        json.dumps({"events": [{"timestamp": "2024-05-01", "touchpoint": "a"}] * (EVENTS + 1)}).encode(),
        413,
        "more than 10,000 events",
    ),
    "a huge body": (b" " * (BODY_BYTES + 1), 413, "larger than 8,388,608 bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_refused_with_a_sentence(client: Client, name: str) -> None:
    body, status, part = BAD[name]
    response = client.post("/churn", content=body)
    answer = response.json()
    assert (response.status_code, part in answer["error"]) == (status, True), answer
    assert set(answer) == {"error", "request_id"}
    assert answer["error"].endswith(".")
    assert len(answer["error"]) < 300
    assert not any(word in answer["error"] for word in ("Traceback", "pydantic", ".py", "Error"))


def test_wrong_length_and_compression_are_refused(client: Client) -> None:
    async def endless() -> Any:
        for _ in range(BODY_BYTES // 2**20 + 2):
            yield b" " * 2**20

    assert client.post("/churn", content=endless()).status_code == 413
    assert client.post("/churn", content=b"x", headers={"Content-Length": "9" * 30}).status_code == 413
    refused = client.post("/churn", content=b"\x1f\x8b", headers={"Content-Encoding": "gzip"})
    assert (refused.status_code, "compressed" in refused.json()["error"]) == (415, True)


def test_other_paths_and_methods(client: Client) -> None:
    no_task = client.post("/chrun", json={"events": [GOOD]})
    assert no_task.status_code == 404
    assert no_task.json()["error"] == "There is no task 'chrun' here: this service has churn, demo_churn."
    wrong = client.get("/churn")
    assert (wrong.status_code, wrong.headers["Allow"]) == (405, "POST")
    assert "does not take GET" in wrong.json()["error"]
    assert client.get("/nothing").status_code == 404
    assert client.request("PUT", "/model").status_code == 405


def test_an_invalid_request_id_is_replaced(client: Client) -> None:
    answer = client.post("/churn", json={"events": [GOOD]}, headers={"X-Request-ID": "a b\t<script>"}).json()
    assert len(answer["request_id"]) == 32


def test_failures_are_logged_without_content(
    client: Client, champions: Champions, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("customer jane@example.org broke it")

    monkeypatch.setattr(Scorer, "answer_rows", fail)
    with caplog.at_level(logging.DEBUG):
        response = client.post("/churn", json={"customer_id": "jane@example.org", "events": [GOOD]})
    assert response.status_code == 500
    assert "jane" not in response.text + caplog.text
    assert "RuntimeError" in caplog.text
    assert response.json()["request_id"] in caplog.text


def test_examples_of_the_document_work(client: Client, champions: Champions) -> None:
    spec = client.get("/openapi.json").json()
    assert client.get("/docs.json").json() == spec == service_of(champions).document
    for route in ("/churn", "/demo_churn"):
        example_body = spec["paths"][route]["post"]["requestBody"]["content"]["application/json"]["example"]
        answer = client.post(route, json=example_body)
        assert answer.status_code == 200
        assert answer.json()["unknown"] == {}
        declared = spec["components"]["schemas"]["ProbabilityAnswer"]["properties"]
        assert set(answer.json()) <= set(declared)
    fields = spec["components"]["schemas"]["Event"]["properties"]
    assert {"timestamp", "touchpoint", "value", "country", "plan"} <= set(fields)
    assert "googletagmanager" not in client.get("/").text


def test_model_route_lists_the_champions(client: Client) -> None:
    (model,) = client.get("/model").json()["models"]
    assert (model["name"], model["version"], model["alias"], model["run_id"]) == (
        "demo_churn",
        "3",
        "champion",
        "run-1",
    )
    assert model["routes"] == ["/churn", "/demo_churn"]


def test_two_champions_of_one_kind_answer_by_name(scoring_folder: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(scoring_folder, tmp_path / name)
        Origin(name).write(tmp_path / name)
    champions = Champions(tmp_path)
    assert sorted(champions.names) == ["first", "second"]
    with pytest.raises(RequestError, match=r"There is no task 'churn' here: this service has first, second\."):
        Answerer(champions).answer("churn", b"{}", "")


def test_incompatible_champions_are_refused(scoring_folder: Path, tmp_path: Path) -> None:
    for name in ("first", "second"):
        shutil.copytree(scoring_folder, tmp_path / name)
    with pytest.raises(DataError, match="Two champions are named 'demo_churn'"):
        Champions(tmp_path)
    Origin("other").write(tmp_path / "second")
    task = json.loads((tmp_path / "second" / "task.json").read_text())
    task["schema"] = {"properties": [], "profile": [], "profile_numeric": ["country"]}
    (tmp_path / "second" / "task.json").write_text(json.dumps(task))
    with pytest.raises(DataError, match="'country' is text for one champion and a number for another"):
        _ = Champions(tmp_path).columns


def test_a_name_becomes_a_part_of_a_url() -> None:
    assert route_name("a b/c") == "a_b_c"


def test_a_champion_named_as_a_route_is_refused(scoring_folder: Path, tmp_path: Path) -> None:
    shutil.copytree(scoring_folder, tmp_path / "metrics")
    Origin("metrics").write(tmp_path / "metrics")
    with pytest.raises(DataError, match=r"No model can be served as 'metrics'.*Register another name"):
        application(Champions(tmp_path))


def test_a_service_without_champions_starts(tmp_path: Path) -> None:
    client = Client(application(Champions(tmp_path)))
    assert client.get("/openapi.json").status_code == 200
    assert client.post("/churn", json={}).json()["error"].startswith("There is no task 'churn' here")


def test_as_of_may_be_a_day_ahead() -> None:
    decoder = Decoder(Columns(("touchpoint",), ()))
    now = datetime(2024, 6, 1, tzinfo=UTC)
    body = json.dumps({"events": [GOOD], "as_of": (now + timedelta(hours=23)).isoformat()}).encode()
    assert decoder.decode(body, now).as_of > decoder.decode(json.dumps({"events": [GOOD]}).encode(), now).as_of


def test_examples_use_touchpoints_of_training(champions: Champions) -> None:
    example_body = [event["touchpoint"] for event in example(champions, "churn")["events"]]
    assert set(example_body) <= set(champions.tasks["demo_churn"]["touchpoints"])


def test_scores_need_no_lightgbm_import(scoring_folder: Path, tmp_path: Path) -> None:
    """A worker is ready before the library is loaded, which with what it takes along is the longest of its imports."""
    shutil.copytree(scoring_folder, tmp_path / "demo_churn")
    code = """
import sys
from pathlib import Path
from serving.champions.champions import Champions
from serving.api.warm_up import warm_up_reasons, warm_up_scores
champions = Champions(Path(sys.argv[1]))
loaded = []
for warm_up in (warm_up_scores, warm_up_reasons):
    warm_up(champions)
    loaded.append([name for name in ("lightgbm", "sklearn", "scipy.optimize") if name in sys.modules])
print(loaded[0], "lightgbm" in loaded[1])
"""
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "[] True", done.stderr[-2000:]


def test_service_imports_stay_light(scoring_folder: Path, tmp_path: Path) -> None:
    """Nor the heavy modules, until a worker starts."""
    shutil.copytree(scoring_folder, tmp_path / "demo_churn")
    code = """
import sys
import serving.service as service
light = [name for name in ("lightgbm", "numba", "pandas", "pyarrow") if name in sys.modules]
service.JourneyLab()
heavy = [name for name in ("mlflow", "optuna", "lightning", "torch", "training", "experiments", "matplotlib")
         if name in sys.modules]
print(light, heavy, sorted(service.champions.names))
"""
    environment = {"PATH": "/usr/bin", "HOME": str(Path.home()), "JOURNEYLAB_CHAMPIONS": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True, check=False
    )
    assert done.stdout.strip() == "[] [] ['churn', 'demo_churn']", done.stderr[-2000:]

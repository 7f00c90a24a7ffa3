"""The dispatcher in front of BentoML, its limit of memory, and metrics that cannot be flooded."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import PlainTextResponse

from http_client import Client
from serving.api.application import (
    BUSY,
    PENDING_BYTES,
    READ_AHEAD_BYTES,
    Application,
    Dispatcher,
    application,
    declared_bytes,
)
from serving.api.metrics import RequestMetrics, exposition
from serving.api.routes import BATCH_BYTES
from serving.champions.champions import Champions

GOOD = {"as_of": "2024-06-01T00:00:00Z", "events": [{"timestamp": "2024-05-01T10:00:00Z", "touchpoint": "visit"}]}
BENTOML = PlainTextResponse("BentoML")


@pytest.fixture(scope="module")
def app(scoring_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Application:
    folder = tmp_path_factory.mktemp("champions")
    shutil.copytree(scoring_folder, folder / "demo_churn")
    return application(Champions(folder))


def test_the_dispatcher_answers_as_the_application(app: Application) -> None:
    dispatched, direct = Client(Dispatcher(BENTOML, app)), Client(app)
    for method, path in (
        ("POST", "/churn"), ("POST", "/demo_churn"), ("POST", "/score"), ("POST", "/nothing"), ("POST", "/a/b"),
        ("GET", "/churn"), ("GET", "/model"), ("GET", "/"), ("GET", "/openapi.json"), ("POST", "/score_batch"),
    ):  # fmt: skip
        request = {"content": json.dumps(GOOD), "headers": {"X-Request-ID": "same"}}
        first, second = dispatched.request(method, path, **request), direct.request(method, path, **request)
        assert (path, first.status_code, first.text, dict(first.headers)) == (
            path,
            second.status_code,
            second.text,
            dict(second.headers),
        )
    for path in ("/livez", "/readyz", "/healthz", "/schema.json", "/static_content/swagger-ui.css"):
        assert dispatched.get(path).text == "BentoML"


def test_nested_paths_are_refused_with_a_sentence(app: Application) -> None:
    answer = Client(app).post("/a/b")
    assert (answer.status_code, answer.json()["error"][:24]) == (404, "There is no /a/b here: s")


def test_get_routes_refuse_post(app: Application) -> None:
    client = Client(Dispatcher(BENTOML, app))
    for path in ("/metrics", "/livez", "/readyz", "/healthz", "/model", "/openapi.json", "/docs.json"):
        answer = client.post(path)
        assert (path, answer.status_code, answer.headers["allow"]) == (path, 405, "GET, HEAD")
        assert answer.json()["error"] == f"{path} does not take POST: see the documentation at /."


def test_bodies_beyond_the_memory_limit_are_refused(app: Application) -> None:
    dispatcher = Dispatcher(BENTOML, app)
    client, body = Client(dispatcher), json.dumps(GOOD) + " " * READ_AHEAD_BYTES
    assert client.post("/churn", content=body).status_code == 200
    assert dispatcher._pending_bytes == 0
    dispatcher._pending_bytes = PENDING_BYTES
    refused = client.post("/churn", content=body)
    assert (refused.status_code, refused.json(), refused.headers["retry-after"]) == (503, {"error": BUSY}, "1")
    assert client.post("/churn", json=GOOD).status_code == 200, "what is small is answered all the same"


@pytest.mark.parametrize(
    ("headers", "size"),
    [
        ([], 0),
        ([(b"content-length", b"12")], 12),
        ([(b"content-length", b"9" * 40)], BATCH_BYTES),
        ([(b"content-length", b"-1")], BATCH_BYTES),
        ([(b"transfer-encoding", b"chunked")], BATCH_BYTES),
    ],
)
def test_declared_size_of_a_body(headers: Any, size: int) -> None:
    assert declared_bytes({"headers": headers}) == size


def test_unknown_paths_share_a_label(app: Application) -> None:
    client = Client(RequestMetrics(Dispatcher(BENTOML, app), app.endpoint, lambda: ("journeylab", "bento", "v1")))
    before = _figures()
    for number in range(30):
        client.post(f"/jane-{number}@example.org")
    client.post("/churn", json=GOOD)
    client.post("/churn", content=b"{")
    client.get("/static_content/jane")
    after = _figures()
    assert not [line for line in after if "jane" in line or "example.org" in line]

    def counted(endpoint: str, status: int) -> float:
        label = f'endpoint="{endpoint}",http_response_code="{status}",runner_name="journeylab",service_name="bento"'
        key = f'bentoml_service_request_total{{{label},service_version="v1"}}'
        return after.get(key, 0.0) - before.get(key, 0.0)

    assert [counted("other", 404), counted("/churn", 200), counted("/churn", 400)] == [30, 1, 1]
    assert counted("/static_content/", 200) == 1


def test_failures_are_counted_and_raised(app: Application) -> None:
    async def failing(*_: Any) -> None:
        raise RuntimeError("no")

    before = _figures()
    client = Client(RequestMetrics(failing, app.endpoint, lambda: ("journeylab", "bento", "v1")))
    assert client.post("/churn", json=GOOD).status_code == 500
    new = [line for line, value in _figures().items() if value != before.get(line) and "request_total" in line]
    assert len(new) == 1
    assert 'http_response_code="500"' in new[0]


def _figures() -> dict[str, float]:
    text, media = exposition()
    assert media.startswith("text/plain")
    rows = [line.rpartition(" ") for line in text.decode().splitlines() if line.startswith("bentoml_service_request_")]
    return {name: float(value) for name, _, value in rows}

"""The routes of the service: to add one, add an entry to `ROUTES`.

From an entry follow the ASGI application (`serving.api.application`), the OpenAPI document, the limit of the body, the
access rule (`serving.api.access`), the label in Prometheus (`serving.api.middleware`) and the warm-up.
docs/architecture/route.md adds one step by step.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from starlette.responses import HTMLResponse, Response

from features.errors import DataError
from serving.answers.answers import Answer, AnswerObserver
from serving.api import schemas
from serving.api.metrics import exposition
from serving.api.route import Service, ServiceRoute
from serving.champions.champions import Champions
from serving.requests.schemas import ARROW, JSON, MEDIA_IN, MEDIA_OUT, NDJSON, PARQUET, RequestError

PAGE = (Path(__file__).parent / "page.html").read_text(encoding="utf-8")
BATCH_BYTES = 64 * 1024 * 1024
ANY_MEDIA = ("*/*", "application/*")


def _answer(route: str, service: Service, body: bytes, request_id: str) -> Answer:
    return service.answerer.answer(route, body, request_id)


def _reasons(service: Service, body: bytes, request_id: str) -> Answer:
    return service.answerer.explain(body, request_id)


def _embedding(service: Service, body: bytes, request_id: str) -> Answer:
    return service.answerer.embed(body, request_id)


def _lookalikes(service: Service, body: bytes, request_id: str) -> Answer:
    search = service.answerer.lookalikes
    assert search is not None  # the route is available only where vectors were packaged
    return search.answer(body, request_id)


def _batch(service: Service, body: bytes, call: Mapping[str, str], request_id: str) -> tuple[str, Iterator[bytes]]:
    media_in, media_out = negotiate(call)
    batch = service.batches.decode(body, media_in, call.get("as_of"))
    return media_out, service.batches.answer(batch, media_out, request_id)


def _model(service: Service, body: bytes, request_id: str) -> Answer:
    return service.champions.describe()


def _metrics(service: Service, body: bytes, request_id: str) -> Response:
    content, media = exposition()
    return Response(content, media_type=media)


def _page(service: Service, body: bytes, request_id: str) -> Response:
    return HTMLResponse(PAGE)


def _document(service: Service, body: bytes, request_id: str) -> Answer:
    return service.document


def negotiate(call: Mapping[str, str]) -> tuple[str, str]:
    """The media types of a batch's body and of its answer: the same, or Arrow, where `accept` leaves it open.

    Args:
        call: may have `content-type` and `accept`.

    Raises:
        RequestError: a type that is not supported.
    """
    media_in = call.get("content-type", JSON).partition(";")[0].strip().lower()
    if media_in not in MEDIA_IN:
        raise RequestError(415, f"The body is of type {media_in[:60]!r}: this route takes {', '.join(MEDIA_IN)}.")
    same = media_in if media_in in MEDIA_OUT else ARROW
    for entry in call.get("accept", "*/*").split(","):
        media_out = entry.partition(";")[0].strip().lower()
        if media_out in (*MEDIA_OUT, *ANY_MEDIA):
            return media_in, same if media_out in ANY_MEDIA else media_out
    raise RequestError(406, f"This route answers with {', '.join(MEDIA_OUT)}; Accept names none of them.")


def example(champions: Champions, route: str = "") -> dict[str, Any]:
    """A request about one customer, with touchpoints that the route's champion knows."""
    name = champions.names.get(route) or next(iter(champions.tasks), "")
    touchpoints = champions.tasks[name]["touchpoints"] if name else []
    names = [*touchpoints[:3], "page_view", "add_to_cart", "purchase"][:3]
    times = ("2024-05-02T09:30:00Z", "2024-05-20T18:05:00Z", "2024-05-31T13:00:00Z")
    events = [{"timestamp": time, "touchpoint": touchpoint} for time, touchpoint in zip(times, names, strict=True)]
    return {"customer_id": "customer-1", "as_of": "2024-06-01T00:00:00Z", "events": events}


def _lookalikes_example(champions: Champions) -> dict[str, Any]:
    request = example(champions)
    return {"events": request["events"], "as_of": request["as_of"], "top": 10}


def _batch_example(champions: Champions) -> dict[str, Any]:
    request = example(champions)
    return {"customers": [{name: request[name] for name in ("customer_id", "events")}], "as_of": request["as_of"]}


ROUTES = (
    ServiceRoute(
        "score", "What every champion says about one customer, events packed once", answer=partial(_answer, "score"),
        request="Request", response=schemas.all_answers, example=example, micro_batched=True, warm_up="start",
    ),
    ServiceRoute(
        "reasons", "What moved each champion's answer, in words", answer=_reasons,
        request="Request", response=schemas.all_answers, example=example,
        warm_up="background",  # reasons of trees need LightGBM, whose import takes longer than all the rest
    ),
    ServiceRoute(
        "embedding", "The journey as a vector, with its encoder's version", answer=_embedding,
        request="Request", response=schemas.embeddings, example=example, warm_up="start",
    ),
    ServiceRoute(
        "lookalikes", "The customers nearest to a list, or to a journey, under keyed hashes", answer=_lookalikes,
        request="LookalikesRequest", response=schemas.nearest_customers, example=_lookalikes_example,
        available=lambda champions: champions.with_lookalikes is not None,
    ),
    ServiceRoute(
        "score_batch", "What every champion says about many customers; answered as a stream", stream=_batch,
        request="BatchRequest", response=schemas.batch_answers, example=_batch_example, max_bytes=BATCH_BYTES,
        media_in=(ARROW, PARQUET), media_out=(NDJSON, ARROW), query={"as_of": "Of a table's customers."},
        description="JSON, or canonical event rows as an Arrow IPC stream or Parquet. Accept chooses between "
        f"{', '.join(MEDIA_OUT)}. Rows that cannot be used are rejected and counted under `set_aside`.",
    ),
    ServiceRoute(
        "model", "What is packaged: names, versions, aliases, columns, training window.", answer=_model,
        response=schemas.any_object,
    ),
    ServiceRoute("livez", "The process is up.", needs_token=False),
    ServiceRoute("readyz", "The models are loaded.", needs_token=False),
    ServiceRoute("metrics", "Counts and times of requests, for Prometheus.", answer=_metrics, needs_token=False),
    ServiceRoute("healthz", "The process is up.", needs_token=False, in_document=False),
    ServiceRoute("schema.json", "BentoML's description of the service.", in_document=False),
    ServiceRoute("", "The documentation.", answer=_page, needs_token=False, in_document=False),
    ServiceRoute("openapi.json", "The OpenAPI document.", answer=_document, needs_token=False, in_document=False),
    # In the place of BentoML's document, which does not know these routes.
    ServiceRoute("docs.json", "The OpenAPI document.", answer=_document, needs_token=False, in_document=False),
)  # fmt: skip
OPEN_FOLDER = "/static_content/"  # the documentation's viewer, which BentoML serves
OPEN_PATHS = frozenset(f"/{route.path}" for route in ROUTES if not route.needs_token)


def champion_route(champions: Champions, path: str) -> ServiceRoute:
    """The route of one champion, by its name or by its kind of task."""
    name = champions.names[path]
    origin, task, answers = champions.origins[name], champions.tasks[name]["task"], champions.tasks[name]["answers"]
    first, kind = next(iter(answers)), task.get("kind", "the event")
    horizon = f" within {task['horizon_days']:g} days of as_of" if task.get("horizon_days") else ""
    return ServiceRoute(
        path,
        f"{first.capitalize()}{'' if first == kind else f' of {kind}'}{horizon}",
        answer=partial(_answer, path),
        request="Request",
        response=lambda champions: schemas.reference(schemas.answer_name(champions.tasks[name])),
        example=partial(example, route=path),
        description=f"Model {origin.name}, version {origin.version}. as_of defaults to now and is echoed; "
        "events at or after it are not looked at. Times without a zone are UTC.",
        micro_batched=True,
    )


def service_of(
    champions: Champions, observer: AnswerObserver | None = None, routes: Sequence[ServiceRoute] = ROUTES
) -> Service:
    """Champions in service by their own routes and those of the service.

    Raises:
        DataError: a champion is named as a route of the service.
    """
    by_path = {path: champion_route(champions, path) for path in champions.names}
    if clash := next((route.path for route in routes if route.path in by_path), None):
        raise DataError(f"No model can be served as '{clash}': the service uses that path. Register another name.")
    return Service(champions, by_path | {route.path: route for route in routes if route.available(champions)}, observer)

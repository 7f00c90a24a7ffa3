"""The routes of the service as an ASGI application: reading requests, answering in JSON, refusing in one sentence."""

from __future__ import annotations

import json
import logging
import re
import traceback
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from serving.answers.micro_batches import Together
from serving.api.openapi import PAGE
from serving.champions.champions import Champions
from serving.live.live import Live, Serving
from serving.requests.schemas import ARROW, BATCH_BYTES, BODY_BYTES, JSON, MEDIA_IN, MEDIA_OUT, Refused

if TYPE_CHECKING:
    from serving.answers.batches import Batches

INLINE_BYTES = 64 * 1024  # a body up to this is answered sooner than a thread wakes; reasons take longer
BATCHES_AT_ONCE = 2
ANYTHING = ("*/*", "application/*")
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
logger = logging.getLogger("journeylab.serving")


def application(champions: Champions | Live) -> Starlette:
    """The routes of the champions that are in service; `serving.api.access` keeps the gate."""
    live = champions if isinstance(champions, Live) else Live(champions)
    few, together = anyio.CapacityLimiter(BATCHES_AT_ONCE), Together()

    async def one(request: Request, request_id: str) -> Response:
        body = await _body(request, BODY_BYTES)
        route, answerer = request.path_params["route"], live.now.answerer
        if len(body) <= INLINE_BYTES and b'"reasons"' not in body and answerer.is_quick(route):
            answer = await together.answer(answerer, answerer.read(route, body, request_id))
        else:
            answer = await anyio.to_thread.run_sync(answerer.answer, route, body, request_id)
        return _json(200, answer, request_id)

    async def many(request: Request, request_id: str) -> Response:
        given, wanted = _media(request)
        body = await _body(request, BATCH_BYTES)
        as_of = request.query_params.get("as_of")
        batches = await anyio.to_thread.run_sync(_batches, live.now, limiter=few)
        batch = await anyio.to_thread.run_sync(batches.decode, body, given, as_of, limiter=few)
        parts = batches.answer(batch, wanted, request_id)
        first = await anyio.to_thread.run_sync(next, parts, b"", limiter=few)  # what can fail, fails before the status
        return StreamingResponse(_streamed(first, parts, few), 200, {"X-Request-ID": request_id}, wanted)

    async def model(request: Request, request_id: str) -> Response:
        return _json(200, live.now.champions.describe(), request_id)

    async def openapi(request: Request, request_id: str) -> Response:
        return _json(200, live.now.document, request_id)

    async def page(request: Request) -> Response:
        return Response(PAGE, media_type="text/html")

    async def not_that_way(request: Request, error: Exception) -> Response:
        route = request.path_params.get("route", request.url.path.strip("/"))
        known = route in (*live.now.answerer.routes, "score_batch", "model", "docs.json", "openapi.json")
        status = 405 if known else 404
        said = f"/{route[:60]} does not take {request.method}" if known else f"There is no /{route[:60]} here"
        headers = dict(getattr(error, "headers", None) or {}) if known else {}
        return _sentence(status, f"{said}: see the service's own documentation at /.", _request_id(request), headers)

    routes = [
        Route("/", page, methods=["GET"]),
        Route("/model", _safely(model), methods=["GET"]),
        Route("/docs.json", _safely(openapi), methods=["GET"]),  # in the place of BentoML's, which knows no such routes
        Route("/openapi.json", _safely(openapi), methods=["GET"]),
        Route("/score_batch", _safely(many), methods=["POST"]),
        Route("/{route}", _safely(one), methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={404: not_that_way, 405: not_that_way})


def _safely(work: Callable[[Request, str], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    """A route whose refusals are sentences and whose failures say nothing but where to look."""

    async def route(request: Request) -> Response:
        request_id = _request_id(request)
        try:
            return await work(request, request_id)
        except Refused as refused:
            return _sentence(refused.status, refused.sentence, request_id)
        except ClientDisconnect:
            return Response(status_code=499)
        except Exception as error:
            _log(error, request_id)
            return _sentence(500, "The service failed on this request; its log names the request id.", request_id)

    return route


def _batches(serving: Serving) -> Batches:
    return serving.batches


async def _streamed(first: bytes, parts: Iterator[bytes], few: anyio.CapacityLimiter) -> AsyncIterator[bytes]:
    yield first
    while part := await anyio.to_thread.run_sync(next, parts, b"", limiter=few):
        yield part


def _media(request: Request) -> tuple[str, str]:
    """What a call to /score_batch sends and what it wants back; the same, or JSON, where it does not say."""
    given = request.headers.get("content-type", JSON).partition(";")[0].strip().lower()
    if given not in MEDIA_IN:
        raise Refused(415, f"The body is of type {given[:60]!r}: this route takes {', '.join(MEDIA_IN)}.")
    asked = [one.partition(";")[0].strip().lower() for one in request.headers.get("accept", "*/*").split(",")]
    same = given if given in MEDIA_OUT else ARROW
    for one in asked:
        if one in (*MEDIA_OUT, *ANYTHING):
            return given, same if one in ANYTHING else one
    raise Refused(406, f"This route answers with {', '.join(MEDIA_OUT)}; Accept names none of them.")


async def _body(request: Request, most: int) -> bytes:
    """The whole body, unless it is too large or compressed."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "The body is compressed: send it as it is, without Content-Encoding.")
    too_large = Refused(413, f"The body is larger than {most:,} bytes: send fewer events.")
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said[:20]) > most:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def _request_id(request: Request) -> str:
    """The caller's X-Request-ID where it is a sane one, else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def _json(status: int, data: dict[str, Any], request_id: str, headers: dict[str, str] | None = None) -> Response:
    body = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, {"X-Request-ID": request_id} | (headers or {}), "application/json")


def _sentence(status: int, sentence: str, request_id: str, headers: dict[str, str] | None = None) -> Response:
    return _json(status, {"error": sentence, "request_id": request_id}, request_id, headers)


def _log(error: Exception, request_id: str) -> None:
    """Where it failed and on which request; never the message, which may quote the request."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    logger.error("request %s failed: %s at %s", request_id, type(error).__name__, places)

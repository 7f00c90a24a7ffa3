"""The routes of the service as an ASGI application: reading requests, answering in JSON, refusing in one sentence."""

from __future__ import annotations

import json
import logging
import re
import traceback
import uuid
from pathlib import Path
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from serving.champions import Champions
from serving.openapi import PAGE, document
from serving.schemas import BODY_BYTES, Refused

INLINE_BYTES = 64 * 1024  # a body up to this is answered sooner than a thread wakes; reasons take longer
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
logger = logging.getLogger("journeylab.serving")


def application(champions: Champions) -> Starlette:
    """The routes of these champions."""

    async def task(request: Request) -> Response:
        request_id = _request_id(request)
        try:
            body = await _body(request)
            route = request.path_params["route"]
            if len(body) <= INLINE_BYTES and b'"reasons"' not in body:
                answer = champions.answer(route, body, request_id)
            else:
                answer = await anyio.to_thread.run_sync(champions.answer, route, body, request_id)
        except Refused as refused:
            return _sentence(refused.status, refused.sentence, request_id)
        except Exception as error:
            _log(error, request_id)
            return _sentence(500, "The service failed on this request; its log names the request id.", request_id)
        return _json(200, answer, request_id)

    async def model(request: Request) -> Response:
        return _json(200, champions.describe(), _request_id(request))

    async def openapi(request: Request) -> Response:
        return _json(200, document(champions), _request_id(request))

    async def page(request: Request) -> Response:
        return Response(PAGE, media_type="text/html")

    async def not_that_way(request: Request, error: Exception) -> Response:
        route = request.path_params.get("route", request.url.path.strip("/"))
        known = route in champions.names or route in ("model", "docs.json", "openapi.json")
        status = 405 if known else 404
        said = f"/{route[:60]} does not take {request.method}" if known else f"There is no /{route[:60]} here"
        headers = dict(getattr(error, "headers", None) or {}) if known else {}
        return _sentence(status, f"{said}: see the service's own documentation at /.", _request_id(request), headers)

    routes = [
        Route("/", page, methods=["GET"]),
        Route("/model", model, methods=["GET"]),
        Route("/docs.json", openapi, methods=["GET"]),  # in the place of BentoML's, which knows nothing of these routes
        Route("/openapi.json", openapi, methods=["GET"]),
        Route("/{route}", task, methods=["POST"]),
    ]
    return Starlette(routes=routes, exception_handlers={405: not_that_way})


async def _body(request: Request) -> bytes:
    """The whole body, unless it is too large or compressed."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise Refused(415, "The body is compressed: send it as it is, without Content-Encoding.")
    too_large = Refused(413, f"The body is larger than {BODY_BYTES:,} bytes: send fewer events.")
    said = request.headers.get("content-length", "0")
    if said.isdecimal() and int(said[:20]) > BODY_BYTES:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > BODY_BYTES:
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

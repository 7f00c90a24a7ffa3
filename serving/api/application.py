"""The ASGI application of the routes, and the middleware that hands it the requests which BentoML does not answer."""

from __future__ import annotations

import json
import logging
import re
import traceback
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response, StreamingResponse

from serving.answers.answers import AnswerObserver
from serving.answers.micro_batches import MicroBatcher
from serving.api.asgi import App, Receive, Scope, Send, send_error
from serving.api.route import Service, ServiceRoute
from serving.api.routes import BATCH_BYTES, OPEN_FOLDER, ROUTES, service_of
from serving.champions.champions import Champions
from serving.live.live import LiveChampions
from serving.requests.schemas import RequestError

INLINE_BYTES = 64 * 1024  # a body up to this is answered sooner than a thread wakes; reasons take longer
READ_AHEAD_BYTES = 64 * 1024  # what the server reads in any case
PENDING_BYTES = 8 * BATCH_BYTES
STREAMS_AT_ONCE = 2
OTHER = "other"  # the label in Prometheus of every path that is no route
BUSY = "The service has as much in hand as it can hold: try again in a second."
REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
logger = logging.getLogger("journeylab.serving")


class Application:
    """Answers requests by the routes of the champions that are in service.

    Args:
        live: the champions in service, which may change.
        observer: receives every answer.
        routes: beside those of the champions.

    Raises:
        DataError: a champion is named as a route of the service.
    """

    def __init__(
        self, live: LiveChampions, observer: AnswerObserver | None = None, routes: Sequence[ServiceRoute] = ROUTES
    ) -> None:
        self.live, self.observer, self.routes = live, observer, routes
        self._service = service_of(live.champions, observer, routes)
        self._streams, self._micro_batcher = anyio.CapacityLimiter(STREAMS_AT_ONCE), MicroBatcher()

    @property
    def service(self) -> Service:
        """All that answers for the champions in service now."""
        if self._service.champions is not self.live.champions:
            self._service = service_of(self.live.champions, self.observer, self.routes)
        return self._service

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request; refusals are sentences, and failures say nothing but where to look."""
        request = Request(scope, receive)
        request_id = request.headers.get("x-request-id", "")
        if not REQUEST_ID.fullmatch(request_id):
            request_id = uuid.uuid4().hex
        try:
            response = await self._respond(request, request_id)
        except RequestError as error:
            response = _json(error.status, {"error": error.sentence, "request_id": request_id}, request_id)
            if error.status == 405:
                response.headers["Allow"] = ", ".join(self.service.routes[scope["path"][1:]].methods)
        except ClientDisconnect:
            response = Response(status_code=499)
        except Exception as error:
            _log(error, request_id)
            sentence = "The service failed on this request; its log names the request id."
            response = _json(500, {"error": sentence, "request_id": request_id}, request_id)
        await response(scope, receive, send)

    def endpoint(self, path: str) -> str:
        """The label of a path in Prometheus: that of a route, or one for all others."""
        return path if path[1:] in self.service.routes else OPEN_FOLDER if path.startswith(OPEN_FOLDER) else OTHER

    async def _respond(self, request: Request, request_id: str) -> Response:
        service, path = self.service, request.scope["path"][1:]
        route = service.routes.get(path)
        if route is None and request.method == "POST" and "/" not in path:
            service.answerer.parse(path, b"", request_id)  # raises: there is no such task
        if route is None or (route.by_bentoml and request.method in route.methods):
            raise RequestError(404, f"There is no /{path[:60]} here: see the documentation at /.")
        if request.method not in route.methods:
            raise RequestError(405, f"/{path} does not take {request.method}: see the documentation at /.")
        body = await _body(request, route.max_bytes) if route.request else b""
        if route.stream is not None:
            return await self._stream(service, route, request, body, request_id)
        assert route.answer is not None
        if route.micro_batched and len(body) <= INLINE_BYTES and b'"reasons"' not in body:
            answerer = service.answerer
            answer: Any = await self._micro_batcher.answer(answerer, answerer.parse(path, body, request_id))
        else:
            answer = await anyio.to_thread.run_sync(route.answer, service, body, request_id)
        return answer if isinstance(answer, Response) else _json(200, answer, request_id)

    async def _stream(
        self, service: Service, route: ServiceRoute, request: Request, body: bytes, request_id: str
    ) -> Response:
        assert route.stream is not None
        call = dict(request.query_params) | dict(request.headers)
        media, parts = await anyio.to_thread.run_sync(
            route.stream, service, body, call, request_id, limiter=self._streams
        )
        # What can fail fails before the status is sent.
        first = await anyio.to_thread.run_sync(next, parts, b"", limiter=self._streams)
        return StreamingResponse(self._parts(first, parts), 200, {"X-Request-ID": request_id}, media)

    async def _parts(self, first: bytes, parts: Iterator[bytes]) -> AsyncIterator[bytes]:
        yield first
        while part := await anyio.to_thread.run_sync(next, parts, b"", limiter=self._streams):
            yield part


class Dispatcher:
    """ASGI middleware in BentoML: answers by the application, and leaves health and the viewer to BentoML.

    BentoML's router would try each of its routes and mounts before ours. It also refuses bodies that do not fit in
    memory beside those that are being read.

    Args:
        app: BentoML's.
        application: the routes.
    """

    def __init__(self, app: App, application: Application) -> None:
        self.app, self.application = app, application
        self._pending_bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, or say that there is too much to do."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size = declared_bytes(scope)
        if size <= READ_AHEAD_BYTES:
            await self._app(scope)(scope, receive, send)
        elif self._pending_bytes + size > PENDING_BYTES:
            await send_error(send, 503, BUSY, (b"retry-after", b"1"))
        else:
            self._pending_bytes += size
            try:
                await self._app(scope)(scope, receive, send)
            finally:
                self._pending_bytes -= size

    def _app(self, scope: Scope) -> App:
        path = scope["path"]
        route = self.application.service.routes.get(path[1:])
        by_bentoml = path.startswith(OPEN_FOLDER) or (
            route is not None and route.by_bentoml and scope["method"] in route.methods
        )
        return self.app if by_bentoml else self.application


def declared_bytes(scope: Scope) -> int:
    """How large a body declares itself to be; without a declaration it counts as the largest."""
    size = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            size = int(value) if value.isdigit() and len(value) < 16 else BATCH_BYTES
        elif name == b"transfer-encoding":
            size = BATCH_BYTES
    return min(size, BATCH_BYTES)


def application(champions: Champions, observer: AnswerObserver | None = None) -> Application:
    """The application of champions that are never swapped."""
    return Application(LiveChampions(champions), observer)


async def _body(request: Request, max_bytes: int) -> bytes:
    """The whole body, unless it is too large or compressed."""
    if request.headers.get("content-encoding", "identity") != "identity":
        raise RequestError(415, "The body is compressed: send it as it is, without Content-Encoding.")
    too_large = RequestError(413, f"The body is larger than {max_bytes:,} bytes: send fewer events.")
    declared = request.headers.get("content-length", "0")
    if declared.isdecimal() and int(declared[:20]) > max_bytes:
        raise too_large
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > max_bytes:
            raise too_large
        parts.append(part)
    return b"".join(parts)


def _json(status: int, data: dict[str, Any], request_id: str) -> Response:
    body = json.dumps(data, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
    return Response(body, status, {"X-Request-ID": request_id}, "application/json")


def _log(error: Exception, request_id: str) -> None:
    """Log where it failed and on which request; never the message, which may quote the request."""
    frames = reversed(traceback.extract_tb(error.__traceback__))
    places = " < ".join(f"{Path(frame.filename).name}:{frame.lineno} {frame.name}" for frame in frames)
    logger.error("request %s failed: %s at %s", request_id, type(error).__name__, places)

"""What a request meets in BentoML before the routes: figures for Prometheus, the gate, a limit, and the short way.

BentoML's own metrics take the path as a label, before anybody is asked for a token: whoever can reach the port fills
memory with paths, and `/metrics` shows what was in them. `Measured` keeps BentoML's names and labels and knows our
routes alone. `Direct` hands a request to our routes without BentoML's router, which tries each of its routes, mounts
ours, and tries each of those; it also refuses what there is no memory for.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import cache
from time import perf_counter, time
from typing import Any

import anyio.to_thread
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from serving.api.access import EXEMPT_FOLDER, App, Receive, Scope, Send
from serving.champions.champions import BENTOML_PATHS, OWN_PATHS
from serving.live.live import Live
from serving.requests.schemas import BATCH_BYTES

METRICS = "/metrics"
QUIET_PATHS = frozenset(("/livez", "/readyz", "/healthz", METRICS))
BENTOMLS = frozenset(f"/{name}" for name in BENTOML_PATHS) - {METRICS, "/docs.json"}
OTHER = "other"  # the label of every path that is none of ours
FIRST_BYTES = 64 * 1024  # what the server reads ahead anyway
BYTES_AT_ONCE = 8 * BATCH_BYTES
BUSY = "The service has as much in hand as it can hold: try again in a second."
READ_ONLY = QUIET_PATHS | {"/model", "/openapi.json", "/docs.json", "/schema.json"}
NAMESPACE = "bentoml_service"  # BentoML's, so that its dashboards go on working
LABELS = ("endpoint", "service_name", "service_version", "runner_name")


class Measured:
    """ASGI middleware that counts requests and their seconds.

    Args:
        app: the rest.
        live: knows the routes.
        about: service, bento and version, as labels.
    """

    def __init__(self, app: App, live: Live, about: Callable[[], tuple[str, str, str]]) -> None:
        self.app, self.live = app, live
        self._about = about
        self._kept: dict[tuple[str, int], Any] = {}  # no more than routes times statuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and note what came of it."""
        if scope["type"] != "http" or scope["path"] in QUIET_PATHS:
            await self.app(scope, receive, send)
            return
        endpoint, status, begun = self._endpoint(scope["path"]), 500, perf_counter()

        async def noted(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        _, _, in_progress, last = self._figures(endpoint, 0)
        last.set(time())
        in_progress.inc()
        try:
            await self.app(scope, receive, noted)
        finally:
            in_progress.dec()
            total, seconds, _, _ = self._figures(endpoint, status)
            total.inc()
            seconds.observe(perf_counter() - begun)

    def _endpoint(self, path: str) -> str:
        name = path[1:]
        known = name in OWN_PATHS or name in self.live.now.answerer.routes or path == "/" or path in BENTOMLS
        return path if known else EXEMPT_FOLDER if path.startswith(EXEMPT_FOLDER) else OTHER

    def _figures(self, endpoint: str, status: int) -> Any:
        """Total, seconds, in progress and last of an endpoint; looked up once, which is dear."""
        kept = self._kept.get((endpoint, status))
        if kept is None:
            service, bento, version = self._about()
            total, seconds, in_progress, last = _kinds()
            where = dict(zip(LABELS, (endpoint, bento, version, service), strict=True))
            kept = (
                total.labels(**where, http_response_code=status) if status else None,
                seconds.labels(**where, http_response_code=status) if status else None,
                in_progress.labels(**where),
                last.labels(**{name: where[name] for name in LABELS[1:]}),
            )
            self._kept[endpoint, status] = kept
        return kept


@cache
def _kinds() -> tuple[Any, Any, Any, Any]:
    """Made when a worker has its environment: Prometheus' client asks at its import whether there are several."""
    from prometheus_client import Counter, Gauge, Histogram

    coded = (*LABELS, "http_response_code")
    return (
        Counter(f"{NAMESPACE}_request_total", "Requests.", coded),
        Histogram(f"{NAMESPACE}_request_duration_seconds", "From the first byte to the last.", coded),
        Gauge(f"{NAMESPACE}_request_in_progress", "Requests under way.", LABELS, multiprocess_mode="livesum"),
        Gauge(f"{NAMESPACE}_last_request_timestamp_seconds", "When.", LABELS[1:], multiprocess_mode="max"),
    )


def exposition() -> tuple[bytes, str]:
    """The figures of all workers as Prometheus reads them, and of which media type that is."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


class Direct:
    """ASGI middleware that answers by our routes where they are asked, and leaves the rest to BentoML.

    Args:
        app: BentoML's: health, the documentation's viewer.
        own: `serving.api.routes.application`.
        live: knows the routes.
    """

    def __init__(self, app: App, own: Starlette, live: Live) -> None:
        self.app, self.own, self.live = app, own, live
        self._one = next(route.endpoint for route in own.routes if isinstance(route, Route) and "{" in route.path)
        self._bytes = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer, if only by saying that there is too much to do."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        size = declared(scope)
        if size <= FIRST_BYTES:
            await self._answer(scope, receive, send)
        elif self._bytes + size > BYTES_AT_ONCE:
            await _told(send, 503, *_sentence(BUSY), (b"retry-after", b"1"))
        else:
            self._bytes += size
            try:
                await self._answer(scope, receive, send)
            finally:
                self._bytes -= size

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path in READ_ONLY and scope["method"] not in ("GET", "HEAD"):
            await _told(send, 405, *_sentence(f"{path} is there to be read: ask with GET."), (b"allow", b"GET, HEAD"))
        elif path in BENTOMLS or path.startswith(EXEMPT_FOLDER):
            await self.app(scope, receive, send)
        elif scope["method"] == "POST" and path[1:] in self.live.now.answerer.routes:
            scope["path_params"] = {"route": path[1:]}
            response = await self._one(Request(scope, receive))
            await response(scope, receive, send)
        elif path == METRICS:
            await _told(send, 200, *await anyio.to_thread.run_sync(exposition))
        else:
            await self.own(scope, receive, send)


def declared(scope: Scope) -> int:
    """How large a body says that it is; one that does not say may be as large as any."""
    size = 0
    for name, value in scope["headers"]:
        if name == b"content-length":
            size = int(value) if value.isdigit() and len(value) < 16 else BATCH_BYTES
        elif name == b"transfer-encoding":
            size = BATCH_BYTES
    return min(size, BATCH_BYTES)


def _sentence(text: str) -> tuple[bytes, str]:
    return json.dumps({"error": text}).encode(), "application/json"


async def _told(send: Send, status: int, body: bytes, media: str, *more: tuple[bytes, bytes]) -> None:
    headers = [(b"content-type", media.encode()), (b"content-length", str(len(body)).encode()), *more]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})

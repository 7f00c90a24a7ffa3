"""Counts and times of requests for Prometheus, under BentoML's names.

BentoML's own metrics take the path as a label before a token is asked for: whoever can reach the port fills the memory
with paths, and `/metrics` shows them. Here the service's routes are labels, and one label stands for the rest.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from time import perf_counter, time
from typing import Any

from serving.api.asgi import App, Receive, Scope, Send

UNCOUNTED = frozenset(("/livez", "/readyz", "/healthz", "/metrics"))
NAMESPACE = "bentoml_service"  # BentoML's, so that its dashboards go on working
LABELS = ("endpoint", "service_name", "service_version", "runner_name")


class RequestMetrics:
    """ASGI middleware that counts requests and their seconds.

    Args:
        app: the rest.
        endpoint: path → label.
        identity: service, bento and version, as labels.
    """

    def __init__(self, app: App, endpoint: Callable[[str], str], identity: Callable[[], tuple[str, str, str]]) -> None:
        self.app, self.endpoint, self.identity = app, endpoint, identity
        self._by_label: dict[tuple[str, int], Any] = {}  # no more than routes times statuses

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on and count it."""
        if scope["type"] != "http" or scope["path"] in UNCOUNTED:
            await self.app(scope, receive, send)
            return
        endpoint, status, started = self.endpoint(scope["path"]), 500, perf_counter()

        async def send_and_note(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        _, _, in_progress, last = self._collectors(endpoint, 0)
        last.set(time())
        in_progress.inc()
        try:
            await self.app(scope, receive, send_and_note)
        finally:
            in_progress.dec()
            total, seconds, _, _ = self._collectors(endpoint, status)
            total.inc()
            seconds.observe(perf_counter() - started)

    def _collectors(self, endpoint: str, status: int) -> Any:
        """Total, seconds, in progress and last of an endpoint; cached, as the client's look-up is slow."""
        cached = self._by_label.get((endpoint, status))
        if cached is None:
            service, bento, version = self.identity()
            total, seconds, in_progress, last = _metrics()
            labels = dict(zip(LABELS, (endpoint, bento, version, service), strict=True))
            cached = (
                total.labels(**labels, http_response_code=status) if status else None,
                seconds.labels(**labels, http_response_code=status) if status else None,
                in_progress.labels(**labels),
                last.labels(**{name: labels[name] for name in LABELS[1:]}),
            )
            self._by_label[endpoint, status] = cached
        return cached


@cache
def _metrics() -> tuple[Any, Any, Any, Any]:
    # Not at the top: Prometheus' client looks at its import whether the environment names several processes, and a
    # worker gets its environment later.
    from prometheus_client import Counter, Gauge, Histogram

    with_status = (*LABELS, "http_response_code")
    return (
        Counter(f"{NAMESPACE}_request_total", "Requests.", with_status),
        Histogram(f"{NAMESPACE}_request_duration_seconds", "From the first byte to the last.", with_status),
        Gauge(f"{NAMESPACE}_request_in_progress", "Requests under way.", LABELS, multiprocess_mode="livesum"),
        Gauge(f"{NAMESPACE}_last_request_timestamp_seconds", "When.", LABELS[1:], multiprocess_mode="max"),
    )


def exposition() -> tuple[bytes, str]:
    """The metrics of all workers as Prometheus reads them, and their media type."""
    from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
    from prometheus_client.multiprocess import MultiProcessCollector

    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST

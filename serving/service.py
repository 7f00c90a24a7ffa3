"""The BentoML service: the routes of `serving.api.routes` in front of BentoML's own.

The routes are an ASGI application, not `@bentoml.api` methods: there are as many as champions, a wrong request is
answered with one sentence, and a call costs half as much. They are middleware and not mounted: BentoML gives a mounted
application that is not Starlette's every path, also those that it answers itself. BentoML keeps health, readiness, the
limit of time and the workers; `serving.api.metrics` counts for Prometheus. BentoML's access log and traces are off:
they name every path, and cost more than a score. `BENTOML_CONFIG_OPTIONS` turns them on, as for any bento:
`services.journeylab.logging.access.enabled=true`, `services.journeylab.tracing.excluded_urls=[]`.

    BENTOML_DO_NOT_TRACK=True bentoml serve journeylab:latest --host 127.0.0.1      # or: journeylab serve

Imports `features` and `models` only; the heavy ones when a worker starts, so that BentoML's parent process stays light.
"""

from __future__ import annotations

import gc
import os
import threading
from pathlib import Path
from typing import Any

import bentoml

from serving.api.access import TokenGate, Tokens
from serving.api.application import Application, Dispatcher
from serving.api.metrics import RequestMetrics
from serving.champions.champions import Champions
from serving.live.live import LiveChampions, pointer_from_environment
from serving.monitor.monitoring import AnswerMonitor

FOLDER = Path(os.environ.get("JOURNEYLAB_CHAMPIONS") or Path(__file__).resolve().parents[1] / "champions")
TIMEOUT_S = 30

champions = Champions(FOLDER)
live = LiveChampions(champions, pointer_from_environment())
monitor = AnswerMonitor.from_environment()
application = Application(live, monitor)


@bentoml.service(
    name="journeylab",
    http={"host": "127.0.0.1"},  # BentoML's default is every address
    traffic={"timeout": TIMEOUT_S},
    workers=1,  # two on two cores take turns with the clients, and hold every model twice
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
    metrics={"enabled": False},  # BentoML's own: see `serving.api.metrics`
    envs=[
        {"name": "BENTOML_DO_NOT_TRACK", "value": "True"},
        {"name": "OMP_NUM_THREADS", "value": "1"},  # one journey gains nothing from threads and loses by waking them
        {"name": "NUMBA_NUM_THREADS", "value": "1"},
    ],
)
class JourneyLab:
    """Calibrated probabilities from a customer's raw events."""

    def __init__(self) -> None:
        if not live.update(prepare):  # a restarted worker begins with the champions that are in service
            prepare_scores(champions)
        live.watch(prepare)
        if monitor is not None:
            monitor.start()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Write the monitor's last rows; a worker ends without leaving through `atexit`."""
        if monitor is not None:
            monitor.close()


def prepare(chosen: Champions) -> None:
    """Warm champions up."""
    from serving.api.warm_up import warm_up  # not before a worker starts: it imports the heavy modules

    warm_up(chosen)
    _freeze()


def prepare_scores(chosen: Champions) -> None:
    """Warm champions up; their reasons follow on a thread of their own, while scores are answered."""
    from serving.api.warm_up import warm_up_reasons, warm_up_scores  # as above

    def reasons() -> None:
        warm_up_reasons(chosen)
        _freeze()

    warm_up_scores(chosen)
    _freeze()
    threading.Thread(target=reasons, name="reasons", daemon=True).start()


def _freeze() -> None:
    """Exempt all objects that live as long as the champions from garbage collection.

    A full collection walks through some hundred thousand objects of the models' libraries while requests wait: that was
    most of the 99th percentile. What an earlier set of champions left behind is collected first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _identity() -> tuple[str, str, str]:
    """Names of service and bento, and its version, as BentoML's own metrics have them."""
    bento = gated.bento
    return gated.name, bento.tag.name if bento else gated.name, bento.tag.version if bento else "not available"


gated: Any = JourneyLab
gated.add_asgi_middleware(RequestMetrics, endpoint=application.endpoint, identity=_identity)  # the outermost
gated.add_asgi_middleware(TokenGate, tokens=Tokens())
gated.add_asgi_middleware(Dispatcher, application=application)  # the innermost; BentoML's application is behind it

"""The BentoML service: `serving.api.routes` in BentoML's hands.

The routes are an ASGI application mounted in the service, not `@bentoml.api` methods: they are as many as there are
champions, answer in one sentence when a request is wrong, and cost half as much a call. BentoML keeps health,
readiness, the limit of time and the workers; `serving.api.front` counts for Prometheus. BentoML's access log and traces
are
off: they name every path, and cost more than a score; `BENTOML_CONFIG_OPTIONS` turns them on, as for any bento:
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
from serving.api.front import Direct, Measured
from serving.api.routes import application
from serving.champions.champions import Champions
from serving.live.live import Live, pointer_from_environment
from serving.monitor.monitoring import Watch

HERE = Path(os.environ.get("JOURNEYLAB_CHAMPIONS") or Path(__file__).resolve().parents[1] / "champions")
SECONDS_A_REQUEST = 30

champions = Champions(HERE)
live = Live(champions, pointer_from_environment(), Watch.given())
own = application(live)


@bentoml.service(
    name="journeylab",
    http={"host": "127.0.0.1"},  # loopback unless told otherwise
    traffic={"timeout": SECONDS_A_REQUEST},
    workers=1,  # two of them on two cores take turns with who asks, and hold every model twice
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": [".*"]},
    metrics={"enabled": False},  # BentoML's own: see `serving.api.front`
    envs=[
        {"name": "BENTOML_DO_NOT_TRACK", "value": "True"},
        {"name": "OMP_NUM_THREADS", "value": "1"},  # one journey gains nothing from threads and loses by waking them
        {"name": "NUMBA_NUM_THREADS", "value": "1"},
    ],
)
@bentoml.asgi_app(own, path="/")
class JourneyLab:
    """Calibrated probabilities from a customer's raw events."""

    def __init__(self) -> None:
        if not live.look(ready):  # a worker that begins anew begins with what is in service
            ready_for_scores(champions)
        live.watch(ready)
        if live.monitor is not None:
            live.monitor.start()

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        """Write the monitor's last rows; a worker ends without leaving through `atexit`."""
        if live.monitor is not None:
            live.monitor.close()


def ready(chosen: Champions) -> None:
    """Warm champions up."""
    from serving.bento.warm_up import warm_up  # not before a worker starts: it takes the heavy modules along

    warm_up(chosen)
    _settle()


def ready_for_scores(chosen: Champions) -> None:
    """Warm champions up; their reasons follow on a thread of their own, while scores are answered."""
    from serving.bento.warm_up import warm_up_reasons, warm_up_scores

    def reasons() -> None:
        warm_up_reasons(chosen)
        _settle()

    warm_up_scores(chosen)
    _settle()
    threading.Thread(target=reasons, name="reasons", daemon=True).start()


def _settle() -> None:
    """Take what lives as long as the champions out of the garbage collector's sight.

    It walks through every object there is, some hundred thousand with the models' libraries, while requests wait: that
    was most of the 99th percentile. What an earlier set of champions left behind is collected first.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()


def _about() -> tuple[str, str, str]:
    """Names of service and bento, and its version, as BentoML's own metrics have them."""
    bento = gated.bento
    return gated.name, bento.tag.name if bento else gated.name, bento.tag.version if bento else "not available"


gated: Any = JourneyLab
gated.add_asgi_middleware(Measured, live=live, about=_about)  # the first is the outermost
gated.add_asgi_middleware(TokenGate, tokens=Tokens())
gated.add_asgi_middleware(Direct, own=own, live=live)

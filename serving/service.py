"""The BentoML service: `serving.routes` in BentoML's hands.

The routes are an ASGI application mounted in the service, not `@bentoml.api` methods: they are as many as there are
champions, answer in one sentence when a request is wrong, and cost half as much a call. BentoML keeps health,
readiness, metrics, traces, limits and workers.

    BENTOML_DO_NOT_TRACK=True bentoml serve journeylab:latest --host 127.0.0.1      # or: journeylab serve

Imports `features` and `models` only; the heavy ones when a worker starts, so that BentoML's parent process stays light.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import bentoml

from serving.access import TokenGate, Tokens
from serving.champions import Champions
from serving.live import Live, pointer_from_environment
from serving.routes import application

HERE = Path(os.environ.get("JOURNEYLAB_CHAMPIONS") or Path(__file__).resolve().parents[1] / "champions")
SECONDS_A_REQUEST = 30

champions = Champions(HERE)
live = Live(champions, pointer_from_environment())


@bentoml.service(
    name="journeylab",
    http={"host": "127.0.0.1"},  # loopback unless told otherwise
    traffic={"timeout": SECONDS_A_REQUEST},
    workers=1,
    envs=[
        {"name": "BENTOML_DO_NOT_TRACK", "value": "True"},
        {"name": "OMP_NUM_THREADS", "value": "1"},  # one journey gains nothing from threads and loses by waking them
        {"name": "NUMBA_NUM_THREADS", "value": "1"},
    ],
)
@bentoml.asgi_app(application(live), path="/")
class JourneyLab:
    """Calibrated probabilities from a customer's raw events."""

    def __init__(self) -> None:
        from serving.warm_up import warm_up  # not before a worker starts: it takes the heavy modules along

        if not live.look(warm_up):  # a worker that begins anew begins with what is in service
            warm_up(champions)
        live.watch(warm_up)


gated: Any = JourneyLab
gated.add_asgi_middleware(TokenGate, tokens=Tokens())

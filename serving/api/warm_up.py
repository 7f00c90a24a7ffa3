"""Load every model and send a request by every way, so that the first caller does not wait.

Reasons come last: those of trees need LightGBM and what it imports, which takes longer than all the rest and which
scores do without. A worker is ready before them.
"""

from __future__ import annotations

import json

import pyarrow as pa

from serving.api.route import Service
from serving.api.routes import service_of
from serving.champions.champions import Champions
from serving.requests.schemas import ARROW, RequestError


def warm_up(champions: Champions) -> None:
    """Send everything that champions can answer.

    Raises:
        DataError: a champion is named as a route of the service.
    """
    warm_up_scores(champions)
    warm_up_reasons(champions)


def warm_up_reasons(champions: Champions) -> None:
    """Ask each champion for its reasons, and send the routes that warm up in the background."""
    service = service_of(champions)
    for name in champions.scorers:
        service.answerer.answer(name, json.dumps(champions.sample_request(name)).encode(), "warm-up")
    _send_examples(service, "background")


def warm_up_scores(champions: Champions) -> None:
    """Ask each champion alone and in a batch, and send the routes that warm up at the start."""
    service = service_of(champions)
    for name in champions.scorers:
        request = champions.sample_request(name) | {"reasons": 0}
        service.answerer.answer(name, json.dumps(request).encode(), "warm-up")
        table = pa.Table.from_pylist([event | {"customer_id": "x"} for event in request["events"]])
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        batch = service.batches.decode(sink.getvalue().to_pybytes(), ARROW)
        for _ in service.batches.answer(batch, ARROW, "warm-up"):
            pass
    _send_examples(service, "start")


def _send_examples(service: Service, moment: str) -> None:
    for route in service.routes.values():
        if route.warm_up == moment and route.answer is not None and route.example is not None:
            try:
                route.answer(service, json.dumps(route.example(service.champions)).encode(), "warm-up")
            except RequestError:  # such as an embedding, where no champion has an encoder
                continue

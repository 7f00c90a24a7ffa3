"""Load every model and answer invented requests by every way, so that the first caller waits for nothing.

Reasons come last: those of trees need LightGBM and what it takes along, which costs more than all the rest and which
scores do without. A worker that starts is ready before them.
"""

from __future__ import annotations

import json

import pyarrow as pa

from serving.answers.answers import Answerer
from serving.answers.batches import Batches
from serving.champions.champions import Champions
from serving.requests.schemas import ARROW, Refused


def warm_up(champions: Champions) -> None:
    """Ask each champion for all that it can answer."""
    warm_up_scores(champions)
    warm_up_reasons(champions)


def warm_up_reasons(champions: Champions) -> None:
    """Ask each champion for its reasons, where it has them."""
    answerer = Answerer(champions)
    for name in champions.scorers:
        answerer.answer(name, json.dumps(champions.invented(name)).encode(), "warm-up")


def warm_up_scores(champions: Champions) -> None:
    """Ask each champion alone and in a batch."""
    answerer, batches = Answerer(champions), Batches(champions)
    for name in champions.scorers:
        request = champions.invented(name) | {"reasons": 0}
        for route in (name, "embedding"):
            try:
                answerer.answer(route, json.dumps(request).encode(), "warm-up")
            except Refused:  # a champion without an encoder
                continue
        events = [event | {"customer_id": "x"} for event in request["events"]]
        sink = pa.BufferOutputStream()
        table = pa.Table.from_pylist(events)
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table)
        for _ in batches.answer(batches.decode(sink.getvalue().to_pybytes(), ARROW), ARROW, "warm-up"):
            pass

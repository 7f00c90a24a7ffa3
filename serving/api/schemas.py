"""JSON schemas of requests and answers, for the OpenAPI document."""

from __future__ import annotations

from typing import Any

from serving.champions.champions import Champions
from serving.champions.lookalike_search import LookalikeSearch
from serving.requests.schemas import EVENTS, ID_LENGTH, JSON, NDJSON

Schema = dict[str, Any]


def reference(name: str) -> Schema:
    """A reference to a schema under `components`."""
    return {"$ref": f"#/components/schemas/{name}"}


MOMENT: Schema = {"type": "string", "format": "date-time"}
PROBABILITY: Schema = {"type": "number", "minimum": 0, "maximum": 1, "description": "Calibrated."}
TYPES = {"double": {"type": ["number", "null"]}, "string": {"type": ["string", "null"]}}
ERROR: Schema = {
    "type": "object",
    "required": ["error", "request_id"],
    "properties": {
        "error": {"type": "string", "description": "One sentence: what is wrong, where, and what to do."},
        "request_id": {"type": "string"},
    },
}
REASON: Schema = {
    "type": "object",
    "properties": {
        "subject": {"type": "string"},
        "text": {"type": "string"},
        "contribution": {"type": "number", "description": "Change of the log-odds; positive raises the probability."},
        "value": {"type": ["number", "null"]},
    },
}
MODEL: Schema = {
    "type": "object",
    "required": ["name", "version"],
    "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
}
REQUEST_FIELDS: Schema = {  # of every answer about one customer
    "as_of": MOMENT | {"description": "Events at or after it were not looked at."},
    "request_id": {"type": "string"},
    "customer_id": {"type": "string"},
    "ignored_fields": {
        "type": "array",
        "items": {"type": "string"},
        "description": "Fields of events that no model looks at.",
    },
}
MODEL_FIELDS: Schema = {  # of every champion's answer, beside its columns
    "model": reference("Model"),
    "unknown": {
        "type": "object",
        "additionalProperties": {"type": "integer"},
        "description": "Touchpoints never seen in training, and how many events have each.",
    },
    "repeated_events": {"type": "integer", "description": "Events dropped as equal to an earlier one."},
    "reasons": {"type": "array", "items": reference("Reason")},
}
DOCUMENT: Schema = {
    "openapi": "3.1.0",
    "info": {
        "title": "Journey Lab",
        "version": "0",
        "description": "Probabilities, segments, embeddings and reasons from customers' raw events. Where the "
        "service has tokens, send one as `Authorization: Bearer TOKEN`.",
    },
    "servers": [{"url": "."}],
    "security": [{}, {"token": []}],
}


def components(champions: Champions) -> Schema:
    """Everything that operations refer to."""
    request = champions.decoder.json_schema()
    by_name = {"Event": request.pop("$defs")["Event"], "Request": request, "BatchRequest": batch_request()}
    by_name |= {"Reason": REASON, "Error": ERROR, "Model": MODEL}
    for task in champions.tasks.values():
        columns = _columns(task["answers"])
        by_name[answer_name(task)] = _object(columns | MODEL_FIELDS | REQUEST_FIELDS,
                                             (*columns, "as_of", "model", "unknown", "request_id"))  # fmt: skip
        by_name[f"{answer_name(task)}Part"] = _object(columns | MODEL_FIELDS, (*columns, "model", "unknown"))
    if name := champions.with_lookalikes:
        by_name["LookalikesRequest"] = LookalikeSearch(champions, name).json_schema()
        by_name["LookalikesRequest"].pop("$defs", None)
    return {"schemas": by_name, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}}


def answer_name(task: Schema) -> str:
    """The name of the schema of a task's answer: "ProbabilityAnswer", "SegmentAnswer"."""
    return f"{next(iter(task['answers'])).title().replace('_', '')}Answer"


def all_answers(champions: Champions) -> Schema:
    """Of `/score` and `/reasons`: every champion's answer."""
    parts = {name: reference(f"{answer_name(task)}Part") for name, task in champions.tasks.items()}
    return _object({"answers": _object(parts)} | REQUEST_FIELDS, ("answers", "as_of", "request_id"))


def embeddings(champions: Champions) -> Schema:
    """Of `/embedding`."""
    version = {"type": "string", "description": "Of the encoder; vectors of two versions do not compare."}
    vector = {"version": version, "vector": {"type": "array", "items": {"type": "number"}}, "model": reference("Model")}
    each = {"type": "object", "additionalProperties": _object(vector, tuple(vector))}
    return _object({"embeddings": each} | REQUEST_FIELDS, ("embeddings", "as_of", "request_id"))


def nearest_customers(champions: Champions) -> Schema:
    """Of `/lookalikes`."""
    near = {"customer": {"type": "string"}, "similarity": {"type": "number"}, "distance": {"type": "number"}}
    items = {"type": "array", "items": _object(near, ("customer",))}
    properties = REQUEST_FIELDS | {"version": {"type": "string"}, "nearest": items}
    return _object(properties, ("nearest", "version", "request_id"))


def batch_request() -> Schema:
    """Of `/score_batch`, sent as JSON."""
    moment = {"type": ["string", "null"], "format": "date-time"}
    customer = {
        "customer_id": {"type": "string", "minLength": 1, "maxLength": ID_LENGTH},
        "events": {"type": "array", "minItems": 1, "items": reference("Event")},
        "as_of": moment,
    }
    items = _object(customer, ("customer_id", "events")) | {"additionalProperties": False}
    call = {"customers": {"type": "array", "minItems": 1, "items": items}, "as_of": moment}
    return _object(call, ("customers",)) | {"additionalProperties": False}


def batch_answers(champions: Champions) -> Schema:
    """Of `/score_batch`, answered as JSON."""
    properties = {"request_id": {"type": "string"}, "customers": {"type": "array", "items": {"type": "object"}}}
    return _object(properties, ("request_id", "models", "customers", "unknown", "set_aside"))


def any_object(champions: Champions) -> Schema:
    """An answer without a fixed shape."""
    return {"type": "object"}


def json_content(schema: Schema, example: Schema | None = None) -> Schema:
    """A body or answer in JSON."""
    return {JSON: {"schema": schema} | ({"example": example} if example else {})}


def media_schema(media: str) -> Schema:
    """A body or answer in another media type."""
    return {} if media == NDJSON else {"schema": {"type": "string", "contentEncoding": "binary"}}


def error_responses(max_bytes: int, *, negotiated: bool) -> Schema:
    """Status → what a route that takes a body answers when it has no answer."""
    sentences = {
        "400": "The body is no JSON.",
        "401": "The service wants a token, and this one is none.",
        "404": "There is no such task here.",
        "413": f"The body is larger than {max_bytes:,} bytes, or holds more than {EVENTS:,} events.",
        "415": "The body is compressed; send it as it is.",
        "422": "The request cannot be used; the sentence says why.",
        "500": "The service failed; the request id finds it in the log.",
        "503": "The service is overloaded or starting; try again.",
    } | ({"406": "Accept names no media type that this route answers with."} if negotiated else {})
    return {
        status: {"description": text, "content": json_content(reference("Error"))} for status, text in sentences.items()
    }


def _columns(answers: dict[str, str]) -> Schema:
    return {name: PROBABILITY if name == "probability" else TYPES[kind] for name, kind in answers.items()}


def _object(properties: Schema, required: tuple[str, ...] = ()) -> Schema:
    return {"type": "object", "properties": properties} | ({"required": list(required)} if required else {})

"""The service's OpenAPI document, with examples that a stranger can send as they stand."""

from __future__ import annotations

from typing import Any

from serving.champions import Champions
from serving.schemas import BODY_BYTES, EVENTS

ERROR = {
    "type": "object",
    "required": ["error", "request_id"],
    "properties": {
        "error": {"type": "string", "description": "One sentence: what is wrong, where, and what to do."},
        "request_id": {"type": "string"},
    },
}
REASON = {
    "type": "object",
    "properties": {
        "subject": {"type": "string"},
        "text": {"type": "string"},
        "contribution": {"type": "number", "description": "Change of the log-odds; positive raises the probability."},
        "value": {"type": ["number", "null"]},
    },
}
PROBABILITY = {"type": "number", "minimum": 0, "maximum": 1, "description": "Calibrated."}
TYPES = {"double": {"type": ["number", "null"]}, "string": {"type": ["string", "null"]}}
ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["as_of", "model", "unknown", "request_id"],
    "properties": {
        "as_of": {"type": "string", "format": "date-time", "description": "Events at or after it were not looked at."},
        "model": {
            "type": "object",
            "required": ["name", "version"],
            "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
        },
        "unknown": {
            "type": "object",
            "additionalProperties": {"type": "integer"},
            "description": "Touchpoints never seen in training, and how many events have each.",
        },
        "request_id": {"type": "string"},
        "customer_id": {"type": "string"},
        "ignored_fields": {
            "type": "array",
            "items": {"type": "string"},
            "description": "Fields of events that no model looks at.",
        },
        "repeated_events": {"type": "integer", "description": "Events left out as equal to an earlier one."},
        "reasons": {"type": "array", "items": {"$ref": "#/components/schemas/Reason"}},
    },
}
PROBES = {"livez": "The process is up.", "readyz": "The models are loaded.", "metrics": "Prometheus' figures."}
PROBLEMS = {
    "400": "The body is no JSON.",
    "404": "There is no such task here.",
    "413": f"The body is larger than {BODY_BYTES:,} bytes, or holds more than {EVENTS:,} events.",
    "415": "The body is compressed; send it as it is.",
    "422": "The request cannot be used; the sentence says why.",
    "500": "The service failed; the request id finds it in the log.",
    "503": "The service is overloaded or starting; try again.",
}

# BentoML's own page counts its readers with a script from elsewhere; this one is the same viewer without it.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<title>Journey Lab</title>
<link rel="stylesheet" type="text/css" href="./static_content/swagger-ui.css">
</head>
<body>
<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({url: "./openapi.json", dom_id: "#swagger-ui", validatorUrl: null})</script>
</body>
</html>
"""


def document(champions: Champions, version: str = "0") -> dict[str, Any]:
    """OpenAPI 3.1 for these champions."""
    request = champions.decoder.json_schema()
    event = request.pop("$defs")["Event"]
    paths: dict[str, Any] = {f"/{route}": _task(route, champions) for route in champions.names}
    paths["/model"] = {"get": _get("What is packaged: names, versions, aliases, columns, training window.", "model")}
    for path, words in PROBES.items():
        paths[f"/{path}"] = {"get": _get(words, path, "text/plain")}
    schemas = {"Event": event, "Request": request, "Reason": REASON, "Error": ERROR}
    schemas |= {_answer_name(task["answers"]): _answer(task["answers"]) for task in champions.tasks.values()}
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Journey Lab",
            "version": version,
            "description": "Calibrated probabilities from a customer's raw events. One customer a request.",
        },
        "servers": [{"url": "."}],
        "paths": paths,
        "components": {"schemas": schemas},
    }


def example(champions: Champions, route: str) -> dict[str, Any]:
    """A request that this task can answer."""
    task = champions.tasks[champions.names[route]]
    known = [*task["touchpoints"][:3], "page_view", "add_to_cart", "purchase"][:3]
    times = ("2024-05-02T09:30:00Z", "2024-05-20T18:05:00Z", "2024-05-31T13:00:00Z")
    events = [{"timestamp": time, "touchpoint": name} for time, name in zip(times, known, strict=True)]
    return {"customer_id": "customer-1", "as_of": "2024-06-01T00:00:00Z", "events": events}


def _task(route: str, champions: Champions) -> dict[str, Any]:
    name = champions.names[route]
    origin, task = champions.origins[name], champions.tasks[name]["task"]
    horizon = f" within {task['horizon_days']:g} days of as_of" if task.get("horizon_days") else ""
    failed = {
        code: {"description": words, "content": _json({"$ref": "#/components/schemas/Error"})}
        for code, words in PROBLEMS.items()
    }
    answered = champions.tasks[name]["answers"]
    words = " and ".join(column.replace("_", " ") for column in answered)
    schema = {"$ref": f"#/components/schemas/{_answer_name(answered)}"}
    answer = {"description": f"{words.capitalize()}.", "content": _json(schema)}
    return {
        "post": {
            "operationId": route,
            "summary": f"{next(iter(answered)).capitalize()} of {task.get('kind', 'the event')}{horizon}",
            "description": f"Model {origin.name}, version {origin.version}. as_of defaults to now and is echoed; "
            "events at or after it are not looked at. Times without a zone are UTC.",
            "requestBody": {
                "required": True,
                "content": _json({"$ref": "#/components/schemas/Request"}, example(champions, route)),
            },
            "responses": {"200": answer} | failed,
        }
    }


def _answer_name(answered: dict[str, str]) -> str:
    """The name of a schema for what a task answers: "ProbabilityAnswer", "SegmentAnswer"."""
    return f"{next(iter(answered)).title().replace('_', '')}Answer"


def _answer(answered: dict[str, str]) -> dict[str, Any]:
    given = {name: PROBABILITY if name == "probability" else TYPES[kind] for name, kind in answered.items()}
    return ANSWER | {"required": [*given, *ANSWER["required"]], "properties": given | ANSWER["properties"]}


def _get(words: str, name: str, media: str = "application/json") -> dict[str, Any]:
    return {"operationId": name, "summary": words, "responses": {"200": {"description": "OK", "content": {media: {}}}}}


def _json(schema: dict[str, Any], shown: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"application/json": {"schema": schema} | ({"example": shown} if shown else {})}

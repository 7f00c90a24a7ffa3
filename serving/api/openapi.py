"""The service's OpenAPI document, with examples that a stranger can send as they stand."""

from __future__ import annotations

from typing import Any

from serving.answers.answers import Answerer
from serving.champions.champions import Champions
from serving.requests.schemas import ARROW, BODY_BYTES, EVENTS, ID_LENGTH, MEDIA_OUT, NDJSON, PARQUET

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
MODEL = {
    "type": "object",
    "required": ["name", "version"],
    "properties": {"name": {"type": "string"}, "version": {"type": "string"}},
}
ANSWER: dict[str, Any] = {
    "type": "object",
    "required": ["as_of", "model", "unknown", "request_id"],
    "properties": {
        "as_of": {"type": "string", "format": "date-time", "description": "Events at or after it were not looked at."},
        "model": {"$ref": "#/components/schemas/Model"},
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
    "401": "The service wants a token, and this one is none.",
    "404": "There is no such task here.",
    "413": f"The body is larger than {BODY_BYTES:,} bytes, or holds more than {EVENTS:,} events.",
    "415": "The body is compressed; send it as it is.",
    "422": "The request cannot be used; the sentence says why.",
    "500": "The service failed; the request id finds it in the log.",
    "503": "The service is overloaded or starting; try again.",
}

# BentoML's own page counts its readers with a script from elsewhere; this one is the same viewer without it. That
# viewer's pale greens and greys are too faint on white, and it knows no dark mode.
STYLE = """
body { margin: 0; }
.swagger-ui .servers, .swagger-ui .servers-title { display: none; }
.swagger-ui .info .title small { background: #4c5560; }
.swagger-ui .info .title small.version-stamp { background: #3d6000; }
.swagger-ui .info a, .swagger-ui .info .url { color: #1f5f99; }
.swagger-ui .markdown code, .swagger-ui .renderedMarkdown code { color: #6d1ab8; }
.swagger-ui .opblock.opblock-post .opblock-summary-method { background: #17703f; }
.swagger-ui .opblock.opblock-get .opblock-summary-method { background: #1d5fa8; }
.swagger-ui .btn.authorize { border-color: #17703f; color: #17703f; }
.swagger-ui .btn.authorize svg { fill: #17703f; }
.swagger-ui .model-box button, .swagger-ui .json-schema-2020-12-expand-deep-button,
.swagger-ui .json-schema-2020-12__attribute--primary { color: #45505c; }
@media (prefers-color-scheme: dark) { html { background: #fff; filter: invert(.9) hue-rotate(180deg); } }
"""
PAGE = f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="UTF-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Journey Lab</title>
<link rel="icon" href="./static_content/favicon-light-32x32.png">
<link rel="stylesheet" type="text/css" href="./static_content/swagger-ui.css">
<style>{STYLE}</style>
</head>
<body>
<div id="swagger-ui"></div>
<script src="./static_content/swagger-ui-bundle.js"></script>
<script>SwaggerUIBundle({{url: "./openapi.json", dom_id: "#swagger-ui", validatorUrl: null}})</script>
</body>
</html>
"""


def document(champions: Champions, version: str = "0") -> dict[str, Any]:
    """OpenAPI 3.1 for these champions."""
    answerer = Answerer(champions)
    request = champions.decoder.json_schema()
    event = request.pop("$defs")["Event"]
    paths: dict[str, Any] = {f"/{route}": _task(route, champions) for route in champions.names}
    paths |= {f"/{route}": _whole(route, champions, answerer) for route in answerer.routes if route in WHOLE}
    paths["/score_batch"] = _batch(champions)
    paths["/model"] = {"get": _get("What is packaged: names, versions, aliases, columns, training window.", "model")}
    for path, words in PROBES.items():
        paths[f"/{path}"] = {"get": _get(words, path, "text/plain") | {"security": []}}  # they ask for no token
    schemas = {"Event": event, "Request": request, "Reason": REASON, "Error": ERROR, "Model": MODEL}
    answers = {_answer_name(task["answers"]): task["answers"] for task in champions.tasks.values()}
    schemas |= {name: _answer(columns) for name, columns in answers.items()}
    schemas |= {f"{name}Part": _part(columns) for name, columns in answers.items()}
    if answerer.nearest is not None:
        lookalikes = answerer.nearest.json_schema()
        lookalikes.pop("$defs", None)
        schemas["LookalikesRequest"] = lookalikes
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Journey Lab",
            "version": version,
            "description": "Probabilities, segments, embeddings and reasons from customers' raw events. Where the "
            "service has tokens, send one as `Authorization: Bearer TOKEN`.",
        },
        "servers": [{"url": "."}],
        "security": [{}, {"token": []}],
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}}},
    }


WHOLE = {
    "score": "What every champion says about one customer, events packed once",
    "reasons": "What moved each champion's answer, in words",
    "embedding": "The journey as a vector, with its encoder's version",
    "lookalikes": "The customers nearest to a list, or to a journey, under keyed hashes",
}


def _whole(route: str, champions: Champions, answerer: Answerer) -> dict[str, Any]:
    """A route that is of no single champion."""
    shown = example(champions, next(iter(champions.names), ""))
    if route == "lookalikes":
        shown = {name: value for name, value in shown.items() if name != "customer_id"} | {"top": 10}
    request = "LookalikesRequest" if route == "lookalikes" else "Request"
    return {
        "post": {
            "operationId": route,
            "summary": WHOLE[route],
            "requestBody": {
                "required": True,
                "content": _json({"$ref": f"#/components/schemas/{request}"}, shown),
            },
            "responses": {"200": {"description": "OK", "content": _json(_answer_of(route, champions))}} | _failed(),
        }
    }


def _answer_of(route: str, champions: Champions) -> dict[str, Any]:
    """The schema of what a route of several champions answers."""
    known = {name: ANSWER["properties"][name] for name in ("as_of", "request_id", "customer_id", "ignored_fields")}
    if route == "lookalikes":
        near = {"customer": {"type": "string"}, "similarity": {"type": "number"}, "distance": {"type": "number"}}
        item = {"type": "object", "required": ["customer"], "properties": near}
        known |= {"version": {"type": "string"}, "nearest": {"type": "array", "items": item}}
        return {"type": "object", "required": ["nearest", "version", "request_id"], "properties": known}
    if route == "embedding":
        vector = {
            "type": "object",
            "required": ["version", "vector", "model"],
            "properties": {
                "version": {"type": "string", "description": "Of the encoder; vectors of two versions do not compare."},
                "vector": {"type": "array", "items": {"type": "number"}},
                "model": {"$ref": "#/components/schemas/Model"},
            },
        }
        inside: dict[str, Any] = {"embeddings": {"type": "object", "additionalProperties": vector}}
    else:
        parts = {
            name: {"$ref": f"#/components/schemas/{_answer_name(task['answers'])}Part"}
            for name, task in champions.tasks.items()
        }
        inside = {"answers": {"type": "object", "properties": parts}}
    return {"type": "object", "required": [*inside, "as_of", "request_id"], "properties": inside | known}


def _batch(champions: Champions) -> dict[str, Any]:
    """The route that takes many customers."""
    shown = example(champions, next(iter(champions.names), ""))
    customer = {"customer_id": shown["customer_id"], "events": shown["events"]}
    item = {
        "type": "object",
        "required": ["customer_id", "events"],
        "properties": {
            "customer_id": {"type": "string", "minLength": 1, "maxLength": ID_LENGTH},
            "events": {"type": "array", "minItems": 1, "items": {"$ref": "#/components/schemas/Event"}},
            "as_of": {"type": ["string", "null"], "format": "date-time"},
        },
        "additionalProperties": False,
    }
    call = {
        "type": "object",
        "required": ["customers"],
        "properties": {
            "customers": {"type": "array", "minItems": 1, "items": item},
            "as_of": {"type": ["string", "null"], "format": "date-time"},
        },
        "additionalProperties": False,
    }
    told = {
        "type": "object",
        "required": ["request_id", "models", "customers", "unknown", "set_aside"],
        "properties": {"request_id": {"type": "string"}, "customers": {"type": "array", "items": {"type": "object"}}},
    }
    binary = {"schema": {"type": "string", "contentEncoding": "binary"}}
    tables = dict.fromkeys((ARROW, PARQUET), binary)
    as_of = {"type": "string", "format": "date-time"}
    return {
        "post": {
            "operationId": "score_batch",
            "summary": "What every champion says about many customers; answered as a stream",
            "description": f"JSON, or canonical event rows as an Arrow IPC stream or Parquet. Accept chooses between "
            f"{', '.join(MEDIA_OUT)}. Rows that cannot be used are set aside and counted.",
            "parameters": [{"name": "as_of", "in": "query", "schema": as_of, "description": "Of a table's customers."}],
            "requestBody": {
                "required": True,
                "content": _json(call, {"customers": [customer], "as_of": shown["as_of"]}) | tables,
            },
            "responses": {
                "200": {"description": "OK", "content": _json(told) | {NDJSON: {}, ARROW: binary}},
                "406": {"description": "Accept names nothing that is answered with.", "content": _error()},
            }
            | _failed(),
        }
    }


def example(champions: Champions, route: str) -> dict[str, Any]:
    """A request that this task can answer."""
    touchpoints = champions.tasks[champions.names[route]]["touchpoints"] if route in champions.names else []
    known = [*touchpoints[:3], "page_view", "add_to_cart", "purchase"][:3]
    times = ("2024-05-02T09:30:00Z", "2024-05-20T18:05:00Z", "2024-05-31T13:00:00Z")
    events = [{"timestamp": time, "touchpoint": name} for time, name in zip(times, known, strict=True)]
    return {"customer_id": "customer-1", "as_of": "2024-06-01T00:00:00Z", "events": events}


def _task(route: str, champions: Champions) -> dict[str, Any]:
    name = champions.names[route]
    origin, task = champions.origins[name], champions.tasks[name]["task"]
    horizon = f" within {task['horizon_days']:g} days of as_of" if task.get("horizon_days") else ""
    answered = champions.tasks[name]["answers"]
    words = " and ".join(column.replace("_", " ") for column in answered)
    schema = {"$ref": f"#/components/schemas/{_answer_name(answered)}"}
    answer = {"description": f"{words.capitalize()}.", "content": _json(schema)}
    of = "" if next(iter(answered)) == task.get("kind") else f" of {task.get('kind', 'the event')}"
    return {
        "post": {
            "operationId": route,
            "summary": f"{next(iter(answered)).capitalize()}{of}{horizon}",
            "description": f"Model {origin.name}, version {origin.version}. as_of defaults to now and is echoed; "
            "events at or after it are not looked at. Times without a zone are UTC.",
            "requestBody": {
                "required": True,
                "content": _json({"$ref": "#/components/schemas/Request"}, example(champions, route)),
            },
            "responses": {"200": answer} | _failed(),
        }
    }


def _failed() -> dict[str, Any]:
    """What every route that takes events answers when it does not answer."""
    return {code: {"description": words, "content": _error()} for code, words in PROBLEMS.items()}


def _error() -> dict[str, Any]:
    return _json({"$ref": "#/components/schemas/Error"})


def _answer_name(answered: dict[str, str]) -> str:
    """The name of a schema for what a task answers: "ProbabilityAnswer", "SegmentAnswer"."""
    return f"{next(iter(answered)).title().replace('_', '')}Answer"


def _answer(answered: dict[str, str]) -> dict[str, Any]:
    given = _columns(answered)
    return ANSWER | {"required": [*given, *ANSWER["required"]], "properties": given | ANSWER["properties"]}


def _part(answered: dict[str, str]) -> dict[str, Any]:
    """One champion's part in an answer of several."""
    given = _columns(answered)
    own = {name: ANSWER["properties"][name] for name in ("model", "unknown", "repeated_events", "reasons")}
    return {"type": "object", "required": [*given, "model", "unknown"], "properties": given | own}


def _columns(answered: dict[str, str]) -> dict[str, Any]:
    return {name: PROBABILITY if name == "probability" else TYPES[kind] for name, kind in answered.items()}


def _get(words: str, name: str, media: str = "application/json") -> dict[str, Any]:
    return {"operationId": name, "summary": words, "responses": {"200": {"description": "OK", "content": {media: {}}}}}


def _json(schema: dict[str, Any], shown: dict[str, Any] | None = None) -> dict[str, Any]:
    return {"application/json": {"schema": schema} | ({"example": shown} if shown else {})}

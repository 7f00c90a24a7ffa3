"""What a request may hold and what an answer holds: decoded once, checked on the way, refused in one sentence.

A body is parsed and checked in one pass (pydantic, compiled). Everything that is wrong with a request becomes a
`RequestError` with an HTTP status and a sentence that names the field, what it holds and the remedy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal, NotRequired, cast

import numpy as np
import numpy.typing as npt
from pydantic import ConfigDict, Field, Strict, StringConstraints, TypeAdapter, ValidationError, WithJsonSchema
from typing_extensions import TypedDict

JSON, NDJSON = "application/json", "application/x-ndjson"
ARROW, PARQUET = "application/vnd.apache.arrow.stream", "application/vnd.apache.parquet"
MEDIA_IN, MEDIA_OUT = (JSON, ARROW, PARQUET), (JSON, NDJSON, ARROW)
EVENTS = 10_000
TEXT_LENGTH = 500
TIME_LENGTH = 40
ID_LENGTH = 200
REASONS = 20
LEAD = timedelta(days=1)  # how far ahead of this machine's clock as_of may lie: time zones, clocks that differ
FIELDS = ("events", "customer_id", "as_of", "reasons")
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
EARLIEST, LATEST = datetime(1971, 1, 1, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)  # as `features.events.columns`
MICROSECOND = timedelta(microseconds=1)
PLAIN_FROM, PLAIN_TO = ((moment - EPOCH) // MICROSECOND for moment in (EARLIEST, LATEST))
A_PLAIN_TIME = r"[0-9]{4}-[0-9]{2}-[0-9]{2}(?:[T ][0-9]{2}:[0-9]{2}(?::[0-9]{2}(?:\.[0-9]{1,6})?)?Z?)?"
PLAIN_TIMES = re.compile(rf"{A_PLAIN_TIME}(?:\n{A_PLAIN_TIME})*")
MAX_QUOTED = 60
A_TIME = "2024-05-31T13:00:00Z"

Text = Annotated[str, StringConstraints(strict=True, max_length=TEXT_LENGTH)]
Touchpoint = Annotated[
    Text, WithJsonSchema({"type": "string", "minLength": 1, "maxLength": TEXT_LENGTH, "pattern": r"\S"})
]
CustomerId = Annotated[str, StringConstraints(strict=True, max_length=ID_LENGTH, min_length=1)]
Time = Annotated[
    str,
    StringConstraints(strict=True, max_length=TIME_LENGTH, pattern=r"^\d{4}-\d{2}-\d{2}"),
    WithJsonSchema({"type": "string", "format": "date-time", "examples": [A_TIME]}),
]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Duration = Annotated[float, Strict(), Field(allow_inf_nan=False, ge=0)]


class RequestError(Exception):
    """A request that cannot be answered: an HTTP status and one sentence for the caller."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status
        self.sentence = sentence


@dataclass(frozen=True)
class Columns:
    """Which fields an event may have, over all champions of a service.

    Attributes:
        categories: text, `touchpoint` first. numbers: numeric.
    """

    categories: tuple[str, ...]
    numbers: tuple[str, ...]

    @property
    def all(self) -> frozenset[str]:
        """Every field that is looked at."""
        return frozenset((*self.categories, *self.numbers, "timestamp", "customer_id"))


@dataclass(frozen=True)
class CustomerEvents:
    """A decoded request: one customer's events as columns, in the order given.

    Attributes:
        t: (n,) µs since 1970 UTC.
        categories: column → (n,) text or None. numbers: column → (n,) numbers or None; only columns that occur.
        as_of: µs since 1970 UTC.
        customer_id: as given, or None.
        reasons: how many are wanted.
        ignored: fields of events that no champion looks at.
    """

    t: npt.NDArray[np.int64]
    categories: Mapping[str, Sequence[str | None]]
    numbers: Mapping[str, Sequence[float | None]]
    as_of: int
    customer_id: str | None = None
    reasons: int = 0
    ignored: tuple[str, ...] = field(default=())


class Decoder:
    """Bytes → `CustomerEvents`, for events with these columns."""

    def __init__(self, columns: Columns) -> None:
        self.columns = columns
        self.event_type = _event_type(columns)
        self.adapter: TypeAdapter[Any] = TypeAdapter(_request_type(self.event_type))

    def decode(self, body: bytes, now: datetime | None = None) -> CustomerEvents:
        """Parse and check a request.

        Args:
            body: JSON.
            now: what `as_of` defaults to.

        Raises:
            RequestError: with the one thing that is wrong first.
        """
        try:
            request = self.adapter.validate_json(body)
        except ValidationError as error:
            raise request_error(error, '{"events": [...]}') from None
        now = now or datetime.now(UTC)
        events: list[dict[str, Any]] = request["events"]
        reject_repeated_keys(body, len(request) + sum(map(len, events)))
        t, categories, numbers = columns_of(events, self.columns)
        return CustomerEvents(
            t=t,
            categories=categories,
            numbers=numbers,
            as_of=as_of_moment(request.get("as_of"), now),
            customer_id=_customer(request.get("customer_id"), events),
            reasons=int(request.get("reasons") or 0),
            ignored=self._ignored(events),
        )

    def json_schema(self) -> dict[str, Any]:
        """The request's JSON schema, for the OpenAPI document."""
        return self.adapter.json_schema(ref_template="#/components/schemas/{model}")

    def _ignored(self, events: list[dict[str, Any]]) -> tuple[str, ...]:
        fields: set[str] = set()
        for event in events:
            fields.update(event)
        return tuple(name[:TEXT_LENGTH] for name in sorted(fields - self.columns.all)[:REASONS])


def columns_of(
    events: Sequence[Mapping[str, Any]], columns: Columns
) -> tuple[npt.NDArray[np.int64], dict[str, list[str | None]], dict[str, list[float | None]]]:
    """Events as (n,) times in µs and the columns that occur, text and numbers.

    Raises:
        RequestError: a time that is none, a blank touchpoint.
    """
    times = [event["timestamp"] for event in events]
    t = _plain_moments(times)
    if t is None:
        t = np.array([_moment(text, "events", at) for at, text in enumerate(times)], dtype=np.int64)
    fields = frozenset().union(*events)
    texts = {name: _present([event.get(name) for event in events]) for name in columns.categories if name in fields}
    if None in texts["touchpoint"]:
        at = texts["touchpoint"].index(None)
        raise RequestError(422, f"events[{at}].touchpoint is blank: say what happened, such as 'page_view'.")
    numbers = {name: [event.get(name) for event in events] for name in columns.numbers if name in fields}
    return t, _occurring(texts), _occurring(numbers)


def reject_repeated_keys(body: bytes, names: int) -> None:
    """Refuse an object with a key twice: the parser takes the last value, which may be the wrong one.

    Args:
        body: JSON that was parsed.
        names: the number of keys that the parser returned.

    Raises:
        RequestError: a key that is twice in an object.
    """
    if body.translate(None, b" \t\r\n").count(b'":') != names:  # counting costs nothing, parsing again does
        try:
            json.loads(body, object_pairs_hook=_unique, parse_int=str, parse_float=str)
        except RecursionError:
            raise RequestError(400, "The body is nested too deep.") from None


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields, names = dict(pairs), [name for name, _ in pairs]
    if len(fields) < len(pairs):
        repeated = next(name for name in names if names.count(name) > 1)
        raise RequestError(400, f"'{repeated[:MAX_QUOTED]}' is there twice in one object: send each field once.")
    return fields


def _occurring(columns: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def _present(values: list[str | None]) -> list[str | None]:
    """Blank text is missing, as the checks of a log have it."""
    blank = {value for value in set(values) if value is not None and (not value or value.isspace())}
    return [None if value in blank else value for value in values] if blank else values


def _event_type(columns: Columns) -> Any:
    """The event as a typed dictionary; other fields are accepted, and listed as ignored."""
    fields: dict[str, Any] = {
        "timestamp": Time,
        "touchpoint": Touchpoint,
        "customer_id": NotRequired[CustomerId | None],
    }
    fields |= {name: NotRequired[Text | None] for name in columns.categories if name != "touchpoint"}
    fields |= {name: NotRequired[(Duration if name == "duration_s" else Number) | None] for name in columns.numbers}
    return typed_dict("Event", fields, extra="allow")


def _request_type(event: Any) -> Any:
    fields: dict[str, Any] = {
        "events": Annotated[list[event], Field(min_length=1, max_length=EVENTS)],
        "customer_id": NotRequired[CustomerId | None],
        "as_of": NotRequired[Time | None],
        "reasons": NotRequired[Annotated[int, Strict(), Field(ge=0, le=REASONS)] | None],
    }
    return typed_dict("Request", fields)


def typed_dict(name: str, fields: dict[str, Any], extra: Literal["allow", "forbid"] = "forbid") -> Any:
    """A typed dictionary, which pydantic parses faster than a model."""
    kind = cast(Any, TypedDict(name, fields))  # type: ignore[operator]
    kind.__pydantic_config__ = ConfigDict(extra=extra)
    return kind


def _plain_moments(texts: list[str]) -> npt.NDArray[np.int64] | None:
    """(n,) µs since 1970 UTC of times in the usual way of writing, all at once; None where one needs another look."""
    lines = "\n".join(texts)
    if not PLAIN_TIMES.fullmatch(lines):
        return None
    try:
        moments = np.array(lines.replace("Z", "").split("\n"), "datetime64[us]").astype(np.int64)
    except ValueError:
        return None
    if len(moments) != len(texts):  # there is a line break in one of them
        return None
    return moments if moments.min() >= PLAIN_FROM and moments.max() < PLAIN_TO else None


def _moment(text: str, name: str, at: int | None = None) -> int:
    """ISO 8601 text → µs since 1970 UTC; without a zone it is UTC."""
    where = name if at is None else f"{name}[{at}].timestamp"
    if len(text) > TIME_LENGTH:
        raise RequestError(422, f"{where} has {len(text):,} characters, which is no time: give one such as '{A_TIME}'.")
    try:
        moment = datetime.fromisoformat(text)
        moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    except (ValueError, OverflowError):
        raise RequestError(422, f"{where} is {text!r}, which is no time: give one such as '{A_TIME}'.") from None
    if not EARLIEST <= moment < LATEST:
        raise RequestError(422, f"{where} is {text!r}: times from 1971 to 2099 are taken.")
    return (moment - EPOCH) // MICROSECOND


def as_of_moment(text: str | None, now: datetime) -> int:
    """The cutoff that a request asks for, µs since 1970 UTC.

    Raises:
        RequestError: no time, or one that lies in the future.
    """
    if text is None:
        return (now - EPOCH) // MICROSECOND
    moment = _moment(text, "as_of")
    if moment > (now + LEAD - EPOCH) // MICROSECOND:
        raise RequestError(422, f"as_of is {text!r}, which lies in the future: give a moment up to now, or none.")
    return moment


def _customer(customer_id: str | None, events: list[dict[str, Any]]) -> str | None:
    ids = {event.get("customer_id") for event in events} | {customer_id}
    ids.discard(None)
    if len(ids) > 1:
        raise RequestError(422, f"The request holds {len(ids)} different customers: send one customer a request.")
    return next(iter(ids), None)


def as_text(moment_us: int) -> str:
    """µs since 1970 UTC as ISO 8601.

    >>> as_text(0)
    '1970-01-01T00:00:00Z'
    """
    return (EPOCH + timedelta(microseconds=moment_us)).isoformat().replace("+00:00", "Z")


def request_error(error: ValidationError, shape: str, fields: Sequence[str] = FIELDS) -> RequestError:
    """The first thing that pydantic found, as a sentence.

    Args:
        error: of a request's adapter.
        shape: what a request looks like.
        fields: that it may have.
    """
    problem = error.errors(include_url=False)[0]
    kind, where, value = problem["type"], _path(problem["loc"]), problem["input"]
    more = f" ({error.error_count():,} problems in all)" if error.error_count() > 1 else ""
    context = problem.get("ctx", {})
    if kind == "json_invalid":
        return RequestError(400, f"The body is no JSON: {_first_line(str(context.get('error', problem['msg'])))}.")
    if kind == "missing":
        return RequestError(422, f"{where} is missing{more}: it is needed.")
    if kind == "extra_forbidden":
        return RequestError(422, f"{where} is no field of a request{more}: it takes {', '.join(fields)}.")
    if kind == "too_short":
        return RequestError(422, f"{where} is empty: send at least one.")
    if kind == "too_long":
        most, what = f"{context['max_length']:,}", where.rpartition(".")[2]
        return RequestError(413, f"{where} holds more than {most} {what}: send up to {most}.")
    if not problem["loc"]:
        return RequestError(422, f"The body is no JSON object: send {shape}.")
    return RequestError(422, f"{where} {_problem(kind, problem['msg'], context)}{_value(value)}{more}.")


def _problem(kind: str, message: str, context: Mapping[str, Any]) -> str:
    sentences = {
        "string_type": "must be text in quotes",
        "string_pattern_mismatch": f"must be an ISO 8601 time such as '{A_TIME}'",
        "string_too_short": "must not be empty",
        "float_type": "must be a number",
        "int_type": "must be a whole number",
        "finite_number": "must be a finite number: leave unknown ones out",
        "list_type": "must be a list",
        "dict_type": "must be an object",
        "greater_than_equal": f"must be at least {context.get('ge')}",
        "less_than_equal": f"must be at most {context.get('le')}",
        "string_too_long": f"must have at most {context.get('max_length')} characters",
    }
    return sentences.get(kind) or f"cannot be used ({_first_line(message)})"


def _value(value: Any) -> str:
    """The value, where it is short enough to help."""
    if isinstance(value, str | int | float | bool) or value is None:
        quoted = json.dumps(value, ensure_ascii=False)
        return f" (it is {quoted})" if len(quoted) <= MAX_QUOTED else ""
    return " (it is a list)" if isinstance(value, list) else " (it is an object)"


def _path(location: tuple[int | str, ...]) -> str:
    """('events', 3, 'value', 'constrained') → events[3].value; only names that can be part of a path are shown."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif len(part) <= MAX_QUOTED and not part.startswith(("nullable", "constrained", "function")):
            text += f".{part}" if text else part
    return text or "The body"


def _first_line(text: str) -> str:
    return (text.splitlines() or [""])[0].strip().rstrip(".")[:200]

"""Many customers in one call: events in as JSON, Arrow or Parquet, answers out as JSON, NDJSON or Arrow, in blocks.

| body (`Content-Type`) | what it holds |
|---|---|
| `application/json` | `{"customers": [{"customer_id": …, "events": […], "as_of": …}, …], "as_of": …}` |
| `application/vnd.apache.arrow.stream`, `application/vnd.apache.parquet` | canonical event rows; `?as_of=` for all |

The answer has a row for each customer, in order of first appearance, with `customer_id`, `as_of`, and for each champion
its answers and a `reason` where it has none. Rows that cannot be used are rejected and counted, as in a log.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from io import BytesIO
from typing import TYPE_CHECKING, Annotated, Any, NotRequired

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pydantic import Field, TypeAdapter, ValidationError

from features.errors import JourneyLabError
from features.journeys.journeys import Journeys
from serving.answers.answers import AnswerObserver
from serving.champions.champions import Champions
from serving.requests.batch_tables import ROWS, read_parquet, read_stream
from serving.requests.schemas import (
    ARROW,
    EVENTS,
    JSON,
    NDJSON,
    CustomerId,
    RequestError,
    Time,
    as_of_moment,
    as_text,
    columns_of,
    reject_repeated_keys,
    request_error,
    typed_dict,
)

if TYPE_CHECKING:
    from models.scoring.scorer import Scorer

CUSTOMERS = 100_000
CUSTOMERS_PER_BLOCK = 2_000
SHAPE = '{"customers": [{"customer_id": …, "events": […]}, …]}'
FIELDS = ("customers", "as_of", "and for a customer customer_id, events, as_of")


@dataclass(frozen=True)
class ParsedBatch:
    """A decoded call.

    Attributes:
        journeys: how a champion packs events (`models.scoring.scorer.Scorer.packing_key`) → the log.
        customer_ids: (n,) whom to answer for, in order.
        as_of: (n,) µs since 1970 UTC.
        rejected: reason → rows that cannot be used.
    """

    journeys: Mapping[str, Journeys]
    customer_ids: npt.NDArray[np.object_]
    as_of: npt.NDArray[np.int64]
    rejected: Mapping[str, int]


@dataclass(frozen=True)
class AnswerBlock:
    """Answers to some of a call's customers.

    Attributes:
        customer_ids: (k,) text.
        as_of: (k,) µs since 1970 UTC.
        columns: `NAME.ANSWER` and `NAME.reason` of each champion → (k,), NaN or None where there is nothing.
    """

    customer_ids: npt.NDArray[np.object_]
    as_of: npt.NDArray[np.int64]
    columns: dict[str, npt.NDArray[Any]]


class BatchAnswerer:
    """Bodies → answers, for these champions.

    Args:
        champions: the packaged models.
        observer: receives every answer.
    """

    def __init__(self, champions: Champions, observer: AnswerObserver | None = None) -> None:
        self.champions, self.observer = champions, observer
        self.adapter: TypeAdapter[Any] = TypeAdapter(_call_type(champions.decoder.event_type))

    def decode(self, body: bytes, media: str, as_of: str | None = None, now: datetime | None = None) -> ParsedBatch:
        """Parse, check and pack a call.

        Args:
            body: as its `media` says.
            media: one of `MEDIA_IN`.
            as_of: ISO 8601, for all customers of a table.
            now: what `as_of` defaults to.

        Raises:
            RequestError: with the one thing that is wrong first.
        """
        now = now or datetime.now(UTC)
        for_all = as_of_moment(as_of, now)
        if media == JSON:
            return self._of_json(body, as_of, now)
        table = read_stream(body) if media == ARROW else read_parquet(body)
        return self._of_table(table, for_all)

    def answer(self, batch: ParsedBatch, media: str, request_id: str) -> Iterator[bytes]:
        """The answers, encoded block by block.

        Args:
            batch: as `decode` made it.
            media: one of `MEDIA_OUT`.
            request_id: echoed.
        """
        about = self._about(batch, request_id)
        blocks = self._blocks(batch)
        if media == ARROW:
            return _as_arrow(blocks, about)
        return _as_lines(blocks, about) if media == NDJSON else _as_json(blocks, about)

    def _of_json(self, body: bytes, as_of: str | None, now: datetime) -> ParsedBatch:
        try:
            call = self.adapter.validate_json(body)
        except ValidationError as error:
            raise request_error(error, SHAPE, FIELDS) from None
        shared = as_of_moment(call.get("as_of") or as_of, now)
        customers: list[dict[str, Any]] = call["customers"]
        ids = [customer["customer_id"] for customer in customers]
        if len(set(ids)) < len(ids):
            raise RequestError(422, "Two customers have the same customer_id: send each once, with all its events.")
        events = [event for customer in customers for event in customer["events"]]
        reject_repeated_keys(body, len(call) + sum(map(len, customers)) + sum(map(len, events)))
        if len(events) > ROWS:
            raise RequestError(413, f"The call holds {len(events):,} events: send up to {ROWS:,}.")
        sizes = [len(customer["events"]) for customer in customers]
        t, categories, numbers = columns_of(events, self.champions.columns)
        owners = np.repeat(np.array(ids, dtype=object), sizes).tolist()
        packed = {
            scorer.packing_key: scorer.pack_request(owners, t, categories, numbers)[0]
            for scorer in self._scorers_by_reading()
        }
        moments = [as_of_moment(text, now) if (text := customer.get("as_of")) else shared for customer in customers]
        return ParsedBatch(packed, np.array(ids, dtype=object), np.array(moments, dtype=np.int64), {})

    def _of_table(self, table: pa.Table, as_of: int) -> ParsedBatch:
        packed: dict[str, Journeys] = {}
        rejected: dict[str, int] = {}
        try:
            for scorer in self._scorers_by_reading():
                packed[scorer.packing_key], checked = scorer.read(table)
                rejected = rejected or dict(checked.counts)
        except JourneyLabError as error:
            raise RequestError(422, str(error).splitlines()[0]) from None
        first = next(iter(packed.values()), None)
        ids = np.asarray([] if first is None else first.customer_ids.to_pylist(), dtype=object)
        if len(ids) > CUSTOMERS:
            raise RequestError(413, f"The table holds {len(ids):,} customers: send up to {CUSTOMERS:,} a call.")
        return ParsedBatch(packed, ids, np.full(len(ids), as_of, dtype=np.int64), rejected)

    def _scorers_by_reading(self) -> list[Scorer]:
        """One champion for each way to read events."""
        return list({scorer.packing_key: scorer for scorer in self.champions.scorers.values()}.values())

    def _blocks(self, batch: ParsedBatch) -> Iterator[AnswerBlock]:
        """The answers to some customers after the other."""
        places = {
            packing_key: _places(journeys, batch.customer_ids) for packing_key, journeys in batch.journeys.items()
        }
        n = len(batch.customer_ids)
        for at in range(0, max(n, 1), CUSTOMERS_PER_BLOCK):
            rows = slice(at, at + CUSTOMERS_PER_BLOCK)
            ids, as_of = batch.customer_ids[rows], batch.as_of[rows]
            columns: dict[str, npt.NDArray[Any]] = {}
            for name, scorer in self.champions.scorers.items():
                snapshots = batch.journeys[scorer.packing_key].at(as_of, places[scorer.packing_key][rows])
                answers, reasons = scorer.answers_or_reasons(snapshots, ids)
                if self.observer is not None:
                    answered = np.flatnonzero([reason is None for reason in reasons])
                    first = next(iter(answers.values()))[answered].tolist()
                    self.observer.record(self.champions, name, snapshots.take(answered), first, ids[answered].tolist())
                columns |= {f"{name}.{answer}": values for answer, values in answers.items()}
                columns[f"{name}.reason"] = reasons
            yield AnswerBlock(ids, as_of, columns)

    def _about(self, batch: ParsedBatch, request_id: str) -> dict[str, Any]:
        from models.scoring.scorer import unknown_touchpoints

        origins, scorers = self.champions.origins, self.champions.scorers
        return {
            "request_id": request_id,
            "models": {name: origins[name].model for name in scorers},
            "answers": {name: scorer.answer_columns for name, scorer in scorers.items()},
            "unknown": {
                name: unknown_touchpoints(batch.journeys[scorer.packing_key], scorer.touchpoints)
                for name, scorer in scorers.items()
            },
            "set_aside": dict(batch.rejected),
        }


def _call_type(event: Any) -> Any:
    fields: dict[str, Any] = {
        "customer_id": CustomerId,
        "events": Annotated[list[event], Field(min_length=1, max_length=EVENTS)],
        "as_of": NotRequired[Time | None],
    }
    customers = list[typed_dict("Customer", fields)]  # type: ignore[misc,valid-type]
    call = {"customers": Annotated[customers, Field(min_length=1, max_length=CUSTOMERS)], "as_of": fields["as_of"]}
    return typed_dict("Call", call)


def _places(journeys: Journeys, ids: npt.NDArray[np.object_]) -> npt.NDArray[np.int64]:
    """(n,) where the log has each customer, -1 where it does not."""
    if len(ids) == journeys.n_customers and journeys.customer_ids.equals(pa.array(ids, pa.string())):
        return np.arange(len(ids))
    return journeys.index_of(ids)


def _as_arrow(blocks: Iterator[AnswerBlock], about: Mapping[str, Any]) -> Iterator[bytes]:
    buffer, schema = BytesIO(), _schema(about)  # drained after each block, so that no more than one is in memory

    def drained() -> bytes:
        content = buffer.getvalue()
        buffer.seek(0)
        buffer.truncate()
        return content

    with pa.ipc.new_stream(pa.PythonFile(buffer, "w"), schema) as writer:
        for block in blocks:
            writer.write_batch(_record_batch(block, schema))
            yield drained()
    yield drained()


def _record_batch(block: AnswerBlock, schema: pa.Schema) -> pa.RecordBatch:
    columns = {"customer_id": block.customer_ids, "as_of": block.as_of, **block.columns}
    return pa.RecordBatch.from_arrays(
        [pa.array(columns[field.name], field.type, from_pandas=True) for field in schema], schema=schema
    )


def _schema(about: Mapping[str, Any]) -> pa.Schema:
    types = {"double": pa.float64(), "string": pa.string()}
    fields = [("customer_id", pa.string()), ("as_of", pa.timestamp("us"))]
    for name, answers in about["answers"].items():
        fields += [(f"{name}.{answer}", types[kind]) for answer, kind in answers.items()]
        fields.append((f"{name}.reason", pa.string()))
    return pa.schema(fields, {"journeylab": json.dumps(about, ensure_ascii=False)})


def _records(block: AnswerBlock, answers: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """A row a customer as JSON text; what is missing is left out."""
    moments = block.as_of.tolist()
    columns = {name: values.tolist() for name, values in block.columns.items()}
    for row, customer in enumerate(block.customer_ids):
        by_name: dict[str, dict[str, Any]] = {name: {} for name in answers}
        for name, answer_names in answers.items():
            for answer in (*answer_names, "reason"):
                value = columns[f"{name}.{answer}"][row]
                if value is not None and value == value:
                    by_name[name][answer] = value
        record = {"customer_id": customer, "as_of": as_text(moments[row]), "answers": by_name}
        yield json.dumps(record, ensure_ascii=False, separators=(",", ":"))


def _as_lines(blocks: Iterator[AnswerBlock], about: Mapping[str, Any]) -> Iterator[bytes]:
    yield (json.dumps(about, ensure_ascii=False) + "\n").encode()
    for block in blocks:
        yield "".join(f"{record}\n" for record in _records(block, about["answers"])).encode()


def _as_json(blocks: Iterator[AnswerBlock], about: Mapping[str, Any]) -> Iterator[bytes]:
    yield json.dumps(about, ensure_ascii=False)[:-1].encode() + b',"customers":['
    between = ""
    for block in blocks:
        if text := ",".join(_records(block, about["answers"])):
            yield (between + text).encode()
            between = ","
    yield b"]}"

"""Answers to one customer, or to a micro-batch of customers, by one champion or by all of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from serving.champions.champions import Champions
from serving.champions.lookalike_search import LookalikeSearch
from serving.requests.schemas import CustomerEvents, RequestError, as_text

if TYPE_CHECKING:
    from features.journeys.journeys import Snapshots
    from models.scoring.scorer import Scorer

DEFAULT_REASONS = 5
SCORE = "score"
Answer = dict[str, Any]


class AnswerObserver(Protocol):
    """Receives the answers of champions; `serving.monitor` has one."""

    def record(
        self,
        champions: Champions,
        name: str,
        snapshots: Snapshots,
        answers: Sequence[Any],
        customer_ids: Sequence[str | None],
    ) -> None:
        """The first value of each answer that a champion gave."""


@dataclass(frozen=True)
class ParsedRequest:
    """A request that has been parsed and checked.

    Attributes:
        route: `score`, or that of a champion.
        customer: the customer's events and what is asked about them.
        request_id: echoed.
    """

    route: str
    customer: CustomerEvents
    request_id: str


class Answerer:
    """Answers requests about one customer; knows nothing of HTTP.

    Args:
        champions: the packaged models.
        observer: receives every answer of a champion.
    """

    def __init__(self, champions: Champions, observer: AnswerObserver | None = None) -> None:
        self.champions, self.observer = champions, observer

    @cached_property
    def lookalikes(self) -> LookalikeSearch | None:
        """The search for look-alikes, where their vectors were packaged."""
        name = self.champions.with_lookalikes
        return LookalikeSearch(self.champions, name) if name else None

    def parse(self, route: str, body: bytes, request_id: str, now: datetime | None = None) -> ParsedRequest:
        """Parse and check a body.

        Args:
            route: `score`, or that of a champion.
            body: the request, JSON.
            request_id: echoed.
            now: what `as_of` defaults to.

        Raises:
            RequestError: when there is no such route, or the body cannot be used.
        """
        if route != SCORE and route not in self.champions.names:
            raise RequestError(404, f"There is no task '{route[:60]}' here: this service has {self.champions.listed}.")
        return ParsedRequest(route, self.champions.decoder.decode(body, now), request_id)

    def answer(self, route: str, body: bytes, request_id: str, now: datetime | None = None) -> Answer:
        """Parse a body and answer it; arguments and errors as of `parse`.

        Raises:
            RequestError: when the request cannot be answered.
        """
        return self._single_answer(self.parse(route, body, request_id, now))

    def explain(self, body: bytes, request_id: str, now: datetime | None = None) -> Answer:
        """Every champion's answer with its reasons.

        Raises:
            RequestError: when no champion has reasons, or the request cannot be answered.
        """
        from models.contract import Explainer  # not before a worker starts: it imports the heavy modules

        names = [name for name, scorer in self.champions.scorers.items() if isinstance(scorer.model, Explainer)]
        if not names:
            raise RequestError(404, "No champion here can say what moved its answer.")
        request = self.parse(SCORE, body, request_id, now)
        customer = replace(request.customer, reasons=request.customer.reasons or DEFAULT_REASONS)
        answer = self._single_answer(replace(request, customer=customer))
        return answer | {"answers": {name: answer["answers"][name] for name in names}}

    def embed(self, body: bytes, request_id: str, now: datetime | None = None) -> Answer:
        """The journey as a vector, by each champion that has an encoder, with the encoder's version.

        Raises:
            RequestError: when no champion has an encoder, or the request cannot be answered.
        """
        from models.contract import EmbeddingModel  # not before a worker starts: it imports the heavy modules

        request = self.parse(SCORE, body, request_id, now)
        embeddings = {}
        for name, scorer in self.champions.scorers.items():
            if isinstance(scorer.model, EmbeddingModel):
                log = _RequestLog.of([request.customer], scorer)
                if not log.rows:
                    raise _no_events(request.customer)
                embeddings[name] = {
                    "version": scorer.model.version,
                    "vector": [float(value) for value in scorer.model.embed(log.snapshots)[0]],
                    "model": self.champions.origins[name].model,
                }
        if not embeddings:
            raise RequestError(404, "No champion here has an encoder, so there is no embedding.")
        return _with_request_fields({"embeddings": embeddings}, request)

    def answer_many(self, requests: Sequence[ParsedRequest]) -> list[Answer | RequestError]:
        """Answer several requests at once, which costs little more than one.

        A row of a log depends on itself alone, so an answer does not depend on the requests beside it.
        """
        by_route: dict[str, list[int]] = {}
        for place, request in enumerate(requests):
            by_route.setdefault(request.route, []).append(place)
        answers: list[Answer | RequestError] = [{}] * len(requests)
        for route, places in by_route.items():
            for place, answer in zip(places, self._by_route(route, [requests[k] for k in places]), strict=True):
                answers[place] = answer
        return answers

    def _single_answer(self, request: ParsedRequest) -> Answer:
        answer = self.answer_many([request])[0]
        if isinstance(answer, RequestError):
            raise answer
        return answer

    def _by_route(self, route: str, requests: list[ParsedRequest]) -> list[Answer | RequestError]:
        names = [self.champions.names[route]] if route != SCORE else list(self.champions.scorers)
        customers, logs = [request.customer for request in requests], dict[str, _RequestLog]()
        by_name: list[Answer] = [{} for _ in requests]
        for name in names:
            scorer = self.champions.scorers[name]
            if scorer.packing_key not in logs:  # champions that read events alike share a log
                logs[scorer.packing_key] = _RequestLog.of(customers, scorer)
            log = logs[scorer.packing_key]
            rows = scorer.answer_rows(log.snapshots) if len(log.rows) else []
            for place, (number, values) in enumerate(zip(log.rows, rows, strict=True)):
                snapshot = log.snapshots if len(rows) == 1 else log.snapshots.take(slice(place, place + 1))
                by_name[number][name] = self._champion_answer(name, values, customers[number], snapshot)
                if repeated := log.repeated.get(number):
                    by_name[number][name]["repeated_events"] = repeated
                if self.observer is not None:
                    first = next(iter(values.values()))
                    self.observer.record(self.champions, name, snapshot, [first], [customers[number].customer_id])
        answered = {number for log in logs.values() for number in log.rows}
        return [
            _with_request_fields({"answers": by_name[k]} if route == SCORE else by_name[k][names[0]], request)
            if k in answered or not names
            else _no_events(request.customer)
            for k, request in enumerate(requests)
        ]

    def _champion_answer(self, name: str, values: Answer, customer: CustomerEvents, snapshot: Snapshots) -> Answer:
        scorer = self.champions.scorers[name]
        answer: Answer = {**values, "model": self.champions.origins[name].model, "unknown": {}}
        touchpoints = customer.categories["touchpoint"]
        unknown = set(touchpoints) - scorer.touchpoint_set
        if unknown and scorer.touchpoints:
            answer["unknown"] = {name: touchpoints.count(name) for name in sorted(map(str, unknown))}
        if customer.reasons:
            answer["reasons"] = [_reason(reason) for reason in scorer.reasons(snapshot, customer.reasons)]
        return answer


@dataclass(frozen=True)
class _RequestLog:
    """The events of several requests as one log, a customer for each request, as a champion reads them.

    Attributes:
        snapshots: what is known at each `as_of`, of the requests that have an event before it.
        rows: numbers of those requests.
        repeated: number of a request → how many of its events were dropped as equal to an earlier one.
    """

    snapshots: Snapshots
    rows: list[int]
    repeated: dict[int, int]

    @classmethod
    def of(cls, customers: Sequence[CustomerEvents], scorer: Scorer) -> _RequestLog:
        """Pack the requests in their order; two of them may be about the same customer."""
        import pyarrow as pa  # not before a worker starts

        owners = [str(row) for row, customer in enumerate(customers) for _ in range(len(customer.t))]
        if len(customers) == 1:
            t, categories, numbers = customers[0].t, customers[0].categories, customers[0].numbers
        else:
            t = np.concatenate([customer.t for customer in customers])
            categories = _concatenated([customer.categories for customer in customers], customers)
            numbers = _concatenated([customer.numbers for customer in customers], customers)
        packed, dropped = scorer.pack_request(owners, t, categories, numbers)
        journeys = replace(packed, customer_ids=pa.array([customer.customer_id or "" for customer in customers]))
        snapshots = journeys.at(np.array([customer.as_of for customer in customers], np.int64))
        rows = np.flatnonzero(snapshots.stop > snapshots.start)
        repeated = Counter(int(owner) for owner in dropped)
        return cls(snapshots if len(rows) == len(customers) else snapshots.take(rows), rows.tolist(), repeated)


def _concatenated(
    columns: Sequence[Mapping[str, Sequence[Any]]], customers: Sequence[CustomerEvents]
) -> dict[str, list[Any]]:
    """Column → its values over all requests; None for the events of a request that lacks it."""
    return {
        name: [
            value
            for by_column, customer in zip(columns, customers, strict=True)
            for value in by_column.get(name) or [None] * len(customer.t)
        ]
        for name in dict.fromkeys(name for by_column in columns for name in by_column)
    }


def _with_request_fields(answer: Answer, request: ParsedRequest) -> Answer:
    customer = request.customer
    answer |= {"as_of": as_text(customer.as_of), "request_id": request.request_id}
    if customer.customer_id is not None:
        answer["customer_id"] = customer.customer_id
    if customer.ignored:
        answer["ignored_fields"] = list(customer.ignored)
    return answer


def _no_events(customer: CustomerEvents) -> RequestError:
    return RequestError(422, f"No event lies before as_of, {as_text(customer.as_of)}: nothing to predict from.")


def _reason(reason: Any) -> dict[str, Any]:
    """A reason as JSON; a feature without a value is null."""
    value = None if reason.value != reason.value else reason.value
    return {"subject": reason.subject, "text": reason.text, "contribution": reason.contribution, "value": value}

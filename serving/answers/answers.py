"""What the service says about one customer: by one champion, or by all with the events packed a single time.

| route | answer |
|---|---|
| a name or kind of task | that champion's answer |
| `score` | the answer of every champion |
| `reasons` | what moved each champion's answer, in words |
| `embedding` | the journey as a vector, by each champion that has an encoder, with the encoder's version |
| `lookalikes` | customers nearest to a list or to a journey, where they were packaged (`serving.champions.nearest`) |
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from serving.champions.champions import Champions, Origin
from serving.champions.nearest import Nearest
from serving.requests.schemas import Question, Refused, as_text

if TYPE_CHECKING:
    from features.journeys.journeys import Snapshots
    from models.scoring.scorer import Scorer
    from serving.monitor.monitoring import Watch

REASONS_SHOWN = 5
SCORE = "score"
LOOKALIKES = "lookalikes"
Answer = dict[str, Any]


@dataclass(frozen=True)
class Asked:
    """A request that has been read.

    Attributes:
        route: as it was asked.
        question: what was asked.
        request_id: echoed.
    """

    route: str
    question: Question
    request_id: str


class Answerer:
    """Questions → answers; nothing here knows of HTTP.

    Args:
        champions: the packaged models.
        watch: takes note of answers, where that is wanted.
    """

    def __init__(self, champions: Champions, watch: Watch | None = None) -> None:
        self.champions, self.watch = champions, watch
        self._alone: dict[str, Callable[[Asked], Answer]] = {"reasons": self._reasons, "embedding": self._embedding}

    @cached_property
    def routes(self) -> tuple[str, ...]:
        """Every route that takes one customer's events."""
        return (*self.champions.names, SCORE, *self._alone, *((LOOKALIKES,) if self.nearest else ()))

    @cached_property
    def nearest(self) -> Nearest | None:
        """What answers `/lookalikes`, where they were packaged."""
        name = self.champions.with_lookalikes
        return Nearest(self.champions, name) if name else None

    def answer(self, route: str, body: bytes, request_id: str, now: datetime | None = None) -> Answer:
        """Everything that a route does.

        Args:
            route: one of `routes`.
            body: the request, JSON.
            request_id: echoed.
            now: what `as_of` defaults to.

        Raises:
            Refused: when there is no such route, or the request cannot be answered.
        """
        if route == LOOKALIKES and self.nearest is not None:
            return self.nearest.answer(body, request_id, now)
        asked = self.read(route, body, request_id, now)
        if route in self._alone:
            return self._alone[route](asked)
        answer = self.together([asked])[0]
        if isinstance(answer, Refused):
            raise answer
        return answer

    def is_quick(self, route: str) -> bool:
        """Whether `together` answers the route, in less time than a thread takes to wake."""
        return route == SCORE or route in self.champions.names

    def read(self, route: str, body: bytes, request_id: str, now: datetime | None = None) -> Asked:
        """A body of any route but look-alikes, parsed and checked.

        Raises:
            Refused: when there is no such route, or the body cannot be used.
        """
        if route not in self.routes or route == LOOKALIKES:
            raise Refused(404, f"There is no task '{route[:60]}' here: this service has {self.champions.listed}.")
        return Asked(route, self.champions.decoder.decode(body, now), request_id)

    def together(self, asked: Sequence[Asked]) -> list[Answer | Refused]:
        """Answers of a champion's route or `score` to several customers at once, which costs little more than to one.

        A row of a log depends on itself alone, so nobody's answer depends on who asked at the same time.
        """
        by_route: dict[str, list[int]] = {}
        for place, one in enumerate(asked):
            by_route.setdefault(one.route, []).append(place)
        answers: list[Answer | Refused] = [{}] * len(asked)
        for route, places in by_route.items():
            for place, answer in zip(places, self._by_route(route, [asked[place] for place in places]), strict=True):
                answers[place] = answer
        return answers

    def _by_route(self, route: str, asked: list[Asked]) -> list[Answer | Refused]:
        names = [self.champions.names[route]] if route != SCORE else list(self.champions.scorers)
        questions, logs = [one.question for one in asked], dict[str, _Log]()
        given: list[Answer] = [{} for _ in asked]
        for name in names:
            scorer = self.champions.scorers[name]
            if scorer.reads not in logs:
                logs[scorer.reads] = _Log.of(questions, scorer)
            log = logs[scorer.reads]
            told = scorer.told(log.snapshots) if len(log.rows) else []
            for place, (row, values) in enumerate(zip(log.rows, told, strict=True)):
                question = questions[row]
                given[row][name] = self._said(name, values, question, log, row, place)
                if self.watch is not None:
                    own = log.snapshots if len(told) == 1 else log.snapshots.take(slice(place, place + 1))
                    self.watch.saw(self.champions, name, own, values, question.customer_id)
        known = {row for log in logs.values() for row in log.rows}
        return [
            _finished({"answers": given[row]} if route == SCORE else given[row][names[0]], one)
            if row in known or not names
            else _nothing_before(one.question)
            for row, one in enumerate(asked)
        ]

    def _said(self, name: str, values: Answer, question: Question, log: _Log, row: int, place: int) -> Answer:
        """One champion's answer to one customer."""
        scorer = self.champions.scorers[name]
        answer: Answer = {**values, "model": _model(self.champions.origins[name]), "unknown": {}}
        touchpoints = question.categories["touchpoint"]
        strange = set(touchpoints) - scorer.known_touchpoints
        if strange and scorer.touchpoints:
            answer["unknown"] = {name: touchpoints.count(name) for name in sorted(map(str, strange))}
        if repeated := log.repeated.get(row):
            answer["repeated_events"] = repeated
        if question.reasons:
            why = scorer.why(log.snapshots.take(slice(place, place + 1)), question.reasons)
            answer["reasons"] = [_reason(reason) for reason in why]
        return answer

    def _reasons(self, asked: Asked) -> Answer:
        from models.contract import Explains

        explained = [name for name, scorer in self.champions.scorers.items() if isinstance(scorer.model, Explains)]
        if not explained:
            raise Refused(404, "No champion here can say what moved its answer.")
        question = replace(asked.question, reasons=asked.question.reasons or REASONS_SHOWN)
        answer = self.together([replace(asked, route=SCORE, question=question)])[0]
        if isinstance(answer, Refused):
            raise answer
        return answer | {"answers": {name: answer["answers"][name] for name in explained}}

    def _embedding(self, asked: Asked) -> Answer:
        from models.contract import Embeds

        found = {}
        for name, scorer in self.champions.scorers.items():
            if isinstance(scorer.model, Embeds):
                log = _Log.of([asked.question], scorer)
                if not log.rows:
                    raise _nothing_before(asked.question)
                found[name] = {
                    "version": scorer.model.version,
                    "vector": [float(value) for value in scorer.model.embed(log.snapshots)[0]],
                    "model": _model(self.champions.origins[name]),
                }
        if not found:
            raise Refused(404, "No champion here has an encoder, so there is no embedding.")
        return _finished({"embeddings": found}, asked)


@dataclass(frozen=True)
class _Log:
    """The events of some questions as one log, a customer a question, as a champion reads them.

    Attributes:
        snapshots: what is known at each `as_of`, of the questions where anything is.
        rows: those questions.
        repeated: question → how many of its events were left out as equal to an earlier one.
    """

    snapshots: Snapshots
    rows: list[int]
    repeated: dict[int, int]

    @classmethod
    def of(cls, questions: Sequence[Question], scorer: Scorer) -> _Log:
        """The questions in their order; two of them may be about the same customer."""
        import pyarrow as pa  # not before a worker starts

        owners = [str(row) for row, question in enumerate(questions) for _ in range(len(question.t))]
        if len(questions) == 1:
            only = questions[0]
            t, categories, numbers = only.t, only.categories, only.numbers
        else:
            t = np.concatenate([question.t for question in questions])
            categories = _end_to_end([question.categories for question in questions], questions)
            numbers = _end_to_end([question.numbers for question in questions], questions)
        packed, left_out = scorer.pack_request(owners, t, categories, numbers)
        journeys = replace(packed, customer_ids=pa.array([question.customer_id or "" for question in questions]))
        snapshots = journeys.at(np.array([question.as_of for question in questions], np.int64))
        rows = np.flatnonzero(snapshots.stop > snapshots.start)
        repeated = Counter(int(owner) for owner in left_out)
        return cls(snapshots if len(rows) == len(questions) else snapshots.take(rows), rows.tolist(), repeated)


def _end_to_end(columns: Sequence[Mapping[str, Sequence[Any]]], questions: Sequence[Question]) -> dict[str, list[Any]]:
    """Column → its values over all questions; None for the events of a question that lacks it."""
    names = dict.fromkeys(name for some in columns for name in some)
    return {
        name: [
            value
            for some, question in zip(columns, questions, strict=True)
            for value in some.get(name) or [None] * len(question.t)
        ]
        for name in names
    }


def _finished(answer: Answer, asked: Asked) -> Answer:
    question = asked.question
    answer |= {"as_of": as_text(question.as_of), "request_id": asked.request_id}
    if question.customer_id is not None:
        answer["customer_id"] = question.customer_id
    if question.ignored:
        answer["ignored_fields"] = list(question.ignored)
    return answer


def _nothing_before(question: Question) -> Refused:
    return Refused(422, f"No event lies before as_of, {as_text(question.as_of)}: nothing to predict from.")


def _model(origin: Origin) -> dict[str, str]:
    return {"name": origin.name, "version": origin.version}


def _reason(reason: Any) -> dict[str, Any]:
    """A reason as JSON; a feature without a value says null."""
    value = None if reason.value != reason.value else reason.value
    return {"subject": reason.subject, "text": reason.text, "contribution": reason.contribution, "value": value}

"""What the service says about one customer: by one champion, or by all at once with the events packed a single time.

| route | answer |
|---|---|
| a name or kind of task | that champion's answer |
| `score` | the answer of every champion |
| `reasons` | what moved each champion's answer, in words |
| `embedding` | the journey as a vector, by each champion that has an encoder, with the encoder's version |
| `lookalikes` | customers nearest to a list or to a journey, where they were packaged (`serving.nearest`) |
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from typing import TYPE_CHECKING, Any

from serving.champions import Champions, Origin
from serving.nearest import Nearest
from serving.schemas import Question, Refused, as_text

if TYPE_CHECKING:
    from features.journeys import Journeys
    from models.packaged import Scorer
    from serving.monitoring import Watch

REASONS_SHOWN = 5
LOOKALIKES = "lookalikes"
Answer = dict[str, Any]


class Answerer:
    """Questions → answers; nothing here knows of HTTP.

    Args:
        champions: the packaged models.
        watch: takes note of answers, where that is wanted.
    """

    def __init__(self, champions: Champions, watch: Watch | None = None) -> None:
        self.champions, self.watch = champions, watch
        self._own: dict[str, Callable[[_Asked], Answer]] = {
            "score": self._score,
            "reasons": self._reasons,
            "embedding": self._embedding,
        }

    @property
    def routes(self) -> tuple[str, ...]:
        """Every route that takes one customer's events."""
        return (*self.champions.names, *self._own, *((LOOKALIKES,) if self.nearest else ()))

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
        champions = self.champions
        if route == LOOKALIKES and self.nearest is not None:
            return self.nearest.answer(body, request_id, now)
        if route not in champions.names and route not in self._own:
            raise Refused(404, f"There is no task '{route[:60]}' here: this service has {champions.listed}.")
        asked = _Asked(champions, champions.decoder.decode(body, now), {}, self.watch)
        question = asked.question
        if route in champions.names:
            found = asked.by(champions.names[route], question.reasons)
        else:
            found = self._own[route](asked)
        found |= {"as_of": as_text(question.as_of), "request_id": request_id}
        if question.customer_id is not None:
            found["customer_id"] = question.customer_id
        if question.ignored:
            found["ignored_fields"] = list(question.ignored)
        return found

    def _score(self, asked: _Asked) -> Answer:
        return {"answers": {name: asked.by(name, asked.question.reasons) for name in self.champions.scorers}}

    def _reasons(self, asked: _Asked) -> Answer:
        from models.contract import Explains

        explained = [name for name, scorer in self.champions.scorers.items() if isinstance(scorer.model, Explains)]
        if not explained:
            raise Refused(404, "No champion here can say what moved its answer.")
        return {"answers": {name: asked.by(name, asked.question.reasons or REASONS_SHOWN) for name in explained}}

    def _embedding(self, asked: _Asked) -> Answer:
        from models.contract import Embeds

        found = {}
        for name, scorer in self.champions.scorers.items():
            if isinstance(scorer.model, Embeds):
                journey, _ = asked.journey(scorer)
                vector = scorer.model.embed(asked.snapshot(journey))[0]
                found[name] = {
                    "version": scorer.model.version,
                    "vector": [float(value) for value in vector],
                    "model": _model(self.champions.origins[name]),
                }
        if not found:
            raise Refused(404, "No champion here has an encoder, so there is no embedding.")
        return {"embeddings": found}


@dataclass(frozen=True)
class _Asked:
    """A question and its events, packed once for all champions that read them in the same way."""

    champions: Champions
    question: Question
    packed: dict[str, tuple[Journeys, int]]
    watch: Watch | None = None

    def journey(self, scorer: Scorer) -> tuple[Journeys, int]:
        """The events as the scorer packs them, and how many were left out as repeated."""
        key = scorer.reads
        if key not in self.packed:
            question = self.question
            self.packed[key] = scorer.pack_request(
                [""] * len(question.t), question.t, question.categories, question.numbers
            )
        return self.packed[key]

    def snapshot(self, journey: Journeys) -> Any:
        """What is known at `as_of`.

        Raises:
            Refused: when nothing is.
        """
        snapshot = journey.at(self.question.as_of)
        if snapshot.stop[0] == 0:
            when = as_text(self.question.as_of)
            raise Refused(422, f"No event lies before as_of, {when}: nothing to predict from.")
        return snapshot

    def by(self, name: str, reasons: int) -> Answer:
        """One champion's answer."""
        scorer, origin = self.champions.scorers[name], self.champions.origins[name]
        journey, repeated = self.journey(scorer)
        snapshot = self.snapshot(journey)
        given, why = scorer.score_one(snapshot, reasons=reasons)
        if self.watch is not None:
            self.watch.saw(self.champions, name, snapshot, given, self.question.customer_id)
        strange = [name for name in journey.categories["touchpoint"].names if name not in scorer.known_touchpoints]
        answer: Answer = {**given, "model": _model(origin), "unknown": {}}
        if strange and scorer.touchpoints:
            touchpoints = self.question.categories["touchpoint"]
            answer["unknown"] = {name: sum(1 for value in touchpoints if value == name) for name in strange}
        if repeated:
            answer["repeated_events"] = repeated
        if reasons:
            answer["reasons"] = [_reason(reason) for reason in why]
        return answer


def _model(origin: Origin) -> dict[str, str]:
    return {"name": origin.name, "version": origin.version}


def _reason(reason: Any) -> dict[str, Any]:
    """A reason as JSON; a feature without a value says null."""
    value = None if reason.value != reason.value else reason.value
    return {"subject": reason.subject, "text": reason.text, "contribution": reason.contribution, "value": value}

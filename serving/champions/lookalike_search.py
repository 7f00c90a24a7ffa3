"""Look-alikes in the service: the customers nearest to a list, or to a journey, under keyed hashes.

    {"customers": ["3f…", …], "top": 100}            # hashes, as the answer gives them, or as the key makes them
    {"events": […], "as_of": …, "top": 100}          # a journey that may be new

Available only where the bento was packaged with `--lookalikes`: the vectors are an artefact of their own.
"""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NotRequired

from pydantic import Field, Strict, StringConstraints, TypeAdapter, ValidationError

from serving.requests.schemas import (
    EVENTS,
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
    from models.segments.lookalikes import Lookalikes
    from models.sequence.embedder import Embedder
    from serving.champions.champions import Champions

FOLDER, ENCODER = "lookalikes", "encoder"
MAX_CUSTOMERS, DEFAULT_TOP = 1_000, 100
SHAPE = '{"customers": ["3f…"], "top": 100} or {"events": […], "top": 100}'
FIELDS = ("customers", "events", "as_of", "top", "form")
Hash = Annotated[str, StringConstraints(strict=True, pattern=r"^[0-9a-f]{64}$")]


class LookalikeSearch:
    """Answers of `/lookalikes`.

    Args:
        champions: the packaged models, one of which has look-alikes.
        name: of that one.
    """

    def __init__(self, champions: Champions, name: str) -> None:
        self.champions, self.name = champions, name
        self.folder: Path = champions.folders[name] / FOLDER
        self.adapter: TypeAdapter[Any] = TypeAdapter(_request_type(champions.decoder.event_type))

    @cached_property
    def vectors(self) -> Lookalikes:
        """The customers' vectors, by the encoder that made them."""
        from models.segments.lookalikes import Lookalikes  # not before the first request: most services have none

        return Lookalikes.load(self.folder, self.embedder.version)

    @cached_property
    def embedder(self) -> Embedder:
        """The encoder."""
        from models.sequence.embedder import Embedder  # as above

        return Embedder.load(self.folder / ENCODER)

    @cached_property
    def _rows(self) -> dict[str, int]:
        """Hash → row of its vector."""
        hashes = self.vectors.hashes_
        return {} if hashes is None else {bytes_.tobytes().hex(): row for row, bytes_ in enumerate(hashes)}

    def answer(self, body: bytes, request_id: str, now: datetime | None = None) -> dict[str, Any]:
        """The nearest customers, nearest first.

        Args:
            body: the request, JSON.
            request_id: echoed.
            now: what `as_of` defaults to.

        Raises:
            RequestError: when the request cannot be answered.
        """
        try:
            request = self.adapter.validate_json(body)
        except ValidationError as error:
            raise request_error(error, SHAPE, FIELDS) from None
        reject_repeated_keys(body, len(request) + sum(map(len, request.get("events") or ())))
        if ("customers" in request) == ("events" in request):
            raise RequestError(422, f"Send either customers or events: {SHAPE}.")
        top, form = request.get("top") or DEFAULT_TOP, request.get("form")
        answer: dict[str, Any] = {"version": self.vectors.version, "request_id": request_id}
        if "customers" in request:
            nearest = self.vectors.nearest(self._vector_rows(request["customers"]), top, form)
        else:
            as_of = as_of_moment(request.get("as_of"), now or datetime.now(UTC))
            vector = self._embedded(request["events"], as_of)
            nearest = self.vectors.nearest_to(vector, self.embedder.version, top, form)
            answer["as_of"] = as_text(as_of)
        measure = "similarity" if "similarity" in nearest else "distance"
        rows = zip(nearest["hash"], nearest[measure], strict=True)
        return answer | {"nearest": [{"customer": customer, measure: float(value)} for customer, value in rows]}

    def _vector_rows(self, hashes: list[str]) -> list[int]:
        rows = [self._rows[customer] for customer in hashes if customer in self._rows]
        if missing := len(hashes) - len(rows):
            raise RequestError(422, f"{missing} of {len(hashes)} customers have no vector here: leave them out.")
        return rows

    def _embedded(self, events: list[dict[str, Any]], as_of: int) -> Any:
        scorer = self.champions.scorers[self.name]
        t, categories, numbers = columns_of(events, self.champions.columns)
        journey, _ = scorer.pack_request([""] * len(t), t, categories, numbers)
        snapshot = journey.at(as_of)
        if snapshot.stop[0] == 0:
            raise RequestError(422, f"No event lies before as_of, {as_text(as_of)}: nothing to compare.")
        return self.embedder.embed(snapshot)

    def json_schema(self) -> dict[str, Any]:
        """The request's JSON schema, for the OpenAPI document."""
        return self.adapter.json_schema(ref_template="#/components/schemas/{model}")


def _request_type(event: Any) -> Any:
    fields: dict[str, Any] = {
        "customers": NotRequired[Annotated[list[Hash], Field(min_length=1, max_length=MAX_CUSTOMERS)]],
        "events": NotRequired[Annotated[list[event], Field(min_length=1, max_length=EVENTS)]],
        "as_of": NotRequired[Time | None],
        "top": NotRequired[Annotated[int, Strict(), Field(ge=1, le=MAX_CUSTOMERS)] | None],
        "form": NotRequired[Literal["mean", "max"] | None],
    }
    return typed_dict("LookalikesRequest", fields)

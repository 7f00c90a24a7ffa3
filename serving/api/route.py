"""What a route of the service is, and one set of champions in service with its routes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from starlette.responses import Response

from serving.answers.answers import Answer, Answerer, AnswerObserver
from serving.api import schemas
from serving.champions.champions import Champions

if TYPE_CHECKING:
    from serving.answers.batches import BatchAnswerer

BODY_BYTES = 8 * 1024 * 1024
Schema = dict[str, Any]
AnswerFunction = Callable[["Service", bytes, str], "Answer | Response"]  # service, body, request id -> answer
StreamFunction = Callable[["Service", bytes, Mapping[str, str], str], tuple[str, Iterator[bytes]]]


@dataclass(frozen=True)
class ServiceRoute:
    """One route: what it answers, what it takes, and who may call it.

    Attributes:
        path: behind the slash; champions' names must differ from it.
        summary: one line for the documentation.
        answer: answers a call; None where `stream` or BentoML does.
        stream: answers a call in pieces: media type and bytes.
        request: name of the body's schema under the document's `components`; None for a route without a body.
        response: schema of the answer; None for one that is no JSON.
        example: a body that can be sent as it stands.
        description: more for the documentation.
        media_in, media_out: further media types of body and answer, beside JSON.
        query: names of parameters in the URL → their documentation.
        max_bytes: of the body.
        needs_token: False for a route that is open.
        micro_batched: `answer` is that of a champion or of all, so waiting requests may share one call.
        warm_up: "start": the example is sent before the service is ready; "background": just after it; else never.
        in_document: whether the documentation shows it.
        available: whether these champions can answer it.
    """

    path: str
    summary: str
    answer: AnswerFunction | None = None
    stream: StreamFunction | None = None
    request: str | None = None
    response: Callable[[Champions], Schema] | None = None
    example: Callable[[Champions], Schema] | None = None
    description: str = ""
    media_in: tuple[str, ...] = ()
    media_out: tuple[str, ...] = ()
    query: Mapping[str, str] | None = None
    max_bytes: int = BODY_BYTES
    needs_token: bool = True
    micro_batched: bool = False
    warm_up: str = "never"
    in_document: bool = True
    available: Callable[[Champions], bool] = lambda champions: True

    @property
    def methods(self) -> tuple[str, ...]:
        """POST for a route with a body, else GET and HEAD."""
        return ("POST",) if self.request else ("GET", "HEAD")

    @property
    def by_bentoml(self) -> bool:
        """Whether BentoML answers it."""
        return self.answer is None and self.stream is None

    def operation(self, champions: Champions) -> Schema:
        """The route as an OpenAPI operation."""
        content: Schema = schemas.json_content(self.response(champions)) if self.response else {"text/plain": {}}
        content |= {media: schemas.media_schema(media) for media in self.media_out}
        operation: Schema = {
            "operationId": self.path,
            "summary": self.summary,
            "responses": {"200": {"description": "OK", "content": content}},
        }
        if self.description:
            operation["description"] = self.description
        if not self.needs_token:
            operation["security"] = []
        if self.query:
            operation["parameters"] = [
                {"name": name, "in": "query", "schema": schemas.MOMENT, "description": words}
                for name, words in self.query.items()
            ]
        if self.request:
            body = schemas.json_content(schemas.reference(self.request), self.example and self.example(champions))
            body |= {media: schemas.media_schema(media) for media in self.media_in}
            operation["requestBody"] = {"required": True, "content": body}
            operation["responses"] |= schemas.error_responses(self.max_bytes, negotiated=bool(self.media_out))
        return {self.methods[0].lower(): operation}


class Service:
    """One set of champions in service, and all that answers for them.

    Args:
        champions: the packaged models.
        routes: those that these champions can answer.
        observer: receives every answer.
    """

    def __init__(
        self, champions: Champions, routes: Mapping[str, ServiceRoute], observer: AnswerObserver | None = None
    ) -> None:
        self.champions, self.routes, self.observer = champions, routes, observer

    @cached_property
    def answerer(self) -> Answerer:
        """Answers for one customer."""
        return Answerer(self.champions, self.observer)

    @cached_property
    def batches(self) -> BatchAnswerer:
        """Answers for many customers."""
        from serving.answers.batches import BatchAnswerer  # it imports pyarrow, which BentoML's parent does not need

        return BatchAnswerer(self.champions, self.observer)

    @cached_property
    def document(self) -> Schema:
        """OpenAPI 3.1, with examples that can be sent as they stand."""
        documented = (route for route in self.routes.values() if route.in_document)
        paths = {f"/{route.path}": route.operation(self.champions) for route in documented}
        return schemas.DOCUMENT | {"paths": paths, "components": schemas.components(self.champions)}

"""The packaged models, and the whole way from a request's bytes to an answer; nothing here knows of HTTP or BentoML.

A bento holds one scoring folder a champion under `champions/`, each with a `champion.json` that says where it came
from. The routes are known from those small files; models are loaded when the service starts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import DataError
from features.schema import EventSchema
from serving.schemas import Columns, Decoder, Question, Refused, as_text

if TYPE_CHECKING:
    from models.packaged import Scorer

ABOUT = "champion.json"
BENTOML_PATHS = ("livez", "readyz", "healthz", "metrics", "docs.json", "schema.json", "static_content")
OWN_PATHS = ("model", "openapi.json", "score", "score_batch", "embedding", "segment", "lookalikes", "reasons")
RESERVED = frozenset((*BENTOML_PATHS, *OWN_PATHS))


@dataclass(frozen=True)
class Origin:
    """Where a champion came from: what labels, answers and reviewers name it by.

    Attributes:
        name, version: of the registered model; version "0" for a folder that was never registered.
        alias: that was resolved, such as "champion"; empty where there was none.
        run_id: the MLflow run that logged it.
        data_fingerprint: of the training log.
    """

    name: str
    version: str = "0"
    alias: str = ""
    run_id: str = ""
    data_fingerprint: str = ""

    def write(self, folder: Path) -> None:
        """Leave `champion.json` in the scoring folder."""
        (folder / ABOUT).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


class Champions:
    """Every champion of a service by route.

    Args:
        folder: holds one scoring folder a champion; none at all is a service without tasks.

    Raises:
        DataError: two champions with one name, or columns that are text for one and numbers for another.
    """

    def __init__(self, folder: Path) -> None:
        self.folders: dict[str, Path] = {}
        self.origins: dict[str, Origin] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.glob("*/task.json")):
            self._add(path.parent)
        self.names = self._by_route()

    @cached_property
    def scorers(self) -> dict[str, Scorer]:
        """The loaded models by name; this is what takes seconds at the start."""
        from models.packaged import Scorer

        return {name: Scorer.load(folder) for name, folder in self.folders.items()}

    @cached_property
    def columns(self) -> Columns:
        """Every field of an event that some champion looks at."""
        schemas = [EventSchema.from_dict(task["schema"]) for task in self.tasks.values()] or [EventSchema()]
        texts = dict.fromkeys(name for schema in schemas for name in schema.category_columns)
        numbers = dict.fromkeys(name for schema in schemas for name in schema.number_columns)
        if both := sorted(set(texts) & set(numbers)):
            raise DataError(f"'{both[0]}' is text for one champion and a number for another: package them apart.")
        return Columns(tuple(texts), tuple(numbers))

    @cached_property
    def decoder(self) -> Decoder:
        """Bytes → `Question` for these columns."""
        return Decoder(self.columns)

    def answer(self, route: str, body: bytes, request_id: str, now: datetime | None = None) -> dict[str, Any]:
        """Everything that a route does.

        Args:
            route: a name or kind of task.
            body: the request, JSON.
            request_id: echoed.
            now: what `as_of` defaults to.

        Raises:
            Refused: when there is no such task, or the request cannot be answered.
        """
        if route not in self.names:
            raise Refused(404, f"There is no task '{route[:60]}' here: this service has {self._listed()}.")
        question = self.decoder.decode(body, now)
        return self._score(self.names[route], question, request_id)

    def describe(self) -> dict[str, Any]:
        """What is packaged, for `GET /model`."""
        return {
            "models": [
                asdict(origin)
                | {
                    "task": self.tasks[name]["task"],
                    "routes": [f"/{route}" for route, of in self.names.items() if of == name],
                    "answers": self.tasks[name]["answers"],
                    "columns": EventSchema.from_dict(self.tasks[name]["schema"]).to_dict(),
                    "about": self.tasks[name]["about"],
                }
                for name, origin in self.origins.items()
            ]
        }

    def warm_up(self) -> None:
        """Load every model and score an invented journey, so that the first caller does not wait for a compiler."""
        for name, scorer in self.scorers.items():
            event: dict[str, Any] = dict.fromkeys(scorer.schema.category_columns, "x")
            event |= dict.fromkeys(scorer.schema.number_columns, 1.0)
            event |= {"timestamp": "2024-01-01T00:00:00Z", "touchpoint": (*scorer.touchpoints, "visit")[0]}
            later = event | {"timestamp": "2024-01-03T00:00:00Z"}
            body = json.dumps({"events": [event, later, later], "reasons": 1}).encode()
            self.answer(name, body, "warm-up", datetime(2024, 2, 1, tzinfo=UTC))

    def _add(self, folder: Path) -> None:
        task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        about = folder / ABOUT
        origin = Origin(**json.loads(about.read_text())) if about.is_file() else Origin(str(task["task"]["name"]))
        name = route_name(origin.name)
        if name in self.folders:
            raise DataError(f"Two champions are named '{name}': package one of them, or rename the other.")
        self.folders[name], self.origins[name], self.tasks[name] = folder, origin, task

    def _by_route(self) -> dict[str, str]:
        """Route → name: every name, and a kind of task where one champion alone is of it."""
        kinds: dict[str, list[str]] = {}
        for name, task in self.tasks.items():
            kinds.setdefault(str(task["task"].get("kind", "")), []).append(name)
        alone = {kind: names[0] for kind, names in kinds.items() if kind and kind != "labels" and len(names) == 1}
        return alone | {name: name for name in self.tasks}

    def _score(self, name: str, question: Question, request_id: str) -> dict[str, Any]:
        scorer, origin = self.scorers[name], self.origins[name]
        journey, repeated = scorer.journey(question.t, question.categories, question.numbers)
        given, why = scorer.score_one(journey, question.as_of, reasons=question.reasons)
        if given is None:
            raise Refused(422, f"No event lies before as_of, {as_text(question.as_of)}: nothing to predict from.")
        answer: dict[str, Any] = {
            **given,
            "as_of": as_text(question.as_of),
            "model": {"name": origin.name, "version": origin.version},
            "unknown": _unknown(journey.categories["touchpoint"].names, scorer, question.categories["touchpoint"]),
            "request_id": request_id,
        }
        if question.customer_id is not None:
            answer["customer_id"] = question.customer_id
        if question.ignored:
            answer["ignored_fields"] = list(question.ignored)
        if repeated:
            answer["repeated_events"] = repeated
        if question.reasons:
            answer["reasons"] = [_reason(reason) for reason in why]
        return answer

    def _listed(self) -> str:
        return ", ".join(sorted(self.names)) or "none"


def route_name(name: str) -> str:
    """A registered model's name as a part of a URL.

    >>> route_name("Online retail/churn")
    'Online_retail_churn'

    Raises:
        DataError: for a name that the service itself uses.
    """
    route = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "task"
    if route in RESERVED:
        raise DataError(f"No model can be served as '{route}': the service uses that path. Register another name.")
    return route


def _unknown(names: tuple[str, ...], scorer: Scorer, given: Any) -> dict[str, int]:
    """Touchpoint never seen in training → events of it."""
    strange = [name for name in names if name not in scorer.known_touchpoints] if scorer.touchpoints else []
    return {name: sum(1 for value in given if value == name) for name in strange}


def _reason(reason: Any) -> Mapping[str, Any]:
    """A reason as JSON; a feature without a value says null."""
    value = None if reason.value != reason.value else reason.value
    return {"subject": reason.subject, "text": reason.text, "contribution": reason.contribution, "value": value}

"""The packaged models: where they came from, their routes, and the columns that they read.

A bento holds one scoring folder a champion under `champions/`, each with a `champion.json` that says where it came
from. The routes are known from those small files; models are loaded when the service starts.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from features.errors import DataError
from features.events.schema import EventSchema
from serving.requests.schemas import Columns, Decoder

if TYPE_CHECKING:
    from models.scoring.scorer import Scorer

ORIGIN_FILE = "champion.json"


@dataclass(frozen=True)
class Origin:
    """Where a champion came from; labels of the bento and answers carry it.

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

    @property
    def model(self) -> dict[str, str]:
        """Name and version, as answers carry them."""
        return {"name": self.name, "version": self.version}

    def write(self, folder: Path) -> None:
        """Leave `champion.json` in the scoring folder."""
        (folder / ORIGIN_FILE).write_text(json.dumps(asdict(self), indent=1), encoding="utf-8")


class Champions:
    """Every champion of a service by route.

    Args:
        folder: holds one scoring folder a champion; none at all is a service without tasks.

    Raises:
        DataError: two champions with one name, or columns that are text for one and numbers for another.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folders: dict[str, Path] = {}
        self.origins: dict[str, Origin] = {}
        self.tasks: dict[str, dict[str, Any]] = {}
        for path in sorted(folder.glob("*/task.json")):
            self._add(path.parent)
        self.names = self._by_route()

    @cached_property
    def scorers(self) -> dict[str, Scorer]:
        """The loaded models by name; this is what takes seconds at the start."""
        from models.scoring.scorer import Scorer

        return {name: Scorer.load(folder) for name, folder in self.folders.items()}

    @property
    def with_lookalikes(self) -> str | None:
        """The champion that was packaged with look-alikes, if one was."""
        return next((name for name, folder in self.folders.items() if (folder / "lookalikes").is_dir()), None)

    @cached_property
    def columns(self) -> Columns:
        """Every field of an event that some champion looks at.

        Raises:
            DataError: a field that is text for one champion and a number for another.
        """
        schemas = [EventSchema.from_dict(task["schema"]) for task in self.tasks.values()] or [EventSchema()]
        texts = dict.fromkeys(name for schema in schemas for name in schema.category_columns)
        numbers = dict.fromkeys(name for schema in schemas for name in schema.number_columns)
        if both := sorted(set(texts) & set(numbers)):
            raise DataError(f"'{both[0]}' is text for one champion and a number for another: package them apart.")
        return Columns(tuple(texts), tuple(numbers))

    @cached_property
    def decoder(self) -> Decoder:
        """Bytes → `CustomerEvents` for these columns."""
        return Decoder(self.columns)

    @cached_property
    def identity(self) -> str:
        """12 hexadecimal digits of SHA-256 over what the champions say of themselves."""
        text = json.dumps([self.tasks, {name: asdict(origin) for name, origin in self.origins.items()}], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def describe(self) -> dict[str, Any]:
        """What is packaged, for `GET /model`."""
        return {
            "champions": self.identity,
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
            ],
        }

    def sample_request(self, name: str) -> dict[str, Any]:
        """A request that this champion can answer, with every field that it looks at."""
        scorer = self.scorers[name]
        event: dict[str, Any] = dict.fromkeys(scorer.schema.category_columns, "x")
        event |= dict.fromkeys(scorer.schema.number_columns, 1.0)
        event |= {"timestamp": "2024-01-01T00:00:00Z", "touchpoint": (*scorer.touchpoints, "visit")[0]}
        later = event | {"timestamp": "2024-01-03T00:00:00Z"}
        return {"events": [event, later, later], "reasons": 1, "as_of": "2024-02-01T00:00:00Z"}

    def _add(self, folder: Path) -> None:
        task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
        about = folder / ORIGIN_FILE
        origin = Origin(**json.loads(about.read_text())) if about.is_file() else Origin(str(task["task"]["name"]))
        name = route_name(origin.name)
        if name in self.folders:
            raise DataError(f"Two champions are named '{name}': package one of them, or rename the other.")
        self.folders[name], self.origins[name], self.tasks[name] = folder, origin, task

    def _by_route(self) -> dict[str, str]:
        """Route → name: every name, and a kind of task that only one champion has."""
        kinds: dict[str, list[str]] = {}
        for name, task in self.tasks.items():
            kinds.setdefault(str(task["task"].get("kind", "")), []).append(name)
        by_kind = {kind: names[0] for kind, names in kinds.items() if kind and kind != "labels" and len(names) == 1}
        return by_kind | {name: name for name in self.tasks}

    @property
    def listed(self) -> str:
        """The routes of tasks, for people."""
        return ", ".join(sorted(self.names)) or "none"


def route_name(name: str) -> str:
    """A registered model's name as a part of a URL.

    >>> route_name("Online retail/churn")
    'Online_retail_churn'
    """
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("._") or "task"

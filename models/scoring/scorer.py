"""A scoring folder: a model with all that scoring raw events needs, and the code that scores.

A model answers with a `probability`, or with columns that it names (`models.contract.AnswerModel`): the columns of a
scored frame and the fields of the service's answer follow from them. `journeylab score`, the MLflow model
(`models.pyfunc`) and the service (`serving.service`) all call `Scorer`, so they give the same numbers. A folder holds
what `models.saving` wrote, `task.json` and, once a run has recorded one, a sample of journeys with their answers
(`models.scoring.golden_sample`).

    scorer = Scorer.load(Path("runs/churn/scoring"))
    scored = scorer.score_events(events, cutoffs)     # frames: canonical event rows; customer_id, cutoff
    scored.frame                                      # customer_id, cutoff, probability, reason
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.errors import DataError
from features.events.checks import CheckedEvents
from features.events.schema import EventSchema
from features.events.stages import stage_of
from features.events.table_reader import TableReader, canonical_reader
from features.journeys.journeys import Journeys, Snapshots, id_texts
from features.journeys.packing import pack, pack_columns
from features.timestamps import NOT_A_TIME, microseconds
from models.contract import Explainer, ExtraPackages, Reason, SavableModel, Vector, answer_columns, answers
from models.saving import load_model, save_model

FORMAT = 1
BASE_PACKAGES = ("lightgbm", "numba", "numpy", "pandas", "pyarrow", "pydantic", "scipy")
ROWS_AT_ONCE = 50_000  # bounds the feature matrix; a row's answer does not depend on its block

UNKNOWN_CUSTOMER = "the events hold no such customer"
NO_EVENT_BEFORE = "the customer has no event before the cutoff"
NO_CUTOFF = "the cutoff is no ISO 8601 time"
NO_CUSTOMER = "the customer_id is missing"

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ScoredBatch:
    """The result of scoring a batch.

    Attributes:
        frame: one row for each snapshot: `customer_id, cutoff` (UTC, naive, µs), the model's answers, such as
            `probability` (NaN where none can be given), and `reason` (why none; missing where there is one).
        reasons: for each row what moved the probability; empty lists where there is no reason or none were requested.
        unknown: touchpoint never seen in training → events of it.
        quarantined: reason → events that the checks rejected.
        quarantine: those events, see `features.events.checks.CheckedEvents`.
        notes: what was assumed about the events.
    """

    frame: pd.DataFrame
    reasons: list[list[Reason]]
    unknown: dict[str, int]
    quarantine_counts: dict[str, int] = field(default_factory=dict)
    quarantine: pa.Table | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Scorer:
    """A fitted model, its task, and the events it understands.

    Attributes:
        model: gives calibrated probabilities for snapshots, or other answers (`models.contract.AnswerModel`).
        task: at least `name`, `kind` ("churn", "conversion", "labels") and `horizon_days`.
        source: how the training log was read, as `features.events.source.EventSource` dumps it.
        schema: the columns beyond the canonical ones.
        touchpoints: every touchpoint seen in training; others are counted in the answer.
        about: data fingerprint, training window, base rate, versions: for people and labels.
    """

    model: SavableModel
    task: dict[str, Any]
    schema: EventSchema = field(default_factory=EventSchema)
    source: dict[str, Any] = field(default_factory=dict)
    touchpoints: tuple[str, ...] = ()
    about: dict[str, Any] = field(default_factory=dict)

    def save(self, folder: Path) -> Path:
        """Write model and `task.json` into `folder` (made where missing) and return it."""
        save_model(self.model, folder)
        data = {
            "format": FORMAT,
            "task": self.task,
            "source": self.source,
            "schema": self.schema.to_dict(),
            "touchpoints": list(self.touchpoints),
            "answers": self.answer_columns,
            "about": self.about,
        }
        text = json.dumps(data, indent=1, ensure_ascii=False, default=str)
        (folder / "task.json").write_text(text, encoding="utf-8")
        return folder

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; runs no code from the folder.

        Raises:
            DataError: when the folder is no scoring folder, or one of another format.
        """
        data = read_task(folder)
        return cls(
            model=load_model(folder),
            task=data["task"],
            schema=EventSchema.from_dict(data["schema"]),
            source=data["source"],
            touchpoints=tuple(data["touchpoints"]),
            about=data["about"],
        )

    @cached_property
    def touchpoint_set(self) -> frozenset[str]:
        """`touchpoints` as a set."""
        return frozenset(self.touchpoints)

    @property
    def name(self) -> str:
        """The task's name: the registered model, the route of the service."""
        return str(self.task["name"])

    def score_events(
        self,
        events: pa.Table | pd.DataFrame,
        cutoffs: pd.DataFrame | None = None,
        *,
        as_of: Any = None,
        reasons: bool = False,
    ) -> ScoredBatch:
        """Probabilities from canonical event rows.

        Args:
            events: as `features.events.checks.check_events` takes them; bad rows go to quarantine and are counted.
            cutoffs: `customer_id, cutoff`, one row out for each row in, in the same order. Without them every
                customer of the batch gets one row.
            as_of: the cutoff of all customers where there are no `cutoffs`; by default just after the last event.
            reasons: also say what moved each probability, where the model can.

        Raises:
            DataError: no event log at all, or `cutoffs` without its columns.
        """
        journeys, checked = self.read(events)
        scored = self.score_journeys(journeys, cutoffs, as_of=as_of, reasons=reasons)
        return ScoredBatch(
            scored.frame, scored.reasons, scored.unknown, checked.counts, checked.quarantine, checked.notes
        )

    def read(self, events: pa.Table | pd.DataFrame) -> tuple[Journeys, CheckedEvents]:
        """Canonical event rows, checked and packed as in training; and what the checks found.

        Raises:
            DataError: no event log at all.
        """
        checked = self.reader.check(events)
        return pack(checked.events, self.schema), checked

    @cached_property
    def reader(self) -> TableReader:
        """How canonical rows are read, as in training."""
        settings = {name: self.source[name] for name in ("adapter", "duplicates", "stages") if name in self.source}
        return canonical_reader(self.schema, **settings)

    def score_journeys(
        self,
        journeys: Journeys,
        cutoffs: pd.DataFrame | None = None,
        *,
        as_of: Any = None,
        reasons: bool = False,
        count_unknown: bool = True,
    ) -> ScoredBatch:
        """The same for a packed log; `count_unknown` takes one more pass over the whole log."""
        if cutoffs is None:
            ids = np.asarray(journeys.customer_ids.to_pylist(), dtype=object)
            cutoff = np.full(journeys.n_customers, _batch_cutoff(journeys, as_of), dtype=np.int64)
        else:
            ids, cutoff = _ids_and_cutoffs(cutoffs)
        snapshots = journeys.at(cutoff, journeys.index_of(ids))
        answered, why_not = self.answers_or_reasons(snapshots, ids)
        stamps = np.where(cutoff == NOT_A_TIME, np.datetime64("NaT", "us"), cutoff.view("datetime64[us]"))
        return ScoredBatch(
            pd.DataFrame({"customer_id": ids, "cutoff": stamps, **answered, "reason": why_not}),
            self._reasons(snapshots, np.flatnonzero(why_not == None), reasons),  # noqa: E711
            unknown_touchpoints(journeys, self.touchpoints) if count_unknown else {},
        )

    def answers_or_reasons(
        self, snapshots: Snapshots, ids: npt.NDArray[np.object_]
    ) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.object_]]:
        """Name → (n,) answers, NaN or None where there is none, and (n,) why there is none, None where there is one.

        Args:
            snapshots: any, also of unknown customers and without events.
            ids: (n,) identifiers of the customers, None where missing.
        """
        why_not = _why_not(snapshots, ids)
        usable = np.flatnonzero(why_not == None)  # noqa: E711
        if len(usable) == len(snapshots):
            return self.answers(snapshots), why_not
        usable_answers = self.answers(snapshots.take(usable))
        return {name: _spread(values, usable, len(snapshots)) for name, values in usable_answers.items()}, why_not

    def probabilities(self, snapshots: Snapshots) -> Vector:
        """(n,) probabilities of a model that gives them."""
        return self.answers(snapshots)["probability"]

    def answers(self, snapshots: Snapshots) -> dict[str, npt.NDArray[Any]]:
        """Name → (n,) answers, block by block, so that the features of a large log need not fit in memory."""
        if len(snapshots) == 0:
            return {name: np.zeros(0, _dtype(kind)) for name, kind in self.answer_columns.items()}
        if len(snapshots) <= ROWS_AT_ONCE:
            return answers(self.model, snapshots)
        blocks = np.array_split(np.arange(len(snapshots)), -(-len(snapshots) // ROWS_AT_ONCE))
        parts = [answers(self.model, snapshots.take(rows)) for rows in blocks]
        return {name: np.concatenate([block[name] for block in parts]) for name in parts[0]}

    @property
    def answer_columns(self) -> dict[str, str]:
        """Name → "double" or "string" of what the model answers."""
        return answer_columns(self.model)

    def answer_rows(self, snapshots: Snapshots) -> list[dict[str, Any]]:
        """(n,) the model's answers about few snapshots that have events, as plain numbers and texts by name.

        Args:
            snapshots: as known at their cutoffs; of a log that `pack_request` made, or any other.
        """
        columns = {name: values.tolist() for name, values in answers(self.model, snapshots).items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]

    def reasons(self, snapshot: Snapshots, most: int) -> list[Reason]:
        """At most `most` reasons for the answer to one snapshot; none where the model is no `Explainer`."""
        return self.model.reasons(snapshot, most)[0] if isinstance(self.model, Explainer) else []

    @cached_property
    def packing_key(self) -> str:
        """Scorers with the same key pack the same events into the same log."""
        reader = self.reader
        return json.dumps([self.schema.to_dict(), list(reader.stages.items()), reader.options.duplicates])

    def pack_request(
        self,
        owners: Sequence[str],
        t: Ints,
        categories: Mapping[str, Sequence[str | None]],
        numbers: Mapping[str, Sequence[float | None]],
    ) -> tuple[Journeys, list[str]]:
        """Events packed as `score_events` would pack them but without a table, for the service.

        Args:
            owners: (n,) the customer of each event.
            t: (n,) µs since 1970 UTC, in source order.
            categories: column → (n,) text, None where missing; `touchpoint` must be there.
            numbers: column → (n,) finite numbers, None where missing.

        Returns:
            The log, and the owners of events that were dropped as equal to an earlier one. Columns outside the schema
            are ignored.
        """
        in_schema = (*self.schema.category_columns, *self.schema.number_columns)
        columns = {name: values for name, values in (*categories.items(), *numbers.items()) if name in in_schema}
        if stages := self.reader.stages:
            stages_sent = columns.get("stage") or [None] * len(t)
            derived = [stage_of(name, stages) for name in columns["touchpoint"]]  # type: ignore[arg-type]
            columns["stage"] = [first or second for first, second in zip(derived, stages_sent, strict=True)]
        repeated: list[str] = []
        if self.reader.options.duplicates == "quarantine":  # after the stages, as `TableReader` does it
            rows = _first_of_equals(t, {"": owners} | columns)
            if len(rows) < len(t):
                repeated = [owners[row] for row in sorted(set(range(len(t))) - set(rows))]
                t, columns = t[rows], {name: [values[row] for row in rows] for name, values in columns.items()}
                owners = [owners[row] for row in rows]
        return pack_columns(owners, t, columns, self.schema), repeated

    def _reasons(self, snapshots: Snapshots, usable: Ints, reasons: bool) -> list[list[Reason]]:
        out: list[list[Reason]] = [[] for _ in range(len(snapshots))]
        if reasons and isinstance(self.model, Explainer) and len(usable):
            for row, row_reasons in zip(usable, self.model.reasons(snapshots.take(usable)), strict=True):
                out[row] = row_reasons
        return out


def _spread(values: npt.NDArray[Any], rows: Ints, n: int) -> npt.NDArray[Any]:
    """(n,) with `values` at `rows`, and NaN or None elsewhere."""
    out = np.full(n, np.nan) if values.dtype.kind == "f" else np.full(n, None, dtype=object)
    out[rows] = values
    return out


def _dtype(kind: str) -> Any:
    return np.float64 if kind == "double" else object


def read_task(folder: Path) -> dict[str, Any]:
    """The `task.json` of a scoring folder.

    Raises:
        DataError: when there is none, or it is of another format.
    """
    path = folder / "task.json"
    if not path.is_file():
        raise DataError(f"{folder} is no scoring folder: it has no task.json. Give the one that a training run saved.")
    data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    if data.get("format") != FORMAT:
        raise DataError(
            f"{path} has format {data.get('format')!r}; this version reads {FORMAT}. Install the version that saved it."
        )
    return data


def _first_of_equals(t: Ints, columns: Mapping[str, Sequence[Any]]) -> list[int]:
    """Rows that are not equal to an earlier one in every column."""
    firsts: dict[tuple[Any, ...], int] = {}
    for row, values in enumerate(zip(t.tolist(), *columns.values(), strict=True)):
        firsts.setdefault(values, row)
    return list(firsts.values())


def visible_touchpoints(snapshots: Snapshots) -> tuple[str, ...]:
    """The touchpoints that any of the snapshots can see, in alphabetical order."""
    category = snapshots.journeys.categories["touchpoint"]
    edges = np.zeros(snapshots.journeys.n_events + 1, dtype=np.int64)
    np.add.at(edges, snapshots.start, 1)
    np.add.at(edges, snapshots.stop, -1)
    codes = np.unique(category.codes[np.cumsum(edges[:-1]) > 0])
    return tuple(sorted(category.names[code] for code in codes if code >= 0))


def unknown_touchpoints(journeys: Journeys, training: Sequence[str]) -> dict[str, int]:
    """Touchpoint outside `training` → number of its events."""
    category = journeys.categories["touchpoint"]
    new_codes = [code for code, name in enumerate(category.names) if name not in set(training)] if training else []
    if not new_codes:
        return {}
    counts = np.bincount(category.codes[category.codes >= 0], minlength=len(category.names))
    return {category.names[code]: int(counts[code]) for code in new_codes if counts[code]}


def package_names(model: SavableModel | None = None) -> tuple[str, ...]:
    """Names of the distributions that scoring with `model` needs, without their own dependencies."""
    return (*BASE_PACKAGES, *(model.packages if isinstance(model, ExtraPackages) else ()))


def requirements(model: SavableModel | None = None) -> tuple[str, ...]:
    """`package_names`, pinned to what is installed: for the MLflow model and `about`."""
    return tuple(pinned(name) for name in package_names(model))


def pinned(name: str) -> str:
    """`name==version` of what is installed, without the label of a local build (`2.13.0+cpu`): no index has it."""
    return f"{name}=={version(name).partition('+')[0]}"


def as_of_moment(as_of: Any) -> int:
    """An `as_of` as µs since 1970 UTC.

    Raises:
        DataError: no time, or one without a meaning.
    """
    cutoff = moments_of(pd.Series([as_of]))
    if cutoff[0] == NOT_A_TIME:
        raise DataError(
            f"as_of {as_of!r} is no ISO 8601 time: give one such as '{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}'."
        )
    return int(cutoff[0])


def _batch_cutoff(journeys: Journeys, as_of: Any) -> int:
    return journeys.end_us + 1 if as_of is None else as_of_moment(as_of)


def _ids_and_cutoffs(cutoffs: pd.DataFrame) -> tuple[npt.NDArray[np.object_], Ints]:
    """(n,) identifiers and (n,) cutoffs in µs, `NOT_A_TIME` where unreadable."""
    check_cutoffs(cutoffs)
    ids = id_texts(cutoffs["customer_id"])
    return np.asarray(ids.to_pylist(), dtype=object), moments_of(cutoffs["cutoff"])


def check_cutoffs(cutoffs: pd.DataFrame) -> None:
    """Check that a table of cutoffs has its columns.

    Raises:
        DataError: `customer_id` or `cutoff` is missing.
    """
    for name in ("customer_id", "cutoff"):
        if name not in cutoffs.columns:
            listed = ", ".join(f"'{column}'" for column in cutoffs.columns)
            raise DataError(
                f"The snapshots have no column '{name}': the columns are {listed}. Rename the one that holds it."
            )


def moments_of(values: pd.Series) -> Ints:
    """(n,) µs since 1970 UTC, `NOT_A_TIME` where a value is missing or no time."""
    values = values.reset_index(drop=True)
    if pd.api.types.is_numeric_dtype(values):  # a number has no unit
        return np.full(len(values), NOT_A_TIME)
    if not isinstance(values.dtype, pd.DatetimeTZDtype) and values.dtype.kind != "M":
        values = values.map(lambda value: None if isinstance(value, int | float) else value)
        values = pd.to_datetime(values.astype(object), format="ISO8601", utc=True, errors="coerce")
    out = np.full(len(values), NOT_A_TIME)
    present = values.notna().to_numpy()
    out[present] = microseconds(values[present])
    return out


def _why_not(snapshots: Snapshots, ids: npt.NDArray[np.object_]) -> npt.NDArray[np.object_]:
    """(n,) why a row gets no probability, None where it gets one."""
    reasons = np.full(len(snapshots), None, dtype=object)
    reasons[snapshots.stop <= snapshots.start] = NO_EVENT_BEFORE
    reasons[snapshots.customer < 0] = UNKNOWN_CUSTOMER
    reasons[snapshots.cutoff == NOT_A_TIME] = NO_CUTOFF
    reasons[[value is None for value in ids]] = NO_CUSTOMER
    return reasons

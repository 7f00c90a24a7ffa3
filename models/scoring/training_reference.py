"""The training data in short: the bins and shares that a monitor compares served rows with, saved beside the model.

    reference = TrainingReference.of(scorer, train, scorer.answers(test), test)
    reference.save(scoring_folder)                 # reference.json, beside the model
    reference.sketch(snapshot)                     # ["3710-…"]: a bin a feature, no value

At most `MOST_FEATURES` features are kept, those that matter most to the model; a model without tabular features
(segments, sequences) gets a few that describe any journey. The reference computes them itself, so that a monitor does
not need the model. A bin is a digit: 0 for the lowest values, `-` for none.
"""

from __future__ import annotations

import hashlib
import json
import math
from bisect import bisect_left
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from features.errors import DataError
from features.journeys.journeys import Snapshots
from features.tabular.features import TabularFeatures
from models.contract import FeatureModel

if TYPE_CHECKING:
    from models.scoring.scorer import Scorer

FORMAT = 1
FILE = "reference.json"
MOST_FEATURES, MOST_TOUCHPOINTS = 30, 50
BINS = 10
ROWS = 20_000  # at most; more rows would not make the comparison more exact
ANY_JOURNEY = ("volume", "recency", "rfm", "rhythm")  # groups of features for models that have none
OF_CALENDAR = ("active_weeks_", "active_months_")
UNKNOWN = "-"
DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

Floats = npt.NDArray[np.float32]
Counts = tuple[int, ...]


@dataclass(frozen=True)
class TrainingReference:
    """Bins and shares of the training rows, and of the answers on held-out rows.

    Attributes:
        features: fitted, with the columns that are monitored.
        importance: of each, share of the model's gain; 0 where the model does not use it.
        edges: of each, the inner edges of its bins, ascending: a value belongs to bin `number of edges below it`.
        counts: of each, rows by bin; the last is of rows without a value.
        answer: the model's first answer column: "probability", "segment", …
        answer_edges: inner edges of its bins where it is a number; empty otherwise.
        answer_counts: bin ("0", "1", …) or text → held-out rows.
        touchpoints: touchpoint → share of the rows whose journey has it.
        absent: column → share of the rows whose journey has no value in it.
        rows, customers: numbers of training rows that were counted, and of their customers.
        answered_rows, answered_customers: the same for the held-out rows of the answers.
        metrics: of the held-out rows, such as `auroc` and `base_rate`; only what is known.
    """

    features: TabularFeatures
    importance: tuple[float, ...]
    edges: tuple[tuple[float, ...], ...]
    counts: tuple[Counts, ...]
    answer: str
    answer_edges: tuple[float, ...]
    answer_counts: Mapping[str, int]
    touchpoints: Mapping[str, float]
    absent: Mapping[str, float]
    rows: int
    customers: int
    answered_rows: int
    answered_customers: int
    metrics: Mapping[str, float]

    @classmethod
    def of(
        cls,
        scorer: Scorer,
        train: Snapshots,
        answers: Mapping[str, npt.NDArray[Any]],
        answered: Snapshots,
        metrics: Mapping[str, float] | None = None,
    ) -> Self:
        """Count training rows and answers.

        Args:
            scorer: with the fitted model.
            train: rows that it was fitted on.
            answers: name → (m,) its answers to `answered`.
            answered: (m,) rows that it was not fitted on.
            metrics: of the model on them.

        Raises:
            DataError: no row with an event.
        """
        rows = _sample_rows(train)
        if len(rows) == 0:
            raise DataError("A reference is taken from rows with events: there are none.")
        features, importance = _watched(scorer.model, rows)
        edges, counts = _binned(features.transform(rows))
        name, values = next(iter(answers.items()))
        answer_edges = _inner_edges(values.astype(np.float32)) if values.dtype.kind == "f" else ()
        columns = (*scorer.schema.category_columns, *scorer.schema.number_columns)
        return cls(
            features=features,
            importance=importance,
            edges=edges,
            counts=counts,
            answer=name,
            answer_edges=answer_edges,
            answer_counts=_by_answer(values, answer_edges),
            touchpoints=_touchpoint_shares(rows, scorer.touchpoints),
            absent={column: float(absent(rows, column).mean()) for column in columns},
            rows=len(rows),
            customers=len(np.unique(rows.customer)),
            answered_rows=len(answered),
            answered_customers=len(np.unique(answered.customer)),
            metrics={key: float(value) for key, value in (metrics or {}).items() if math.isfinite(value)},
        )

    @cached_property
    def id(self) -> str:
        """12 hexadecimal digits of SHA-256 of the content: sketches by two references must not be compared."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()[:12]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """(f,) names of the monitored features."""
        return tuple(self.features.get_feature_names_out())

    def sketch(self, snapshots: Snapshots) -> list[str]:
        """(n,) texts of a digit a feature: its bin, or `-` where it has no value."""
        return [
            "".join(
                DIGITS[bisect_left(edges, value)] if math.isfinite(value) else UNKNOWN
                for edges, value in zip(self.edges, row, strict=True)
            )
            for row in self.features.transform(snapshots).tolist()
        ]

    def answer_bin(self, value: float) -> str:
        """The bin of a number that the model answered."""
        return str(bisect_left(self.answer_edges, float(np.float32(value))))

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        plain = {
            name: getattr(self, name)
            for name in self.__dataclass_fields__
            if name not in ("features", "edges", "counts", "answer_counts", "touchpoints", "absent", "metrics")
        }
        mappings = {name: dict(getattr(self, name)) for name in ("answer_counts", "touchpoints", "absent", "metrics")}
        bins = {"edges": [list(values) for values in self.edges], "counts": [list(values) for values in self.counts]}
        listed = {"importance": list(self.importance), "answer_edges": list(self.answer_edges)}
        return {"format": FORMAT, **plain, **listed, **bins, **mappings, "features": self.features.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: another format.
        """
        if data.get("format") != FORMAT:
            raise DataError(f"The reference has format {data.get('format')!r}; this version reads {FORMAT}.")
        values = {name: value for name, value in data.items() if name != "format"}
        values |= {name: tuple(values[name]) for name in ("importance", "answer_edges")}
        values |= {name: tuple(tuple(inner) for inner in values[name]) for name in ("edges", "counts")}
        return cls(**values | {"features": TabularFeatures.from_dict(values["features"])})

    def save(self, folder: Path) -> Path:
        """Write `reference.json` into a scoring folder."""
        path = folder / FILE
        path.write_text(json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
        return path

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """Read what `save` wrote; None for a folder without one, as older trainings left them.

        Raises:
            DataError: one that cannot be used.
        """
        path = folder / FILE
        if not path.is_file():
            return None
        try:
            return cls.from_dict(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, TypeError, KeyError) as error:
            raise DataError(f"{path} cannot be used ({type(error).__name__}): train the model again.") from None


def absent(snapshots: Snapshots, column: str) -> npt.NDArray[np.bool_]:
    """(n,) whether no event before the row's cutoff has a value in the column."""
    journeys = snapshots.journeys
    if column in journeys.categories:
        present = np.asarray(journeys.categories[column].codes) >= 0
    elif column in journeys.numbers:
        present = ~np.isnan(np.asarray(journeys.numbers[column]))
    else:
        return np.ones(len(snapshots), dtype=bool)
    if len(snapshots) == 1:
        return np.array([not present[int(snapshots.start[0]) : int(snapshots.stop[0])].any()])
    so_far = np.concatenate(([0], np.cumsum(present)))
    return np.asarray(so_far[snapshots.stop] == so_far[snapshots.start])


def _sample_rows(snapshots: Snapshots) -> Snapshots:
    """At most `ROWS` rows with events, evenly over their order."""
    rows = np.flatnonzero(snapshots.stop > snapshots.start)
    if len(rows) > ROWS:
        rows = rows[np.linspace(0, len(rows) - 1, ROWS).astype(np.int64)]
    return snapshots.take(rows)


def _watched(model: Any, rows: Snapshots) -> tuple[TabularFeatures, tuple[float, ...]]:
    """The monitored features, and the importance of each."""
    candidates = list(_tabular(model))
    if not candidates:
        features = TabularFeatures(groups=ANY_JOURNEY).fit(rows)
        names = _steady(features)[:MOST_FEATURES]
        return features.select(names), (0.0,) * len(names)
    gains: dict[str, float] = {}
    if isinstance(model, FeatureModel) and len(table := model.feature_table()):
        gains = dict(table.groupby("name")["importance"].sum().items())  # type: ignore[arg-type]
    features = max(
        candidates, key=lambda features_: sum(gains.get(name, 0.0) for name in features_.get_feature_names_out())
    )
    names = sorted(_steady(features), key=lambda name: -gains.get(name, 0.0))[:MOST_FEATURES]
    return features.select(names), tuple(float(gains.get(name, 0.0)) for name in names)


def _steady(features: TabularFeatures) -> list[str]:
    """Features that do not depend on the cutoff's weekday or month: training has few cutoffs, a service all days."""
    table = features.describe()
    of_calendar = (table["group"] == "calendar") | table["name"].str.startswith(OF_CALENDAR)
    return [str(name) for name in table.loc[~of_calendar, "name"]]


def _tabular(model: Any) -> Iterator[TabularFeatures]:
    """Fitted tabular features of a model: its own, those beside an embedding, or those of a blend's members."""
    tabular = getattr(model, "features_", None)
    for features in (tabular, getattr(tabular, "tabular", None)):
        if isinstance(features, TabularFeatures):
            yield features
    for member in getattr(model, "members", {}).values() if hasattr(getattr(model, "members", None), "values") else ():
        yield from _tabular(member)


def _binned(x: Floats) -> tuple[tuple[tuple[float, ...], ...], tuple[Counts, ...]]:
    """Inner edges and counts of each column of an (n, f) matrix."""
    edges, counts = [], []
    for values in x.T:
        finite = values[np.isfinite(values)]
        inner = _inner_edges(finite)
        bins = np.searchsorted(np.array(inner, np.float32), finite, side="left")
        edges.append(inner)
        counts.append((*np.bincount(bins, minlength=len(inner) + 1).tolist(), len(values) - len(finite)))
    return tuple(edges), tuple(counts)


def _inner_edges(values: Floats) -> tuple[float, ...]:
    """Edges of equally full bins; where many rows share the least value, an edge below it separates lower values."""
    finite = values[np.isfinite(values)]
    if len(finite) == 0:
        return ()
    inner = np.unique(np.quantile(finite, np.linspace(0, 1, BINS + 1)[1:-1], method="lower")).astype(np.float32)
    if inner[0] == finite.min():
        inner = np.concatenate(([np.nextafter(inner[0], np.float32(-np.inf))], inner)).astype(np.float32)
    return tuple(float(edge) for edge in inner)


def _by_answer(values: npt.NDArray[Any], edges: tuple[float, ...]) -> dict[str, int]:
    """Bin or text → number of rows; missing answers are not counted."""
    if values.dtype.kind == "f":
        finite = values[np.isfinite(values)].astype(np.float32)
        bins = np.searchsorted(np.array(edges, np.float32), finite, side="left")
        return {str(place): int(n) for place, n in enumerate(np.bincount(bins, minlength=len(edges) + 1))}
    names, n = np.unique(np.array([str(value) for value in values if value is not None], dtype=str), return_counts=True)
    return dict(zip(names.tolist(), n.tolist(), strict=True))


def _touchpoint_shares(rows: Snapshots, training: tuple[str, ...]) -> dict[str, float]:
    """The most frequent touchpoints by the share of rows whose journey has them."""
    category = rows.journeys.categories["touchpoint"]
    codes = np.asarray(category.codes)
    n_rows = np.zeros(len(category.names), dtype=np.int64)
    for start, stop in zip(rows.start.tolist(), rows.stop.tolist(), strict=True):
        present = np.unique(codes[start:stop])
        n_rows[present[present >= 0]] += 1
    allowed = set(training) or set(category.names)
    order = [code for code in np.argsort(-n_rows, kind="stable") if n_rows[code] and category.names[code] in allowed]
    return {category.names[code]: float(n_rows[code] / len(rows)) for code in order[:MOST_TOUCHPOINTS]}

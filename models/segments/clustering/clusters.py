"""Segments by clustering: by how customers behave and what they do; new customers are assigned without a fit.

    clusters = ClusterSegments(ClusterSettings()).fit(train)          # snapshots of train, one row a customer
    clusters.assign(snapshots)                                        # (n,) places in clusters.segments
    ClusterSegments(settings).fit(later, previous=clusters).report_   # which segments moved, split, merged, appeared

Number and method are chosen by bootstrap stability (`models.segments.clustering.choice`), the space by
`models.segments.clustering.space`. Ids survive a refit (`models.segments.matching`) and are never reused. No label
is used.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, field_validator, model_validator
from safetensors.numpy import load_file, save_file

from features.errors import DataError
from features.journeys.holdout import stable_groups
from features.journeys.journeys import Snapshots
from features.settings import Section
from models.segments.clustering.algorithms import METHODS, Clustering, Method, fit_clustering
from models.segments.clustering.choice import BootstrapSamples, Candidate, ChoiceLimits, choose
from models.segments.clustering.embedding_view import EmbeddingView
from models.segments.clustering.refinement import LocalPoints, PointParts, refined
from models.segments.clustering.space import ClusterSpace
from models.segments.clustering.views import Behaviour, ClusterView, Composition, Dimension
from models.segments.contract import NO_SEGMENT, Segment
from models.segments.matching import RefitReport, match, refit_report
from models.sequence.embedder import Embedder
from models.sequence.settings import EncoderSettings

FEWEST_CUSTOMERS = 50
CUSTOMERS_PER_SEGMENT = 10  # at least, on average
CANONICAL = ("touchpoint", "channel", "item")
SALT = 99_991  # of the hash by which rows are sampled
REFIT_STABILITY = 0.8  # a refit keeps method and number as long as they are this stable
AXES_PER_COLUMN, SHARED_AXES_PER_COLUMN = 3, 8  # columns can agree on axes that are faint in each of them
MOST_AXES_IN_WORDS = 3
NOTABLE = 0.3  # standard deviations from the mean, from which on an axis is named


class ClusterSettings(Section):
    """`[segments.found]`: what is clustered, and how.

    Attributes:
        scheme: the partition's name.
        representation: "tabular" (behaviour and composition), "embedding" (an encoder's), "both"; "auto" takes tabular
            and, where `encoder` is given, compares both.
        groups: of the tabular representation: "behaviour" (recency, frequency, rhythm, value …) and "composition"
            (which touchpoints, channels, items).
        axes: of behaviour, by name (`models.segments.clustering.views.AXES`, or numeric profile columns); None takes
            all.
        columns: of composition; None takes touchpoint, channel and item where the log has them.
        shared: of composition only what two or more columns agree on (`models.segments.clustering.space`): lasting
            preferences without what a customer happens to need now; such segments change less often.
        behaviour_weight, embedding_weight: share of the variance, where composition as a whole has 1.
        methods: of "kmeans", "mixture", "density".
        segments: exactly so many; None chooses.
        fewest, most: segments to choose from.
        smallest_share, largest_share: of customers in a segment.
        dimensions: numbers of principal axes to choose from.
        fit_rows: at most so many rows, sampled by a hash of the customer.
        choice_rows: at most so many of these rows for the choice of number and method.
        rounds: bootstrap samples.
        restarts: of the final fit; the best is kept.
        stable_enough: stability from which on more segments and more axes are preferred.
        encoder: settings of the encoder (`models.sequence.settings.EncoderSettings`).
        seed: of everything random.
    """

    scheme: str = "found"
    representation: Literal["auto", "tabular", "embedding", "both"] = "auto"
    groups: tuple[Literal["behaviour", "composition"], ...] = ("behaviour", "composition")
    axes: tuple[str, ...] | None = None
    columns: tuple[str, ...] | None = None
    shared: bool = False
    behaviour_weight: float = Field(default=4.0, gt=0)
    embedding_weight: float = Field(default=2.0, gt=0)
    methods: tuple[Method, ...] = METHODS
    segments: int | None = Field(default=None, ge=2, le=100)
    fewest: int = Field(default=4, ge=2)
    most: int = Field(default=12, ge=2, le=100)
    smallest_share: float = Field(default=0.02, ge=0, lt=0.5)
    largest_share: float = Field(default=0.5, gt=0, le=1)
    dimensions: tuple[int, ...] = (2, 3, 4, 6)
    fit_rows: int = Field(default=20_000, ge=FEWEST_CUSTOMERS)
    choice_rows: int = Field(default=3_000, ge=FEWEST_CUSTOMERS)
    rounds: int = Field(default=10, ge=2)
    restarts: int = Field(default=30, ge=1)
    stable_enough: float = Field(default=0.85, ge=0, le=1)
    encoder: dict[str, Any] | None = None
    seed: int = Field(default=0, ge=0)

    @field_validator("groups", "methods", "dimensions")
    @classmethod
    def _distinct(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values or len(set(values)) < len(values):
            raise ValueError(f"name one or more, each once, not {list(values)}")
        return values

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.fewest > self.most:
            raise ValueError(f"fewest is {self.fewest} and most {self.most}: swap them")
        EncoderSettings.from_dict(self.encoder or {})
        return self

    def choice_limits(self, customers: int) -> ChoiceLimits:
        """Limits of the choice for so many customers."""
        most = max(2, customers // CUSTOMERS_PER_SEGMENT)
        fewest, largest = (self.segments or n for n in (self.fewest, self.most))
        return ChoiceLimits(
            fewest=min(fewest, most),
            most=min(largest, most),
            smallest_share=self.smallest_share,
            largest_share=max(self.largest_share, 1.2 / min(largest, most)),  # halves cannot both be below one half
            stable_enough=self.stable_enough,
        )


AllPoints = Callable[["ClusterSegments"], PointParts | None]


class ClusterSegments:
    """A partition by clustering; implements `models.segments.contract.Segmentation`.

    After `fit`: `segments`, `choice` (the table of candidates), `report_` (of a refit, else None), `shares_` ((k,) of
    all rows), `stability_` (of the chosen candidate).
    """

    kind = "found"

    def __init__(self, settings: ClusterSettings | None = None) -> None:
        self.settings = settings or ClusterSettings()
        self.report_: RefitReport | None = None
        self.segments_: tuple[Segment, ...] = ()
        self.next_number_ = 1

    def fit(
        self, snapshots: Snapshots, previous: ClusterSegments | None = None, everyone: AllPoints | None = None
    ) -> Self:
        """Cluster (n,) training snapshots, one row a customer or several.

        Of more than `fit_rows` rows, number, method and axes are chosen on a sample; the centres are then those of all
        customers.

        Args:
            snapshots: training rows; labels are not needed.
            previous: an earlier fit; segments with the same customers keep its ids, and its method and number stay as
                long as they are stable.
            everyone: returns the points of all customers where the snapshots are a sample; called once method and
                space are chosen.

        Raises:
            DataError: fewer than 50 customers with an event, or nothing that distinguishes them.
        """
        rows = self._rows(snapshots)
        customers = rows.customer_ids
        spaces = self._spaces(rows)
        raw = {name: space.read(rows) for name, space in spaces.items()}
        choice_rows = _sampled(customers, self.settings.choice_rows, self.settings.seed)
        limits = self.settings.choice_limits(len(np.unique(rows.customer)))
        choice_raw = {name: [numbers[choice_rows] for numbers in parts] for name, parts in raw.items()}
        samples = BootstrapSamples(spaces, choice_raw, customers[choice_rows], limits)
        self.chosen_, self.choice = self._chosen(samples, previous)
        space = spaces[self.chosen_.representation]
        self.space_ = space.relearn(raw[self.chosen_.representation])
        points = self.space_.place(raw[self.chosen_.representation], self.chosen_.dimensions)
        clustering = fit_clustering(
            points, self.chosen_.method, self.chosen_.segments, self.settings.seed, self.settings.restarts
        )
        assert clustering is not None, "the candidate had clusters on fewer rows"
        self.clustering_, self.shares_, self.next_number_ = clustering, np.zeros(0), 1
        parts = self._points_of(snapshots, len(rows)) if everyone is None else everyone(self)
        if parts is not None:
            clustering, counts = refined(clustering, parts)
            self.shares_ = counts / counts.sum()
        self._name(clustering, points, rows, previous)
        return self

    def _points_of(self, snapshots: Snapshots, fitted_on: int) -> LocalPoints | None:
        """All rows with an event; None where the fit has seen all of them."""
        rows = with_events(snapshots)
        return None if len(rows) == fitted_on else LocalPoints(self.space(rows))

    @property
    def scheme(self) -> str:
        """The partition's name."""
        return self.settings.scheme

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, in the order that `assign` numbers them."""
        return self.segments_

    def rename(self, segments: Sequence[Segment]) -> None:
        """Give segments other names and words.

        Raises:
            DataError: ids or their order differ.
        """
        if [segment.id for segment in segments] != [segment.id for segment in self.segments_]:
            raise DataError(
                f"Names can change, ids cannot: keep {', '.join(segment.id for segment in self.segments_)}."
            )
        self.segments_ = tuple(segments)

    def assign(self, snapshots: Snapshots) -> npt.NDArray[np.int32]:
        """(n,) places in `segments`; `NO_SEGMENT` for customers without an event before the cutoff."""
        places = self.clustering_.assign(self.space(snapshots))
        return np.where(snapshots.stop > snapshots.start, places, np.int32(NO_SEGMENT))

    def space(self, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        """(n, d) where the customers lie in the space that is clustered."""
        return self.space_.transform(snapshots, self.chosen_.dimensions)

    @property
    def version(self) -> str:
        """12 hexadecimal digits of SHA-256 over the space (its encoder's version included) and the clusters."""
        digest = hashlib.sha256(json.dumps(self.space_.to_dict(), sort_keys=True).encode())
        for name in sorted(self.clustering_.arrays):
            digest.update(name.encode() + np.ascontiguousarray(self.clustering_.arrays[name]).tobytes())
        return digest.hexdigest()[:12]

    @property
    def packages(self) -> tuple[str, ...]:
        """What it needs to run."""
        return ("safetensors",)

    def save(self, folder: Path) -> None:
        """Write `found.json`, `clusters.safetensors` and, with an encoder, `encoder/`."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {name: np.ascontiguousarray(values) for name, values in self.clustering_.arrays.items()}
        save_file(arrays, folder / "clusters.safetensors")
        data = {
            "settings": self.settings.model_dump(mode="json"),
            "space": self.space_.to_dict(),
            "chosen": asdict(self.chosen_),
            "segments": [asdict(segment) for segment in self.segments_],
            "next_number": self.next_number_,
            "shares": self.shares_.tolist(),
            "choice": json.loads(self.choice.to_json(orient="records", double_precision=15)),
        }
        (folder / "found.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
        for view in self.space_.views:
            if isinstance(view, EmbeddingView):
                (folder / "encoder").mkdir(exist_ok=True)
                view.embedder.save(folder / "encoder")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; runs no code from the folder."""
        data = json.loads((folder / "found.json").read_text(encoding="utf-8"))
        segmentation = cls(ClusterSettings.model_validate(data["settings"]))
        embedder = Embedder.load(folder / "encoder") if data["space"]["embedding"] else None
        segmentation.space_ = ClusterSpace.from_dict(data["space"], embedder)
        segmentation.chosen_ = Candidate(**data["chosen"])
        segmentation.clustering_ = Clustering(segmentation.chosen_.method, load_file(folder / "clusters.safetensors"))
        segmentation.segments_ = tuple(Segment(**segment) for segment in data["segments"])
        segmentation.next_number_, segmentation.shares_ = data["next_number"], np.array(data["shares"])
        segmentation.choice = pd.DataFrame(data["choice"]).astype({"stability": float, "stability_low": float})
        return segmentation

    @property
    def stability_(self) -> float:
        """The mean adjusted Rand index of bootstrap fits of the chosen candidate."""
        return float(self.choice.loc[self.choice["chosen"], "stability"].iloc[0])

    def _rows(self, snapshots: Snapshots) -> Snapshots:
        """Rows with an event, sampled by customer where there are many."""
        rows = with_events(snapshots)
        customers = len(np.unique(rows.customer))
        if customers < FEWEST_CUSTOMERS:
            raise DataError(
                f"{customers} customers have an event before their cutoff; segments need {FEWEST_CUSTOMERS}. "
                "Give more customers, later cutoffs, or use schemes and rules."
            )
        return rows.take(_sampled(rows.customer_ids, self.settings.fit_rows, self.settings.seed))

    def _spaces(self, rows: Snapshots) -> dict[str, ClusterSpace]:
        """A space of each representation to choose from, its views fitted."""
        s = self.settings
        compared = ("tabular", "both") if s.encoder else ("tabular",)
        names = compared if s.representation == "auto" else (s.representation,)
        tabular = self._tabular_views(rows) if {"tabular", "both"} & set(names) else []
        views: dict[str, list[ClusterView]] = {"tabular": tabular}
        if {"embedding", "both"} & set(names):
            embedding = EmbeddingView(Embedder(EncoderSettings.from_dict(s.encoder or {})).fit(rows))
            views |= {"embedding": [embedding], "both": [*tabular, embedding]}
        weights = {"behaviour": s.behaviour_weight, "embedding": s.embedding_weight}
        return {name: self._useful(ClusterSpace(views[name], weights, s.shared), rows) for name in names}

    def _tabular_views(self, rows: Snapshots) -> list[ClusterView]:
        s, categories = self.settings, rows.journeys.categories
        if missing := [column for column in s.columns or () if column not in categories]:
            raise DataError(f"The log has no column '{missing[0]}' for composition; it has {sorted(categories)}.")
        views: list[ClusterView] = [Behaviour(s.axes).fit(rows)] if "behaviour" in s.groups else []
        if "composition" in s.groups:
            columns = s.columns if s.columns is not None else tuple(c for c in CANONICAL if c in categories)
            most_axes = SHARED_AXES_PER_COLUMN if s.shared else AXES_PER_COLUMN
            views += [Composition(column, most_axes=most_axes).fit(rows) for column in columns]
        return views

    def _useful(self, space: ClusterSpace, rows: Snapshots) -> ClusterSpace:
        learnt = space.learn(space.read(rows)) if space.views else space
        if not space.views or learnt.width == 0:
            raise DataError(
                "Nothing distinguishes these customers: no axis of behaviour or composition varies among them. "
                "Give more columns or other groups."
            )
        return learnt

    def _chosen(self, samples: BootstrapSamples, previous: ClusterSegments | None) -> tuple[Candidate, pd.DataFrame]:
        s, w = self.settings, samples.limits
        numbers = range(w.fewest, w.most + 1)
        before = None if previous is None else previous.chosen_
        if before is not None and before.representation in samples.spaces and before.segments in numbers:
            trial = samples.trial(before)
            samples.rounds([trial], s.rounds)
            if not trial.faults and trial.stability >= min(REFIT_STABILITY, s.stable_enough):
                return choose(samples, [before], s.rounds)
        candidates = []
        for name, space in samples.spaces.items():
            axes = sorted({min(d, space.width) for d in s.dimensions})
            for method in s.methods:
                counts = numbers if method != "density" else [(w.fewest + w.most) // 2]
                candidates += [Candidate(name, method, d, k) for d in axes for k in counts]
        return choose(samples, candidates, s.rounds)

    def _name(self, clustering: Clustering, points: Any, rows: Snapshots, previous: ClusterSegments | None) -> None:
        """Order the clusters and give them words and ids: a successor keeps the id, the others get new numbers."""
        places = clustering.assign(points)
        sizes = np.bincount(places, minlength=clustering.n_clusters)
        before = () if previous is None else previous.segments
        old_places = np.full(len(rows), NO_SEGMENT) if previous is None else previous.assign(rows)
        matching = match(old_places, places, len(before), clustering.n_clusters)
        numbers = np.array([int(before[old].id[1:]) if old >= 0 else 0 for old in matching.old_of_new], np.int64)
        self.next_number_ = 1 if previous is None else previous.next_number_
        for cluster in np.argsort(-sizes, kind="stable"):  # new numbers by size
            if numbers[cluster] == 0:
                numbers[cluster], self.next_number_ = self.next_number_, self.next_number_ + 1
        order = np.argsort(numbers, kind="stable")
        self.clustering_ = clustering.reordered(order)
        places = self.clustering_.assign(points)
        self.shares_ = (self.shares_ if len(self.shares_) else sizes / len(places))[order]
        names, words = {segment.id: segment.name for segment in before}, self._words(rows, places)
        ids = [f"s{number:02d}" for number in numbers[order]]
        self.segments_ = tuple(
            Segment(id, names.get(id, f"Segment {number}"), text)
            for id, number, text in zip(ids, numbers[order], words, strict=True)
        )
        if previous is not None:
            self.report_ = refit_report(old_places, places, [segment.id for segment in before], ids)

    def _words(self, rows: Snapshots, places: npt.NDArray[np.int32]) -> list[str]:
        """(k,) where each segment's mean lies on the axes of the views, in words."""
        axes = self.space_.named(rows).astype(np.float64)
        spread = np.maximum(axes.std(axis=0), 1e-9)
        sentences = []
        for cluster in range(self.clustering_.n_clusters):
            offset = (axes[places == cluster].mean(axis=0) - axes.mean(axis=0)) / spread
            strongest = np.argsort(-np.abs(offset), kind="stable")[:MOST_AXES_IN_WORDS]
            parts = [
                _axis_words(self.space_.named_dimensions[a], offset[a]) for a in strongest if abs(offset[a]) >= NOTABLE
            ]
            sentences.append(
                "Compared with the others: " + "; ".join(parts) + "." if parts else "Average in everything."
            )
        return sentences


def with_events(snapshots: Snapshots) -> Snapshots:
    """The rows of known customers who have an event before their cutoff."""
    return snapshots.take(np.flatnonzero((snapshots.stop > snapshots.start) & (snapshots.customer >= 0)))


def _axis_words(dimension: Dimension, offset: float) -> str:
    """An axis in words, by the end at which a segment lies."""
    if dimension.view != "composition":
        return f"{'high' if offset > 0 else 'low'} {dimension.name}"
    column, _, ends = dimension.words.partition(": more ")
    high, _, low = ends.partition("; less ")
    return f"{column}s such as {high if offset > 0 else low}"


def _sampled(customers: npt.NDArray[np.object_], most: int, seed: int) -> npt.NDArray[np.int64]:
    """At most `most` rows: customers with the lowest hashes, all rows of each."""
    if len(customers) <= most:
        return np.arange(len(customers))
    hashes = stable_groups(customers, 2**61 - 1, SALT + seed)
    limit = np.partition(hashes, most - 1)[most - 1]
    return np.flatnonzero(hashes <= limit)

"""Found segments: clusters of customers by how they behave and what they do; new customers are assigned without a fit.

    found = ClusterSegments(ClusterSettings()).fit(train)            # snapshots of train, one row a customer
    found.assign(snapshots)                                      # (n,) places in found.segments
    ClusterSegments(settings).fit(later, previous=found).report_   # who moved, split, merged, appeared

Number and method are chosen by bootstrap stability (`models.segments.clustering.choice`), the space by
`models.segments.clustering.space`. Ids survive a refit (`models.segments.matching`) and are never used again. No label
is seen.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
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
from models.segments.clustering.views import Behaviour, ClusterView, Composition, Dimension, Matrix
from models.segments.contract import NO_SEGMENT, Segment
from models.segments.matching import RefitReport, match, refit_report
from models.sequence.embedder import Embedder
from models.sequence.settings import EncoderSettings

FEWEST_CUSTOMERS = 50
ROWS_A_SEGMENT = 10  # at least so many customers a segment on average
CANONICAL = ("touchpoint", "channel", "item")
SALT = 99_991  # of the hash by which rows are sampled
LIKE_BEFORE = 0.8  # a refit keeps method and number as long as they are this stable
AXES_A_COLUMN, AXES_TO_AGREE_ON = 3, 8  # faint axes may still be what columns agree on
FEW_WORDS = 3
APART = 0.3  # standard deviations from the middle that are worth a word


class ClusterSettings(Section):
    """What is clustered, and how.

    Attributes:
        scheme: the partition's name.
        representation: "tabular" (behaviour and composition), "embedding" (an encoder's), "both"; "auto" takes tabular
            and, where `encoder` is given, compares both.
        groups: of the tabular representation: "behaviour" (recency, frequency, rhythm, value …) and "composition"
            (which touchpoints, channels, items).
        axes: of behaviour, by name (`models.segments.clustering.views.AXES`, or numeric profile columns); None takes
            all.
        columns: of composition; None takes touchpoint, channel and item where the log has them.
        shared: of composition only what two or more columns agree on (`models.segments.clustering.space`): what
            customers are like, less what they are after at the moment; for segments that shall not change with every
            errand.
        behaviour_weight, embedding_weight: share of the variance, where composition as a whole has 1.
        methods: of "kmeans", "mixture", "density".
        segments: so many and no other; None chooses.
        fewest, most: segments to choose from.
        smallest_share, largest_share: of customers in a segment.
        dimensions: numbers of principal axes to choose from.
        fit_rows: at most so many rows, sampled by a hash of the customer.
        choice_rows: at most so many rows of them for the choice of number and method.
        rounds: bootstrap samples.
        restarts: of the final fit, of which the best is kept.
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
    def _some(cls, values: tuple[Any, ...]) -> tuple[Any, ...]:
        if not values or len(set(values)) < len(values):
            raise ValueError(f"name one or more, each once, not {list(values)}")
        return values

    @model_validator(mode="after")
    def _make_sense(self) -> Self:
        if self.fewest > self.most:
            raise ValueError(f"fewest is {self.fewest} and most {self.most}: turn them round")
        EncoderSettings.from_dict(self.encoder or {})
        return self

    def wanted(self, customers: int) -> ChoiceLimits:
        """Limits of the choice, so few customers that there are."""
        most = max(2, customers // ROWS_A_SEGMENT)
        fewest, largest = (self.segments or n for n in (self.fewest, self.most))
        return ChoiceLimits(
            fewest=min(fewest, most),
            most=min(largest, most),
            smallest_share=self.smallest_share,
            largest_share=max(self.largest_share, 1.2 / min(largest, most)),  # halves cannot both be below one half
            stable_enough=self.stable_enough,
        )


Everyone = Callable[["ClusterSegments"], PointParts | None]


class ClusterSegments:
    """Segments found by clustering, behind `models.segments.contract.Segmentation`.

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
        self, snapshots: Snapshots, previous: ClusterSegments | None = None, everyone: Everyone | None = None
    ) -> Self:
        """Find segments in (n,) training snapshots, one row a customer or several.

        Number, method and axes are chosen on a sample where there are more than `fit_rows`; the centres are then those
        of everyone.

        Args:
            snapshots: training rows; labels are not asked for.
            previous: an earlier fit, whose ids go on where customers are the same; its method and number are kept as
                long as they are stable.
            everyone: makes points of all customers, where the snapshots are not all; asked once method and space are
                known.

        Raises:
            DataError: fewer than 50 customers with an event, or nothing that tells them apart.
        """
        rows = self._rows(snapshots)
        customers = rows.customer_ids
        spaces = self._spaces(rows)
        raw = {name: space.read(rows) for name, space in spaces.items()}
        few = _sampled(customers, self.settings.choice_rows, self.settings.seed)
        wanted = self.settings.wanted(len(np.unique(rows.customer)))
        some = {name: [numbers[few] for numbers in parts] for name, parts in raw.items()}
        arena = BootstrapSamples(spaces, some, customers[few], wanted)
        self.chosen_, self.choice = self._chosen(arena, previous)
        space = spaces[self.chosen_.representation]
        self.space_ = space.relearn(raw[self.chosen_.representation])
        points = self.space_.place(raw[self.chosen_.representation], self.chosen_.dimensions)
        found = fit_clustering(
            points, self.chosen_.method, self.chosen_.segments, self.settings.seed, self.settings.restarts
        )
        assert found is not None, "the candidate found clusters on fewer rows"
        self.clustering_, self.shares_, self.next_number_ = found, np.zeros(0), 1
        parts = self._points_of(snapshots, len(rows)) if everyone is None else everyone(self)
        if parts is not None:
            found, counts = refined(found, parts)
            self.shares_ = counts / counts.sum()
        self._name(found, points, rows, previous)
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
        if [one.id for one in segments] != [one.id for one in self.segments_]:
            raise DataError(f"Names can change, ids cannot: give {', '.join(one.id for one in self.segments_)}.")
        self.segments_ = tuple(segments)

    def assign(self, snapshots: Snapshots) -> npt.NDArray[np.int32]:
        """(n,) places in `segments`; `NO_SEGMENT` for customers without an event before the cutoff."""
        places = self.clustering_.assign(self.space(snapshots))
        return np.where(snapshots.stop > snapshots.start, places, np.int32(NO_SEGMENT))

    def distances(self, snapshots: Snapshots) -> Matrix:
        """(n, k) to each segment's centre, in a mixture in its standard deviations."""
        return self.clustering_.distances(self.space(snapshots))

    def space(self, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        """(n, d) where the customers lie in the space that is clustered."""
        return self.space_.transform(snapshots, self.chosen_.dimensions)

    @property
    def dimensions(self) -> list[Dimension]:
        """(d) what each axis of `space` is."""
        return self.space_.dimensions(self.chosen_.dimensions)

    def named_axes(self, snapshots: Snapshots) -> pd.DataFrame:
        """(n, a) the axes that the space is made of, such as frequency or "item 1", by name."""
        names = [dimension.name for dimension in self.space_.named_dimensions]
        return pd.DataFrame(self.space_.named(snapshots), columns=names)

    @property
    def encoder_version(self) -> str | None:
        """Of the encoder, where the representation has one."""
        return next((view.embedder.version for view in self.space_.views if isinstance(view, EmbeddingView)), None)

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
        """Write `found.json`, `clusters.safetensors` and, where there is an encoder, `encoder/`."""
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
        found = cls(ClusterSettings.model_validate(data["settings"]))
        embedder = Embedder.load(folder / "encoder") if data["space"]["embedding"] else None
        found.space_ = ClusterSpace.from_dict(data["space"], embedder)
        found.chosen_ = Candidate(**data["chosen"])
        found.clustering_ = Clustering(found.chosen_.method, load_file(folder / "clusters.safetensors"))
        found.segments_ = tuple(Segment(**segment) for segment in data["segments"])
        found.next_number_, found.shares_ = data["next_number"], np.array(data["shares"])
        found.choice = pd.DataFrame(data["choice"]).astype({"stability": float, "stability_low": float})
        return found

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
                "Give more customers, later cutoffs, or segments set beforehand."
            )
        return rows.take(_sampled(rows.customer_ids, self.settings.fit_rows, self.settings.seed))

    def _spaces(self, rows: Snapshots) -> dict[str, ClusterSpace]:
        """A space of each representation to choose from, its views fitted."""
        s = self.settings
        wanted = s.representation
        names = {"auto": ("tabular", "both") if s.encoder else ("tabular",)}.get(wanted, (wanted,))
        tabular = self._tabular_views(rows) if {"tabular", "both"} & set(names) else []
        views: dict[str, list[ClusterView]] = {"tabular": tabular}
        if {"embedding", "both"} & set(names):
            embedding = EmbeddingView(Embedder(EncoderSettings.from_dict(s.encoder or {})).fit(rows))
            views |= {"embedding": [embedding], "both": [*tabular, embedding]}
        weights = {"behaviour": s.behaviour_weight, "embedding": s.embedding_weight}
        return {name: self._useful(ClusterSpace(views[name], weights, s.shared), rows) for name in names}

    def _tabular_views(self, rows: Snapshots) -> list[ClusterView]:
        s, known = self.settings, rows.journeys.categories
        if missing := [column for column in s.columns or () if column not in known]:
            raise DataError(f"The log has no column '{missing[0]}' to see composition in; it has {sorted(known)}.")
        views: list[ClusterView] = [Behaviour(s.axes).fit(rows)] if "behaviour" in s.groups else []
        if "composition" in s.groups:
            columns = s.columns if s.columns is not None else tuple(c for c in CANONICAL if c in known)
            most_axes = AXES_TO_AGREE_ON if s.shared else AXES_A_COLUMN
            views += [Composition(column, most_axes=most_axes).fit(rows) for column in columns]
        return views

    def _useful(self, space: ClusterSpace, rows: Snapshots) -> ClusterSpace:
        learnt = space.learn(space.read(rows)) if space.views else space
        if not space.views or learnt.width == 0:
            raise DataError(
                "Nothing tells these customers apart: no axis of behaviour or composition varies among them. "
                "Give more columns or other groups."
            )
        return learnt

    def _chosen(self, arena: BootstrapSamples, previous: ClusterSegments | None) -> tuple[Candidate, pd.DataFrame]:
        s, w = self.settings, arena.wanted
        numbers = range(w.fewest, w.most + 1)
        before = None if previous is None else previous.chosen_
        if before is not None and before.representation in arena.spaces and before.segments in numbers:
            trial = arena.trial(before)
            arena.rounds([trial], s.rounds)
            if not trial.faults and trial.stability >= min(LIKE_BEFORE, s.stable_enough):
                return choose(arena, [before], s.rounds)
        candidates = []
        for name, space in arena.spaces.items():
            axes = sorted({min(d, space.width) for d in s.dimensions})
            for method in s.methods:
                asked = numbers if method != "density" else [(w.fewest + w.most) // 2]
                candidates += [Candidate(name, method, d, k) for d in axes for k in asked]
        return choose(arena, candidates, s.rounds)

    def _name(self, found: Clustering, points: Any, rows: Snapshots, previous: ClusterSegments | None) -> None:
        """Order the clusters, give them ids (old ones where they go on) and words."""
        places = found.assign(points)
        sizes = np.bincount(places, minlength=found.n_clusters)
        order, numbers = np.argsort(-sizes, kind="stable"), np.zeros(found.n_clusters, np.int64)
        old = None if previous is None else previous.assign(rows)
        self.next_number_ = 1 if previous is None else previous.next_number_
        if previous is not None and old is not None:
            matching = match(old, places, len(previous.segments), found.n_clusters)
            ids = [int(segment.id[1:]) for segment in previous.segments]
            numbers = np.array([ids[before] if before >= 0 else 0 for before in matching.old_of_new], np.int64)
        for cluster in order:
            if numbers[cluster] == 0:
                numbers[cluster], self.next_number_ = self.next_number_, self.next_number_ + 1
        order = np.argsort(numbers, kind="stable")
        self.clustering_ = found.reordered(order)
        places = self.clustering_.assign(points)
        shares = self.shares_ if len(self.shares_) else sizes / len(places)
        self.shares_ = shares[order]
        words = self._words(rows, places)
        fresh = [Segment(f"s{n:02d}", f"Segment {n}", told) for n, told in zip(numbers[order], words, strict=True)]
        names = {} if previous is None else {segment.id: segment.name for segment in previous.segments}
        self.segments_ = tuple(replace(one, name=names.get(one.id, one.name)) for one in fresh)
        if previous is not None and old is not None:
            self.report_ = refit_report(old, places, [s.id for s in previous.segments], [s.id for s in self.segments_])

    def _words(self, rows: Snapshots, places: npt.NDArray[np.int32]) -> list[str]:
        """(k,) where each segment's middle lies on the axes of the views."""
        axes = self.space_.named(rows).astype(np.float64)
        spread = np.maximum(axes.std(axis=0), 1e-9)
        said = []
        for cluster in range(self.clustering_.n_clusters):
            away = (axes[places == cluster].mean(axis=0) - axes.mean(axis=0)) / spread
            strongest = np.argsort(-np.abs(away), kind="stable")[:FEW_WORDS]
            parts = [_told(self.space_.named_dimensions[a], away[a]) for a in strongest if abs(away[a]) >= APART]
            said.append("Against the others: " + "; ".join(parts) + "." if parts else "Near the middle in everything.")
        return said


def with_events(snapshots: Snapshots) -> Snapshots:
    """The rows of known customers who have an event before their cutoff."""
    return snapshots.take(np.flatnonzero((snapshots.stop > snapshots.start) & (snapshots.customer >= 0)))


def _told(dimension: Dimension, away: float) -> str:
    """An axis in words, turned round where a segment lies at its lower end."""
    if dimension.view != "composition":
        return f"{'high' if away > 0 else 'low'} {dimension.name}"
    column, _, ends = dimension.words.partition(": more ")
    high, _, low = ends.partition("; less ")
    return f"{column}s such as {high if away > 0 else low}"


def _sampled(customers: npt.NDArray[np.object_], most: int, seed: int) -> npt.NDArray[np.int64]:
    """At most `most` rows: customers with the lowest hashes, all rows of each."""
    if len(customers) <= most:
        return np.arange(len(customers))
    hashes = stable_groups(customers, 2**61 - 1, SALT + seed)
    limit = np.partition(hashes, most - 1)[most - 1]
    return np.flatnonzero(hashes <= limit)

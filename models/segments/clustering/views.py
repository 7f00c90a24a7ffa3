"""Views of a customer for clustering: how they behave, and what their events consist of.

A view reads snapshots into numbers (`read`), learns axes from those of training rows (`learn`) and places rows on the
axes (`place`). Reading and placing are pure functions of a row, so that one customer alone gets the same bits as in a
batch; learning takes numbers that were read before, so that a bootstrap sample needs no second reading.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import Snapshots, as_readonly
from features.tabular.features import TabularFeatures
from features.tabular.learning import visible_events, vocabulary
from features.tabular.settings import TabularSettings
from models.segments.clustering.kernels import add_product, add_scores, count_values

Matrix = npt.NDArray[np.float64]

SESSION_GAP_US = 1_800_000_000
TABLE_SIZE = 101  # quantiles that a normal score is read from
FARTHEST = 2.5  # standard deviations: where a normal score is cut off
FLAT = 1e-9  # a spread below this counts as none
RAREST_SHARE = 0.002  # values with a smaller share of a column go to `other`
FARTHEST_SHARE = 10.0  # standardised shares are cut off here
EDGE_MARGIN = 1.05  # an axis must exceed the edge of chance by this factor


@dataclass(frozen=True)
class Dimension:
    """One axis of a view or of the space.

    Attributes:
        name: short, such as "frequency" or "item 1".
        words: what its upper end means and, where that is not obvious, its lower end.
        view: "behaviour", "composition" or "embedding".
    """

    name: str
    words: str
    view: str


class ClusterView(Protocol):
    """What the space needs of a view."""

    kind: str

    def read(self, snapshots: Snapshots) -> Matrix:
        """(n, w) numbers of (n,) snapshots."""
        ...

    def learn(self, raw: Matrix) -> None:
        """Learn axes from (m, w) training rows."""
        ...

    def place(self, raw: Matrix) -> Matrix:
        """(n, axes)."""
        ...

    @property
    def dimensions(self) -> list[Dimension]:
        """One for each axis."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """The fitted state as JSON-ready data; numbers survive exactly."""
        ...


# Name, words and tabular features of each axis of behaviour: the mean of the features' normal scores. Features that a
# log lacks are left out.
AXES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("silence", "long since the last event", ("recency_days",)),
    ("frequency", "active on many days", ("active_days_all",)),
    ("weeks", "active in many weeks", ("active_weeks_all",)),
    ("months", "active in many months", ("active_months_all",)),
    ("steadiness", "active in most months since the first", ("active_months_share",)),
    ("volume", "many events", ("events_all",)),
    ("gaps", "long gaps between active days", ("day_gap_ewm_slow", "day_gap_median")),
    ("tenure", "known for long", ("tenure_days",)),
    ("trend", "more active of late than before", ("events_share_second_half",)),
    ("value", "much money in all", ("value_total",)),
    ("basket", "much money a visit", ("basket_mean",)),
    ("intensity", "many events a visit", ("visit_events_mean",)),
    ("habit", "the same items again", ("items_repeated", "item_repeat_share")),
    ("satisfaction", "satisfied in surveys", ("satisfaction_mean_all",)),
)
GROUPS = ("volume", "recency", "trend", "rfm", "day_rhythm", "sessions", "tenure", "variety", "satisfaction", "profile")
MOST_PROFILE_NUMBERS = 4


class Behaviour:
    """Recency, frequency, rhythm, tenure, trend, value: normal scores of a few tabular features.

    Args:
        axes: names in `AXES`, or of numeric profile columns; None takes all for which the log has a feature.
    """

    kind = "behaviour"

    def __init__(self, axes: tuple[str, ...] | None = None) -> None:
        self.axes = axes

    def fit(self, snapshots: Snapshots) -> Self:
        """Learn which axes the log has features for."""
        slim: dict[str, Any] = {f"top_{name}": 1 for name in ("touchpoints", "channels", "stages", "items")}
        every = TabularFeatures(TabularSettings(groups=GROUPS, drop_redundant=False, **slim)).fit(snapshots)
        names = set(every.get_feature_names_out())
        numbers = [f"profile.{name}" for name in every.learned_.profile_numbers] if every.learned_ else []
        numbers = [name for name in numbers if name in names][:MOST_PROFILE_NUMBERS]
        axes = [*AXES, *((name.removeprefix("profile."), "", (name,)) for name in numbers)]
        self.axes_ = [
            (name, words or f"much {name}", [column for column in columns if column in names])
            for name, words, columns in axes
            if names & set(columns) and (self.axes is None or name in self.axes)
        ]
        self.tabular_ = every.select(self._columns) if self.axes_ else every
        return self

    @property
    def _columns(self) -> list[str]:
        return [column for _, _, columns in self.axes_ for column in columns]

    def read(self, snapshots: Snapshots) -> Matrix:
        """(n, columns) features."""
        if not self.axes_:
            return np.zeros((len(snapshots), 0))
        return np.asarray(self.tabular_.transform(snapshots), np.float64)

    def learn(self, raw: Matrix) -> None:
        """Learn the tables of normal scores, and centre and spread of each axis."""
        self._keep([normal_table(raw[:, column]) for column in range(raw.shape[1])])
        themes = self._themes(raw)
        self.centre_, spread = themes.mean(axis=0), themes.std(axis=0)
        self.scale_ = np.where(spread > FLAT, 1 / np.maximum(spread, FLAT), 0.0)  # a constant axis stays at 0

    def place(self, raw: Matrix) -> Matrix:
        """(n, axes), each with mean 0 and variance 1 in training."""
        return np.asarray((self._themes(raw) - self.centre_) * self.scale_)

    @property
    def dimensions(self) -> list[Dimension]:
        """One for each axis."""
        return [Dimension(name, words, self.kind) for name, words, _ in self.axes_]

    def _themes(self, raw: Matrix) -> Matrix:
        """(n, axes) means of normal scores; a missing value scores 0."""
        themes = np.zeros((len(raw), len(self.axes_)))
        add_scores(themes, as_readonly(raw, np.float64), *self._flat)
        return np.asarray(themes / self._widths)

    def _keep(self, tables: list[tuple[Matrix, Matrix]]) -> None:
        """The tables of normal scores, also concatenated as the kernel reads them."""
        self.tables_ = tables
        widths = [len(columns) for _, _, columns in self.axes_]
        borders = np.cumsum([0, *(len(values) for values, _ in tables)])
        values, scores = (np.concatenate([np.zeros(0), *(table[which] for table in tables)]) for which in (0, 1))
        self._widths = np.array(widths, float)
        self._flat = (np.repeat(np.arange(len(widths)), widths), borders, values, scores)

    def to_dict(self) -> dict[str, Any]:
        """The fitted state as JSON-ready data; numbers survive exactly."""
        return {
            "axes": self.axes_,
            "tabular": self.tabular_.to_dict(),
            "tables": [[values.tolist(), scores.tolist()] for values, scores in self.tables_],
            "centre": self.centre_.tolist(),
            "scale": self.scale_.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        view = cls()
        view.axes_ = [(name, words, list(columns)) for name, words, columns in data["axes"]]
        view.tabular_ = TabularFeatures.from_dict(data["tabular"])
        view._keep([(np.array(values, float), np.array(scores, float)) for values, scores in data["tables"]])
        view.centre_, view.scale_ = np.array(data["centre"], float), np.array(data["scale"], float)
        return view


def normal_table(column: Matrix) -> tuple[Matrix, Matrix]:
    """Values and the normal score of each, to interpolate between; equal values share the mean of their ranks' scores.

    >>> values, scores = normal_table(np.array([1.0, 1.0, 5.0, np.nan]))
    >>> values.tolist(), scores.round(2).tolist()
    ([1.0, 5.0], [-0.48, 0.97])
    """
    from scipy.special import ndtri  # which only a fit needs

    values = np.sort(column[~np.isnan(column)])
    if len(values) == 0:
        return np.zeros(0), np.zeros(0)
    scores = np.clip(ndtri((np.arange(len(values)) + 0.5) / len(values)), -FARTHEST, FARTHEST)
    distinct, first = np.unique(values, return_index=True)
    means = np.add.reduceat(scores, first) / np.diff(np.append(first, len(values)))
    ranks = np.linspace(0, len(values) - 1, TABLE_SIZE).round().astype(np.int64)
    keep = np.unique(np.searchsorted(distinct, values[ranks]))
    return distinct[keep], means[keep]


class Composition:
    """Which values of a column a customer's events have, as correspondence analysis places them.

    The input is each customer's shares of the V values minus the overall shares, divided by the root of the latter: by
    chance alone every entry has variance 1 / N after N events (Greenacre: Correspondence Analysis in Practice, 2017).
    The principal axes whose variance exceeds what chance gives (the edge of Marchenko & Pastur 1967) are kept. A
    customer's place is shrunk towards the middle by N / (N + 1 / s), where s is the axis's variance beyond chance: few
    events say little. A value twice in a row within a visit counts once.

    Args:
        column: touchpoint, channel, item or any other categorical column.
        most_values: values with a share of their own, by frequency.
        most_axes: at most so many axes.
        min_count: rarer values go to `other`.
    """

    kind = "composition"

    def __init__(self, column: str, most_values: int = 100, most_axes: int = 3, min_count: int = 20) -> None:
        self.column, self.most_values, self.most_axes, self.min_count = column, most_values, most_axes, min_count

    def fit(self, snapshots: Snapshots) -> Self:
        """Learn the vocabulary from the events that training rows see."""
        category = snapshots.journeys.categories[self.column]
        self.vocabulary_ = vocabulary(category, visible_events(snapshots), self.most_values, self.min_count)
        return self

    def read(self, snapshots: Snapshots) -> Matrix:
        """(n, V + 1) how often each row has each value, all other values last; missing ones are left out."""
        rest = len(self.vocabulary_)
        counts = np.zeros((len(snapshots), rest + 1))
        category = snapshots.journeys.categories.get(self.column)
        if category is not None:
            place = np.array([self._value_numbers.get(name, rest) for name in category.names], np.int64)
            start, stop = as_readonly(snapshots.start, np.int64), as_readonly(snapshots.stop, np.int64)
            plain = snapshots.journeys.readonly
            count_values(counts, start, stop, plain[self.column], plain[""], place, SESSION_GAP_US)
        return counts

    @cached_property
    def _value_numbers(self) -> dict[str, int]:
        return {value: place for place, value in enumerate(self.vocabulary_)}

    def learn(self, raw: Matrix) -> None:
        """Learn shares and axes."""
        raw = raw[raw.sum(axis=1) > 0]
        total = raw.sum(axis=1)
        shares = raw.sum(axis=0) / max(1.0, total.sum())
        rare = shares < RAREST_SHARE
        rare[-1] = True
        pooled = np.column_stack((raw[:, ~rare], raw[:, rare].sum(axis=1)))
        shares = np.append(shares[~rare], shares[rare].sum())
        variance, axes = _principal_axes(pooled, total, shares)
        chance = len(raw) / max(1.0, total.sum())  # the mean of 1 / N, weighted by N
        edge = EDGE_MARGIN * chance * (1 + np.sqrt(len(shares) / max(1, len(raw)))) ** 2
        n_axes = min(self.most_axes, int((variance > edge).sum()))
        self.beyond_chance_ = np.maximum(variance[:n_axes] - chance, FLAT)
        loadings = axes[:, :n_axes] / np.sqrt(np.maximum(shares, FLAT))[:, None]
        self.middle_ = shares @ loadings
        self.loadings_ = loadings[np.where(rare, -1, np.cumsum(~rare) - 1)]  # (V + 1, axes)
        self.frequent_values_ = np.flatnonzero(~rare).tolist()

    def place(self, raw: Matrix) -> Matrix:
        """(n, axes); rows without a value are in the middle."""
        total = raw.sum(axis=1, keepdims=True)  # whole numbers: exact in any order
        mean_loading = product(raw, self.loadings_) / np.maximum(total, 1) - self.middle_
        return np.where(total > 0, mean_loading * (total / (total + 1 / self.beyond_chance_)), 0.0)

    @property
    def dimensions(self) -> list[Dimension]:
        """One for each axis, named by the values at its ends."""
        dimensions = []
        for axis in range(len(self.middle_)):
            ranked = [
                self.vocabulary_[v]
                for v in sorted(self.frequent_values_, key=lambda v: -float(self.loadings_[v, axis]))
            ]
            words = f"{self.column}: more {', '.join(ranked[:3])}; less {', '.join(ranked[::-1][:3])}"
            dimensions.append(Dimension(f"{self.column} {axis + 1}", words, self.kind))
        return dimensions

    def to_dict(self) -> dict[str, Any]:
        """The fitted state as JSON-ready data; numbers survive exactly."""
        return {
            "column": self.column,
            "vocabulary": list(self.vocabulary_),
            "known": self.frequent_values_,
            "beyond_chance": self.beyond_chance_.tolist(),
            "middle": self.middle_.tolist(),
            "loadings": self.loadings_.tolist(),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        view = cls(data["column"])
        view.vocabulary_, view.frequent_values_ = tuple(data["vocabulary"]), list(data["known"])
        view.beyond_chance_, view.middle_ = (np.array(data[name], float) for name in ("beyond_chance", "middle"))
        view.loadings_ = np.array(data["loadings"], float).reshape(len(view.vocabulary_) + 1, len(view.middle_))
        return view


def _principal_axes(counts: Matrix, total: Matrix, shares: Matrix) -> tuple[Matrix, Matrix]:
    """(V,) variances, falling, and (V, V) axes of the standardised shares, rows weighted by their events."""
    if len(counts) == 0:
        return np.zeros(len(shares)), np.eye(len(shares))
    x = (counts / total[:, None] - shares) / np.sqrt(np.maximum(shares, FLAT))
    x = np.minimum(x, FARTHEST_SHARE)
    return principal_axes((x * (total / total.sum())[:, None]).T @ x)


def principal_axes(covariance: Matrix) -> tuple[Matrix, Matrix]:
    """(d,) eigenvalues, falling, and (d, d) eigenvectors in columns, the largest entry of each positive."""
    variance, axes = np.linalg.eigh(covariance)
    variance, axes = variance[::-1], axes[:, ::-1]
    largest = axes[np.abs(axes).argmax(axis=0), np.arange(len(variance))] if len(variance) else np.ones(0)
    return variance, axes * np.where(largest < 0, -1.0, 1.0)


def product(x: Matrix, weights: Matrix) -> Matrix:
    """(n, k) x @ weights, summed in one order whatever n is, so that a batch of one gives the same bits."""
    out = np.zeros((len(x), weights.shape[1]))
    add_product(out, as_readonly(x, np.float64), as_readonly(weights, np.float64))
    return out

"""The kinds of condition: those of events, ratios, scores, features, names; `conditions` joins them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

import numpy as np
from pydantic import BeforeValidator, Field, model_validator

from features.conditions.base import Bools, Condition, kind
from features.conditions.comparison import MeasureCondition, MeasureTable
from features.conditions.measures import (
    DominantGroup,
    FeatureValue,
    LatestName,
    LatestNumber,
    MeanScore,
    Measure,
    MeasureRatio,
    SnapshotView,
    canonical,
)
from features.conditions.selections import Names, Selection, either, joined, many, number, percent
from features.conditions.thresholds import quantile_cuts, rounded_down
from features.errors import ConfigError
from features.tabular.learning import visible_events


@kind("ratio")
class RatioCondition(MeasureCondition):
    """One figure over another: what is spent lately against before."""

    ratio: tuple[MeasureTable, MeasureTable]

    def parts(self) -> Iterator[Condition]:
        """This condition and the figures in it."""
        yield self
        yield from self.ratio

    def measure(self) -> Measure:
        """The ratio."""
        part, whole = self.ratio
        assert isinstance(part, MeasureCondition)
        assert isinstance(whole, MeasureCondition)
        return MeasureRatio(part._measure, whole._measure)

    def subject(self) -> str:
        """What over what."""
        part, whole = self.ratio
        assert isinstance(part, MeasureCondition)
        assert isinstance(whole, MeasureCondition)
        return f"{part.subject()} over {whole.subject()}"


@kind("score")
class ScoreCondition(MeasureCondition):
    """Quantile scores, 5 the best fifth of the customers at fit time who have the figures; of several, their mean.

    Attributes:
        score: figures; a time since or between scores high where it is short.
        quantiles: how many scores.
        learnt_cuts: what the quantiles came to; not to be written by hand.
    """

    score: Annotated[tuple[MeasureTable, ...], BeforeValidator(lambda v: (v,) if isinstance(v, dict) else v)]
    quantiles: int = Field(default=5, ge=2, le=100)
    learnt_cuts: tuple[tuple[float, ...], ...] = ()

    def parts(self) -> Iterator[Condition]:
        """This condition and the figures in it."""
        yield self
        yield from self.score

    @property
    def _measures(self) -> tuple[MeasureCondition, ...]:
        return tuple(part for part in self.score if isinstance(part, MeasureCondition))

    def measure(self) -> Measure:
        """The score.

        Raises:
            ConfigError: the quantiles are not learnt yet.
        """
        if not self.learnt_cuts:
            raise ConfigError(f"the quantiles of {self.subject()} are not learnt yet: fit the segments first")
        parts = tuple(part._measure for part in self._measures)
        return MeanScore(parts, self.learnt_cuts, tuple(part.less_is_better for part in self._measures))

    def fit(self, view: SnapshotView) -> Condition:
        """With the quantiles of those who have the figure (of counts and sums: above none)."""
        if self.learnt_cuts:
            return MeasureCondition.fit(self, view)
        cuts = tuple(quantile_cuts(view.values(part._measure), self.quantiles) for part in self._measures)
        return MeasureCondition.fit(self.changed(learnt_cuts=cuts), view)

    def subject(self) -> str:
        """The scores of what, with the cuts."""
        kind = "score" if len(self.score) == 1 else "mean score"
        return f"the {kind} 1 to {self.quantiles} by {joined([self._part(k) for k in range(len(self.score))], 'and')}"

    def _part(self, k: int) -> str:
        part = self._measures[k]
        if not self.learnt_cuts:
            return part.subject()
        cuts = ", ".join(part.amount(cut) for cut in self.learnt_cuts[k])
        return f"{part.subject()} ({'falls' if part.less_is_better else 'rises'} above {cuts})"


@kind("feature")
class FeatureCondition(MeasureCondition):
    """A tabular feature compared with a number.

    Attributes:
        feature: its name (`TabularFeatures.describe` lists them).
        meaning: what it is, put in at fit time.
    """

    feature: str
    meaning: str = ""

    def measure(self) -> Measure:
        """The feature."""
        return FeatureValue(self.feature)

    def fit(self, view: SnapshotView) -> Condition:
        """With the feature's meaning, and a threshold where one is to be learnt."""
        meaning = "" if view.features is None else view.features.meaning_of(self.feature)
        return MeasureCondition.fit(self.changed(meaning=meaning), view)

    def rounded(self, bound: float) -> float:
        """The bound as exact as features are."""
        return float(np.float32(bound))

    def subject(self) -> str:
        """The feature's name and meaning."""
        return f"feature '{self.feature}'" + (f" ({self.meaning})" if self.meaning else "")


@kind("profile")
class ProfileCondition(MeasureCondition):
    """The last known value of a column: a country, a plan, the latest stage, an age.

    Attributes:
        profile: the column.
        equals: a name or pattern.
        one_of: several.
        unknown: true: holds for those without a known value.
    """

    profile: str
    equals: Annotated[str | int | float | None, Field()] = None
    one_of: Annotated[tuple[str | int | float, ...], BeforeValidator(many)] = ()
    unknown: Literal[True] | None = None

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(_text(x) for x in ((self.equals,) if self.equals is not None else self.one_of))

    def completed(self) -> MeasureCondition:
        """A name, a number or unknown must be given."""
        kinds = [bool(self._names), self.unknown is not None, self.compares]
        if sum(kinds) != 1 or (self.equals is not None and self.one_of):
            raise ValueError(
                f"profile '{self.profile}': give equals, one_of, unknown = true, or numbers such as at_least"
            )
        return self

    def measure(self) -> Measure:
        """The number."""
        return LatestNumber(self.profile)

    def holds(self, view: SnapshotView) -> Bools:
        """(n,) whose last known value is meant."""
        numeric = self.profile in view.journeys.numbers
        if self.compares:
            return super().holds(view)
        codes = np.zeros(len(view)) if numeric else view.values(LatestName(self.profile))
        x = view.values(LatestNumber(self.profile)) if numeric else codes
        if self.unknown:
            return np.isnan(x) | (codes < 0)
        if numeric:
            return np.isin(x, [float(name) for name in self._names if _is_number(name)])
        return np.asarray(view.allowed(self.profile, self._names)[codes.astype(np.int64) + 1] > 0)

    def subject(self) -> str:
        """The column."""
        return f"{self.profile}"

    def words(self) -> str:
        """As in: country is 'GB' or 'IE'."""
        if self.unknown:
            return f"{self.profile} is unknown"
        return f"{self.profile} is {either(self._names)}" if self._names else super().words()


def _text(x: str | int | float) -> str:
    return str(int(x)) if isinstance(x, float) and x == int(x) else str(x)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


@kind("dominant")
class DominantCondition(Condition, Selection):
    """Which value of a column stands out among a customer's events.

    Attributes:
        dominant: the column: item, channel, stage, touchpoint, or a property.
        equals: the group of names asked for; "" for none standing out.
        groups: names or patterns of each group; by default the one asked for alone.
        base: each group's share of everybody's events, learnt where not given.
        at_least_events: events of the group.
        min_share: the group's share of the customer's events.
        min_lift: that share over everybody's.
    """

    dominant: str
    equals: str
    groups: dict[str, Names] = Field(default_factory=dict)
    base: tuple[float, ...] = ()
    at_least_events: int = Field(default=1, ge=1)
    min_share: float = Field(default=0.0, ge=0, le=1)
    min_lift: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _valid_groups(self) -> DominantCondition:
        if self.equals not in self._groups:
            raise ValueError(f"'{self.equals}' is none of the groups {', '.join(self._groups)}")
        if self.base and len(self.base) != len(self._groups):
            raise ValueError(f"base gives {len(self.base)} shares for {len(self._groups)} groups")
        return self

    @property
    def _groups(self) -> dict[str, tuple[str, ...]]:
        return self.groups or {self.equals: (self.equals,)}

    def measure(self) -> DominantGroup:
        """The place of the group that stands out."""
        base = self.base or (0.0,) * len(self._groups)
        limits = self.at_least_events, self.min_share, self.min_lift
        return DominantGroup(self.selection(), self.dominant, tuple(self._groups.values()), base, *limits)

    def holds(self, view: SnapshotView) -> Bools:
        """(n,) for whom this group stands out."""
        return np.asarray(view.values(canonical(self.measure())) == list(self._groups).index(self.equals))

    def words(self) -> str:
        """As in: item 'A' stands out: at least 2 events and at least 30 % of the customer's."""
        texts = [f"at least {number(self.at_least_events)} {'event' if self.at_least_events == 1 else 'events'}"]
        texts += [f"at least {percent(self.min_share)} of the customer's"] if self.min_share else []
        if self.min_lift and self.base:
            share = percent(float(f"{self.base[list(self._groups).index(self.equals)]:.4g}"))
            texts.append(f"at least {number(self.min_lift)} times everybody's share of {share}")
        return f"{self.dominant} '{self.equals}' stands out{self.about('among')}: {joined(texts, 'and')}"

    def fit(self, view: SnapshotView) -> Condition:
        """With everybody's shares, where a lift is asked for and none are given."""
        if not self.min_lift or self.base or self.dominant not in view.journeys.categories:
            return self
        category, visible = view.journeys.categories[self.dominant], visible_events(view.snapshots)
        codes = category.codes if visible is None else category.codes[visible]
        counts = np.bincount(codes + 1, minlength=len(category.names) + 1)
        n_valued = max(int(counts[1:].sum()), 1)
        fits = [view.allowed(self.dominant, names) > 0 for names in self._groups.values()]
        return self.model_copy(
            update={"base": tuple(rounded_down(float(counts[fit].sum() / n_valued)) for fit in fits)}
        )

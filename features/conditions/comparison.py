"""Conditions that compare a measure with numbers: `MeasureCondition`, the base of most kinds."""

from __future__ import annotations

import operator
from collections.abc import Callable
from functools import cached_property
from typing import Annotated, Any, ClassVar, Self, cast

import numpy as np
from pydantic import BeforeValidator, SerializeAsAny, model_validator

from features.conditions.base import Bools, Condition, parse_any
from features.conditions.measures import Measure, SnapshotView, canonical
from features.conditions.selections import joined, number, percent
from features.conditions.thresholds import top_threshold
from features.errors import ConfigError, DataError


class MeasureCondition(Condition):
    """A figure compared with numbers; all that are given must fit.

    Attributes:
        at_least: the figure is as high or higher.
        at_most: as low or lower.
        more_than: higher.
        less_than: lower.
        exactly: equal.
        top_share: among the highest; 0.2 for the top 20 % of the customers at fit time whose figure is known.
        bottom_share: among the lowest.
        learnt_threshold: what a share came to at fit time; not to be written by hand.
    """

    less_is_better: ClassVar[bool] = False  # whether a low one is a good sign: it is for times since and between
    at_least: float | None = None
    at_most: float | None = None
    more_than: float | None = None
    less_than: float | None = None
    exactly: float | None = None
    top_share: float | None = None
    bottom_share: float | None = None
    learnt_threshold: float | None = None

    @model_validator(mode="after")
    def _shares(self) -> MeasureCondition:
        for name in ("top_share", "bottom_share"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                raise ValueError(f"{name} is a share between 0 and 1, such as 0.2 for 20 %, not {share:g}")
        if self.top_share is not None and self.bottom_share is not None:
            raise ValueError("top_share and bottom_share in one condition: write two tables")
        return self

    def measure(self) -> Measure:
        """What is compared."""
        raise NotImplementedError

    @cached_property
    def _measure(self) -> Measure:
        """The same, made once: views know it by identity."""
        return canonical(self.measure())

    @cached_property
    def _tests(self) -> tuple[tuple[str, float], ...]:
        """The comparisons that are asked for; put together once, as a service asks for every customer."""
        return tuple((name, self.rounded(x)) for name, x in self.bounds.items() if x is not None)

    @cached_property
    def _tests_value(self) -> tuple[tuple[Callable[[float, float], bool], float], ...]:
        return tuple((COMPARE_SINGLE[name], bound) for name, bound in self._tests)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the comparisons with numbers are all there is to it."""
        return type(self).holds is MeasureCondition.holds and self.top_share is None and self.bottom_share is None

    def changed(self, **update: Any) -> Self:
        """A copy with other fields; what was made of the old ones is not copied."""
        fields = {name: getattr(self, name) for name in type(self).model_fields}
        return cast(Self, type(self).model_construct(**{**fields, **update}))

    def subject(self) -> str:
        """The figure in words: "the sum of value of events 'purchase'"."""
        raise NotImplementedError

    def amount(self, x: float) -> str:
        """A number with its unit."""
        return number(x)

    def rounded(self, bound: float) -> float:
        """A bound as exact as the figure is."""
        return bound

    @property
    def bounds(self) -> dict[str, float | None]:
        """at_least, at_most, more_than, less_than, exactly."""
        return {name: getattr(self, name) for name in ("at_least", "at_most", "more_than", "less_than", "exactly")}

    @property
    def compares(self) -> bool:
        """Whether it compares the figure with anything."""
        return any(x is not None for x in (*self.bounds.values(), self.top_share, self.bottom_share))

    def completed(self) -> MeasureCondition:
        """The condition that is meant where no number is given."""
        if not self.compares:
            keys = ", ".join(key for key in type(self).model_fields if key.split("_")[0] in ("at", "more", "less"))
            raise ValueError(f"{self.subject()} is compared with nothing: add one of {keys}, top_share")
        return self

    def holds(self, view: SnapshotView) -> Bools:
        """(n,) for whom every comparison holds; an unknown figure satisfies none.

        Raises:
            ConfigError: a threshold that is to be learnt is not learnt yet.
        """
        x, threshold = view.values(self._measure), self.learnt_threshold
        if (self.top_share is not None or self.bottom_share is not None) and threshold is None:
            raise ConfigError(f"the threshold of {self.subject()} is not learnt yet: fit the segments first")
        flags = ~np.isnan(x)
        for name, bound in self._tests:
            flags &= COMPARE[name](x, bound)
        if threshold is not None:
            flags &= x >= threshold if self.top_share is not None else x <= threshold
        return flags

    def holds_single(self, view: SnapshotView) -> bool:
        """For a single snapshot, by plain numbers where the kind of figure has no `holds` of its own."""
        if not self._is_plain:
            return super().holds_single(view)
        x = view.value(self._measure)
        for fits, bound in self._tests_value:
            if not fits(x, bound):
                return False
        return x == x

    def fit(self, view: SnapshotView) -> Condition:
        """With the threshold of a share.

        Raises:
            DataError: no customer in training has the figure.
        """
        share = self.top_share if self.top_share is not None else self.bottom_share
        if share is None or self.learnt_threshold is not None:
            return self
        x = view.values(self._measure)
        x = x[~np.isnan(x)]
        if len(x) == 0:
            raise DataError(f"no customer in training has {self.subject()}: there is no top or lowest share of it")
        threshold = top_threshold(x, share) if self.top_share is not None else -top_threshold(-x, share)
        return self.changed(learnt_threshold=threshold)

    def words(self) -> str:
        """The subject, then every comparison."""
        return f"{self.subject()} is {joined(self.comparisons(), 'and')}"

    def comparisons(self) -> list[str]:
        """Each comparison in words."""
        texts = [f"{COMPARE_WORDS[name]}{self.amount(x)}" for name, x in self.bounds.items() if x is not None]
        for share, end, at in ((self.top_share, "top", "at least"), (self.bottom_share, "lowest", "at most")):
            if share is not None:
                threshold = self.learnt_threshold
                meaning = "" if threshold is None else f" ({at} {self.amount(threshold)})"
                texts.append(f"in the {end} {percent(share)} of customers{meaning}")
        return texts


COMPARE: dict[str, Callable[[Any, float], Any]] = {
    "at_least": np.greater_equal,
    "at_most": np.less_equal,
    "more_than": np.greater,
    "less_than": np.less,
    "exactly": np.equal,
}
COMPARE_SINGLE: dict[str, Callable[[float, float], bool]] = {
    "at_least": operator.ge,
    "at_most": operator.le,
    "more_than": operator.gt,
    "less_than": operator.lt,
    "exactly": operator.eq,
}
COMPARE_WORDS = {
    "at_least": "at least ",
    "at_most": "at most ",
    "more_than": "more than ",
    "less_than": "less than ",
    "exactly": "exactly ",
}


def read_measure(data: Any) -> MeasureCondition:
    """A measure from a table that compares it with nothing: { sum = "value", within_days = 90 }.

    Raises:
        ValueError: the table is no measure, or compares it.
    """
    measure = parse_any(data)
    if not isinstance(measure, MeasureCondition) or measure.compares:
        raise ValueError('expected a figure without a comparison here, such as { sum = "value", within_days = 90 }')
    return measure


MeasureTable = SerializeAsAny[Annotated[Condition, BeforeValidator(read_measure)]]

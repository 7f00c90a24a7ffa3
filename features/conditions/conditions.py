"""Conditions that a marketer writes in an experiment file: pure functions of snapshots, read back in words.

    when = { all = [{ events = ["complaint", "help_*"], within_days = 60 }, { last = ["*"], more_than_days = 14 }] }

    condition = read_condition({"events": ["complaint"], "within_days": 60, "at_least": 2})
    condition = learnt(condition, View(train))     # "the top 20 %" becomes a threshold
    condition.holds(View(snapshots))               # (n,) bool
    condition.words()                              # "at least 2 events 'complaint' in the last 60 days"

| key | what is compared | with it |
|---|---|---|
| `all`, `any`, `not` | other conditions, nested as one likes | |
| `events` | how many events; at least 1 where no number is given | `channels`, `stages`, `items`, `value_at_least` … |
| `days_with` | on how many days (UTC) there was such an event | the same |
| `sum`, `mean`, `lowest`, `highest`, `latest` | of a numeric column | the same |
| `per_day` | its sum for each day with such an event | the same |
| `last`, `first` | days since the last or first such event | `more_than_days` …, `not_followed_by`, `or_never` |
| `gap` | mean days between days with such an event | |
| `overdue` | days since the last such event, in units of the customer's own gap | `usual_days` |
| `share` | share of these events in those of `of` | `of` |
| `ratio` | one figure over another: `ratio = [{ sum = "value", within_days = 30 }, { sum = "value" }]` | |
| `score` | quantile scores 1 to 5 of one or more figures, their mean | `quantiles` |
| `feature` | a tabular feature by name | |
| `profile` | the last known value of a column | `equals`, `one_of`, `unknown` |
| `dominant` | the value of a column that stands out among the events | `equals`, `min_share`, `min_lift` |

Numbers are compared by `at_least`, `at_most`, `more_than`, `less_than`, `exactly`, or `top_share` and `bottom_share`:
the share of customers with the highest or lowest figure, whose threshold is learnt once. An unknown figure (the last
complaint of who never complained) satisfies no comparison. Only events strictly before the cutoff count.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator, Mapping
from datetime import date
from functools import cached_property
from typing import Annotated, Any, Self, TypeVar, cast

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, SerializeAsAny, ValidationError, model_serializer, model_validator

from features.conditions.measures import Figure, View, known
from features.conditions.selections import joined, number, percent
from features.conditions.thresholds import top_threshold
from features.errors import ConfigError, DataError
from features.settings import Section, explain, unknown_key

Bools = npt.NDArray[np.bool_]
C = TypeVar("C", bound="Condition")


class Condition(Section):
    """What every condition can do."""

    def holds(self, view: View) -> Bools:
        """(n,) for whom it holds."""
        raise NotImplementedError

    def holds_one(self, view: View) -> bool:
        """The same for a single snapshot, of which a service has to tell in microseconds."""
        return bool(self.holds(view)[0])

    def words(self) -> str:
        """The condition for a person, every threshold in it."""
        raise NotImplementedError

    def learnt(self, view: View) -> Condition:
        """The same with thresholds learnt from these snapshots where some are to be learnt."""
        return self

    def parts(self) -> Iterator[Condition]:
        """This condition and those inside it."""
        yield self

    @model_serializer(mode="plain")
    def toml(self) -> dict[str, Any]:
        """As it is written: `read_condition` reads it back."""
        set_ = {name: getattr(self, name) for name in type(self).model_fields}
        defaults = {name: field.default for name, field in type(self).model_fields.items()}
        return {name: _plain(value) for name, value in set_.items() if value != defaults[name]}


def _plain(value: Any) -> Any:
    if isinstance(value, Condition):
        return value.toml()
    if isinstance(value, tuple):
        return [_plain(one) for one in value]
    return value.isoformat() if isinstance(value, date) else value


def read_condition(data: Any) -> Condition:
    """A condition from a TOML table.

    Raises:
        ConfigError: one sentence that names what is wrong and, for a misspelt key, the right one.
    """
    try:
        return _read(data)
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _read(data: Any) -> Condition:
    condition = _read_any(data)
    if isinstance(condition, Compared):
        condition = condition.completed()
    return condition


def read_figure(data: Any) -> Compared:
    """A figure from a table that compares it with nothing: { sum = "value", within_days = 90 }."""
    figure = _read_any(data)
    if not isinstance(figure, Compared) or figure.compares:
        raise ValueError('expected a figure without a comparison here, such as { sum = "value", within_days = 90 }')
    return figure


def _read_any(data: Any) -> Condition:
    """The subject key decides what it is; every mistake becomes one sentence."""
    if isinstance(data, Condition):
        return data
    if not isinstance(data, Mapping):
        raise ValueError(f'a condition is a table such as {{ events = ["purchase"], at_least = 1 }}, not {data!r}')
    kind = _kind_of(data)
    if kind in (All, Either) and isinstance(data[logic := next(iter(data))], Mapping):
        raise ValueError(f"'{logic}' takes a list of conditions: put square brackets around the table")
    if kind is Not:
        return Not(negated=_read(data["not"]))
    try:
        return kind.model_validate(dict(data))
    except ValidationError as error:
        raise ValueError(explain(error).splitlines()[0].strip().removeprefix("the file: ")) from error


def _kind_of(data: Mapping[str, Any]) -> type[Condition]:
    from features.conditions.kinds import KINDS, KNOWN_KEYS  # that module needs the classes above

    kinds: dict[str, type[Condition]] = {"all": All, "any": Either, "not": Not, **KINDS}
    logic = [key for key in data if key in ("all", "any", "not")]
    if logic and len(data) > 1:
        other = next(key for key in data if key != logic[0])
        raise ValueError(f"'{logic[0]}' stands alone, but '{other}' stands beside it: put that into a table of its own")
    found = [key for key in data if key in kinds and key != "events"]
    if len(found) > 1:
        raise ValueError(
            f"'{found[0]}' and '{found[1]}' in one condition: write two tables and join them with all or any"
        )
    if found:
        return kinds[found[0]]
    if not data:
        raise ValueError('a condition is empty: write for instance { events = ["purchase"], at_least = 1 }')
    for key in data:
        if key not in KNOWN_KEYS and key not in kinds:
            raise ValueError(unknown_key(key, dict.fromkeys([*kinds, *KNOWN_KEYS])))
    return KINDS["events"]


When = SerializeAsAny[Annotated[Condition, BeforeValidator(_read)]]
FigureTable = SerializeAsAny[Annotated[Condition, BeforeValidator(read_figure)]]


class _Nested(Condition):
    def inside(self) -> tuple[Condition, ...]:
        """The conditions in it."""
        raise NotImplementedError

    def parts(self) -> Iterator[Condition]:
        """This condition and those inside it."""
        yield self
        for one in self.inside():
            yield from one.parts()


class All(_Nested):
    """Every one of them holds."""

    all: tuple[When, ...]

    @model_validator(mode="after")
    def _not_empty(self) -> All:
        return _some(self, self.all, "all")

    def inside(self) -> tuple[Condition, ...]:
        """The conditions in it."""
        return self.all

    def holds(self, view: View) -> Bools:
        """(n,) for whom it holds."""
        return np.asarray(np.logical_and.reduce([one.holds(view) for one in self.all]))

    def holds_one(self, view: View) -> bool:
        """For a single snapshot."""
        for one in self.all:  # noqa: SIM110  # a generator would cost as much as they do
            if not one.holds_one(view):
                return False
        return True

    def words(self) -> str:
        """Joined by and; alternatives inside stand in brackets."""
        return joined([f"({one.words()})" if _of_many(one, Either) else one.words() for one in self.all], "and")

    def learnt(self, view: View) -> Condition:
        """With thresholds learnt."""
        return All(all=tuple(one.learnt(view) for one in self.all))


class Either(_Nested):
    """At least one of them holds."""

    any: tuple[When, ...]

    @model_validator(mode="after")
    def _not_empty(self) -> Either:
        return _some(self, self.any, "any")

    def inside(self) -> tuple[Condition, ...]:
        """The conditions in it."""
        return self.any

    def holds(self, view: View) -> Bools:
        """(n,) for whom it holds."""
        return np.asarray(np.logical_or.reduce([one.holds(view) for one in self.any]))

    def holds_one(self, view: View) -> bool:
        """For a single snapshot."""
        return any(one.holds_one(view) for one in self.any)

    def words(self) -> str:
        """Joined by or; conditions that belong together stand in brackets."""
        return joined([f"({one.words()})" if _of_many(one, All) else one.words() for one in self.any], "or")

    def learnt(self, view: View) -> Condition:
        """With thresholds learnt."""
        return Either(any=tuple(one.learnt(view) for one in self.any))


class Not(_Nested):
    """It does not hold; an unknown figure does not hold, so its opposite does."""

    negated: When

    def inside(self) -> tuple[Condition, ...]:
        """The condition in it."""
        return (self.negated,)

    def holds(self, view: View) -> Bools:
        """(n,) for whom it holds."""
        return ~self.negated.holds(view)

    def holds_one(self, view: View) -> bool:
        """For a single snapshot."""
        return not self.negated.holds_one(view)

    def words(self) -> str:
        """In brackets after not."""
        return f"not ({self.negated.words()})"

    def learnt(self, view: View) -> Condition:
        """With thresholds learnt."""
        return Not(negated=self.negated.learnt(view))

    @model_serializer(mode="plain")
    def toml(self) -> dict[str, Any]:
        """As it is written."""
        return {"not": self.negated.toml()}


def _some(condition: C, inside: tuple[Condition, ...], key: str) -> C:
    if not inside:
        raise ValueError(f"'{key}' is empty: list at least one condition")
    return condition


def _of_many(condition: Condition, kind: type[All] | type[Either]) -> bool:
    return isinstance(condition, kind) and len(condition.inside()) > 1


class Compared(Condition):
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

    at_least: float | None = None
    at_most: float | None = None
    more_than: float | None = None
    less_than: float | None = None
    exactly: float | None = None
    top_share: float | None = None
    bottom_share: float | None = None
    learnt_threshold: float | None = None

    @model_validator(mode="after")
    def _shares(self) -> Compared:
        for name in ("top_share", "bottom_share"):
            share = getattr(self, name)
            if share is not None and not 0 < share < 1:
                raise ValueError(f"{name} is a share between 0 and 1, such as 0.2 for 20 %, not {share:g}")
        if self.top_share is not None and self.bottom_share is not None:
            raise ValueError("top_share and bottom_share in one condition: write two tables")
        return self

    def figure(self) -> Figure:
        """What is compared."""
        raise NotImplementedError

    @cached_property
    def _figure(self) -> Figure:
        """The same, made once: views know it by identity."""
        return known(self.figure())

    @cached_property
    def _tests(self) -> tuple[tuple[str, float], ...]:
        """The comparisons that are asked for; put together once, as a service asks for every customer."""
        return tuple((name, self.rounded(x)) for name, x in self.bounds.items() if x is not None)

    @cached_property
    def _tests_of_one(self) -> tuple[tuple[Callable[[float, float], bool], float], ...]:
        return tuple((COMPARE_ONE[name], bound) for name, bound in self._tests)

    @cached_property
    def _is_plain(self) -> bool:
        """Whether the comparisons with numbers are all there is to it."""
        return type(self).holds is Compared.holds and self.top_share is None and self.bottom_share is None

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
    def less_is_better(self) -> bool:
        """Whether a low figure is a good sign: it is for times since and between."""
        return False

    @property
    def bounds(self) -> dict[str, float | None]:
        """at_least, at_most, more_than, less_than, exactly."""
        return {name: getattr(self, name) for name in ("at_least", "at_most", "more_than", "less_than", "exactly")}

    @property
    def compares(self) -> bool:
        """Whether it compares the figure with anything."""
        return any(x is not None for x in (*self.bounds.values(), self.top_share, self.bottom_share))

    def completed(self) -> Compared:
        """The condition that is meant where no number is given."""
        if not self.compares:
            keys = ", ".join(key for key in type(self).model_fields if key.split("_")[0] in ("at", "more", "less"))
            raise ValueError(f"{self.subject()} is compared with nothing: add one of {keys}, top_share")
        return self

    def holds(self, view: View) -> Bools:
        """(n,) for whom every comparison holds; an unknown figure satisfies none.

        Raises:
            ConfigError: a threshold that is to be learnt is not learnt yet.
        """
        x, threshold = view.of(self._figure), self.learnt_threshold
        if (self.top_share is not None or self.bottom_share is not None) and threshold is None:
            raise ConfigError(f"the threshold of {self.subject()} is not learnt yet: fit the segments first")
        kept = ~np.isnan(x)
        for name, bound in self._tests:
            kept &= COMPARE[name](x, bound)
        if threshold is not None:
            kept &= x >= threshold if self.top_share is not None else x <= threshold
        return kept

    def holds_one(self, view: View) -> bool:
        """For a single snapshot, by plain numbers where the kind of figure has no `holds` of its own."""
        if not self._is_plain:
            return super().holds_one(view)
        x = view.one(self._figure)
        for fits, bound in self._tests_of_one:
            if not fits(x, bound):
                return False
        return x == x

    def learnt(self, view: View) -> Condition:
        """With the threshold of a share.

        Raises:
            DataError: no customer in training has the figure.
        """
        share = self.top_share if self.top_share is not None else self.bottom_share
        if share is None or self.learnt_threshold is not None:
            return self
        x = view.of(self._figure)
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
        told = [f"{COMPARE_WORDS[name]}{self.amount(x)}" for name, x in self.bounds.items() if x is not None]
        for share, end, at in ((self.top_share, "top", "at least"), (self.bottom_share, "lowest", "at most")):
            if share is not None:
                learnt = self.learnt_threshold
                meaning = "" if learnt is None else f" ({at} {self.amount(learnt)})"
                told.append(f"in the {end} {percent(share)} of customers{meaning}")
        return told


COMPARE: dict[str, Callable[[Any, float], Any]] = {
    "at_least": np.greater_equal,
    "at_most": np.less_equal,
    "more_than": np.greater,
    "less_than": np.less,
    "exactly": np.equal,
}
COMPARE_ONE: dict[str, Callable[[float, float], bool]] = {
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


def learnt(condition: Condition, view: View) -> Condition:
    """The condition with everything learnt that it wants to learn from these snapshots."""
    return condition.learnt(view)

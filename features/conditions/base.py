"""The base of all conditions: reading them from tables, the registry of their kinds, and all, any, not.

A kind of condition is a class that registers the keys that name it, so that this module imports no kind:

    @kind("gap")
    class GapCondition(MeasureCondition, Selection): ...
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import date
from typing import Annotated, Any, ClassVar, Self, TypeVar

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, SerializeAsAny, ValidationError, model_serializer, model_validator

from features.conditions.measures import SnapshotView
from features.conditions.selections import joined
from features.settings import Section, explain, unknown_key

Bools = npt.NDArray[np.bool_]
K = TypeVar("K", bound="type[Condition]")
FITTED = {"learnt_threshold", "learnt_cuts", "meaning", "base"}  # fields that `fit` fills; no keys to suggest
KINDS: dict[str, type[Condition]] = {}  # a key that names a kind of condition → the kind


def kind(*keys: str) -> Callable[[K], K]:
    """Register a kind of condition under the keys that name it."""

    def register(condition: K) -> K:
        KINDS.update(dict.fromkeys(keys, condition))
        return condition

    return register


class Condition(Section):
    """What every condition can do."""

    def holds(self, view: SnapshotView) -> Bools:
        """(n,) for whom it holds."""
        raise NotImplementedError

    def holds_single(self, view: SnapshotView) -> bool:
        """The same for a single snapshot, of which a service has to tell in microseconds."""
        return bool(self.holds(view)[0])

    def words(self) -> str:
        """The condition for a person, every threshold in it."""
        raise NotImplementedError

    def fit(self, view: SnapshotView) -> Condition:
        """The same with thresholds learnt from these snapshots where some are to be learnt."""
        return self

    def completed(self) -> Condition:
        """The condition that is meant where the table leaves something out."""
        return self

    @classmethod
    def from_table(cls, data: dict[str, Any]) -> Condition:
        """The condition that a table of this kind describes."""
        return cls.model_validate(data)

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
        return [_plain(item) for item in value]
    return value.isoformat() if isinstance(value, date) else value


def parse(data: Any) -> Condition:
    """A condition from a table, complete.

    Raises:
        ValueError: one sentence that names what is wrong; pydantic reports it.
    """
    return parse_any(data).completed()


def parse_any(data: Any) -> Condition:
    """A condition from a table, perhaps a measure that is compared with nothing."""
    if isinstance(data, Condition):
        return data
    if not isinstance(data, Mapping):
        raise ValueError(f'a condition is a table such as {{ events = ["purchase"], at_least = 1 }}, not {data!r}')
    try:
        return _kind_of(data).from_table(dict(data))
    except ValidationError as error:
        raise ValueError(explain(error).splitlines()[0].strip().removeprefix("the file: ")) from error


def _kind_of(data: Mapping[str, Any]) -> type[Condition]:
    """The kind that the table's keys name."""
    logic = [key for key in data if key in LOGIC]
    if logic and len(data) > 1:
        other = next(key for key in data if key != logic[0])
        raise ValueError(f"'{logic[0]}' stands alone, but '{other}' stands beside it: put that into a table of its own")
    subjects = [key for key in data if key in KINDS and key != "events"]
    if len(subjects) > 1:
        raise ValueError(
            f"'{subjects[0]}' and '{subjects[1]}' in one condition: write two tables and join them with all or any"
        )
    if subjects:
        return KINDS[subjects[0]]
    if not data:
        raise ValueError('a condition is empty: write for instance { events = ["purchase"], at_least = 1 }')
    fields = [key for each in KINDS.values() for key in each.model_fields if key not in FITTED and key != "negated"]
    for key in data:
        if key not in fields and key not in KINDS:
            raise ValueError(unknown_key(key, dict.fromkeys([*KINDS, *fields])))
    return KINDS["events"]


LOGIC = ("all", "any", "not")
When = SerializeAsAny[Annotated[Condition, BeforeValidator(parse)]]


class JoinedConditions(Condition):
    """Conditions joined by one word; subclasses hold them in the field `key`."""

    key: ClassVar[str]
    conjunction: ClassVar[str]

    @property
    def inside(self) -> tuple[Condition, ...]:
        """The conditions that are joined."""
        return tuple(getattr(self, self.key))

    @classmethod
    def from_table(cls, data: dict[str, Any]) -> Condition:
        """The condition that a table describes."""
        if isinstance(data[cls.key], Mapping):
            raise ValueError(f"'{cls.key}' takes a list of conditions: put square brackets around the table")
        return cls.model_validate(data)

    @model_validator(mode="after")
    def _not_empty(self) -> Self:
        if not self.inside:
            raise ValueError(f"'{self.key}' is empty: list at least one condition")
        return self

    def parts(self) -> Iterator[Condition]:
        """This condition and those inside it."""
        yield self
        for condition in self.inside:
            yield from condition.parts()

    def words(self) -> str:
        """The conditions joined; those joined by the other word stand in brackets."""
        return joined([f"({c.words()})" if self._in_brackets(c) else c.words() for c in self.inside], self.conjunction)

    def _in_brackets(self, condition: Condition) -> bool:
        return isinstance(condition, JoinedConditions) and condition.key != self.key and len(condition.inside) > 1

    def fit(self, view: SnapshotView) -> Condition:
        """With thresholds learnt."""
        return type(self).model_validate({self.key: tuple(condition.fit(view) for condition in self.inside)})


@kind("all")
class AllOf(JoinedConditions):
    """Every one of them holds."""

    key, conjunction = "all", "and"
    all: tuple[When, ...]

    def holds(self, view: SnapshotView) -> Bools:
        """(n,) for whom it holds."""
        return np.asarray(np.logical_and.reduce([condition.holds(view) for condition in self.all]))

    def holds_single(self, view: SnapshotView) -> bool:
        """For a single snapshot."""
        for condition in self.all:  # noqa: SIM110  # a generator would cost as much as the conditions do
            if not condition.holds_single(view):
                return False
        return True


@kind("any")
class AnyOf(JoinedConditions):
    """At least one of them holds."""

    key, conjunction = "any", "or"
    any: tuple[When, ...]

    def holds(self, view: SnapshotView) -> Bools:
        """(n,) for whom it holds."""
        return np.asarray(np.logical_or.reduce([condition.holds(view) for condition in self.any]))

    def holds_single(self, view: SnapshotView) -> bool:
        """For a single snapshot."""
        return any(condition.holds_single(view) for condition in self.any)


@kind("not")
class Opposite(Condition):
    """It does not hold; an unknown figure does not hold, so its opposite does."""

    negated: When

    @classmethod
    def from_table(cls, data: dict[str, Any]) -> Condition:
        """The condition that a table describes."""
        return cls(negated=parse(data["not"]))

    def parts(self) -> Iterator[Condition]:
        """This condition and those inside it."""
        yield self
        yield from self.negated.parts()

    def holds(self, view: SnapshotView) -> Bools:
        """(n,) for whom it holds."""
        return ~self.negated.holds(view)

    def holds_single(self, view: SnapshotView) -> bool:
        """For a single snapshot."""
        return not self.negated.holds_single(view)

    def words(self) -> str:
        """In brackets after not."""
        return f"not ({self.negated.words()})"

    def fit(self, view: SnapshotView) -> Condition:
        """With thresholds learnt."""
        return Opposite(negated=self.negated.fit(view))

    @model_serializer(mode="plain")
    def toml(self) -> dict[str, Any]:
        """As it is written."""
        return {"not": self.negated.toml()}

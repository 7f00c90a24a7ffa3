"""Segments by ordered rules: a customer belongs to the first rule that holds, now or on a fixed date.

    [[segments.rules]]
    name = "Complained, then inactive"
    when = { all = [{ events = ["complaint", "help_*"], within_days = 60 }, { last = ["*"], more_than_days = 14 }] }

    [[segments.rules]]
    name = "Summer campaign"
    when = { events = ["purchase"], since = 2024-06-01, until = 2024-09-01 }
    frozen_at = 2024-09-01              # a static list; without it the rule is evaluated at each cutoff

`features.conditions.conditions` lists the conditions of `when`.

    segments = RuleSegments([Rule(name="Buyers", when={"events": ["purchase"]})], rest="Everybody else").fit(train)
    segments.assign(snapshots)          # (n,) places in segments.segments, -1 for none
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date, datetime
from itertools import chain, count
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field, ValidationError, field_validator, model_validator

from features.conditions.conditions import Condition, When
from features.conditions.event_kinds import NumberCondition
from features.conditions.kinds import DominantCondition, FeatureCondition, ProfileCondition
from features.conditions.measures import COLUMNS, SnapshotView
from features.conditions.selections import allowed, either, moment_words
from features.errors import ConfigError, DataError, nearest
from features.journeys.journeys import Journeys, Snapshots
from features.settings import Section, explain
from features.tabular.features import TabularFeatures
from features.tabular.settings import TabularSettings
from features.timestamps import microseconds
from models.segments.contract import NO_SEGMENT, Segment
from models.segments.rules.static_lists import Hashes, StaticList, hashed, load_lists, save_lists

FORMAT = 1
FILE = "rules.json"
NAMED_BEFORE = 3  # a description names so many earlier rules at most


class Rule(Section):
    """One segment by a condition.

    Attributes:
        name: for people.
        when: the condition.
        id: stable and short; made from the name where missing.
        active: true: evaluated at each cutoff. False needs `frozen_at`.
        frozen_at: the moment (UTC) whose members stay the members: a static list.
        words: a description instead of the condition's own.
    """

    name: str = Field(min_length=1)
    when: When
    id: str = ""
    active: bool = True
    frozen_at: datetime | date | None = None
    words: str = ""

    @field_validator("id")
    @classmethod
    def _check_id(cls, text: str) -> str:
        if text and text != slug(text):
            raise ValueError(f"an id is lower case letters, digits and hyphens, such as '{slug(text)}'")
        return text

    @model_validator(mode="after")
    def _check_frozen(self) -> Self:
        if not self.active and self.frozen_at is None:
            raise ValueError(f"'{self.name}' is not active: give its date, such as frozen_at = 2024-06-01")
        return self

    @property
    def slug(self) -> str:
        """The id, or the name as one."""
        return self.id or slug(self.name)


class RuleSegments:
    """A partition by ordered rules; implements `models.segments.contract.Segmentation`.

    After `fit`: `rules_` (with learnt thresholds), `features_` (tabular features, where rules use some), `lists_`
    (slug → members of frozen rules), `notes_` (a sentence for each suspicious name).

    Args:
        rules: in order; a customer belongs to the first that holds. Tables as in TOML are accepted, too.
        scheme: the partition's name, the first part of the segments' ids.
        rest: the name of a last segment for all other customers; None leaves them in no segment.
        rest_words: its description.
        disjoint: no two rules hold for one customer, so descriptions need not name the rules before.
        features: settings of tabular features, where rules use some.
    """

    kind = "rules"

    def __init__(
        self,
        rules: Sequence[Rule | dict[str, Any]] = (),
        *,
        scheme: str = "rules",
        rest: str | None = None,
        rest_words: str = "none of the other segments",
        disjoint: bool = False,
        features: TabularSettings | None = None,
    ) -> None:
        self.rules = tuple(_rule(rule) for rule in rules)
        self._scheme, self.rest, self.rest_words = scheme, rest, rest_words
        self.disjoint, self.feature_settings = disjoint, features
        self.rules_: tuple[Rule, ...] = ()
        self.features_: TabularFeatures | None = None
        self.lists_: dict[str, StaticList] = {}
        self.notes_: tuple[str, ...] = ()
        self._segments: tuple[Segment, ...] = ()

    @property
    def scheme(self) -> str:
        """The partition's name."""
        return self._scheme

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, in the order of the rules, the rest last."""
        return self._segments

    def fit(self, snapshots: Snapshots) -> Self:
        """Learn thresholds from training snapshots, and freeze static lists.

        Raises:
            ConfigError: two rules of one name, or a column or feature that the log does not have.
            DataError: no customer to learn from.
        """
        _check_rules(self.rules, self.rest)
        conditions = [part for rule in self.rules for part in rule.when.parts()]
        self.notes_ = check_against_log(conditions, snapshots.journeys)
        self.features_ = self._fit_features(conditions, snapshots)
        view = SnapshotView(snapshots, self.features_)
        self.rules_ = tuple(rule.model_copy(update={"when": rule.when.fit(view)}) for rule in self.rules)
        self.lists_ = {rule.slug: self._frozen(rule, snapshots.journeys) for rule in self.rules_ if rule.frozen_at}
        self._name_segments()
        return self

    def assign(self, snapshots: Snapshots) -> npt.NDArray[np.int32]:
        """(n,) the place of each customer's segment, `NO_SEGMENT` where no rule holds and there is no rest.

        Raises:
            DataError: before `fit`.
        """
        return self.assign_view(SnapshotView(snapshots, self.features_))

    def assign_view(self, view: SnapshotView) -> npt.NDArray[np.int32]:
        """(n,) the same from a view, so that partitions share the measures that it has computed.

        Raises:
            DataError: the segments are not fitted.
        """
        if not self._segments:
            raise DataError("these segments are not fitted: call fit(training_snapshots) first")
        if view.features is not self.features_:
            view = SnapshotView(view.snapshots, self.features_)
        out = np.full(len(view), NO_SEGMENT if self.rest is None else len(self.rules_), np.int32)
        if len(view) == 1:  # a request: later rules need not be evaluated
            out[0] = next((place for place, rule in enumerate(self.rules_) if self._holds_single(rule, view)), out[0])
            return out
        for place in range(len(self.rules_) - 1, -1, -1):  # earlier rules overwrite later ones
            out[self._holds(self.rules_[place], view)] = place
        return out

    def members_of(self, journeys: Journeys) -> dict[str, Hashes]:
        """Slug of each frozen rule → hashes, under its list's key, of the members in a part of the log."""
        frozen = [rule for rule in self.rules_ if rule.slug in self.lists_]
        return {
            rule.slug: hashed(self._members(rule, journeys).customer_ids, self.lists_[rule.slug].key) for rule in frozen
        }

    def take_members(self, members: Mapping[str, Hashes]) -> None:
        """Replace static lists by the members of the whole log, where the fit saw a sample.

        Args:
            members: slug → (m,) hashes of `members_of` over all parts.
        """
        for rule in self.rules_:
            if rule.slug in members:
                self.lists_[rule.slug] = replace(self.lists_[rule.slug], hashes=np.unique(members[rule.slug]))
                if len(self.lists_[rule.slug]):
                    self.notes_ = tuple(note for note in self.notes_ if note != _empty_note(rule))

    def save(self, folder: Path) -> None:
        """Write `rules.json`, and `lists.json`, `lists.safetensors` where there are static lists."""
        folder.mkdir(parents=True, exist_ok=True)
        about = {
            "format": FORMAT,
            "kind": RuleSegments.kind,
            "scheme": self._scheme,
            "rest": self.rest,
            "rest_words": self.rest_words,
            "disjoint": self.disjoint,
            "rules": [rule.model_dump(mode="json", exclude_defaults=True) for rule in self.rules_],
            "features": None if self.features_ is None else self.features_.to_dict(),
            "notes": list(self.notes_),
        }
        (folder / FILE).write_text(json.dumps(about, ensure_ascii=False, indent=1), encoding="utf-8")
        save_lists(self.lists_, folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: no such segments there, or of another format.
        """
        if not (folder / FILE).is_file():
            raise DataError(f"No segments by rules in {folder}: it has no {FILE}.")
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        if about.get("format") != FORMAT:
            raise DataError(f"{folder / FILE} has format {about.get('format')!r}; this version reads {FORMAT}.")
        segments = cls.__new__(cls)
        arguments = {key: about[key] for key in ("scheme", "rest", "rest_words", "disjoint")}
        RuleSegments.__init__(segments, about["rules"], **arguments)
        segments.rules_ = segments.rules
        segments.features_ = None if about["features"] is None else TabularFeatures.from_dict(about["features"])
        segments.lists_ = load_lists(folder)
        segments.notes_ = tuple(about["notes"])
        segments._name_segments()
        return segments

    def _fit_features(self, conditions: list[Condition], snapshots: Snapshots) -> TabularFeatures | None:
        names = list(dict.fromkeys(part.feature for part in conditions if isinstance(part, FeatureCondition)))
        if not names:
            return None
        settings = (self.feature_settings or TabularSettings()).model_copy(update={"drop_redundant": False})
        try:
            return TabularFeatures(settings).fit(snapshots).select(names)
        except DataError as error:
            raise ConfigError(f"segments '{self._scheme}': {error}") from error

    def _frozen(self, rule: Rule, journeys: Journeys) -> StaticList:
        """The rule's members at its date, of all customers of the log."""
        members = self._members(rule, journeys)
        if len(members) == 0:
            self.notes_ += (_empty_note(rule),)
        return StaticList.of(members, int(microseconds(rule.frozen_at)))

    def _members(self, rule: Rule, journeys: Journeys) -> Snapshots:
        then = journeys.at(int(microseconds(rule.frozen_at)))
        return then.take(rule.when.holds(SnapshotView(then, self.features_)) & (then.stop > then.start))

    def _holds(self, rule: Rule, view: SnapshotView) -> npt.NDArray[np.bool_]:
        return rule.when.holds(view) if rule.frozen_at is None else self.lists_[rule.slug].holds(view.snapshots)

    def _holds_single(self, rule: Rule, view: SnapshotView) -> bool:
        return rule.when.holds_single(view) if rule.frozen_at is None else bool(self._holds(rule, view)[0])

    def _name_segments(self) -> None:
        segments = [
            Segment(f"{self._scheme}:{rule.slug}", rule.name, self._words(place))
            for place, rule in enumerate(self.rules_)
        ]
        if self.rest is not None:
            segments.append(Segment(f"{self._scheme}:{slug(self.rest)}", self.rest, self.rest_words))
        self._segments = tuple(segments)

    def _words(self, place: int) -> str:
        rule = self.rules_[place]
        if rule.words:
            return rule.words
        words = rule.when.words()
        if rule.frozen_at is not None:
            words = f"on the list of {moment_words(rule.frozen_at)}: {words}"
        before = [rule.name for rule in self.rules_[:place]]
        if not before or self.disjoint:
            return words
        return f"{words}; not in {either(before) if len(before) <= NAMED_BEFORE else 'an earlier segment'}"


def _rule(rule: Rule | dict[str, Any]) -> Rule:
    if isinstance(rule, Rule):
        return rule
    try:
        return Rule.model_validate(rule)
    except ValidationError as error:
        name = rule.get("name", "a rule") if isinstance(rule, dict) else "a rule"
        raise ConfigError(f"segment '{name}':\n{explain(error)}") from error


def _empty_note(rule: Rule) -> str:
    assert rule.frozen_at is not None
    return f"the list '{rule.name}' is empty: it had no members on {moment_words(rule.frozen_at)}"


def _check_rules(rules: tuple[Rule, ...], rest: str | None) -> None:
    if not rules:
        raise ConfigError("there is no rule: give at least one segment")
    ids = [rule.slug for rule in rules] + ([] if rest is None else [slug(rest)])
    names = [rule.name for rule in rules] + ([] if rest is None else [rest])
    for kind, values in (("id", ids), ("name", names)):
        if repeated := [value for value in values if values.count(value) > 1]:
            raise ConfigError(f"two segments have the {kind} '{repeated[0]}': give each its own")


def slug(name: str) -> str:
    """A name as part of an id.

    >>> slug("Can't lose them (50 %)"), slug("Größe: über 9"), slug("客户")
    ('cant-lose-them-50', 'grosse-uber-9', '客户')
    """
    plain = unicodedata.normalize("NFKD", name.casefold().replace("'", "").replace("’", ""))
    plain = "".join(sign for sign in plain if not unicodedata.combining(sign))
    return re.sub(r"[\W_]+", "-", plain).strip("-") or "segment"


def distinct_ids(names: Sequence[str], reserved: Sequence[str] = ()) -> dict[str, str]:
    """Name → slug; equal slugs get a number, in alphabetical order of the names, so that ids do not depend on the log.

    >>> distinct_ids(["A+", "A", "B"])
    {'A': 'a', 'A+': 'a-2', 'B': 'b'}
    """
    ids: dict[str, str] = {}
    for name in sorted(names):
        numbered = (f"{slug(name)}-{number}" for number in count(2))
        ids[name] = next(id for id in chain([slug(name)], numbered) if id not in (*ids.values(), *reserved))
    return ids


def check_against_log(conditions: Sequence[Condition], journeys: Journeys) -> tuple[str, ...]:
    """Compare conditions with the log: a missing column is an error, a pattern that nothing matches a note.

    Raises:
        ConfigError: a column that the log does not have.
    """
    notes: dict[str, None] = {}
    for part in conditions:
        for column in _columns_of(part):
            if column not in (columns := [*journeys.categories, *journeys.numbers]):
                raise ConfigError(f"a segment uses column '{column}', which the log lacks{close_name(column, columns)}")
        for column, patterns in _patterns_of(part):
            names = journeys.categories[column].names if column in journeys.categories else ()
            for pattern in patterns:
                if pattern != "*" and not allowed(names, (pattern,)).any():
                    notes[f"no {column} in the log matches '{pattern}'{close_name(pattern, names)}"] = None
    return tuple(notes)


def _columns_of(part: Condition) -> list[str]:
    if isinstance(part, ProfileCondition):
        return [part.profile]
    if isinstance(part, DominantCondition):
        return [part.dominant]
    return [part.column] if isinstance(part, NumberCondition) else []


def _patterns_of(part: Condition) -> list[tuple[str, tuple[str, ...]]]:
    keys = ("days_with", "last", "first", "followed_by", "not_followed_by", "gap", "overdue", "share", "of")
    touchpoints = [("touchpoint", getattr(part, key, None) or ()) for key in keys]
    return [*zip(COLUMNS, getattr(part, "names", ()), strict=False), *touchpoints]


def close_name(name: str, names: Sequence[str]) -> str:
    """The end of a sentence that suggests the name closest to a misspelt one; empty where none is close."""
    close = nearest(name, names)
    return f"; did you mean '{close}'?" if close else ""

"""Tabular features as a person reads them: categories as yes-or-no columns, without those that only tell the date."""

from __future__ import annotations

import re
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from features.events.schema import CATEGORIES
from features.tabular.features import TabularFeatures
from features.tabular.group import Learned

Floats32 = npt.NDArray[np.float32]

MOST_LEVELS = 12
EVERYDAY = re.compile(
    r"(value|events|visits|active_days|active_months|items_distinct|returns)_(\d+d|all)|visits|value_total|recency_days"
    r"|tenure_days|span_days|basket_(mean|max)|gap_(mean|median)|returns_share|bounce_share|visit_events_mean"
    r"|visit_seconds_mean|events_per_active_day|satisfaction_(mean_all|last)|touchpoints_distinct|channels_distinct"
    r"|item_repeat_share|(touchpoint|channel|stage)\.(.+)\.(count|value)_\w+|profile\..*|work_open"
)
PLAIN_GROUPS = (
    *("volume", "value", "recency", "rfm", "rhythm", "day_rhythm", "sessions", "tenure", "variety", "returns"),
    *("satisfaction", "profile"),
)
EASY, PLAIN, HARD = 1.0, 0.9, 0.8  # factors of the effect size when columns compete for a place among the words
ABOUT_THE_DATE = re.compile(r"cutoff_|season_|last_hour$|last_weekday$")


@dataclass(frozen=True)
class ReadableColumn:
    """One readable column.

    Attributes:
        name: `feature=value` for a yes-or-no column, else the feature's name.
        feature: the tabular feature that it comes from.
        group: the feature's subject.
        meaning: in words, one line.
        level: the code that counts as yes; None for a number.
        text: the category's value where there is one.
    """

    name: str
    feature: str
    group: str
    meaning: str
    level: int | None = None
    text: str = ""

    @property
    def ease(self) -> float:
        """How easy it is to read: 1 for everyday words, less for columns that need an explanation."""
        if EVERYDAY.fullmatch(self.feature):
            return EASY
        return PLAIN if self.group in PLAIN_GROUPS else HARD

    def to_dict(self) -> dict[str, Any]:
        """As JSON-ready data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        return cls(**data)


def readable_columns(tabular: TabularFeatures) -> tuple[ReadableColumn, ...]:
    """The columns that a person can read, in the order of the fitted features."""
    learned = tabular.learned_
    assert learned is not None, "tabular features must be fitted"
    columns: list[ReadableColumn] = []
    for feature in tabular.features_:
        if ABOUT_THE_DATE.match(feature.name):
            continue
        if not feature.categorical:
            columns.append(ReadableColumn(feature.name, feature.name, feature.group, feature.meaning))
            continue
        for level, value in enumerate(values_of(feature.name, learned)[:MOST_LEVELS]):
            meaning = f"{feature.meaning} is '{value}'"
            columns.append(
                ReadableColumn(f"{feature.name}={value}", feature.name, feature.group, meaning, level, value)
            )
    return tuple(columns)


def column_values(columns: tuple[ReadableColumn, ...], x: Floats32, names: list[str]) -> Floats32:
    """(n, c) the columns from (n, f) features of these names; a yes-or-no column is 0 for a missing value."""
    place = {name: i for i, name in enumerate(names)}
    out = np.empty((len(x), len(columns)), np.float32, order="F")
    for i, column in enumerate(columns):
        values = x[:, place[column.feature]]
        out[:, i] = values if column.level is None else values == column.level
    return out


def values_of(feature: str, learned: Learned) -> tuple[str, ...]:
    """The values of a categorical feature's codes; empty where they cannot be derived from its name."""
    if feature.startswith("touchpoint_before_last_") or feature == "last_visit_door":
        return learned.vocabularies.get("touchpoint", ())
    for column in CATEGORIES:
        if feature in (f"first_{column}", f"last_{column}"):
            return learned.vocabularies.get(column, ())
    for column in (*learned.profile, *learned.properties):
        safe = re.sub(r"[^\w.+-]+", "_", column)
        if feature in (f"profile.{safe}", f"{safe}.last", f"{safe}.first"):
            return learned.vocabularies.get(column, ())
    return ()

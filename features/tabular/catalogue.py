"""The list of feature groups, and the name and meaning of every feature in the order of the kernels.

A new group is a file in `features/tabular/groups` and an entry in `GROUPS`. Names are `column.value.what_window`, free
of characters that LightGBM refuses; the meaning has the value as the log spells it.
"""

from __future__ import annotations

import re
from collections.abc import Container
from dataclasses import dataclass

from features.tabular.group import FeatureGroup, Learned, Names, Widths
from features.tabular.groups import (
    basket,
    calendar,
    counts,
    firsts,
    items,
    properties,
    rhythm,
    satisfaction,
    work,
)

# The order of the columns. Models name their columns, so a new group may stand anywhere.
GROUPS: list[FeatureGroup] = [
    counts.VOLUME_GROUP,
    counts.VALUE_GROUP,
    counts.RECENCY_GROUP,
    counts.TREND_GROUP,
    basket.RFM_GROUP,
    rhythm.RHYTHM_GROUP,
    rhythm.DAY_RHYTHM_GROUP,
    rhythm.SESSIONS_GROUP,
    rhythm.TENURE_GROUP,
    items.VARIETY_GROUP,
    basket.RETURNS_GROUP,
    calendar.CALENDAR_GROUP,
    satisfaction.SATISFACTION_GROUP,
    firsts.TOUCH_GROUP,
    firsts.ORDER_GROUP,
    firsts.TRANSITIONS_GROUP,
    work.OPEN_WORK_GROUP,
    properties.PROPERTIES_GROUP,
    properties.PROFILE_GROUP,
]
ALL_GROUPS = tuple(group.name for group in GROUPS)


@dataclass(frozen=True)
class Feature:
    """One column of the matrix.

    Attributes:
        categorical: the value is a code (0 the most frequent in training), NaN where there is none.
    """

    name: str
    group: str
    meaning: str
    categorical: bool = False


def catalogue(learned: Learned, widths: Widths, groups: tuple[str, ...]) -> list[Feature]:
    """Every feature of the groups, in the kernels' order; names are unique."""
    features: dict[str, Feature] = {}
    for group in GROUPS:
        if group.name in groups:
            for name, meaning, *categorical in group.columns(Names(learned, widths)):
                name = _unique(re.sub(r"[^\w.+-]+", "_", name), features)
                features[name] = Feature(name, group.name, meaning, any(categorical))
    return list(features.values())


def _unique(name: str, names: Container[str]) -> str:
    candidate, number = name, 2
    while candidate in names:
        candidate, number = f"{name}_{number}", number + 1
    return candidate

"""A table for choosing target segments, and a health report against the goals that the experiment file states.

    [[segments.goals]]
    metric = "churn"                # conversion, churn, value or satisfaction
    at_most = 0.3
    segment = "High value, frequent"    # id or name; without it, every segment

Both read the profiles of `models.segments.insight.profiles`. A customer is reachable by a way of contact (e-mail, app,
…) if one of its channels or touchpoints has an event within so many days before the cutoff.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, model_validator

from features.errors import ConfigError
from features.events.stages import fits
from features.journeys.journeys import Snapshots
from features.settings import Section, unknown_key
from features.statistics import wilson
from models.segments.contract import Segment
from models.segments.insight.effects import number_words
from models.segments.insight.profiles import check_places, current_rows, first_since

METRICS = {
    "conversion": ("conversion_rate", "conversion rate"),
    "churn": ("churn_rate", "churn rate"),
    "value": ("value_mean", "value per customer"),
    "satisfaction": ("satisfaction", "satisfaction"),
}
WAYS: dict[str, tuple[str, ...]] = {
    "e-mail": ("*e-mail*", "*email*", "*newsletter*"),
    "app": ("app", "app_*", "*_app", "*push*", "*mobile*"),
    "phone": ("*phone*", "*call*", "*sms*"),
    "post": ("letter*", "mail", "direct_mail*", "*catalogue*"),
    "social": ("*social*", "*messenger*", "*chat*"),
}
REPORT_COLUMNS = (
    *("metric", "segment_id", "segment", "goal", "figure", "low", "high", "short_by", "status", "sentence"),
)


class TargetSettings(Section):
    """`[segments.targets]`: which customers count as reachable.

    Attributes:
        ways: way of contact -> names or patterns (`*`, `?`) of channels or touchpoints, without regard to case.
        within_days: the greatest age of the last such event.
    """

    ways: dict[str, tuple[str, ...]] = Field(default_factory=lambda: dict(WAYS))
    within_days: float = Field(default=180, gt=0)


class Goal(Section):
    """One goal of `[[segments.goals]]`.

    Attributes:
        metric: conversion, churn, value or satisfaction.
        at_least: lower bound; rates are 0..1.
        at_most: upper bound.
        segment: id or name; None: every segment.
    """

    metric: Literal["conversion", "churn", "value", "satisfaction"]
    at_least: float | None = None
    at_most: float | None = None
    segment: str | None = None

    @model_validator(mode="after")
    def _check_bound(self) -> Self:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError(f"a goal for {self.metric} needs either at_least or at_most")
        bound = self.bound
        if self.metric in ("conversion", "churn") and not 0 <= bound <= 1:
            raise ValueError(f"a {self.metric} rate lies between 0 and 1, not {bound:g}; write 30 % as 0.3")
        return self

    @property
    def bound(self) -> float:
        """The lower or the upper bound."""
        return float(self.at_most if self.at_least is None else self.at_least)  # type: ignore[arg-type]


def target_table(
    profiles: pd.DataFrame,
    segments: Sequence[Segment],
    snapshots: Snapshots,
    place: npt.ArrayLike,
    settings: TargetSettings | None = None,
    *,
    now: npt.ArrayLike | None = None,
) -> pd.DataFrame:
    """Segments by reachable value, to choose target segments from.

    Args:
        profiles: `SegmentProfiles.table` of the same partition.
        segments: the partition.
        snapshots: (n,) rows.
        place: (n,) place of each row in `segments`.
        settings: which customers count as reachable.
        now: (n,) mask of the current rows, as in the profiles.

    Returns:
        A row a segment, by falling reachable value (then reachable customers): id, name, customers, share, growth,
        value_mean(+_low, _high), value_total, `<task>_rate` of the profiles, reachable(+_low, _high), a column
        `by_<way>` for each way of contact that the log has, reachable_customers, reachable_value, words; NaN where
        the log has none of the ways.
    """
    places = check_places(segments, snapshots, place)
    rows = current_rows(snapshots) if now is None else np.flatnonzero(np.asarray(now, bool))
    reached = reachable_by(snapshots.take(rows), settings or TargetSettings())
    rates = [name for name in profiles.columns if str(name).endswith("_rate")]
    value = ["value_mean", "value_low", "value_high"]
    table = profiles[["id", "name", "customers", "share", "growth", *value, *rates]].copy()
    table["value_total"] = table["value_mean"] * table["customers"]
    by_any_way = reached.any(axis=1).to_numpy()
    members = [places[rows] == s for s in range(len(segments))]
    sizes = np.array([inside.sum() for inside in members])
    has_ways = len(reached.columns) > 0  # without any such channel in the log, reach is unknown
    counts = np.array([by_any_way[inside].sum() if has_ways else np.nan for inside in members], np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        table["reachable"] = counts / sizes
        for way in reached:
            reach = reached[way].to_numpy()
            table[f"by_{way}"] = [reach[inside].mean() if inside.any() else np.nan for inside in members]
    table["reachable_low"], table["reachable_high"] = wilson(counts, np.where(has_ways, sizes, 0))
    table["reachable_customers"] = counts
    table["reachable_value"] = table["value_mean"] * counts
    table["words"] = [_target_words(row, [str(way) for way in reached.columns]) for row in _records(table)]
    order = ["reachable_value", "reachable_customers"]
    return table.sort_values(order, ascending=False, ignore_index=True, kind="stable", na_position="last")


def reachable_by(snapshots: Snapshots, settings: TargetSettings) -> pd.DataFrame:
    """(n, ways) bool: a recent event in a channel or touchpoint of the way; ways that the log lacks are left out."""
    journeys = snapshots.journeys
    since = np.minimum(first_since(snapshots, settings.within_days), snapshots.stop)
    reached = {}
    for way, patterns in settings.ways.items():
        hit = np.zeros(journeys.n_events, bool)
        for column in ("channel", "touchpoint"):
            if (category := journeys.categories.get(column)) is not None:
                matches = [any(fits(n.casefold(), p.casefold()) for p in patterns) for n in category.names]
                hit |= np.array([*matches, False])[category.codes]  # -1, missing, is the last
        if hit.any():
            total = np.concatenate(([0], np.cumsum(hit)))
            reached[way] = total[snapshots.stop] > total[since]
    return pd.DataFrame(reached, index=range(len(snapshots)), dtype=bool)


def health_report(profiles: pd.DataFrame, goals: Sequence[Goal]) -> pd.DataFrame:
    """Goals and segments: which missed which goal, by how much, and how certain that is.

    Args:
        profiles: `SegmentProfiles.table`.
        goals: of the experiment file.

    Returns:
        A row a goal and segment, certain misses first: metric, segment_id, segment, goal (words), figure,
        low, high (its 95 % interval), short_by (0 where met), status, sentence. `status` is "fell short" or "met" where
        the interval lies wholly on one side, "probably fell short" or "probably met" where it does not, "unknown".

    Raises:
        ConfigError: a goal names an unknown segment.
    """
    rows = [
        _judged(goal, row)
        for goal in goals
        for row in _records(profiles)
        if goal.segment is None or _segment_id(goal.segment, profiles) == row["id"]
    ]
    table = pd.DataFrame(rows, columns=list(REPORT_COLUMNS))
    worst = table["status"].map({name: i for i, name in enumerate(STATUSES)})
    return table.loc[worst.sort_values(kind="stable").index].reset_index(drop=True)


STATUSES = ("fell short", "probably fell short", "unknown", "probably met", "met")


def _segment_id(segment: str, profiles: pd.DataFrame) -> str:
    """The id of a segment that a goal names by id or name."""
    for column in ("id", "name"):
        matches = profiles.loc[profiles[column] == segment, "id"]
        if len(matches):
            return str(matches.iloc[0])
    names = [*profiles["id"].astype(str), *profiles["name"].astype(str)]
    raise ConfigError("[[segments.goals]] segment: " + unknown_key(segment, names).replace("key", "segment", 1))


def _judged(goal: Goal, row: Mapping[str, object]) -> dict[str, object]:
    """One goal for one segment."""
    column, word = METRICS[goal.metric]
    stem = "value" if goal.metric == "value" else column
    figure, low, high = (_number(row, name) for name in (column, f"{stem}_low", f"{stem}_high"))
    upward = goal.at_least is not None
    short = max(0.0, goal.bound - figure if upward else figure - goal.bound)
    if np.isnan(figure):
        short, status = float("nan"), "unknown"
    elif short > 0:
        status = "fell short" if (high < goal.bound if upward else low > goal.bound) else "probably fell short"
    else:
        status = "met" if (low >= goal.bound if upward else high <= goal.bound) else "probably met"
    goal_words = f"{word} {'at least' if upward else 'at most'} {_number_text(goal.metric, goal.bound)}"
    return {
        **{
            "metric": goal.metric,
            "segment_id": row["id"],
            "segment": row["name"],
            "goal": goal_words,
            "figure": figure,
        },
        **{"low": low, "high": high, "short_by": short, "status": status},
        "sentence": _goal_words(goal.metric, str(row["name"]), goal_words, figure, low, high, short, status),
    }


def _goal_words(
    metric: str, segment: str, goal: str, figure: float, low: float, high: float, short: float, status: str
) -> str:
    if status == "unknown":
        return f"{segment}: {goal} cannot be judged, because the figure is unknown."
    sides = [_number_text(metric, side) for side in (low, high)]
    interval = "no interval" if np.isnan(low) else f"95 % {sides[0]} to {sides[1]}"
    figures = f"it is {_number_text(metric, figure)} ({interval})"
    if "short" in status:
        by = f"{short * 100:.1f} points" if metric in ("conversion", "churn") else number_words(short)
        return f"{segment} {status} of {goal}: {figures}, {by} off."
    return f"{segment} {status} {goal}: {figures}."


def _number_text(metric: str, value: float) -> str:
    return f"{value:.1%}".replace("%", " %") if metric in ("conversion", "churn") else number_words(value)


def _records(table: pd.DataFrame) -> list[dict[str, object]]:
    return [{str(name): value for name, value in row.items()} for row in table.to_dict("records")]


def _number(row: Mapping[str, object], name: str) -> float:
    value = row.get(name)
    return float(value) if isinstance(value, int | float) else float("nan")


def _target_words(row: Mapping[str, object], ways: Sequence[str]) -> str:
    """The row in one line."""
    words = [f"{row['customers']:,} customers ({_number(row, 'share'):.0%})"]
    if np.isfinite(growth := _number(row, "growth")):
        change = f"{abs(growth):.0%}"
        words.append("steady" if change == "0%" else f"{'growing' if growth > 0 else 'shrinking'} {change}")
    if np.isfinite(value := _number(row, "value_mean")):
        words.append(f"worth {number_words(value)} each")
    if np.isfinite(reachable := _number(row, "reachable")):
        by = [(way, _number(row, f"by_{way}")) for way in ways]
        named = ", ".join(
            f"{way} {share:.0%}" for way, share in sorted(by, key=lambda pair: -pair[1]) if share >= 0.005
        )
        words.append(f"{reachable:.0%} reachable" + (f" ({named})" if named else ""))
    return ", ".join(words)

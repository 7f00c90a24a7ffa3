"""Built-in schemes of preferences and profile: interests, preferred channel, place, profile."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from features.conditions.measures import LatestNumber
from features.conditions.selections import allowed, days_words, number, percent
from features.errors import DataError
from features.events.schema import OPTIONAL_NUMBERS
from models.segments.rules.rule_segments import Rule, distinct_ids, slug
from models.segments.rules.scheme_settings import (
    GEOGRAPHY_COLUMNS,
    INTEREST_COLUMNS,
    SchemeRules,
    TrainingView,
    first_of,
    tidy,
)

Counts = npt.NDArray[np.int64]
FEWEST_EVENTS = 2  # a single event is no preference


def interests(training: TrainingView) -> SchemeRules:
    """The group of items (or content) whose share is furthest above its share over all customers.

    Raises:
        DataError: no such column, or too few values in it.
    """
    settings = training.settings
    column = settings.interest_column or first_of((*INTEREST_COLUMNS, "touchpoint"), training)
    if column is None or not training.has(column) or column not in training.journeys.categories:
        raise DataError(f"interests need column '{column}' with names: the log has none; set interest_column")
    names, counts = training.journeys.categories[column].names, training.counts(column)
    most = np.argsort(-counts, kind="stable")[: settings.most_segments - 1]
    groups = settings.interest_groups or {names[code]: (names[code],) for code in most.tolist() if counts[code]}
    if len(groups) < 2:
        raise DataError(f"interests need different values of '{column}': training has only {len(groups)}")
    total = int(counts.sum())
    base = [tidy(_group_count(names, counts, patterns) / total) for patterns in groups.values()]
    limits = {
        "at_least_events": FEWEST_EVENTS,
        "min_lift": settings.interest_lift,
        "within_days": settings.window_days,
    }
    ids = distinct_ids(list(groups), reserved=("no-clear-interest",))
    rules = tuple(
        Rule(
            name=f"{column}: {name}",
            id=ids[name],
            when={"dominant": column, "equals": name, "groups": groups, "base": base, **limits},
        )
        for name in groups
    )
    covered = percent(tidy(sum(base)))
    few = (
        f"interests cover only {covered} of the events with '{column}': give interest_groups or a column of categories"
    )
    notes = (few,) if sum(base) <= 0.5 else ()
    return SchemeRules(rules, "No clear interest", f"no {column} stands out", disjoint=True, notes=notes)


def _group_count(names: tuple[str, ...], counts: Counts, patterns: tuple[str, ...]) -> int:
    return int(counts[allowed(names, patterns)[1:] > 0].sum())


def channel(training: TrainingView) -> SchemeRules:
    """The channel of most events.

    Raises:
        DataError: a log without channels.
    """
    settings = training.settings
    if not training.has("channel"):
        raise DataError("preferred channel needs channels: the log has none; map a column to 'channel'")
    names, counts = training.journeys.categories["channel"].names, training.counts("channel")
    most = np.argsort(-counts, kind="stable")[: settings.most_segments - 1]
    limits = {"min_share": settings.channel_share, "within_days": settings.window_days}
    groups = {names[code]: (names[code],) for code in most.tolist() if counts[code]}
    ids = distinct_ids(list(groups), reserved=("several-channels",))
    rules = tuple(
        Rule(
            name=f"Mostly {name}",
            id=ids[name],
            when={"dominant": "channel", "equals": name, "groups": groups, **limits},
        )
        for name in groups
    )
    window = days_words(settings.window_days)
    share = percent(settings.channel_share)
    return SchemeRules(
        rules, "Several channels", f"no channel has {share} of the events of the last {window}", disjoint=True
    )


def geography(training: TrainingView) -> SchemeRules:
    """The last known place.

    Raises:
        DataError: no column of places.
    """
    setting = training.settings.geography
    column = first_of((setting,) if setting else GEOGRAPHY_COLUMNS, training)
    if column is None:
        columns = setting or ", ".join(GEOGRAPHY_COLUMNS)
        raise DataError(f"geography needs a column of places: the log has no {columns}; set geography")
    return _by_name(training, column, "Elsewhere", "Unknown place")


def profile(training: TrainingView) -> SchemeRules:
    """Demographics or firmographics: one column that describes customers, by name or by thirds of a number.

    Raises:
        DataError: no column that describes customers.
    """
    column = training.settings.profile or profile_column(training)
    if column is None or not training.has(column):
        lacking = "has no such column beyond places" if column is None else f"has no column '{column}'"
        raise DataError(f"profile needs a column that describes customers: the log {lacking}; set profile")
    if column in training.journeys.categories:
        return _by_name(training, column, f"Other {column}", f"Unknown {column}")
    return _by_thirds(training, column)


def profile_column(training: TrainingView) -> str | None:
    """The first extra column that never changes within a customer and is no place; then the first extra number."""
    extra = [name for name in training.journeys.categories if name not in ("touchpoint", "channel", "stage", "item")]
    constant = [
        name for name in extra if name not in GEOGRAPHY_COLUMNS and training.has(name) and _is_constant(training, name)
    ]
    numbers = [name for name in training.journeys.numbers if name not in OPTIONAL_NUMBERS and training.has(name)]
    return next(iter([*constant, *numbers]), None)


def _is_constant(training: TrainingView, column: str) -> bool:
    codes = training.journeys.categories[column].codes
    owner = np.repeat(np.arange(training.journeys.n_customers), np.diff(training.journeys.offsets))
    present = (codes >= 0) & training.visible
    codes, owner = codes[present], owner[present]
    return not ((codes[1:] != codes[:-1]) & (owner[1:] == owner[:-1])).any()


def _by_name(training: TrainingView, column: str, other: str, unknown: str) -> SchemeRules:
    names = training.frequent(column)[: training.settings.most_segments - 2]
    if not names:
        raise DataError(f"no value of '{column}' belongs to enough customers; lower min_share")
    ids = distinct_ids(names, reserved=(slug(other), slug(unknown)))
    rules = [Rule(name=f"{column}: {name}", id=ids[name], when={"profile": column, "equals": name}) for name in names]
    others = {"not": {"any": [{"profile": column, "unknown": True}, {"profile": column, "one_of": names}]}}
    rules.append(Rule(name=other, when=others, words=f"another {column}"))
    return SchemeRules(tuple(rules), unknown, f"{column} is unknown", disjoint=True)


def _by_thirds(training: TrainingView, column: str) -> SchemeRules:
    x = training.view.values(LatestNumber(column))
    low, high = (tidy(cut) for cut in np.quantile(x[~np.isnan(x)], (1 / 3, 2 / 3)))
    rules = [
        Rule(name=f"{column} up to {number(low)}", id="low", when={"profile": column, "at_most": low}),
        Rule(name=f"{column} above {number(high)}", id="high", when={"profile": column, "more_than": high}),
    ]
    if low < high:
        middle = {"profile": column, "more_than": low, "at_most": high}
        rules.insert(1, Rule(name=f"{column} {number(low)} to {number(high)}", id="middle", when=middle))
    return SchemeRules(tuple(rules), f"Unknown {column}", f"{column} is unknown", disjoint=True)

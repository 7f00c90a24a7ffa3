"""What the features learn from training: vocabularies, units of work, windows.

Only events that some training snapshot sees are counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from features.errors import DataError
from features.events.schema import CATEGORIES, OPTIONAL_NUMBERS
from features.journeys.journeys import Category, Journeys, Snapshots
from features.journeys.quantiles import Ranks
from features.tabular.group import Learned
from features.tabular.settings import FALLBACK_WINDOWS_DAYS, TabularSettings

ROLES = (
    (0, ("schedule", "scheduled", "queued", "assign", "assigned")),
    (1, ("start", "started", "begin", "began", "opened")),
    (2, ("complete", "completed", "end", "ended", "finish", "finished", "done", "closed", "resolved")),
)
SEPARATORS = " :_-./|"
WINDOWS_DAYS = (1 / 24, 0.25, 1, 3, 7, 14, 30, 60, 90, 180, 365, 730)
MOST_WINDOWS = 5
LOOK_FURTHER, HAVE_EVENT = 0.1, 0.05  # shares of snapshots that make a window worth having
DAY_US = 86_400_000_000

Ints = npt.NDArray[np.int64]


def suitable_windows_days(snapshots: Snapshots) -> tuple[float, ...]:
    """At most five windows that tell these snapshots apart, out of a fixed list.

    A window that hardly any history is longer than says what the whole history says; one that hardly anyone has an
    event in says nothing. What is between is thinned out evenly.
    """
    return windows_from(*window_counts(snapshots))


def window_counts(snapshots: Snapshots) -> tuple[int, Ints, Ints]:
    """How many snapshots have events; for each window, how many have a longer history, and how many an event in it.

    Counts of disjoint sets of snapshots add up.
    """
    active = snapshots.take(np.flatnonzero(snapshots.stop > snapshots.start))
    t = active.journeys.t
    history = (active.cutoff - t[active.start]) / DAY_US
    recency = (active.cutoff - t[active.stop - 1]) / DAY_US
    longer = np.array([(history > days).sum() for days in WINDOWS_DAYS], np.int64)
    within = np.array([(recency <= days).sum() for days in WINDOWS_DAYS], np.int64)
    return len(active), longer, within


def windows_from(n_active: int, longer: Ints, within: Ints) -> tuple[float, ...]:
    """The windows that suit these counts."""
    if n_active == 0:
        return FALLBACK_WINDOWS_DAYS
    worth = (longer / n_active >= LOOK_FURTHER) & (within / n_active >= HAVE_EVENT)
    fit = [days for days, is_worth in zip(WINDOWS_DAYS, worth, strict=True) if is_worth]
    places = np.unique(np.linspace(0, len(fit) - 1, min(MOST_WINDOWS, len(fit))).round().astype(int))
    return tuple(float(fit[place]) for place in places) or FALLBACK_WINDOWS_DAYS


@dataclass(frozen=True)
class Tally:
    """Counts of training events; tallies of disjoint customers with the same names add up.

    Attributes:
        counts: categorical column → (1 + names,) visible events without a value, then with each.
        changes: extra column → whether two known values next to each other within a customer differ.
        numbers: the number columns.
        rows, customers, events: snapshots, their customers, visible events.
    """

    counts: dict[str, Ints]
    changes: dict[str, bool]
    numbers: tuple[str, ...]
    rows: int
    customers: int
    events: int

    def __add__(self, other: Tally) -> Tally:
        return Tally(
            {name: counts + other.counts[name] for name, counts in self.counts.items()},
            {name: change or other.changes[name] for name, change in self.changes.items()},
            self.numbers, self.rows + other.rows, self.customers + other.customers, self.events + other.events,
        )  # fmt: skip


def tally(snapshots: Snapshots, settings: TabularSettings) -> Tally:
    """Count the training events; which columns change is looked up only where the settings leave it open."""
    journeys = snapshots.journeys
    visible = visible_events(snapshots)
    undeclared = settings.properties is None or settings.profile is None
    extra = [c for c in journeys.categories if c not in CATEGORIES] if undeclared else []
    return Tally(
        {name: _counts(category, visible) for name, category in journeys.categories.items()},
        {name: _changes(journeys, name, visible) for name in extra},
        tuple(journeys.numbers),
        len(snapshots),
        len(np.unique(snapshots.customer)),
        journeys.n_events if visible is None else int(visible.sum()),
    )


def learn(snapshots: Snapshots, settings: TabularSettings) -> Learned:
    """Look at the training events once.

    Raises:
        DataError: there is no event to learn from, or a declared column is missing.
    """
    names = {name: category.names for name, category in snapshots.journeys.categories.items()}

    def quartile() -> float:
        return lower_quartile(Ranks(lambda f: f(snapshots), satisfaction, only_part=snapshots))

    return learned_from(tally(snapshots, settings), names, quartile, settings)


def learned_from(
    counted: Tally, names: Mapping[str, tuple[str, ...]], quartile: Callable[[], float], settings: TabularSettings
) -> Learned:
    """What follows from counts, be they of one log or of all its parts.

    Args:
        counted: the tally.
        names: of the categorical columns.
        quartile: gives the lower quartile of satisfaction, where the settings leave `bad_satisfaction` open.
        settings: how many values get codes of their own.

    Raises:
        DataError: there is no event to learn from, or a declared column is missing.
    """
    if counted.rows == 0 or counted.events == 0:
        raise DataError("no event lies before any training cutoff: features have nothing to learn from; check cutoffs")
    properties, profile = _extras(names, counted.changes, settings.properties, settings.profile)
    sizes = settings.vocabulary_sizes() | dict.fromkeys(properties, settings.top_property_values)
    sizes |= dict.fromkeys(profile, settings.top_profile_values)
    columns = [*(c for c in CATEGORIES if c in names), *properties, *profile]
    vocabularies = {c: most_frequent(names[c], counted.counts[c], sizes[c], settings.min_count) for c in columns}
    touched = zip(names["touchpoint"], counted.counts["touchpoint"][1:], strict=True)
    work, units = units_of_work({name: int(n) for name, n in touched if n}, settings.max_units)
    return Learned(
        vocabularies=vocabularies,
        properties=tuple(properties),
        profile=tuple(profile),
        profile_numbers=tuple(sorted(set(counted.numbers) - set(OPTIONAL_NUMBERS))),
        work=work,
        units=units,
        has=tuple(c for c in OPTIONAL_NUMBERS if c in counted.numbers),
        bad_satisfaction=quartile() if settings.bad_satisfaction is None else settings.bad_satisfaction,
        customers_seen=counted.customers,
        events_seen=counted.events,
    )


def visible_events(snapshots: Snapshots) -> npt.NDArray[np.bool_] | None:
    """(n_events,) which events some snapshot sees; None where every one does."""
    journeys = snapshots.journeys
    stop = journeys.offsets[:-1].copy()
    has_customer = snapshots.customer >= 0
    np.maximum.at(stop, snapshots.customer[has_customer], snapshots.stop[has_customer])
    if (stop == journeys.offsets[1:]).all():
        return None
    steps = np.zeros(journeys.n_events + 1, dtype=np.int32)
    np.add.at(steps, journeys.offsets[:-1], 1)
    np.add.at(steps, stop, -1)
    return np.cumsum(steps[:-1]) > 0


def _counts(category: Category, visible: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.int64]:
    """(1 + n_names,) events without a value, then with each."""
    codes = category.codes if visible is None else category.codes[visible]
    return np.bincount(codes + 1, minlength=len(category.names) + 1)


def vocabulary(category: Category, visible: npt.NDArray[np.bool_] | None, size: int, min_count: int) -> tuple[str, ...]:
    """At most `size` values that `min_count` visible events have, the most frequent first, ties by name."""
    return most_frequent(category.names, _counts(category, visible), size, min_count)


def most_frequent(names: Sequence[str], counts: Ints, size: int, min_count: int) -> tuple[str, ...]:
    """At most `size` values that `min_count` visible events have, the most frequent first, ties by name.

    Args:
        names: of the values.
        counts: (1 + names,) events without a value, then with each.
        size: how many.
        min_count: how often they must occur.
    """
    counts = counts[1:]
    candidates = np.flatnonzero(counts >= min_count)
    if len(candidates) > 4 * size:  # a full sort of a long tail is not needed
        floor = np.partition(counts[candidates], -size)[-size]
        candidates = candidates[counts[candidates] >= floor]
    ranked = sorted(candidates.tolist(), key=lambda code: (-counts[code], names[code]))
    return tuple(names[code] for code in ranked[:size])


def _extras(
    names: Mapping[str, tuple[str, ...]],
    changes: Mapping[str, bool],
    properties: Sequence[str] | None,
    profile: Sequence[str] | None,
) -> tuple[list[str], list[str]]:
    """Extra columns as properties and profile; undeclared ones are properties if they ever change."""
    declared = [*(properties or ()), *(profile or ())]
    if missing := [c for c in declared if c not in names]:
        raise DataError(f"column {missing[0]!r} is declared as a property or profile but the log does not have it")
    extra = [c for c in names if c not in CATEGORIES and c not in declared]
    moving = [*(properties or ()), *(c for c in extra if properties is None and (profile is not None or changes[c]))]
    still = [*(profile or ()), *(c for c in extra if profile is None and c not in moving)]
    return moving, still


def _changes(journeys: Journeys, column: str, visible: npt.NDArray[np.bool_] | None) -> bool:
    """Whether two known values next to each other within a customer differ."""
    codes = journeys.categories[column].codes
    owner = np.repeat(np.arange(journeys.n_customers), np.diff(journeys.offsets))
    valued = codes >= 0 if visible is None else (codes >= 0) & visible
    codes, owner = codes[valued], owner[valued]
    return bool(((codes[1:] != codes[:-1]) & (owner[1:] == owner[:-1])).any())


def satisfaction(snapshots: Snapshots) -> tuple[npt.NDArray[np.float64], Ints]:
    """The scores that the snapshots see, as one group."""
    if "satisfaction" not in snapshots.journeys.numbers:
        return np.zeros(0), np.zeros(2, np.int64)
    visible, values = visible_events(snapshots), snapshots.journeys.numbers["satisfaction"]
    values = values if visible is None else values[visible]
    values = values[~np.isnan(values)]
    return values, np.array([0, len(values)])


def lower_quartile(ranks: Ranks) -> float:
    """Of the only group; 0 where it is empty."""
    return float(ranks.quantiles([0.25])[0, 0]) if ranks.sizes[0] else 0.0


def role_of(touchpoint: str) -> tuple[str, int] | None:
    """The unit of work and the role that a touchpoint's name speaks of.

    >>> role_of("W_Call offers COMPLETE"), role_of("ticket:start"), role_of("purchase")
    (('W_Call offers', 2), ('ticket', 1), None)
    """
    lower = touchpoint.lower()
    for role, words in ROLES:
        for word in words:
            unit = touchpoint[: -len(word)]
            if lower.endswith(word) and unit and unit[-1] in SEPARATORS and unit.rstrip(SEPARATORS):
                return unit.rstrip(SEPARATORS), role
    return None


def units_of_work(counts: dict[str, int], max_units: int) -> tuple[dict[str, int], tuple[str, ...]]:
    """Touchpoint -> unit × 3 + role, for the most frequent units that are both begun and completed.

    >>> units_of_work({"call START": 5, "call COMPLETE": 4, "paid COMPLETE": 9}, 8)
    ({'call START': 1, 'call COMPLETE': 2}, ('call',))
    """
    parts = {name: part for name in counts if (part := role_of(name)) is not None}
    roles: dict[str, set[int]] = {}
    total: dict[str, int] = {}
    for name, (unit, role) in parts.items():
        roles.setdefault(unit, set()).add(role)
        total[unit] = total.get(unit, 0) + counts[name]
    whole = [unit for unit, of_unit in roles.items() if 2 in of_unit and len(of_unit) > 1]
    units = tuple(sorted(whole, key=lambda unit: (-total[unit], unit))[:max_units])
    place = {unit: u for u, unit in enumerate(units)}
    return {name: place[u] * 3 + role for name, (u, role) in parts.items() if u in place}, units

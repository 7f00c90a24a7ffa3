"""What the tabular features learn from training: vocabularies, units of work, which columns there are.

Only events that some training snapshot sees are counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from features.errors import DataError
from features.journeys import Category, Journeys
from features.snapshots import Snapshots
from features.tabular_catalogue import CANONICAL_CATEGORIES, Learned

NUMBERS = ("value", "duration_s", "satisfaction")
ROLES = (
    (0, ("schedule", "scheduled", "queued", "assign", "assigned")),
    (1, ("start", "started", "begin", "began", "opened")),
    (2, ("complete", "completed", "end", "ended", "finish", "finished", "done", "closed", "resolved")),
)
SEPARATORS = " :_-./|"
WINDOWS_DAYS = (1 / 24, 0.25, 1, 3, 7, 14, 30, 60, 90, 180, 365, 730)
FALLBACK_WINDOWS_DAYS = (7.0, 30.0, 90.0)
MOST_WINDOWS = 5
LOOK_FURTHER, HAVE_EVENT = 0.1, 0.05  # shares of snapshots that make a window worth having
DAY_US = 86_400_000_000


def suitable_windows_days(snapshots: Snapshots) -> tuple[float, ...]:
    """At most five windows that tell these snapshots apart, out of a fixed list.

    A window that hardly any history is longer than says what the whole history says; one that hardly anyone has an
    event in says nothing. What is between is thinned out evenly.
    """
    seen = snapshots.take(np.flatnonzero(snapshots.stop > snapshots.start))
    if len(seen) == 0:
        return FALLBACK_WINDOWS_DAYS
    t = seen.journeys.t
    history = (seen.cutoff - t[seen.start]) / DAY_US
    recency = (seen.cutoff - t[seen.stop - 1]) / DAY_US
    fit = [
        days
        for days in WINDOWS_DAYS
        if (history > days).mean() >= LOOK_FURTHER and (recency <= days).mean() >= HAVE_EVENT
    ]
    places = np.unique(np.linspace(0, len(fit) - 1, min(MOST_WINDOWS, len(fit))).round().astype(int))
    return tuple(float(fit[place]) for place in places) or FALLBACK_WINDOWS_DAYS


def learn(
    snapshots: Snapshots,
    *,
    sizes: dict[str, int],
    min_count: int,
    max_units: int,
    bad_satisfaction: float | None,
    properties: Sequence[str] | None,
    profile: Sequence[str] | None,
) -> Learned:
    """Look at the training events once.

    Args:
        snapshots: the training rows.
        sizes: how many values get a code of their own, by column; the key "property" and "profile" for extra ones.
        min_count: values that are rarer go to `other`.
        max_units: how many units of work.
        bad_satisfaction: None learns the lower quartile.
        properties: extra categorical columns that change; None: those that do change within some customer.
        profile: extra categorical columns of the customer; None: the other ones.
    """
    journeys = snapshots.journeys
    visible = visible_events(snapshots)
    count = journeys.n_events if visible is None else int(visible.sum())
    if len(snapshots) == 0 or count == 0:
        raise DataError("no event lies before any training cutoff: features have nothing to learn from; check cutoffs")
    properties, profile = _extras(journeys, visible, properties, profile)
    columns = [c for c in CANONICAL_CATEGORIES if c in journeys.categories]
    vocabularies = {c: vocabulary(journeys.categories[c], visible, sizes[c], min_count) for c in columns}
    vocabularies |= {c: vocabulary(journeys.categories[c], visible, sizes["property"], min_count) for c in properties}
    vocabularies |= {c: vocabulary(journeys.categories[c], visible, sizes["profile"], min_count) for c in profile}
    counts = _counts(journeys.categories["touchpoint"], visible)
    names = journeys.categories["touchpoint"].names
    work, units = units_of_work({name: int(n) for name, n in zip(names, counts[1:], strict=True) if n}, max_units)
    return Learned(
        vocabularies=vocabularies,
        properties=tuple(properties),
        profile=tuple(profile),
        profile_numbers=tuple(sorted(set(journeys.numbers) - set(NUMBERS))),
        work=work,
        units=units,
        has=tuple(c for c in NUMBERS if c in journeys.numbers),
        bad_satisfaction=_bad(journeys, visible) if bad_satisfaction is None else bad_satisfaction,
        customers_seen=len(np.unique(snapshots.customer)),
        events_seen=count,
    )


def visible_events(snapshots: Snapshots) -> npt.NDArray[np.bool_] | None:
    """(n_events,) which events some snapshot sees; None where every one does."""
    journeys = snapshots.journeys
    stop = journeys.offsets[:-1].copy()
    known = snapshots.customer >= 0
    np.maximum.at(stop, snapshots.customer[known], snapshots.stop[known])
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
    counts = _counts(category, visible)[1:]
    candidates = np.flatnonzero(counts >= min_count)
    if len(candidates) > 4 * size:  # a full sort of a long tail is not needed
        floor = np.partition(counts[candidates], -size)[-size]
        candidates = candidates[counts[candidates] >= floor]
    ranked = sorted(candidates.tolist(), key=lambda code: (-counts[code], category.names[code]))
    return tuple(category.names[code] for code in ranked[:size])


def _extras(
    journeys: Journeys,
    visible: npt.NDArray[np.bool_] | None,
    properties: Sequence[str] | None,
    profile: Sequence[str] | None,
) -> tuple[list[str], list[str]]:
    """Extra columns as properties and profile; what is not declared is told apart by whether it ever changes."""
    declared = [*(properties or ()), *(profile or ())]
    if missing := [c for c in declared if c not in journeys.categories]:
        raise DataError(f"column {missing[0]!r} is declared as a property or profile but the log does not have it")
    extra = [c for c in journeys.categories if c not in CANONICAL_CATEGORIES and c not in declared]
    change = {c: _changes(journeys, c, visible) for c in extra} if properties is None or profile is None else {}
    moving = [*(properties or ()), *(c for c in extra if properties is None and (profile is not None or change[c]))]
    still = [*(profile or ()), *(c for c in extra if profile is None and c not in moving)]
    return moving, still


def _changes(journeys: Journeys, column: str, visible: npt.NDArray[np.bool_] | None) -> bool:
    """Whether two known values next to each other within a customer differ."""
    codes = journeys.categories[column].codes
    owner = np.repeat(np.arange(journeys.n_customers), np.diff(journeys.offsets))
    known = codes >= 0 if visible is None else (codes >= 0) & visible
    codes, owner = codes[known], owner[known]
    return bool(((codes[1:] != codes[:-1]) & (owner[1:] == owner[:-1])).any())


def _bad(journeys: Journeys, visible: npt.NDArray[np.bool_] | None) -> float:
    """The lower quartile of satisfaction."""
    if "satisfaction" not in journeys.numbers:
        return 0.0
    values = journeys.numbers["satisfaction"] if visible is None else journeys.numbers["satisfaction"][visible]
    values = values[~np.isnan(values)]
    return float(np.quantile(values, 0.25)) if len(values) else 0.0


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
    parts = {name: found for name in counts if (found := role_of(name)) is not None}
    roles: dict[str, set[int]] = {}
    total: dict[str, int] = {}
    for name, (unit, role) in parts.items():
        roles.setdefault(unit, set()).add(role)
        total[unit] = total.get(unit, 0) + counts[name]
    whole = [unit for unit, found in roles.items() if 2 in found and len(found) > 1]
    units = tuple(sorted(whole, key=lambda unit: (-total[unit], unit))[:max_units])
    place = {unit: u for u, unit in enumerate(units)}
    return {name: place[u] * 3 + role for name, (u, role) in parts.items() if u in place}, units


def as_readonly(values: Any, dtype: Any) -> npt.NDArray[Any]:
    """Contiguous and read-only, whatever it was: mapped from disk or not, the kernels are compiled once."""
    array = np.ascontiguousarray(values, dtype=dtype)
    if array.flags.writeable:
        array = array.view()
        array.flags.writeable = False
    return array

"""Settings and vocabularies as the kernels want them, and a log's columns bound to them."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import numpy.typing as npt

from features.events.schema import CATEGORIES, OPTIONAL_NUMBERS
from features.journeys.journeys import Journeys, as_readonly
from features.tabular import plan as slot
from features.tabular.catalogue import GROUPS
from features.tabular.group import Learned
from features.tabular.settings import TabularSettings

NO_CODES, NO_NUMBERS = as_readonly([], np.int32), as_readonly([], np.float64)  # a column that a log lacks


class Layout:
    """The arguments of the compiled function that do not change from call to call.

    Args:
        learned: vocabularies and the like.
        settings: with the windows that were chosen.
        groups: names of the groups that are on.
        width: how many columns these write.
    """

    def __init__(self, learned: Learned, settings: TabularSettings, groups: tuple[str, ...], width: int) -> None:
        self.width = width
        self._profile_numbers = learned.profile_numbers
        widths = settings.widths()
        self._plan = _plan(learned, settings, groups)
        self._windows = np.array([round(days * slot.DAY_US) for days in widths.windows_days], np.int64)
        marked = [w for w, days in enumerate(widths.windows_days) if days in widths.value_windows_days]
        self._value_windows = np.array([*marked, len(widths.windows_days)], np.int64)
        self._bad = float(learned.bad_satisfaction)
        self._extras = [*learned.properties, *learned.profile]
        self._dictionaries = _dictionaries(learned, self._plan[slot.BASE : slot.BASE + 4].tolist(), self._extras)
        self._bound: dict[int, tuple[weakref.ref[Journeys], tuple[Any, ...]]] = {}

    def __len__(self) -> int:
        """How many logs are bound."""
        return len(self._bound)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bound": {}}

    def arguments(self, journeys: Journeys) -> tuple[Any, ...]:
        """The arguments of `fill_rows` after the rows; kept as long as the log lives."""
        bound = self._bound.get(id(journeys))
        if bound is not None and bound[0]() is journeys:  # another log may lie where one was
            return bound[1]
        lut: list[int] = []
        lut_start = []
        for column, codes, other, missing in self._dictionaries:
            lut_start.append(len(lut))
            lut.append(missing)
            if column in journeys.categories:
                lut += [codes.get(name, other) for name in journeys.categories[column].names]
        plain = journeys.readonly
        columns = [plain[c] if c in journeys.categories else NO_CODES for c in CATEGORIES]
        numbers = [plain[c] if c in journeys.numbers else NO_NUMBERS for c in OPTIONAL_NUMBERS]
        codes_of_extras = [journeys.categories[c].codes if c in journeys.categories else None for c in self._extras]
        arguments = (
            self._plan,
            self._windows,
            self._value_windows,
            self._bad,
            np.array(lut, np.int32),
            np.array(lut_start, np.int64),
            plain[""],
            *columns,
            as_readonly(_stack(codes_of_extras, journeys.n_events, -1, np.int32), np.int32),
            *numbers,
            as_readonly(
                _stack([journeys.numbers.get(c) for c in self._profile_numbers], journeys.n_events, np.nan, np.float64),
                np.float64,
            ),
            self.width,
        )
        key = id(journeys)
        self._bound[key] = (weakref.ref(journeys, lambda _: self._bound.pop(key, None)), arguments)
        return arguments


def _stack(columns: list[npt.NDArray[Any] | None], n_events: int, missing: float, kind: Any) -> npt.NDArray[Any]:
    """(columns, n_events); one alone is not copied."""
    if len(columns) == 1 and columns[0] is not None:
        return columns[0].reshape(1, -1)
    out = np.empty((len(columns), n_events), kind)
    for row, column in zip(out, columns, strict=True):
        row[:] = missing if column is None else column
    return out


def _dictionaries(learned: Learned, bases: list[int], extras: list[str]) -> list[tuple[str, dict[str, int], int, int]]:
    """For each part of the lookup table: its column, value -> code, the code of other and that of missing."""

    def dictionary(column: str, base: int) -> tuple[str, dict[str, int], int, int]:
        vocabulary = learned.vocabularies.get(column, ())
        other = base + len(vocabulary)
        codes = {value: base + code for code, value in enumerate(vocabulary)}
        return column, codes, other, other if column == "touchpoint" else other + 1

    no_work = 3 * len(learned.units)
    return [
        *(dictionary(column, base) for column, base in zip(CATEGORIES, bases, strict=True)),
        ("touchpoint", learned.work, no_work, no_work),
        *(dictionary(column, 0) for column in extras),
    ]


def _n_codes(learned: Learned, column: str) -> int:
    """The vocabulary, other and missing; a touchpoint is never missing."""
    if column not in learned.vocabularies:
        return 0
    return len(learned.vocabularies[column]) + (1 if column == "touchpoint" else 2)


def _plan(learned: Learned, settings: TabularSettings, groups: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Settings and sizes in the slots of `features.tabular.plan`."""
    widths = settings.widths()
    sizes = [_n_codes(learned, column) for column in CATEGORIES]
    needs = {need for group in GROUPS if group.name in groups for need in group.needs}
    plan = np.zeros(slot.SIZES_OF_PROPERTIES, np.int64)
    plan[slot.SIZE : slot.SIZE + 4] = sizes
    plan[slot.BASE : slot.BASE + 4] = np.cumsum([0, *sizes[:-1]])
    plan[slot.N_CODES] = sum(sizes)
    plan[slot.N_WINDOWS] = len(widths.windows_days)
    plan[slot.SESSION_GAP_US] = round(settings.session_gap_s * slot.SECOND_US)
    plan[slot.TREND_WINDOW] = widths.windows_days.index(widths.trend_window_days)
    plan[slot.N_PAIRS] = widths.order_pairs
    plan[slot.N_PAIR_STAGES] = widths.stage_pairs
    plan[slot.N_LAST] = widths.last_touchpoints
    plan[slot.N_UNITS] = len(learned.units)
    plan[slot.N_PROPERTIES] = len(learned.properties)
    plan[slot.N_PROFILE] = len(learned.profile)
    plan[slot.N_PROFILE_NUMBERS] = len(learned.profile_numbers)
    plan[slot.N_PROPERTY_TOUCHPOINTS] = widths.property_touchpoints
    plan[slot.N_PROPERTY_SHARES] = widths.property_shares
    plan[slot.HAS_VALUE] = "value" in learned.has
    plan[slot.HAS_DURATION] = "duration_s" in learned.has
    plan[slot.TALLY] = 2 if "tally" in needs else int("last_times" in needs)
    plan[slot.VISITS] = "visits" in needs
    plan[slot.ACTIVE_DAYS] = "days" in needs
    plan[slot.ITEM_TABLE] = "item_table" in needs
    switches = [int(group.name in groups) for group in GROUPS]
    return np.concatenate([plan, [_n_codes(learned, c) for c in learned.properties], switches]).astype(np.int64)

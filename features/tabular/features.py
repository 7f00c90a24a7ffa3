"""Tabular features: what is known about a customer at a cutoff, as one row of numbers.

    features = TabularFeatures().fit(train)          # vocabularies from training events only
    x = features.transform(snapshots)                # (n, f) float32
    features.describe()                              # name, group and meaning of every column

The same compiled function serves a single request and a whole log; a batch of one gives the same bits as a batch of
many. Times are UTC; a snapshot sees events strictly before its cutoff, because snapshots hold no other.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from difflib import get_close_matches
from itertools import pairwise
from typing import Any, Self

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from features.errors import ConfigError, DataError
from features.journeys.journeys import Journeys, Snapshots, as_readonly
from features.tabular import plan as slot
from features.tabular.catalogue import CANONICAL_CATEGORIES, Feature, Learned, Widths, catalogue
from features.tabular.learning import FALLBACK_WINDOWS_DAYS, NUMBERS, learn, suitable_windows_days
from features.tabular.rows import fill_rows

ALL_GROUPS = slot.GROUP_NAMES
NEED_TALLY = frozenset({"trend", "variety", "touch", "order"})
NEED_VISITS = frozenset({"rfm", "rhythm", "sessions", "variety", "returns", "touch"})
NEED_DAYS = frozenset({"day_rhythm", "tenure", "calendar"})
NEED_VALUE = frozenset({"value", "rfm", "returns"})
NONE, NO_NUMBER = as_readonly([], np.int32), as_readonly([], np.float64)  # a column that a log lacks
SERIAL_EVENTS = 100_000  # below this many events a thread costs more than it brings


class TabularSettings(BaseModel):
    """What to compute. Every field can be set in an experiment's `[features]`.

    Attributes:
        windows_days: nested windows that end at the cutoff; one over all time is added. None takes some that suit how
            far back the training snapshots look and how recent their events are.
        value_windows_days: those of them that sums of value by touchpoint, channel, stage and item are taken in.
        trend_window_days: the window that a touchpoint's recent share is taken in; must be one of the windows.
        groups: which groups of features.
        top_touchpoints: how many touchpoints get columns of their own, by frequency; the rest share `other`.
        top_channels: the same for channels.
        top_stages: the same for stages.
        top_items: the same for items.
        top_property_values: how many values of a property have a code of their own.
        top_profile_values: how many values of a profile column have a code of their own.
        min_count: values with fewer training events go to `other`.
        session_gap_s: a longer pause starts a new visit.
        last_touchpoints: how many of the last touchpoints are given.
        order_pairs: how many touchpoints have times between each other and transitions.
        stage_pairs: how many stages have times between each other.
        property_touchpoints: for how many touchpoints a property's value at their last occurrence is given.
        property_shares: for how many values of a property their share is given.
        max_units: how many units of work (touchpoints that start and complete) are followed.
        bad_satisfaction: satisfaction of at most this is bad; None learns the lower quartile.
        properties: extra categorical columns that change from event to event; None finds out from the data.
        profile: extra categorical columns of the customer; None finds out from the data.
        drop_redundant: leave out columns that are constant in training or equal to an earlier one.
        check_rows: how many training rows, evenly spread, decide what is redundant.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    windows_days: tuple[float, ...] | None = None
    value_windows_days: tuple[float, ...] | None = None
    trend_window_days: float | None = None
    groups: tuple[str, ...] = ALL_GROUPS
    top_touchpoints: int = Field(default=20, ge=1, le=500)
    top_channels: int = Field(default=8, ge=1, le=500)
    top_stages: int = Field(default=8, ge=1, le=500)
    top_items: int = Field(default=10, ge=1, le=500)
    top_property_values: int = Field(default=50, ge=1, le=500)
    top_profile_values: int = Field(default=50, ge=1, le=500)
    min_count: int = Field(default=20, ge=1)
    session_gap_s: float = Field(default=1800, gt=0)
    last_touchpoints: int = Field(default=3, ge=1, le=20)
    order_pairs: int = Field(default=6, ge=0, le=30)
    stage_pairs: int = Field(default=6, ge=0, le=30)
    property_touchpoints: int = Field(default=12, ge=0, le=100)
    property_shares: int = Field(default=10, ge=0, le=100)
    max_units: int = Field(default=12, ge=0, le=100)
    bad_satisfaction: float | None = None
    properties: tuple[str, ...] | None = None
    profile: tuple[str, ...] | None = None
    drop_redundant: bool = True
    check_rows: int = Field(20_000, ge=2)

    @field_validator("groups")
    @classmethod
    def _known_groups(cls, groups: tuple[str, ...]) -> tuple[str, ...]:
        for group in groups:
            if group not in ALL_GROUPS:
                near = get_close_matches(group, ALL_GROUPS, 1)
                hint = f"; did you mean {near[0]!r}?" if near else ""
                raise ValueError(f"no feature group is called {group!r}{hint} There are: {', '.join(ALL_GROUPS)}")
        return tuple(group for group in ALL_GROUPS if group in groups)

    @model_validator(mode="after")
    def _windows_make_sense(self) -> Self:
        windows = self.windows_days
        if windows is None:
            if self.value_windows_days or self.trend_window_days:
                raise ValueError("value_windows_days and trend_window_days are some of windows_days: give those, too")
            return self
        if not windows or min(windows) <= 0 or list(windows) != sorted(set(windows)):
            raise ValueError(f"windows_days must be positive and ascending, not {windows}")
        for name, some in (("value_windows_days", self.value_windows_days), ("trend_window_days", None)):
            if some and not set(some) <= set(windows):
                raise ValueError(f"{name} must be some of windows_days {windows}, not {some}")
        if self.trend_window_days is not None and self.trend_window_days not in windows:
            raise ValueError(f"trend_window_days must be one of windows_days {windows}")
        return self

    def widths(self) -> Widths:
        """Those that decide how many features there are, with what is left open filled in."""
        windows = self.windows_days or FALLBACK_WINDOWS_DAYS
        middle = tuple(dict.fromkeys((windows[min(1, len(windows) - 1)], windows[-2 if len(windows) > 1 else -1])))
        return Widths(
            windows_days=windows,
            value_windows_days=middle if self.value_windows_days is None else self.value_windows_days,
            trend_window_days=self.trend_window_days or windows[min(1, len(windows) - 1)],
            order_pairs=self.order_pairs,
            stage_pairs=self.stage_pairs,
            last_touchpoints=self.last_touchpoints,
            property_touchpoints=self.property_touchpoints,
            property_shares=self.property_shares,
        )


class TabularFeatures:
    """Snapshots in, (n, f) float32 out.

    After `fit`: `settings_` (with the windows that were chosen), `learned_` (vocabularies), `features_` (the columns of
    the matrix), `dropped_` (name -> why).

    Args:
        settings: what to compute; the defaults suit most logs.
        overrides: single settings by name, e.g. `windows_days=(7, 30)`.
    """

    def __init__(self, settings: TabularSettings | None = None, **overrides: Any) -> None:
        settings = settings or TabularSettings()
        self.settings = TabularSettings(**{**settings.model_dump(), **overrides}) if overrides else settings
        self.settings_ = self.settings
        self.learned_: Learned | None = None
        self.features_: list[Feature] = []
        self._by_name: dict[str, Feature] = {}
        self.dropped_: dict[str, str] = {}
        self._bound: dict[int, tuple[weakref.ref[Journeys], tuple[Any, ...]]] = {}

    def fit(self, snapshots: Snapshots) -> Self:
        """Learn vocabularies from the events that these snapshots see, and which columns are worth their place.

        Raises:
            DataError: there is no event to learn from.
        """
        windows = self.settings.windows_days or suitable_windows_days(snapshots)

        def checked() -> npt.NDArray[np.float32]:
            return self.transform(snapshots.take(rows_to_check(len(snapshots), self.settings.check_rows)))

        return self.fit_learned(windows, learn(snapshots, **self.learning()), checked)

    def learning(self) -> dict[str, Any]:
        """The settings that `features.tabular.learning.learn` goes by."""
        s = self.settings
        sizes = {
            "touchpoint": s.top_touchpoints,
            "channel": s.top_channels,
            "stage": s.top_stages,
            "item": s.top_items,
            "property": s.top_property_values,
            "profile": s.top_profile_values,
        }
        return {
            "sizes": sizes,
            "min_count": s.min_count,
            "max_units": s.max_units,
            "bad_satisfaction": s.bad_satisfaction,
            "properties": s.properties,
            "profile": s.profile,
        }

    def fit_learned(
        self, windows: tuple[float, ...], learned: Learned, checked: Callable[[], npt.NDArray[np.float32]]
    ) -> Self:
        """Take what was learned, of one log or of all parts of one.

        Args:
            windows: in days.
            learned: vocabularies and the like.
            checked: gives the features of the rows that decide what is redundant, in any order; see `rows_to_check`.
        """
        self.settings_ = self.settings.model_copy(update={"windows_days": windows})
        self._plan(learned, None)
        self.dropped_ = {}
        if self.settings.drop_redundant:
            self.dropped_ = redundant(checked(), self.get_feature_names_out())
            self._plan(learned, [f.name for f in self.features_ if f.name not in self.dropped_])
        return self

    def transform(self, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        """(n, f) float32. Counts and sums are 0 and the rest is NaN where a snapshot has no events."""
        journeys = snapshots.journeys
        bound = self._bound.get(id(journeys))
        args = self._bind(journeys) if bound is None or bound[0]() is not journeys else bound[1]
        bounds = np.empty((len(snapshots), 3), np.int64)
        bounds[:, 0] = snapshots.start
        bounds[:, 1] = snapshots.stop
        bounds[:, 2] = snapshots.cutoff
        out = np.empty((len(snapshots), len(self._keep)), np.float32)
        if len(bounds) > 1 and int((bounds[:, 1] - bounds[:, 0]).sum()) > SERIAL_EVENTS:
            self._side_by_side(out, bounds, args)
        else:
            fill_rows(out, self._keep, bounds, *args)
        return out

    def _side_by_side(self, out: npt.NDArray[Any], bounds: npt.NDArray[Any], args: tuple[Any, ...]) -> None:
        """The same function on blocks of rows, one thread a core: it holds no lock and shares nothing."""
        threads = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        if threads == 1:
            fill_rows(out, self._keep, bounds, *args)
            return
        ends = np.cumsum(bounds[:, 1] - bounds[:, 0] + 10)  # a row without events costs as much as ten events
        cuts = np.searchsorted(ends, np.linspace(0, ends[-1], 8 * threads + 1)[1:-1])
        edges = np.unique(np.concatenate(([0], cuts, [len(bounds)])))
        with ThreadPoolExecutor(threads) as pool:
            blocks = [
                pool.submit(fill_rows, out[low:high], self._keep, bounds[low:high], *args)
                for low, high in pairwise(edges)
            ]
        for block in blocks:
            block.result()  # raises what went wrong there

    def select(self, names: Sequence[str]) -> Self:
        """The same fit with these columns only, in this order; groups that none of them needs cost nothing.

        Raises:
            DataError: a name is none of this fit's columns.
        """
        if unknown := [name for name in names if name not in self._by_name]:
            near = get_close_matches(unknown[0], self._by_name, 1)
            raise DataError(f"there is no feature {unknown[0]!r}" + (f"; did you mean {near[0]!r}?" if near else ""))
        return self.from_dict({**self.to_dict(), "names": list(names)})

    def get_feature_names_out(self) -> list[str]:
        """(f,) names of the columns."""
        self._fitted()
        return [feature.name for feature in self.features_]

    @property
    def categorical_features(self) -> list[str]:
        """The columns whose values are codes: LightGBM may take them as categories."""
        return [feature.name for feature in self.features_ if feature.categorical]

    def describe(self) -> pd.DataFrame:
        """One row a column: name, group, meaning, categorical."""
        self._fitted()
        return pd.DataFrame([asdict(f) for f in self.features_], columns=["name", "group", "meaning", "categorical"])

    def group_of(self, name: str) -> str:
        """The group of a column."""
        return self._by_name[name].group

    def meaning_of(self, name: str) -> str:
        """The meaning of a column, one line."""
        return self._by_name[name].meaning

    def unseen(self, snapshots: Snapshots) -> dict[str, dict[str, int]]:
        """Values that training did not know or found rare, with their events in these rows' journeys, by column.

        They are in the `other` bucket; a monitor wants to know them.
        """
        learned = self._fitted()
        stops = np.zeros(snapshots.journeys.n_events + 1, np.int64)
        np.add.at(stops, snapshots.start, 1)
        np.add.at(stops, snapshots.stop, -1)
        visible = np.cumsum(stops[:-1]) > 0
        found: dict[str, dict[str, int]] = {}
        for column, vocabulary in learned.vocabularies.items():
            category = snapshots.journeys.categories.get(column)
            if category is not None:
                counts = np.bincount(category.codes[visible] + 1, minlength=len(category.names) + 1)[1:]
                new = {n: int(c) for n, c in zip(category.names, counts, strict=True) if c and n not in vocabulary}
                found |= {column: new} if new else {}
        return found

    def to_dict(self) -> dict[str, Any]:
        """The fitted state as JSON-ready data."""
        return {
            "settings": self.settings_.model_dump(mode="json"),
            "learned": asdict(self._fitted()),
            "names": self.get_feature_names_out(),
            "dropped": self.dropped_,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: the state names a feature that this version does not compute.
        """
        features = cls(TabularSettings(**data["settings"]))
        learned = dict(data["learned"])
        learned["vocabularies"] = {column: tuple(values) for column, values in learned["vocabularies"].items()}
        for name in ("properties", "profile", "profile_numbers", "units", "has"):
            learned[name] = tuple(learned[name])
        features.dropped_ = dict(data["dropped"])
        features._plan(Learned(**learned), data["names"])
        return features

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bound": {}}

    def _fitted(self) -> Learned:
        if self.learned_ is None:
            raise ConfigError("these features are not fitted: call fit(training_snapshots) first")
        return self.learned_

    def _plan(self, learned: Learned, names: list[str] | None) -> None:
        """Lay out everything that does not depend on a log, as the kernels want it."""
        widths, groups = self.settings_.widths(), self._groups(learned)
        every = catalogue(learned, widths, groups)
        if names is not None:
            by_name = {feature.name: feature for feature in every}
            if unknown := [name for name in names if name not in by_name]:
                raise DataError(f"this version has no feature {unknown[0]!r}: train the model again")
            needed = {by_name[name].group for name in names}
            groups = tuple(group for group in groups if group in needed)
            every = [feature for feature in every if feature.group in needed]
        place = {feature.name: i for i, feature in enumerate(every)}
        self.learned_ = learned
        self.features_ = every if names is None else [every[place[name]] for name in names]
        self._by_name = {feature.name: feature for feature in self.features_}
        self._keep = np.array([place[feature.name] for feature in self.features_], np.uint64)
        self._width = len(every)
        self._slots = self._fill_slots(learned, widths, groups)
        self._windows = np.array([round(days * slot.DAY_US) for days in widths.windows_days], np.int64)
        marked = [w for w, days in enumerate(widths.windows_days) if days in widths.value_windows_days]
        self._value_windows = np.array([*marked, len(widths.windows_days)], np.int64)
        self._bad = float(learned.bad_satisfaction)
        self._extras = [*learned.properties, *learned.profile]
        self._dictionaries = self._all_dictionaries(learned)
        self._bound = {}

    def _all_dictionaries(self, learned: Learned) -> list[tuple[str, dict[str, int], int, int]]:
        """For each part of the lookup table: its column, value -> code, the code of other and that of missing."""

        def one(column: str, base: int) -> tuple[str, dict[str, int], int, int]:
            vocabulary = learned.vocabularies.get(column, ())
            other = base + len(vocabulary)
            codes = {value: base + code for code, value in enumerate(vocabulary)}
            return column, codes, other, other if column == "touchpoint" else other + 1

        bases = self._slots[slot.BASE : slot.BASE + 4].tolist()
        no_work = 3 * len(learned.units)
        return [
            *(one(column, base) for column, base in zip(CANONICAL_CATEGORIES, bases, strict=True)),
            ("touchpoint", learned.work, no_work, no_work),
            *(one(column, 0) for column in self._extras),
        ]

    def _groups(self, learned: Learned) -> tuple[str, ...]:
        """The groups that the data can feed."""
        absent = set() if "value" in learned.has else set(NEED_VALUE)
        absent |= set() if "satisfaction" in learned.has else {"satisfaction"}
        absent |= set() if learned.units else {"open_work"}
        absent |= set() if learned.properties else {"properties"}
        absent |= set() if learned.profile or learned.profile_numbers else {"profile"}
        return tuple(group for group in self.settings.groups if group not in absent)

    def _fill_slots(self, learned: Learned, widths: Widths, groups: tuple[str, ...]) -> npt.NDArray[np.int64]:
        plan = np.zeros(slot.SIZES_OF_PROPERTIES + len(learned.properties), np.int64)
        sizes = [self._codes_of(learned, column) for column in CANONICAL_CATEGORIES]
        plan[slot.SIZE : slot.SIZE + 4] = sizes
        plan[slot.BASE : slot.BASE + 4] = np.cumsum([0, *sizes[:-1]])
        plan[slot.N_CODES] = sum(sizes)
        plan[slot.N_WINDOWS] = len(widths.windows_days)
        plan[slot.SESSION_GAP_US] = round(self.settings.session_gap_s * slot.SECOND_US)
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
        plan[slot.HAS_SATISFACTION] = "satisfaction" in learned.has
        plan[slot.TALLY] = 2 if NEED_TALLY & set(groups) else int("recency" in groups)
        plan[slot.VISITS] = bool(NEED_VISITS & set(groups))
        plan[slot.ACTIVE_DAYS] = bool(NEED_DAYS & set(groups))
        for place, group in enumerate(slot.GROUP_NAMES):
            plan[slot.GROUPS + place] = group in groups
        for place, column in enumerate(learned.properties):
            plan[slot.SIZES_OF_PROPERTIES + place] = self._codes_of(learned, column)
        return plan

    @staticmethod
    def _codes_of(learned: Learned, column: str) -> int:
        """The known, other and missing; a touchpoint is never missing."""
        if column not in learned.vocabularies:
            return 0
        return len(learned.vocabularies[column]) + (1 if column == "touchpoint" else 2)

    def _bind(self, journeys: Journeys) -> tuple[Any, ...]:
        """What the kernels need of a log, kept as long as the log lives: its columns and its names in our codes."""
        self._fitted()
        lut: list[int] = []
        lut_start = []
        for column, codes, other, missing in self._dictionaries:
            lut_start.append(len(lut))
            lut.append(missing)
            if column in journeys.categories:
                lut += [codes.get(name, other) for name in journeys.categories[column].names]
        plain = journeys.readonly
        columns = [plain[c] if c in journeys.categories else NONE for c in CANONICAL_CATEGORIES]
        numbers = [plain[c] if c in journeys.numbers else NO_NUMBER for c in NUMBERS]
        args = (
            self._slots,
            self._windows,
            self._value_windows,
            self._bad,
            np.array(lut, np.int32),
            np.array(lut_start, np.int64),
            plain[""],
            *columns,
            as_readonly(self._stack_codes(journeys), np.int32),
            *numbers,
            as_readonly(self._stack_numbers(journeys), np.float64),
            self._width,
        )
        key = id(journeys)
        self._bound[key] = (weakref.ref(journeys, lambda _: self._bound.pop(key, None)), args)
        return args

    def _stack_codes(self, journeys: Journeys) -> npt.NDArray[np.int32]:
        """(n_properties + n_profile, n_events); -1 where the log lacks the column."""
        rows = [journeys.categories[c].codes if c in journeys.categories else None for c in self._extras]
        if len(rows) == 1 and rows[0] is not None:
            return rows[0].reshape(1, -1)
        out = np.empty((len(rows), journeys.n_events), np.int32)
        for i, codes in enumerate(rows):
            out[i] = -1 if codes is None else codes
        return out

    def _stack_numbers(self, journeys: Journeys) -> npt.NDArray[np.float64]:
        """(n_profile_numbers, n_events); NaN where the log lacks the column."""
        columns = self._fitted().profile_numbers
        if len(columns) == 1 and columns[0] in journeys.numbers:
            return journeys.numbers[columns[0]].reshape(1, -1)
        out = np.empty((len(columns), journeys.n_events))
        for i, column in enumerate(columns):
            out[i] = journeys.numbers.get(column, np.nan)
        return out


def rows_to_check(n: int, most: int) -> npt.NDArray[np.int64]:
    """Which of `n` training rows, evenly spread, decide what is redundant."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))


def redundant(x: npt.NDArray[np.float32], names: list[str]) -> dict[str, str]:
    """Columns that are constant, or bit for bit equal to an earlier one: name -> why."""
    why: dict[str, str] = {}
    first: dict[bytes, str] = {}
    for column, name in zip(np.ascontiguousarray(x.T), names, strict=True):
        column[np.isnan(column)] = np.nan  # one bit pattern
        bits = column.tobytes()
        if (column.view(np.int32) == column.view(np.int32)[0]).all():
            why[name] = "constant in training"
        elif bits in first:
            why[name] = f"equal to {first[bits]} in training"
        else:
            first[bits] = name
    return why

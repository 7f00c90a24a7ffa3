"""What a feature group is: the names and meanings of its columns, and the kernel that writes them.

A kernel writes one column for each name, in the same order, to `row[at:]` and returns where the next group starts.
It sees one snapshot: events of one customer strictly before the cutoff.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from features.events.schema import CATEGORIES


@dataclass(frozen=True)
class Learned:
    """What a fit knows about the columns of the log; enough to name every feature.

    Attributes:
        vocabularies: the values that have a code of their own, most frequent first, by column; a column that
            training did not have is absent.
        properties: extra categorical columns that change from event to event.
        profile: extra categorical columns that belong to the customer.
        profile_numbers: extra numeric columns.
        work: touchpoint -> unit of work × 3 + role (0 schedule, 1 start, 2 complete).
        units: names of the units of work.
        has: which of value, duration_s and satisfaction training had.
        bad_satisfaction: satisfaction of at most this is bad.
        customers_seen: training customers, for the record.
        events_seen: training events, for the record.
    """

    vocabularies: dict[str, tuple[str, ...]]
    properties: tuple[str, ...] = ()
    profile: tuple[str, ...] = ()
    profile_numbers: tuple[str, ...] = ()
    work: dict[str, int] = field(default_factory=dict)
    units: tuple[str, ...] = ()
    has: tuple[str, ...] = ()
    bad_satisfaction: float = 0.0
    customers_seen: int = 0
    events_seen: int = 0


@dataclass(frozen=True)
class Widths:
    """The settings that decide how many features there are."""

    windows_days: tuple[float, ...]
    value_windows_days: tuple[float, ...]
    trend_window_days: float
    order_pairs: int
    stage_pairs: int
    last_touchpoints: int
    property_touchpoints: int
    property_shares: int


Column = tuple[str, str] | tuple[str, str, bool]  # name, meaning, whether the value is a code
Value = tuple[str, str]  # label in a name, text in a meaning
Need = Literal["last_times", "tally", "visits", "days", "item_table"]


def always(learned: Learned) -> bool:
    """Every log can feed the group."""
    return True


@dataclass(frozen=True)
class FeatureGroup:
    """A group of columns that is switched on and off as one.

    Attributes:
        name: as an experiment file writes it, `[features] groups`.
        columns: names and meanings, in the order in which the kernel writes the values.
        kernel: `(row, at, workspace, snapshot) -> at`, compiled with `features.tabular.plan.group_kernel`.
        needs: parts of the workspace that are filled only where a group needs them: "last_times" and "tally"
            (`occurrences`), "visits", "days" (with `day_starts`), "item_table" (`table`).
        available: whether a log has the columns that the group is about.
    """

    name: str
    columns: Callable[[Names], Iterator[Column]]
    kernel: Any
    needs: tuple[Need, ...] = ()
    available: Callable[[Learned], bool] = always


class OneSnapshot(NamedTuple):
    """The numbers that a kernel gets of the snapshot; its events are `start <= i < stop` of the log."""

    start: int
    stop: int
    cutoff: int  # µs
    n: int  # events
    n_visits: int  # 0 unless some group needs visits
    n_days: int  # 0 unless some group needs days


class Workspace(NamedTuple):
    """Arrays that kernels read and overwrite; allocated once a call, for the longest journey (here L events).

    Rows and slots have names in `features.tabular.plan`.
    """

    plan: Any  # settings and sizes, int64
    windows: Any  # (W,) int64 µs, ascending
    value_windows: Any  # indices of windows, W for all time
    bad: Any  # satisfaction of at most this is bad
    lut: Any  # int32: for each categorical column, the model's code of missing, then of each of the log's codes
    lut_start: Any  # where a column's part of `lut` starts: touchpoint, channel, stage, item, work, extras
    # the log's columns, (n_events,); no rows where the log lacks one
    touchpoint: Any  # int32, as all codes
    item: Any
    extras: Any  # (n_properties + n_profile, n_events), -1 missing
    duration: Any  # float64, NaN missing, as all numbers
    satisfaction: Any
    profile_numbers: Any  # (n_profile_numbers, n_events)
    # the snapshot's events
    ticks: Any  # (L,) int64 µs
    codes: Any  # (6 + n_properties, L) uint32, the model's codes
    numbers: Any  # (3, L) float64, NaN missing
    value_from: Any  # (L + 1,) the value of an event and all later ones
    edges: Any  # (W + 1,) the first event inside each window, then 0: all time
    earlier: Any  # (W + 1,) free to use: edges of windows twice as long
    occurrences: Any  # (4, n_codes) float64: how often, first, last, before last
    visits: Any  # (L + 1,) where each visit starts, then n
    days: Any  # (L,) days since 1970 that have events
    day_starts: Any  # (L + 1,) the first event of each day, then n
    # free to use
    gaps: Any  # (L,) float64
    ranked: Any  # (L,) float64
    table: Any  # (6, 2^k) int64, a hash table of items
    cells: Any  # float64, as many as the largest of all counts by code
    units: Any  # (7, n_units) float64


@dataclass(frozen=True)
class Names:
    """What the names of columns are made of."""

    learned: Learned
    widths: Widths

    @property
    def windows(self) -> list[Value]:
        """Every window, the last one all time."""
        return [(f"{days:g}d", f"in the last {days:g} days") for days in self.widths.windows_days] + [("all", "ever")]

    @property
    def value_windows(self) -> list[Value]:
        """The windows that sums of value by code are taken in."""
        return [w for w in self.windows if w[0] == "all" or float(w[0][:-1]) in self.widths.value_windows_days]

    def values(self, column: str) -> list[Value]:
        """The codes of a column: the vocabulary, other, and (but for touchpoints) missing."""
        if column not in self.learned.vocabularies:
            return []
        values = [(f"{column}.{value}", f"{column} '{value}'") for value in self.learned.vocabularies[column]]
        values.append((f"{column}.other", f"any other {column}"))
        return values if column == "touchpoint" else [*values, (f"{column}.missing", f"{column} missing")]

    @property
    def codes(self) -> list[Value]:
        """The codes of touchpoint, channel, stage and item, as kernels number them."""
        return [value for column in CATEGORIES for value in self.values(column)]

    @property
    def columns(self) -> list[str]:
        """Those of touchpoint, channel, stage and item that training had."""
        return [column for column in CATEGORIES if column in self.learned.vocabularies]

    def has(self, column: str) -> bool:
        """Whether training had the number."""
        return column in self.learned.has

"""The name and the meaning of every feature, in the order in which the kernels write them.

Names are `column.value.what_window`, free of characters that LightGBM refuses; the meaning has the value as the log
spells it. `tests/test_tabular.py` holds this file and the kernels to the same number and order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from features.tabular.plan import GROUP_NAMES

CANONICAL_CATEGORIES = ("touchpoint", "channel", "stage", "item")


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


Row = tuple[str, str] | tuple[str, str, bool]  # name, meaning, categorical
Value = tuple[str, str]  # label in a name, text in a meaning


def catalogue(learned: Learned, widths: Widths, groups: tuple[str, ...]) -> list[Feature]:
    """Every feature of the groups, in the kernels' order; names are unique."""
    taken: set[str] = set()
    features = []
    for group in GROUP_NAMES:
        if group in groups:
            for name, meaning, *categorical in SUBJECTS[group](_Names(learned, widths)):
                unique = _unique(_safe(name), taken)
                features.append(Feature(unique, group, meaning, bool(categorical and categorical[0])))
    return features


def _safe(name: str) -> str:
    return re.sub(r"[^\w.+-]+", "_", name)


def _unique(name: str, taken: set[str]) -> str:
    candidate, number = name, 2
    while candidate in taken:
        candidate, number = f"{name}_{number}", number + 1
    taken.add(candidate)
    return candidate


@dataclass(frozen=True)
class _Names:
    learned: Learned
    widths: Widths

    @property
    def windows(self) -> list[Value]:
        """Every window, the last one all time."""
        return [(f"{days:g}d", f"in the last {days:g} days") for days in self.widths.windows_days] + [("all", "ever")]

    @property
    def value_windows(self) -> list[Value]:
        return [w for w in self.windows if w[0] == "all" or float(w[0][:-1]) in self.widths.value_windows_days]

    def values(self, column: str) -> list[Value]:
        """The codes of a column: the known, other, and (but for touchpoints) missing."""
        if column not in self.learned.vocabularies:
            return []
        known = [(f"{column}.{value}", f"{column} '{value}'") for value in self.learned.vocabularies[column]]
        rest = [(f"{column}.other", f"any other {column}")]
        return known + rest + ([] if column == "touchpoint" else [(f"{column}.missing", f"{column} missing")])

    @property
    def codes(self) -> list[Value]:
        return [value for column in CANONICAL_CATEGORIES for value in self.values(column)]

    @property
    def columns(self) -> list[str]:
        return [column for column in CANONICAL_CATEGORIES if column in self.learned.vocabularies]

    def has(self, column: str) -> bool:
        return column in self.learned.has


def _volume(names: _Names) -> Iterator[Row]:
    for label, text in names.windows:
        for code, what in names.codes:
            yield f"{code}.count_{label}", f"events with {what} {text}"
    for label, text in names.windows:
        yield f"events_{label}", f"events {text}"
    if names.has("value"):
        for label, text in names.windows:
            yield f"value_{label}", f"sum of value {text}"


def _value(names: _Names) -> Iterator[Row]:
    if not names.has("value"):
        return
    for label, text in names.value_windows:
        for code, what in names.codes:
            yield f"{code}.value_{label}", f"sum of value of events with {what} {text}"


def _recency(names: _Names) -> Iterator[Row]:
    yield "recency_days", "days since the last event"
    for code, what in names.codes:
        yield f"{code}.recency_days", f"days since the last event with {what}"


def _trend(names: _Names) -> Iterator[Row]:
    windows = names.windows
    for (label, text), (wider, wider_text) in pairwise(windows):
        yield f"events_share_{label}_of_{wider}", f"share of the events {wider_text} that came {text}"
        yield f"events_growth_{label}", f"log of events {text} against as long a time before"
    if names.has("value"):
        for (label, text), (wider, wider_text) in pairwise(windows):
            yield f"value_share_{label}_of_{wider}", f"share of the value {wider_text} that came {text}"
            yield f"value_change_{label}", f"value {text} less that of as long a time before"
    yield "events_share_second_half", "share of events in the later half of the time since the first"
    trend = f"{names.widths.trend_window_days:g}d"
    for code, what in names.values("touchpoint"):
        yield f"{code}.recent_share_{trend}", f"share of events with {what} that came in the last {trend[:-1]} days"


def _rfm(names: _Names) -> Iterator[Row]:
    yield "visits", "visits ever (runs of events without a long pause)"
    yield "value_total", "sum of value ever"
    yield "valued_events", "events that have a value"
    yield "value_mean", "mean value of an event that has one"
    yield "value_max", "highest value of an event"
    yield "value_per_day", "value for each day since the first event"
    for name, what in (
        ("mean", "mean"),
        ("median", "median"),
        ("min", "lowest"),
        ("max", "highest"),
        ("last", "last visit's"),
        ("before_last", "the visit before the last one's"),
        ("last_to_mean", "last visit's in units of the mean"),
        ("ewm", "exponentially weighted mean (1/2)"),
        ("std", "standard deviation of the"),
        ("slope", "change from visit to visit of the"),
    ):
        yield f"basket_{name}", f"{what} value of a visit"
    for label, text in names.windows:
        yield f"basket_mean_{label}", f"mean value of the visits {text}"


RHYTHM = (
    ("current", "days from the last {one} to the cutoff"),
    ("mean", "mean days between {many}"),
    ("min", "shortest gap between {many}, days"),
    ("lower_quartile", "lower quartile of the gaps between {many}, days"),
    ("median", "median gap between {many}, days"),
    ("upper_quartile", "upper quartile of the gaps between {many}, days"),
    ("max", "longest gap between {many}, days"),
    ("last", "last gap between {many}, days"),
    ("before_last", "last gap but one between {many}, days"),
    ("ewm_fast", "exponentially weighted mean gap between {many}, newest weighs 1/2, days"),
    ("ewm_slow", "exponentially weighted mean gap between {many}, newest weighs 1/5, days"),
    ("last3", "mean of the last three gaps between {many}, days"),
    ("last3_to_mean", "mean of the last three gaps between {many} in units of the mean"),
    ("last_to_mean", "last gap between {many} in units of the mean"),
    ("current_to_mean", "current gap in units of the mean gap between {many}"),
    ("current_to_median", "current gap in units of the median gap between {many}"),
    ("current_to_upper", "current gap in units of the upper quartile of gaps between {many}"),
    ("current_to_max", "current gap in units of the longest gap between {many}"),
    ("current_to_ewm", "current gap in units of the weighted mean gap between {many}"),
    ("share_longer", "share of the own gaps between {many} that exceed the current one"),
    ("std", "standard deviation of the gaps between {many}, days"),
    ("variation", "standard deviation of the gaps between {many} over their mean"),
    ("slope", "change from one gap between {many} to the next, days"),
    ("current_z", "current gap less the mean gap between {many}, in standard deviations"),
)


def _rhythm(names: _Names) -> Iterator[Row]:
    for name, meaning in RHYTHM:
        yield f"gap_{name}", meaning.format(one="event", many="visits")


def _day_rhythm(names: _Names) -> Iterator[Row]:
    for name, meaning in RHYTHM:
        yield f"day_gap_{name}", meaning.format(one="active day", many="active days")


def _sessions(names: _Names) -> Iterator[Row]:
    for label, text in names.windows:
        yield f"visits_{label}", f"visits with an event {text}"
    yield "visit_seconds_total", "time from first to last event of a visit, all visits, seconds"
    yield "visit_seconds_mean", "mean length of a visit, seconds"
    yield "visit_seconds_max", "length of the longest visit, seconds"
    yield "visit_seconds_last", "length of the last visit, seconds"
    yield "visit_events_mean", "events in a visit, mean"
    yield "visit_events_max", "events in the busiest visit"
    yield "visit_events_last", "events in the last visit"
    yield "visit_events_last_to_mean", "events in the last visit in units of the mean"
    yield "bounce_share", "share of visits with one event only"
    yield "visit_ongoing", "1 where the last event is so recent that its visit may go on"
    if names.has("duration_s"):
        for label, text in names.windows:
            yield f"duration_s_{label}", f"sum of duration {text}, seconds"
        yield "duration_s_mean", "mean duration of an event, seconds"
        yield "duration_s_max", "longest duration of an event, seconds"
        yield "duration_s_last", "duration of the last event that has one, seconds"


def _tenure(names: _Names) -> Iterator[Row]:
    for label, text in names.windows:
        for unit in ("days", "weeks", "months"):
            yield f"active_{unit}_{label}", f"calendar {unit} with an event {text}"
    yield "tenure_days", "days since the first event"
    yield "span_days", "days from the first event to the last"
    yield "active_days_share", "share of the days since the first event that have one"
    yield "active_months_share", "share of the calendar months since the first event that have one"
    yield "events_per_active_day", "events on a day with any"
    yield "longest_streak_days", "longest run of days with an event each"
    yield "events_per_day", "events for each day since the first"


def _variety(names: _Names) -> Iterator[Row]:
    for column in names.columns:
        if column != "item":
            yield f"{column}s_distinct", f"different {column}s (all others count as one)"
            yield f"{column}_entropy", f"entropy of the shares of {column}s, nats"
            yield f"{column}_changes", f"events whose {column} differs from the event's before"
    if "item" in names.columns:
        yield "item_repeat_share", "share of lines whose item came in an earlier visit"
        yield "item_repeat_share_before_last", "the same, without the last visit"
        yield "item_repeat_share_last", "share of the last visit's lines whose item came in an earlier visit"
        yield "item_new_lines_last", "lines of the last visit whose item is new to the customer"
        yield "items_distinct_per_line", "different items over lines with an item"
        yield "items_repeated", "items that came in more than one visit"
        yield "items_repeated_share", "share of the items that came in more than one visit"
        yield "item_top_share", "share of lines with the customer's most frequent item"
        yield "item_entropy", "entropy of the shares of items, nats"
        yield "items_distinct_per_visit", "different items over visits"
        for label, text in names.windows:
            yield f"items_distinct_{label}", f"different items {text}"
            yield f"items_new_{label}", f"items that came for the first time {text}"


def _returns(names: _Names) -> Iterator[Row]:
    for label, text in names.windows:
        yield f"returns_{label}", f"events of negative value {text}"
        yield f"returned_value_{label}", f"value given back {text}"
    yield "returns_share", "share of events of negative value"
    yield "returned_value_share", "value given back over value bought"
    yield "return_recency_days", "days since the last event of negative value"
    yield "returns_last_visit", "events of negative value in the last visit"
    yield "zero_value_events", "events of value zero"


def _calendar(names: _Names) -> Iterator[Row]:
    for part in ("night", "morning", "afternoon", "evening"):
        yield f"{part}_share", f"share of events in the {part} (six hours each from midnight, UTC)"
    for day in ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday"):
        yield f"{day}_share", f"share of events on a {day} (UTC)"
    yield "weekend_share", "share of events on Saturday or Sunday (UTC)"
    yield "last_hour", "hour of the day of the last event (UTC)"
    yield "last_weekday", "weekday of the last event, 0 Monday"
    yield "season_sin", "sine of the cutoff's place in the year"
    yield "season_cos", "cosine of the cutoff's place in the year"
    yield "cutoff_weekday", "weekday of the cutoff, 0 Monday"
    yield "cutoff_hour", "hour of the day of the cutoff (UTC)"
    yield "cutoff_month", "month of the cutoff"


def _satisfaction(names: _Names) -> Iterator[Row]:
    if not names.has("satisfaction"):
        return
    for label, text in names.windows:
        yield f"answers_{label}", f"events with a satisfaction {text}"
        yield f"satisfaction_mean_{label}", f"mean satisfaction {text}"
        yield f"bad_answers_{label}", f"satisfactions of at most {names.learned.bad_satisfaction:g} {text}"
    yield "satisfaction_last", "last satisfaction"
    yield "satisfaction_before_last", "last satisfaction but one"
    yield "satisfaction_step", "last satisfaction less the one before"
    yield "satisfaction_min", "lowest satisfaction"
    yield "satisfaction_max", "highest satisfaction"
    yield "satisfaction_last3", "mean of the last three satisfactions"
    yield "satisfaction_last3_less_mean", "mean of the last three satisfactions less that of all"
    yield "bad_share", f"share of satisfactions of at most {names.learned.bad_satisfaction:g}"
    yield "satisfaction_std", "standard deviation of satisfaction"
    yield "satisfaction_slope", "change from one satisfaction to the next"
    yield "answer_recency_days", "days since the last satisfaction"
    yield "bad_recency_days", f"days since the last satisfaction of at most {names.learned.bad_satisfaction:g}"


def _touch(names: _Names) -> Iterator[Row]:
    for column in names.columns:
        yield f"first_{column}", f"{column} of the first event", True
        yield f"last_{column}", f"{column} of the last event", True
    for k in range(1, names.widths.last_touchpoints):
        yield f"touchpoint_before_last_{k}", f"touchpoint {k} before the last", True
        yield f"last_step_{k}_days", f"days between the touchpoints {k} and {k - 1} before the last"
    yield "last_visit_door", "touchpoint that opened the last visit", True
    for code, what in names.codes:
        yield f"{code}.first_days", f"days since the first event with {what}"


def _order(names: _Names) -> Iterator[Row]:
    for column in ("touchpoint", "stage"):
        codes = names.values(column)[: -1 if column == "touchpoint" else -2]
        for code, what in codes:
            yield f"{code}.delay_first_days", f"days from the start to the first event with {what}"
            yield f"{code}.delay_last_days", f"days from the start to the last event with {what}"
            yield f"{code}.first_rank", f"how many {column}s came for the first time before {what}"
            yield f"{code}.last_gap_days", f"days between the last two events with {what}"
            yield f"{code}.mean_gap_days", f"mean days between events with {what}"
            yield f"{code}.current_to_mean_gap", f"days since the last event with {what} in units of their mean gap"
        most = names.widths.order_pairs if column == "touchpoint" else names.widths.stage_pairs
        for i, (a, what_a) in enumerate(codes[:most]):
            for b, what_b in codes[i + 1 : most]:
                short = b.removeprefix(f"{column}.")
                yield f"{a}.to_{short}.first_days", f"days from the first {what_a} to the first {what_b}"
                yield f"{a}.to_{short}.last_days", f"days from the last {what_a} to the last {what_b}"
    if "stage" in names.columns:
        yield "stage_days", "days since the current stage was entered"
        yield "stage_events", "events since the current stage was entered"


def _transitions(names: _Names) -> Iterator[Row]:
    codes = names.values("touchpoint")[:-1][: names.widths.order_pairs]
    for a, what_a in codes:
        for b, what_b in codes:
            yield f"{a}.then_{b.removeprefix('touchpoint.')}", f"times that {what_b} came right after {what_a}"


def _open_work(names: _Names) -> Iterator[Row]:
    for unit in names.learned.units:
        code = f"work.{unit}"
        yield f"{code}.open", f"starts of '{unit}' not yet completed"
        yield f"{code}.open_days", f"days that '{unit}' has been open"
        yield f"{code}.waiting_days", f"days that '{unit}' has been scheduled and not begun"
        yield f"{code}.worked_hours", f"hours in which '{unit}' was open"
        yield f"{code}.waited_hours", f"hours from scheduling '{unit}' to the next start or completion"
        yield f"{code}.done", f"completions of '{unit}'"
    if names.learned.units:
        yield "work_open", "units of work that are open"
        yield "work_waiting", "units of work that are scheduled and not begun"
        yield "work_oldest_open_days", "age of the longest open unit of work, days"
        yield "work_oldest_waiting_days", "age of the longest waiting unit of work, days"
        yield "work_hours", "hours of work, all units"
        yield "work_waited_hours", "hours of waiting, all units"
        yield "work_done_share", "completions over starts, all units"


def _properties(names: _Names) -> Iterator[Row]:
    touchpoints = names.values("touchpoint")[:-1][: names.widths.property_touchpoints]
    for column in names.learned.properties:
        yield f"{column}.last", f"last known {column}", True
        yield f"{column}.first", f"first known {column}", True
        yield f"{column}.distinct", f"different values of {column} (all others count as one)"
        yield f"{column}.changes", f"changes of {column}"
        yield f"{column}.streak", f"events since {column} last changed"
        yield f"{column}.changed_days", f"days since {column} last changed"
        yield f"{column}.top_share", f"share of the most frequent {column} of this customer"
        yield f"{column}.missing_share", f"share of events without {column}"
        yield f"{column}.other_share", f"share of events with a rare or unseen {column}"
        for value in names.learned.vocabularies[column][: names.widths.property_shares]:
            yield f"{column}.{value}.share", f"share of events with {column} '{value}'"
        for code, what in touchpoints:
            yield f"{column}.at.{code.removeprefix('touchpoint.')}", f"{column} at the last {what}", True


def _profile(names: _Names) -> Iterator[Row]:
    for column in names.learned.profile:
        yield f"profile.{column}", f"last known {column}", True
    for column in names.learned.profile_numbers:
        yield f"profile.{column}", f"last known {column}"


SUBJECTS: dict[str, Callable[[_Names], Iterator[Row]]] = {
    "volume": _volume,
    "value": _value,
    "recency": _recency,
    "trend": _trend,
    "rfm": _rfm,
    "rhythm": _rhythm,
    "day_rhythm": _day_rhythm,
    "sessions": _sessions,
    "tenure": _tenure,
    "variety": _variety,
    "returns": _returns,
    "calendar": _calendar,
    "satisfaction": _satisfaction,
    "touch": _touch,
    "order": _order,
    "transitions": _transitions,
    "open_work": _open_work,
    "properties": _properties,
    "profile": _profile,
}

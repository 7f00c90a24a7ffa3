"""Which events are meant: touchpoints by name or pattern, channels, stages, items, values, dates, a window of days.

    selection = Selection(events=("complaint", "support_*"), within_days=60)
    selection.phrase()                 # "events 'complaint' or 'support_*' in the last 60 days"

Part of the conditions that a marketer writes (`features.conditions.conditions`).
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Iterable, Sequence
from datetime import date, datetime
from decimal import Decimal
from fnmatch import translate
from functools import cached_property
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt
from pydantic import BeforeValidator, Field, field_validator, model_validator

from features.settings import Section, unknown_key
from features.timestamps import microseconds

MONTHS = tuple(name.lower() for name in calendar.month_name[1:])
WEEKDAYS = tuple(name.lower() for name in calendar.day_name)
ANY = ("*",)
DAY_US = 86_400_000_000
SHORT_DAYS = 0.1  # shorter times are given in minutes or seconds, too
WINDOWS: dict[str, Any] = dict.fromkeys(("within_days", "skip_last_days", "since", "until")) | {
    "months": (),
    "weekdays": (),
}
WILD = re.compile(r"[*?\[]")


def many(value: Any) -> Any:
    """A list of one where one text was given."""
    return (value,) if isinstance(value, str) else value


Names = Annotated[tuple[str, ...], BeforeValidator(many)]


class Selection(Section):
    """The events that a condition is about; every key given must fit.

    Attributes:
        events: touchpoints, names or patterns (`*`, `?`, `[…]`), upper and lower case apart.
        channels: the same for channels.
        stages: the same for stages.
        items: the same for items.
        value_at_least: only events worth as much.
        value_at_most: only events worth no more.
        satisfaction_at_least: only events with at least this satisfaction.
        satisfaction_at_most: only events with at most this satisfaction.
        within_days: not longer ago than this before the cutoff.
        skip_last_days: longer ago than this.
        since: from this moment on (UTC).
        until: before this moment (UTC).
        months: names or numbers of months (UTC).
        weekdays: names of days of the week (UTC).
    """

    events: Names = ANY
    channels: Names = ANY
    stages: Names = ANY
    items: Names = ANY
    value_at_least: float | None = None
    value_at_most: float | None = None
    satisfaction_at_least: float | None = None
    satisfaction_at_most: float | None = None
    within_days: float | None = Field(default=None, gt=0)
    skip_last_days: float | None = Field(default=None, gt=0)
    since: datetime | date | None = None
    until: datetime | date | None = None
    months: Annotated[tuple[str | int, ...], BeforeValidator(many)] = ()
    weekdays: Names = ()

    @field_validator("events", "channels", "stages", "items")
    @classmethod
    def _not_empty(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if not names:
            raise ValueError('the list is empty: name some, or leave the key out for all ("*")')
        return names

    @field_validator("months")
    @classmethod
    def _month_names(cls, months: tuple[str | int, ...]) -> tuple[str | int, ...]:
        return tuple(MONTHS[_place(month, MONTHS, first=1)] for month in months)

    @field_validator("weekdays")
    @classmethod
    def _weekday_names(cls, days: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(WEEKDAYS[_place(day, WEEKDAYS)] for day in days)

    @model_validator(mode="after")
    def _a_window(self) -> Self:
        if self.within_days and self.skip_last_days and self.skip_last_days >= self.within_days:
            raise ValueError(
                f"no event is within {self.within_days:g} days and longer ago than {self.skip_last_days:g}: "
                "skip_last_days must be less than within_days"
            )
        return self

    def selection(self) -> Selection:
        """This selection alone, without what a condition adds to it: equal ones are computed once."""
        return Selection.model_construct(**{name: getattr(self, name) for name in Selection.model_fields})

    @cached_property
    def names(self) -> tuple[tuple[str, ...], ...]:
        """Names and patterns of touchpoints, channels, stages, items."""
        return self.events, self.channels, self.stages, self.items

    @cached_property
    def window_us(self) -> npt.NDArray[np.int64]:
        """(4,) as the kernels want it: µs, -1 for none."""
        spans = [-1 if days is None else round(days * DAY_US) for days in (self.within_days, self.skip_last_days)]
        moments = [-1 if moment is None else int(microseconds(moment)) for moment in (self.since, self.until)]
        return np.array([*spans, *moments], np.int64)

    @cached_property
    def limits(self) -> npt.NDArray[np.float64]:
        """(4,) as the kernels want them: NaN for none."""
        bounds = (self.value_at_least, self.value_at_most, self.satisfaction_at_least, self.satisfaction_at_most)
        return np.array([np.nan if limit is None else limit for limit in bounds])

    @cached_property
    def calendar_bits(self) -> npt.NDArray[np.int64]:
        """(2,) months, weekdays as bits; -1 for all."""
        months = sum(1 << MONTHS.index(str(month)) for month in set(self.months)) if self.months else -1
        weekdays = sum(1 << WEEKDAYS.index(day) for day in set(self.weekdays)) if self.weekdays else -1
        return np.array([months, weekdays], np.int64)

    def phrase(self, *, singular: bool = False) -> str:
        """What is meant, for a person: "events 'complaint' in the last 60 days"."""
        words = "event" if singular else "events"
        if self.events != ANY:
            words += f" {either(self.events)}"
        for text, names in (("on channel", self.channels), ("in stage", self.stages), ("with item", self.items)):
            words += "" if names == ANY else f" {text} {either(names)}"
        limits = (
            "worth at least",
            "worth at most",
            "with a satisfaction of at least",
            "with a satisfaction of at most",
        )
        for text, limit in zip(limits, self.limits.tolist(), strict=True):
            words += "" if limit != limit else f" {text} {number(limit)}"
        return words + self.window_words()

    def about(self, word: str) -> str:
        """As in: of events 'purchase' in the last 60 days, a space before; only the window where all are meant."""
        every = Selection.model_construct(**{**dict(self.selection()), **WINDOWS})
        return self.window_words() if every == Selection() else f" {word} {self.phrase()}"

    def window_words(self) -> str:
        """When, with a space before; empty for ever."""
        text = ""
        if self.months:
            text += f" in {joined([str(month).capitalize() for month in self.months], 'or')}"
        if self.weekdays:
            text += f" on {joined([day.capitalize() for day in self.weekdays], 'or')}"
        if self.since is not None:
            text += f" from {moment_words(self.since)}"
        if self.until is not None:
            text += f" before {moment_words(self.until)}"
        if self.within_days is not None and self.skip_last_days is not None:
            return f"{text} between {number(self.within_days)} and {days_words(self.skip_last_days)} ago"
        if self.skip_last_days is not None:
            return f"{text} more than {days_words(self.skip_last_days)} ago"
        return text + ("" if self.within_days is None else f" in the last {days_words(self.within_days)}")


def _place(name: str | int, names: Sequence[str], first: int = 0) -> int:
    """Where a month or weekday is in the list, by name, its first three letters, or number."""
    if isinstance(name, int) and first <= name < first + len(names):
        return name - first
    low = str(name).lower()
    matches = [place for place, item in enumerate(names) if len(low) >= 3 and item.startswith(low)]
    if len(matches) != 1:
        raise ValueError(unknown_key(low, names).replace("key", "name").replace("Known keys", "Known names"))
    return matches[0]


def allowed(names: Sequence[str], patterns: tuple[str, ...]) -> npt.NDArray[np.uint8]:
    """(1 + names,) 1 where a name fits one of the patterns, a missing one (first) never does."""
    exact = set(patterns)
    wild = [translate(pattern) for pattern in patterns if WILD.search(pattern)]
    fits = re.compile("|".join(wild)).match if wild else None
    return np.array([0, *(name in exact or (fits is not None and fits(name) is not None) for name in names)], np.uint8)


def number(x: float) -> str:
    """A number as a person writes it, with every digit it has: 12,345.67."""
    text = f"{Decimal(repr(float(x))):,f}"
    return text.rstrip("0").rstrip(".") if "." in text else text


def percent(share: float) -> str:
    """A share as percent, with every digit it has: 12.5 %."""
    text = f"{Decimal(repr(float(share))) * 100:f}"
    return f"{text.rstrip('0').rstrip('.') if '.' in text else text} %"


def days_words(days: float) -> str:
    """'1 day', '60 days', '0.01 days (14 minutes)'."""
    text = f"{number(days)} day{'' if days == 1 else 's'}"
    if days <= 0 or days >= SHORT_DAYS:
        return text
    return f"{text} ({days * 1440:.0f} minutes)" if days * 1440 >= 2 else f"{text} ({days * 86400:.0f} seconds)"


def moment_words(moment: datetime | date) -> str:
    """A day, with the time where there is one."""
    midnight = not isinstance(moment, datetime) or not (moment.hour or moment.minute or moment.second)
    return f"{moment:%Y-%m-%d}" if midnight else f"{moment:%Y-%m-%d %H:%M}"


def either(names: Iterable[str]) -> str:
    """Quoted names joined by or."""
    return joined([f"'{name}'" for name in names], "or")


def joined(parts: Sequence[str], word: str) -> str:
    """'a, b or c'."""
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} {word} {parts[-1]}"

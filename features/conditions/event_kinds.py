"""The kinds of condition that compare a figure of events: how many, how much, how long ago, what share."""

from __future__ import annotations

from typing import ClassVar, Self

import numpy as np
from pydantic import Field, model_validator

from features.conditions import kernels as op
from features.conditions.base import Bools, kind
from features.conditions.comparison import MeasureCondition
from features.conditions.measures import EventTally, Measure, MeasureRatio, SnapshotView, count
from features.conditions.selections import ANY, Names, Selection, days_words, either, joined, percent

NUMBERS = {
    "sum": op.SUM, "mean": op.MEAN, "lowest": op.LOWEST, "highest": op.HIGHEST, "latest": op.LATEST,
    "per_day": op.PER_DAY,
}  # fmt: skip


class NamedEventsCondition(MeasureCondition, Selection):
    """A measure of events that the condition's own key names, and not `events`.

    Attributes:
        keys: the keys that can name them.
    """

    keys: ClassVar[tuple[str, ...]]

    @property
    def key(self) -> str:
        """The key that names the events."""
        return next(key for key in self.keys if getattr(self, key) is not None)

    @property
    def named(self) -> Selection:
        """The events."""
        return self.selection().model_copy(update={"events": getattr(self, self.key)})

    @model_validator(mode="after")
    def _without_events(self) -> Self:
        if self.events != ANY:
            raise ValueError(f"'{self.key}' says which events are meant: leave 'events' out")
        return self


@kind("events")
class CountCondition(MeasureCondition, Selection):
    """How many events; at least one where no number is given."""

    def measure(self) -> Measure:
        """The count."""
        return count(self.selection())

    def completed(self) -> MeasureCondition:
        """At least one where no number is given."""
        return self if self.compares else self.changed(at_least=1.0)

    def subject(self) -> str:
        """The events."""
        return f"the number of {self.phrase()}"

    def words(self) -> str:
        """A count reads better the other way round: "at least 2 events 'complaint'"."""
        if self.exactly == 0 or self.at_most == 0 or self.less_than == 1:
            return f"no {self.phrase(singular=True)}"
        if self.top_share is not None or self.bottom_share is not None:
            return MeasureCondition.words(self)
        amounts = [bound for bound in self.bounds.values() if bound is not None]
        return f"{joined(self.comparisons(), 'and')} {self.phrase(singular=amounts[-1] == 1)}"


@kind("days_with")
class DaysCondition(NamedEventsCondition):
    """On how many days there was such an event: lines of one invoice count once."""

    keys: ClassVar = ("days_with",)
    days_with: Names

    def measure(self) -> Measure:
        """The days."""
        return EventTally(self.named, op.DAYS)

    def subject(self) -> str:
        """The days."""
        return f"the number of days with an {self.named.phrase(singular=True)}"


@kind(*NUMBERS)
class NumberCondition(MeasureCondition, Selection):
    """The sum, mean … of a numeric column over the events."""

    sum: str | None = None
    mean: str | None = None
    lowest: str | None = None
    highest: str | None = None
    latest: str | None = None
    per_day: str | None = None

    @property
    def _which(self) -> str:
        return next(name for name in NUMBERS if getattr(self, name) is not None)

    @property
    def column(self) -> str:
        """The numeric column."""
        return str(getattr(self, self._which))

    def measure(self) -> Measure:
        """The sum, mean …."""
        return EventTally(self.selection(), NUMBERS[self._which], self.column)

    def subject(self) -> str:
        """The sum of what."""
        if self._which == "per_day":
            return f"the sum of {self.column} per day with an {self.phrase(singular=True)}"
        return f"the {self._which} of {self.column}{self.about('of')}"


@kind("last", "first")
class SinceCondition(NamedEventsCondition):
    """Days since the last or the first such event.

    Attributes:
        last: touchpoints; the last such event.
        first: touchpoints; the first such event.
        more_than_days: longer ago.
        less_than_days: more recent.
        at_least_days: as long ago or longer.
        at_most_days: as recent or more.
        not_followed_by: none of these came after it.
        followed_by: one of these came after it.
        or_never: holds, too, for those who have no such event.
    """

    keys: ClassVar = ("last", "first")
    less_is_better: ClassVar = True  # a recent event is a good sign
    last: Names | None = None
    first: Names | None = None
    more_than_days: float | None = None
    less_than_days: float | None = None
    at_least_days: float | None = None
    at_most_days: float | None = None
    not_followed_by: Names | None = None
    followed_by: Names | None = None
    or_never: bool = False

    @model_validator(mode="after")
    def _says_days(self) -> SinceCondition:
        for name in ("at_least", "at_most", "more_than", "less_than", "exactly"):
            if getattr(self, name) is not None:
                close = "at_least" if name == "exactly" else name
                raise ValueError(f"'{name}' says no unit here: write '{close}_days'")
        return self

    @property
    def bounds(self) -> dict[str, float | None]:
        """at_least, at_most, more_than, less_than, in days."""
        return {name: getattr(self, f"{name}_days") for name in ("at_least", "at_most", "more_than", "less_than")}

    def completed(self) -> MeasureCondition:
        """What follows an event is a comparison of its own."""
        return self if self.followed_by or self.not_followed_by else super().completed()

    def measure(self) -> Measure:
        """The days."""
        return EventTally(self.named, op.LAST_DAYS if self.key == "last" else op.FIRST_DAYS)

    def holds(self, view: SnapshotView) -> Bools:
        """(n,) for whom the comparison holds, and what came or did not come after."""
        flags = super().holds(view)
        if self.or_never:
            flags |= np.isnan(view.values(self._measure))
        for names, expected in ((self.followed_by, True), (self.not_followed_by, False)):
            if names:
                place = view.values(EventTally(self.named, op.LAST_PLACE if self.key == "last" else op.FIRST_PLACE))
                after = view.values(EventTally(Selection(events=names), op.LAST_PLACE)) > place
                flags &= (after == expected) | (np.isnan(place) & self.or_never)
        return flags

    def subject(self) -> str:
        """The last or first event."""
        return f"the {self.key} {self.named.phrase(singular=True)}"

    def amount(self, x: float) -> str:
        """Days."""
        return days_words(x)

    def words(self) -> str:
        """As in: the last event 'complaint' was more than 14 days ago."""
        texts = [f"{comparison} ago" for comparison in self.comparisons()]
        for names, text in ((self.followed_by, "followed by"), (self.not_followed_by, "not followed by")):
            texts += [f"{text} {either(names)}"] if names else []
        return f"{self.subject()} was {joined(texts, 'and')}{' or never happened' if self.or_never else ''}"


@kind("gap")
class GapCondition(NamedEventsCondition):
    """The mean days between days with such an event; unknown before the second."""

    keys: ClassVar = ("gap",)
    less_is_better: ClassVar = True  # customers who come often have short gaps
    gap: Names

    def measure(self) -> Measure:
        """The gap."""
        return EventTally(self.named, op.GAP_DAYS)

    def subject(self) -> str:
        """The gap."""
        return f"the mean time between days with an {self.named.phrase(singular=True)}"

    def amount(self, x: float) -> str:
        """Days."""
        return days_words(x)


@kind("overdue")
class OverdueCondition(NamedEventsCondition):
    """Days since the last such event in units of the customer's own gap between days with one.

    Attributes:
        overdue: touchpoints.
        usual_days: what is usual: it is mixed into the own rhythm as one more gap, so that who came once has one, too.
    """

    keys: ClassVar = ("overdue",)
    less_is_better: ClassVar = True  # customers who are on time have a low one
    overdue: Names
    usual_days: float | None = Field(default=None, gt=0)

    def measure(self) -> Measure:
        """The current gap over the usual one."""
        return EventTally(self.named, op.OVERDUE, usual_days=np.nan if self.usual_days is None else self.usual_days)

    def subject(self) -> str:
        """The time in units of a gap."""
        mixed = "" if self.usual_days is None else f" (a gap of {days_words(self.usual_days)} mixed in)"
        last = self.named.phrase(singular=True)
        return f"the time since the last {last} in units of the customer's own gap{mixed}"


@kind("share")
class ShareCondition(NamedEventsCondition):
    """The share of some events in others, within the same window and filters."""

    keys: ClassVar = ("share",)
    share: Names
    of: Names = ANY

    def measure(self) -> Measure:
        """The share."""
        return MeasureRatio(count(self.named), count(self.selection().model_copy(update=_BARE | {"events": self.of})))

    def subject(self) -> str:
        """Which share of which."""
        whole = "all" if self.of == ANY else either(self.of)
        return f"the share of {self.named.phrase()} in {whole}"

    def amount(self, x: float) -> str:
        """Percent."""
        return percent(x)


_BARE = {"channels": ANY, "stages": ANY, "items": ANY, "months": (), "weekdays": ()} | dict.fromkeys(
    ("value_at_least", "value_at_most", "satisfaction_at_least", "satisfaction_at_most")
)  # what narrows the part, not the whole

"""What is to be predicted: churn, conversion, or the user's own label table; for whom, and at which cutoffs.

Cutoffs can be written in three ways: as dates, as ages since a customer's first event, or counted back from the log's
end. Whichever it is, test cutoffs come after every training label has closed.
"""

from __future__ import annotations

import difflib
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from features.settings import Section

Days = Annotated[float, Field(gt=0, le=36_500)]


def _only_moments(value: Any) -> Any:
    if not isinstance(value, date | str):  # a datetime is a date
        raise ValueError("write a date (2011-09-10) or a moment (2011-09-10T12:00:00Z)")
    return value


def _some(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("name at least one")
    return values


def _utc(value: datetime) -> datetime:
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


Moment = Annotated[datetime, BeforeValidator(_only_moments), AfterValidator(_utc)]  # naive UTC


class Every(Section):
    """Regular cutoffs: `{ first = 2011-03-06, last = 2011-06-12, every_days = 14 }`.

    Attributes:
        first: the first cutoff.
        last: none is later.
        every_days: from one to the next.
    """

    first: Moment
    last: Moment
    every_days: Days

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.last < self.first:
            raise ValueError(f"last ({self.last:%Y-%m-%d}) is before first ({self.first:%Y-%m-%d})")
        return self

    def moments(self) -> list[datetime]:
        """The cutoffs, first to last."""
        step = timedelta(days=self.every_days)
        return [self.first + i * step for i in range(int((self.last - self.first) / step) + 1)]


def _range_or_list(value: Any) -> str:
    return "range" if isinstance(value, dict | Every) else "list"


MomentList = Annotated[tuple[Moment, ...], AfterValidator(_some)]
Moments = Annotated[Annotated[Every, Tag("range")] | Annotated[MomentList, Tag("list")], Discriminator(_range_or_list)]


def moments(value: Every | tuple[datetime, ...]) -> list[datetime]:
    """The cutoffs of a range or a list, in time order, each once."""
    return value.moments() if isinstance(value, Every) else sorted(set(value))


class Dates(Section):
    """Cutoffs as dates, the same for every customer.

    Attributes:
        train: dates or moments, or `{ first = …, last = …, every_days = … }`.
        test: the same; none before the last training label has closed.
    """

    train: Moments
    test: Moments


class Ages(Section):
    """Cutoffs at ages since each customer's first event.

    Attributes:
        ages_days: one cutoff a customer and age.
        train_until: training labels close by then; `test_from` by default.
        test_from: test cutoffs lie from there on; chosen by `test_share` where not given.
        test_until: test labels close by then; the log's end by default.
        test_share: share of the labelled rows that become test rows.
    """

    ages_days: Annotated[tuple[Days, ...], AfterValidator(_some)]
    train_until: Moment | None = None
    test_from: Moment | None = None
    test_until: Moment | None = None
    test_share: float = Field(default=0.25, gt=0, lt=1)


class Counted(Section):
    """Cutoffs counted back from the log's end, so that the file needs no dates; the default.

    The last test cutoff is the last midnight whose window is closed; the last training label closes at the first
    test cutoff. Where the log is short there are fewer training cutoffs, never with less than one look-back before.

    Attributes:
        every_days: from one cutoff to the next.
        n_train: training cutoffs, at most.
        n_test: test cutoffs.
    """

    every_days: Days = 14.0
    n_train: int = Field(default=8, ge=1)
    n_test: int = Field(default=1, ge=1)


class Parted(Section):
    """Where a label table without `split` is parted: by moment, or by share of the rows.

    Attributes:
        test_from: test rows lie from there on; chosen by `test_share` where not given.
        test_share: share of the rows that become test rows.
    """

    test_from: Moment | None = None
    test_share: float = Field(default=0.25, gt=0, lt=1)


WAYS: dict[str, type[Section]] = {"dates": Dates, "ages": Ages, "counted": Counted}


def _way(value: Any) -> str:
    """Which of the three ways: the one that knows most of the keys."""
    if isinstance(value, Section):
        return next(way for way, section in WAYS.items() if isinstance(value, section))
    keys = set(value) if isinstance(value, dict) else set()
    known = {way: len(keys & set(section.model_fields)) for way, section in WAYS.items()}
    return max(known, key=lambda way: known[way]) if any(known.values()) else "counted"


def _one_way(value: Any) -> Any:
    """Keys of two ways at once are the commonest mistake with `--set`: say so, and how to replace a table whole."""
    if isinstance(value, dict):
        ways = [way for way, section in WAYS.items() if set(value) & set(section.model_fields)]
        if len(ways) > 1 and not any(set(value) <= set(WAYS[way].model_fields) for way in ways):
            raise ValueError(
                f"{', '.join(value)} mix two ways to write cutoffs: dates (train, test), ages (ages_days, test_from …) "
                "or counted from the log's end (every_days, n_train, n_test). Keep one; on the command line, "
                "--set 'task.cutoffs={every_days=14}' replaces the table as a whole"
            )
    return value


def _no_ages(value: Any) -> Any:
    if isinstance(value, Ages):
        raise ValueError("ages_days is for conversion; churn takes dates (train, test) or every_days and n_train")
    return value


Cutoffs = Annotated[
    Annotated[Dates, Tag("dates")] | Annotated[Ages, Tag("ages")] | Annotated[Counted, Tag("counted")],
    Discriminator(_way),
    BeforeValidator(_one_way),
]
ChurnCutoffs = Annotated[Cutoffs, AfterValidator(_no_ages)]
Touchpoints = Annotated[tuple[str, ...], AfterValidator(_some)]


class ChurnTask(Section):
    """No activity within the horizon, for customers active before the cutoff.

    Attributes:
        kind: of task.
        activity: touchpoints that count as activity; `["*"]` for any.
        active_days: candidates were active in these days before the cutoff.
        horizon_days: the label looks this far from the cutoff on.
        cutoffs: when.
        observed_until: until when the log was watched, if longer than its last event.
    """

    kind: Literal["churn"]
    activity: Touchpoints = ("*",)
    active_days: Days
    horizon_days: Days
    cutoffs: ChurnCutoffs = Counted()
    observed_until: Moment | None = None

    @property
    def look_back_days(self) -> float:
        """How much history a cutoff needs."""
        return self.active_days


class ConversionTask(Section):
    """The goal within the horizon, for customers who have neither reached it nor ended before the cutoff.

    Attributes:
        kind: of task.
        goal: touchpoints that are the goal.
        ended: touchpoints after which a customer is no candidate any more.
        active_days: candidates had some event in these days before the cutoff; by default ever before.
        horizon_days: the label looks this far from the cutoff on.
        cutoffs: when; also as ages since the first event.
        observed_until: until when the log was watched, if longer than its last event.
    """

    kind: Literal["conversion"]
    goal: Touchpoints
    ended: tuple[str, ...] = ()
    active_days: Days | None = None
    horizon_days: Days
    cutoffs: Cutoffs = Counted()
    observed_until: Moment | None = None

    @property
    def look_back_days(self) -> float:
        """How much history a cutoff needs."""
        ages = self.cutoffs.ages_days if isinstance(self.cutoffs, Ages) else ()
        return self.active_days or min(ages, default=self.horizon_days)


class LabelColumns(Section):
    """What the label table calls its columns.

    Attributes:
        customer_id: who.
        cutoff: when; features see what is before.
        label: 1 or 0, true or false.
        split: "train" or "test"; the table may do without.
    """

    customer_id: str = "customer_id"
    cutoff: str = "cutoff"
    label: str = "label"
    split: str = "split"


class LabelsTask(Section):
    """The user's own label table: `customer_id, cutoff, label`, optionally `split`.

    Attributes:
        kind: of task.
        path: CSV or Parquet.
        columns: our name → theirs, where they differ.
        horizon_days: how long after the cutoff a label is known.
        cutoffs: where to part train and test if the table has no `split`.
        observed_until: until when the labels were watched, if longer than the log's last event.
    """

    kind: Literal["labels"]
    path: Path
    columns: LabelColumns = LabelColumns()
    horizon_days: Days
    cutoffs: Parted = Parted()
    observed_until: Moment | None = None

    @property
    def look_back_days(self) -> float:
        """How much history a cutoff needs."""
        return self.horizon_days


def _kind(value: Any) -> str:
    return str(value.get("kind", "")) if isinstance(value, dict) else str(getattr(value, "kind", ""))


def _known_kind(value: Any) -> Any:
    if not isinstance(value, dict | Section):
        raise ValueError("write a table, [task]")
    if (kind := _kind(value)) not in KINDS:
        close = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "."
        what = f"no kind '{kind}'" if kind else "kind is missing"
        raise ValueError(f"{what}{hint} There are: {', '.join(KINDS)}")
    return value


KINDS = ("churn", "conversion", "labels")
Task = Annotated[
    Annotated[ChurnTask, Tag("churn")]
    | Annotated[ConversionTask, Tag("conversion")]
    | Annotated[LabelsTask, Tag("labels")],
    Discriminator(_kind),
    BeforeValidator(_known_kind),
]

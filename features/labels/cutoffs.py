"""Cutoffs: how an experiment file writes them, which moments they are on a log, and which side of the split each is on.

Cutoffs can be written in three ways: as dates, as ages since a customer's first event, or counted back from the log's
end. Whichever it is, test cutoffs come after every training label has closed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, NamedTuple, Self

import numpy as np
import numpy.typing as npt
from pydantic import AfterValidator, BeforeValidator, Discriminator, Field, Tag, model_validator

from features.errors import DataError
from features.journeys.holdout import moment_from_counts
from features.journeys.journeys import Journeys, Snapshots
from features.labels.windows import customers_by_name
from features.settings import Section
from features.timestamps import DAY_US, days_us, microseconds, moment_text

Flags = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]
Days = Annotated[float, Field(gt=0, le=36_500)]


class Period(NamedTuple):
    """The time that a log is observed, µs since 1970 UTC."""

    start_us: int
    end_us: int


class Windows(NamedTuple):
    """What a cutoff needs around it: days of history before it, and the days that its label looks at."""

    look_back_days: float
    horizon_days: float


class CutoffCounts(NamedTuple):
    """Distinct cutoffs and how many rows have each: (k,) µs, rising, and (k,) counts."""

    moments: Int64s
    counts: Int64s


def _only_moments(value: Any) -> Any:
    if not isinstance(value, date | str):  # a datetime is a date
        raise ValueError("write a date (2011-09-10) or a moment (2011-09-10T12:00:00Z)")
    return value


def _not_empty(values: tuple[Any, ...]) -> tuple[Any, ...]:
    if not values:
        raise ValueError("name at least one")
    return values


def _utc(value: datetime) -> datetime:
    return value if value.tzinfo is None else value.astimezone(UTC).replace(tzinfo=None)


Moment = Annotated[datetime, BeforeValidator(_only_moments), AfterValidator(_utc)]  # naive UTC
Touchpoints = Annotated[tuple[str, ...], AfterValidator(_not_empty)]


def moment_us(value: datetime) -> int:
    """A moment of the settings in µs since 1970 UTC."""
    return int(microseconds(value))


@dataclass(frozen=True)
class Borders:
    """Where train ends and test begins, µs.

    Attributes:
        train_until: training labels close by then.
        test_from: test cutoffs lie from there on.
        test_until: test labels close by then; None for the log's end.
    """

    train_until: int
    test_from: int
    test_until: int | None = None

    def split(self, cutoff: Int64s, horizon_days: float) -> tuple[Flags, Flags]:
        """(n,) which rows are train, which are test; some are neither."""
        closes = cutoff + days_us(horizon_days)
        test = cutoff >= self.test_from
        return closes <= self.train_until, test if self.test_until is None else test & (closes <= self.test_until)


@dataclass(frozen=True)
class FixedCutoffs:
    """Every customer at the same cutoffs.

    Attributes:
        cutoffs: (k,) µs, rising.
        test: those of them that are test cutoffs.
        columns: names of the columns that `snapshots` adds.
    """

    cutoffs: Int64s
    test: Int64s
    columns: tuple[str, ...] = ()

    def snapshots(self, journeys: Journeys) -> tuple[Snapshots, dict[str, npt.NDArray[Any]]]:
        """Every customer at every cutoff, by cutoff, then by name; and further columns of these rows, here none."""
        customers = customers_by_name(journeys)
        cutoffs = np.repeat(self.cutoffs, len(customers))
        return journeys.at(cutoffs, np.tile(customers, len(self.cutoffs))), {}

    def split(self, cutoff: Int64s, horizon_days: float) -> tuple[Flags, Flags]:
        """(n,) which rows are train, which are test."""
        is_test = np.isin(cutoff, self.test)
        return ~is_test, is_test

    def with_borders(self, count: Callable[[], CutoffCounts]) -> tuple[Self, list[str]]:
        """The same: fixed cutoffs name their split."""
        return self, []


@dataclass(frozen=True)
class AgeCutoffs:
    """Every customer at ages since the first event.

    Attributes:
        ages: (k,) days, rising.
        settings: where to split.
        borders: between train and test; None until `with_borders` has set them: all rows are then train rows.
        columns: names of the columns that `snapshots` adds.
    """

    ages: npt.NDArray[Any]
    settings: Ages
    borders: Borders | None = None
    columns: tuple[str, ...] = ("age_days",)

    def snapshots(self, journeys: Journeys) -> tuple[Snapshots, dict[str, npt.NDArray[Any]]]:
        """Every customer at every age, by age, then by name; and `age_days` (n,)."""
        customers = customers_by_name(journeys)
        first = journeys.t[journeys.offsets[:-1]][customers]
        cutoffs = np.concatenate([first + days_us(float(age)) for age in self.ages])
        rows = journeys.at(cutoffs, np.tile(customers, len(self.ages)))
        return rows, {"age_days": np.repeat(self.ages, len(customers))}

    def split(self, cutoff: Int64s, horizon_days: float) -> tuple[Flags, Flags]:
        """(n,) which rows are train, which are test; some are neither."""
        if self.borders is None:
            return np.ones(len(cutoff), np.bool_), np.zeros(len(cutoff), np.bool_)
        return self.borders.split(cutoff, horizon_days)

    def with_borders(self, count: Callable[[], CutoffCounts]) -> tuple[Self, list[str]]:
        """The same with borders, and what to note; `count` is of the candidates on all parts of the log."""
        ages = self.settings
        borders, notes = borders_of(count(), ages.test_share, ages.train_until, ages.test_from, ages.test_until)
        return replace(self, borders=borders), notes


def borders_of(
    rows: CutoffCounts,
    test_share: float,
    train_until: datetime | None = None,
    test_from: datetime | None = None,
    test_until: datetime | None = None,
) -> tuple[Borders, list[str]]:
    """The borders of the settings, or those that make `test_share` of the rows test rows, and what to note."""
    notes = []
    if test_from is None and train_until is None and len(rows.moments):
        border = moment_from_counts(rows.moments, rows.counts, test_share)
        share = rows.counts[rows.moments >= border].sum() / rows.counts.sum()
        notes.append(f"test rows start at {moment_text(border)}, which makes them {share:.0%} of all")
    else:
        border = int(microseconds(test_from or train_until or 0))
    until = border if train_until is None else moment_us(train_until)
    return Borders(until, border, None if test_until is None else moment_us(test_until)), notes


def between_note(rows: int) -> list[str]:
    """What to note of rows that are neither train nor test; nothing where there are none."""
    if not rows:
        return []
    return [f"{rows:,} rows left out: their window reaches over the border between train and test"]


def require_observed(period: Period, cutoffs: Int64s, horizon_days: float) -> None:
    """Raise a `DataError` unless the log begins before every cutoff and all label windows are closed."""
    early = [moment_text(cutoff) for cutoff in cutoffs if cutoff <= period.start_us]
    if early:
        raise DataError(
            f"Cutoff {', '.join(early)}: nothing is known before it, the log starts at "
            f"{moment_text(period.start_us)}. Choose later cutoffs."
        )
    last = period.end_us - days_us(horizon_days)
    late = [moment_text(cutoff) for cutoff in cutoffs if cutoff > last]
    if late:
        raise DataError(
            f"Cutoff {', '.join(late)}: its window of {horizon_days:g} days is not fully observed, the log ends at "
            f"{moment_text(period.end_us)}. The last possible cutoff is {moment_text(last)}; "
            "if the log was watched longer than its last event, say so with observed_until."
        )


def require_closed(train: Int64s, test: Int64s, horizon_days: float) -> None:
    """Raise a `DataError` unless every training label has closed at the first test cutoff."""
    last, first = int(train.max()), int(test.min())
    closes = last + days_us(horizon_days)
    if closes > first:
        raise DataError(
            f"The label of the training cutoff {moment_text(last)} closes on {moment_text(closes)}, after the "
            f"test cutoff {moment_text(first)}: a model would be tested on what it has seen. Training cutoffs "
            f"must end by {moment_text(first - days_us(horizon_days))}."
        )


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


MomentList = Annotated[tuple[Moment, ...], AfterValidator(_not_empty)]
Moments = Annotated[Annotated[Every, Tag("range")] | Annotated[MomentList, Tag("list")], Discriminator(_range_or_list)]


def _moments_us(value: Every | tuple[datetime, ...]) -> Int64s:
    """The cutoffs of a range or a list in µs, in time order, each once."""
    return microseconds(value.moments() if isinstance(value, Every) else sorted(set(value)))


class Dates(Section):
    """Cutoffs as dates, the same for every customer.

    Attributes:
        train: dates or moments, or `{ first = …, last = …, every_days = … }`.
        test: the same; none before the last training label has closed.
    """

    train: Moments
    test: Moments

    def resolve(self, period: Period, windows: Windows) -> tuple[FixedCutoffs, list[str]]:
        """The cutoffs of a log, and what to note.

        Raises:
            DataError: a test cutoff before a training label has closed.
        """
        train, test = _moments_us(self.train), _moments_us(self.test)
        require_closed(train, test, windows.horizon_days)
        return FixedCutoffs(np.unique(np.concatenate((train, test))), test), []


class Ages(Section):
    """Cutoffs at ages since each customer's first event.

    Attributes:
        ages_days: one cutoff a customer and age.
        train_until: training labels close by then; `test_from` by default.
        test_from: test cutoffs lie from there on; chosen by `test_share` where not given.
        test_until: test labels close by then; the log's end by default.
        test_share: share of the labelled rows that become test rows.
    """

    ages_days: Annotated[tuple[Days, ...], AfterValidator(_not_empty)]
    train_until: Moment | None = None
    test_from: Moment | None = None
    test_until: Moment | None = None
    test_share: float = Field(default=0.25, gt=0, lt=1)

    def resolve(self, period: Period, windows: Windows) -> tuple[AgeCutoffs, list[str]]:
        """The ages, whose borders between train and test the rows decide; nothing to note."""
        return AgeCutoffs(np.unique(np.asarray(self.ages_days)), self), []


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

    def resolve(self, period: Period, windows: Windows) -> tuple[FixedCutoffs, list[str]]:
        """The cutoffs of a log, and what to note.

        Raises:
            DataError: the log is too short for a test and a training cutoff.
        """
        horizon, step = days_us(windows.horizon_days), days_us(self.every_days)
        last_test = period.end_us - horizon
        if windows.horizon_days >= 1:
            last_test -= last_test % DAY_US  # midnight UTC, so that a cutoff can be read and written down
        test = last_test - step * np.arange(self.n_test)[::-1]
        train = test[0] - horizon - step * np.arange(self.n_train)[::-1]
        observed = train[train >= period.start_us + days_us(windows.look_back_days)]
        if not len(observed):
            raise DataError(
                f"The log ({moment_text(period.start_us)} to {moment_text(period.end_us)}) is too short for a test "
                f"cutoff and a training cutoff before it: they take {windows.look_back_days:g} days of look-back and "
                f"twice the horizon of {windows.horizon_days:g} days. Shorten them, or give dates in [task.cutoffs]."
            )
        end = moment_text(period.end_us)
        notes = [f"cutoffs from the log's end ({end}): train {_range_text(observed)}, test {_range_text(test)}"]
        if len(observed) < len(train):
            notes.append(f"{len(observed)} of {len(train)} training cutoffs: earlier ones have no whole look-back")
        return FixedCutoffs(np.unique(np.concatenate((observed, test))), test), notes


def _range_text(cutoffs: Int64s) -> str:
    first, last = moment_text(int(cutoffs[0])), moment_text(int(cutoffs[-1]))
    return first if first == last else f"{first} to {last} ({len(cutoffs)})"


class TableSplit(Section):
    """Where a label table without `split` is split: by moment, or by share of the rows.

    Attributes:
        test_from: test rows lie from there on; chosen by `test_share` where not given.
        test_share: share of the rows that become test rows.
    """

    test_from: Moment | None = None
    test_share: float = Field(default=0.25, gt=0, lt=1)


WAYS: dict[str, type[Section]] = {"dates": Dates, "ages": Ages, "counted": Counted}


def _way(value: Any) -> str:
    """Which of the three ways: the one that has most of the keys."""
    if isinstance(value, Section):
        return next(way for way, section in WAYS.items() if isinstance(value, section))
    keys: Iterable[str] = value if isinstance(value, dict) else ()
    shared = {way: len(set(keys) & set(section.model_fields)) for way, section in WAYS.items()}
    return max(shared, key=lambda way: shared[way]) if any(shared.values()) else "counted"


def _not_mixed(value: Any) -> Any:
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


Cutoffs = Annotated[
    Annotated[Dates, Tag("dates")] | Annotated[Ages, Tag("ages")] | Annotated[Counted, Tag("counted")],
    Discriminator(_way),
    BeforeValidator(_not_mixed),
]

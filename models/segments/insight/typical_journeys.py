"""Typical journeys of a segment: real ones nearest to its centre, shown so that no customer can be recognised.

Whatever could identify a customer is left out or coarse: no identifiers, no dates or times of day (days since the
journey's start, in steps), no items, profile or properties; money to one digit, and cut off where few spend as much; no
touchpoint or channel of only few customers; no journeys of segments with few customers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from features.errors import DataError
from features.journeys.journeys import Category, Journeys, Snapshots
from features.settings import Section
from models.segments.contract import Segment
from models.segments.insight.profiles import check_places, last_rows

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAY_US = 86_400_000_000
COLUMNS = ("segment_id", "segment", "journey", "line", "days_since_start", "touchpoint", "channel", "times", "text")
MONTH_DAYS = 30


class JourneySettings(Section):
    """How much to show.

    Attributes:
        per_segment: journeys of a segment.
        most_lines: lines of a journey; the middle of longer ones is one line.
        fewest_customers: a segment, touchpoint or channel with fewer is not shown.
        highest_share: sums above this quantile of the money that customers spend on a day are shown as "over" it.
    """

    per_segment: int = Field(default=3, ge=1, le=20)
    most_lines: int = Field(default=12, ge=3)
    fewest_customers: int = Field(default=10, ge=2)
    highest_share: float = Field(default=0.95, gt=0, lt=1)


def medoids(space: npt.ArrayLike, place: npt.ArrayLike, n_segments: int, count: int) -> list[Ints]:
    """For each segment the rows nearest to its mean, nearest first.

    Args:
        space: (n, d) points; rows with NaN are left out.
        place: (n,) the segment of each row, -1 for none.
        n_segments: number of segments.
        count: at most so many rows of each.

    Raises:
        DataError: another number of points than of rows.
    """
    points, places = np.asarray(space, np.float64), np.asarray(place, np.int64)
    if points.ndim != 2 or len(points) != len(places):
        raise DataError(f"the space is {points.shape} for {len(places)} rows: give one point for each row")
    finite = np.isfinite(points).all(axis=1)
    nearest = []
    for segment in range(n_segments):
        rows = np.flatnonzero(finite & (places == segment))
        squares = ((points[rows] - points[rows].mean(axis=0)) ** 2).sum(axis=1) if len(rows) else np.zeros(0)
        nearest.append(rows[np.argsort(squares, kind="stable")[:count]])
    return nearest


def typical_journeys(
    space: npt.ArrayLike,
    snapshots: Snapshots,
    place: npt.ArrayLike,
    segments: Sequence[Segment],
    settings: JourneySettings | None = None,
) -> pd.DataFrame:
    """The journeys nearest to each segment's centre, line by line.

    Args:
        space: (n, d) points: embeddings, or standardised features.
        snapshots: (n,) rows; of several of a customer the last is taken.
        place: (n,) place of each row in `segments`.
        segments: the partition.
        settings: how much to show.

    Returns:
        A row a line: segment_id, segment, journey (1: nearest), line, days_since_start (coarse), touchpoint, channel,
        times, text. Segments with too few customers, or whose customers have no events, have none.

    Raises:
        DataError: another number of points than of snapshots.
    """
    places, settings = check_places(segments, snapshots, place), settings or JourneySettings()
    points = np.asarray(space)
    if len(points) != len(places):
        raise DataError(f"{len(places)} snapshots and {len(points)} points: give one point for each row")
    rows = last_rows(snapshots)
    rows = rows[snapshots.stop[rows] > snapshots.start[rows]]
    sizes = np.bincount(places[rows] + 1, minlength=len(segments) + 1)[1:]
    reader = _Reader(snapshots, settings)
    rows_of_lines = [
        {"segment_id": segments[s].id, "segment": segments[s].name, "journey": number, **line}
        for s, nearest in enumerate(medoids(points[rows], places[rows], len(segments), settings.per_segment))
        if sizes[s] >= settings.fewest_customers
        for number, row in enumerate(nearest, 1)
        for line in reader.lines(int(rows[row]))
    ]
    return pd.DataFrame(rows_of_lines, columns=list(COLUMNS))


def journey_texts(lines: pd.DataFrame) -> dict[str, list[str]]:
    """Segment id -> its typical journeys as text, a line a step."""
    texts: dict[str, list[str]] = {}
    for (segment, _), journey in lines.groupby(["segment_id", "journey"], sort=False):
        texts.setdefault(str(segment), []).append("\n".join(journey["text"]))
    return texts


class _Reader:
    """Turns the events of one snapshot into lines."""

    def __init__(self, snapshots: Snapshots, settings: JourneySettings) -> None:
        self.snapshots, self.settings = snapshots, settings
        journeys = snapshots.journeys
        self.touchpoints = _common(journeys.categories["touchpoint"], journeys.offsets, settings.fewest_customers)
        channel = journeys.categories.get("channel")
        self.channels = None if channel is None else _common(channel, journeys.offsets, settings.fewest_customers)
        values = journeys.numbers.get("value")
        spent = np.zeros(0) if values is None else _day_sums(journeys, values)
        self.values = values if len(spent) else None
        self.highest = (
            first_digit(float(np.quantile(spent, settings.highest_share, method="lower"))) if len(spent) else np.inf
        )

    def lines(self, row: int) -> list[dict[str, object]]:
        """One line for each run of a touchpoint in a channel on a day; the middle of many lines is one line."""
        first = int(self.snapshots.start[row])
        day = self.snapshots.journeys.t[first : self.snapshots.stop[row]] // DAY_US
        runs = self._runs(slice(first, int(self.snapshots.stop[row])), day)
        visible, hidden = _visible_lines(len(runs), self.settings.most_lines)
        lines: list[dict[str, object]] = []
        before = int(day[0])
        for place in visible:
            if place in hidden:
                events = int(runs[hidden.stop][0] - runs[hidden.start][0])
                lines.append(_gap(len(lines) + 1, events, int(day[runs[hidden.start][0]] - day[0])))
                before = int(day[runs[hidden.stop - 1][0]])
                continue
            start, stop = runs[place]
            lines.append(self._line(len(lines) + 1, first + start, first + stop, int(day[start] - day[0]), before))
            before = int(day[start])
        return lines

    def _runs(self, events: slice, day: Ints) -> list[tuple[int, int]]:
        """Starts and stops within the journey."""
        changes = (np.diff(day) != 0) | (np.diff(self.touchpoints.codes[events]) != 0)
        if self.channels is not None:
            changes |= np.diff(self.channels.codes[events]) != 0
        starts = [0, *(np.flatnonzero(changes) + 1).tolist()]
        return list(zip(starts, [*starts[1:], len(day)], strict=True))

    def _line(self, line: int, start: int, stop: int, since_start: int, before: int) -> dict[str, object]:
        """Events `start:stop` of the log as one line; `before` is the day (since 1970) of the line above."""
        day = int(self.snapshots.journeys.t[start] // DAY_US)
        touchpoint = self.touchpoints.names[self.touchpoints.codes[start]]
        channel = -1 if self.channels is None else int(self.channels.codes[start])
        where = "" if self.channels is None or channel < 0 else self.channels.names[channel]
        spent = 0.0 if self.values is None else float(np.nan_to_num(self.values[start:stop]).sum())
        times = about(stop - start)
        when = "start" if line == 1 else later_words(day - before)
        often = "" if times == 1 else f" × {times}"
        text = f"{when}: {touchpoint}{f' ({where})' if where else ''}{often}{self._money(spent)}"
        return _as_line(line, since_start, touchpoint, where, times, text)

    def _money(self, spent: float) -> str:
        if spent == 0:
            return ""
        coarse = first_digit(abs(spent))
        amount = min(coarse, self.highest)
        words = f"{'over' if coarse > amount else 'about'} {f'{amount:,.0f}' if amount >= 1 else f'{amount:g}'}"
        return f", {words} returned" if spent < 0 else f", worth {words}"


def _as_line(line: int, day: int, touchpoint: str, channel: str, times: int, text: str) -> dict[str, object]:
    coarse = day if day < 7 else (day // 7 * 7 if day < 8 * 7 else day // MONTH_DAYS * MONTH_DAYS)
    return {
        **{"line": line, "days_since_start": coarse, "touchpoint": touchpoint, "channel": channel},
        **{"times": times, "text": text},
    }


def _day_sums(journeys: Journeys, values: Floats) -> Floats:
    """Sums of value of a customer's day, those above 0."""
    customer = np.repeat(np.arange(journeys.n_customers), np.diff(journeys.offsets))
    day = journeys.t // DAY_US
    new = np.flatnonzero(np.concatenate(([True], (np.diff(customer) != 0) | (np.diff(day) != 0)))[: len(day)])
    sums = np.add.reduceat(np.nan_to_num(values), new) if len(new) else np.zeros(0)
    return np.asarray(sums[sums > 0])


def _gap(line: int, events: int, day: int) -> dict[str, object]:
    return _as_line(line, day, "", "", about(events), f"… about {about(events):,} more events …")


def _visible_lines(n: int, most: int) -> tuple[list[int], range]:
    """Which lines are shown, and which become one line; the first of these stands for them among the shown."""
    if n <= most:
        return list(range(n)), range(0)
    head = (most - 1) // 3
    tail = n - (most - 1 - head)
    return [*range(head + 1), *range(tail, n)], range(head, tail)


def _common(category: Category, offsets: Ints, fewest: int) -> Category:
    """The category with rare values pooled to "other"; missing stays missing."""
    customer = np.repeat(np.arange(len(offsets) - 1), np.diff(offsets))
    present = category.codes >= 0
    width = max(1, len(category.names))
    pairs = np.unique(customer[present] * width + category.codes[present])
    having = np.bincount(pairs % width, minlength=width)[: len(category.names)]
    names = (*category.names, "other")
    new = np.where(having >= fewest, np.arange(len(category.names)), len(category.names))
    codes = np.full(len(category.codes), -1, np.int32)
    codes[present] = new[category.codes[present]]
    return Category(codes, names)


def later_words(days: int) -> str:
    """Days between two lines, coarser for longer times.

    >>> [later_words(d) for d in (0, 1, 5, 12, 70, 800)]
    ['same day', '1 day later', '5 days later', 'about 2 weeks later', 'about 2 months later', 'about 2 years later']
    """
    if days == 0:
        return "same day"
    if days < 7:
        return f"{days} day{'s' * (days > 1)} later"
    for unit, size, until in (("week", 7, 45), ("month", MONTH_DAYS, 540), ("year", 365, np.inf)):
        if days < until:
            number = max(1, int(days / size + 0.5))
            return f"about {number} {unit}{'s' * (number > 1)} later"
    raise AssertionError("the last unit has no end")


def about(count: int) -> int:
    """A count for reading: exact up to 9, to one digit beyond.

    >>> about(7), about(23), about(187)
    (7, 20, 200)
    """
    return count if count < 10 else int(first_digit(count))


def first_digit(value: float) -> float:
    """Rounded to its first digit.

    >>> first_digit(347.2), first_digit(0.52)
    (300.0, 0.5)
    """
    return float(f"{value:.0e}")

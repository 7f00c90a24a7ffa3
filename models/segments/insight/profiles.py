"""The profile of each segment: size, growth, value, behaviour and rates, with intervals.

profiles = segment_profiles(segmentation.segments, snapshots, place, {"churn": y})
profiles.table        # one row for each segment
profiles.notes        # what is missing, and why
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from features.journeys.journeys import UNKNOWN_CUSTOMER, Snapshots
from models.segments.contract import NO_SEGMENT, Segment
from models.segments.insight.intervals import Estimate, mean_over_customers, share_over_customers

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

DAY_US = 86_400_000_000
N_BOOT = 1000


@dataclass(frozen=True)
class SegmentProfiles:
    """Profiles of the segments of a partition.

    Attributes:
        table: a row a segment: id, name, customers, share, customers_before, growth, share_before, growth_words,
            value_mean(+_low, _high), value_median, recency_days_median, events_median, active_days_median,
            satisfaction(+_low, _high), satisfaction_answers, and for each label `<task>_rate` (+_low, _high),
            `<task>_customers`. Shares and rates are 0..1; NaN where unknown.
        notes: sentences on what is missing.
    """

    table: pd.DataFrame
    notes: tuple[str, ...]


@dataclass(frozen=True)
class RowSummary:
    """Figures of each row's events, (n,) each.

    Attributes:
        value: sum of the values within the look-back; NaN where the log has no values.
        score_sum: sum of satisfactions.
        scores: their number.
        recency_days: days since the last event; NaN without events.
        events: their number.
        active_days: calendar days (UTC) with an event.
    """

    value: Floats
    score_sum: Floats
    scores: Floats
    recency_days: Floats
    events: Floats
    active_days: Floats


def segment_profiles(
    segments: Sequence[Segment],
    snapshots: Snapshots,
    place: npt.ArrayLike,
    labels: Mapping[str, npt.ArrayLike] | None = None,
    *,
    now: npt.ArrayLike | None = None,
    earlier: npt.ArrayLike | None = None,
    value_days: float | None = None,
    seed: int = 0,
) -> SegmentProfiles:
    """Describe each segment.

    Sizes, value, satisfaction and medians are of the rows `now`; rates are of all rows with a label, because the
    horizon of the newest cutoff is usually still open.

    Args:
        segments: the partition.
        snapshots: (n,) rows at one or more cutoffs.
        place: (n,) place of each row in `segments`, -1 for none.
        labels: task name -> (n,) 0, 1, or NaN without a label.
        now: mask or indices of the current rows, one for each customer; by default those of the last cutoff, or each
            customer's last row where each customer has a cutoff of their own.
        earlier: earlier rows; by default those of the cutoff before the last.
        value_days: value is summed over so many days before the cutoff; None: over all.
        seed: of the resampling.

    Raises:
        DataError: lengths that do not fit, a place without a segment.
    """
    places = check_places(segments, snapshots, place)
    current = current_rows(snapshots) if now is None else _rows(now, len(snapshots))
    before = earlier_rows(snapshots) if earlier is None else _rows(earlier, len(snapshots))
    figures = summarise_rows(snapshots, value_days)
    sizes = _sizes(segments, snapshots, places, current, before)
    described = [_described(s, snapshots, places, current, figures, seed) for s in range(len(segments))]
    rated = [_rates(s, snapshots, places, labels or {}) for s in range(len(segments))]
    table = pd.concat([sizes, pd.DataFrame(described), pd.DataFrame(rated)], axis=1)
    return SegmentProfiles(table, tuple(_notes(places, current, before, figures, labels or {})))


def check_places(segments: Sequence[Segment], snapshots: Snapshots, place: npt.ArrayLike) -> Ints:
    """(n,) int64 places; DataError where there is not one for each row or a place has no segment."""
    places = np.asarray(place, np.int64).reshape(-1)
    if len(places) != len(snapshots):
        raise DataError(f"{len(snapshots)} snapshots and {len(places)} places: assign the same snapshots")
    if len(places) and not NO_SEGMENT <= places.min() <= places.max() < len(segments):
        raise DataError(
            f"a place is {places.max()}, but there are {len(segments)} segments: assign with this partition"
        )
    return places


def current_rows(snapshots: Snapshots) -> Ints:
    """Rows of the last cutoff; each customer's last row where each customer has a cutoff of their own."""
    if _shared_cutoffs(snapshots):
        return np.flatnonzero(snapshots.cutoff == snapshots.cutoff.max())
    return last_rows(snapshots)


def earlier_rows(snapshots: Snapshots) -> Ints:
    """Rows of the cutoff before the last; empty without one, or where each customer has a cutoff of their own."""
    moments = np.unique(snapshots.cutoff)
    if len(moments) < 2 or not _shared_cutoffs(snapshots):
        return np.zeros(0, np.int64)
    return np.flatnonzero(snapshots.cutoff == moments[-2])


def last_rows(snapshots: Snapshots) -> Ints:
    """The row of each customer's last cutoff, ascending; each row of an unknown customer counts."""
    order = np.lexsort((snapshots.cutoff, snapshots.customer))
    customer = snapshots.customer[order]
    last = np.ones(len(customer), bool)
    last[:-1] = (customer[:-1] != customer[1:]) | (customer[:-1] == UNKNOWN_CUSTOMER)
    return np.sort(order[last])


def summarise_rows(snapshots: Snapshots, value_days: float | None = None) -> RowSummary:
    """Figures of each row's events; values over `value_days` before the cutoff, the rest over all time."""
    journeys, start, stop = snapshots.journeys, snapshots.start, snapshots.stop
    since = start if value_days is None else first_since(snapshots, value_days)
    value, satisfaction = journeys.numbers.get("value"), journeys.numbers.get("satisfaction")
    n = len(snapshots)
    active = stop > start
    day = journeys.t // DAY_US
    new_day = np.concatenate(([0.0], (day[1:] != day[:-1]).astype(np.float64)))[: len(day)]
    days = _between(new_day, np.where(active, start + 1, stop), stop) + active  # the first event always opens a day
    last = journeys.t[np.where(active, stop - 1, 0)] if len(journeys.t) else np.zeros(n, np.int64)
    return RowSummary(
        value=np.full(n, np.nan) if value is None else _between(np.nan_to_num(value), since, stop),
        score_sum=np.zeros(n) if satisfaction is None else _between(np.nan_to_num(satisfaction), start, stop),
        scores=np.zeros(n) if satisfaction is None else _between(np.isfinite(satisfaction), start, stop),
        recency_days=np.where(active, (snapshots.cutoff - last) / DAY_US, np.nan),
        events=(stop - start).astype(np.float64),
        active_days=days,
    )


def first_since(snapshots: Snapshots, days: float) -> Ints:
    """(n,) each row's first event of the last `days` days before its cutoff."""
    return snapshots.journeys.at(snapshots.cutoff - round(days * DAY_US), snapshots.customer).stop


def _between(values: npt.ArrayLike, start: Ints, stop: Ints) -> Floats:
    """(n,) sums of `values` (n_events,) over start:stop."""
    total = np.concatenate(([0.0], np.cumsum(np.asarray(values, np.float64))))
    return total[stop] - total[start]


def _shared_cutoffs(snapshots: Snapshots) -> bool:
    n_moments = len(np.unique(snapshots.cutoff))
    return n_moments == 1 or 2 * n_moments <= len(snapshots)


def _rows(rows: npt.ArrayLike, n: int) -> Ints:
    chosen = np.asarray(rows)
    if chosen.dtype == bool:
        return np.flatnonzero(chosen)
    return np.unique(np.arange(n)[chosen.astype(np.int64).reshape(-1)])


def _sizes(
    segments: Sequence[Segment], snapshots: Snapshots, places: Ints, current: Ints, before: Ints
) -> pd.DataFrame:
    """Customers of each segment now and before, and a sentence on it."""
    counts = np.bincount(places[current] + 1, minlength=len(segments) + 1)[1:]
    table = pd.DataFrame({"id": [s.id for s in segments], "name": [s.name for s in segments], "customers": counts})
    table["share"] = counts / max(len(current), 1)
    has_earlier = len(before) > 0
    earlier = np.bincount(places[before] + 1, minlength=len(segments) + 1)[1:].astype(np.float64)
    table["customers_before"] = earlier if has_earlier else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):
        table["growth"] = np.where(earlier > 0, counts / earlier - 1, np.nan) if has_earlier else np.nan
    table["share_before"] = earlier / max(len(before), 1) if has_earlier else np.nan
    days = (snapshots.cutoff[current].max() - snapshots.cutoff[before].max()) / DAY_US if has_earlier else np.nan
    befores = earlier.tolist() if has_earlier else [np.nan] * len(segments)
    table["growth_words"] = [
        growth_words(int(n), before, float(days)) for n, before in zip(counts, befores, strict=True)
    ]
    return table


def growth_words(customers: int, before: float, days: float) -> str:
    """A sentence on how a segment grew.

    >>> growth_words(412, 374.0, 14.0)
    'grew from 374 to 412 customers in 14 days (+10.2 %)'
    """
    if np.isnan(before):
        return f"{customers:,} customers; an earlier count is unknown"
    if before == 0:
        return (
            f"new: {customers:,} customers, none {days:.0f} days before" if customers else "no customers, before or now"
        )
    if customers == before:
        return f"unchanged at {customers:,} customers in {days:.0f} days"
    change = f"{customers / before - 1:+.1%}".replace("%", " %").replace("-", "−")
    return (
        f"{'grew' if customers > before else 'shrank'} from {before:,.0f} to {customers:,} customers "
        f"in {days:.0f} days ({change})"
    )


def _described(
    segment: int, snapshots: Snapshots, places: Ints, current: Ints, figures: RowSummary, seed: int
) -> dict[str, float]:
    """Value, rhythm and satisfaction of a segment now."""
    rows = current[places[current] == segment]
    value = mean_over_customers(figures.value[rows], snapshots.customer[rows], n_boot=N_BOOT, seed=seed)
    answered = rows[figures.scores[rows] > 0]
    each = (
        figures.score_sum[answered] / figures.scores[answered]
    )  # each customer counts once, whatever the number of answers
    satisfaction = mean_over_customers(each, snapshots.customer[answered], n_boot=N_BOOT, seed=seed)
    return {
        **_columns("value_mean", value, "value"),
        "value_median": median(figures.value[rows]),
        "recency_days_median": median(figures.recency_days[rows]),
        "events_median": median(figures.events[rows]),
        "active_days_median": median(figures.active_days[rows]),
        **_columns("satisfaction", satisfaction, "satisfaction"),
        "satisfaction_answers": float(figures.scores[rows].sum()),
    }


def _rates(segment: int, snapshots: Snapshots, places: Ints, labels: Mapping[str, npt.ArrayLike]) -> dict[str, float]:
    """The share of ones of each label, over all rows that have it."""
    rows = np.flatnonzero(places == segment)
    rates: dict[str, float] = {}
    for task, label in labels.items():
        y = np.asarray(label, np.float64).reshape(-1)
        if len(y) != len(places) or not np.isin(y[np.isfinite(y)], (0.0, 1.0)).all():
            raise DataError(f"labels '{task}' must be 0, 1 or NaN, one for each of the {len(places)} snapshots")
        rate = share_over_customers(y[rows], snapshots.customer[rows])
        rates |= {**_columns(f"{task}_rate", rate, f"{task}_rate"), f"{task}_customers": rate.customers}
    return rates


def _columns(name: str, figure: Estimate, stem: str) -> dict[str, float]:
    return {name: figure.value, f"{stem}_low": figure.low, f"{stem}_high": figure.high}


def median(values: Floats) -> float:
    """The median of the finite values, NaN where there are none."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if len(finite) else float("nan")


def _notes(
    places: Ints, current: Ints, before: Ints, figures: RowSummary, labels: Mapping[str, npt.ArrayLike]
) -> list[str]:
    """Sentences on what is missing."""
    notes = []
    if none := int((places[current] == NO_SEGMENT).sum()):
        notes.append(f"{none:,} of {len(current):,} customers ({none / len(current):.1%}) are in no segment.")
    if not len(before):
        notes.append("There are no rows of an earlier cutoff: growth is unknown.")
    if np.isnan(figures.value).all():
        notes.append("The log has no values: the value of customers is unknown.")
    if not figures.scores.any():
        notes.append("The log has no satisfaction scores.")
    if not labels:
        notes.append("There are no labels: churn and conversion rates are unknown.")
    return notes

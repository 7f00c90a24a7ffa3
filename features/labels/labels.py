"""Labels: what happened in `[cutoff, cutoff + horizon)` to those who were candidates at the cutoff.

Three ways to a label table, all pure functions of packed journeys:

* `churn_labels`: active before the cutoff, no activity in the horizon;
* `conversion_labels`: the goal is reached within the horizon, by those who had neither reached it nor ended before;
* a table that the user brings, `customer_id, cutoff, label`: see `features.labels.label_table`.

A window that the log does not cover to its end is never a label: the log ends with its last event, unless
`observed_until` says that it was watched longer.
"""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import ConfigError, DataError
from features.events.stages import fits
from features.journeys.journeys import Journeys, Snapshots
from features.labels.kernels import seen_after, seen_before
from features.timestamps import microseconds

DAY_US = 86_400_000_000
Flags = npt.NDArray[np.bool_]
Int64s = npt.NDArray[np.int64]


def churn_labels(
    journeys: Journeys,
    cutoffs: Any,
    *,
    activity: Sequence[str],
    active_days: float,
    horizon_days: float,
    observed_until: Any = None,
) -> pd.DataFrame:
    """Churn by inactivity: 1 where a customer active before the cutoff shows no activity in the horizon.

    Args:
        journeys: the packed log.
        cutoffs: moments, one label table for each; duplicates count once.
        activity: the touchpoints that count as being active (`"*"` and other wildcards are allowed).
        active_days: candidates have activity in `[cutoff - active_days, cutoff)`.
        horizon_days: the label looks at `[cutoff, cutoff + horizon_days)`.
        observed_until: until when the log was watched; its last event by default.

    Returns:
        `customer_id, cutoff, label` (text, UTC naive µs, int8), by cutoff, then customer as text.

    Raises:
        DataError: a cutoff lies before the first event, or its window is not fully observed.
        ConfigError: a touchpoint that the log does not have.
    """
    when = np.unique(microseconds(cutoffs))
    if journeys.n_customers:
        require_observed(journeys.start_us, log_end_us(journeys, observed_until), when, horizon_days)
    return churn_rows(journeys, when, activity=activity, active_days=active_days, horizon_days=horizon_days).table()


@dataclass(frozen=True)
class Labelled:
    """Candidates and what became of them; those of disjoint customers make up those of all.

    Attributes:
        rows: (n,) snapshots.
        positive: (n,) their labels.
        age_days: (n,) the ages that made the cutoffs; None where moments did.
    """

    rows: Snapshots
    positive: Flags
    age_days: npt.NDArray[Any] | None = None

    def table(self) -> pd.DataFrame:
        """`customer_id, cutoff, label` and, for ages, `age_days`."""
        ids = self.rows.journeys.customer_ids.take(pa.array(self.rows.customer)).to_pandas().astype("str")
        cutoff, label = self.rows.cutoff.view("datetime64[us]"), self.positive.astype(np.int8)
        table = pd.DataFrame({"customer_id": ids, "cutoff": cutoff, "label": label})
        return table if self.age_days is None else table.assign(age_days=self.age_days)


def churn_rows(
    journeys: Journeys, cutoffs: Int64s, *, activity: Sequence[str], active_days: float, horizon_days: float
) -> Labelled:
    """`churn_labels` of a log, or of a part of one, whose windows are known to be observed."""
    snapshots = _everyone_at(journeys, cutoffs)
    rows = snapshots.take(active(snapshots, activity, active_days))
    return Labelled(rows, ~reached(rows, activity, horizon_days))


def conversion_rows(
    journeys: Journeys,
    end_us: int,
    *,
    goal: Sequence[str],
    horizon_days: float,
    ended: Sequence[str] = (),
    cutoffs: Int64s | None = None,
    ages_days: Sequence[float] | None = None,
    active_days: float | None = None,
) -> Labelled:
    """`conversion_labels` of a log, or of a part of one, that is observed until `end_us`."""
    if ages_days is None:
        snapshots, age = _everyone_at(journeys, np.zeros(0, np.int64) if cutoffs is None else cutoffs), None
    else:
        snapshots, age = _everyone_aged(journeys, ages_days)
    candidates = (snapshots.stop > snapshots.start) & ~reached_before(snapshots, [*goal, *ended])
    if active_days is not None:
        candidates &= active(snapshots, ["*"], active_days)
    candidates &= snapshots.cutoff + _us(horizon_days) <= end_us
    rows = snapshots.take(candidates)
    return Labelled(rows, reached(rows, goal, horizon_days), None if age is None else age[candidates])


def conversion_labels(
    journeys: Journeys,
    *,
    goal: Sequence[str],
    horizon_days: float,
    ended: Sequence[str] = (),
    cutoffs: Any = None,
    ages_days: Sequence[float] | None = None,
    active_days: float | None = None,
    observed_until: Any = None,
) -> pd.DataFrame:
    """Conversion: 1 where the goal is reached in the horizon, among those who neither reached it nor ended before.

    Args:
        journeys: the packed log.
        goal: the touchpoints that are the goal.
        horizon_days: the label looks at `[cutoff, cutoff + horizon_days)`.
        ended: touchpoints after which a journey is no candidate any more (declined, cancelled).
        cutoffs: moments, the same for every customer; or
        ages_days: days since each customer's first event. Rows whose window is not closed are left out.
        active_days: candidates have some event in the days before the cutoff; by default ever before.
        observed_until: until when the log was watched; its last event by default.

    Returns:
        `customer_id, cutoff, label` and, for ages, `age_days`; by cutoff (or age), then customer as text.

    Raises:
        DataError: a given cutoff lies before the first event, or its window is not fully observed.
        ConfigError: neither or both of `cutoffs` and `ages_days`; a touchpoint that the log does not have.
    """
    if (cutoffs is None) == (ages_days is None):
        raise ConfigError("Give either cutoffs (moments) or ages_days (days since each customer's first event).")
    end, when = log_end_us(journeys, observed_until), None
    if ages_days is None:
        when = np.unique(microseconds(cutoffs))
        require_observed(journeys.start_us, end, when, horizon_days)
    return conversion_rows(
        journeys, end, goal=goal, horizon_days=horizon_days, ended=ended, cutoffs=when, ages_days=ages_days,
        active_days=active_days,
    ).table()  # fmt: skip


def active(snapshots: Snapshots, touchpoints: Sequence[str], days: float) -> Flags:
    """(n,) bool: one of the touchpoints in `[cutoff - days, cutoff)`."""
    return _before(snapshots, touchpoints, snapshots.cutoff - _us(days))


def reached_before(snapshots: Snapshots, touchpoints: Sequence[str]) -> Flags:
    """(n,) bool: one of the touchpoints at any time before the cutoff."""
    return _before(snapshots, touchpoints, np.full(len(snapshots), np.iinfo(np.int64).min))


def reached(snapshots: Snapshots, touchpoints: Sequence[str], horizon_days: float) -> Flags:
    """(n,) bool: one of the touchpoints in `[cutoff, cutoff + horizon)`."""
    log = snapshots.journeys
    end = np.where(snapshots.customer >= 0, log.offsets[snapshots.customer + 1], snapshots.stop)
    codes, wanted = log.categories["touchpoint"].codes, _wanted(log, touchpoints)
    return np.asarray(seen_after(log.t, codes, wanted, snapshots.stop, end, snapshots.cutoff + _us(horizon_days)))


def log_end_us(journeys: Journeys, observed_until: Any = None) -> int:
    """Until when windows are observed, µs since 1970 UTC: the last event, or later if the user says so."""
    return journeys.end_us if observed_until is None else int(microseconds(observed_until).reshape(-1)[0])


def as_text(moment_us: int) -> str:
    """A moment for a message, with the time of day where there is one.

    >>> as_text(0), as_text(1_500_000)
    ('1970-01-01', '1970-01-01 00:00:01.500000')
    """
    text = str(np.datetime64(int(moment_us), "us")).removesuffix(".000000").removesuffix("T00:00:00")
    return text.replace("T", " ")


def by_name(journeys: Journeys) -> Int64s:
    """(n_customers,) customer indices in the order of their identifiers as text."""
    return np.asarray(pc.sort_indices(journeys.customer_ids)).astype(np.int64)


def _us(days: float) -> int:
    return round(days * DAY_US)


def _everyone_at(journeys: Journeys, cutoffs: Int64s) -> Snapshots:
    """Every customer at every cutoff: by cutoff, then by name."""
    who = by_name(journeys)
    return journeys.at(np.repeat(cutoffs, len(who)), np.tile(who, len(cutoffs)))


def _everyone_aged(journeys: Journeys, ages_days: Sequence[float]) -> tuple[Snapshots, npt.NDArray[Any]]:
    """Every customer at every age since the first event, and the ages (n,): by age, then by name."""
    ages, who = np.unique(np.asarray(ages_days)), by_name(journeys)
    first = journeys.t[journeys.offsets[:-1]][who]
    cutoffs = np.concatenate([first + _us(float(age)) for age in ages])
    return journeys.at(cutoffs, np.tile(who, len(ages))), np.repeat(ages, len(who))


def _before(snapshots: Snapshots, touchpoints: Sequence[str], since: Int64s) -> Flags:
    log = snapshots.journeys
    codes, wanted = log.categories["touchpoint"].codes, _wanted(log, touchpoints)
    return np.asarray(seen_before(log.t, codes, wanted, snapshots.start, snapshots.stop, since))


def _wanted(journeys: Journeys, touchpoints: Sequence[str]) -> Flags:
    """(n_names + 1,) bool by touchpoint code; the last entry answers for a missing one."""
    names = journeys.categories["touchpoint"].names
    wanted = np.zeros(len(names) + 1, np.bool_)
    for pattern in touchpoints:
        hits = [i for i, name in enumerate(names) if fits(name, pattern)]
        if not hits:
            raise ConfigError(_unknown_touchpoint(pattern, names))
        wanted[hits] = True
    return wanted


def _unknown_touchpoint(pattern: str, names: Sequence[str]) -> str:
    close = difflib.get_close_matches(pattern, names, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    shown = ", ".join(sorted(names)[:20]) + (", …" if len(names) > 20 else "")
    return f"The task names the touchpoint '{pattern}', which the log does not have.{hint} It has: {shown}."


def require_observed(start: int, end: int, cutoffs: Int64s, horizon_days: float) -> None:
    """Raise a `DataError` unless the log begins before every cutoff and its windows are closed; all in µs."""
    early = [as_text(cutoff) for cutoff in cutoffs if cutoff <= start]
    if early:
        raise DataError(
            f"Cutoff {', '.join(early)}: nothing is known before it, the log starts at {as_text(start)}. "
            "Choose later cutoffs."
        )
    open_ = [as_text(cutoff) for cutoff in cutoffs if cutoff + _us(horizon_days) > end]
    if open_:
        raise DataError(
            f"Cutoff {', '.join(open_)}: its window of {horizon_days:g} days is not fully observed, the log ends at "
            f"{as_text(end)}. The last possible cutoff is {as_text(end - _us(horizon_days))}; "
            "if the log was watched longer than its last event, say so with observed_until."
        )

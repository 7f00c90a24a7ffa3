"""The touchpoint table of a journey map: customers, visits, dwell time, bounces, clicks, conversion after, scores."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journey_map import touchpoint_kernels as kernels
from features.journey_map.kernels import count_crossed
from features.journey_map.selection import Int64s, MapSelection, MapSource, matching, unmatched
from features.journey_map.settings import MapSettings
from features.statistics import net_promoter, ratio, wilson

COLUMNS = (
    "touchpoint", "channel", "stage", "customers", "customer_share", "visits", "visits_per_customer", "dwell_s_median",
    "bounce_share", "bounce_low", "bounce_high", "impressions", "clicks", "click_through", "click_through_low",
    "click_through_high", "converted_after", "converted_after_low", "converted_after_high", "csat", "csat_low",
    "csat_high", "nps", "nps_low", "nps_high", "n_scores",
)  # fmt: skip
SCALES = ((1.0, 5.0), (1.0, 7.0), (0.0, 10.0))
NPS_SCALE = (0.0, 10.0)
MOST_CELLS = 1 << 24
NEVER = float("inf")


def scale_of(selection: MapSource, settings: MapSettings) -> tuple[float, float] | None:
    """The lowest and highest score there can be: the stated one, else the smallest usual scale that holds the scores.

    Scores from 1 to 5, 1 to 7 or 0 to 10 are taken for such; others for a scale from their lowest to their highest.
    """
    if selection.scores is None:
        return None
    low, high = selection.scores
    if settings.satisfaction_scale:
        return settings.satisfaction_scale
    usual = next(((a, b) for a, b in SCALES if a <= low and high <= b), None)
    return usual or (low, high)


def _marks(scale: tuple[float, float] | None) -> npt.NDArray[np.float64]:
    """The lowest score of the top two, of promoters, and the highest of detractors."""
    if scale is None:
        return np.array([NEVER, NEVER, -NEVER])
    top = scale[1] - (1.0 if scale[1] - scale[0] >= 2 else 0.0)
    return np.array([top, *((9.0, 6.0) if scale == NPS_SCALE else (NEVER, -NEVER))])


def click_pairs(names: tuple[str, ...], clicks: Mapping[str, str]) -> tuple[Int64s, Int64s]:
    """(n_names + 1,) each: the pair whose impression, and whose click, a touchpoint is; -1 for none."""
    shows, clicked = np.full(len(names) + 1, -1), np.full(len(names) + 1, -1)
    for pair, (impression, click) in enumerate(clicks.items()):
        shows[matching(names, [impression]) & (shows < 0)] = pair
        clicked[matching(names, [click]) & (clicked < 0)] = pair
    return shows, clicked


def touchpoint_counts(part: MapSelection, settings: MapSettings, marks: npt.NDArray[np.float64]) -> Int64s:
    """(n_names + 1, N_COUNTS) counts; those of disjoint sets of customers add up."""
    names = part.touchpoint.names
    shows, clicked = click_pairs(names, settings.clicks)
    last_goal = part.goals(matching(names, settings.goals))[1]
    return np.asarray(
        kernels.touch_counts(
            part.touchpoint.codes, part.journeys.t, part.start, part.stop, last_goal, len(names),
            int(settings.session_gap_minutes * 60e6), part.number("duration_s"), part.number("satisfaction"),
            marks, shows, clicked, len(settings.clicks),
        )
    )  # fmt: skip


def _stays(
    part: MapSelection, settings: MapSettings, marks: npt.NDArray[np.float64], measured: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.float64], Int64s]:
    """Seconds at each touchpoint: its durations where it is `measured`, else until the session's next event."""
    counts = _counted(part, settings, marks)
    sizes = np.where(measured, counts[:, kernels.DURATIONS], counts[:, kernels.STAYS])
    borders = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    seconds = np.empty(int(borders[-1]))
    kernels.dwell_times(
        part.touchpoint.codes, part.journeys.t, part.start, part.stop, len(part.touchpoint.names),
        int(settings.session_gap_minutes * 60e6), part.number("duration_s"), measured, borders[:-1].copy(), seconds,
    )  # fmt: skip
    return seconds, borders


def _counted(part: MapSelection, settings: MapSettings, marks: npt.NDArray[np.float64]) -> Int64s:
    return part.cached("touchpoints", lambda: touchpoint_counts(part, settings, marks))


def dwell_medians(selection: MapSource, settings: MapSettings, counts: Int64s) -> npt.NDArray[np.float64]:
    """(n_names + 1,) median seconds: the durations where a touchpoint has any, else until the session's next event."""
    measured = counts[:, kernels.DURATIONS] > 0
    stays = partial(_stays, settings=settings, marks=_marks(scale_of(selection, settings)), measured=measured)
    (medians,) = selection.ranks(stays).medians([np.arange(len(counts) + 1)])
    return medians


def touchpoints(selection: MapSource, settings: MapSettings, has_goals: bool) -> pd.DataFrame:
    """Tabulate the touchpoints that occur, those that most customers meet first.

    Args:
        selection: what the map is drawn from.
        settings: of the map.
        has_goals: whether a goal is known at all.

    Returns:
        channel, stage (the most common of its events), customers, customer_share, visits (events),
        visits_per_customer, dwell_s_median (see `dwell_medians`), bounce_share (of the sessions that begin with it,
        those that have no further event), impressions, clicks and click_through (impressions followed by their click
        before the next impression), converted_after (share of its customers who reach a goal later than their first
        visit), csat (share of scores at the top two of the scale), nps (−100 to 100, scores 0 to 10 only), n_scores.
        Intervals are 95 %: Wilson's for shares, for nps see `net_promoter`; they take sessions, impressions and scores
        as independent. NaN where there is nothing to say.
    """
    counts = selection.total(partial(_counted, settings=settings, marks=_marks(scale_of(selection, settings))))
    used = np.flatnonzero(selection.visits)
    used = used[np.lexsort((-selection.visits[used], -counts[used, kernels.CUSTOMERS]))]
    dwell = dwell_medians(selection, settings, counts)
    c = counts[used].T
    customers, visits, impressions = c[kernels.CUSTOMERS], selection.visits[used], c[kernels.IMPRESSIONS]
    is_nps = scale_of(selection, settings) == NPS_SCALE
    after = customers if has_goals else np.zeros_like(customers)
    nps = net_promoter(c[kernels.PROMOTERS], c[kernels.DETRACTORS], c[kernels.SCORES] if is_nps else 0 * customers)
    values = (
        pd.Series([selection.names[code] for code in used], dtype="str"),
        _most_common(selection, "channel", used),
        _most_common(selection, "stage", used),
        customers,
        customers / selection.n_customers,
        visits,
        visits / customers,
        dwell[used],
        *_share(c[kernels.BOUNCES], c[kernels.ENTRIES]),
        np.where(impressions > 0, impressions, np.nan),
        np.where(impressions > 0, c[kernels.CLICKS], np.nan),
        *_share(c[kernels.CLICKS], impressions),
        *_share(c[kernels.CONVERTED], after),
        *_share(c[kernels.TOP], c[kernels.SCORES]),
        *nps,
        c[kernels.SCORES],
    )
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def _share(part: Int64s, whole: Int64s) -> tuple[npt.NDArray[np.float64], ...]:
    return (ratio(part, whole), *wilson(part, whole))


def _most_common(selection: MapSource, name: str, used: Int64s) -> pd.Series:
    """(k,) the most common channel or stage of each touchpoint; missing where it has none."""
    column = selection.category(name)
    blank = pd.Series([None] * len(used), dtype="str")
    if not column.names or len(selection.touchpoint.names) * len(column.names) > MOST_CELLS:
        return blank
    crossed = selection.total(partial(_crossed, name=name))[used]
    common = np.array(column.names, dtype=object)[crossed.argmax(1)]
    return pd.Series(np.where(crossed.any(1), common, None), dtype="str")


def _crossed(part: MapSelection, name: str) -> Int64s:
    """(n_names + 1, others) events of each touchpoint with each channel or stage."""
    column, touchpoint = part.category(name), part.touchpoint
    return np.asarray(
        count_crossed(touchpoint.codes, column.codes, part.start, part.stop, len(touchpoint.names), len(column.names))
    )


def remarks(selection: MapSource, settings: MapSettings) -> list[str]:
    """What to say about scores, clicks and channels."""
    notes = [
        *unmatched(selection.touchpoint.names, settings.clicks, "an impression"),
        *unmatched(selection.touchpoint.names, settings.clicks.values(), "a click"),
    ]
    scale = scale_of(selection, settings)
    if scale is None:
        notes.append("The log has no satisfaction scores: nothing is said about CSAT and NPS.")
    else:
        nps = "" if scale == NPS_SCALE else " NPS needs scores from 0 to 10."
        notes.append(
            f"Satisfaction is read on a scale from {scale[0]:g} to {scale[1]:g}: CSAT counts the top two.{nps}"
        )
    if not selection.category("channel").names:
        notes.append("The log has no channels: influence is given for touchpoints only.")
    if len(selection.category("channel").names) * len(selection.touchpoint.names) > MOST_CELLS:
        notes.append("There are too many channels and touchpoints to say which is most common at which.")
    return notes

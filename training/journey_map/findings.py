"""The journey map's main findings in words: each sentence is made from the tables, with its figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pandas as pd

from features.journey_map.tables import JourneyMap
from training.reports.numbers import clean, count, days, number, share, span

MOST_PAINS = 3
EVERYBODY = 0.999  # a removal effect that says no more than that everybody passes there


def findings(drawn: JourneyMap, goals: Sequence[str] = (), period: str = "month") -> list[str]:
    """A handful of sentences, the widest first.

    Args:
        drawn: the map.
        goals: what counts as a conversion, for the words.
        period: of the cohorts.
    """
    sentences = [
        _size(drawn.summary),
        _converted(drawn.summary, goals),
        _funnel(drawn.funnel),
        _path(drawn.paths),
        *_pains(drawn.pain_points),
        _influence(drawn.influence),
        _retention(drawn.cohorts, period),
        _satisfaction(drawn.touchpoints),
    ]
    return [sentence for sentence in sentences if sentence]


def dates(summary: dict[str, Any]) -> str:
    """From which day to which.

    >>> dates({"first": "2011-10-01 00:38", "last": "2012-03-14 16:04"})
    '1 October 2011 to 14 March 2012'
    """
    first, last = pd.Timestamp(summary["first"]), pd.Timestamp(summary["last"])
    return day(first) if first.date() == last.date() else f"{day(first)} to {day(last)}"


def day(moment: Any) -> str:
    """A day as people write it."""
    when = pd.Timestamp(moment)
    return f"{when.day} {when:%B %Y}"


def _size(summary: dict[str, Any]) -> str:
    events, customers = int(summary["events"]), int(summary["customers"])
    half = float(summary.get("median_events", math.nan))
    lasting = float(summary.get("median_span_days", math.nan))
    touchpoints = _plural(summary["touchpoints"], "touchpoint")
    sentence = f"{_plural(customers, 'customer')} left {_plural(events, 'event')} at {touchpoints}"
    if customers > 1 and math.isfinite(half):
        long = f" over {days(lasting)}" if math.isfinite(lasting) and lasting > 0 else ""
        sentence += f"; a journey in the middle has {_plural(half, 'event')}{long}"
    return sentence + "."


def _plural(n: float, noun: str) -> str:
    whole = count(n) if float(n).is_integer() else number(n)
    return f"{whole} {noun}{'' if n == 1 else 's'}"


def _converted(summary: dict[str, Any], goals: Sequence[str]) -> str:
    rate = float(summary.get("converted_share", math.nan) or math.nan)
    if not goals or not math.isfinite(float(summary.get("converted_share", math.nan))):
        return ""
    rate = float(summary["converted_share"])
    named = " or ".join(clean(goal) for goal in goals[:3]) + (" or another goal" if len(goals) > 3 else "")
    return f"{_plural(summary['converted'], 'customer')} ({share(rate)}) reached the goal, which is {named}."


def _funnel(funnel: pd.DataFrame) -> str:
    """Between which stages most customers are lost."""
    if len(funnel) < 2:
        return ""
    rows = funnel.to_dict("records")
    first, last = rows[0], rows[-1]
    steps = [(a, b) for a, b in pairwise(rows) if a["customers"] > 0]
    if not steps:
        return ""
    before, after = max(steps, key=lambda pair: pair[0]["customers"] - pair[1]["customers"])
    lost = int(before["customers"]) - int(after["customers"])
    whole = (
        f"Of {_plural(first['customers'], 'customer')} in the stage {clean(first['stage'])}, "
        f"{count(last['customers'])} "
        f"({share(last['customers'] / max(first['customers'], 1))}) came through to {clean(last['stage'])}"
    )
    if lost == 0 or len(rows) == 2:
        return whole + "."
    return (
        f"{whole}; most are lost between {clean(before['stage'])} and {clean(after['stage'])}: "
        f"{count(lost)} ({share(lost / before['customers'])}) do not go on."
    )


def _path(paths: pd.DataFrame) -> str:
    if paths.empty:
        return ""
    first = paths.iloc[0]
    rate = float(first.get("converted_share", math.nan))
    outcome = f", and {share(rate)} of them reached the goal" if math.isfinite(rate) else ""
    return (
        f"The most common way is {clean(first['text'])}: {_plural(first['customers'], 'customer')} "
        f"({share(float(first['share']))}) took it{outcome}."
    )


def _pains(pain_points: pd.DataFrame) -> list[str]:
    """The first of each kind, as the table words them, so that one kind does not fill the page."""
    if pain_points.empty:
        return []
    sure = pain_points[pain_points["q_value"] < 0.05]
    return [str(sentence) for sentence in sure.groupby("kind", sort=False).head(1)["sentence"].head(MOST_PAINS)]


def _influence(influence: pd.DataFrame) -> str:
    for level in ("channel", "touchpoint"):
        every = influence[influence["level"] == level]
        rows = every[every["removal_effect"] < EVERYBODY]
        if len(every) < 2 or rows.empty:
            continue
        top = rows.sort_values("removal_effect", ascending=False, kind="stable").iloc[0]
        return (
            f"The {level} that matters most by removal effect is {clean(top['name'])}: without it, "
            f"{share(top['removal_effect'])} of the conversions would be lost if nothing took its place. First touch "
            f"gives it {share(top['first_touch'])} of the conversions, last touch {share(top['last_touch'])}."
        )
    return ""


def _retention(cohorts: pd.DataFrame, period: str) -> str:
    """How many of those whose next period was observed came back in it, all cohorts together."""
    after = cohorts[cohorts["period"] == 1]
    size = int(after["size"].sum())
    if size < 2:
        return ""
    active = int(after["active"].sum())
    return (
        f"Of {_plural(size, 'customer')} who could be watched for a {period} after the one they were first seen in, "
        f"{share(active / size)} came back in it."
    )


def _satisfaction(touchpoints: pd.DataFrame) -> str:
    """Where satisfaction is lowest, among touchpoints with enough scores to say so."""
    if "csat" not in touchpoints or "n_scores" not in touchpoints:
        return ""
    scored = touchpoints[touchpoints["csat"].notna() & (touchpoints["n_scores"] >= 30)]
    if len(scored) < 2:
        return ""
    low = scored.sort_values("csat", kind="stable").iloc[0]
    return (
        f"Satisfaction is lowest at {clean(low['touchpoint'])}: {share(low['csat'])} of "
        f"{_plural(low['n_scores'], 'score')} are among the top two ({span(low['csat_low'], low['csat_high'])})."
    )

"""Built-in segments of where customers are in their journey and what is in the way: stage, needs, objections."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.conditions.selections import days_words, either
from features.errors import DataError
from models.segments.rules.rule_segments import Rule
from models.segments.rules.scheme_settings import REASON_COLUMNS, SchemeRules, TrainingView, first_of, named, tidy

FEW_WENT_ON = 10  # fewer tell nothing about how long a stage takes


def stage(training: TrainingView) -> SchemeRules:
    """The furthest or the latest stage."""
    order = stage_order(training, "stage")
    if training.settings.stage_by == "latest":
        rules = tuple(Rule(name=f"In {name}", when={"profile": "stage", "equals": name}) for name in order)
        return SchemeRules(rules, "No stage", "no stage known", disjoint=True)
    rules = tuple(
        Rule(
            name=f"Reached {name}",
            when={"stages": [name]} if k == len(order) - 1 else _reached(name, order[k + 1 :]),
        )
        for k, name in enumerate(order)
    )
    return SchemeRules(rules, "No stage", "no stage known", disjoint=True)


def _reached(name: str, later: list[str]) -> dict[str, Any]:
    return {"all": [{"stages": [name]}, {"stages": later, "exactly": 0}]}


def stage_order(training: TrainingView, scheme: str) -> list[str]:
    """The stages as the settings order them, or by the median place of their first event in journeys.

    Raises:
        DataError: the log has no stages.
    """
    if not training.has("stage"):
        raise DataError(f"{scheme} needs stages: the log has none; map touchpoints to them in [events.stages]")
    if training.settings.stages:
        return list(training.settings.stages)
    category = training.journeys.categories["stage"]
    names = [category.names[code] for code in np.flatnonzero(training.counts("stage"))]
    days = np.column_stack([training.figure(first=["*"], stages=[name]) for name in names])  # (n, stages)
    with_any = ~np.isnan(days).all(axis=1)
    rank = np.where(np.isnan(days), np.nan, (days[:, None, :] > days[:, :, None]).sum(axis=2))[with_any]
    place = [(float(np.nanmedian(column)), float(np.nanmean(column))) for column in rank.T]
    return [names[k] for k in sorted(range(len(names)), key=lambda k: (*place[k], names[k]))]


def needs(training: TrainingView) -> SchemeRules:
    """Complaints, low satisfaction, things sent back, questions, customers stuck in a stage.

    Raises:
        DataError: nothing in the log to go by.
    """
    recent = training.settings.recent_days
    rules: list[Rule] = []
    notes: list[str] = []
    if complaints := training.touchpoints("complaints"):
        rules.append(Rule(name="Complained", when={"events": complaints, "within_days": recent}))
    else:
        notes.append(f"needs say nothing of complaints: no touchpoint looks like one; {named('complaints')}")
    if _scores_differ(training):
        low = _low_satisfaction(training)
        rules.append(Rule(name="Dissatisfied", when={"mean": "satisfaction", "within_days": recent, "at_most": low}))
    else:
        notes.append("needs say nothing of satisfaction: the log has no scores that differ")
    if back := training.touchpoints("returns"):
        rules.append(Rule(name="Sent things back", when={"events": back, "within_days": recent}))
    if asked := training.touchpoints("help"):
        rules.append(Rule(name="Asked for help", when={"events": asked, "within_days": recent}))
    if training.has("stage"):
        rules += _stuck(training, notes)
    else:
        notes.append("needs say nothing of who is stuck: the log has no stages")
    if not rules:
        raise DataError(
            "needs find nothing to go by: no complaint, score, return, call for help or stage in the log; "
            f"{named('complaints')}"
        )
    return SchemeRules(tuple(rules), "No sign of trouble", "nothing of the kind", notes=tuple(notes))


def _scores_differ(training: TrainingView) -> bool:
    if not training.has("satisfaction"):
        return False
    scores = training.journeys.numbers["satisfaction"][training.visible]
    return training.settings.low_satisfaction is not None or bool(np.nanmin(scores) < np.nanmax(scores))


def _low_satisfaction(training: TrainingView) -> float:
    if training.settings.low_satisfaction is not None:
        return training.settings.low_satisfaction
    scores = training.journeys.numbers["satisfaction"][training.visible]
    scores = scores[~np.isnan(scores)]
    return tidy(min(float(np.quantile(scores, 0.25)), float(scores.min() + scores.max()) / 2))


def _stuck(training: TrainingView, notes: list[str]) -> list[Rule]:
    """For each stage but the last: reached longer ago than most needed to go on, and nothing further yet."""
    order, settings, rules = stage_order(training, "needs"), training.settings, []
    for k, name in enumerate(order[:-1]):
        here = training.figure(first=["*"], stages=[name])
        took = here - training.figure(first=["*"], stages=order[k + 1 :])
        took = took[took > 0]
        if len(took) < FEW_WENT_ON:
            notes.append(f"nobody is called stuck in '{name}': only {len(took)} customers went on from there")
            continue
        slow = tidy(float(np.quantile(took, settings.stuck_share)))
        waits = {"first": ["*"], "stages": [name], "more_than_days": slow}
        still = {"last": settings.activity, "at_most_days": settings.recent_days}
        when = {"all": [waits, {"stages": order[k + 1 :], "exactly": 0}, still]}
        rules.append(Rule(name=f"Stuck in {name}", when=when))
    return rules[::-1]


def objections(training: TrainingView) -> SchemeRules:
    """Reasons given, baskets and prices left, competitors looked at.

    Raises:
        DataError: nothing in the log to go by.
    """
    recent = training.settings.recent_days
    rules: list[Rule] = [*_reasons(training)]
    if said := training.touchpoints("reasons"):
        rules.append(Rule(name="Said no", when={"events": said, "within_days": recent}))
    bought = training.touchpoints("purchases")
    for kind, name in (("baskets", "Left the basket"), ("prices", "Left at the price")):
        if seen := training.touchpoints(kind):
            after = {"not_followed_by": bought} if bought else {}
            rules.append(Rule(name=name, when={"last": seen, "at_most_days": recent, **after}))
    if others := training.touchpoints("competitors"):
        rules.append(Rule(name="Looked at competitors", when={"events": others, "within_days": recent}))
    if not rules:
        raise DataError(
            "objections find nothing to go by: no touchpoint looks like a reason, a basket, a price or a competitor; "
            f"{named('reasons')} or {named('prices')}"
        )
    notes = () if bought else ("objections take any look at a price as left: no touchpoint is known as a purchase",)
    return SchemeRules(
        tuple(rules), "No objection seen", f"nothing of the kind in the last {days_words(recent)}", notes=notes
    )


def _reasons(training: TrainingView) -> list[Rule]:
    """A segment for each frequent reason, where a column holds reasons."""
    given = training.settings.reason_column
    column = first_of((given,) if given else REASON_COLUMNS, training)
    if column is None:
        return []
    reasons = training.frequent(column)[: training.settings.most_segments // 2]
    groups = {reason: [reason] for reason in reasons}
    recent = training.settings.recent_days
    return [
        Rule(
            name=f"Reason: {reason}",
            when={"dominant": column, "equals": reason, "groups": groups, "within_days": recent},
            words=f"{column} {either([reason])} is what they said most in the last {days_words(recent)}",
        )
        for reason in reasons
    ]

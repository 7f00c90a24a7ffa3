"""Built-in schemes of the journey: stage reached, needs, objections."""

from __future__ import annotations

from typing import Any

import numpy as np

from features.conditions.selections import days_words, either
from features.errors import DataError
from models.segments.rules.rule_segments import Rule
from models.segments.rules.scheme_settings import REASON_COLUMNS, SchemeRules, TrainingView, first_of, remedy, tidy

FEWEST_WENT_ON = 10  # customers from whom the usual time in a stage is learnt


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
    days = np.column_stack([training.measure(first=["*"], stages=[name]) for name in names])  # (n, stages)
    with_any = ~np.isnan(days).all(axis=1)
    rank = np.where(np.isnan(days), np.nan, (days[:, None, :] > days[:, :, None]).sum(axis=2))[with_any]
    place = [(float(np.nanmedian(column)), float(np.nanmean(column))) for column in rank.T]
    return [names[k] for k in sorted(range(len(names)), key=lambda k: (*place[k], names[k]))]


def needs(training: TrainingView) -> SchemeRules:
    """Complaints, low satisfaction, returns, requests for help, customers stuck in a stage.

    Raises:
        DataError: the log has none of these.
    """
    recent = training.settings.recent_days
    rules: list[Rule] = []
    notes: list[str] = []
    if complaints := training.touchpoints("complaints"):
        rules.append(Rule(name="Complained", when={"events": complaints, "within_days": recent}))
    else:
        notes.append(f"needs leave out complaints: no touchpoint looks like one; {remedy('complaints')}")
    if _scores_differ(training):
        low = _low_satisfaction(training)
        rules.append(Rule(name="Dissatisfied", when={"mean": "satisfaction", "within_days": recent, "at_most": low}))
    else:
        notes.append("needs leave out satisfaction: the log has no scores that differ")
    kinds = {"returns": ("Returned items", "sent-things-back"), "help": ("Asked for help", "asked-for-help")}
    for kind, (name, id) in kinds.items():
        if touchpoints := training.touchpoints(kind):
            rules.append(Rule(name=name, id=id, when={"events": touchpoints, "within_days": recent}))
    if training.has("stage"):
        rules += _stuck(training, notes)
    else:
        notes.append("needs leave out customers who are stuck: the log has no stages")
    if not rules:
        raise DataError(
            "needs cannot be made: the log has no complaint, score, return, request for help or stage; "
            f"{remedy('complaints')}"
        )
    return SchemeRules(tuple(rules), "No sign of trouble", "none of these signs", notes=tuple(notes))


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
    """For each stage but the last: reached longer ago than most customers needed to go on, without a later stage."""
    order, settings, rules = stage_order(training, "needs"), training.settings, []
    for k, name in enumerate(order[:-1]):
        reached = training.measure(first=["*"], stages=[name])
        took = reached - training.measure(first=["*"], stages=order[k + 1 :])
        took = took[took > 0]
        if len(took) < FEWEST_WENT_ON:
            notes.append(f"needs leave out 'Stuck in {name}': only {len(took)} customers went on from there")
            continue
        slow = tidy(float(np.quantile(took, settings.stuck_share)))
        waiting = {"first": ["*"], "stages": [name], "more_than_days": slow}
        still = {"last": settings.activity, "at_most_days": settings.recent_days}
        when = {"all": [waiting, {"stages": order[k + 1 :], "exactly": 0}, still]}
        rules.append(Rule(name=f"Stuck in {name}", when=when))
    return rules[::-1]


def objections(training: TrainingView) -> SchemeRules:
    """Refusals with a reason, abandoned baskets, prices without a purchase, competitors.

    Raises:
        DataError: the log has none of these.
    """
    recent = training.settings.recent_days
    rules: list[Rule] = [*_reasons(training)]
    if refusals := training.touchpoints("reasons"):
        rules.append(Rule(name="Declined", id="said-no", when={"events": refusals, "within_days": recent}))
    bought = training.touchpoints("purchases")
    abandoned = {
        "baskets": ("Abandoned basket", "left-the-basket"),
        "prices": ("Left after a price", "left-at-the-price"),
    }
    for kind, (name, id) in abandoned.items():
        if touchpoints := training.touchpoints(kind):
            after = {"not_followed_by": bought} if bought else {}
            rules.append(Rule(name=name, id=id, when={"last": touchpoints, "at_most_days": recent, **after}))
    if competitors := training.touchpoints("competitors"):
        rules.append(Rule(name="Looked at competitors", when={"events": competitors, "within_days": recent}))
    if not rules:
        raise DataError(
            "objections cannot be made: no touchpoint looks like a reason, a basket, a price or a competitor; "
            f"{remedy('reasons')} or {remedy('prices')}"
        )
    notes = () if bought else ("objections count every view of a price as abandoned: no touchpoint is a purchase",)
    return SchemeRules(tuple(rules), "No objection seen", f"no objection in the last {days_words(recent)}", notes=notes)


def _reasons(training: TrainingView) -> list[Rule]:
    """A segment for each frequent reason, where a column holds reasons."""
    setting = training.settings.reason_column
    column = first_of((setting,) if setting else REASON_COLUMNS, training)
    if column is None:
        return []
    reasons = training.frequent(column)[: training.settings.most_segments // 2]
    groups = {reason: [reason] for reason in reasons}
    recent = training.settings.recent_days
    return [
        Rule(
            name=f"Reason: {reason}",
            when={"dominant": column, "equals": reason, "groups": groups, "within_days": recent},
            words=f"{column} {either([reason])} is their most frequent one in the last {days_words(recent)}",
        )
        for reason in reasons
    ]

"""Built-in schemes of money and rhythm: RFM, value tiers, engagement, purchase habits.

RFM: recency, frequency and money as quantile scores (A. M. Hughes: Strategic Database Marketing, 1994), with the usual
marketing names for the cells of recency × the mean of frequency and money.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from features.conditions.selections import days_words, joined, number, percent
from features.conditions.thresholds import quantile_cuts, top_threshold
from features.errors import DataError
from models.segments.rules.rule_segments import Rule
from models.segments.rules.scheme_settings import Floats, SchemeRules, TrainingView, remedy, tidy

USUAL_DAYS = 30.0  # the usual gap where no customer in training has one
SEASON_DAYS = 300.0  # of history, before a customer can count as seasonal
SEASON_SHARE, SEASON_BUYS = 0.75, 3
QUARTERS = {
    "winter (January to March)": (1, 2, 3),
    "spring (April to June)": (4, 5, 6),
    "summer (July to September)": (7, 8, 9),
    "autumn (October to December)": (10, 11, 12),
}
# name → boxes of scores (recency from, to; frequency and money from, to); they cover every cell of 5 × 5 once
RFM = {
    "Champions": [(5, 5, 4, 5)],
    "Loyal": [(3, 4, 4, 5)],
    "Potential loyalists": [(4, 5, 2, 3)],
    "New": [(5, 5, 1, 1)],
    "Promising": [(4, 4, 1, 1)],
    "Need attention": [(3, 3, 3, 3)],
    "About to sleep": [(3, 3, 1, 2)],
    "At risk": [(1, 2, 3, 4)],
    "Cannot lose them": [(1, 2, 5, 5)],
    "Hibernating": [(2, 2, 1, 2), (1, 1, 2, 2)],
    "Lost": [(1, 1, 1, 1)],
}


def rfm(training: TrainingView) -> SchemeRules:
    """Recency, frequency and money."""
    bought, window = _purchases(training, "rfm"), training.settings.window_days
    recency: dict[str, Any] = {"last": bought}
    often: list[dict[str, Any]] = [{"days_with": bought, "within_days": window}]
    often += [{"sum": "value", "within_days": window}] if training.has("value") else []
    recency_cuts = quantile_cuts(training.measure(**recency), 5)
    cuts = [quantile_cuts(training.measure(**figure), 5) for figure in often]

    def box(r_from: int, r_to: int, f_from: int, f_to: int) -> dict[str, Any]:
        recent = {"score": [recency], "learnt_cuts": [recency_cuts], "at_least": r_from, "at_most": r_to}
        return {"all": [recent, {"score": often, "learnt_cuts": cuts, "at_least": f_from, "at_most": f_to}]}

    rules = tuple(
        Rule(
            name=name,
            when={"any": [box(*bounds) for bounds in boxes]},
            words=" or ".join(_rfm_words(bounds, recency_cuts) for bounds in boxes) + f" ({_scores(cuts, window)})",
        )
        for name, boxes in RFM.items()
    )
    same = [kind for kind, cut in zip(("frequency", "value"), cuts, strict=False) if len(set(cut)) == 1]
    notes = (
        (f"rfm: {joined(same, 'and')} is nearly the same for all customers, so most have a low score",) if same else ()
    )
    return SchemeRules(rules, "No purchase", "never bought", disjoint=True, notes=notes)


def _rfm_words(box: tuple[int, int, int, int], cuts: tuple[float, ...]) -> str:
    """A box in words: recency in days, frequency and money as their score."""
    lowest, highest, f_from, f_to = box
    recency = [] if highest == 5 else [f"more than {days_words(cuts[4 - highest])}"]
    recency += [] if lowest == 1 else [f"at most {days_words(cuts[5 - lowest])}"]
    often = f"{f_from} to {f_to}" if f_from != f_to else f"{f_from}"
    return f"last bought {joined(recency, 'and')} ago, frequency and value score {often} of 5"


def _scores(cuts: list[tuple[float, ...]], window: float) -> str:
    """The thresholds of the score, in words."""
    parts = [f"{joined([number(cut) for cut in cuts[0]], 'and')} days with a purchase"]
    parts += [f"{joined([number(cut) for cut in cuts[1]], 'and')} of value"] if len(cuts) > 1 else []
    mean = "the mean score" if len(cuts) > 1 else "the score"
    return f"{mean} rises above {' and above '.join(parts)} in the last {days_words(window)}"


def value(training: TrainingView) -> SchemeRules:
    """Tiers of value among customers with any.

    Raises:
        DataError: no values, or none above zero.
    """
    if not training.has("value"):
        raise DataError("value tiers need a column 'value': the log has none; map one in [events.columns]")
    window = training.settings.window_days
    worth = training.measure(sum="value", within_days=window)
    worth = worth[worth > 0]
    if len(worth) == 0:
        raise DataError(f"value tiers need value above zero: no customer in training has any in {window:g} days")
    rules, above = [], None
    for share in training.settings.top_shares:
        threshold = top_threshold(worth, share)
        bounds = {"at_least": threshold} | ({} if above is None else {"less_than": above})
        rules.append(Rule(name=f"Top {percent(share)}", when={"sum": "value", "within_days": window, **bounds}))
        above = threshold
    lower = {"sum": "value", "within_days": window, "more_than": 0.0, "less_than": above}
    share = training.settings.top_shares[-1]
    rules.append(Rule(name="Lower half" if share == 0.5 else f"Below the top {percent(share)}", when=lower, id="lower"))
    return SchemeRules(tuple(rules), "No value", f"no value above zero in the last {days_words(window)}", disjoint=True)


def engagement(training: TrainingView) -> SchemeRules:
    """Recency as a multiple of the customer's usual gap."""
    activity = training.touchpoints("activity")
    gaps = training.measure(gap=activity)
    gaps = gaps[~np.isnan(gaps)]
    usual = tidy(float(np.median(gaps))) if len(gaps) else USUAL_DAYS
    notes = (
        ()
        if len(gaps)
        else (f"no customer in training was active on two days: the usual gap is set to {USUAL_DAYS:g} days",)
    )
    late: dict[str, Any] = {"overdue": activity, "usual_days": usual}
    active, warm, cooling = training.settings.gaps
    rules = (
        Rule(name="Active", when={**late, "at_most": active}),
        Rule(name="Warm", when={**late, "more_than": active, "at_most": warm}),
        Rule(name="Cooling", when={**late, "more_than": warm, "at_most": cooling}),
        Rule(name="Dormant", when={**late, "more_than": cooling}),
    )
    return SchemeRules(rules, "Never active", "no activity before the cutoff", disjoint=True, notes=notes)


def habits(training: TrainingView) -> SchemeRules:
    """How customers buy: once, with offers, in a season, frequently or not, in large or small baskets.

    Raises:
        DataError: no purchase in the window.
    """
    bought, window = _purchases(training, "habits"), training.settings.window_days
    days: dict[str, Any] = {"days_with": bought, "within_days": window}
    buys = training.measure(**days)
    if not (buys > 0).any():
        raise DataError(f"habits need purchases: no customer in training bought in the last {window:g} days")
    offers, offer_notes = _by_offers(training, days, buys)
    seasons, season_notes = _by_season(training, bought, days, buys)
    rules = (
        Rule(name="One purchase", when={**days, "exactly": 1}),
        *offers,
        *seasons,
        *_baskets(training, bought, buys),
    )
    return SchemeRules(
        rules, "No purchase", f"no purchase in the last {days_words(window)}", notes=offer_notes + season_notes
    )


def _by_offers(training: TrainingView, days: dict[str, Any], buys: Floats) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    offers = training.touchpoints("offers")
    if not offers:
        return (), (f"habits leave out offers: no touchpoint looks like one; {remedy('offers')}",)
    ratio: list[dict[str, Any]] = [{"events": offers, "within_days": days["within_days"]}, days]
    per_buy = training.measure(ratio=ratio)[buys > 1]
    per_buy = per_buy[per_buy > 0]
    if len(per_buy) == 0:
        return (), ("habits leave out offers: no customer with two purchases used one",)
    return (
        Rule(name="Offer-driven", id="by-offers", when={"ratio": ratio, "at_least": top_threshold(per_buy, 0.25)}),
    ), ()


def _by_season(
    training: TrainingView, bought: tuple[str, ...], days: dict[str, Any], buys: Floats
) -> tuple[tuple[Rule, ...], tuple[str, ...]]:
    """Most purchase days in one quarter of the year, among customers with a history of most of a year."""
    history = training.measure(first=bought)
    if not ((history >= SEASON_DAYS) & (buys >= SEASON_BUYS)).any():
        return (), (f"habits leave out seasons: no customer has {SEASON_DAYS:g} days of purchases",)
    rules = []
    for name, months in QUARTERS.items():
        ratio = [{**days, "months": months}, days]
        enough = [{**days, "at_least": SEASON_BUYS}, {"first": bought, "at_least_days": SEASON_DAYS}]
        when = {"all": [{"ratio": ratio, "at_least": SEASON_SHARE}, *enough]}
        rules.append(Rule(name=f"In {name}", id=f"in-{name.split()[0]}", when=when))
    return tuple(rules), ()


def _baskets(training: TrainingView, bought: tuple[str, ...], buys: Floats) -> tuple[Rule, ...]:
    if not (buys > 1).any():
        return ()
    window = training.settings.window_days
    gap: dict[str, Any] = {"gap": bought, "within_days": window}
    gaps = training.measure(**gap)
    usual = tidy(float(np.median(gaps[buys > 1])))
    often, seldom = {**gap, "at_most": usual}, {**gap, "more_than": usual}
    if not training.has("value"):
        return Rule(name="Frequent", id="often", when=often), Rule(name="Infrequent", id="seldom", when=seldom)
    basket: dict[str, Any] = {"per_day": "value", "events": bought, "within_days": window}
    worth = training.measure(**basket)
    median = tidy(float(np.nanmedian(worth))) if not np.isnan(worth).all() else 0.0
    large, small = {**basket, "at_least": median}, {"not": {**basket, "at_least": median}}
    return tuple(
        Rule(name=f"{pace}, {size} baskets", id=f"{id}-{size}-baskets", when={"all": [rhythm, amount]})
        for pace, id, rhythm in (("Frequent", "often", often), ("Infrequent", "seldom", seldom))
        for size, amount in (("large", large), ("small", small))
    )


def _purchases(training: TrainingView, scheme: str) -> tuple[str, ...]:
    bought = training.touchpoints("purchases")
    if not bought:
        raise DataError(f"{scheme} needs purchases: no touchpoint in training carries value; {remedy('purchases')}")
    return bought

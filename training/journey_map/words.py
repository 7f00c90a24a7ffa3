"""The words of the journey map's page: columns, how to read each section, what terms mean, two groups compared."""

from __future__ import annotations

from collections.abc import Sequence

from features.journey_map.comparison import MapComparison
from training.reports.blocks import PageColumn

STAGES = (
    PageColumn("stage", "Stage", "name"), PageColumn("customers", "Customers"),
    PageColumn("share_of_first", "Of the first stage", "share"), PageColumn("conversion", "Went on", "share"),
    PageColumn("dropped", "Did not go on"), PageColumn("days_to_next_p25", "A quarter go on within", "days"),
    PageColumn("days_to_next_median", "Half go on within", "days"),
    PageColumn("days_to_next_p75", "Three quarters go on within", "days"),
)  # fmt: skip
TOUCHPOINTS = (
    PageColumn("touchpoint", "Touchpoint", "name"), PageColumn("channel", "Channel", "text"),
    PageColumn("stage", "Stage", "text"), PageColumn("customers", "Customers"),
    PageColumn("customer_share", "Of all customers", "share"), PageColumn("visits", "Visits"),
    PageColumn("visits_per_customer", "Visits a customer", "number"),
    PageColumn("dwell_s_median", "Median dwell time", "seconds"), PageColumn("bounce_share", "Bounces", "share"),
    PageColumn("impressions", "Impressions"), PageColumn("clicks", "Clicks"),
    PageColumn("click_through", "Click-through", "share"), PageColumn("converted_after", "Converted after", "share"),
    PageColumn("csat", "Satisfied", "share"), PageColumn("nps", "NPS", "score"), PageColumn("n_scores", "Scores"),
)  # fmt: skip
MOVES = (
    PageColumn("source", "From", "name"), PageColumn("target", "To", "text"), PageColumn("count", "Times"),
    PageColumn("customers", "Customers"), PageColumn("probability", "Of what follows", "share"),
    PageColumn("gap_s_median", "Median wait", "seconds"),
)  # fmt: skip
PATHS = (
    PageColumn("text", "Path", "path"), PageColumn("customers", "Customers"),
    PageColumn("share", "Of all customers", "share"), PageColumn("converted_share", "Reached the goal", "share"),
    PageColumn("days_median", "Median length", "days"),
)  # fmt: skip
PAINS = (
    PageColumn("touchpoint", "Touchpoint", "name"), PageColumn("kind", "Kind", "text"),
    PageColumn("sentence", "What was found", "sentence"), PageColumn("customers", "Customers"),
    PageColumn("rate", "Here", "share"), PageColumn("rest_rate", "Elsewhere", "share"),
    PageColumn("difference", "Difference", "share_difference"), PageColumn("q_value", "How sure (q)", "p_value"),
)  # fmt: skip
INFLUENCE = (
    PageColumn("name", "Name", "name"), PageColumn("customers", "Customers"),
    PageColumn("first_touch", "First touch", "share"), PageColumn("last_touch", "Last touch", "share"),
    PageColumn("linear", "Linear", "share"), PageColumn("markov_share", "By removal effect", "share"),
    PageColumn("removal_effect", "Removal effect", "share"),
)  # fmt: skip
FLOWS = (
    PageColumn("step", "Step"), PageColumn("source", "From", "text"), PageColumn("target", "To", "text"),
    PageColumn("customers", "Customers"),
)  # fmt: skip
HOW_TO_READ = {
    "funnel": (
        "Customers who came into the first stage, and how many of them went on to each further one, in this order. "
        "Under a rate stands the range it lies in with 95% confidence."
    ),
    "flows": (
        "From left to right the steps of a journey, its first events. A bar is a touchpoint at that step, a stream "
        "the customers who moved on to the next; the thicker, the more. Streams into “end” are journeys that were "
        "over."
    ),
    "moves": (
        "Every dot is a touchpoint, larger where more customers came; an arrow is a move to the next one, thicker "
        "where it was made more often. Grey arrows lead on, dashed orange ones lead back to where customers tend to"
        " be earlier. The most frequent way on from each touchpoint is always shown. "
        "Rest on a dot or an arrow, or tap it, for its numbers."
    ),
    "steps": (
        "Where customers are at their first, second, third … event. Every column adds up to all customers; “end” "
        "holds those whose journey was over by then. Nobody is at the empty places."
    ),
    "paths": "How journeys begin, immediate repeats counted once, and how they turned out.",
    "touchpoints": "Click on a heading to sort. Small print under a rate: the range it lies in with 95% confidence.",
    "pain-points": (
        "Where customers leave, go round in circles, wait or complain more than elsewhere. “How sure” is the share "
        "of false alarms to expect if all findings at least as sure are believed (q-value): below 0.05 is usually "
        "taken seriously."
    ),
    "influence": (
        "Who deserves credit for a conversion? First touch gives it to where a customer began, last touch to where "
        "they were just before the goal, linear divides it evenly, and the removal effect asks what would be lost "
        "if customers who come to that place were gone. Where the four agree the answer is safe; none of them "
        "proves a cause."
    ),
    "cohorts": (
        "Each row holds the customers first seen in one {period} (how many, in brackets), each cell the share of "
        "them who were active again so many {period}s later."
    ),
}
TERMS = {
    "Touchpoint": (
        "What happened: a page view, an e-mail opened, a purchase, a call. Rare ones are pooled to “other” in wide "
        "tables."
    ),
    "Journey": "All events of one customer in the order of their times.",
    "Converted after": "Of the customers who came to a touchpoint, the share who reached the goal afterwards.",
    "Bounces": "Of the sessions that began at a touchpoint, the share that ended there.",
    "Satisfied (CSAT)": "The share of scores among the top two of the scale.",
    "NPS": "Net promoter score: the share of scores 9 and 10 less the share of scores 0 to 6, from −100 to 100.",
    "Removal effect": (
        "The share of conversions that a Markov chain of the journeys loses when nobody can pass through a channel or "
        "touchpoint any more."
    ),
    "95% range": (
        "If the same were measured again and again, so computed ranges would hold the true rate 95 times out of 100. "
        "Rates of few customers have wide ranges."
    ),
    "q-value": (
        "A p-value corrected for many comparisons (Benjamini and Hochberg): the share of false alarms to expect among "
        "all findings at least as sure."
    ),
}


def comparison_words(comparison: MapComparison) -> tuple[str, str]:
    """Title of the section on two groups, and how to read it."""
    first, second = comparison.names
    how = (
        f"{first} ({comparison.customers[0]:,} customers) beside {second} ({comparison.customers[1]:,}). A difference "
        "is the first less the second, in percentage points; under it the range it lies in with 95% confidence. “How "
        "sure” is corrected for the number of comparisons: below 0.05 is usually taken seriously."
    )
    return f"Compared: {first} and {second}", how


def comparison_columns(heads: Sequence[str], names: tuple[str, str]) -> list[PageColumn]:
    """The columns of a table of two groups.

    Args:
        heads: the frame's columns that name a row.
        names: of the groups.
    """
    titles = {"stage": "Stage", "touchpoint": "Touchpoint", "source": "From", "target": "To"}
    return [
        *(PageColumn(head, titles[head], "text" if place else "name") for place, head in enumerate(heads)),
        PageColumn("rate_a", names[0], "share"),
        PageColumn("rate_b", names[1], "share"),
        PageColumn("difference", "Difference", "share_difference"),
        PageColumn("q_value", "How sure (q)", "p_value"),
    ]

"""Tabular features: one row of numbers a snapshot.

basket: What a visit is worth, and what comes back: the rfm and returns groups.
calendar: When in the day, week and year (UTC): the calendar group.
catalogue: The name and the meaning of every feature, in the order in which the kernels write them.
counts: Counts, sums of value and recencies by window and code: the volume, value, recency and trend groups.
features: Tabular features: what is known about a customer at a cutoff, as one row of numbers.
firsts: What came first, what last, and what followed what: the touch, order and transitions groups.
fitting: Tabular features of a log in parts: vocabularies learned from merged counts, matrices made part by
    part.
items: Variety: which items and touchpoints come again. The variety group.
learning: What the tabular features learn from training: vocabularies, units of work, which columns there
    are.
plan: Where the kernels find what they need: slots of the plan, rows of the scratch, units of time.
properties: Who handled it, which campaign, which country: the properties and profile groups.
rhythm: Visits and the time between them: the rhythm, day_rhythm, sessions and tenure groups.
rows: All subjects, snapshot by snapshot: the one compiled function that training, services and clusters
    call.
satisfaction: How satisfied the customer is, where any event says so: the satisfaction group.
work: Work that is scheduled, started and completed: the open_work group.
"""

from features.tabular.features import TabularFeatures

__all__ = ["TabularFeatures"]

"""Feature groups: the names, meanings and kernels of each family of groups in one file.

basket: What a visit is worth, and what comes back: the rfm and returns groups.
calendar: When in the day, week and year (UTC): the calendar group.
counts: Counts, sums of value and recencies by window and code: the volume, value, recency and trend groups.
firsts: What came first, what last, and what followed what: the touch, order and transitions groups.
items: Items and touchpoints that come again: the variety group.
properties: Who handled it, which campaign, which country: the properties and profile groups.
rhythm: Visits and the time between them: the rhythm, day_rhythm, sessions and tenure groups.
satisfaction: How satisfied the customer is: the satisfaction group.
work: Work that is scheduled, started and completed: the open_work group.
"""

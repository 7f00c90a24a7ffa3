"""Packed journeys and snapshots: the event log as flat columns sorted by customer and time.

duplicates: Exact duplicates in a packed log: events of one customer at one moment that agree in every
    column.
event_log: A log in parts: whole customers apart, and what is counted on each part adds up to what is
    counted on the whole.
holdout: Rows to check on that are later than the rows to fit on, and of other customers.
journeys: Journeys: a log of events as flat columns, sorted by customer, then time, then source order.
landed: Journeys as Parquet, a row a customer, that models learn from without holding the log in memory.
loading: From the source that an experiment names to packed journeys: read, checked, packed, or opened where
    landed.
order_kernels: Compiled kernels that bring events into the order of a packed log, and search in it.
ordering: Where every event of a log goes: by customer, then time, then source order; built once, used for
    each column.
packing: Packing: checked event rows → `Journeys`, the flat columns sorted by customer, then time, then
    source order.
partition_kernels: Compiled kernels that part events by customer: a hash of each identifier, and a stable
    order by partition.
partitions: Customers in partitions, by a hash of the identifier alone: neither the other customers nor
    their order matter.
quantile_kernels: Compiled kernels that select order statistics in place: the k-th value, and medians of
    neighbouring groups.
quantiles: Exact medians and quantiles of values that lie in many places: by passes that only count, in
    bounded memory.
stream: From event files to packed journeys in one stream: read, check, encode batch by batch, then pack.
"""

from features.journeys.journeys import Journeys, Snapshots
from features.journeys.packing import pack

__all__ = ["Journeys", "Snapshots", "pack"]

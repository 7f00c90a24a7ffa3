"""Packed journeys and snapshots, and the event log on one machine: in memory or as partitions on disk.

disk_log: The disk engine: partitions of customers on disk, for a log larger than memory; resumable.
duplicates: Exact duplicates in a packed log: events of one customer at one moment that agree in every column.
event_log: `EventLog`, the protocol of every engine; the memory engine; partial results that are merged.
holdout: Validation rows that are later than the training rows, and of other customers.
journeys: `Journeys`, events as flat columns sorted by customer and time; `Snapshots` of them at cutoffs.
landed: Journeys as Parquet, a row a customer, which models read without holding the log in memory.
loading: Packed journeys from an experiment's event source.
order_kernels: Compiled kernels that sort the events of a packed log, and search in it.
ordering: The place of each event in a packed log; computed once, used for each column.
packing: From checked event rows to `Journeys`.
partition_kernels: Compiled kernels that partition events by customer: a hash of each identifier, and a stable order.
partitions: Partitions of customers, by a hash of the identifier alone.
quantile_kernels: Compiled kernels for order statistics: the k-th value, medians of neighbouring groups.
quantiles: Exact medians and quantiles over the parts of a log, by passes that only count, in bounded memory.
stream: Event files read, checked and encoded batch by batch.
whole_files: Atomic writes; Parquet files of record batches.
"""

from features.journeys.journeys import Journeys, Snapshots
from features.journeys.packing import pack

__all__ = ["Journeys", "Snapshots", "pack"]

"""Tabular features: one row of numbers a snapshot.

catalogue: The list of feature groups; the name and meaning of every feature.
decoding: What several groups read of a snapshot, computed once: columns, windows, visits, days, counts of codes.
features: TabularFeatures: fitted on training snapshots, it turns snapshots into a matrix.
fitting: Features of a log in parts: vocabularies from merged counts, matrices made part by part.
group: What a feature group is; what its kernel gets; what names of columns are made of.
layout: Settings and vocabularies as the kernels want them; a log's columns bound to them.
learning: What the features learn from training: vocabularies, units of work, windows.
numerics: Compiled arithmetic that several groups share: sorting, quantiles, the calendar.
plan: Slots of the plan, rows of the scratch arrays, units of time, and how kernels are compiled.
rows: The one compiled function that training, services and clusters call.
settings: What to compute: the `[features]` table of an experiment file.
groups/: Feature groups: the names, meanings and kernels of each family of groups in one file.
"""

from features.tabular.features import TabularFeatures

__all__ = ["TabularFeatures"]

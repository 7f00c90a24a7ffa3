"""Conditions on snapshots that a marketer writes, and the measures that they compare.

base: The base of all conditions: reading them from tables, the registry of their kinds, and all, any, not.
comparison: Conditions that compare a measure with numbers.
conditions: The way in: `read_condition`, and the table of all keys.
event_kinds: The kinds that compare a measure of events: how many, how much, how long ago, what share.
kernels: Compiled kernels behind `measures`: one pass over the events that a selection lets through.
kinds: The other kinds: ratios, scores, features, profiles, dominant values.
measures: One number a snapshot: how many, how much, how long ago; and the view that computes each once.
selections: Which events are meant: touchpoints, channels, stages, items, values, dates, a window of days.
thresholds: Thresholds learnt from measures: the top of them, their quantiles, short enough to print exactly.
"""

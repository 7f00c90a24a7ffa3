"""Conditions on snapshots that a marketer writes, and the measures that they compare.

conditions: Conditions that a marketer writes in an experiment file: pure functions of snapshots, read back
    in words.
event_kinds: The kinds of condition that compare a figure of events: how many, how much, how long ago, what
    share.
kernels: Compiled kernels behind `measures`: one pass over the events of a snapshot that a selection lets
    through.
kinds: The kinds of condition: those of events, ratios, scores, features, names; `conditions` joins them.
measures: Figures of a snapshot, one number each: how many, how much, how long ago. Pure functions of
    snapshots.
selections: Which events are meant: touchpoints by name or pattern, channels, stages, items, values, dates,
    a window of days.
thresholds: Thresholds learnt from figures: the top of them, their quantiles, short enough for words to give
    them exactly.
"""

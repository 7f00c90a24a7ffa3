"""Explanations of segments: profiles, effects, names, rules, targets, drift.

columns: Tabular features as readable columns.
drift: Population stability, migration between cutoffs, and an alarm.
effects: Effect sizes of readable columns, in words.
intervals: Intervals of shares, means and differences, with customers as the unit.
names: Short names of clusters, from their effects.
profiles: Size, growth, value, behaviour and rates of each segment.
targets: Segments by reachable value, and a health report against goals.
tree: A short decision tree in place of a segmentation.
tree_nodes: A fitted decision tree as arrays.
tree_rules: The leaves of a tree as rules in words.
typical_journeys: Real journeys nearest to each segment's centre, shown so that no customer can be recognised.
"""

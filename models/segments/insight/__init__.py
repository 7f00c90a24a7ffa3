"""What segments mean: profiles, effects, names, rules, targets, drift.

columns: Tabular features as a person reads them: categories as yes-or-no columns, without those that only
    tell the date.
drift: Whether segments move: population stability, who migrated where between cutoffs, and inputs that
    changed; an alarm.
effects: What sets each segment apart from the rest: effect sizes of readable features, in words.
intervals: Intervals and tests for the figures of segments: shares, means and differences, with customers as
    the unit.
names: Short names for found segments, made from what sets them apart: "High value, frequent", "New, one
    visit only".
profiles: The profile of each segment: how many, growing or not, worth what, how they behave, with
    intervals.
targets: A table for choosing target segments, and a health report against the goals that the experiment
    file states.
tree: A short decision tree that says who is in which segment, in words, and how often it is right.
tree_nodes: A fitted decision tree as arrays: read from scikit-learn, pruned, followed without scikit-learn.
tree_rules: The leaves of a tree as rules that a person can read: one a segment, with how much of it the
    rule finds.
typical_journeys: Typical journeys of a segment: real ones nearest to its centre, told so that nobody can be
    recognised.
"""

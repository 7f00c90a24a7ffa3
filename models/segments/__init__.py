"""Segments of customers: found by clustering or set by rules, matched over time, explained.

collection: All segmentations of an experiment as one model: the segments that a customer is in, by every
    partition at once.
contract: What every segmentation can do: one partition of customers, found after the fact or set
    beforehand.
lookalikes: Look-alikes: the customers nearest to a given list, by vectors, exactly, up to a million of
    them.
matching: New segments matched to old ones, so that ids last, and a report on what a refit changed.
clustering/: Segments found by clustering.
insight/: What segments mean: profiles, effects, names, rules, targets, drift.
rules/: Segments set by rules: built-in schemes, own rules, static lists.
"""

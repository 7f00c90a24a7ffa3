"""Segments of customers: by clustering or by rules, matched over time, explained.

collection: All segmentations of an experiment as one model.
contract: The contract of segmentations.
lookalikes: The customers nearest to a list of seeds.
matching: New segments matched with old ones, so that ids survive, and a report on a refit.
clustering/: Segments by clustering.
insight/: Explanations: profiles, effects, names, rules, targets, drift.
rules/: Segments by rules: built-in schemes, own rules, static lists.
"""

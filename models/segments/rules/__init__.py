"""Segments by rules: built-in schemes, own rules, static lists.

rule_segments: The partition by ordered rules, evaluated at each cutoff or frozen at a date.
scheme_settings: The meaning of touchpoints for the built-in schemes, and what schemes learn from.
schemes: The built-in schemes by name, and how they are fitted.
schemes_journey: Stage, needs, objections.
schemes_taste: Interests, preferred channel, place, profile.
schemes_value: RFM, value tiers, engagement, purchase habits.
static_lists: The customers of a segment at a date, as keyed hashes.
"""

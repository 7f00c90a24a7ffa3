"""Segments set by rules: built-in schemes, own rules, static lists.

rule_segments: Segments by rules that a marketer writes: in order, the first that holds wins; evaluated anew
    or frozen at a date.
scheme_settings: What the built-in segments take a touchpoint for: purchases, complaints, offers … by name,
    with sensible defaults.
schemes: Built-in segments: known schemes that learn their quantiles and names from training and then are
    rules.
schemes_journey: Built-in segments of where customers are in their journey and what is in the way: stage,
    needs, objections.
schemes_taste: Built-in segments of who customers are and what they like: interests, preferred channel,
    place, profile.
schemes_value: Built-in segments of money and rhythm: RFM, value tiers, engagement, purchase habits.
static_lists: Static lists: customers who were in a segment at a date, frozen, kept as keyed hashes and
    never as identifiers.
"""

"""The journey map: tables of stages, flows, paths, touchpoints, pain points and influence.

cohorts: Cohorts and retention of a journey map: of those who came in one month or week, how many are active
    in later ones.
comparison: Two journey maps side by side: segments, periods, converted or not; with tests corrected for
    multiplicity.
distributed: The journey map of a log in parts, such as one on Spark: the same tables, from merged counts of
    the parts.
funnel: The stage funnel of a journey map: who gets how far through the stages, in order, and how long it
    takes.
influence: Influence of channels and touchpoints on conversion: Markov removal effect beside first, last and
    linear touch.
kernels: Compiled passes of the journey map: counts of touchpoints, transitions, steps, stages, cohorts;
    medians of groups.
pain_points: Pain points of a journey map: where customers leave, loop, wait or complain more than at the
    other touchpoints.
path_kernels: Compiled passes of the journey map's paths and influence: common beginnings of journeys, ways
    to a conversion.
paths: The most common paths of a journey map: how journeys begin, how many customers go so, how it ends for
    them.
selection: What a map is drawn from: some customers of a log, their events between two dates, and the names
    of touchpoints.
settings: What a journey map is asked for: goals, stages, complaints, and how much of it to show; the
    `[map]` table.
steps: Step matrix and Sankey links of a journey map: where customers are at their first, second, third …
    event.
tables: The journey map: how customers go through a log, or a part of it, as pandas tables.
touchpoint_kernels: Compiled passes of the journey map's touchpoint table and pain points: what happens at
    and after each touchpoint.
touchpoints: The touchpoint table of a journey map: customers, visits, dwell time, bounces, clicks,
    conversion after, scores.
transitions: Transitions of a journey map: from each touchpoint to the next, how often, how likely, after
    how long.
"""

"""The journey map: how customers go through a log, or a part of it, as pandas tables.

    from features.journey_map.tables import MapSettings, journey_map
    drawn = journey_map(journeys, MapSettings(goals=("purchase",)), start="2024-01-01")
    drawn.funnel, drawn.transitions, drawn.pain_points, drawn.notes

Each table has a module of its own (`features.map_*`), which says how its columns are defined. They are made from counts
by compiled passes over the flat columns; where counts of parts of the customers add up to those of the whole, their
docstrings say so. No table holds an identifier of a customer.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from features.journey_map.cohorts import cohorts
from features.journey_map.funnel import Stages, funnel, outside, stages_of
from features.journey_map.influence import first_goals, influence
from features.journey_map.pain_points import pain_points
from features.journey_map.paths import paths
from features.journey_map.selection import DAY_US, Int64s, MapSelection, MapSource, matching, select, unmatched
from features.journey_map.settings import MapSettings as MapSettings
from features.journey_map.steps import sankey, step_matrix
from features.journey_map.touchpoints import remarks, touchpoints
from features.journey_map.transitions import transition_counts, transition_frame
from features.journeys.journeys import Journeys
from features.statistics import wilson


@dataclass(frozen=True)
class JourneyMap:
    """The tables of a map. Rates are 0..1, `_low` and `_high` 95 % intervals, NaN what is not known.

    A table that does not apply is empty, with its columns, and a sentence in `notes` says why.

    Attributes:
        summary: figures of the whole: customers, events, first, last (moments, UTC), touchpoints, channels, stages,
            median_events, median_span_days, converted, converted_share, converted_low, converted_high (NaN without
            goals), goals, observed_until.
        funnel: `features.journey_map.funnel`.
        touchpoints: `features.journey_map.touchpoints`.
        transitions: `features.journey_map.transitions`.
        paths: `features.journey_map.paths`.
        step_matrix, sankey: `features.journey_map.steps`.
        cohorts: `features.journey_map.cohorts`.
        pain_points: `features.journey_map.pain_points`.
        influence: `features.journey_map.influence`.
        notes: what a reader must know, a sentence each.
        settings: what was asked for.
    """

    summary: dict[str, Any]
    funnel: pd.DataFrame
    touchpoints: pd.DataFrame
    transitions: pd.DataFrame
    paths: pd.DataFrame
    step_matrix: pd.DataFrame
    sankey: pd.DataFrame
    cohorts: pd.DataFrame
    pain_points: pd.DataFrame
    influence: pd.DataFrame
    notes: tuple[str, ...] = ()
    settings: MapSettings = field(default_factory=MapSettings)

    @property
    def tables(self) -> dict[str, pd.DataFrame]:
        """The tables by name."""
        return {name: value for name, value in vars(self).items() if isinstance(value, pd.DataFrame)}


def journey_map(
    journeys: Journeys,
    settings: MapSettings | None = None,
    *,
    customers: Any = None,
    start: Any = None,
    end: Any = None,
) -> JourneyMap:
    """Draw the map of a log, or of some customers between two dates.

    Args:
        journeys: the packed log.
        settings: goals, stages and the like; every table that needs none comes without.
        customers: (k,) indices or a (n_customers,) mask, such as the members of a segment; everyone by default.
        start: events from this moment on; from the log's beginning by default.
        end: events before this moment; to the log's end by default.

    Raises:
        DataError: no chosen customer has an event between the dates.

    >>> from features.journeys import pack
    >>> days = pd.to_datetime(["2024-01-01", "2024-01-02", "2024-01-01"])
    >>> rows = {"customer_id": ["a", "a", "b"], "timestamp": days, "touchpoint": ["view", "buy", "view"]}
    >>> drawn = journey_map(pack(pd.DataFrame(rows)), MapSettings(goals=("buy",)))
    >>> drawn.transitions[["source", "target", "probability"]].to_numpy().tolist()
    [['view', 'buy', 0.5], ['view', 'end', 0.5], ['start', 'view', 1.0], ['buy', 'end', 1.0]]
    """
    return build_map(select(journeys, customers, start, end), settings or MapSettings())


def build_map(selection: MapSource, settings: MapSettings) -> JourneyMap:
    """Draw the map of a selection, wherever its customers lie; see `features.journey_map.distributed`."""
    has_goals = bool(matching(selection.touchpoint.names, settings.goals).any())
    converted = selection.total(partial(_converted, goals=settings.goals))
    stages, of_stages = stages_of(selection, settings)
    funnel_table = funnel(selection, stages)
    pairs, pauses = transition_counts(selection, int(settings.session_gap_minutes * 60e6))
    points, of_points = pain_points(selection, settings, pauses)
    cohort_table, of_cohorts = cohorts(selection, settings)
    influence_table, of_influence = influence(selection, settings, converted)
    return JourneyMap(
        _summary(selection, settings, stages, converted if has_goals else None),
        funnel_table,
        touchpoints(selection, settings, has_goals),
        transition_frame(selection, pairs, pauses),
        paths(selection, settings, has_goals),
        step_matrix(selection, settings),
        sankey(selection, settings),
        cohort_table,
        points,
        influence_table,
        (
            *_of_log(selection, settings),
            *unmatched(selection.touchpoint.names, settings.goals, "a goal"),
            *of_stages,
            *outside(selection, stages, funnel_table),
            *remarks(selection, settings),
            *of_points,
            *of_cohorts,
            *of_influence,
        ),
        settings,
    )


def _converted(part: MapSelection, goals: tuple[str, ...]) -> int:
    """How many customers reach a goal."""
    return int((first_goals(part, goals) >= 0).sum())


def _lengths(part: MapSelection) -> tuple[Int64s, Int64s]:
    """Each customer's number of events, then each one's µs from the first to the last."""
    t, n = part.journeys.t, part.n_customers
    values = np.concatenate((part.stop - part.start, t[part.stop - 1] - t[part.start]))
    return values, np.array([0, n, 2 * n])


def _summary(selection: MapSource, settings: MapSettings, stages: Stages, reached: int | None) -> dict[str, Any]:
    n = selection.n_customers
    (medians,) = selection.ranks(_lengths).medians([np.arange(3)])
    low, high = wilson([reached or 0], [n if reached is not None else 0])
    unknown = float("nan")
    return {
        "customers": n,
        "events": selection.n_events,
        "first": pd.Timestamp(selection.begin, unit="us"),
        "last": pd.Timestamp(selection.last, unit="us"),
        "observed_until": pd.Timestamp(selection.until, unit="us"),
        "touchpoints": int((selection.visits > 0).sum()),
        "channels": len(selection.category("channel").names),
        "stages": len(stages.names),
        "median_events": float(medians[0]),
        "median_span_days": float(medians[1]) / DAY_US,
        "goals": settings.goals,
        "converted": unknown if reached is None else reached,
        "converted_share": unknown if reached is None else reached / n,
        "converted_low": float(low[0]),
        "converted_high": float(high[0]),
    }


def _of_log(selection: MapSource, settings: MapSettings) -> list[str]:
    """What to say about the log as a whole."""
    sentences, n, kinds = [], selection.n_customers, int((selection.visits > 0).sum())
    if n < 30:
        subject = "one customer" if n == 1 else f"{n} customers"
        sentences.append(f"The map is drawn from {subject}: its shares say little about others.")
    if selection.n_events == n:
        sentences.append("Every customer has one event only: there are no steps from one touchpoint to another.")
    if selection.begin == selection.last and n > 1:
        sentences.append("All events bear the same time: nothing is said about how long things take.")
    if kinds > settings.most_touchpoints:
        sentences.append(
            f"There are {kinds:,} touchpoints; the step matrix names the {settings.most_touchpoints} most frequent."
        )
    if selection.visits[-1]:
        sentences.append(
            f"{int(selection.visits[-1]):,} events have no touchpoint: they stand as '{selection.names[-1]}'."
        )
    if not settings.goals:
        sentences.append("No goals are named: nothing is said about conversion.")
    return sentences

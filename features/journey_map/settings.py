"""What a journey map is asked for: goals, stages, complaints, and how much of it to show; the `[map]` table."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from features.settings import Section

START, END, OTHER, MISSING = "start", "end", "other", "(missing)"

Steps = Annotated[int, Field(ge=1, le=200)]
Days = Annotated[float, Field(gt=0)]


class MapSettings(Section):
    """How to read a log as a map. Touchpoints are named, or meant by patterns such as `"A_*"`.

    Attributes:
        goals: touchpoints that count as conversion; without them nothing is said about conversion or influence.
        ended: touchpoints that rightly close a journey (declined, delivered): nobody "leaves" after them, nor after a
            goal.
        stages: the funnel's stages in order. Names of the log's stages; in a log without them, touchpoints. By default
            the order of the well-known five, else of the median place where customers first meet them.
        complaints: touchpoints that are complaints.
        clicks: touchpoint of an impression → touchpoint of its click, for click-through.
        session_gap_minutes: a longer pause begins a new session; for bounces and dwell time.
        steps: columns of the step matrix.
        sankey_steps: steps of the Sankey links.
        path_steps: touchpoints of a path at most, immediate repeats counted once; fewer where journeys differ so much
            that the top paths would hold less than a quarter of the customers.
        top_paths: how many paths.
        cohort: the period of cohorts and retention.
        satisfaction_scale: lowest and highest score there can be; by default read off the scores.
        most_touchpoints: rows of the step matrix; rarer touchpoints are pooled to "other".
        sankey_touchpoints, influence_touchpoints: the same for the Sankey links and for influence.
        quiet_days: a customer without an event for so long has left. By default the pause that 95 % of all returns to
            a new session stay below, and no more than a quarter of the log.
        loop_days: three separate visits within so many days are a loop.
        complaint_days: a complaint concerns what came up to so many days before.
        fewest_customers: touchpoints with fewer are not tested as pain points nor compared.
        top_pain_points: how many to list.
    """

    goals: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()
    stages: tuple[str, ...] = ()
    complaints: tuple[str, ...] = ()
    clicks: dict[str, str] = Field(default_factory=dict)
    session_gap_minutes: Annotated[float, Field(gt=0)] = 30.0
    steps: Steps = 10
    sankey_steps: Steps = 6
    path_steps: Annotated[int, Field(ge=1, le=50)] = 6
    top_paths: Annotated[int, Field(ge=1)] = 20
    cohort: Literal["month", "week"] = "month"
    satisfaction_scale: tuple[float, float] | None = None
    most_touchpoints: Annotated[int, Field(ge=1, le=500)] = 40
    sankey_touchpoints: Annotated[int, Field(ge=1, le=100)] = 12
    influence_touchpoints: Annotated[int, Field(ge=1, le=1000)] = 100
    quiet_days: Days | None = None
    loop_days: Days = 1.0
    complaint_days: Days = 7.0
    fewest_customers: Annotated[int, Field(ge=2)] = 10
    top_pain_points: Annotated[int, Field(ge=1)] = 50

    @model_validator(mode="after")
    def _scale_rises(self) -> Self:
        if self.satisfaction_scale and self.satisfaction_scale[0] >= self.satisfaction_scale[1]:
            raise ValueError("satisfaction_scale is written lowest score first, then highest: [1, 5]")
        return self

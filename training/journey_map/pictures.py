"""The journey map's pictures as PNG for MLflow, reports and slides: the page's own, drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path

from features.journey_map.tables import JourneyMap
from training.journey_map.colours import touchpoint_colours
from training.journey_map.figures import cohorts, funnel, influence, pain_points, step_matrix
from training.journey_map.findings import dates
from training.journey_map.graph import transition_graph
from training.journey_map.sankey import sankey
from training.reports.interactive import InteractiveFigure
from training.reports.picture_style import save
from training.reports.stills import still

TITLES = {
    "funnel": "Stages: how many come how far",
    "flows": "Step by step: which way customers go",
    "moves": "How touchpoints lead to each other",
    "steps": "Where customers are at each step",
    "influence_channel": "What leads to the goal, by channel",
    "influence_touchpoint": "What leads to the goal, by touchpoint",
    "pain_points": "Pain points, against the rest",
    "cohorts": "Who comes back: share of customers active again",
}
WIDTHS = {"flows": 12.0, "moves": 12.0}  # inches


def draw_map(journey_map: JourneyMap, folder: Path, period: str = "month") -> list[Path]:
    """Draw what the map has tables for.

    Args:
        journey_map: the map.
        folder: made if absent; files of the same names are replaced.
        period: of the cohorts.

    Returns:
        Paths of funnel.png, flows.png, moves.png, steps.png, influence_channel.png, influence_touchpoint.png,
        cohorts.png and pain_points.png, as far as the map has numbers for them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = journey_map.summary
    subtitle = f"{summary['customers']:,} customers, {dates(summary)}"
    figures = [*map_figures(journey_map, period).values()]
    figures += [pain_points(journey_map.pain_points)] if len(journey_map.pain_points) else []
    return [
        save(still(figure, TITLES[figure.name], subtitle, WIDTHS.get(figure.name, 7.2)), folder / f"{figure.name}.png")
        for figure in figures
    ]


def map_figures(journey_map: JourneyMap, period: str) -> dict[str, InteractiveFigure]:
    """Name → picture, for the tables that have rows."""
    colours = touchpoint_colours(journey_map.touchpoints, journey_map.funnel["stage"].astype(str).tolist())
    figures: list[InteractiveFigure] = []
    if len(journey_map.funnel):
        figures.append(funnel(journey_map.funnel))
    if len(journey_map.sankey):
        figures.append(sankey(journey_map.sankey, colours))
    if len(journey_map.transitions):
        figures.append(transition_graph(journey_map.transitions, journey_map.touchpoints, colours))
    if len(journey_map.step_matrix):
        figures.append(step_matrix(journey_map.step_matrix))
    figures += [influence(journey_map.influence, str(level)) for level in journey_map.influence["level"].unique()]
    if (journey_map.cohorts["period"] > 0).any():
        figures.append(cohorts(journey_map.cohorts, period))
    return {figure.name: figure for figure in figures}

"""The journey map's pictures as PNG for MLflow, reports and slides: the page's own, drawn by matplotlib."""

from __future__ import annotations

from pathlib import Path

from features.journey_map.tables import JourneyMap
from training.journey_map.figures import pain_points
from training.journey_map.findings import dates
from training.journey_map.page import map_figures
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

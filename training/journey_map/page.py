"""The journey map as one HTML page that opens offline: findings in words, interactive pictures, tables.

    write_map_page(journey_map(journeys, settings), Path("map.html"), MapText("my log"))

Customers' identifiers never get onto the page, because the tables hold none.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from features.journey_map.comparison import MapComparison
from features.journey_map.tables import JourneyMap
from training.journey_map.colours import touchpoint_colours
from training.journey_map.figures import cohorts, funnel, influence, side_by_side, step_matrix
from training.journey_map.findings import dates, findings
from training.journey_map.graph import transition_graph
from training.journey_map.sankey import sankey
from training.journey_map.words import (
    FLOWS,
    HOW_TO_READ,
    INFLUENCE,
    MOVES,
    PAINS,
    PATHS,
    STAGES,
    TERMS,
    TOUCHPOINTS,
    comparison_columns,
    comparison_words,
)
from training.reports.blocks import Heading, Notes, PageBlock, PageColumn, Sentences, Table, Terms
from training.reports.interactive import InteractiveFigure
from training.reports.numbers import count, days, share
from training.reports.pages import Fact, Page, PageSection, write_page

MOST_MOVES, MOST_TOUCHPOINTS, MOST_PAINS, MOST_CREDITED, MOST_COMPARED = 100, 200, 50, 30, 60
SURE = 0.05


@dataclass(frozen=True)
class MapText:
    """What the page says beside its tables.

    Attributes:
        name: of the log or experiment.
        source: where the events came from, in words; no path of this machine.
        goals: what counts as conversion.
        cohort: "month" or "week".
        notes: more to say, after the map's own notes.
    """

    name: str
    source: str = ""
    goals: tuple[str, ...] = ()
    cohort: str = "month"
    notes: tuple[str, ...] = ()


def write_map_page(drawn: JourneyMap, path: Path, text: MapText, comparison: MapComparison | None = None) -> Path:
    """Write the page.

    Args:
        drawn: the map.
        path: of the file; its folder is made.
        text: the words around the tables.
        comparison: of two groups, where there is one.
    """
    return write_page(map_page(drawn, text, comparison), path)


def map_page(drawn: JourneyMap, text: MapText, comparison: MapComparison | None = None) -> Page:
    """The page; see `write_map_page`."""
    source = f" Source: {text.source}." if text.source else ""
    subject = "the ways they took, where they stopped, and what led to the goal" if text.goals else (
        "the ways they took and where they stopped")  # fmt: skip
    return Page(
        title=f"Journey map: {text.name}",
        lead=f"What customers did from {dates(drawn.summary)}: {subject}.{source} Times are UTC.",
        facts=_facts(drawn.summary, text),
        sections=_sections(drawn, text, comparison),
    )


def _facts(summary: dict[str, Any], text: MapText) -> list[Fact]:
    half = float(summary["median_events"])
    facts = [
        Fact("Customers", count(summary["customers"])),
        Fact("Events", count(summary["events"]), f"half of the customers have {half:g} or fewer"),
        Fact("Touchpoints", count(summary["touchpoints"]), _channels_and_stages(summary)),
        Fact("Median journey", days(float(summary["median_span_days"])), "from first to last event"),
    ]
    rate = float(summary["converted_share"])
    if text.goals and math.isfinite(rate):
        facts.append(Fact("Converted", share(rate), f"{count(summary['converted'])} customers"))
    return facts


def _channels_and_stages(summary: dict[str, Any]) -> str:
    parts = [
        f"{count(summary[key])} {key if summary[key] != 1 else key[:-1]}"
        for key in ("channels", "stages")
        if summary[key]
    ]
    return f"in {' and '.join(parts)}" if parts else ""


def _sections(drawn: JourneyMap, text: MapText, comparison: MapComparison | None) -> list[PageSection]:
    """The sections that have something to show, in the order of the page."""
    figures = map_figures(drawn, text.cohort)
    moves = drawn.transitions.sort_values("count", ascending=False, kind="stable")
    touchpoints = drawn.touchpoints.sort_values("customers", ascending=False, kind="stable")
    pains = Table(drawn.pain_points, PAINS, "Pain points, the weightiest first.", MOST_PAINS)
    blocks: dict[str, tuple[str, list[PageBlock]]] = {
        "findings": ("Main findings", [Sentences(findings(drawn, text.goals, text.cohort), ordered=True)]),
        "funnel": ("Stages", [Table(drawn.funnel, STAGES, "The funnel, stage by stage.")]),
        "flows": ("Step by step", [
            Table(drawn.sankey, FLOWS, "Streams between steps.", MOST_MOVES, "The streams as a table")]),
        "moves": ("How touchpoints lead to each other", [
            Table(moves, MOVES, "Moves from one touchpoint to the next.", MOST_MOVES, "The moves as a table")]),
        "steps": ("Where customers are at each step", [_step_table(drawn.step_matrix)]),
        "paths": ("The most common paths", [Table(drawn.paths, PATHS, "The most common paths.")]),
        "touchpoints": ("Touchpoints", [
            Table(touchpoints, TOUCHPOINTS, "Every touchpoint, the most used first.", MOST_TOUCHPOINTS)]),
        "pain-points": ("Pain points", [
            pains if len(drawn.pain_points) else Notes(["Nothing stands out from the rest."])]),
        "influence": ("What leads to the goal", _influence(drawn.influence, figures)),
        "cohorts": ("Who comes back", [_cohort_table(drawn.cohorts, text.cohort)] if "cohorts" in figures else []),
    }  # fmt: skip
    sections = []
    for name, (title, content) in blocks.items():
        empty = all(isinstance(block, Table) and not len(block.frame) for block in content)
        if not empty:
            picture: list[PageBlock] = [figures[name]] if name in figures else []
            how = HOW_TO_READ.get(name, "").format(period=text.cohort)
            link = ("words", "The words are explained below.") if name == "touchpoints" else None
            sections.append(PageSection(name, title, [*picture, *content], how, link))
    if comparison is not None:
        sections.append(_comparison(comparison))
    notes = list(dict.fromkeys([*drawn.notes, *text.notes]))
    terms = Terms([(term, "", meaning) for term, meaning in TERMS.items()])
    return [*sections, PageSection("words", "What to know", [Notes(notes), terms])]


def _step_table(matrix: pd.DataFrame) -> Table:
    frame = matrix.set_axis([f"step_{step}" for step in matrix.columns], axis=1)
    frame.insert(0, "touchpoint", [str(name) for name in matrix.index])
    columns = [PageColumn(f"step_{step}", f"Step {step}", "share") for step in matrix.columns]
    first = PageColumn("touchpoint", "Touchpoint", "name")
    return Table(frame, [first, *columns], "Share of customers at each step.", summary="The grid as a table")


def _influence(frame: pd.DataFrame, figures: dict[str, Any]) -> list[PageBlock]:
    blocks: list[PageBlock] = []
    for level in ("channel", "touchpoint"):
        rows = frame[frame["level"] == level].sort_values("markov_share", ascending=False, kind="stable")
        if len(rows):
            rows_table = Table(rows, INFLUENCE, f"Influence by {level}.", MOST_CREDITED)
            blocks += [Heading(f"By {level}"), figures[f"influence_{level}"], rows_table]
    return blocks


def _cohort_table(frame: pd.DataFrame, period: str) -> Table:
    wide = frame[frame["period"] > 0].pivot(index="cohort", columns="period", values="retention")
    named = wide.set_axis([f"after_{periods}" for periods in wide.columns], axis=1)
    named.insert(0, "size", frame.groupby("cohort")["size"].max().loc[wide.index])
    named.insert(0, "first", [f"{pd.Timestamp(start):%Y-%m-%d}" for start in wide.index])
    columns = [PageColumn("first", f"{period.capitalize()} from", "name"), PageColumn("size", "Customers")]
    columns += [PageColumn(f"after_{periods}", f"{periods} later", "share") for periods in wide.columns]
    caption = f"Share of customers active, by {period} after the first."
    return Table(named, columns, caption, summary="The triangle as a table")


def _comparison(comparison: MapComparison) -> PageSection:
    title, how = comparison_words(comparison)
    blocks: list[PageBlock] = [Sentences(comparison.sentences, ordered=True)] if comparison.sentences else []
    tables: Sequence[tuple[str, pd.DataFrame, tuple[str, ...]]] = (
        ("Who goes on to the next stage", comparison.funnel[comparison.funnel["rate_a"].notna()], ("stage",)),
        ("Who meets a touchpoint", comparison.touchpoints, ("touchpoint",)),
        ("Who moves from one touchpoint to another", comparison.transitions, ("source", "target")),
    )
    for name, frame, heads in tables:
        if not len(frame):
            continue
        blocks.append(Heading(name))
        if (frame["q_value"] < SURE).any():
            blocks.append(side_by_side(frame, comparison.names, heads))
        if heads != ("stage",):  # stages stay in their order; of the others the surest differences come first
            frame = frame.assign(size=-frame["difference"].abs()).sort_values(["q_value", "size"], kind="stable")
        columns = comparison_columns(heads, comparison.names)
        blocks.append(Table(frame, columns, f"{name}, in both groups.", MOST_COMPARED))
    return PageSection("comparison", title, blocks, how)


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

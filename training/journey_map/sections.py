"""The sections of the journey map's page, one function each: how to read it, its picture, its table."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from features.journey_map.comparison import MapComparison
from features.journey_map.tables import JourneyMap
from training.journey_map.figures import cohorts, funnel, influence, side_by_side, step_matrix
from training.journey_map.findings import findings
from training.journey_map.graph import transition_graph
from training.journey_map.sankey import sankey
from training.journey_map.theme import MapFigure, colours
from training.journey_map.words import (
    FLOWS,
    HOW,
    INFLUENCE,
    MOVES,
    PAINS,
    PATHS,
    STAGES,
    TOUCHPOINTS,
    WORDS,
    compared_table,
    compared_tables,
    comparison_head,
)
from training.reports.html import Column, escape, table

MOST_MOVES, MOST_TOUCHPOINTS, MOST_PAINS, MOST_CREDITED = 100, 200, 50, 30
WAITING = "The picture is being drawn. It needs JavaScript; the tables of this page hold the same figures."
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


@dataclass(frozen=True)
class Part:
    """A section of the page.

    Attributes:
        id: its anchor.
        title: its heading.
        how: how to read it, HTML.
        body: HTML.
        figures: pictures that stand in the body.
    """

    id: str
    title: str
    how: str
    body: str
    figures: tuple[MapFigure, ...] = ()


def parts(drawn: JourneyMap, text: MapText, comparison: MapComparison | None = None) -> list[Part]:
    """The sections that have something to show, in the order of the page."""
    colour_of, meanings = colours(drawn.touchpoints, drawn.funnel["stage"].astype(str).tolist())
    every = [
        _findings(drawn, text),
        _funnel(drawn.funnel),
        _flows(drawn.sankey, colour_of, meanings),
        _graph(drawn, colour_of, meanings),
        _steps(drawn.step_matrix),
        _paths(drawn.paths),
        _touchpoints(drawn.touchpoints),
        _pains(drawn.pain_points),
        _influence(drawn.influence),
        _cohorts(drawn.cohorts, text.cohort),
        _comparison(comparison) if comparison is not None else None,
        _words(drawn.notes, text.notes),
    ]
    return [part for part in every if part is not None]


def figure_html(figure: MapFigure) -> str:
    """The place of a picture, with its key and its slider."""
    key = "".join(
        f'<li><span style="background:var(--{colour[1:]})"></span>{escape(name)}</li>'
        for colour, name in (figure.key or {}).items()
    )
    says, tall = html.escape(figure.says, quote=True), figure.wide["layout"]["height"]
    return (
        f"<figure>{_slider(figure)}{f'<ul class=key>{key}</ul>' if key else ''}"
        f'<div class="roll" role="group" aria-label="A picture, wider than a phone" tabindex="0">'
        f'<div class="canvas waiting" role="img" aria-label="{says}" data-figure="{figure.name}" '
        f'style="min-height:{tall}px">{WAITING}</div></div></figure>'
    )


def _slider(figure: MapFigure) -> str:
    if figure.filter is None:
        return ""
    before, after = figure.filter.says.split("{}")
    name, chosen = figure.name, figure.filter
    return (
        f'<div class="filter"><label for="slide-{name}">{before}<output data-of="{name}">'
        f"{chosen.levels[chosen.first]:,}</output>{after}</label>"
        f'<input type="range" id="slide-{name}" data-filter="{name}" min="0" step="1" '
        f'max="{len(chosen.levels) - 1}" value="{chosen.first}"></div>'
    )


def _folded(summary: str, body: str) -> str:
    return f"<details><summary>{summary}</summary>{body}</details>"


def _findings(drawn: JourneyMap, text: MapText) -> Part:
    items = "".join(f"<li>{escape(one)}</li>" for one in findings(drawn, text.goals, text.cohort))
    return Part("findings", "Main findings", "", f'<ol class="findings">{items}</ol>')


def _funnel(frame: pd.DataFrame) -> Part | None:
    if frame.empty:
        return None
    drawn = funnel(frame)
    body = figure_html(drawn) + table(frame, STAGES, "The funnel, stage by stage.")
    return Part("funnel", "Stages", HOW["funnel"], body, (drawn,))


def _flows(frame: pd.DataFrame, colour_of: dict[str, int], meanings: dict[int, str]) -> Part | None:
    if frame.empty:
        return None
    drawn = sankey(frame, colour_of, meanings)
    rows = table(frame, FLOWS, "Streams between steps.", most=MOST_MOVES)
    body = figure_html(drawn) + _folded("The streams as a table", rows)
    return Part("flows", "Step by step", HOW["flows"], body, (drawn,))


def _graph(whole: JourneyMap, colour_of: dict[str, int], meanings: dict[int, str]) -> Part | None:
    frame = whole.transitions
    if frame.empty:
        return None
    drawn = transition_graph(frame, whole.touchpoints, colour_of, meanings)
    ranked = frame.sort_values("count", ascending=False, kind="stable")
    rows = table(ranked, MOVES, "Moves from one touchpoint to the next.", most=MOST_MOVES)
    body = figure_html(drawn) + _folded("The moves as a table", rows)
    return Part("moves", "How touchpoints lead to each other", HOW["moves"], body, (drawn,))


def _steps(matrix: pd.DataFrame) -> Part | None:
    if matrix.empty:
        return None
    drawn = step_matrix(matrix)
    frame = matrix.set_axis([f"step_{one}" for one in matrix.columns], axis=1)
    frame.insert(0, "touchpoint", [str(one) for one in matrix.index])
    steps = [Column(f"step_{one}", f"Step {one}", "share") for one in matrix.columns]
    rows = table(frame, [Column("touchpoint", "Touchpoint", "name"), *steps], "Share of customers at each step.")
    body = figure_html(drawn) + _folded("The grid as a table", rows)
    return Part("steps", "Where customers are at each step", HOW["steps"], body, (drawn,))


def _paths(frame: pd.DataFrame) -> Part | None:
    if frame.empty:
        return None
    return Part("paths", "The most common paths", HOW["paths"], table(frame, PATHS, "The most common paths."))


def _touchpoints(frame: pd.DataFrame) -> Part | None:
    if frame.empty:
        return None
    ranked = frame.sort_values("customers", ascending=False, kind="stable")
    body = table(ranked, TOUCHPOINTS, "Every touchpoint, the most used first.", most=MOST_TOUCHPOINTS)
    return Part("touchpoints", "Touchpoints", HOW["touchpoints"], body)


def _pains(frame: pd.DataFrame) -> Part:
    body = '<p class="note">Nothing stands out from the rest.</p>'
    if len(frame):
        body = table(frame, PAINS, "Pain points, the weightiest first.", most=MOST_PAINS)
    return Part("pain-points", "Pain points", HOW["pain-points"], body)


def _influence(frame: pd.DataFrame) -> Part | None:
    drawn: list[MapFigure] = []
    body = ""
    for level in ("channel", "touchpoint"):
        rows = frame[frame["level"] == level].sort_values("markov_share", ascending=False, kind="stable")
        if len(rows):
            drawn.append(influence(rows, level))
            told = table(rows, INFLUENCE, f"Influence by {level}.", most=MOST_CREDITED)
            body += f"<h3>By {level}</h3>{figure_html(drawn[-1])}{told}"
    return Part("influence", "What leads to the goal", HOW["influence"], body, tuple(drawn)) if body else None


def _cohorts(frame: pd.DataFrame, period: str) -> Part | None:
    if not (frame["period"] > 0).any():
        return None
    drawn = cohorts(frame, period)
    body = figure_html(drawn) + _folded("The triangle as a table", _triangle(frame, period))
    return Part("cohorts", "Who comes back", HOW["cohorts"].format(period=period), body, (drawn,))


def _triangle(frame: pd.DataFrame, period: str) -> str:
    wide = frame[frame["period"] > 0].pivot(index="cohort", columns="period", values="retention")
    named = wide.set_axis([f"after_{one}" for one in wide.columns], axis=1)
    named.insert(0, "size", frame.groupby("cohort")["size"].max().loc[wide.index])
    named.insert(0, "first", [f"{pd.Timestamp(one):%Y-%m-%d}" for one in wide.index])
    columns = [Column("first", f"{period.capitalize()} from", "name"), Column("size", "Customers")]
    columns += [Column(f"after_{one}", f"{one} later", "share") for one in wide.columns]
    return table(named, columns, f"Share of customers active, by {period} after the first.")


def _comparison(comparison: MapComparison) -> Part:
    title, how = comparison_head(comparison)
    said = "".join(f"<li>{escape(one)}</li>" for one in comparison.sentences)
    body = f'<ol class="findings">{said}</ol>' if said else ""
    drawn: list[MapFigure] = []
    for name, frame, heads in compared_tables(comparison):
        picture = ""
        if (frame["q_value"] < SURE).any():
            drawn.append(side_by_side(frame, comparison.names, heads))
            picture = figure_html(drawn[-1])
        body += f"<h3>{name}</h3>{picture}{compared_table(frame, heads, comparison.names, name)}"
    return Part("comparison", title, how, body, tuple(drawn))


def _words(notes: Sequence[str], more: Sequence[str]) -> Part:
    told = "".join(f'<p class="note">{escape(one)}</p>' for one in dict.fromkeys([*notes, *more]))
    terms = "".join(f"<dt>{escape(word)}</dt><dd>{escape(says)}</dd>" for word, says in WORDS.items())
    return Part("words", "What to know", "", f'{told}<dl class="words">{terms}</dl>')

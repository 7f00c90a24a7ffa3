"""The journey map's main pictures as PNG, in the style of all pictures: for MLflow, reports and slides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import FuncFormatter

from features.errors import DataError
from features.journey_map.tables import JourneyMap
from training.journey_map.figures import LIKELIEST_ROWS, MEASURES, MOST_COHORTS
from training.journey_map.findings import said_dates
from training.journey_map.graph import END, START, backbone, main_moves, place
from training.journey_map.ribbons import flows
from training.reports.html import clean, count, share, shortened
from training.reports.picture_style import BACKGROUND, COLOURS, FAINT, INK, new_axes, percent, save, write_legend

NAME = 30  # letters of a name
MOVES = 40  # arrows in the graph
GRAPH_NODES = 16
MARKERS = ("o", "s", "^", "D")


def draw_map(journey_map: JourneyMap, folder: Path, period: str = "month") -> list[Path]:
    """Draw what the map has tables for.

    Args:
        journey_map: the map.
        folder: made if absent; files of the same names are replaced.
        period: of the cohorts.

    Returns:
        Paths of funnel.png, flows.png, moves.png, steps.png, influence_channel.png, influence_touchpoint.png,
        pain_points.png and cohorts.png, as far as there are figures for them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    summary = journey_map.summary
    said = f"{summary['customers']:,} customers, {said_dates(summary)}"
    figures: dict[str, Figure] = {}
    if len(journey_map.funnel):
        figures["funnel"] = funnel(journey_map.funnel, said)
    if len(journey_map.sankey):
        figures["flows"] = flows(journey_map.sankey, said)
    if len(journey_map.transitions):
        figures["moves"] = moves(journey_map.transitions, said)
    if journey_map.step_matrix.size:
        figures["steps"] = steps(journey_map.step_matrix, said)
    for level, rows in journey_map.influence.groupby("level", sort=False):
        figures[f"influence_{level}"] = influence(rows, said)
    if len(journey_map.pain_points):
        figures["pain_points"] = pain_points(journey_map.pain_points, said)
    if (journey_map.cohorts["period"] > 0).any():
        figures["cohorts"] = cohorts(journey_map.cohorts, said, period)
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def funnel(frame: pd.DataFrame, said: str) -> Figure:
    """Customers by stage, and which share came on from the stage before.

    Raises:
        DataError: a map without stages.
    """
    if frame.empty:
        raise DataError(
            "The map has no stages to draw: give touchpoints a stage ([events.stages] in the experiment file), or name "
            "the funnel's own with MapSettings(stages=(…))."
        )
    figure, axes = new_axes("Stages: how many come how far", said, height=1.6 + 0.6 * len(frame))
    customers = frame["customers"].to_numpy(np.float64)
    rates = np.array([math.nan, *frame["conversion"].to_numpy(np.float64)[:-1]])
    _bars(axes, [shortened(one, NAME) for one in frame["stage"]], customers)
    for row, (n, rate) in enumerate(zip(customers, rates, strict=True)):
        came = f", {share(rate)} of the stage before" if row and math.isfinite(rate) else ""
        _beside(axes, float(n), row, f"{count(float(n))}{came}")
    axes.set_xlim(0, max(float(customers.max()), 1) * 1.5)
    return figure


def _bars(axes: Axes, names: Sequence[str], values: npt.NDArray[np.float64]) -> None:
    axes.barh(range(len(names)), values, color=COLOURS[0], height=0.7)
    _down(axes, names)
    axes.grid(False)
    axes.tick_params(axis="both", length=0, labelbottom=False)
    axes.spines["bottom"].set_visible(False)


def _down(axes: Axes, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), [_plain(name) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)


def _plain(name: str) -> str:
    return name.replace("$", r"\$")  # matplotlib would read a formula


def _beside(axes: Axes, x: float, y: float, text: str) -> None:
    axes.annotate(text, (x, y), (5, 0), textcoords="offset points", va="center", fontsize=10, color=INK)


def steps(matrix: pd.DataFrame, said: str) -> Figure:
    """The step matrix as a grid."""
    likely = set(matrix.max(axis=1).sort_values(ascending=False, kind="stable").index[:LIKELIEST_ROWS])
    shown = matrix.loc[[row for row in matrix.index if row in likely]]
    rows, columns = [str(one) for one in shown.index], [str(one) for one in shown.columns]
    values = shown.to_numpy(np.float64)
    values = np.where(values > 0, values, np.nan)  # nobody there: an empty cell
    figure = _grid("Where customers are at each step", said, values, rows, columns)
    figure.axes[0].set_xlabel("Step of the journey")
    return figure


def cohorts(frame: pd.DataFrame, said: str, period: str) -> Figure:
    """The triangle of retention."""
    starts = sorted(frame["cohort"].unique())[-MOST_COHORTS:]
    later = frame[(frame["period"] > 0) & (frame["period"] <= MOST_COHORTS)]
    wide = later.pivot(index="cohort", columns="period", values="retention").reindex(starts)
    sizes = frame.groupby("cohort")["size"].max()
    rows = [f"{pd.Timestamp(one):%Y-%m-%d} ({int(sizes[one]):,})" for one in wide.index]
    title = "Who comes back: share of customers active again"
    figure = _grid(title, said, wide.to_numpy(np.float64), rows, [str(one) for one in wide.columns])
    figure.axes[0].set_xlabel(f"{period}s after the first; in brackets, customers first seen in that {period}")
    return figure


def _grid(
    title: str, said: str, values: npt.NDArray[np.float64], rows: Sequence[str], columns: Sequence[str]
) -> Figure:
    """Shares as colours, and as figures where there is room."""
    figure, axes = new_axes(title, said, height=1.7 + 0.27 * len(rows))
    top = float(np.nanmax(values)) if np.isfinite(values).any() else 1.0
    colours = mpl.colormaps["cividis"]
    axes.pcolormesh(
        np.ma.masked_invalid(values), cmap=colours, vmin=0, vmax=top or 1.0, edgecolors=BACKGROUND, linewidth=1
    )
    axes.set_xticks(np.arange(len(columns)) + 0.5, columns)
    axes.set_yticks(np.arange(len(rows)) + 0.5, [_plain(shortened(row, NAME)) for row in rows])
    axes.set_ylim(len(rows), 0)
    axes.grid(False)
    axes.tick_params(length=0)
    for i, j in zip(*np.nonzero(np.isfinite(values)), strict=True) if len(columns) <= 13 else ():
        ink = INK if values[i, j] > 0.55 * top else BACKGROUND
        axes.text(j + 0.5, i + 0.5, share(values[i, j]), ha="center", va="center", fontsize=7.5, color=ink)
    if len(columns) > 13:
        axes.set_xticks(np.arange(0, len(columns), 4) + 0.5, columns[::4])
    return figure


def influence(rows: pd.DataFrame, said: str, most: int = 12) -> Figure:
    """Shares of the conversions by four rules of credit, for the channels or touchpoints in `rows`."""
    shown = rows.sort_values("markov_share", ascending=False, kind="stable").head(most)
    level = str(shown["level"].iloc[0])
    figure, axes = new_axes(f"What leads to the goal, by {level}", said, height=2.0 + 0.36 * len(shown))
    lines: list[tuple[str, dict[str, Any]]] = []
    for part, (column, says) in enumerate(MEASURES.items()):
        style: dict[str, Any] = {
            "color": COLOURS[part],
            "marker": MARKERS[part],
            "linestyle": "none",
            "markersize": 8,
            "alpha": 0.9,
        }
        axes.plot(shown[column].to_numpy(np.float64), np.arange(len(shown)), **style)
        lines.append((says, style))
    _down(axes, [shortened(one, NAME) for one in shown["name"]])
    axes.set_xlim(0, None)
    axes.xaxis.set_major_formatter(FuncFormatter(percent))
    axes.set_xlabel("Share of the conversions")
    write_legend(axes, "", lines, right=True, top=False)
    return figure


def pain_points(frame: pd.DataFrame, said: str, most: int = 15) -> Figure:
    """How much worse the rate is than elsewhere, with its interval."""
    shown = frame.head(most)
    figure, axes = new_axes("Pain points, against the rest", said, height=1.9 + 0.36 * len(shown))
    at, kinds = np.arange(len(shown)), list(dict.fromkeys(frame["kind"]))
    low, high = shown["difference_low"].to_numpy(np.float64), shown["difference_high"].to_numpy(np.float64)
    for row, (kind, value) in enumerate(zip(shown["kind"], shown["difference"], strict=True)):
        colour = COLOURS[kinds.index(kind) % len(COLOURS)]
        axes.hlines(row, low[row], high[row], color=colour, linewidth=2)
        axes.plot(value, row, marker=MARKERS[kinds.index(kind) % 4], color=colour, markersize=8)
    axes.axvline(0, color=FAINT, linewidth=1)
    told = zip(shown["touchpoint"], shown["kind"], strict=True)
    _down(axes, [f"{shortened(name, NAME)}: {kind}" for name, kind in told])
    axes.set_ylim(len(at) - 0.4, -0.6)
    axes.xaxis.set_major_formatter(FuncFormatter(percent))
    axes.set_xlabel("Difference between the rates, with 95% intervals")
    return figure


def moves(transitions: pd.DataFrame, said: str) -> Figure:
    """The graph of moves between the touchpoints that are moved to most, from left to right."""
    known = main_moves(transitions, GRAPH_NODES)
    placed = place(known, 4, 6)
    figure, axes = new_axes("How touchpoints lead to each other", said, height=6.2)
    points = np.stack([placed.layer, -placed.across + np.where(placed.layer % 2, 0.15, -0.15)], axis=1)
    at = dict(zip(placed.names, points, strict=True))
    between, always = known[known["source"] != known["target"]], backbone(known)
    main = [pair in always for pair in zip(between["source"], between["target"], strict=True)]
    shown = between[np.array(main, bool) | (np.arange(len(between)) < MOVES)]
    most = float(shown["count"].max()) if len(shown) else 1.0
    for move in reversed(shown.to_dict("records")):
        a, b = at[move["source"]], at[move["target"]]
        colour = COLOURS[0] if (b[0], move["target"]) > (a[0], move["source"]) else COLOURS[1]
        wide = 0.6 + 5 * math.sqrt(move["count"] / most)
        arrow = FancyArrowPatch(
            tuple(a), tuple(b), connectionstyle="arc3,rad=-0.18", arrowstyle="-|>", mutation_scale=8 + wide,
            shrinkA=7, shrinkB=8, color=colour, alpha=0.6, linewidth=wide,
        )  # fmt: skip
        axes.add_patch(arrow)
    grey = [FAINT if name in (START, END) else INK for name in placed.names]
    axes.scatter(points[:, 0], points[:, 1], s=90, color=grey, zorder=4, edgecolors=BACKGROUND)
    for name, (x, y) in at.items():
        text = axes.annotate(_plain(_two_lines(name)), (x, y), (0, -7), textcoords="offset points", zorder=5)
        text.set(ha="center", va="top", fontsize=7.5, color=INK)
        text.set(bbox={"facecolor": BACKGROUND, "edgecolor": "none", "alpha": 0.75, "pad": 0.5})
    axes.set_xlim(-0.6, float(placed.layer.max()) + 0.6)
    axes.set_ylim(points[:, 1].min() - 0.6, points[:, 1].max() + 0.4)
    axes.set_axis_off()
    return figure


def _two_lines(name: str, letters: int = 16) -> str:
    text = clean(name)
    cut = max((i + 1 for i, one in enumerate(text[:letters]) if one in " _-/.:"), default=letters)
    return text if len(text) <= letters else f"{text[:cut].rstrip()}\n{shortened(text[cut:], letters)}"

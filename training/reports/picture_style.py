"""The one style of every picture: background, ink, colours, legends and labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

# M. Okabe and K. Ito, "Color Universal Design" (2008): distinct with any colour vision; yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 3)))
INK, FAINT, BACKGROUND = "#222222", "#8C8C8C", "#FFFFFF"  # opaque paper: a picture reads the same on a dark page

Label = tuple[float, str, str]  # where, text, colour


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG without a date or version in it: the same figures give the same bytes."""
    FigureCanvasAgg(figure)
    figure.savefig(path, metadata={"Software": None})
    return path


def new_axes(title: str, subtitle: str, height: float = 5.4, width: float = 7.2) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, a title, and a line that says which rows it is about."""
    figure = Figure(figsize=(width, height), dpi=150, facecolor=BACKGROUND, layout="constrained")
    axes = figure.add_subplot()
    _style(axes)
    _title(axes, title, subtitle)
    return figure, axes


def time_axes(title: str, subtitle: str) -> tuple[Figure, Axes, Axes]:
    """Two pairs of axes over one axis of time, the upper one larger."""
    figure = Figure(figsize=(7.2, 6.2), dpi=150, facecolor=BACKGROUND, layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 2))
    above = figure.add_subplot(grid[0])
    below = figure.add_subplot(grid[1], sharex=above)
    locator = AutoDateLocator(minticks=3, maxticks=8)  # type: ignore[no-untyped-call]
    for axes in (above, below):
        _style(axes)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))  # type: ignore[no-untyped-call]
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    above.tick_params(axis="x", labelbottom=False)
    _title(above, title, subtitle)
    return figure, above, below


def stacked_axes(title: str, subtitle: str, count: int) -> tuple[Figure, list[Axes]]:
    """`count` pairs of axes below each other, each with an axis of its own, under one title."""
    figure = Figure(figsize=(7.2, 2.0 + 3.0 * count), dpi=150, facecolor=BACKGROUND, layout="constrained")
    every = [figure.add_subplot(count, 1, place + 1) for place in range(count)]
    for axes in every:
        _style(axes)
        axes.xaxis.set_major_locator(MaxNLocator(8, integer=True))
        axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    _title(every[0], title, subtitle)
    return figure, every


def _style(axes: Axes) -> None:
    axes.set_facecolor(BACKGROUND)
    axes.grid(True, color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=10, color=FAINT)
    axes.xaxis.label.set(color=INK, fontsize=11)
    axes.yaxis.label.set(color=INK, fontsize=11)


def _title(axes: Axes, title: str, subtitle: str) -> None:
    """Title and subtitle at the left of the axes; they may reach past its right end without squeezing it."""
    axes.set_title(title + "\n", loc="left", fontsize=13, fontweight="bold", color=INK)
    below = axes.annotate(subtitle, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points")
    below.set(fontsize=10, color=INK, in_layout=False)


def line_style(place: int) -> dict[str, Any]:
    """The line of the model at this place: the first is strong, the others differ in dash as well as in colour."""
    return {
        "color": COLOURS[place],
        "linestyle": DASHES[place],
        "linewidth": 2.4 if place == 0 else 1.5,
        "zorder": 4 if place == 0 else 3,
    }


def curve(axes: Axes, table: pd.DataFrame, x: str, y: str, place: int) -> None:
    """A line of a table; the first model gets its band from `<y>_low` and `<y>_high`."""
    axes.plot(table[x].to_numpy(), table[y].to_numpy(), **line_style(place))
    if place == 0 and f"{y}_low" in table:
        band = table[x].to_numpy(), table[f"{y}_low"].to_numpy(), table[f"{y}_high"].to_numpy()
        axes.fill_between(*band, color=COLOURS[0], alpha=0.18, linewidth=0)


def share_axes(axes: Axes, x: str, y: str, end: float = 1.0) -> None:
    """Both axes from 0 to `end`, with a hair of room so that lines along the frame stay visible."""
    axes.set(xlabel=x, ylabel=y, xlim=(-0.01 * end, 1.01 * end), ylim=(-0.01 * end, 1.01 * end))


def percent(value: float, _: Any = None) -> str:
    """A share as a tick label: 5%, 12.5%."""
    return f"{value:.0%}" if abs(value * 100 - round(value * 100)) < 1e-6 else f"{value:.1%}"


def write_legend(
    axes: Axes, heading: str, lines: Sequence[tuple[str, dict[str, Any]]], *, right: bool, top: bool
) -> None:
    """Lines of text in one corner, each after a sample of its line; `heading` stands over them."""
    corner: Any = ("upper " if top else "lower ") + ("right" if right else "left")
    key = axes.legend(
        [Line2D([], [], **style) for _, style in lines],
        [text for text, _ in lines],
        loc=corner,
        title=heading,
        fontsize=10,
        title_fontsize=10,
        alignment="left",
        handlelength=2.6,
        labelcolor=INK,
        framealpha=0.85,
        edgecolor="none",
        facecolor=BACKGROUND,
    )
    key.get_title().set_color(INK)


def label_ends(axes: Axes, labels: Sequence[Label], lines_gap: float) -> None:
    """Names at the right end of their lines, pushed apart where they would touch."""
    defined = sorted((label for label in labels if np.isfinite(label[0])), key=lambda label: label[0])
    low, high = axes.get_ylim()
    places = spread([value for value, _, _ in defined], lines_gap * (high - low))
    for place, (_, name, colour) in zip(places, defined, strict=True):
        axes.annotate(
            name,
            (1, place),
            (6, 0),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            va="center",
            color=colour,
            fontsize=10,
        )


def spread(values: Sequence[float], gap: float) -> list[float]:
    """Rising values moved as little as it takes to be `gap` apart.

    >>> spread([0.0, 0.1, 5.0], gap=1.0)
    [-0.45, 0.55, 5.0]
    """
    blocks: list[tuple[float, int]] = []  # (centre, how many)
    for value in values:
        blocks.append((value, 1))
        while len(blocks) > 1 and blocks[-1][0] - blocks[-2][0] < gap * (blocks[-1][1] + blocks[-2][1]) / 2 - 1e-12:
            (second, n_second), (first, n_first) = blocks.pop(), blocks.pop()
            blocks.append(((first * n_first + second * n_second) / (n_first + n_second), n_first + n_second))
    return [centre + gap * (place - (count - 1) / 2) for centre, count in blocks for place in range(count)]

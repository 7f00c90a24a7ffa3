"""The Sankey of a journey map in matplotlib: bars of touchpoints at each step, ribbons of customers between them."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from training.reports.html import shortened
from training.reports.picture_style import COLOURS, FAINT, INK, new_axes

STEPS = 4
BAR, GAP = 0.06, 0.035  # width of a bar in steps; room between bars as a share of the height
Node = tuple[int, str]


def flows(frame: pd.DataFrame, said: str) -> Figure:
    """Customers between the touchpoints of the first steps.

    Args:
        frame: `step, source, target, customers`.
        said: which rows it is about.
    """
    figure, axes = new_axes("Step by step: which way customers go", said, height=6.0)
    draw_flows(axes, frame)
    return figure


def draw_flows(axes: Axes, frame: pd.DataFrame, steps: int = STEPS, ink: str = INK, size_pt: float = 7.5) -> None:
    """The same on axes of a larger picture.

    Args:
        axes: to draw on; they lose their frame.
        frame: `step, source, target, customers`.
        steps: how many.
        ink: colour of the names.
        size_pt: size of the names, points.
    """
    shown = frame[frame["step"] < steps]
    size = _sizes(shown)
    colour = _colours(size)
    top = _tops(size)
    left, right = dict(top), dict(top)
    for row in shown.to_dict("records"):
        a, b = (int(row["step"]), str(row["source"])), (int(row["step"]) + 1, str(row["target"]))
        n = float(row["customers"])
        _ribbon(axes, a[0] + BAR, b[0], right[a], left[b], n, colour[a[1]])
        right[a] -= n
        left[b] -= n
    for node, n in size.items():
        axes.fill_between([node[0], node[0] + BAR], top[node] - n, top[node], color=colour[node[1]], linewidth=0)
    _names(axes, size, top, ink, size_pt)
    axes.set_axis_off()
    axes.set_xlim(min((step for step, _ in size), default=1) - 0.02, max((step for step, _ in size), default=2) + 0.75)


def _sizes(shown: pd.DataFrame) -> dict[Node, float]:
    """Customers of each node: what comes in or goes out, whichever is more."""
    into: dict[Node, float] = defaultdict(float)
    out: dict[Node, float] = defaultdict(float)
    for row in shown.to_dict("records"):
        out[int(row["step"]), str(row["source"])] += float(row["customers"])
        into[int(row["step"]) + 1, str(row["target"])] += float(row["customers"])
    return {node: max(into[node], out[node]) for node in sorted({*into, *out})}


def _colours(size: dict[Node, float]) -> dict[str, str]:
    """The touchpoints with most customers have a colour each."""
    whole: dict[str, float] = defaultdict(float)
    for (_, name), n in size.items():
        whole[name] += n
    ranked = [name for name in sorted(whole, key=lambda one: (-whole[one], one)) if name not in ("end", "other")]
    return {
        name: COLOURS[place] if place < len(COLOURS) else FAINT for place, name in enumerate(ranked)
    } | dict.fromkeys(("end", "other"), FAINT)


def _tops(size: dict[Node, float]) -> dict[Node, float]:
    """Where the upper end of each bar is: the largest above, the end below."""
    tallest = max((sum(n for (at, _), n in size.items() if at == step) for step, _ in size), default=1.0)
    top: dict[Node, float] = {}
    for step in sorted({step for step, _ in size}):
        column = [node for node in size if node[0] == step]
        height = 0.0
        for node in sorted(column, key=lambda one: (one[1] == "end", -size[one], one[1])):
            top[node] = height
            height -= size[node] + GAP * tallest
    return top


def _ribbon(axes: Axes, x0: float, x1: float, y0: float, y1: float, n: float, colour: str) -> None:
    t = np.linspace(0, 1, 24)
    bend = t * t * (3 - 2 * t)
    upper = y0 + (y1 - y0) * bend
    axes.fill_between(x0 + (x1 - x0) * t, upper - n, upper, color=colour, alpha=0.35, linewidth=0)


def _names(axes: Axes, size: dict[Node, float], top: dict[Node, float], ink: str, size_pt: float) -> None:
    """Names of the bars that are tall enough for one line."""
    whole = max(size.values(), default=1.0)
    for node, n in size.items():
        if n < 0.012 * whole:
            continue
        text = f"{shortened(node[1], 20)} {n:,.0f}".replace("$", r"\$")
        axes.annotate(
            text,
            (node[0] + BAR, top[node] - n / 2),
            (3, 0),
            textcoords="offset points",
            va="center",
            fontsize=size_pt,
            color=ink,
        )

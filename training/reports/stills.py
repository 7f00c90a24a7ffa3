"""Interactive pictures as PNG, for MLflow, reports and slides: matplotlib draws the very data that plotly draws.

It understands what our pictures use: bars, grids, dots, lines, arrows, Sankeys; names, ranges and notes of a layout.
"""

from __future__ import annotations

import html
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from matplotlib.ticker import FuncFormatter

from training.reports.interactive import THEMES, Form, InteractiveFigure, bar_layout, painted
from training.reports.picture_style import new_axes, percent, write_legend

PT = 0.75  # points in a px
BAR = 0.012  # width of a Sankey's bar, as a share of the picture
MARKERS = {"circle": "o", "square": "s", "triangle-up": "^", "diamond": "D"}


def still(figure: InteractiveFigure, title: str, subtitle: str, width: float = 7.2) -> Figure:
    """The wide form of a picture, drawn; `picture_style.save` writes it as PNG.

    Args:
        figure: the picture.
        title: over it.
        subtitle: which rows it is about.
        width: inches.
    """
    drawn, axes = new_axes(title, subtitle, 1.0 + figure.wide["layout"]["height"] / 100, width)
    draw_form(axes, figure.wide, figure.filter.levels[figure.filter.first] if figure.filter else 0)
    return drawn


def draw_form(axes: Axes, form: Form, least: int = 0, scheme: str = "light") -> None:
    """Draw a form on axes.

    Args:
        axes: to draw on.
        form: data and layout for plotly.
        least: what counts less is hidden, as the page's slider does.
        scheme: "light" or "dark".
    """
    form = painted(form, THEMES[scheme])
    size_pt = form["layout"]["font"]["size"] * PT
    axes.grid(False)
    for trace in form["data"]:
        if trace["type"] == "bar":
            _draw_bars(axes, trace, size_pt)
        elif trace["type"] == "heatmap":
            _draw_grid(axes, trace)
        elif trace["type"] == "sankey":
            _draw_sankey(axes, trace, form["layout"], least)
        elif trace.get("meta", least) >= least:
            _draw_points(axes, trace)
    _dress(axes, form["layout"], size_pt)
    if form["layout"]["showlegend"]:
        named = [trace for trace in form["data"] if trace.get("showlegend", True)]
        write_legend(axes, "", [(_text(trace["name"]), _marker(trace)) for trace in named], right=True, top=False)


def _text(name: Any) -> str:
    """A label of plotly's as matplotlib reads it, which would take dollars for a formula."""
    return html.unescape(str(name).replace("<br>", "\n")).replace("$", r"\$")


def _dress(axes: Axes, layout: Form, size_pt: float) -> None:
    """Ticks, ranges and notes of a layout."""
    for side, along in (("xaxis", axes.xaxis), ("yaxis", axes.yaxis)):
        settings: Form = layout.get(side, {"visible": False})
        limits, visible = (axes.set_xlim, axes.set_ylim)[side == "yaxis"], settings.get("visible", True)
        if "ticktext" in settings:
            along.set_ticks(settings["tickvals"], [_text(text) for text in settings["ticktext"]])
        elif settings.get("tickformat"):
            along.set_major_formatter(FuncFormatter(percent))
        if "title" in settings:
            along.set_label_text(settings["title"]["text"])
        if "range" in settings:
            limits(*settings["range"])
        elif settings.get("autorange") == "reversed":
            limits(len(settings["tickvals"]) - 0.4, -0.6)
        along.set_visible(visible)
        axes.spines["bottom" if side == "xaxis" else "left"].set_visible(visible)
    axes.tick_params(axis="both", length=0, labelsize=size_pt)
    if "xaxis" not in layout:
        axes.set_axis_off()
    for note in layout.get("annotations", ()):
        text = axes.annotate(
            _text(note["text"]), (note["x"], note["y"]), (0, PT * note["yshift"]), textcoords="offset points", zorder=5
        )
        text.set(ha="center", va="top", fontsize=note["font"]["size"] * PT)
        text.set(color=note["font"]["color"])
        text.set_bbox({"facecolor": note["bgcolor"], "edgecolor": "none", "pad": 0.5})


def _draw_bars(axes: Axes, trace: Form, size_pt: float) -> None:
    axes.barh(trace["y"], trace["x"], color=trace["marker"]["color"], height=0.7)
    for x, y, text in zip(trace["x"], trace["y"], trace["text"], strict=True):
        axes.annotate(_text(text), (x, y), (5, 0), textcoords="offset points", va="center", fontsize=size_pt)


def _draw_grid(axes: Axes, trace: Form) -> None:
    values = np.array(trace["z"], np.float64)
    rows, columns = values.shape
    colours = mpl.colormaps[trace["colorscale"].lower()]
    mesh = axes.pcolormesh(
        np.arange(columns + 1) - 0.5, np.arange(rows + 1) - 0.5, np.ma.masked_invalid(values), cmap=colours,
        vmin=trace["zmin"], vmax=trace["zmax"] or 1.0, edgecolors="white", linewidth=1,
    )  # fmt: skip
    if trace["showscale"] and axes.figure:
        axes.figure.colorbar(mesh, ax=axes, format=FuncFormatter(percent), shrink=0.6)
    for (i, j), value in np.ndenumerate(values) if "text" in trace else ():
        dark = not value > 0.55 * trace["zmax"]
        size, colour = trace["textfont"]["size"] * PT * 0.9, "white" if dark else "black"
        axes.text(j, i, _text(trace["text"][i][j]), ha="center", va="center", fontsize=size, color=colour)


def _marker(trace: Form) -> dict[str, Any]:
    marker = trace["marker"]
    style = {"color": marker["color"], "marker": MARKERS[marker.get("symbol", "circle")], "linestyle": "none"}
    return style | {"markersize": 8, "alpha": 0.9}


def _draw_points(axes: Axes, trace: Form) -> None:
    """Dots, lines between them, or an arrow from the first point to the last."""
    marker = trace.get("marker", {})
    x, y = (np.array(trace[name], np.float64) for name in "xy")
    if marker.get("symbol") == "arrow":
        _draw_arrow(axes, trace, x, y)
    elif trace["mode"] == "lines":
        axes.plot(x, y, color=trace["line"]["color"], linewidth=trace["line"]["width"])
    elif isinstance(marker["size"], list):
        axes.scatter(x, y, s=(np.array(marker["size"]) * PT) ** 2, color=marker["color"], edgecolors="white", zorder=4)
    else:
        axes.plot(x, y, **_marker(trace))


def _draw_arrow(axes: Axes, trace: Form, x: Any, y: Any) -> None:
    along = np.array([x[-1] - x[0], y[-1] - y[0]])
    middle = len(x) // 2
    aside = np.array([x[middle] - (x[0] + x[-1]) / 2, y[middle] - (y[0] + y[-1]) / 2])
    bend = 2 * float(along[1] * aside[0] - along[0] * aside[1]) / max(float(along @ along), 1e-12)
    width = trace["line"]["width"] * PT
    axes.add_patch(
        FancyArrowPatch(
            (x[0], y[0]), (x[-1], y[-1]), connectionstyle=f"arc3,rad={bend:.3f}", arrowstyle="-|>",
            mutation_scale=8 + width, shrinkA=7, shrinkB=trace["marker"]["standoff"] * PT,
            color=trace["line"]["color"], alpha=trace["opacity"], linewidth=width,
        )
    )  # fmt: skip


def _draw_sankey(axes: Axes, trace: Form, layout: Form, least: int) -> None:
    node, link = trace["node"], trace["link"]
    middles, unit = bar_layout(trace, layout["height"] - layout["margin"]["t"] - layout["margin"]["b"], least)
    value = np.where(np.asarray(link["value"]) >= least, link["value"], 0)
    x, n = np.array(node["x"]), len(node["x"])
    size = np.maximum(np.bincount(link["source"], value, n), np.bincount(link["target"], value, n)) * unit
    top = middles - size / 2
    incoming, outgoing, ease = top.copy(), top.copy(), np.linspace(0, 1, 24)
    bend = ease * ease * (3 - 2 * ease)
    for row in sorted(np.flatnonzero(value), key=lambda row: (top[link["source"][row]], top[link["target"][row]])):
        a, b, tall = link["source"][row], link["target"][row], value[row] * unit
        edge = outgoing[a] + (incoming[b] - outgoing[a]) * bend
        axes.fill_between(
            x[a] + BAR + (x[b] - x[a] - BAR) * ease, edge, edge + tall, color=link["color"][row], linewidth=0
        )
        outgoing[a] += tall
        incoming[b] += tall
    for row in np.flatnonzero(size):
        axes.fill_between([x[row], x[row] + BAR], top[row], top[row] + size[row], color=node["color"][row], linewidth=0)
        text = f"{_text(node['label'][row])} {size[row] / unit:,.0f}"
        axes.annotate(
            text, (x[row] + BAR, middles[row]), (3, 0), textcoords="offset points", va="center",
            fontsize=trace["textfont"]["size"] * PT * 0.9, color=layout["font"]["color"],
        )  # fmt: skip
    axes.set_xlim(-0.02, 1.16)
    axes.set_ylim(1.02, -0.02)

"""Interactive pictures as plain data: two colour schemes, sizes, escaped labels, filters, the layout of a Sankey.

A picture is a plotly figure in two widths; the page's script draws it, and `training.reports.stills` draws the same
data as PNG. Colours are names of a theme (`THEMES`), so that one figure serves a light and a dark page. Names come from
data: they are escaped, because plotly reads a little HTML in its labels, and never stand in a template.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from training.reports.numbers import shortened

N_COLOURS = 6
MARK = "\u0001"  # before the name of a theme's colour; no name from data holds it
NAMED = ("ink", "muted", "line", "paper", "halo", "rest", "on", "back")
INK, MUTED, LINE, PAPER, HALO, REST, FORWARD, BACKWARD = (f"{MARK}{name}" for name in NAMED)
GROUPS = tuple(f"{MARK}g{place}" for place in range(N_COLOURS))
FADED = tuple(f"{MARK}f{place}" for place in range(N_COLOURS))
FADED_REST = f"{MARK}frest"
# Okabe and Ito's colours, vermilion last: it also means "back" in the graph. On a dark page their blue gives way to
# their yellow, which is too pale on white.
ON_LIGHT = ("#0072B2", "#009E73", "#E69F00", "#CC79A7", "#56B4E9", "#D55E00")
ON_DARK = ("#56B4E9", "#1DBE91", "#E69F00", "#D88FB8", "#F0E442", "#E8762D")
NARROW_NAME, WIDE_NAME = 15, 28  # letters of a label
Form = dict[str, Any]


def _theme(ink: str, muted: str, line: str, paper: str, rest: str, groups: Sequence[str], fade: str) -> dict[str, str]:
    plain = {"ink": ink, "muted": muted, "line": line, "paper": paper, "halo": f"{paper}CC", "rest": rest}
    plain |= {"on": muted, "back": groups[-1]}
    faded = {f"f{place}": colour + fade for place, colour in enumerate(groups)} | {"frest": rest + fade}
    return plain | {f"g{place}": colour for place, colour in enumerate(groups)} | faded


THEMES = {
    "light": _theme("#1b1f24", "#515b66", "#d5dae0", "#ffffff", "#8C8C8C", ON_LIGHT, "66"),
    "dark": _theme("#e8eaed", "#aeb7c1", "#3a4149", "#14171b", "#8C959F", ON_DARK, "66"),
}


@dataclass(frozen=True)
class Filter:
    """A slider beside a picture that hides what counts less.

    Attributes:
        before, after: what it does, around its value.
        levels: the values, rising.
        first: the place it starts at.
    """

    before: str
    after: str
    levels: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class InteractiveFigure:
    """A picture in two widths.

    Attributes:
        name: of the picture, fit for an id and a file.
        description: in words, for those who do not see it.
        wide: data and layout above 700 px.
        narrow: data and layout for a phone.
        filter: a slider, where there is something to hide.
        legend: colour of the theme → what it means, in reading order.
    """

    name: str
    description: str
    wide: Form
    narrow: Form
    filter: Filter | None = None
    legend: Mapping[str, str] | None = None
    macro: ClassVar[str] = "figure"

    def to_dict(self) -> dict[str, Any]:
        """What the page's script reads."""
        slider = self.filter and {"levels": list(self.filter.levels), "first": self.filter.first}
        return {"wide": self.wide, "narrow": self.narrow, "filter": slider}


def painted(part: Any, theme: Mapping[str, str]) -> Any:
    """A form with the colours of a theme in place of their names."""
    if isinstance(part, str):
        return theme[part[1:]] if part.startswith(MARK) else part
    if isinstance(part, Mapping):
        return {key: painted(value, theme) for key, value in part.items()}
    return [painted(value, theme) for value in part] if isinstance(part, list | tuple) else part


def label(name: Any, most: int = WIDE_NAME) -> str:
    """A name for plotly: shortened, then escaped."""
    return html.escape(shortened(name, most), quote=False)


def layout(height: int, size: int = 12, **more: Any) -> Form:
    """What every picture shares: no background, the page's letters, nothing that swallows a swipe."""
    font = {"family": "system-ui, -apple-system, Segoe UI, Roboto, DejaVu Sans, sans-serif", "size": size, "color": INK}
    hover = {"bgcolor": PAPER, "bordercolor": MUTED, "font": {"color": INK, "size": 12}, "align": "left"}
    shared: Form = {
        "height": height, "font": font, "paper_bgcolor": "rgba(0,0,0,0)", "plot_bgcolor": "rgba(0,0,0,0)",
        "margin": {"l": 8, "r": 8, "t": 8, "b": 8}, "hoverlabel": hover, "dragmode": False, "showlegend": False,
    }  # fmt: skip
    return shared | more


def axis(**more: Any) -> Form:
    """An axis that a swipe does not move and that makes room for its labels."""
    return {"fixedrange": True, "automargin": True, "zeroline": False, "gridcolor": LINE, "linecolor": LINE} | more


def ticks(names: Sequence[Any], most: int) -> Form:
    """Names along an axis of places, so that two alike when shortened stay two and "2011" is no number."""
    return {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": [label(name, most) for name in names]}


def rarity_filter(words: tuple[str, str], values: Sequence[float], at_first: int, n_levels: int = 12) -> Filter | None:
    """A slider whose thresholds hide ever more of the rare ones; it starts where at most `at_first` are left.

    Args:
        words: before and after the threshold.
        values: how often each occurs.
        at_first: how many are shown at first.
        n_levels: thresholds at most.
    """
    counts = np.sort(np.asarray(values, np.int64))
    if len(counts) < 4:
        return None
    at = np.unique(np.linspace(0, len(counts) - 1, n_levels).astype(int))
    steps = tuple(sorted({int(value) for value in counts[at]}))
    first = next((place for place, least in enumerate(steps) if (counts >= least).sum() <= at_first), len(steps) - 1)
    return Filter(*words, steps, first) if len(steps) > 1 else None


def bar_layout(trace: Form, height: float, least: int) -> tuple[npt.NDArray[np.float64], float]:
    """Where the bars of a Sankey stand: in each column the largest first, the end of journeys last.

    Args:
        trace: plotly's; `node.x` says which column a bar stands in.
        height: of the picture, in the unit of `node.pad`.
        least: smaller streams are hidden.

    Returns:
        (nodes,) middles from 0 above to 1 below, NaN for bars without streams; and the height of one customer, as a
        share of the picture.
    """
    node, link = trace["node"], trace["link"]
    value = np.where(np.asarray(link["value"]) >= least, link["value"], 0)
    n = len(node["x"])
    size = np.maximum(np.bincount(link["source"], value, n), np.bincount(link["target"], value, n))
    columns = [np.flatnonzero((np.asarray(node["x"]) == x) & (size > 0)) for x in dict.fromkeys(node["x"])]
    scale = min((height - node["pad"] * (len(rows) - 1)) / size[rows].sum() for rows in columns if len(rows))
    middles = np.full(n, np.nan)
    for rows in columns:
        top = 0.0
        for row in sorted(rows, key=lambda row: (node["label"][row] == "end", -size[row])):
            middles[row] = np.clip((top + size[row] * scale / 2) / height, 0.001, 0.999)
            top += max(size[row] * scale, 1) + node["pad"]
    return middles, float(scale / height)

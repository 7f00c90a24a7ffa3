"""What the journey map's interactive pictures share: two colour schemes, sizes, escaped labels, filters.

Pictures are plotly figures as plain data in two widths; the page's script draws them. Colours are names of a theme
(`THEMES`), so that one figure serves a light and a dark page. Names come from data: they are escaped, because
plotly reads a little HTML in its labels, and never stand in a template.
"""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from training.reports.html import shortened

N_COLOURS = 6
MARK = "\u0001"  # before the name of a theme's colour; no name from data holds it
NAMED = ("ink", "muted", "line", "paper", "halo", "rest", "on", "back")
INK, MUTED, LINE, PAPER, HALO, REST, ON, BACK = (f"{MARK}{name}" for name in NAMED)
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
    own = {"ink": ink, "muted": muted, "line": line, "paper": paper, "halo": f"{paper}CC", "rest": rest}
    own |= {"on": muted, "back": groups[-1]}
    faded = {f"f{place}": colour + fade for place, colour in enumerate(groups)} | {"frest": rest + fade}
    return own | {f"g{place}": colour for place, colour in enumerate(groups)} | faded


THEMES = {
    "light": _theme("#1b1f24", "#515b66", "#d5dae0", "#ffffff", "#8C8C8C", ON_LIGHT, "66"),
    "dark": _theme("#e8eaed", "#aeb7c1", "#3a4149", "#14171b", "#8C959F", ON_DARK, "66"),
}


@dataclass(frozen=True)
class Filter:
    """A slider beside a picture.

    Attributes:
        says: what it does, with `{}` where its value stands.
        levels: the values, rising: what counts less is hidden.
        first: the place it starts at.
    """

    says: str
    levels: tuple[int, ...]
    first: int


@dataclass(frozen=True)
class MapFigure:
    """A picture in two widths.

    Attributes:
        name: of the picture, fit for an id.
        says: in words, for those who do not see it.
        wide: data and layout above 700 px.
        narrow: data and layout for a phone.
        filter: a slider, where there is something to hide.
        key: colour of the theme → what it means, in reading order.
    """

    name: str
    says: str
    wide: Form
    narrow: Form
    filter: Filter | None = None
    key: Mapping[str, str] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What the page's script reads."""
        slider = self.filter and {"levels": list(self.filter.levels), "first": self.filter.first}
        return {"wide": self.wide, "narrow": self.narrow, "filter": slider}


def label(name: Any, most: int = WIDE_NAME) -> str:
    """A name for plotly: shortened, then escaped."""
    return html.escape(shortened(name, most), quote=False)


def layout(height: int, size: int = 12, **more: Any) -> Form:
    """What every picture shares: no paper of its own, the page's letters, nothing that swallows a swipe."""
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
    return {"tickmode": "array", "tickvals": list(range(len(names))), "ticktext": [label(one, most) for one in names]}


def colours(touchpoints: pd.DataFrame, stages: Sequence[str]) -> tuple[dict[str, int], dict[int, str]]:
    """Touchpoint → place of its colour (−1 for the rest), and place → what the colour means.

    Stages have a colour each where the log has them, else the touchpoints that most customers meet.
    """
    by_stage = touchpoints["stage"].notna().any() if "stage" in touchpoints else False
    if by_stage:
        known = [*stages, *(one for one in touchpoints["stage"].dropna().unique() if one not in stages)]
        places = {str(name): place for place, name in enumerate(known[:N_COLOURS])}
        named = {str(row.touchpoint): places.get(str(row.stage), -1) for row in touchpoints.itertuples()}
    else:
        most = touchpoints.sort_values("customers", ascending=False, kind="stable")["touchpoint"].astype(str)
        places = {name: place for place, name in enumerate(most.head(N_COLOURS))}
        named = {name: places.get(name, -1) for name in touchpoints["touchpoint"].astype(str)}
    return named, {place: name for name, place in places.items()} | {-1: "other"}


def colour_key(meanings: Mapping[int, str], used: Sequence[int]) -> dict[str, str]:
    """Colour → its meaning, for the colours in use."""
    return {(GROUPS[place] if place >= 0 else REST): name for place, name in meanings.items() if place in set(used)}


def levels_of(values: Sequence[float], shown: int, n_levels: int = 12) -> Filter | None:
    """Thresholds that hide ever more of the rare ones; it starts where at most `shown` are left."""
    whole = np.sort(np.asarray(values, np.int64))
    if len(whole) < 4:
        return None
    at = np.unique(np.linspace(0, len(whole) - 1, n_levels).astype(int))
    steps = tuple(sorted({int(one) for one in whole[at]}))
    first = next((place for place, least in enumerate(steps) if (whole >= least).sum() <= shown), len(steps) - 1)
    return Filter("", steps, first) if len(steps) > 1 else None

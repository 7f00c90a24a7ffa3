"""The transition graph: where its touchpoints stand, from left to right, and its picture with a filter for rare moves.

The place along the journey is the touchpoint's trophic level, the least-squares answer to "every move leads one level
on" (R. S. MacKay, S. Johnson and B. Sansom, "How directed is a directed network?", 2020, equation 2.5). Layers hold a
few touchpoints each; within them the order that lets the fewest moves cross is sought by sweeps over the barycentres.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.journey_map.colours import TouchpointColours
from training.reports.interactive import (
    BACKWARD,
    FORWARD,
    HALO,
    INK,
    PAPER,
    Form,
    InteractiveFigure,
    axis,
    label,
    layout,
    rarity_filter,
)
from training.reports.numbers import clean, count, seconds, share

START, END = "start", "end"
MOST_NODES = 24
MOST_MOVES = 40
SWEEPS = 8
BEND = 0.16  # how far a move bows out, as a share of its length


@dataclass(frozen=True)
class GraphLayout:
    """Where the touchpoints stand.

    Attributes:
        names: (n,) of the touchpoints, start and end among them.
        layer: (n,) from 0.
        across: (n,) place within its layer, centred on 0.
        level: (n,) trophic level.
    """

    names: tuple[str, ...]
    layer: npt.NDArray[np.int64]
    across: npt.NDArray[np.float64]
    level: npt.NDArray[np.float64]


def main_moves(transitions: pd.DataFrame, most: int = MOST_NODES) -> pd.DataFrame:
    """The moves among the touchpoints that are moved to most, as text; where journeys begin and end belongs to them."""
    moves = transitions.assign(source=transitions["source"].astype(str), target=transitions["target"].astype(str))
    into = moves[~moves["target"].isin([START, END])].groupby("target", sort=False)["count"].sum()
    names = {*into.sort_values(ascending=False, kind="stable").index[:most], START, END}
    often = moves.sort_values("count", ascending=False, kind="stable")
    names |= {
        *often.loc[often["source"] == START, "target"].head(1),
        *often.loc[often["target"] == END, "source"].head(1),
    }
    return moves[moves["source"].isin(names) & moves["target"].isin(names)].sort_values("count", ascending=False)


def backbone(moves: pd.DataFrame) -> set[tuple[str, str]]:
    """The most frequent way on from every touchpoint and into the end: a graph without them falls apart."""
    between = moves[moves["source"] != moves["target"]].sort_values("count", ascending=False, kind="stable")
    strongest = pd.concat([between.drop_duplicates("source"), between[between["target"] == END].head(1)])
    return set(zip(strongest["source"], strongest["target"], strict=True))


def levels(weights: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n,) trophic levels of the nodes of a weighted, directed graph (n, n), the lowest 0.

    >>> levels(np.array([[0, 2.0, 0], [0, 0, 1.0], [0, 0, 0]])).round(6).tolist()
    [0.0, 1.0, 2.0]
    """
    into, out = weights.sum(axis=0), weights.sum(axis=1)
    laplacian = np.diag(into + out) - weights - weights.T
    level = np.linalg.lstsq(laplacian, into - out, rcond=None)[0]
    return np.asarray(level - level.min(), np.float64)


def place(moves: pd.DataFrame, per_layer: int, most_layers: int) -> GraphLayout:
    """Layers of about `per_layer` touchpoints at most, from the journey's start to its end.

    Args:
        moves: `source, target, count`.
        per_layer: the most in one layer, unless there are too many for `most_layers`.
        most_layers: between start and end.
    """
    names = tuple(dict.fromkeys([START, *moves["source"], *moves["target"], END]))
    at = {name: row for row, name in enumerate(names)}
    weights = np.zeros((len(names), len(names)))
    for source, target, number in zip(moves["source"], moves["target"], moves["count"], strict=True):
        if source != target:
            weights[at[source], at[target]] += float(number)
    level = levels(np.sqrt(weights))  # roots: a rare way counts too, or everything rare lands in one layer
    between = [row for row in np.argsort(level, kind="stable") if names[row] not in (START, END)]
    layer = np.zeros(len(names), np.int64)
    layer[between] = 1 + _layers(level[between], per_layer, most_layers)
    layer[at[END]] = layer.max() + 1
    return GraphLayout(names, layer, _ordered(layer, weights + weights.T), level)


def _layers(level: npt.NDArray[np.float64], per_layer: int, most: int) -> npt.NDArray[np.int64]:
    """(n,) layers of rising levels: a new one where the old is full, or where the level has risen far enough."""
    full = max(per_layer, math.ceil(len(level) / most))
    for far in (*np.arange(0.3, 3.0, 0.1), np.inf):
        layer, first = np.zeros(len(level), np.int64), 0
        for row in range(1, len(level)):
            begins = row - first >= full or level[row] - level[first] > far
            layer[row] = layer[row - 1] + begins
            first = row if begins else first
        if not len(layer) or layer[-1] < most:
            break
    return layer


def _ordered(layer: npt.NDArray[np.int64], ties: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """(n,) places within the layers: each node as near as can be to the middle of those it is tied to."""
    across = np.zeros(len(layer))
    for part in range(layer.max() + 1):
        _spread(across, np.flatnonzero(layer == part))
    for _ in range(SWEEPS):
        for part in range(layer.max() + 1):
            rows = np.flatnonzero(layer == part)
            far = np.where(layer == part, 0.0, ties[rows])
            middle = far @ across / np.maximum(far.sum(axis=1), 1e-12)
            _spread(across, rows[np.argsort(middle, kind="stable")])
    return across


def _spread(across: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]) -> None:
    across[rows] = np.arange(len(rows)) - (len(rows) - 1) / 2


def wrapped(name: str, letters: int) -> str:
    """A name on at most two lines for plotly, broken after a space or underscore where there is one."""
    text = clean(name)
    if len(text) <= letters:
        return label(text, letters)
    breaks = [i + 1 for i, letter in enumerate(text[:letters]) if letter in " _-/.:"]
    if not breaks or breaks[-1] < letters // 3:
        return label(text, letters + 4)
    cut = breaks[-1]
    return f"{label(text[:cut], letters + 1)}<br>{label(text[cut:], letters)}"


def transition_graph(
    transitions: pd.DataFrame, touchpoints: pd.DataFrame, colours: TouchpointColours
) -> InteractiveFigure:
    """Touchpoints as dots, moves as arrows; `transitions` and `touchpoints` as in the journey map."""
    moves = main_moves(transitions)
    between = moves[moves["source"] != moves["target"]]
    names = set(moves["source"]) | set(moves["target"])
    return InteractiveFigure(
        "moves",
        f"A graph of {len(names) - 2} touchpoints and {len(moves)} kinds of moves between them. "
        "The table below holds the same numbers.",
        _form(moves, touchpoints, colours, place(moves, 5, 7), upright=False),
        _form(moves, touchpoints, colours, place(moves, 3, 14), upright=True),
        rarity_filter(("Hide moves made less often than ", " times"), between["count"].tolist(), MOST_MOVES),
        colours.legend(names),
    )


def _form(
    moves: pd.DataFrame, touchpoints: pd.DataFrame, colours: TouchpointColours, placed: GraphLayout, *, upright: bool
) -> Form:
    """The figure from left to right, or `upright` from above to below."""
    on = placed.layer.astype(np.float64)
    aside = placed.across + np.where(placed.layer % 2, 0.12, -0.12)  # so that a long move misses what is in between
    points = np.stack([aside, -on] if upright else [on, -aside], axis=1)  # (n, 2)
    at = {name: row for row, name in enumerate(placed.names)}
    met = dict(zip(touchpoints["touchpoint"].astype(str), touchpoints["customers"].astype(float), strict=True))
    most = max(met.values(), default=1.0)
    size = [14 + 22 * math.sqrt(met.get(name, most * 0.4) / most) for name in placed.names]
    between = [move for move in moves.to_dict("records") if move["source"] != move["target"]]
    arrows = [_arrow(move, points, at, size, placed) for move in between]
    thickest = max((arrow["meta"] for arrow in arrows), default=1)
    always = backbone(moves)
    for arrow, move in zip(arrows, between, strict=True):
        arrow["line"]["width"] = round(0.8 + 8 * math.sqrt(arrow["meta"] / thickest), 1)
        head = round(10 + arrow["line"]["width"] * 1.8, 1)
        before = [0] * (len(arrow["x"]) - 1)
        arrow["marker"]["size"] = [*before, head]
        arrow["line"]["backoff"] = [*before, round(arrow["marker"]["standoff"] + 0.4 * head, 1)]  # up to the head
        if (move["source"], move["target"]) in always:
            del arrow["meta"]  # the filter leaves it
    again = moves[moves["source"] == moves["target"]].set_index("source")["count"].to_dict()
    dots = {
        "type": "scatter", "mode": "markers", "x": points[:, 0].tolist(), "y": points[:, 1].tolist(),
        "hoverinfo": "text", "hovertext": [_hover_text(name, met, again) for name in placed.names],
        "marker": {"size": size, "opacity": 1, "line": {"color": PAPER, "width": 2},
                   "color": [colours.solid(name) for name in placed.names]},
    }  # fmt: skip
    return {"data": [*reversed(arrows), dots], "layout": _layout(placed, points, size, upright)}


def _layout(placed: GraphLayout, points: npt.NDArray[np.float64], size: Sequence[float], upright: bool) -> Form:
    """Names under their dots, on a light background so that arrows do not run through the letters."""
    letters = 14 if upright else 17
    notes = [
        {
            "x": float(x), "y": float(y), "text": wrapped(name, letters), "showarrow": False, "yanchor": "top",
            "yshift": -0.5 * diameter - 1, "bgcolor": HALO, "borderpad": 0,
            "font": {"size": 10 if upright else 11, "color": INK},
        }
        for name, (x, y), diameter in zip(placed.names, points, size, strict=True)
    ]  # fmt: skip
    layers, widest = int(placed.layer.max()) + 1, int(np.bincount(placed.layer).max())
    height = 40 + (96 * layers if upright else max(112 * widest, 300))
    spread = (-0.5 * widest - 0.12, 0.5 * widest + 0.12)
    along = (-0.45, layers - 0.55)
    x, y = (spread, (-layers + 0.3, 0.4)) if upright else (along, (spread[0] - 0.25, spread[1] + 0.05))
    hidden = {"visible": False, "automargin": False}
    sides = {"xaxis": axis(range=list(x), **hidden), "yaxis": axis(range=list(y), **hidden)}
    return layout(height, 11, annotations=notes, hovermode="closest", **sides) | {"margin": dict.fromkeys("lrtb", 4)}


def _hover_text(name: str, met: Mapping[str, float], again: Mapping[Any, Any]) -> str:
    if name in (START, END):
        return f"the {name} of a journey"
    loops = f"<br>{count(again[name])} times right after itself" if name in again else ""
    return f"{label(name, 60)}<br>{count(met.get(name, math.nan))} customers{loops}"


def _arrow(
    move: Mapping[Any, Any],
    points: npt.NDArray[np.float64],
    at: Mapping[str, int],
    size: Sequence[float],
    placed: GraphLayout,
) -> Form:
    """A move as a bowed line with a head; `meta` is how often it was made, which the filter reads."""
    a, b = at[str(move["source"])], at[str(move["target"])]
    backward = placed.layer[b] < placed.layer[a] or (
        placed.layer[b] == placed.layer[a] and placed.level[b] < placed.level[a]
    )
    path = _bow(points[a], points[b])
    colour = BACKWARD if backward else FORWARD
    wait = (
        f"<br>half of them within {seconds(move['gap_s_median'])}"
        if move["gap_s_median"] == move["gap_s_median"]
        else ""
    )
    hover = (
        f"{label(move['source'], 60)} → {label(move['target'], 60)}<br>{count(move['count'])} times by "
        f"{count(move['customers'])} customers<br>{share(move['probability'])} of what follows "
        f"{label(move['source'], 60)}{wait}"
    )
    return {
        "type": "scatter", "mode": "lines+markers", "x": path[:, 0].tolist(), "y": path[:, 1].tolist(),
        "meta": int(move["count"]), "hoverinfo": "text", "hovertext": hover, "opacity": 0.62,
        "line": {"color": colour, "shape": "spline", "dash": "dash" if backward else "solid"},
        "marker": {"symbol": "arrow", "angleref": "previous", "color": colour, "standoff": round(0.5 * size[b] + 1, 1),
                   "line": {"width": 0}},
    }  # fmt: skip


def _bow(a: npt.NDArray[np.float64], b: npt.NDArray[np.float64], n: int = 9) -> npt.NDArray[np.float64]:
    """(n, 2) points of a curve from `a` to `b` that bows to the left of its way: a move and its return stay apart."""
    along = b - a
    middle = (a + b) / 2 + BEND * np.array([-along[1], along[0]])
    t = np.linspace(0, 1, n)[:, None]
    return np.asarray(((1 - t) ** 2 * a + 2 * t * (1 - t) * middle + t**2 * b).round(3))

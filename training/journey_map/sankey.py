"""The journey map's Sankey: streams of customers from step to step, as plain plotly data.

How high the bars stand is left to the page's script: it changes with what the slider hides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import pandas as pd

from training.journey_map.theme import (
    FADED,
    FADED_REST,
    GROUPS,
    REST,
    Filter,
    Form,
    MapFigure,
    colour_key,
    label,
    layout,
    levels_of,
)

MANY_STEPS, FEW_STEPS = 6, 4  # steps that streams begin at, on a wide page and on a phone
NARROW_WIDTH = 820  # px; on a phone the picture scrolls sideways in its own box: names need the room
PAD, EDGE = 18, 8  # px between bars, and around the picture
Node = tuple[int, str]


def sankey(flows: pd.DataFrame, colour_of: Mapping[str, int], meanings: Mapping[int, str]) -> MapFigure:
    """How customers move from step to step; `step, source, target, customers`."""
    wide = _form(flows[flows["step"] <= MANY_STEPS], colour_of)
    narrow = _form(flows[flows["step"] <= FEW_STEPS], colour_of) | {"least": NARROW_WIDTH}
    some = flows[flows["step"] <= MANY_STEPS]
    used = [colour_of.get(str(one), -1) for one in pd.concat([some["source"], some["target"]]).unique()]
    slider = levels_of(some["customers"].tolist(), 70)
    says = "Hide streams of fewer customers than {}"
    first = int(flows["step"].min()) if len(flows) else 1
    return MapFigure(
        "sankey",
        f"Streams of customers between the touchpoints of step {first} and the steps after it. "
        "The table below holds the same figures.",
        wide,
        narrow,
        Filter(says, slider.levels, slider.first) if slider else None,
        colour_key(meanings, used),
    )


@dataclass(frozen=True)
class _Flows:
    """Streams between nodes; a node is a step and a touchpoint."""

    sources: list[Node]
    targets: list[Node]
    values: list[int]
    nodes: list[Node]


def _read(frame: pd.DataFrame) -> _Flows:
    sources = list(zip(frame["step"].astype(int), frame["source"].astype(str), strict=True))
    targets = list(zip(frame["step"].astype(int) + 1, frame["target"].astype(str), strict=True))
    return _Flows(sources, targets, [int(one) for one in frame["customers"]], list(dict.fromkeys([*sources, *targets])))


def _form(frame: pd.DataFrame, colour_of: Mapping[str, int]) -> Form:
    flows = _read(frame)
    nodes, place = flows.nodes, {node: at for at, node in enumerate(flows.nodes)}
    groups = [colour_of.get(name, -1) for _, name in nodes]
    told = [f"{label(name, 60)}, step {step}" for step, name in nodes]
    sources, targets = ([place[one] for one in ends] for ends in (flows.sources, flows.targets))
    steps = sorted({step for step, _ in nodes})
    tall = 90 + 34 * max(sum(step == at for step, _ in nodes) for at in steps)
    link = {
        "source": sources, "target": targets, "value": flows.values,
        "color": [FADED[groups[one]] if groups[one] >= 0 else FADED_REST for one in sources],
        "customdata": [[told[a], told[b]] for a, b in zip(sources, targets, strict=True)],
        "hovertemplate": "%{customdata[0]} → %{customdata[1]}<br>%{value:,} customers<extra></extra>",
    }  # fmt: skip
    node = {
        # The last column's names stand left of its bars, where those of the column before it stand too: both are short.
        "label": [label(name, 28 if step < steps[-1] - 1 else 14) for step, name in nodes],
        "color": [GROUPS[one] if one >= 0 else REST for one in groups],
        "customdata": told, "hovertemplate": "%{customdata}<br>%{value:,} customers<extra></extra>",
        "x": [0.001 + 0.998 * (step - steps[0]) / max(len(steps) - 1, 1) for step, _ in nodes],
        "pad": PAD, "thickness": 12, "line": {"width": 0},
    }  # fmt: skip
    trace = {"type": "sankey", "arrangement": "fixed", "node": node, "link": link, "textfont": {"size": 11}}
    return {"data": [trace], "layout": layout(tall + 2 * EDGE, 11, margin=dict.fromkeys("lrtb", EDGE))}

"""The journey map's Sankey: streams of customers from step to step, as plain plotly data.

Where the bars stand changes with what the slider hides, so the form carries a layout for each of its thresholds.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

from training.journey_map.colours import TouchpointColours
from training.reports.interactive import Filter, Form, InteractiveFigure, bar_layout, label, layout, rarity_filter

MANY_STEPS, FEW_STEPS = 6, 4  # steps that streams begin at, on a wide page and on a phone
NARROW_WIDTH = 820  # px; on a phone the picture scrolls sideways in its own box: names need the room
MOST_STREAMS = 70
PAD, EDGE = 18, 8  # px between bars, and around the picture


def sankey(flows: pd.DataFrame, colours: TouchpointColours) -> InteractiveFigure:
    """How customers move from step to step; `step, source, target, customers`."""
    many = flows[flows["step"] <= MANY_STEPS]
    slider = rarity_filter(
        ("Hide streams of fewer customers than ", ""), many["customers"].tolist(), MOST_STREAMS
    )  # fmt: skip
    first = int(flows["step"].min()) if len(flows) else 1
    return InteractiveFigure(
        "flows",
        f"Streams of customers between the touchpoints of step {first} and the steps after it. "
        "The table below holds the same numbers.",
        flow_form(many, colours, slider),
        flow_form(flows[flows["step"] <= FEW_STEPS], colours, slider) | {"least": NARROW_WIDTH},
        slider,
        colours.legend(pd.concat([many["source"], many["target"]]).astype(str).unique()),
    )


def flow_form(flows: pd.DataFrame, colours: TouchpointColours, slider: Filter | None = None) -> Form:
    """Data and layout of the streams.

    Args:
        flows: `step, source, target, customers`.
        colours: of the touchpoints.
        slider: whose thresholds get a layout each.
    """
    sources = list(zip(flows["step"].astype(int), flows["source"].astype(str), strict=True))
    targets = list(zip(flows["step"].astype(int) + 1, flows["target"].astype(str), strict=True))
    nodes = list(dict.fromkeys([*sources, *targets]))  # a node is a step and a touchpoint
    place = {node: at for at, node in enumerate(nodes)}
    names = [f"{label(name, 60)}, step {step}" for step, name in nodes]
    steps = sorted({step for step, _ in nodes})
    tall = 90 + 34 * max(sum(step == at for step, _ in nodes) for at in steps)
    values = [int(value) for value in flows["customers"]]
    link = {
        "source": [place[node] for node in sources], "target": [place[node] for node in targets],
        "value": values,
        "color": [colours.faded(name) for _, name in sources],
        "customdata": [[names[place[a]], names[place[b]]] for a, b in zip(sources, targets, strict=True)],
        "hovertemplate": "%{customdata[0]} → %{customdata[1]}<br>%{value:,} customers<extra></extra>",
    }  # fmt: skip
    node = {
        # The last column's names stand left of its bars, where those of the column before it stand too: both are short.
        "label": [label(name, 28 if step < steps[-1] - 1 else 14) for step, name in nodes],
        "color": [colours.solid(name) for _, name in nodes],
        "customdata": names, "hovertemplate": "%{customdata}<br>%{value:,} customers<extra></extra>",
        "x": [0.001 + 0.998 * (step - steps[0]) / max(len(steps) - 1, 1) for step, _ in nodes],
        "pad": PAD, "thickness": 12, "line": {"width": 0},
    }  # fmt: skip
    trace: Form = {"type": "sankey", "arrangement": "fixed", "node": node, "link": link, "textfont": {"size": 11}}
    middles = [_middles(trace, tall, min(least, max(values))) for least in (slider.levels if slider else (0,))]
    size = layout(tall + 2 * EDGE, 11, margin=dict.fromkeys("lrtb", EDGE))
    return {"data": [trace], "layout": size, "middles": middles}


def _middles(trace: Form, tall: float, least: int) -> list[float | None]:
    """Middles of the bars for the page; none for those without streams."""
    middles, _ = bar_layout(trace, tall, least)
    return [None if np.isnan(middle) else round(float(middle), 5) for middle in middles]

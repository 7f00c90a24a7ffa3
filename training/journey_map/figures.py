"""The journey map's plainer interactive pictures: funnel, grids, dots for influence and for two groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from training.journey_map.theme import (
    GROUPS,
    INK,
    MUTED,
    NARROW_NAME,
    PAPER,
    WIDE_NAME,
    Form,
    MapFigure,
    axis,
    label,
    layout,
    ticks,
)
from training.reports.html import count, days, share

LIKELIEST_ROWS = 20
MOST_COHORTS = 36
EVERYBODY = 0.995  # a step that all take shall not set the colours of the others
WEIGHTY = 0.05  # of the largest cohort: a smaller one shall not set the colours of all
BELOW = "The table below holds the same figures."


def funnel(frame: pd.DataFrame) -> MapFigure:
    """Customers by stage, the share that came on from the stage before written beside the bar."""
    stages, customers = frame["stage"].tolist(), frame["customers"].to_numpy(np.float64)
    conversion = frame["conversion"].to_numpy(np.float64)
    came = [share(rate) if math.isfinite(rate) else "" for rate in (math.nan, *conversion[:-1])]
    told = [
        f"{count(n)}{f', {one} of the stage before' if one else ''}" for n, one in zip(customers, came, strict=True)
    ]
    brief = [f"{count(n)}{f' ({one})' if one else ''}" for n, one in zip(customers, came, strict=True)]
    waits = [days(one) for one in frame["days_to_next_median"].to_numpy(np.float64)]
    hover = [f"{label(stage, 60)}<br>{text}<br>half go on within {wait}"
             for stage, text, wait in zip(stages, told, waits, strict=True)]  # fmt: skip
    end = float(customers.max()) if len(customers) else 1.0

    def form(texts: Sequence[str], letters: int, size: int, room: float) -> Form:
        trace = {
            "type": "bar", "orientation": "h", "y": list(range(len(stages))), "x": customers.tolist(),
            "text": list(texts), "textposition": "outside", "cliponaxis": False, "hovertext": hover,
            "hoverinfo": "text", "marker": {"color": GROUPS[0]}, "textfont": {"color": INK},
        }  # fmt: skip
        sides = axis(autorange="reversed", showgrid=False, **ticks(stages, letters))
        across = axis(range=[0, end * room], visible=False)
        return {"data": [trace], "layout": layout(60 + 52 * len(stages), size, xaxis=across, yaxis=sides, bargap=0.3)}

    return MapFigure(
        "funnel",
        f"Bars: customers by stage of the journey. {BELOW}",
        form(told, WIDE_NAME, 13, 1.45),
        form(brief, NARROW_NAME, 11, 1.75),
    )


def heat(
    name: str, says: str, values: npt.NDArray[np.float64], rows: Sequence[Any], columns: Sequence[Any], across: str,
    hover: Callable[[int, int], str], *, narrow_columns: int, letters: tuple[int, int] = (WIDE_NAME, NARROW_NAME),
    top: float = 1.0,
) -> MapFigure:  # fmt: skip
    """A grid of shares, darker to lighter, written into its cells where there is room.

    Args:
        name: of the picture.
        says: in words.
        values: (rows, columns), NaN where nothing was observed.
        rows: names from above.
        columns: names from the left.
        across: what the columns are.
        hover: row and column → what to say about the cell.
        narrow_columns: how many of them a phone shows.
        letters: of a row's name, wide and narrow.
        top: the share with the lightest colour; larger ones have it too.
    """
    texts = [["" if not math.isfinite(one) else share(one) for one in row] for row in values]

    def form(width: int, most: int, size: int, tall: int, written: bool) -> Form:
        some = np.isfinite(values[:, :width]).any(axis=1) | (width == len(columns))
        kept = [int(row) for row in np.flatnonzero(some)]
        shown = values[kept, :width]
        trace: Form = {
            "type": "heatmap", "colorscale": "Cividis", "zmin": 0.0, "zmax": top,
            "z": [[None if not math.isfinite(one) else round(float(one), 5) for one in row] for row in shown],
            "hoverongaps": False, "hoverinfo": "text", "xgap": 1, "ygap": 1, "showscale": not written,
            "hovertext": [[hover(i, j) for j in range(shown.shape[1])] for i in kept],
            "colorbar": {"tickformat": ".0%", "thickness": 10, "outlinewidth": 0},
        }  # fmt: skip
        if written:
            trace |= {
                "text": [texts[i][:width] for i in kept],
                "texttemplate": "%{text}",
                "textfont": {"size": size - 1},
            }
        down = axis(autorange="reversed", showgrid=False, **ticks([rows[i] for i in kept], most))
        above = axis(side="top", showgrid=False, title={"text": across, "standoff": 6}, **sparse(columns[:width]))
        return {"data": [trace], "layout": layout(90 + tall * max(len(kept), 1), size, xaxis=above, yaxis=down)}

    wide = form(len(columns), letters[0], 12, 27, len(columns) <= 16)
    return MapFigure(name, says, wide, form(narrow_columns, letters[1], 10, 25, narrow_columns <= 6))


def sparse(names: Sequence[Any], most: int = 18) -> Form:
    """Names along an axis, some left out where there are too many to stand beside each other."""
    every = ticks(names, 12)
    return {key: one[:: math.ceil(len(names) / most)] if isinstance(one, list) else one for key, one in every.items()}


def _largest(values: npt.NDArray[np.float64]) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else 1.0


def step_matrix(matrix: pd.DataFrame) -> MapFigure:
    """Where customers are at each step of their journey."""
    likely = matrix.max(axis=1).sort_values(ascending=False, kind="stable").index[:LIKELIEST_ROWS]
    shown = matrix.loc[[row for row in matrix.index if row in set(likely)]]
    values = shown.to_numpy(np.float64)
    values = np.where(values > 0, values, np.nan)  # nobody there: an empty cell reads quicker than a nought
    rows, columns = [str(one) for one in shown.index], [str(one) for one in shown.columns]

    def hover(i: int, j: int) -> str:
        return f"{label(rows[i], 60)}: {share(values[i, j])} of customers at step {columns[j]}"

    says = (
        "A grid: which share of customers is at which touchpoint at each step. The table below holds the same figures."
    )
    return heat(
        "steps", says, values, rows, columns, "Step of the journey", hover, narrow_columns=5,
        top=_largest(values[values < EVERYBODY]),
    )  # fmt: skip


def cohorts(frame: pd.DataFrame, period: str) -> MapFigure:
    """Which share of the customers who came together is active again, period by period; the latest cohorts."""
    starts = sorted(frame["cohort"].unique())[-MOST_COHORTS:]
    later = frame[(frame["period"] > 0) & (frame["period"] <= MOST_COHORTS) & frame["cohort"].isin(starts)]
    ends = list(range(1, int(later["period"].max()) + 1)) if len(later) else [1]
    values = np.full((len(starts), len(ends)), np.nan)
    sizes = frame.groupby("cohort")["size"].max()
    cells: dict[tuple[int, int], Any] = {}
    for row in later.to_dict("records"):
        at = starts.index(row["cohort"]), int(row["period"]) - 1
        values[at] = row["retention"]
        cells[at] = row
    dates = [f"{pd.Timestamp(one):%Y-%m-%d}" if period == "week" else f"{pd.Timestamp(one):%b %Y}" for one in starts]
    rows = [f"{date} ({int(sizes[one]):,})" for date, one in zip(dates, starts, strict=True)]

    def hover(i: int, j: int) -> str:
        row = cells.get((i, j))
        if row is None:
            return "not observed yet"
        back = f"{int(row['active']):,} of {int(row['size']):,} ({share(row['retention'])})"
        return f"first seen {dates[i]}: {back} came back {period} {j + 1} after"

    says = f"A triangle: the share of customers active again, by the {period} they were first seen. {BELOW}"
    shown = min(len(ends), 12)
    return heat(
        "cohorts", says, values, rows, [str(one) for one in ends], f"{period}s after the first", hover,
        narrow_columns=shown if shown <= 6 else min(len(ends), 14), letters=(24, 20),
        top=_largest(values[sizes.loc[starts].to_numpy() >= WEIGHTY * sizes.max()]),
    )  # fmt: skip


MEASURES = {
    "first_touch": "first touch", "last_touch": "last touch", "linear": "linear", "markov_share": "removal effect",
}  # fmt: skip


def influence(frame: pd.DataFrame, level: str, most: int = 12) -> MapFigure:
    """Shares of the conversions that each rule of credit gives to channels or touchpoints."""
    shown = frame[frame["level"] == level].sort_values("markov_share", ascending=False, kind="stable").head(most)
    names = shown["name"].astype(str).tolist()
    symbols = ("circle", "square", "triangle-up", "diamond")
    end = float(np.nanmax(shown[list(MEASURES)].to_numpy(np.float64))) if len(shown) else 1.0

    def form(letters: int, size: int, tall: int) -> Form:
        data = [
            {
                "type": "scatter", "mode": "markers", "y": list(range(len(names))), "name": says,
                "x": [None if not math.isfinite(one) else float(one) for one in shown[column]],
                "marker": {"symbol": symbols[place], "size": 10 if place < 3 else 13, "color": GROUPS[place],
                           "line": {"color": PAPER, "width": 1}},
                "hoverinfo": "text",
                "hovertext": [f"{label(name, 60)}, {says}: {share(float(value))} of conversions"
                              for name, value in zip(names, shown[column], strict=True)],
            }
            for place, (column, says) in enumerate(MEASURES.items())
        ]  # fmt: skip
        across = axis(
            range=[-0.02 * end, 1.06 * end], tickformat=".0%", title={"text": "Share of the conversions"}, nticks=6
        )
        down = axis(range=[len(names) - 0.4, -0.6], **ticks(names, letters))
        legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "xanchor": "left", "font": {"size": size}}
        sized = layout(150 + tall * len(names), size, xaxis=across, yaxis=down, showlegend=True, legend=legend)
        return {"data": data, "layout": sized | {"margin": {"l": 8, "r": 8, "t": 40 if letters > 15 else 60, "b": 8}}}

    says = f"Dots: the share of conversions that four rules of credit give to each {level}. {BELOW}"
    return MapFigure(f"influence_{level}", says, form(WIDE_NAME, 12, 30), form(NARROW_NAME, 10, 30))


def side_by_side(frame: pd.DataFrame, names: tuple[str, str], heads: tuple[str, ...], most: int = 15) -> MapFigure:
    """Two groups' rates, a dot each, joined by a line: the surest and largest differences above.

    Args:
        frame: a table of a comparison, with `rate_a, rate_b, difference, q_value`.
        names: of the groups.
        heads: the columns that name a row.
        most: rows.
    """
    known = frame[frame["q_value"] < 0.05]
    if heads != ("stage",):
        known = known.loc[known["difference"].abs().sort_values(ascending=False, kind="stable").index]
    shown = known.head(most)
    names_of = [[str(row[head]) for head in heads] for row in shown.to_dict("records")]
    rows = [" → ".join(told) for told in names_of]
    a, b = (shown[f"rate_{side}"].to_numpy(np.float64).tolist() for side in "ab")
    lines = {
        "type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False,
        "line": {"color": MUTED, "width": 2},
        "x": [one for pair in zip(a, b, strict=True) for one in (*pair, None)],
        "y": [one for place in range(len(rows)) for one in (place, place, None)],
    }  # fmt: skip
    dots = [
        {
            "type": "scatter", "mode": "markers", "x": rates, "y": list(range(len(rows))), "name": label(name, 30),
            "marker": {"size": 11, "symbol": symbol, "color": colour, "line": {"color": PAPER, "width": 1}},
            "hoverinfo": "text",
            "hovertext": [f"{label(row, 80)}<br>{label(name, 40)}: {share(rate)}"
                          for row, rate in zip(rows, rates, strict=True)],
        }
        for name, rates, symbol, colour in (
            (names[0], a, "circle", GROUPS[0]), (names[1], b, "diamond", GROUPS[2]),
        )
    ]  # fmt: skip

    def form(letters: int, size: int, between: str) -> Form:
        across = axis(range=[-0.03, 1.03], tickformat=".0%", nticks=6)
        told = [between.join(label(one, letters) for one in each) for each in names_of]
        down = axis(range=[len(rows) - 0.4, -0.6], **(ticks(rows, letters) | {"ticktext": told}))
        legend = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "xanchor": "left", "font": {"size": size}}
        sized = layout(110 + 34 * len(rows), size, xaxis=across, yaxis=down, showlegend=True, legend=legend)
        return {"data": [lines, *dots], "layout": sized | {"margin": {"l": 8, "r": 8, "t": 44, "b": 8}}}

    says = f"Dots: the rates of {names[0]} and {names[1]} side by side. {BELOW}"
    return MapFigure(f"compare_{heads[0]}", says, form(26, 12, " → "), form(17, 10, " →<br>"))

"""The journey map's plainer interactive pictures: funnel, grids, dots for influence, pain points and two groups."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from training.reports.interactive import (
    GROUPS,
    INK,
    MUTED,
    NARROW_NAME,
    PAPER,
    WIDE_NAME,
    Form,
    InteractiveFigure,
    axis,
    label,
    layout,
    ticks,
)
from training.reports.numbers import count, days, share

LIKELIEST_ROWS = 20
MOST_COHORTS = 36
MOST_PAIN_POINTS = 15
EVERYBODY = 0.995  # a step that all take shall not set the colours of the others
WEIGHTY = 0.05  # of the largest cohort: a smaller one shall not set the colours of all
BELOW = "The table below holds the same numbers."
SYMBOLS = ("circle", "square", "triangle-up", "diamond")
LEGEND = {"orientation": "h", "y": 1.0, "yanchor": "bottom", "x": 0, "xanchor": "left"}


def funnel(frame: pd.DataFrame) -> InteractiveFigure:
    """Customers by stage, the share that came on from the stage before written beside the bar.

    Raises:
        DataError: a map without stages.
    """
    if frame.empty:
        raise DataError(
            "The map has no stages to draw: give touchpoints a stage ([events.stages] in the experiment file), or name "
            "the funnel's own with MapSettings(stages=(…))."
        )
    stages, customers = frame["stage"].tolist(), frame["customers"].to_numpy(np.float64)
    conversion = frame["conversion"].to_numpy(np.float64)
    rates = [share(rate) if math.isfinite(rate) else "" for rate in (math.nan, *conversion[:-1])]
    texts = [
        f"{count(n)}{f', {rate} of the stage before' if rate else ''}" for n, rate in zip(customers, rates, strict=True)
    ]
    brief = [f"{count(n)}{f' ({rate})' if rate else ''}" for n, rate in zip(customers, rates, strict=True)]
    waits = [days(wait) for wait in frame["days_to_next_median"].to_numpy(np.float64)]
    hover = [f"{label(stage, 60)}<br>{text}<br>half go on within {wait}"
             for stage, text, wait in zip(stages, texts, waits, strict=True)]  # fmt: skip
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

    return InteractiveFigure(
        "funnel",
        f"Bars: customers by stage of the journey. {BELOW}",
        form(texts, WIDE_NAME, 13, 1.45),
        form(brief, NARROW_NAME, 11, 1.75),
    )


def heat(
    name: str, description: str, values: npt.NDArray[np.float64], rows: Sequence[Any], columns: Sequence[Any],
    across: str, hover: Callable[[int, int], str], *, narrow_columns: int,
    letters: tuple[int, int] = (WIDE_NAME, NARROW_NAME), top: float = 1.0,
) -> InteractiveFigure:  # fmt: skip
    """A grid of shares, darker to lighter, written into its cells where there is room.

    Args:
        name: of the picture.
        description: in words.
        values: (rows, columns), NaN where nothing was observed.
        rows: names from above.
        columns: names from the left.
        across: what the columns are.
        hover: row and column → what to say about the cell.
        narrow_columns: how many of them a phone shows.
        letters: of a row's name, wide and narrow.
        top: the share with the lightest colour; larger ones have it too.
    """
    texts = [["" if not math.isfinite(value) else share(value) for value in row] for row in values]

    def form(width: int, most: int, size: int, tall: int, written: bool) -> Form:
        filled = np.isfinite(values[:, :width]).any(axis=1) | (width == len(columns))
        places = [int(row) for row in np.flatnonzero(filled)]
        part = values[places, :width]
        trace: Form = {
            "type": "heatmap", "colorscale": "Cividis", "zmin": 0.0, "zmax": top,
            "z": [[None if not math.isfinite(value) else round(float(value), 5) for value in row] for row in part],
            "hoverongaps": False, "hoverinfo": "text", "xgap": 1, "ygap": 1, "showscale": not written,
            "hovertext": [[hover(i, j) for j in range(part.shape[1])] for i in places],
            "colorbar": {"tickformat": ".0%", "thickness": 10, "outlinewidth": 0},
        }  # fmt: skip
        if written:
            text = [texts[i][:width] for i in places]
            trace |= {"text": text, "texttemplate": "%{text}", "textfont": {"size": size - 1}}
        down = axis(autorange="reversed", showgrid=False, **ticks([rows[i] for i in places], most))
        above = axis(side="top", showgrid=False, title={"text": across, "standoff": 6}, **_sparse(columns[:width]))
        return {"data": [trace], "layout": layout(90 + tall * max(len(places), 1), size, xaxis=above, yaxis=down)}

    wide = form(len(columns), letters[0], 12, 27, len(columns) <= 16)
    return InteractiveFigure(name, description, wide, form(narrow_columns, letters[1], 10, 25, narrow_columns <= 6))


def _sparse(names: Sequence[Any], most: int = 18) -> Form:
    """Names along an axis, some left out where there are too many to stand beside each other."""
    step = math.ceil(len(names) / most)
    return {key: value[::step] if isinstance(value, list) else value for key, value in ticks(names, 12).items()}


def _largest(values: npt.NDArray[np.float64]) -> float:
    return float(np.nanmax(values)) if np.isfinite(values).any() else 1.0


def step_matrix(matrix: pd.DataFrame) -> InteractiveFigure:
    """Where customers are at each step of their journey."""
    likely = set(matrix.max(axis=1).sort_values(ascending=False, kind="stable").index[:LIKELIEST_ROWS])
    selected = matrix.loc[[row for row in matrix.index if row in likely]]
    values = selected.to_numpy(np.float64)
    values = np.where(values > 0, values, np.nan)  # nobody at a step: an empty cell reads quicker than a nought
    rows, columns = [str(row) for row in selected.index], [str(column) for column in selected.columns]

    def hover(i: int, j: int) -> str:
        return f"{label(rows[i], 60)}: {share(values[i, j])} of customers at step {columns[j]}"

    description = f"A grid: which share of customers is at which touchpoint at each step. {BELOW}"
    return heat(
        "steps", description, values, rows, columns, "Step of the journey", hover, narrow_columns=5,
        top=_largest(values[values < EVERYBODY]),
    )  # fmt: skip


def cohorts(frame: pd.DataFrame, period: str) -> InteractiveFigure:
    """Which share of a cohort's customers is active again, period by period; the latest cohorts."""
    starts = sorted(frame["cohort"].unique())[-MOST_COHORTS:]
    later = frame[(frame["period"] > 0) & (frame["period"] <= MOST_COHORTS) & frame["cohort"].isin(starts)]
    ends = list(range(1, int(later["period"].max()) + 1)) if len(later) else [1]
    values = np.full((len(starts), len(ends)), np.nan)
    sizes = frame.groupby("cohort")["size"].max()
    cells = {(starts.index(row["cohort"]), int(row["period"]) - 1): row for row in later.to_dict("records")}
    for place, row in cells.items():
        values[place] = row["retention"]
    dates = [f"{pd.Timestamp(start):{'%Y-%m-%d' if period == 'week' else '%b %Y'}}" for start in starts]
    rows = [f"{date} ({int(sizes[start]):,})" for date, start in zip(dates, starts, strict=True)]

    def hover(i: int, j: int) -> str:
        if (i, j) not in cells:
            return "not observed yet"
        row = cells[i, j]
        active = f"{int(row['active']):,} of {int(row['size']):,} ({share(row['retention'])})"
        return f"first seen {dates[i]}: {active} came back {period} {j + 1} after"

    description = f"A triangle: the share of customers active again, by the {period} they were first seen. {BELOW}"
    selected = min(len(ends), 12)
    return heat(
        "cohorts", description, values, rows, [str(end) for end in ends], f"{period}s after the first", hover,
        narrow_columns=selected if selected <= 6 else min(len(ends), 14), letters=(24, 20),
        top=_largest(values[sizes.loc[starts].to_numpy() >= WEIGHTY * sizes.max()]),
    )  # fmt: skip


CREDIT_RULES = {
    "first_touch": "first touch", "last_touch": "last touch", "linear": "linear", "markov_share": "removal effect",
}  # fmt: skip


def influence(frame: pd.DataFrame, level: str, most: int = 12) -> InteractiveFigure:
    """Shares of the conversions that each rule of credit gives to channels or touchpoints."""
    selected = frame[frame["level"] == level].sort_values("markov_share", ascending=False, kind="stable").head(most)
    names = selected["name"].astype(str).tolist()
    end = float(np.nanmax(selected[list(CREDIT_RULES)].to_numpy(np.float64))) if len(selected) else 1.0
    dots = [
        _dots(rule, [float(value) for value in selected[column]], SYMBOLS[place], GROUPS[place],
              [f"{label(name, 60)}, {rule}: {share(float(value))} of conversions"
               for name, value in zip(names, selected[column], strict=True)])
        for place, (column, rule) in enumerate(CREDIT_RULES.items())
    ]  # fmt: skip

    def form(letters: int, size: int) -> Form:
        across = axis(
            range=[-0.02 * end, 1.06 * end], tickformat=".0%", title={"text": "Share of the conversions"}, nticks=6
        )
        return _dot_form(dots, 150 + 30 * len(names), size, across, ticks(names, letters), 40 if letters > 15 else 60)

    description = f"Dots: the share of conversions that four rules of credit give to each {level}. {BELOW}"
    return InteractiveFigure(f"influence_{level}", description, form(WIDE_NAME, 12), form(NARROW_NAME, 10))


def _dots(name: str, x: Sequence[float], symbol: str, colour: str, hover: Sequence[str]) -> Form:
    """A dot a row."""
    line = {"color": PAPER, "width": 1}
    return {
        "type": "scatter", "mode": "markers", "name": label(name, 30), "hoverinfo": "text", "hovertext": list(hover),
        "x": [value if math.isfinite(value) else None for value in x], "y": list(range(len(x))),
        "marker": {"symbol": symbol, "size": 13 if symbol == "diamond" else 11, "color": colour, "line": line},
    }  # fmt: skip


def _dot_form(data: list[Form], height: int, size: int, across: Form, rows: Form, room: int) -> Form:
    """Rows of dots under a legend that gets `room` px."""
    down = axis(range=[len(rows["tickvals"]) - 0.4, -0.6], **rows)
    legend = LEGEND | {"font": {"size": size}}
    margin = {"l": 8, "r": 8, "t": room, "b": 8}
    return {
        "data": data,
        "layout": layout(height, size, xaxis=across, yaxis=down, showlegend=True, legend=legend, margin=margin),
    }


def side_by_side(
    frame: pd.DataFrame, names: tuple[str, str], heads: tuple[str, ...], most: int = 15
) -> InteractiveFigure:
    """Two groups' rates, a dot each, joined by a line: the surest and largest differences above.

    Args:
        frame: a table of a comparison, with `rate_a, rate_b, difference, q_value`.
        names: of the groups.
        heads: the columns that name a row.
        most: rows.
    """
    sure = frame[frame["q_value"] < 0.05]
    if heads != ("stage",):
        sure = sure.loc[sure["difference"].abs().sort_values(ascending=False, kind="stable").index]
    row_names = [[str(row[head]) for head in heads] for row in sure.head(most).to_dict("records")]
    rates = [sure.head(most)[f"rate_{side}"].to_numpy(np.float64).tolist() for side in "ab"]
    lines = _line_between(rates[0], rates[1], MUTED)
    dots = [
        _dots(name, side, symbol, colour, [
            f"{label(' → '.join(row), 80)}<br>{label(name, 40)}: {share(rate)}"
            for row, rate in zip(row_names, side, strict=True)])
        for name, side, symbol, colour in zip(names, rates, ("circle", "diamond"), (GROUPS[0], GROUPS[2]), strict=True)
    ]  # fmt: skip

    def form(letters: int, size: int, between: str) -> Form:
        across = axis(range=[-0.03, 1.03], tickformat=".0%", nticks=6)
        texts = [between.join(label(part, letters) for part in row) for row in row_names]
        rows = ticks(texts, letters) | {"ticktext": texts}
        return _dot_form([lines, *dots], 110 + 34 * len(texts), size, across, rows, 44)

    description = f"Dots: the rates of {names[0]} and {names[1]} side by side. {BELOW}"
    return InteractiveFigure(f"compare_{heads[0]}", description, form(26, 12, " → "), form(17, 10, " →<br>"))


def _line_between(a: Sequence[float], b: Sequence[float], colour: str) -> Form:
    """A line in each row, from one value to the other."""
    return {
        "type": "scatter", "mode": "lines", "hoverinfo": "skip", "showlegend": False,
        "line": {"color": colour, "width": 2},
        "x": [value for low, high in zip(a, b, strict=True) for value in (low, high, None)],
        "y": [value for row in range(len(a)) for value in (row, row, None)],
    }  # fmt: skip


def pain_points(frame: pd.DataFrame) -> InteractiveFigure:
    """How much worse the rate is than elsewhere, with its interval; a symbol and colour for each kind."""
    selected = frame.head(MOST_PAIN_POINTS).reset_index(drop=True)
    data = []
    for place, kind in enumerate(dict.fromkeys(selected["kind"])):
        columns = (
            selected[f"difference{end}"].where(selected["kind"] == kind).tolist() for end in ("", "_low", "_high")
        )
        values, low, high = columns
        colour, hover = GROUPS[place % len(GROUPS)], selected["sentence"].astype(str).tolist()
        data += [_line_between(low, high, colour), _dots(str(kind), values, SYMBOLS[place % 4], colour, hover)]
    names = ticks([f"{name}: {kind}" for name, kind in zip(selected["touchpoint"], selected["kind"], strict=True)], 40)
    across = axis(tickformat=".0%", title={"text": "Difference between the rates, with 95% intervals"})
    form = _dot_form(data, 110 + 34 * len(selected), 12, across, names, 44)
    return InteractiveFigure("pain_points", f"Dots: how much worse it is than elsewhere. {BELOW}", form, form)

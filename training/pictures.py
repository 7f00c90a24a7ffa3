"""Pictures of an evaluation for the reviewer: one style, stable file names, several models in one picture.

The first model is the one that the picture is about: a strong line with its 95 % band. The others (champion, baselines)
are thin lines to compare with. Drawn on figures of their own, without pyplot's global state, so threads may draw at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.dates import AutoDateLocator, ConciseDateFormatter
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from features.errors import ConfigError
from training.breakdown import by_cutoff
from training.curves import calibration_table, lift_table, pr_table, roc_table, wilson
from training.evaluation import TOP_SHARES, evaluate

# M. Okabe and K. Ito, "Color Universal Design" (2008): told apart with any kind of colour vision; yellow is too pale on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES: tuple[Any, ...] = ("-", (0, (5, 1.5)), (0, (1.5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (8, 2)), (0, (3, 3)))
INK, FAINT, PAPER = "#222222", "#8C8C8C", "#FFFFFF"
MOST_FEATURES = 20

Label = tuple[float, str, str]  # where, text, colour


@dataclass(frozen=True)
class Scored:
    """What a model predicted on rows with known labels.

    Attributes:
        name: as it should stand in the picture.
        y: (n,) labels.
        p: (n,) probabilities.
        customers: (n,) who each row belongs to.
        cutoffs: (n,) µs since 1970 UTC, for the score over time.
        importance: feature or group -> importance, larger is more.
        rows: what the rows are, such as "held-out rows".
    """

    name: str
    y: npt.ArrayLike
    p: npt.ArrayLike
    customers: npt.ArrayLike
    cutoffs: npt.ArrayLike | None = None
    importance: dict[str, float] | None = None
    rows: str = "rows"

    @cached_property
    def figures(self) -> dict[str, float]:
        """Every metric with its interval, as `evaluate` gives them."""
        return evaluate(self.y, self.p, self.customers)


def draw_all(evaluations: Sequence[Scored], folder: Path, *, earlier: Sequence[Scored] = ()) -> list[Path]:
    """Draw every picture that the evaluations allow.

    Args:
        evaluations: the model first, then what to compare it with; at most six.
        folder: made if absent; files of the same names are replaced.
        earlier: the same models on validation rows, for a longer score over time.

    Returns:
        Paths of roc.png, pr.png, calibration.png, lift.png, scores.png, then importance.png and score_over_time.png where
        there is an importance, and cutoffs.

    Raises:
        ConfigError: no model, or more than six.
        DataError: as `evaluate`.
    """
    if not 1 <= len(evaluations) <= len(COLOURS):
        raise ConfigError(f"{len(evaluations)} models in one picture: give 1 to {len(COLOURS)}")
    folder.mkdir(parents=True, exist_ok=True)
    figures = {
        "roc": roc(evaluations),
        "pr": precision_recall(evaluations),
        "calibration": calibration(evaluations),
        "lift": lift(evaluations),
        "scores": scores(evaluations[0]),
    }
    if evaluations[0].importance:
        figures["importance"] = importance(evaluations[0])
    if evaluations[0].cutoffs is not None:
        figures["score_over_time"] = score_over_time(evaluations, earlier)
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def save(figure: Figure, path: Path) -> Path:
    """Write a PNG without a date or version in it: the same figures give the same bytes."""
    FigureCanvasAgg(figure).print_png(str(path), metadata={"Software": None})
    return path


def roc(evaluations: Sequence[Scored]) -> Figure:
    """True against false positive rate, AUROC in the key."""
    figure, axes = _paper("ROC: how far positives are ranked above negatives", evaluations[0])
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    for place, scored in enumerate(evaluations):
        table = roc_table(scored.y, scored.p, scored.customers)
        start = pd.DataFrame(0.0, index=[0], columns=table.columns)
        _curve(axes, pd.concat([start, table]), "false_positive_rate", "true_positive_rate", place)
    _unit(axes, "False positive rate", "True positive rate")
    _key(axes, evaluations, "auroc", "AUROC", right=True, top=False)
    return figure


def precision_recall(evaluations: Sequence[Scored]) -> Figure:
    """Precision against recall, average precision in the key, the base rate as a line."""
    figure, axes = _paper("Precision and recall: what share of those picked is right", evaluations[0])
    base_rate = float(np.mean(np.asarray(evaluations[0].y, dtype=np.float64)))
    axes.axhline(base_rate, color=FAINT, linewidth=1)
    for place, scored in enumerate(evaluations):
        _curve(axes, pr_table(scored.y, scored.p, scored.customers), "recall", "precision", place)
    _unit(axes, "Recall: share of the positives that are picked", "Precision")
    low = base_rate > 0.35
    axes.annotate(
        f"base rate {base_rate:.1%}",
        (0.99, base_rate),
        (0, -4),
        textcoords="offset points",
        ha="right",
        va="top",
        color=INK,
        fontsize=10,
    )
    _key(axes, evaluations, "average_precision", "Average precision", right=not low, top=not low)
    return figure


def calibration(evaluations: Sequence[Scored]) -> Figure:
    """Observed against predicted in ten bins of equal size, intervals for the first model."""
    figure, axes = _paper("Calibration: do the probabilities mean what they say", evaluations[0])
    end = 0.0
    for place, scored in reversed(list(enumerate(evaluations))):
        table = calibration_table(scored.y, scored.p, scored.customers)
        style = _line(place)
        axes.plot(table["predicted"], table["observed"], **style, marker="o", markersize=6 if place == 0 else 4)
        if place == 0:
            reach = table[["observed_low", "observed_high"]].to_numpy().T
            axes.vlines(table["predicted"], *reach, color=style["color"], linewidth=1.4, alpha=0.7)
            end = max(end, float(reach.max()))
        end = max(end, float(table[["predicted", "observed"]].to_numpy().max()))
    end = min(1.0, np.ceil(end * 10 + 0.2) / 10)
    axes.plot([0, end], [0, end], color=FAINT, linewidth=1, zorder=0)
    _unit(axes, "Predicted probability (mean of the bin)", "Share of positives in the bin", end)
    _key(axes, evaluations, "calibration_error", "Calibration error", right=True, top=False)
    return figure


def lift(evaluations: Sequence[Scored]) -> Figure:
    """Positives captured against the share of rows picked, lift at the top 5, 10 and 20 % written in."""
    figure, axes = _paper("Lift: how many positives the highest predictions hold", evaluations[0])
    base_rate = float(np.mean(np.asarray(evaluations[0].y, dtype=np.float64)))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    axes.plot([0, base_rate, 1], [0, 1, 1], color=FAINT, linewidth=1)
    axes.annotate(
        "no better is possible", (base_rate, 1.0), (6, -4), textcoords="offset points", va="top", color=INK, fontsize=10
    )
    for place, scored in enumerate(evaluations):
        table = lift_table(scored.y, scored.p, scored.customers)
        start = pd.DataFrame(0.0, index=[0], columns=table.columns)
        _curve(axes, pd.concat([start, table]), "share", "captured", place)
        if place == 0:
            _mark_lift(axes, table)
    _unit(axes, "Share of rows picked, highest predictions first", "Share of all positives captured")
    _key(axes, evaluations, "lift_at_10", "Lift in the top 10 %", right=True, top=False, form="{:.2f}")
    return figure


def _mark_lift(axes: Axes, table: pd.DataFrame) -> None:
    for percent in TOP_SHARES:
        share, captured, times = table.loc[percent - 1, ["share", "captured", "lift"]]
        axes.plot([share], [captured], "o", color=COLOURS[0], markersize=6, zorder=5)
        axes.annotate(
            f"top {percent} %: ×{times:.2f}",
            (share, captured),
            (9, -3),
            textcoords="offset points",
            va="top",
            color=COLOURS[0],
            fontsize=10,
        )


def scores(scored: Scored) -> Figure:
    """How the predictions of positives and of negatives are spread."""
    figure, axes = _paper(f"Predictions of {scored.name} by what happened", scored)
    y, p = np.asarray(scored.y).reshape(-1), np.asarray(scored.p, dtype=np.float64).reshape(-1)
    end = min(1.0, np.ceil(float(p.max()) * 20 + 0.01) / 20)
    edges = np.linspace(0, end, 31)
    for label, colour, name in ((0, COLOURS[0], "negatives"), (1, COLOURS[1], "positives")):
        own = p[y == label]
        if not len(own):
            continue
        share = np.histogram(own, edges)[0] / len(own)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(share, edges, color=colour, linewidth=2)
        axes.axvline(float(own.mean()), color=colour, linewidth=1.2, linestyle=DASHES[1])
    axes.set_xlim(0, end)
    axes.set_ylim(0, None)
    axes.yaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlabel("Predicted probability")
    axes.set_ylabel("Share of the class")
    lines = [
        (f"{('negatives', 'positives')[label]}, mean {p[y == label].mean():.3f}", label)
        for label in (0, 1)
        if (y == label).any()
    ]
    _write_key(axes, "Dashed: mean of the class", lines, right=float(np.median(p)) < end / 2, top=True)
    return figure


def importance(scored: Scored) -> Figure:
    """The features or groups that the model leans on most, at most twenty."""
    ranked = sorted((scored.importance or {}).items(), key=lambda item: -item[1])[:MOST_FEATURES]
    total = sum((scored.importance or {}).values()) or 1.0
    names, shares = [name for name, _ in ranked], [value / total for _, value in ranked]
    height = 1.6 + 0.3 * len(ranked)
    figure, axes = _paper(f"What {scored.name} leans on", scored, height=height)
    axes.barh(range(len(ranked)), shares, color=COLOURS[0], height=0.7)
    axes.set_yticks(range(len(ranked)), names)
    axes.invert_yaxis()
    axes.grid(False, axis="y")
    axes.tick_params(axis="y", length=0)
    for place, share in enumerate(shares):
        axes.annotate(
            f"{share:.1%}", (share, place), (4, 0), textcoords="offset points", va="center", fontsize=10, color=INK
        )
    axes.set_xlim(0, max(shares) * 1.12)
    axes.xaxis.set_major_formatter(FuncFormatter(_percent))
    axes.set_xlabel("Share of the total importance")
    return figure


def score_over_time(evaluations: Sequence[Scored], earlier: Sequence[Scored] = ()) -> Figure:
    """AUROC by cutoff (or week, month), and below it what was predicted on average against what happened."""
    figure, above, below = _two_papers("Score over time: does it hold", evaluations[0])
    ranked: list[Label] = []
    rates: list[Label] = []
    for place, scored in enumerate(evaluations):
        for old in earlier:
            if old.name == scored.name:
                _over_time(above, below, old, place, hollow=True)
        table = _over_time(above, below, scored, place, hollow=False)
        last = table.iloc[-1]
        ranked.append((float(last["auroc"]), scored.name, COLOURS[place]))
        if place == 0:
            rates.append((float(last["base_rate"]), "what happened", INK))
            rates.append((float(last["mean_prediction"]), "predicted on average", COLOURS[0]))
    _label_ends(above, ranked, 0.07)
    below.set_ylim(0, None)
    _label_ends(below, rates, 0.11)
    above.set_ylabel("AUROC")
    below.set_ylabel("Share of positives")
    below.set_xlabel("Cutoff" + (" (hollow: validation, filled: held out)" if earlier else ""))
    return figure


def _over_time(above: Axes, below: Axes, scored: Scored, place: int, hollow: bool) -> pd.DataFrame:
    if scored.cutoffs is None:
        raise ConfigError(f"{scored.name} has no cutoffs to draw over time: give Scored.cutoffs")
    table = by_cutoff(scored.y, scored.p, scored.customers, scored.cutoffs, n_boot=200 if place == 0 else 0)
    when = (table["start"] + pd.to_timedelta(table["days"] / 2, unit="D")).to_numpy()
    style = _line(place) | {"marker": "o", "markersize": 7 if place == 0 else 4}
    style["markerfacecolor"] = PAPER if hollow else style["color"]
    above.plot(when, table["auroc"].to_numpy(), **style)
    if place == 0:
        above.vlines(when, table["auroc_low"], table["auroc_high"], color=style["color"], linewidth=1.4, zorder=1)
        rate = table["base_rate"].to_numpy(np.float64)
        low, high = wilson(rate, table["n_customers"].to_numpy(np.float64))
        below.vlines(when, low, high, color=INK, linewidth=1.2)
        below.plot(
            when, rate, color=INK, linewidth=1.6, marker="s", markersize=6, markerfacecolor=PAPER if hollow else INK
        )
        below.plot(when, table["mean_prediction"].to_numpy(), **style)
    return table


def _paper(title: str, scored: Scored, height: float = 5.4) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, a title, and a line that says which rows it is about."""
    figure = Figure(figsize=(7.2, height), dpi=150, facecolor=PAPER, layout="constrained")
    axes = figure.add_subplot()
    _dress(axes)
    _head(axes, title, scored)
    return figure, axes


def _two_papers(title: str, scored: Scored) -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(7.2, 6.2), dpi=150, facecolor=PAPER, layout="constrained")
    grid = figure.add_gridspec(2, 1, height_ratios=(3, 2))
    above = figure.add_subplot(grid[0])
    below = figure.add_subplot(grid[1], sharex=above)
    locator = AutoDateLocator(minticks=3, maxticks=8)
    for axes in (above, below):
        _dress(axes)
        axes.xaxis.set_major_locator(locator)
        axes.xaxis.set_major_formatter(ConciseDateFormatter(locator))
        axes.yaxis.set_major_locator(MaxNLocator(5))
    above.tick_params(axis="x", labelbottom=False)
    _head(above, title, scored)
    return figure, above, below


def _dress(axes: Axes) -> None:
    axes.set_facecolor(PAPER)
    axes.grid(True, color="#E3E3E3", linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    for side in ("left", "bottom"):
        axes.spines[side].set_color(FAINT)
    axes.tick_params(colors=INK, labelsize=10, color=FAINT)
    axes.xaxis.label.set(color=INK, fontsize=11)
    axes.yaxis.label.set(color=INK, fontsize=11)


def _head(axes: Axes, title: str, scored: Scored) -> None:
    y = np.asarray(scored.y, dtype=np.float64).reshape(-1)
    n_customers = len(pd.unique(np.asarray(scored.customers).reshape(-1)))
    axes.set_title(title + "\n", loc="left", fontsize=13, fontweight="bold", color=INK)
    said = f"{len(y):,} {scored.rows} of {n_customers:,} customers, {y.mean():.1%} positive; bands and bars are 95 %"
    axes.annotate(said, (0, 1), (0, 8), xycoords="axes fraction", textcoords="offset points", fontsize=10, color=INK)


def _line(place: int) -> dict[str, Any]:
    """The line of the model at this place: the first is strong, the others differ in dash as well as in colour."""
    return {
        "color": COLOURS[place],
        "linestyle": DASHES[place],
        "linewidth": 2.4 if place == 0 else 1.5,
        "zorder": 4 if place == 0 else 3,
    }


def _curve(axes: Axes, table: pd.DataFrame, x: str, y: str, place: int) -> None:
    axes.plot(table[x].to_numpy(), table[y].to_numpy(), **_line(place))
    if place == 0 and f"{y}_low" in table:
        band = table[x].to_numpy(), table[f"{y}_low"].to_numpy(), table[f"{y}_high"].to_numpy()
        axes.fill_between(*band, color=COLOURS[0], alpha=0.18, linewidth=0)


def _unit(axes: Axes, x: str, y: str, end: float = 1.0) -> None:
    """Both axes from 0 to `end`, with a hair of room so that lines along the frame stay visible."""
    axes.set(xlabel=x, ylabel=y, xlim=(-0.01 * end, 1.01 * end), ylim=(-0.01 * end, 1.01 * end))


def _percent(value: float, _: Any = None) -> str:
    return f"{value:.0%}" if abs(value * 100 - round(value * 100)) < 1e-6 else f"{value:.1%}"


def _key(
    axes: Axes, evaluations: Sequence[Scored], metric: str, says: str, *, right: bool, top: bool, form: str = "{:.3f}"
) -> None:
    """What a legend would say, in the colour of each line and with the figure: name, value, interval."""
    lines = []
    for place, scored in enumerate(evaluations):
        value, low, high = (scored.figures[f"{metric}{end}"] for end in ("", "_low", "_high"))
        span = f" ({form.format(low)} to {form.format(high)})" if np.isfinite(low) else ""
        lines.append((f"{scored.name}  {form.format(value)}{span}", place))
    _write_key(axes, says, lines, right=right, top=top)


def _write_key(axes: Axes, says: str, lines: Sequence[tuple[str, int]], *, right: bool, top: bool) -> None:
    """Lines of text in one corner, each after a sample of its line."""
    handles = [Line2D([], [], **_line(place)) for _, place in lines]
    key = axes.legend(
        handles,
        [text for text, _ in lines],
        title=says,
        loc=f"{'upper' if top else 'lower'} {'right' if right else 'left'}",
        fontsize=10,
        title_fontsize=10,
        alignment="left",
        handlelength=2.6,
        framealpha=0.85,
        edgecolor="none",
        facecolor=PAPER,
    )
    key.get_title().set_color(INK)
    for text, (_, place) in zip(key.get_texts(), lines, strict=True):
        text.set_color(INK if place else COLOURS[0])
        text.set_fontweight("normal" if place else "bold")


def _label_ends(axes: Axes, labels: Sequence[Label], lines_gap: float) -> None:
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

"""Pictures of an evaluation for the reviewer: one style, stable file names, several models in one picture.

The first model is the one that the picture is about: a strong line with its 95 % band. The others (champion, baselines)
are thin lines to compare with. Drawn on figures of their own, without pyplot's global state: threads may draw at once.
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
from matplotlib.dates import num2date
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter

from features.errors import ConfigError
from features.statistics import wilson
from training.evaluation.breakdown import by_cutoff
from training.evaluation.curves import calibration_table, lift_table, pr_table, roc_table
from training.evaluation.metrics import TOP_SHARES, evaluate
from training.reports.picture_style import (
    BACKGROUND,
    COLOURS,
    DASHES,
    FAINT,
    INK,
    Label,
    curve,
    label_ends,
    line_style,
    new_axes,
    percent,
    save,
    share_axes,
    stacked_axes,
    time_axes,
    write_legend,
)

MOST_FEATURES = 20
MOST_MODELS = len(COLOURS)  # in one picture
LABEL_TEXT: dict[str, Any] = {"textcoords": "offset points", "va": "center", "fontsize": 10, "color": INK}


@dataclass(frozen=True)
class Predictions:
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
    def metrics(self) -> dict[str, float]:
        """Every metric with its interval, as `evaluate` gives them."""
        return evaluate(self.y, self.p, self.customers)


def draw_evaluation(
    evaluations: Sequence[Predictions], folder: Path, *, earlier: Sequence[Predictions] = ()
) -> list[Path]:
    """Draw every picture that the evaluations allow.

    Args:
        evaluations: the model first, then what to compare it with; at most six.
        folder: made if absent; files of the same names are replaced.
        earlier: the same models on validation rows, for a longer score over time.

    Returns:
        Paths of roc.png, pr.png, calibration.png, lift.png, scores.png; then importance.png where the first model has
        one, and score_over_time.png where it has cutoffs.

    Raises:
        ConfigError: no model, or more than six.
        DataError: as `evaluate`.
    """
    if not 1 <= len(evaluations) <= MOST_MODELS:
        raise ConfigError(f"{len(evaluations)} models in one picture: give 1 to {MOST_MODELS}")
    folder.mkdir(parents=True, exist_ok=True)
    model = evaluations[0]
    figures = {
        "roc": roc(evaluations), "pr": precision_recall(evaluations), "calibration": calibration(evaluations),
        "lift": lift(evaluations), "scores": scores(model),
    }  # fmt: skip
    if model.importance:
        figures["importance"] = importance(model)
    if model.cutoffs is not None:
        figures["score_over_time"] = score_over_time(evaluations, earlier)
    return [save(figure, folder / f"{name}.png") for name, figure in figures.items()]


def roc(evaluations: Sequence[Predictions]) -> Figure:
    """True against false positive rate, AUROC in the key."""
    figure, axes = new_axes("ROC: how far positives are ranked above negatives", _about(evaluations[0]))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    for place, scored in enumerate(evaluations):
        table = roc_table(scored.y, scored.p, scored.customers)
        start = pd.DataFrame(0.0, index=[0], columns=table.columns)
        curve(axes, pd.concat([start, table]), "false_positive_rate", "true_positive_rate", place)
    share_axes(axes, "False positive rate", "True positive rate")
    _metric_legend(axes, evaluations, "auroc", "AUROC", right=True, top=False)
    return figure


def precision_recall(evaluations: Sequence[Predictions]) -> Figure:
    """Precision against recall, average precision in the key, the base rate as a line."""
    figure, axes = new_axes("Precision and recall: what share of those picked is right", _about(evaluations[0]))
    base_rate = float(np.mean(np.asarray(evaluations[0].y, dtype=np.float64)))
    axes.axhline(base_rate, color=FAINT, linewidth=1)
    for place, scored in enumerate(evaluations):
        curve(axes, pr_table(scored.y, scored.p, scored.customers), "recall", "precision", place)
    share_axes(axes, "Recall: share of the positives that are picked", "Precision")
    low = base_rate > 0.35
    style = LABEL_TEXT | {"ha": "right", "va": "top"}
    axes.annotate(f"base rate {base_rate:.1%}", (0.99, base_rate), (0, -4), **style)
    _metric_legend(axes, evaluations, "average_precision", "Average precision", right=not low, top=not low)
    return figure


def calibration(evaluations: Sequence[Predictions]) -> Figure:
    """Observed against predicted in ten bins of equal size, intervals for the first model."""
    figure, axes = new_axes("Calibration: do the probabilities mean what they say", _about(evaluations[0]))
    end = 0.0
    for place, scored in reversed(list(enumerate(evaluations))):
        table = calibration_table(scored.y, scored.p, scored.customers)
        style = line_style(place)
        axes.plot(table["predicted"], table["observed"], **style, marker="o", markersize=6 if place == 0 else 4)
        if place == 0:
            reach = table[["observed_low", "observed_high"]].to_numpy().T
            axes.vlines(table["predicted"], *reach, color=style["color"], linewidth=1.4, alpha=0.7)
            end = max(end, float(reach.max()))
        end = max(end, float(table[["predicted", "observed"]].to_numpy().max()))
    end = min(1.0, np.ceil(end * 10 + 0.2) / 10)
    axes.plot([0, end], [0, end], color=FAINT, linewidth=1, zorder=0)
    share_axes(axes, "Predicted probability (mean of the bin)", "Share of positives in the bin", end)
    noise = evaluations[0].metrics["calibration_error_noise"]
    _metric_legend(
        axes, evaluations, "calibration_error", f"Calibration error (chance alone: {noise:.3f})", right=True, top=False
    )
    return figure


def lift(evaluations: Sequence[Predictions]) -> Figure:
    """Positives captured against the share of rows picked, lift at the top 5, 10 and 20 % written in."""
    figure, axes = new_axes("Lift: how many positives the highest predictions hold", _about(evaluations[0]))
    base_rate = float(np.mean(np.asarray(evaluations[0].y, dtype=np.float64)))
    axes.plot([0, 1], [0, 1], color=FAINT, linewidth=1)
    axes.plot([0, base_rate, 1], [0, 1, 1], color=FAINT, linewidth=1)
    axes.annotate("no better is possible", (base_rate, 1.0), (6, -4), **LABEL_TEXT | {"va": "top"})
    for place, scored in enumerate(evaluations):
        table = lift_table(scored.y, scored.p, scored.customers)
        start = pd.DataFrame(0.0, index=[0], columns=table.columns)
        curve(axes, pd.concat([start, table]), "share", "captured", place)
        if place == 0:
            _mark_lift(axes, table)
    share_axes(axes, "Share of rows picked, highest predictions first", "Share of all positives captured")
    _metric_legend(axes, evaluations, "lift_at_10", "Lift in the top 10%", right=True, top=False, form="{:.2f}")
    return figure


def _mark_lift(axes: Axes, table: pd.DataFrame) -> None:
    for top in TOP_SHARES:
        at = table.iloc[top - 1]
        place = float(at["share"]), float(at["captured"])
        axes.plot(*place, "o", color=COLOURS[0], markersize=6, zorder=5)
        text = axes.annotate(f"top {top}%: ×{at['lift']:.2f}", place, (10, -7), **LABEL_TEXT | {"color": COLOURS[0]})
        text.set(bbox={"facecolor": BACKGROUND, "edgecolor": "none", "alpha": 0.85, "pad": 1}, zorder=6)


def scores(scored: Predictions) -> Figure:
    """How the predictions of positives and of negatives are spread."""
    figure, axes = new_axes(f"Predictions of {scored.name} by what happened", _about(scored, bands=False))
    y, p = np.asarray(scored.y).reshape(-1), np.asarray(scored.p, dtype=np.float64).reshape(-1)
    end = min(1.0, np.ceil(float(p.max()) * 20 + 0.01) / 20)
    edges = np.linspace(0, end, 31)
    for label, colour in enumerate(COLOURS[:2]):
        predicted = p[y == label]
        if not len(predicted):
            continue
        share = np.histogram(predicted, edges)[0] / len(predicted)
        axes.stairs(share, edges, fill=True, color=colour, alpha=0.25)
        axes.stairs(share, edges, color=colour, linewidth=2)
        axes.axvline(float(predicted.mean()), color=colour, linewidth=1.2, linestyle=DASHES[1])
    axes.set(xlim=(0, end), ylim=(0, None), xlabel="Predicted probability", ylabel="Share of the class")
    axes.yaxis.set_major_formatter(FuncFormatter(percent))
    lines = [
        (f"{name}, mean {p[y == label].mean():.3f}", {"color": COLOURS[label], "linewidth": 2})
        for label, name in enumerate(("negatives", "positives"))
        if (y == label).any()
    ]
    write_legend(axes, "Dashed: the means", lines, right=float(np.median(p)) < end / 2, top=True)
    return figure


def importance(scored: Predictions) -> Figure:
    """The features or groups that the model leans on most, at most twenty.

    Raises:
        ConfigError: the model has no importance.
    """
    if not scored.importance:
        raise ConfigError(f"{scored.name} has no importance to draw: give Predictions.importance")
    ranked = sorted(scored.importance.items(), key=lambda item: (-item[1], item[0]))[:MOST_FEATURES]
    total = sum(scored.importance.values()) or 1.0
    shares = [value / total for _, value in ranked]
    subtitle = f"share of its total importance; {len(ranked)} of {len(scored.importance)} shown"
    figure, axes = new_axes(f"What {scored.name} leans on", subtitle, height=1.4 + 0.28 * len(ranked))
    axes.barh(range(len(ranked)), shares, color=COLOURS[0], height=0.7)
    axes.set_yticks(range(len(ranked)), [name if len(name) <= 44 else name[:43] + "…" for name, _ in ranked])
    axes.set_ylim(len(ranked) - 0.4, -0.6)
    axes.grid(False)
    axes.tick_params(axis="both", length=0, labelbottom=False)
    axes.spines["bottom"].set_visible(False)
    for place, share in enumerate(shares):
        axes.annotate(percent(round(share, 3)), (share, place), (4, 0), **LABEL_TEXT)
    axes.set_xlim(0, max(shares) * 1.15 or 1.0)
    return figure


def score_over_time(evaluations: Sequence[Predictions], earlier: Sequence[Predictions] = ()) -> Figure:
    """AUROC by cutoff (or week, month), and below it what was predicted on average against what happened."""
    figure, above, below = time_axes("Score over time: does it hold", _about(evaluations[0]))
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
    label_ends(above, ranked, 0.07)
    below.set_ylim(0, None)
    moments = np.unique([x for drawn in above.lines for x in np.asarray(drawn.get_xdata(orig=False))])
    if len(moments) == 1:  # else the axis would span years round a single cutoff
        above.set_xlim(moments[0] - 15, moments[0] + 15)
        above.set_xticks(moments, [f"{num2date(moments[0]):%Y-%m-%d}"])  # type: ignore[no-untyped-call]
    label_ends(below, rates, 0.11)
    above.set_ylabel("AUROC")
    below.set_ylabel("Share of positives")
    below.set_xlabel("Cutoff" + (" (hollow: validation, filled: held out)" if earlier else ""))
    return figure


def _over_time(above: Axes, below: Axes, scored: Predictions, place: int, hollow: bool) -> pd.DataFrame:
    if scored.cutoffs is None:
        raise ConfigError(f"{scored.name} has no cutoffs to draw over time: give Predictions.cutoffs")
    table = by_cutoff(scored.y, scored.p, scored.customers, scored.cutoffs, n_boot=200 if place == 0 else 0)
    when = (table["start"] + pd.to_timedelta(table["days"] / 2, unit="D")).to_numpy()
    style = line_style(place) | {"marker": "o", "markersize": 7 if place == 0 else 4}
    style["markerfacecolor"] = BACKGROUND if hollow else style["color"]
    above.plot(when, table["auroc"].to_numpy(), **style)
    if place == 0:
        above.vlines(when, table["auroc_low"], table["auroc_high"], color=style["color"], linewidth=1.4, zorder=1)
        rate = table["base_rate"].to_numpy(np.float64)
        low, high = wilson(rate * (n := table["n_customers"].to_numpy(np.float64)), n)
        below.vlines(when, low, high, color=INK, linewidth=1.2)
        squares: dict[str, Any] = {"marker": "s", "markersize": 6, "markerfacecolor": BACKGROUND if hollow else INK}
        below.plot(when, rate, color=INK, linewidth=1.6, **squares)
        below.plot(when, table["mean_prediction"].to_numpy(), **style)
    return table


def draw_learning_curve(name: str, history: pd.DataFrame, folder: Path) -> Path:
    """Draw learning.png: the losses by epoch, see `learning`."""
    folder.mkdir(parents=True, exist_ok=True)
    return save(learning(name, history), folder / "learning.png")


def learning(name: str, history: pd.DataFrame) -> Figure:
    """Losses by epoch, a panel for each stage of learning ("pretraining", "member 1" with "member 2"), the best marked.

    Args:
        name: of the model.
        history: `part, epoch, name, value`, see `models.contract.HistoryModel`; names that end in "loss" are drawn.

    Raises:
        ConfigError: there is no loss in it.
    """
    losses = history[history["name"].astype(str).str.endswith("loss")]
    if losses.empty:
        raise ConfigError(f"The history of {name} holds no loss: give rows named train_loss or check_loss")
    stages = losses["part"].astype(str).str.replace(r"[\s_]*\d+$", "", regex=True)
    epochs = int(losses.groupby("part")["epoch"].nunique().max())
    figure, every = stacked_axes(f"How {name} learnt", f"losses by epoch, at most {epochs:,} epochs", stages.nunique())
    for axes, (stage, rows) in zip(every, losses.groupby(stages, sort=False), strict=True):
        _stage(axes, str(stage), rows)
    return figure


def _stage(axes: Axes, stage: str, losses: pd.DataFrame) -> None:
    """Colour says which part, dash which loss; a dot marks the least check loss of each part."""
    names = sorted(losses["name"].unique(), key=lambda name: (name != "check_loss", name))
    parts = list(losses["part"].unique())
    for (part, name), rows in losses.groupby(["part", "name"], sort=False):
        place = parts.index(part) % len(COLOURS)
        epoch, value = rows["epoch"].to_numpy(), rows["value"].to_numpy(np.float64)
        dash = DASHES[names.index(name) % len(DASHES)]
        axes.plot(epoch, value, color=COLOURS[place], linestyle=dash, linewidth=1.8)
        if name == "check_loss" and np.isfinite(value).any():
            best = int(np.nanargmin(value))
            axes.plot(epoch[best], value[best], "o", color=COLOURS[place], markersize=6, zorder=5)
    axes.set(xlabel="Epoch", ylabel=f"Loss, {stage}")
    lines = [(str(name), {"color": INK, "linestyle": DASHES[names.index(name) % len(DASHES)]}) for name in names]
    lines += [(str(part), {"color": COLOURS[at], "linewidth": 2.4}) for at, part in enumerate(parts[: len(COLOURS)])]
    write_legend(axes, "Dots: the best epoch" if "check_loss" in names else "Losses", lines, right=True, top=True)


def _metric_legend(
    axes: Axes, evaluations: Sequence[Predictions], metric: str, heading: str, *, right: bool, top: bool,
    form: str = "{:.3f}",
) -> None:  # fmt: skip
    """Name, value and interval of each model beside a sample of its line."""
    lines = []
    for place, scored in enumerate(evaluations):
        value, low, high = (scored.metrics[f"{metric}{end}"] for end in ("", "_low", "_high"))
        span = f" ({form.format(low)} to {form.format(high)})" if np.isfinite(low) else ""
        lines.append((f"{scored.name}  {form.format(value)}{span}", line_style(place)))
    write_legend(axes, heading, lines, right=right, top=top)


def _about(scored: Predictions, bands: bool = True) -> str:
    y = np.asarray(scored.y, dtype=np.float64).reshape(-1)
    n_customers = len(pd.unique(np.asarray(scored.customers).reshape(-1)))
    subtitle = f"{len(y):,} {scored.rows} of {n_customers:,} customers, {y.mean():.1%} positive"
    return subtitle + "; bands and bars: 95%" if bands else subtitle

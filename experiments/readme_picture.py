"""Draw the README's picture from what `make demo` left behind: docs/pictures/demo.png and demo-dark.png.

.venv/bin/python -m experiments.readme_picture
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from PIL import Image

from features.errors import DataError
from features.journey_map.tables import journey_map
from features.journeys.loading import load_journeys
from training.config.experiment import load_experiment
from training.evaluation.curves import calibration_table
from training.evaluation.metrics import evaluate
from training.journey_map.colours import touchpoint_colours
from training.journey_map.sankey import flow_form
from training.reports.interactive import Form
from training.reports.picture_style import COLOURS, percent, save
from training.reports.stills import draw_form
from training.tracking.registry import fetched, resolve
from training.tracking.tracking import connect

ROOT = Path(__file__).resolve().parents[1]
EXPERIMENT = ROOT / "experiments" / "configs" / "demo.toml"
NAMES = {"recency": "recency alone", "rfm": "RFM + logistic regression"}  # baselines that are shown
STEPS = 3


@dataclass(frozen=True)
class Scheme:
    """Colours of one picture: of a page with light or with dark paper."""

    name: str
    file: str
    paper: str
    ink: str
    faint: str
    strong: str


SCHEMES = (
    Scheme("light", "demo.png", "#FFFFFF", "#222222", "#8C8C8C", COLOURS[0]),
    Scheme("dark", "demo-dark.png", "#0D1117", "#E6EDF3", "#7D8590", COLOURS[5]),
)


@dataclass(frozen=True)
class DemoResults:
    """The content of the picture.

    Attributes:
        flows: the journey map's Sankey.
        customers: how many.
        models: name → held-out predictions, `customer_id, label, probability`; the champion first.
    """

    flows: Form
    customers: int
    models: dict[str, pd.DataFrame]


def main() -> None:
    """Draw both."""
    results, folder = read(), ROOT / "docs" / "pictures"
    folder.mkdir(exist_ok=True)
    for scheme in SCHEMES:
        path = small(save(draw(results, scheme), folder / scheme.file))
        print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def small(path: Path, colours: int = 96) -> Path:
    """The same picture with a palette, which is a quarter of the bytes."""
    with Image.open(path) as picture:
        palette = picture.convert("RGB").quantize(colours, dither=Image.Dither.NONE)
    palette.save(path, optimize=True)
    return path


def read() -> DemoResults:
    """The demo's journeys and what its models predicted.

    Raises:
        DataError: there was no `make demo` here.
    """
    experiment = load_experiment(EXPERIMENT)
    journeys = load_journeys(experiment.events)
    drawn = journey_map(journeys, experiment.map)
    champion = resolve(f"{experiment.name}@champion")
    models = {str(champion.tags["kind"]): _predictions(champion.run_id)}
    client = connect()
    where = [client.get_run(champion.run_id).info.experiment_id]
    query = f"tags.train_id = '{champion.tags['train_id']}' and tags.role = 'baseline'"
    runs = {run.data.tags["kind"]: run.info.run_id for run in client.search_runs(where, query)}
    models |= {label: _predictions(runs[kind]) for kind, label in NAMES.items() if kind in runs}
    colours = touchpoint_colours(drawn.touchpoints, drawn.funnel["stage"].tolist())
    flows = flow_form(drawn.sankey[drawn.sankey["step"] < STEPS], colours)
    return DemoResults(flows, journeys.n_customers, models)


def _predictions(run_id: str) -> pd.DataFrame:
    path = fetched(run_id, "predictions/test.csv")
    if path is None:
        raise DataError(f"Run {run_id} has no held-out predictions: run `make demo` first.")
    return pd.read_csv(path, dtype={"customer_id": str})


def draw(results: DemoResults, scheme: Scheme) -> Figure:
    """The map at the left; the champion's calibration and its margin over the baselines at the right."""
    figure = Figure(figsize=(10.4, 4.9), dpi=150, facecolor=scheme.paper, layout="constrained")
    grid = figure.add_gridspec(2, 2, width_ratios=(1.55, 1), height_ratios=(1.45, 1))
    flows = figure.add_subplot(grid[:, 0])
    draw_form(flows, results.flows, scheme=scheme.name)
    _title(flows, f"Which way {results.customers:,} customers go", scheme)
    _calibration(figure.add_subplot(grid[0, 1]), next(iter(results.models.values())), scheme)
    _ranking(figure.add_subplot(grid[1, 1]), results.models, scheme)
    return figure


def _title(axes: Axes, text: str, scheme: Scheme) -> None:
    axes.set_title(text, loc="left", fontsize=11, fontweight="bold", color=scheme.ink)


def _dressed(axes: Axes, title: str, scheme: Scheme) -> None:
    axes.set_facecolor(scheme.paper)
    for side, spine in axes.spines.items():
        spine.set_visible(side in ("left", "bottom"))
        spine.set_color(scheme.faint)
    axes.tick_params(colors=scheme.ink, labelsize=9, color=scheme.faint)
    _title(axes, title, scheme)


def _calibration(axes: Axes, rows: pd.DataFrame, scheme: Scheme) -> None:
    """Share of those who churned against what was predicted, in ten bins of equal size."""
    _dressed(axes, "Churn: predicted and observed", scheme)
    table = calibration_table(rows["label"], rows["probability"], rows["customer_id"])
    end = float(table[["predicted", "observed_high"]].to_numpy().max()) * 1.03
    axes.plot([0, end], [0, end], color=scheme.faint, linewidth=1)
    axes.vlines(table["predicted"], table["observed_low"], table["observed_high"], color=scheme.strong, linewidth=1.4)
    axes.plot(table["predicted"], table["observed"], color=scheme.strong, marker="o", linewidth=2)
    axes.set(xlim=(0, end), ylim=(0, end))
    axes.xaxis.set_major_formatter(FuncFormatter(percent))
    axes.yaxis.set_major_formatter(FuncFormatter(percent))
    axes.set_xlabel("predicted, ten groups of held-out customers", color=scheme.ink, fontsize=9)
    axes.set_ylabel("observed, 95 % interval", color=scheme.ink, fontsize=9)


def _ranking(axes: Axes, models: dict[str, pd.DataFrame], scheme: Scheme) -> None:
    """AUROC of the champion and of the baselines on the held-out rows, with intervals."""
    _dressed(axes, "Held-out AUROC beside the baselines", scheme)
    for place, (name, rows) in enumerate(models.items()):
        metrics: dict[str, Any] = evaluate(rows["label"], rows["probability"], rows["customer_id"])
        colour = scheme.faint if place else scheme.strong
        axes.hlines(place, metrics["auroc_low"], metrics["auroc_high"], color=colour, linewidth=2)
        axes.plot(metrics["auroc"], place, "o", color=colour)
        text = f"{name}  {metrics['auroc']:.2f}".replace("0.", ".")
        axes.annotate(text, (metrics["auroc_low"], place), (-6, 0), textcoords="offset points", ha="right", va="center",
                      fontsize=9, color=scheme.ink)  # fmt: skip
    axes.set(xlim=(0.15, 1.0), ylim=(len(models) - 0.4, -0.6), yticks=[], xticks=[0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
    axes.spines["left"].set_visible(False)


if __name__ == "__main__":
    main()

"""Churn on Online Retail and conversion on BPI 2012, trained as shipped, on the held-out rows of the tasks.

    python experiments/benchmarks/quality.py                    # both, with the searches of the experiment files
    python experiments/benchmarks/quality.py --trials 5         # quicker

The figures are those that MLflow records: AUROC and Brier score with 95 % intervals from a bootstrap over customers.
The held-out rows are scored once per final model; nothing here chooses by them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from training.config.experiment import load_experiment
from training.fitting.train import train

BARS = {"online_retail_churn": (0.755, 0.181), "bpi2012_conversion": (0.712, 0.197)}  # AUROC at least, Brier at most
EXPERIMENTS = Path(__file__).resolve().parents[1] / "configs"


def main(
    trials: Annotated[int | None, typer.Option(help="Trials of each search; by default as the files say.")] = None,
    only: Annotated[str | None, typer.Option(help="One of the two experiments.")] = None,
) -> None:
    """Train and report."""
    console = Console(stderr=True)
    for name, (auroc, brier) in BARS.items():
        if only not in (None, name):
            continue
        overrides = [] if trials is None else [f"search.trials={trials}", "search.trials_of={}"]
        result = train(load_experiment(EXPERIMENTS / f"{name}.toml", overrides), progress=console)
        print(f"\n{name}: bars AUROC >= {auroc}, Brier <= {brier}")
        for kind, model in result.models.items():
            figures = [f"{metric} {_formatted(model['metrics']['test'], metric)}" for metric in ("auroc", "brier")]
            print(
                f"  {kind:10s} {'   '.join(figures)}   validation {_formatted(model['metrics']['validation'], 'auroc')}"
            )


def _formatted(metrics: dict[str, float], metric: str) -> str:
    return f"{metrics[metric]:.4f} ({metrics[f'{metric}_low']:.4f} to {metrics[f'{metric}_high']:.4f})"


if __name__ == "__main__":
    typer.run(main)

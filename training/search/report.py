"""The report of a search: which settings mattered, and a picture of how it went.

    importance = parameter_importance(result.study)     # `parameter, importance`, the largest first
    draw_search("gbdt", result.trials, importance, folder / "search.png")

The importance of a parameter is how much of the difference between the better trials and all of them its values explain
(S. Watanabe, A. Bansal, F. Hutter: "PED-ANOVA", IJCAI 2023, as Optuna computes it). With few trials it is a rough hint.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState

from training.reports.picture_style import COLOURS, FAINT, INK, percent, save, stacked_axes

FEWEST_TRIALS = 10  # complete ones, below which an importance would be noise
MOST_PARAMETERS = 15


def parameter_importance(study: optuna.Study) -> pd.DataFrame:
    """`parameter, importance` (shares that sum to 1), the largest first; no rows where there are too few trials."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    shares = {}
    if len(complete) >= FEWEST_TRIALS and any(len(set(map(str, values))) > 1 for values in _values(complete)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Optuna's remarks about itself
            shares = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator())
    table = pd.DataFrame({"parameter": list(shares), "importance": list(shares.values())})
    table = table.astype({"parameter": str, "importance": float})
    return table.sort_values("importance", ascending=False, kind="stable").reset_index(drop=True)


def _values(trials: list[optuna.trial.FrozenTrial]) -> list[list[object]]:
    names = {name for trial in trials for name in trial.params}
    return [[trial.params.get(name) for trial in trials] for name in sorted(names)]


def draw_search(kind: str, trials: pd.DataFrame, importance: pd.DataFrame, path: Path) -> Path:
    """Every complete trial with the best so far, and below it what mattered, where that is known.

    Args:
        kind: of model.
        trials: `number, state, log_loss`.
        importance: by `parameter_importance`.
        path: of the PNG.
    """
    counts = trials["state"].value_counts().to_dict()
    subtitle = ", ".join(f"{count} {state}" for state, count in counts.items()) + "; log loss on validation rows"
    figure, axes = stacked_axes(f"The search for the settings of {kind}", subtitle, 1 if importance.empty else 2)
    complete = trials[trials["log_loss"].notna()].sort_values("number")
    number, loss = complete["number"].to_numpy(), complete["log_loss"].to_numpy(np.float64)
    best = int(loss.argmin())
    axes[0].plot(number, loss, "o", color=FAINT, markersize=5, linestyle="none")
    axes[0].step(number, np.minimum.accumulate(loss), where="post", color=COLOURS[0], linewidth=2.4)
    axes[0].plot(number[best], loss[best], "o", color=COLOURS[0], markersize=8, zorder=5)
    axes[0].annotate(
        f"best: trial {number[best]}, {loss[best]:.4f}", (0.99, 0.95), xycoords="axes fraction", ha="right", va="top",
        color=INK, fontsize=10,
    )  # fmt: skip
    axes[0].set(xlabel="Trial", ylabel="Log loss")
    if not importance.empty:
        _bars(axes[1], importance.head(MOST_PARAMETERS))
    path.parent.mkdir(parents=True, exist_ok=True)
    return save(figure, path)


def _bars(axes: Axes, importance: pd.DataFrame) -> None:
    places = list(range(len(importance)))
    axes.barh(places, importance["importance"].to_numpy(), color=COLOURS[0], height=0.7)
    axes.set_yticks(places, importance["parameter"].tolist(), fontsize=9)
    axes.invert_yaxis()
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(percent))
    axes.set_xlabel("Importance of the parameter (PED-ANOVA, shares)")

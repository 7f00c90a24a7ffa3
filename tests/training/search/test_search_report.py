"""What happened in a search: the importance of parameters, and the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from training.search.report import draw_search, parameter_importance


def searched(trials: int) -> optuna.Study:
    """A study in which x decides and y does nothing."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(
        lambda trial: abs(trial.suggest_float("x", 0, 1) - 0.3) + 0 * trial.suggest_float("y", 0, 1), n_trials=trials
    )
    return study


def test_decisive_parameter_comes_first() -> None:
    table = parameter_importance(searched(30))
    assert table["parameter"].tolist() == ["x", "y"]
    assert table["importance"].sum() == pytest.approx(1.0)
    assert table["importance"].iloc[0] > 0.5


def test_few_trials_have_no_importance() -> None:
    table = parameter_importance(searched(3))
    assert table.empty
    assert list(table.columns) == ["parameter", "importance"]


@pytest.mark.parametrize("known", [True, False])
def test_picture_with_and_without_importance(tmp_path: Path, known: bool) -> None:
    trials = pd.DataFrame({
        "number": range(5), "state": ["complete", "pruned", "complete", "complete", "failed"],
        "log_loss": [0.6, np.nan, 0.5, 0.55, np.nan],
    })  # fmt: skip
    importance = pd.DataFrame({"parameter": ["x", "y"], "importance": [0.8, 0.2]}).head(2 if known else 0)
    path = draw_search("gbdt", trials, importance, tmp_path / "pictures" / "search.png")
    assert path.read_bytes().startswith(b"\x89PNG")

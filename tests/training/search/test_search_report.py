"""What happened in a search: the importance of parameters, and the picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest

from training.search.report import draw_search, parameter_importance


def searched(folder: Path, trials: int) -> Path:
    """A study in which x decides and y does nothing."""
    storage = optuna.storages.RDBStorage(f"sqlite:///{folder / 'optuna.db'}")
    study = optuna.create_study(storage=storage, study_name="search", sampler=optuna.samplers.RandomSampler(seed=1))
    study.optimize(
        lambda trial: abs(trial.suggest_float("x", 0, 1) - 0.3) + 0 * trial.suggest_float("y", 0, 1), n_trials=trials
    )
    storage.engine.dispose()
    return folder


def test_the_parameter_that_decides_comes_first(tmp_path: Path) -> None:
    table = parameter_importance(searched(tmp_path, 30))
    assert table["parameter"].tolist() == ["x", "y"]
    assert table["importance"].sum() == pytest.approx(1.0)
    assert table["importance"].iloc[0] > 0.5


def test_of_few_trials_nothing_is_said(tmp_path: Path) -> None:
    table = parameter_importance(searched(tmp_path, 3))
    assert table.empty
    assert list(table.columns) == ["parameter", "importance"]


@pytest.mark.parametrize("known", [True, False])
def test_the_picture_is_drawn_with_and_without_importance(tmp_path: Path, known: bool) -> None:
    trials = pd.DataFrame({
        "number": range(5), "state": ["complete", "pruned", "complete", "complete", "failed"],
        "log_loss": [0.6, np.nan, 0.5, 0.55, np.nan],
    })  # fmt: skip
    importance = pd.DataFrame({"parameter": ["x", "y"], "importance": [0.8, 0.2]}).head(2 if known else 0)
    path = draw_search("gbdt", trials, importance, tmp_path / "pictures" / "search.png")
    assert path.read_bytes().startswith(b"\x89PNG")

"""The kinds of model there are, what a search may turn in each, and how one is made from settings."""

from __future__ import annotations

import difflib
from typing import Any, Protocol

from features.errors import ConfigError
from features.tabular import ALL_GROUPS
from models.baselines import BaseRate, Recency, RFMLogistic
from models.contract import Model, Settings
from models.gbdt import GBDT, GBDTSettings

KINDS: dict[str, type[Model]] = {kind.kind: kind for kind in (GBDT, RFMLogistic, Recency, BaseRate)}
BASELINES = (RFMLogistic.kind, Recency.kind, BaseRate.kind)

# Groups of features that a trial may leave out. Few rows can be worse off with them: on BPI 2012 the few that always
# stay did better alone than with any one of these (`experiments/LOG.md`, 2026-11-22).
OPTIONAL_GROUPS = ("trend", "rhythm", "day_rhythm", "sessions", "tenure", "variety", "returns", "calendar",
                   "touch", "order", "transitions", "open_work", "properties")  # fmt: skip

# Where a search starts: few features, then all of them; the rest is the sampler's.
_USUAL = {
    "categorical": False, "num_leaves": 8, "min_data_in_leaf": 40, "feature_fraction": 0.1, "bagging_fraction": 0.8,
    "lambda_l1": 0.001, "lambda_l2": 5.0, "path_smooth": 0.01, "extra_trees": True,
}  # fmt: skip
STARTS: dict[str, list[dict[str, Any]]] = {
    GBDT.kind: [_USUAL | {f"use_{group}": used for group in OPTIONAL_GROUPS} for used in (False, True)]
}


class Trial(Protocol):
    """The part of an Optuna trial that a search space needs."""

    def suggest_int(self, name: str, low: int, high: int, *, log: bool = False) -> int: ...  # noqa: D102
    def suggest_float(self, name: str, low: float, high: float, *, log: bool = False) -> float: ...  # noqa: D102
    def suggest_categorical(self, name: str, choices: list[Any]) -> Any: ...  # noqa: D102


def make(kind: str, settings: Settings) -> Model:
    """A new, unfitted model.

    Args:
        kind: one of `KINDS`.
        settings: as `search_space` returns them, or a part; `features` holds settings of the tabular features.

    Raises:
        ConfigError: for a kind or a setting that does not exist.
    """
    if kind not in KINDS:
        near = difflib.get_close_matches(kind, KINDS, n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise ConfigError(f"There is no model of kind {kind!r}; there are {', '.join(KINDS)}.{hint}")
    if kind == GBDT.kind:
        return GBDT(GBDTSettings.from_dict(settings))
    return KINDS[kind]()


def search_space(kind: str, trial: Trial) -> Settings:
    """Suggest settings for one trial of a search; empty for a kind with nothing to turn."""
    return _gbdt_space(trial) if kind == GBDT.kind else {}


def _gbdt_space(trial: Trial) -> Settings:
    dropped = {group for group in OPTIONAL_GROUPS if not trial.suggest_categorical(f"use_{group}", [True, False])}
    return {
        "categorical": trial.suggest_categorical("categorical", [False, True]),
        "num_leaves": trial.suggest_int("num_leaves", 3, 32, log=True),
        "min_data_in_leaf": trial.suggest_int("min_data_in_leaf", 10, 200, log=True),
        "feature_fraction": trial.suggest_float("feature_fraction", 0.03, 0.5, log=True),
        "bagging_fraction": trial.suggest_float("bagging_fraction", 0.5, 1.0),
        "lambda_l1": trial.suggest_float("lambda_l1", 1e-3, 10.0, log=True),
        "lambda_l2": trial.suggest_float("lambda_l2", 1e-2, 100.0, log=True),
        "path_smooth": trial.suggest_float("path_smooth", 1e-2, 30.0, log=True),
        "extra_trees": trial.suggest_categorical("extra_trees", [True, False]),
        "features": {"groups": [group for group in ALL_GROUPS if group not in dropped]},
    }

"""Gradient-boosted trees (LightGBM) on tabular features: members stopped early on later rows of unseen customers.

Each member leaves out one group of customers. The late rows of all these groups together decide how many trees the
members get, as one small group alone would decide with much noise. Each of these rows also gets a margin from the
member that never saw its customer; the calibration is learnt on those margins.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import ConfigError
from features.journeys.journeys import Snapshots
from features.settings import unknown_key
from features.tabular.features import TabularFeatures
from features.tabular.settings import TabularSettings
from models.boosting.compiled_trees import BoostedTrees, threads_for
from models.calibration import BetaCalibration
from models.contract import Reason, Vector, check_labels
from models.holdout import member_splits
from models.reasons import top_reasons

Matrix = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class GBDTSettings:
    """Settings of LightGBM, of its features and of the members.

    Attributes:
        features: which features are built, see `features.tabular.settings.TabularSettings`.
        members: how many boosters are averaged; each leaves out one group of customers.
        later_share: the share of the latest rows that stop the boosting and calibrate.
        categorical: split codes as sets of values; otherwise by their order, which is by frequency.
        max_trees, patience: rounds of boosting at the most, and without progress on the later rows.
        learning_rate, num_leaves, min_data_in_leaf, feature_fraction, bagging_fraction: LightGBM's own.
        lambda_l1, lambda_l2, path_smooth, extra_trees: LightGBM's own.
        seed: of everything random.
    """

    features: TabularSettings = field(default_factory=TabularSettings)
    members: int = 5
    later_share: float = 0.4
    max_trees: int = 1500
    patience: int = 40
    categorical: bool = False
    learning_rate: float = 0.08
    num_leaves: int = 8
    min_data_in_leaf: int = 40
    feature_fraction: float = 0.1
    bagging_fraction: float = 0.8
    lambda_l1: float = 0.0
    lambda_l2: float = 5.0
    path_smooth: float = 0.0
    extra_trees: bool = True
    seed: int = 0

    def booster_parameters(self) -> dict[str, Any]:
        """LightGBM's parameters; no class weights, as they would bend the probabilities."""
        tuned = ("learning_rate", "num_leaves", "min_data_in_leaf", "feature_fraction", "bagging_fraction",
                  "lambda_l1", "lambda_l2", "path_smooth", "extra_trees")  # fmt: skip
        return {
            "objective": "binary",
            "bagging_freq": 1,
            "seed": self.seed,
            "deterministic": True,
            "force_col_wise": True,
            "num_threads": int(os.environ.get("OMP_NUM_THREADS", "0")),
            "verbosity": -1,
        } | {name: getattr(self, name) for name in tuned}

    def to_dict(self) -> dict[str, Any]:
        """The settings as JSON-ready data."""
        values = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        return values | {"features": self.features.model_dump(mode="json")}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`; what is missing takes its default.

        Raises:
            ConfigError: a key that does not exist.
        """
        names = [setting.name for setting in fields(cls)]
        for key in data:
            if key not in names:
                raise ConfigError(unknown_key(key, names))
        return cls(**data | {"features": TabularSettings.model_validate(data.get("features", {}))})


class Features(Protocol):
    """A matrix of snapshots, and what its columns mean."""

    def fit(self, snapshots: Snapshots) -> Self: ...  # noqa: D102
    def transform(self, snapshots: Snapshots) -> Matrix: ...  # noqa: D102
    def get_feature_names_out(self) -> list[str]: ...  # noqa: D102
    def describe(self) -> pd.DataFrame: ...  # noqa: D102
    @property
    def categorical_features(self) -> list[str]: ...  # noqa: D102


class GBDT:
    """LightGBM behind the contract of `models.contract.Model`."""

    kind = "gbdt"

    features_: Features
    members_: list[BoostedTrees]

    def __init__(self, settings: GBDTSettings | None = None) -> None:
        self.settings = settings or GBDTSettings()

    def fit(self, snapshots: Snapshots, labels: npt.ArrayLike) -> Self:
        """Learn features, boosters and calibration from (n,) snapshots and (n,) 0/1 labels."""
        y = check_labels(snapshots, labels)
        self.features_ = self._new_features().fit(snapshots)
        x = self.features_.transform(snapshots)  # (n, f)
        settings = self.settings
        splits = member_splits(snapshots, y, settings.members, settings.later_share, settings.seed)
        self.members_ = self._boost(x, y, splits)
        margins, checked = np.zeros(len(y)), np.zeros(len(y), dtype=bool)
        for member, (_, check) in zip(self.members_, splits, strict=True):
            margins[check] = member.margins(x[check])
            checked[check] = True
        self.calibration_ = BetaCalibration.fit(margins[checked], y[checked])
        return self

    def predict(self, snapshots: Snapshots) -> Vector:
        """(n,) calibrated probabilities."""
        return self.calibration_.probability(self._margins(self.features_.transform(snapshots)))

    def reasons(self, snapshots: Snapshots, top: int = 5) -> list[list[Reason]]:
        """SHAP values of the boosters (log-odds, before calibration), summed by subject, the strongest first."""
        x = self.features_.transform(snapshots)
        boosters = [member.booster for member in self.members_]
        shares = [booster.predict(x, pred_contrib=True, **threads_for(x)) for booster in boosters]  # each (n, f + 1)
        return top_reasons(x, np.mean(shares, axis=0)[:, :-1], self.features_.describe(), top)

    def feature_table(self) -> pd.DataFrame:
        """One row a feature: `name, group, meaning, importance` (share of the boosters' total gain)."""
        gain = sum(member.booster.feature_importance("gain") for member in self.members_)
        return self.features_.describe().assign(importance=gain / max(gain.sum(), 1e-300))

    def save(self, folder: Path) -> None:
        """Write `features.json`, `booster_*.txt`, `calibration.json` and `settings.json`."""
        for number, member in enumerate(self.members_):
            (folder / f"booster_{number}.txt").write_text(member.text, encoding="utf-8")
        self._save_features(folder)
        for name, data in (("calibration", self.calibration_.to_dict()), ("settings", self.settings.to_dict())):
            (folder / f"{name}.json").write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        data = {
            name: json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
            for name in ("calibration", "settings")
        }
        model = cls(cls.settings_from(data["settings"]))
        model._load_features(folder)
        model.calibration_ = BetaCalibration(**data["calibration"])
        files = [folder / f"booster_{number}.txt" for number in range(model.settings.members)]
        model.members_ = [BoostedTrees(file.read_text(encoding="utf-8")) for file in files]
        return model

    @staticmethod
    def settings_from(data: dict[str, Any]) -> GBDTSettings:
        """Settings of this kind of model from JSON-ready data."""
        return GBDTSettings.from_dict(data)

    def _new_features(self) -> Features:
        """The features to learn from, not fitted yet."""
        return TabularFeatures(self.settings.features)

    def _save_features(self, folder: Path) -> None:
        assert isinstance(self.features_, TabularFeatures)
        text = json.dumps(self.features_.to_dict(), indent=1, ensure_ascii=False)
        (folder / "features.json").write_text(text, encoding="utf-8")

    def _load_features(self, folder: Path) -> None:
        data = json.loads((folder / "features.json").read_text(encoding="utf-8"))
        self.features_ = TabularFeatures.from_dict(data)

    def _boost(self, x: Matrix, y: Vector, splits: list[tuple[Ints, Ints]]) -> list[BoostedTrees]:
        """One booster a member, all with the same number of trees: where their mean loss on the later rows is least."""
        import lightgbm as lgb  # local: a service that gives no reasons starts sooner without it

        parameters = self.settings.booster_parameters()
        data = lgb.Dataset(
            x,
            y,
            feature_name=self.features_.get_feature_names_out(),
            categorical_feature=self.features_.categorical_features if self.settings.categorical else [],
            params=parameters,
        )
        cv: Any = lgb.cv(
            parameters,
            data,
            num_boost_round=self.settings.max_trees,
            folds=splits,
            callbacks=[lgb.early_stopping(self.settings.patience, verbose=False)],
            return_cvbooster=True,
        )["cvbooster"]
        # Only the text is kept: the trees up to the best round, without the training data.
        best = cv.best_iteration
        return [BoostedTrees(booster.model_to_string(num_iteration=best)) for booster in cv.boosters]

    def _margins(self, x: Matrix) -> Vector:
        """(n,) mean log-odds of the members."""
        total = np.zeros(len(x))
        for member in self.members_:
            total += member.margins(x)
        return total / len(self.members_)

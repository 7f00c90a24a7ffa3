"""A linear probe: ridge logistic regression on the embeddings of an encoder, pretrained or with random weights.

The penalty is chosen on the late rows of customers that each fit left out, and the same margins calibrate. With few
labels a probe is hard to beat. On an encoder with random weights it shows what the architecture alone is worth (random
features, Rahimi & Recht 2007), which any training has to surpass.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journeys.holdout import stable_groups
from features.journeys.journeys import Snapshots
from models.calibration import BetaCalibration
from models.contract import Reason, Vector, check_labels
from models.holdout import both_classes, late_rows
from models.sequence.embedder import Embedder, packages_of, standardize
from models.sequence.occlusion import occlusion_reasons
from models.sequence.settings import Floats, ProbeSettings


class Probe:
    """A linear model on embeddings behind the contract of `models.contract.Model`."""

    kind = "probe"

    def __init__(self, settings: ProbeSettings | None = None) -> None:
        self.settings = settings or ProbeSettings()
        self._folder: Path | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """What it needs to run."""
        return packages_of(self.settings.network)

    def resume_in(self, folder: Path) -> None:
        """Keep the state of pretraining in `folder`, and go on from there."""
        self._folder = folder

    def fit(self, snapshots: Snapshots, labels: npt.ArrayLike) -> Self:
        """Pretrain on the journeys, then fit the probe on (n,) snapshots and (n,) 0/1 labels."""
        y = check_labels(snapshots, labels)
        folder = None if self._folder is None else self._folder / "pretraining"
        self.embedder_ = Embedder(self.settings.encoder()).fit(snapshots, folder)
        embedding = self.embedder_.embed(snapshots)
        self.mean_ = embedding.mean(axis=0, dtype=np.float64)
        spread = embedding.std(axis=0, dtype=np.float64)
        self.scale_ = np.where(spread > 1e-6, spread, 1.0)
        x = standardize(embedding, self.mean_, self.scale_)
        margins, rows = self._held_out_margins(x, y, snapshots)
        self.strength_ = min(margins, key=lambda strength: _log_loss(margins[strength], y[rows]))
        self.coef_, self.intercept_ = _fitted(x, y, self.strength_)
        self.calibration_ = BetaCalibration.fit(margins[self.strength_], y[rows])
        return self

    def predict(self, snapshots: Snapshots) -> Vector:
        """(n,) calibrated probabilities."""
        return self.calibration_.probability(self.margins(snapshots))

    def margins(self, snapshots: Snapshots) -> Vector:
        """(n,) log-odds before calibration."""
        return standardize(self.embed(snapshots), self.mean_, self.scale_) @ self.coef_ + self.intercept_

    def embed(self, snapshots: Snapshots) -> Floats:
        """(n, d) embeddings."""
        return self.embedder_.embed(snapshots)

    @property
    def version(self) -> str:
        """Of the encoder."""
        return self.embedder_.version

    def history(self) -> pd.DataFrame:
        """How pretraining went."""
        return self.embedder_.history_

    def reasons(self, snapshots: Snapshots, top: int = 5) -> list[list[Reason]]:
        """Touchpoints by the change of the log-odds when they are removed."""
        return occlusion_reasons(self.margins, snapshots, top)

    def save(self, folder: Path) -> None:
        """Write the encoder and `probe.json`."""
        self.embedder_.save(folder)
        data = {
            "settings": self.settings.to_dict(),
            "strength": self.strength_,
            "mean": self.mean_.tolist(),
            "scale": self.scale_.tolist(),
            "coef": self.coef_.tolist(),
            "intercept": self.intercept_,
            "calibration": self.calibration_.to_dict(),
        }
        (folder / "probe.json").write_text(json.dumps(data), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        data: dict[str, Any] = json.loads((folder / "probe.json").read_text(encoding="utf-8"))
        probe = cls(ProbeSettings.from_dict(data["settings"]))
        probe.embedder_ = Embedder.load(folder)
        probe.mean_, probe.scale_, probe.coef_ = (np.array(data[name]) for name in ("mean", "scale", "coef"))
        probe.strength_, probe.intercept_ = data["strength"], data["intercept"]
        probe.calibration_ = BetaCalibration(**data["calibration"])
        return probe

    def _held_out_margins(
        self, x: npt.NDArray[np.float64], y: Vector, snapshots: Snapshots
    ) -> tuple[dict[float, Vector], npt.NDArray[np.int64]]:
        """Penalty → margins of the late rows, each from a fit without its customer; and the indices of these rows."""
        group = stable_groups(snapshots.customer_ids, self.settings.groups, self.settings.seed)
        late = late_rows(snapshots.cutoff, self.settings.later_share)
        if not both_classes(y[late]):
            late = np.ones(len(y), dtype=bool)
        margins = {strength: np.zeros(len(y)) for strength in self.settings.strengths}
        for held_out in range(self.settings.groups):
            fit, check = group != held_out, (group == held_out) & late
            if not both_classes(y[fit]) or not check.any():
                continue
            for strength, values in margins.items():
                coef, intercept = _fitted(x[fit], y[fit], strength)
                values[check] = x[check] @ coef + intercept
        rows = np.flatnonzero(late)
        return {strength: values[rows] for strength, values in margins.items()}, rows


def _fitted(x: npt.NDArray[np.float64], y: Vector, strength: float) -> tuple[Vector, float]:
    """(d,) coefficients and the intercept of ridge logistic regression."""
    from sklearn.linear_model import LogisticRegression  # local: only a fit needs it

    fit = LogisticRegression(C=strength, solver="newton-cholesky", max_iter=50).fit(x, y)
    return np.asarray(fit.coef_[0], np.float64), float(fit.intercept_[0])


def _log_loss(margins: Vector, y: Vector) -> float:
    return float(np.mean(np.logaddexp(0.0, margins) - y * margins))

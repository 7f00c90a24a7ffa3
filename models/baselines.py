"""Baselines that a model must beat: the base rate, recency alone, and RFM with logistic regression."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from features.journeys.journeys import Snapshots
from features.timestamps import DAY_US
from models.calibration import sigmoid
from models.contract import Vector, check_labels


class BaseRate:
    """Every customer gets the share of ones among the labels."""

    kind = "base_rate"

    def fit(self, snapshots: Snapshots, labels: npt.ArrayLike) -> Self:
        """Learn the share of ones."""
        self.rate_ = float(check_labels(snapshots, labels).mean())
        return self

    def predict(self, snapshots: Snapshots) -> Vector:
        """(n,) times the same number."""
        return np.full(len(snapshots), self.rate_)

    def save(self, folder: Path) -> None:
        """Write `base_rate.json`."""
        (folder / "base_rate.json").write_text(json.dumps({"rate": self.rate_}), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        model = cls()
        model.rate_ = json.loads((folder / "base_rate.json").read_text(encoding="utf-8"))["rate"]
        return model


class RFMLogistic:
    """Logistic regression on recency, frequency, money and age, each as a standardised log(1 + x).

    The classic of direct marketing (A. M. Hughes: Strategic Database Marketing, 1994), with the customer's age added.
    """

    kind = "rfm"
    columns: ClassVar[tuple[str, ...]] = ("recency_days", "active_days", "events", "value", "age_days")

    def fit(self, snapshots: Snapshots, labels: npt.ArrayLike) -> Self:
        """Learn centre, scale and weights."""
        from sklearn.linear_model import LogisticRegression  # heavy, and scoring needs none of it

        y = check_labels(snapshots, labels)
        x = self._inputs(snapshots)  # (n, k)
        self.centre_, scale = x.mean(axis=0), x.std(axis=0)
        self.scale_ = np.where(scale > 0, scale, 1.0)
        fitted = LogisticRegression(C=1.0, max_iter=1000).fit((x - self.centre_) / self.scale_, y)
        self.weights_, self.bias_ = fitted.coef_[0].astype(np.float64), float(fitted.intercept_[0])
        return self

    def predict(self, snapshots: Snapshots) -> Vector:
        """(n,) probabilities."""
        z = (self._inputs(snapshots) - self.centre_) / self.scale_
        return sigmoid((z * self.weights_).sum(axis=1) + self.bias_)

    def save(self, folder: Path) -> None:
        """Write `weights.json`."""
        data = {
            "centre": self.centre_.tolist(),
            "scale": self.scale_.tolist(),
            "weights": self.weights_.tolist(),
            "bias": self.bias_,
        }
        (folder / "weights.json").write_text(json.dumps(data), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        data = json.loads((folder / "weights.json").read_text(encoding="utf-8"))
        model = cls()
        model.centre_, model.scale_, model.weights_ = (np.array(data[k]) for k in ("centre", "scale", "weights"))
        model.bias_ = data["bias"]
        return model

    def _inputs(self, snapshots: Snapshots) -> npt.NDArray[np.float64]:
        """(n, k) signed log(1 + |x|) of this model's columns."""
        x = rfm(snapshots)[:, [ALL_COLUMNS.index(name) for name in self.columns]]
        return np.asarray(np.sign(x) * np.log1p(np.abs(x)))


class Recency(RFMLogistic):
    """The days since the last event, and nothing else."""

    kind = "recency"
    columns: ClassVar[tuple[str, ...]] = ("recency_days",)


ALL_COLUMNS = RFMLogistic.columns


def rfm(snapshots: Snapshots) -> npt.NDArray[np.float64]:
    """(n, 5) days since the last event, days with an event, events, sum of money, days since the first event.

    Where a log has no `value`, money is the last known value of its first numeric profile column, else zero. A snapshot
    without events has recency and age of ten years and zeros elsewhere.
    """
    journeys, start, stop = snapshots.journeys, snapshots.start, snapshots.stop
    empty = start >= stop
    first, last = np.where(empty, 0, start), np.where(empty, 0, stop - 1)
    t = journeys.t if journeys.n_events else np.zeros(1, dtype=np.int64)
    day = t // DAY_US
    new_day = np.concatenate(([1.0], (np.diff(day) != 0).astype(np.float64)))
    days = 1.0 + _sums(new_day, first + 1, last + 1)  # a customer's first flag compares with the customer before
    x = np.column_stack(
        (
            (snapshots.cutoff - t[last]) / DAY_US,
            days,
            stop - start,
            _money(snapshots, first, last),
            (snapshots.cutoff - t[first]) / DAY_US,
        )
    )
    x[empty] = (3652.0, 0.0, 0.0, 0.0, 3652.0)
    return x


def _money(snapshots: Snapshots, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]) -> Vector:
    numbers = snapshots.journeys.numbers
    if "value" in numbers:
        return _sums(np.nan_to_num(numbers["value"]), first, last + 1)
    profile = [name for name in numbers if name not in ("duration_s", "satisfaction")]
    return np.nan_to_num(numbers[profile[0]][last]) if profile else np.zeros(len(first))


def _sums(values: Vector, start: npt.NDArray[np.int64], stop: npt.NDArray[np.int64]) -> Vector:
    """(n,) sums of `values[start:stop]`; each depends on its own slice alone, so a batch of one gives the same bits."""
    if len(start) == 0:
        return np.zeros(0)
    padded = np.append(values, 0.0)
    slices = np.column_stack((start, stop)).ravel()
    sums = np.add.reduceat(padded, np.minimum(slices, len(padded) - 1))[::2]
    return np.where(start < stop, sums, 0.0)

"""Calibration: a continuous, strictly increasing map from a model's margin to a probability.

Beta calibration (M. Kull, T. Silva Filho, P. Flach: "Beta calibration: a well-founded and easily implemented
improvement on logistic calibration for binary classifiers", AISTATS 2017, eq. 4). Both slopes are held above zero, so
the map keeps the ranking and a rounding error of the margin stays one of the probability. A weak pull towards the
identity keeps a small slice of rows from bending it.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from models.contract import Vector

SMALLEST_SLOPE = 0.01
PULL = 1.0  # weight of the prior, in rows of log loss: slopes near 1, shift near 0


@dataclass(frozen=True)
class BetaCalibration:
    """log-odds = a · ln p − b · ln(1 − p) + c, where p = 1 / (1 + exp(−margin)) and a, b > 0.

    >>> identity = BetaCalibration()
    >>> identity.probability(np.array([0.0])).tolist()
    [0.5]
    """

    a: float = 1.0
    b: float = 1.0
    c: float = 0.0

    def log_odds(self, margins: Vector) -> Vector:
        """(n,) calibrated log-odds of (n,) margins."""
        log_p, log_q = _logs(margins)
        return np.asarray(self.a * log_p - self.b * log_q + self.c)

    def probability(self, margins: Vector) -> Vector:
        """(n,) calibrated probabilities, strictly between 0 and 1 as far as float64 can hold."""
        return sigmoid(self.log_odds(margins))

    def to_dict(self) -> dict[str, float]:
        """The three numbers, JSON-ready."""
        return asdict(self)

    @classmethod
    def fit(cls, margins: Vector, labels: Vector) -> Self:
        """Learn the map from (n,) margins that the labels' model has not seen, and their (n,) 0/1 labels."""
        from scipy.optimize import minimize  # local: a service only applies the map

        log_p, log_q = _logs(margins)

        def loss(theta: Vector) -> tuple[float, Vector]:
            a, b, c = theta
            z = a * log_p - b * log_q + c
            error = sigmoid(z) - labels
            distance = theta - (1.0, 1.0, 0.0)
            value = float(np.sum(np.logaddexp(0.0, z) - labels * z) + PULL * distance @ distance)
            gradient = np.array([error @ log_p, -(error @ log_q), error.sum()]) + 2 * PULL * distance
            return value, gradient

        solution = minimize(
            loss,
            np.array([1.0, 1.0, 0.0]),
            jac=True,
            method="L-BFGS-B",
            bounds=[(SMALLEST_SLOPE, None), (SMALLEST_SLOPE, None), (None, None)],
        )
        return cls(*(float(x) for x in solution.x))


def sigmoid(z: npt.ArrayLike) -> Vector:
    """1 / (1 + exp(−z)) without overflow; not `scipy.special.expit`, whose last bit differs from saved answers."""
    return np.asarray(np.exp(-np.logaddexp(0.0, -np.asarray(z, dtype=np.float64))))


def _logs(margins: Vector) -> tuple[Vector, Vector]:
    """(ln p, ln(1 − p)) of p = sigmoid(margin)."""
    margins = np.asarray(margins, dtype=np.float64)
    return -np.logaddexp(0.0, -margins), -np.logaddexp(0.0, margins)

"""Metrics of predicted amounts, counts and other numbers.

Definitions, over rows weighted alike:
    rmse    root of the mean squared error
    mae     mean absolute error; predicting zero can have nearly the least of all, so it never stands alone
    bias    mean prediction − mean label
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from features.errors import DataError
from training.evaluation.bootstrap import Floats, Ints, customer_codes, require_equal_lengths, sums_by_customer


@dataclass(frozen=True)
class AmountRows:
    """Checked rows; `training.evaluation.bootstrap.MetricRows`.

    Attributes:
        y: (n,) finite labels.
        p: (n,) finite predictions.
        customer: (n,) which customer, 0 … n_customers − 1.
        n_customers: how many.
    """

    names: ClassVar[tuple[str, ...]] = ("rmse", "mae", "bias")
    paired: ClassVar[tuple[str, ...]] = ("rmse", "mae")

    y: Floats
    p: Floats
    customer: Ints
    n_customers: int

    @classmethod
    def of(cls, y: npt.ArrayLike, p: npt.ArrayLike, customers: npt.ArrayLike) -> Self:
        """Check.

        Raises:
            DataError: empty, unequal lengths, values that are not finite, rows without a customer.
        """
        labels, predictions = (np.asarray(values, np.float64).reshape(-1) for values in (y, p))
        codes, n_customers = customer_codes(customers)
        require_equal_lengths(labels, predictions, codes)
        if not len(labels):
            raise DataError("there are no rows to evaluate: check the cutoffs and the split")
        for name, values in (("labels", labels), ("predictions", predictions)):
            if (wrong := ~np.isfinite(values)).any():
                raise DataError(f"{name} must be finite; rows {np.flatnonzero(wrong)[:3].tolist()} are not")
        return cls(labels, predictions, codes, n_customers)

    def measure(self, weights: Floats) -> dict[str, Floats]:
        """See `MetricRows`."""
        error = self.p - self.y
        totals = [
            weights @ sums_by_customer(self.customer, values, self.n_customers)
            for values in (np.ones(len(error)), error**2, np.abs(error), error)
        ]
        n_rows, squared, absolute, signed = totals
        return {"rmse": np.sqrt(squared / n_rows), "mae": absolute / n_rows, "bias": signed / n_rows}

    def summary(self, metrics: dict[str, float]) -> dict[str, float]:
        """See `MetricRows`."""
        return {"mean_label": float(self.y.mean()), "mean_prediction": float(self.p.mean())}

    def counts(self) -> dict[str, float]:
        """See `MetricRows`."""
        return {"n_rows": float(len(self.y)), "n_customers": float(self.n_customers)}

    def other_intervals(self, n_boot: int, seed: int) -> dict[str, tuple[float, float]]:
        """See `MetricRows`; none."""
        return {}

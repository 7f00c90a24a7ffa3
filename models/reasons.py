"""Reasons: contributions of many features, summed by subject, as short texts."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from models.contract import Reason


def top_reasons(
    x: npt.NDArray[np.float32], contributions: npt.NDArray[np.float64], features: pd.DataFrame, top: int
) -> list[list[Reason]]:
    """For each row the `top` subjects that moved it most.

    Args:
        x: (n, f) feature values.
        contributions: (n, f) change of the log-odds by each feature, as SHAP values are.
        features: (f,) rows `name, group, meaning`.
        top: how many subjects a row.
    """
    groups, codes = np.unique(features["group"].to_numpy(dtype=str), return_inverse=True)
    member = codes[:, None] == np.arange(len(groups))  # (f, g)
    by_group = contributions @ member  # (n, g)
    return [
        [
            _reason(str(groups[g]), float(by_group[row, g]), member[:, g], x[row], contributions[row], features)
            for g in np.argsort(-np.abs(by_group[row]))[:top]
            if by_group[row, g] != 0.0
        ]
        for row in range(len(x))
    ]


def _reason(
    subject: str,
    total: float,
    member: npt.NDArray[np.bool_],
    values: npt.NDArray[np.float32],
    contributions: npt.NDArray[np.float64],
    features: pd.DataFrame,
) -> Reason:
    """The subject's sum, in the words of the feature that moved it most in the sum's direction."""
    pull = np.where(member, contributions * np.sign(total), -np.inf)
    strongest = int(np.argmax(pull))
    value = float(values[strongest])
    figure = "not known" if np.isnan(value) else f"{value:.4g}"
    direction = "raises" if total > 0 else "lowers"
    meaning = str(features["meaning"].iloc[strongest])
    return Reason(
        subject=subject,
        text=f"{meaning}: {figure} ({direction} the probability)",
        feature=str(features["name"].iloc[strongest]),
        value=value,
        contribution=total,
    )

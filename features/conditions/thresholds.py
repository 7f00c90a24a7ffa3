"""Thresholds learnt from figures: the top of them, their quantiles, short enough for words to give them exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
SIGNIFICANT_DIGITS = 4


def top_threshold(x: Floats, share: float) -> float:
    """The least figure that no more than `share` of the customers reach, so that ties do not swell the top.

    Where more than that share have the highest figure, it is the highest. Shortened downwards, as words give it.

    Args:
        x: (n,) known figures, at least one.
        share: 0.2 for the top 20 %.

    >>> top_threshold(np.array([1.0, 2, 3, 4, 5, 6, 7, 8, 9, 10]), 0.2)
    9.0
    """
    values, counts = np.unique(x, return_counts=True)
    reached = counts[::-1].cumsum()[::-1] / len(x)  # the share at or above each value
    few = np.flatnonzero(reached <= share + 1e-12)
    place = few[0] if len(few) else len(values) - 1
    return between(values[place - 1] if place else -np.inf, values[place])


def between(below: float, at: float) -> float:
    """The shortest number above `below` and at most `at`, of at least four digits: a threshold that words can give.

    >>> between(120.0, 123.456), between(123.4559, 123.456)
    (123.4, 123.456)
    """
    for digits in range(SIGNIFICANT_DIGITS, 18):
        short = rounded_down(float(at), digits)
        if short > below:
            return short
    return float(at)


def rounded_down(x: float, digits: int = SIGNIFICANT_DIGITS) -> float:
    """The highest number of so many significant digits that is not above `x`."""
    short = float(f"{x:.{digits - 1}e}")
    if short <= x:
        return short
    exponent = int(f"{x:e}".split("e")[1])
    return float(f"{short - 10.0 ** (exponent - digits + 1):.{digits - 1}e}")


def quantile_cuts(x: Floats, quantiles: int) -> tuple[float, ...]:
    """The inner quantiles of figures above zero, ascending, shortened to what words can give; equal ones stay."""
    x = x[~np.isnan(x) & (x != 0)]
    if len(x) == 0:
        return (0.0,) * (quantiles - 1)
    values = np.unique(x)
    cuts = np.quantile(x, np.arange(1, quantiles) / quantiles, method="lower")  # those at the cut score low
    above = [values[min(np.searchsorted(values, cut, side="right"), len(values) - 1)] for cut in cuts]
    return tuple(float(cut) if up <= cut else -between(-up, -cut) for cut, up in zip(cuts, above, strict=True))

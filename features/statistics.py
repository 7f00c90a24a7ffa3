"""Intervals and tests: shares, differences of shares, net promoter score, multiplicity."""

from __future__ import annotations

from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr
from scipy.stats import false_discovery_control

Floats = npt.NDArray[np.float64]
LEVEL = 0.95
Z95 = 1.959963984540054


def ratio(part: Any, whole: Any) -> Floats:
    """`part / whole`, NaN where the whole is 0."""
    a, b = np.broadcast_arrays(np.asarray(part, np.float64), np.asarray(whole, np.float64))
    return np.asarray(np.divide(a, b, out=np.full(a.shape, np.nan), where=b > 0), np.float64)


def normal_quantile(level: float) -> float:
    """How many standard errors an interval of this level reaches to either side."""
    return NormalDist().inv_cdf(0.5 + level / 2)


def wilson(successes: Any, n: Any, level: float = LEVEL) -> tuple[Floats, Floats]:
    """The score interval of a share (E. B. Wilson, JASA 22, 1927); NaN where n is 0.

    Args:
        successes: (…) how many of them; need not be whole.
        n: (…) of how many.
        level: how often the interval holds the true share.

    >>> low, high = wilson([0], [10])
    >>> float(low[0]), round(float(high[0]), 4)
    (0.0, 0.2775)
    """
    x, m = np.broadcast_arrays(np.asarray(successes, np.float64), np.asarray(n, np.float64))
    m = np.where(m > 0, m, np.nan)
    share, z2 = x / m, normal_quantile(level) ** 2
    centre = (share + z2 / (2 * m)) / (1 + z2 / m)
    half = np.sqrt(z2 * (share * (1 - share) / m + z2 / (4 * m**2))) / (1 + z2 / m)
    # Rounding must not leave the share outside its interval.
    return np.clip(centre - half, 0.0, share), np.clip(centre + half, share, 1.0)


def difference(x_a: Any, n_a: Any, x_b: Any, n_b: Any, level: float = LEVEL) -> tuple[Floats, Floats, Floats, Floats]:
    """Difference of two independent shares a − b, its interval (by default 95 %), and the two-sided p-value.

    The interval is Newcombe's hybrid score interval (Statistics in Medicine 17, 1998, method 10), the test the pooled
    z-test of two shares. NaN where a group is empty.

    Returns:
        difference, low, high, p_value, each (k,).

    >>> [round(float(value[0]), 4) for value in difference([56], [70], [48], [80])]
    [0.2, 0.0524, 0.3339, 0.008]
    """
    a, m, b, n = (np.atleast_1d(np.asarray(values, np.float64)) for values in (x_a, n_a, x_b, n_b))
    p, q = ratio(a, m), ratio(b, n)
    (low_p, high_p), (low_q, high_q) = wilson(a, m, level), wilson(b, n, level)
    d = p - q
    low, high = d - np.hypot(p - low_p, high_q - q), d + np.hypot(high_p - p, q - low_q)
    pooled = ratio(a + b, m + n)
    spread = np.sqrt(pooled * (1 - pooled) * (1 / np.where(m > 0, m, np.nan) + 1 / np.where(n > 0, n, np.nan)))
    return d, low, high, p_value(d, spread)


def p_value(effect: Any, standard_error: Any) -> Floats:
    """Two-sided, from the normal distribution; 1 where nothing varies and there is no effect, NaN where unknown."""
    d, se = np.broadcast_arrays(np.asarray(effect, np.float64), np.asarray(standard_error, np.float64))
    z = np.divide(np.abs(d), se, out=np.where(d == 0, 0.0, np.nan), where=se > 0)
    return np.asarray(2 * ndtr(-z))


def benjamini_hochberg(p_values: Any) -> Floats:
    """q-values: the smallest false discovery rate at which each test counts (Benjamini and Hochberg, JRSS B 57, 1995).

    Args:
        p_values: (k,), NaN where nothing was tested; those stay NaN and do not count as tests.

    >>> benjamini_hochberg([0.01, 0.04, 0.03, float("nan")]).round(4).tolist()
    [0.03, 0.04, 0.04, nan]
    """
    p = np.asarray(p_values, np.float64)
    q = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        q[tested] = false_discovery_control(p[tested])
    return q


def net_promoter(promoters: Any, detractors: Any, n: Any) -> tuple[Floats, Floats, Floats]:
    """Net promoter score from −100 to 100 and its 95 % interval; NaN where there are no scores.

    The interval is the adjusted Wald interval for a difference of shares of the same people (Bonett and Price,
    Journal of Educational and Behavioral Statistics 37, 2012): one more promoter, one more detractor.
    """
    up, down, m = (np.asarray(values, np.float64) for values in (promoters, detractors, n))
    score = 100 * ratio(up - down, m)
    a, b = (up + 1) / (m + 2), (down + 1) / (m + 2)
    half = Z95 * np.sqrt((a + b - (a - b) ** 2) / (m + 2))
    low, high = 100 * np.maximum(a - b - half, -1.0), 100 * np.minimum(a - b + half, 1.0)
    unknown = np.isnan(score)
    return score, np.where(unknown, np.nan, np.minimum(low, score)), np.where(unknown, np.nan, np.maximum(high, score))

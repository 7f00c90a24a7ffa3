"""Drift of segments between two cutoffs: population stability, migration, and an alarm.

The population stability index (PSI) is Σ (p − q) ln(p / q) over the segments' shares before (q) and after (p), the
symmetric Kullback–Leibler divergence. By convention below 0.1 is stable and above 0.25 is not. Two samples of one
population have an index above 0, too: about (1/n + 1/m) χ² with one degree of freedom less than there are segments, for
n and m customers. The alarm goes off when the index exceeds both its threshold and the quantile of that distribution,
so that few customers alone cause no alarm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field
from scipy.special import chdtri

from features.errors import DataError
from features.settings import Section
from features.statistics import wilson
from models.segments.contract import NO_SEGMENT, Segment

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NONE_ID, GONE_ID, NEW_ID = "none", "gone", "new"
NONE_NAME, GONE_NAME, NEW_NAME = "in no segment", "gone", "new"
SMOOTHING = 0.5  # customers added to every cell, so that an empty cell keeps the index finite


class DriftSettings(Section):
    """When drift is an alarm.

    Attributes:
        threshold: of the population stability index of the segments.
        least_stayed: share of customers who should have kept their segment; None sets no limit.
        chance: how often chance alone may set off the alarm.
    """

    threshold: float = Field(default=0.25, gt=0)
    least_stayed: float | None = Field(default=None, ge=0, le=1)
    chance: float = Field(default=0.01, gt=0, lt=1)


@dataclass(frozen=True)
class SegmentDrift:
    """How two assignments differ.

    Attributes:
        psi: population stability index.
        noise: the index that chance alone exceeds with probability `chance`.
        stayed: share of the customers of both who kept their segment ("none" counts as one); NaN without customers.
        stayed_low: of its 95 % interval.
        stayed_high: likewise.
        alarm: whether the index or the share of customers who stayed is past its limit.
        sentence: the result in words.
        shares: a row a segment (and one for none): id, name, before, after (customers), share_before, share_after,
            change, part (of the index).
        migration: a row a pair: from_id, from_name, to_id, to_name, customers, share (of `from`), share_low,
            share_high; `gone` and `new` for customers of one side only.
    """

    psi: float
    noise: float
    stayed: float
    stayed_low: float
    stayed_high: float
    alarm: bool
    sentence: str
    shares: pd.DataFrame
    migration: pd.DataFrame


def segment_drift(
    segments: Sequence[Segment],
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    customers_before: npt.ArrayLike,
    customers_after: npt.ArrayLike,
    settings: DriftSettings | None = None,
) -> SegmentDrift:
    """Compare two assignments by one segmentation.

    Args:
        segments: the partition.
        before: (n,) places of the one cutoff, -1 for none.
        after: (m,) places of the other.
        customers_before: (n,) their customers, each once: indices into one log, or identifiers.
        customers_after: (m,) likewise.
        settings: when drift is an alarm.

    Raises:
        DataError: nobody on one side, a customer twice, lengths that do not fit.
    """
    limits = settings or DriftSettings()
    old, new = _side(before, customers_before, len(segments)), _side(after, customers_after, len(segments))
    a, b = _counts(old, len(segments)), _counts(new, len(segments))
    parts = psi_parts(a, b)
    psi, noise = float(parts.sum()), psi_noise(a, b, limits.chance)
    migration = _migration(segments, old, new)
    both = old.index.intersection(new.index)
    stays = int((old.loc[both].to_numpy() == new.loc[both].to_numpy()).sum())
    stayed = stays / len(both) if len(both) else float("nan")
    low, high = (float(side) for side in wilson(stays, len(both)))
    too_few_stayed = limits.least_stayed is not None and high < limits.least_stayed
    shifted = psi > max(limits.threshold, noise)
    shares = _shares(segments, a, b, parts)
    sentence = _sentence(psi, noise, limits, shares, (stayed, low, high, len(both)), shifted, too_few_stayed)
    return SegmentDrift(psi, noise, stayed, low, high, shifted or too_few_stayed, sentence, shares, migration)


def psi_parts(before: npt.ArrayLike, after: npt.ArrayLike) -> Floats:
    """(k,) what each cell adds to the index, from counts; cells that are empty on both sides add 0.

    >>> round(float(psi_parts([500_000, 500_000], [600_000, 400_000]).sum()), 4)
    0.0405
    """
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    used = (a + b) > 0
    q = (a + SMOOTHING) / (a + SMOOTHING)[used].sum()
    p = (b + SMOOTHING) / (b + SMOOTHING)[used].sum()
    return np.where(used, (p - q) * np.log(p / q), 0.0)


def psi_noise(before: npt.ArrayLike, after: npt.ArrayLike, chance: float) -> float:
    """The index that two samples of one population exceed with probability `chance`."""
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    freedom = int(((a + b) > 0).sum()) - 1
    return float((1 / a.sum() + 1 / b.sum()) * chdtri(freedom, chance)) if freedom > 0 else 0.0


def _side(place: npt.ArrayLike, customers: npt.ArrayLike, k: int) -> pd.Series[int]:
    """Places by customer."""
    places, ids = np.asarray(place, np.int64).reshape(-1), np.asarray(customers).reshape(-1)
    if len(places) != len(ids) or not len(ids):
        raise DataError(f"{len(places)} places and {len(ids)} customers: give one of each for every row, and some rows")
    if not NO_SEGMENT <= places.min() <= places.max() < k:
        raise DataError(f"places run from {places.min()} to {places.max()}, but there are {k} segments")
    side = pd.Series(places, index=pd.Index(ids))
    if (twice := side.index.duplicated()).any():
        raise DataError(f"row {int(np.flatnonzero(twice)[0])} repeats a customer: give one row a customer and cutoff")
    return side


def _counts(side: pd.Series[int], k: int) -> Ints:
    """(k + 1,) customers of each segment, those of none last."""
    return np.roll(np.bincount(side.to_numpy(np.int64) + 1, minlength=k + 1), -1).astype(np.int64)


def _shares(segments: Sequence[Segment], before: Ints, after: Ints, parts: Floats) -> pd.DataFrame:
    table = pd.DataFrame(
        {
            "id": [*(s.id for s in segments), NONE_ID],
            "name": [*(s.name for s in segments), NONE_NAME],
            "before": before,
            "after": after,
            "share_before": before / before.sum(),
            "share_after": after / after.sum(),
            "change": after / after.sum() - before / before.sum(),
            "part": parts,
        }
    )
    return table[(table["id"] != NONE_ID) | (table["before"] + table["after"] > 0)].reset_index(drop=True)


def _migration(segments: Sequence[Segment], old: pd.Series[int], new: pd.Series[int]) -> pd.DataFrame:
    """Counts of every pair that occurs, with shares of where they came from."""
    k = len(segments)
    ids = [*(s.id for s in segments), NONE_ID, GONE_ID, NEW_ID]
    names = [*(s.name for s in segments), NONE_NAME, GONE_NAME, NEW_NAME]
    joined = pd.concat({"a": old, "b": new}, axis=1)
    a = joined["a"].replace(NO_SEGMENT, k).fillna(k + 2).to_numpy(np.int64)
    b = joined["b"].replace(NO_SEGMENT, k).fillna(k + 1).to_numpy(np.int64)
    pairs, counts = np.unique(a * (k + 3) + b, return_counts=True)
    source, target = pairs // (k + 3), pairs % (k + 3)
    totals = np.bincount(a, minlength=k + 3)[source]
    low, high = wilson(counts, totals)
    return pd.DataFrame(
        {
            **{"from_id": [ids[i] for i in source], "from_name": [names[i] for i in source]},
            **{"to_id": [ids[i] for i in target], "to_name": [names[i] for i in target]},
            **{"customers": counts, "share": counts / totals, "share_low": low, "share_high": high},
        }
    )


def _sentence(
    psi: float,
    noise: float,
    limits: DriftSettings,
    shares: pd.DataFrame,
    stayed: tuple[float, float, float, int],
    shifted: bool,
    too_few_stayed: bool,
) -> str:
    largest = shares.iloc[int(shares["part"].to_numpy().argmax())]
    cause = f"mostly {largest['name']}: {largest['share_before']:.1%} before, {largest['share_after']:.1%} now"
    index = f"population stability index {psi:.2f}, threshold {limits.threshold:g}"
    if shifted:
        text = f"Alarm: the shares of the segments changed ({index}), {cause}"
    elif psi > noise:
        text = f"The shares of the segments changed a little ({index}), {cause}"
    else:
        text = f"The shares of the segments changed no more than by chance (index {psi:.3f}, chance up to {noise:.3f})"
    share, low, high, n = stayed
    if n:
        text += f". Of {n:,} customers in both, {share:.1%} kept their segment ({low:.1%} to {high:.1%})"
    if too_few_stayed:
        text += f": alarm, at least {limits.least_stayed:.0%} should have kept it"
    return text + "."

"""Whether segments move: population stability, who migrated where between cutoffs, and inputs that changed; an alarm.

The population stability index is Σ (p − q) ln(p / q) over the segments' shares before (q) and after (p), the symmetric
Kullback–Leibler divergence. By custom below 0.1 is stable and above 0.25 is not. Without any change it is still above
0: about (1/n + 1/m) χ² with a degree of freedom less than there are segments, for n and m customers. The alarm goes off
when the index exceeds both its threshold and what chance would show once in a hundred.
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
from models.segments.insight.columns import ReadableColumn
from models.segments.insight.effects import number_words

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

NONE_ID, GONE_ID, NEW_ID = "none", "gone", "new"
NONE_NAME, GONE_NAME, NEW_NAME = "in no segment", "no longer there", "not there before"
INPUT_COLUMNS = (
    *("segment_id", "segment", "feature", "group", "meaning", "psi", "noise", "alarm", "before", "after", "words"),
)
SMOOTHING = 0.5  # customers added to every cell, so that an empty one is no infinity


class DriftSettings(Section):
    """When to worry.

    Attributes:
        threshold: of the population stability index of the segments.
        input_threshold: of a feature within a segment.
        least_stayed: share of customers who should have kept their segment; None asks for nothing.
        chance: how often chance alone may set the alarm off.
        bins: of a feature, equally full before.
        fewest: customers of a segment before and after, below which its inputs are not judged.
    """

    threshold: float = Field(default=0.25, gt=0)
    input_threshold: float = Field(default=0.25, gt=0)
    least_stayed: float | None = Field(default=None, ge=0, le=1)
    chance: float = Field(default=0.01, gt=0, lt=1)
    bins: int = Field(default=10, ge=2, le=100)
    fewest: int = Field(default=100, ge=1)


@dataclass(frozen=True)
class SegmentDrift:
    """How the segments moved between two assignments.

    Attributes:
        psi: population stability index.
        noise: the index that chance alone exceeds with probability `chance`.
        stayed: share of the customers of both who kept their segment (none counts as one); NaN without such customers.
        stayed_low: of its 95 % interval.
        stayed_high: likewise.
        alarm: whether to worry.
        sentence: what to say about it.
        shares: a row a segment (and one for none): id, name, before, after (customers), share_before, share_after,
            change, part (of the index).
        migration: a row a pair: from_id, from_name, to_id, to_name, customers, share (of `from`), share_low,
            share_high; `gone` and `new` for customers of one side only.
        matrix: the same as a table, names × names, shares of the row; without those of one side only.
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
    matrix: pd.DataFrame


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
        customers_before: (n,) who they are, each once: indices into one log, or identifiers.
        customers_after: (m,) likewise.
        settings: when to worry.

    Raises:
        DataError: nobody on one side, a customer twice, lengths that do not fit.
    """
    asked = settings or DriftSettings()
    old, new = _side(before, customers_before, len(segments)), _side(after, customers_after, len(segments))
    a, b = _counts(old, len(segments)), _counts(new, len(segments))
    parts = psi_parts(a, b)
    psi, noise = float(parts.sum()), psi_noise(a, b, asked.chance)
    migration = _migration(segments, old, new)
    both = old.index.intersection(new.index)
    stays = int((old.loc[both].to_numpy() == new.loc[both].to_numpy()).sum())
    stayed = stays / len(both) if len(both) else float("nan")
    low, high = (float(side) for side in wilson(stays, len(both)))
    left = asked.least_stayed is not None and high < asked.least_stayed
    moved = psi > max(asked.threshold, noise)
    shares = _shares(segments, a, b, parts)
    said = _sentence(psi, noise, asked, shares, (stayed, low, high, len(both)), moved, left)
    return SegmentDrift(
        *(psi, noise, stayed, low, high, moved or left, said, shares, migration, _matrix(segments, migration))
    )


def psi_parts(before: npt.ArrayLike, after: npt.ArrayLike) -> Floats:
    """(k,) what each cell adds to the index, from counts; cells that are empty on both sides add 0.

    >>> round(float(psi_parts([500_000, 500_000], [600_000, 400_000]).sum()), 4)
    0.0405
    """
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    some = (a + b) > 0
    q = (a + SMOOTHING) / (a + SMOOTHING)[some].sum()
    p = (b + SMOOTHING) / (b + SMOOTHING)[some].sum()
    return np.where(some, (p - q) * np.log(p / q), 0.0)


def psi_noise(before: npt.ArrayLike, after: npt.ArrayLike, chance: float) -> float:
    """The index that two samples of one population exceed with probability `chance`."""
    a, b = np.asarray(before, np.float64), np.asarray(after, np.float64)
    freedom = int(((a + b) > 0).sum()) - 1
    return float((1 / a.sum() + 1 / b.sum()) * chdtri(freedom, chance)) if freedom > 0 else 0.0


def input_drift(
    x_before: npt.NDArray[np.float32],
    x_after: npt.NDArray[np.float32],
    columns: Sequence[ReadableColumn],
    before: npt.ArrayLike,
    after: npt.ArrayLike,
    segments: Sequence[Segment],
    settings: DriftSettings | None = None,
) -> pd.DataFrame:
    """Features whose distribution within a segment changed: its name is the same, its customers are others.

    Args:
        x_before: (n, c) columns of the one cutoff (`models.segments.insight.columns.column_values`).
        x_after: (m, c) of the other.
        columns: (c,) what they are.
        before: (n,) places.
        after: (m,) places.
        segments: the partition.
        settings: when to worry.

    Returns:
        Rows by segment and falling index: segment_id, segment, feature, group, meaning, psi, noise, alarm, before,
        after (medians), words. A feature may set the alarm off once in `chance` / (features × segments).
    """
    asked = settings or DriftSettings()
    places = np.asarray(before, np.int64), np.asarray(after, np.int64)
    chance = asked.chance / max(1, len(columns) * len(segments))
    told = []
    for s, segment in enumerate(segments):
        old, new = x_before[places[0] == s], x_after[places[1] == s]
        if min(len(old), len(new)) < asked.fewest:
            continue
        for c, column in enumerate(columns):
            counts = _binned(old[:, c], new[:, c], asked.bins)
            psi, noise = float(psi_parts(*counts).sum()), psi_noise(*counts, chance)
            told.append(
                {
                    "segment_id": segment.id,
                    "segment": segment.name,
                    **_moved(column, old[:, c], new[:, c]),
                    "psi": psi,
                    "noise": noise,
                    "alarm": psi > max(asked.input_threshold, noise),
                }
            )
    table = pd.DataFrame(told, columns=list(INPUT_COLUMNS))
    return table.sort_values(["segment_id", "psi"], ascending=[True, False], ignore_index=True, kind="stable")


def _side(place: npt.ArrayLike, customers: npt.ArrayLike, k: int) -> pd.Series[int]:
    """Places by customer."""
    places, who = np.asarray(place, np.int64).reshape(-1), np.asarray(customers).reshape(-1)
    if len(places) != len(who) or not len(who):
        raise DataError(f"{len(places)} places and {len(who)} customers: give one of each for every row, and some rows")
    if not NO_SEGMENT <= places.min() <= places.max() < k:
        raise DataError(f"places run from {places.min()} to {places.max()}, but there are {k} segments")
    side = pd.Series(places, index=pd.Index(who))
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


def _matrix(segments: Sequence[Segment], migration: pd.DataFrame) -> pd.DataFrame:
    """(k or k + 1 names)² shares of the row's customers who are on both sides; NaN for rows without any."""
    both = migration[(migration["from_id"] != NEW_ID) & (migration["to_id"] != GONE_ID)]
    wide = both.pivot(index="from_name", columns="to_name", values="customers")
    order = [s.name for s in segments]
    order += [NONE_NAME] * int((both[["from_id", "to_id"]] == NONE_ID).to_numpy().any())
    wide = wide.reindex(index=order, columns=order).fillna(0.0)
    return wide.div(wide.sum(axis=1).replace(0.0, np.nan), axis=0).rename_axis(index="from", columns="to")


def _sentence(
    psi: float,
    noise: float,
    asked: DriftSettings,
    shares: pd.DataFrame,
    kept: tuple[float, float, float, int],
    moved: bool,
    left: bool,
) -> str:
    worst = shares.iloc[int(shares["part"].to_numpy().argmax())]
    most = f"most of it from {worst['name']} ({worst['share_before']:.1%} to {worst['share_after']:.1%})"
    if moved:
        said = (
            f"Alarm: the segments moved (population stability index {psi:.2f}, threshold {asked.threshold:g}), {most}"
        )
    elif psi > noise:
        said = f"The segments moved a little (index {psi:.2f}, threshold {asked.threshold:g}), {most}"
    else:
        said = f"The segments are as stable as chance allows (index {psi:.3f}, chance reaches {noise:.3f})"
    stayed, low, high, n = kept
    if n:
        said += f". Of {n:,} customers there both times {stayed:.1%} kept their segment ({low:.1%} to {high:.1%})"
    if left:
        said += f": alarm, at least {asked.least_stayed:.0%} should have"
    return said + "."


def _binned(old: npt.NDArray[np.float32], new: npt.NDArray[np.float32], bins: int) -> tuple[Ints, Ints]:
    """Counts in bins that are equally full before; one more for what is not known."""
    known = old[np.isfinite(old)]
    inner = np.unique(np.quantile(known, np.linspace(0, 1, bins + 1)[1:-1])) if len(known) else np.zeros(0)
    counts = []
    for values in (old, new):
        some = values[np.isfinite(values)]
        found = np.bincount(np.searchsorted(inner, some, side="left"), minlength=len(inner) + 1)
        counts.append(np.append(found, len(values) - len(some)))
    return counts[0], counts[1]


def _moved(column: ReadableColumn, old: npt.NDArray[np.float32], new: npt.NDArray[np.float32]) -> dict[str, object]:
    """A feature's medians before and after (means where these are equal), in words."""
    kind, a, b = "median", _middle(old), _middle(new)
    if a == b:
        kind, a, b = "mean", _mean(old), _mean(new)
    meaning = f"{column.meaning[:1].upper()}{column.meaning[1:]}"
    words = f"{meaning}: {kind} {number_words(a)} before, {number_words(b)} now"
    return {
        **{"feature": column.name, "group": column.group, "meaning": column.meaning},
        **{"before": a, "after": b, "words": words},
    }


def _middle(values: npt.NDArray[np.float32]) -> float:
    known = values[np.isfinite(values)]
    return float(np.median(known)) if len(known) else float("nan")


def _mean(values: npt.NDArray[np.float32]) -> float:
    known = values[np.isfinite(values)]
    return float(known.mean(dtype=np.float64)) if len(known) else float("nan")

"""New segments matched to old ones, so that ids last, and a report on what a refit changed.

    matching = match(old, new, n_old=5, n_new=6)     # (n,) places of the same customers, before and after
    matching.new_of_old                              # (5,) place of the successor, -1 where there is none
    report = refit_report(old, new, old_ids, new_ids)
    report.sentences                                 # "s02 split: 61 % stayed, 35 % went to s07."

Successors are found by the Hungarian method (Kuhn 1955) on the number of customers that both have.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError

Places = npt.NDArray[np.int32]

LEAST_IN_COMMON = 0.2  # of the customers of both together: with less, it is another segment
PART = 0.2  # a share of a segment that counts as a part of it
WORTH_SAYING = 0.02  # moves of at least this share of a segment get a sentence
MOST_MOVES = 5


@dataclass(frozen=True)
class Matching:
    """Which new segment goes on from which old one.

    Attributes:
        overlap: (n_old, n_new) customers that both have.
        new_of_old: (n_old,) the successor, -1 where there is none.
        old_of_new: (n_new,) the predecessor, -1 where there is none.
    """

    overlap: npt.NDArray[np.int64]
    new_of_old: npt.NDArray[np.int64]
    old_of_new: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RefitReport:
    """What became of the segments; customers who were in none before or are in none now do not count.

    Attributes:
        kept: id, customers_before, customers_after, stayed, stayed_share (of those before).
        moved: from_id, to_id, customers, share (of those before in from_id); every change of id.
        split: id (before), into_id, customers, share (of id): a row a part.
        merged: id (now), from_id, customers, share (of those now in id): a row a part.
        appeared: id, customers, mostly_from_id.
        vanished: id, customers, mostly_to_id.
        kept_share: the share of customers who have the id that they had.
        sentences: the same for people.
    """

    kept: pd.DataFrame
    moved: pd.DataFrame
    split: pd.DataFrame
    merged: pd.DataFrame
    appeared: pd.DataFrame
    vanished: pd.DataFrame
    kept_share: float
    sentences: tuple[str, ...]


def match(old: npt.NDArray[np.integer], new: npt.NDArray[np.integer], n_old: int, n_new: int) -> Matching:
    """Match by the assignment that keeps most customers where they were.

    Args:
        old: (n,) place of each customer before, negative for none.
        new: (n,) place of the same customers now.
        n_old: how many segments there were.
        n_new: how many there are.

    Raises:
        DataError: lengths that differ.

    >>> match(np.array([0, 0, 1, 1, 1]), np.array([1, 1, 0, 0, 1]), 2, 2).new_of_old.tolist()
    [1, 0]
    """
    from scipy.optimize import linear_sum_assignment  # which only a fit needs

    if len(old) != len(new):
        raise DataError(f"{len(old)} customers before and {len(new)} now: give both places of the same customers.")
    both = (old >= 0) & (new >= 0)
    flat = np.bincount(old[both].astype(np.int64) * n_new + new[both], minlength=n_old * n_new)
    overlap = flat.reshape(n_old, n_new)
    union = overlap.sum(axis=1, keepdims=True) + overlap.sum(axis=0, keepdims=True) - overlap
    new_of_old, old_of_new = np.full(n_old, -1), np.full(n_new, -1)
    for before, after in zip(*linear_sum_assignment(-overlap), strict=True):
        if overlap[before, after] > 0 and overlap[before, after] >= LEAST_IN_COMMON * union[before, after]:
            new_of_old[before], old_of_new[after] = after, before
    return Matching(overlap, new_of_old, old_of_new)


def refit_report(
    old: npt.NDArray[np.integer], new: npt.NDArray[np.integer], old_ids: Sequence[str], new_ids: Sequence[str]
) -> RefitReport:
    """What changed between two assignments of the same customers whose ids were matched already.

    Args:
        old: (n,) places in `old_ids`, negative for none.
        new: (n,) places in `new_ids`.
        old_ids: ids before.
        new_ids: ids now; a segment that goes on has its id in both.
    """
    overlap = match(old, new, len(old_ids), len(new_ids)).overlap
    before, after = overlap.sum(axis=1), overlap.sum(axis=0)
    cells = pd.DataFrame(
        [
            (old_ids[o], new_ids[n], int(overlap[o, n]), overlap[o, n] / before[o], overlap[o, n] / after[n])
            for o, n in zip(*np.nonzero(overlap), strict=True)
        ],
        columns=["from_id", "to_id", "customers", "of_from", "of_to"],
    )
    kept = _kept(old_ids, new_ids, overlap)
    moved = _moved(cells)
    split = _parts(cells, "from_id", "to_id", "of_from", "into_id")
    merged = _parts(cells, "to_id", "from_id", "of_to", "from_id")
    appeared = _alone(new_ids, old_ids, after, overlap.T, "mostly_from_id")
    vanished = _alone(old_ids, new_ids, before, overlap, "mostly_to_id")
    kept_share = float(kept["stayed"].sum() / overlap.sum()) if overlap.sum() else 1.0
    sentences = _sentences(kept_share, split, merged, appeared, vanished, moved)
    return RefitReport(kept, moved, split, merged, appeared, vanished, kept_share, sentences)


def _kept(old_ids: Sequence[str], new_ids: Sequence[str], overlap: npt.NDArray[np.int64]) -> pd.DataFrame:
    rows = []
    for o, name in enumerate(old_ids):
        if name in new_ids:
            n, customers = list(new_ids).index(name), int(overlap[o].sum())
            stayed = int(overlap[o, n])
            rows.append((name, customers, int(overlap[:, n].sum()), stayed, stayed / customers if customers else 1.0))
    return pd.DataFrame(rows, columns=["id", "customers_before", "customers_after", "stayed", "stayed_share"])


def _moved(cells: pd.DataFrame) -> pd.DataFrame:
    """Changes of id, the largest first."""
    moved = cells[cells["from_id"] != cells["to_id"]].rename(columns={"of_from": "share"})
    moved = moved.sort_values(["customers", "from_id", "to_id"], ascending=[False, True, True])
    return moved[["from_id", "to_id", "customers", "share"]].reset_index(drop=True)


def _parts(cells: pd.DataFrame, whole: str, part: str, share: str, name: str) -> pd.DataFrame:
    """Segments of which two or more parts of some size went or came apart."""
    large = cells[cells[share] >= PART]
    several = large[large.groupby(whole)[whole].transform("size") > 1]
    columns = pd.DataFrame(
        {"id": several[whole], name: several[part], "customers": several["customers"], "share": several[share]}
    )
    return columns.sort_values(["id", "customers"], ascending=[True, False]).reset_index(drop=True)


def _alone(
    ids: Sequence[str], others: Sequence[str], sizes: npt.NDArray[np.int64], overlap: npt.NDArray[np.int64], name: str
) -> pd.DataFrame:
    """Segments whose id is on one side only, and where most of their customers are on the other."""
    rows = [
        (one, int(sizes[place]), others[int(overlap[place].argmax())] if sizes[place] else None)
        for place, one in enumerate(ids)
        if one not in others
    ]
    return pd.DataFrame(rows, columns=["id", "customers", name])


def _sentences(
    kept_share: float,
    split: pd.DataFrame,
    merged: pd.DataFrame,
    appeared: pd.DataFrame,
    vanished: pd.DataFrame,
    moved: pd.DataFrame,
) -> tuple[str, ...]:
    said = [f"{kept_share:.1%} of customers keep their segment."]
    for one, parts in split.groupby("id", sort=True):
        ends = [f"{share:.0%} {'stayed' if to == one else f'are in {to}'}" for to, share in _pairs(parts, "into_id")]
        said.append(f"{one} split: {', '.join(ends)}.")
    for one, parts in merged.groupby("id", sort=True):
        ends = [f"{share:.0%} {'were there' if of == one else f'from {of}'}" for of, share in _pairs(parts, "from_id")]
        said.append(f"{one} merged: {', '.join(ends)}.")
    said += [
        f"{row.id} is new, with {row.customers:,} customers, most of them from {row.mostly_from_id}."
        for row in appeared.itertuples()
    ]
    said += [f"{row.id} is gone; most of it went to {row.mostly_to_id}." for row in vanished.itertuples()]
    worth = moved[(moved["share"] >= WORTH_SAYING)].head(MOST_MOVES)
    said += [f"{r.customers:,} customers moved from {r.from_id} to {r.to_id}." for r in worth.itertuples()]
    return tuple(said)


def _pairs(parts: pd.DataFrame, name: str) -> list[tuple[str, float]]:
    return list(zip(parts[name], parts["share"], strict=True))

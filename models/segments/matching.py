"""New segments matched with old ones, so that ids survive a refit, and a report on what the refit changed.

    matching = match(old, new, n_old=5, n_new=6)     # (n,) places of the same customers, before and after
    matching.new_of_old                              # (5,) place of the successor, -1 where there is none
    report = refit_report(old, new, old_ids, new_ids)
    report.sentences                                 # "s02 split: 61 % stayed, 35 % went to s07."

The assignment of successors keeps as many customers as possible in their segment (Kuhn 1955, as SciPy solves it). A
pair with few customers in common is no match: a new segment then gets a new id, rather than the id of another group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError

Places = npt.NDArray[np.int32]

LEAST_OVERLAP = 0.2  # Jaccard index below which a new segment is no successor
PART = 0.2  # the least share of a segment that counts as a part in a split or a merger
NOTABLE_MOVE = 0.02  # moves of at least this share of a segment get a sentence
MOST_MOVES = 5


@dataclass(frozen=True)
class Matching:
    """Which new segment succeeds which old one.

    Attributes:
        overlap: (n_old, n_new) common customers.
        new_of_old: (n_old,) the successor, -1 where there is none.
        old_of_new: (n_new,) the predecessor, -1 where there is none.
    """

    overlap: npt.NDArray[np.int64]
    new_of_old: npt.NDArray[np.int64]
    old_of_new: npt.NDArray[np.int64]


@dataclass(frozen=True)
class RefitReport:
    """What a refit changed; customers in no segment, before or now, do not count.

    Attributes:
        kept: id, customers_before, customers_after, stayed, stayed_share (of those before).
        moved: from_id, to_id, customers, share (of those before in from_id); every change of id.
        split: id (before), into_id, customers, share (of id); one row for each part.
        merged: id (now), from_id, customers, share (of those now in id); one row for each part.
        appeared: id, customers, mostly_from_id.
        vanished: id, customers, mostly_to_id.
        kept_share: the share of customers whose segment has the same id as before.
        sentences: the same in words.
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
    """Match segments so that most customers keep theirs.

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
        if overlap[before, after] > 0 and overlap[before, after] >= LEAST_OVERLAP * union[before, after]:
            new_of_old[before], old_of_new[after] = after, before
    return Matching(overlap, new_of_old, old_of_new)


def refit_report(
    old: npt.NDArray[np.integer], new: npt.NDArray[np.integer], old_ids: Sequence[str], new_ids: Sequence[str]
) -> RefitReport:
    """Compare two assignments of the same customers, whose segments are matched.

    Args:
        old: (n,) places in `old_ids`, negative for none.
        new: (n,) places in `new_ids`.
        old_ids: ids before.
        new_ids: ids now; a successor has the id of its predecessor.
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
    kept = _unchanged(old_ids, new_ids, overlap)
    moved = _moved(cells)
    split = _parts(cells, "from_id", "to_id", "of_from", "into_id")
    merged = _parts(cells, "to_id", "from_id", "of_to", "from_id")
    appeared = _unmatched(new_ids, old_ids, after, overlap.T, "mostly_from_id")
    vanished = _unmatched(old_ids, new_ids, before, overlap, "mostly_to_id")
    kept_share = float(kept["stayed"].sum() / overlap.sum()) if overlap.sum() else 1.0
    sentences = _sentences(kept_share, split, merged, appeared, vanished, moved)
    return RefitReport(kept, moved, split, merged, appeared, vanished, kept_share, sentences)


def _unchanged(old_ids: Sequence[str], new_ids: Sequence[str], overlap: npt.NDArray[np.int64]) -> pd.DataFrame:
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
    """Segments with two or more large parts."""
    large = cells[cells[share] >= PART]
    several = large[large.groupby(whole)[whole].transform("size") > 1]
    columns = pd.DataFrame(
        {"id": several[whole], name: several[part], "customers": several["customers"], "share": several[share]}
    )
    return columns.sort_values(["id", "customers"], ascending=[True, False]).reset_index(drop=True)


def _unmatched(
    ids: Sequence[str],
    other_ids: Sequence[str],
    sizes: npt.NDArray[np.int64],
    overlap: npt.NDArray[np.int64],
    name: str,
) -> pd.DataFrame:
    """Segments whose id is on one side only, and the segment of most of their customers on the other."""
    rows = [
        (id, int(sizes[place]), other_ids[int(overlap[place].argmax())] if sizes[place] else None)
        for place, id in enumerate(ids)
        if id not in other_ids
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
    sentences = [f"{kept_share:.1%} of customers keep their segment."]
    for id, parts in split.groupby("id", sort=True):
        ends = [f"{share:.0%} {'stayed' if to == id else f'went to {to}'}" for to, share in _pairs(parts, "into_id")]
        sentences.append(f"{id} split: {', '.join(ends)}.")
    for id, parts in merged.groupby("id", sort=True):
        ends = [f"{share:.0%} {'stayed' if of == id else f'came from {of}'}" for of, share in _pairs(parts, "from_id")]
        sentences.append(f"{id} merged: {', '.join(ends)}.")
    sentences += [
        f"{row.id} is new, with {row.customers:,} customers, most of them from {row.mostly_from_id}."
        for row in appeared.itertuples()
    ]
    sentences += [
        f"{row.id} is gone; most of its customers are in {row.mostly_to_id} now." for row in vanished.itertuples()
    ]
    notable = moved[(moved["share"] >= NOTABLE_MOVE)].head(MOST_MOVES)
    sentences += [f"{r.customers:,} customers moved from {r.from_id} to {r.to_id}." for r in notable.itertuples()]
    return tuple(sentences)


def _pairs(parts: pd.DataFrame, name: str) -> list[tuple[str, float]]:
    return list(zip(parts[name], parts["share"], strict=True))

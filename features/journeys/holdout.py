"""Validation rows that are later than the training rows, and of other customers.

Early stopping, calibration and validation all need such a pair. Rows that are only later share customers, whose
outcomes hang together where horizons overlap; rows that are only of other customers share the season. A customer's
group is a hash of the identifier and the seed: neither the other customers, nor their order, nor the machine matter.

>>> stable_groups(["ann", "bob", "cid", "ann"], 3, seed=7).tolist()
[1, 1, 2, 1]
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import ConfigError, DataError

Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Slice:
    """Rows to fit on and later rows of other customers.

    Attributes:
        fit: (a,) indices, rising: cutoffs before `since`, customers of other groups.
        later: (b,) indices, rising: cutoffs from `since` on, customers of this group.
        since: µs since 1970 UTC, the moment that parts the two.
        group: the customers' group that is held out.
    """

    fit: Ints
    later: Ints
    since: int
    group: int


def stable_groups(customers: npt.ArrayLike, n_groups: int, seed: int) -> Ints:
    """(n,) the group 0 … n_groups − 1 of each row's customer: BLAKE2b of seed and identifier, modulo `n_groups`.

    Raises:
        ConfigError: fewer than two groups.
        DataError: rows without a customer.
    """
    if n_groups < 2:
        raise ConfigError(f"{n_groups} groups of customers cannot keep customers apart: ask for 2 or more")
    codes, names = pd.factorize(np.asarray(customers).reshape(-1))
    if (codes < 0).any():
        raise DataError(f"rows {np.flatnonzero(codes < 0)[:3].tolist()} have no customer: leave them out or name them")
    salt = f"{seed}\x1f".encode()
    digests = (hashlib.blake2b(salt + str(name).encode(), digest_size=8).digest() for name in names)
    of_customer = np.array([int.from_bytes(digest, "little") % n_groups for digest in digests], dtype=np.int64)
    return of_customer[codes] if len(codes) else np.zeros(0, np.int64)


def moment_for_share(cutoffs: Ints, share: float) -> int:
    """The cutoff from which on the rows come nearest to `share` of all; later than the first cutoff.

    Args:
        cutoffs: (n,) µs since 1970 UTC.
        share: of the rows that should lie at or after the moment, between 0 and 1.

    Raises:
        ConfigError: a share outside 0 … 1.
        DataError: fewer than two different cutoffs, so that nothing is later.
    """
    return moment_from_counts(*np.unique(cutoffs, return_counts=True), share)


def moment_from_counts(moments: Ints, counts: Ints, share: float) -> int:
    """As `moment_for_share`, of the distinct cutoffs and how many rows have each.

    Args:
        moments: (k,) µs, rising.
        counts: (k,) rows.
        share: see there.

    Raises:
        ConfigError: a share outside 0 … 1.
        DataError: fewer than two different cutoffs.
    """
    if not 0 < share < 1:
        raise ConfigError(f"the share of later rows is {share}: give a number between 0 and 1, such as 0.3")
    if len(moments) < 2:
        raise DataError(
            f"all {int(counts.sum()):,} rows have one cutoff, so none is later than another: "
            "label a second, earlier cutoff"
        )
    at_or_after = counts[::-1].cumsum()[::-1] / counts.sum()  # (moments,)
    nearest = 1 + int(np.abs(at_or_after[1:] - share).argmin())
    return int(moments[nearest])


def later_slice(
    customers: npt.ArrayLike, cutoffs: npt.ArrayLike, share: float, n_groups: int = 4, seed: int = 0
) -> Iterator[Slice]:
    """One slice for each group of customers: together their `later` rows are all rows from one moment on, each once.

    Args:
        customers: (n,) identifiers.
        cutoffs: (n,) µs since 1970 UTC.
        share: of rows that should be later, see `moment_for_share`.
        n_groups: groups of customers; a slice holds out one of them.
        seed: of the grouping.

    Raises:
        ConfigError: a share outside 0 … 1, fewer than two groups.
        DataError: one cutoff only, lengths that differ.
    """
    when = np.asarray(cutoffs, dtype=np.int64).reshape(-1)
    groups = stable_groups(customers, n_groups, seed)
    if len(groups) != len(when):
        raise DataError(f"{len(groups)} customers and {len(when)} cutoffs: give one of each for every row")
    since = moment_for_share(when, share)
    for group in range(n_groups):
        yield slice_at(groups, when, group, since)


def slice_at(groups: Ints, cutoffs: Ints, group: int, since: int, gap_us: int = 0) -> Slice:
    """The slice that holds out `group` at the moment `since`; `gap_us` before it, nothing is fitted on.

    With the horizon as gap, every label window of the rows to fit on has closed when the first later row is scored.
    """
    apart = groups == group
    fit = np.flatnonzero(~apart & (cutoffs + gap_us < since if gap_us == 0 else cutoffs + gap_us <= since))
    return Slice(fit, np.flatnonzero(apart & (cutoffs >= since)), since, group)

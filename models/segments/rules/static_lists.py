"""Static lists: the customers of a segment at a date, kept as keyed hashes and never as identifiers.

    members = StaticList.of(snapshots.take(mask), frozen_us)
    members.holds(later)                # (n,) bool

A hash is the first eight bytes of HMAC-SHA256 under a random key of the list: the list answers whether a known customer
is on it, but identifiers cannot be read from it, and two lists cannot be joined.
"""

from __future__ import annotations

import hmac
import json
import secrets
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from features.errors import DataError
from features.journeys.journeys import UNKNOWN_CUSTOMER, Snapshots

Hashes = npt.NDArray[np.uint64]
KEY_BYTES = 32


@dataclass(frozen=True)
class StaticList:
    """Members as of a moment.

    Attributes:
        frozen_us: µs since 1970 UTC; at an earlier cutoff the list has no members.
        key: of the hashes.
        hashes: (m,) ascending.
    """

    frozen_us: int
    key: bytes
    hashes: Hashes

    @classmethod
    def of(cls, members: Snapshots, frozen_us: int) -> Self:
        """The customers of these snapshots."""
        customers = np.unique(members.customer[members.customer != UNKNOWN_CUSTOMER])
        return cls.of_ids(members.journeys.customer_ids.take(customers).to_pylist(), frozen_us)

    @classmethod
    def of_ids(cls, ids: Iterable[str], frozen_us: int) -> Self:
        """Customers by identifier."""
        key = secrets.token_bytes(KEY_BYTES)
        return cls(frozen_us, key, np.unique(hashed(ids, key)))

    def __len__(self) -> int:
        return len(self.hashes)

    def holds(self, snapshots: Snapshots) -> npt.NDArray[np.bool_]:
        """(n,) whether the customer is on the list; unknown customers are not."""
        held = np.zeros(len(snapshots), bool)
        rows = (snapshots.customer != UNKNOWN_CUSTOMER) & (snapshots.cutoff >= self.frozen_us)
        if not rows.any() or not len(self.hashes):
            return held
        customers, place = np.unique(snapshots.customer[rows], return_inverse=True)
        hashes = hashed(snapshots.journeys.customer_ids.take(customers).to_pylist(), self.key)
        at = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)  # log m a request; `isin` sorts
        held[rows] = (self.hashes[at] == hashes)[place]
        return held


def hashed(ids: Iterable[str], key: bytes) -> Hashes:
    """(n,) keyed hashes of identifiers."""
    digests = b"".join(hmac.digest(key, id.encode(), "sha256")[:8] for id in ids)
    return np.frombuffer(digests, np.dtype("<u8")).astype(np.uint64)


def save_lists(lists: dict[str, StaticList], folder: Path) -> None:
    """Write `lists.json` and `lists.safetensors`; nothing where there are none."""
    from safetensors.numpy import save_file

    if lists:
        about = {name: {"frozen_us": members.frozen_us, "key": members.key.hex()} for name, members in lists.items()}
        (folder / "lists.json").write_text(json.dumps(about), encoding="utf-8")
        save_file({name: members.hashes for name, members in lists.items()}, folder / "lists.safetensors")


def load_lists(folder: Path) -> dict[str, StaticList]:
    """Read what `save_lists` wrote.

    Raises:
        DataError: the two files do not belong together.
    """
    from safetensors.numpy import load_file

    if not (folder / "lists.json").is_file():
        return {}
    about: dict[str, Any] = json.loads((folder / "lists.json").read_text(encoding="utf-8"))
    hashes = load_file(folder / "lists.safetensors")
    if set(about) != set(hashes):
        raise DataError(f"{folder}: lists.json and lists.safetensors name different lists; save the segments again.")
    return {
        name: StaticList(entry["frozen_us"], bytes.fromhex(entry["key"]), np.asarray(hashes[name], np.uint64))
        for name, entry in about.items()
    }

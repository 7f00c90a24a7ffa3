"""Static lists: customers who were in a segment at a date, frozen, kept as keyed hashes and never as identifiers.

    members = StaticList.of(snapshots.take(mask), frozen_us)
    members.holds(later)                # (n,) bool

A hash is the first eight bytes of HMAC-SHA256 under a random key that belongs to the list: whoever has the list alone
can ask about a customer he knows, but can read nobody out of it, and two lists cannot be joined.
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
        frozen_us: µs since 1970 UTC; at an earlier cutoff nobody is a member yet.
        key: of the hashes.
        hashes: (m,) ascending.
    """

    frozen_us: int
    key: bytes
    hashes: Hashes

    @classmethod
    def of(cls, members: Snapshots, frozen_us: int) -> Self:
        """The customers of these snapshots."""
        known = np.unique(members.customer[members.customer != UNKNOWN_CUSTOMER])
        return cls.of_ids(members.journeys.customer_ids.take(known).to_pylist(), frozen_us)

    @classmethod
    def of_ids(cls, ids: Iterable[str], frozen_us: int) -> Self:
        """Customers by identifier."""
        key = secrets.token_bytes(KEY_BYTES)
        return cls(frozen_us, key, np.unique(hashed(ids, key)))

    def __len__(self) -> int:
        return len(self.hashes)

    def holds(self, snapshots: Snapshots) -> npt.NDArray[np.bool_]:
        """(n,) who is on the list; customers that the log does not know are not."""
        held = np.zeros(len(snapshots), bool)
        asked = (snapshots.customer != UNKNOWN_CUSTOMER) & (snapshots.cutoff >= self.frozen_us)
        if not asked.any() or not len(self.hashes):
            return held
        customers, place = np.unique(snapshots.customer[asked], return_inverse=True)
        found = hashed(snapshots.journeys.customer_ids.take(customers).to_pylist(), self.key)
        at = np.minimum(np.searchsorted(self.hashes, found), len(self.hashes) - 1)
        held[asked] = (self.hashes[at] == found)[place]
        return held


def hashed(ids: Iterable[str], key: bytes) -> Hashes:
    """(n,) keyed hashes of identifiers."""
    digests = b"".join(hmac.digest(key, one.encode(), "sha256")[:8] for one in ids)
    return np.frombuffer(digests, np.dtype("<u8")).astype(np.uint64)


def save_lists(lists: dict[str, StaticList], folder: Path) -> None:
    """Write `lists.json` and `lists.safetensors`; nothing where there are none."""
    from safetensors.numpy import save_file

    if lists:
        about = {name: {"frozen_us": one.frozen_us, "key": one.key.hex()} for name, one in lists.items()}
        (folder / "lists.json").write_text(json.dumps(about), encoding="utf-8")
        save_file({name: one.hashes for name, one in lists.items()}, folder / "lists.safetensors")


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
        name: StaticList(one["frozen_us"], bytes.fromhex(one["key"]), np.asarray(hashes[name], np.uint64))
        for name, one in about.items()
    }

"""Customers under keyed hashes: rows of one person can be joined; only the key says whose they are.

    JOURNEYLAB_MONITOR_KEY_FILE=/run/secrets/key      # as `features.privacy.keyed_hashes.write_key` writes it
    JOURNEYLAB_MONITOR_KEY="at least 16 characters"   # or in the environment

A pseudonym is the first half of an HMAC-SHA256 (RFC 2104). Without a key in the environment a process makes one of its
own and forgets it: then its rows can be joined with each other, and with nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from features.errors import ConfigError
from features.privacy.keyed_hashes import key_id, keyed_hash, new_key, read_key

KEY, KEY_FILE = "JOURNEYLAB_MONITOR_KEY", "JOURNEYLAB_MONITOR_KEY_FILE"
SHORTEST_KEY = 16
BYTES = 16


@dataclass(frozen=True, repr=False)
class Pseudonyms:
    """Identifiers → pseudonyms.

    Attributes:
        key: of the hashes; it is written nowhere.
    """

    key: bytes

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, file: Path | None = None) -> Self | None:
        """With the key of a file or of the environment; None where there is none.

        Args:
            environment: where the key, or the name of its file, is looked up.
            file: with the key, before any other.

        Raises:
            ConfigError: a key that cannot be used.
        """
        where = file or (Path(environment[KEY_FILE]) if environment.get(KEY_FILE) else None)
        if where is not None:
            return cls(read_key(where))
        text = environment.get(KEY, "")
        if text and len(text) < SHORTEST_KEY:
            raise ConfigError(f"The key in {KEY} is short: give at least {SHORTEST_KEY} characters.")
        return cls(text.encode()) if text else None

    @classmethod
    def with_new_key(cls) -> Self:
        """With a new key."""
        return cls(new_key())

    @property
    def key_id(self) -> str:
        """An identifier of the key that does not reveal it."""
        return key_id(self.key)

    def of(self, customer: str) -> str:
        """The customer's pseudonym, 32 hexadecimal digits.

        >>> Pseudonyms(b"sixteen bytes at least").of("ann")
        '6eccb108adce365baba55e511a2634dd'
        """
        return keyed_hash(customer, self.key)[:BYTES].hex()

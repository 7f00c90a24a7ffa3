"""Keyed hashes of identifiers (HMAC-SHA256, RFC 2104), and the files that hold their keys."""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from features.errors import ConfigError

KEY_BYTES = 32


def new_key() -> bytes:
    """A key of 32 random bytes."""
    return secrets.token_bytes(KEY_BYTES)


def write_key(key: bytes, path: Path) -> None:
    """Write a key, readable by its owner alone; never into the folder of the vectors.

    Raises:
        ConfigError: there is a file already, or vectors lie beside it.
    """
    if (path.parent / "lookalikes.json").exists():
        raise ConfigError(
            f"{path.parent} holds the vectors: keep the key in another folder, or the hashes are no secret"
        )
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise ConfigError(f"{path} exists: read that key, or choose another place for a new one") from None
    with os.fdopen(file, "w", encoding="ascii") as out:
        out.write(key.hex())


def read_key(path: Path) -> bytes:
    """Read what `write_key` wrote.

    Raises:
        ConfigError: no such file, or no key in it.
    """
    try:
        return checked_key(bytes.fromhex(path.read_text(encoding="ascii").strip()))
    except (OSError, ValueError):
        raise ConfigError(f"{path} holds no key as `write_key` writes it: give the file with the key") from None


def keyed_hash(customer: str, key: bytes) -> bytes:
    """HMAC-SHA256 of an identifier, 32 bytes.

    >>> keyed_hash("ann", b"sixteen bytes at least").hex()[:16]
    '6eccb108adce365b'
    """
    return hmac.digest(key, customer.encode("utf-8"), "sha256")


def key_id(key: bytes) -> str:
    """16 hexadecimal digits that identify a key and do not reveal it."""
    return hmac.digest(key, b"journeylab look-alikes: the mark of a key", "sha256").hex()[:16]


def checked_key(key: bytes) -> bytes:
    """The key, or an error that says it is too short."""
    if len(key) < 16:
        raise ConfigError(f"the key has {len(key)} bytes: give 16 at least, or take new_key()")
    return key

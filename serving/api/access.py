"""Access to the service: bearer tokens from a file or the environment; without any, only this machine is answered.

    JOURNEYLAB_TOKENS_FILE=/run/secrets/tokens     # one a line; read again when it changes, so tokens rotate
    JOURNEYLAB_TOKENS="first second"               # or in the environment, separated by spaces or commas

A route wants `Authorization: Bearer TOKEN` unless its entry in `serving.api.routes` says otherwise. With no token
configured the service answers requests that came to a loopback address under a name of this machine's own, and refuses
all others: a web page that lets its own name point here (DNS rebinding) gets nothing through its visitor's browser.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import os
import re
import time
from collections.abc import Mapping
from pathlib import Path

from features.errors import ConfigError
from serving.api.asgi import App, Receive, Scope, Send, send_error
from serving.api.routes import OPEN_FOLDER, OPEN_PATHS

TOKENS, TOKENS_FILE = "JOURNEYLAB_TOKENS", "JOURNEYLAB_TOKENS_FILE"
SHORTEST_TOKEN = 16
CHECK_INTERVAL_S = 1.0  # between two looks at the file's date
NO_TOKEN = "This service wants a token: send it as 'Authorization: Bearer TOKEN'."
LOCAL_ONLY = "No token is configured, so this service answers its own machine only: see JOURNEYLAB_TOKENS_FILE."


class Tokens:
    """The tokens that are accepted now.

    Args:
        environment: where they, or the name of their file, are looked up.

    Raises:
        ConfigError: a file that cannot be read, or a token that is too short or no plain text.
    """

    def __init__(self, environment: Mapping[str, str] = os.environ) -> None:
        path = environment.get(TOKENS_FILE)
        self.path = Path(path) if path else None
        self._fixed = _digests(re.split(r"[\s,]+", environment.get(TOKENS, "")), TOKENS)
        self._from_file: frozenset[bytes] = frozenset()
        self._modified_ns, self._checked_s = -1, 0.0
        if self.path is not None:
            self._refresh(strict=True)

    @property
    def configured(self) -> bool:
        """Whether there are any; a file without one is a configuration, too: it accepts no token."""
        return self.path is not None or bool(self._fixed)

    def accept(self, token: str) -> bool:
        """Whether a token is accepted; takes as long for every token that is not."""
        if self.path is not None and time.monotonic() - self._checked_s > CHECK_INTERVAL_S:
            self._refresh(strict=False)
        digest, accepted = _digest(token), False
        for other in (*self._fixed, *self._from_file):  # all of them, so that the time tells nothing
            accepted |= hmac.compare_digest(other, digest)
        return accepted

    def _refresh(self, strict: bool) -> None:
        """Read the file if it changed; one that has become unreadable leaves the tokens as they were."""
        assert self.path is not None
        self._checked_s = time.monotonic()
        try:
            modified_ns = self.path.stat().st_mtime_ns
            if modified_ns != self._modified_ns:
                lines = self.path.read_text(encoding="utf-8").splitlines()
                self._from_file = _digests([line.strip() for line in lines if not line.startswith("#")], str(self.path))
                self._modified_ns = modified_ns
        except (OSError, UnicodeDecodeError, ConfigError) as error:
            if strict:
                raise ConfigError(f"The tokens in {TOKENS_FILE}={self.path} cannot be used: {error}") from None


class TokenGate:
    """ASGI middleware that refuses requests without a token.

    Args:
        app: the rest.
        tokens: the tokens.
    """

    def __init__(self, app: App, tokens: Tokens) -> None:
        self.app, self.tokens = app, tokens

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or answer 401 or 403 with a sentence."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        if not self.tokens.configured:
            if not _is_local_request(scope):
                await send_error(send, 403, LOCAL_ONLY)
                return
        elif not is_open(scope["path"]) and not self.tokens.accept(_bearer(scope)):
            await send_error(send, 401, NO_TOKEN, (b"www-authenticate", b"Bearer"))
            return
        await self.app(scope, receive, send)


def is_open(path: str) -> bool:
    """Whether a path needs no token."""
    return path in OPEN_PATHS or (path.startswith(OPEN_FOLDER) and ".." not in path)


def _bearer(scope: Scope) -> str:
    """The request's token; empty without one, or with two headers, which are ambiguous."""
    values = [value for name, value in scope["headers"] if name == b"authorization"]
    if len(values) != 1:
        return ""
    kind, _, token = values[0].decode("latin-1").strip().partition(" ")
    return token.strip() if kind.lower() == "bearer" else ""


def _is_local_request(scope: Scope) -> bool:
    """Whether the request came to a loopback address, under a name of this machine."""
    server = str((scope.get("server") or ("127.0.0.1",))[0])  # a socket file has no address
    hosts = [value.decode("latin-1") for name, value in scope["headers"] if name == b"host"]
    return is_local(server) and all(is_local(_without_port(host)) for host in hosts)


def _without_port(host: str) -> str:
    """A Host header's name.

    >>> _without_port("localhost:3000"), _without_port("[::1]:3000"), _without_port("127.0.0.1")
    ('localhost', '::1', '127.0.0.1')
    """
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def is_local(host: str) -> bool:
    """Whether an address or name means this machine.

    >>> is_local("127.0.0.1"), is_local("localhost"), is_local("0.0.0.0"), is_local("example.org")
    (True, True, False, False)
    """
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() in ("localhost", "testserver")


def _digests(tokens: list[str], source: str) -> frozenset[bytes]:
    tokens = [token for token in tokens if token]
    if any(len(token) < SHORTEST_TOKEN or not token.isascii() for token in tokens):
        raise ConfigError(f"A token in {source} has fewer than {SHORTEST_TOKEN} characters, or one beyond ASCII.")
    return frozenset(_digest(token) for token in tokens)


def _digest(token: str) -> bytes:
    """A digest has one length for all tokens, so a comparison tells nothing of a token's length."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()

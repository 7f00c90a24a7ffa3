"""Start a bento: on this machine's own address, or on another where tokens say who may call.

    serve("journeylab:latest", port=3000)             # until it is interrupted
    with running("journeylab:latest") as url: ...     # for as long as the block lasts

Without tokens (`serving.api.access`) it answers this machine only, says so at the start, and refuses to listen
elsewhere.
"""

from __future__ import annotations

import ipaddress
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from features.errors import ConfigError, JourneyLabError
from serving.api.access import TOKENS, TOKENS_FILE, Tokens, is_local
from serving.bento.swap import champions_of, pointer_of
from serving.live.live import POINTER, point
from serving.monitor.monitoring import MONITOR, TO_BENTOML

PATH_VARIABLES = (TOKENS_FILE, MONITOR, "JOURNEYLAB_MONITOR_KEY_FILE")
QUIET = {"BENTOML_DO_NOT_TRACK": "True"}
NEWEST = "journeylab:latest"
READY_WITHIN_S = 120.0


def serve(bento: str | None = None, *, host: str = "127.0.0.1", port: int = 3000) -> int:
    """Serve until interrupted; the exit status of BentoML.

    Args:
        bento: a tag in BentoML's store, or a bento's folder; by default the newest that `package` made.
        host: an address of this machine; one that others reach wants tokens.
        port: where to listen.

    Raises:
        ConfigError: for a host that others can reach while there are no tokens, tokens that cannot be used, a port that
            is taken, or a bento that is not there.
    """
    arguments, variables = command(bento or NEWEST, host=host, port=port), swap_environment(bento or NEWEST, port)
    if not Tokens().configured:
        print(f"No tokens are configured ({TOKENS_FILE}, {TOKENS}): only this machine is answered.", file=sys.stderr)
    process = subprocess.Popen(arguments, cwd=tempfile.gettempdir(), env=variables)
    try:
        return process.wait()
    except KeyboardInterrupt:  # the terminal sent it to BentoML too, which is closing
        return process.wait()
    finally:
        pointer_of(port).unlink(missing_ok=True)


@contextmanager
def running(bento: str, *, port: int | None = None, log: Path | None = None) -> Iterator[str]:
    """A served bento, ready, as long as the block lasts; yields its URL.

    Args:
        bento: a tag or a folder.
        port: where to listen; a free one by default.
        log: a file for what it prints; nowhere by default.

    Raises:
        JourneyLabError: when it ends or is not ready in time.
    """
    port = port or free_port()
    with open(log or os.devnull, "wb") as out:
        process = subprocess.Popen(
            command(bento, port=port), cwd=tempfile.gettempdir(), env=swap_environment(bento, port), stdout=out,
            stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            yield wait_until_ready(process, f"http://127.0.0.1:{port}")
        finally:
            stop(process)
            pointer_of(port).unlink(missing_ok=True)


def swap_environment(bento: str, port: int) -> dict[str, str]:
    """The environment of a service whose champions can be swapped.

    Raises:
        ConfigError: there is no such bento.
    """
    pointer = pointer_of(port)
    point(pointer, champions_of(bento))
    return environment() | {POINTER: str(pointer)}


def command(bento: str, *, host: str = "127.0.0.1", port: int = 3000) -> list[str]:
    """The command line of BentoML.

    Raises:
        ConfigError: see `serve`.
    """
    tokens = Tokens()  # raises here where they cannot be used; a worker would print a stack
    if not is_local(host) and not tokens.configured:
        raise ConfigError(
            f"'{host}' can be reached by others and no tokens are configured: name a file of them in {TOKENS_FILE}, or "
            "use 127.0.0.1."
        )
    host = _address(host)
    with closing(socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (OSError, OverflowError) as error:
            raise ConfigError(f"Cannot listen on {host}:{port} ({error}). Choose another port with --port.") from None
    target = str(Path(bento).resolve()) if (Path(bento) / "bento.yaml").is_file() else bento
    return [sys.executable, "-m", "bentoml", "serve", target, "--host", host, "--port", str(port)]


def _address(host: str) -> str:
    """BentoML takes numbers only.

    Raises:
        ConfigError: a name; which of its addresses is meant would be a guess.
    """
    if host == "localhost":
        return "127.0.0.1"
    try:
        return str(ipaddress.ip_address(host))
    except ValueError:
        raise ConfigError(f"'{host}' is no IP address: give one of this machine's, such as 127.0.0.1.") from None


def environment() -> dict[str, str]:
    """The environment of the service: no telemetry, and absolute paths, as BentoML starts it in another folder."""
    paths = {name: os.environ.get(name, "") for name in PATH_VARIABLES}
    absolute = {name: str(Path(path).resolve()) for name, path in paths.items() if path not in ("", TO_BENTOML)}
    return os.environ | absolute | QUIET


def free_port() -> int:
    """A free port of this machine."""
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_until_ready(process: subprocess.Popen[bytes], url: str) -> str:
    """Wait for a service and return its URL.

    Raises:
        JourneyLabError: it ended, or took too long.
    """
    until = time.monotonic() + READY_WITHIN_S
    while time.monotonic() < until:
        if process.poll() is not None:
            raise JourneyLabError(f"The service ended with status {process.returncode} before it was ready.")
        try:
            with urllib.request.urlopen(f"{url}/readyz", timeout=1):
                return url
        except OSError:
            time.sleep(0.1)
    raise JourneyLabError(f"The service was not ready after {READY_WITHIN_S:.0f} s.")


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a service and its workers, which are in one process group; by force where it takes too long."""
    for signal_number, seconds in ((signal.SIGTERM, 10), (signal.SIGKILL, 5)):
        if process.poll() is None:
            os.killpg(process.pid, signal_number)
            try:
                process.wait(seconds)
            except subprocess.TimeoutExpired:
                continue

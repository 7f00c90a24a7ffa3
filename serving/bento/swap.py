"""Put the champions of another bento in service, under load, without a gap; and back again the same way.

swap("journeylab:abc123", port=3000)      # what `journeylab swap` does
"""

from __future__ import annotations

import json
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path

from features.errors import ConfigError, JourneyLabError
from serving.api.access import TOKENS, TOKENS_FILE
from serving.champions.champions import Champions
from serving.live.live import point

WITHIN_S = 120.0


def pointer_of(port: int) -> Path:
    """The pointer file of the service on a port of this machine."""
    home = Path(os.environ.get("JOURNEYLAB_HOME") or Path.home() / ".journeylab").expanduser()
    home.mkdir(parents=True, exist_ok=True)
    return home / f"serving-{port}"


def champions_of(bento: str) -> Path:
    """The folder of champions in a bento, by tag or by folder.

    Raises:
        ConfigError: there is no such bento.
    """
    from serving.bento.package import bento_folder

    folder = Path(bento) if (Path(bento) / "bento.yaml").is_file() else None
    tag = bento if ":" in bento else f"{bento}:latest"
    if folder is None and tag.endswith(":latest"):
        latest = bento_folder(tag)
        folder = latest.parent / latest.read_text(encoding="utf-8").strip() if latest.is_file() else None
    folder = folder or bento_folder(tag)
    if not (folder / "src" / "champions").is_dir():
        raise ConfigError(f"There is no bento {bento!r}: `journeylab package NAME@champion` makes one.")
    return (folder / "src" / "champions").resolve()


def swap(bento: str, *, port: int = 3000) -> dict[str, str]:
    """Point the running service at other champions and wait until it answers with them: name → version.

    Args:
        bento: a tag or a folder; its champions must read the same columns as text and as numbers.
        port: where the service listens.

    Raises:
        ConfigError: no such bento, or no service that `journeylab serve` started on this port.
        JourneyLabError: the service did not take them; it goes on with those that it had.
    """
    folder, pointer = champions_of(bento), pointer_of(port)
    if not pointer.is_file():
        raise ConfigError(f"No service on port {port} was started by `journeylab serve` on this machine.")
    before = pointer.read_text(encoding="utf-8").strip()
    champions = Champions(folder)
    point(pointer, folder)
    until = time.monotonic() + WITHIN_S
    while time.monotonic() < until:
        if _in_service(port) == champions.identity:
            return {name: origin.version for name, origin in champions.origins.items()}
        time.sleep(0.2)
    point(pointer, Path(before))
    raise JourneyLabError(
        f"The service did not put {bento} in service within {WITHIN_S:.0f} s, so the pointer is back where it was: "
        "its log says why."
    )


def _in_service(port: int) -> str | None:
    """The identity of the champions that answer; None while none do."""
    request = urllib.request.Request(f"http://127.0.0.1:{port}/model", headers=_token())
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return str(json.load(answer).get("champions"))
    except urllib.error.HTTPError as error:
        if error.code == 401:
            raise ConfigError(f"The service wants a token: set {TOKENS} or {TOKENS_FILE} here as well.") from None
        return None
    except OSError:
        return None


def _token() -> dict[str, str]:
    """The first token that this environment names."""
    tokens = re.split(r"[\s,]+", os.environ.get(TOKENS, "").strip())
    if path := os.environ.get(TOKENS_FILE):
        tokens += [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line[:1] != "#"]
    token = next(filter(None, tokens), None)
    return {"Authorization": f"Bearer {token}"} if token else {}

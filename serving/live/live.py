"""The champions in service: another bento's can take their place while requests are answered.

    journeylab serve                        # writes the folder of its champions into a pointer file
    journeylab swap journeylab:abc123       # writes another folder there; the service loads, warms up, then switches

A worker reads the pointer once a second. New champions are loaded and warmed up beside the old ones, and then one
reference is exchanged: a request is answered by the champions that were in service when it came, so none fails. Where
new champions cannot be loaded, the old ones stay, and the log says why.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from pathlib import Path

from serving.champions.champions import Champions

POINTER = "JOURNEYLAB_POINTER"  # names the pointer file
CHECK_INTERVAL_S = 1.0
logger = logging.getLogger("journeylab.serving")


class LiveChampions:
    """The champions in service at this moment.

    Args:
        champions: to begin with.
        pointer: a file with the path of the folder of champions that should be in service; None: always the first.
    """

    def __init__(self, champions: Champions, pointer: Path | None = None) -> None:
        self.champions, self.pointer = champions, pointer
        self._folder = str(champions.folder)

    def update(self, prepare: Callable[[Champions], None]) -> bool:
        """Put other champions in service where the pointer names some; whether it did.

        Args:
            prepare: warms champions up before; where it raises, they stay out of service.
        """
        folder = self._pointed()
        if folder is None or folder == self._folder:
            return False
        self._folder = folder  # also where it fails, so that the same folder is not tried every second
        try:
            champions = Champions(Path(folder))
            if not champions.names:
                raise FileNotFoundError("there are no champions")
            prepare(champions)
        except Exception as error:
            logger.error("the champions stay as they are: others could not be loaded (%s)", type(error).__name__)
            return False
        self.champions = champions
        logger.info("champions in service: %s", champions.listed)
        return True

    def watch(self, prepare: Callable[[Champions], None]) -> None:
        """Update once a second from now on, on a thread."""

        def watch() -> None:
            pause = threading.Event()
            while not pause.wait(CHECK_INTERVAL_S):
                self.update(prepare)

        if self.pointer is not None:
            threading.Thread(target=watch, name="champions", daemon=True).start()

    def _pointed(self) -> str | None:
        if self.pointer is None:
            return None
        try:
            return self.pointer.read_text(encoding="utf-8").strip() or None
        except OSError:
            return None


def pointer_from_environment() -> Path | None:
    """The pointer file that `journeylab serve` names to its workers."""
    path = os.environ.get(POINTER)
    return Path(path) if path else None


def point(pointer: Path, folder: Path) -> None:
    """Write a folder of champions into the pointer; readers see the old content or the new one, never a part."""
    temporary = pointer.with_name(f"{pointer.name}.new")
    temporary.write_text(f"{folder.resolve()}\n", encoding="utf-8")
    os.replace(temporary, pointer)

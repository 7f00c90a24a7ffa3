"""The champions in service now: another bento's can take their place while requests are answered.

    journeylab serve                        # writes where its champions lie into a pointer file
    journeylab swap journeylab:abc123       # writes another place there; the service loads, warms up, then switches

A worker looks at the pointer once a second. New champions are loaded and warmed up beside the old ones, and then one
reference is exchanged: a request is answered by those that were in service when it came, so none fails. Champions that
cannot be loaded leave the old ones where they are, and the log says why.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from serving.answers.answers import Answerer
from serving.api.openapi import document
from serving.champions.champions import Champions

if TYPE_CHECKING:
    from serving.answers.batches import Batches
    from serving.monitor.monitoring import Watch

POINTER = "JOURNEYLAB_POINTER"  # the file that says where the champions lie
LOOK_EVERY_S = 1.0
logger = logging.getLogger("journeylab.serving")


@dataclass(frozen=True)
class Serving:
    """One set of champions with all that answers for them, and who takes note of it."""

    champions: Champions
    monitor: Watch | None = None

    @cached_property
    def answerer(self) -> Answerer:
        """For one customer."""
        return Answerer(self.champions, self.monitor)

    @cached_property
    def batches(self) -> Batches:
        """For many; made when wanted, as it takes pandas along, which BentoML's parent process does without."""
        from serving.answers.batches import Batches

        return Batches(self.champions, self.monitor)

    @cached_property
    def document(self) -> dict[str, Any]:
        """The OpenAPI document."""
        return document(self.champions)


class Live:
    """What is in service at this moment.

    Args:
        champions: to begin with.
        pointer: a file with the path of the folder of champions that should be in service; None: always the first.
        monitor: takes note of answers, where that is wanted.
    """

    def __init__(self, champions: Champions, pointer: Path | None = None, monitor: Watch | None = None) -> None:
        self.now = Serving(champions, monitor)
        self.pointer, self.monitor = pointer, monitor
        self._place = str(champions.folder)

    def look(self, warm_up: Callable[[Champions], None]) -> bool:
        """Put other champions in service where the pointer asks for it; whether it did.

        Args:
            warm_up: what they go through before.
        """
        wanted = self._wanted()
        if wanted is None or wanted == self._place:
            return False
        self._place = wanted  # also where it fails: what cannot be loaded is not tried every second
        try:
            champions = Champions(Path(wanted))
            if not champions.names:
                raise FileNotFoundError("there are no champions")
            warm_up(champions)
        except Exception as error:
            logger.error("the champions stay as they are: others could not be loaded (%s)", type(error).__name__)
            return False
        self.now = Serving(champions, self.monitor)
        logger.info("champions in service: %s", champions.listed)
        return True

    def watch(self, warm_up: Callable[[Champions], None]) -> None:
        """Look once a second from now on, on a thread of its own."""
        if self.pointer is not None:
            threading.Thread(target=self._watching, args=(warm_up,), name="champions", daemon=True).start()

    def _watching(self, warm_up: Callable[[Champions], None]) -> None:
        rest = threading.Event()
        while not rest.wait(LOOK_EVERY_S):
            self.look(warm_up)

    def _wanted(self) -> str | None:
        if self.pointer is None:
            return None
        try:
            return self.pointer.read_text(encoding="utf-8").strip() or None
        except OSError:
            return None


def pointer_from_environment() -> Path | None:
    """The pointer file that `journeylab serve` names to its workers."""
    given = os.environ.get(POINTER)
    return Path(given) if given else None


def point(pointer: Path, folder: Path) -> None:
    """Ask for the champions in a folder, whole or not at all."""
    beside = pointer.with_name(f"{pointer.name}.new")
    beside.write_text(f"{folder.resolve()}\n", encoding="utf-8")
    os.replace(beside, pointer)

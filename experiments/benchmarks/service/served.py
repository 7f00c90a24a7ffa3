"""Any bento in service for as long as it is measured: its port, its processor time, its memory."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from serving.api.access import TOKENS
from serving.bento.serve import command, environment, free_port, stop, swap_environment, wait_until_ready

TOKEN = "0123456789abcdef0123456789abcdef"
HEADERS = {"Authorization": f"Bearer {TOKEN}"}


class Served:
    """A running service.

    Args:
        process: of `bentoml serve`.
        port: where it listens.
        ready_s: how long it took until it was ready.
    """

    def __init__(self, process: psutil.Process, port: int, ready_s: float) -> None:
        self.process, self.port, self.ready_s = process, port, ready_s
        self._first = {worker.pid for worker in self._all()}

    def cpu_s(self) -> float:
        """Processor seconds of all its processes until now."""
        times = [process.cpu_times() for process in self._all()]
        return float(sum(times_of_process.user + times_of_process.system for times_of_process in times))

    def memory_mb(self) -> float:
        """Resident memory of all its processes."""
        return float(sum(process.memory_info().rss for process in self._all())) / 1e6

    def workers_are_the_same(self) -> bool:
        """Whether none ended since the start."""
        return self._first == {worker.pid for worker in self._all()}

    def _all(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextmanager
def served(bento: str, log: Path | None = None, swappable: bool = False) -> Iterator[Served]:
    """A bento of ours or of others, with a token; `swappable` where another's champions may take their place."""
    port = free_port()
    surroundings = (swap_environment(bento, port) if swappable else environment()) | {TOKENS: TOKEN}
    begun = time.monotonic()
    with open(log or os.devnull, "wb") as out:
        process = subprocess.Popen(
            command(bento, port=port), cwd=tempfile.gettempdir(), env=surroundings, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            wait_until_ready(process, f"http://127.0.0.1:{port}")
            yield Served(psutil.Process(process.pid), port, time.monotonic() - begun)
        finally:
            stop(process)

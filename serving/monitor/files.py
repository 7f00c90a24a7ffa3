"""Rows of a monitor on disk: JSON lines, a file a day and process, the oldest deleted when there are too many.

    files = RowFiles(Path("/var/lib/journeylab/monitor"), most_bytes=2_000_000_000)
    files.write([{"at": "2024-06-01T10:00:00Z", …}])

Files and folder can be read by their owner alone. Several processes may write into one folder.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

PREFIX, SUFFIX = "rows-", ".jsonl"
PARTS = 20  # a file is at most this part of all, so that deleting one deletes little
FEWEST_BYTES = 1_000_000


class RowFiles:
    """Where rows go.

    Args:
        folder: made where missing.
        most_bytes: of all files of rows in it together.
    """

    def __init__(self, folder: Path, most_bytes: int) -> None:
        self.folder = folder
        self.most_bytes = max(most_bytes, FEWEST_BYTES)
        self._path: Path | None = None

    def write(self, rows: Sequence[Mapping[str, Any]], now: datetime | None = None) -> None:
        """Append a line a row."""
        text = "".join(json.dumps(row, ensure_ascii=False, separators=(",", ":")) + "\n" for row in rows)
        path = self._current(f"{now or datetime.now(UTC):%Y-%m-%d}")
        with open(os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600), "w", encoding="utf-8") as file:
            file.write(text)

    def _current(self, day: str) -> Path:
        """The file to write to now; a new one when the day is over or it has grown too large."""
        path = self._path
        if path is None or f"{PREFIX}{day}-" not in path.name or _size(path) > self.most_bytes // PARTS:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._delete_oldest()
            started = f"{datetime.now(UTC):%H%M%S%f}"
            path = self._path = self.folder / f"{PREFIX}{day}-{started}-{os.getpid()}{SUFFIX}"
        return path

    def _delete_oldest(self) -> None:
        """Make room for one more file."""
        files = sorted(self.folder.glob(f"{PREFIX}*{SUFFIX}"))  # by name is by time
        sizes = [_size(path) for path in files]
        total = sum(sizes) + self.most_bytes // PARTS
        for path, size in zip(files, sizes, strict=True):
            if total <= self.most_bytes:
                break
            path.unlink(missing_ok=True)
            total -= size


def _size(path: Path) -> int:
    """In bytes; another process may have deleted it."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0

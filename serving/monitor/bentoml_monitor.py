"""Rows through `bentoml.monitor`: to our files, or wherever BentoML's configuration sends them.

BentoML keeps a record in context variables and does not clear them when the block fails, after which every further
block fails, too. So rows are complete before a block begins, and each block runs in a context of its own.
"""

from __future__ import annotations

import contextvars
from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bentoml
from bentoml.monitoring import MonitorBase

from serving.monitor.files import RowFiles

NAME = "journeylab"
Row = dict[str, Any]


class FileMonitor(MonitorBase[Any]):
    """BentoML's monitor with `serving.monitor.files` behind it: its default one keeps files for ever.

    Args:
        name: of the monitor.
        folder: for the rows.
        most_bytes: of all rows together.
    """

    def __init__(self, name: str, folder: str, most_bytes: int, **_: Any) -> None:
        super().__init__(name)
        self.files = RowFiles(Path(folder), most_bytes)

    def export_schema(self, columns_schema: dict[str, dict[str, str]]) -> None:
        """Every row names its columns."""

    def export_data(self, datas: dict[str, deque[Any]]) -> None:
        """Write the rows of a record."""
        self.files.write([dict(zip(datas, values, strict=True)) for values in zip(*datas.values(), strict=True)])


class Recorder:
    """Writes rows.

    Args:
        columns: of a row → role and type, in BentoML's words.
        folder: for the files; None leaves it to BentoML's configuration (`monitoring`).
        most_bytes: of all files together.
    """

    def __init__(self, columns: dict[str, tuple[str, str]], folder: Path | None, most_bytes: int) -> None:
        self.columns = columns
        self._options: dict[str, Any] = {}
        if folder is not None:
            self._options = {
                "monitor_class": FileMonitor,
                "monitor_options": {"folder": str(folder), "most_bytes": most_bytes},
            }
        self._first = True

    def __call__(self, rows: Sequence[Row]) -> None:
        """Write rows that have all columns."""
        if self._first and rows:  # of several rows in the first record BentoML says that columns were named twice
            self._first = False
            contextvars.copy_context().run(self._write, rows[:1])
            rows = rows[1:]
        if rows:
            contextvars.copy_context().run(self._write, rows)

    def _write(self, rows: Sequence[Row]) -> None:
        whole = {name: [row[name] for row in rows] for name in self.columns}
        with bentoml.monitor(NAME, **self._options) as monitor:
            for name, (role, kind) in self.columns.items():
                monitor.log_batch(whole[name], name, role, kind)

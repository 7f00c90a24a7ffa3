"""What commands print: notes and tables on standard error, the result on standard output."""

from __future__ import annotations

import json
import sys
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

NEGATIVE = 3  # the exit status of a command that worked and whose answer is no
SUMMARY_METRICS = ("auroc", "brier", "log_loss")

console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)


def finish(as_json: bool, note: str, result: dict[str, Any], key: str) -> None:
    """End a command: a note for people, then the URI or path, or the whole result as JSON, for scripts."""
    console.print(plain(note), highlight=False, soft_wrap=True)
    sys.stdout.write((json.dumps(result) if as_json else str(result[key])) + "\n")


def plain(text: str) -> str:
    """Escape square brackets, which are markup to Rich."""
    return text.replace("[", r"\[")


def show_table(frame: Any) -> None:
    """Show a frame as a table in the terminal."""
    table = Table(*(str(name) for name in frame.columns), box=box.SIMPLE_HEAD)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else plain(str(value)) for value in row))
    if len(frame):
        console.print(table)


def show_models(models: dict[str, dict[str, Any]]) -> None:
    """Show the models side by side, on validation and on the held-out rows, with intervals."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "rows", *SUMMARY_METRICS):
        table.add_column(name.replace("_", " "), justify="left" if name in ("model", "rows") else "right", no_wrap=True)
    for name, model in models.items():
        for split, rows in (("validation", "validation"), ("test", "held out")):
            table.add_row(name, rows, *(_with_interval(model["metrics"][split], metric) for metric in SUMMARY_METRICS))
    console.print(table)


def _with_interval(metrics: dict[str, float], metric: str) -> str:
    if metric not in metrics:
        return "–"
    return f"{metrics[metric]:.3f} ({metrics[f'{metric}_low']:.3f}–{metrics[f'{metric}_high']:.3f})"

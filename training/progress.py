"""What long work shows: a bar on a terminal, plain lines in a log, nothing where no console is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Advance = Callable[[str], None]


def say(console: Console | None, text: str) -> None:
    """One line for people; the text is printed as it is, brackets included."""
    if console is not None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def stage(console: Console | None, text: str) -> Iterator[None]:
    """Announce a piece of work without steps; on a terminal a spinner turns until it is done."""
    if console is None or not console.is_terminal:
        say(console, text)
        yield
        return
    started = time.monotonic()
    with console.status(text):
        yield
    say(console, f"{text} ({time.monotonic() - started:.1f} s)")


@contextmanager
def bar(console: Console | None, title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """A bar of `total` steps, `done` of them done before; the caller gets a function that advances it by one.

    The function takes a note about the step. Off the terminal each step is a line.
    """
    if console is None or not console.is_terminal:
        count = done

        def line(note: str) -> None:
            nonlocal count
            count += 1
            say(console, f"{title}: {count} of {total}, {note}")

        yield line
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    with Bars(*columns, console=console) as bars:
        task = bars.add_task(title, total=total, completed=done, note="")
        yield lambda note: bars.update(task, advance=1, note=note)

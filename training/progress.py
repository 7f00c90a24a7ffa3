"""What long work shows: a bar on a terminal, plain lines in a log, nothing where no console is given."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

Advance = Callable[[str], None]
LONG_S = 10.0  # a piece of work that took this long says so


def duration(seconds: float) -> str:
    """Seconds as people say them.

    >>> duration(42.3), duration(100), duration(5000)
    ('42 s', '1 min 40 s', '1 h 23 min')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def say(console: Console | None, text: str) -> None:
    """One line for people; the text is printed as it is, brackets included."""
    if console is not None:
        console.print(text, markup=False, highlight=False, soft_wrap=True)


@contextmanager
def stage(console: Console | None, text: str) -> Iterator[None]:
    """Announce a piece of work without steps; on a terminal a spinner turns until it is done."""
    started = time.monotonic()
    if console is None or not console.is_terminal:
        say(console, text)
        yield
        if (took := time.monotonic() - started) >= LONG_S:
            say(console, f"  done in {duration(took)}")
        return
    with console.status(text):
        yield
    say(console, f"{text} ({time.monotonic() - started:.1f} s)")


@contextmanager
def bar(console: Console | None, title: str, total: int, done: int = 0) -> Iterator[Advance]:
    """A bar of `total` steps, `done` of them done before; the caller gets a function that advances it by one.

    The function takes a note about the step. Off the terminal each step is a line, with an estimate of what is left.
    """
    if console is None or not console.is_terminal:
        count, started = done, time.monotonic()

        def line(note: str) -> None:
            nonlocal count
            count += 1
            left = (time.monotonic() - started) / (count - done) * (total - count)
            say(
                console,
                f"{title}: {count} of {total}, {note}" + (f", about {duration(left)} left" if left >= 1 else ""),
            )

        yield line
        return
    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        TimeRemainingColumn(), TextColumn("{task.fields[note]}", markup=False),
    )  # fmt: skip
    with Bars(*columns, console=console) as bars:
        task = bars.add_task(title, total=total, completed=done, note="")
        yield lambda note: bars.update(task, advance=1, note=note)

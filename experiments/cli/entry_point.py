"""The application behind `journeylab`: its groups of commands, and what the user sees of an error."""

from __future__ import annotations

import sys

import typer

from experiments.cli import data, review, serving, training
from experiments.cli.output import console, plain
from features.errors import JourneyLabError

INTERRUPTED = 130

app = typer.Typer(
    name="journeylab",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    help="From a raw log of customer events to churn and conversion predictions that a service can call.\n\n"
    "Start with `journeylab simulate`, then `journeylab train experiments/configs/demo.toml`.",
)
for group in (data, training, review, serving):
    app.add_typer(group.commands)


def main() -> None:
    """Run a command; an error that a user can correct is one sentence, without a stack."""
    try:
        app()
    except JourneyLabError as error:
        console.print(f"[bold red]Error:[/] {plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # typer's status for Ctrl-C
            console.print("Stopped. Nothing is broken: run the same command again and it goes on from here.")
        raise

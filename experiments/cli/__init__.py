"""The command line, `journeylab COMMAND`; a command is one function in the file of its group.

Every command ends with the path or URI of what it made; with `--json` that is the last line, for scripts.

__main__: `python -m experiments.cli` does what `journeylab` does.
data: Commands that look at events: simulate, draft, features, map.
entry_point: The application behind `journeylab`: its groups of commands, and what the user sees of an error.
options: Options that several commands take.
output: What commands print: notes and tables on standard error, the result on standard output.
review: Commands of a reviewer: promote, compare, reproduce.
serving: Commands around the service: package, serve, swap, monitor, ui.
training: Commands that make and apply models: train, work, segment, score.
"""

from experiments.cli.entry_point import app, main

__all__ = ["app", "main"]

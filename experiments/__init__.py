"""The command line, one file per experiment, benchmarks, and the log of what was tried.

cli/: The command line, `journeylab COMMAND`; a command is one function in the file of its group.
code_lines: The product's lines of code, counted.
demo: `make demo`: every step on simulated journeys, by the commands that a user would type.
docs: The pages that are made from the code: docs/experiment_file.md, docs/commands.md.
readme_picture: The README's picture of what `make demo` made.
warm_up: Every kernel compiled once, into the user's cache, so that the first run does not wait.
"""

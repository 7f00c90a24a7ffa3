"""`python -m experiments.cli` does what `journeylab` does."""

from experiments.cli.entry_point import main

main()

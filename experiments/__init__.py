"""The command line, one file per experiment, benchmarks, and the log of what was tried."""

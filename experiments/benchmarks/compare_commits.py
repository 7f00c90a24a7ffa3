"""Run a benchmark on another commit and on this tree in turns, and print the ratio of every figure.

    .venv/bin/python experiments/benchmarks/compare_commits.py 6d0964d features_speed.py --events 1000000

The other commit is checked out into a temporary worktree. What follows the script's name goes to the benchmark, which
writes its figures as JSON into `--out`. Both sides run alternately, `--repeats` times each, so that a slower minute of
the machine affects both; the medians are compared. A ratio above 1 means that this tree has the larger figure.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
Figures = dict[str, float]


def main() -> None:
    """Print a line for each figure that both sides have."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("commit", help="to compare with")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("script", help="of experiments/benchmarks")
    options, arguments = parser.parse_known_args()
    with tempfile.TemporaryDirectory() as folder:
        other = Path(folder) / "tree"
        if (ROOT.parent / "shared").exists():  # benchmarks on real data look for it beside their repository
            (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        _git("worktree", "add", "--detach", str(other), options.commit)
        try:
            runs: dict[Path, list[Figures]] = {other: [], ROOT: []}
            for repeat in range(options.repeats):
                for tree, results in runs.items():
                    print(f"repeat {repeat + 1}: {'this tree' if tree == ROOT else options.commit}", file=sys.stderr)
                    results.append(run(tree, options.script, arguments))
        finally:
            _git("worktree", "remove", "--force", str(other))
    print(f"{'figure':70}{options.commit:>14}{'this tree':>14}{'ratio':>8}")
    for name in sorted(set.intersection(*(set(figures) for results in runs.values() for figures in results))):
        before, after = (median(figures[name] for figures in results) for results in runs.values())
        print(f"{name:70}{before:14.5g}{after:14.5g}{after / before if before else float('nan'):8.2f}")


def run(tree: Path, script: str, arguments: list[str]) -> Figures:
    """One run of the benchmark in a tree; its numbers by their path in the JSON files that it writes.

    Raises:
        CalledProcessError: the benchmark failed; a missed bar is no failure where it writes its figures.
    """
    with tempfile.TemporaryDirectory() as out:
        command = [sys.executable, f"experiments/benchmarks/{script}", *arguments, "--out", out]
        done = subprocess.run(command, cwd=tree, env=os.environ | {"PYTHONPATH": str(tree)}, stdout=subprocess.DEVNULL)
        files = sorted(Path(out).rglob("*.json"))
        if not files:
            raise subprocess.CalledProcessError(done.returncode, command)
        return {name: value for file in files for name, value in numbers(json.loads(file.read_text()), file.stem)}


def numbers(value: Any, name: str) -> Iterator[tuple[str, float]]:
    """Every number of a JSON value with its path.

    >>> list(numbers({"a": [1, {"b": 2.5}], "c": "text", "d": True}, "x"))
    [('x.a.0', 1.0), ('x.a.1.b', 2.5)]
    """
    if isinstance(value, dict | list):
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from numbers(inner, f"{name}.{key}")
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield name, float(value)


def _git(*arguments: str) -> None:
    subprocess.run(["git", "-C", str(ROOT), *arguments], check=True, capture_output=True)


if __name__ == "__main__":
    main()

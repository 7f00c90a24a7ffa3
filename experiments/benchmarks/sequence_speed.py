"""How fast are the sequence models: scoring, one journey, training, loading, and what else could run them?

    .venv/bin/python experiments/benchmarks/sequence_speed.py [--quick] [--compile] [--out runs/benchmarks]

On simulated journeys, in one process held to two cores and two threads; where `shared` lies beside the repository, the
share of loading is measured on the training rows of both real tasks, too. `--compile` adds `torch.compile` and
AOTInductor (they need a C++ compiler, and a minute); ONNX Runtime is measured where it and `onnx` are installed.
Figures are medians of rounds in turns; bars are printed as met or MISSED. Writes `sequence_speed.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numba
import torch

from experiments.benchmarks.sequences.runtimes import side_by_side
from experiments.benchmarks.sequences.scoring import single_journey, thousands
from experiments.benchmarks.sequences.training import throughput, waiting
from experiments.benchmarks.sequences.worlds import REAL, FigureBar, real_training_rows, simulated

Part = tuple[str, dict[str, Any], list[FigureBar]]  # a title, figures, bars


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny sizes: does it run? The figures mean nothing")
    parser.add_argument("--compile", action="store_true", help="measure torch.compile as well")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    options = parser.parse_args()
    hold_to(options.threads)
    report: dict[str, Any] = {"surroundings": surroundings(options.threads)}
    bars: list[FigureBar] = []
    show("surroundings", report["surroundings"], [])
    for title, outcome, more in measured(options.quick, options.compile, options.threads):
        report[title] = outcome
        bars += more
        show(title, outcome, more)
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "sequence_speed.json"
    path.write_text(json.dumps(report | {"bars": [asdict(bar) | {"met": bar.met} for bar in bars]}, indent=2))


def hold_to(threads: int) -> None:
    """As many cores as threads, for PyTorch, for the kernels and for the threads that over_blocks starts."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:threads])
    torch.set_num_threads(threads)
    numba.set_num_threads(min(threads, numba.config.NUMBA_NUM_THREADS))  # type: ignore[attr-defined]


def measured(quick: bool, with_compiler: bool, threads: int) -> Iterator[Part]:
    """Everything, one part after the other: its title, its figures, its bars."""
    widths = (16,) if quick else (128, 256)
    rounds, journeys = (1, 24) if quick else (3, 1_536)
    yield f"{journeys:,} journeys of 100 events, steps a second", *thousands(journeys, widths, rounds)
    yield "one journey of 100 events to its probability, ms", *single_journey(widths[0], 5 if quick else 200)
    compared = side_by_side(widths[0], 8 if quick else 256, rounds, threads, with_compiler)
    yield "runtimes side by side", compared, []
    rows = simulated(12 if quick else 2_000)
    sizes = (8,) if quick else (64,)
    learning = throughput(rows, sizes, widths, rounds, 2 if quick else 3)
    yield "forward and backward, real steps a second", learning, []
    worlds = {"simulated": rows}
    if not quick:
        worlds |= {name: outcome for name in REAL if (outcome := real_training_rows(name)) is not None}
    for name, outcome in worlds.items():
        title = f"batches of 64 and training steps, hidden 128, {name}"
        yield title, *waiting(name, outcome, 1 if quick else 8, rounds)


def surroundings(threads: int) -> dict[str, Any]:
    """Versions and threads."""
    packages = {name: version(name) for name in ("torch", "numba", "llvmlite", "numpy")}
    return packages | {"python": platform.python_version(), "machine": platform.machine(), "threads": threads}


def show(title: str, part: dict[str, Any], bars: list[FigureBar]) -> None:
    """Print one part as a table, and its bars."""
    print(title)
    _show(part, "  ")
    for bar in bars:
        sign, verdict = ("≥" if bar.at_least else "≤"), ("met" if bar.met else "MISSED")
        print(f"  bar: {bar.name:<70}{bar.figure:10.3f} {sign} {bar.bar} {bar.unit}  {verdict}")
    print(flush=True)


def _show(part: dict[str, Any], indent: str) -> None:
    for name, value in part.items():
        if isinstance(value, dict):
            print(f"{indent}{name}")
            _show(value, indent + "  ")
        else:
            number = isinstance(value, float)
            text = f"{value:,.0f}" if number and value >= 1000 else f"{value:.3f}" if number else str(value)
            print(f"{indent}{name:<{46 - len(indent)}}{text:>14}")


if __name__ == "__main__":
    main()

"""How long look-alikes take: ten seeds against a million vectors, exactly.

    .venv/bin/python experiments/benchmarks/lookalikes.py [--vectors 1000000] [--width 64]

Random vectors; the median of seven queries for each metric and form, and what building, saving and loading take.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import get_args

import numpy as np

from models.segments.lookalikes import Lookalikes, LookalikeSettings

SEEDS, TOP, QUERIES = 10, 100, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--vectors", type=int, default=1_000_000)
    parser.add_argument("--width", type=int, default=64)
    options = parser.parse_args()
    rng = np.random.default_rng(7)
    x = rng.standard_normal((options.vectors, options.width), dtype=np.float32)
    seeds = rng.choice(options.vectors, SEEDS, replace=False)
    print(f"{options.vectors:,} vectors of {options.width}, {SEEDS} seeds, the nearest {TOP}, median of {QUERIES}")
    for metric in get_args(LookalikeSettings.model_fields["metric"].annotation):
        index = Lookalikes(LookalikeSettings(metric=metric))
        print(f"  {metric}: built in {seconds(lambda i=index: i.fit(x, 'v1')):.2f} s")  # type: ignore[misc]
        for form in get_args(LookalikeSettings.model_fields["form"].annotation):
            took = [seconds(lambda f=form, i=index: i.nearest(seeds, TOP, f)) for _ in range(QUERIES)]  # type: ignore[misc]
            print(f"  {metric}, {form} of seeds: {median(took) * 1000:.0f} ms (slowest {max(took) * 1000:.0f})")
    with tempfile.TemporaryDirectory() as folder:
        print(f"  saved in {seconds(lambda: index.save(Path(folder))):.2f} s", end=", ")
        print(f"loaded in {seconds(lambda: Lookalikes.load(Path(folder))):.2f} s")


def seconds(call: Callable[[], object]) -> float:
    begun = time.perf_counter()
    call()
    return time.perf_counter() - begun


if __name__ == "__main__":
    main()

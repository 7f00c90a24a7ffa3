"""The speed of the journey map: BPI 2012 whole, growth from 1 M to 10 M events, and the memory that it takes.

    .venv/bin/python experiments/benchmarks/map_speed.py [--events 10000000] [--rounds 3] [--out runs/benchmarks]

Bars: every table of BPI 2012 in at most 2 s; of 10 M events in at most 15 s, with at most 1.3 × the time per event of
1 M events, and a peak of at most 3 × the columns, the columns themselves included. Each size has a process of its own;
kernels are compiled before the clock starts. Writes `map_speed.json`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import psutil  # type: ignore[import-untyped]

from features.events.stages import with_stages
from features.journey_map.tables import MapSettings, journey_map
from features.journeys.journeys import Journeys
from features.journeys.loading import load_journeys
from features.journeys.packing import pack
from features.simulation.large_log import synthetic_log
from training.config.experiment import load_experiment

EVENTS_A_CUSTOMER = 20
BARS = {"bpi2012_s": 2.0, "large_s": 15.0, "growth": 1.3, "memory": 3.0}
BPI = MapSettings(
    goals=("A_ACTIVATED",), ended=("A_ACTIVATED", "A_DECLINED", "A_CANCELLED"), complaints=("O_SENT_BACK",)
)
SHOP = MapSettings(
    goals=("purchase",), complaints=("support_c*", "return"), clicks={"email_open": "email_click"}, cohort="week"
)
STAGES = {
    "ad_click": "awareness", "email_open": "awareness", "purchase": "purchase", "checkout": "purchase",
    "support_*": "post-purchase", "return": "post-purchase", "*": "consideration",
}  # fmt: skip
MIB = 1 << 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--only", choices=("bpi2012", "small", "large"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.only:
        print(json.dumps(measure(arguments.only, arguments.events, arguments.rounds)))
        return
    report = {name: in_a_process(name, arguments.events, arguments.rounds) for name in ("bpi2012", "small", "large")}
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "map_speed.json").write_text(json.dumps({**report, "bars": BARS}, indent=2))
    show(report)


def in_a_process(name: str, events: int, rounds: int) -> dict[str, float]:
    """One measurement, by this script in a fresh process, so that its peak of memory is its own."""
    options = ["--only", name, "--events", str(events), "--rounds", str(rounds)]
    done = subprocess.run([sys.executable, __file__, *options], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(done.stderr)
    outcome: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def measure(name: str, events: int, rounds: int) -> dict[str, float]:
    """Seconds of a map with all its tables, the best of some rounds, and the peak of memory while it was made."""
    settings = BPI if name == "bpi2012" else SHOP
    journey_map(large(2_000), settings)  # compile
    journeys = bpi2012() if name == "bpi2012" else large(events if name == "large" else events // 10)
    seconds, peak = [], 0
    for _ in range(rounds):
        watch = Peak()
        begun = time.perf_counter()
        with watch:
            journey_map(journeys, settings)
        seconds.append(time.perf_counter() - begun)
        peak = max(peak, watch.more)
    raw_bytes = column_bytes(journeys)
    return {
        "events": journeys.n_events,
        "customers": journeys.n_customers,
        "seconds": min(seconds),
        "columns_mib": raw_bytes / MIB,
        "peak_mib": (raw_bytes + peak) / MIB,
        "process_peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


class Peak:
    """The most resident memory beyond that at the beginning, sampled every few milliseconds in a thread."""

    def __init__(self) -> None:
        self.more = 0
        self._process, self._over = psutil.Process(), threading.Event()

    def __enter__(self) -> Peak:
        self._before = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._over.wait(0.003):
            self.more = max(self.more, self._process.memory_info().rss - self._before)

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()


def bpi2012() -> Journeys:
    root = Path(__file__).resolve().parents[2]
    return load_journeys(load_experiment(root / "experiments" / "configs" / "bpi2012_conversion.toml").events)


def large(events: int) -> Journeys:
    """A shop's log with stages; as many events a customer at every size."""
    return pack(with_stages(synthetic_log(events, max(1, events // EVENTS_A_CUSTOMER)), STAGES))


def column_bytes(journeys: Journeys) -> int:
    """Of the packed columns, identifiers included."""
    codes = sum(item.codes.nbytes for item in journeys.categories.values())
    numbers = sum(item.nbytes for item in journeys.numbers.values())
    return int(journeys.customer_ids.nbytes) + journeys.offsets.nbytes + journeys.t.nbytes + codes + numbers


def show(report: dict[str, Any]) -> None:
    """Print the report."""
    for name, item in report.items():
        per_event = 1e9 * item["seconds"] / item["events"]
        print(
            f"{name}: {item['events']:,} events of {item['customers']:,} customers in {item['seconds']:.3f} s "
            f"({per_event:.0f} ns an event); columns {item['columns_mib']:.0f} MiB, peak {item['peak_mib']:.0f} MiB"
        )
    small, large_ = report["small"], report["large"]
    figures = {
        "bpi2012_s": report["bpi2012"]["seconds"],
        "large_s": large_["seconds"],
        "growth": (large_["seconds"] / large_["events"]) / (small["seconds"] / small["events"]),
        "memory": large_["peak_mib"] / large_["columns_mib"],
    }
    for name, value in figures.items():
        print(f"  {name} {value:.2f}: bar {BARS[name]}, {'met' if value <= BARS[name] else 'MISSED'}")


if __name__ == "__main__":
    main()

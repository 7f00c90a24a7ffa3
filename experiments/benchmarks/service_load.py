"""How fast is the service, beside BentoML services that do nothing; what do batches, a cold start and overload do?

    .venv/bin/python -m experiments.benchmarks.service_load [--quick] [--only single,batch,…] [--home runs/service_load]

Simulated journeys, churn and conversion with one booster of 300 trees each, the segments that `journeylab segment`
makes by default; load over loopback from a process of its own. Every ratio is of one run, services measured in turns.
Beside requests a second stands the service's own processor time a request, which a busy machine changes least. Bars
are printed as met or MISSED. Models and bentos stay in `--home` and are taken again: remove it after a change of code.
"""

from __future__ import annotations

import argparse
import json
import os
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from experiments.benchmarks.sequences.worlds import FigureBar
from experiments.benchmarks.service.http_load import LoadPlan, Waited, load
from experiments.benchmarks.service.served import HEADERS, TOKEN, Served, served
from experiments.benchmarks.service.worlds import AS_OF, TREES, ServiceWorld
from experiments.benchmarks.simulated_exam import TRAIN_DAYS, label_table
from models.scoring.golden_sample import difference, read_sample, record_sample
from models.scoring.scorer import Scorer
from serving.api.access import TOKENS
from serving.bento.package import request_bodies
from serving.bento.swap import swap
from serving.monitor.monitoring import MONITOR
from serving.requests.schemas import ARROW

PARTS = ("single", "sequence", "batch", "cold", "overload", "swap", "watched", "parity")
TURNS = 3
SWAPS, SWAPPED_S = 5, 75.0
SAME = 1e-6


class Bench:
    """The parts, with what they share.

    Args:
        world: models and bentos.
        seconds: of each measurement under load.
        quick: does it run? The figures mean nothing.
    """

    def __init__(self, world: ServiceWorld, seconds: float, quick: bool) -> None:
        self.world, self.seconds, self.quick = world, seconds, quick
        self.files = world.home / "bodies"
        self.files.mkdir(exist_ok=True)

    def single(self) -> Iterator[FigureBar]:
        """One customer a request."""
        yield from self._side_by_side("score", "churn + conversion + segments", self.world.bento("score"), 1.5, 0.5)
        if not self.quick:
            five = self.world.bento("score_5", members=5)
            yield from self._side_by_side("score_5", "the same, five boosters a task", five, 1.5, 0.5)

    def sequence(self) -> Iterator[FigureBar]:
        """The same with a GRU of 128 units among the champions."""
        yield from self._side_by_side("gru", "… + a GRU", self.world.bento("score_gru", sequence=True), 1.0, None)

    def _side_by_side(
        self, name: str, words: str, bento: str, faster: float, tail: float | None
    ) -> Iterator[FigureBar]:
        bodies = self._write(self.world.journeys(64), "journey")
        wrapped = self._write([{"journey": journey} for journey in self.world.journeys(64)], "wrapped")
        ways = {
            "no-op @api": (self.world.nothing("Echo"), "/echo", wrapped),
            "no-op ASGI": (self.world.nothing("Bare"), "/", bodies),
            name: (bento, "/score", bodies),
        }
        results = self._in_turns({way: partial(self._loaded, way, *of) for way, of in ways.items()})
        ours, api, asgi = (results[way] for way in (name, "no-op @api", "no-op ASGI"))
        yield FigureBar(f"/score, {words}, by no-op @api, requests", ours[0] / api[0], faster, True, "x")
        if tail is not None:
            yield FigureBar(f"/score, {words}, by no-op @api, p99", ours[1] / api[1], tail, False, "x")
            yield FigureBar(f"moonshot: /score, {words}, by no-op ASGI, requests", ours[0] / asgi[0], 0.9, True, "x")
            yield FigureBar(f"/score, {words}, answers that were not 200", ours[3], 0, False, "")

    def _in_turns(self, ways: Mapping[str, Callable[[], tuple[float, ...]]]) -> dict[str, tuple[float, ...]]:
        """Medians of some turns of each way: requests a second, p99 in ms, processor ms a request, failures."""
        timings: dict[str, list[tuple[float, ...]]] = {way: [] for way in ways}
        for _ in range(1 if self.quick else TURNS):
            for way, measure in ways.items():
                timings[way].append(measure())
        return {way: tuple(np.median(np.array(rows), axis=0)) for way, rows in timings.items()}

    def _loaded(self, way: str, bento: str, path: str, bodies: tuple[str, ...]) -> tuple[float, ...]:
        with served(bento) as service:
            waited, cpu = self._under_load(service, LoadPlan(service.port, path, bodies, HEADERS, seconds=self.seconds))
        failed = int((waited.status != 200).sum())
        print(
            f"  {way:12} {waited.a_second:7,.0f} requests/s   p50 {waited.percentile_ms(50):6.2f} ms"
            f"   p99 {waited.percentile_ms(99):7.2f} ms   processor {cpu:5.2f} ms a request   {failed} failed",
            flush=True,
        )
        return waited.a_second, waited.percentile_ms(99), cpu, failed

    def _under_load(self, service: Served, plan: LoadPlan) -> tuple[Waited, float]:
        """After a warm-up: what came of it, and the service's processor milliseconds a request."""
        load(replace(plan, seconds=min(3.0, plan.seconds)))  # in which a worker also gets its reasons ready
        before = service.cpu_s()
        waited = load(plan)
        return waited, (service.cpu_s() - before) * 1e3 / max(1, len(waited.status))

    def batch(self) -> Iterator[FigureBar]:
        """A thousand customers a call, as an Arrow stream, one booster; text as it is, and as codes (a dictionary)."""
        customers = 100 if self.quick else 1_000
        table = self.world.table(customers)
        predicted = self._predicted(table)
        with served(self.world.bento("batch", labels=("churn",), segments=False)) as service:
            for form, sent in (("text", table), ("codes", _coded(table))):
                body = self.files / f"batch_{form}.arrow"
                with pa.OSFile(str(body), "wb") as file, pa.ipc.new_stream(file, sent.schema) as writer:
                    writer.write_table(sent)
                path, headers = f"/score_batch?as_of={AS_OF}", HEADERS | {"Content-Type": ARROW}
                plan = LoadPlan(service.port, path, (str(body),), headers, connections=2, seconds=self.seconds)
                waited, cpu = self._under_load(service, plan)
                rate, failed = waited.a_second * customers, int((waited.status != 200).sum())
                print(
                    f"  /score_batch, {form:5} {rate:9,.0f} customers/s   p99 {waited.percentile_ms(99):.0f} ms"
                    f"   processor {cpu:.1f} ms a call   {failed} failed"
                    f"   LightGBM alone, one thread: {predicted:,.0f} rows/s",
                    flush=True,
                )
                yield FigureBar(f"/score_batch, Arrow, {form}, one booster", rate, 15_000, True, "customers/s")
                yield FigureBar(f"/score_batch, {form}, by LightGBM's own predict", rate / predicted, 0.6, True, "x")

    def _predicted(self, table: pa.Table) -> float:
        """Rows a second of LightGBM's `predict` on the ready matrix, on one thread as the service has."""
        scorer = Scorer.load(self.world.boosted("churn", 1))
        journeys, _ = scorer.read(table)
        model: Any = scorer.model
        x = model.features_.transform(journeys.at(AS_OF))
        timings = []
        for _ in range(3 if self.quick else 15):
            begun = time.perf_counter()
            model.members_[0].booster.predict(x, raw_score=True, num_threads=1)
            timings.append(time.perf_counter() - begun)
        assert model.members_[0].booster.num_trees() == TREES
        return len(x) / float(np.median(timings))

    def cold(self) -> Iterator[FigureBar]:
        """From `bentoml serve` to ready."""
        timings = []
        for _ in range(1 if self.quick else TURNS):
            with served(self.world.bento("score")) as service:
                timings.append(service.ready_s)
        print(f"  ready after {', '.join(f'{value:.1f}' for value in timings)} s", flush=True)
        yield FigureBar("cold start", float(np.median(timings)), 6.0, False, "s")

    def overload(self) -> Iterator[FigureBar]:
        """Ten times what it can do."""
        seconds = 3.0 if self.quick else 60.0
        bodies = self._write(self.world.journeys(64), "journey")
        with served(self.world.bento("score")) as service:
            calm = LoadPlan(service.port, "/score", bodies, HEADERS, seconds=min(self.seconds, seconds))
            usual, _ = self._under_load(service, calm)
            memory: list[float] = []
            done = threading.Event()
            watcher = threading.Thread(target=_watch, args=(service, memory, done))
            watcher.start()
            waited = load(replace(calm, seconds=seconds, a_second=10 * usual.a_second, connections=512))
            done.set()
            watcher.join()
            recovery = _recovered(calm, usual)
            alive = service.workers_are_the_same()
        codes = Counter(int(status) for status in waited.status)
        early, late = (float(np.median(part)) for part in np.array_split(np.array(memory), 3)[::2])
        print(
            f"  capacity {usual.a_second:,.0f}/s; offered ten times that on 512 connections for {seconds:.0f} s: "
            f"{dict(codes)}, {waited.a_second:,.0f} good/s, p99 {waited.percentile_ms(99):,.0f} ms, "
            f"{waited.unsent:,} not sent\n"
            f"  memory {early:,.0f} MB in the first third, {late:,.0f} MB in the last; as ever after {recovery:.1f} s",
            flush=True,
        )
        yield FigureBar("overload: workers that ended", float(not alive), 0, False, "")
        yield FigureBar(
            "overload: answers that are neither good nor 503", _other_share(codes, {200, 503}), 0, False, ""
        )
        yield FigureBar("overload: memory, last third by first", late / early, 1.05, False, "x")
        yield FigureBar("overload: recovered after", recovery, 5.0, False, "s")

    def swap(self) -> Iterator[FigureBar]:
        """Other champions put in service and taken out again while requests come as fast as they are answered."""
        bodies = self._write(self.world.journeys(64), "journey")
        first, other = self.world.bento("score"), self.world.bento("plain_5", members=5, segments=False)
        os.environ |= {"JOURNEYLAB_HOME": str(self.world.home.resolve()), TOKENS: TOKEN}
        with served(first, swappable=True) as service:
            plan = LoadPlan(service.port, "/score", bodies, HEADERS, seconds=30 if self.quick else SWAPPED_S)
            timings: list[float] = []
            swapper = threading.Thread(target=_swapped, args=(service.port, (other, first), plan.seconds, timings))
            swapper.start()
            waited = load(plan)
            swapper.join()
        failed = int((waited.status != 200).sum())
        each = ", ".join(f"{value:.1f}" for value in timings)
        print(
            f"  {len(waited.status):,} requests, {len(timings)} swaps in {each} s each; "
            f"p99 {waited.percentile_ms(99):.0f} ms, longest {waited.percentile_ms(100):.0f} ms; {failed} failed",
            flush=True,
        )
        yield FigureBar("swap: swaps that worked", float(len(timings)), 1 if self.quick else SWAPS, True, "")
        yield FigureBar("swap: requests", float(len(waited.status)), 100 if self.quick else 20_000, True, "")
        yield FigureBar("swap: requests that failed", float(failed), 0, False, "")

    def watched(self) -> Iterator[FigureBar]:
        """What the monitor's rows cost those who ask."""
        bodies, bento = self._write(self.world.journeys(64), "journey"), self.world.bento("score")
        rows = self.world.home / "monitor"

        def loaded(way: str, folder: str) -> tuple[float, ...]:
            os.environ[MONITOR] = folder
            try:
                return self._loaded(way, bento, "/score", bodies)
            finally:
                del os.environ[MONITOR]

        ways = {"unwatched": "", "watched": str(rows)}
        results = self._in_turns({way: partial(loaded, way, folder) for way, folder in ways.items()})
        print(f"  {len(list(rows.rglob('*')))} files of rows", flush=True)
        yield FigureBar(
            "monitored, by unmonitored, requests", results["watched"][0] / results["unwatched"][0], 0.9, True, "x"
        )

    def parity(self) -> Iterator[FigureBar]:
        """Recorded journeys, answered over HTTP."""
        n = 200 if self.quick else 10_000
        worst = 0.0
        with served(self.world.bento("score")) as service:
            for label in ("churn", "conversion"):
                scorer = Scorer.load(self.world.boosted(label, 1))
                rows = self.world.simulation.journeys.at_ids(label_table(self.world.simulation, label, TRAIN_DAYS))
                recorded = self.files / f"recorded_{label}"
                record_sample(scorer, rows, recorded, n=n // 2)
                events, scores = read_sample(recorded)
                sent = request_bodies(events)
                bodies = self._write([sent[customer] for customer in scores["customer_id"]], f"recorded_{label}_")
                plan = LoadPlan(service.port, f"/{label}", bodies, HEADERS, seconds=0, keep=True)
                waited = load(plan)
                answers: list[Any] = [None] * len(bodies)
                for which, answer in zip(waited.body, waited.answers, strict=True):
                    answers[which] = json.loads(answer).get("probability")
                distance = difference(list(scores["probability"]), answers)
                print(f"  {len(bodies):,} journeys by /{label}: largest difference {distance:.1e}", flush=True)
                worst = max(worst, distance)
        yield FigureBar(f"parity over HTTP, {n:,} journeys", worst, SAME, False, "")

    def _write(self, bodies: list[dict[str, Any]], name: str) -> tuple[str, ...]:
        paths = []
        for number, body in enumerate(bodies):
            path = self.files / f"{name}{number}.json"
            path.write_text(json.dumps(body), encoding="utf-8")
            paths.append(str(path))
        return tuple(paths)


def _coded(table: pa.Table) -> pa.Table:
    """Text columns as dictionaries."""
    for place, column in enumerate(table.schema):
        if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
            table = table.set_column(place, column.name, table[place].combine_chunks().dictionary_encode())
    return table


def _swapped(port: int, bentos: tuple[str, str], seconds: float, timings: list[float]) -> None:
    """Swap to and fro, evenly over the time of the load; how long each swap took until it was in service."""
    begun = time.monotonic()
    for number in range(SWAPS):
        time.sleep(max(0.0, begun + seconds * (number + 0.5) / (SWAPS + 1) - time.monotonic()))
        options = time.monotonic()
        swap(bentos[number % 2], port=port)
        timings.append(time.monotonic() - options)


def _watch(service: Served, memory: list[float], done: threading.Event) -> None:
    while not done.wait(0.2):
        memory.append(service.memory_mb())


def _other_share(codes: Counter[int], fine: set[int]) -> float:
    return float(sum(count for status, count in codes.items() if status not in fine))


def _recovered(calm: LoadPlan, usual: Waited) -> float:
    """Seconds from the end of the load until requests take no longer than twice what they took."""
    begun = time.monotonic()
    while time.monotonic() - begun < 30:
        waited = load(replace(calm, seconds=0.5))
        if waited.percentile_ms(50) <= 2 * usual.percentile_ms(50) and (waited.status == 200).all():
            return max(0.0, time.monotonic() - begun - 0.5)
    return float("inf")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default=",".join(PARTS), help=f"some of {', '.join(PARTS)}")
    parser.add_argument("--quick", action="store_true", help="small sizes: does it run? The figures mean nothing")
    parser.add_argument("--seconds", type=float, default=5.0, help="of each measurement")
    parser.add_argument("--home", type=Path, default=Path("runs/service_load"))
    options = parser.parse_args()
    parts = options.only.split(",")
    if unknown := set(parts) - set(PARTS):
        parser.error(f"no part {', '.join(sorted(unknown))}: there are {', '.join(PARTS)}")
    world = ServiceWorld(options.home / ("quick" if options.quick else "full"), 200 if options.quick else 2_000)
    bench = Bench(world, 0.5 if options.quick else options.seconds, options.quick)
    bars: list[FigureBar] = []
    for part in parts:
        print(part, flush=True)
        bars += getattr(bench, part)()
    print()
    for bar in bars:
        sign = "≥" if bar.at_least else "≤"
        met = "met   " if bar.met else "MISSED"
        print(f"{met} {bar.name}: {bar.figure:,.3g} {bar.unit} (bar {sign} {bar.bar:,.6g})")


if __name__ == "__main__":
    main()

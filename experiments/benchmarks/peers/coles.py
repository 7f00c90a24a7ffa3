"""CoLES of pytorch-lifestream beside our encoders: events a second, time to quality, the worth of the embedding.

    make bench-peers                                   # its environment, then this
    .venv/bin/python -m experiments.benchmarks.peers.coles --test --only bpi2012_conversion

Three tables: training throughput at two widths on invoice lines; the seconds of its finished training and what a probe
of its embedding gets on validation folds inside train, with our time to the same figure; and with `--test` the test
rows, scored once. Its settings follow its notebook, apart from 64 customers a batch, a GRU 128 wide, slices as long as
these journeys allow, logarithms of numbers, and gap, hour and weekday for the day's number: that one has no embedding
after training. `--reuse` takes the finished trainings that an earlier run left in the folder, where settings and data
are the same. Run it alone: on a busy machine its two threads wait for each other and its speed falls several-fold.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from importlib.metadata import version
from pathlib import Path
from typing import TypeVar

import numpy as np
from sklearn.metrics import roc_auc_score

from experiments.benchmarks.peers import ours
from experiments.benchmarks.peers.exchange import (
    ColesSettings,
    Matrix,
    PeerReport,
    read_outputs,
    run_peer,
    write_inputs,
)
from experiments.benchmarks.peers.probe import HEADS, held_out, linear, validate
from features.journeys.journeys import Snapshots
from features.journeys.loading import load_log
from training.config.experiment import load_experiment
from training.data.task_data import TaskData, task_data

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {
    "online_retail_churn": ColesSettings(shortest=15, longest=150),
    "bpi2012_conversion": ColesSettings(shortest=5, longest=40),
}
SPEED_TASK = "online_retail_churn"
SPEED_WIDTHS, SPEED_STEPS = (128, 256), 40
OURS = ("torch", "lightning", "numpy", "lightgbm", "scikit-learn")

Measured = TypeVar("Measured")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=SETTINGS)
    parser.add_argument("--test", action="store_true", help="score the test rows, once, with settings that are final")
    parser.add_argument("--reuse", action="store_true", help="finished trainings of an earlier run, if still the same")
    parser.add_argument("--skip-speed", action="store_true", help="no throughput")
    parser.add_argument("--skip-quality", action="store_true", help="throughput alone")
    parser.add_argument("--epochs", type=int, help="fewer, to try the script; the figures are then worth nothing")
    parser.add_argument("--python", type=Path, default=ROOT / ".venv-peers" / "bin" / "python")
    parser.add_argument("--folder", type=Path, default=ROOT / "runs" / "peers")
    options = parser.parse_args()
    begun = time.perf_counter()
    tasks = {name: read_task(name) for name in SETTINGS if options.only in (None, name)}
    show_machine()
    if SPEED_TASK in tasks and not options.skip_speed:
        speed(tasks[SPEED_TASK], options.python, options.folder)
    for name, data in () if options.skip_quality else tasks.items():
        quality(name, data, options)
    print(f"\n{time.perf_counter() - begun:.0f} s in all")


def read_task(name: str) -> TaskData:
    experiment = load_experiment(ROOT / "experiments" / "configs" / f"{name}.toml")
    log = load_log(experiment.events)
    return task_data(experiment, log.journeys, experiment.labels(log.journeys), log)


def trained_until(data: TaskData) -> int:
    """µs since 1970 UTC; both sides train on events before the last training cutoff."""
    return int(data.train.cutoff.max())


def show_machine() -> None:
    cores, load = len(os.sched_getaffinity(0)), os.getloadavg()[0]
    print(f"{platform.machine()}, {cores} cores, load {load:.1f} at the start; python {platform.python_version()}")
    print("ours:", ", ".join(f"{name} {version(name)}" for name in OURS))


def speed(data: TaskData, python: Path, folder: Path) -> None:
    """Real events a second of CoLES training on invoice lines."""
    print(f"\nCoLES training on {SPEED_TASK}, real events/s, batch 64, 2 threads: in steps (and with making batches)")
    for hidden in SPEED_WIDTHS:
        settings = replace(SETTINGS[SPEED_TASK], hidden=hidden, max_steps=SPEED_STEPS)
        inputs, outputs = folder / f"speed_{hidden}" / "inputs", folder / f"speed_{hidden}" / "outputs"
        write_inputs(inputs, data.journeys, trained_until(data), settings)
        theirs, _ = run_peer(python, inputs, outputs)
        line = f"  hidden {hidden}: ptls {theirs.events_per_s_in_steps:,.0f} ({theirs.events_per_s:,.0f})"
        mine = attempt(lambda s=settings: ours.ours_throughput(data.journeys, trained_until(data), s))  # type: ignore[misc]
        if mine is not None:
            ratios = (
                mine.events_per_s_in_steps / theirs.events_per_s_in_steps,
                mine.events_per_s / theirs.events_per_s,
            )
            line += f"; ours {mine.events_per_s_in_steps:,.0f} ({mine.events_per_s:,.0f})"
            line += f"; {ratios[0]:.2f} × ({ratios[1]:.2f} ×); bar ≥ 2 ×"
        print(line, flush=True)
    print("  ptls:", ", ".join(f"{name} {scores}" for name, scores in theirs.versions.items()))


def quality(name: str, data: TaskData, options: argparse.Namespace) -> None:
    """The finished training, the probe on validation folds, our time to the same; the test rows where asked for."""
    settings = replace(SETTINGS[name], epochs=options.epochs or SETTINGS[name].epochs)
    snapshots = both(data) if options.test else data.train
    report, embeddings = finished(name, data, snapshots, settings, options)
    train, test = embeddings[: len(data.train)], embeddings[len(data.train) :]
    print(f"\n{name}: ptls trained {report.steps} steps ({settings.epochs} epochs) in {report.fit_s:.0f} s,", end=" ")
    print(f"{report.events_per_s:,.0f} events/s; {len(snapshots):,} snapshots embedded in {report.embed_s:.1f} s")
    target = show_validation("ptls", train, data)
    reached = attempt(lambda: ours.ours_time_to_quality(data, trained_until(data), target, settings))
    if reached is not None:
        ratio = reached.seconds / report.fit_s
        line = f"reaches {target:.4f}" if reached.reached else f"does not reach {target:.4f}"
        print(f"  ours {line} ({reached.auroc:.4f}) after {reached.seconds:.1f} s: {ratio:.2f} of ptls; bar ≤ .25")
        print(f"  ({reached.words})")
    mine = attempt(lambda: ours.ours_embeddings(data, trained_until(data), settings))
    if mine is not None:
        show_validation("ours", mine[0], data)
    if options.test:
        show_test("ptls", train, test, data)
        if mine is not None:
            show_test("ours", *mine, data)


def both(data: TaskData) -> Snapshots:
    """Training rows, then test rows."""
    a, b = data.train, data.test
    parts = ((a.customer, b.customer), (a.start, b.start), (a.stop, b.stop), (a.cutoff, b.cutoff))
    return Snapshots(data.journeys, *(np.concatenate(pair) for pair in parts))


def finished(
    name: str, data: TaskData, snapshots: Snapshots, settings: ColesSettings, options: argparse.Namespace
) -> tuple[PeerReport, Matrix]:
    """The peer's finished training and its embeddings, from the folder where it is the same already."""
    folder = options.folder / name
    key = fingerprint(data, snapshots, settings)
    mark = folder / "finished.json"
    if options.reuse and mark.exists() and json.loads(mark.read_text(encoding="utf-8")) == key:
        report, embeddings = read_outputs(folder / "outputs")
    else:
        mark.unlink(missing_ok=True)
        write_inputs(folder / "inputs", data.journeys, trained_until(data), settings, snapshots)
        report, embeddings = run_peer(options.python, folder / "inputs", folder / "outputs")
        mark.write_text(json.dumps(key), encoding="utf-8")
    assert embeddings is not None, "snapshots were given"
    return report, embeddings


def fingerprint(data: TaskData, snapshots: Snapshots, settings: ColesSettings) -> str:
    """SHA-256 of the log, the rows, the settings and the scripts that turn them into embeddings."""
    digest = hashlib.sha256(data.fingerprint.encode())
    digest.update(snapshots.customer.tobytes() + snapshots.cutoff.tobytes())
    digest.update(json.dumps(asdict(settings)).encode())
    for script in ("ptls_coles.py", "exchange.py"):
        digest.update(Path(__file__).with_name(script).read_bytes())
    return digest.hexdigest()


def show_validation(owner: str, train: Matrix, data: TaskData) -> float:
    """Print each head's validation AUROC; the linear probe's mean over the folds."""
    scores = {name: validate(head, train, data) for name, head in HEADS.items()}
    for name, auroc in scores.items():
        folds = ", ".join(f"{fold:.3f}" for fold in auroc.by_fold)
        print(f"  {owner}, {name}: validation AUROC {auroc.mean:.4f} (folds {folds})", flush=True)
    return next(auroc.mean for name, auroc in scores.items() if HEADS[name] is linear)


def show_test(owner: str, train: Matrix, test: Matrix, data: TaskData) -> None:
    for name, head in HEADS.items():
        auroc = roc_auc_score(data.y_test, held_out(head, train, test, data))
        print(f"  {owner}, {name}: test AUROC {auroc:.4f}", flush=True)


def attempt(measure: Callable[[], Measured]) -> Measured | None:
    """A measurement of ours, or None where it is not written yet."""
    try:
        return measure()
    except NotImplementedError as missing:
        print(f"  (not measured yet: {missing})")
        return None


if __name__ == "__main__":
    main()

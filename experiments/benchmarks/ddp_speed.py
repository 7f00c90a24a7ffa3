"""Do two processes learn what one learns, in how much less time? Lightning's DDP over gloo, on a CPU.

    .venv/bin/python experiments/benchmarks/ddp_speed.py [--customers 2000] [--rounds 2]

A GRU learns the label "order" of simulated journeys (`sequence_exam`), once in one process that is held to one core and
one thread, and once in two processes on two cores, in turns. Speed is rows a second of fine-tuning epochs after the
first, checking and making batches included. The held-out AUROC of two must lie within the interval of one, a bootstrap
over customers. With GPUs the same setting, `devices`, takes one each, and NCCL.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Any

import numpy as np

from experiments.benchmarks.neighbours import Watch

FASTER = 1.6
LEARNER: dict[str, Any] = {
    "hidden": 128,
    "inputs": 64,
    "objective": "none",
    "members": 1,
    "epochs": 4,
    "head_dropout": 0.2,
}
BATCH = 256  # rows of a step; of each process half as many where there are two, so that both learn from as many


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--batch", type=int, default=BATCH, help="rows of a step, over all processes")
    parser.add_argument("--epochs", type=int, default=LEARNER["epochs"])
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(learnt(options.customers, options.one, options.batch, options.epochs)))
        return
    outcome = run(options.customers, options.rounds, options.batch, options.epochs)
    print(json.dumps(outcome, indent=1))
    sys.exit(0 if outcome["ok"] else 1)


def run(customers: int, rounds: int, batch: int = BATCH, epochs: int = LEARNER["epochs"]) -> dict[str, Any]:
    """Learn in turns and compare."""
    figures: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    for _ in range(rounds):
        for devices, per_device in figures.items():
            per_device.append(_elsewhere(customers, devices, batch, epochs))
    speed = {
        devices: float(np.median([single["rows_a_second"] for single in per_device]))
        for devices, per_device in figures.items()
    }
    single, two = figures[1][0], figures[2][0]
    same = single["auroc_low"] <= two["auroc"] <= single["auroc_high"]
    ratio = speed[2] / speed[1]
    return {
        "rows_a_second": speed, "faster": ratio, "faster_bar": FASTER, "auroc_within_interval": same,
        "ok": bool(same and ratio >= FASTER), "rounds": figures,
    }  # fmt: skip


def _elsewhere(customers: int, devices: int, batch: int, epochs: int) -> dict[str, Any]:
    """In a process of its own, on as many cores as it may have."""
    command = [sys.executable, "-m", "experiments.benchmarks.ddp_speed", "--one", str(devices)]
    command += ["--customers", str(customers), "--batch", str(batch), "--epochs", str(epochs)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    watch = Watch()
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome | {"cores_used_by_others": watch.other_cores()}


def learnt(customers: int, devices: int, batch: int, epochs: int) -> dict[str, Any]:
    """Fit a GRU on so many cores of this machine; how fast it was and how good it is."""
    cores = sorted(os.sched_getaffinity(0))[:devices]
    os.sched_setaffinity(0, cores)
    from experiments.benchmarks.simulated_exam import DAYS, TEST_DAYS, TRAIN_DAYS, label_table
    from features.simulation.simulator import simulate
    from models.catalogue import make
    from training.evaluation.metrics import evaluate

    simulation = simulate(n_customers=customers, days=DAYS, seed=7)
    train, test = label_table(simulation, "order", TRAIN_DAYS), label_table(simulation, "order", TEST_DAYS)
    model: Any = make("gru", LEARNER | {"devices": devices, "batch_size": batch // devices, "epochs": epochs})
    began = time.monotonic()
    model.fit(simulation.journeys.at_ids(train), train["label"].to_numpy())
    whole_s = time.monotonic() - began
    history = model.history()
    seconds = history[(history["name"] == "seconds") & (history["part"] == "member 1")]["value"].to_numpy()[1:]
    p = model.predict(simulation.journeys.at_ids(test))
    figures = evaluate(test["label"].to_numpy(), p, test["customer_id"].to_numpy(), n_boot=300)
    measured = {name: round(figures[name], 4) for name in ("auroc", "auroc_low", "auroc_high", "log_loss")}
    return measured | {
        "rows": len(train), "rows_a_second": round(len(train) * len(seconds) / seconds.sum(), 1),
        "fit_s": round(whole_s, 1), "cores": len(cores),
    }  # fmt: skip


if __name__ == "__main__":
    main()

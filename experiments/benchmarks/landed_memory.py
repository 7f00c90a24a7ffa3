"""How much memory does learning from landed Parquet take, beside learning from a log and a table in memory?

    .venv/bin/python experiments/benchmarks/landed_memory.py [--events 5000000 20000000] [--boosted 5000000]

Each log of `--events` is landed (`journeylab features`), then a small GRU is pretrained and fine-tuned for an epoch
each on the same labelled rows, once from the log in memory and once from the landed journeys; the predictions must be
equal. For each size of `--boosted`, LightGBM grows 20 trees from the landed features, once from the table in memory and
once from the row groups as they stream; above 100,000 rows not the same trees, as bins are chosen on a sample of rows.
Each leg is a process of its own. Memory is what the process holds for itself (`RssAnon`: pages of mapped files are not
in it, the system takes them back when it needs them), the most of looks ten times a second, less what it was before the
data came. Writes `landed_memory.json`.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.dataset as ds
import pyarrow.parquet as pq

from features.journeys.landed import JOURNEYS
from features.journeys.loading import load_journeys
from features.simulation.large_log import write_synthetic_log
from models.catalogue import make
from training.config.experiment import Experiment, load_experiment
from training.data.landed_rows import SAMPLED_ROWS, lightgbm_data
from training.data.landing import land

EVENTS_EACH = 50
EXPERIMENT = """
name = "landed_memory"
[events]
path = "{path}"
[task]
kind = "churn"
activity = ["*"]
active_days = 30
horizon_days = 14
[task.cutoffs]
n_train = 3
"""
GRU: dict[str, Any] = {
    "sequences": {"max_steps": 64}, "hidden": 16, "objective": "next", "pretraining_epochs": 1, "members": 1,
    "epochs": 1, "head": 8, "batch_size": 1024,
}  # fmt: skip
TREES = {
    "objective": "binary",
    "verbosity": -1,
    "seed": 1,
    "deterministic": True,
    "force_col_wise": True,
    "num_threads": 2,
}
ROUNDS = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--boosted", type=int, nargs="*", default=[1_000_000])
    parser.add_argument("--data", type=Path, default=Path("runs/benchmarks/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--leg", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.leg:
        print(json.dumps(LEGS[options.leg[0]](Path(options.leg[1]))))
        return
    outcome: dict[str, Any] = {"gru": [], "lightgbm": []}
    for name, sizes, legs in (
        ("gru", options.events, ("gru_memory", "gru_landed")),
        ("lightgbm", options.boosted, ("trees_table", "trees_landed")),
    ):
        for events in sizes:
            home = _home(options.data, events)
            memory, landed = (_process(leg, home) for leg in legs)
            same = memory.pop("scores") == landed.pop("scores")
            if not same and (name == "gru" or memory["rows"] <= SAMPLED_ROWS):
                raise RuntimeError(f"{name} on {events:,} events: not the same scores")
            ratios = {quantity: landed[quantity] / memory[quantity] for quantity in ("bytes", "seconds")}
            row_ = {"events": events, "same_scores": same, "memory": memory, "landed": landed, "ratios": ratios}
            print(name, json.dumps(row_), flush=True)
            outcome[name].append(row_)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "landed_memory.json").write_text(json.dumps(outcome, indent=1))


def _home(data: Path, events: int) -> Path:
    """The log's folder, landed."""
    home = data / f"landed_{events}"
    log = data / f"events_{events}_{events // EVENTS_EACH}.parquet"
    home.mkdir(parents=True, exist_ok=True)
    if not log.exists():
        write_synthetic_log(log, events, events // EVENTS_EACH)
    (home / "experiment.toml").write_text(EXPERIMENT.format(path=log.resolve()))
    if not (home / "landed" / JOURNEYS).is_dir():
        _process("land", home)
    return home


def _process(leg: str, home: Path) -> dict[str, Any]:
    """A leg in a process of its own; its figures are its last line."""
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, "--leg", leg, str(home)]
    done = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise RuntimeError(f"{leg} failed")
    outcome: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return outcome


def _land(home: Path) -> dict[str, Any]:
    land(load_experiment(home / "experiment.toml"), home / "landed")
    return {}


def _gru(experiment: Experiment, labels: Any) -> dict[str, Any]:
    """Fit and predict from the log of an experiment."""
    make("gru", GRU)  # what it imports is not what is measured
    import models.sequence.finetuning  # noqa: F401

    with PeakMemory() as peak:
        journeys = load_journeys(experiment.events)
        rows = journeys.at_ids(labels)
        begun = time.perf_counter()
        model = make("gru", GRU).fit(rows, labels["label"].to_numpy())
        seconds = time.perf_counter() - begun
        scores = model.predict(rows)
    return {"bytes": peak.bytes, "seconds": seconds, "rows": len(rows), "scores": _digest(scores)}


def _labels(home: Path) -> Any:
    """The training rows, the same for both legs."""
    landed = ds.dataset([str(file) for file in sorted((home / "landed").glob("part-*.parquet"))], format="parquet")
    table = landed.to_table(columns=["customer_id", "cutoff", "label", "split"]).to_pandas()
    return table[table["split"] == "train"].sort_values(["cutoff", "customer_id"], ignore_index=True)


def _gru_memory(home: Path) -> dict[str, Any]:
    return _gru(load_experiment(home / "experiment.toml"), _labels(home))


def _gru_landed(home: Path) -> dict[str, Any]:
    landed_experiment = load_experiment(home / "experiment.toml", [f"events.path={home.resolve() / 'landed'}"])
    return _gru(landed_experiment, _labels(home))


def _trees(data: Any, peak: PeakMemory, home: Path, names: list[str]) -> dict[str, Any]:
    import lightgbm as lgb

    begun = time.perf_counter()
    data_ = data()
    booster = lgb.train(TREES, data_, ROUNDS)
    seconds = time.perf_counter() - begun
    bytes_ = peak.bytes
    file = sorted((home / "landed").glob("part-*.parquet"))[0]
    sample = pq.ParquetFile(file).read_row_group(0, columns=names).to_pandas().to_numpy()
    return {"bytes": bytes_, "seconds": seconds, "rows": data_.num_data(), "scores": _digest(booster.predict(sample))}


def _names(home: Path) -> list[str]:
    outcome: list[str] = json.loads((home / "landed" / "_features.json").read_text())["features"]["names"]
    return outcome


def _trees_table(home: Path) -> dict[str, Any]:
    """As one does without streaming: all rows as a matrix."""
    import lightgbm as lgb

    names = _names(home)

    def data() -> Any:
        files = [str(file) for file in sorted((home / "landed").glob("part-*.parquet"))]
        rows = ds.dataset(files, format="parquet")
        table = rows.to_table(columns=[*names, "label", "weight"], filter=ds.field("split") == "train")
        return lgb.Dataset(table.select(names), table["label"], weight=table["weight"], params=TREES)

    with PeakMemory() as peak:
        return _trees(data, peak, home, names)


def _trees_landed(home: Path) -> dict[str, Any]:
    with PeakMemory() as peak:
        return _trees(lambda: lightgbm_data(home / "landed", params=TREES), peak, home, _names(home))


def _digest(scores: Any) -> str:
    return hashlib.sha256(np.ascontiguousarray(scores, np.float64).tobytes()).hexdigest()


class PeakMemory:
    """The most memory that the process held for itself, beyond what it had at the beginning."""

    def __enter__(self) -> PeakMemory:
        """Begin to look."""
        self._over = threading.Event()
        self._before, self._most = anonymous(), 0
        self._thread = threading.Thread(target=self._look, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Look no more."""
        self._over.set()
        self._thread.join()

    @property
    def bytes(self) -> int:
        """So far."""
        return max(self._most, anonymous()) - self._before

    def _look(self) -> None:
        while not self._over.wait(0.1):
            self._most = max(self._most, anonymous())


def anonymous() -> int:
    """Bytes of memory that no file stands behind."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))


LEGS = {
    "land": _land, "gru_memory": _gru_memory, "gru_landed": _gru_landed, "trees_table": _trees_table,
    "trees_landed": _trees_landed,
}  # fmt: skip

if __name__ == "__main__":
    main()

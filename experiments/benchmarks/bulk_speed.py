"""Nightly bulk: how fast a large log is scored in partitions, in how much memory, and whether kills lose a customer.

    .venv/bin/python experiments/benchmarks/bulk_speed.py [--customers 1000000] [--kills 2] [--leaves 31] [--out runs/…]

Bars, 2 cores, 1 M customers of 50 events each, one booster of 300 trees: at least 20,000 customers a second; at least
80 % of what LightGBM's own `predict` alone reaches on the ready matrix with as many threads; linear; memory bounded by
the partition; killed twice and resumed, no customer lost or doubled, every number as in the run that nobody killed.

Every leg runs in a process of its own. The log is made once and kept in `--data`; by default it is a fiftieth of the
bars' size, with partitions in proportion. Writes `bulk_speed_CUSTOMERS_LEAVES.json`.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from features.journeys.journeys import Snapshots
from features.journeys.packing import pack
from features.journeys.partitions import partition_of
from features.simulation.large_log import PURCHASE, TOUCHPOINTS, synthetic_log, write_synthetic_log
from models.boosting.compiled_trees import BoostedTrees
from models.boosting.gbdt import GBDT, GBDTSettings
from models.calibration import BetaCalibration
from models.scoring.scorer import Scorer, visible_touchpoints

EVENTS_EACH = 50
TREES = 300
TRAIN_CUSTOMERS = 20_000
MATRIX_ROWS = 50_000
DAY_US = 86_400_000_000
BARS = {"customers_a_second": 20_000.0, "of_lightgbm": 0.8}
GIVE_UP_S = 3600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=20_000)
    parser.add_argument("--partitions", type=int, help="by default one for each 20,000 customers, but at least four")
    parser.add_argument("--leaves", type=int, default=31, help="of each tree; 31 is LightGBM's default, 8 ours")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--data", type=Path, default=Path("runs/benchmarks/data"))
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--leg", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.leg:
        print(json.dumps(LEGS[options.leg[0]](*options.leg[1:])))
        return
    options.out.mkdir(parents=True, exist_ok=True)
    figures = run(options)
    (options.out / f"bulk_speed_{options.customers}_{options.leaves}.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))
    sys.exit(0 if figures["kills"]["ok"] else 1)


def run(options: argparse.Namespace) -> dict[str, Any]:
    """Every figure for one size."""
    partitions = options.partitions or max(4, -(-options.customers // 20_000))
    log = options.data / f"events_{options.customers * EVENTS_EACH}_{options.customers}.parquet"  # as file_to_matrix
    model = options.data / f"bulk_model_{options.leaves}"
    if not log.exists():
        options.data.mkdir(parents=True, exist_ok=True)
        write_synthetic_log(log, options.customers * EVENTS_EACH, options.customers)
    if not (model / "task.json").is_file():
        fit(model, options.leaves)
    scores = options.out / "bulk_scores"
    shutil.rmtree(scores, ignore_errors=True)
    common = [str(model), str(log), str(scores), str(partitions), str(options.workers)]
    predict = _leg("lightgbm", str(model), str(log), str(options.workers))
    done = _leg("score", *common)
    again = _leg("lightgbm", str(model), str(log), str(options.workers))
    predict_rate = max(predict["rows_a_second"], again["rows_a_second"])
    killed = kill(options, common, scores, done["rows"], partitions)
    return {
        "customers": done["rows"],
        "events": done["events"],
        "partitions": partitions,
        "leaves": options.leaves,
        "workers": options.workers,
        "bars": BARS,
        "customers_a_second": done["rows"] / done["wall_s"],
        "lightgbm_alone_rows_a_second": predict_rate,
        "of_lightgbm": done["rows"] / done["wall_s"] / predict_rate,
        "score": done,
        "lightgbm": [predict, again],
        "kills": killed,
    }


def fit(folder: Path, leaves: int) -> None:
    """A scoring folder with one booster of exactly `TREES` trees on every tabular feature."""
    log = pack(synthetic_log(TRAIN_CUSTOMERS * EVENTS_EACH, TRAIN_CUSTOMERS, seed=1))
    cutoff = int(log.t.max()) - 60 * DAY_US
    rows = log.at(cutoff)
    rows = rows.take(rows.stop > rows.start)
    y = _bought_later(rows, 60 * DAY_US)
    model = GBDT(GBDTSettings(members=1, max_trees=TREES, num_leaves=leaves))
    model.features_ = model._new_features().fit(rows)
    x = model.features_.transform(rows)
    parameters = model.settings.booster_parameters()
    data = lgb.Dataset(x, y, feature_name=model.features_.get_feature_names_out(), params=parameters)
    model.members_ = [BoostedTrees(lgb.train(parameters, data, TREES).model_to_string())]
    model.calibration_ = BetaCalibration.fit(model._margins(x), y)
    task = {"name": "bulk_churn", "kind": "churn", "horizon_days": 60}
    source = {"path": "events.parquet", "adapter": "table"}
    Scorer(model, task, source=source, touchpoints=visible_touchpoints(rows)).save(folder)


def _bought_later(rows: Snapshots, horizon_us: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """(n,) 1 where a purchase follows the cutoff within the horizon."""
    log = rows.journeys
    bought = np.flatnonzero(log.categories["touchpoint"].codes == sorted(TOUCHPOINTS).index(TOUCHPOINTS[PURCHASE]))
    owner = np.searchsorted(log.offsets, bought, side="right") - 1
    within = (log.t[bought] >= rows.cutoff[0]) & (log.t[bought] < rows.cutoff[0] + horizon_us)
    return np.isin(rows.customer, owner[within]).astype(np.float64)


def kill(options: argparse.Namespace, common: list[str], reference: Path, n: int, partitions: int) -> dict[str, Any]:
    """Kill a run at random moments of both passes, resume it, and compare with the run that nobody killed."""
    scores = options.out / "bulk_scores_killed"
    shutil.rmtree(scores, ignore_errors=True)
    chance, moments = random.Random(options.seed), []
    for number in range(options.kills):
        runs = number % 2 == 0  # the first kill in the first pass, the second in the second, …
        share = chance.uniform(0.1, 0.9)
        process = _start("score", *common[:2], str(scores), *common[3:])
        begun = time.monotonic()
        pattern = "_work/split/run-*.arrow" if runs else "part-*.parquet"
        expected = -(-n * EVENTS_EACH // (1 << 20)) if runs else partitions
        while process.poll() is None and len(list(scores.glob(pattern))) < max(1, int(share * expected)):
            time.sleep(0.002)
            if time.monotonic() - begun > GIVE_UP_S:
                break
        if process.poll() is not None:
            return {"ok": False, "why": "the run ended before it could be killed"}
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        moments.append({pattern: len(list(scores.glob(pattern)))})
    before = {path.name: path.stat().st_mtime_ns for path in scores.glob("part-*.parquet")}
    _leg("score", *common[:2], str(scores), *common[3:])
    untouched = all((scores / name).stat().st_mtime_ns == when for name, when in before.items())
    mine, theirs = _sorted(scores), _sorted(reference)
    ids = mine["customer_id"]
    result = {
        "rows": mine.num_rows,
        "distinct": len(ids.unique()),
        "same_numbers": mine.equals(theirs),
        "kept": untouched,
    }
    ok = result["rows"] == result["distinct"] == n and mine.equals(theirs) and untouched
    return {"ok": ok, "killed_at": moments} | result


def _sorted(folder: Path) -> pa.Table:
    return pq.read_table(folder).replace_schema_metadata(None).sort_by("customer_id")


def score(model: str, log: str, out: str, partitions: str, workers: str) -> dict[str, Any]:
    """Score the log in partitions: seconds without imports, and the most memory."""
    from training.scoring.partitioned import score_in_partitions

    _warm_up(Path(model))
    before = _peak()
    begun, cpu = time.perf_counter(), time.process_time()
    outcome = score_in_partitions(Path(model), Path(log), Path(out), partitions=int(partitions), workers=int(workers))
    return {
        "wall_s": time.perf_counter() - begun,
        "cpu_s": time.process_time() - cpu,
        "rows": outcome.rows,
        "events": outcome.events,
        "peak_bytes": _peak(),
        "peak_before_bytes": before,
    }


def _warm_up(model: Path) -> None:
    """Score a few customers, so that the compiled kernels are loaded."""
    from training.scoring.partitioned import score_in_partitions

    with tempfile.TemporaryDirectory() as folder:
        write_synthetic_log(Path(folder) / "log.parquet", 5000, 100)
        score_in_partitions(model, Path(folder) / "log.parquet", Path(folder) / "scores")


def lightgbm(model: str, log: str, threads: str) -> dict[str, Any]:
    """LightGBM's own `predict` on a ready matrix of customers of that log."""
    scorer = Scorer.load(Path(model))
    gbdt = scorer.model
    assert isinstance(gbdt, GBDT)
    journeys = pack(_sample_customers(Path(log)))
    x = gbdt.features_.transform(journeys.at(int(journeys.t.max()) + 1))[:MATRIX_ROWS]
    times, cpus = [], []
    for _ in range(5):
        begun, cpu = time.perf_counter(), time.process_time()
        gbdt.members_[0].booster.predict(x, raw_score=True, num_threads=int(threads))
        times.append(time.perf_counter() - begun)
        cpus.append(time.process_time() - cpu)
    return {"rows": len(x), "rows_a_second": len(x) / min(times), "cpu_us_a_row": min(cpus) / len(x) * 1e6}


def _sample_customers(log: Path) -> pa.Table:
    """All events of about `MATRIX_ROWS` customers of a log."""
    with pq.ParquetFile(log) as file:
        shares = max(1, file.metadata.num_rows // (MATRIX_ROWS * EVENTS_EACH))
        mine = []
        for rows in file.iter_batches(1 << 20):
            mine.append(rows.filter(pa.array(partition_of(rows["customer_id"], shares) == 0)))
    return pa.Table.from_batches(mine)


def _peak() -> int:
    """The most memory that this process has had; `getrusage` would begin with what its parent had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:")) * 1024


def _start(*leg: str) -> subprocess.Popen[str]:
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), environment.get("PYTHONPATH", "")])
    command = [sys.executable, __file__, "--leg", *leg]
    return subprocess.Popen(command, env=environment | {"PYTHONPATH": path}, stdout=subprocess.PIPE, text=True)


def _leg(*leg: str) -> dict[str, Any]:
    process = _start(*leg)
    output, _ = process.communicate(timeout=GIVE_UP_S)
    if process.returncode:
        raise RuntimeError(f"{leg} failed")
    result: dict[str, Any] = json.loads(output.splitlines()[-1])
    return result


LEGS: dict[str, Callable[..., dict[str, Any]]] = {"score": score, "lightgbm": lightgbm}

if __name__ == "__main__":
    main()

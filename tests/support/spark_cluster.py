"""A standalone Spark cluster on this machine: the numbers of one machine, also where an executor is killed mid-job.

    .venv/bin/python tests/support/spark_cluster.py [--customers 2000] [--kill] [--out runs/…]

A master and two worker processes are started on loopback. Features and labels, journeys, scores (at the log's end and,
in one pass, at a given moment), centres of segments and every table of the journey map are made on this machine and on
the cluster by the commands' own functions and compared: equal where whole numbers, within 1e-6 where floating. With
`--kill` an executor gets SIGKILL after the shuffle has been written. Writes `spark_cluster.json`; ends with status 1
where a number differs.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil  # type: ignore[import-untyped]
import pyarrow.parquet as pq

from features.events.schema import EventSchema
from features.journeys.landed import open_landed
from features.journeys.loading import load_journeys
from features.journeys.packing import pack
from features.simulation.simulator import simulate
from models.boosting.gbdt import GBDT, GBDTSettings
from models.scoring.scorer import Scorer, visible_touchpoints

EXPERIMENT = """
name = "cluster_churn"
allow_small = true
[events]
path = "events.parquet"
profile = ["country", "plan"]
[task]
kind = "churn"
activity = ["purchase"]
active_days = 60
horizon_days = 28
[task.cutoffs]
n_train = 3
[map]
goals = ["purchase"]
"""
MOMENT = "2024-05-20"
DAY_US = 86_400_000_000
GIVE_UP_S = 120.0
MOST_DIFFERENCE = 1e-6
JAVA = "-XX:TieredStopAtLevel=1 -XX:+UseSerialGC"  # for processes of a minute, on few cores


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--customers", type=int, default=2000)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kill", action="store_true")
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--out", type=Path, default=Path("runs/benchmarks"))
    parser.add_argument("--leg", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.leg:
        make(Path(options.leg[0]), Path(options.leg[1]), options.leg[2] or None, options.partitions)
        return
    options.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), options.customers, options.workers, options.kill, options.partitions)
    (options.out / "spark_cluster.json").write_text(json.dumps(figures, indent=1))
    print(json.dumps(figures, indent=1))
    sys.exit(0 if figures["ok"] else 1)


def run(folder: Path, customers: int, workers: int, kill: bool, partitions: int) -> dict[str, Any]:
    """Make everything here and there, and compare."""
    prepare(folder, customers)
    begun = time.perf_counter()
    make(folder, folder / "here", None, partitions)
    local_s = time.perf_counter() - begun
    with cluster(folder, workers) as master:
        begun = time.perf_counter()
        process = start(folder, folder / "there", master, partitions)
        killer = Killer(folder / "workers", process) if kill else None
        if killer is not None:
            killer.start()
        output, _ = process.communicate(timeout=1200)
        cluster_s = time.perf_counter() - begun
    if process.returncode:
        raise RuntimeError(f"the job on the cluster failed:\n{output[-4000:]}")
    results = differences(folder / "here", folder / "there")
    killed = killer.killed if killer is not None else 0
    ok = not results["unequal"] and results["largest"] <= MOST_DIFFERENCE and (killed > 0 or not kill)
    return {
        "ok": ok,
        "customers": customers,
        "executors_killed": killed,
        "here_s": local_s,
        "there_s": cluster_s,
    } | results


def prepare(folder: Path, customers: int) -> None:
    """Events, an experiment and a small model."""
    simulation = simulate(n_customers=customers, days=200, seed=3)
    simulation.save(folder)
    (folder / "experiment.toml").write_text(EXPERIMENT)
    journeys = pack(simulation.events, EventSchema(profile=("country", "plan")))
    rows = journeys.at(int(journeys.t.max()) - 30 * DAY_US)
    rows = rows.take(rows.stop > rows.start)
    since = (rows.cutoff - journeys.t[rows.stop - 1]) / DAY_US
    labels = (np.random.default_rng(0).random(len(rows)) < 1 / (1 + np.exp(-(since - 15) / 10))).astype(int)
    model = GBDT(GBDTSettings(members=1, max_trees=20, min_data_in_leaf=10)).fit(rows, labels)
    task = {"name": "cluster_churn", "kind": "churn", "horizon_days": 28}
    schema = EventSchema(profile=("country", "plan"))
    source = {"path": "events.parquet", "adapter": "table", "profile": ["country", "plan"]}
    Scorer(model, task, schema, source, visible_touchpoints(rows)).save(folder / "model")


def make(folder: Path, out: Path, master: str | None, partitions: int) -> None:
    """Features and labels, scores and the map into a folder: on this machine, or where a master says."""
    from training.config.engines import Engine
    from training.config.experiment import load_experiment
    from training.data.landing import land
    from training.journey_map.mapping import make_map, map_plan
    from training.scoring.scoring import score_file

    out.mkdir(parents=True, exist_ok=True)
    settings = {"spark.executor.memory": "700m", "spark.executor.cores": "1", "spark.task.maxFailures": "8"}
    settings |= {f"spark.{entry}.extraJavaOptions": JAVA for entry in ("driver", "executor")}
    experiment, plan = load_experiment(folder / "experiment.toml"), map_plan(folder / "experiment.toml")
    engine = Engine("spark", master, settings, partitions) if master else Engine("memory")
    land(experiment, out / "features", engine=engine)
    events = folder / "events.parquet"
    for name, moment in (("scores", None), ("scores_at", MOMENT)):
        score_file(str(folder / "model"), events, None, out / f"{name}.parquet", as_of=moment, engine=engine)
    how: dict[str, Any] = {"master": master, "settings": settings, "partitions": partitions}
    centres(experiment, how if master else None).to_csv(out / "centres.csv", index=False)
    make_map(plan, out / "map.html", engine=engine, log=False, tables=out / "map")


def centres(experiment: Any, how: dict[str, Any] | None) -> pd.DataFrame:
    """Where segments lie that a sample chose, their centres those of everyone at a moment; how large they are."""
    from features.journeys.event_log import part_of
    from features.spark.log import session
    from features.spark.reading import read_log
    from models.segments.clustering.clusters import ClusterSegments, ClusterSettings
    from training.segmentation.large_logs import LogCustomers, everyone_at

    settings = ClusterSettings(methods=("kmeans",), dimensions=(3,), segments=4, rounds=2, restarts=3, fit_rows=100)
    at = int(pd.Timestamp(MOMENT).as_unit("us").value)
    rows = everyone_at(part_of(load_journeys(experiment.events)), at)
    if how is None:
        results = ClusterSegments(settings).fit(rows)
    else:
        log = read_log(session(how["master"], how["settings"]), experiment.events, partitions=how["partitions"]).named()
        results = ClusterSegments(settings).fit(
            rows, everyone=LogCustomers(log, partial(everyone_at, at=at), None).points
        )
        log.close()
    return pd.DataFrame(results.clustering_.arrays["centres"]).assign(share=results.shares_)


def differences(local: Path, cluster_folder: Path) -> dict[str, Any]:
    """Which tables differ where they must not, and by how much numbers differ at most."""
    unequal, largest, cells = [], 0.0, 0
    pairs = {"features": (rows_of(local / "features"), rows_of(cluster_folder / "features"))}
    for name in ("scores", "scores_at"):
        pairs[name] = (rows_of(local / f"{name}.parquet"), rows_of(cluster_folder / f"{name}.parquet"))
    pairs["centres"] = (pd.read_csv(local / "centres.csv"), pd.read_csv(cluster_folder / "centres.csv"))
    journeys = [open_landed(entry / "features").journeys.fingerprint() for entry in (local, cluster_folder)]
    unequal += [] if journeys[0] == journeys[1] else ["journeys"]
    for file in sorted((local / "map").glob("*.csv")):
        pairs[file.stem] = (pd.read_csv(file), pd.read_csv(cluster_folder / "map" / file.name))
    if {p.name for p in (local / "map").iterdir()} != {p.name for p in (cluster_folder / "map").iterdir()}:
        unequal.append("the map's tables")
    for name, (mine, theirs) in pairs.items():
        if list(mine.columns) != list(theirs.columns) or len(mine) != len(theirs):
            unequal.append(name)
            continue
        cells += mine.size
        for column in mine.columns:
            a, b = mine[column], theirs[column]
            both = (a.isna() == b.isna()).all()
            if a.dtype.kind != "f":
                same = both and a.dropna().tolist() == b.dropna().tolist()  # a column of nothing has no type
                unequal += [] if same else [f"{name}.{column}"]
                continue
            unequal += [] if both else [f"{name}.{column}"]
            mine_, theirs_ = a.to_numpy(np.float64), b.to_numpy(np.float64)
            apart = np.abs(mine_ - theirs_) / np.maximum(1.0, np.abs(mine_))
            largest = max(largest, float(np.nanmax(apart, initial=0.0)))
    return {"tables": len(pairs), "cells": cells, "unequal": unequal, "largest": largest}


def rows_of(path: Path) -> pd.DataFrame:
    rows: pd.DataFrame = pq.read_table(path).to_pandas()
    return rows.sort_values(["customer_id", "cutoff"], ignore_index=True)


def start(folder: Path, out: Path, master: str, partitions: int) -> subprocess.Popen[str]:
    """The job on the cluster, as a process of its own."""
    command = [sys.executable, __file__, "--partitions", str(partitions), "--leg", str(folder), str(out), master]
    path = os.pathsep.join([str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")])
    environment = os.environ | {"PYTHONPATH": path, "PYSPARK_PYTHON": sys.executable}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


@contextmanager
def cluster(folder: Path, workers: int) -> Iterator[str]:
    """A master and its workers, from the classes that come with PySpark; the master's URL."""
    import pyspark

    home = Path(pyspark.__file__).parent
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"spark://127.0.0.1:{port}"
    environment = os.environ | {"SPARK_LOCAL_IP": "127.0.0.1", "SPARK_HOME": str(home), "SPARK_DAEMON_MEMORY": "256m"}
    environment |= {"PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_DIRS": str(folder / "local")}
    environment |= {"SPARK_DAEMON_JAVA_OPTS": JAVA}
    spark_class = str(home / "bin" / "spark-class")
    place = ["--host", "127.0.0.1", "--webui-port", "0"]
    commands = [[spark_class, "org.apache.spark.deploy.master.Master", "--port", str(port), *place]]
    for number in range(workers):
        options_ = ["--cores", "1", "--memory", "1g", "--work-dir", str(folder / "workers" / str(number)), *place]
        commands.append([spark_class, "org.apache.spark.deploy.worker.Worker", *options_, url])
    processes = []
    try:
        for number, command in enumerate(commands):
            log = (folder / f"daemon-{number}.log").open("w")
            processes.append(subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT))
            log.close()
            if number == 0:
                wait_for(lambda: answers(port), "the master")
        ready = re.compile("Registering worker")
        master_log = folder / "daemon-0.log"
        wait_for(lambda: len(ready.findall(master_log.read_text())) >= workers, "the workers")
        yield url
    finally:
        for process in reversed(processes):
            stop(process)


def answers(port: int) -> bool:
    with socket.socket() as entry:
        return entry.connect_ex(("127.0.0.1", port)) == 0


def wait_for(is_so: Any, reason: str) -> None:
    begun = time.monotonic()
    while not is_so():
        if time.monotonic() - begun > GIVE_UP_S:
            raise RuntimeError(f"{reason} did not come up within {GIVE_UP_S:.0f} s")
        time.sleep(0.1)


def stop(process: subprocess.Popen[bytes]) -> None:
    """A daemon and what it started."""
    try:
        family = [*psutil.Process(process.pid).children(recursive=True), psutil.Process(process.pid)]
    except psutil.NoSuchProcess:
        return
    for entry in family:
        try:
            entry.kill()
        except psutil.NoSuchProcess:
            continue
    process.wait()


class Killer(threading.Thread):
    """Kills one executor once shuffle files are there, and another one a little later."""

    def __init__(self, workers: Path, job: subprocess.Popen[str]) -> None:
        super().__init__(daemon=True)
        self.workers, self.job, self.killed = workers, job, 0

    def run(self) -> None:
        """Wait and kill."""
        for delay_s in (0.0, 8.0):
            while self.job.poll() is None and not self._shuffled():
                time.sleep(0.05)
            time.sleep(delay_s)
            executors = self._executors()
            if self.job.poll() is None and executors:
                os.kill(executors[0].pid, signal.SIGKILL)
                self.killed += 1

    def _shuffled(self) -> bool:
        return any(self.workers.parent.glob("local/spark-*/executor-*/blockmgr-*/*/shuffle_*.data"))

    def _executors(self) -> list[psutil.Process]:
        results = []
        for entry in psutil.process_iter(["cmdline"]):
            line = " ".join(entry.info["cmdline"] or [])
            if "CoarseGrainedExecutorBackend" in line and str(self.workers) in (cwd(entry) or ""):
                results.append(entry)
        return sorted(results, key=lambda entry: entry.pid)


def cwd(process: psutil.Process) -> str | None:
    try:
        return str(process.cwd())
    except psutil.Error:
        return None


if __name__ == "__main__":
    main()

"""Do two processes on one PostgreSQL search as many trials in about half the time?

    .venv/bin/python experiments/benchmarks/team_search.py [--trials 24] [--customers 3000] [--rounds 1]

LightGBM on simulated journeys. One process, held to one core and one thread, does all trials on a storage of its own;
then two such processes on two cores share another; in turns. All have read their rows before the clock starts; it stops
when the last has all results. It starts a PostgreSQL server of its own: `apt-get install postgresql`.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from experiments.benchmarks.neighbours import Watch
from serving.bento.serve import free_port

AT_MOST = 0.65
EXPERIMENT = """
name = "team_search"
[events]
path = "events.parquet"
[task]
kind = "churn"
activity = ["purchase"]
active_days = 60
horizon_days = 28
[task.cutoffs]
n_train = 6
[models.settings.gbdt]
members = 2
max_trees = 150
[search]
trials = {trials}
"""
GIVE_UP_S = 900.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--customers", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--one", nargs=3, metavar=("WORLD", "FOLDER", "CORE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        process_main(Path(options.one[0]), Path(options.one[1]), int(options.one[2]))
        return
    with tempfile.TemporaryDirectory() as folder:
        searched = run(Path(folder), options.trials, options.customers, options.rounds)
    print(json.dumps(searched, indent=1))
    sys.exit(0 if searched["ok"] else 1)


def run(folder: Path, trials: int, customers: int, rounds: int) -> dict[str, Any]:
    """Search in turns and compare."""
    from features.simulation.simulator import simulate

    simulate(n_customers=customers, days=320, seed=1).save(folder)
    (folder / "experiment.toml").write_text(EXPERIMENT.format(trials=trials))
    by_processes: dict[int, list[dict[str, Any]]] = {1: [], 2: []}
    with postgres(folder / "postgres") as url:
        for number in range(rounds):
            for processes, searched in by_processes.items():
                searched.append(_searched(folder, url, f"search_{number}_{processes}", processes))
    seconds = {
        processes: float(np.median([each["seconds"] for each in searched]))
        for processes, searched in by_processes.items()
    }
    whole = all(each["finished"] == trials for searched in by_processes.values() for each in searched)
    ratio = seconds[2] / seconds[1]
    return {
        "trials": trials, "seconds": seconds, "ratio": ratio, "ratio_bar": AT_MOST, "all_finished": whole,
        "ok": bool(ratio <= AT_MOST and whole), "rounds": by_processes,
    }  # fmt: skip


@contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """A server that anybody on this machine may use, for as long as the block lasts; the URL before a database's name.

    It runs as the user `postgres` where this process is root, which PostgreSQL refuses to run as.
    """
    programs = max(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: float(path.parts[-2]))
    become = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    folder.mkdir()
    folder.parent.chmod(0o755)
    if become:
        shutil.chown(folder, "postgres")

    def run(program: str, *arguments: str) -> None:
        subprocess.run([*become, programs / program, "-D", folder / "data", *arguments], check=True, cwd="/",
                       stdout=subprocess.DEVNULL)  # fmt: skip

    port = free_port()
    run("initdb", "-U", "journeylab", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8")
    run("pg_ctl", "-w", "-l", str(folder / "log"), "-o", f"-p {port} -k {folder} -h 127.0.0.1", "start")
    try:
        yield f"postgresql+psycopg://journeylab@127.0.0.1:{port}/"
    finally:
        run("pg_ctl", "-w", "-m", "immediate", "stop")


def _searched(folder: Path, server: str, name: str, processes: int) -> dict[str, Any]:
    """One search by so many processes."""
    home, watch = folder / name, Watch()
    home.mkdir()
    _sql(f"{server}postgres", f"create database {name}")
    begun = [_start(folder, home / f"process_{number}", server + name, number) for number in range(processes)]
    _until(lambda: all((home / f"process_{number}.ready").exists() for number in range(processes)), begun)
    began = time.monotonic()
    (home / "go").touch()
    results = [json.loads(process.communicate(timeout=GIVE_UP_S)[0].splitlines()[-1]) for process in begun]
    seconds = time.monotonic() - began
    finished = _sql(server + name, "select number from trials where state in ('COMPLETE', 'PRUNED')")
    return {
        "seconds": round(seconds, 2), "finished": len(finished), "ended": [each["ended"] for each in results],
        "pruned": results[0]["pruned"], "fit_seconds": results[0]["fit_seconds"],
        "cores_used_by_others": watch.other_cores(),
    }  # fmt: skip


def _sql(url: str, query: str) -> list[Any]:
    import psycopg

    with psycopg.connect(url.replace("+psycopg", ""), autocommit=True) as connection:
        cursor = connection.execute(query.encode())
        return list(cursor.fetchall()) if cursor.description else []


def _start(folder: Path, home: Path, url: str, core: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "experiments.benchmarks.team_search", "--one", str(folder), str(home), str(core)]
    environment = os.environ | {"JOURNEYLAB_STORAGE": url, "OMP_NUM_THREADS": "1", "NUMBA_NUM_THREADS": "1"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)


def _until(reached: Any, processes: list[subprocess.Popen[str]]) -> None:
    until = time.monotonic() + GIVE_UP_S
    while not reached():
        if time.monotonic() > until or any(process.poll() for process in processes):
            sys.exit("A process did not get as far as it should.")
        time.sleep(0.02)


def process_main(folder: Path, home: Path, core: int) -> None:
    """One of the processes: read, wait for the others, search."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[core % len(cores)]})
    from training.config.experiment import load_experiment
    from training.data.task_data import read_task_data
    from training.search.search import search
    from training.search.team_search import searches

    experiment = load_experiment(folder / "experiment.toml")
    data = read_task_data(experiment, home)
    [planned] = searches(experiment, data)
    (home.parent / f"{home.name}.ready").touch()
    while not (home.parent / "go").exists():
        time.sleep(0.005)
    storage = os.environ["JOURNEYLAB_STORAGE"]
    result = search(planned.job, trials=planned.trials, folder=home / "search", storage=storage)
    owner, trials = (home / "search" / "owner").read_text(), result.trials
    ended = sum(trial.user_attrs["worker"].startswith(owner) for trial in result.study.trials)
    pruned, seconds = int((trials["state"] == "pruned").sum()), round(trials["seconds"].sum(), 1)
    print(json.dumps({"ended": ended, "pruned": pruned, "fit_seconds": seconds}))


if __name__ == "__main__":
    main()

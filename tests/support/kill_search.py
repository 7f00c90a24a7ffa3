"""Does a search survive `kill -9`? Trains in a process group, kills all of it at random moments, resumes, counts.

    .venv/bin/python tests/support/kill_search.py --trials 12 --kills 5 --jobs 2

The first kill falls into the start (imports, building the store), the others into the search and what comes after. In
the end there must be as many finished trials as were asked for, no two with the same settings, one MLflow run for each,
one for each final model, and a store that SQLite finds whole.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from experiment_files import SMALL_GBDT, write_experiment

TRAIN = """
import sys
from rich.console import Console
from training.config.experiment import load_experiment
from training.fitting.train import train
train(load_experiment("experiment.toml", sys.argv[1:]), progress=Console())
"""
GIVE_UP_S = 900.0
EARLY = 0.3  # share of the kills that need not wait for the search


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=12)
    parser.add_argument("--kills", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), options.trials, options.kills, options.jobs, options.seed)
    print(json.dumps(figures, indent=1))
    sys.exit(0 if figures["ok"] else 1)


def run(folder: Path, trials: int, kills: int, jobs: int, seed: int) -> dict[str, object]:
    """Train in `folder` with `kills` kills and say what is there in the end."""
    from features.simulation.simulator import simulate

    simulate(n_customers=600, days=320, seed=1).save(folder)
    write_experiment(folder, "[task.cutoffs]\nn_train = 6" + SMALL_GBDT, name="kill_search")
    chance = random.Random(seed)
    # Each kill comes early enough to leave something to do, also for trials that end after one fold.
    limits = [(number + 1) * trials * 2 // (kills + 2) for number in range(kills)]
    moments = [_killed(folder, trials, jobs, chance, limit) for limit in limits]
    with _start(folder, trials, jobs) as process:  # the last time nobody kills it
        if process.wait(GIVE_UP_S):
            sys.exit(f"The last run failed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    return check(folder, trials) | {"killed_after_folds": moments}


def check(folder: Path, trials: int) -> dict[str, object]:
    """What the study and the tracking store hold."""
    study = next(folder.glob("runs/kill_search/*/search_gbdt/optuna.db"))
    states = [row[0] for row in _rows(study, "select state from trials")]
    settings = _rows(study, "select group_concat(param_name || param_value) from trial_params group by trial_id")
    store = folder / "mlflow.db"
    runs = "select t.value from tags t join runs r using (run_uuid) where t.key = ? and r.lifecycle_stage = 'active'"
    logged = [row[0] for row in _rows(store, f"{runs} and r.status = 'FINISHED'", "trial")]
    roles = [row[0] for row in _rows(store, runs, "role")]
    counts: dict[str, object] = {
        "finished_trials": sum(state in ("COMPLETE", "PRUNED") for state in states),
        "other_trials": sum(state not in ("COMPLETE", "PRUNED") for state in states),
        "distinct_settings": len(set(settings)),
        "trial_runs": len(logged),
        "distinct_trial_runs": len(set(logged)),
        "search_runs": roles.count("search"),
        "model_runs": roles.count("model"),
        "baseline_runs": roles.count("baseline"),
        "integrity": [_rows(path, "pragma integrity_check")[0][0] for path in (study, store)],
    }
    expected = dict.fromkeys(("finished_trials", "distinct_settings", "trial_runs", "distinct_trial_runs"), trials)
    expected |= {"other_trials": 0, "search_runs": 1, "model_runs": 1, "baseline_runs": 3}
    ok = all(counts[name] == value for name, value in expected.items()) and counts["integrity"] == ["ok", "ok"]
    return counts | {"ok": ok}


def _killed(folder: Path, trials: int, jobs: int, chance: random.Random, limit: int) -> int:
    """Start or resume, kill the whole group: at a random moment of its start, or once `limit` folds are scored."""
    process = _start(folder, trials, jobs)
    early = chance.random() < EARLY
    moment = time.monotonic() + (chance.uniform(0.0, 10.0) if early else GIVE_UP_S)
    while time.monotonic() < moment and _scored(folder) < limit and process.poll() is None:
        time.sleep(0.02)
    time.sleep(0.0 if early else chance.uniform(0.0, 0.3))
    if process.poll() is not None:
        sys.exit(f"The run ended before it could be killed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return _scored(folder)


def _start(folder: Path, trials: int, jobs: int) -> subprocess.Popen[bytes]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MLFLOW_")}
    overrides = [f"search.trials={trials}", f"search.jobs={jobs}"]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(
            [sys.executable, "-c", TRAIN, *overrides],
            cwd=folder,
            env=environment | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
            start_new_session=True,
            stdout=log,
            stderr=subprocess.STDOUT,
        )


def _scored(folder: Path) -> int:
    return len(list(folder.glob("runs/kill_search/*/search_gbdt/scores/*.npy")))


def _rows(path: Path, query: str, *values: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(path)
    try:
        return connection.execute(query, values).fetchall()
    finally:
        connection.close()


if __name__ == "__main__":
    main()

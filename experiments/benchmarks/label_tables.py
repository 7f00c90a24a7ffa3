"""Do the label builders reproduce the two reference tables row for row, from the raw files alone?

    .venv/bin/python experiments/benchmarks/label_tables.py [FOLDER]

FOLDER holds `data/` and `tasks/`; by default `shared` beside the repository. Ends with status 1 if any row differs.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

import pandas as pd

from features.journeys.loading import load_log
from training.config.experiment import load_experiment

EXPERIMENTS = Path(__file__).resolve().parents[1] / "configs"
SHARED = EXPERIMENTS.parents[2] / "shared"
TASKS = {  # experiment -> raw file, name of the label in the reference
    "online_retail_churn": ("online_retail.csv.gz", "churned"),
    "bpi2012_conversion": ("bpi2012.csv.gz", "converted"),
}


def main() -> None:
    shared = Path(sys.argv[1]) if len(sys.argv) > 1 else SHARED
    differing = sum(compare(name, shared) for name in TASKS)
    sys.exit(1 if differing else 0)


def compare(name: str, shared: Path) -> int:
    file, label = TASKS[name]
    experiment = load_experiment(EXPERIMENTS / f"{name}.toml", [f"events.path={shared / 'data' / file}"])
    log = load_log(experiment.events)
    begun = time.perf_counter()
    table = experiment.build_labels(log.journeys)
    labelled_s = time.perf_counter() - begun
    expected = pd.read_parquet(shared / "tasks" / f"{name}.parquet").rename(columns={label: "label"})
    differing = rows_that_differ(table, expected)
    print(f"{name}: {log.journeys.n_events:,} events of {log.journeys.n_customers:,} customers")
    for reason, n in log.counts.items():
        print(f"  set aside, {reason}: {n:,}")
    for split, labels in table.groupby("split", sort=False)["label"]:
        print(f"  {split}: {len(labels):,} rows, {labels.mean():.1%} positive")
    print(f"  labelled in {labelled_s:.2f} s; {differing:,} of {len(expected):,} reference rows differ")
    return differing


def rows_that_differ(table: pd.DataFrame, expected: pd.DataFrame) -> int:
    """Rows unlike the reference in any column, order included; rows too many or too few count as well."""
    n = min(len(table), len(expected))
    unlike = pd.Series(False, index=range(n))
    for column in expected.columns:
        unlike |= table[column].to_numpy()[:n] != expected[column].to_numpy()[:n]
    return int(unlike.sum()) + abs(len(table) - len(expected))


if __name__ == "__main__":
    main()

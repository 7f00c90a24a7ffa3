"""Experiment files for tests: `experiment_text` and `write_experiment` state the usual sections once.

    write_experiment(folder, "[search]\ntrials = 2", name="small", task="conversion", events='profile = ["plan"]')

The tasks fit what `features.simulation.simulator.simulate` draws; its `save` writes `events.parquet` beside the file.
"""

from __future__ import annotations

from pathlib import Path

TASKS = {
    "churn": 'kind = "churn"\nactivity = ["purchase"]\nactive_days = 60\nhorizon_days = 28\n',
    "conversion": 'kind = "conversion"\ngoal = ["purchase"]\nhorizon_days = 20\n'
    "cutoffs = { ages_days = [3, 9], test_share = 0.3 }\n",
    "labels": 'kind = "labels"\npath = "labels.csv"\nhorizon_days = 28\n',
}
PROFILE = 'profile = ["country", "plan"]'  # the profile columns of simulated events
SMALL_GBDT = """
[features]
windows_days = [30]
groups = ["volume", "recency", "rfm", "rhythm"]
[models.settings.gbdt]
members = 2
max_trees = 40
"""


def experiment_text(name: str, more: str = "", *, task: str = "churn", events: str = "") -> str:
    """The text of an experiment on a small log.

    Args:
        name: of the experiment.
        more: sections after `[task]`; may begin with `[task.cutoffs]`.
        task: a key of `TASKS`.
        events: more keys of `[events]`.
    """
    head = (f'name = "{name}"', "allow_small = true", "[events]", 'path = "events.parquet"', events)
    return "\n".join((*head, "[task]", TASKS[task], more))


def write_experiment(
    folder: Path, more: str = "", *, name: str = "small_churn", file: str = "experiment.toml", task: str = "churn",
    events: str = "",
) -> Path:  # fmt: skip
    """Write `experiment_text` to a file of the folder and return its path."""
    path = folder / file
    path.write_text(experiment_text(name, more, task=task, events=events), encoding="utf-8")
    return path

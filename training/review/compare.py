"""Two runs or registered versions side by side: metrics, what made them, and the paired difference on the same rows.

    comparison = compare("demo_churn@champion", "demo_churn@challenger", progress=Console())
    write_comparison(comparison, Path("compare.html"))      # of `training.tracking.comparison`

The rows are those that decide a promotion, read anew from the first one's experiment.
"""

from __future__ import annotations

from rich.console import Console

from features.errors import DataError
from features.journeys.loading import load_journeys
from training.progress import stage
from training.tracking.comparison import ModelComparison, score_rows, side_by_side
from training.tracking.registry import ResolvedModel, experiment_of, resolve
from training.tracking.tracking import connect


def compare(first: str, second: str, *, progress: Console | None = None, n_boot: int = 2000) -> ModelComparison:
    """Compare two models of one task.

    Args:
        first: as `training.tracking.registry.resolve` takes it: a registered version, an alias, a model's or a run's
            id.
        second: likewise.
        progress: where to show what is going on.
        n_boot: replicates of the paired bootstrap.

    Raises:
        ConfigError: there is no such model.
        DataError: the two answer different questions.
    """
    client = connect()
    models = resolve(first, client), resolve(second, client)
    _check_task(models)
    try:
        experiment = experiment_of(models[0])
        with stage(progress, f"Reading {experiment.events.path}"):
            journeys = load_journeys(experiment.events)
        rows = score_rows(experiment, journeys, models, progress)
    except DataError as error:
        return side_by_side((first, second), models, f"They were not compared: {error}", client)
    return side_by_side((first, second), models, rows, client, n_boot=n_boot)


def _check_task(models: tuple[ResolvedModel, ResolvedModel]) -> None:
    first, second = (model.tags.get("task", "") for model in models)
    if first != second:
        raise DataError(f"The first is of task '{first}', the second of '{second}': they answer different questions.")
    if models[0].tags.get("judged_by") == "stability":
        raise DataError(f"'{first}' are segments, which are judged by stability: see the run's page and `promote`.")

"""Commands that make and apply models: train, work, segment, score."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.options import STORAGE_HELP, AsJson, Conf, Engine, ExperimentFile, Master, Partitions, Settings
from experiments.cli.output import console, finish, plain, show_models
from training.config.engines import engine_options

commands = typer.Typer()


@commands.command()
def train(
    experiment: ExperimentFile,
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of the search; overrides the file.")] = None,
    settings: Settings = None,
    storage: Annotated[
        str | None, typer.Option(envvar="JOURNEYLAB_STORAGE", help=f"Share the search with `work`. {STORAGE_HELP}")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Build features, tune and fit the models of an experiment, track everything in MLflow.

    A search that was stopped, even by `kill -9`, goes on where it was when the same command runs again.

    Examples: `journeylab train experiments/configs/online_retail_churn.toml --trials 30`,
    `journeylab train experiments/configs/demo.toml --set events.path=mine.csv --set search.seed=1`
    """
    from training.config.experiment import load_experiment
    from training.fitting.train import train as run

    search_length = [] if trials is None else [f"search.trials={trials}", "search.trials_of={}"]
    result = run(load_experiment(experiment, [*(settings or []), *search_length]), progress=console, storage=storage)
    show_models(result.models)
    note = f"Best on validation: {result.best}. Next: journeylab promote {result.model_uri}"
    finish(as_json, note, result.to_dict(), "model_uri")


@commands.command()
def work(
    experiment: ExperimentFile,
    storage: Annotated[str, typer.Option(envvar="JOURNEYLAB_STORAGE", help=STORAGE_HELP)],
    jobs: Annotated[int | None, typer.Option(min=1, help="Trials at a time; by default as the file says.")] = None,
    settings: Settings = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for `train` to begin.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Help `journeylab train --storage` to search, from this machine, with the same file, log and `--set`.

    Each trial is done once; another process repeats the trial of one that died. Ends when no trial is left to begin.

    Example: `journeylab work experiments/configs/demo.toml --storage postgresql+psycopg://journeylab@db/search`
    """
    from training.config.experiment import load_experiment
    from training.search.team_search import work as run

    done = run(load_experiment(experiment, settings or []), storage, jobs=jobs, wait_s=wait, progress=console).to_dict()
    finish(as_json, f"{done['total']} trials ended here", done, "total")


@commands.command()
def segment(
    experiment: ExperimentFile,
    settings: Settings = None,
    sample: Annotated[
        float | None, typer.Option(help="On disk and Spark: the share of customers to choose on.")
    ] = None,
    partitions: Partitions = None,
    engine: Engine = None,
    master: Master = None,
    conf: Conf = None,
    as_json: AsJson = False,
) -> None:
    """Find and explain segments of customers, beside those defined in advance; track them in MLflow.

    Segments that are in use already are matched with the new ones, so that a segment keeps its id and name.

    Examples: `journeylab segment experiments/configs/demo.toml`,
    `journeylab segment experiments/configs/demo.toml --set segments.found.segments=6`
    """
    from training.config.experiment import load_experiment
    from training.segmentation.large_logs import segment_log

    where = engine_options(engine, master, conf or [], partitions)
    result = segment_log(load_experiment(experiment, settings or []), engine=where, share=sample, progress=console)
    for remark in result.notes:
        console.print(f"  {plain(remark)}", highlight=False, soft_wrap=True)
    note = f"The page: {result.page}. Next: journeylab promote {result.model_uri}"
    finish(as_json, note, result.to_dict(), "model_uri")


@commands.command()
def score(
    model: Annotated[str, typer.Argument(help="An MLflow model URI, e.g. models:/demo_churn@champion, or a folder.")],
    events: Annotated[Path, typer.Option(help="Events, raw as the model was trained on, or canonical.")],
    out: Annotated[str, typer.Option(help="A .csv or .parquet file, or a folder; on Spark also a URI or table:NAME.")],
    snapshots: Annotated[Path | None, typer.Option(help="Rows: customer_id, cutoff; default: all at the end.")] = None,
    as_of: Annotated[str | None, typer.Option(help="The cutoff of everyone, e.g. 2024-06-01T00:00:00Z.")] = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="Partitions of customers; default: by size.")] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Partitions scored side by side.")] = None,
    engine: Engine = None,
    master: Master = None,
    conf: Conf = None,
    as_json: AsJson = False,
) -> None:
    """Score customers, a row for each snapshot in its order: `probability` or `segment`, or a `reason` for none.

    A large log is split into partitions of customers first, so that it need not fit in memory; a run that was stopped,
    even by `kill -9`, goes on where it was when the same command runs again, and no customer is scored twice.

    Examples: `journeylab score models:/demo_churn@champion --events runs/demo/events.parquet --out scores.csv`,
    `journeylab score models:/demo_churn@champion --events events/ --out scores/ --partitions 64`,
    `journeylab score models:/demo_churn@champion --events events/ --out scores/ --engine spark --master local[2]`
    """
    from features.spark.destinations import destination
    from training.scoring.partitioned import WORKERS
    from training.scoring.scoring import score_file

    outcome = score_file(
        model, events, snapshots, destination(out), as_of=as_of, workers=workers or WORKERS,
        engine=engine_options(engine, master, conf or [], partitions), progress=console,
    )  # fmt: skip
    without = outcome.without_answer
    note = f"{outcome.rows:,} rows" + (f", {without:,} without an answer: see their reason" if without else "")
    result = {"out": str(outcome.out), "rows": outcome.rows, "without_answer": without}
    result |= {"partitions": outcome.partitions}
    finish(as_json, note, result, "out")

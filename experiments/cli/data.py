"""Commands that look at events: simulate, draft, features, map."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from experiments.cli.options import (
    AsJson,
    Columns,
    Conf,
    Engine,
    ExperimentFile,
    Master,
    Partitions,
    Settings,
    column_pairs,
)
from experiments.cli.output import console, finish
from training.config.engines import SPARK, engine_options

commands = typer.Typer()


@commands.command()
def simulate(
    out: Annotated[Path, typer.Option(help="The folder to write to.")] = Path("runs/demo"),
    customers: Annotated[int, typer.Option(min=1, help="How many customers.")] = 2000,
    days: Annotated[int, typer.Option(min=30, help="How many days of history.")] = 400,
    seed: Annotated[int, typer.Option(help="The same seed gives the same journeys.")] = 7,
    as_json: AsJson = False,
) -> None:
    """Simulated journeys, with the true probability of every outcome.

    Example: `journeylab simulate --customers 2000 --days 400 --out runs/demo`
    """
    from features.simulation.simulator import simulate as run

    simulation = run(n_customers=customers, days=days, seed=seed)
    simulation.save(out)
    result = {"events": str(out / "events.parquet"), "rows": len(simulation.events)}
    finish(as_json, f"{len(simulation.events):,} events of {customers:,} customers", result, "events")


@commands.command()
def draft(
    log: Annotated[Path, typer.Argument(help="An event log: CSV, CSV.gz, TSV, Parquet, or a folder of them.")],
    out: Annotated[Path | None, typer.Option(help="The experiment file to write; by default LOG_TASK.toml.")] = None,
    task: Annotated[str, typer.Option(help="What to predict: churn or conversion.")] = "churn",
    columns: Columns = None,
    as_json: AsJson = False,
) -> None:
    """Read your log and write an experiment file for it, for you to check.

    Columns, encoding, formats of times and numbers, touchpoints and windows are guessed; comments say what to check.

    Example: `journeylab draft sales.csv --out sales_churn.toml`
    """
    from training.drafting.drafting import draft as run

    drafted = run(log, out, kind=task, columns=column_pairs("--columns", columns), progress=console)
    next_step = f"journeylab train {drafted.file}" if drafted.ready else "correct the file, then journeylab train"
    result = {"file": str(drafted.file), "ready": drafted.ready, "notes": list(drafted.notes)}
    finish(as_json, f"Look through {drafted.file}. Next: {next_step}", result, "file")


@commands.command()
def features(
    experiment: ExperimentFile,
    out: Annotated[str, typer.Option(help="The folder for Parquet files; on Spark also a URI or table:NAME.")],
    settings: Settings = None,
    sample: Annotated[float, typer.Option(help="The share of customers to keep, chosen by a hash.")] = 1.0,
    keep_positives: Annotated[
        bool, typer.Option("--keep-positives", help="Keep all rows labelled 1; weighted.")
    ] = False,
    partitions: Partitions = None,
    engine: Engine = None,
    master: Master = None,
    conf: Conf = None,
    as_json: AsJson = False,
) -> None:
    """Labels and features of an experiment as Parquet: customer_id, cutoff, label, split, weight, a column a feature.

    The customers' journeys lie beside them: the folder can be the `events.path` of `train` and `segment`.

    Examples: `journeylab features experiments/configs/demo.toml --out runs/demo/features`,
    `journeylab features experiments/configs/demo.toml --out features/ --engine spark --master local[2] --sample 0.1`
    """
    from features.spark.destinations import destination
    from training.config.experiment import load_experiment
    from training.data.landing import Sample, land

    where = engine_options(engine, master, conf or [], partitions)
    choice = Sample(sample, keep_positives)
    landed = land(
        load_experiment(experiment, settings or []), destination(out), engine=where, sample=choice, progress=console
    )
    note = f"{landed.rows:,} rows of {landed.features} features"
    finish(as_json, note, {"out": str(landed.out), "rows": landed.rows, "features": landed.features}, "out")


@commands.command(name="map")
def draw_map(
    events: Annotated[Path, typer.Argument(help="An event log (CSV, Parquet, a folder) or an experiment file.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("map.html"),
    goal: Annotated[list[str] | None, typer.Option(help="A touchpoint that is the goal, or a pattern; repeat.")] = None,
    start: Annotated[str | None, typer.Option(help="Events from here on, e.g. 2024-01-01.")] = None,
    end: Annotated[str | None, typer.Option(help="Events before this moment.")] = None,
    group: Annotated[str | None, typer.Option(help="Two groups: `converted`, a date, or `column=value`.")] = None,
    columns: Columns = None,
    settings: Settings = None,
    tables: Annotated[Path | None, typer.Option(help="A folder for the tables as CSV.")] = None,
    log: Annotated[bool | None, typer.Option("--log/--no-log", help="To MLflow; default: an experiment's.")] = None,
    partitions: Partitions = None,
    engine: Engine = None,
    master: Master = None,
    conf: Conf = None,
    as_json: AsJson = False,
) -> None:
    """Draw the journey map of an event log: one page with tables and pictures that opens offline.

    Examples: `journeylab map log.csv --columns customer_id=client --columns timestamp=time --goal order`,
    `journeylab map experiments/configs/bpi2012_conversion.toml --group converted --out bpi.html`
    """
    from training.journey_map.mapping import MapChoice, make_map, map_plan

    overrides = [*(f"events.columns.{column}" for column in columns or ()), *(settings or ())]
    choice = MapChoice(tuple(goal or ()), start, end, group)
    output: dict[str, Any] = {"log": log, "tables": tables, "progress": console}
    where = engine_options(engine, master, conf or [], partitions)
    plan = map_plan(events, overrides, group, elsewhere=where.name == SPARK)
    drawn = make_map(plan, out, choice, engine=where, **output)
    kilobytes = drawn.page.stat().st_size / 1000
    note = f"The map of {drawn.summary['customers']:,} customers: {kilobytes:,.0f} kB, open it in a browser"
    note += f"; MLflow run {drawn.run_id}" if drawn.run_id else ""
    finish(as_json, note, {"page": str(drawn.page), "run_id": drawn.run_id, "notes": list(drawn.notes)}, "page")

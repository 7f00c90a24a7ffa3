"""The command line, `journeylab COMMAND`: from simulated journeys and training to serving and the reviewer's desk.

Every command ends with the path or URI of what it made; with `--json` that is the last line, for scripts.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table

from features.errors import ConfigError, JourneyLabError

app = typer.Typer(
    name="journeylab",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    rich_markup_mode="markdown",
    help="From a raw log of customer events to churn and conversion predictions that a service can call.\n\n"
    "Start with `journeylab simulate`, then `journeylab train experiments/configs/demo.toml`.",
)
console = Console(stderr=True, width=None if sys.stderr.isatty() else 120)

SHOWN = ("auroc", "brier", "log_loss")
PAST_THRESHOLD = 3
INTERRUPTED = 130

STORAGE_HELP = "A PostgreSQL database, postgresql+psycopg://USER@HOST/NAME; its password belongs in PGPASSFILE."
Engine = Annotated[str | None, typer.Option(help="`local` for this machine, or `spark`; `--master` means spark, too.")]
Master = Annotated[str | None, typer.Option(help="Spark's master: `local[2]`, `spark://host:7077`, `yarn` …")]
Conf = Annotated[
    list[str] | None,
    typer.Option("--conf", metavar="KEY=VALUE", help="A setting of Spark, e.g. spark.executor.memory=8g; repeat."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON, as the last line.")]


def main() -> None:
    """The entry point: errors that a user can mend are printed as one sentence, without a stack."""
    try:
        app()
    except JourneyLabError as error:
        console.print(f"[bold red]Error:[/] {_plain(str(error))}", highlight=False, soft_wrap=True)
        sys.exit(2)
    except SystemExit as end:
        if end.code == INTERRUPTED:  # what typer makes of Ctrl-C
            console.print("Stopped. Nothing is broken: run the same command again and it goes on from here.")
        raise


@app.command()
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
    _finish(
        as_json,
        f"{len(simulation.events):,} events of {customers:,} customers",
        {"events": str(out / "events.parquet"), "rows": len(simulation.events)},
        "events",
    )


@app.command()
def draft(
    log: Annotated[Path, typer.Argument(help="An event log: CSV, CSV.gz, TSV, Parquet, or a folder of them.")],
    out: Annotated[Path | None, typer.Option(help="The experiment file to write; by default LOG_TASK.toml.")] = None,
    task: Annotated[str, typer.Option(help="What to predict: churn or conversion.")] = "churn",
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="What a column is, e.g. customer_id=client; repeat."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at a log of your own and write an experiment file for it, to be checked by you.

    Columns, encoding, formats of times and numbers, touchpoints and windows are guessed; comments say what to check.

    Example: `journeylab draft sales.csv --out sales_churn.toml`
    """
    from training.drafting.drafting import draft as run

    drafted = run(log, out, kind=task, columns=_pairs("--columns", columns), progress=console)
    next_ = f"journeylab train {drafted.file}" if drafted.ready else "mend the file, then journeylab train"
    result = {"file": str(drafted.file), "ready": drafted.ready, "notes": list(drafted.notes)}
    _finish(as_json, f"Look through {drafted.file}. Next: {next_}", result, "file")


@app.command()
def train(
    experiment: Annotated[Path, typer.Argument(help="The experiment file, e.g. experiments/configs/demo.toml.")],
    trials: Annotated[int | None, typer.Option(min=1, help="Trials of the search; overrides the file.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the file; may be repeated."),
    ] = None,
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

    lengths = [] if trials is None else [f"search.trials={trials}", "search.trials_of={}"]
    result = run(load_experiment(experiment, [*(settings or []), *lengths]), progress=console, storage=storage)
    _show(result.models)
    note = f"Best on validation: {result.best}. Next: journeylab promote {result.model_uri}"
    _finish(as_json, note, result.to_dict(), "model_uri")


@app.command()
def work(
    experiment: Annotated[
        Path, typer.Argument(help="The experiment file that `train` runs with, the same log behind it.")
    ],
    storage: Annotated[str, typer.Option(envvar="JOURNEYLAB_STORAGE", help=STORAGE_HELP)],
    jobs: Annotated[int | None, typer.Option(min=1, help="Trials at a time; by default as the file says.")] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="As `train` was given it; may be repeated."),
    ] = None,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for `train` to begin.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Help `journeylab train --storage` to search, from this machine: as many helpers as there are machines.

    Each trial is done once; one whose process died is taken up by another. The helper ends when none is left to begin.

    Example: `journeylab work experiments/configs/demo.toml --storage postgresql+psycopg://journeylab@db/search`
    """
    from training.config.experiment import load_experiment
    from training.search.team_search import work as run

    done = run(load_experiment(experiment, settings or []), storage, jobs=jobs, wait_s=wait, progress=console).to_dict()
    _finish(as_json, f"{done['total']} trials ended here", done, "total")


@app.command()
def promote(
    model: Annotated[str, typer.Argument(help="A model URI from `train`, e.g. models:/m-0123…, or a run id.")],
    name: Annotated[str | None, typer.Option(help="The registered name; by default the experiment's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Register a model, and make it champion if it is surely no worse than the one there is.

    Both are compared on the same, most recent closed rows that neither was fitted or tuned on.

    Example: `journeylab promote models:/m-0123456789abcdef`
    """
    from training.tracking.registry import promote as run

    promotion = run(model, name=name, progress=console)
    _finish(as_json, f"{promotion.alias}: {promotion.reason}", promotion.to_dict(), "model_uri")


@app.command()
def compare(
    first: Annotated[str, typer.Argument(help="A registered version, an alias, a model URI or a run id.")],
    second: Annotated[str, typer.Argument(help="What to hold it against.")],
    out: Annotated[Path | None, typer.Option(help="Also write a page, e.g. compare.html.")] = None,
    as_json: AsJson = False,
) -> None:
    """Two models of one task side by side: figures, what made them, and the paired difference on the same rows.

    Example: `journeylab compare demo_churn@champion demo_churn@challenger --out compare.html`
    """
    from training.review.compare import compare as run
    from training.review.compare import write_comparison

    _require_html(out)
    found = run(first, second, progress=console)
    for frame in (found.difference, found.slices, found.differs):
        _print(frame)
    if out is not None:
        write_comparison(found, out)
    result = {"verdict": found.verdict, "difference": found.difference.to_dict("records"), "rows": found.rows}
    _finish(as_json, f"{found.rows} {found.change}".strip(), result | {"change": found.change}, "verdict")


@app.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="A run's id in MLflow; a model URI or NAME@champion will do, too.")],
    events: Annotated[Path | None, typer.Option(help="Where the event log lies now, if it has moved.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Where the label table lies now, if it has moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a run again from what MLflow holds; ends with status 3 when a number is not the same.

    The log's fingerprint is checked first. The model is fitted anew, held-out rows are scored, every figure compared.

    Example: `journeylab reproduce demo_churn@champion`
    """
    from training.review.reproduce import reproduce as run_again

    found = run_again(run, events=events, labels=labels, progress=console)
    _print(found.metrics[found.metrics["difference"] != 0])
    _finish(as_json, f"{found.name}, run {found.run_id}", found.to_dict(), "verdict")
    if not found.same:
        raise typer.Exit(PAST_THRESHOLD)


@app.command()
def score(
    model: Annotated[str, typer.Argument(help="An MLflow model URI, e.g. models:/demo_churn@champion, or a folder.")],
    events: Annotated[Path, typer.Option(help="Events, raw as the model was trained on, or canonical.")],
    out: Annotated[
        str,
        typer.Option(
            help="Where to write: .csv, .parquet, a folder for a part a partition; on Spark also a URI or table:NAME."
        ),
    ],
    snapshots: Annotated[
        Path | None, typer.Option(help="Rows of customer_id, cutoff; by default everyone, just after the last event.")
    ] = None,
    as_of: Annotated[str | None, typer.Option(help="The cutoff of everyone, e.g. 2024-06-01T00:00:00Z.")] = None,
    partitions: Annotated[
        int | None, typer.Option(min=1, help="Partitions of customers; by default as many as the log's size asks for.")
    ] = None,
    workers: Annotated[int | None, typer.Option(min=1, help="Partitions scored side by side.")] = None,
    engine: Engine = None,
    master: Master = None,
    conf: Conf = None,
    as_json: AsJson = False,
) -> None:
    """Score customers: a row out for each row in, in their order: `probability` or `segment`, or a `reason` why not.

    A large log is split into partitions of customers first, so that it need not fit in memory; a run that was stopped,
    even by `kill -9`, goes on where it was when the same command runs again, and no customer is scored twice.

    Examples: `journeylab score models:/demo_churn@champion --events runs/demo/events.parquet --out scores.csv`,
    `journeylab score models:/demo_churn@champion --events events/ --out scores/ --partitions 64`,
    `journeylab score models:/demo_churn@champion --events events/ --out scores/ --engine spark --master local[2]`
    """
    from features.spark.destinations import destination
    from training.scoring.bulk import WORKERS
    from training.scoring.scoring import score_file

    outcome = score_file(
        model, events, snapshots, destination(out), as_of=as_of, partitions=partitions, workers=workers or WORKERS,
        spark=_spark(engine, master, conf), progress=console,
    )  # fmt: skip
    without = outcome.without_answer
    note = f"{outcome.rows:,} rows" + (f", {without:,} without an answer: see their reason" if without else "")
    result = {"out": str(outcome.out), "rows": outcome.rows, "without_answer": without}
    result |= {"partitions": outcome.partitions}
    _finish(as_json, note, result, "out")


@app.command()
def features(
    experiment: Annotated[Path, typer.Argument(help="The experiment file, e.g. experiments/configs/demo.toml.")],
    out: Annotated[str, typer.Option(help="The folder for Parquet files; on Spark also a URI or table:NAME.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the file; may be repeated."),
    ] = None,
    sample: Annotated[float, typer.Option(help="The share of customers to keep, chosen by a hash.")] = 1.0,
    keep_positives: Annotated[
        bool, typer.Option("--keep-positives", help="Keep all rows labelled 1; weights make up for it.")
    ] = False,
    partitions: Annotated[int | None, typer.Option(min=1, help="Partitions of customers, on Spark.")] = None,
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

    spark = _spark(engine, master, conf)
    landed = land(
        load_experiment(experiment, settings or []), destination(out), engine="local" if spark is None else "spark",
        master=spark.master if spark else None, settings=spark.settings if spark else None, partitions=partitions,
        sample=Sample(sample, keep_positives), progress=console,
    )  # fmt: skip
    note = f"{landed.rows:,} rows of {landed.features} features"
    _finish(as_json, note, {"out": str(landed.out), "rows": landed.rows, "features": landed.features}, "out")


@app.command()
def monitor(
    rows: Annotated[Path, typer.Argument(help="What the service recorded: the folder of JOURNEYLAB_MONITOR.")],
    model: Annotated[str, typer.Option(help="The champion, e.g. demo_churn@champion, or its scoring folder.")],
    labels: Annotated[
        Path | None, typer.Option(help="What came true: customer_id (or who), label and, where known, cutoff.")
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(help="The service's key, for labels by customer_id; else the environment's.")
    ] = None,
    since: Annotated[str | None, typer.Option(help="Answers from here on, e.g. 2024-06-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Answers before this moment.")] = None,
    threshold: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="When to act, e.g. psi=0.25 or unknown=0.1; repeat.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="A page; the same as .json lies beside it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare what was served with what was trained on; ends with status 3 when something is past its threshold.

    Example: `journeylab monitor /var/lib/journeylab/monitor --model demo_churn@champion --out monitor.html`
    """
    from training.monitoring.checks import Thresholds
    from training.monitoring.monitor import monitor as run
    from training.monitoring.page import terminal, write_monitor_page

    _require_html(out)
    asked = Thresholds.of(threshold or [])
    report = run(
        rows, model, labels=labels, since=since, until=until, thresholds=asked, key_file=key_file, progress=console
    )
    console.print(terminal(report))
    for remark in (*report.alarms, *report.notes):
        console.print(f"  {_plain(remark)}", highlight=False, soft_wrap=True)
    found = report.to_dict()
    if out is not None:
        write_monitor_page(report, out)
        out.with_suffix(".json").write_text(json.dumps(found, indent=1, ensure_ascii=False), encoding="utf-8")
    verdict = f"{len(report.alarms)} alarms" if report.alarms else "No alarm"
    note = f"{verdict} in {len(report.checks)} checks of {report.figures['answers']:,.0f} answers"
    _finish(as_json, note, {"verdict": verdict, "page": None if out is None else str(out), **found}, "verdict")
    if report.alarms:
        raise typer.Exit(PAST_THRESHOLD)


@app.command(name="map")
def draw_map(
    events: Annotated[Path, typer.Argument(help="An event log (CSV, Parquet, a folder) or an experiment file.")],
    out: Annotated[Path, typer.Option(help="The page to write.")] = Path("map.html"),
    goal: Annotated[list[str] | None, typer.Option(help="A touchpoint that is the goal, or a pattern; repeat.")] = None,
    start: Annotated[str | None, typer.Option(help="Events from here on, e.g. 2024-01-01.")] = None,
    end: Annotated[str | None, typer.Option(help="Events before this moment.")] = None,
    group: Annotated[
        str | None, typer.Option(help="Compare two groups: `converted`, a date (before and after), or `column=value`.")
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(metavar="OURS=THEIRS", help="What a log calls its columns, e.g. customer_id=client; repeat."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="One key of [events] or [map], e.g. map.cohort=week; repeat."),
    ] = None,
    tables: Annotated[Path | None, typer.Option(help="A folder for the tables as CSV.")] = None,
    log: Annotated[
        bool | None, typer.Option("--log/--no-log", help="Log to MLflow; by default with an experiment file.")
    ] = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="Partitions of customers, on Spark.")] = None,
    engine: Engine = None,
    master: Master = None,
    conf: Conf = None,
    as_json: AsJson = False,
) -> None:
    """Draw the journey map of an event log: one page with tables and pictures that opens offline.

    Examples: `journeylab map log.csv --columns customer_id=client --columns timestamp=time --goal order`,
    `journeylab map experiments/configs/bpi2012_conversion.toml --group converted --out bpi.html`
    """
    from training.journey_map.mapping import Choice, draw, plan_of

    told = [*(f"events.columns.{one}" for one in columns or ()), *(settings or ())]
    choice = Choice(tuple(goal or ()), start, end, group)
    how: dict[str, Any] = {"log": log, "tables": tables, "progress": console}
    spark = _spark(engine, master, conf)
    if spark is None:
        drawn = draw(plan_of(events, told, group), out, choice, **how)
    else:
        from training.journey_map.spark_mapping import draw_on_spark

        plan = plan_of(events, told, group, elsewhere=True)
        drawn = draw_on_spark(
            plan, out, choice, master=spark.master, settings=spark.settings, partitions=partitions, **how
        )
    kilobytes = drawn.page.stat().st_size / 1000
    note = f"The map of {drawn.summary['customers']:,} customers: {kilobytes:,.0f} kB, open it in a browser"
    note += f"; MLflow run {drawn.run_id}" if drawn.run_id else ""
    _finish(as_json, note, {"page": str(drawn.page), "run_id": drawn.run_id, "notes": list(drawn.notes)}, "page")


@app.command()
def segment(
    experiment: Annotated[Path, typer.Argument(help="The experiment file, e.g. experiments/configs/demo.toml.")],
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the file; may be repeated."),
    ] = None,
    sample: Annotated[
        float | None, typer.Option(help="On Spark: the share of customers that one machine looks at; about 200,000.")
    ] = None,
    partitions: Annotated[int | None, typer.Option(min=1, help="Partitions of customers, on Spark.")] = None,
    engine: Engine = None,
    master: Master = None,
    conf: Conf = None,
    as_json: AsJson = False,
) -> None:
    """Find and explain segments of customers, and the ones set beforehand; track them in MLflow.

    Segments that are in use already are matched with the new ones, so that a segment keeps its id and name.

    Examples: `journeylab segment experiments/configs/demo.toml`,
    `journeylab segment experiments/configs/demo.toml --set segments.found.segments=6`
    """
    from training.config.experiment import load_experiment

    asked, spark = load_experiment(experiment, settings or []), _spark(engine, master, conf)
    if spark is None:
        from training.config.engines import refuse_here
        from training.segmentation.segmenting import segment as run

        refuse_here({"--sample": sample, "--partitions": partitions})
        result = run(asked, progress=console)
    else:
        from training.segmentation.spark_segmenting import segment_on_spark

        result = segment_on_spark(
            asked, master=spark.master, settings=spark.settings, partitions=partitions, share=sample, progress=console
        )
    for remark in result.notes:
        console.print(f"  {_plain(remark)}", highlight=False, soft_wrap=True)
    _finish(
        as_json, f"The page: {result.page}. Next: journeylab promote {result.model_uri}", result.to_dict(), "model_uri"
    )


@app.command()
def package(
    models: Annotated[list[str], typer.Argument(help="Registered models, e.g. demo_churn@champion; one or more.")],
    lookalikes: Annotated[
        bool, typer.Option("--lookalikes", help="Take along the vectors that a segmentation kept: /lookalikes.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Package champions as a bento, after proof that it returns what MLflow recorded.

    Example: `journeylab package demo_churn@champion demo_conversion@champion demo_churn_segments@champion`
    """
    from serving.bento.package import package as run

    built = run(models, lookalikes=lookalikes)
    worst = max(built.differences.values())
    note = (
        f"{len(models)} champions, proved on recorded journeys: largest difference {worst:.1e}; it lies in {built.path}"
    )
    result = {"bento": built.tag, "path": str(built.path), "differences": built.differences}
    _finish(as_json, note, result, "bento")


@app.command()
def serve(
    bento: Annotated[str | None, typer.Argument(help="A bento's tag; by default the newest.")] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 3000,
) -> None:
    """Serve a bento on this machine.

    Example: `journeylab serve --port 3000`, then open http://127.0.0.1:3000
    """
    from serving.bento.serve import serve as run

    raise typer.Exit(run(bento, host=host, port=port))


@app.command()
def swap(
    bento: Annotated[str, typer.Argument(help="The tag of the bento whose champions should answer from now on.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the service listens.")] = 3000,
    as_json: AsJson = False,
) -> None:
    """Put the champions of another bento in service, under load, without a gap; and back again the same way.

    Example: `journeylab swap journeylab:latest --port 3000`
    """
    from serving.live.swap import swap as run

    versions = run(bento, port=port)
    told = ", ".join(f"{name} version {version}" for name, version in versions.items())
    _finish(as_json, f"In service: {told}", {"bento": bento, "versions": versions}, "bento")


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 5000,
) -> None:
    """Open the reviewer's desk: MLflow on this machine's runs.

    Example: `journeylab ui --port 5000`, then open http://127.0.0.1:5000
    """
    from training.tracking.tracking import tracking_uri

    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        console.print(f"The runs lie on a server, which has a desk of its own: open {uri}", highlight=False)
        return
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    # Not as an argument: those can be read by everybody on this machine, and a database's URL may hold a password.
    raise typer.Exit(subprocess.call(command, env=os.environ | {"MLFLOW_BACKEND_STORE_URI": uri}))


def _show(models: dict[str, dict[str, Any]]) -> None:
    """The models side by side, on validation and on the held-out rows, with intervals."""
    table = Table(box=box.SIMPLE_HEAD)
    for name in ("model", "rows", *SHOWN):
        table.add_column(name.replace("_", " "), justify="left" if name in ("model", "rows") else "right", no_wrap=True)
    for name, model in models.items():
        for split, rows in (("validation", "validation"), ("test", "held out")):
            table.add_row(name, rows, *(_interval(model["metrics"][split], metric) for metric in SHOWN))
    console.print(table)


def _spark(engine: str | None, master: str | None, conf: list[str] | None) -> Any:
    """What was said about Spark; None for this machine."""
    from training.config.engines import spark_asked

    return spark_asked(engine, master, conf or [])


def _print(frame: Any) -> None:
    """A frame as a table in the terminal."""
    table = Table(*(str(name) for name in frame.columns), box=box.SIMPLE_HEAD)
    for row in frame.itertuples(index=False):
        table.add_row(*(f"{value:.4f}" if isinstance(value, float) else _plain(str(value)) for value in row))
    if len(frame):
        console.print(table)


def _interval(metrics: dict[str, float], metric: str) -> str:
    if metric not in metrics:
        return "–"
    return f"{metrics[metric]:.3f} ({metrics[f'{metric}_low']:.3f}–{metrics[f'{metric}_high']:.3f})"


def _require_html(out: Path | None) -> None:
    """Said before the work, not after it."""
    if out is not None and out.suffix not in (".html", ".htm"):
        raise ConfigError(f"Cannot write {out}: the page is HTML, name a file that ends in .html.")


def _pairs(option: str, given: list[str] | None) -> dict[str, str]:
    """`OURS=THEIRS`, as often as given."""
    pairs = [one.partition("=") for one in given or ()]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise ConfigError(f"{option} {ours}{equals}{theirs}: write OURS=THEIRS, such as customer_id=client.")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}


def _finish(as_json: bool, note: str, result: dict[str, Any], key: str) -> None:
    """The last words of a command: a note for people, and the URI or path, or all of it as JSON, for scripts."""
    console.print(_plain(note), highlight=False, soft_wrap=True)
    sys.stdout.write((json.dumps(result) if as_json else str(result[key])) + "\n")


def _plain(text: str) -> str:
    """Text in which square brackets mean themselves."""
    return text.replace("[", r"\[")


if __name__ == "__main__":
    main()

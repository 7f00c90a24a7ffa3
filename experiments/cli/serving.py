"""Commands around the service: package, serve, swap, monitor, ui."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.options import AsJson, require_html
from experiments.cli.output import NEGATIVE, console, finish, plain

commands = typer.Typer()


@commands.command()
def package(
    models: Annotated[list[str], typer.Argument(help="Registered models, e.g. demo_churn@champion; one or more.")],
    lookalikes: Annotated[bool, typer.Option("--lookalikes", help="Include vectors, for /lookalikes.")] = False,
    as_json: AsJson = False,
) -> None:
    """Package champions as a bento, after proof that it returns what MLflow recorded.

    Example: `journeylab package demo_churn@champion demo_conversion@champion demo_churn_segments@champion`
    """
    from serving.bento.package import package as run

    built = run(models, lookalikes=lookalikes)
    worst = max(built.differences.values())
    note = f"{len(models)} champions, largest difference on recorded journeys {worst:.1e}; it lies in {built.path}"
    result = {"bento": built.tag, "path": str(built.path), "differences": built.differences}
    finish(as_json, note, result, "bento")


@commands.command()
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


@commands.command()
def swap(
    bento: Annotated[str, typer.Argument(help="The tag of the bento whose champions should answer from now on.")],
    port: Annotated[int, typer.Option(min=1, max=65535, help="Where the service listens.")] = 3000,
    as_json: AsJson = False,
) -> None:
    """Put the champions of another bento in service, under load, without a gap; and back again the same way.

    Example: `journeylab swap journeylab:latest --port 3000`
    """
    from serving.bento.swap import swap as run

    versions = run(bento, port=port)
    listed = ", ".join(f"{name} version {version}" for name, version in versions.items())
    finish(as_json, f"In service: {listed}", {"bento": bento, "versions": versions}, "bento")


@commands.command()
def monitor(
    rows: Annotated[Path, typer.Argument(help="The rows of the service: the folder of JOURNEYLAB_MONITOR.")],
    model: Annotated[str, typer.Option(help="The champion, e.g. demo_churn@champion, or its scoring folder.")],
    labels: Annotated[Path | None, typer.Option(help="Outcomes: customer_id (or who), label, cutoff if known.")] = None,
    key_file: Annotated[Path | None, typer.Option(help="The service's key, for labels by customer_id.")] = None,
    since: Annotated[str | None, typer.Option(help="Answers from here on, e.g. 2024-06-01.")] = None,
    until: Annotated[str | None, typer.Option(help="Answers before this moment.")] = None,
    threshold: Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="E.g. psi=0.25; repeat.")] = None,
    out: Annotated[Path | None, typer.Option(help="A page; the same as .json lies beside it.")] = None,
    as_json: AsJson = False,
) -> None:
    """Compare served answers with the training; ends with status 3 when a check is past its threshold.

    Example: `journeylab monitor /var/lib/journeylab/monitor --model demo_churn@champion --out monitor.html`
    """
    from training.monitoring.checks import MonitorThresholds
    from training.monitoring.monitor import monitor as run
    from training.monitoring.page import terminal_table, write_monitor_page

    require_html(out)
    thresholds = MonitorThresholds.of(threshold or [])
    report = run(
        rows, model, labels=labels, since=since, until=until, thresholds=thresholds, key_file=key_file, progress=console
    )
    console.print(terminal_table(report))
    for remark in (*report.alarms, *report.notes):
        console.print(f"  {plain(remark)}", highlight=False, soft_wrap=True)
    content = report.to_dict()
    if out is not None:
        write_monitor_page(report, out)
        out.with_suffix(".json").write_text(json.dumps(content, indent=1, ensure_ascii=False), encoding="utf-8")
    verdict = f"{len(report.alarms)} alarms" if report.alarms else "No alarm"
    note = f"{verdict} in {len(report.checks)} checks of {report.figures['answers']:,.0f} answers"
    finish(as_json, note, {"verdict": verdict, "page": None if out is None else str(out), **content}, "verdict")
    if report.alarms:
        raise typer.Exit(NEGATIVE)


@commands.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="The port to listen on.")] = 5000,
) -> None:
    """Open MLflow on this machine's runs, for the reviewer.

    Example: `journeylab ui --port 5000`, then open http://127.0.0.1:5000
    """
    from training.tracking.tracking import tracking_uri

    uri = tracking_uri()
    if uri.startswith(("http://", "https://")):
        console.print(f"The runs lie on a server, which has pages of its own: open {uri}", highlight=False)
        return
    command = [sys.executable, "-m", "mlflow", "ui", "--host", "127.0.0.1", "--port", str(port)]
    # In the environment: everybody on this machine can read arguments, and a database's URL may hold a password.
    raise typer.Exit(subprocess.call(command, env=os.environ | {"MLFLOW_BACKEND_STORE_URI": uri}))

"""Commands of a reviewer: promote, compare, reproduce."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from experiments.cli.options import AsJson, require_html
from experiments.cli.output import NEGATIVE, console, finish, show_table

commands = typer.Typer()


@commands.command()
def promote(
    model: Annotated[str, typer.Argument(help="A model URI from `train`, e.g. models:/m-0123…, or a run id.")],
    name: Annotated[str | None, typer.Option(help="The registered name; by default the experiment's.")] = None,
    as_json: AsJson = False,
) -> None:
    """Register a model, and make it champion if it is surely no worse than the one there is.

    Both are compared on the same, most recent closed rows that neither was fitted or tuned on.

    Example: `journeylab promote models:/m-0123456789abcdef`
    """
    from training.tracking.champions import promote as run

    promotion = run(model, name=name, progress=console)
    finish(as_json, f"{promotion.alias}: {promotion.reason}", promotion.to_dict(), "model_uri")


@commands.command()
def compare(
    first: Annotated[str, typer.Argument(help="A registered version, an alias, a model URI or a run id.")],
    second: Annotated[str, typer.Argument(help="What to hold it against.")],
    out: Annotated[Path | None, typer.Option(help="Also write a page, e.g. compare.html.")] = None,
    as_json: AsJson = False,
) -> None:
    """Two models of one task side by side: metrics, what made them, and the paired difference on the same rows.

    Example: `journeylab compare demo_churn@champion demo_churn@challenger --out compare.html`
    """
    from training.review.compare import compare as run
    from training.tracking.comparison import write_comparison

    require_html(out)
    comparison = run(first, second, progress=console)
    for frame in (comparison.difference, comparison.slices, comparison.differs):
        show_table(frame)
    if out is not None:
        write_comparison(comparison, out)
    result = {name: getattr(comparison, name) for name in ("verdict", "rows", "change")}
    result["difference"] = comparison.difference.to_dict("records")
    finish(as_json, f"{comparison.rows} {comparison.change}".strip(), result, "verdict")


@commands.command()
def reproduce(
    run: Annotated[str, typer.Argument(help="A run's id in MLflow; a model URI or NAME@champion will do, too.")],
    events: Annotated[Path | None, typer.Option(help="Where the event log lies now, if it has moved.")] = None,
    labels: Annotated[Path | None, typer.Option(help="Where the label table lies now, if it has moved.")] = None,
    as_json: AsJson = False,
) -> None:
    """Make a run again from what MLflow holds; ends with status 3 when a number is not the same.

    The log's fingerprint is checked first. The model is fitted anew, held-out rows are scored, every metric compared.

    Example: `journeylab reproduce demo_churn@champion`
    """
    from training.review.reproduce import reproduce as run_again

    reproduction = run_again(run, events=events, labels=labels, progress=console)
    show_table(reproduction.metrics[reproduction.metrics["difference"] != 0])
    finish(as_json, f"{reproduction.name}, run {reproduction.run_id}", reproduction.to_dict(), "verdict")
    if not reproduction.same:
        raise typer.Exit(NEGATIVE)

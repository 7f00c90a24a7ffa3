"""Options that several commands take."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.errors import ConfigError

STORAGE_HELP = "A PostgreSQL database, postgresql+psycopg://USER@HOST/NAME; its password belongs in PGPASSFILE."

ExperimentFile = Annotated[Path, typer.Argument(help="The experiment file, e.g. experiments/configs/demo.toml.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Override one key of the file; may be repeated."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(metavar="OURS=THEIRS", help="What a log calls its columns, e.g. customer_id=client; repeat."),
]
Engine = Annotated[
    str | None,
    typer.Option(help="`memory`, `disk` (a log larger than memory) or `spark`; by default the log's size decides."),
]
Master = Annotated[str | None, typer.Option(help="Spark's master: `local[2]`, `spark://host:7077`, `yarn` …")]
Conf = Annotated[
    list[str] | None,
    typer.Option("--conf", metavar="KEY=VALUE", help="A setting of Spark, e.g. spark.executor.memory=8g; repeat."),
]
Partitions = Annotated[int | None, typer.Option(min=1, help="Partitions of customers, on disk and Spark.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the result as one line of JSON, as the last line.")]


def require_html(out: Path | None) -> None:
    """Refuse a page's name before the work, not after it, with a `ConfigError`."""
    if out is not None and out.suffix not in (".html", ".htm"):
        raise ConfigError(f"Cannot write {out}: the page is HTML, name a file that ends in .html.")


def column_pairs(option: str, entries: list[str] | None) -> dict[str, str]:
    """Parse `OURS=THEIRS` options; raises a `ConfigError` for anything else."""
    pairs = [entry.partition("=") for entry in entries or ()]
    for ours, equals, theirs in pairs:
        if not (ours and equals and theirs):
            raise ConfigError(f"{option} {ours}{equals}{theirs}: write OURS=THEIRS, such as customer_id=client.")
    return {ours.strip(): theirs.strip() for ours, _, theirs in pairs}

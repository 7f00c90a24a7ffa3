"""Scores for a file of events: what `journeylab score` does.

score_file("models:/demo_churn@champion", Path("events.parquet"), None, Path("scores.csv"))
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from rich.console import Console

from features.errors import ConfigError, DataError
from features.reading import read_table
from features.sources import EventSource, load_log
from models.packaged import Scored, Scorer
from training.progress import say, stage
from training.registry import resolve

WRITERS = {".csv": "CSV", ".parquet": "Parquet"}


def score_file(
    model: str, events: Path, snapshots: Path | None, out: Path, *, progress: Console | None = None
) -> Scored:
    """Score customers of a file, one row out for each row asked for, in the same order.

    Args:
        model: an MLflow model URI as `training.registry.resolve` takes it, or a scoring folder.
        events: a file or folder, raw as the model was trained on or canonical; read through the model's own adapter.
        snapshots: a table of `customer_id, cutoff`; by default every customer, just after the last event.
        out: where to write `customer_id, cutoff`, the answers, `reason`; `.csv` or `.parquet`.
        progress: where to show what is going on.

    Raises:
        ConfigError: no such model; an ending of `out` that is neither.
        DataError: events or snapshots that cannot be used.
    """
    if out.suffix not in WRITERS:
        raise ConfigError(f"Cannot write {out}: name a file that ends in .csv or .parquet.")
    asked = _snapshots(snapshots) if snapshots is not None else None
    scorer = load_scorer(model)
    quarantine = out.with_name(f"{out.stem}_quarantine.csv")
    with stage(progress, f"Reading {events}"):
        log = load_log(EventSource.model_validate(scorer.source).with_path(events), quarantine_path=quarantine)
    with stage(progress, "Scoring"):
        scored = scorer.score_journeys(log.journeys, asked)
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix == ".csv":
        scored.frame.to_csv(out, index=False)
    else:
        scored.frame.to_parquet(out, index=False)
    if log.counts:
        say(progress, f"  {sum(log.counts.values()):,} events set aside, with reasons, in {quarantine}")
    if scored.unknown:
        say(
            progress,
            f"  {sum(scored.unknown.values()):,} events of {len(scored.unknown)} touchpoints unseen in training",
        )
    return scored


def load_scorer(model: str) -> Scorer:
    """The scorer of a model URI or of a scoring folder."""
    folder = Path(model)
    return Scorer.load(folder if folder.is_dir() else resolve(model).folder)


def _snapshots(path: Path) -> pd.DataFrame:
    frame: pd.DataFrame = read_table(path).to_pandas()
    if frame.empty:
        raise DataError(f"{path} has no rows: give a table of customer_id, cutoff with one row a wanted score.")
    return frame

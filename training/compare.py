"""Two runs or registered versions side by side: figures, what made them, and the paired difference on the same rows.

    found = compare("demo_churn@champion", "demo_churn@challenger", progress=Console())
    found.difference                     # AUROC, Brier …: first − second with intervals, or why they do not compare
    write_comparison(found, Path("compare.html"))

The rows are those that decide a promotion: the most recent closed ones that neither was fitted or tuned on
(`training.promotion.comparison_rows`), read anew from the first one's experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.entities import Run
from rich.console import Console

from features.errors import DataError
from features.labels import DAY_US
from features.snapshots import Snapshots
from features.sources import load_journeys
from models.packaged import Scorer
from models.segment_profiles import row_figures
from training.breakdown import by_slice
from training.customer_groups import QUARTERS, quarters
from training.evaluation import paired_bootstrap
from training.map_html import Column, escape, table
from training.map_page import shell
from training.map_parts import Part
from training.progress import stage
from training.promotion import change as changed
from training.promotion import change_sentence
from training.registry import ResolvedModel, comparison_snapshots, experiment_of, resolve
from training.tracking import connect

SHOWN = ("auroc", "average_precision", "brier", "log_loss", "calibration_error")
LESS_IS_BETTER = ("brier", "log_loss", "calibration_error")
MADE_BY = {
    "kind": "kind of model", "train_id": "training", "commit": "commit", "data_fingerprint": "data",
    "labels_fingerprint": "labels", "trained_until": "trained until", "encoder_version": "encoder",
}  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """What two models have in common, and what not.

    Attributes:
        names: how the two were asked for.
        uris: which very models they are.
        metrics: a row a metric and split: `split, metric, first, first_low, first_high, second, …` as recorded.
        difference: a row a metric: `metric, difference, difference_low, difference_high, said` on the same rows;
            empty where there are none.
        slices: a row a slice: `slice, rows, first, second`, AUROC on the same rows.
        differs: a row a parameter or circumstance that is not the same: `what, first, second`.
        rows: which rows they were compared on, or why on none.
        verdict: one sentence.
        change: what would be different for those who act on the scores, if the second gave way to the first.
    """

    names: tuple[str, str]
    uris: tuple[str, str]
    metrics: pd.DataFrame
    difference: pd.DataFrame
    slices: pd.DataFrame
    differs: pd.DataFrame
    rows: str
    verdict: str
    change: str = ""


def compare(first: str, second: str, *, progress: Console | None = None, n_boot: int = 2000) -> Compared:
    """Compare two models of one task.

    Args:
        first: as `training.registry.resolve` takes it: a registered version, an alias, a model's or a run's id.
        second: likewise.
        progress: where to show what is going on.
        n_boot: replicates of the paired bootstrap.

    Raises:
        ConfigError: there is no such model.
        DataError: the two answer different questions.
    """
    client = connect()
    models = resolve(first, client), resolve(second, client)
    runs = client.get_run(models[0].run_id), client.get_run(models[1].run_id)
    _same_task(models)
    difference, slices, rows, change = _on_the_same_rows(models, progress, n_boot)
    return Compared(
        names=(first, second),
        uris=(models[0].uri, models[1].uri),
        metrics=_recorded(runs),
        difference=difference,
        slices=slices,
        differs=_differs(runs),
        rows=rows,
        verdict=_verdict(difference, rows),
        change=change,
    )


def _same_task(models: tuple[ResolvedModel, ResolvedModel]) -> None:
    one, other = (model.tags.get("task", "") for model in models)
    if one != other:
        raise DataError(f"The first is of task '{one}', the second of '{other}': they answer different questions.")
    if models[0].tags.get("judged_by") == "stability":
        raise DataError(f"'{one}' are segments, which are judged by stability: see the run's page and `promote`.")


def _recorded(runs: tuple[Run, Run]) -> pd.DataFrame:
    """The metrics that both runs recorded, with their intervals."""
    rows = []
    for split in ("validation", "test"):
        for metric in SHOWN:
            row: dict[str, Any] = {"split": "held out" if split == "test" else split, "metric": metric}
            for side, run in zip(("first", "second"), runs, strict=True):
                for end in ("", "_low", "_high"):
                    row[f"{side}{end}"] = run.data.metrics.get(f"{split}_{metric}{end}", np.nan)
            rows.append(row)
    return pd.DataFrame(rows).dropna(subset=["first", "second"], how="all").reset_index(drop=True)


def _differs(runs: tuple[Run, Run]) -> pd.DataFrame:
    """Parameters and circumstances that are not the same."""
    one, other = ({**_circumstances(run.data.tags), **run.data.params} for run in runs)
    names = [name for name in dict.fromkeys([*one, *other]) if one.get(name) != other.get(name)]
    rows = [{"what": name, "first": one.get(name, "–"), "second": other.get(name, "–")} for name in names]
    return pd.DataFrame(rows, columns=["what", "first", "second"])


def _circumstances(tags: Mapping[str, str]) -> dict[str, str]:
    return {said: str(tags[tag])[:16] for tag, said in MADE_BY.items() if tags.get(tag)}


def _on_the_same_rows(
    models: tuple[ResolvedModel, ResolvedModel], progress: Console | None, n_boot: int
) -> tuple[pd.DataFrame, pd.DataFrame, str, str]:
    experiment = experiment_of(models[0])
    empty = pd.DataFrame(columns=["metric", "difference", "difference_low", "difference_high", "said"])
    try:
        with stage(progress, f"Reading {experiment.events.path}"):
            journeys = load_journeys(experiment.events)
        snapshots, y, said = comparison_snapshots(experiment, journeys, list(models))
    except DataError as error:
        return empty, pd.DataFrame(columns=["slice", "rows", "first", "second"]), f"They were not compared: {error}", ""
    with stage(progress, f"Scoring {len(snapshots):,} rows with both"):
        p, q = (Scorer.load(model.folder).probabilities(snapshots) for model in models)
    customers = snapshots.customer_ids
    paired = paired_bootstrap(y, p, q, customers, n_boot=n_boot, seed=experiment.seed)
    rows = [_difference(metric, paired) for metric in SHOWN if f"{metric}_difference" in paired]
    slices = _by_slices(snapshots, y, p, q)
    return pd.DataFrame(rows, columns=empty.columns), slices, said, change_sentence(changed(p, q))


def _difference(metric: str, paired: Mapping[str, float]) -> dict[str, Any]:
    found, low, high = (paired[f"{metric}_difference{end}"] for end in ("", "_low", "_high"))
    better = (high < 0) if metric in LESS_IS_BETTER else (low > 0)
    worse = (low > 0) if metric in LESS_IS_BETTER else (high < 0)
    said = "the first is surely better" if better else "the second is surely better" if worse else "no sure difference"
    return {"metric": metric, "difference": found, "difference_low": low, "difference_high": high, "said": said}


def _by_slices(
    snapshots: Snapshots, y: npt.NDArray[np.int8], p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]
) -> pd.DataFrame:
    """AUROC of both for quarters of tenure and of value: on which customers does which one fail?"""
    first = snapshots.journeys.t[snapshots.start]
    tenure = (snapshots.cutoff - first) / DAY_US
    figures = {"known for": (tenure, "days"), "value": (row_figures(snapshots).value, "")}
    parts = []
    for name, (values, unit) in figures.items():
        if np.isnan(values).all() or len(np.unique(values)) < QUARTERS:
            continue
        label = quarters(values, unit)
        label = np.array([f"{name}: {text}" for text in label], dtype=object)
        one, other = (by_slice(y, each, snapshots.customer_ids, label, n_boot=0) for each in (p, q))
        joined = one[["slice", "n_rows", "auroc"]].merge(other[["slice", "auroc"]], on="slice")
        parts.append(joined.set_axis(["slice", "rows", "first", "second"], axis=1))
    return pd.concat(parts, ignore_index=True) if parts else pd.DataFrame(columns=["slice", "rows", "first", "second"])


def _verdict(difference: pd.DataFrame, rows: str) -> str:
    if difference.empty:
        return rows
    by = difference.set_index("metric")["said"]
    if (by == "no sure difference").all():
        return "Neither is surely better on the same rows."
    told = [f"{metric}: {said}" for metric, said in by.items() if said != "no sure difference"]
    return f"On the same rows, {'; '.join(told)}."


SIDES = (Column("first", "First", "fine"), Column("second", "Second", "fine"))


def write_comparison(found: Compared, path: Path) -> Path:
    """The comparison as one page that opens offline.

    Args:
        found: by `compare`.
        path: of the HTML file.
    """
    named = f"<p>First: {escape(found.names[0])}. Second: {escape(found.names[1])}. {escape(found.rows)}</p>"
    verdict = f"<p><strong>{escape(found.verdict)}</strong></p><p>{escape(found.change)}</p>"
    header = f"<header><h1>Two models side by side</h1>{named}{verdict}</header>"
    whose = (Column("difference", "First − second", "fine"), Column("said", "In words", "said"))
    parts = [
        Part("same", "On the same rows", "Intervals are 95 %, customers drawn together for both.", table(
            found.difference, (Column("metric", "Metric", "name"), *whose), "Paired differences.")),
        Part("metrics", "As recorded in MLflow", "", table(
            found.metrics, (Column("metric", "Metric", "name"), Column("split", "Rows", "text"), *SIDES),
            "With 95 % intervals.")),
        Part("slices", "Kinds of customers", "AUROC on the same rows.", table(
            found.slices, (Column("slice", "Customers", "name"), Column("rows", "Rows"), *SIDES),
            "Quarters of tenure and of value.")),
        Part("differs", "What is not the same", "", table(
            found.differs, (Column("what", "What", "name"), Column("first", "First", "text"),
            Column("second", "Second", "text")), "Parameters, data and code.")),
    ]  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(shell("Two models side by side", header, parts), encoding="utf-8")
    return path

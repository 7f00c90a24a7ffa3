"""Two runs or registered versions side by side: figures, what made them, and the paired difference on the same rows.

    found = compare("demo_churn@champion", "demo_churn@challenger", progress=Console())
    found.difference                     # AUROC, Brier …: first − second with intervals, or why they do not compare
    write_comparison(found, Path("compare.html"))

The rows are those that decide a promotion: the most recent closed ones that neither was fitted or tuned on
(`training.tracking.promotion.comparison_rows`), read anew from the first one's experiment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from features.errors import DataError
from features.journeys.journeys import Snapshots
from features.journeys.loading import load_journeys
from features.labels.task import PROBABILITY_METRICS
from models.scoring.scorer import Scorer
from training.evaluation.customer_groups import FEWEST_EACH, customer_slices
from training.evaluation.metrics import evaluate, paired_bootstrap
from training.progress import stage
from training.reports.blocks import Block, Column, Intervals, Table
from training.reports.pages import Fact, Page, Section, write_page
from training.tracking.promotion import change as changed
from training.tracking.promotion import change_sentence
from training.tracking.registry import ResolvedModel, comparison_snapshots, experiment_of, resolve
from training.tracking.tracking import connect

SHOWN = ("auroc", "average_precision", "brier", "log_loss", "calibration_error")
METRIC_TITLES = {metric.name: metric.title for metric in PROBABILITY_METRICS}
LESS_IS_BETTER = tuple(metric.name for metric in PROBABILITY_METRICS if not metric.higher_is_better)
MADE_BY = {
    "kind": "kind of model", "train_id": "training", "commit": "commit", "data_fingerprint": "data",
    "labels_fingerprint": "labels", "trained_until": "trained until", "encoder_version": "encoder",
}  # fmt: skip


SLICE_COLUMNS = ("slice", "rows", "first", "second", "difference", "difference_low", "difference_high")
DIFFERENCE_COLUMNS = ("metric", "difference", "difference_low", "difference_high", "said")
N_BOOT_SLICE = 300


@dataclass(frozen=True)
class SameRows:
    """Rows that two models have scored.

    Attributes:
        snapshots: (n,) the rows.
        y: (n,) labels.
        p: (n,) probabilities by the first.
        q: (n,) probabilities by the second.
        said: which rows they are.
        seed: of the resampling.
    """

    snapshots: Snapshots
    y: npt.NDArray[np.int8]
    p: npt.NDArray[np.float64]
    q: npt.NDArray[np.float64]
    said: str
    seed: int = 0


@dataclass(frozen=True)
class Compared:
    """What two models have in common, and what not.

    Attributes:
        names: how the two were asked for.
        uris: which very models they are.
        metrics: a row a metric and split: `split, metric, first, first_low, first_high, second, …` as recorded.
        difference: a row a metric: `metric, difference, difference_low, difference_high, said` on the same rows;
            empty where there are none.
        slices: a row a slice: `slice, rows, first, second`, AUROC on the same rows, and `difference` with interval.
        differs: a row a parameter or circumstance that is not the same: `what, first, second`.
        rows: which rows they were compared on, or why on none.
        verdict: one sentence.
        change: what would be different for those who act on the scores, if the second gave way to the first.
        called: what to call the two: model and version, or model and run.
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
    called: tuple[str, str] = ("first", "second")


def compare(first: str, second: str, *, progress: Console | None = None, n_boot: int = 2000) -> Compared:
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
    _same_task(models)
    try:
        same = _read_and_score(models, progress)
    except DataError as error:
        return side_by_side((first, second), models, f"They were not compared: {error}", client)
    return side_by_side((first, second), models, same, client, n_boot=n_boot)


def side_by_side(
    names: tuple[str, str],
    models: tuple[ResolvedModel, ResolvedModel],
    same: SameRows | str,
    client: MlflowClient,
    *,
    n_boot: int = 2000,
) -> Compared:
    """Compare two models on rows that are scored already.

    Args:
        names: how the two were asked for.
        models: the two.
        same: the rows and both models' answers, or why there are none.
        client: of the store.
        n_boot: replicates of the paired bootstrap.
    """
    runs = client.get_run(models[0].run_id), client.get_run(models[1].run_id)
    rows = same if isinstance(same, str) else same.said
    difference, slices, change = _empty() if isinstance(same, str) else _on_the_same_rows(same, n_boot)
    return Compared(
        names=names,
        uris=(models[0].uri, models[1].uri),
        metrics=_recorded(runs),
        difference=difference,
        slices=slices,
        differs=_differs(runs),
        rows=rows,
        verdict=_verdict(difference, rows),
        change=change,
        called=_called(names, runs),
    )


def _called(names: tuple[str, str], runs: tuple[Run, Run]) -> tuple[str, str]:
    """The names of the two runs, and where they are the same, what tells them apart."""
    own = tuple(str(run.info.run_name) for run in runs)
    told = [name.removeprefix("models:/") for name in names]
    shown = [f"{one} ({asked})" if "@" in asked or "/" in asked else one for one, asked in zip(own, told, strict=True)]
    if shown[0] == shown[1]:
        shown = [f"{one} ({run.info.run_id[:8]})" for one, run in zip(own, runs, strict=True)]
    return shown[0], shown[1]


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


def _read_and_score(models: tuple[ResolvedModel, ResolvedModel], progress: Console | None) -> SameRows:
    experiment = experiment_of(models[0])
    with stage(progress, f"Reading {experiment.events.path}"):
        journeys = load_journeys(experiment.events)
    snapshots, y, said = comparison_snapshots(experiment, journeys, list(models))
    with stage(progress, f"Scoring {len(snapshots):,} rows with both"):
        p, q = (Scorer.load(model.folder).probabilities(snapshots) for model in models)
    return SameRows(snapshots, y, p, q, said, experiment.seed)


def _empty() -> tuple[pd.DataFrame, pd.DataFrame, str]:
    return pd.DataFrame(columns=list(DIFFERENCE_COLUMNS)), pd.DataFrame(columns=list(SLICE_COLUMNS)), ""


def _on_the_same_rows(same: SameRows, n_boot: int) -> tuple[pd.DataFrame, pd.DataFrame, str]:
    customers = same.snapshots.customer_ids
    paired = paired_bootstrap(same.y, same.p, same.q, customers, n_boot=n_boot, seed=same.seed)
    rows = [_difference(metric, paired) for metric in SHOWN if f"{metric}_difference" in paired]
    slices = _by_slices(same.snapshots, same.y, same.p, same.q)
    return pd.DataFrame(rows, columns=list(DIFFERENCE_COLUMNS)), slices, change_sentence(changed(same.p, same.q))


def _difference(metric: str, paired: Mapping[str, float]) -> dict[str, Any]:
    found, low, high = (paired[f"{metric}_difference{end}"] for end in ("", "_low", "_high"))
    better = (high < 0) if metric in LESS_IS_BETTER else (low > 0)
    worse = (low > 0) if metric in LESS_IS_BETTER else (high < 0)
    said = "the first is surely better" if better else "the second is surely better" if worse else "no sure difference"
    return {"metric": metric, "difference": found, "difference_low": low, "difference_high": high, "said": said}


def _by_slices(
    snapshots: Snapshots, y: npt.NDArray[np.int8], p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]
) -> pd.DataFrame:
    """AUROC of both on each kind of customer, and the paired difference: on which customers does which one fail?"""
    rows = []
    for kind, groups in customer_slices(snapshots, snapshots).items():
        for group in sorted(set(groups)):
            own = groups == group
            row = {"slice": f"{kind}: {group}", "rows": int(own.sum())}
            if FEWEST_EACH <= y[own].sum() <= own.sum() - FEWEST_EACH:
                row |= _on_slice(y[own], p[own], q[own], snapshots.customer_ids[own])
            rows.append(row)
    return pd.DataFrame(rows, columns=list(SLICE_COLUMNS))


def _on_slice(
    y: npt.NDArray[np.int8], p: npt.NDArray[np.float64], q: npt.NDArray[np.float64], customers: npt.NDArray[Any]
) -> dict[str, float]:
    one, other = (evaluate(y, each, customers, n_boot=0)["auroc"] for each in (p, q))
    paired = paired_bootstrap(y, p, q, customers, n_boot=N_BOOT_SLICE)
    return {"first": one, "second": other} | {
        f"difference{end}": paired[f"auroc_difference{end}"] for end in ("", "_low", "_high")
    }


def _verdict(difference: pd.DataFrame, rows: str) -> str:
    if difference.empty:
        return rows
    by = difference.set_index("metric")["said"]
    if (by == "no sure difference").all():
        return "Neither is surely better on the same rows."
    told = [f"{metric}: {said}" for metric, said in by.items() if said != "no sure difference"]
    return f"On the same rows, {'; '.join(told)}."


def write_comparison(found: Compared, path: Path) -> Path:
    """The comparison as one page that opens offline.

    Args:
        found: by `compare`.
        path: of the HTML file.
    """
    sides = zip(("First", "Second"), found.called, found.uris, strict=True)
    page = Page(
        title=f"Side by side: {' and '.join(found.called)}",
        facts=[Fact(side, called, uri) for side, called, uri in sides],
        verdict=found.verdict,
        remarks=[found.rows, found.change] if found.change else [found.rows],
        sections=_sections(found),
    )
    return write_page(page, path)


def _sections(found: Compared) -> list[Section]:
    difference, metrics = (
        frame.assign(metric=[METRIC_TITLES.get(metric, metric) for metric in frame["metric"]])
        for frame in (found.difference, found.metrics)
    )
    first, second = found.called
    gap = Column("difference", "First − second", "metric")
    sides = (Column("first", f"First: {first}", "metric"), Column("second", f"Second: {second}", "metric"))
    texts = (Column("first", first, "text"), Column("second", second, "text"))
    metric, in_words = Column("metric", "Metric", "name"), Column("said", "In words", "sentence")
    how = (
        "To the right of the line the first is better, to the left the second. Intervals are 95 %, the same customers "
        "drawn for both; where one crosses the line, which is better is not sure."
    )
    slices_how = "AUROC on the same rows; 95 % intervals, each by itself: of twenty kinds one is off by chance."
    slices = Table(
        found.slices.dropna(subset=["first"]),
        (Column("slice", "Customers", "name"), Column("rows", "Rows"), *sides, gap),
        f"By tenure, RFM segment, value tier and channel, where {FEWEST_EACH} rows or more had either outcome.",
    )
    recorded = Table(metrics, (metric, Column("split", "Rows", "text"), *sides), "With 95 % intervals.")
    causes = Table(found.differs, (Column("what", "What", "name"), *texts), "Parameters, data and code.")
    paired = Table(difference, (metric, gap, in_words), "Paired differences.")
    return [
        Section("same", "On the same rows", [*_intervals(found.difference), paired], how),
        Section("slices", "Kinds of customers", [slices], slices_how),
        Section("metrics", "As recorded in MLflow", [recorded], "Each on the rows of its own training."),
        Section("differs", "What is not the same", [causes]),
    ]


def _intervals(difference: pd.DataFrame) -> list[Block]:
    """Each paired difference as a dot on its interval, turned so that right is better for the first."""
    if difference.empty:
        return []
    places = difference[["difference", "difference_low", "difference_high"]].to_numpy(np.float64)
    turned = np.where(difference["metric"].isin(LESS_IS_BETTER), -1.0, 1.0)[:, None] * places
    names = [METRIC_TITLES.get(metric, metric) for metric in difference["metric"]]
    return [Intervals(names, places[:, 0].tolist(), [(dot, low, high) for dot, low, high in turned.tolist()])]

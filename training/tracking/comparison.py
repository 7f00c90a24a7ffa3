"""Two models side by side: recorded metrics, what made them, and the paired difference on the same rows.

    rows = score_rows(experiment, journeys, models)
    comparison = side_by_side(names, models, rows, client)
    comparison.difference                # AUROC, Brier …: first − second with intervals, or why they do not compare
    write_comparison(comparison, Path("compare.html"))

The rows are the most recent closed ones that no model was fitted or tuned on
(`training.tracking.promotion.comparison_rows`). `training.review.compare` asks for it, and so does a promotion.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import Run
from rich.console import Console

from features.journeys.journeys import Journeys, Snapshots
from features.labels.task import PROBABILITY_METRICS
from features.timestamps import DAY_US, microseconds
from models.scoring.scorer import Scorer
from training.config.experiment import Experiment
from training.evaluation.customer_groups import FEWEST_EACH, customer_slices
from training.evaluation.metrics import evaluate, paired_bootstrap
from training.progress import stage
from training.reports.blocks import Intervals, PageBlock, PageColumn, Table
from training.reports.pages import Fact, Page, PageSection, write_page
from training.tracking.promotion import change as score_change
from training.tracking.promotion import change_sentence, comparison_rows
from training.tracking.registry import ResolvedModel

METRIC_TITLES = {metric.name: metric.title for metric in PROBABILITY_METRICS}
LOWER_IS_BETTER = {metric.name for metric in PROBABILITY_METRICS if not metric.higher_is_better}
METRICS = ("auroc", "average_precision", "brier", "log_loss", "calibration_error")
CIRCUMSTANCES = {
    "kind": "kind of model", "train_id": "training", "commit": "commit", "data_fingerprint": "data",
    "labels_fingerprint": "labels", "trained_until": "trained until", "encoder_version": "encoder",
}  # fmt: skip
ENDS = ("", "_low", "_high")
SLICES = ["slice", "rows", "first", "second", *(f"difference{end}" for end in ENDS)]
DIFFERENCES = ["metric", *(f"difference{end}" for end in ENDS), "verdict"]
UNDECIDED = "no sure difference"
N_BOOT_SLICE = 300
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class ScoredRows:
    """Rows that several models have scored.

    Attributes:
        snapshots: (n,) the rows.
        y: (n,) labels.
        scores: (n,) probabilities by each model.
        sentence: which rows they are.
        seed: of the resampling.
    """

    snapshots: Snapshots
    y: npt.NDArray[np.int8]
    scores: tuple[Floats, ...]
    sentence: str
    seed: int = 0


@dataclass(frozen=True)
class ModelComparison:
    """Two models side by side.

    Attributes:
        uris: of the two.
        metrics: a row a metric and split: `split, metric, first, first_low, first_high, second, …` as recorded.
        difference: a row a metric: `metric, difference, difference_low, difference_high, verdict` on the same rows;
            empty where there are none.
        slices: a row a slice: `slice, rows, first, second`, AUROC on the same rows, and `difference` with interval.
        differs: a row a parameter or circumstance that is not the same: `what, first, second`.
        rows: which rows they were compared on, or why on none.
        verdict: one sentence.
        change: the effect on those who act on the scores, if the second gave way to the first.
        titles: of the two: model and version, or model and run.
    """

    uris: tuple[str, str]
    metrics: pd.DataFrame
    difference: pd.DataFrame
    slices: pd.DataFrame
    differs: pd.DataFrame
    rows: str
    verdict: str
    change: str
    titles: tuple[str, str]


def score_rows(
    experiment: Experiment, journeys: Journeys, models: Sequence[ResolvedModel], progress: Console | None = None
) -> ScoredRows:
    """Score the most recent closed rows that none of the models has seen.

    Args:
        experiment: whose rows.
        journeys: of its log.
        models: the models.
        progress: where to show what is going on.

    Raises:
        DataError: there is no such row.
    """
    table = experiment.build_labels(journeys)
    rows = comparison_rows(
        microseconds(table["cutoff"]),
        round(experiment.task.horizon_days * DAY_US),
        observed_until_us=experiment.task.period(journeys.start_us, journeys.end_us).end_us,
        trained_until_us=[model.trained_until_us for model in models],
    )
    table = table.iloc[rows.rows].reset_index(drop=True)
    snapshots = journeys.at_ids(table)
    with stage(progress, f"Scoring {len(snapshots):,} rows with {len(models)} models"):
        scores = tuple(Scorer.load(model.folder).probabilities(snapshots) for model in models)
    return ScoredRows(snapshots, table["label"].to_numpy(np.int8), scores, rows.sentence, experiment.seed)


def side_by_side(
    names: tuple[str, str],
    models: tuple[ResolvedModel, ResolvedModel],
    rows: ScoredRows | str,
    client: MlflowClient,
    *,
    n_boot: int = 2000,
) -> ModelComparison:
    """Compare two models on rows that are scored already.

    Args:
        names: how the user named the two.
        models: the two.
        rows: the rows with the scores of both, or why there are none.
        client: of the store.
        n_boot: replicates of the paired bootstrap.
    """
    runs = client.get_run(models[0].run_id), client.get_run(models[1].run_id)
    sentence, difference, slices, change = (
        str(rows),
        pd.DataFrame(columns=DIFFERENCES),
        pd.DataFrame(columns=SLICES),
        "",
    )
    if isinstance(rows, ScoredRows):
        sentence, difference = rows.sentence, _differences(rows, n_boot)
        slices, change = _slices(rows), change_sentence(score_change(*rows.scores))
    return ModelComparison(
        uris=(models[0].uri, models[1].uri),
        metrics=_recorded(runs),
        difference=difference,
        slices=slices,
        differs=_differs(runs),
        rows=sentence,
        verdict=_verdict(difference, sentence),
        change=change,
        titles=_titles(names, runs),
    )


def _titles(names: tuple[str, str], runs: tuple[Run, Run]) -> tuple[str, str]:
    """The names of the two runs, with the version or the run's id where they are the same."""
    run_names = [str(run.info.run_name) for run in runs]
    versions = [name.removeprefix("models:/") for name in names]
    first, second = (
        f"{name} ({version})" if "@" in version or "/" in version else name
        for name, version in zip(run_names, versions, strict=True)
    )
    if first == second:
        first, second = (f"{name} ({run.info.run_id[:8]})" for name, run in zip(run_names, runs, strict=True))
    return first, second


def _recorded(runs: tuple[Run, Run]) -> pd.DataFrame:
    """The metrics that both runs recorded, with their intervals."""
    rows = []
    for split in ("validation", "test"):
        for metric in METRICS:
            row: dict[str, Any] = {"split": "held out" if split == "test" else split, "metric": metric}
            for side, run in zip(("first", "second"), runs, strict=True):
                for end in ENDS:
                    row[f"{side}{end}"] = run.data.metrics.get(f"{split}_{metric}{end}", np.nan)
            rows.append(row)
    return pd.DataFrame(rows).dropna(subset=["first", "second"], how="all").reset_index(drop=True)


def _differs(runs: tuple[Run, Run]) -> pd.DataFrame:
    """Parameters and circumstances that are not the same."""
    first, second = ({**_circumstances(run.data.tags), **run.data.params} for run in runs)
    names = [name for name in dict.fromkeys([*first, *second]) if first.get(name) != second.get(name)]
    rows = [{"what": name, "first": first.get(name, "–"), "second": second.get(name, "–")} for name in names]
    return pd.DataFrame(rows, columns=["what", "first", "second"])


def _circumstances(tags: Mapping[str, str]) -> dict[str, str]:
    return {title: str(tags[tag])[:16] for tag, title in CIRCUMSTANCES.items() if tags.get(tag)}


def _differences(rows: ScoredRows, n_boot: int) -> pd.DataFrame:
    """Paired differences, a row a metric."""
    customers, (p, q) = rows.snapshots.customer_ids, rows.scores
    paired = paired_bootstrap(rows.y, p, q, customers, n_boot=n_boot, seed=rows.seed)
    table = [_difference(metric, paired) for metric in METRICS if f"{metric}_difference" in paired]
    return pd.DataFrame(table, columns=DIFFERENCES)


def _difference(metric: str, paired: Mapping[str, float]) -> dict[str, Any]:
    difference, low, high = (paired[f"{metric}_difference{end}"] for end in ENDS)
    better, worse = (high < 0, low > 0) if metric in LOWER_IS_BETTER else (low > 0, high < 0)
    verdict = UNDECIDED
    if better or worse:
        verdict = f"the {'first' if better else 'second'} is surely better"
    return dict(zip(DIFFERENCES, (metric, difference, low, high, verdict), strict=True))


def _slices(rows: ScoredRows) -> pd.DataFrame:
    """AUROC of both on each kind of customer, and the paired difference: on which customers does which one fail?"""
    table = []
    for kind, groups in customer_slices(rows.snapshots, rows.snapshots).items():
        for group in sorted(set(groups)):
            chosen = groups == group
            row: dict[str, Any] = {"slice": f"{kind}: {group}", "rows": int(chosen.sum())}
            y, customers = rows.y[chosen], rows.snapshots.customer_ids[chosen]
            if FEWEST_EACH <= y.sum() <= len(y) - FEWEST_EACH:
                p, q = (scores[chosen] for scores in rows.scores)
                row["first"], row["second"] = (evaluate(y, each, customers, n_boot=0)["auroc"] for each in (p, q))
                paired = paired_bootstrap(y, p, q, customers, n_boot=N_BOOT_SLICE)
                row |= {f"difference{end}": paired[f"auroc_difference{end}"] for end in ENDS}
            table.append(row)
    return pd.DataFrame(table, columns=SLICES)


def _verdict(difference: pd.DataFrame, rows: str) -> str:
    if difference.empty:
        return rows
    sure = difference[difference["verdict"] != UNDECIDED]
    if sure.empty:
        return "Neither is surely better on the same rows."
    verdicts = [f"{metric}: {verdict}" for metric, verdict in zip(sure["metric"], sure["verdict"], strict=True)]
    return f"On the same rows, {'; '.join(verdicts)}."


def write_comparison(comparison: ModelComparison, path: Path) -> Path:
    """The comparison as one page that opens offline.

    Args:
        comparison: by `side_by_side`.
        path: of the HTML file.
    """
    sides = zip(("First", "Second"), comparison.titles, comparison.uris, strict=True)
    page = Page(
        title=f"Side by side: {' and '.join(comparison.titles)}",
        facts=[Fact(side, called, uri) for side, called, uri in sides],
        verdict=comparison.verdict,
        remarks=[comparison.rows, comparison.change] if comparison.change else [comparison.rows],
        sections=_sections(comparison),
    )
    return write_page(page, path)


def _sections(comparison: ModelComparison) -> list[PageSection]:
    difference, metrics = (
        frame.assign(metric=[METRIC_TITLES.get(metric, metric) for metric in frame["metric"]])
        for frame in (comparison.difference, comparison.metrics)
    )
    first, second = comparison.titles
    gap = PageColumn("difference", "First − second", "metric")
    sides = (PageColumn("first", f"First: {first}", "metric"), PageColumn("second", f"Second: {second}", "metric"))
    texts = (PageColumn("first", first, "text"), PageColumn("second", second, "text"))
    metric, in_words = PageColumn("metric", "Metric", "name"), PageColumn("verdict", "In words", "sentence")
    how = (
        "To the right of the line the first is better, to the left the second. Intervals are 95 %, the same customers "
        "drawn for both; where one crosses the line, which is better is not sure."
    )
    slices_how = "AUROC on the same rows; 95 % intervals, each by itself: of twenty kinds one is off by chance."
    slices = Table(
        comparison.slices.dropna(subset=["first"]),
        (PageColumn("slice", "Customers", "name"), PageColumn("rows", "Rows"), *sides, gap),
        f"By tenure, RFM segment, value tier and channel, where {FEWEST_EACH} rows or more had either outcome.",
    )
    recorded = Table(metrics, (metric, PageColumn("split", "Rows", "text"), *sides), "With 95 % intervals.")
    causes = Table(comparison.differs, (PageColumn("what", "What", "name"), *texts), "Parameters, data and code.")
    paired = Table(difference, (metric, gap, in_words), "Paired differences.")
    return [
        PageSection("same", "On the same rows", [*_intervals(comparison.difference), paired], how),
        PageSection("slices", "Kinds of customers", [slices], slices_how),
        PageSection("metrics", "As recorded in MLflow", [recorded], "Each on the rows of its own training."),
        PageSection("differs", "What is not the same", [causes]),
    ]


def _intervals(difference: pd.DataFrame) -> list[PageBlock]:
    """Each paired difference as a dot on its interval, turned so that right is better for the first."""
    if difference.empty:
        return []
    places = difference[["difference", "difference_low", "difference_high"]].to_numpy(np.float64)
    turned = np.where(difference["metric"].isin(LOWER_IS_BETTER), -1.0, 1.0)[:, None] * places
    names = [METRIC_TITLES.get(metric, metric) for metric in difference["metric"]]
    return [Intervals(names, places[:, 0].tolist(), [(dot, low, high) for dot, low, high in turned.tolist()])]

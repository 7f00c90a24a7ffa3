"""The rules of promotion: statistics on predictions, without MLflow. `training.tracking.champions` applies them.

Models are compared on rows that none has seen, by the `PromotionRule` of their task. For probabilities: a challenger
takes over from a champion only if, on the same rows, the 95 % interval of the AUROC difference (challenger − champion)
stays above −0.005 and the Brier score is not surely worse. The first champion must surely beat each baseline. Segments
are judged by stability: clusters of resampled customers must agree, and customers must keep their segments.
Everything else stays a challenger, with the reason in a sentence.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import ConfigError, DataError
from features.labels.task import Task
from training.evaluation.families import compare_answers, metric_rows

FEWEST_EACH = 50  # of each class: below, the interval of an AUROC difference is wider than any gain
FEWEST_CUSTOMERS = 50
STABLE, LESS_STABLE = 0.8, 0.05  # adjusted Rand index of bootstrap samples: at least, and how much below the champion's
LEAST_KEPT = 0.8  # share of the customers who keep their segment


@dataclass(frozen=True)
class Decision:
    """The alias of a version, and why.

    Attributes:
        alias: "champion" if it may take over, else "challenger".
        reason: a sentence with the figures that decided.
        figures: by opponent ("champion" or the baseline's name), the paired differences.
    """

    alias: Literal["champion", "challenger"]
    reason: str
    figures: dict[str, dict[str, float]] = field(default_factory=dict)


def decide(
    y: npt.ArrayLike,
    p_challenger: npt.ArrayLike,
    p_champion: npt.ArrayLike | None,
    baselines: Mapping[str, npt.ArrayLike],
    customers: npt.ArrayLike,
    *,
    task: type[Task] = Task,
    n_boot: int = 2000,
    seed: int = 0,
    fewest_each: int = FEWEST_EACH,
    fewest_customers: int = FEWEST_CUSTOMERS,
) -> Decision:
    """Apply the rule to predictions on the rows that `comparison_rows` chose.

    Args:
        y: (n,) labels.
        p_challenger: (n,) predictions of the version to promote.
        p_champion: (n,) predictions of the present champion, None if there is none.
        baselines: (n,) predictions by name; they decide only where there is no champion.
        customers: (n,) the customer of each row.
        task: the kind of task, which has the rule; probabilities by default.
        n_boot: replicates.
        seed: of the resampling.
        fewest_each: of each class, such as positives and negatives, that a decision needs.
        fewest_customers: customers that a decision needs.

    Raises:
        DataError: predictions or labels that the task's metrics refuse, unequal lengths.
    """
    labels, answer = np.asarray(y).reshape(-1), task.answers[0]
    classes = task.class_counts(labels)
    n_customers = metric_rows(task, labels, {answer: p_challenger}, customers).n_customers
    if min(classes.values()) < fewest_each or n_customers < fewest_customers:
        counts = " and ".join(f"{count:,} {name}" for name, count in classes.items())
        return Decision(
            "challenger",
            f"Too few closed rows to decide: {counts} of {n_customers:,} customers, at least {fewest_each:,} of each "
            f"class and {fewest_customers:,} customers are needed. Wait for more label windows to close.",
        )

    def differences(p_opponent: npt.ArrayLike) -> dict[str, float]:
        new, old = {answer: p_challenger}, {answer: p_opponent}
        return compare_answers(task, labels, new, old, customers, n_boot=n_boot, seed=seed)

    if p_champion is not None:
        return _against_champion(task, differences(p_champion))
    if not baselines:
        return Decision("challenger", "No champion yet and no baselines to beat: train the baselines beside the model.")
    return _decide_first_champion(task, {name: differences(p) for name, p in baselines.items()})


def decide_by_stability(candidate: Mapping[str, float], champion: Mapping[str, float] | None) -> Decision:
    """Whether new segments may take the place of those in use.

    Args:
        candidate: metrics of its run: `stability` where segments were found and not set by rules alone, `kept_share`
            where they were matched with those in use.
        champion: metrics of the run in use; None where there is none.
    """
    stability, kept = candidate.get("stability"), candidate.get("kept_share")
    figures = {"stability": {name: value for name, value in candidate.items() if name in ("stability", "kept_share")}}
    if stability is None:
        return Decision("champion", "Its segments are set by rules, which are stable by what they are.", figures)
    text = f"stability {stability:.2f} (adjusted Rand index of resampled fits)"
    if stability < STABLE:
        reason = f"Its segments would change with the sample: {text}, {STABLE} is the least."
        return Decision("challenger", reason, figures)
    if champion is None:
        return Decision("champion", f"First champion: {text}.", figures)
    before = champion.get("stability", 0.0)
    text += f" against {before:.2f}"
    if stability < before - LESS_STABLE:
        return Decision("challenger", f"It is less stable than the champion: {text}.", figures)
    if kept is None:
        return Decision("challenger", "It was not matched with the segments in use: segment again.", figures)
    if kept < LEAST_KEPT:
        reason = f"Only {kept:.0%} of the customers would keep their segment, {LEAST_KEPT:.0%} is the least; {text}."
        return Decision("challenger", reason, figures)
    return Decision("champion", f"As stable as the champion: {text}; {kept:.0%} of the customers keep theirs.", figures)


def change(p_new: npt.ArrayLike, p_old: npt.ArrayLike) -> dict[str, float]:
    """The effect on those who act on the scores: of (n,) probabilities, the new and the old.

    Returns:
        `mean_prediction`, `mean_prediction_before`; `same_top_tenth`, the share of the tenth with the highest new
        predictions that was in the old tenth; `moved_over_ten_points`, the share of rows.

    >>> change([0.9, 0.2, 0.1, 0.1], [0.9, 0.1, 0.1, 0.3])["moved_over_ten_points"]
    0.25
    """
    new, old = np.asarray(p_new, np.float64), np.asarray(p_old, np.float64)
    n_top = max(1, round(len(new) / 10))
    tops = [set(np.argsort(-p, kind="stable")[:n_top].tolist()) for p in (new, old)]
    return {
        "mean_prediction": float(new.mean()),
        "mean_prediction_before": float(old.mean()),
        "same_top_tenth": len(tops[0] & tops[1]) / n_top,
        "moved_over_ten_points": float((np.abs(new - old) > 0.1 + 1e-12).mean()),
    }


def change_sentence(figures: Mapping[str, float]) -> str:
    """`change` in a sentence."""
    return (
        f"What would change: of the tenth of rows with the highest predictions {figures['same_top_tenth']:.0%} are the "
        f"same; {figures['moved_over_ten_points']:.0%} of all rows move by more than ten points; the mean prediction "
        f"goes from {figures['mean_prediction_before']:.1%} to {figures['mean_prediction']:.1%}."
    )


def _against_champion(task: type[Task], differences: dict[str, float]) -> Decision:
    rule, figures = task.promotion, {"champion": differences}
    ranking = task.metric(rule.metric)
    guards = [task.metric(rule.guard)] if rule.guard else []
    texts = [f"{metric.title} {metric.difference_text(differences)}" for metric in (ranking, *guards)]
    summary = f"{', '.join(texts)} against the champion on {_rows(differences)}"
    if not ranking.gain(differences)[0] > -rule.margin:
        bound = f"above −{rule.margin}" if ranking.higher_is_better else f"below {rule.margin}"
        reason = f"It may be worse than the champion: {summary}; the {ranking.title} interval must stay {bound}."
        return Decision("challenger", reason, figures)
    for guard in guards:
        if not guard.gain(differences)[1] >= 0:
            side = "below" if guard.higher_is_better else "above"
            reason = f"Its predictions are surely worse: {summary}; the {guard.title} interval lies wholly {side} 0."
            return Decision("challenger", reason, figures)
    return Decision("champion", f"Not worse than the champion: {summary}.", figures)


def _decide_first_champion(task: type[Task], differences: dict[str, dict[str, float]]) -> Decision:
    ranking = task.metric(task.promotion.metric)
    texts = (f"{ranking.title} {ranking.difference_text(each)} against {name}" for name, each in differences.items())
    summary = f"{'; '.join(texts)}, on {_rows(next(iter(differences.values())))}"
    if failed := [name for name, each in differences.items() if not ranking.gain(each)[0] > 0]:
        names = " and ".join(failed)
        reason = f"A first champion must surely beat every baseline, and it does not beat {names}: {summary}."
        return Decision("challenger", reason, differences)
    return Decision("champion", f"First champion, surely better than every baseline: {summary}.", differences)


def _rows(counts: dict[str, float]) -> str:
    positive = f", {counts['n_positives']:,.0f} positive" if "n_positives" in counts else ""
    return f"{counts['n_rows']:,.0f} rows of {counts['n_customers']:,.0f} customers{positive}"


@dataclass(frozen=True)
class ComparisonRows:
    """The rows on which models may be compared.

    Attributes:
        rows: (m,) row indices, most recent cutoff first.
        since: µs since 1970 UTC, the last moment that either model's training labels looked at.
        sentence: for the reviewer.
    """

    rows: npt.NDArray[np.int64]
    since: int
    sentence: str


def comparison_rows(
    cutoffs: npt.ArrayLike,
    horizon_us: int,
    *,
    observed_until_us: int,
    trained_until_us: Sequence[int],
    most: int = 50_000,
) -> ComparisonRows:
    """The most recent closed rows that no model was fitted or tuned on.

    A row is closed when its label window has been observed to its end. A model has not seen it when its cutoff is at or
    after the last moment that the model's training labels looked at.

    Args:
        cutoffs: (n,) µs since 1970 UTC.
        horizon_us: length of the label window.
        observed_until_us: µs since 1970 UTC, the end of what the log has observed.
        trained_until_us: of each model, the largest training or validation cutoff + horizon, µs since 1970 UTC.
        most: rows at most; the oldest cutoffs are left out first, a cutoff never in part (but one is always kept).

    Raises:
        ConfigError: no model, or a horizon that is not positive.
        DataError: no such row, with the dates and the remedy.
    """
    if not trained_until_us or horizon_us <= 0:
        raise ConfigError("comparing needs the trained_until of each model and a positive horizon")
    when = np.asarray(cutoffs, dtype=np.int64).reshape(-1)
    since = max(int(moment) for moment in trained_until_us)
    fresh, closed = when >= since, when + horizon_us <= observed_until_us
    usable = np.flatnonzero(fresh & closed)
    if not len(usable):
        raise DataError(
            f"no rows to compare on: of {len(when):,} rows {fresh.sum():,} have a cutoff from {_day(since)} on, when "
            f"the last training label closed, and {closed.sum():,} have a label window that ends by "
            f"{_day(observed_until_us)}, none both. Bring later events, or train with earlier cutoffs"
        )
    newest = usable[np.argsort(-when[usable], kind="stable")]
    oldest = when[newest[min(most, len(newest)) - 1]]
    if len(newest) > most and when[newest[most]] == oldest and oldest < when[newest[0]]:
        oldest += 1  # that cutoff would be cut in two
    rows = newest[when[newest] >= oldest]
    return ComparisonRows(
        rows,
        since,
        f"{len(rows):,} rows with cutoffs {_day(int(when[rows].min()))} to {_day(int(when[rows].max()))}, all closed "
        f"and none before {_day(since)}, the last moment that a training label looked at.",
    )


def _day(moment_us: int) -> str:
    return str(pd.Timestamp(moment_us, unit="us").strftime("%Y-%m-%d %H:%M UTC"))

"""Quality on groups of customers: slices for the reviewer, and fairness by the columns that the user names.

    slices = group_table(customer_slices(data.train, data.test), y, p, customers)
    fairness = group_table(profile_groups(data.test, ["country"]), y, p, customers)
    sentences(fairness)                       # one for each group that surely differs

A group is compared with the truth (mean prediction with observed rate) and with all other customers (AUROC). "Surely"
means: beyond chance although so many groups were looked at (Bonferroni: error 5 % over the whole table).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.conditions.measures import LatestName, LatestNumber, SnapshotView
from features.journeys.journeys import Snapshots
from features.statistics import wilson
from features.timestamps import DAY_US
from models.segments.rules.schemes import fit_schemes
from training.evaluation.bootstrap import customer_codes, draw_weights, interval, replicates
from training.evaluation.metrics import ProbabilityRows, evaluate

Names = npt.NDArray[np.object_]
Floats = npt.NDArray[np.float64]

SCHEMES = {"rfm": "segment", "value": "value", "channel": "channel"}  # built-in segments that every log may have
QUARTERS = 4
MOST_GROUPS = 8  # of one column; rarer values together are "other"
FEWEST_CUSTOMERS = 30  # of fewer, no sentence is written
FEWEST_EACH = 10  # positives and negatives, for a sentence on the order
ERROR = 0.05
COLUMNS = (
    "kind", "group", "n_rows", "n_customers", "n_positives", "base_rate", "base_rate_low", "base_rate_high",
    "mean_prediction", "gap", "gap_low", "gap_high", "auroc", "auroc_low", "auroc_high", "auroc_of_others",
    "auroc_difference", "auroc_difference_low", "auroc_difference_high", "brier", "said",
)  # fmt: skip


def customer_slices(train: Snapshots, test: Snapshots) -> dict[str, Names]:
    """Kinds of customers that need no column of the user's: tenure, segment (RFM), value tier, preferred channel.

    Args:
        train: (n,) what tiers and names are learnt from.
        test: (m,) the rows to sort.

    Returns:
        Kind → (m,) the slice of each row; kinds that the log lacks something for are left out.
    """
    slices = {"tenure": quarters(_tenure_days(test), "days", learnt_from=_tenure_days(train))}
    fitted, _ = fit_schemes(SCHEMES, train)
    for name, scheme in fitted.items():
        names = np.array([*(segment.name for segment in scheme.segments), "in none"], dtype=object)
        slices[SCHEMES[name]] = names[scheme.assign(test)]
    return {kind: names for kind, names in slices.items() if len(set(names)) > 1}


def profile_groups(snapshots: Snapshots, columns: Sequence[str]) -> dict[str, Names]:
    """The last known value of columns that describe customers: names as they are, numbers by quarters.

    Args:
        snapshots: (m,) rows.
        columns: of the log.

    Returns:
        Column → (m,) group of each row; "unknown" where there is no value. Columns that the log lacks are left out.
    """
    journeys = snapshots.journeys
    present = [column for column in columns if column in journeys.categories or column in journeys.numbers]
    return {column: _groups_of(SnapshotView(snapshots), column) for column in present}


def quarters(values: Floats, unit: str = "", learnt_from: Floats | None = None) -> Names:
    """(n,) in which quarter a value lies, in words that sort: "1. below 30 days".

    Args:
        values: (n,) numbers.
        unit: of them.
        learnt_from: what the quarters are of; by default `values`.
    """
    base = values if learnt_from is None else learnt_from
    cuts = np.unique(np.nanquantile(base, np.linspace(0, 1, QUARTERS + 1)[1:-1]))
    ends = [f"{cut:,.0f}" for cut in cuts]
    texts = [f"below {ends[0]}", *(f"{low} to {high}" for low, high in pairwise(ends)), f"{ends[-1]} and more"]
    names = [f"{place + 1}. {text} {unit}".strip() for place, text in enumerate(texts)]
    groups = np.array([*names, "unknown"], dtype=object)
    return groups[np.where(np.isnan(values), len(names), np.searchsorted(cuts, values, side="right"))]


def group_table(
    kinds: Mapping[str, npt.ArrayLike],
    y: npt.ArrayLike,
    p: npt.ArrayLike,
    customers: npt.ArrayLike,
    *,
    n_boot: int = 300,
    seed: int = 0,
) -> pd.DataFrame:
    """A row a group: predicted and observed, AUROC and that of all others, and a sentence where surely off.

    Args:
        kinds: kind → (n,) the group of each row.
        y: (n,) labels.
        p: (n,) probabilities.
        customers: (n,) the customer of each row; a customer's rows are resampled together.
        n_boot: replicates.
        seed: of the resampling.

    Returns:
        `COLUMNS`: `gap` is mean prediction − observed rate; `…_low` and `…_high` are 95 % intervals, each by itself;
        `sentence` is "" where nothing is sure. NaN where the rows do not define a figure.
    """
    labels, scores = np.asarray(y, np.float64).reshape(-1), np.asarray(p, np.float64).reshape(-1)
    ids = np.asarray(customers).reshape(-1)
    sorted_in = {kind: pd.factorize(np.asarray(names, dtype=object), sort=True) for kind, names in kinds.items()}
    limit = _limit(sum(len(names) for _, names in sorted_in.values()))
    rows = [
        _row(kind, str(name), codes == place, labels, scores, ids, limit, n_boot, seed)
        for kind, (codes, names) in sorted_in.items()
        for place, name in enumerate(names)
    ]
    return pd.DataFrame(rows, columns=list(COLUMNS))


def sentences(table: pd.DataFrame) -> list[str]:
    """What is surely off, a sentence a group."""
    return [str(sentence) for sentence in table["said"] if sentence]


def _limit(n_groups: int) -> float:
    """How many standard errors are beyond chance when two figures of each of so many groups are looked at."""
    return NormalDist().inv_cdf(1 - ERROR / (4 * max(n_groups, 1)))


def _row(
    kind: str, group: str, inside: npt.NDArray[np.bool_], y: Floats, p: Floats, ids: npt.NDArray[Any],
    limit: float, n_boot: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    figures = evaluate(y[inside], p[inside], ids[inside], n_boot=0)
    counts = {name: int(figures[name]) for name in ("n_rows", "n_customers", "n_positives")}
    shared = {name: figures[name] for name in ("base_rate", "mean_prediction", "auroc", "brier")}
    gaps, gap_error = _gap(y[inside], p[inside], ids[inside], n_boot, seed)
    ranks, rank_error = _ranks(inside, y, p, ids, n_boot, seed)
    row = {"kind": kind, "group": group, **counts, **shared, **gaps, **ranks}
    if min(counts["n_positives"], counts["n_rows"] - counts["n_positives"]) < FEWEST_EACH:
        rank_error = np.nan
    enough = counts["n_customers"] >= FEWEST_CUSTOMERS
    return row | {"said": _sentence(row, gap_error, rank_error, limit) if enough else ""}


def _gap(y: Floats, p: Floats, ids: npt.NDArray[Any], n_boot: int, seed: int) -> tuple[dict[str, float], float]:
    """Predicted against observed, with intervals, and the standard error of the gap.

    The error is never taken to be less than calibrated predictions would show: where few or no positives happened to
    be among the rows, resampling them knows of no others.
    """
    codes, n_customers = customer_codes(ids)
    sums = np.column_stack([np.bincount(codes, w, n_customers) for w in (np.ones(len(y)), p - y)])  # (n_customers, 2)
    draws = np.concatenate([weights @ sums for weights in draw_weights(n_customers, n_customers, n_boot, seed)])
    gaps = draws[:, 1] / draws[:, 0] if n_customers > 1 else np.full(n_boot, np.nan)
    low, high = (float(end[0]) for end in wilson([y.mean() * n_customers], [n_customers]))
    gap_low, gap_high = interval(gaps)
    result = {"base_rate_low": low, "base_rate_high": high, "gap": float(p.mean() - y.mean())}
    expected = np.sqrt((p * (1 - p)).sum()) / len(p)
    return result | {"gap_low": gap_low, "gap_high": gap_high}, max(float(gaps.std()), float(expected))


def _ranks(
    inside: npt.NDArray[np.bool_], y: Floats, p: Floats, ids: npt.NDArray[Any], n_boot: int, seed: int
) -> tuple[dict[str, float], float]:
    """AUROC here and of everybody else, and the standard error of the difference: other rows, so other draws."""
    inner = replicates(ProbabilityRows.of(y[inside], p[inside], ids[inside]), n_boot=n_boot, seed=seed)["auroc"]
    low, high = interval(inner)
    result = {"auroc_low": low, "auroc_high": high}
    names = ("auroc_of_others", "auroc_difference", "auroc_difference_low", "auroc_difference_high")
    if inside.all():
        return result | dict.fromkeys(names, np.nan), np.nan
    outer = replicates(ProbabilityRows.of(y[~inside], p[~inside], ids[~inside]), n_boot=n_boot, seed=seed + 1)["auroc"]
    auroc_of_others = evaluate(y[~inside], p[~inside], ids[~inside], n_boot=0)["auroc"]
    difference = evaluate(y[inside], p[inside], ids[inside], n_boot=0)["auroc"] - auroc_of_others
    values = (auroc_of_others, difference, *interval(inner - outer))
    return result | dict(zip(names, values, strict=True)), float((inner - outer).std())


def _sentence(row: Mapping[str, Any], gap_error: float, rank_error: float, limit: float) -> str:
    """What is surely off in this group; NaN compares as not sure."""
    texts = []
    if abs(row["gap"]) > limit * gap_error:
        way = "high" if row["gap"] > 0 else "low"
        texts.append(
            f"probabilities are surely too {way} ({row['mean_prediction']:.1%} predicted, "
            f"{row['base_rate']:.1%} observed)"
        )
    if abs(row["auroc_difference"]) > limit * rank_error:
        how = "better" if row["auroc_difference"] > 0 else "worse"
        texts.append(
            f"they are surely ranked {how} than the others (AUROC {row['auroc']:.3f} against "
            f"{row['auroc_of_others']:.3f})"
        )
    return f"{row['kind']} '{row['group']}': {'; '.join(texts)}." if texts else ""


def _tenure_days(snapshots: Snapshots) -> Floats:
    """(n,) days since the first event; NaN where there is none before the cutoff."""
    visible = snapshots.stop > snapshots.start
    t = snapshots.journeys.t
    first = t[np.where(visible, snapshots.start, 0)] if len(t) else np.zeros(len(visible), np.int64)
    return np.where(visible, (snapshots.cutoff - first) / DAY_US, np.nan)


def _groups_of(view: SnapshotView, column: str) -> Names:
    if column in view.journeys.numbers:
        return quarters(view.values(LatestNumber(column)))
    codes = view.values(LatestName(column)).astype(np.int64)
    names = np.array([*view.journeys.categories[column].names, "unknown"], dtype=object)  # a missing one is -1
    groups = names[codes]
    often = pd.Series(groups[codes >= 0]).value_counts().index[:MOST_GROUPS]
    return np.where(np.isin(groups.astype(str), [*often.astype(str), "unknown"]), groups, "other").astype(object)

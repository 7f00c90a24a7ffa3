"""Outcomes: calibration and rank order of served scores, once there are labels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from models.segments.insight.intervals import share_over_customers
from training.evaluation.metrics import evaluate, remarks

FEWEST_OF_EACH = 10
MOST_ROWS, REPLICATES, BINS = 50_000, 200, 10
LEVEL = 0.99  # of the interval of the base rate, which can set off an alarm


@dataclass(frozen=True)
class Outcomes:
    """Metrics of the answers that have a label.

    Attributes:
        labelled: answers with a label and a score.
        positives: labels of 1.
        figures: as `training.evaluation.metrics.evaluate` gives them, with `rate_low` and `rate_high` (99 %) of the
            base rate; empty without labels.
        bins: a row a bin of equal size: `rows, score, rate, rate_low, rate_high`.
        notes: for the reader.
    """

    labelled: int
    positives: int
    figures: dict[str, float]
    bins: pd.DataFrame
    notes: list[str]

    def enough(self, fewest: int) -> bool:
        """Whether there are enough labels to judge."""
        return self.labelled >= fewest and FEWEST_OF_EACH <= self.positives <= self.labelled - FEWEST_OF_EACH

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        figures = {name: value if np.isfinite(value) else None for name, value in self.figures.items()}
        bins = self.bins.astype(object).where(self.bins.notna(), None).to_dict("records")
        return {"labelled": self.labelled, "positives": self.positives, "figures": figures, "bins": bins}


def measure_outcomes(joined: pd.DataFrame) -> Outcomes:
    """Metrics of the answers that have a label.

    Args:
        joined: `who, score, label`, as `training.monitoring.rows.with_labels` gives them.
    """
    labelled = joined[joined["label"].notna() & joined["score"].notna()]
    notes = [f"{len(labelled):,} of {len(joined):,} answers have a label by now."]
    empty = pd.DataFrame(columns=["rows", "score", "rate", "rate_low", "rate_high"])
    if labelled.empty:
        return Outcomes(0, 0, {}, empty, notes)
    positives = int(labelled["label"].sum())
    if len(labelled) > MOST_ROWS:  # intervals of more would take minutes and be as wide
        labelled = labelled.iloc[np.linspace(0, len(labelled) - 1, MOST_ROWS).astype(np.int64)]
        notes.append(f"Metrics of outcomes are of {MOST_ROWS:,} of them.")
        positives = int(labelled["label"].sum())
    y, p, customers = (labelled[name].to_numpy() for name in ("label", "score", "who"))
    figures = evaluate(y, p, customers, n_boot=REPLICATES)
    rate = share_over_customers(y, pd.factorize(customers)[0], LEVEL)
    notes += remarks(y, p, customers)
    return Outcomes(
        len(labelled), positives, figures | {"rate_low": rate.low, "rate_high": rate.high}, _bins(labelled), notes
    )


def _bins(labelled: pd.DataFrame) -> pd.DataFrame:
    """Mean score and share of positives in bins of equal size."""
    order = labelled.sort_values("score", kind="stable")
    place = np.arange(len(order)) * min(BINS, len(order)) // len(order)
    rows = []
    for _, part in order.groupby(place):
        rate = share_over_customers(part["label"].to_numpy(), pd.factorize(part["who"])[0])
        rows.append(
            {"rows": len(part), "score": float(part["score"].mean()), "rate": rate.value}
            | {"rate_low": rate.low, "rate_high": rate.high}
        )
    return pd.DataFrame(rows)

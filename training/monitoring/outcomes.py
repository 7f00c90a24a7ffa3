"""What came true: calibration and rank order of served scores, once labels have arrived."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from models.segments.insight.intervals import share_over_customers
from training.evaluation.metrics import evaluate, remarks

FEWEST_OF_EACH = 10
MOST_ROWS, REPLICATES, BINS = 50_000, 200, 10
SURE = 0.99


@dataclass(frozen=True)
class Outcomes:
    """Labelled answers.

    Attributes:
        labelled: answers with a label and a score.
        positives: of them.
        figures: as `training.evaluation.metrics.evaluate` gives them, with `rate_low` and `rate_high` (99 %) of the
            base rate; empty without labels.
        bins: a row a bin of equal size: `rows, score, rate, rate_low, rate_high`.
        notes: what to mind.
    """

    labelled: int
    positives: int
    figures: dict[str, float]
    bins: pd.DataFrame
    notes: list[str]

    def enough(self, fewest: int) -> bool:
        """Whether there is enough to judge by."""
        return self.labelled >= fewest and FEWEST_OF_EACH <= self.positives <= self.labelled - FEWEST_OF_EACH

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        figures = {name: value if np.isfinite(value) else None for name, value in self.figures.items()}
        bins = self.bins.astype(object).where(self.bins.notna(), None).to_dict("records")
        return {"labelled": self.labelled, "positives": self.positives, "figures": figures, "bins": bins}


def outcomes(joined: pd.DataFrame) -> Outcomes:
    """Figures of the answers that have a label.

    Args:
        joined: `who, score, label`, as `training.monitoring.rows.with_labels` gives them.
    """
    there = joined[joined["label"].notna() & joined["score"].notna()]
    notes = [f"{len(there):,} of {len(joined):,} answers have a label by now."]
    empty = pd.DataFrame(columns=["rows", "score", "rate", "rate_low", "rate_high"])
    if there.empty:
        return Outcomes(0, 0, {}, empty, notes)
    positives = int(there["label"].sum())
    if len(there) > MOST_ROWS:  # intervals of more would take minutes and be as wide
        there = there.iloc[np.linspace(0, len(there) - 1, MOST_ROWS).astype(np.int64)]
        notes.append(f"Figures of outcomes are of {MOST_ROWS:,} of them.")
        positives = int(there["label"].sum())
    y, p, who = (there[name].to_numpy() for name in ("label", "score", "who"))
    figures = evaluate(y, p, who, n_boot=REPLICATES)
    rate = share_over_customers(y, pd.factorize(who)[0], SURE)
    notes += remarks(y, p, who)
    return Outcomes(
        len(there), positives, figures | {"rate_low": rate.low, "rate_high": rate.high}, _bins(there), notes
    )


def _bins(there: pd.DataFrame) -> pd.DataFrame:
    """Mean score and share of positives in bins of equal size."""
    order = there.sort_values("score", kind="stable")
    place = np.arange(len(order)) * min(BINS, len(order)) // len(order)
    told = []
    for _, own in order.groupby(place):
        rate = share_over_customers(own["label"].to_numpy(), pd.factorize(own["who"])[0])
        told.append(
            {"rows": len(own), "score": float(own["score"].mean()), "rate": rate.value}
            | {"rate_low": rate.low, "rate_high": rate.high}
        )
    return pd.DataFrame(told)

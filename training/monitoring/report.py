"""The monitor report: every check, with tables of scores, days and versions, as frames and as JSON."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from training.monitoring.outcomes import Outcomes

CHECKS = ("kind", "name", "meaning", "value", "threshold", "chance", "served", "training", "answers", "alarm", "words")


@dataclass(frozen=True)
class MonitorReport:
    """Served answers compared with the training reference.

    Attributes:
        name, version: of the champion.
        reference: the id of the training reference.
        checks: a row a check, see `CHECKS`: alarms first, then by value relative to threshold.
        scores: a row a bin of the score or a segment: `answer, served, training` (shares).
        days: a row a day: `day, answers, rows, customers, score, unknown`.
        versions: a row a served version of this champion: `version, reference, answers, rows, first, last, score,
            judged`.
        outcomes: where there are labels.
        figures: rows, answers, customers, effective customers, …
        notes: for the reader.
    """

    name: str
    version: str
    reference: str
    checks: pd.DataFrame
    scores: pd.DataFrame
    days: pd.DataFrame
    versions: pd.DataFrame
    outcomes: Outcomes | None
    figures: Mapping[str, float]
    notes: tuple[str, ...]

    @cached_property
    def alarms(self) -> tuple[str, ...]:
        """The words of the checks that are alarms."""
        return tuple(str(words) for words in self.checks.loc[self.checks["alarm"], "words"])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        frames = {name: _records(getattr(self, name)) for name in ("checks", "scores", "days", "versions")}
        return {
            "name": self.name,
            "version": self.version,
            "reference": self.reference,
            "alarm": bool(self.alarms),
            "alarms": list(self.alarms),
            "figures": {name: _plain(value) for name, value in self.figures.items()},
            **frames,
            "outcomes": None if self.outcomes is None else self.outcomes.to_dict(),
            "notes": list(self.notes),
        }


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    """As JSON; a missing number is null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, pd.Timestamp):
        return value.isoformat() + "Z"
    return None if isinstance(value, float) and not np.isfinite(value) else value

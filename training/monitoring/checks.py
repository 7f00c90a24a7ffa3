"""The checks of a monitor report: a champion's answers against its training reference, and against outcomes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, ValidationError

from features.errors import ConfigError
from features.settings import Section, explain
from models.scoring.training_reference import DIGITS, UNKNOWN, TrainingReference
from models.segments.insight.drift import psi_noise, psi_parts
from training.monitoring.outcomes import Outcomes
from training.monitoring.report import CHECKS, MonitorReport
from training.monitoring.rows import ServedRows

Floats = npt.NDArray[np.float64]


class MonitorThresholds(Section):
    """Limits beyond which a check is an alarm.

    Attributes:
        psi: population stability index of a feature.
        score: the same of the score, or of the shares of segments.
        missing: change of the share of journeys without any value in a column.
        touchpoints: change of the share of journeys that have a touchpoint.
        unknown: share of events with a touchpoint that is not in training.
        calibration: distance of the mean score from the share that came true.
        auroc: how far it may fall below that of the held-out rows.
        volume: share of the median day that every full day must reach; 0 sets no limit.
        chance: how often chance alone may set off any alarm at all.
        fewest: effective number of customers below which nothing is judged.
    """

    psi: float = Field(default=0.25, gt=0)
    score: float = Field(default=0.25, gt=0)
    missing: float = Field(default=0.1, gt=0, le=1)
    touchpoints: float = Field(default=0.25, gt=0, le=1)
    unknown: float = Field(default=0.05, ge=0, le=1)
    calibration: float = Field(default=0.05, gt=0, le=1)
    auroc: float = Field(default=0.05, gt=0, le=0.5)
    volume: float = Field(default=0.0, ge=0, le=1)
    chance: float = Field(default=0.01, gt=0, lt=1)
    fewest: int = Field(default=100, ge=1)

    @classmethod
    def of(cls, texts: Sequence[str]) -> MonitorThresholds:
        """From `name=value` texts.

        Raises:
            ConfigError: an unknown name, or an impossible value.
        """
        pairs = dict(text.partition("=")[::2] for text in texts)
        try:
            return cls.model_validate(pairs)
        except ValidationError as error:
            raise ConfigError(f"Thresholds are given as name=value:\n{explain(error)}") from None


@dataclass(frozen=True)
class MonitoredModel:
    """A champion to be monitored.

    Attributes:
        name: of the registered model, as in the rows.
        version: of the model.
        reference: of its training.
    """

    name: str
    version: str
    reference: TrainingReference


class ChampionChecks:
    """The checks of one champion's answers against its reference.

    Args:
        champion: with its reference.
        answers: its rows that the reference can judge.
        served: all rows.
        thresholds: limits.
    """

    def __init__(
        self, champion: MonitoredModel, answers: pd.DataFrame, served: ServedRows, thresholds: MonitorThresholds
    ) -> None:
        self.champion, self.answers, self.served, self.thresholds = champion, answers, served, thresholds
        self.reference = champion.reference
        self.weights = answers["stands_for"].fillna(1.0).to_numpy(dtype=np.float64)
        self.customers, self.effective = _effective(answers["who"], self.weights)
        self.judged = self.effective >= thresholds.fewest
        self.checks: list[dict[str, Any]] = []

    def report(self, outcomes: Outcomes | None, notes: list[str]) -> MonitorReport:
        """Every check, and the tables."""
        n_checks = len(self.reference.names) + len(self.reference.absent) + len(self.reference.touchpoints) + 4
        self.chance = (
            self.thresholds.chance / n_checks
        )  # Bonferroni: any alarm at all by chance once in 1 / chance reports
        if not self.judged:
            notes.insert(0, self._too_few())
        self._features()
        scores = self._scores()
        self._missing()
        self._touchpoints()
        self._unknown()
        days = self._days()
        if outcomes is not None:
            self._outcomes(outcomes)
        checks = pd.DataFrame(self.checks, columns=list(CHECKS))
        checks["far"] = checks["value"] / checks["threshold"]
        order = checks.sort_values(["alarm", "far"], ascending=False, kind="stable").drop(columns="far")
        return MonitorReport(
            *(self.champion.name, self.champion.version, self.reference.id),
            checks=order.reset_index(drop=True).astype({"alarm": bool}),
            scores=scores,
            days=days,
            versions=self._versions(),
            outcomes=outcomes,
            figures=self._figures(),
            notes=tuple(notes),
        )

    def _too_few(self) -> str:
        return (
            f"Too few to judge: {len(self.answers):,} rows count as {self.effective:,.0f} customers, and "
            f"{self.thresholds.fewest:,} are needed (threshold fewest). No input and no score sets off an alarm."
        )

    def _check(
        self, kind: str, name: str, value: float, threshold: float, chance: float, words: str, **more: Any
    ) -> None:
        """Add a row; it is an alarm where the value exceeds both its threshold and what chance reaches."""
        alarm = bool(self.judged and value > threshold and value > chance)
        row = {"meaning": "", "served": np.nan, "training": np.nan, "answers": float(self.weights.sum())} | more
        self.checks.append(
            row | {"kind": kind, "name": name, "value": value, "threshold": threshold, "chance": chance}
            | {"alarm": alarm, "words": words}
        )  # fmt: skip

    def _stability(self, before: Floats, after: Floats, n_before: float) -> tuple[Floats, float, float]:
        """What each cell adds to the index, the index, and the index that chance reaches.

        Rows of one customer are alike, so the served counts are scaled down to the effective number of customers.
        """
        a = before * (n_before / max(before.sum(), 1e-300))
        b = after * (self.effective / max(after.sum(), 1e-300))
        if not a.sum() or not b.sum():
            return np.zeros(len(a)), 0.0, 0.0
        parts = psi_parts(a, b)
        return parts, float(parts.sum()), psi_noise(a, b, self.chance)

    def _features(self) -> None:
        sketches = self.answers["bins"]
        width = len(self.reference.names)
        present = sketches.map(lambda text: isinstance(text, str) and len(text) == width).to_numpy(dtype=bool)
        if not present.any():
            return
        letters = np.array([list(text) for text in sketches[present]], dtype="U1")  # (n, f)
        weights = self.weights[present]
        meanings = self.reference.features.describe()["meaning"]
        for column, (name, edges) in enumerate(zip(self.reference.names, self.reference.edges, strict=True)):
            cells = [*DIGITS[: len(edges) + 1], UNKNOWN]
            after = np.array([weights[letters[:, column] == cell].sum() for cell in cells])
            before = np.array(self.reference.counts[column], dtype=np.float64)
            parts, value, chance = self._stability(before, after, self.reference.customers)
            worst = int(parts.argmax())
            shares = before / before.sum(), after / after.sum()
            largest = f"{_bin_words(edges, worst)}: {shares[0][worst]:.1%} in training, {shares[1][worst]:.1%} served"
            meaning = str(meanings.iloc[column])
            words = f"{meaning[:1].upper()}{meaning[1:]} ({name}): index {value:.2f}, most of it {largest}."
            self._check("feature", name, value, self.thresholds.psi, chance, words, meaning=meaning)

    def _scores(self) -> pd.DataFrame:
        """The check of the answers, and their shares."""
        reference, numeric = self.reference, bool(self.reference.answer_edges)
        values = self.answers["score" if numeric else "segment"]
        present = values.notna().to_numpy()
        if not present.any():
            return pd.DataFrame(columns=["answer", "served", "training"])
        cells = [reference.answer_bin(value) for value in values[present]] if numeric else values[present].astype(str)
        counted = pd.Series(self.weights[present]).groupby(np.array(cells, dtype=str)).sum()
        names = sorted({*reference.answer_counts, *counted.index}, key=lambda cell: (len(cell) if numeric else 0, cell))
        before = np.array([reference.answer_counts.get(name, 0) for name in names], dtype=np.float64)
        after = counted.reindex(names).fillna(0.0).to_numpy()
        _, value, chance = self._stability(before, after, reference.answered_customers)
        shares = before / max(before.sum(), 1e-300), after / after.sum()
        labels = [_bin_words(reference.answer_edges, int(name)) for name in names] if numeric else names
        mean = float(np.average(values[present], weights=self.weights[present])) if numeric else np.nan
        subject = "scores" if numeric else "segments"
        words = f"The {subject} served, against the held-out rows of training: index {value:.2f}."
        self._check("score", reference.answer, value, self.thresholds.score, chance, words, served=mean)
        return pd.DataFrame({"answer": labels, "served": shares[1], "training": shares[0]})

    def _change(
        self, kind: str, name: str, before: float, after: float, threshold: float, n: float, subject: str
    ) -> None:
        """A share in training and served."""
        z = NormalDist().inv_cdf(1 - self.chance / 2)
        m = max(self.reference.customers, 1)
        pooled = (before * m + after * n) / (m + n)
        chance = z * float(np.sqrt(pooled * (1 - pooled) * (1 / m + 1 / n)))
        words = f"{subject}: {before:.1%} in training, {after:.1%} served."
        self._check(kind, name, abs(after - before), threshold, chance, words, served=after, training=before)

    def _missing(self) -> None:
        lists = [set(columns) if isinstance(columns, list) else set() for columns in self.answers["missing"]]
        for column, before in self.reference.absent.items():
            absent = np.array([column in columns for columns in lists])
            after = float(self.weights[absent].sum() / self.weights.sum())
            subject = f"Journeys without any {column}"
            self._change("missing", column, before, after, self.thresholds.missing, self.effective, subject)

    def _touchpoints(self) -> None:
        rows = self.served.touchpoints
        rows = rows[(rows["champion"] == self.champion.name) & (rows["reference"] == self.reference.id)]
        answers = float(rows["answers"].sum())
        if not answers:
            return
        counts: dict[str, float] = {}
        for entry in rows["touchpoints"]:
            for name, n in entry.items():
                counts[name] = counts.get(name, 0.0) + n
        for name, before in self.reference.touchpoints.items():
            subject = f"Journeys with the touchpoint '{name}'"
            after, n = counts.get(name, 0.0) / answers, min(answers, self.effective)
            self._change("touchpoint", name, before, after, self.thresholds.touchpoints, n, subject)

    def _unknown(self) -> None:
        unknown, events = self.answers["unknown"].fillna(0).to_numpy(), self.answers["events"].fillna(0).to_numpy()
        total = float(self.weights @ events)
        if not total:
            return
        value = float(self.weights @ unknown) / total
        residuals = self.weights * (unknown - value * events) / total
        spread = float(np.sqrt((residuals**2).sum() * len(residuals) / max(self.effective, 1.0)))
        chance = NormalDist().inv_cdf(1 - self.chance) * spread
        words = f"{value:.1%} of the events that were served have a touchpoint that is not in training."
        alarm = value - chance > self.thresholds.unknown
        self._check("unknown", "touchpoints", value, self.thresholds.unknown, chance, words, served=value, training=0.0)
        self.checks[-1]["alarm"] = bool(self.judged and alarm)

    def _days(self) -> pd.DataFrame:
        rows = self.answers.assign(day=self.answers["at"].dt.floor("D"), weight=self.weights)
        rows = rows.assign(weighed=rows["score"] * rows["weight"])
        days = rows.groupby("day").agg(
            answers=("weight", "sum"), rows=("at", "size"), customers=("who", "nunique"), weighed=("weighed", "sum"),
            events=("events", "sum"), unknown=("unknown", "sum"),
        )  # fmt: skip
        days["score"] = (days["weighed"] / days["answers"]).where(rows.groupby("day")["score"].count() > 0)
        days["unknown"] = days["unknown"] / days["events"].clip(lower=1)
        every = pd.date_range(days.index.min(), days.index.max(), freq="D")
        days = days[["answers", "rows", "customers", "score", "unknown"]].reindex(every)
        days[["answers", "rows", "customers"]] = days[["answers", "rows", "customers"]].fillna(0)
        if self.thresholds.volume and len(days) > 2:
            self._volume(days["answers"].iloc[1:-1])  # the first and the last day are rarely complete
        return days.rename_axis("day").reset_index()

    def _volume(self, full: pd.Series) -> None:
        middle = float(full.median())
        least = float(full.min()) / middle if middle else 1.0
        day = f"{full.idxmin():%Y-%m-%d}"
        words = f"{full.min():,.0f} answers on {day}: {least:.0%} of the median day's {middle:,.0f}."
        self._check("volume", day, 1 - least, 1 - self.thresholds.volume, 0.0, words)

    def _versions(self) -> pd.DataFrame:
        named = self.served.answers[self.served.answers["champion"] == self.champion.name]
        named = named.assign(reference=named["reference"].fillna(""))
        versions = named.groupby(["version", "reference"]).agg(
            answers=("stands_for", "sum"), rows=("at", "size"), first=("at", "min"), last=("at", "max"),
            score=("score", "mean"),
        ).reset_index()  # fmt: skip
        judged = (versions["reference"] == self.reference.id) | (
            (versions["reference"] == "") & (versions["version"] == self.champion.version)
        )
        return versions.assign(judged=judged)

    def _outcomes(self, outcomes: Outcomes) -> None:
        """Calibration and rank order, where there are enough labels."""
        if not outcomes.enough(self.thresholds.fewest):
            return
        judged, self.judged = self.judged, True
        figures, held_out = outcomes.figures, self.reference.metrics.get("auroc")
        mean, rate = figures["mean_prediction"], figures["base_rate"]
        words = f"Scores average {mean:.1%}, and {rate:.1%} came true ({figures['rate_low']:.1%} to "
        words += f"{figures['rate_high']:.1%})."
        chance = max(abs(rate - figures["rate_low"]), abs(figures["rate_high"] - rate))
        more = {"served": mean, "answers": figures["n_rows"]}
        self._check("calibration", "mean score", abs(mean - rate), self.thresholds.calibration, chance, words, **more)
        if held_out is not None and np.isfinite(figures["auroc"]):
            words = f"AUROC {figures['auroc']:.3f} ({figures['auroc_low']:.3f} to {figures['auroc_high']:.3f}), "
            words += f"{held_out:.3f} on the held-out rows of training."
            chance = figures["auroc_high"] - figures["auroc"]
            more = {"served": figures["auroc"], "training": held_out, "answers": figures["n_rows"]}
            self._check("auroc", "auroc", held_out - figures["auroc"], self.thresholds.auroc, chance, words, **more)
        self.judged = judged

    def _figures(self) -> dict[str, float]:
        present = self.answers["score"].notna().to_numpy()
        mean = (
            float(np.average(self.answers["score"][present], weights=self.weights[present]))
            if present.any()
            else np.nan
        )
        return {
            "rows": float(len(self.answers)),
            "answers": float(self.weights.sum()),
            "customers": float(self.customers),
            "effective_customers": self.effective,
            "training_rows": float(self.reference.rows),
            "mean_score": mean,
            "median_events": float(self.answers["events"].median()),
        }


def _effective(customers: pd.Series, weights: Floats) -> tuple[int, float]:
    """The number of customers and the effective number (Kish 1965); a row without a customer is one of its own."""
    codes = (
        customers.astype(object)
        .where(customers.notna(), pd.Series(np.arange(len(customers)), customers.index))
        .astype(str)
    )
    total = pd.Series(weights, customers.index).groupby(codes).sum().to_numpy()
    return len(total), float(total.sum() ** 2 / (total**2).sum()) if len(total) else 0.0


def _bin_words(edges: Sequence[float], place: int) -> str:
    """A bin in words.

    >>> [_bin_words((0.0, 2.5), place) for place in range(4)]
    ['up to 0', 'above 0 up to 2.5', 'above 2.5', 'no value']
    """
    if place > len(edges):
        return "no value"
    ends = [f"{0.0 if abs(edge) < 1e-30 else edge:.3g}" for edge in edges]
    if place == len(edges):
        return f"above {ends[-1]}" if ends else "any value"
    if place == 0:  # an edge just below a frequent value separates it from lower values
        return f"below {ends[0]}" if ends[0] in ends[1:2] else f"up to {ends[0]}"
    same = ends[place - 1] == ends[place]
    return ends[place] if same else f"above {ends[place - 1]} up to {ends[place]}"

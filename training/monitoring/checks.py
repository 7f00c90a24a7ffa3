"""The checks of a monitor report: a champion's answers against the reference of its training, and what they found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
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
from training.monitoring.rows import ServedRows

Floats = npt.NDArray[np.float64]
CHECKS = ("kind", "name", "meaning", "value", "threshold", "chance", "served", "training", "answers", "alarm", "words")


class MonitorThresholds(Section):
    """When to act.

    Attributes:
        psi: population stability index of a feature. score: of the score, or of the shares of segments.
        missing: change of the share of journeys without any value in a column.
        touchpoints: change of the share of journeys that have a touchpoint.
        unknown: share of events with a touchpoint that training did not know.
        calibration: distance of the mean score from the share that came true.
        auroc: how far it may fall below that of the held-out rows.
        volume: share of the median day that every full day must reach; 0 asks for nothing.
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
    def of(cls, told: Sequence[str]) -> MonitorThresholds:
        """From `name=value` texts.

        Raises:
            ConfigError: a name that there is not, or a value that cannot be one.
        """
        pairs = dict(one.partition("=")[::2] for one in told)
        try:
            return cls.model_validate(pairs)
        except ValidationError as error:
            raise ConfigError(f"Thresholds are given as name=value:\n{explain(error)}") from None


@dataclass(frozen=True)
class MonitorReport:
    """What a look at the served rows found.

    Attributes:
        name, version: of the champion.
        reference: the id of what it is compared with.
        checks: a row a check, see `CHECKS`: alarms first, then by how far.
        scores: a row a bin of the score or a segment: `answer, served, training` (shares).
        days: a row a day: `day, answers, rows, customers, score, unknown`.
        versions: a row a version of this champion in the rows: `version, reference, answers, rows, first, last, score,
            judged`.
        outcomes: once labels are there.
        figures: rows, answers, customers, effective customers, …
        notes: what a reader should know.
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
        """What is past its threshold, in words."""
        return tuple(str(words) for words in self.checks.loc[self.checks["alarm"], "words"])

    def to_dict(self) -> dict[str, Any]:
        """JSON-ready."""
        frames = {name: _records(getattr(self, name)) for name in ("checks", "scores", "days", "versions")}
        told = {"name": self.name, "version": self.version, "reference": self.reference}
        outcome = None if self.outcomes is None else self.outcomes.to_dict()
        return told | {
            "alarm": bool(self.alarms),
            "alarms": list(self.alarms),
            "figures": {name: _plain(value) for name, value in self.figures.items()},
            **frames,
            "outcomes": outcome,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class MonitoredModel:
    """A champion that is looked at.

    Attributes:
        name: registered, as the rows have it.
        version: of it.
        reference: of its training.
    """

    name: str
    version: str
    reference: TrainingReference


class ChampionChecks:
    """One champion's answers against its reference."""

    def __init__(
        self, champion: MonitoredModel, own: pd.DataFrame, served: ServedRows, asked: MonitorThresholds
    ) -> None:
        self.champion, self.own, self.served, self.asked = champion, own, served, asked
        self.reference = champion.reference
        self.weights = own["stands_for"].fillna(1.0).to_numpy(dtype=np.float64)
        self.customers, self.effective = _effective(own["who"], self.weights)
        self.judged = self.effective >= asked.fewest
        self.rows: list[dict[str, Any]] = []

    def report(self, found: Outcomes | None, notes: list[str]) -> MonitorReport:
        """Every check, and the tables."""
        places = len(self.reference.names) + len(self.reference.absent) + len(self.reference.touchpoints) + 4
        self.chance = self.asked.chance / places
        if not self.judged:
            notes.insert(0, self._too_few())
        self._features()
        scores = self._scores()
        self._missing()
        self._touchpoints()
        self._unknown()
        days = self._days()
        if found is not None:
            self._outcomes(found)
        checks = pd.DataFrame(self.rows, columns=list(CHECKS))
        checks["far"] = checks["value"] / checks["threshold"]
        order = checks.sort_values(["alarm", "far"], ascending=False, kind="stable").drop(columns="far")
        return MonitorReport(
            *(self.champion.name, self.champion.version, self.reference.id),
            checks=order.reset_index(drop=True).astype({"alarm": bool}),
            scores=scores,
            days=days,
            versions=self._versions(),
            outcomes=found,
            figures=self._figures(),
            notes=tuple(notes),
        )

    def _too_few(self) -> str:
        return (
            f"Too few to judge: {len(self.own):,} rows count as {self.effective:,.0f} customers, and "
            f"{self.asked.fewest:,} are asked for (threshold fewest). No input and no score sets off an alarm."
        )

    def _check(
        self, kind: str, name: str, value: float, threshold: float, chance: float, words: str, **more: Any
    ) -> None:
        """One more row; it is an alarm where it is past its threshold and beyond chance."""
        alarm = bool(self.judged and value > threshold and value > chance)
        row = {"meaning": "", "served": np.nan, "training": np.nan, "answers": float(self.weights.sum())} | more
        self.rows.append(
            row | {"kind": kind, "name": name, "value": value, "threshold": threshold, "chance": chance}
            | {"alarm": alarm, "words": words}
        )  # fmt: skip

    def _stability(self, before: Floats, after: Floats, n_before: float) -> tuple[Floats, float, float]:
        """What each cell adds to the index, the index, and what chance shows, for rows that hang together."""
        a = before * (n_before / max(before.sum(), 1e-300))
        b = after * (self.effective / max(after.sum(), 1e-300))
        if not a.sum() or not b.sum():
            return np.zeros(len(a)), 0.0, 0.0
        parts = psi_parts(a, b)
        return parts, float(parts.sum()), psi_noise(a, b, self.chance)

    def _features(self) -> None:
        sketches = self.own["bins"]
        width = len(self.reference.names)
        there = sketches.map(lambda text: isinstance(text, str) and len(text) == width).to_numpy(dtype=bool)
        if not there.any():
            return
        letters = np.array([list(text) for text in sketches[there]], dtype="U1")  # (n, f)
        weights = self.weights[there]
        meanings = self.reference.features.describe()["meaning"]
        for column, (name, edges) in enumerate(zip(self.reference.names, self.reference.edges, strict=True)):
            cells = [*DIGITS[: len(edges) + 1], UNKNOWN]
            after = np.array([weights[letters[:, column] == one].sum() for one in cells])
            before = np.array(self.reference.counts[column], dtype=np.float64)
            parts, value, chance = self._stability(before, after, self.reference.customers)
            worst = int(parts.argmax())
            shares = before / before.sum(), after / after.sum()
            what = f"{_bin_words(edges, worst)}: {shares[0][worst]:.1%} in training, {shares[1][worst]:.1%} served"
            meaning = str(meanings.iloc[column])
            told = f"{meaning[:1].upper()}{meaning[1:]} ({name}): index {value:.2f}, most of it {what}."
            self._check("feature", name, value, self.asked.psi, chance, told, meaning=meaning)

    def _scores(self) -> pd.DataFrame:
        """The check of the answers, and their shares."""
        reference, own = self.reference, self.own
        numbers = bool(reference.answer_edges)
        given = own["score"] if numbers else own["segment"]
        there = given.notna().to_numpy()
        if not there.any():
            return pd.DataFrame(columns=["answer", "served", "training"])
        cells = [reference.answer_bin(value) for value in given[there]] if numbers else given[there].astype(str)
        counted = pd.Series(self.weights[there]).groupby(np.array(cells, dtype=str)).sum()
        names = sorted({*reference.answer_counts, *counted.index}, key=lambda one: (len(one) if numbers else 0, one))
        before = np.array([reference.answer_counts.get(name, 0) for name in names], dtype=np.float64)
        after = counted.reindex(names).fillna(0.0).to_numpy()
        _, value, chance = self._stability(before, after, reference.answered_customers)
        shares = before / max(before.sum(), 1e-300), after / after.sum()
        shown = [_bin_words(reference.answer_edges, int(name)) for name in names] if numbers else names
        what = "The scores" if numbers else "The segments"
        mean = float(np.average(given[there], weights=self.weights[there])) if numbers else np.nan
        told = f"{what} of what is served against the held-out rows: index {value:.2f}."
        self._check("score", reference.answer, value, self.asked.score, chance, told, served=mean)
        return pd.DataFrame({"answer": shown, "served": shares[1], "training": shares[0]})

    def _change(self, kind: str, name: str, before: float, after: float, threshold: float, n: float, told: str) -> None:
        """A share in training and served."""
        z = NormalDist().inv_cdf(1 - self.chance / 2)
        m = max(self.reference.customers, 1)
        pooled = (before * m + after * n) / (m + n)
        chance = z * float(np.sqrt(pooled * (1 - pooled) * (1 / m + 1 / n)))
        words = f"{told}: {before:.1%} in training, {after:.1%} served."
        self._check(kind, name, abs(after - before), threshold, chance, words, served=after, training=before)

    def _missing(self) -> None:
        lists = [set(one) if isinstance(one, list) else set() for one in self.own["missing"]]
        for column, before in self.reference.absent.items():
            gone = np.array([column in one for one in lists])
            after = float(self.weights[gone].sum() / self.weights.sum())
            told = f"Journeys without any {column}"
            self._change("missing", column, before, after, self.asked.missing, self.effective, told)

    def _touchpoints(self) -> None:
        rows = self.served.touchpoints
        rows = rows[(rows["champion"] == self.champion.name) & (rows["reference"] == self.reference.id)]
        answers = float(rows["answers"].sum())
        if not answers:
            return
        counts: dict[str, float] = {}
        for one in rows["touchpoints"]:
            for name, n in one.items():
                counts[name] = counts.get(name, 0.0) + n
        for name, before in self.reference.touchpoints.items():
            told = f"Journeys with the touchpoint '{name}'"
            after, n = counts.get(name, 0.0) / answers, min(answers, self.effective)
            self._change("touchpoint", name, before, after, self.asked.touchpoints, n, told)

    def _unknown(self) -> None:
        unknown, events = self.own["unknown"].fillna(0).to_numpy(), self.own["events"].fillna(0).to_numpy()
        total = float(self.weights @ events)
        if not total:
            return
        value = float(self.weights @ unknown) / total
        away = self.weights * (unknown - value * events) / total
        spread = float(np.sqrt((away**2).sum() * len(away) / max(self.effective, 1.0)))
        chance = NormalDist().inv_cdf(1 - self.chance) * spread
        told = f"{value:.1%} of the events that were served have a touchpoint that training did not know."
        alarm = value - chance > self.asked.unknown
        self._check("unknown", "touchpoints", value, self.asked.unknown, chance, told, served=value, training=0.0)
        self.rows[-1]["alarm"] = bool(self.judged and alarm)

    def _days(self) -> pd.DataFrame:
        own = self.own.assign(day=self.own["at"].dt.floor("D"), weight=self.weights)
        own = own.assign(weighed=own["score"] * own["weight"])
        days = own.groupby("day").agg(
            answers=("weight", "sum"), rows=("at", "size"), customers=("who", "nunique"), weighed=("weighed", "sum"),
            events=("events", "sum"), unknown=("unknown", "sum"),
        )  # fmt: skip
        days["score"] = (days["weighed"] / days["answers"]).where(own.groupby("day")["score"].count() > 0)
        days["unknown"] = days["unknown"] / days["events"].clip(lower=1)
        every = pd.date_range(days.index.min(), days.index.max(), freq="D")
        days = days[["answers", "rows", "customers", "score", "unknown"]].reindex(every)
        days[["answers", "rows", "customers"]] = days[["answers", "rows", "customers"]].fillna(0)
        if self.asked.volume and len(days) > 2:
            self._volume(days["answers"].iloc[1:-1])  # the first and the last are seldom whole
        return days.rename_axis("day").reset_index()

    def _volume(self, full: pd.Series) -> None:
        middle = float(full.median())
        least = float(full.min()) / middle if middle else 1.0
        day = f"{full.idxmin():%Y-%m-%d}"
        told = f"{full.min():,.0f} answers on {day}: {least:.0%} of the median day's {middle:,.0f}."
        self._check("volume", day, 1 - least, 1 - self.asked.volume, 0.0, told)

    def _versions(self) -> pd.DataFrame:
        named = self.served.answers[self.served.answers["champion"] == self.champion.name]
        named = named.assign(reference=named["reference"].fillna(""))
        found = named.groupby(["version", "reference"]).agg(
            answers=("stands_for", "sum"), rows=("at", "size"), first=("at", "min"), last=("at", "max"),
            score=("score", "mean"),
        ).reset_index()  # fmt: skip
        judged = (found["reference"] == self.reference.id) | (
            (found["reference"] == "") & (found["version"] == self.champion.version)
        )
        return found.assign(judged=judged)

    def _outcomes(self, found: Outcomes) -> None:
        """Calibration and rank order, where labels allow to judge them."""
        if not found.enough(self.asked.fewest):
            return
        judged, self.judged = self.judged, True
        figures, held_out = found.figures, self.reference.metrics.get("auroc")
        mean, rate = figures["mean_prediction"], figures["base_rate"]
        told = f"Scores average {mean:.1%}, and {rate:.1%} came true ({figures['rate_low']:.1%} to "
        told += f"{figures['rate_high']:.1%})."
        chance = max(abs(rate - figures["rate_low"]), abs(figures["rate_high"] - rate))
        more = {"served": mean, "answers": figures["n_rows"]}
        self._check("calibration", "mean score", abs(mean - rate), self.asked.calibration, chance, told, **more)
        if held_out is not None and np.isfinite(figures["auroc"]):
            told = f"AUROC {figures['auroc']:.3f} ({figures['auroc_low']:.3f} to {figures['auroc_high']:.3f}), "
            told += f"{held_out:.3f} on the held-out rows of training."
            chance = figures["auroc_high"] - figures["auroc"]
            more = {"served": figures["auroc"], "training": held_out, "answers": figures["n_rows"]}
            self._check("auroc", "auroc", held_out - figures["auroc"], self.asked.auroc, chance, told, **more)
        self.judged = judged

    def _figures(self) -> dict[str, float]:
        known = self.own["score"].notna().to_numpy()
        mean = float(np.average(self.own["score"][known], weights=self.weights[known])) if known.any() else np.nan
        return {
            "rows": float(len(self.own)),
            "answers": float(self.weights.sum()),
            "customers": float(self.customers),
            "effective_customers": self.effective,
            "training_rows": float(self.reference.rows),
            "mean_score": mean,
            "median_events": float(self.own["events"].median()),
        }


def _effective(who: pd.Series, weights: Floats) -> tuple[int, float]:
    """How many customers there are, and as how many equal ones they count; a row of nobody is a customer of its own."""
    codes = who.astype(object).where(who.notna(), pd.Series(np.arange(len(who)), who.index)).astype(str)
    total = pd.Series(weights, who.index).groupby(codes).sum().to_numpy()
    return len(total), float(total.sum() ** 2 / (total**2).sum()) if len(total) else 0.0


def _bin_words(edges: Sequence[float], place: int) -> str:
    """A bin as people say it.

    >>> [_bin_words((0.0, 2.5), place) for place in range(4)]
    ['up to 0', 'above 0 up to 2.5', 'above 2.5', 'no value']
    """
    if place > len(edges):
        return "no value"
    ends = [f"{0.0 if abs(edge) < 1e-30 else edge:.3g}" for edge in edges]
    if place == len(edges):
        return f"above {ends[-1]}" if ends else "any value"
    if place == 0:  # an edge just below a value that many share keeps it apart from what is lower
        return f"below {ends[0]}" if ends[0] in ends[1:2] else f"up to {ends[0]}"
    same = ends[place - 1] == ends[place]
    return ends[place] if same else f"above {ends[place - 1]} up to {ends[place]}"


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    return [{str(name): _plain(value) for name, value in row.items()} for row in frame.to_dict("records")]


def _plain(value: Any) -> Any:
    """As JSON holds it; what is not known is null."""
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, pd.Timestamp):
        return value.isoformat() + "Z"
    return None if isinstance(value, float) and not np.isfinite(value) else value

"""The meaning of touchpoints for the built-in schemes: purchases, complaints, offers … by name, with defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from functools import cached_property
from typing import Annotated, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field, field_validator

from features.conditions.conditions import read_measure
from features.conditions.measures import LatestName, SnapshotView
from features.conditions.selections import ANY, Names, allowed, either
from features.conditions.thresholds import rounded_down
from features.errors import DataError
from features.journeys.journeys import Snapshots
from features.settings import Section
from features.tabular.learning import visible_events
from models.segments.rules.rule_segments import Rule, close_name

Floats = npt.NDArray[np.float64]
Share = Annotated[float, Field(gt=0, lt=1)]

# Patterns without regard to case; a setting of the same name replaces them.
DEFAULTS = {
    "complaints": ("*complain*", "*dispute*", "*escalat*", "*bad_review*", "*negative_review*"),
    "help": ("*support*", "*help*", "*ticket*", "*contact*", "*call_cent*", "*hotline*"),
    "prices": ("*pric*", "*quote*", "*tariff*", "*fee*"),
    "baskets": ("*cart*", "*basket*", "*checkout*"),
    "competitors": ("*competitor*", "*compare*", "*comparison*", "*alternative*"),
    "reasons": ("*reason*", "*declin*", "*reject*", "*objection*", "*unsubscribe*", "*cancel*"),
    "offers": ("*offer*", "*coupon*", "*voucher*", "*promo*", "*discount*", "*newsletter*", "*redeem*"),
}
REASON_COLUMNS = ("reason", "objection", "cancel_reason", "churn_reason", "lost_reason")
INTEREST_COLUMNS = ("interest", "category", "item_group", "product_group", "department", "content", "topic", "item")
GEOGRAPHY_COLUMNS = ("country", "region", "state", "province", "county", "city", "market", "postcode", "zip")


class SchemeSettings(Section):
    """`[segments.schemes]`: how the built-in schemes read a log; touchpoints are names or patterns.

    Attributes:
        activity: touchpoints that count as activity.
        purchases: touchpoints that count as a purchase; by default those that mostly carry a value above zero.
        returns: touchpoints of returns; by default those that mostly carry a value below zero.
        complaints: complaints. For this and the next ones, `DEFAULTS` has the default patterns.
        help: requests for help.
        prices: views of a price.
        baskets: items put into a basket.
        competitors: views of competitors.
        reasons: refusals with a reason.
        offers: offers seen or used.
        reason_column: a column with reasons in words.
        stages: the stages in order; by default by their median place in journeys.
        stage_by: the furthest stage reached, or the latest.
        window_days: look-back for value, purchases and interests.
        recent_days: look-back for complaints and objections.
        top_shares: tiers of value, the smallest first.
        gaps: multiples of their usual gap up to which customers are active, warm, cooling.
        low_satisfaction: a mean of at most this is low; by default the lower quartile of the scores, or the middle
            of their scale where that is lower.
        stuck_share: customers are stuck who wait longer than this share of those who went on.
        interest_column: the column of interests; by default a category of items, the item, or the touchpoint.
        interest_groups: group → names or patterns of that column; by default the most frequent names.
        interest_lift: an interest's share, as a multiple of its share over all customers.
        channel_share: the share of a preferred channel.
        geography: the column of a place.
        profile: the column of demographics or firmographics, of names or of numbers.
        most_segments: of a scheme whose segments come from names in the log, the rest included.
        min_share: names of a smaller share of the customers get no segment of their own.
    """

    activity: Names = ANY
    purchases: Names | None = None
    returns: Names | None = None
    complaints: Names | None = None
    help: Names | None = None
    prices: Names | None = None
    baskets: Names | None = None
    competitors: Names | None = None
    reasons: Names | None = None
    offers: Names | None = None
    reason_column: str | None = None
    stages: Names = ()
    stage_by: Literal["furthest", "latest"] = "furthest"
    window_days: float = Field(default=365.0, gt=0)
    recent_days: float = Field(default=90.0, gt=0)
    top_shares: tuple[Share, ...] = (0.01, 0.05, 0.2, 0.5)
    gaps: tuple[float, float, float] = (1.0, 2.0, 4.0)
    low_satisfaction: float | None = None
    stuck_share: Share = 0.9
    interest_column: str | None = None
    interest_groups: dict[str, Names] = Field(default_factory=dict)
    interest_lift: float = Field(default=1.25, gt=0)
    channel_share: Share = 0.5
    geography: str | None = None
    profile: str | None = None
    most_segments: int = Field(default=12, ge=2, le=100)
    min_share: float = Field(default=0.02, ge=0, lt=1)

    @field_validator("top_shares", "gaps")
    @classmethod
    def _ascending(cls, values: tuple[float, ...]) -> tuple[float, ...]:
        if not values or list(values) != sorted(set(values)) or values[0] <= 0:
            raise ValueError(f"give numbers above zero, the smallest first, not {list(values)}")
        return values


@dataclass(frozen=True)
class SchemeRules:
    """The rules that a scheme learnt.

    Attributes:
        rules: in order.
        rest: the name of the segment of all others; None: they are in no segment.
        rest_words: its description.
        disjoint: no two rules hold for one customer.
        notes: a sentence for each part of the scheme for which the log lacks something.
    """

    rules: tuple[Rule, ...]
    rest: str | None = None
    rest_words: str = ""
    disjoint: bool = False
    notes: tuple[str, ...] = field(default=())


class TrainingView:
    """Training snapshots as schemes read them: counts are of events that lie before some snapshot's cutoff."""

    def __init__(self, snapshots: Snapshots, settings: SchemeSettings) -> None:
        self.snapshots, self.settings = snapshots, settings
        self.journeys = snapshots.journeys
        self.view = SnapshotView(snapshots)

    @cached_property
    def visible(self) -> npt.NDArray[np.bool_]:
        """(n_events,) which events lie before some snapshot's cutoff."""
        visible = visible_events(self.snapshots)
        return np.ones(self.journeys.n_events, bool) if visible is None else visible

    def counts(self, column: str, mask: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int64]:
        """(names,) visible events of each name of a column, optionally within a mask of events."""
        category = self.journeys.categories[column]
        codes = category.codes[self.visible if mask is None else self.visible & mask]
        return np.bincount(codes[codes >= 0], minlength=len(category.names))

    def has(self, column: str) -> bool:
        """Whether a column has a known value in some visible event."""
        if column in self.journeys.categories:
            return bool((self.journeys.categories[column].codes[self.visible] >= 0).any())
        return column in self.journeys.numbers and not np.isnan(self.journeys.numbers[column][self.visible]).all()

    def touchpoints(self, kind: str) -> tuple[str, ...]:
        """The touchpoints of a kind: those of the settings, or those in training that match the defaults.

        Raises:
            DataError: touchpoints that the log does not have.
        """
        names: tuple[str, ...] | None = getattr(self.settings, kind)
        if names is not None:
            if not allowed(self.visible_touchpoints, names).any():
                hint = close_name(names[0], self.visible_touchpoints)
                raise DataError(f"{kind} are {either(names)}, but no touchpoint matches{hint}")
            return names
        if kind in ("purchases", "returns"):
            return self._valued(1 if kind == "purchases" else -1)
        return tuple(
            name
            for name in self.visible_touchpoints
            if any(fnmatchcase(name.lower(), pattern) for pattern in DEFAULTS[kind])
        )

    @cached_property
    def visible_touchpoints(self) -> tuple[str, ...]:
        """Touchpoints of visible events."""
        names = self.journeys.categories["touchpoint"].names
        return tuple(names[code] for code in np.flatnonzero(self.counts("touchpoint")))

    def _valued(self, sign: int) -> tuple[str, ...]:
        """Touchpoints of which at least half carry a value above (or below) zero."""
        if "value" not in self.journeys.numbers:
            return ()
        names, value = self.journeys.categories["touchpoint"].names, self.journeys.numbers["value"]
        total, valued = self.counts("touchpoint"), self.counts("touchpoint", sign * value > 0)
        return tuple(names[code] for code in np.flatnonzero((valued > 0) & (2 * valued >= total)))

    def measure(self, **table: object) -> Floats:
        """(n,) a measure of the training snapshots, from its table."""
        return self.view.values(read_measure(table).measure())

    def frequent(self, column: str) -> list[str]:
        """The last known names of enough customers, the most frequent first."""
        last = self.view.values(LatestName(column)).astype(np.int64)
        category = self.journeys.categories[column]
        counts = np.bincount(last[last >= 0], minlength=len(category.names))
        few = max(self.settings.min_share * max((last >= 0).sum(), 1), 1)
        ranked = sorted(np.flatnonzero(counts >= few).tolist(), key=lambda code: (-counts[code], category.names[code]))
        return [category.names[code] for code in ranked]


def tidy(x: float) -> float:
    """A learnt number with the four digits that descriptions show."""
    return rounded_down(float(x))


def remedy(kind: str) -> str:
    """How an experiment file names touchpoints of a kind: the end of a message."""
    return f'name them: {kind} = ["…"]'


def first_of(columns: Sequence[str], training: TrainingView) -> str | None:
    """The first of these columns that the log has."""
    return next((column for column in columns if training.has(column)), None)

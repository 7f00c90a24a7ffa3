"""The world behind simulated journeys: its constants, and the tables that the simulator and the filter share.

A customer has one of three kinds, for good, and a hidden state that moves once a day: mood × phase × course, or left.

| part | values | seen through |
|---|---|---|
| kind | bargain, routine, explorer | how often they come, items, channels, country, plan |
| mood | unhappy, neutral, happy | ratings, support, returns, and above all whether they buy; the unhappy leave |
| phase | aware, considering, loyal | what they look at; those considering subscribe |
| course | drifting, climbing | only the order of compare, read_review, ask_quote; climbers upgrade |

Everything that is emitted on a day is independent given the hidden state, and every draw is from a table, so the
forward filter of `features.simulation.truth` is exact. `World` holds what one may turn; `tables` derives the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

FIRST_DAY = np.datetime64("2024-01-01", "us")  # a Monday
DAY_US = 86_400_000_000

# How the labels are defined, in the words of `features.labels`: keyword arguments of `churn_labels` for "churn"
# and of `conversion_labels` for the other two.
LABELS: dict[str, dict[str, Any]] = {
    "churn": {"activity": ["purchase"], "active_days": 60, "horizon_days": 28},
    "conversion": {"goal": ["subscribe"], "ended": [], "active_days": 60, "horizon_days": 56},
    "order": {"goal": ["upgrade"], "ended": [], "active_days": 60, "horizon_days": 28},
}

KINDS = ("bargain", "routine", "explorer")
MOODS = ("unhappy", "neutral", "happy")
PHASES = ("aware", "considering", "loyal")
COURSES = ("drifting", "climbing")
N_LIVE = len(KINDS) * len(MOODS) * len(PHASES) * len(COURSES)
N_HIDDEN = N_LIVE + 1
GONE = N_LIVE  # the one state of those who have left for good

# What may follow in a visit; after each of these there may be one step round RESEARCH: forward, backward, on the spot.
CHOICES = (
    "ad_click", "social_post", "newsletter_open", "search", "product_view", "pricing_page", "add_to_cart", "purchase",
    "track_order", "support_contact", "return_item", "survey", "redeem_points", "refer_friend",
)  # fmt: skip
RESEARCH = ("compare", "read_review", "ask_quote")
STEPS = (1, -1, 0)
OPENERS = ("sign_up", "visit")  # each visit opens with one of them; sign_up is the first event of a journey
GOALS = ("subscribe", "upgrade")  # each at most once, at the end of a visit
TOUCHPOINTS = (*OPENERS, *CHOICES, *RESEARCH, *GOALS)
STAGES = {
    "sign_up": "awareness", "visit": "awareness", "ad_click": "awareness", "social_post": "awareness",
    "newsletter_open": "awareness", "search": "consideration", "product_view": "consideration",
    "pricing_page": "consideration", "compare": "consideration", "read_review": "consideration",
    "ask_quote": "consideration", "add_to_cart": "purchase", "purchase": "purchase", "subscribe": "purchase",
    "upgrade": "loyalty", "track_order": "post-purchase", "support_contact": "post-purchase",
    "return_item": "post-purchase", "survey": "post-purchase", "redeem_points": "loyalty", "refer_friend": "loyalty",
}  # fmt: skip
CHANNELS = ("web", "app", "email", "store", "call_centre", "social")
RATED = ("survey", "support_contact")  # these carry a satisfaction of 1 to 5
ITEMED = ("product_view", "add_to_cart", "purchase", "return_item")
ITEMS = tuple(f"item_{i:02d}" for i in range(1, 13))
PRICES_GBP = (4.0, 6.0, 9.0, 12.0, 15.0, 19.0, 24.0, 30.0, 38.0, 49.0, 65.0, 90.0)
COUNTRIES = ("GB", "DE", "FR", "NL", "IE")
PLANS = ("free", "basic", "plus")

# Relative frequencies of CHOICES, and how moods, phases and kinds multiply them.
CHOICE_WEIGHTS = (5.0, 4.0, 6.0, 8.0, 10.0, 8.0, 6.0, 8.0, 5.0, 3.0, 1.2, 20.0, 2.5, 2.0)
BY_MOOD = {"purchase": (0.06, 0.9, 1.5), "support_contact": (4.0, 1.0, 0.5), "return_item": (3.0, 1.0, 0.6)}
BY_PHASE = {
    "ad_click": (1.3, 0.9, 0.9), "social_post": (1.3, 0.9, 0.9), "search": (0.9, 1.2, 0.9),
    "pricing_page": (0.08, 6.0, 0.08), "track_order": (0.8, 0.9, 1.2), "redeem_points": (0.4, 0.9, 2.0),
    "refer_friend": (0.6, 0.9, 1.5),
}  # fmt: skip
BY_KIND = {
    "newsletter_open": (1.5, 1.0, 0.7), "product_view": (1.0, 0.8, 1.3), "search": (1.2, 0.8, 1.1),
    "ad_click": (1.4, 1.0, 0.7),
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """The constants that one may turn. Rows are kinds, moods, phases or courses in the order of their names above.

    Attributes:
        kind_share: how many customers are of each kind.
        visits_per_day: by kind, before mood and season.
        visits_by_mood: factor on `visits_per_day`.
        touches_per_visit: mean number of touchpoints after the one that opens a visit, research apart (Poisson).
        research_after_touch: chance that such a touchpoint is followed by a research touchpoint.
        leave_per_day: by mood; nobody comes back.
        leave_by_kind: factor on `leave_per_day`.
        worse_per_day, better_per_day: chance that the mood falls or rises by one level.
        onward_per_day: aware → considering, considering → loyal, loyal → considering.
        climb_per_day, drift_per_day: drifting → climbing and back.
        subscribe_by_phase, subscribe_by_mood: chance in a visit, and a factor on it.
        upgrade_by_course: chance in a visit.
        step_by_course: chances of a step forward, backward, on the spot in the round of RESEARCH.
        rating_base: chances of a satisfaction of 1 to 5, before the mood.
        rating_tilt_by_mood: a rating's chance is its base times exp(tilt × rating), normalised, so that the mean of
            the ratings says all that they say about the mood.
        week: relative number of visits from Monday to Sunday.
        year_amplitude: visits swing by this share over the year and peak in December.
    """

    kind_share: tuple[float, ...] = (0.35, 0.4, 0.25)
    visits_per_day: tuple[float, ...] = (0.44, 0.50, 0.56)
    visits_by_mood: tuple[float, ...] = (0.95, 1.0, 1.0)
    touches_per_visit: float = 2.0
    research_after_touch: float = 0.6
    leave_per_day: tuple[float, ...] = (0.006, 0.0006, 0.0002)
    leave_by_kind: tuple[float, ...] = (1.05, 1.0, 0.95)
    worse_per_day: tuple[float, ...] = (0.0, 0.0018, 0.0015)
    better_per_day: tuple[float, ...] = (0.0015, 0.0018, 0.0)
    onward_per_day: tuple[float, ...] = (0.002, 0.002, 0.002)
    climb_per_day: float = 0.003
    drift_per_day: float = 0.004
    subscribe_by_phase: tuple[float, ...] = (0.0002, 0.032, 0.0002)
    subscribe_by_mood: tuple[float, ...] = (0.8, 1.0, 1.1)
    upgrade_by_course: tuple[float, ...] = (0.0004, 0.045)
    step_by_course: tuple[tuple[float, ...], ...] = ((0.06, 0.84, 0.10), (0.84, 0.06, 0.10))
    rating_base: tuple[float, ...] = (0.10, 0.22, 0.36, 0.22, 0.10)
    rating_tilt_by_mood: tuple[float, ...] = (-1.3, 0.0, 1.3)
    week: tuple[float, ...] = (1.0, 0.95, 0.95, 1.0, 1.1, 1.15, 0.85)
    year_amplitude: float = 0.05

    def season(self, n_days: int) -> Floats:
        """(n_days,) factor on the number of visits, by day since the first Monday, a 1 January."""
        day = np.arange(n_days)
        year = 1 + self.year_amplitude * np.cos(2 * np.pi * (day + 14) / 365.25)
        return np.asarray(np.asarray(self.week)[day % 7] * year)


@dataclass(frozen=True)
class Tables:
    """What a `World` means for each hidden state. The last state is `GONE`; its rows matter only through its rate 0.

    Attributes:
        kind: (N_HIDDEN,) index into KINDS, -1 for GONE.
        start: (n_kinds, N_HIDDEN) state on the day of joining, by kind.
        transition: (N_HIDDEN, N_HIDDEN) from one day to the next.
        rate: (N_HIDDEN,) visits a day before the season.
        touches: mean number of touchpoints after the opening one, research apart.
        choice: (N_HIDDEN, n_choices).
        step: (N_HIDDEN, 3) forward, backward, on the spot.
        rating: (N_HIDDEN, 5).
        channel: (N_HIDDEN, n_channels).
        item: (N_HIDDEN, n_items).
        goal: (N_HIDDEN, 2) chance to subscribe, to upgrade in a visit.
        kind_share: (n_kinds,).
        country, plan: (n_kinds, n) chances by kind.
    """

    kind: npt.NDArray[np.int64]
    start: Floats
    transition: Floats
    rate: Floats
    touches: float
    choice: Floats
    step: Floats
    rating: Floats
    channel: Floats
    item: Floats
    goal: Floats
    kind_share: Floats
    country: Floats
    plan: Floats


def tables(world: World) -> Tables:
    """Derive the tables of a world.

    >>> t = tables(World())
    >>> t.transition.shape, bool(np.allclose(t.transition.sum(axis=1), 1))
    ((55, 55), True)
    """
    kind, mood, phase, course = _parts()
    choice = _distributions(
        np.asarray(CHOICE_WEIGHTS)
        * _factors(BY_MOOD, CHOICES)[mood]
        * _factors(BY_PHASE, CHOICES)[phase]
        * _factors(BY_KIND, CHOICES)[kind]
    )
    visits = np.asarray(world.visits_per_day)[kind] * np.asarray(world.visits_by_mood)[mood]
    subscribe = np.asarray(world.subscribe_by_phase)[phase] * np.asarray(world.subscribe_by_mood)[mood]
    upgrade = np.asarray(world.upgrade_by_course)[course]
    return Tables(
        kind=np.append(kind, -1),
        start=_start(world),
        transition=_transition(world),
        rate=np.append(visits, 0.0),
        touches=world.touches_per_visit,
        choice=_with_gone_row(choice),
        step=_with_gone_row(np.asarray(world.step_by_course)[course]),
        rating=_with_gone_row(_ratings(world)[mood]),
        channel=_with_gone_row(_distributions(np.asarray(CHANNEL_BY_KIND))[kind]),
        item=_with_gone_row(_item_shares()[kind]),
        goal=np.vstack((np.column_stack((subscribe, upgrade)), np.zeros((1, 2)))),
        kind_share=np.asarray(world.kind_share),
        country=_distributions(np.asarray(COUNTRY_BY_KIND)),
        plan=_distributions(np.asarray(PLAN_BY_KIND)),
    )


CHANNEL_BY_KIND = ((45, 20, 12, 10, 5, 8), (38, 30, 8, 14, 6, 4), (38, 34, 6, 8, 4, 10))
COUNTRY_BY_KIND = ((50, 20, 12, 10, 8), (40, 22, 18, 12, 8), (36, 20, 18, 14, 12))
PLAN_BY_KIND = ((55, 35, 10), (40, 40, 20), (35, 38, 27))
START_PHASE = (0.45, 0.4, 0.15)
START_MOOD = (0.25, 0.4, 0.35)


def _parts() -> tuple[npt.NDArray[np.int64], ...]:
    """Kind, mood, phase and course of each live state."""
    shape = (len(KINDS), len(MOODS), len(PHASES), len(COURSES))
    return tuple(part.astype(np.int64) for part in np.unravel_index(np.arange(N_LIVE), shape))


def _factors(multipliers: Mapping[str, tuple[float, ...]], names: tuple[str, ...]) -> Floats:
    """(levels, n_names), 1 where a name has no multiplier."""
    levels = len(next(iter(multipliers.values())))
    return np.column_stack([multipliers.get(name, (1.0,) * levels) for name in names])


def _distributions(weights: Floats) -> Floats:
    return np.asarray(weights / weights.sum(axis=1, keepdims=True))


def _with_gone_row(live: Floats) -> Floats:
    """Append a uniform row for GONE, which never emits."""
    return np.vstack((live, np.full((1, live.shape[1]), 1 / live.shape[1])))


def _ratings(world: World) -> Floats:
    """(n_moods, 5)."""
    tilts = np.outer(world.rating_tilt_by_mood, np.arange(len(world.rating_base)))
    return _distributions(np.asarray(world.rating_base) * np.exp(tilts))


def _item_shares() -> Floats:
    """(n_kinds, n_items): bargain hunters lean to cheap items, explorers to dear ones."""
    tilt = np.linspace(-1, 1, len(ITEMS))
    return _distributions(np.exp(np.outer((-0.7, 0.0, 0.6), tilt)))


def _start(world: World) -> Floats:
    kind, mood, phase, course = _parts()
    climbing = world.climb_per_day / (world.climb_per_day + world.drift_per_day)
    courses = np.array((1 - climbing, climbing))
    within = np.asarray(START_MOOD)[mood] * np.asarray(START_PHASE)[phase] * courses[course]
    by_kind = np.where(kind == np.arange(len(KINDS))[:, None], within, 0.0)
    return np.column_stack((by_kind, np.zeros(len(KINDS))))


def _transition(world: World) -> Floats:
    """Mood, phase and course move independently of each other; leaving depends on mood and kind."""
    moods = np.diag(1 - np.asarray(world.worse_per_day) - np.asarray(world.better_per_day))
    moods += np.diag(world.worse_per_day[1:], -1) + np.diag(world.better_per_day[:-1], 1)
    aware, considering, loyal = world.onward_per_day
    phases = np.array([[1 - aware, aware, 0], [0, 1 - considering, considering], [0, loyal, 1 - loyal]])
    up, down = world.climb_per_day, world.drift_per_day
    courses = np.array([[1 - up, up], [down, 1 - down]])
    live = np.kron(np.eye(len(KINDS)), np.kron(moods, np.kron(phases, courses)))
    kind, mood, _, _ = _parts()
    leaves = np.asarray(world.leave_per_day)[mood] * np.asarray(world.leave_by_kind)[kind]
    whole = np.zeros((N_HIDDEN, N_HIDDEN))
    whole[:N_LIVE, :N_LIVE] = live * (1 - leaves)[:, None]
    whole[:N_LIVE, GONE] = leaves
    whole[GONE, GONE] = 1.0
    return whole

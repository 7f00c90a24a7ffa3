"""The true probability of a label, given the hidden state and given the observed events alone.

The second by a forward filter over days. With b the chances of the hidden states before a day, L the likelihood of that
day's events and T the transition, the chances before the next day are b' ∝ (b ∘ L) T. Both probabilities then take the
chance that nothing of interest happens in the horizon, by a backward recursion over its days,

    v_day = q_day ∘ (T v_day+1),   v_end = 1,

where q is the chance of a day without it: visits are Poisson, so with rate r and season s a day has none of the visits
that matter with chance exp(-r s m), m being the chance that a visit matters.

The filter reads nothing but the event table: every log-likelihood is a count times a logarithm, so a day is a row of
counts (`_counts`) times one matrix (`_log_weights`).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import ConfigError
from features.journeys.journeys import Journeys
from features.simulation.world import (
    CHANNELS,
    CHOICES,
    COUNTRIES,
    DAY_US,
    FIRST_DAY,
    GOALS,
    ITEMS,
    LABELS,
    OPENERS,
    PLANS,
    RATED,
    RESEARCH,
    STEPS,
    TOUCHPOINTS,
    Floats,
    Tables,
    World,
    tables,
)
from features.timestamps import microseconds

Ints = npt.NDArray[np.int64]

CHUNK_CUSTOMERS = 2_000
IMPOSSIBLE = -1e5  # a logarithm of 0 that may be multiplied by a count of 0
N_RATINGS = 5

# The counts of a day, block after block.
BLOCKS = {
    "visit": 1,
    "channel": len(CHANNELS),
    "choice": len(CHOICES),
    "step": len(STEPS),
    "item": len(ITEMS),
    "rating": N_RATINGS,
    "at_risk": len(GOALS),  # visits while the goal was not reached yet, the one that reaches it included
    "goal": len(GOALS),
}
OFFSETS = dict(zip(BLOCKS, np.cumsum([0, *BLOCKS.values()]).tolist(), strict=False))
N_COUNTS = sum(BLOCKS.values())


def truth(
    journeys: Journeys, world: World, states: npt.NDArray[np.int16], snapshots: pd.DataFrame, label: str
) -> pd.DataFrame:
    """Both true probabilities for each `customer_id, cutoff`; see `Simulation.truth`.

    Args:
        journeys: the simulated events.
        world: the constants that made them.
        states: (n_customers, days + 1) hidden states.
        snapshots: `customer_id, cutoff`.
        label: a key of `LABELS`.

    Raises:
        ConfigError: a label that a simulation does not know.
    """
    if label not in LABELS:
        raise ConfigError(f"Unknown label {label!r}: a simulation knows {', '.join(LABELS)}.")
    customer, cutoff = journeys.index_of(snapshots["customer_id"]), microseconds(snapshots["cutoff"])
    day = _days(cutoff, states.shape[1] - 1)
    rows = np.flatnonzero(customer >= 0)
    rows = rows[journeys.t[journeys.offsets[customer[rows]]] < cutoff[rows]]  # those with an event by then
    customer, cutoff, day = customer[rows], cutoff[rows], day[rows]
    event_free = event_free_chance(tables(world), world, label, day)  # (n, N_HIDDEN)
    state = states[customer_numbers(journeys)[customer], day]
    hidden = np.take_along_axis(event_free, state[:, None].astype(np.int64), axis=1)[:, 0]
    observed = (true_beliefs(journeys, world, customer, day) * event_free).sum(axis=1)
    if label != "churn":
        done = _reached_before(journeys, customer, cutoff, LABELS[label]["goal"][0])
        hidden, observed = np.where(done, 0.0, 1 - hidden), np.where(done, 0.0, 1 - observed)
    answer = snapshots[["customer_id", "cutoff"]].reset_index(drop=True)
    for name, p in (("probability_hidden", hidden), ("probability_observed", observed)):
        answer[name] = np.full(len(answer), np.nan)
        answer.loc[rows, name] = p
    return answer


def _days(cutoff: Ints, n_days: int) -> Ints:
    """(n,) days from the first one to the cutoff."""
    day, rest = np.divmod(cutoff - FIRST_DAY.astype(np.int64), DAY_US)
    wrong = np.flatnonzero((rest != 0) | (day < 0) | (day > n_days))
    if len(wrong):
        worst = cutoff[wrong[0]].astype("datetime64[us]")
        raise ConfigError(
            f"Cutoff {worst} (row {wrong[0]}) has no true probability: take midnights UTC from {FIRST_DAY} on, "
            f"at most {n_days} days later, when the simulation ends."
        )
    return np.asarray(day)


def customer_numbers(journeys: Journeys) -> Ints:
    """(n_customers,) the number in each identifier: the row in `Simulation.states`."""
    return np.array([int(name[1:]) for name in journeys.customer_ids.to_pylist()], dtype=np.int64)


def _reached_before(journeys: Journeys, customer: Ints, cutoff: Ints, goal: str) -> npt.NDArray[np.bool_]:
    category = journeys.categories["touchpoint"]
    if goal not in category.names:
        return np.zeros(len(customer), dtype=np.bool_)
    rows = np.flatnonzero(category.codes == category.names.index(goal))  # at most one a customer
    first = np.full(journeys.n_customers, np.iinfo(np.int64).max)
    first[np.searchsorted(journeys.offsets, rows, side="right") - 1] = journeys.t[rows]
    return np.asarray(first[customer] < cutoff)


def event_free_chance(t: Tables, world: World, label: str, day: Ints) -> Floats:
    """(n, N_HIDDEN) chance that nothing of interest happens in the horizon after each day, by the state on that day."""
    horizon = int(LABELS[label]["horizon_days"])
    matters = _matters(t, label)
    season = world.season(int(day.max(initial=0)) + horizon)
    distinct, where = np.unique(day, return_inverse=True)
    answer = np.empty((len(distinct), len(t.rate)))
    for i, first in enumerate(distinct.tolist()):
        v = np.ones(len(t.rate))
        for s in season[first : first + horizon][::-1]:
            v = np.exp(-t.rate * s * matters) * (t.transition @ v)
        answer[i] = v
    return answer[where]


def _matters(t: Tables, label: str) -> Floats:
    """(N_HIDDEN,) chance that a visit holds what the label looks for."""
    if label == "churn":
        return np.asarray(1 - np.exp(-t.touches * t.choice[:, CHOICES.index("purchase")]))
    return np.asarray(t.goal[:, GOALS.index(LABELS[label]["goal"][0])])


def true_beliefs(journeys: Journeys, world: World, customer: Ints, day: Ints) -> Floats:
    """(n, N_HIDDEN) chances of the states on each `day`, given the customer's events before it."""
    t = tables(world)
    weights, season = _log_weights(t), world.season(int(day.max(initial=0)))
    answer = np.empty((len(customer), len(t.rate)))
    everyone = np.unique(customer)
    for start in range(0, len(everyone), CHUNK_CUSTOMERS):
        customers = everyone[start : start + CHUNK_CUSTOMERS]
        rows = np.flatnonzero((customer >= customers[0]) & (customer <= customers[-1]))
        owner = np.searchsorted(customers, customer[rows])
        answer[rows] = _filter_days(journeys, t, weights, season[: day[rows].max()], customers, owner, day[rows])
    return answer


def _filter_days(
    journeys: Journeys, t: Tables, weights: Floats, season: Floats, customers: Ints, owner: Ints, day: Ints
) -> Floats:
    """(n, N_HIDDEN) chances for rows (`owner`, `day`), `owner` an index into `customers`."""
    events = _Events(journeys, customers)
    belief = events.prior(t)  # (len(some), N_HIDDEN)
    active, active_day, counts = events.counts()
    likelihood = counts @ weights  # (n_active, N_HIDDEN), logarithms
    likelihood = np.exp(likelihood - likelihood.max(axis=1, keepdims=True))
    borders = np.searchsorted(active_day, np.arange(len(season) + 1))
    answer = np.empty((len(owner), belief.shape[1]))
    for today in range(len(season) + 1):
        due = day == today
        answer[due] = belief[owner[due]]
        if today == len(season):
            break
        now = slice(borders[today], borders[today + 1])
        after = belief * np.exp(-t.rate * season[today])
        after[active[now]] *= likelihood[now]
        after = after @ t.transition
        after /= after.sum(axis=1, keepdims=True)
        belief = np.where((events.joined <= today)[:, None], after, belief)
    return answer


def _log_weights(t: Tables) -> Floats:
    """(N_COUNTS, N_HIDDEN) what one of each count adds to the log-likelihood."""
    chances = np.vstack(
        (t.rate, t.channel.T, t.choice.T, t.step.T, t.item.T, t.rating.T, 1 - t.goal.T, t.goal.T / (1 - t.goal.T))
    )
    with np.errstate(divide="ignore"):
        return np.maximum(np.log(chances), IMPOSSIBLE)


class _Events:
    """The events of some customers, as the counts that the likelihood needs.

    Args:
        journeys: the packed event table.
        customers: (n,) sorted indices of customers.
    """

    def __init__(self, journeys: Journeys, customers: Ints) -> None:
        length = journeys.offsets[customers + 1] - journeys.offsets[customers]
        self.owner = np.repeat(np.arange(len(customers)), length)  # (n_events,)
        self.first = np.cumsum(length) - length  # (n,) each customer's first event
        rows = np.arange(len(self.owner)) + (journeys.offsets[customers] - self.first)[self.owner]
        self.day = (journeys.t[rows] - FIRST_DAY.astype(np.int64)) // DAY_US
        self.joined = self.day[self.first]
        self.touchpoint = _codes(journeys, "touchpoint", TOUCHPOINTS)[rows]
        self.channel = _codes(journeys, "channel", CHANNELS)[rows]
        self.item = _codes(journeys, "item", ITEMS)[rows]
        self.satisfaction = journeys.numbers["satisfaction"][rows]
        self.country = _codes(journeys, "country", COUNTRIES)[rows][self.first]
        self.plan = _codes(journeys, "plan", PLANS)[rows][self.first]

    def prior(self, t: Tables) -> Floats:
        """(n, N_HIDDEN) chances of the states on joining, given the profile."""
        kind = t.kind_share * t.country[:, self.country].T * t.plan[:, self.plan].T  # (n, n_kinds)
        return np.asarray((kind / kind.sum(axis=1, keepdims=True)) @ t.start)

    def counts(self) -> tuple[Ints, Ints, Floats]:
        """Days with events: (n_active,) index into `customers`, (n_active,) day, (n_active, N_COUNTS) counts."""
        key = self.day * len(self.first) + self.owner
        keys, row = np.unique(key, return_inverse=True)
        parts = self._columns()
        rows, columns = np.concatenate([row[r] for r, _ in parts]), np.concatenate([c for _, c in parts])
        flat = np.bincount(rows * N_COUNTS + columns, minlength=len(keys) * N_COUNTS)
        active_day, owner = np.divmod(keys, len(self.first))
        return owner, active_day, flat.reshape(len(keys), N_COUNTS).astype(np.float64)

    def _columns(self) -> list[tuple[Ints, Ints]]:
        """Pairs (events, column of the count that each adds 1 to)."""
        opens = np.flatnonzero(np.isin(self.touchpoint, _places(OPENERS)))
        visits = np.flatnonzero(self.touchpoint == TOUCHPOINTS.index("visit"))
        items, rated = np.flatnonzero(self.item >= 0), np.flatnonzero(np.isin(self.touchpoint, _places(RATED)))
        parts = [
            (visits, np.full(len(visits), OFFSETS["visit"])),
            (opens, OFFSETS["channel"] + self.channel[opens]),
            (items, OFFSETS["item"] + self.item[items]),
            (rated, OFFSETS["rating"] + self.satisfaction[rated].astype(np.int64) - 1),
        ]
        choice = CHOICE_OF[self.touchpoint]
        chosen = np.flatnonzero(choice >= 0)
        parts.append((chosen, OFFSETS["choice"] + choice[chosen]))
        return [*parts, self._steps(), *(part for i in range(len(GOALS)) for part in self._goals(i, opens))]

    def _steps(self) -> tuple[Ints, Ints]:
        """Steps round RESEARCH: from each research touchpoint of a customer to the next one."""
        rows = np.flatnonzero(np.isin(self.touchpoint, _places(RESEARCH)))
        same = self.owner[rows][1:] == self.owner[rows][:-1]
        moved = np.diff(self.touchpoint[rows])[same] % len(RESEARCH)
        return rows[1:][same], OFFSETS["step"] + STEP_OF[moved]

    def _goals(self, i: int, opens: Ints) -> list[tuple[Ints, Ints]]:
        """Visits that might reach goal `i`, and the one that does."""
        hit = self.touchpoint == TOUCHPOINTS.index(GOALS[i])
        before = np.cumsum(hit) - hit
        at_risk = opens[(before - before[self.first][self.owner])[opens] == 0]
        hits = np.flatnonzero(hit)
        return [
            (at_risk, np.full(len(at_risk), OFFSETS["at_risk"] + i)),
            (hits, np.full(len(hits), OFFSETS["goal"] + i)),
        ]


STEP_OF = np.array([STEPS.index(move) for move in (0, 1, -1)])  # by difference modulo 3
CHOICE_OF = np.array([CHOICES.index(name) if name in CHOICES else -1 for name in TOUCHPOINTS])


def _places(names: tuple[str, ...]) -> list[int]:
    return [TOUCHPOINTS.index(name) for name in names]


def _codes(journeys: Journeys, column: str, names: tuple[str, ...]) -> Ints:
    """(n_events,) index into `names`, -1 where missing."""
    category = journeys.categories[column]
    places = np.array([*(names.index(name) for name in category.names), -1])
    return np.asarray(places[category.codes])

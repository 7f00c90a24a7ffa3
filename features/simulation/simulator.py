"""Simulated journeys with a known truth: how well could any model do?

    simulation = simulate(n_customers=2_000, days=400, seed=7)
    simulation.events                                   # canonical event rows
    simulation.truth(label_table, "churn")              # two true probabilities for each customer_id, cutoff

The first probability knows the hidden state at the cutoff; the second knows only the events before it and is the best
that any model can say (`features.simulation.truth`). The world is described in `features.simulation.world`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.errors import ConfigError
from features.events.schema import EventSchema
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from features.simulation.truth import truth
from features.simulation.world import (
    CHANNELS,
    CHOICES,
    COUNTRIES,
    DAY_US,
    FIRST_DAY,
    GOALS,
    ITEMED,
    ITEMS,
    LABELS,
    PLANS,
    PRICES_GBP,
    RATED,
    RESEARCH,
    STAGES,
    STEPS,
    TOUCHPOINTS,
    Floats,
    Tables,
    World,
    tables,
)

Ints = npt.NDArray[np.int64]

CHUNK_CUSTOMERS = 500  # a chunk has a random stream of its own, so customer i does not depend on n_customers
EARLY_SHARE, EARLY_DAYS = 0.3, 60  # so many customers join in these first days, the others at any time
LATEST_JOIN = 0.9  # up to this share of the span
OPENING_HOURS_US = (6 * DAY_US // 24, 22 * DAY_US // 24)
SECONDS_BETWEEN_TOUCHES = 40.0
SCHEMA = EventSchema(profile=("country", "plan"))

__all__ = ["LABELS", "SCHEMA", "Simulation", "simulate"]


@dataclass(frozen=True)
class Simulation:
    """What `simulate` made.

    Attributes:
        events: canonical rows by customer and time: customer_id, timestamp (µs, UTC, naive), touchpoint, channel,
            stage, item, value (GBP, returns negative), duration_s, satisfaction (1 to 5), country, plan.
        states: (n_customers, days + 1) int16, the hidden state of each day (`features.simulation.world`) and of the day
            after the last; until a customer joins, the state of joining.
        days: how many days were simulated.
        world: the constants.
    """

    events: pd.DataFrame
    states: npt.NDArray[np.int16]
    days: int
    world: World
    schema: EventSchema = field(default=SCHEMA)

    @property
    def first_day(self) -> pd.Timestamp:
        """Midnight before the first event."""
        return pd.Timestamp(FIRST_DAY)

    @property
    def end(self) -> pd.Timestamp:
        """Midnight after the last day: `observed_until` for the label builders."""
        return pd.Timestamp(FIRST_DAY + np.timedelta64(self.days, "D"))

    @cached_property
    def journeys(self) -> Journeys:
        """The events, packed."""
        return pack(self.events, self.schema)

    def truth(self, snapshots: pd.DataFrame, label: str) -> pd.DataFrame:
        """The true probability of a label at each snapshot, twice.

        Args:
            snapshots: `customer_id, cutoff`; cutoffs are midnights UTC, after the customer's first event.
            label: "churn", "conversion" or "order", as `LABELS` defines them.

        Returns:
            `customer_id, cutoff, probability_hidden, probability_observed` in the order of the rows: given the hidden
            state at the cutoff, and given the events before it. Customers without events by then get NaN.

        Raises:
            ConfigError: an unknown label, or a cutoff that is no midnight.
        """
        return truth(self.journeys, self.world, self.states, snapshots, label)

    def save(self, folder: Path | str, labels: Sequence[str] = (), cutoffs: Sequence[Any] = ()) -> Path:
        """Write `events.parquet` and, for labels and cutoffs that are asked for, `truth.parquet`.

        Args:
            folder: made if need be.
            labels: names in `LABELS`.
            cutoffs: midnights UTC; each customer with an event by then gets a row for each label.

        Returns:
            The path of `events.parquet`.
        """
        path = Path(folder) / "events.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        self.events.to_parquet(path, index=False)
        if labels and len(cutoffs):
            self._truths(labels, cutoffs).to_parquet(path.with_name("truth.parquet"), index=False)
        return path

    def _truths(self, labels: Sequence[str], cutoffs: Sequence[Any]) -> pd.DataFrame:
        first = self.events.groupby("customer_id", sort=False)["timestamp"].min()
        joined_ids = [first.index[first < pd.Timestamp(cutoff)] for cutoff in cutoffs]
        rows = pd.DataFrame(
            {
                "customer_id": np.concatenate([np.asarray(ids, dtype=object) for ids in joined_ids]),
                "cutoff": np.repeat(np.array(cutoffs, dtype="datetime64[us]"), [len(ids) for ids in joined_ids]),
            }
        )
        tables = [self.truth(rows, label) for label in labels]
        return pd.concat([table.assign(label=label) for label, table in zip(labels, tables, strict=True)])[
            ["label", *tables[0].columns]
        ]


def simulate(n_customers: int = 2_000, days: int = 400, seed: int = 7, world: World | None = None) -> Simulation:
    """Simulate journeys. The same seed gives the same numbers, and more customers leave the first ones as they are.

    Args:
        n_customers: how many customers, at least 1.
        days: how many days from 1 January 2024, at least 2; most experiments want a year or more.
        seed: of every random draw.
        world: the constants; the default world is hard, but not hopeless (`experiments/benchmarks/simulated_exam.py`).

    Raises:
        ConfigError: fewer than 1 customer or 2 days.

    >>> simulation = simulate(n_customers=3, days=30, seed=7)
    >>> simulation.events["customer_id"].unique().tolist()
    ['c000000', 'c000001', 'c000002']
    >>> bool(simulation.events["timestamp"].max() < simulation.end)
    True
    """
    if n_customers < 1 or days < 2:
        raise ConfigError(f"simulate needs at least 1 customer and 2 days, not {n_customers} and {days}.")
    world = world or World()
    chunks = [
        _simulate_chunk(np.random.default_rng((seed, chunk)), chunk, days, world)
        for chunk in range(-(-n_customers // CHUNK_CUSTOMERS))
    ]
    columns = {name: np.concatenate([rows[name] for rows, _ in chunks]) for name in chunks[0][0]}
    in_sample = columns["customer"] < n_customers
    states = np.concatenate([states for _, states in chunks])[:n_customers]
    return Simulation(_frame({name: column[in_sample] for name, column in columns.items()}), states, days, world)


def _simulate_chunk(
    rng: np.random.Generator, chunk: int, days: int, world: World
) -> tuple[dict[str, npt.NDArray[Any]], npt.NDArray[np.int16]]:
    """Coded event columns and (CHUNK_CUSTOMERS, days + 1) states of one chunk of customers."""
    t = tables(world)
    kind = rng.choice(len(world.kind_share), CHUNK_CUSTOMERS, p=np.asarray(world.kind_share))
    joined = _join_days(rng, days)
    states = _paths(rng, t, kind, joined, days)
    visits = _visits(rng, t, states[:, :days], joined, world.season(days))
    rows = _touches(rng, t, visits, world.research_after_touch)
    profile = {"country": draw(rng, t.country, kind), "plan": draw(rng, t.plan, kind)}
    rows.update({name: values[rows["customer"]] for name, values in profile.items()})
    rows["customer"] = rows["customer"] + chunk * CHUNK_CUSTOMERS
    return rows, states.astype(np.int16)


def draw(rng: np.random.Generator, chances: Floats, rows: Ints) -> Ints:
    """(n,) one draw from `chances[row]` for each of the (n,) rows."""
    edges = np.cumsum(chances, axis=1)[:, :-1].astype(np.float32)
    return np.asarray((rng.random(len(rows), dtype=np.float32)[:, None] >= edges[rows]).sum(axis=1))


def _join_days(rng: np.random.Generator, days: int) -> Ints:
    latest = max(1, int(days * LATEST_JOIN))
    early, late = (rng.integers(0, last, CHUNK_CUSTOMERS) for last in (min(EARLY_DAYS, latest), latest))
    return np.where(rng.random(CHUNK_CUSTOMERS) < EARLY_SHARE, early, late)


def _paths(rng: np.random.Generator, t: Tables, kind: Ints, joined: Ints, days: int) -> Ints:
    """(n, days + 1) hidden state of each day; constant until the day of joining."""
    state = draw(rng, t.start, kind)
    states = np.empty((len(kind), days + 1), dtype=np.int64)
    for day in range(days + 1):
        state = np.where(joined < day, draw(rng, t.transition, state), state)
        states[:, day] = state
    return states


def _visits(
    rng: np.random.Generator, t: Tables, states: Ints, joined: Ints, season: Floats
) -> dict[str, npt.NDArray[Any]]:
    """One row a visit, by customer and time: customer, opened (µs), state, opener, channel, goals reached."""
    day = np.arange(states.shape[1])
    mean = np.where(day >= joined[:, None], t.rate[states] * season, 0.0)
    count = rng.poisson(mean) + (day == joined[:, None])  # the day of joining has a sign_up for sure
    customer, when = np.divmod(np.repeat(np.arange(count.size), count.ravel()), len(day))
    opened = when * DAY_US + rng.integers(*OPENING_HOURS_US, len(when))
    opened = opened[np.lexsort((opened, customer))]
    state = states[customer, when]
    first = np.append(True, customer[1:] != customer[:-1])
    reached = rng.random((len(state), len(GOALS))) < t.goal[state]
    return {
        "customer": customer, "opened": opened, "state": state, "opener": np.where(first, 0, 1),
        "channel": draw(rng, t.channel, state),
        **{goal: _only_first(reached[:, i], customer) for i, goal in enumerate(GOALS)},
    }  # fmt: skip


def _only_first(flags: npt.NDArray[np.bool_], customer: Ints) -> npt.NDArray[np.bool_]:
    """Keep each customer's first True."""
    rows = np.flatnonzero(flags)
    first = np.zeros_like(flags)
    first[rows[np.unique(customer[rows], return_index=True)[1]]] = True
    return first


def _touches(
    rng: np.random.Generator, t: Tables, visits: dict[str, npt.NDArray[Any]], research_after_touch: float
) -> dict[str, npt.NDArray[Any]]:
    """Coded event columns. A visit is its opener, touches each with or without a research step after it, and goals."""
    touches = rng.poisson(t.touches, len(visits["opened"]))
    slots = 1 + 2 * touches + len(GOALS)  # opener, touch, research, touch, research …, subscribe, upgrade
    visit = np.repeat(np.arange(len(slots)), slots)
    place = np.arange(len(visit)) - (np.cumsum(slots) - slots)[visit]
    slots_ahead = slots[visit] - place  # 2 at the slot of subscribe, 1 at that of upgrade
    touch = (place % 2 == 1) & (slots_ahead > len(GOALS))
    research = (
        (place % 2 == 0) & (place > 0) & (slots_ahead > len(GOALS)) & (rng.random(len(place)) < research_after_touch)
    )
    subscribes, upgrades = (
        visits["subscribe"][visit] & (slots_ahead == 2),
        visits["upgrade"][visit] & (slots_ahead == 1),
    )
    touchpoint = np.where(subscribes, TOUCHPOINTS.index("subscribe"), TOUCHPOINTS.index("upgrade"))
    touchpoint[place == 0] = visits["opener"]
    drawn = np.flatnonzero((place == 0) | touch | research | subscribes | upgrades)
    visit, place, touch, research, touchpoint = (x[drawn] for x in (visit, place, touch, research, touchpoint))
    customer, state = visits["customer"][visit], visits["state"][visit]
    names = np.array([TOUCHPOINTS.index(choice) for choice in CHOICES])
    touchpoint[touch] = names[draw(rng, t.choice, state[touch])]
    touchpoint[research] = _research_round(rng, t, state[research], customer[research])
    times = _times(rng, visits["opened"][visit], place, customer)
    columns = {"customer": customer, "t": times, "touchpoint": touchpoint, "channel": visits["channel"][visit]}
    return {**columns, **_event_columns(rng, t, touchpoint, state)}


def _research_round(rng: np.random.Generator, t: Tables, state: Ints, customer: Ints) -> Ints:
    """(n,) research touchpoints: from a random place each customer goes round RESEARCH by the steps of the course."""
    step = np.asarray(STEPS)[draw(rng, t.step, state)]
    origin = rng.integers(0, len(RESEARCH), CHUNK_CUSTOMERS)[customer]
    steps = np.cumsum(step)
    before = (steps - step)[np.searchsorted(customer, customer)]  # by the customers that came earlier
    return np.asarray(TOUCHPOINTS.index(RESEARCH[0]) + (origin + steps - before) % len(RESEARCH))


def _times(rng: np.random.Generator, opened: Ints, place: Ints, customer: Ints) -> Ints:
    """(n,) µs since the first day; visits do not overlap, and each stays within its day."""
    gap = np.where(place == 0, 0, (1e6 * rng.exponential(SECONDS_BETWEEN_TOUCHES, len(place))).astype(np.int64) + 1)
    start = np.flatnonzero(place == 0)
    visit = np.cumsum(place == 0) - 1
    since = np.cumsum(gap)
    t = opened + since - since[start][visit]
    day = opened // DAY_US
    t = np.minimum(t, (day + 1) * DAY_US - 1)
    span = np.int64(1) << 52  # 142 years: longer than any log, so that one running maximum serves all customers
    return np.asarray(np.maximum.accumulate(t + customer * span) - customer * span)


def _event_columns(rng: np.random.Generator, t: Tables, touchpoint: Ints, state: Ints) -> dict[str, npt.NDArray[Any]]:
    """Item, value, duration, satisfaction. Value and duration depend on nothing hidden but through the item."""
    itemed, rated = (np.isin(touchpoint, [TOUCHPOINTS.index(n) for n in names]) for names in (ITEMED, RATED))
    item = np.full(len(touchpoint), -1)
    item[itemed] = draw(rng, t.item, state[itemed])
    bought, returned = (touchpoint == TOUCHPOINTS.index(name) for name in ("purchase", "return_item"))
    sign = bought.astype(np.int64) - returned
    price = np.asarray(PRICES_GBP)[item] * rng.lognormal(0.0, 0.15, len(item))
    satisfaction = np.full(len(touchpoint), np.nan)
    satisfaction[rated] = 1 + draw(rng, t.rating, state[rated])
    return {
        "item": item,
        "value": np.where(sign != 0, np.round(sign * price, 2), np.nan),
        "duration_s": np.round(rng.lognormal(3.0, 0.8, len(item)), 1),
        "satisfaction": satisfaction,
    }


def _frame(columns: dict[str, npt.NDArray[Any]]) -> pd.DataFrame:
    """Canonical event rows from coded columns."""
    ids = np.array([f"c{i:06d}" for i in range(int(columns["customer"].max()) + 1)])
    touchpoint = columns["touchpoint"]
    return pd.DataFrame(
        {
            "customer_id": _texts(columns["customer"], ids),
            "timestamp": FIRST_DAY + columns["t"].astype("timedelta64[us]"),
            "touchpoint": _texts(touchpoint, TOUCHPOINTS),
            "channel": _texts(columns["channel"], CHANNELS),
            "stage": _texts(touchpoint, [STAGES[name] for name in TOUCHPOINTS]),
            "item": _texts(columns["item"], ITEMS),
            "value": columns["value"],
            "duration_s": columns["duration_s"],
            "satisfaction": columns["satisfaction"],
            "country": _texts(columns["country"], COUNTRIES),
            "plan": _texts(columns["plan"], PLANS),
        }
    )


def _texts(codes: Ints, names: Any) -> Any:
    """Text for codes; -1 is missing."""
    return pd.array(pa.array(names, pa.string()).take(pa.array(codes, mask=codes < 0)), dtype="str")

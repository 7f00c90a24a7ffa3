"""Influence of channels and touchpoints on conversion: Markov removal effect beside first, last and linear touch.

A way is what a customer meets before their first goal, or the whole journey where there is none; open journeys count as
not converted. The removal effect is that of Anderl, Becker, von Wangenheim and Schumann (International Journal of
Research in Marketing 33, 2016): a first-order Markov chain over the ways, with a start, a conversion and a null state;
the share of conversions that is lost when whoever comes to k goes to null instead. Absorbing probabilities are solved
exactly. With h(k) the chance to come to k from the start, and x(k) the chance to convert from k, both in the full
chain, the effect is h(k) x(k) / x(start): every way that visits k has a first visit there.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journey_map.kernels import count_codes
from features.journey_map.path_kernels import count_ways
from features.journey_map.selection import Int64s, MapSelection, MapSource, Pool, display_names, matching, pool_rare
from features.journey_map.settings import MapSettings

COLUMNS = ("level", "name", "customers", "first_touch", "last_touch", "linear", "removal_effect", "markov_share")
EMPTY = {name: pd.Series(dtype="str" if name in ("level", "name") else "float64") for name in COLUMNS}

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Ways:
    """Counts of ways over k names; those of disjoint sets of customers with the same names add up.

    Attributes:
        steps: (k + 3, k + 3) from where to where; after the names come start, conversion, null.
        customers: (k,) who has it on the way.
        first, last, linear: (k,) conversions: whose way begins and ends with it, and shared among the events of a way.
        untouched: conversions with nothing before them.
    """

    steps: Int64s
    customers: Int64s
    first: Int64s
    last: Int64s
    linear: Floats
    untouched: int

    def __add__(self, other: Ways) -> Ways:
        return Ways(
            self.steps + other.steps, self.customers + other.customers, self.first + other.first,
            self.last + other.last, self.linear + other.linear, self.untouched + other.untouched,
        )  # fmt: skip


def removal_effects(steps: Int64s) -> Floats:
    """(k,) the share of conversions lost when each state is removed; NaN where nobody converts, 0 where nobody comes.

    Args:
        steps: (k + 3, k + 3) counts; after the k states come start, conversion, null. States that nobody leaves have no
            count of their own.

    >>> steps = np.zeros((5, 5), np.int64)  # a, b, start, conversion, null
    >>> steps[2, 0], steps[2, 1], steps[0, 3], steps[1, 3], steps[1, 4] = 1, 1, 1, 1, 1
    >>> removal_effects(steps).round(4).tolist()  # by a 1/2 converts, by b 1/4
    [0.6667, 0.3333]
    """
    k = len(steps) - 3
    leaving = steps.sum(1)
    live = np.flatnonzero(leaving[: k + 1])
    chance = steps / np.maximum(leaving, 1)[:, None]
    visits = np.linalg.inv(np.eye(len(live)) - chance[np.ix_(live, live)])  # expected visits of j from i
    converts = visits @ chance[live, k + 1]
    effects = np.zeros(k)
    if not len(live) or live[-1] != k or converts[-1] <= 0:
        return np.full(k, np.nan)
    comes = visits[-1] / np.diag(visits)
    effects[live[:-1]] = (comes * converts / converts[-1])[:-1]
    return effects.clip(0.0, 1.0)


def ways_of(selection: MapSource, level: str, goals: tuple[str, ...], most: int) -> tuple[Ways, Pool]:
    """Count the ways at one level.

    Args:
        selection: what the map is drawn from.
        level: "channel" or "touchpoint".
        goals: touchpoints or patterns; a way ends with the first of them.
        most: names with a state of their own; rarer ones are pooled to "other".
    """
    names = selection.names if level == "touchpoint" else display_names(selection.category(level).names)
    met = selection.total(partial(_met, level=level, goals=goals))
    pool = pool_rare(names, met, most)
    return selection.total(partial(_ways, level=level, goals=goals, pool=pool)), pool


def first_goals(part: MapSelection, goals: tuple[str, ...]) -> Int64s:
    """(n,) place of each customer's first goal, -1 for none."""
    return part.cached(f"first goals {goals}", lambda: part.goals(matching(part.touchpoint.names, goals))[0])


def _until(part: MapSelection, goals: tuple[str, ...]) -> Int64s:
    first = first_goals(part, goals)
    return np.where(first >= 0, first, part.stop)


def _met(part: MapSelection, level: str, goals: tuple[str, ...]) -> Int64s:
    column = part.category(level)
    return np.asarray(count_codes(column.codes, part.start, _until(part, goals), len(column.names)))


def _ways(part: MapSelection, level: str, goals: tuple[str, ...], pool: Pool) -> Ways:
    until, converted = _until(part, goals), first_goals(part, goals) >= 0
    counts = count_ways(part.category(level).codes, pool.table, part.start, until, converted, len(pool.names))
    return Ways(*counts)


def influence(selection: MapSource, settings: MapSettings, n_goals: int) -> tuple[pd.DataFrame, list[str]]:
    """Tabulate the influence of channels (where the log has them) and touchpoints.

    Args:
        selection: what the map is drawn from.
        settings: of the map.
        n_goals: how many customers reach a goal.

    Returns:
        level, name, customers (who meet it before a goal), first_touch, last_touch, linear and markov_share (shares of
        the conversions that had something before them, each sums to 1 a level), removal_effect; by level, then
        markov_share. Empty without goals or conversions. And what to say.
    """
    if not n_goals:
        note = "Nobody reaches a goal" if settings.goals else "No goals are named"
        return pd.DataFrame(EMPTY), [f"{note}: nothing is said about influence."]
    levels = ["channel", "touchpoint"] if selection.category("channel").names else ["touchpoint"]
    frames, untouched = [], 0
    for level in levels:
        ways, pool = ways_of(selection, level, settings.goals, settings.influence_touchpoints)
        frames.append(_frame(level, ways, pool))
        untouched = ways.untouched
    note = f"{untouched:,} of {n_goals:,} conversions have nothing before them: they are credited to nothing."
    filled = [frame for frame in frames if len(frame)]
    return pd.concat(filled, ignore_index=True) if filled else pd.DataFrame(EMPTY), [note] if untouched else []


def _frame(level: str, ways: Ways, pool: Pool) -> pd.DataFrame:
    touched = max(int(ways.first.sum()), 1)
    effect = removal_effects(ways.steps)
    total = float(np.nansum(effect))
    share = effect / total if total > 0 else np.full(len(effect), np.nan)
    values = (
        level, pd.Series(pool.names, dtype="str"), ways.customers, ways.first / touched, ways.last / touched,
        ways.linear / touched, effect, share,
    )  # fmt: skip
    table = pd.DataFrame(dict(zip(COLUMNS, values, strict=True)), index=range(len(pool.names)))
    table["level"] = table["level"].astype("str")
    return table.sort_values("markov_share", ascending=False, kind="stable", ignore_index=True)

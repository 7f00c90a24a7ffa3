"""Step matrix and Sankey links of a journey map: where customers are at their first, second, third … event."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from features.journey_map.kernels import count_codes, count_steps
from features.journey_map.selection import Int64s, MapSelection, MapSource, Pool, pool_rare
from features.journey_map.settings import END, MapSettings

SANKEY_COLUMNS = ("step", "source", "target", "customers")


def _pool(selection: MapSource, steps: int, most: int) -> Pool:
    """The touchpoints that are frequent among the steps shown."""
    return pool_rare(selection.names, selection.total(partial(_among_first, steps=steps)), most)


def _among_first(part: MapSelection, steps: int) -> Int64s:
    """(n_names + 1,) events of each touchpoint among everyone's first steps."""
    stop = np.minimum(part.stop, part.start + steps)
    return np.asarray(count_codes(part.touchpoint.codes, part.start, stop, len(part.touchpoint.names)))


def step_counts(part: MapSelection, pool: Pool, steps: int, links: int = 0) -> tuple[Int64s, Int64s]:
    """Customers at each step, and between steps; counts of disjoint sets of customers add up.

    Returns:
        (steps, k + 1) and (links, k + 1, k + 1) int64 over the pool's k names, then the end.
    """
    wide = len(pool.names) + 1
    places, between = np.zeros((steps, wide), np.int64), np.zeros((links, wide, wide), np.int64)
    count_steps(part.touchpoint.codes, part.start, part.stop, pool.table, places, between)
    return places, between


def step_matrix(selection: MapSource, settings: MapSettings) -> pd.DataFrame:
    """The share of customers at each touchpoint at their first, second … event.

    Returns:
        index `touchpoint` by frequency, rare ones pooled to "other", then "end"; columns 1 to `steps`, each sums to 1.
        The end holds all whose journey is over before that step.
    """
    pool = _pool(selection, settings.steps, settings.most_touchpoints)
    places, _ = selection.total(partial(step_counts, pool=pool, steps=settings.steps))
    index = pd.Index([*pool.names, END], name="touchpoint", dtype="str")
    columns = pd.RangeIndex(1, settings.steps + 1, name="step")
    return pd.DataFrame(places.T / selection.n_customers, index=index, columns=columns)


def sankey(selection: MapSource, settings: MapSettings) -> pd.DataFrame:
    """Links between step k and step k + 1.

    Returns:
        step (k, from 1), source, target (the end included; rare touchpoints pooled to "other"), customers, by step,
        then customers.
    """
    pool = _pool(selection, settings.sankey_steps, settings.sankey_touchpoints)
    steps = settings.sankey_steps
    _, links = selection.total(partial(step_counts, pool=pool, steps=steps, links=steps - 1))
    step, source, target = np.nonzero(links)
    customers = links[step, source, target]
    order = np.lexsort((target, source, -customers, step))
    names = np.array([*pool.names, END], dtype=object)
    return pd.DataFrame(
        {
            "step": step[order] + 1,
            "source": pd.Series(names[source[order]], dtype="str"),
            "target": pd.Series(names[target[order]], dtype="str"),
            "customers": customers[order],
        }
    )

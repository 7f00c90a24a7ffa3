"""The most common paths of a journey map: how journeys begin, how many customers go so, how it ends for them."""

from __future__ import annotations

import numpy as np
import pandas as pd

from features.kernels_map_paths import BLANK, count_paths
from features.map_selection import DAY_US, Flags, Int32s, Int64s, Selection
from features.map_settings import END, MapSettings
from features.statistics import ratio, wilson

COLUMNS = (
    "rank", "path", "text", "customers", "share", "converted_share", "converted_low", "converted_high", "days_median",
)  # fmt: skip
ENOUGH = 0.25  # of the customers that the top paths hold


def paths(selection: Selection, settings: MapSettings, converted: Flags, has_goals: bool) -> pd.DataFrame:
    """The most common beginnings of journeys.

    Args:
        selection: what the map is drawn from.
        settings: of the map; a path has `path_steps` touchpoints, immediate repeats counted once.
        converted: (n,) who reaches a goal, ever.
        has_goals: whether a goal is known at all.

    Returns:
        rank, path (tuple of names, "end" last where the journey is over by then), text ("a → b → c"), customers, share,
        converted_share with Wilson's interval (NaN without goals), days_median (from the first event to the path's last
        touchpoint).
    """
    codes, counts, path_of, took_us = _shared(selection, settings)
    top = np.argsort(-counts, kind="stable")[: settings.top_paths]  # ties: who came first
    rank = np.full(len(counts), -1)
    rank[top] = np.arange(len(top))
    ranked = rank[path_of]
    reached = np.bincount(ranked[(ranked >= 0) & converted], minlength=len(top))
    n = counts[top] if has_goals else np.zeros(len(top), np.int64)
    names = (*selection.names, END)
    found = [tuple(names[code] for code in row if code != BLANK) for row in codes[top]]
    values = (
        np.arange(1, len(top) + 1),
        found,
        pd.Series([" → ".join(path) for path in found], dtype="str"),
        counts[top],
        counts[top] / selection.n_customers,
        ratio(reached, n),
        *wilson(reached, n),
        [float(np.median(took_us[ranked == place])) / DAY_US for place in range(len(top))],
    )
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def _shared(selection: Selection, settings: MapSettings) -> tuple[Int32s, Int64s, Int32s, Int64s]:
    """The longest paths whose top ones hold enough customers: codes, counts, and each customer's path and µs."""
    for steps in range(settings.path_steps, 0, -1):
        path_of, took_us = np.empty(selection.n_customers, np.int32), np.empty(selection.n_customers, np.int64)
        codes, counts = count_paths(
            selection.touchpoint.codes, selection.journeys.t, selection.start, selection.stop,
            len(selection.touchpoint.names), steps, path_of, took_us,
        )  # fmt: skip
        top = np.sort(counts)[-settings.top_paths :]
        if top.sum() >= ENOUGH * selection.n_customers:
            break
    return codes, counts, path_of, took_us

"""The stage funnel of a journey map: who gets how far through the stages, in order, and how long it takes.

A customer enters with the first event of the first stage, and reaches each further stage with the first event of it
after the stage before was reached; anything may lie in between, and going back does no harm. Who never meets the first
stage is not in the funnel, and who skips a stage stops before it: so conversions lie between 0 and 1 and multiply.
Tools for marketing call this a closed funnel in this order. How many stand outside is said in the notes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journey_map.kernels import count_codes, first_meetings, reach_stages
from features.journey_map.selection import DAY_US, Int32s, Int64s, MapSelection, MapSource, matching
from features.journey_map.settings import MapSettings
from features.statistics import ratio, wilson

COLUMNS = (
    "stage", "customers", "share_of_first", "conversion", "conversion_low", "conversion_high", "dropped",
    "days_to_next_p25", "days_to_next_median", "days_to_next_p75",
)  # fmt: skip
STANDARD_STAGES = ("awareness", "consideration", "purchase", "post-purchase", "loyalty")
MOST_STAGES = 30
NEVER = np.iinfo(np.int64).max


@dataclass(frozen=True)
class Stages:
    """Which events belong to which stage of the funnel.

    Attributes:
        names: (k,) in order.
        column: "stage" or "touchpoint", whose codes they go by; "" without stages.
        table: (n_codes + 1,) int32 code → place in `names`, -1 for none; the last entry answers for missing.
    """

    names: tuple[str, ...]
    column: str
    table: Int32s


def stages_of(selection: MapSource, settings: MapSettings) -> tuple[Stages, list[str]]:
    """The funnel's stages and what there is to say about them."""
    stage_names = selection.category("stage").names
    if stage_names and (not settings.stages or set(settings.stages) & set(stage_names)):
        return _of_column(selection, settings)
    if settings.stages:
        return _of_touchpoints(selection, settings)
    notes = "The log has no stages: give it a mapping from touchpoints to stages, and the map gets a funnel."
    return Stages((), "", np.empty(0, np.int32)), [notes]


def _of_column(selection: MapSource, settings: MapSettings) -> tuple[Stages, list[str]]:
    column = selection.category("stage")
    code_of = {name: code for code, name in enumerate(column.names)}
    requested = tuple(dict.fromkeys(settings.stages))
    notes = [f"No event of the log has the stage '{name}'." for name in requested if name not in code_of]
    order = tuple(name for name in requested if name in code_of)[:MOST_STAGES] or _ordered(selection)
    if not requested and len(code_of) > len(order) == MOST_STAGES:
        notes.append(f"The log has {len(code_of)} stages; the funnel shows the {MOST_STAGES} most frequent.")
    table = np.full(len(column.names) + 1, -1, np.int32)
    table[[code_of[name] for name in order]] = np.arange(len(order))
    return Stages(order, "stage", table), notes


def _of_touchpoints(selection: MapSource, settings: MapSettings) -> tuple[Stages, list[str]]:
    names = selection.touchpoint.names
    notes: list[str] = []
    order: list[str] = []
    table = np.full(len(names) + 1, -1, np.int32)
    for stage in dict.fromkeys(settings.stages):
        codes = matching(names, [stage]) & (table < 0)
        if codes.any():
            table[codes] = len(order)
            order.append(stage)
        else:
            notes.append(f"No touchpoint of the log fits the stage '{stage}'.")
    return Stages(tuple(order), "touchpoint", table), notes


def _ordered(selection: MapSource) -> tuple[str, ...]:
    """The well-known order where all names are well known, else by the median place of the first meeting."""
    column = selection.category("stage")
    if set(column.names) <= set(STANDARD_STAGES):
        return tuple(name for name in STANDARD_STAGES if name in column.names)
    counts = selection.total(_stage_counts)[:-1]
    frequent = np.argsort(-counts, kind="stable")[: min(MOST_STAGES, int((counts > 0).sum()))]
    table = np.full(len(column.names) + 1, -1, np.int32)
    table[frequent] = np.arange(len(frequent))
    met = partial(_meetings, table=table, n_stages=len(frequent))
    ranks = selection.ranks(met)
    (medians,) = ranks.medians([np.arange(len(frequent) + 1)])
    order = np.lexsort((selection.total(partial(_meeting_sums, met=met)) / ranks.sizes, medians))
    return tuple(column.names[frequent[stage]] for stage in order)


def _stage_counts(part: MapSelection) -> Int64s:
    """(n_stages + 1,) events of each stage."""
    column = part.category("stage")
    return np.asarray(count_codes(column.codes, part.start, part.stop, len(column.names)))


def _meetings(part: MapSelection, table: Int32s, n_stages: int) -> tuple[Int64s, Int64s]:
    """The number of the event where each customer first meets a stage, stage by stage."""
    places = np.full((part.n_customers, n_stages), -1, np.int32)
    first_meetings(part.category("stage").codes, table, part.start, part.stop, places)
    met = places.T >= 0
    return places.T[met].astype(np.int64), np.concatenate(([0], np.cumsum(met.sum(1)))).astype(np.int64)


def _meeting_sums(part: MapSelection, met: Callable[[MapSelection], tuple[Int64s, Int64s]]) -> Int64s:
    places, borders = met(part)
    return np.diff(np.concatenate(([0], np.cumsum(places)))[borders])


def reached(part: MapSelection, stages: Stages) -> Int64s:
    """(n, k) int64 µs, when each customer reaches each stage in order; `NEVER` where not."""
    moments = np.full((part.n_customers, len(stages.names)), NEVER, np.int64)
    codes = part.category(stages.column).codes
    reach_stages(codes, stages.table, part.journeys.t, part.start, part.stop, moments)
    return moments


def _reached_counts(part: MapSelection, stages: Stages) -> Int64s:
    """(k,) who reach each stage."""
    return np.asarray((_reach_times(part, stages) < NEVER).sum(0), np.int64)


def _reach_times(part: MapSelection, stages: Stages) -> Int64s:
    return part.cached("reached " + "\n".join(stages.names), lambda: reached(part, stages))


def _days_to_next(part: MapSelection, stages: Stages) -> tuple[npt.NDArray[np.float64], Int64s]:
    """The days that customers take from each stage to the next, stage by stage; none from the last."""
    moments = _reach_times(part, stages)
    went = moments[:, 1:].T < NEVER
    days = (moments[:, 1:].T[went] - moments[:, :-1].T[went]) / DAY_US
    return days, np.concatenate(([0], np.cumsum(went.sum(1)), [int(went.sum())])).astype(np.int64)


def funnel(selection: MapSource, stages: Stages) -> pd.DataFrame:
    """Tabulate the funnel.

    Returns:
        stage, customers (who reach it), share_of_first, conversion (share of them who reach the next stage, with
        Wilson's interval; NaN for the last), dropped (who do not), quartiles of the days that the others take.
    """
    if not stages.names:
        return pd.DataFrame({name: pd.Series(dtype="str" if name == "stage" else "float64") for name in COLUMNS})
    customers = selection.total(partial(_reached_counts, stages=stages))
    following = np.append(customers[1:], 0)
    last = np.arange(len(customers)) == len(customers) - 1
    low, high = wilson(following, customers)
    quartiles = selection.ranks(partial(_days_to_next, stages=stages)).quantiles([0.25, 0.5, 0.75])
    values = (
        pd.Series(stages.names, dtype="str"), customers, ratio(customers, customers[0]),
        *(np.where(last, np.nan, x) for x in (ratio(following, customers), low, high, customers - following)),
        *quartiles.T,
    )  # fmt: skip
    return pd.DataFrame(dict(zip(COLUMNS, values, strict=True)))


def outside(selection: MapSource, stages: Stages, table: pd.DataFrame) -> list[str]:
    """What to say about customers who are not in the funnel."""
    if not stages.names:
        return []
    missing = selection.n_customers - int(table["customers"].iloc[0])
    if not missing:
        return []
    subject = "customer does" if missing == 1 else "customers do"
    return [
        f"{missing:,} of {selection.n_customers:,} {subject} not meet the first stage, "
        f"'{stages.names[0]}', and so stand outside the funnel."
    ]

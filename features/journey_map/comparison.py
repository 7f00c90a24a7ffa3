"""Two journey maps side by side: segments, periods, converted or not; with tests corrected for multiplicity.

Every rate is a share of customers, who are independent of each other: stages by the share that goes on to the next one,
touchpoints by the share that meets them, transitions by the share of a touchpoint's customers that take the step at
least once. Differences are a − b, with Newcombe's intervals and the z-test of two shares (`features.statistics`);
the tests of all three tables together are corrected by Benjamini and Hochberg. Where the same customer is in both maps
(two periods), the groups are not independent, and the tests say "no difference" rather too often than too seldom.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from features.journey_map.funnel import stages_of
from features.journey_map.selection import select
from features.journey_map.settings import END, START, MapSettings
from features.journey_map.tables import JourneyMap, journey_map
from features.journeys.journeys import Journeys
from features.statistics import benjamini_hochberg, difference

TESTED = ("rate_a", "rate_b", "difference", "difference_low", "difference_high", "p_value", "q_value")
SURE, MOST_SENTENCES = 0.05, 12


@dataclass(frozen=True)
class MapComparison:
    """What two groups do differently. All tables have the columns `TESTED`; differences are a − b.

    Attributes:
        names: of the groups.
        customers: of the groups, how many.
        funnel: stage, customers_a, customers_b, reached_a, reached_b (share of the group's customers), then the tested
            rates: who goes on to the next stage; NaN for the last one.
        touchpoints: touchpoint, customers_a, customers_b, visits_per_customer_a, visits_per_customer_b,
            converted_after_a, converted_after_b, then the tested rates: who meets the touchpoint.
        transitions: source, target, customers_a, customers_b, probability_a, probability_b (of the steps), then the
            tested rates: who of the source's customers takes the step. By how sure, then by how large.
        sentences: the surest differences, and what to beware of.
        maps: of the two groups.
    """

    names: tuple[str, str]
    customers: tuple[int, int]
    funnel: pd.DataFrame
    touchpoints: pd.DataFrame
    transitions: pd.DataFrame
    sentences: tuple[str, ...]
    maps: tuple[JourneyMap, JourneyMap]


def compare(
    journeys: Journeys,
    group_a: Any,
    group_b: Any,
    settings: MapSettings | None = None,
    *,
    names: tuple[str, str] = ("a", "b"),
    start: Any = None,
    end: Any = None,
) -> MapComparison:
    """Compare two groups of customers of one log.

    Args:
        journeys: the packed log.
        group_a: (k,) indices or a (n_customers,) mask.
        group_b: the same for the other group.
        settings: of both maps; stages are in the order of both groups together where it says none.
        names: of the groups.
        start: events from this moment on.
        end: events before this moment.

    Raises:
        DataError: a group has no events between the dates; the message names it.
    """
    settings = settings or MapSettings()
    stages, _ = stages_of(select(journeys, None, start, end), settings)
    same = settings.model_copy(update={"stages": stages.names})
    maps = []
    for name, group in zip(names, (group_a, group_b), strict=True):
        with naming_group(name):
            maps.append(journey_map(journeys, same, customers=group, start=start, end=end))
    return compare_maps(maps[0], maps[1], names, shared=_overlap(journeys, group_a, group_b))


@contextmanager
def naming_group(name: str) -> Iterator[None]:
    """Errors below say which group has no map."""
    try:
        yield
    except DataError as error:
        raise DataError(f"Group '{name}' has no map. {error}") from error


def _overlap(journeys: Journeys, group_a: Any, group_b: Any) -> int:
    """How many customers are in both groups."""
    everyone = np.arange(journeys.n_customers)
    a, b = (everyone[np.asarray(group)] for group in (group_a, group_b))
    return len(np.intersect1d(a, b))


def compare_maps(
    a: JourneyMap, b: JourneyMap, names: tuple[str, str] = ("a", "b"), *, shared: int = 0
) -> MapComparison:
    """Compare two maps drawn with the same settings, of groups or of periods.

    Args:
        a: a map.
        b: the other one.
        names: what to call them.
        shared: how many customers are in both, where that is known.
    """
    n_a, n_b = int(a.summary["customers"]), int(b.summary["customers"])
    fewest = max(a.settings.fewest_customers, b.settings.fewest_customers)
    tables = [_funnel(a, b, n_a, n_b), _touchpoints(a, b, n_a, n_b), _transitions(a, b)]
    for table in tables:
        _test(table, fewest)
    _correct(tables)
    funnel, touchpoints, transitions = tables
    order = np.lexsort((-transitions["difference"].abs(), transitions["q_value"].fillna(2.0)))
    sentences = _sentences(funnel, touchpoints, transitions.iloc[order], names)
    if shared:
        sentences.append(f"{shared:,} customers are in both groups: the tests are cautious, not exact.")
    cleaned = (
        frame.drop(columns=["n_a", "n_b", "x_a", "x_b"]) for frame in (funnel, touchpoints, transitions.iloc[order])
    )
    first, second, third = (frame.reset_index(drop=True) for frame in cleaned)
    return MapComparison(names, (n_a, n_b), first, second, third, (*_outcome(a, b, names), *sentences), (a, b))


def _funnel(a: JourneyMap, b: JourneyMap, n_a: int, n_b: int) -> pd.DataFrame:
    table = _side_by_side(a.funnel, b.funnel, ["stage"], ["customers"])
    for side, n in (("a", n_a), ("b", n_b)):
        reached = table[f"customers_{side}"]
        table[f"reached_{side}"] = reached / n
        table[f"n_{side}"] = reached
        table[f"x_{side}"] = reached.shift(-1)
    return table


def _touchpoints(a: JourneyMap, b: JourneyMap, n_a: int, n_b: int) -> pd.DataFrame:
    columns = ["customers", "visits_per_customer", "converted_after"]
    table = _side_by_side(a.touchpoints, b.touchpoints, ["touchpoint"], columns)
    for side, n in (("a", n_a), ("b", n_b)):
        table[f"n_{side}"], table[f"x_{side}"] = n, table[f"customers_{side}"]
    return table


def _transitions(a: JourneyMap, b: JourneyMap) -> pd.DataFrame:
    table = _side_by_side(a.transitions, b.transitions, ["source", "target"], ["customers", "probability"])
    for side, journeys_map in (("a", a), ("b", b)):
        met = journeys_map.touchpoints.set_index("touchpoint")["customers"]
        whole = table["source"].map(met).fillna(0).where(table["source"] != START, journeys_map.summary["customers"])
        table[f"n_{side}"], table[f"x_{side}"] = whole, table[f"customers_{side}"]
    return table


def _side_by_side(a: pd.DataFrame, b: pd.DataFrame, on: list[str], shared_columns: list[str]) -> pd.DataFrame:
    """Rows of either, those of `a` first; nobody where one has no such row."""
    both = a[on + shared_columns].merge(b[on + shared_columns], on=on, how="outer", suffixes=("_a", "_b"), sort=False)
    place = {tuple(key): row for row, key in enumerate(pd.concat([a[on], b[on]]).drop_duplicates().to_numpy().tolist())}
    order = np.argsort([place[tuple(key)] for key in both[on].to_numpy().tolist()], kind="stable")
    both = both.iloc[order].reset_index(drop=True)
    for column in ("customers_a", "customers_b"):
        both[column] = both[column].fillna(0).astype(np.int64)
    for column in ("probability_a", "probability_b"):
        if column in both:
            both[column] = both[column].fillna(0.0)
    both_columns = [f"{name}_{side}" for name in shared_columns for side in ("a", "b")]
    return both[[*on, *both_columns]]


def _test(table: pd.DataFrame, fewest: int) -> None:
    """Add rates and tests; where either group has too few customers there is nothing to test."""
    x_a, n_a, x_b, n_b = (table[name].to_numpy(np.float64) for name in ("x_a", "n_a", "x_b", "n_b"))
    d, low, high, p = difference(x_a, n_a, x_b, n_b)
    with np.errstate(invalid="ignore", divide="ignore"):
        table["rate_a"], table["rate_b"] = x_a / n_a, x_b / n_b
    table["difference"], table["difference_low"], table["difference_high"] = d, low, high
    table["p_value"] = np.where((n_a >= fewest) & (n_b >= fewest), p, np.nan)


def _correct(tables: list[pd.DataFrame]) -> None:
    """Add q-values over the tests of all tables."""
    q = benjamini_hochberg(np.concatenate([table["p_value"].to_numpy() for table in tables]))
    for table, part in zip(tables, np.split(q, np.cumsum([len(table) for table in tables])[:-1]), strict=True):
        table["q_value"] = part


def _sentences(
    funnel: pd.DataFrame, touchpoints: pd.DataFrame, transitions: pd.DataFrame, names: tuple[str, str]
) -> list[str]:
    """The surest differences in words: stages first, then the largest of touchpoints and steps."""
    stages = [
        f"From {row['stage']} to {following}: {_rates_sentence(row, names)}"
        for row, following in zip(funnel.to_dict("records"), funnel["stage"][1:], strict=False)
        if row["q_value"] <= SURE
    ]
    met = [f"Who meets {row['touchpoint']}: {_rates_sentence(row, names)}" for row in _surest(touchpoints)]
    steps = transitions[(transitions["source"] != START) & (transitions["target"] != END)]
    moved = [
        f"Who goes from {row['source']} to {row['target']}: {_rates_sentence(row, names)}" for row in _surest(steps)
    ]
    half = (MOST_SENTENCES - min(len(stages), 4)) // 2
    sentences = [*stages[:4], *met[:half], *moved[:half]]
    return sentences or ["No difference between the groups is sure."]


def _surest(table: pd.DataFrame) -> list[Any]:
    """The rows that are sure, by the size of the difference."""
    sure = table[table["q_value"] <= SURE]
    by_size: npt.NDArray[np.intp] = np.argsort(-sure["difference"].abs().to_numpy(), kind="stable")
    return list(sure.iloc[by_size].to_dict("records"))


def _rates_sentence(row: Any, names: tuple[str, str]) -> str:
    low, high = (100 * row[f"difference_{end}"] for end in ("low", "high"))
    rates = f"{row['rate_a']:.1%} of {names[0]}, {row['rate_b']:.1%} of {names[1]}"
    return f"{rates} (difference {100 * row['difference']:+.1f} points, {low:+.1f} to {high:+.1f})."


def _outcome(a: JourneyMap, b: JourneyMap, names: tuple[str, str]) -> list[str]:
    """Who converts, where goals are named."""
    converted = [each.summary["converted"] for each in (a, b)]
    if any(np.isnan(number) for number in converted):
        return []
    n = [each.summary["customers"] for each in (a, b)]
    d, low, high, _ = difference(converted[0], n[0], converted[1], n[1])
    rates = {"rate_a": converted[0] / n[0], "rate_b": converted[1] / n[1]}
    ends = {"difference": d[0], "difference_low": low[0], "difference_high": high[0]}
    return [f"Who reaches a goal: {_rates_sentence({**rates, **ends}, names)}"]

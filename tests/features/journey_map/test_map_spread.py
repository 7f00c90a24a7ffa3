"""The map of a log in parts is the map of the log; exact ranks from counts are those of sorting."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from features.events.schema import EventSchema
from features.journey_map.distributed import select_customers
from features.journey_map.settings import MapSettings
from features.journey_map.tables import JourneyMap, build_map, journey_map
from features.journeys import quantiles as ranks_module
from features.journeys.event_log import LocalParts, MemoryLog, facts_of, slices, total
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from features.journeys.quantiles import Ranks
from training.journey_map.groups import compared

REQUESTED = MapSettings(
    goals=("purchase", "subscribe"), complaints=("*contact*",), ended=("*cancel*",), clicks={"email_*": "email_click"}
)


@pytest.fixture(scope="module")
def log(simulated_events: pd.DataFrame) -> Journeys:
    return pack(simulated_events, EventSchema(profile=("country", "plan")))


def in_parts(journeys: Journeys, n: int) -> LocalParts:
    return LocalParts(slices(journeys, n))


def same(a: JourneyMap, b: JourneyMap) -> None:
    assert a.notes == b.notes
    assert a.summary.keys() == b.summary.keys()
    for key, value in a.summary.items():
        np.testing.assert_equal(b.summary[key], value, err_msg=key)
    for name, table in a.tables.items():
        pd.testing.assert_frame_equal(b.tables[name], table, check_exact=False, rtol=1e-9, atol=1e-12, obj=name)


@pytest.mark.parametrize("n", [1, 4])
@pytest.mark.parametrize("dates", [(None, None), ("2024-02-01", "2024-04-15")])
@pytest.mark.parametrize(
    "requested", [MapSettings(), REQUESTED, MapSettings(path_steps=12, top_paths=3, cohort="week")]
)
def test_the_map_of_parts(log: Journeys, n: int, dates: tuple[Any, Any], requested: MapSettings) -> None:
    parts = in_parts(log, n)
    same(
        journey_map(log, requested, start=dates[0], end=dates[1]),
        build_map(select_customers(parts, facts_of(parts), *dates), requested),
    )


def test_tiny_parts(simulated_events: pd.DataFrame) -> None:
    some = pack(simulated_events[simulated_events["customer_id"].isin(simulated_events["customer_id"].unique()[:20])])
    parts = in_parts(some, 30)
    same(journey_map(some, REQUESTED), build_map(select_customers(parts, facts_of(parts)), REQUESTED))


def test_custom_stages_follow_their_median_place(log: Journeys) -> None:
    rows = pd.DataFrame({"customer_id": list("aaabbbccc"), "timestamp": pd.date_range("2024-01-01", periods=9)})
    rows["touchpoint"], rows["stage"] = list("xyzxyzxyz"), ["one", "two", "three"] * 3
    custom = pack(rows)
    parts = in_parts(custom, 2)
    same(journey_map(custom), build_map(select_customers(parts, facts_of(parts)), MapSettings()))


def test_empty_dates_are_an_error(log: Journeys) -> None:
    parts = in_parts(log, 3)
    with pytest.raises(DataError, match=r"None of the customers has an event between 2035-01-01"):
        select_customers(parts, facts_of(parts), "2035-01-01")


def grouped(part: list[list[Any]], kind: str) -> tuple[Any, Any]:
    borders = np.cumsum([0, *map(len, part)])
    return np.array([item for group in part for item in group], kind), borders


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 3).flatmap(
        lambda k: st.lists(
            st.lists(
                st.lists(st.one_of(st.integers(-50, 50), st.integers(-(2**61), 2**61)), max_size=30),
                min_size=k,
                max_size=k,
            ),
            min_size=1,
            max_size=4,
        )
    ),
    st.sampled_from(["int64", "float64"]),
)
def test_ranks_equal_sorting(parts: list[list[list[int]]], kind: str) -> None:
    def merged_total(function: Any) -> Any:
        from functools import reduce

        from features.journeys.event_log import merged

        return reduce(merged, [function(part) for part in parts])

    n = len(parts[0])
    whole = [np.array([item for part in parts for item in part[group]], kind) for group in range(n)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ranks_module, "FEW", 3)
        patch.setattr(ranks_module, "FEW_IN_ALL", 3)
        ranks = Ranks(merged_total, lambda part: grouped(part, kind))
        result, _all_of = ranks.medians([np.arange(n + 1), np.array([0, n])])
        quantiles = ranks.quantiles([0.1, 0.5, 0.9])
    assert ranks.sizes.tolist() == [len(item) for item in whole]
    for group, values in enumerate(whole):
        if not len(values):
            assert np.isnan(result[group])
            continue
        ordered = np.sort(values)
        middle = 0.5 * ordered[(len(values) - 1) // 2] + 0.5 * ordered[len(values) // 2]
        assert result[group] == middle
        expected = np.quantile(values.astype(np.float64), [0.1, 0.5, 0.9])
        np.testing.assert_allclose(quantiles[group], expected, rtol=1e-12, atol=1e-9)
    together = np.sort(np.concatenate(whole))
    if len(together):
        k = len(together) // 3
        assert ranks.at(0, n, k) == float(together[k])
        assert ranks.up_to(10) == int((together <= 10).sum())


def test_partial_facts_add_up(log: Journeys) -> None:
    assert facts_of(in_parts(log, 7)) == facts_of(in_parts(log, 1))
    assert total(in_parts(log, 5), lambda part: part.journeys.n_events) == log.n_events


@pytest.mark.parametrize("group", ["converted", "2024-03-15", "plan"])
def test_groups(log: Journeys, group: str) -> None:
    parts = in_parts(log, 4)
    facts = facts_of(parts)
    requested = f"plan={log.categories['plan'].names[0]}" if group == "plan" else group
    start = "2024-01-20" if group == "converted" else None
    mine, theirs = (compared(each, facts, REQUESTED, requested, start) for each in (MemoryLog.of(log), parts))
    assert (mine.names, mine.customers, mine.sentences) == (theirs.names, theirs.customers, theirs.sentences)
    for name in ("funnel", "touchpoints", "transitions"):
        pd.testing.assert_frame_equal(getattr(theirs, name), getattr(mine, name), check_exact=False, rtol=1e-9)


def test_groups_that_are_none(log: Journeys) -> None:
    parts = in_parts(log, 2)
    facts = facts_of(parts)
    with pytest.raises(ConfigError, match="needs a goal"):
        compared(parts, facts, MapSettings(), "converted")
    with pytest.raises(ConfigError, match="nobody has this plan"):
        compared(parts, facts, REQUESTED, "plan=none")
    with pytest.raises(ConfigError, match="is not between"):
        compared(parts, facts, REQUESTED, "2035-01-01")
    with pytest.raises(ConfigError, match="Nobody reached"):
        compared(parts, facts, MapSettings(goals=("never",)), "converted")

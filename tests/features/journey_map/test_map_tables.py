from __future__ import annotations

import itertools
from collections import Counter, defaultdict
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.journey_map.cohorts import period_edges
from features.journey_map.influence import removal_effects, ways_of
from features.journey_map.selection import select
from features.journey_map.tables import JourneyMap, MapSettings, journey_map
from features.journey_map.transitions import transition_counts
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from features.journeys.quantile_kernels import kth, medians
from features.statistics import benjamini_hochberg, difference, net_promoter, p_value, wilson

START = pd.Timestamp("2024-01-01")
MINUTE = 60.0
Event = tuple[str, float, str]

# customer, minutes since the start, touchpoint
SHOP: list[Event] = [
    ("a", 0, "ad"), ("a", 10, "view"), ("a", 20, "view"), ("a", 30, "buy"),
    ("b", 0, "view"), ("b", 40, "buy"), ("b", 50, "help"),
    ("c", 5, "ad"), ("c", 6, "view"),
    ("d", 7, "ad"),
]  # fmt: skip


def log(events: list[Event], **columns: list[Any]) -> Journeys:
    frame = pd.DataFrame(events, columns=["customer_id", "minute", "touchpoint"])
    frame["timestamp"] = START + pd.to_timedelta(frame.pop("minute") * MINUTE, unit="s")
    return pack(frame.assign(**columns))


def drawn(events: list[Event], columns: dict[str, list[Any]] | None = None, **options: Any) -> JourneyMap:
    return journey_map(log(events, **(columns or {})), MapSettings(**options))


def row(table: pd.DataFrame, **keys: Any) -> Any:
    mask = np.logical_and.reduce([table[name] == value for name, value in keys.items()])
    (result,) = table[mask].to_dict("records")
    return result


def test_transitions_by_hand() -> None:
    table = drawn(SHOP).transitions
    result = {(s, t): (n, p, chosen) for s, t, n, p, _, chosen in table.itertuples(index=False)}
    assert result == {
        ("start", "ad"): (3, 0.75, 3),
        ("start", "view"): (1, 0.25, 1),
        ("ad", "view"): (2, 2 / 3, 2),
        ("ad", "end"): (1, 1 / 3, 1),
        ("view", "view"): (1, 0.25, 1),
        ("view", "buy"): (2, 0.5, 2),
        ("view", "end"): (1, 0.25, 1),
        ("buy", "help"): (1, 0.5, 1),
        ("buy", "end"): (1, 0.5, 1),
        ("help", "end"): (1, 1.0, 1),
    }
    assert row(table, source="ad", target="view")["gap_s_median"] == pytest.approx((600 + 60) / 2)
    assert row(table, source="view", target="buy")["gap_s_median"] == pytest.approx((600 + 2400) / 2)
    assert np.isnan(row(table, source="help", target="end")["gap_s_median"])


def test_step_matrix_and_sankey_by_hand() -> None:
    result = drawn(SHOP, steps=4, sankey_steps=3)
    matrix = result.step_matrix
    assert matrix.columns.tolist() == [1, 2, 3, 4]
    assert matrix.index[-1] == "end"
    assert matrix.loc["ad"].tolist() == [0.75, 0, 0, 0]
    assert matrix.loc["view"].tolist() == [0.25, 0.5, 0.25, 0]
    assert matrix.loc["buy"].tolist() == [0, 0.25, 0, 0.25]
    assert matrix.loc["help"].tolist() == [0, 0, 0.25, 0]
    assert matrix.loc["end"].tolist() == [0, 0.25, 0.5, 0.75]
    links = {tuple(item) for item in result.sankey.itertuples(index=False)}
    assert links == {
        (1, "ad", "view", 2), (1, "ad", "end", 1), (1, "view", "buy", 1),
        (2, "view", "view", 1), (2, "view", "end", 1), (2, "buy", "help", 1),
    }  # fmt: skip


def test_rare_touchpoints_are_pooled() -> None:
    assert drawn(SHOP, most_touchpoints=2, steps=4).step_matrix.index.tolist() == ["view", "ad", "other", "end"]
    assert drawn(SHOP, most_touchpoints=3, steps=4).step_matrix.index.tolist() == ["view", "ad", "buy", "help", "end"]


def test_the_funnel_is_in_order() -> None:
    events: list[Event] = [
        ("straight", 0, "see"), ("straight", 1440, "try"), ("straight", 2880, "buy"),
        ("roundabout", 0, "see"), ("roundabout", 1, "x"), ("roundabout", 2, "see"), ("roundabout", 2880, "try"),
        ("backwards", 0, "try"), ("backwards", 1, "see"), ("backwards", 2, "buy"),
        ("skips", 0, "see"), ("skips", 1, "buy"),
        ("outside", 0, "try"), ("outside", 1, "buy"),
    ]  # fmt: skip
    result = drawn(events, stages=("see", "try", "buy"))
    table = result.funnel
    assert table["customers"].tolist() == [4, 2, 1]
    assert table["share_of_first"].tolist() == [1, 0.5, 0.25]
    assert table["conversion"].tolist()[:2] == [0.5, 0.5]
    assert table["dropped"].tolist()[:2] == [2, 1]
    assert table["days_to_next_median"].tolist()[:2] == [1.5, 1.0]
    assert table.iloc[2, 3:].isna().all()
    low, high = wilson([2], [4])
    assert (table["conversion_low"][0], table["conversion_high"][0]) == (low[0], high[0])
    assert any("1 of 5 customer does not meet the first stage" in note for note in result.notes)


def test_stage_order() -> None:
    stages = ["late" if touchpoint == "buy" else "early" for _, _, touchpoint in SHOP]
    assert drawn(SHOP, {"stage": stages}).funnel["stage"].tolist() == ["early", "late"]
    named = ["loyalty" if touchpoint == "ad" else "purchase" for _, _, touchpoint in SHOP]
    assert drawn(SHOP, {"stage": named}).funnel["stage"].tolist() == ["purchase", "loyalty"]
    assert drawn(SHOP, {"stage": stages}, stages=("late", "early")).funnel["customers"].tolist() == [2, 1]
    assert drawn(SHOP, {"stage": stages}, stages=("view", "buy")).funnel["customers"].tolist() == [3, 2]


def test_touchpoints_by_hand() -> None:
    channels = ["web", "web", "app", "app", "web", "app", "phone", "web", "web", "web"]
    table = drawn(SHOP, {"channel": channels}, goals=("buy",)).touchpoints
    assert table["touchpoint"].tolist() == ["view", "ad", "buy", "help"]
    view = row(table, touchpoint="view")
    assert (view["channel"], view["customers"], view["visits"], view["visits_per_customer"]) == ("web", 3, 4, 4 / 3)
    assert view["customer_share"] == 0.75
    assert view["dwell_s_median"] == 600  # 10 and 10 min; the 40 min to b's purchase are another session
    assert view["bounce_share"] == 1.0  # the session that b begins with it
    assert view["converted_after"] == pytest.approx(2 / 3)
    ad = row(table, touchpoint="ad")
    assert (ad["bounce_share"], ad["converted_after"]) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    buy = row(table, touchpoint="buy")
    assert (buy["converted_after"], buy["bounce_share"]) == (0.0, 0.0)
    assert table["csat"].isna().all()


def test_durations_go_before_gaps() -> None:
    seconds = [np.nan, 4.0, 8.0, np.nan, 60.0, np.nan, np.nan, np.nan, np.nan, np.nan]
    table = drawn(SHOP, {"duration_s": seconds}).touchpoints.set_index("touchpoint")
    assert table["dwell_s_median"]["view"] == 8.0
    assert table["dwell_s_median"]["ad"] == (600 + 60) / 2


def test_clicks_follow_impressions() -> None:
    events: list[Event] = [
        ("a", 0, "shown"), ("a", 1, "click"), ("a", 2, "click"), ("a", 3, "shown"), ("a", 4, "shown"), ("a", 5, "x"),
        ("a", 6, "click"), ("b", 0, "click"), ("b", 1, "shown"),
    ]  # fmt: skip
    table = drawn(events, clicks={"shown": "click"}).touchpoints
    texts = row(table, touchpoint="shown")
    assert (texts["impressions"], texts["clicks"], texts["click_through"]) == (4, 2, 0.5)
    assert np.isnan(row(table, touchpoint="click")["click_through"])


def test_satisfaction() -> None:
    events: list[Event] = [("a", minute, "survey") for minute in range(10)]
    scores = [0.0, 6, 7, 8, 9, 10, 10, 9, 9, np.nan]
    survey = row(drawn(events, {"satisfaction": scores}).touchpoints, touchpoint="survey")
    assert (survey["csat"], survey["n_scores"]) == (pytest.approx(5 / 9), 9)
    assert survey["nps"] == pytest.approx(100 * 3 / 9)
    assert survey["nps_low"] < survey["nps"] < survey["nps_high"]
    stars = row(drawn(events, {"satisfaction": [1.0, 2, 3, 4, 5, 5, 5, 4, 4, 4]}).touchpoints, touchpoint="survey")
    assert stars["csat"] == 0.7
    assert np.isnan(stars["nps"])
    few = drawn(events, {"satisfaction": [4.0] * 10}, satisfaction_scale=(0, 10)).touchpoints
    assert few["nps"].tolist() == [-100.0]


def test_paths_by_hand() -> None:
    result = drawn([*SHOP, ("e", 0, "ad"), ("e", 2, "view")], goals=("buy",), path_steps=3).paths
    assert result["text"].tolist()[0] == "ad → view → end"
    assert result["path"][0] == ("ad", "view", "end")
    assert result["customers"].tolist() == [2, 1, 1, 1]
    assert result["share"].sum() == 1.0
    assert row(result, text="ad → view → buy → end")["converted_share"] == 1.0  # two views in a row count once
    assert row(result, text="ad → view → end")["days_median"] == pytest.approx(1.5 / 1440)


def test_long_paths_are_shortened() -> None:
    r = np.random.default_rng(1)
    events = [
        (f"c{chosen}", minute, "home" if minute == 0 else f"page {r.integers(9)}")
        for chosen in range(300)
        for minute in range(8)
    ]
    result = drawn(events, top_paths=5).paths
    assert {len(path) for path in result["path"]} == {2}
    assert result["customers"].sum() >= 300 / 4


def test_cohorts_by_hand() -> None:
    days = {"a": [0, 35, 70], "b": [3, 63], "c": [33], "d": [62, 92]}
    events = [(chosen, 1440.0 * day, "x") for chosen, all_days in days.items() for day in all_days]
    table = drawn(events).cohorts  # January, February, March (until 31), April with one event
    result = {(f"{item.cohort:%m}", item.period): (item.size, item.active) for item in table.itertuples()}
    assert result == {
        ("01", 0): (2, 2), ("01", 1): (2, 1), ("01", 2): (2, 2),
        ("02", 0): (1, 1), ("02", 1): (1, 0), ("03", 0): (1, 1),
    }  # fmt: skip
    since = journey_map(log(events), start="2024-02-15").cohorts
    result = {(f"{item.cohort:%m}", item.period): (item.size, item.active) for item in since.itertuples()}
    assert result == {("01", 2): (2, 2), ("03", 0): (1, 1)}  # c has no event in it; February is not covered


def test_period_edges() -> None:
    first, last = (int(pd.Timestamp(text).as_unit("us").asm8.astype(np.int64)) for text in ("2024-02-29", "2024-03-04"))
    assert period_edges(first, last, "month").view("datetime64[us]").astype(str).tolist()[0][:10] == "2024-02-01"
    weeks = pd.to_datetime(period_edges(first, last, "week"), unit="us")
    assert weeks.strftime("%a %d").tolist() == ["Mon 26", "Mon 04", "Mon 11"]


def test_influence_by_hand() -> None:
    events: list[Event] = [
        ("1", 0, "a"), ("1", 1, "b"), ("1", 2, "buy"), ("1", 3, "a"),
        ("2", 0, "a"), ("2", 1, "buy"),
        ("3", 0, "b"), ("3", 1, "b"),
        ("4", 0, "b"), ("4", 1, "a"),
        ("5", 0, "buy"),
    ]  # fmt: skip
    result = drawn(events, goals=("buy",))
    table = result.influence.set_index("name")
    assert table["level"].unique().tolist() == ["touchpoint"]
    assert table["first_touch"].to_dict() == {"a": 1.0, "b": 0.0}
    assert table["last_touch"].to_dict() == {"a": 0.5, "b": 0.5}
    assert table["linear"].to_dict() == {"a": 0.75, "b": 0.25}
    assert table["customers"].to_dict() == {"a": 3, "b": 3}
    # a → b, buy, null a third each; b → a, b, buy, null a quarter each; start → a, b two fifths, buy one fifth
    x_a, x_b = np.linalg.solve([[1, -1 / 3], [-1 / 4, 3 / 4]], [1 / 3, 1 / 4])
    whole = 0.4 * x_a + 0.4 * x_b + 0.2
    without_a = 0.4 * (1 / 4) / (3 / 4) + 0.2
    without_b = 0.4 * (1 / 3) + 0.2
    assert table["removal_effect"]["a"] == pytest.approx(1 - without_a / whole)
    assert table["removal_effect"]["b"] == pytest.approx(1 - without_b / whole)
    assert table["markov_share"].sum() == pytest.approx(1.0)
    assert any("1 of 3 conversions have nothing before them" in note for note in result.notes)


def test_removal_effects_of_a_published_kind() -> None:
    """The worked example that is usual for this method: C1→C2→C3→conversion, C1→null, C2→C3→null."""
    steps = np.zeros((6, 6), np.int64)  # C1, C2, C3, start, conversion, null
    for way in ([3, 0, 1, 2, 4], [3, 0, 5], [3, 1, 2, 5]):
        for source, target in itertools.pairwise(way):
            steps[source, target] += 1
    assert removal_effects(steps) == pytest.approx([0.5, 1.0, 1.0])


def removed_by_simulation_of_the_chain(steps: Any, state: int) -> float:
    """P(conversion) by repeated multiplication, with a state's ways in redirected to null."""
    k = len(steps) - 3
    chance = steps / np.maximum(steps.sum(1), 1)[:, None]
    if state >= 0:
        chance[:, k + 2] += chance[:, state]
        chance[:, state] = 0
    chance[k + 1, k + 1] = chance[k + 2, k + 2] = 1
    return float(np.linalg.matrix_power(chance, 1 << 14)[k, k + 1])


events_ = st.lists(
    st.tuples(st.sampled_from("uvwxyz"), st.integers(0, 20_000), st.sampled_from(["a", "b", "c", "d", "goal", "oh"])),
    min_size=1,
    max_size=60,
)


@settings(deadline=None, max_examples=60)
@given(events_)
def test_removal_effects_equal_chains_with_the_state_removed(events: list[Event]) -> None:
    selection = select(log(events))
    ways, pool = ways_of(selection, "touchpoint", ("goal",), 100)
    effects = removal_effects(ways.steps)
    whole = removed_by_simulation_of_the_chain(ways.steps, -1)
    for state in range(len(pool.names)):
        if whole == 0:
            assert np.isnan(effects[state])
        else:
            expected = 1 - removed_by_simulation_of_the_chain(ways.steps, state) / whole
            assert effects[state] == pytest.approx(expected, abs=1e-6)


def journeys_of(events: list[Event]) -> dict[str, list[tuple[float, str]]]:
    result: dict[str, list[tuple[float, str]]] = defaultdict(list)
    for chosen, minute, touchpoint in events:
        result[chosen].append((minute, touchpoint))
    return {chosen: sorted(steps, key=lambda item: item[0]) for chosen, steps in result.items()}


@settings(deadline=None, max_examples=40)
@given(events_)
def test_tables_equal_plain_python(events: list[Event]) -> None:
    result = drawn(events, goals=("goal",), steps=5, path_steps=4, top_paths=100, stages=("a", "b", "goal"))
    journeys = journeys_of(events)
    count: Counter[tuple[str, str]] = Counter()
    chosen: dict[tuple[str, str], set[str]] = defaultdict(set)
    gaps: dict[tuple[str, str], list[float]] = defaultdict(list)
    paths: Counter[tuple[str, ...]] = Counter()
    for name, steps in journeys.items():
        names = ["start", *(item for _, item in steps), "end"]
        for place, pair in enumerate(itertools.pairwise(names)):
            count[pair] += 1
            chosen[pair].add(name)
            if 0 < place < len(steps):
                gaps[pair].append(60 * (steps[place][0] - steps[place - 1][0]))
        cached = [item for item, _ in itertools.groupby(names[1:-1])]
        paths[tuple(cached[:4]) if len(cached) > 4 else (*cached, "end")] += 1
    table = result.transitions
    assert dict(zip(zip(table["source"], table["target"], strict=True), table["count"], strict=True)) == dict(count)
    for item in table.itertuples():
        assert item.customers == len(chosen[item.source, item.target])
        between = gaps.get((item.source, item.target))
        assert np.isnan(item.gap_s_median) if not between else item.gap_s_median == pytest.approx(np.median(between))
    for step in range(1, 6):
        at = Counter(steps[step - 1][1] if len(steps) >= step else "end" for steps in journeys.values())
        column = result.step_matrix[step]
        assert {name: share * len(journeys) for name, share in column.items() if share > 0} == pytest.approx(dict(at))
    reached = [0, 0, 0]
    for steps in journeys.values():
        rest = iter(item for _, item in steps)
        for place, stage in enumerate(("a", "b", "goal")):
            if stage not in rest:
                break
            reached[place] += 1
    if not result.funnel.empty and len(result.funnel) == 3:
        assert result.funnel["customers"].tolist() == reached
    if max(len(path) for path in result.paths["path"]) == 5 or len(result.paths) == len(paths):
        assert dict(zip(result.paths["path"], result.paths["customers"], strict=True)) == dict(paths)


def test_partial_counts_add_up() -> None:
    r = np.random.default_rng(3)
    events = [(f"c{r.integers(40)}", float(r.integers(9_000)), "abcdefg"[r.integers(7)]) for _ in range(900)]
    journeys = log(events)
    half = np.arange(journeys.n_customers) % 2 == 0
    whole, _ = transition_counts(select(journeys))
    parts = [transition_counts(select(journeys, mask))[0] for mask in (half, ~half)]
    summed = parts[0] + parts[1]
    for name in ("source", "target", "count", "customers"):
        assert (getattr(summed, name) == getattr(whole, name)).all()


@settings(deadline=None)
@given(st.lists(st.lists(st.integers(0, 5), max_size=9), min_size=1, max_size=6))
def test_medians_equal_numpy(groups: list[list[int]]) -> None:
    borders = np.concatenate([[0], np.cumsum([len(item) for item in groups])])
    values = np.array([x for item in groups for x in item], np.int64)
    expected = [np.median(item) if item else np.nan for item in groups]
    np.testing.assert_array_equal(medians(values, borders), expected)


@settings(deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.data())
def test_kth_equals_sorting(values: list[int], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, len(values) - 1))
    assert kth(np.array(values, np.int64), 0, len(values), k) == sorted(values)[k]


def test_statistics_equal_published_values() -> None:
    low, high = wilson([81], [263])  # Newcombe 1998, Statistics in Medicine 17, 857-872, table I
    assert (low[0].round(4), high[0].round(4)) == (0.2553, 0.3662)
    _, low, high, _ = difference([9], [10], [3], [10])  # and 873-890, table II, method 10
    assert (low[0].round(4), high[0].round(4)) == (0.1705, 0.8090)
    assert benjamini_hochberg([0.01, 0.02, 0.03, 0.04, 0.05]).round(12).tolist() == [0.05] * 5
    assert p_value(1.959963984540054, 1.0).round(6) == 0.05
    assert net_promoter(5, 2, 10)[0] == 30


@given(st.integers(0, 50), st.integers(1, 50), st.integers(0, 50), st.integers(1, 50))
def test_intervals_hold_their_share(x: int, n: int, y: int, m: int) -> None:
    x, y = min(x, n), min(y, m)
    low, high = wilson([x], [n])
    assert 0 <= low[0] <= x / n <= high[0] <= 1
    d, low, high, p = difference([x], [n], [y], [m])
    assert -1 <= low[0] <= d[0] <= high[0] <= 1
    assert 0 <= p[0] <= 1

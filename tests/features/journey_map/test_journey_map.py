from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from features.errors import DataError
from features.journey_map.comparison import TESTED, MapComparison, compare, compare_maps
from features.journey_map.pain_points import Limits, compare_with_rest, moments_of
from features.journey_map.selection import DAY_US, MapSelection, select
from features.journey_map.tables import JourneyMap, MapSettings, journey_map
from features.journey_map.touchpoint_kernels import COMPLAIN, LEAVE, LOOP, N_KINDS, WAIT
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from features.simulation.simulator import simulate

START = pd.Timestamp("2024-01-01")
GOALS = ("subscribe", "upgrade")
COLUMNS = {
    "funnel": "stage customers share_of_first conversion conversion_low conversion_high dropped days_to_next_p25 "
    "days_to_next_median days_to_next_p75",
    "touchpoints": "touchpoint channel stage customers customer_share visits visits_per_customer dwell_s_median "
    "bounce_share bounce_low bounce_high impressions clicks click_through click_through_low click_through_high "
    "converted_after converted_after_low converted_after_high csat csat_low csat_high nps nps_low nps_high n_scores",
    "transitions": "source target count probability gap_s_median customers",
    "paths": "rank path text customers share converted_share converted_low converted_high days_median",
    "sankey": "step source target customers",
    "cohorts": "cohort size period active retention retention_low retention_high",
    "pain_points": "rank kind touchpoint customers rate rest_rate difference difference_low difference_high p_value "
    "q_value sentence",
    "influence": "level name customers first_touch last_touch linear removal_effect markov_share",
}


@pytest.fixture(scope="module")
def shop() -> Journeys:
    return simulate(n_customers=400, days=240, seed=3).journeys


@pytest.fixture(scope="module")
def shop_map(shop: Journeys) -> JourneyMap:
    return journey_map(shop, MapSettings(goals=GOALS, complaints=("support_contact",)))


def log(rows: list[tuple[str, float, str]], **columns: Any) -> Journeys:
    frame = pd.DataFrame(rows, columns=["customer_id", "day", "touchpoint"])
    frame["timestamp"] = START + pd.to_timedelta(frame.pop("day"), unit="D")
    return pack(frame.assign(**columns))


def check(result: JourneyMap) -> None:
    """What holds for every map."""
    n = result.summary["customers"]
    for name, columns in COLUMNS.items():
        assert getattr(result, name).columns.tolist() == columns.split()
    sums = result.transitions.groupby("source")["probability"].sum()
    np.testing.assert_allclose(sums, 1.0)
    by_source, by_target = (result.transitions.groupby(end)["count"].sum() for end in ("source", "target"))
    assert by_source["start"] == by_target["end"] == n
    inner = by_source.drop("start")
    assert inner.to_dict() == by_target.drop("end").to_dict()
    assert inner.to_dict() == result.touchpoints.set_index("touchpoint")["visits"].to_dict()
    np.testing.assert_allclose(result.step_matrix.sum(), 1.0)
    assert result.step_matrix.loc["end"].is_monotonic_increasing
    steps = result.sankey.groupby("step")["customers"].sum()
    assert (steps <= n).all()
    assert result.funnel["customers"].is_monotonic_decreasing
    assert (result.cohorts["active"] <= result.cohorts["size"]).all()
    assert (result.cohorts.loc[result.cohorts["period"] == 0, "retention"] == 1).all()
    assert result.paths["share"].sum() <= 1 + 1e-12
    shares = result.influence.groupby("level")[["first_touch", "last_touch", "linear", "markov_share"]].sum(min_count=1)
    np.testing.assert_allclose(shares[result.influence.groupby("level")["first_touch"].sum() > 0], 1.0)
    for table in result.tables.values():
        check_rates(table)
    assert all(note.strip() and note.endswith((".", "?")) for note in result.notes)


def check_rates(table: pd.DataFrame) -> None:
    words = (
        "share",
        "conversion",
        "probability",
        "rate",
        "retention",
        "csat",
        "removal",
        "_value",
        "bounce",
        "click_t",
    )
    for column in map(str, table.columns):
        if column.startswith(words) or column.endswith("_share"):
            values = table[column].dropna()
            assert values.between(0, 1).all(), column
    for column in map(str, table.columns):
        stem = column.removesuffix("_low")
        if stem != column and stem != "retention" and stem not in ("difference",):
            middle = table[{"bounce": "bounce_share", "converted": "converted_share"}.get(stem, stem)]
            assert ((table[column] <= middle + 1e-12) | middle.isna()).all(), column
            assert ((table[f"{stem}_high"] >= middle - 1e-12) | middle.isna()).all(), column


def test_whole_map(shop: Journeys, shop_map: JourneyMap) -> None:
    check(shop_map)
    assert all(len(table) for table in shop_map.tables.values())
    assert shop_map.funnel["stage"].tolist()[:2] == ["awareness", "consideration"]
    assert set(shop_map.influence["level"]) == {"channel", "touchpoint"}
    assert shop_map.summary["events"] == shop.n_events
    assert 0 < shop_map.summary["converted_share"] < 1


def test_map_is_deterministic(shop: Journeys, shop_map: JourneyMap) -> None:
    again = journey_map(shop, shop_map.settings)
    for name, table in shop_map.tables.items():
        pd.testing.assert_frame_equal(table, again.tables[name])
    assert again.notes == shop_map.notes


def test_customers_by_index_or_mask_and_dates(shop: Journeys) -> None:
    chosen = np.arange(0, shop.n_customers, 3)
    mask = np.zeros(shop.n_customers, bool)
    mask[chosen] = True
    by_index, by_mask = (
        journey_map(shop, customers=who, start="2024-03-01", end="2024-05-01") for who in (chosen, mask)
    )
    for name, table in by_index.tables.items():
        pd.testing.assert_frame_equal(table, by_mask.tables[name])
    check(by_index)
    assert by_index.summary["first"] >= pd.Timestamp("2024-03-01")
    assert by_index.summary["last"] < pd.Timestamp("2024-05-01")


def test_map_of_dates_equals_map_of_their_events(shop: Journeys) -> None:
    """Tables that look at the chosen events alone: as if there had been no others."""
    start, end = pd.Timestamp("2024-03-01"), pd.Timestamp("2024-05-01")
    events = simulate(n_customers=400, days=240, seed=3).events
    part = events[(events["timestamp"] >= start) & (events["timestamp"] < end)]
    whole, alone = (
        journey_map(shop, MapSettings(goals=GOALS), start=start, end=end),
        journey_map(pack(part), MapSettings(goals=GOALS)),
    )
    for name in ("funnel", "touchpoints", "step_matrix", "sankey", "influence"):
        pd.testing.assert_frame_equal(whole.tables[name], alone.tables[name])


def test_empty_dates_are_an_error(shop: Journeys) -> None:
    with pytest.raises(DataError, match="None of the customers has an event between 2031-01-01"):
        journey_map(shop, start="2031-01-01")
    with pytest.raises(DataError, match="Choose other dates"):
        journey_map(shop, customers=[], start="2024-03-01")
    with pytest.raises(DataError, match="Customers are numbered 0 to 399"):
        journey_map(shop, customers=[400])
    with pytest.raises(DataError, match="needs 400 entries"):
        journey_map(shop, customers=np.ones(3, bool))
    with pytest.raises(DataError, match="no events"):
        journey_map(log([]))


def test_settings_refuse_what_they_do_not_know() -> None:
    with pytest.raises(ValidationError, match="did you mean 'goals'"):
        MapSettings(goal=("x",))  # type: ignore[call-arg]
    with pytest.raises(ValidationError, match="lowest score first"):
        MapSettings(satisfaction_scale=(5, 1))


REQUESTED = MapSettings(goals=("g",), complaints=("oh",), stages=("a", "b", "g"), clicks={"a": "b"})


@pytest.mark.parametrize("requested", [MapSettings(), REQUESTED])
@pytest.mark.parametrize(
    "rows",
    [
        [("a", 0.0, "a")],
        [(f"c{k}", k, "ab"[k % 2]) for k in range(50)],  # one event each
        [("a", day, "a") for day in range(40)],  # one customer, the same again and again
        [(f"c{k}", day, "ab"[day % 2]) for k in range(40) for day in range(10)],  # cycles only
        [(f"c{k % 30}", 0.0, "abg"[k % 3]) for k in range(300)],  # all in one moment
        [(f"c{k % 30}", k * 3e-6, "abg"[k % 3]) for k in range(300)],  # all in one minute
        [(f"c{k % 30}", 0.01 * k, "g") for k in range(60)],  # goals only
        [(f"c{k % 30}", 0.3 * k, ("start", "end", "other", "(missing)")[k % 4]) for k in range(90)],  # our own words
    ],
    ids=["one event", "one event each", "one customer", "cycles", "one moment", "one minute", "goals", "our words"],
)
def test_bad_input_gives_a_map(rows: list[tuple[str, float, str]], requested: MapSettings) -> None:
    result = journey_map(log(rows), requested)
    check(result)
    assert result.notes


def test_notes_name_missing_data() -> None:
    notes = " ".join(journey_map(log([(f"c{k}", k, "view") for k in range(40)])).notes)
    for said in (
        "one event only",
        "No goals are named",
        "no stages",
        "no satisfaction",
        "no channels",
        "as complaints",
    ):
        assert said in notes
    wrong = journey_map(log([("a", 0, "purchase"), ("a", 1, "view")]), MapSettings(goals=("purchas",)))
    assert any("Did you mean 'purchase'?" in note for note in wrong.notes)
    assert wrong.influence.empty


def test_ten_thousand_touchpoints() -> None:
    r = np.random.default_rng(5)
    rows = [(f"c{k % 500}", float(day), f"page {r.integers(10_000)}") for k, day in enumerate(r.uniform(0, 90, 30_000))]
    result = journey_map(
        log(rows, channel=[f"channel {k % 3000}" for k in range(30_000)]), MapSettings(goals=("page 1*",))
    )
    check(result)
    assert len(result.step_matrix) == 42
    assert len(result.touchpoints) > 9_000
    assert len(result.influence[result.influence["level"] == "touchpoint"]) == 101
    assert any("touchpoints; the step matrix names" in note for note in result.notes)


def test_missing_touchpoints_and_channels() -> None:
    rows = [(f"c{k % 20}", float(k), "ab"[k % 2]) for k in range(100)]
    whole = log(rows, channel=["x" if k % 3 else None for k in range(100)])
    whole.categories["touchpoint"].codes[::7] = -1
    result = journey_map(whole, MapSettings(goals=("b",)))
    check(result)
    assert "(missing)" in set(result.touchpoints["touchpoint"])
    assert "(missing)" in set(result.influence.loc[result.influence["level"] == "channel", "name"])


def test_times_far_apart() -> None:
    rows = [(f"c{k}", 365.0 * 20 * (k % 3), "a") for k in range(30)]
    result = journey_map(log(rows), MapSettings(cohort="week"))
    check(result)
    assert any("cohorts are by month" in note for note in result.notes)
    rows += [("z", 365.0 * 7_000, "a")]
    result = journey_map(log(rows))
    check(result)
    assert result.cohorts.empty
    assert any("are all the times right?" in note for note in result.notes)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from("uvwxyz"), st.floats(0, 200), st.sampled_from(["a", "b", "g", "oh"])),
        min_size=1,
        max_size=80,
    ),
    st.lists(st.one_of(st.none(), st.integers(0, 10)), min_size=80, max_size=80),
    st.sampled_from(["month", "week"]),
)
def test_invariants(rows: list[tuple[str, float, str]], scores: list[int | None], cohort: Any) -> None:
    journeys = log(
        rows, satisfaction=np.array(scores[: len(rows)], float), channel=["xyz"[len(item[2])] for item in rows]
    )
    requested = REQUESTED.model_copy(update={"cohort": cohort, "fewest_customers": 2})
    check(journey_map(journeys, requested))


# ---- pain points ----


def brute_force(
    selection: MapSelection, requested: MapSettings, limits: Limits, kind: int
) -> dict[tuple[int, str], float]:
    """(customer, touchpoint) → y, from the definitions."""
    result: dict[tuple[int, str], float] = {}
    for row in range(selection.n_customers):
        part = slice(selection.start[row], selection.stop[row])
        t, names = selection.journeys.t[part], [selection.names[code] for code in selection.touchpoint.codes[part]]
        closed = next((i for i, name in enumerate(names) if name in requested.ended), len(names))
        for name in set(names):
            at = [i for i, item in enumerate(names) if item == name]
            ys: list[float] = []
            if kind == LEAVE and name not in (*requested.goals, *requested.ended):
                visited = [i for i in at if t[i] <= limits.leave_until and i < closed]
                ys = (
                    [float(any(i + 1 == len(names) and not selection.goes_on[row] for i in visited))] if visited else []
                )
            elif kind == LOOP:
                runs = [t[i] for i in at if i == 0 or names[i - 1] != name]
                ys = [float(any(b - a <= limits.loop for a, b in zip(runs, runs[2:], strict=False)))]
            elif kind == WAIT:
                ys = [float(t[i + 1] - t[i] > limits.waits) for i in at if i + 1 < len(names)]
            elif kind == COMPLAIN and name not in requested.complaints:
                after = [i for i in at if t[i] <= limits.complain_until]
                ys = [
                    float(
                        any(
                            names[j] in requested.complaints and t[j] - t[i] <= limits.complaint
                            for j in range(i, len(names))
                        )
                    )
                    for i in after
                ]
            if ys:
                result[row, name] = float(np.mean(ys))
    return result


def test_rates_and_errors_equal_plain_python() -> None:
    r = np.random.default_rng(11)
    names = ["a", "b", "c", "g", "oh", "over"]
    rows = [(f"c{r.integers(60)}", r.uniform(0, 60), names[r.integers(6)]) for _ in range(900)]
    journeys = log(rows)
    requested = MapSettings(goals=("g",), complaints=("oh",), ended=("over",))
    selection = select(journeys, end="2024-02-20")
    limits = Limits(
        10 * DAY_US, DAY_US, 3 * DAY_US, 2 * DAY_US, selection.log_end - 10 * DAY_US, selection.until - 2 * DAY_US,
        np.ones(N_KINDS, bool),
    )  # fmt: skip
    moments, totals = moments_of(selection, requested, limits)
    for kind in range(N_KINDS):
        y = brute_force(selection, requested, limits, kind)
        rate, rest, error = compare_with_rest(moments[kind], totals[kind])
        for code, name in enumerate(selection.touchpoint.names):
            custom = {row: value for (row, item), value in y.items() if item == name}
            others = [(row, value) for (row, item), value in y.items() if item != name]
            assert moments[kind, code, 0] == len(custom)
            if not custom:
                continue
            assert rate[code] == pytest.approx(np.mean(list(custom.values())))
            assert rest[code] == pytest.approx(np.mean([value for _, value in others]))
            z = np.zeros(selection.n_customers)
            for row, value in custom.items():
                z[row] += (value - rate[code]) / len(custom)
            for row, value in others:
                z[row] -= (value - rest[code]) / len(others)
            assert error[code] >= np.sqrt((z**2).sum()) * (1 - 1e-9)
            if error[code] > 1.2 * independent(custom, others):
                assert error[code] == pytest.approx(np.sqrt((z**2).sum()))


def independent(custom: dict[int, float], others: list[tuple[int, float]]) -> float:
    shares = [((sum(y) + 1) / (len(y) + 2), len(y) + 2) for y in ([*custom.values()], [value for _, value in others])]
    return float(np.sqrt(sum(p * (1 - p) / n for p, n in shares)))


def leaky(r: np.random.Generator) -> list[tuple[str, float, str]]:
    """200 days of visits; one in three stops for good after "form", others stop anywhere one time in fifty."""
    rows: list[tuple[str, float, str]] = []
    for who in range(400):
        day = float(r.uniform(0, 150))
        while day < 200:
            name = ("home", "list", "form", "read")[r.integers(4)]
            rows.append((f"c{who}", day, name))
            if r.random() < (1 / 3 if name == "form" else 1 / 50):
                break
            day += float(r.exponential(1.5))
    return rows


def test_leaving_is_a_pain_point() -> None:
    result = journey_map(log(leaky(np.random.default_rng(2)))).pain_points
    first = result.iloc[0]
    assert (first["kind"], first["touchpoint"]) == ("leave", "form")
    assert first["q_value"] < 1e-6
    assert not ((result["kind"] == "leave") & (result["touchpoint"] != "form") & (result["q_value"] < 0.05)).any()
    assert "leave after form" in first["sentence"]


def test_recent_customers_have_not_left() -> None:
    rows = [(f"c{k}", float(day), "a" if day else "b") for k in range(40) for day in (0, 1)]
    rows += [(f"d{k}", float(day), "a") for k in range(5) for day in range(10)]  # the log goes on
    late = [(f"e{k}", 9.5, "z") for k in range(40)]
    result = journey_map(log(rows + late), MapSettings(quiet_days=3))
    assert "z" not in set(result.pain_points["touchpoint"])
    (gone,) = result.pain_points.query("kind == 'leave'").to_dict("records")
    assert (gone["touchpoint"], gone["customers"], gone["rate"]) == ("a", 40, 40 / 45)


def test_nobody_leaves_after_a_goal() -> None:
    rows = [(f"c{k}", day, name) for k in range(40) for day, name in ((0.0, "a"), (1.0, "b"), (2.0, "g"))]
    rows += [("x", 90.0, "a")]
    result = journey_map(log(rows), MapSettings(goals=("g",), quiet_days=5)).pain_points
    assert "leave" not in set(result["kind"])


def test_pain_points_are_calibrated() -> None:
    """Where touchpoints are alike, one test in twenty is below .05, though the visits of a customer are alike too."""
    below = []
    for seed in range(40):
        r = np.random.default_rng(seed)
        speed = r.lognormal(0, 1, 120)
        rows = [
            (f"c{who}", float(day), "abcde"[r.integers(5)])
            for who in range(120)
            for day in np.cumsum(r.exponential(speed[who], 12))
        ]
        journeys = log(rows)
        selection = select(journeys)
        long = int(np.quantile(np.diff(journeys.t), 0.8))
        limits = Limits(1, long, 1, 1, 0, 0, np.array([False, False, True, False]))
        moments, totals = moments_of(selection, MapSettings(), limits)
        rate, rest, error = compare_with_rest(moments[WAIT], totals[WAIT])
        below += list(np.abs((rate - rest) / error)[:5] > 1.96)
    assert np.mean(below) < 0.09


# ---- comparison ----


def groups(shop: Journeys) -> npt.NDArray[np.bool_]:
    return np.arange(shop.n_customers) % 2 == 0


def test_comparison_of_halves(shop: Journeys) -> None:
    half = groups(shop)
    result = compare(shop, half, ~half, MapSettings(goals=GOALS), names=("even", "odd"))
    for table in (result.funnel, result.touchpoints, result.transitions):
        assert set(TESTED) <= set(table.columns)
        np.testing.assert_allclose(table["difference"], table["rate_a"] - table["rate_b"], atol=1e-12)
        assert ((table["q_value"] >= table["p_value"] - 1e-12) | table["q_value"].isna()).all()
        assert table[["rate_a", "rate_b", "p_value"]].stack().dropna().between(0, 1).all()
    assert result.customers == (200, 200)
    assert result.funnel["customers_a"].tolist() == journey_map(shop, customers=half).funnel["customers"].tolist()
    assert "of even" in result.sentences[0]


def test_comparison_finds_a_planted_difference() -> None:
    r = np.random.default_rng(4)
    rows = []
    for who in range(600):
        rows += [
            (f"c{who}", 0.0, "home"),
            (f"c{who}", 1.0, "help" if r.random() < (0.5 if who < 300 else 0.2) else "read"),
        ]
    first = np.arange(600) < 300
    result = compare(log(rows), first, ~first, names=("old", "new"))
    help_ = result.touchpoints.set_index("touchpoint").loc["help"]
    assert help_["difference"] == pytest.approx(0.3, abs=0.1)
    assert help_["q_value"] < 1e-6
    step = result.transitions.set_index(["source", "target"]).loc[("home", "help")]
    assert (step["rate_a"], step["customers_a"]) == (help_["rate_a"], help_["customers_a"])
    assert any(item.startswith("Who meets help:") for item in result.sentences)


def test_comparison_of_periods_and_of_unlike_groups(shop: Journeys) -> None:
    maps = [
        journey_map(shop, start=start, end=end) for start, end in (("2024-02-01", "2024-04-01"), ("2024-04-01", None))
    ]
    by_period = compare_maps(*maps, ("spring", "summer"), shared=3)
    assert isinstance(by_period, MapComparison)
    assert any("3 customers are in both" in item for item in by_period.sentences)
    rows = [("a", 0.0, "x"), ("a", 1.0, "y"), ("b", 0.0, "z")]
    unlike = compare(log(rows), [0], [1])
    assert unlike.touchpoints["touchpoint"].tolist() == ["x", "y", "z"]
    assert unlike.touchpoints["customers_b"].tolist() == [0, 0, 1]
    assert unlike.touchpoints["p_value"].isna().all()
    assert "No difference between the groups is sure." in unlike.sentences
    with pytest.raises(DataError, match="Group 'b' has no map"):
        compare(log(rows), [0], [1], start="2024-01-01T12:00")

from __future__ import annotations

from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from features.events.schema import EventSchema
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from models.segments.rules.rule_segments import RuleSegments
from models.segments.rules.scheme_settings import SchemeSettings
from models.segments.rules.schemes import SCHEMES, fit_schemes, scheme
from models.segments.rules.schemes_value import RFM

CUTOFF = pd.Timestamp("2024-06-01")
SCHEMA = EventSchema(properties=("reason",), profile=("country", "plan"), profile_numeric=("age",))
COLUMNS = ("channel", "stage", "item", "value", "satisfaction", "reason", "country", "plan", "age")
APP, WEB, MIX = ("app",) * 3, ("web",), ("web", "app", "x")
NUMBERS = ("value", "satisfaction", "age")


def log(*rows: tuple[str, float, str, dict[str, Any]], keep: tuple[str, ...] = COLUMNS) -> Journeys:
    """Rows of customer, days before the cutoff, touchpoint, what else there is."""
    frame = pd.DataFrame(
        [{"customer_id": who, "ago": ago, "touchpoint": what, **rest} for who, ago, what, rest in rows]
    )
    frame["timestamp"] = CUTOFF - pd.to_timedelta(frame.pop("ago"), unit="D")
    used = [column for column in COLUMNS if column in frame]
    frame = frame.astype({column: float if column in NUMBERS else object for column in used})
    schema = EventSchema(
        properties=tuple(c for c in SCHEMA.properties if c in used),
        profile=tuple(c for c in SCHEMA.profile if c in used),
        profile_numeric=tuple(c for c in SCHEMA.profile_numeric if c in used),
    )
    return pack(frame.sort_values(["customer_id", "timestamp"], kind="stable"), schema)


def names(segments: RuleSegments, journeys: Journeys, cutoff: Any = CUTOFF) -> dict[str, str]:
    """Customer → name of the segment."""
    places = segments.assign(journeys.at(cutoff))
    told = [segments.segments[place].name if place >= 0 else "" for place in places]
    return dict(zip(journeys.customer_ids.to_pylist(), told, strict=True))


def fitted(name: str, journeys: Journeys, **told: Any) -> RuleSegments:
    return scheme(name, SchemeSettings(**told)).fit(journeys.at(CUTOFF))


def buys(who: str, *ago: float, value: float = 10.0, **rest: Any) -> list[tuple[str, float, str, dict[str, Any]]]:
    return [(who, days, "order", {"value": value, **rest}) for days in ago]


def test_the_cells_of_rfm_are_complete_and_apart() -> None:
    cells = [
        (recency, often)
        for boxes in RFM.values()
        for r_from, r_to, f_from, f_to in boxes
        for recency, often in product(range(r_from, r_to + 1), range(f_from, f_to + 1))
    ]
    assert sorted(cells) == list(product(range(1, 6), range(1, 6)))


def test_rfm_by_hand() -> None:
    """Customer i of 5 bought i + 1 days ago, 5 − i times at 10 × (5 − i) each: scores 5 to 1 in everything."""
    rows = [row for i in range(5) for row in buys(f"c{i}", *[i + 1 + 20 * k for k in range(5 - i)], value=10 * (5 - i))]
    journeys = log(*rows, ("looker", 3.0, "visit", {"value": np.nan}))
    segments = fitted("rfm", journeys)
    assert names(segments, journeys) == {
        "c0": "Champions", "c1": "Loyal", "c2": "Need attention", "c3": "Hibernating", "c4": "Lost",
        "looker": "No purchase",
    }  # fmt: skip
    champions, loyal = segments.segments[:2]
    assert champions.id == "rfm:champions"
    assert champions.words.startswith("last bought at most 1 day ago, frequency and value score 4 to 5 of 5")
    assert "above 1, 2, 3 and 4 days with a purchase and above 10, 40, 90 and 160 of value" in champions.words
    assert loyal.words.startswith("last bought more than 1 day and at most 3 days ago")


def test_rfm_without_value_goes_by_frequency() -> None:
    rows = [(f"c{i}", float(i + 1 + k), "signed", {}) for i in range(5) for k in range(5 - i)]
    journeys = log(*rows)
    segments = fitted("rfm", journeys, purchases=["signed"])
    assert names(segments, journeys)["c0"] == "Champions"
    assert "of value" not in segments.segments[0].words


def test_value_tiers_by_hand() -> None:
    rows = [row for i in range(10) for row in buys(f"c{i}", 5.0, value=100.0 - 10 * i)]
    journeys = log(*rows, ("free", 3.0, "visit", {}), *buys("old", 400.0, value=999.0))
    segments = fitted("value", journeys, top_shares=[0.1, 0.5])
    got = names(segments, journeys)
    assert [got[f"c{i}"] for i in range(10)] == ["Top 10 %"] + ["Top 50 %"] * 4 + ["Lower half"] * 5
    assert got["free"] == got["old"] == "No value"
    assert [segment.words for segment in segments.segments][:2] == [
        "the sum of value in the last 365 days is at least 100",
        "the sum of value in the last 365 days is at least 60 and less than 100",
    ]


def test_stages_are_ordered_by_their_median_place_unless_told() -> None:
    def visit(who: str, *stages: str) -> list[tuple[str, float, str, dict[str, Any]]]:
        return [(who, 50.0 - k, "visit", {"stage": stage}) for k, stage in enumerate(stages)]

    journeys = log(
        *visit("a", "awareness", "consideration", "purchase"), *visit("b", "awareness", "consideration"),
        *visit("c", "awareness", "consideration", "awareness"), *visit("d", "awareness"),
        ("e", 3.0, "visit", {"stage": None}),
    )  # fmt: skip
    segments = fitted("stage", journeys)
    assert [s.id for s in segments.segments] == [
        "stage:reached-awareness", "stage:reached-consideration", "stage:reached-purchase", "stage:no-stage",
    ]  # fmt: skip
    got = names(segments, journeys)
    assert [got[who] for who in "abcde"] == [
        "Reached purchase", "Reached consideration", "Reached consideration", "Reached awareness", "No stage",
    ]  # fmt: skip
    latest = names(fitted("stage", journeys, stage_by="latest"), journeys)
    assert latest["c"] == "In awareness"
    told = fitted("stage", journeys, stages=["purchase", "consideration", "awareness"])
    assert set(names(told, journeys).values()) == {"Reached awareness", "No stage"}


def test_engagement_is_measured_by_the_own_rhythm() -> None:
    rows = []
    for who, last, gap in (("daily", 3.0, 1.0), ("monthly", 3.0, 30.0), ("late", 45.0, 30.0), ("gone", 300.0, 10.0)):
        rows += [(who, last + gap * k, "visit", {}) for k in range(10)]
    journeys = log(*rows)
    segments = fitted("engagement", journeys)
    # gaps 1, 30, 30, 10: the median 20 is mixed in as one more gap of ten: 2.9, 29, 29, 11 days
    got = names(segments, journeys)
    assert got == {"daily": "Warm", "monthly": "Active", "late": "Warm", "gone": "Dormant"}
    assert "a gap of 20 days mixed in" in segments.segments[0].words
    assert names(segments, journeys, "2020-01-01")["daily"] == "Never active"


def test_needs_by_hand() -> None:
    rows = [
        ("angry", 10.0, "Complaint form", {}), ("sad", 9.0, "survey", {"satisfaction": 1.0}),
        ("fine", 9.0, "survey", {"satisfaction": 5.0}), ("back", 8.0, "refund", {"value": -5.0}),
        ("asks", 8.0, "Support call", {}), ("old", 200.0, "Complaint form", {}),
    ]  # fmt: skip
    journeys = log(*rows, *[(f"f{i}", 5.0, "survey", {"satisfaction": 4.0 + i % 2}) for i in range(3)])
    segments = fitted("needs", journeys)
    got = names(segments, journeys)
    assert [got[who] for who in ("angry", "sad", "fine", "back", "asks", "old")] == [
        "Complained", "Dissatisfied", "No sign of trouble", "Returned items", "Asked for help", "No sign of trouble",
    ]  # fmt: skip
    assert "is at most 3;" in segments.segments[1].words  # the middle of the scale, below the lower quartile
    assert any("no stages" in note for note in segments.notes_)


def test_stuck_is_who_waits_longer_than_most_did() -> None:
    rows = []
    for i in range(20):  # went on after 1 to 20 days
        rows += [(f"on{i}", 60.0, "visit", {"stage": "look"}), (f"on{i}", 59.0 - i, "visit", {"stage": "buy"})]
    rows += [("stuck", 30.0, "visit", {"stage": "look"}), ("stuck", 2.0, "visit", {"stage": "look"})]
    rows += [("fresh", 3.0, "visit", {"stage": "look"})]
    journeys = log(*rows)
    segments = fitted("needs", journeys)
    got = names(segments, journeys)
    assert (got["stuck"], got["fresh"], got["on5"]) == ("Stuck in look", "No sign of trouble", "No sign of trouble")
    assert "the first event in stage 'look' was more than 18.1 days ago" in segments.segments[0].words


def test_objections_by_hand() -> None:
    rows = [
        ("says", 5.0, "call", {"reason": "too dear"}), ("basket", 5.0, "add_to_cart", {}),
        ("price", 5.0, "Pricing page", {}), ("rival", 5.0, "competitor_page", {}), ("calm", 5.0, "visit", {}),
        *buys("bought", 4.0), ("bought", 6.0, "add_to_cart", {}), ("old", 120.0, "add_to_cart", {}),
    ]  # fmt: skip
    journeys = log(*rows)
    got = names(fitted("objections", journeys), journeys)
    assert got == {
        "says": "Reason: too dear", "basket": "Abandoned basket", "price": "Left after a price",
        "rival": "Looked at competitors", "calm": "No objection seen", "bought": "No objection seen",
        "old": "No objection seen",
    }  # fmt: skip


def test_interests_are_shares_above_everybodys() -> None:
    def looks(who: str, *items: str) -> list[tuple[str, float, str, dict[str, Any]]]:
        return [(who, 5.0 + k, "view", {"item": item}) for k, item in enumerate(items)]

    journeys = log(
        *looks("a", *["tea"] * 8), *looks("b", *["tea"] * 6, "jam", "jam"), *looks("c", "jam", "jam", "tea"),
        *looks("d", "jam"), *looks("e", "tea", "tea", "tea", "jam"),
    )  # fmt: skip
    segments = fitted("interests", journeys)
    # base: tea 18 of 24 (75 %), jam 25 %; a lift of 1.25 is 93.75 % and 31.25 %
    assert names(segments, journeys) == {
        "a": "item: tea", "c": "item: jam", **dict.fromkeys("bde", "No clear interest"),
    }  # fmt: skip
    assert "at least 1.25 times everybody's share of 75 %" in segments.segments[0].words
    groups = {"drinks": ["te*"], "spreads": ["jam"]}
    grouped = fitted("interests", journeys, interest_groups=groups)
    assert grouped.segments[0].id == "interests:drinks"
    assert names(grouped, journeys)["c"] == "item: spreads"


def test_habits_by_hand() -> None:
    journeys = log(
        *buys("once", 5.0), *buys("weekly", *range(1, 60, 7), value=5.0), *buys("rich", *range(1, 60, 7), value=500.0),
        *buys("rare", 10.0, 110.0, value=5.0), *buys("grand", 10.0, 110.0, value=500.0),
        *buys("deals", 10.0, 30.0), *[("deals", 11.0 + k, "coupon", {}) for k in range(9)], ("none", 3.0, "visit", {}),
    )  # fmt: skip
    segments = fitted("habits", journeys)
    assert names(segments, journeys) == {
        "once": "One purchase", "weekly": "Frequent, small baskets", "rich": "Frequent, large baskets",
        "rare": "Infrequent, small baskets", "grand": "Infrequent, large baskets", "deals": "Offer-driven",
        "none": "No purchase",
    }  # fmt: skip
    assert any("seasons" in note for note in segments.notes_)
    ids = {segment.id for segment in segments.segments}  # as saved segmentations have them
    assert {"habits:by-offers", "habits:often-large-baskets", "habits:seldom-small-baskets"} <= ids


def test_habits_know_the_season() -> None:
    winter = [CUTOFF - pd.Timestamp(day) for day in ("2023-01-10", "2024-01-10", "2024-02-10", "2024-03-10")]
    even = [CUTOFF - pd.Timestamp(day) for day in ("2023-07-10", "2023-10-10", "2024-02-10", "2024-05-10")]
    journeys = log(*buys("skier", *[ago.days for ago in winter]), *buys("even", *[ago.days for ago in even]))
    segments = fitted("habits", journeys)
    assert names(segments, journeys)["skier"] == "In winter (January to March)"
    assert names(segments, journeys)["even"] != "In winter (January to March)"
    assert "habits:in-winter" in [segment.id for segment in segments.segments]


def test_channel_place_and_profile() -> None:
    journeys = log(
        *[("app", 5.0 + k, "visit", {"channel": c, "country": "GB", "age": 20}) for k, c in enumerate(APP + WEB)],
        ("web", 5.0, "visit", {"channel": "web", "country": "gb", "plan": "plus", "age": 30}),
        *[("mix", 5.0 + k, "visit", {"channel": c, "plan": "free", "age": 60}) for k, c in enumerate(MIX)],
    )  # fmt: skip
    assert names(fitted("channel", journeys), journeys) == {
        "app": "Mostly app", "web": "Mostly web", "mix": "Several channels",
    }  # fmt: skip
    places = fitted("geography", journeys)
    assert names(places, journeys) == {"app": "country: GB", "web": "country: gb", "mix": "Unknown place"}
    assert {segment.id for segment in places.segments[:2]} == {"geography:gb", "geography:gb-2"}
    assert names(fitted("profile", journeys), journeys)["web"] == "plan: plus"
    ages = fitted("profile", journeys, profile="age")
    assert [s.id for s in ages.segments] == ["profile:low", "profile:middle", "profile:high", "profile:unknown-age"]
    assert len(set(names(ages, journeys).values())) == 3


def test_rare_and_new_places_are_elsewhere() -> None:
    rows = [(f"c{i}", 5.0, "visit", {"country": "GB" if i < 60 else f"X{i}"}) for i in range(62)]
    journeys = log(*rows)
    got = names(fitted("geography", journeys), journeys)
    assert (got["c0"], got["c60"], got["c61"]) == ("country: GB", "Elsewhere", "Elsewhere")


BARE = [("a", 3.0, "visit", {}), ("b", 2.0, "visit", {}), ("b", 1.0, "visit", {})]


@pytest.mark.parametrize("name", [name for name in SCHEMES if name != "engagement"])
def test_a_log_that_lacks_something_gets_one_sentence(name: str) -> None:
    journeys = log(*BARE)
    with pytest.raises(DataError) as error:
        fitted(name, journeys)
    assert "\n" not in str(error.value)
    fitted_schemes, notes = fit_schemes([name], journeys.at(CUTOFF))
    assert (fitted_schemes, notes) == ({}, (str(error.value),))


def test_several_at_once_leave_out_what_cannot_be() -> None:
    journeys = log(*BARE)
    segments, notes = fit_schemes(SCHEMES, journeys.at(CUTOFF))
    assert list(segments) == ["engagement"]
    assert len(notes) == len(SCHEMES) - 1
    assert set(fit_schemes(["engagement"], journeys.at(CUTOFF))[0]) == {"engagement"}


def test_names_that_fit_nothing_and_unknown_schemes() -> None:
    journeys = log(*buys("a", 3.0))
    with pytest.raises(DataError, match="purchases are 'ordr', but no touchpoint matches; did you mean 'order'"):
        fitted("rfm", journeys, purchases="ordr")
    with pytest.raises(ConfigError, match="no built-in scheme 'rmf'; did you mean 'rfm'"):
        scheme("rmf")
    with pytest.raises(DataError, match="no event lies before"):
        scheme("rfm").fit(journeys.at("2020-01-01"))


@pytest.fixture(scope="module")
def simulated(simulated_events: pd.DataFrame) -> Journeys:
    return pack(simulated_events, EventSchema(profile=("country", "plan")))


@pytest.mark.parametrize("name", list(SCHEMES))
def test_on_simulated_journeys(name: str, simulated: Journeys, tmp_path: Path) -> None:
    train, later = simulated.at("2024-05-01"), simulated.at("2024-07-01")
    segments = scheme(name).fit(train)
    places = segments.assign(later)
    assert places.min() >= 0
    assert len(set(places.tolist())) > 1
    assert len({segment.name for segment in segments.segments}) == len(segments.segments) <= 13
    assert all(segment.id.startswith(f"{name}:") and segment.words for segment in segments.segments)
    segments.save(tmp_path)
    again = RuleSegments.load(tmp_path)
    assert again.segments == segments.segments
    assert (again.assign(later) == places).all()
    rows = np.arange(0, len(later), 7)
    assert [segments.assign(later.take(np.array([row])))[0] for row in rows] == places[rows].tolist()


def test_disjoint_schemes_are_disjoint(simulated: Journeys) -> None:
    train = simulated.at("2024-05-01")
    for name in SCHEMES:
        segments = scheme(name).fit(train)
        if segments.disjoint:
            backward = RuleSegments(segments.rules_[::-1], rest=segments.rest).fit(train).assign(train)
            forward = segments.assign(train)
            n = len(segments.rules_)
            assert (np.where(backward == n, n, n - 1 - backward) == forward).all(), name


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 10_000))
def test_the_future_changes_no_scheme(simulated: Journeys, seed: int) -> None:
    """Fitted and asked at a cutoff, a log that ends there gives the same."""
    generator = np.random.default_rng(seed)
    name = list(SCHEMES)[int(generator.integers(len(SCHEMES)))]
    cutoff = pd.Timestamp("2024-03-01") + pd.Timedelta(days=int(generator.integers(60)))
    whole = simulated.at(cutoff)
    seen = whole.stop > whole.start
    past = _until(simulated, int(whole.cutoff[0]))
    a, b = scheme(name).fit(whole.take(seen)), scheme(name).fit(past.at(cutoff))
    assert a.segments == b.segments
    assert (a.assign(whole.take(seen)) == b.assign(past.at(cutoff))).all()


def _until(journeys: Journeys, cutoff_us: int) -> Journeys:
    kept = journeys.t < cutoff_us
    owner = np.repeat(np.arange(journeys.n_customers), np.diff(journeys.offsets))[kept]
    frame = pd.DataFrame(
        {"customer_id": np.asarray(journeys.customer_ids.to_pylist(), object)[owner], "timestamp": journeys.t[kept]}
    )
    frame["timestamp"] = frame.timestamp.to_numpy().view("datetime64[us]")
    for column, category in journeys.categories.items():
        frame[column] = np.array([*category.names, None], object)[category.codes[kept]]
    for column, numbers in journeys.numbers.items():
        frame[column] = numbers[kept]
    return pack(frame, EventSchema(profile=("country", "plan")))

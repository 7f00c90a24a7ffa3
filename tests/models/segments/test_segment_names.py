"""Names: short, unique, stable, and nothing that could identify a person."""

from __future__ import annotations

import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from models.segments.contract import Segment
from models.segments.insight.names import LONGEST, NO_WORDS, name_segments, phrase_of, segment_names


def effects(**by_segment: list[tuple[str, float]]) -> pd.DataFrame:
    rows = [(s, feature, effect) for s, each in by_segment.items() for feature, effect in each]
    return pd.DataFrame(rows, columns=["segment_id", "feature", "effect"])


def test_names_say_what_is_strongest() -> None:
    table = effects(
        s01=[("visits_30d", 0.9), ("value_total", 0.8), ("tenure_days", 0.3)],
        s02=[("tenure_days", -0.9), ("bounce_share", 0.5)],
        s03=[("recency_days", 0.9)],
        s04=[],
    )
    assert segment_names(table, ["s01", "s02", "s03", "s04"]) == {
        "s01": "Frequent, high value",
        "s02": "New, single-event visits",
        "s03": "Inactive for long",
        "s04": NO_WORDS,
    }


def test_inactive_segments_say_for_how_long() -> None:
    table = effects(s01=[("recency_days", 0.9), ("visits", -0.4)]).assign(in_segment=[149.2, 1.0])
    assert segment_names(table, ["s01"]) == {"s01": "Inactive for 149 days, few visits"}
    assert phrase_of("recency_days", 0.9, 1.2) == ("recency", "inactive for 1 day")


def test_equal_effects_get_different_names() -> None:
    same = [("visits_30d", 0.9), ("value_total", 0.8), ("tenure_days", 0.3)]
    table = effects(**{f"s{i:02d}": same for i in range(1, 13)})
    names = segment_names(table, [f"s{i:02d}" for i in range(1, 13)])
    assert len({name.casefold() for name in names.values()}) == 12
    assert names["s02"] == "Frequent, long-standing"
    assert all(len(name) <= LONGEST for name in names.values())


def test_ids_keep_their_names() -> None:
    table = effects(s01=[("visits", 0.9)], s02=[("visits", 0.9)], s04=[("recency_days", 0.9)])
    previous = {"s02": "Frequent", "s03": "Inactive for long"}  # s03 is gone; its name is not given to another
    assert segment_names(table, ["s01", "s02", "s04"], previous) == {
        "s01": "Frequent 2",
        "s02": "Frequent",
        "s04": "Inactive for long 2",
    }
    assert segment_names(table, ["s02"], previous, anew=["s02"]) == {"s02": "Frequent"}


def test_words_of_the_log_are_few_and_harmless() -> None:
    assert phrase_of("channel.app.count_30d", 0.5) == ("channel app", "app often")
    assert phrase_of("touchpoint.A_ACCEPTED.count_all", -0.5) == ("touchpoint accepted", "accepted rarely")
    assert phrase_of("first_channel=e-mail", 0.5) == ("first touch", "starts with e-mail")
    for personal in (
        *("item.Jane Doe.count_all", "profile.city", "profile.city=Bree", "touchpoint.order 4711.count_all"),
        *("channel.jane@doe.org.count_all", "sender.Smith.share", "first_item=Jane", "touchpoint.other.count_all"),
        "touchpoint.a name that is much too long to be one.count_all",
    ):
        assert phrase_of(personal, 0.9) is None


def test_low_sums_of_a_touchpoint_say_nothing() -> None:
    assert phrase_of("touchpoint.return.value_60d", -0.6) is None
    assert phrase_of("basket_min", -0.6) is None


FEATURES = ("visits", "value_total", "recency_days", "channel.app.count_all", "tenure_days", "gap_std", "unheard.of")
EFFECT = st.tuples(st.sampled_from(FEATURES), st.floats(-1, 1))


@settings(deadline=None)
@given(st.dictionaries(st.from_regex(r"s\d\d", fullmatch=True), st.lists(EFFECT, max_size=6), max_size=12))
def test_any_effects_give_short_unique_names(by_segment: dict[str, list[tuple[str, float]]]) -> None:
    names = segment_names(effects(**by_segment), list(by_segment))
    assert len({name.casefold() for name in names.values()}) == len(by_segment)
    assert all(0 < len(name) <= LONGEST and name[0].isupper() for name in names.values())
    again = segment_names(effects(**by_segment), list(by_segment), names)
    assert again == names


def test_named_segments_carry_a_sentence() -> None:
    table = effects(s01=[("visits", 0.9)]).assign(words="Visits ever: much higher (median 9, others 2)")
    first, second = name_segments((Segment("s01", ""), Segment("s02", "")), table)
    assert first == Segment("s01", "Frequent", "Visits ever: much higher (median 9, others 2).")
    assert second == Segment("s02", NO_WORDS, NO_WORDS + ".")

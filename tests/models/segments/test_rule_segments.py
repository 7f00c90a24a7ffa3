from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from features.conditions.conditions import read_condition
from features.conditions.measures import SnapshotView
from features.errors import ConfigError, DataError
from features.journeys.journeys import Journeys
from features.journeys.packing import pack
from features.settings import Section, explain
from models.segments.contract import NO_SEGMENT, Segmentation
from models.segments.rules.rule_segments import Rule, RuleSegments, distinct_ids

TOML = """
[[rules]]
name = "Complained and silent"
when = { all = [{ events = ["complaint", "help_*"], within_days = 60, at_least = 1 }, { last = ["*"], more_than_days = 14 }] }

[[rules]]
name = "Best fifth"
when = { sum = "value", within_days = 365, top_share = 0.2 }

[[rules]]
name = "Spring campaign"
when = { events = ["purchase"], since = 2024-03-01, until = 2024-04-01 }
active = false
frozen_at = 2024-04-01

[[rules]]
name = "Gone quiet"
when = { feature = "recency_days", at_least = 40 }
"""  # noqa: E501


class Tables(Section):
    rules: tuple[Rule, ...]


def rules() -> tuple[Rule, ...]:
    return Tables.model_validate(tomllib.loads(TOML)).rules


@pytest.fixture(scope="module")
def journeys() -> Journeys:
    generator = np.random.default_rng(0)
    n = 600
    touchpoints = np.array(["visit", "purchase", "complaint", "help_call"])[generator.integers(0, 4, n)]
    events = pd.DataFrame(
        {
            "customer_id": [f"c{i:02d}" for i in generator.integers(0, 60, n)],
            "timestamp": pd.Timestamp("2024-01-01") + pd.to_timedelta(generator.uniform(0, 150, n), unit="D"),
            "touchpoint": touchpoints,
            "value": np.where(touchpoints == "purchase", generator.lognormal(3, 1, n).round(2), np.nan),
        }
    )
    return pack(events)


@pytest.fixture(scope="module")
def fitted(journeys: Journeys) -> RuleSegments:
    return RuleSegments(rules(), scheme="ours", rest="Everybody else").fit(journeys.at("2024-05-01"))


def test_the_first_rule_that_holds_wins(fitted: RuleSegments, journeys: Journeys) -> None:
    snapshots = journeys.at("2024-05-20")
    view = SnapshotView(snapshots, fitted.features_)
    held = [fitted._holds(rule, view) for rule in fitted.rules_]
    expected = [next((place for place, mask in enumerate(held) if mask[row]), 4) for row in range(len(snapshots))]
    assert fitted.assign(snapshots).tolist() == expected
    assert len(set(expected)) == 5


def test_ids_names_and_words(fitted: RuleSegments) -> None:
    assert isinstance(fitted, Segmentation)
    assert [segment.id.removeprefix("ours:") for segment in fitted.segments] == [
        "complained-and-silent", "best-fifth", "spring-campaign", "gone-quiet", "everybody-else",
    ]  # fmt: skip
    words = [segment.words for segment in fitted.segments]
    assert words[0] == (
        "at least 1 event 'complaint' or 'help_*' in the last 60 days and the last event was more than 14 days ago"
    )
    assert "in the top 20 % of customers (at least " in words[1]
    assert words[1].endswith("; not in 'Complained and silent'")
    assert words[2].startswith("on the list of 2024-04-01: at least 1 event 'purchase' from 2024-03-01 before")
    assert "feature 'recency_days' (days since the last event) is at least 40" in words[3]


def test_one_customer_alone_is_as_in_a_batch(fitted: RuleSegments, journeys: Journeys) -> None:
    snapshots = journeys.at("2024-05-20")
    together = fitted.assign(snapshots)
    assert together.dtype == np.int32
    assert [fitted.assign(snapshots.take(np.array([row])))[0] for row in range(len(snapshots))] == together.tolist()


def test_a_static_list_stays_and_is_not_known_before_its_date(fitted: RuleSegments, journeys: Journeys) -> None:
    members = fitted.lists_["spring-campaign"]
    bought = read_condition({"events": "purchase", "since": "2024-03-01", "until": "2024-04-01"})
    then = journeys.at("2024-04-01")
    assert members.holds(then).tolist() == bought.holds(SnapshotView(then)).tolist()
    assert members.holds(journeys.at("2024-06-30")).tolist() == members.holds(then).tolist()
    assert not members.holds(journeys.at("2024-03-31")).any()
    assert not members.holds(journeys.at("2024-06-30", [-1])).any()


def test_saved_and_loaded_it_is_the_same(fitted: RuleSegments, journeys: Journeys, tmp_path: Path) -> None:
    fitted.save(tmp_path / "new" / "folder")
    again = RuleSegments.load(tmp_path / "new" / "folder")
    snapshots = journeys.at("2024-05-20")
    assert again.segments == fitted.segments
    assert again.scheme == "ours"
    assert (again.assign(snapshots) == fitted.assign(snapshots)).all()
    text = "".join(path.read_text(errors="replace") for path in (tmp_path / "new" / "folder").iterdir())
    assert "c01" not in json.loads((tmp_path / "new" / "folder" / "rules.json").read_text())
    assert not [customer for customer in journeys.customer_ids.to_pylist() if f'"{customer}"' in text]


def test_two_lists_of_the_same_customers_cannot_be_joined(journeys: Journeys) -> None:
    lists = [RuleSegments(rules()[2:3]).fit(journeys.at("2024-05-01")).lists_["spring-campaign"] for _ in range(2)]
    assert len(lists[0]) == len(lists[1]) > 0
    assert not set(lists[0].hashes.tolist()) & set(lists[1].hashes.tolist())


def test_empty_journeys_and_unknown_customers_are_in_none_or_the_rest(journeys: Journeys) -> None:
    nobody = journeys.at("2023-01-01", [0, -1])
    table = [{"name": "Buyers", "when": {"events": "purchase"}}]
    assert RuleSegments(table).fit(journeys.at("2024-05-01")).assign(nobody).tolist() == [NO_SEGMENT] * 2
    assert RuleSegments(table, rest="No").fit(journeys.at("2024-05-01")).assign(nobody).tolist() == [1, 1]


def test_touchpoints_never_seen_in_training_are_counted_by_their_name(journeys: Journeys) -> None:
    segments = RuleSegments([{"name": "Pleas", "when": {"events": "help_*"}}]).fit(journeys.at("2024-05-01"))
    rows = {"customer_id": ["new"], "timestamp": [pd.Timestamp("2024-05-01")], "touchpoint": ["help_chat_2025"]}
    request = pack(pd.DataFrame(rows))
    assert segments.assign(request.at("2024-06-01")).tolist() == [0]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([1, 2, 3, 5, 8]), min_size=1, max_size=5, unique=True), st.booleans())
def test_first_match_is_the_brute_force(journeys: Journeys, least: list[int], rest: bool) -> None:
    table = [{"name": f"At least {k}", "when": {"events": "purchase", "at_least": k}} for k in least]
    snapshots = journeys.at("2024-05-01")
    got = RuleSegments(table, rest="Rest" if rest else None).fit(snapshots).assign(snapshots)
    touch = journeys.categories["touchpoint"]
    for row in range(len(snapshots)):
        codes = touch.codes[snapshots.start[row] : snapshots.stop[row]]
        bought = sum(touch.names[code] == "purchase" for code in codes)
        wanted = next((place for place, k in enumerate(least) if bought >= k), len(least) if rest else NO_SEGMENT)
        assert got[row] == wanted


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        (
            {"name": "A", "when": {"events": "x"}, "frozen": "2024-01-01"},
            "unknown key 'frozen'; did you mean 'frozen_at'?",
        ),
        ({"name": "A", "when": {"events": "x", "atleast": 1}}, "unknown key 'atleast'; did you mean 'at_least'?"),
        ({"name": "A", "when": {"events": "x"}, "active": False}, "'A' is not active: give its date"),
        ({"name": "A", "when": {"events": "x"}, "id": "An Id"}, "such as 'an-id'"),
        ({"name": "A"}, "when"),
    ],
)
def test_a_misspelt_rule_names_the_right_key(table: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ConfigError, match="segment 'A'") as error:
        RuleSegments([table])
    assert sentence in str(error.value)
    with pytest.raises(ValidationError) as wrong:  # as an experiment file says it
        Tables.model_validate({"rules": [table]})
    assert "rules.0" in explain(wrong.value)


def test_what_the_log_lacks(journeys: Journeys) -> None:
    train = journeys.at("2024-05-01")

    def fit(*tables: dict[str, Any]) -> RuleSegments:
        return RuleSegments([{"name": f"S{i}", "when": when} for i, when in enumerate(tables)]).fit(train)

    assert fit({"events": ["purchas"]}).notes_ == (
        "no touchpoint in the log matches 'purchas'; did you mean 'purchase'?",
    )
    with pytest.raises(ConfigError, match="uses column 'vlaue', which the log lacks; did you mean 'value'"):
        fit({"sum": "vlaue", "at_least": 1})
    with pytest.raises(ConfigError, match="there is no feature 'recency_day'; did you mean 'recency_days'"):
        fit({"feature": "recency_day", "at_least": 1})
    with pytest.raises(ConfigError, match="two segments have the id 'a-b'"):
        RuleSegments([{"name": n, "when": {"events": "x"}} for n in ("A b", "A, b")]).fit(train)
    with pytest.raises(ConfigError, match="there is no rule"):
        RuleSegments().fit(train)
    with pytest.raises(DataError, match="not fitted"):
        RuleSegments(rules()).assign(train)
    frozen = {"name": "Early", "when": {"events": "purchase"}, "frozen_at": "2020-01-01"}
    assert RuleSegments([frozen]).fit(train).notes_ == ("the list 'Early' is empty: it had no members on 2020-01-01",)


def test_a_folder_with_something_else(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="No segments by rules"):
        RuleSegments.load(tmp_path)
    (tmp_path / "rules.json").write_text('{"format": 99}')
    with pytest.raises(DataError, match="has format 99"):
        RuleSegments.load(tmp_path)


def test_ids_are_distinct_whatever_the_order() -> None:
    assert distinct_ids(["gb", "GB", "fr"], reserved=("fr",)) == {"GB": "gb", "fr": "fr-2", "gb": "gb-2"}
    assert distinct_ids(["GB", "fr", "gb"], reserved=("fr",)) == distinct_ids(["gb", "GB", "fr"], reserved=("fr",))


def test_loading_takes_no_heavy_library(fitted: RuleSegments, tmp_path: Path) -> None:
    fitted.save(tmp_path)
    code = (
        "import sys; from pathlib import Path; from models.segments.rules.rule_segments import RuleSegments;"
        f"RuleSegments.load(Path({str(tmp_path)!r}));"
        "print([m for m in ('sklearn', 'torch', 'matplotlib', 'plotly', 'mlflow') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"

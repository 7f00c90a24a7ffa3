"""Scoring raw events: one row out for each row in, the same number on every way there."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from features.events.source import EventSource
from features.journeys.loading import load_journeys, read_events
from features.journeys.packing import pack
from models.pyfunc import EventModel
from models.scoring.golden_sample import largest_difference, read_sample, record_sample
from models.scoring.scorer import NO_CUSTOMER, NO_CUTOFF, NO_EVENT_BEFORE, UNKNOWN_CUSTOMER, Scorer, visible_touchpoints

SECOND_US = 1_000_000


@pytest.fixture(scope="module")
def scorer(scoring_folder: Path) -> Scorer:
    return Scorer.load(scoring_folder)


def test_one_row_out_for_each_row_in_with_a_reason_where_there_is_no_number(
    scorer: Scorer, simulated_events: pd.DataFrame
) -> None:
    customer_id = simulated_events["customer_id"].iloc[0]
    cutoffs = pd.DataFrame(
        {
            "customer_id": [customer_id, "nobody", customer_id, customer_id, None, customer_id],
            "cutoff": ["2024-12-01", "2024-12-01", "1999-01-01", "soon", "2024-12-01", "2024-12-01T00:00:00+02:00"],
        }
    )
    frame = scorer.score_events(simulated_events, cutoffs).frame
    assert list(frame.columns) == ["customer_id", "cutoff", "probability", "reason"]
    assert frame["customer_id"].tolist()[:4] == [customer_id, "nobody", customer_id, customer_id]
    assert frame["reason"].tolist()[1:5] == [UNKNOWN_CUSTOMER, NO_EVENT_BEFORE, NO_CUTOFF, NO_CUSTOMER]
    assert frame["probability"].isna().tolist() == [False, True, True, True, True, False]
    assert frame["cutoff"].iloc[5] == pd.Timestamp("2024-11-30T22:00:00")
    assert frame["cutoff"].isna().tolist() == [False, False, False, True, False, False]


@pytest.mark.parametrize(
    "cutoffs",
    [
        pd.Series(pd.to_datetime(["2024-08-01", None])),
        pd.Series(pd.to_datetime(["2024-08-01", None]).tz_localize("Europe/Paris")),
        pd.Series(["2024-08-01", None]),
        pd.Series([pd.Timestamp("2024-08-01"), pd.NaT], dtype=object),
        pd.Series(["2024-08-01", 17], dtype=object),
    ],
)
def test_cutoffs_of_every_type_are_read(scorer: Scorer, simulated_events: pd.DataFrame, cutoffs: pd.Series) -> None:
    customer = simulated_events["customer_id"].iloc[0]
    requests = pd.DataFrame({"customer_id": customer, "cutoff": cutoffs}).set_axis([7, 7])
    frame = scorer.score_events(simulated_events, requests).frame
    assert frame["reason"].isna().tolist() == [True, False]
    assert frame["reason"].iloc[1] == NO_CUTOFF


def test_numbers_are_no_cutoffs(scorer: Scorer, simulated_events: pd.DataFrame) -> None:
    requests = pd.DataFrame({"customer_id": [simulated_events["customer_id"].iloc[0]], "cutoff": [1_722_470_400]})
    assert scorer.score_events(simulated_events, requests).frame["reason"].tolist() == [NO_CUTOFF]


def test_without_cutoffs_all_get_the_moment_after_the_last_event(
    scorer: Scorer, simulated_events: pd.DataFrame
) -> None:
    frame = scorer.score_events(simulated_events).frame
    assert frame["customer_id"].tolist() == simulated_events["customer_id"].unique().tolist()
    assert (frame["cutoff"] == simulated_events["timestamp"].max() + pd.Timedelta(1, "us")).all()
    assert frame["probability"].between(0, 1).all()


def test_as_of_holds_for_all_and_must_be_a_time(scorer: Scorer, simulated_events: pd.DataFrame) -> None:
    frame = scorer.score_events(simulated_events, as_of="2024-07-01").frame
    assert (frame["cutoff"] == pd.Timestamp("2024-07-01")).all()
    with pytest.raises(DataError, match=r"as_of 'soon' is no ISO 8601 time"):
        scorer.score_events(simulated_events, as_of="soon")


def test_events_at_or_after_the_cutoff_change_nothing(scorer: Scorer, simulated_events: pd.DataFrame) -> None:
    cutoff = pd.Timestamp("2024-05-01")
    before = simulated_events[simulated_events["timestamp"] < cutoff]
    visible = scorer.score_events(before, as_of=cutoff).frame.set_index("customer_id")["probability"]
    with_later = scorer.score_events(simulated_events, as_of=cutoff).frame.set_index("customer_id")["probability"]
    assert (with_later[visible.index] == visible).all()


def test_missing_columns_are_named(scorer: Scorer, simulated_events: pd.DataFrame) -> None:
    with pytest.raises(DataError, match="no column 'cutoff': the columns are 'customer_id', 'when'"):
        scorer.score_events(simulated_events, pd.DataFrame({"customer_id": ["a"], "when": ["2024-01-01"]}))


def test_bad_events_are_set_aside_and_unknown_touchpoints_counted(
    scorer: Scorer, simulated_events: pd.DataFrame
) -> None:
    odd = simulated_events.head(40).astype({"timestamp": object, "touchpoint": object}).reset_index(drop=True)
    odd.loc[0, "timestamp"], odd.loc[[1, 2], "touchpoint"] = "yesterday", "teleport"
    scored = scorer.score_events(odd)
    assert scored.unknown == {"teleport": 2}
    assert scored.quarantine_counts == {"timestamp is not a time": 1}
    assert scored.quarantine is not None
    assert scored.quarantine["row"].to_pylist() == [1]


def test_no_snapshots_no_rows(scorer: Scorer, simulated_events: pd.DataFrame) -> None:
    nobody = pd.DataFrame({"customer_id": pd.Series([], dtype=str), "cutoff": pd.Series([], dtype="datetime64[us]")})
    assert len(scorer.score_events(simulated_events, nobody).frame) == 0


@pytest.mark.parametrize("duplicates", ["keep", "quarantine"])
def test_a_request_gives_the_same_bits_as_a_batch(
    scorer: Scorer, simulated_events: pd.DataFrame, duplicates: str
) -> None:
    scorer = replace(scorer, source=scorer.source | {"duplicates": duplicates})
    doubled = pd.concat([simulated_events, simulated_events.iloc[::7]])
    cutoff = pd.Timestamp("2024-06-01 12:00")
    batch = scorer.score_events(doubled, as_of=cutoff).frame
    for customer, row in batch.set_index("customer_id").head(60).iterrows():
        mine = doubled[doubled["customer_id"] == customer]
        texts = {name: mine[name].astype(object).where(mine[name].notna(), None).tolist() for name in TEXTS}
        numbers = {name: [None if value != value else value for value in mine[name].tolist()] for name in NUMBERS}
        t = mine["timestamp"].to_numpy("datetime64[us]").astype(np.int64)
        journey, _ = scorer.pack_request([""] * len(t), t, _subset(texts), _subset(numbers))
        snapshot = journey.at(int(cutoff.value // 1000))
        assert (snapshot.stop[0] == 0) == np.isnan(row["probability"])
        if snapshot.stop[0]:
            assert scorer.answer_rows(snapshot)[0]["probability"] == row["probability"]


TEXTS = ("touchpoint", "channel", "stage", "item", "country", "plan")
NUMBERS = ("value", "duration_s", "satisfaction")


def _subset(columns: dict[str, list[object]]) -> dict[str, list[object]]:
    return {name: values for name, values in columns.items() if any(value is not None for value in values)}


def test_the_second_of_two_equal_events_is_left_out_only_where_training_did(scorer: Scorer) -> None:
    t, columns = np.array([SECOND_US, SECOND_US, SECOND_US]), {"touchpoint": ["a", "a", "b"]}
    strict = replace(scorer, source={"duplicates": "quarantine", "adapter": "table"})
    adapted = replace(scorer, source={"duplicates": "quarantine", "adapter": "online_retail"})
    dropped = [first.pack_request(["c"] * len(t), t, columns, {})[1] for first in (scorer, strict, adapted)]
    assert dropped == [[], ["c"], []]


def test_the_stage_follows_the_touchpoint_on_both_ways(scorer: Scorer) -> None:
    t = np.array([SECOND_US * 60 * 60 * 24 * 400] * 2)
    journey, _ = scorer.pack_request([""] * len(t), t, {"touchpoint": ["sign_up", "other"], "stage": ["x", "y"]}, {})
    stage = journey.categories["stage"]
    assert [stage.names[code] for code in stage.codes] == ["awareness", "y"]


def test_stages_come_before_duplicates_in_training_and_serving(scorer: Scorer, tmp_path: Path) -> None:
    events = pd.DataFrame(
        {
            "customer_id": "c",
            "timestamp": "2024-01-01",
            "touchpoint": ["visit", "visit", "call", "call"],
            "stage": ["own", "other", "own", "other"],
        }
    )
    events.to_csv(tmp_path / "log.csv", index=False)
    source = EventSource(path=tmp_path / "log.csv", stages={"visit": "look"}, duplicates="quarantine")
    scorer = replace(scorer, schema=source.schema(), source=source.model_dump(mode="json"))
    served, checked = scorer.read(events)
    texts = {name: events[name].tolist() for name in ("touchpoint", "stage")}
    t = events["timestamp"].to_numpy("datetime64[us]").astype(np.int64)
    requested, dropped = scorer.pack_request(events["customer_id"].tolist(), t, texts, {})
    table = pack(read_events(source).events)
    for journeys in (load_journeys(source), table, served, requested):
        stage = journeys.categories["stage"]
        assert [stage.names[code] for code in stage.codes] == ["look", "own", "other"]
    assert checked.quarantine["row"].to_pylist() == [2]
    assert dropped == ["c"]


def test_reasons_come_with_the_rows_that_have_a_probability(scorer: Scorer, simulated_events: pd.DataFrame) -> None:
    customer = simulated_events["customer_id"].iloc[0]
    requests = pd.DataFrame({"customer_id": ["nobody", customer], "cutoff": ["2024-12-01", "2024-12-01"]})
    why = scorer.score_events(simulated_events, requests, reasons=True).reasons
    assert why[0] == []
    assert why[1][0].text
    assert scorer.score_events(simulated_events, requests).reasons == [[], []]


def test_touchpoints_seen_are_those_before_some_cutoff(simulated_events: pd.DataFrame) -> None:
    from features.journeys.packing import pack

    events = pd.DataFrame(
        {
            "customer_id": ["a", "a", "b", "b"],
            "timestamp": pd.to_datetime(["2024-01-01", "2024-03-01", "2024-01-02", "2024-01-09"]),
            "touchpoint": ["view", "buy", "call", "leave"],
        }
    )
    assert visible_touchpoints(pack(events).at(pd.Timestamp("2024-01-05"))) == ("call", "view")


def test_the_folder_is_data_only_and_a_strange_one_is_refused(scoring_folder: Path, tmp_path: Path) -> None:
    kinds = {path.suffix for path in scoring_folder.rglob("*") if path.is_file()}
    assert kinds <= {".json", ".txt", ".parquet"}
    with pytest.raises(DataError, match=r"no scoring folder: it has no task\.json"):
        Scorer.load(tmp_path)
    (tmp_path / "task.json").write_text(json.dumps({"format": 99}))
    with pytest.raises(DataError, match="has format 99; this version reads 1"):
        Scorer.load(tmp_path)


def test_the_recorded_sample_holds_no_identifier_and_is_given_again(
    scorer: Scorer, scoring_folder: Path, simulated_events: pd.DataFrame
) -> None:
    events, scores = read_sample(scoring_folder)
    assert not set(events["customer_id"]) & set(simulated_events["customer_id"])
    assert (events["timestamp"] >= events["cutoff"]).any()
    assert scores["probability"].max() > scores["probability"].min()
    assert largest_difference(scoring_folder, EventModel(scorer).predict) == 0.0


def test_a_sample_that_differs_shows(scorer: Scorer, scoring_folder: Path) -> None:
    def forgetful(events: pd.DataFrame) -> pd.DataFrame:
        return EventModel(scorer).predict(events.drop(columns="channel"))

    assert largest_difference(scoring_folder, forgetful) > 1e-6
    assert largest_difference(scoring_folder, lambda events: EventModel(scorer).predict(events).head(3)) == float("inf")


def test_there_must_be_something_to_record(scorer: Scorer, simulated_events: pd.DataFrame, tmp_path: Path) -> None:
    from features.journeys.packing import pack

    with pytest.raises(DataError, match="nothing to record"):
        record_sample(scorer, pack(simulated_events, scorer.schema).at(pd.Timestamp("1999-01-01")), tmp_path)
    with pytest.raises(DataError, match="has no recorded sample"):
        read_sample(tmp_path)

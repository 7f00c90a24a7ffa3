from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from features.errors import DataError
from features.events.source import EventSource, canonical_events
from features.journeys.loading import load_journeys, load_log, read_events
from features.journeys.packing import pack

PLAIN = "customer_id,timestamp,touchpoint,value\n007,2024-01-01 10:00:00,visit,\n8,2024-01-02,purchase,12.5\n"
THEIRS = "cust;when"  # not used as a separator: a name that holds one


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def events(source: EventSource) -> pd.DataFrame:
    return read_events(source).events.to_pandas()


def test_canonical_names_need_no_mapping(tmp_path: Path) -> None:
    frame = events(EventSource(path=write(tmp_path / "log.csv", PLAIN)))
    assert frame["customer_id"].tolist() == ["007", "8"]
    assert frame["timestamp"].tolist() == [pd.Timestamp("2024-01-01 10:00"), pd.Timestamp("2024-01-02")]
    assert np.isnan(frame["value"][0])


def test_a_table_with_other_names_needs_only_a_mapping(tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.csv", "who,when,event,agent,age,note\na,2024-01-01,visit,Jo,41,x\nb,2024-01-02,buy,,,y\n"
    )
    source = EventSource(
        path=path, columns={"customer_id": "who", "timestamp": "when", "touchpoint": "event"},
        properties=("agent",), profile_numeric=("age",),
    )  # fmt: skip
    checked = read_events(source)
    assert checked.events.to_pandas()["agent"].tolist()[0] == "Jo"
    assert any("ignored: note" in note for note in checked.notes)
    journeys = load_journeys(source)
    assert (journeys.n_customers, journeys.n_events) == (2, 2)
    assert set(journeys.numbers) == {"age"}


@pytest.mark.parametrize("kind", ["csv", "csv.gz", "parquet", "folder"])
def test_every_kind_of_file_gives_the_same(tmp_path: Path, kind: str) -> None:
    frame = pd.read_csv(write(tmp_path / "plain.csv", PLAIN), dtype={"customer_id": "str"})
    path = tmp_path / f"log.{kind}"
    if kind == "csv.gz":
        path.write_bytes(gzip.compress(PLAIN.encode()))
    elif kind == "parquet":
        frame.to_parquet(path)
    elif kind == "folder":
        path.mkdir()
        frame[:1].to_parquet(path / "a.parquet")
        frame[1:].to_parquet(path / "b.parquet")
    else:
        write(path, PLAIN)
    assert (
        load_journeys(EventSource(path=path)).fingerprint()
        == load_journeys(EventSource(path=tmp_path / "plain.csv")).fingerprint()
    )


def test_a_source_is_json_and_reads_further_files(tmp_path: Path) -> None:
    first = EventSource(
        path=tmp_path / "a.csv", columns={"customer_id": "who"}, stages={"v*": "look"}, duplicates="keep"
    )
    again = EventSource.model_validate_json(first.model_dump_json())
    assert again == first
    assert again.with_path("b.csv").path == Path("b.csv")
    assert again.with_path("b.csv").columns == first.columns


def test_canonical_files_need_no_mapping(tmp_path: Path) -> None:
    """What a raw file became can be read by the source of the raw file, whatever its adapter or mapping."""
    raw = write(tmp_path / "raw.csv", "who,when,event\na,1704103200,visit\n")
    source = EventSource(
        path=raw, columns={"customer_id": "who", "timestamp": "when", "touchpoint": "event"}, time_unit="s",
        timezone="Europe/Berlin", stages={"visit": "awareness"},
    )  # fmt: skip
    checked = read_events(source)
    pq.write_table(checked.events, tmp_path / "canonical.parquet")
    again = read_events(source.with_path(tmp_path / "canonical.parquet"))
    assert again.events.to_pandas().equals(checked.events.to_pandas())


def test_stages_by_name_and_pattern(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", PLAIN + "8,2024-01-03,page_a,\n8,2024-01-03,other,\n")
    source = EventSource(path=path, stages={"purchase": "purchase", "page_*": "look", "p*": "never", "visit": "look"})
    assert events(source)["stage"].tolist()[:3] == ["look", "purchase", "look"]
    assert events(source)["stage"].isna().tolist() == [False, False, False, True]


def test_the_mapping_of_stages_wins_over_the_log(tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.csv", "customer_id,timestamp,touchpoint,stage\na,2024-01-01,x,own\na,2024-01-02,y,own\n"
    )
    assert events(EventSource(path=path, stages={"x": "given"}))["stage"].tolist() == ["given", "own"]


def test_times_without_a_zone_belong_to_the_timezone(tmp_path: Path) -> None:
    path = write(
        tmp_path / "log.csv",
        "customer_id,timestamp,touchpoint\na,2024-07-01 12:00:00,x\na,never,x\na,2024-01-01 12:00,x\n",
    )
    checked = read_events(EventSource(path=path, timezone="Europe/London"))
    assert checked.events["timestamp"].to_pandas().tolist() == [
        pd.Timestamp("2024-07-01 11:00"), pd.Timestamp("2024-01-01 12:00"),
    ]  # fmt: skip
    assert checked.counts == {"timestamp is not a time": 1}
    assert not any("time zone" in note for note in checked.notes)
    zoned = write(tmp_path / "zoned.csv", "customer_id,timestamp,touchpoint\na,2024-07-01T12:00:00Z,x\n")
    assert events(EventSource(path=zoned, timezone="Europe/London"))["timestamp"][0] == pd.Timestamp("2024-07-01 12:00")
    mixed = write(
        tmp_path / "mixed.csv", "customer_id,timestamp,touchpoint\na,2024-07-01T12:00:00Z,x\na,2024-07-01 12:00:00,x\n"
    )
    stamps = events(EventSource(path=mixed, timezone="Europe/London"))["timestamp"]
    assert stamps.tolist() == [pd.Timestamp("2024-07-01 12:00"), pd.Timestamp("2024-07-01 11:00")]


def test_a_profile_table_is_joined(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", PLAIN)
    write(tmp_path / "crm.csv", "id,plan,age\n007,gold,41\n9,silver,20\n")
    table = {"path": "crm.csv", "customer_id": "id", "columns": ["plan"], "numeric_columns": ["age"]}
    source = EventSource.model_validate({"path": log, "profile_table": table})
    frame = read_events(source, base=tmp_path).events.to_pandas()
    assert frame["plan"].tolist()[0] == "gold"
    assert frame["plan"].isna().tolist() == [False, True]
    assert frame["age"].tolist()[0] == 41
    assert source.schema().profile == ("plan",)
    assert source.schema().profile_numeric == ("age",)


def test_bad_profile_tables_are_errors(tmp_path: Path) -> None:
    log = write(tmp_path / "log.csv", PLAIN)
    twice = write(tmp_path / "twice.csv", "customer_id,plan\n8,gold\n8,silver\n")
    with pytest.raises(DataError, match="several rows for customer 8"):
        read_events(EventSource.model_validate({"path": log, "profile_table": {"path": twice, "columns": ["plan"]}}))
    with pytest.raises(DataError, match="No such profile table"):
        load_journeys(EventSource.model_validate({"path": log, "profile_table": {"path": "none", "columns": ["plan"]}}))
    with pytest.raises(DataError, match="no column 'plans'; it has customer_id, plan"):
        read_events(EventSource.model_validate({"path": log, "profile_table": {"path": twice, "columns": ["plans"]}}))


def test_duplicates_are_rejected_on_request(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", PLAIN + "8,2024-01-02,purchase,12.5\n")
    assert read_events(EventSource(path=path)).events.num_rows == 3
    checked = read_events(EventSource(path=path, duplicates="quarantine"))
    assert checked.events.num_rows == 2
    assert checked.quarantine["row"].to_pylist() == [3]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"colums": {}}, "unknown key 'colums'; did you mean 'columns'"),
        ({"adapter": "bpi_2012"}, "no adapter 'bpi_2012'; did you mean 'bpi2012'"),
        ({"columns": {"time": "when"}}, "columns maps to 'time', which is neither canonical nor declared"),
        ({"adapter": "bpi2012", "columns": {"customer_id": "case"}}, "knows its own"),
        ({"adapter": "bpi2012", "profile": ["x"]}, "profile is for adapter"),
        ({"timezone": "Europe/Londn"}, "no time zone 'Europe/Londn'"),
        ({"properties": ["value"]}, "declared twice, or canonical already: value"),
        ({"properties": ["x"], "profile": ["x"]}, "declared twice, or canonical already: x"),
        ({"duplicates": "drop"}, "'keep' or 'quarantine'"),
    ],
)
def test_unknown_settings_are_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        EventSource.model_validate({"path": "log.csv", **settings})


def test_a_declared_column_must_exist(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", PLAIN.replace("value", "agent_name"))
    with pytest.raises(DataError, match=r"No column 'agent', which properties declares.*Did you mean 'agent_name'"):
        load_journeys(EventSource(path=path, properties=("agent",)))


# Online Retail


INVOICES = """InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country
536365,85123a,HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom
536365,85123a,HEART,6,2010-12-01 08:26:00,2.55,17850.0,United Kingdom
536365,POST,POSTAGE,1,2010-12-01 08:26:00,18,17850,United Kingdom
C536379,D,Discount,-1,2010-12-01 09:41:00,27.5,14527.0,Ireland
536380,22960,JAM,1,2010-12-01 09:41:00,0,14527.0,Ireland
536381,22961,JAM,1,2010-12-01 09:41:00,1.25,,United Kingdom
536381,22961,JAM,many,2010-12-01 09:41:00,1.25,1,United Kingdom
A563186,B,Adjust bad debt,1,2011-08-12 14:51:00,-11062.06,,United Kingdom
"""


def test_online_retail(tmp_path: Path) -> None:
    path = write(tmp_path / "retail.csv", INVOICES)
    source = EventSource(path=path, adapter="online_retail", duplicates="quarantine")
    checked = read_events(source)
    frame = checked.events.to_pandas()
    assert frame["customer_id"].tolist() == ["17850", "17850", "14527", "14527"]
    assert frame["touchpoint"].tolist() == ["purchase", "purchase", "return", "purchase"]
    assert frame["item"].tolist() == ["85123A", "POST", "D", "22960"]
    assert frame["value"].round(2).tolist() == [15.3, 18.0, -27.5, 0.0]
    assert frame["country"].tolist() == ["United Kingdom", "United Kingdom", "Ireland", "Ireland"]
    assert dict(zip(checked.quarantine["row"].to_pylist(), checked.quarantine["reason"].to_pylist(), strict=True)) == {
        2: "the same as an earlier row in every column",
        6: "no CustomerID: a guest, or a booking",
        7: "Quantity is not a number",
        8: "no CustomerID: a guest, or a booking",
    }
    assert checked.quarantine["Description"].to_pylist()[-1] == "Adjust bad debt"
    assert "1 lines of customers have a price of zero: kept, worth 0" in checked.notes
    canonical = canonical_events(source, checked.events)
    assert canonical.events.num_rows == 4
    assert pack(canonical.events, source.schema()).fingerprint() == load_journeys(source).fingerprint()


@pytest.mark.parametrize("adapter", ["online_retail", "bpi2012"])
def test_an_adapter_takes_typed_columns(tmp_path: Path, adapter: str) -> None:
    """The same data set, stored as Parquet by someone who let pandas find the types."""
    text = {"online_retail": INVOICES.replace("many", "1"), "bpi2012": CASES}[adapter]
    path = write(tmp_path / "raw.csv", text)
    pd.read_csv(path).to_parquet(tmp_path / "raw.parquet")
    source = EventSource(path=path, adapter=adapter)
    again = load_log(source.with_path(tmp_path / "raw.parquet"))
    assert again.journeys.fingerprint() == load_journeys(source).fingerprint()
    assert again.counts == load_log(source).counts


def test_an_adapter_reports_bad_values_by_the_row_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "retail.csv", INVOICES + "536382,22961,JAM,1,yesterday,1.25,2,Spain\n")
    checked = read_events(EventSource(path=path, adapter="online_retail"))
    last = checked.quarantine.slice(checked.quarantine.num_rows - 1).to_pylist()[0]
    assert (last["row"], last["reason"], last["InvoiceDate"]) == (9, "timestamp is not a time", "yesterday")


def test_an_adapter_names_missing_columns(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "case,activity\n1,x\n")
    with pytest.raises(DataError, match=r"log\.csv: The adapter 'bpi2012' needs the columns 'amount_req', 'reg_date'"):
        read_events(EventSource(path=path, adapter="bpi2012"))


def test_guests_only_is_an_error(tmp_path: Path) -> None:
    path = write(
        tmp_path / "retail.csv", "\n".join(line for line in INVOICES.split("\n") if ",," in line or "Inv" in line)
    )
    with pytest.raises(DataError, match="No row can be used"):
        read_events(EventSource(path=path, adapter="online_retail"))


# BPI 2012


CASES = """case,amount_req,reg_date,activity,lifecycle,resource,timestamp
7,20000,2011-10-01T00:38:44.500+02:00,A_SUBMITTED,COMPLETE,112,2011-10-01T00:38:44.546+02:00
7,20000,2011-10-01T00:38:44.500+02:00,W_Afhandelen leads,SCHEDULE,112,2011-10-01T00:40:00.000+02:00
7,20000,2011-10-01T00:38:44.500+02:00,W_Afhandelen leads,START,,2011-10-01T00:50:00.000+02:00
9,5000,2011-10-02T00:00:00.000+02:00,A_SUBMITTED,COMPLETE,112,2011-10-02T00:00:00.000+02:00
"""


def test_bpi2012(tmp_path: Path) -> None:
    source = EventSource(path=write(tmp_path / "cases.csv", CASES), adapter="bpi2012")
    frame = events(source)
    assert frame["touchpoint"].tolist() == [
        "registration", "A_SUBMITTED", "W_Afhandelen leads schedule", "W_Afhandelen leads start",
        "registration", "A_SUBMITTED",
    ]  # fmt: skip
    assert frame["timestamp"][0] == pd.Timestamp("2011-09-30 22:38:44.500")
    assert frame["amount_req"].tolist() == [20000.0] * 4 + [5000.0] * 2
    assert frame["resource"].isna().tolist() == [True, False, False, True, True, False]
    journeys = load_journeys(source)
    first = journeys.categories["touchpoint"]
    assert [first.names[first.codes[start]] for start in journeys.offsets[:-1]] == ["registration"] * 2


def test_the_real_files(shared: Path) -> None:
    """Rows in, rows out, and why the others are not."""
    retail = EventSource(path=shared / "data/online_retail.csv.gz", adapter="online_retail", duplicates="quarantine")
    log = load_log(retail)
    assert log.counts == {
        "no CustomerID: a guest, or a booking": 135_080,
        "the same as an earlier row in every column": 5_225,
    }
    assert (log.journeys.n_events, log.journeys.n_customers) == (401_604, 4_372)
    assert log.journeys.n_events + sum(log.counts.values()) == 541_909
    loans = load_log(EventSource(path=shared / "data/bpi2012.csv.gz", adapter="bpi2012"))
    assert loans.counts == {}
    assert (loans.journeys.n_events, loans.journeys.n_customers) == (262_200 + 13_087, 13_087)


def test_a_frame_goes_the_same_way() -> None:
    frame = pd.DataFrame({"who": ["a"], "when": [pd.Timestamp("2024-01-01", tz="UTC")], "event": ["x"]})
    source = EventSource(path="frame", columns={"customer_id": "who", "timestamp": "when", "touchpoint": "event"})
    assert canonical_events(source, frame).events.num_rows == 1
    assert canonical_events(source, canonical_events(source, frame).events).events.num_rows == 1

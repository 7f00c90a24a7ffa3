"""What people hand in by mistake, from file to labels: one clear error, or a quarantine and the rest goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from features.events.source import EventSource
from features.journeys.loading import load_journeys, load_log
from features.labels.churn import churn_labels

HEADER = "customer_id,timestamp,touchpoint,value,duration_s\n"
GOOD = "".join(f"c{i % 7},2024-01-{1 + i % 28:02d} 10:00:00,buy,{i}.5,3\n" for i in range(60))


def load(path: Path, text: str | bytes, **settings: object):  # type: ignore[no-untyped-def]
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return load_log(EventSource.model_validate({"path": path, **settings}))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "log.csv"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"log\.csv.* is empty"),
        (HEADER, r"No event rows"),
        ("customer_id,touchpoint\na,x\n", r"No column 'timestamp'"),
        ("customer,timestamp,touchpoint\na,2024-01-01,x\n", r"No column 'customer_id'.*'customer'.*\[events.columns\]"),
        ("a,b\n1,2\n3,4\n", r"No column 'customer_id'"),
        (HEADER + "a,soon,x,1,1\nb,later,x,1,1\n", r"no event log.*timestamp is not a time: 2.*'soon'"),
        (HEADER + "a,1704103200,x,1,1\n" * 3, r"(no event log|time_unit)"),
        (HEADER + ",2024-01-01,x,1,1\n" * 3, r"no event log.*customer_id is missing: 3"),
    ],
)
def test_no_event_log_is_a_single_error(file: Path, text: str, message: str) -> None:
    with pytest.raises(DataError, match=message) as caught:
        load(file, text)
    assert "log.csv" in str(caught.value)


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("c1,30/02/2024,buy,1,1", "timestamp is not a time"),
        ("c1,,buy,1,1", "timestamp is missing"),
        ("c1,1970-01-01 00:00:00,buy,1,1", "timestamp is before 1971"),
        ("c1,2200-01-01 00:00:00,buy,1,1", "timestamp is after 2099"),
        (",2024-01-01,buy,1,1", "customer_id is missing"),
        ("c1,2024-01-01,,1,1", "touchpoint is missing"),
        ("c1,2024-01-01,buy,cheap,1", "value is not a number"),
        ("c1,2024-01-01,buy,inf,1", "value is infinite"),
        ("c1,2024-01-01,buy,1,-4", "duration_s is below 0"),
    ],
)
def test_a_bad_row_goes_to_quarantine_and_the_rest_goes_on(file: Path, row: str, reason: str) -> None:
    log = load(file, HEADER + GOOD + row + "\n")
    assert log.counts == {reason: 1}
    assert log.quarantine["row"].to_pylist() == [61]
    assert log.journeys.n_events == 60
    clean = load(file, HEADER + GOOD)
    assert log.journeys.fingerprint() == clean.journeys.fingerprint()


def test_negative_and_missing_values_are_no_mistake(file: Path) -> None:
    log = load(file, HEADER + GOOD + "c1,2024-01-01,refund,-5,\nc1,2024-01-01,visit,,\nc1,2024-01-01,visit,NaN,\n")
    assert log.counts == {}
    assert np.nanmin(log.journeys.numbers["value"]) == -5


def test_zones_may_be_mixed(file: Path) -> None:
    log = load(
        file,
        HEADER
        + GOOD
        + "x,2024-01-05T12:00:00+02:00,buy,1,1\nx,2024-01-05T11:00:00Z,buy,1,1\nx,2024-01-05 09:00,buy,1,1\n",
    )
    start = log.journeys.offsets[log.journeys.index_of(["x"])[0]]
    hours = (log.journeys.t[start : start + 3] // 3_600_000_000) % 24
    assert hours.tolist() == [9, 10, 11]
    assert any("no time zone" in note for note in log.notes)


def test_duplicates_stay_by_default(file: Path) -> None:
    twice = HEADER + GOOD + GOOD
    assert load(file, twice).journeys.n_events == 120
    log = load(file, twice, duplicates="quarantine")
    assert log.journeys.n_events == 60
    assert sum(log.counts.values()) == 60


def test_other_encodings_need_a_setting(file: Path) -> None:
    text = (HEADER + GOOD + "Zoë,2024-01-01,kjøp,1,1\n").encode("latin-1")
    with pytest.raises(DataError, match=r"(?i)log\.csv.*utf-?8.*encoding"):
        load(file, text)
    log = load(file, text, encoding="latin-1")
    assert "kjøp" in log.journeys.categories["touchpoint"].names
    assert "Zoë" in log.journeys.customer_ids.to_pylist()


def test_ten_thousand_touchpoints(file: Path) -> None:
    log = load(file, HEADER + "".join(f"c{i % 50},2024-01-01 10:00:00,touch {i},1,1\n" for i in range(10_000)))
    assert len(log.journeys.categories["touchpoint"].names) == 10_000


def test_a_customer_with_a_million_events(tmp_path: Path) -> None:
    n = 1_000_000
    t = pd.Timestamp("2024-01-01") + pd.to_timedelta(np.arange(n) * 10, unit="s")  # 116 days
    pd.DataFrame({"customer_id": "one", "timestamp": t, "touchpoint": "buy"}).to_parquet(tmp_path / "log.parquet")
    journeys = load_journeys(EventSource(path=tmp_path / "log.parquet"))
    assert (journeys.n_customers, journeys.n_events) == (1, n)
    labels = churn_labels(journeys, ["2024-02-01"], activity=["buy"], active_days=30, horizon_days=30)
    assert labels["label"].tolist() == [0]


def test_a_file_without_a_table(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(b"this is no parquet")
    with pytest.raises(DataError, match=r"log\.parquet.*no Parquet"):
        load_journeys(EventSource(path=path))
    with pytest.raises(DataError, match="No such file"):
        load_journeys(EventSource(path=tmp_path / "none.csv"))
    (tmp_path / "folder").mkdir()
    with pytest.raises(DataError, match="holds no"):
        load_journeys(EventSource(path=tmp_path / "folder"))


def test_the_quarantine_is_written_next_to_the_output(file: Path, tmp_path: Path) -> None:
    file.write_text(HEADER + GOOD + "c1,soon,buy,1,1\n")
    out = tmp_path / "out" / "quarantine.csv"
    load_journeys(EventSource(path=file), quarantine_path=out)
    assert pd.read_csv(out).iloc[0][["row", "reason", "timestamp"]].tolist() == [61, "timestamp is not a time", "soon"]
    file.write_text(HEADER + GOOD)
    load_journeys(EventSource(path=file), quarantine_path=tmp_path / "none.csv")
    assert not (tmp_path / "none.csv").exists()


FOREIGN = "Kunde;Zeit;Vorgang;Betrag\n" + "".join(
    f"k{i % 7};{1 + i % 28:02d}.01.2024 08:{i % 60:02d};Kauf;1.0{i % 60:02d},50\n" for i in range(60)
)
NAMES = {"customer_id": "Kunde", "timestamp": "Zeit", "touchpoint": "Vorgang", "value": "Betrag"}


def test_the_error_names_the_setting_that_reads_the_file(file: Path) -> None:
    with pytest.raises(DataError, match=r'Write time_format = "%d\.%m\.%Y %H:%M" in \[events\]'):
        load(file, FOREIGN, columns=NAMES)
    with pytest.raises(DataError, match=r'Write decimal = "," in \[events\]'):
        load(file, FOREIGN, columns=NAMES, time_format="%d.%m.%Y %H:%M")
    log = load(file, FOREIGN, columns=NAMES, time_format="%d.%m.%Y %H:%M", decimal=",")
    assert log.counts == {}
    assert sorted(log.journeys.numbers["value"]) == [1000.5 + i for i in range(60)]


@pytest.mark.parametrize(
    ("text", "number"),
    [("1.234.567,8", 1234567.8), ("-7,5", -7.5), ("1 234,5", 1234.5), ("12", 12.0), ("1e3", 1000.0), ("", np.nan),
     ("n/a", np.nan), (",5", 0.5)],
)  # fmt: skip
def test_numbers_with_a_decimal_comma(file: Path, text: str, number: float) -> None:
    log = load(
        file,
        HEADER.replace(",", ";") + GOOD.replace(",", ";").replace(".5", ",5") + f"z;2024-01-01;x;{text};\n",
        decimal=",",
    )
    assert log.counts == {}
    np.testing.assert_equal(log.journeys.numbers["value"][-1], number)


@pytest.mark.parametrize("text", ["1.5", "1,5,0", "12.34,5", "cheap", "1.2345"])
def test_bad_decimal_commas_are_rejected(file: Path, text: str) -> None:
    log = load(
        file,
        HEADER.replace(",", ";") + GOOD.replace(",", ";").replace(".5", ",5") + f"z;2024-01-01;x;{text};\n",
        decimal=",",
    )
    assert log.counts == {"value is not a number": 1}
    assert log.quarantine["value"].to_pylist() == [text]


def test_a_log_without_touchpoints(file: Path) -> None:
    bought = "customer_id,timestamp,value\n" + "".join(f"c{i % 7},2024-01-{1 + i % 28:02d},{i}\n" for i in range(60))
    with pytest.raises(DataError, match=r"No column 'touchpoint'.*touchpoint = .purchase."):
        load(file, bought)
    log = load(file, bought, touchpoint="purchase")
    assert log.journeys.categories["touchpoint"].names == ("purchase",)
    assert (log.journeys.n_events, log.counts) == (60, {})
    with pytest.raises(ValueError, match="touchpoint is said twice"):
        EventSource(path=file, touchpoint="purchase", columns={"touchpoint": "event"})

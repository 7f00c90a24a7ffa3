"""Files: what is read, in which parts, what is wrong with it; and the whole stream from files to packed journeys."""

from __future__ import annotations

import gzip

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from features.errors import DataError
from features.events import files as reading
from features.events.checks import CheckOptions, check_events
from features.events.files import batches, columns_of, event_files, read_table
from features.events.schema import EventSchema
from features.journeys.packing import pack
from features.journeys.stream import load
from features.simulation.large_log import synthetic_log

HEADER = b"customer_id,timestamp,touchpoint,value\n"
LINE = b"c%d,2024-03-01T10:00:%02d,view,%d\n"


def lines(n, first=0):
    return b"".join(LINE % (i % 3, i % 60, i) for i in range(first, first + n))


def write(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_csv_columns_are_text_as_in_the_file(tmp_path):
    file = write(tmp_path / "a.csv", b'\xef\xbb\xbfid,"their time",x\n007,2024-01-01,"a\nb"\n,1.50,\n')
    assert columns_of(file) == ["id", "their time", "x"]
    assert read_table(file).to_pydict() == {
        "id": ["007", None],
        "their time": ["2024-01-01", "1.50"],
        "x": ["a\nb", None],
    }
    assert read_table(file, ["x", "absent"]).column_names == ["x"]


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.csv", b"a,b\n1,2\n"),
        ("a.csv", b"a,b\r\n1,2\r\n"),
        ("a.csv", b"a;b\n1;2\n"),
        ("a.csv", b"a|b\n1|2"),
        ("a.tsv", b"a\tb\n1\t2\n"),
        ("a.csv.gz", gzip.compress(b"a,b\n1,2\n", mtime=0)),
        ("A.CSV", b"a,b\n\n1,2\n\n"),
    ],
)
def test_every_kind_of_csv(tmp_path, name, content):
    assert read_table(write(tmp_path / name, content)).to_pydict() == {"a": ["1"], "b": ["2"]}


@pytest.mark.parametrize("content", [b"a,b\n", b"a,b"])
def test_a_header_without_rows_gives_its_columns(tmp_path, content):
    table = read_table(write(tmp_path / "a.csv", content))
    assert (table.column_names, table.num_rows) == (["a", "b"], 0)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\n", "is empty"),
        ("a.csv", b"a,a\n1,2\n", "two columns 'a'"),
        ("a.csv", b"a,b\n1,2\n1,2,3\n", "row 2 does not have the 2 fields.*'1,2,3'"),
        ("a.csv", b"a,b\n1,2\n3,caf\xe9\n", "row 2, column 'b', is not utf8 text.*latin-1"),
        ("a.csv.gz", b"a,b\n1,2\n", "cannot be read: Not a gzipped file"),
        ("a.csv.gz", gzip.compress(lines(99_999))[:100_000], "ended before"),
        ("a.parquet", b"", "0 bytes"),
        ("a.parquet", b"a,b\n1,2\n", "no Parquet file"),
        ("a.xlsx", b"PK", "event files end in"),
    ],
)
def test_a_file_that_cannot_be_read_says_why(tmp_path, name, content, message):
    file = write(tmp_path / name, content)
    with pytest.raises(DataError, match=message) as caught:
        read_table(file)
    assert name in str(caught.value)


def test_other_encodings(tmp_path):
    file = write(tmp_path / "a.csv", "a,b\n1,café\n".encode("latin-1"))
    assert read_table(file, encoding="latin-1")["b"].to_pylist() == ["café"]
    file = write(tmp_path / "b.csv", "a,b\n1,café\n".encode("utf-16"))
    assert read_table(file, encoding="utf-16")["b"].to_pylist() == ["café"]
    with pytest.raises(DataError, match="utf-99"):
        read_table(file, encoding="utf-99")


def test_a_folder_is_its_files_by_name(tmp_path):
    for name, value in (
        ("b/2.csv", b"2"),
        ("a.csv", b"1"),
        ("_tmp/x.csv", b"9"),
        ("b/.x.csv", b"9"),
        ("read.me", b"9"),
    ):
        write(tmp_path / name, b"v\n" + value + b"\n")
    assert read_table(tmp_path)["v"].to_pylist() == ["1", "2"]
    with pytest.raises(DataError, match="holds no"):
        event_files(write(tmp_path / "empty" / "x.txt", b"").parent)
    with pytest.raises(DataError, match="No such file"):
        event_files(tmp_path / "nowhere")


def test_parquet_dictionaries_stay_dictionaries(tmp_path):
    table = synthetic_log(20_000, 100).append_column("note", pa.array([f"note number {i}" for i in range(20_000)]))
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=7000)
    read = read_table(tmp_path / "a.parquet")
    assert pa.types.is_dictionary(read["touchpoint"].type)
    assert read["note"].type == pa.string()
    for name in table.column_names:
        assert read[name].to_pylist() == table[name].to_pylist()


@pytest.mark.parametrize(("rows_a_batch", "row_group"), [(1000, 300), (1000, 1000), (100, 5000), (10**6, 10)])
def test_parquet_parts_follow_each_other(tmp_path, monkeypatch, rows_a_batch, row_group):
    monkeypatch.setattr(reading, "ROWS_A_BATCH", rows_a_batch)
    table = synthetic_log(5000, 100)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=row_group)
    row = 1
    for batch in batches(tmp_path / "a.parquet"):
        assert batch.first_row == row
        part = batch.read()
        assert part["value"].to_pylist() == table["value"].slice(row - 1, len(part)).to_pylist()
        row += len(part)
    assert row == 5001


# --- the stream


@pytest.fixture
def small_parts(monkeypatch):
    monkeypatch.setattr(reading, "ROWS_A_BATCH", 700)
    monkeypatch.setattr(reading, "CSV_BLOCK_BYTES", 5000)


@pytest.mark.parametrize("kind", ["parquet", "csv", "csv.gz", "folder"])
def test_every_kind_of_file_gives_the_same_journeys(tmp_path, small_parts, kind):
    table = synthetic_log(5000, 100)
    expected = pack(check_events(table).events)
    path = tmp_path / f"a.{kind}"
    if kind == "folder":
        for k in range(3):
            path.mkdir(exist_ok=True)
            part = table.slice(2000 * k, 2000)
            pq.write_table(part, path / f"{k}.parquet") if k % 2 else pa.csv.write_csv(part, path / f"{k}.csv")
    elif kind == "parquet":
        pq.write_table(table, path, row_group_size=900)
    else:
        pa.csv.write_csv(table, path if kind == "csv" else tmp_path / "plain.csv")
        if kind == "csv.gz":
            write(path, gzip.compress((tmp_path / "plain.csv").read_bytes()))
    loaded = load(path)
    assert loaded.journeys.fingerprint() == expected.fingerprint()
    assert loaded.rows_in == 5000
    assert loaded.notes == ("timestamp carries no time zone: taken as UTC",)


def test_columns_are_mapped_and_converted(tmp_path):
    file = write(tmp_path / "a.csv", b"who,when,what,agent,mood\na,2024-03-01,view,bo,1\nb,2024-03-02,buy,al,2\n")

    def convert(table):
        return table.append_column("channel", pa.array(["web"] * len(table)))

    mapping = {"customer_id": "who", "timestamp": "when", "touchpoint": "what"}
    loaded = load(file, CheckOptions(EventSchema(properties=("agent",))), columns=mapping, convert=convert)
    assert loaded.journeys.categories["agent"].names == ("al", "bo")
    assert loaded.journeys.categories["channel"].names == ("web",)
    assert "columns not in the schema are ignored: mood" in loaded.notes
    with pytest.raises(DataError, match=r"No column 'whom', which is to be 'customer_id'.*Did you mean 'who'"):
        load(file, columns={"customer_id": "whom"})
    with pytest.raises(DataError, match="No column 'customer_id'"):
        load(file)


def test_bad_lines_and_bad_rows_are_numbered_as_in_the_file(tmp_path, small_parts):
    rows = lines(900).splitlines(keepends=True)
    rows[10] = b"c1,2024-03-01\n"
    rows[500] = b"c1,2024-03-01,view,1,2,3\n"
    for bad in (9, 11, 499, 501, 899):
        rows[bad] = b"c1,soon,view,1\n"
    loaded = load(write(tmp_path / "a.csv", HEADER + b"".join(rows)))
    assert loaded.quarantine["row"].to_pylist() == [10, 11, 12, 500, 501, 502, 900]
    assert loaded.counts == {"timestamp is not a time": 5, "the line has too many or too few fields": 2}
    assert loaded.quarantine["line"].to_pylist()[1] == "c1,2024-03-01"
    assert loaded.rows_in == 900


def test_a_folder_names_the_file_of_each_bad_row(tmp_path):
    write(tmp_path / "a.csv", HEADER + lines(5) + b"c1,soon,view,1\n" + lines(3, 100))
    write(tmp_path / "b.csv", HEADER + lines(2, 200) + b"c1\n" + lines(3, 300) + lines(1))
    loaded = load(tmp_path, CheckOptions(duplicates="quarantine"))
    bad = loaded.quarantine.select(["file", "row", "reason"]).to_pylist()
    assert [(row["file"], row["row"]) for row in bad] == [("a.csv", 6), ("b.csv", 3), ("b.csv", 7)]
    assert bad[2]["reason"] == "the same as an earlier row in every column"
    assert loaded.rows_in == 16


def test_files_of_a_folder_may_lack_columns(tmp_path):
    write(tmp_path / "a.csv", HEADER + lines(2))
    write(tmp_path / "b.csv", b"touchpoint,channel,customer_id,timestamp\nview,web,c9,2024-03-01\n")
    log = load(tmp_path).journeys
    assert log.categories["channel"].codes.tolist() == [-1, -1, 0]
    np.testing.assert_array_equal(log.numbers["value"], [0, 1, np.nan])


def test_duplicates_across_parts_are_rejected(tmp_path, small_parts):
    table = synthetic_log(3000, 40)
    twice = pa.concat_tables([table, table.slice(0, 100)])
    pq.write_table(twice, tmp_path / "a.parquet", row_group_size=500)
    loaded = load(tmp_path / "a.parquet", CheckOptions(duplicates="quarantine"))
    whole = check_events(twice, CheckOptions(duplicates="quarantine"))
    assert loaded.counts == whole.counts
    assert loaded.quarantine["row"].to_pylist() == whole.quarantine["row"].to_pylist()
    assert loaded.journeys.fingerprint() == pack(whole.events).fingerprint()
    assert load(tmp_path / "a.parquet").journeys.n_events == 3100


@pytest.mark.parametrize(
    "content", [b"", HEADER, b"a,b\n1,2\n", HEADER + b"c1,?,view,1\n" * 3 + lines(2), HEADER + b"c1\n"]
)
def test_no_event_log_is_a_single_error(tmp_path, content):
    with pytest.raises(DataError):
        load(write(tmp_path / "a.csv", content))


def test_ten_thousand_touchpoints(tmp_path, small_parts):
    names = np.array([f"touch {i}" for i in range(10_000)], dtype=object)
    which = np.random.default_rng(0).permutation(np.repeat(np.arange(10_000), 2))
    frame = pd.DataFrame({"customer_id": "one", "timestamp": pd.Timestamp("2024-01-01"), "touchpoint": names[which]})
    frame.to_parquet(tmp_path / "a.parquet", row_group_size=3000)
    column = load(tmp_path / "a.parquet").journeys.categories["touchpoint"]
    assert len(column.names) == 10_000
    assert np.array(column.names, dtype=object)[column.codes].tolist() == names[which].tolist()


def test_a_customer_with_a_million_unordered_events(tmp_path):
    n = 1_000_000
    t = np.random.default_rng(0).integers(1_600_000_000, 1_700_000_000, n)
    table = pa.table({"customer_id": pa.array(["one"] * n), "timestamp": pa.array(t).cast(pa.timestamp("s")),
                      "touchpoint": pa.array(["view"] * n).dictionary_encode(), "value": t.astype(float)})  # fmt: skip
    pq.write_table(table, tmp_path / "a.parquet")
    log = load(tmp_path / "a.parquet").journeys
    np.testing.assert_array_equal(log.t, np.sort(t) * 10**6)
    np.testing.assert_array_equal(log.numbers["value"], np.sort(t))


def test_long_and_strange_identifiers(tmp_path):
    ids = ["x" * 5000, "ünï", "a\0b", "a", "中文" * 40, " padded ", "a" * 8, "a" * 16]
    table = pa.table(
        {"customer_id": ids * 3, "timestamp": pa.array([10**15] * 24, pa.timestamp("us")), "touchpoint": ["t"] * 24}
    )
    pq.write_table(table, tmp_path / "a.parquet", use_dictionary=False)
    assert load(tmp_path / "a.parquet").journeys.customer_ids.to_pylist() == ids


def test_nothing_personal_is_logged(tmp_path, caplog, capsys):
    load(write(tmp_path / "a.csv", HEADER + lines(20) + b"secret,soon,view,1\n"))
    out = capsys.readouterr()
    assert "secret" not in caplog.text + out.out + out.err

"""Many customers in one call, by JSON, Arrow and Parquet; and what cannot be used."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from http_client import Client
from models.scoring.scorer import Scorer
from serving.answers.batches import CUSTOMERS_PER_BLOCK
from serving.api.application import application
from serving.champions.champions import Champions
from serving.requests.batch_tables import ROWS, is_compressed
from serving.requests.schemas import ARROW, JSON, NDJSON, PARQUET

AS_OF = "2024-06-01T00:00:00Z"


@pytest.fixture(scope="module")
def client(scoring_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Client:
    folder = tmp_path_factory.mktemp("champions")
    shutil.copytree(scoring_folder, folder / "demo_churn")
    return Client(application(Champions(folder)))


@pytest.fixture(scope="module")
def expected(scoring_folder: Path, simulated_events: pd.DataFrame) -> pd.Series:
    frame = Scorer.load(scoring_folder).score_events(simulated_events, as_of=AS_OF).frame
    return frame.set_index("customer_id")["probability"]


def stream(events: pd.DataFrame, **options: Any) -> bytes:
    table = pa.Table.from_pandas(events, preserve_index=False)
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, **options) as writer:
        writer.write_table(table)
    return bytes(sink.getvalue().to_pybytes())


def read(content: bytes) -> tuple[pd.DataFrame, dict[str, Any]]:
    table = pa.ipc.open_stream(content).read_all()
    return table.to_pandas(), json.loads(table.schema.metadata[b"journeylab"])


def test_arrow_agrees_with_the_scorer(
    client: Client, simulated_events: pd.DataFrame, expected: pd.Series, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("serving.answers.batches.CUSTOMERS_PER_BLOCK", 7)  # several blocks in one stream
    body = stream(simulated_events)
    response = client.post(f"/score_batch?as_of={AS_OF}", content=body, headers={"content-type": ARROW})
    assert (response.status_code, response.headers["content-type"]) == (200, ARROW)
    frame, about = read(response.content)
    assert frame["customer_id"].tolist() == expected.index.tolist()
    np.testing.assert_array_equal(frame["demo_churn.probability"], expected)
    assert (frame["demo_churn.reason"].notna() == expected.isna().to_numpy()).all()
    assert set(frame["as_of"]) == {pd.Timestamp(AS_OF).tz_localize(None)}
    assert about["models"]["demo_churn"]["name"] == "demo_churn"
    assert about["set_aside"] == {}
    assert CUSTOMERS_PER_BLOCK > 7


def test_parquet_json_and_lines_agree(client: Client, simulated_events: pd.DataFrame, expected: pd.Series) -> None:
    ids = list(dict.fromkeys(simulated_events["customer_id"]))[:5]
    events = simulated_events[simulated_events["customer_id"].isin(ids)]
    sink = io.BytesIO()
    pq.write_table(pa.Table.from_pandas(events, preserve_index=False), sink)
    by_parquet = client.post(f"/score_batch?as_of={AS_OF}", content=sink.getvalue(), headers={"content-type": PARQUET})
    frame, _ = read(by_parquet.content)
    np.testing.assert_array_equal(frame["demo_churn.probability"], expected[ids])
    call = {"customers": [as_json(entry, events) for entry in ids], "as_of": AS_OF}
    by_json = client.post("/score_batch", json=call).json()
    lines = client.post("/score_batch", json=call, headers={"accept": NDJSON}).text.splitlines()
    for parsed in (by_json["customers"], [json.loads(line) for line in lines[1:]]):
        assert [entry["customer_id"] for entry in parsed] == ids
        probabilities = [entry["answers"]["demo_churn"].get("probability", np.nan) for entry in parsed]
        np.testing.assert_array_equal(probabilities, expected[ids])


def as_json(customer: str, events: pd.DataFrame) -> dict[str, Any]:
    history = events[events["customer_id"] == customer].drop(columns="customer_id")
    history = history.assign(timestamp=history["timestamp"].map(lambda moment: moment.isoformat()))
    rows = [{str(k): v for k, v in row.items() if not pd.isna(v)} for row in history.to_dict("records")]
    return {"customer_id": customer, "events": rows}


def test_as_of_of_one_customer_hides_later_events(client: Client, simulated_events: pd.DataFrame) -> None:
    entry = as_json(simulated_events["customer_id"].iloc[0], simulated_events)
    early = entry["events"][0]["timestamp"]
    call = {"customers": [entry | {"as_of": early}, entry | {"customer_id": "later"}], "as_of": AS_OF}
    first, second = client.post("/score_batch", json=call).json()["customers"]
    assert "probability" not in first["answers"]["demo_churn"]
    assert "no event before" in first["answers"]["demo_churn"]["reason"]
    assert second["as_of"] == AS_OF


def test_rejected_rows_are_counted(client: Client) -> None:
    events = pd.DataFrame(
        {"customer_id": ["a", "a", "b"], "timestamp": ["2024-05-01", "2024-05-02", "2024-05-03"],
         "touchpoint": ["visit", None, "never_seen"]}
    )  # fmt: skip
    response = client.post(f"/score_batch?as_of={AS_OF}", content=stream(events), headers={"content-type": ARROW})
    frame, about = read(response.content)
    assert frame["customer_id"].tolist() == ["a", "b"]
    assert about["set_aside"] == {"touchpoint is missing": 1}
    assert about["unknown"] == {"demo_churn": {"never_seen": 1}}


GOOD = pd.DataFrame({"customer_id": ["a"], "timestamp": ["2024-05-01"], "touchpoint": ["visit"]})
EVENT = {"timestamp": "2024-05-01", "touchpoint": "visit"}
BAD: dict[str, tuple[bytes, dict[str, str], int, str]] = {
    "no stream": (b"nonsense", {"content-type": ARROW}, 400, "no Arrow IPC stream"),
    "truncated": (stream(GOOD)[:-60], {"content-type": ARROW}, 400, "no Arrow IPC stream"),
    "compressed": (
        stream(GOOD, options=pa.ipc.IpcWriteOptions(compression="zstd")), {"content-type": ARROW}, 415, "compressed"),
    "no column": (stream(GOOD.drop(columns="touchpoint")), {"content-type": ARROW}, 422, "touchpoint"),
    "no rows": (stream(GOOD.iloc[:0]), {"content-type": ARROW}, 422, "No event rows"),
    "no Parquet": (b"PAR1nonsensePAR1", {"content-type": PARQUET}, 400, "no Parquet"),
    "another type": (b"a,b", {"content-type": "text/csv"}, 415, "this route takes"),
    "another answer": (stream(GOOD), {"content-type": ARROW, "accept": "text/html"}, 406, "answers with"),
    "no JSON": (b"{", {"content-type": JSON}, 400, "no JSON"),
    "no customers": (b'{"customers": []}', {"content-type": JSON}, 422, "customers is empty"),
    "a list": (b"[]", {"content-type": JSON}, 422, "no JSON object"),
    "twice": (json.dumps({"customers": [{"customer_id": "a", "events": [EVENT]}] * 2}).encode(),
              {"content-type": JSON}, 422, "same customer_id"),
    "wrong time": (json.dumps({"customers": [{"customer_id": "a", "events": [EVENT | {"timestamp": "x"}]}]}).encode(),
                   {"content-type": JSON}, 422, "ISO 8601"),
    "as_of": (json.dumps({"customers": [{"customer_id": "a", "events": [EVENT]}], "as_of": "2098-01-01"}).encode(),
              {"content-type": JSON}, 422, "future"),
}  # fmt: skip


@pytest.mark.parametrize("name", BAD)
def test_bad_calls_are_refused_with_a_sentence(client: Client, name: str) -> None:
    body, headers, status, part = BAD[name]
    response = client.post("/score_batch", content=body, headers=headers)
    answer = response.json()
    assert (response.status_code, part in answer["error"]) == (status, True), answer
    assert "\n" not in answer["error"]


def test_too_many_rows_are_refused_before_unpacking(client: Client) -> None:
    columns = {"customer_id": pa.nulls(ROWS + 1), "timestamp": pa.nulls(ROWS + 1), "touchpoint": pa.nulls(ROWS + 1)}
    sink = pa.BufferOutputStream()
    table = pa.table(columns)
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table)
    body = bytes(sink.getvalue().to_pybytes())
    assert len(body) < 10_000
    response = client.post("/score_batch", content=body, headers={"content-type": ARROW})
    assert response.status_code == 413


@pytest.mark.parametrize("dictionary", [False, True])
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
def test_metadata_show_compression(compression: str | None, dictionary: bool) -> None:
    values: Any = pa.array(["a" * 200] * 50)
    table = pa.table({"x": values.dictionary_encode() if dictionary else values})
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema, options=pa.ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table)
    compressed = [is_compressed(m.metadata.to_pybytes()) for m in pa.ipc.MessageReader.open_stream(sink.getvalue())]
    assert any(compressed) == (compression is not None)

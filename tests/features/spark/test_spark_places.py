"""Results that Spark writes itself: to a URI, to a table; nothing of others is written over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from experiment_files import write_experiment
from experiments.cli import app
from features.errors import ConfigError, DataError
from features.journeys.landed import open_landed
from features.simulation.simulator import simulate
from features.spark.destinations import (
    RemoteLocation,
    begin,
    destination,
    read,
    write_remote_quarantine,
    write_table,
    write_text,
)
from training.config.engines import Engine
from training.config.experiment import load_experiment
from training.data.landing import Sample, land
from training.scoring.scoring import score_file
from training.scoring.spark_scoring import _ours, score_on_spark

ENGINE = Engine("spark", partitions=2)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("away")
    simulate(n_customers=200, days=200, seed=6).save(folder)
    events = pd.read_parquet(folder / "events.parquet")
    events.loc[events.index[::200], "timestamp"] = pd.NaT  # some rows are set aside
    events.to_parquet(folder / "events.parquet", index=False)
    write_experiment(folder, '[features]\ngroups = ["volume", "recency"]', name="away_churn", file="churn.toml")
    return folder


@pytest.fixture
def schema(spark: Any, tmp_path: Path) -> Iterator[str]:
    """A schema of tables that lie in the test's folder."""
    spark.sql(f"CREATE DATABASE away LOCATION '{(tmp_path / 'tables').as_uri()}'")
    yield "away"
    spark.sql("DROP DATABASE away CASCADE")


def in_order(rows: pd.DataFrame) -> pd.DataFrame:
    return rows.sort_values(["customer_id", "cutoff"], ignore_index=True)


def test_features_land_at_a_uri(spark: Any, project: Path, tmp_path: Path) -> None:
    experiment = load_experiment(project / "churn.toml")
    here = land(experiment, tmp_path / "here", sample=Sample(0.5))
    out = tmp_path / "there"
    begin(spark, RemoteLocation(out.as_uri() + "/"))  # an earlier run left something behind
    write_text(spark, "no Parquet", RemoteLocation(out.as_uri()).within("part-old.parquet"))
    there = land(experiment, RemoteLocation(out.as_uri() + "/"), engine=ENGINE, sample=Sample(0.5))
    assert (there.rows, there.features) == (here.rows, here.features)
    assert not (out / "part-old.parquet").exists()
    mine, theirs = (in_order(pq.read_table(tmp_path / one).to_pandas()) for one in ("here", "there"))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True, check_dtype=False)
    states = [json.loads((tmp_path / one / "_features.json").read_text()) for one in ("here", "there")]
    assert [one["features"] for one in states] == [states[0]["features"]] * 2
    assert [one["journeys"] for one in states] == [states[0]["journeys"]] * 2
    assert open_landed(out).journeys.fingerprint() == open_landed(tmp_path / "here").journeys.fingerprint()
    aside = pd.read_csv(tmp_path / "here_quarantine.csv")
    assert pq.read_table(out / "_quarantine").to_pandas()["row"].tolist() == aside["row"].tolist()


def test_features_go_to_tables(spark: Any, project: Path, schema: str, tmp_path: Path) -> None:
    experiment = load_experiment(project / "churn.toml", ["features.groups=['volume']"])
    here = land(experiment, tmp_path / "here")
    there = land(experiment, destination(f"table:{schema}.`churn_rows`"), engine=ENGINE)
    assert (there.rows, there.features) == (here.rows, here.features)
    mine = in_order(pq.read_table(tmp_path / "here").to_pandas())
    theirs = in_order(spark.table(f"{schema}.`churn_rows`").toArrow().to_pandas())
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True, check_dtype=False)
    state = json.loads(spark.table(f"{schema}.`churn_rows_features`").first()["text"])
    assert state["features"] == json.loads((tmp_path / "here" / "_features.json").read_text())["features"]
    journeys = pq.read_table(tmp_path / "here" / "_journeys")
    assert spark.table(f"{schema}.`churn_rows_journeys`").count() == journeys.num_rows
    with pytest.raises(ConfigError, match=f"belongs to table:{schema}.`churn_rows`: name a new one"):
        begin(spark, destination(f"table:{schema}.`churn_rows_features`"))


def test_columns_whose_names_differ_in_case_only(spark: Any, schema: str, tmp_path: Path) -> None:
    rows = pa.table({"Email": [1, 2], "email": [3, 4], "nothing": pa.nulls(2)})
    for out in (RemoteLocation((tmp_path / "rows").as_uri()), RemoteLocation(f"table:{schema}.rows")):
        write_table(spark, rows, out)
    assert pq.read_table(tmp_path / "rows").column_names == rows.column_names
    assert spark.conf.get("spark.sql.caseSensitive") == "false"


def test_scores_go_to_a_table(spark: Any, project: Path, model: Path, schema: str, tmp_path: Path) -> None:
    events = project / "events.parquet"
    here = score_file(str(model), events, None, tmp_path / "here.parquet")
    mine = in_order(pd.read_parquet(tmp_path / "here.parquet"))
    arguments = ["score", str(model), "--events", events.as_uri(), "--out", f"table:{schema}.scores", "--json"]
    for _ in range(2):
        done = CliRunner().invoke(app, [*arguments, "--engine", "spark", "--master", "local[2]"])
        assert done.exit_code == 0, done.output
        told = json.loads(done.stdout.splitlines()[-1])
        assert (told["out"], told["rows"]) == (f"table:{schema}.scores", here.rows)
        assert told["without_answer"] == here.without_answer
        theirs = in_order(spark.table(f"{schema}.scores").toArrow().to_pandas())
        pd.testing.assert_frame_equal(mine, theirs, check_exact=True, check_dtype=False)
    assert spark.table(f"{schema}.scores_quarantine").count() == sum(here.quarantined.values()) > 0
    pd.read_parquet(events).dropna(subset="timestamp").to_parquet(tmp_path / "clean.parquet", index=False)
    score_on_spark(model, str(tmp_path / "clean.parquet"), destination(f"table:{schema}.scores"), engine=ENGINE)
    assert not spark.catalog.tableExists(f"{schema}.scores_quarantine")
    at = score_on_spark(
        model, str(events), RemoteLocation((tmp_path / "at").as_uri()), as_of="2024-05-01", engine=ENGINE
    )
    once = score_on_spark(model, str(events), tmp_path / "once", as_of="2024-05-01", engine=ENGINE)
    assert (at.rows, at.unknown, at.quarantined) == (once.rows, once.unknown, once.quarantined)
    mine, theirs = (in_order(pq.read_table(tmp_path / one).to_pandas()) for one in ("at", "once"))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_what_fails_leaves_what_was_there(spark: Any, project: Path, model: Path, schema: str, tmp_path: Path) -> None:
    asked = pd.DataFrame({"customer_id": ["c000001", "c000002", "nobody"], "cutoff": "2024-05-01"})
    asked.to_csv(tmp_path / "asked.csv", index=False)
    bad = pd.read_parquet(project / "events.parquet").head(50).assign(timestamp="soon")
    bad.to_parquet(tmp_path / "bad.parquet", index=False)
    (tmp_path / "short.csv").write_text("customer_id,timestamp,touchpoint\na,2024-05-01,visit\na,2024-05-02\n")
    how: dict[str, Any] = {"snapshots": tmp_path / "asked.csv", "engine": ENGINE}
    here = score_file(str(model), project / "events.parquet", how["snapshots"], tmp_path / "here.csv")
    for out in (RemoteLocation((tmp_path / "rows").as_uri()), RemoteLocation(f"table:{schema}.rows")):
        found = score_on_spark(model, str(project / "events.parquet"), out, **how)
        assert (found.rows, found.without_answer) == (3, here.without_answer)
        rows = in_order(read(spark, out).toArrow().to_pandas())
        assert sorted(rows["customer_id"]) == sorted(asked["customer_id"])
        with pytest.raises(DataError, match="This is no event log"):
            score_on_spark(model, str(tmp_path / "bad.parquet"), out, as_of="2024-05-01", engine=ENGINE)
        with pytest.raises(DataError, match="does not have the fields of the header"):
            score_on_spark(model, (tmp_path / "short.csv").as_uri(), out, engine=ENGINE)
        pd.testing.assert_frame_equal(rows, in_order(read(spark, out).toArrow().to_pandas()))


def test_nothing_of_others_is_written_over(spark: Any, project: Path, model: Path, schema: str, tmp_path: Path) -> None:
    rows = spark.range(3)
    rows.write.parquet(str(tmp_path / "theirs"))
    rows.write.saveAsTable(f"{schema}.theirs")
    rows.write.saveAsTable(f"{schema}.mine_quarantine")
    with pytest.raises(ConfigError, match="holds other files: name a new folder"):
        begin(spark, RemoteLocation((tmp_path / "theirs").as_uri()))
    with pytest.raises(ConfigError, match="holds other files"):  # Spark's mark of success is not ours
        score_on_spark(model, str(project / "events.parquet"), tmp_path / "theirs")
    marks = [(b"", "part-00000.parquet", True), (b'{"key": "f00d"}', "part-0.parquet", True)]
    marks += [(b"", "part-00000-1f.snappy.parquet", False), (b"\xff", "part-0.parquet", False)]
    for number, (said, name, ours) in enumerate(marks):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / name).touch()
        (folder / "_SUCCESS").write_bytes(said)
        assert _ours(folder) == ours
    for name, other in (("theirs", "theirs"), ("mine", "mine_quarantine")):
        with pytest.raises(ConfigError, match=f"The table `{schema}`.`{other}` was not written by journeylab"):
            begin(spark, RemoteLocation(f"table:{schema}.{name}"))
    with pytest.raises(ConfigError, match="There is no schema elsewhere: create it first"):
        begin(spark, destination("table:elsewhere.rows"))
    own = RemoteLocation((tmp_path / "own").as_uri())
    begin(spark, own)
    (tmp_path / "own" / "report.txt").write_text("theirs")
    write_table(spark, pa.table({"x": [1]}), own.within("_quarantine"))
    assert write_remote_quarantine(spark, None, own) is None
    assert (tmp_path / "own" / "report.txt").read_text() == "theirs"
    assert not list((tmp_path / "own" / "_quarantine").glob("part-*"))
    with pytest.raises(ConfigError, match="is no folder: name one in it"):
        begin(spark, destination("file:///"))
    assert spark.read.parquet(str(tmp_path / "theirs")).count() == spark.table(f"{schema}.theirs").count() == 3
    with pytest.raises(ConfigError, match=r"Spark cannot get to nowhere://bucket/rows: .*nowhere"):
        begin(spark, RemoteLocation("nowhere://bucket/rows"))
    with pytest.raises(
        ConfigError, match=r"Spark cannot get to file:///nowhere/rows: .*not exist: file:/nowhere/rows\.$"
    ):
        score_on_spark(model, "file:///nowhere/rows", tmp_path / "new")
    with pytest.raises(DataError, match="There is no no-such-log"):
        score_on_spark(model, "no-such-log", tmp_path / "new")
    with pytest.raises(ConfigError, match=r"Spark cannot get to nowhere://bucket/rows: .*nowhere"):
        score_on_spark(model, "nowhere:/bucket/rows", tmp_path / "new")


def test_one_machine_writes_to_its_own_folders(project: Path, model: Path) -> None:
    with pytest.raises(ConfigError, match="Only Spark writes to s3a://bucket/rows: add --engine spark"):
        land(load_experiment(project / "churn.toml"), destination("s3a://bucket/rows"))
    with pytest.raises(ConfigError, match=r"Only Spark writes to table:crm\.scores"):
        score_file(str(model), project / "events.parquet", None, destination("table:crm.scores"))
    with pytest.raises(ConfigError, match="names no table"):
        destination("table:crm scores")
    with pytest.raises(ConfigError, match="Spark writes a folder of Parquet files"):
        destination("s3a://bucket/scores.csv")
    for local in ("C:/scores", "run:1/scores", "scores.csv", "a:b"):
        assert destination(local) == Path(local)

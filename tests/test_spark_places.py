"""Results that Spark writes itself: to a URI, to a table; nothing of others is written over."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from features.errors import ConfigError
from features.landed import open_landed
from features.simulate import simulate
from features.spark_places import Away, begin, destination, require_ours, write_text
from models.packaged import Scorer
from training.experiment import load_experiment
from training.landing import Sample, land
from training.scoring import score_file
from training.spark_scoring import score_on_spark

CHURN = """
name = "away_churn"
allow_small = true
[events]
path = "events.parquet"
[features]
groups = ["volume", "recency"]
[task]
kind = "churn"
activity = ["purchase"]
active_days = 60
horizon_days = 28
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("away")
    simulate(n_customers=200, days=200, seed=6).save(folder)
    events = pd.read_parquet(folder / "events.parquet")
    events.loc[events.index[::200], "timestamp"] = pd.NaT  # some rows are set aside
    events.to_parquet(folder / "events.parquet", index=False)
    (folder / "churn.toml").write_text(CHURN)
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
    begin(spark, Away(out.as_uri()))  # an earlier run left something behind
    write_text(spark, "no Parquet", Away(out.as_uri()).within("part-old.parquet"))
    there = land(experiment, Away(out.as_uri()), engine="spark", partitions=2, sample=Sample(0.5))
    assert (there.rows, there.features) == (here.rows, here.features)
    mine, theirs = (in_order(pq.read_table(tmp_path / one).to_pandas()) for one in ("here", "there"))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True, check_dtype=False)
    states = [json.loads((tmp_path / one / "_features.json").read_text()) for one in ("here", "there")]
    assert [one["features"] for one in states] == [states[0]["features"]] * 2
    assert [one["journeys"] for one in states] == [states[0]["journeys"]] * 2
    assert open_landed(out).journeys.fingerprint() == open_landed(tmp_path / "here").journeys.fingerprint()
    aside = pd.read_csv(tmp_path / "here_quarantine.csv")
    assert pq.read_table(out / "_quarantine").to_pandas()["row"].tolist() == aside["row"].tolist()


def test_scores_go_to_a_table(spark: Any, project: Path, scoring_folder: Path, schema: str, tmp_path: Path) -> None:
    events = project / "events.parquet"
    model = Scorer.load(scoring_folder)
    model.source["path"] = "events.parquet"
    folder = model.save(tmp_path / "model")
    here = score_file(str(folder), events, None, tmp_path / "here.parquet")
    mine = in_order(pd.read_parquet(tmp_path / "here.parquet"))
    arguments = ["score", str(folder), "--events", events.as_uri(), "--out", f"table:{schema}.scores", "--json"]
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
    score_on_spark(folder, str(tmp_path / "clean.parquet"), destination(f"table:{schema}.scores"), partitions=2)
    assert [table.name for table in spark.catalog.listTables(schema)] == ["scores"]
    at = score_on_spark(folder, str(events), Away((tmp_path / "at").as_uri()), as_of="2024-05-01", partitions=2)
    once = score_on_spark(folder, str(events), tmp_path / "once", as_of="2024-05-01", partitions=2)
    assert (at.rows, at.unknown, at.quarantined) == (once.rows, once.unknown, once.quarantined)
    mine, theirs = (in_order(pq.read_table(tmp_path / one).to_pandas()) for one in ("at", "once"))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)


def test_nothing_of_others_is_written_over(
    spark: Any, project: Path, scoring_folder: Path, schema: str, tmp_path: Path
) -> None:
    rows = spark.range(3)
    rows.write.parquet(str(tmp_path / "theirs"))
    rows.write.saveAsTable(f"{schema}.theirs")
    rows.write.saveAsTable(f"{schema}.mine_quarantine")
    with pytest.raises(ConfigError, match="holds other files: name a new folder"):
        begin(spark, Away((tmp_path / "theirs").as_uri()))
    with pytest.raises(ConfigError, match="holds other files"):  # Spark's mark of success is not ours
        score_on_spark(scoring_folder, str(project / "events.parquet"), tmp_path / "theirs")
    for name, other in (("theirs", "theirs"), ("mine", "mine_quarantine")):
        with pytest.raises(ConfigError, match=f"The table {schema}.{other} was not written by journeylab"):
            require_ours(spark, Away(f"table:{schema}.{name}"))
    assert spark.read.parquet(str(tmp_path / "theirs")).count() == spark.table(f"{schema}.theirs").count() == 3
    with pytest.raises(ConfigError, match=r"Spark cannot get to nowhere://bucket/rows: .*nowhere"):
        require_ours(spark, Away("nowhere://bucket/rows"))
    with pytest.raises(ConfigError, match=r"Spark cannot get to nowhere:/bucket/rows: .*nowhere"):
        score_on_spark(scoring_folder, "nowhere:/bucket/rows", tmp_path / "new")


def test_one_machine_writes_to_its_own_folders(project: Path, scoring_folder: Path) -> None:
    with pytest.raises(ConfigError, match="Only Spark writes to s3a://bucket/rows: add --engine spark"):
        land(load_experiment(project / "churn.toml"), destination("s3a://bucket/rows"))
    with pytest.raises(ConfigError, match=r"Only Spark writes to table:crm\.scores"):
        score_file(str(scoring_folder), project / "events.parquet", None, destination("table:crm.scores"))
    with pytest.raises(ConfigError, match="names no table"):
        destination("table:crm scores")

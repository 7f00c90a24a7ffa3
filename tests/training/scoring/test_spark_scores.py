"""Scores and landed features on Spark are those of one machine."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest

from experiment_files import PROFILE, write_experiment
from features.errors import ConfigError, DataError
from features.events.source import EventSource
from features.journeys.event_log import total
from features.journeys.landed import open_landed
from features.journeys.loading import load_journeys
from features.simulation.simulator import simulate
from features.spark.reading import read_log
from features.tabular.features import TabularFeatures
from features.tabular.fitting import feature_schema, features_at
from features.tabular.settings import TabularSettings
from training.config.engines import Engine
from training.config.experiment import load_experiment
from training.data.landing import Sample, land
from training.scoring.scoring import score_file
from training.scoring.spark_scoring import score_on_spark, unknown_of

ENGINE = Engine("spark", "local[2]", partitions=3)


@pytest.fixture(scope="module")
def events(simulated_events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("scores") / "events.parquet"
    simulated_events.to_parquet(path, index=False)
    return path


def test_scores_of_everyone(spark: Any, model: Path, events: Path, tmp_path: Path) -> None:
    here = score_file(str(model), events, None, tmp_path / "here.parquet")
    there = score_on_spark(model, str(events), tmp_path / "there", engine=ENGINE)
    assert (there.rows, there.without_answer, there.events) == (here.rows, here.without_answer, here.events)
    assert there.unknown == here.unknown
    mine = pd.read_parquet(tmp_path / "here.parquet").sort_values("customer_id", ignore_index=True)
    theirs = pq.read_table(tmp_path / "there").to_pandas().sort_values("customer_id", ignore_index=True)
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True, check_dtype=False)


def test_scores_of_rows_asked_for_in_their_order(
    spark: Any, model: Path, events: Path, simulated_events: pd.DataFrame, tmp_path: Path
) -> None:
    who = simulated_events["customer_id"].drop_duplicates().sample(40, random_state=0).tolist()
    asked = pd.DataFrame({"customer_id": [*who, "nobody", who[0]], "cutoff": ["2024-03-01T00:00:00Z"] * 41 + ["soon"]})
    asked.to_csv(tmp_path / "asked.csv", index=False)
    how = {"snapshots": tmp_path / "asked.csv"}
    score_file(str(model), events, how["snapshots"], tmp_path / "here.csv")
    score_on_spark(model, str(events), tmp_path / "there.csv", engine=ENGINE, **how)
    mine, theirs = pd.read_csv(tmp_path / "here.csv"), pd.read_csv(tmp_path / "there.csv")
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    assert not (tmp_path / "there.csv.parts").exists()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("landing")
    simulate(n_customers=300, days=260, seed=5).save(folder)
    checked = "[task.cutoffs]\nn_train = 4\n[features]\ncheck_rows = 100"
    write_experiment(folder, checked, name="landed_churn", file="churn.toml", events=PROFILE)
    write_experiment(folder, name="landed_conversion", file="conversion.toml", task="conversion")
    write_experiment(
        folder, '[task.columns]\ncustomer_id = "who"', name="landed_labels", file="labels.toml", task="labels"
    )
    rng = np.random.default_rng(4)
    who = [f"c{n:06d}" for n in rng.integers(0, 310, 500)]  # ten of them are not in the log
    when = pd.Timestamp("2024-02-01") + pd.to_timedelta(rng.integers(0, 230, 500), unit="D")  # some are too late
    rows = pd.DataFrame({"who": who, "cutoff": when, "label": rng.integers(0, 2, 500)})
    rows.loc[7, "label"] = 3
    rows.to_csv(folder / "labels.csv", index=False)
    return folder


def landed(folder: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    rows = pq.read_table(folder).to_pandas()
    keys = [name for name in ("customer_id", "cutoff", "age_days") if name in rows]
    return rows.sort_values(keys, ignore_index=True), json.loads((folder / "_features.json").read_text())


@pytest.mark.parametrize("name", ["churn", "conversion", "labels"])
def test_landed_rows_are_equal(spark: Any, project: Path, tmp_path: Path, name: str) -> None:
    experiment = load_experiment(project / f"{name}.toml")
    here = land(experiment, tmp_path / "here")
    there = land(experiment, tmp_path / "there", engine=ENGINE)
    assert here.rows == there.rows > 100
    mine, theirs = landed(tmp_path / "here"), landed(tmp_path / "there")
    assert mine[1]["features"] == theirs[1]["features"]
    pd.testing.assert_frame_equal(mine[0], theirs[0], check_exact=True)
    build = experiment.labels(load_journeys(experiment.events)).table
    wanted = build.sort_values(["customer_id", "cutoff"], ignore_index=True)
    found = mine[0].sort_values(["customer_id", "cutoff"], ignore_index=True)
    assert found["label"].tolist() == wanted["label"].tolist()
    assert found["split"].tolist() == wanted["split"].tolist()
    told = [[note for note in one.notes if note.startswith("label rows rejected")] for one in (here, there)]
    assert told[0] == told[1]
    assert len(told[0]) == (5 if name == "labels" else 0), told
    assert mine[1]["journeys"] == theirs[1]["journeys"]
    both = [open_landed(tmp_path / one).journeys.fingerprint() for one in ("here", "there")]
    assert both == [load_journeys(experiment.events).fingerprint()] * 2
    fitted = TabularFeatures.from_dict(mine[1]["features"])
    assert set(fitted.get_feature_names_out()) <= set(found.columns)


def test_weights_of_a_sample_keep_the_base_rate(project: Path, tmp_path: Path) -> None:
    experiment = load_experiment(project / "churn.toml")
    land(experiment, tmp_path / "all")
    whole, _ = landed(tmp_path / "all")
    rates = []
    for keep in (False, True):
        land(experiment, tmp_path / f"some{keep}", sample=Sample(0.5, keep_positives=keep))
        some, _ = landed(tmp_path / f"some{keep}")
        assert 0.3 * len(whole) < len(some) < 0.9 * len(whole)
        rates.append(np.average(some["label"], weights=some["weight"]))
        assert keep == (some["label"].sum() == whole["label"].sum())
        both = some.merge(whole, on=["customer_id", "cutoff"], suffixes=("", "_all"))
        assert len(both) == len(some)
        assert (both["label"] == both["label_all"]).all()
    assert np.abs(np.array(rates) - whole["label"].mean()).max() < 0.06


def test_scores_at_a_moment_take_one_pass(spark: Any, model: Path, events: Path, tmp_path: Path) -> None:
    here = score_file(str(model), events, None, tmp_path / "here.parquet", as_of="2024-03-01")
    there = score_on_spark(model, str(events), tmp_path / "there", engine=ENGINE, as_of="2024-03-01")
    assert (there.rows, there.without_answer, there.events) == (here.rows, here.without_answer, here.events)
    assert there.unknown == here.unknown
    mine = pd.read_parquet(tmp_path / "here.parquet").sort_values("customer_id", ignore_index=True)
    theirs = pq.read_table(tmp_path / "there").to_pandas().sort_values("customer_id", ignore_index=True)
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True, check_dtype=False)


def test_one_pass_says_what_blocks_say(spark: Any, simulated_events: pd.DataFrame, tmp_path: Path) -> None:
    rows = simulated_events.assign(timestamp=simulated_events["timestamp"].astype(str))
    rows.loc[rows.index[::50], "timestamp"] = "soon"
    rows.to_csv(tmp_path / "events.csv", index=False)
    source = EventSource(path=tmp_path / "events.csv")
    log = load_journeys(source)
    fitted = TabularFeatures(TabularSettings(groups=("volume",))).fit(log.at(log.end_us + 1))
    work = partial(features_at, state=json.dumps(fitted.to_dict()), cutoffs=np.array([log.end_us + 1]))
    once, blocks = (read_log(spark, source, partitions=3) for _ in range(2))
    beside = partial(unknown_of, touchpoints=())
    n, counted = once.write_once(work, feature_schema(fitted), tmp_path / "once", beside)
    assert n == blocks.write(work, feature_schema(fitted), tmp_path / "blocks") == log.n_customers
    assert counted == total(blocks, beside)
    assert (once.facts, once.rejected, set(once.notes)) == (blocks.facts, blocks.rejected, set(blocks.notes))
    mine, theirs = (pq.read_table(tmp_path / one).to_pandas() for one in ("once", "blocks"))
    pd.testing.assert_frame_equal(mine, theirs, check_exact=True)
    mine_rows = mine
    bad = [each.quarantine(tmp_path / f"{number}.csv") for number, each in enumerate((once, blocks))]
    mine, theirs = (pd.read_csv(str(path)) for path in bad)
    pd.testing.assert_frame_equal(mine, theirs)
    assert "blocks" not in vars(once)
    rows.assign(timestamp="soon").to_csv(tmp_path / "events.csv", index=False)
    with pytest.raises(DataError, match="This is no event log"):
        read_log(spark, source, partitions=3).write_once(work, feature_schema(fitted), tmp_path / "once")
    pd.testing.assert_frame_equal(pq.read_table(tmp_path / "once").to_pandas(), mine_rows)  # of the run before
    blocks.close()
    once.close()
    assert {one.name.split("-")[0] for one in (tmp_path / "once").iterdir()} == {"part", "_SUCCESS"}


def test_a_landed_folder_is_for_one_machine(spark: Any, project: Path, tmp_path: Path) -> None:
    land(load_experiment(project / "churn.toml"), tmp_path / "rows")
    with pytest.raises(ConfigError, match="landed for one machine: give the log itself"):
        read_log(spark, EventSource(path=tmp_path / "rows"))

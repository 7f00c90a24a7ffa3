"""Features and segments from a log on disk are those of the log in memory; the engine follows from options and size."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq
import pytest

from experiment_files import PROFILE, write_experiment
from features.errors import ConfigError
from features.events.source import EventSource
from features.simulation.simulator import simulate
from training.config.engines import Engine, engine_options
from training.config.experiment import load_experiment
from training.data import open_log
from training.data.landing import land
from training.segmentation.large_logs import segment_log


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("engines")
    simulate(n_customers=400, days=260, seed=3).save(path)
    return path


def rows(out: Path) -> pd.DataFrame:
    return pq.read_table(out).to_pandas().sort_values(["customer_id", "cutoff"], ignore_index=True)


@pytest.mark.parametrize("task", ["churn", "conversion"])
def test_features_on_disk_equal_those_in_memory(folder: Path, tmp_path: Path, task: str) -> None:
    experiment = load_experiment(write_experiment(folder, file=f"{task}.toml", task=task, events=PROFILE))
    memory = land(experiment, tmp_path / "memory", engine=Engine("memory"))
    disk = land(experiment, tmp_path / "disk", engine=Engine("disk", partitions=3))
    assert memory.rows == disk.rows > 100
    pd.testing.assert_frame_equal(rows(tmp_path / "memory"), rows(tmp_path / "disk"), check_exact=True)
    fitted = [json.loads((tmp_path / name / "_features.json").read_text()) for name in ("memory", "disk")]
    assert fitted[0]["features"] == fitted[1]["features"]
    assert len(list((tmp_path / "disk").glob("part-*.parquet"))) == 3
    assert not (tmp_path / "disk.parts").exists()


def test_segments_on_disk(folder: Path, store: Path, tmp_path: Path) -> None:
    small = "[segments]\nwhich = ['found', 'engagement']\n"
    small += "[segments.found]\nsegments = 3\nmethods = ['kmeans']\nrounds = 2\n"
    experiment = load_experiment(write_experiment(folder, small, file="segments.toml", events=PROFILE))
    result = segment_log(experiment, engine=Engine("disk", partitions=3), share=0.6, runs=tmp_path)
    assert any("a sample" in note for note in result.notes)
    assert result.page.stat().st_size > 10_000


def test_the_size_of_the_log_chooses_the_engine(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = EventSource(path=folder / "events.parquet")
    assert not open_log.too_large(source)
    monkeypatch.setattr(open_log, "BYTES_AN_EVENT", 1 << 40)
    assert open_log.too_large(source)


def test_an_adapter_that_needs_all_rows_is_refused_on_disk(tmp_path: Path) -> None:
    (tmp_path / "retail.csv").write_text(
        "InvoiceNo,StockCode,Description,Quantity,InvoiceDate,UnitPrice,CustomerID,Country\n"
    )
    source = EventSource(path=tmp_path / "retail.csv", adapter="online_retail")
    with (
        pytest.raises(ConfigError, match="cannot be read in batches"),
        open_log.open_event_log(source, Engine("disk"), tmp_path / "work", None),
    ):
        pass


def test_the_work_folder_is_locked_and_nobody_elses(folder: Path, tmp_path: Path) -> None:
    source, engine = EventSource(path=folder / "events.parquet"), Engine("disk", partitions=2)
    with open_log.open_event_log(source, engine, tmp_path / "work", None) as log:
        assert log.facts.customers == 400
        with (
            pytest.raises(ConfigError, match="Another run is writing to"),
            open_log.open_event_log(source, engine, tmp_path / "work", None),
        ):
            pass
    assert not (tmp_path / "work").exists()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with (
        pytest.raises(ConfigError, match="holds other files"),
        open_log.open_event_log(source, engine, tmp_path / "other", None),
    ):
        pass
    assert (tmp_path / "other" / "notes.txt").read_text() == "mine"


def test_an_interrupted_command_is_resumed_and_refused_input_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    source, engine = EventSource(path=folder / "events.parquet"), Engine("disk", partitions=2)
    with pytest.raises(KeyboardInterrupt), open_log.open_event_log(source, engine, tmp_path / "work", None):
        raise KeyboardInterrupt
    written = (tmp_path / "work" / "facts.json").stat().st_mtime_ns
    with open_log.open_event_log(source, engine, tmp_path / "work", None):
        assert (tmp_path / "work" / "facts.json").stat().st_mtime_ns == written
    with pytest.raises(ConfigError), open_log.open_event_log(source, engine, tmp_path / "work", None):
        raise ConfigError("no such goal")
    assert not (tmp_path / "work").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("flink", None, []), "There is no engine 'flink'"),
        (("disk", "local[2]", []), "--master and --conf are for --engine spark"),
        ((None, None, ["spark.ui=1"]), "--conf is for --engine spark"),
        (("memory", None, [], 3), "--partitions is for --engine disk and --engine spark"),
        (("spark", None, ["memory"]), "write a setting of Spark"),
    ],
)
def test_options_that_do_not_fit_are_refused(options: tuple, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine_options(*options)


def test_partitions_alone_mean_disk() -> None:
    assert engine_options(None, None, [], 4) == Engine("disk", partitions=4)

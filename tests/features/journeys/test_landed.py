"""Landed journeys: what one machine reads again is what was landed, and models learn from it as from the log."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from experiment_files import write_experiment
from experiments.cli import app
from features.errors import ConfigError, DataError
from features.events.source import EventSource
from features.journeys import landed as module
from features.journeys.journeys import Journeys
from features.journeys.landed import JOURNEYS, PACKED, STATE, open_landed
from features.journeys.loading import load_journeys, load_log, read_events
from features.simulation.simulator import simulate
from models.catalogue import make
from training.config.experiment import Experiment, load_experiment
from training.data.landed_rows import LandedRows, lightgbm_data
from training.data.landing import Sample, land

COLUMNS = 'columns = { touchpoint = "touchpoint" }'
SHORT: dict[str, Any] = {
    "sequences": {"max_steps": 10, "min_count": 5}, "hidden": 8, "objective": "next", "pretraining_epochs": 1,
    "members": 1, "epochs": 1, "head": 8,
}  # fmt: skip


@pytest.fixture(scope="module")
def experiment(tmp_path_factory: pytest.TempPathFactory) -> Experiment:
    folder = tmp_path_factory.mktemp("log")
    simulate(n_customers=300, days=260, seed=5).save(folder)
    more = '[search]\ntrials = 1\n[models]\nwhich = ["gbdt"]'
    return load_experiment(write_experiment(folder, more, name="landed_churn", file="churn.toml", events=COLUMNS))


@pytest.fixture(scope="module")
def whole(experiment: Experiment) -> Journeys:
    return load_journeys(experiment.events)


@pytest.fixture(scope="module")
def landed(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("landed") / "all"
    land(experiment, folder)
    return folder


@pytest.fixture(scope="module")
def half(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("landed") / "half"
    land(experiment, folder, sample=Sample(0.5, keep_positives=True))
    return folder


def fitted(experiment: Experiment, journeys: Journeys) -> Any:
    table = experiment.labels(journeys).table
    rows = table[table["split"] == "train"]
    snapshots = journeys.at_ids(rows)
    model = make("gru", SHORT).fit(snapshots, rows["label"].to_numpy())
    return model.predict(snapshots)


# --- the journeys ---


def test_the_log_comes_back(experiment: Experiment, whole: Journeys, landed: Path) -> None:
    found = load_log(experiment.events.with_path(landed))
    assert found.journeys.fingerprint() == whole.fingerprint()
    assert (found.journeys.start_us, found.journeys.end_us) == (whole.start_us, whole.end_us)
    assert (found.notes, found.counts, found.quarantine.num_rows) == ((), {}, 0)
    assert isinstance(found.journeys.t.base, np.memmap)  # not in memory


def test_other_readers_see_a_row_a_customer(whole: Journeys, landed: Path) -> None:
    rows = pq.read_table(landed / JOURNEYS).to_pandas()
    assert rows["customer_id"].tolist() == whole.customer_ids.to_pylist()
    assert [len(one) for one in rows["touchpoint"]] == np.diff(whole.offsets).tolist()
    first = slice(*whole.offsets[:2])
    category = whole.categories["channel"]
    assert list(rows["channel"][0]) == [category.names[code] if code >= 0 else None for code in category.codes[first]]
    assert np.array_equal(rows["value"][0], whole.numbers["value"][first], equal_nan=True)


def test_many_small_batches_make_the_same(
    experiment: Experiment, whole: Journeys, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVENTS_A_BATCH", 1000)
    land(experiment, tmp_path / "small")
    assert pq.ParquetFile(tmp_path / "small" / JOURNEYS / "part-00000.parquet").num_row_groups > 50
    assert open_landed(tmp_path / "small").journeys.fingerprint() == whole.fingerprint()


def test_a_sample_has_the_moments_of_the_log(experiment: Experiment, whole: Journeys, half: Path) -> None:
    found = load_log(experiment.events.with_path(half))
    some = found.journeys
    assert 0.3 * whole.n_customers < some.n_customers < 0.7 * whole.n_customers
    assert (some.start_us, some.end_us) == (whole.start_us, whole.end_us) != (some.t.min(), some.t.max())
    assert f"{some.n_customers} of 300 customers" in found.notes[0]
    all_labels = experiment.labels(whole).table
    wanted = all_labels[all_labels["customer_id"].isin(some.customer_ids.to_pylist())].reset_index(drop=True)
    pd.testing.assert_frame_equal(experiment.labels(some).table, wanted)
    assert Journeys.load(half / PACKED).span == some.span


def test_a_label_table_of_everyone_goes_with_a_sample(experiment: Experiment, tmp_path: Path) -> None:
    assert experiment.file is not None
    labels = experiment.labels(load_journeys(experiment.events)).table
    labels.drop(columns="split").to_csv(tmp_path / "labels.csv", index=False)
    file = write_experiment(tmp_path, name="landed_labels", file="labels.toml", task="labels", events=COLUMNS)
    own = load_experiment(file, [f"events.path={experiment.events.path}"])
    land(own, tmp_path / "few", sample=Sample(0.2))
    few = load_journeys(own.events.with_path(tmp_path / "few"))
    found = own.labels(few)
    wanted = labels[labels["customer_id"].isin(few.customer_ids.to_pylist())]
    assert len(found.table) + left_out(found.notes) == len(wanted) < len(labels) / 2
    assert found.quarantine is not None
    assert not found.quarantine.num_rows
    assert found.notes[0] == f"label rows of customers of the sample: {len(wanted):,} of {len(labels):,}"


def left_out(notes: tuple[str, ...]) -> int:
    return sum(int(note.split()[0].replace(",", "")) for note in notes if "rows left out" in note)


def test_every_row_group_has_the_names_that_occur(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVENTS_A_BATCH", 200)
    land(experiment, tmp_path / "small")
    with pq.ParquetFile(tmp_path / "small" / JOURNEYS / "part-00000.parquet") as file:
        items = [file.read_row_group(k)["item"].combine_chunks().flatten() for k in range(5)]
    for one in items:
        assert sorted(one.dictionary.to_pylist()) == sorted(one.drop_null().unique().dictionary_decode().to_pylist())


def test_no_room_is_said(landed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(landed, tmp_path / "there", ignore=shutil.ignore_patterns(PACKED))

    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.posix_fallocate", full)
    with pytest.raises(DataError, match=r"cannot be laid out in .*No space left on device"):
        open_landed(tmp_path / "there")
    assert not list((tmp_path / "there").glob(f"{PACKED}*"))


def test_where_nothing_can_be_written_it_is_packed_elsewhere(
    whole: Journeys, landed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(landed, tmp_path / "there", ignore=shutil.ignore_patterns(PACKED))
    real = tempfile.mkdtemp

    def refusing(prefix: str, dir: Path | None = None) -> str:
        if dir is not None:
            raise PermissionError("read-only")
        return str(real(prefix=prefix, dir=tmp_path))

    monkeypatch.setattr("tempfile.mkdtemp", refusing)
    assert open_landed(tmp_path / "there").journeys.fingerprint() == whole.fingerprint()
    assert not (tmp_path / "there" / PACKED).exists()


def test_whoever_packs_second_leaves_nothing(
    whole: Journeys, landed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = tmp_path / "there"
    shutil.copytree(landed, there, ignore=shutil.ignore_patterns(PACKED))
    fill = module._fill

    def overtaken(home: Path, files: list[Path], about: dict[str, Any]) -> None:
        fill(home, files, about)
        shutil.copytree(home, there / PACKED)

    monkeypatch.setattr(module, "_fill", overtaken)
    assert open_landed(there).journeys.fingerprint() == whole.fingerprint()
    assert sorted(one.name for one in there.iterdir()) == sorted([STATE, JOURNEYS, PACKED, "part-00000.parquet"])


def test_what_does_not_fit_is_refused_in_a_sentence(experiment: Experiment, landed: Path, tmp_path: Path) -> None:
    other = experiment.events.with_path(landed).model_copy(update={"stages": {"visit": "use"}})
    with pytest.raises(ConfigError, match=r"landed with other settings: \[events\] stages is .*again"):
        load_log(other)
    fewer = EventSource(path=landed, timezone="Europe/London")
    with pytest.raises(ConfigError, match=r"\[events\] columns is \{\} now and was .*touchpoint"):
        load_log(fewer)
    with pytest.raises(DataError, match="load_log opens them"):
        read_events(EventSource(path=landed))
    with pytest.raises(DataError, match="holds no features"):
        LandedRows(tmp_path)
    shutil.copytree(landed, tmp_path / "cut")
    (tmp_path / "cut" / STATE).write_text("{}")
    with pytest.raises(DataError, match="not whole: run journeylab features again"):
        load_log(EventSource(path=tmp_path / "cut"))
    with pytest.raises(DataError, match="no rows of the split 'check'"):
        LandedRows(landed, "check")


def test_a_landing_that_was_cut_off_can_be_done_again(experiment: Experiment, landed: Path, tmp_path: Path) -> None:
    out = tmp_path / "again"
    (out / JOURNEYS).mkdir(parents=True)
    (out / STATE).write_text("{}")
    (out / "part-00007.parquet").write_text("half of a file")
    land(experiment, out)
    pd.testing.assert_frame_equal(pq.read_table(out).to_pandas(), pq.read_table(landed).to_pandas(), check_exact=True)
    with pytest.raises(ConfigError, match="was landed already: give the log itself"):
        land(experiment.model_copy(update={"events": experiment.events.with_path(out)}), tmp_path / "other")


# --- what learns from them ---


def test_sequence_models_learn_the_same_from_disk(experiment: Experiment, whole: Journeys, landed: Path) -> None:
    assert np.array_equal(fitted(experiment, open_landed(landed).journeys), fitted(experiment, whole))


@pytest.mark.parametrize("most_rows", [4096, 7])
def test_lightgbm_streams_what_the_table_gives(half: Path, most_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LandedRows, "batch_size", most_rows)
    rows = pq.read_table(half).to_pandas()
    rows = rows[rows["split"] == "train"]
    names = json.loads((half / STATE).read_text())["features"]["names"]
    params = {"objective": "binary", "num_threads": 1, "verbosity": -1, "min_data_in_leaf": 5, "deterministic": True}
    plain = lgb.Dataset(rows[names].to_numpy(), rows["label"], weight=rows["weight"], params=params)
    streamed = lightgbm_data(half, params=params)
    scores = [np.asarray(lgb.train(params, each, 5).predict(rows[names].to_numpy())) for each in (plain, streamed)]
    assert np.array_equal(scores[0], scores[1])
    assert abs(np.average(scores[0], weights=rows["weight"]) - rows["label"].mean()) > 0.01  # weights count


def test_rows_can_be_asked_for_in_any_way(half: Path) -> None:
    rows = LandedRows(half)
    table = pq.read_table(half).to_pandas()
    wanted = table.loc[table["split"] == "train", rows.names].to_numpy()
    assert len(rows) == len(wanted)
    assert np.array_equal(rows[3], wanted[3], equal_nan=True)
    assert np.array_equal(rows[5:40], wanted[5:40], equal_nan=True)
    assert np.array_equal(rows[[9, 2, 2]], wanted[[9, 2, 2]], equal_nan=True)


def test_the_command_line_trains_and_segments_on_them(
    experiment: Experiment, half: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert experiment.file is not None
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.chdir(tmp_path)
    there = ["--set", f"events.path={os.path.relpath(half, experiment.file.parent)}"]
    for command in ("train", "segment"):
        done = CliRunner().invoke(app, [command, str(experiment.file), *there])
        assert done.exit_code == 0, done.output
        assert "a sample: " in done.output or command == "segment"

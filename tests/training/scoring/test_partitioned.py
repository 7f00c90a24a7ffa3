"""Scoring in partitions: the numbers of the whole at once, whatever the cut, the workers, and the kills between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from features.errors import ConfigError, DataError
from features.journeys.partitions import by_partition, partition_of
from features.journeys.stream import load
from models.scoring.scorer import Scorer
from training.config.engines import Engine
from training.scoring.partitioned import score_in_partitions
from training.scoring.scoring import score_file

ANSWERS = ["customer_id", "cutoff", "probability", "reason"]


@pytest.fixture
def log(simulated_events: pd.DataFrame, tmp_path: Path) -> Path:
    """The simulated rows in a few row groups."""
    path = tmp_path / "events.parquet"
    pq.write_table(pa.Table.from_pandas(simulated_events, preserve_index=False), path, row_group_size=1000)
    return path


@pytest.fixture(scope="module")
def model(scoring_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The model as a training run saves it: it knows how its log was read."""
    return with_source(scoring_folder, tmp_path_factory.mktemp("model"))


def with_source(scoring_folder: Path, folder: Path, **changes: Any) -> Path:
    """The model with a whole source."""
    scorer = Scorer.load(scoring_folder)
    source = scorer.source | {"path": "events.parquet", "profile": list(scorer.schema.profile)} | changes
    return Scorer(scorer.model, scorer.task, scorer.schema, source, scorer.touchpoints).save(folder)


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several runs from few rows."""
    monkeypatch.setattr("features.events.files.ROWS_A_BATCH", 1000)


@pytest.fixture
def whole(model: Path, log: Path, tmp_path: Path) -> pd.DataFrame:
    """The scores of all at once."""
    score_file(str(model), log, None, tmp_path / "whole.parquet")
    return pd.read_parquet(tmp_path / "whole.parquet").set_index("customer_id")


def same(scores: pd.DataFrame, whole: pd.DataFrame) -> None:
    """Every customer once, with the same answer to the last bit."""
    assert scores["customer_id"].is_unique
    assert set(scores["customer_id"]) == set(whole.index)
    pd.testing.assert_frame_equal(
        scores.set_index("customer_id").loc[whole.index], whole, check_dtype=False, check_exact=True
    )


@pytest.mark.parametrize(("partitions", "workers"), [(1, 1), (5, 2), (16, 3)])
def test_partitions_give_the_numbers_of_the_whole(
    model: Path, log: Path, whole: pd.DataFrame, tmp_path: Path, partitions: int, workers: int
) -> None:
    out = tmp_path / "scores"
    outcome = score_in_partitions(model, log, out, partitions=partitions, workers=workers)
    same(pd.read_parquet(out), whole)
    assert (outcome.rows, outcome.partitions) == (len(whole), partitions)
    names = ["_SUCCESS", *(f"part-{number:05d}.parquet" for number in range(partitions))]
    assert sorted(path.name for path in out.iterdir()) == sorted(names)
    told = json.loads((out / "_SUCCESS").read_text())
    assert sum(told["parts"].values()) == told["rows"] == len(whole)
    assert told["events"] == outcome.events == pq.read_metadata(log).num_rows


def test_one_cutoff_for_all_and_an_own_one(
    model: Path, log: Path, simulated_events: pd.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    score_in_partitions(model, log, out, partitions=4)
    last = simulated_events["timestamp"].max().tz_localize(None)
    assert set(pd.read_parquet(out)["cutoff"]) == {last + pd.Timedelta(1, "us")}
    early = "2024-03-01T00:00:00Z"
    score_in_partitions(model, log, out, partitions=4, as_of=early)
    scores = pd.read_parquet(out)
    expected = Scorer.load(model).score_events(simulated_events, as_of=early).frame
    same(scores, expected.set_index("customer_id"))
    assert 0 < scores["reason"].notna().sum() < len(scores)
    with pytest.raises(DataError, match="ISO 8601"):
        score_in_partitions(model, log, out, partitions=4, as_of="soon")


def test_rows_asked_for(model: Path, log: Path, simulated_events: pd.DataFrame, tmp_path: Path) -> None:
    ids = simulated_events["customer_id"].unique()[:40]
    asked = pd.DataFrame({"customer_id": [*ids[::-1], "nobody", None, ids[0]], "cutoff": "2024-05-01"})
    asked.loc[3, "cutoff"] = "later"
    asked.to_csv(tmp_path / "asked.csv", index=False)
    at_once, parts = tmp_path / "at_once.csv", tmp_path / "parts.csv"
    score_file(str(model), log, tmp_path / "asked.csv", at_once)
    score_file(str(model), log, tmp_path / "asked.csv", parts, engine=Engine("disk", partitions=12))
    pd.testing.assert_frame_equal(pd.read_csv(at_once), pd.read_csv(parts), check_exact=True)
    score_file(str(model), log, tmp_path / "asked.csv", tmp_path / "folder", engine=Engine("disk", partitions=3))
    folder = pd.read_parquet(tmp_path / "folder")
    assert sorted(folder["row"]) == list(range(1, len(asked) + 1))
    assert folder.set_index("row")["reason"][42] == "the customer_id is missing"
    assert not list(tmp_path.glob("*.parts"))
    with pytest.raises(ConfigError, match="their own cutoffs"):
        score_file(str(model), log, tmp_path / "asked.csv", parts, as_of="2024-05-01")


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_one_file_from_the_parts(model: Path, log: Path, whole: pd.DataFrame, tmp_path: Path, ending: str) -> None:
    out = tmp_path / f"scores.{ending}"
    score_file(str(model), log, None, out, engine=Engine("disk", partitions=7))
    if ending == "parquet":
        same(pd.read_parquet(out), whole)
    else:
        score_file(str(model), log, None, tmp_path / "whole.csv")
        lines = [(tmp_path / name).read_text().splitlines() for name in ("whole.csv", "scores.csv")]
        assert lines[0][0] == lines[1][0]
        assert sorted(lines[0]) == sorted(lines[1])
    assert not list(tmp_path.glob("*.parts"))


def dirty(simulated_events: pd.DataFrame, folder: Path) -> Path:
    """Two CSV files with bad times, unknown touchpoints, repeats over both, and a line that is no row."""
    folder.mkdir()
    events = simulated_events.drop(columns="stage", errors="ignore").head(3000).copy()
    events["timestamp"] = events["timestamp"].astype(str)
    events.loc[[5, 900], "timestamp"] = "soon"
    events.loc[[7, 8, 2000], "touchpoint"] = "never_seen"
    events.iloc[:1500].to_csv(folder / "a.csv", index=False)
    pd.concat([events.iloc[1400:], events.iloc[:3]]).to_csv(folder / "b.csv", index=False)
    with (folder / "b.csv").open("a") as opened:
        opened.write("one,two\n")
    return folder


def test_rows_set_aside_are_those_of_the_whole(
    scoring_folder: Path, simulated_events: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("features.events.files.CSV_BLOCK_BYTES", 1 << 15)
    dropping = with_source(scoring_folder, tmp_path / "model", duplicates="quarantine")
    events = dirty(simulated_events, tmp_path / "log")
    at_once = score_file(str(dropping), events, None, tmp_path / "at_once.parquet")
    parts = score_file(str(dropping), events, None, tmp_path / "parts", engine=Engine("disk", partitions=6), workers=2)
    assert parts.quarantined == at_once.quarantined
    assert sum(parts.quarantined.values()) >= 105
    assert (parts.unknown, parts.events, parts.rows) == (at_once.unknown, at_once.events, at_once.rows)
    assert parts.unknown == {"never_seen": 3}
    assert parts.notes == at_once.notes
    same(pd.read_parquet(tmp_path / "parts"), pd.read_parquet(tmp_path / "at_once.parquet").set_index("customer_id"))
    tables = [pd.read_csv(tmp_path / f"{name}_quarantine.csv", dtype=str) for name in ("at_once", "parts")]
    order = [table.sort_values(["file", "row"], ignore_index=True)[sorted(table)] for table in tables]
    pd.testing.assert_frame_equal(order[0], order[1])


class Killed(Exception):
    """Stands in for a signal that nothing survives."""


@pytest.mark.parametrize("runs", [0, 1, 3])
def test_what_was_split_is_not_split_again(
    model: Path, log: Path, whole: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs: int
) -> None:
    from features.journeys import disk_log

    made: list[Path] = []
    real = disk_log.write_run

    def counted(rows: pa.Table, borders: list[int], about: dict[str, Any], path: Path) -> None:
        if len(made) == runs and not (tmp_path / "killed").exists():
            (tmp_path / "killed").touch()
            path.write_bytes(b"half")
            raise Killed
        made.append(path)
        real(rows, borders, about, path)

    monkeypatch.setattr(disk_log, "write_run", counted)
    with pytest.raises(Killed):
        score_in_partitions(model, log, tmp_path / "scores", partitions=5, workers=1)
    score_in_partitions(model, log, tmp_path / "scores", partitions=5, workers=1)
    assert len(made) == len(set(made)) > 3
    same(pd.read_parquet(tmp_path / "scores"), whole)


def test_what_was_scored_is_not_scored_again(
    model: Path, log: Path, whole: pd.DataFrame, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from training.scoring import partition_scores

    made: list[int] = []
    real = partition_scores._write

    def counted(table: pa.Table, about: dict[str, Any], path: Path) -> None:
        if len(made) in (2, 5) and not (tmp_path / f"killed{len(made)}").exists():
            (tmp_path / f"killed{len(made)}").touch()
            path.write_bytes(b"half")
            raise Killed
        made.append(about["part"])
        real(table, about, path)

    monkeypatch.setattr(partition_scores, "_write", counted)
    out = tmp_path / "scores"
    for _ in range(2):
        with pytest.raises(Killed):
            score_in_partitions(model, log, out, partitions=8, workers=1)
        assert not (out / "_SUCCESS").exists()
    score_in_partitions(model, log, out, partitions=8, workers=1)
    assert sorted(made) == list(range(8))
    same(pd.read_parquet(out), whole)
    score_in_partitions(model, log, out, partitions=8, workers=1)
    assert len(made) == 8  # complete: nothing to do


def test_another_log_or_model_begins_anew(
    model: Path, log: Path, simulated_events: pd.DataFrame, tmp_path: Path
) -> None:
    out = tmp_path / "scores"
    score_in_partitions(model, log, out, partitions=9)
    half = simulated_events.iloc[: len(simulated_events) // 2]
    pq.write_table(pa.Table.from_pandas(half, preserve_index=False), log)
    outcome = score_in_partitions(model, log, out, partitions=4)
    assert len(list(out.glob("part-*"))) == 4
    expected = Scorer.load(model).score_events(half).frame.set_index("customer_id")
    same(pd.read_parquet(out), expected)
    assert outcome.events == len(half)


def test_foreign_files_and_two_runs_at_once_are_refused(model: Path, log: Path, tmp_path: Path) -> None:
    import fcntl

    out = tmp_path / "mine"
    out.mkdir()
    (out / "thesis.txt").write_text("years")
    with pytest.raises(ConfigError, match=r"thesis\.txt"):
        score_in_partitions(model, log, out)
    assert (out / "thesis.txt").read_text() == "years"
    (out / "thesis.txt").rename(out / "part-0.parquet")
    (out / "_SUCCESS").touch()  # as Spark leaves it
    with pytest.raises(ConfigError, match="other files"):
        score_in_partitions(model, log, out)
    held = os.open(tmp_path / "mine", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_EX)
    with pytest.raises(ConfigError, match="Another run"):
        score_in_partitions(model, log, out)
    os.close(held)
    with pytest.raises(ConfigError, match="partitions"):
        score_in_partitions(model, log, tmp_path / "x", partitions=100_000)


def test_no_log_is_said(model: Path, tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("customer_id,timestamp,touchpoint,country,plan\na,soon,visit,,\nb,later,visit,,\n")
    with pytest.raises(DataError, match=r"2 of 2 rows.*First timestamp: row 1: 'soon', row 2: 'later'") as partitioned:
        score_in_partitions(model, path, tmp_path / "scores")
    with pytest.raises(DataError) as whole:
        score_file(str(model), path, None, tmp_path / "scores.csv")
    assert str(partitioned.value) == str(whole.value)
    path.write_text("customer_id,timestamp,touchpoint,country,plan\n")
    with pytest.raises(DataError, match="No event rows"):
        score_in_partitions(model, path, tmp_path / "scores")


def test_a_customer_is_always_in_the_same_partition(simulated_events: pd.DataFrame, log: Path) -> None:
    ids = pa.array(simulated_events["customer_id"])
    plain = partition_of(ids.cast(pa.string()), 10)
    np.testing.assert_array_equal(partition_of(ids.cast(pa.string()).dictionary_encode(), 10), plain)
    assert len(np.unique(plain)) == 10
    table = pa.table({"customer_id": ids.cast(pa.string()), "source_row": np.arange(len(ids))})
    rows, borders = by_partition(table, 10)
    for part in range(10):
        mine = rows.slice(borders[part], borders[part + 1] - borders[part])["source_row"].to_numpy()
        np.testing.assert_array_equal(mine, np.flatnonzero(plain == part))
    assert load(log).journeys.n_events == borders[-1]


SCORE = """
import sys
from pathlib import Path
import features.events.files
features.events.files.ROWS_A_BATCH = 1000
from training.scoring.partitioned import score_in_partitions
score_in_partitions(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), partitions=80)
"""


@pytest.mark.slow
def test_kill_9_twice(model: Path, log: Path, whole: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    command = [sys.executable, "-c", SCORE, str(model), str(log), str(out)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    for done in (10, 40):
        process = subprocess.Popen(command, env=environment)
        while len(list(out.glob("part-*.parquet"))) < done and process.poll() is None:
            time.sleep(0.01)
        assert process.poll() is None
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    before = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert len(before) >= 40
    subprocess.run(command, env=environment, check=True)
    after = {path.name: path.stat().st_mtime_ns for path in out.glob("part-*.parquet")}
    assert before.items() <= after.items()
    same(pd.read_parquet(out), whole)


def test_the_command(model: Path, log: Path, whole: pd.DataFrame, tmp_path: Path) -> None:
    out = tmp_path / "scores"
    command = ["score", str(model), "--events", str(log), "--out", str(out), "--partitions", "3", "--json"]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout.splitlines()[-1])
    without = int(whole["reason"].notna().sum())
    assert told == {"out": str(out), "rows": len(whole), "without_answer": without, "partitions": 3}
    same(pd.read_parquet(out), whole)

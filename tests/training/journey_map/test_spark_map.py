"""The journey map on Spark is that of one machine: every table, the page, the groups."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from experiments.cli import app
from training.config.engines import Engine
from training.journey_map.mapping import MapChoice, make_map, map_plan


@pytest.fixture(scope="module")
def events(simulated_events: pd.DataFrame, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("map") / "events.parquet"
    simulated_events.to_parquet(path, index=False)
    return path


def tables(folder: Path) -> dict[str, pd.DataFrame]:
    return {file.stem: pd.read_csv(file) for file in sorted(folder.glob("*.csv"))}


def same(mine: dict[str, pd.DataFrame], theirs: dict[str, pd.DataFrame]) -> None:
    assert mine.keys() == theirs.keys()
    for name, table in mine.items():
        pd.testing.assert_frame_equal(theirs[name], table, check_exact=False, rtol=1e-6, atol=1e-9, obj=name)


@pytest.mark.parametrize("engine", [Engine("spark", "local[2]", partitions=3), Engine("disk", partitions=3)])
def test_every_engine_makes_the_same_map(spark: Any, events: Path, tmp_path: Path, engine: Engine) -> None:
    choice = MapChoice(goals=("purchase",), start="2024-01-20", end="2024-05-01")
    local = make_map(map_plan(events), tmp_path / "here.html", choice, tables=tmp_path / "here")
    remote = make_map(map_plan(events), tmp_path / "there.html", choice, engine=engine, tables=tmp_path / "there")
    assert len(tables(tmp_path / "here")) >= 8
    same(tables(tmp_path / "here"), tables(tmp_path / "there"))
    np.testing.assert_equal(remote.summary, local.summary)
    assert remote.notes == local.notes
    assert (tmp_path / "there.html").stat().st_size > 50_000
    assert not (tmp_path / "there.html.parts").exists()


def test_the_command_line(spark: Any, events: Path, tmp_path: Path) -> None:
    page = tmp_path / "map.html"
    arguments = ["map", str(events), "--out", str(page), "--no-log", "--engine", "spark", "--master", "local[2]"]
    done = CliRunner().invoke(app, [*arguments, "--partitions", "2"])
    assert done.exit_code == 0, done.output
    assert page.stat().st_size > 50_000
    wrong = CliRunner().invoke(app, ["map", str(events), "--engine", "flink"])
    assert "There is no engine 'flink'" in str(wrong.exception)
    wrong = CliRunner().invoke(app, ["map", str(events), "--engine", "local", "--master", "local[2]"])
    assert "--master and --conf are for --engine spark" in str(wrong.exception)

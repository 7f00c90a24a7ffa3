"""Two models side by side: what is recorded, what differs, and the paired difference on rows that neither has seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from features.errors import ConfigError
from training.fitting.train import TrainResult
from training.review.compare import Compared, compare, write_comparison

Trained = tuple[Path, TrainResult]


@pytest.fixture
def found(trained: Trained) -> Compared:
    models = trained[1].models
    return compare(models["gbdt"]["uri"], models["rfm"]["uri"], n_boot=200)


def test_two_models_on_the_same_rows(found: Compared) -> None:
    assert set(found.difference["metric"]) >= {"auroc", "brier", "log_loss"}
    assert (found.difference["difference_low"] <= found.difference["difference"]).all()
    assert (found.difference["difference"] <= found.difference["difference_high"]).all()
    assert "closed" in found.rows
    assert {"kind of model"} <= set(found.differs["what"])
    assert set(found.metrics["split"]) == {"validation", "held out"}
    assert found.slices["rows"].sum() > 0


def test_a_model_against_itself_is_the_same(trained: Trained) -> None:
    uri = trained[1].models["gbdt"]["uri"]
    same = compare(uri, uri, n_boot=50)
    assert (same.difference["difference"] == 0).all()
    assert same.differs.empty
    assert same.verdict == "Neither is surely better on the same rows."


def test_the_page_holds_the_verdict_and_no_network(found: Compared, tmp_path: Path) -> None:
    page = write_comparison(found, tmp_path / "page" / "compare.html").read_text()
    assert found.verdict.split(":")[0] in page
    assert "://" not in page


def test_the_command_prints_the_verdict(trained: Trained, tmp_path: Path) -> None:
    models = trained[1].models
    out = tmp_path / "compare.html"
    done = CliRunner().invoke(app, ["compare", models["gbdt"]["uri"], models["recency"]["uri"], "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert out.is_file()
    with pytest.raises(ConfigError, match="no model"):
        compare("nothing@champion", models["gbdt"]["uri"])

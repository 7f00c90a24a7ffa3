"""Two models side by side: what is recorded, what differs, and the paired difference on rows that neither has seen."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from experiments.cli import app
from features.errors import ConfigError
from training.fitting.train import TrainResult
from training.review.compare import compare
from training.tracking.comparison import ModelComparison, write_comparison

Trained = tuple[Path, TrainResult]


@pytest.fixture
def comparison(trained: Trained) -> ModelComparison:
    models = trained[1].models
    return compare(models["gbdt"]["uri"], models["rfm"]["uri"], n_boot=200)


def test_two_models_on_the_same_rows(comparison: ModelComparison) -> None:
    assert set(comparison.difference["metric"]) >= {"auroc", "brier", "log_loss"}
    assert (comparison.difference["difference_low"] <= comparison.difference["difference"]).all()
    assert (comparison.difference["difference"] <= comparison.difference["difference_high"]).all()
    assert "closed" in comparison.rows
    assert {"kind of model"} <= set(comparison.differs["what"])
    assert set(comparison.metrics["split"]) == {"validation", "held out"}
    assert comparison.slices["rows"].sum() > 0


def test_a_model_against_itself_is_the_same(trained: Trained) -> None:
    uri = trained[1].models["gbdt"]["uri"]
    same = compare(uri, uri, n_boot=50)
    assert (same.difference["difference"] == 0).all()
    assert same.differs.empty
    assert same.verdict == "Neither is surely better on the same rows."


def test_the_page_holds_the_verdict_and_no_network(comparison: ModelComparison, tmp_path: Path) -> None:
    page = write_comparison(comparison, tmp_path / "page" / "compare.html").read_text()
    assert comparison.verdict.split(":")[0] in page
    assert "://" not in page


def test_the_command_prints_the_verdict(trained: Trained, tmp_path: Path) -> None:
    models = trained[1].models
    out = tmp_path / "compare.html"
    done = CliRunner().invoke(app, ["compare", models["gbdt"]["uri"], models["recency"]["uri"], "--out", str(out)])
    assert done.exit_code == 0, done.output
    assert out.is_file()
    with pytest.raises(ConfigError, match="no model"):
        compare("nothing@champion", models["gbdt"]["uri"])

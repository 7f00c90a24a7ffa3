"""docs/reviewing.md: every artifact, metric and tag that it sends a reviewer to is there in a small training."""

from __future__ import annotations

import re
from pathlib import Path

import pandas as pd
import pytest
from mlflow.entities import Run

from training.fitting.train import TrainResult
from training.tracking.champions import promote
from training.tracking.saved_views import VIEWS
from training.tracking.tracking import Tracker

Trained = tuple[Path, TrainResult]
TEXT = (Path(__file__).resolve().parents[3] / "docs" / "reviewing.md").read_text(encoding="utf-8")
NAMED = set(re.findall(r"`([^`\n]+)`", re.sub(r"```.*?```", "", TEXT, flags=re.DOTALL)))
# Of models in epochs, and with ablations: test_train_companions; of a candidate beside a champion: test_saved_views.
ELSEWHERE = {"pictures/learning.png", "comparisons.csv", "comparison/with_champion.html"}
IS_FILE = re.compile(r"[\w/]+\.(csv|json|md|png|txt|html)")
IS_METRIC = re.compile(r"(test|validation|fold)_[a-z_]+|fit_seconds|rows_per_second")
IN_WORDS = {
    "this type", "train", "test", "model", "baseline", "ablation", "probe", "rfm", "recency", "base_rate", "said",
    "curve/…", "validation_…", "test_…", "…_low", "…_high", "tags.role", '[report] fairness = ["country"]',
}  # fmt: skip
OF_VERSIONS = {"decision", "reason", "rows", "compared_with", "figures"}


@pytest.fixture
def runs(trained: Trained) -> list[Run]:
    return Tracker("small_churn")._runs("")


def artifacts(run_id: str, path: str = "") -> set[str]:
    found: set[str] = set()
    for file in Tracker("small_churn").client.list_artifacts(run_id, path):
        found |= artifacts(run_id, file.path) if file.is_dir else {file.path}
    return found


def test_documented_artifacts_exist(runs: list[Run]) -> None:
    wanted = {name for name in NAMED if IS_FILE.fullmatch(name)} - ELSEWHERE
    of_role: dict[str, set[str]] = {}
    for run in runs:
        of_role[run.data.tags["role"]] = artifacts(run.info.run_id)
    assert wanted <= of_role["model"] | of_role["search"]
    assert {"pictures/search.png", "trials.csv", "parameter_importance.csv"} <= of_role["search"]
    assert wanted - {"pictures/search.png", "trials.csv", "parameter_importance.csv"} <= of_role["model"]
    assert {"model_card.md", "slices.csv", "settings.json"} <= of_role["baseline"]


def test_documented_metrics_exist(runs: list[Run]) -> None:
    wanted = {name for name in NAMED if IS_METRIC.fullmatch(name)}
    assert len(wanted) >= 10
    final = next(run for run in runs if run.data.tags["role"] == "model")
    trial = next(run for run in runs if run.data.tags["role"] == "trial")
    assert wanted <= set(final.data.metrics) | set(trial.data.metrics)
    assert wanted - {"fold_log_loss"} <= set(final.data.metrics)


def test_documented_filters_and_tags_exist(trained: Trained, runs: list[Run]) -> None:
    tracker = Tracker("small_churn")
    filters = {name for name in NAMED if name.startswith("tags.") and "=" in name}
    assert len(filters) >= 5
    found = {each: len(tracker._runs(each)) for each in filters}
    # Ablations and probes stand beside sequence models; that a model of 25 trees beats the baselines is not sure.
    empty = {"tags.candidate = 'false'", "tags.beats_baselines = 'true'"}
    assert {each for each, count in found.items() if not count} <= empty
    tags = {tag for run in runs for tag in run.data.tags}
    plain = {n for n in NAMED - IN_WORDS if re.fullmatch(r"[a-z_]+", n) and not IS_METRIC.fullmatch(n)}
    assert plain - OF_VERSIONS <= tags
    best = tracker._runs("tags.best_on_validation = 'true'")
    assert [run.info.run_id for run in best] == [trained[1].run_id]


def test_a_registered_version_says_why_and_carries_the_card(trained: Trained) -> None:
    _, result = trained
    promotion = promote(result.models["rfm"]["uri"])
    client = Tracker("small_churn").client
    version = client.get_model_version("small_churn", promotion.version)
    assert set(version.tags) >= OF_VERSIONS
    assert version.description is not None
    assert version.description.startswith(f"{promotion.alias}: {promotion.reason}")
    assert "### Model card: rfm, small_churn" in version.description
    assert "#### Limits" in version.description
    assert len(version.description) < 5_000


def test_version_describes_the_change(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> None:
    from training.tracking import champions
    from training.tracking.promotion import Decision

    _, result = trained
    monkeypatch.setattr(champions, "decide", lambda *_, **__: Decision("champion", "said so"))
    promote(result.models["rfm"]["uri"])
    second = promote(result.models["gbdt"]["uri"])
    version = Tracker("small_churn").client.get_model_version("small_churn", second.version)
    assert "What would change: of the tenth of rows with the highest predictions " in str(version.description)


def test_tables_lie_side_by_side(trained: Trained) -> None:
    _, result = trained
    run_ids = [result.models[name]["run_id"] for name in ("gbdt", "rfm")]
    tracker = Tracker("small_churn")
    table = tracker.client.load_table(tracker.experiment_id, "tables/slices.json", run_ids, ["run_id"])
    assert set(table["run_id"]) == set(run_ids)
    assert {"tenure", "segment", "value", "channel"} <= set(table["kind"])
    assert isinstance(table, pd.DataFrame)


def test_documented_views_exist() -> None:
    """What each shows, test_browser_mlflow sees in a browser."""
    named = set(re.findall(r"Views → \*([^*]+)\*", TEXT))
    assert len(named) >= 6
    assert named <= {view.name for view in VIEWS}


def test_document_has_no_unchecked_name() -> None:
    """A word in backticks is an artifact, a metric, a filter, a command, a tag, or known to be a word."""
    left = {
        name
        for name in NAMED - IN_WORDS - ELSEWHERE
        if not (
            IS_FILE.fullmatch(name) or IS_METRIC.fullmatch(name) or name.startswith(("tags.", "journeylab "))
            or re.fullmatch(r"[a-z_]+", name)
        )
    }  # fmt: skip
    assert left == set()

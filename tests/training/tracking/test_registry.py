"""Registered models: what a URI means, and which version becomes champion."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.errors import ConfigError
from models.scoring.scorer import Scorer
from training.fitting.train import TrainResult
from training.tracking import champions
from training.tracking.champions import promote
from training.tracking.promotion import Decision
from training.tracking.registry import register, resolve
from training.tracking.tracking import connect

Trained = tuple[Path, TrainResult]


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Sets what the comparison will say."""

    def say(alias: Any) -> None:
        monkeypatch.setattr(
            champions, "decide", lambda *_, **__: Decision(alias, f"said {alias}", {"rfm": {"auroc": 1.0}})
        )

    return say


def test_model_resolves_by_every_name(trained: Trained, verdict: Any) -> None:
    _, result = trained
    verdict("champion")
    promote(result.model_uri)
    run_id = result.run_id
    names = [
        result.model_uri, run_id, f"runs:/{run_id}", "models:/small_churn@champion", "small_churn@champion",
        "models:/small_churn/1",
    ]  # fmt: skip
    found = [resolve(name) for name in names]
    assert {model.uri for model in found} == {result.model_uri}
    assert {model.run_id for model in found} == {run_id}
    assert found[3].aliases == ("champion",)
    assert (found[3].name, found[3].version, found[0].version) == ("small_churn", "1", "")
    assert len(found[0].data_fingerprint) == 64
    assert Scorer.load(found[0].folder).name == "small_churn"


@pytest.mark.parametrize(
    "uri", ["models:/m-00000000000000000000000000000000", "nobody@champion", "models:/nobody/3", "0123456789abcdef"]
)
def test_unknown_uri_is_a_clear_error(trained: Trained, uri: str) -> None:
    with pytest.raises(ConfigError, match="There is no model"):
        resolve(uri)


def test_a_search_is_no_model(trained: Trained) -> None:
    _, result = trained
    search_run = connect().get_run(result.models["gbdt"]["run_id"]).data.tags["search_run_id"]
    with pytest.raises(ConfigError, match="no final model"):
        resolve(search_run)


def test_a_model_is_registered_once(trained: Trained) -> None:
    _, result = trained
    gbdt, rfm = result.models["gbdt"], result.models["rfm"]
    assert register(gbdt["uri"], "small_churn") == "1"
    assert register(gbdt["uri"], "small_churn") == "1"
    assert register(rfm["uri"], "small_churn") == "2"
    assert connect().get_model_version("small_churn", "1").run_id == gbdt["run_id"]


def test_decision_uses_rows_after_the_last_training_label(trained: Trained) -> None:
    _, result = trained
    promotion = promote(result.models["gbdt"]["uri"])
    version = connect().get_model_version("small_churn", promotion.version)
    assert version.aliases == [promotion.alias]
    assert version.description.startswith(f"{promotion.alias}: {promotion.reason}")
    assert version.tags["decision"] == promotion.alias
    assert version.tags["compared_with"] == "baselines"
    n_rows = int(result.models["gbdt"]["metrics"]["test"]["n_rows"])
    assert promotion.rows.startswith(f"{n_rows} rows with cutoffs")
    assert promotion.to_dict()["model_uri"] == f"models:/small_churn@{promotion.alias}"


def test_a_better_model_takes_over_and_a_worse_one_waits(trained: Trained, verdict: Any) -> None:
    _, result = trained
    verdict("champion")
    assert promote(result.models["rfm"]["uri"]).alias == "champion"
    verdict("challenger")
    second = promote(result.models["gbdt"]["uri"])
    assert (second.alias, second.reason, second.version) == ("challenger", "said challenger", "2")
    client = connect()
    assert str(client.get_model_version_by_alias("small_churn", "champion").version) == "1"
    assert client.get_model_version("small_churn", "2").tags["compared_with"] == "1"
    verdict("champion")
    promote(result.models["gbdt"]["uri"])
    assert client.get_registered_model("small_churn").aliases in ({"champion": "2"}, {"champion": 2})


def test_the_champion_stays_without_being_compared_with_itself(trained: Trained, verdict: Any) -> None:
    _, result = trained
    verdict("champion")
    promote(result.model_uri)
    verdict("challenger")
    assert promote(result.model_uri).reason == "It is the champion already."


def test_new_champion_ends_a_comparison(trained: Trained, verdict: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    _, result = trained
    verdict("champion")
    compare = champions._compare

    def slowly(*arguments: Any) -> Any:
        decision = compare(*arguments)
        client = connect()
        client.set_registered_model_alias(
            "small_churn", "champion", register(result.models["rfm"]["uri"], "small_churn")
        )
        return decision

    monkeypatch.setattr(champions, "_compare", slowly)
    promotion = promote(result.models["gbdt"]["uri"])
    assert promotion.alias == "challenger"
    assert "Another champion was made" in promotion.reason


def test_no_champion_without_fresh_rows(trained: Trained) -> None:
    _, result = trained
    client = connect()
    client.set_tag(result.models["gbdt"]["run_id"], "trained_until_us", str(4_102_444_800_000_000))
    promotion = promote(result.models["gbdt"]["uri"])
    assert promotion.alias == "challenger"
    assert "no rows to compare on" in promotion.reason


def test_the_name_may_be_chosen(trained: Trained, verdict: Any) -> None:
    _, result = trained
    verdict("champion")
    assert promote(result.model_uri, name="other_name").model_uri == "models:/other_name@champion"

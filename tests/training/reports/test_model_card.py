"""The model card: its sections, its short form, and the columns that the user names."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import ConfigError
from training.config.experiment import load_experiment
from training.fitting.train import TrainResult
from training.reports.model_card import LONGEST_SHORT, short_form
from training.tracking.registry import fetched

Trained = tuple[Path, TrainResult]
SECTIONS = ["What it is for", "Data and window", "How good", "On which customers", "Fairness", "Limits",
            "Where it comes from"]  # fmt: skip


def card(trained: Trained, name: str = "gbdt") -> str:
    path = fetched(trained[1].models[name]["run_id"], "model_card.md")
    assert path is not None
    return path.read_text(encoding="utf-8")


def test_the_card_says_what_it_is_for_whom_how_good_and_what_to_beware_of(trained: Trained) -> None:
    text = card(trained)
    assert text.startswith("# Model card: gbdt, small_churn\n")
    assert [part.splitlines()[0] for part in text.split("\n## ")[1:]] == SECTIONS
    assert "Customers with `purchase` in the 60 days before the cutoff." in text
    assert "1 where none of it happens in [cutoff, cutoff + 28 days)" in text
    auroc = trained[1].models["gbdt"]["metrics"]["test"]
    assert f"{auroc['auroc']:.3f} ({auroc['auroc_low']:.3f} to {auroc['auroc_high']:.3f})" in text
    assert "than the baseline `rfm` on held-out rows: AUROC " in text
    assert "Groups of country, held-out rows." in text
    assert "| country | GB |" in text
    assert "base rate" in text
    assert "journeylab reproduce" in text


def test_a_baseline_has_a_card_too_and_is_not_held_against_itself(trained: Trained) -> None:
    text = card(trained, "rfm")
    assert "baseline `rfm`" not in text
    assert "baseline `recency`" in text


def test_no_customer_is_on_the_card(trained: Trained) -> None:
    import pandas as pd

    text = card(trained)
    names = pd.read_parquet(trained[0] / "events.parquet")["customer_id"].unique()
    assert not [name for name in names if name in text]


def test_the_short_form_fits_into_a_description(trained: Trained) -> None:
    short = short_form(card(trained))
    assert short.startswith("### Model card: gbdt, small_churn")
    assert "#### How good" in short
    assert "#### Limits" in short
    assert "#### Fairness\n\nGroups of country, held-out rows." in short
    assert "| country |" not in short
    assert short.endswith("`model_card.md` of the run.")
    assert len(short_form("# Model card: long\n\n## Limits\n" + "- a limit\n" * 1_000)) <= LONGEST_SHORT


def test_a_column_that_does_not_exist_is_refused_with_a_suggestion(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="no column 'contry'; did you mean 'country'"):
        load_experiment(trained[0] / "experiment.toml", ['report.fairness=["contry"]'])
    with pytest.raises(ConfigError, match="did you mean 'fairness'"):
        load_experiment(trained[0] / "experiment.toml", ['report.fairnes=["country"]'])

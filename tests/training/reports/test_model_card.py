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


def test_card_sections(trained: Trained) -> None:
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


def test_baseline_card(trained: Trained) -> None:
    text = card(trained, "rfm")
    assert "baseline `rfm`" not in text
    assert "baseline `recency`" in text


def test_card_names_no_customer(trained: Trained) -> None:
    import pandas as pd

    text = card(trained)
    names = pd.read_parquet(trained[0] / "events.parquet")["customer_id"].unique()
    assert not [name for name in names if name in text]


def test_short_form(trained: Trained) -> None:
    short = short_form(card(trained))
    assert short.startswith("### Model card: gbdt, small_churn")
    assert "#### How good" in short
    assert "#### Limits" in short
    assert "#### Fairness\n\nGroups of country, held-out rows." in short
    assert "| country |" not in short
    assert short.endswith("`model_card.md` of the run.")
    assert len(short_form("# Model card: long\n\n## Limits\n" + "- a limit\n" * 1_000)) <= LONGEST_SHORT


def test_unknown_fairness_column(trained: Trained) -> None:
    with pytest.raises(ConfigError, match="no column 'contry'; did you mean 'country'"):
        load_experiment(trained[0] / "experiment.toml", ['report.fairness=["contry"]'])
    with pytest.raises(ConfigError, match="did you mean 'fairness'"):
        load_experiment(trained[0] / "experiment.toml", ['report.fairnes=["country"]'])

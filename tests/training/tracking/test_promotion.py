from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, logit

from features.errors import ConfigError, DataError
from training.tracking.promotion import comparison_rows, decide

DAY = 86_400_000_000
RNG = np.random.default_rng(0)
Z = RNG.normal(-0.5, 1.2, 3000)
Y = (RNG.random(3000) < expit(Z)).astype(int)
GOOD = expit(Z)
CUSTOMERS = RNG.integers(0, 1200, 3000)
NOISE = RNG.normal(size=3000)


def noisy(spread: float) -> np.ndarray:
    return expit(Z + spread * NOISE)


BASELINES = {"recency": noisy(3.0), "rfm": noisy(1.0), "base_rate": np.full(3000, 0.4)}


def test_a_better_challenger_takes_over() -> None:
    decision = decide(Y, GOOD, noisy(0.6), {}, CUSTOMERS)
    assert decision.alias == "champion"
    assert decision.reason.startswith("Not worse than the champion: AUROC +0.0")
    assert f"3,000 rows of {len(set(CUSTOMERS)):,} customers" in decision.reason
    assert decision.figures["champion"]["auroc_difference_low"] > -0.005


def test_the_same_predictions_may_take_over() -> None:
    assert decide(Y, GOOD, GOOD, BASELINES, CUSTOMERS, n_boot=300).alias == "champion"


def test_a_worse_challenger_stays() -> None:
    decision = decide(Y, noisy(0.6), GOOD, {}, CUSTOMERS)
    assert decision.alias == "challenger"
    assert "must stay above −0.005" in decision.reason


def test_well_ranked_but_surely_worse_probabilities_stay() -> None:
    decision = decide(Y, expit(1.8 * Z + 0.5), GOOD, {}, CUSTOMERS)
    assert decision.alias == "challenger"
    assert decision.figures["champion"]["auroc_difference"] == 0
    assert decision.reason.startswith("Its predictions are surely worse")


def test_the_first_champion_beats_every_baseline() -> None:
    decision = decide(Y, GOOD, None, BASELINES, CUSTOMERS, n_boot=500)
    assert decision.alias == "champion"
    assert set(decision.figures) == set(BASELINES)
    failed = decide(Y, GOOD, None, BASELINES | {"ablation": expit(logit(GOOD) + 0.02 * NOISE)}, CUSTOMERS, n_boot=500)
    assert failed.alias == "challenger"
    assert "does not beat ablation" in failed.reason
    assert "no baselines" in decide(Y, GOOD, None, {}, CUSTOMERS).reason


def test_too_few_rows_decide_nothing() -> None:
    decision = decide(Y[:60], GOOD[:60], None, {"base_rate": np.full(60, 0.4)}, CUSTOMERS[:60])
    assert decision.alias == "challenger"
    assert decision.reason.startswith("Too few closed rows to decide")
    assert decide(np.zeros(500), np.full(500, 0.1), None, {}, np.arange(500)).alias == "challenger"
    assert "1 customers" in decide(Y, GOOD, None, BASELINES, np.zeros(3000)).reason


def test_invalid_predictions_are_refused() -> None:
    with pytest.raises(DataError, match="between 0 and 1"):
        decide(Y, GOOD * 2, None, BASELINES, CUSTOMERS, n_boot=500)


def test_only_rows_that_no_model_has_seen() -> None:
    cutoffs = np.array([10, 20, 30, 40, 40, 50]) * DAY
    result = comparison_rows(cutoffs, 10 * DAY, observed_until_us=50 * DAY, trained_until_us=[20 * DAY, 30 * DAY])
    assert result.rows.tolist() == [3, 4, 2]  # 10 and 20 were looked at in training, the window of 50 is open
    assert result.since == 30 * DAY
    assert result.sentence.startswith("3 rows with cutoffs 1970-01-31 00:00 UTC to 1970-02-10 00:00 UTC")


@pytest.mark.parametrize(
    ("most", "wanted"), [(1, [3, 4]), (2, [3, 4]), (3, [3, 4, 2]), (4, [3, 4, 2]), (9, [3, 4, 2, 0, 1])]
)
def test_the_most_recent_cutoffs_whole(most: int, wanted: list[int]) -> None:
    cutoffs = np.array([10, 10, 30, 40, 40]) * DAY
    result = comparison_rows(cutoffs, DAY, observed_until_us=99 * DAY, trained_until_us=[0], most=most)
    assert result.rows.tolist() == wanted


def test_no_comparison_rows_is_an_error() -> None:
    with pytest.raises(DataError, match=r"of 2 rows 1 have a cutoff from 1970-01-21 .*, and 1 have a label window"):
        comparison_rows([10 * DAY, 30 * DAY], 15 * DAY, observed_until_us=40 * DAY, trained_until_us=[20 * DAY])
    with pytest.raises(ConfigError):
        comparison_rows([1], DAY, observed_until_us=DAY, trained_until_us=[])

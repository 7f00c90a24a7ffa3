from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit, ndtr
from sklearn import metrics as reference

from features.errors import DataError
from training.evaluation.bootstrap import draw_weights, replicates
from training.evaluation.breakdown import base_rate_shift, by_cutoff, by_slice
from training.evaluation.curves import calibration_table, lift_table, pr_table, roc_table
from training.evaluation.metrics import METRICS, ProbabilityRows, evaluate, paired_bootstrap, remarks

DAY = 86_400_000_000


def sample(n: int = 2000, k: int = 700, seed: int = 0, slope: float = 1.0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    z = rng.normal(-0.5, 1.0, n)
    y = (rng.random(n) < expit(z)).astype(int)
    return y, expit(slope * z), rng.integers(0, k, n).astype(str)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 10_000), n=st.integers(5, 300), digits=st.sampled_from([1, 2, 8]))
def test_metrics_equal_scikit_learn(seed: int, n: int, digits: int) -> None:
    y, p, customers = sample(n, 20, seed)
    y[:2], p = (0, 1), p.round(digits)
    found = evaluate(y, p, customers, n_boot=0)
    assert found["auroc"] == pytest.approx(reference.roc_auc_score(y, p))
    assert found["average_precision"] == pytest.approx(reference.average_precision_score(y, p))
    assert found["brier"] == pytest.approx(reference.brier_score_loss(y, p))
    assert found["log_loss"] == pytest.approx(reference.log_loss(y, np.clip(p, 1e-15, 1 - 1e-15)))


def test_a_replicate_is_the_metric_of_the_rows_drawn() -> None:
    y, p, customers = sample(300, 60)
    p = p.round(1)
    rows = ProbabilityRows.of(y, p, customers)
    drawn = replicates(rows, n_boot=20, seed=4)
    weights = np.concatenate(list(draw_weights(rows.n_customers, 300, 20, 4)))
    names = list(dict.fromkeys(customers))
    for replicate in range(20):
        times = weights[replicate, [names.index(name) for name in customers]].astype(int)
        repeated = np.repeat(np.arange(300), times)
        wanted = evaluate(y[repeated], p[repeated], repeated, n_boot=0)
        for name in METRICS:
            if name != "calibration_error":  # its bins are those of all rows
                assert drawn[name][replicate] == pytest.approx(wanted[name]), name


def test_portions_of_replicates_do_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    y, p, customers = sample(500)
    whole = evaluate(y, p, customers, n_boot=50)
    monkeypatch.setattr("training.evaluation.bootstrap.CHUNK_CELLS", 1700)
    assert evaluate(y, p, customers, n_boot=50) == pytest.approx(whole)


def test_ties_take_expected_values() -> None:
    y, p = np.array([1, 1, 0, 0, 0, 0, 0, 0, 0, 0]), np.array([0.9, 0.5, 0.5, 0.5, 0.5, 0.1, 0.1, 0.1, 0.1, 0.1])
    found = evaluate(y, p, np.arange(10), n_boot=0)
    assert found["captured_at_10"] == pytest.approx(0.5)  # the one row at .9
    assert found["captured_at_20"] == pytest.approx(0.5 + 0.25 / 2)  # and a quarter of the four rows at .5
    assert found["lift_at_20"] == pytest.approx(found["captured_at_20"] / 0.2)
    for order in (np.arange(10)[::-1], np.random.default_rng(1).permutation(10)):
        assert evaluate(y[order], p[order], order, n_boot=0) == found


def test_constant_predictions() -> None:
    y, _, customers = sample(400)
    found = evaluate(y, np.full(400, y.mean()), customers, n_boot=100)
    assert found["auroc"] == found["auroc_low"] == found["auroc_high"] == 0.5
    assert found["average_precision"] == pytest.approx(y.mean())
    assert found["lift_at_5"] == pytest.approx(1.0)
    assert found["calibration_error"] == pytest.approx(0.0, abs=1e-12)
    assert any("nothing is ranked" in said for said in remarks(y, np.full(400, 0.3), customers))


def test_one_class_has_no_ranking() -> None:
    found = evaluate(np.zeros(50), np.linspace(0, 1, 50), np.arange(50), n_boot=50)
    for name in ("auroc", "average_precision", "lift_at_5", "captured_at_20"):
        assert math.isnan(found[name])
        assert math.isnan(found[f"{name}_low"])
    assert found["brier_low"] < found["brier"] < found["brier_high"]
    assert any("All 50 labels are 0" in said for said in remarks(np.zeros(50), np.linspace(0, 1, 50), np.arange(50)))


def test_one_row() -> None:
    found = evaluate([1], [0.25], ["ann"], n_boot=20)
    assert found["brier"] == 0.5625
    assert math.isnan(found["brier_low"])
    assert any("Only 1 customers" in said for said in remarks([1], [0.25], ["ann"]))


def test_certain_and_wrong_is_finite() -> None:
    assert evaluate([1, 0], [0.0, 1.0], ["a", "b"], n_boot=0)["log_loss"] == pytest.approx(-math.log(1e-15), rel=1e-3)


@pytest.mark.parametrize(
    ("y", "p", "customers", "says"),
    [
        ([], [], [], "no rows"),
        ([0, 1], [0.1], ["a", "b"], "2 labels, 1 predictions and 2 customers"),
        ([0, 2], [0.1, 0.2], ["a", "b"], r"rows \[1\] hold \[2.0\]"),
        ([0, np.nan], [0.1, 0.2], ["a", "b"], "labels must be 0 or 1"),
        ([0, 1], [0.1, np.nan], ["a", "b"], r"between 0 and 1; rows \[1\]"),
        ([0, 1], [0.1, 1.2], ["a", "b"], "between 0 and 1"),
        ([0, 1], [0.1, 0.2], ["a", None], "no customer"),
    ],
)
def test_bad_input_is_named(y: list, p: list, customers: list, says: str) -> None:
    with pytest.raises(DataError, match=says):
        evaluate(y, p, customers)


def test_every_metric_has_an_interval_round_it() -> None:
    y, p, customers = sample()
    found = evaluate(y, p, customers)
    for name in METRICS:
        assert found[f"{name}_low"] <= found[name] <= found[f"{name}_high"], name
    assert found == evaluate(y, p, customers)
    assert found["auroc_low"] != evaluate(y, p, customers, seed=1)["auroc_low"]
    assert (found["n_rows"], found["n_positives"]) == (2000.0, float(y.sum()))


def test_repeated_customers_widen_intervals() -> None:
    y, p, _ = sample(600)
    apart = evaluate(np.tile(y, 4), np.tile(p, 4), np.arange(2400))
    whole = evaluate(np.tile(y, 4), np.tile(p, 4), np.tile(np.arange(600), 4))
    width = {name: found["auroc_high"] - found["auroc_low"] for name, found in (("apart", apart), ("whole", whole))}
    assert width["whole"] == pytest.approx(2 * width["apart"], rel=0.25)


def test_calibration_error_by_hand() -> None:
    p = np.repeat([0.1, 0.5], 50)
    y = np.concatenate([np.repeat([0, 1], [40, 10]), np.repeat([0, 1], [30, 20])])  # observed .2 and .4
    assert evaluate(y, p, np.arange(100), n_boot=0)["calibration_error"] == pytest.approx(0.1)


def test_calibration_noise() -> None:
    right = [evaluate(*sample(1500, 1500, seed), n_boot=0) for seed in range(40)]
    seen = np.mean([found["calibration_error"] for found in right])
    assert seen == pytest.approx(np.mean([found["calibration_error_noise"] for found in right]), rel=0.1)
    assert np.mean([found["calibration_error_debiased"] for found in right]) < seen / 2
    wrong = evaluate(*sample(20_000, 20_000, slope=2.0), n_boot=100)
    assert wrong["calibration_error_low"] > wrong["calibration_error_noise"]


def test_paired_differences_are_sharper_than_two_intervals() -> None:
    y, p, customers = sample()
    worse = expit(np.log(p / (1 - p)) + np.random.default_rng(3).normal(0, 0.3, len(p)))
    found = paired_bootstrap(y, p, worse, customers, n_boot=500)
    one, two = evaluate(y, p, customers), evaluate(y, worse, customers)
    assert found["auroc_difference"] == pytest.approx(one["auroc"] - two["auroc"])
    assert found["auroc_difference_low"] > 0
    assert found["brier_difference_high"] < 0
    assert found["auroc_difference_high"] - found["auroc_difference_low"] < (one["auroc_high"] - one["auroc_low"]) / 2
    nothing = paired_bootstrap(y, p, p, customers, n_boot=50)
    assert all(value == 0 for name, value in nothing.items() if "difference" in name)


@pytest.mark.parametrize("digits", [1, 8])
def test_curves_agree_with_the_metrics(digits: int) -> None:
    y, p, customers = sample()
    p = p.round(digits)
    found = evaluate(y, p, customers, n_boot=0)
    roc = roc_table(y, p, customers)
    assert np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"]) == pytest.approx(
        found["auroc"], abs=2e-3
    )
    wrong, right, _ = reference.roc_curve(y, p, drop_intermediate=False)
    unique = np.flatnonzero(np.append(np.diff(wrong) > 0, True))  # the top of every step
    wanted = np.interp(roc["false_positive_rate"], wrong[unique], right[unique])
    if digits == 1:
        assert roc["true_positive_rate"].to_numpy()[1:] == pytest.approx(wanted[1:])
    assert (roc["true_positive_rate_low"] <= roc["true_positive_rate_high"]).all()
    precision = pr_table(y, p, customers)
    assert precision["precision"].iloc[-1] >= y.mean() - 1e-12
    within = 0.05 if digits == 1 else 0.01  # average precision takes a group of tied rows at its last row
    assert precision["precision"].mean() == pytest.approx(found["average_precision"], abs=within)
    lift = lift_table(y, p, customers)
    for percent in (5, 10, 20):
        assert lift["captured"].iloc[percent - 1] == pytest.approx(found[f"captured_at_{percent}"])
        assert lift["lift"].iloc[percent - 1] == pytest.approx(found[f"lift_at_{percent}"])
    bins = calibration_table(y, p, customers)
    error = (bins["rows"] * (bins["predicted"] - bins["observed"]).abs()).sum() / len(y)
    assert error == pytest.approx(found["calibration_error"])
    assert bins["predicted"].is_monotonic_increasing
    assert bins["observed"].between(bins["observed_low"], bins["observed_high"]).all()


def test_metrics_by_slice() -> None:
    y, p, customers = sample()
    kind = np.where(np.arange(2000) < 500, "one purchase", "more")
    table = by_slice(y, p, customers, kind).set_index("slice")
    alone = evaluate(y[:500], p[:500], customers[:500], n_boot=200)
    assert table.loc["one purchase", "auroc"] == alone["auroc"]
    assert table.loc["one purchase", "auroc_low"] == alone["auroc_low"]
    assert table["n_rows"].tolist() == [1500, 500]
    assert by_slice(y, p, customers, np.where(kind == "more", None, kind))["slice"].tolist() == [
        "missing",
        "one purchase",
    ]


def test_metrics_by_cutoff() -> None:
    y, p, customers = sample()
    few = by_cutoff(y, p, customers, np.repeat([10 * DAY, 24 * DAY], 1000), n_boot=0)
    assert few["start"].astype(str).tolist() == ["1970-01-11", "1970-01-25"]
    assert few["days"].tolist() == [0, 0]
    many = by_cutoff(y, p, customers, np.linspace(5.5 * DAY, 70 * DAY, 2000).astype(np.int64), n_boot=0)
    assert many["days"].iloc[0] == 7
    assert len(many) == 10
    assert many["start"].iloc[0].isoformat() == "1970-01-06T00:00:00"
    assert many["n_rows"].sum() == 2000
    for years in (0.5, 2, 30, 80):
        moments = np.linspace(0, years * 365 * DAY, 2000).astype(np.int64)
        assert len(by_cutoff(y, p, customers, moments, n_boot=0)) <= 14


def test_the_base_rate_moved_or_it_did_not() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.random(3000) < 0.42, rng.random(1500) < 0.31
    moved = base_rate_shift(train, np.arange(3000) % 900, test, np.arange(1500) % 1200)
    assert moved.moved
    assert moved.high < 0
    assert moved.sentence.startswith("The base rate moved: ")
    assert "too high" in moved.sentence
    same = base_rate_shift(train, np.arange(3000), train, np.arange(3000))
    assert not same.moved
    assert (same.difference, same.low, same.high) == (0.0, 0.0, 0.0)  # the same customers on both sides
    with pytest.raises(DataError, match="2 labels and 3 customers"):
        base_rate_shift([1], ["a"], [0], ["b", "c"])


def correlated(rng: np.random.Generator, n_customers: int, slope: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Customers with several rows; both the score and the outcome hang together within one."""
    who = np.repeat(np.arange(n_customers), rng.poisson(1.5, n_customers) + 1)
    z = -0.7 + rng.normal(size=n_customers)[who] + 0.6 * rng.normal(size=len(who))
    luck = 0.8 * rng.normal(size=n_customers)[who] + 0.6 * rng.normal(size=len(who))
    return (ndtr(luck) < expit(z)).astype(int), expit(slope * z), who


@pytest.mark.slow
@pytest.mark.parametrize("slope", [1.0, 1.4])
def test_coverage_of_intervals(slope: float) -> None:
    """200 samples: a nominal 95 % interval should hold the truth 190 ± 6 times; few customers cost a few of them."""
    truth = evaluate(*correlated(np.random.default_rng(99), 300_000, slope), n_boot=0)
    if slope == 1.0:
        truth["calibration_error"] = 0.0
    rng = np.random.default_rng(1)
    held = dict.fromkeys(METRICS, 0)
    for seed in range(200):
        found = evaluate(*correlated(rng, 500, slope), n_boot=300, seed=seed)
        for name in METRICS:
            held[name] += found[f"{name}_low"] <= truth[name] <= found[f"{name}_high"]
    assert min(held.values()) >= 174, held

"""Intervals of shares, means and differences against published and hand-computed values."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import DataError
from features.statistics import benjamini_hochberg, difference
from models.segments.insight import intervals as segment_intervals
from models.segments.insight.intervals import mean_over_customers, share_over_customers, wilson


def test_wilson_gives_newcombes_examples() -> None:
    # Newcombe 1998, Stat. Med. 17:857, table I, method 3
    low, high = wilson([81, 15, 0, 1], [263, 148, 20, 29])
    assert low.round(4).tolist() == [0.2553, 0.0624, 0.0, 0.0061]
    assert high.round(4).tolist() == [0.3662, 0.1605, 0.1611, 0.1718]


def test_the_difference_gives_newcombes_examples() -> None:
    # Newcombe 1998, Stat. Med. 17:873, table II, method 10
    _, low, high, _ = difference([56, 9, 0, 10], [70, 10, 10, 10], [48, 3, 0, 0], [80, 10, 20, 10])
    assert low.round(4).tolist() == [0.0524, 0.1705, -0.1611, 0.6075]
    assert high.round(4).tolist() == [0.3339, 0.8090, 0.2775, 1.0]


def test_nothing_known_is_nan() -> None:
    assert np.isnan(wilson(0, 0)).all()
    assert np.isnan(share_over_customers([], []).value)
    assert np.isnan(mean_over_customers([np.nan], [0]).low)


@settings(deadline=None)
@given(st.integers(1, 40), st.integers(0, 40))
def test_the_interval_holds_the_share(rows: int, positives: int) -> None:
    positives = min(positives, rows)
    low, high = wilson(positives, rows)
    assert 0 <= low <= positives / rows <= high <= 1


def test_rows_of_one_customer_that_agree_count_once() -> None:
    y, who = np.tile([0.0, 1.0], 50), np.arange(100)
    alone = share_over_customers(y, who)
    copied = share_over_customers(np.repeat(y, 7), np.repeat(who, 7))
    assert copied.value == alone.value
    assert copied.rows == 700
    assert copied.customers == 100
    assert copied.high - copied.low == pytest.approx(alone.high - alone.low, rel=0.02)


def test_a_customers_only_share_of_one_has_a_low_side() -> None:
    figure = share_over_customers(np.ones(100), np.repeat(np.arange(5), 20))
    assert (figure.low, figure.high) == pytest.approx(tuple(float(side) for side in wilson(5, 5)))


def test_the_mean_and_its_interval() -> None:
    rng = np.random.default_rng(0)
    values = rng.lognormal(size=400)
    figure = mean_over_customers(values, np.arange(400))
    half = 1.96 * values.std(ddof=1) / 20
    assert figure.value == pytest.approx(values.mean())
    assert figure.low == pytest.approx(values.mean() - half, abs=0.05)
    assert figure.high == pytest.approx(values.mean() + half, abs=0.05)
    assert mean_over_customers(values, np.arange(400)) == figure  # the same seed
    assert np.isnan(mean_over_customers(values, np.zeros(400)).low)  # one customer


def test_many_customers_take_the_normal_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    values = np.random.default_rng(1).normal(10, 2, 5000)
    drawn = mean_over_customers(values, np.arange(5000))
    monkeypatch.setattr(segment_intervals, "MANY_CUSTOMERS", 100)
    normal = mean_over_customers(values, np.arange(5000))
    assert normal.low == pytest.approx(drawn.low, abs=0.01)
    assert normal.high == pytest.approx(drawn.high, abs=0.01)


def test_q_values_of_benjamini_and_hochberg() -> None:
    found = benjamini_hochberg([0.001, 0.5, np.nan, 0.02, 0.021])
    assert found.tolist() == pytest.approx([0.004, 0.5, np.nan, 0.028, 0.028], nan_ok=True)


def test_figures_without_customers_are_refused() -> None:
    with pytest.raises(DataError, match="3 figures and 2 customers"):
        mean_over_customers([1, 2, 3], [0, 1])

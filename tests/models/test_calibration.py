"""The calibration map: increasing, continuous, and right on data that were bent on purpose."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.calibration import BetaCalibration, sigmoid

SLOPES = st.floats(0.01, 20.0)


@given(SLOPES, SLOPES, st.floats(-5, 5), st.lists(st.floats(-15, 15), min_size=2, max_size=30, unique=True))
def test_strictly_increasing(a: float, b: float, c: float, margins: list[float]) -> None:
    ordered = np.sort(margins)
    ordered = ordered[np.concatenate(([True], np.diff(ordered) > 1e-6))]
    assert (np.diff(BetaCalibration(a, b, c).log_odds(ordered)) > 0).all()


def test_no_jump_from_rounding() -> None:
    margins = np.linspace(-8, 8, 10_001)
    fitted = BetaCalibration.fit(margins, (margins > np.random.default_rng(0).normal(size=len(margins))).astype(float))
    moved = fitted.probability(margins + 1e-9) - fitted.probability(margins)
    assert np.abs(moved).max() < 1e-7


def test_finds_the_map_that_bent_the_margins() -> None:
    rng = np.random.default_rng(1)
    true = rng.normal(-0.5, 1.5, 40_000)
    labels = (rng.random(len(true)) < sigmoid(true)).astype(float)
    bent = (true + 0.7) / 0.4  # overconfident and shifted
    calibrated = BetaCalibration.fit(bent, labels).log_odds(bent)
    assert np.abs(calibrated - true).mean() < 0.1


def test_few_rows_stay_near_the_identity() -> None:
    fitted = BetaCalibration.fit(np.array([-1.0, 1.0]), np.array([0.0, 1.0]))
    assert fitted.probability(np.array([0.0]))[0] == pytest.approx(0.5, abs=0.05)
    assert 0.3 < fitted.a < 3


def test_sigmoid_does_not_overflow() -> None:
    assert sigmoid([-1e4, 0.0, 1e4]).tolist() == [0.0, 0.5, 1.0]

"""Drift of segments: the index by hand, its noise, migrations, and when the alarm goes off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import DataError
from models.segments.contract import Segment
from models.segments.insight.drift import DriftSettings, psi_noise, psi_parts, segment_drift

SEGMENTS = (Segment("s01", "A"), Segment("s02", "B"), Segment("s03", "C"))


def test_the_index_by_hand() -> None:
    by_hand = (0.3 - 0.5) * np.log(0.3 / 0.5) + (0.7 - 0.5) * np.log(0.7 / 0.5)
    assert psi_parts([5e6, 5e6], [3e6, 7e6]).sum() == pytest.approx(by_hand, rel=1e-4)
    assert psi_parts([5, 5, 0], [5, 5, 0]).tolist() == [0, 0, 0]
    assert np.isfinite(psi_parts([10, 0], [0, 10])).all()


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 50), st.integers(0, 50)), min_size=1, max_size=8))
def test_the_index_is_never_negative(cells: list[tuple[int, int]]) -> None:
    before, after = (np.array(side) for side in zip(*cells, strict=True))
    if before.sum() and after.sum():
        parts = psi_parts(before, after)
        assert (parts >= 0).all()
        assert parts == pytest.approx(psi_parts(after, before))


def test_chance_exceeds_the_noise_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    shares = [0.4, 0.3, 0.2, 0.1]
    above = 0
    for _ in range(1000):
        a, b = rng.multinomial(400, shares), rng.multinomial(600, shares)
        above += psi_parts(a, b).sum() > psi_noise(a, b, 0.05)
    assert 25 <= above <= 80


def test_migrations_by_hand() -> None:
    drift = segment_drift(
        SEGMENTS, [0, 0, 1, 2, -1], [0, 1, 1, -1, 0], ["a", "b", "c", "d", "e"], ["a", "b", "c", "e", "f"]
    )
    pairs = {(row.from_id, row.to_id): (row.customers, row.share) for row in drift.migration.itertuples()}
    assert pairs == {
        **{("s01", "s01"): (1, 0.5), ("s01", "s02"): (1, 0.5), ("s02", "s02"): (1, 1.0)},
        **{("s03", "gone"): (1, 1.0), ("none", "none"): (1, 1.0), ("new", "s01"): (1, 1.0)},
    }
    assert drift.stayed == 0.75
    assert drift.shares["before"].tolist() == [2, 1, 1, 1]
    assert drift.shares["after"].tolist() == [2, 2, 0, 1]
    assert not drift.alarm  # of so few nothing is sure


def test_the_alarm() -> None:
    who = np.arange(3000)
    before, after = np.repeat([0, 1, 2], 1000), np.repeat([0, 1, 2], [300, 700, 2000])
    drift = segment_drift(SEGMENTS, before, after, who, who)
    assert drift.alarm
    assert drift.psi > 0.25 > drift.noise
    assert drift.sentence.startswith("Alarm: the shares of the segments changed (population stability index 0.5")
    assert "A: 33.3% before, 10.0% now" in drift.sentence
    assert not segment_drift(SEGMENTS, before, before, who, who).alarm
    swapped = segment_drift(SEGMENTS, before, np.roll(before, 1000), who, who, DriftSettings(least_stayed=0.5))
    assert swapped.psi == 0
    assert swapped.alarm
    assert swapped.sentence.endswith("alarm, at least 50% should have kept it.")


@pytest.mark.parametrize(
    ("places", "who", "said"),
    [([], [], "some rows"), ([0, 0], ["a", "a"], "repeats a customer"), ([5], ["a"], "there are 3 segments")],
)
def test_what_does_not_fit_is_refused(places: list[int], who: list[str], said: str) -> None:
    with pytest.raises(DataError, match=said):
        segment_drift(SEGMENTS, places, [0], who, ["a"])

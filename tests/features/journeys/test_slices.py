from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from features.journeys.holdout import later_slice, moment_for_share, slice_at, stable_groups

DAY = 86_400_000_000


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.text(max_size=5), min_size=1, max_size=30),
    st.lists(st.text(max_size=5), max_size=30),
    st.integers(2, 6),
)
def test_adding_customers_moves_nobody(known: list[str], new: list[str], n_groups: int) -> None:
    alone = stable_groups(known, n_groups, seed=3)
    together = stable_groups(new + known, n_groups, seed=3)
    assert together[len(new) :].tolist() == alone.tolist()
    assert set(alone.tolist()) <= set(range(n_groups))


def test_groups_are_even_and_change_with_the_seed() -> None:
    ids = [f"customer {i}" for i in range(9000)]
    one, other = stable_groups(ids, 3, seed=0), stable_groups(ids, 3, seed=1)
    assert np.abs(np.bincount(one) - 3000).max() < 250
    assert 0.6 < (one != other).mean() < 0.72


def test_numbers_and_text_are_the_same_customer() -> None:
    assert stable_groups([12, 13], 5, 0).tolist() == stable_groups(["12", "13"], 5, 0).tolist()


def test_later_slices_cover_all_later_rows_once() -> None:
    rng = np.random.default_rng(0)
    customers = rng.integers(0, 300, 2000).astype(str)
    cutoffs = rng.integers(0, 100, 2000) * DAY
    parts = list(later_slice(customers, cutoffs, 0.3, n_groups=4, seed=5))
    later = np.concatenate([part.later for part in parts])
    assert sorted(later) == np.flatnonzero(cutoffs >= parts[0].since).tolist()
    assert abs(len(later) / 2000 - 0.3) < 0.02
    for part in parts:
        assert not set(customers[part.fit]) & set(customers[part.later])
        assert cutoffs[part.fit].max() < part.since <= cutoffs[part.later].min()


def test_the_nearest_share_that_whole_cutoffs_allow() -> None:
    cutoffs = np.repeat([1, 2, 3, 4], 10)
    assert moment_for_share(cutoffs, 0.3) == 4
    assert moment_for_share(cutoffs, 0.45) == 3
    assert moment_for_share(cutoffs, 0.99) == 2  # never the first: something must be left to fit on
    assert moment_for_share(np.array([1, 2, 2, 2, 2]), 0.1) == 2


def test_a_gap_closes_the_label_windows() -> None:
    groups, cutoffs = np.array([0, 0, 0, 1]), np.array([0, 10, 11, 20])
    assert slice_at(groups, cutoffs, 1, 20, gap_us=10).fit.tolist() == [0, 1]
    assert slice_at(groups, cutoffs, 1, 20).fit.tolist() == [0, 1, 2]


def test_what_cannot_be_parted_is_said() -> None:
    with pytest.raises(DataError, match="one cutoff"):
        list(later_slice(["a", "b"], [5, 5], 0.3))
    with pytest.raises(ConfigError, match="share"):
        list(later_slice(["a", "b"], [5, 6], 1.3))
    with pytest.raises(ConfigError, match="groups"):
        stable_groups(["a"], 1, 0)
    with pytest.raises(DataError, match="no customer"):
        stable_groups(["a", None], 2, 0)
    with pytest.raises(DataError, match="2 customers and 3 cutoffs"):
        list(later_slice(["a", "b"], [5, 6, 7], 0.3))

"""Matching of segments and the report on a refit, on cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import DataError
from models.segments.matching import match, refit_report


def places(*runs: tuple[int, int]) -> np.ndarray:
    """So many customers in each place."""
    return np.repeat([place for place, _ in runs], [n for _, n in runs])


def test_the_assignment_keeps_most_customers_in_all() -> None:
    # greedily, old 0 would take new 0 (6 customers) and leave old 1 with nothing; together 5 + 5 is more
    old = places((0, 11), (1, 5))
    new = np.concatenate([places((0, 6), (1, 5)), places((0, 5))])
    found = match(old, new, 2, 2)
    assert found.overlap.tolist() == [[6, 5], [5, 0]]
    assert found.new_of_old.tolist() == [1, 0]
    assert found.old_of_new.tolist() == [1, 0]


def test_too_little_in_common_is_another_segment() -> None:
    old, new = places((0, 90), (1, 10)), places((0, 95), (1, 5))
    new[-1] = 0  # old 1: nine customers went to 0, and new 1 has four of old 1
    assert match(old, new, 2, 2).new_of_old.tolist() == [0, 1]
    alien = np.where(np.arange(100) == 99, 1, 0)
    assert match(old, alien, 2, 2).new_of_old.tolist() == [0, -1]  # one of ten is not the same segment


def test_customers_in_no_segment_do_not_count() -> None:
    assert match(np.array([0, -1, 0]), np.array([0, 0, -1]), 1, 1).overlap.tolist() == [[1]]
    with pytest.raises(DataError, match="same customers"):
        match(np.zeros(3, int), np.zeros(2, int), 1, 1)


def test_the_report_says_split_merged_appeared_vanished_and_who_moved() -> None:
    # s01 (100): 60 stay, 40 become s04 (new). s02 (50) and s03 (50) become one: s02, so s03 is gone.
    old = places((0, 100), (1, 50), (2, 50))
    new = np.concatenate([places((0, 60), (2, 40)), places((1, 50)), places((1, 50))])
    report = refit_report(old, new, ["s01", "s02", "s03"], ["s01", "s02", "s04"])
    assert report.kept_share == pytest.approx(110 / 200)
    kept = report.kept.set_index("id")
    assert kept.loc["s01", ["customers_before", "customers_after", "stayed"]].tolist() == [100, 60, 60]
    assert kept.loc["s02", "customers_after"] == 100
    assert report.moved[["from_id", "to_id", "customers"]].to_numpy().tolist() == [
        ["s03", "s02", 50], ["s01", "s04", 40],
    ]  # fmt: skip
    assert report.split[["id", "into_id", "share"]].to_numpy().tolist() == [["s01", "s01", 0.6], ["s01", "s04", 0.4]]
    assert report.merged[["id", "from_id", "share"]].to_numpy().tolist() == [["s02", "s02", 0.5], ["s02", "s03", 0.5]]
    assert report.appeared.to_numpy().tolist() == [["s04", 40, "s01"]]
    assert report.vanished.to_numpy().tolist() == [["s03", 50, "s02"]]
    assert report.sentences[:3] == (
        "55.0% of customers keep their segment.",
        "s01 split: 60% stayed, 40% went to s04.",
        "s02 merged: 50% stayed, 50% came from s03.",
    )
    assert "s04 is new, with 40 customers, most of them from s01." in report.sentences
    assert "s03 is gone; most of its customers are in s02 now." in report.sentences


def test_nothing_changed() -> None:
    old = places((0, 10), (1, 10))
    report = refit_report(old, old, ["s01", "s02"], ["s01", "s02"])
    assert report.kept_share == 1
    assert report.sentences == ("100.0% of customers keep their segment.",)
    assert [len(f) for f in (report.moved, report.split, report.merged, report.appeared, report.vanished)] == [0] * 5


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 4)), min_size=1, max_size=60), st.permutations(range(5)))
def test_names_do_not_matter(pairs: list[tuple[int, int]], shuffled: list[int]) -> None:
    old, new = np.array(pairs).T
    found, renamed = match(old, new, 4, 5), match(old, np.array(shuffled)[new], 4, 5)
    assert (found.overlap == renamed.overlap[:, shuffled]).all()
    for before, after in enumerate(found.new_of_old):
        if after >= 0:
            assert found.old_of_new[after] == before
    same = match(old, old, 4, 4).new_of_old
    assert all(same[place] == place for place in np.unique(old))

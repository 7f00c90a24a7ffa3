from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from features.errors import ConfigError, DataError
from training.data.splits import make_folds, overlap_sentence

DAY = 86_400_000_000


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    n_folds=st.integers(2, 4),
    horizon_days=st.integers(1, 120),
    share=st.floats(0.1, 0.8),
    discrete=st.booleans(),
)
def test_customers_apart_and_later_cutoffs(
    seed: int, n_folds: int, horizon_days: int, share: float, discrete: bool
) -> None:
    rng = np.random.default_rng(seed)
    customers = rng.integers(0, 200, 1000).astype(str)
    cutoffs = rng.integers(0, 8, 1000) * 14 * DAY if discrete else rng.integers(0, 100 * DAY, 1000)
    folds = make_folds(
        customers,
        cutoffs,
        horizon_days * DAY,
        n_folds=n_folds,
        later_share=share,
        seed=seed,
        fewest_train=1,
        fewest_check=1,
    )
    again = make_folds(
        customers,
        cutoffs,
        horizon_days * DAY,
        n_folds=n_folds,
        later_share=share,
        seed=seed,
        fewest_train=1,
        fewest_check=1,
    )
    assert [fold.name for fold in folds] == [f"fold_{i + 1}" for i in range(n_folds)]
    for fold, same in zip(folds, again, strict=True):
        assert not set(customers[fold.train]) & set(customers[fold.check])
        assert cutoffs[fold.train].max() < cutoffs[fold.check].min()
        assert (fold.train.tolist(), fold.check.tolist()) == (same.train.tolist(), same.check.tolist())
        closes = cutoffs[fold.train] + horizon_days * DAY
        assert fold.overlap.overlapping == (closes > fold.overlap.since).sum()
        assert 0 <= fold.overlap.mean_share <= fold.overlap.largest_share + 1e-9 <= 1 + 1e-9
    checked = np.concatenate([fold.check for fold in folds])
    assert sorted(checked) == np.flatnonzero(cutoffs >= folds[0].overlap.since).tolist()


def rows(n: int = 3000, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 900, n).astype(str), rng.integers(0, 100 * DAY, n), rng.integers(0, 2, n)


def test_closed_where_enough_rows_remain() -> None:
    customers, cutoffs, labels = rows()
    folds = make_folds(customers, cutoffs, 10 * DAY, labels=labels, later_share=0.3)
    for fold in folds:
        assert (cutoffs[fold.train] + 10 * DAY <= cutoffs[fold.check].min()).all()
        assert fold.overlap.overlapping == 0
        assert fold.overlap.sentence.startswith("Closed")


def test_overlapping_horizons_are_reported() -> None:
    customers, cutoffs, labels = rows()
    fold = make_folds(customers, cutoffs, 60 * DAY, labels=labels, later_share=0.3)[0]
    past = (cutoffs[fold.train] + 60 * DAY - fold.overlap.since) / (60 * DAY)
    assert fold.overlap.mean_share == pytest.approx(past[past > 0].mean())
    assert fold.overlap.overlapping == (past > 0).sum()
    assert f"{fold.overlap.overlapping:,} of {len(fold.train):,} train rows" in fold.overlap.sentence
    forced = make_folds(customers, cutoffs, 60 * DAY, labels=labels, later_share=0.3, horizons="closed", fewest_train=1)
    assert fold.overlap.closed_rows == len(forced[0].train) < len(fold.train)


def test_too_little_data_is_an_error() -> None:
    customers, cutoffs, labels = rows(400)
    with pytest.raises(DataError, match=r"fold 1 of 3 has \d+ rows of the rarer class to train on .* needs 100"):
        make_folds(customers, cutoffs, 60 * DAY, labels=labels)
    with pytest.raises(DataError, match="one cutoff"):
        make_folds(customers, np.zeros(400, int), 60 * DAY, labels=labels)
    with pytest.raises(DataError, match="0 rows of the rarer class"):
        make_folds(customers, cutoffs, DAY, labels=np.ones(400))
    with pytest.raises(ConfigError, match="horizon"):
        make_folds(customers, cutoffs, 0)
    with pytest.raises(ConfigError, match="horizons = 'open'"):
        make_folds(customers, cutoffs, DAY, horizons="open")  # type: ignore[arg-type]
    with pytest.raises(DataError, match="3 cutoffs"):
        make_folds(customers, cutoffs[:3], DAY)


def test_real_tasks(shared: Path) -> None:
    retail = pd.read_parquet(shared / "tasks" / "online_retail_churn.parquet").query("split == 'train'")
    loans = pd.read_parquet(shared / "tasks" / "bpi2012_conversion.parquet").query("split == 'train'")
    for table, label, days in ((retail, "churned", 90), (loans, "converted", 30)):
        cutoffs = table["cutoff"].astype("int64").to_numpy()
        folds = make_folds(table["customer_id"], cutoffs, days * DAY, labels=table[label])
        assert min(len(fold.train) for fold in folds) > 3000
        assert 0.3 < sum(len(fold.check) for fold in folds) / len(table) < 0.41
        assert overlap_sentence(folds).startswith("3 folds, rows counted over all of them. Overlapping")

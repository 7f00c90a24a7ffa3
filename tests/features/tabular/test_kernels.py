"""Every feature against a plain reference in numpy and pandas, on random journeys."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from features.journeys.journeys import Category, Journeys
from features.tabular.catalogue import ALL_GROUPS
from features.tabular.features import TabularFeatures
from reference_features import DAY, WINDOWS, Reference

TOUCHPOINTS = (
    "view", "buy", "call START", "call COMPLETE", "call SCHEDULE", "mail:start", "mail:done", "rare", "rarer",
)  # fmt: skip
T0 = 1_600_000_000_000_000


def random_journeys(seed: int, n_events: int, n_customers: int, step_us: int) -> Journeys:
    """Random events in every column; `step_us` coarse makes ties."""
    r = np.random.default_rng(seed)
    owner = np.sort(r.integers(0, n_customers, n_events))
    t = T0 + r.integers(0, 200 * DAY // step_us, n_events) * step_us
    t = np.where(r.random(n_events) < 0.3, T0 + 150 * DAY + r.integers(0, 600, n_events) * 1_000_000, t)
    t = t[np.lexsort((t, owner))]

    def category(names: tuple[str, ...], missing: float) -> Category:
        codes = r.integers(0, len(names), n_events).astype(np.int32)
        return Category(np.where(r.random(n_events) < missing, -1, codes).astype(np.int32), names)

    def number(values: Any, missing: float) -> np.ndarray:
        return np.where(r.random(n_events) < missing, np.nan, values)

    categories = {
        "touchpoint": category(TOUCHPOINTS, 0.0),
        "channel": category(("web", "store", "app"), 0.2),
        "stage": category(("aware", "buying", "loyal"), 0.1),
        "item": category(tuple(f"item{k}" for k in range(9)), 0.3),
        "agent": category(("ann", "bob", "cy", "dee"), 0.3),
        "country": category(("NL", "DE"), 0.4),
    }
    numbers = {
        "value": number(np.round(r.normal(5, 10, n_events)), 0.3),
        "duration_s": number(r.exponential(60, n_events), 0.3),
        "satisfaction": number(r.integers(1, 6, n_events).astype(float), 0.6),
        "age": number(r.integers(20, 70, n_events).astype(float), 0.5),
    }
    offsets = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=n_customers)))).astype(np.int64)
    return Journeys(pa.array([f"c{k}" for k in range(n_customers)]), offsets, t, categories, numbers)


def fitted(journeys: Journeys, **settings_: Any) -> TabularFeatures:
    """Features with small vocabularies, so that there is something in `other`, and nothing dropped."""
    options = {
        "windows_days": WINDOWS, "value_windows_days": (30,), "top_touchpoints": 6, "top_channels": 2, "top_stages": 2,
        "top_items": 3, "top_property_values": 3, "min_count": 1, "bad_satisfaction": 2.0, "drop_redundant": False,
        "properties": ("agent",), "profile": ("country",), "session_gap_s": 3600.0, **settings_,
    }  # fmt: skip
    return TabularFeatures(**options).fit(journeys.at(T0 + 400 * DAY))


GROUPS: dict[str, Callable[[Reference], dict[str, float]]] = {
    group: getattr(Reference, "value_group" if group == "value" else group) for group in ALL_GROUPS
}


@pytest.mark.parametrize("group", ALL_GROUPS)
@settings(max_examples=5, deadline=None)
@given(seed=st.integers(0, 10**6), n_events=st.sampled_from([4, 30, 300]), coarse=st.booleans())
@example(seed=1081, n_events=4, coarse=False)
def test_group_against_reference(group: str, seed: int, n_events: int, coarse: bool) -> None:
    journeys = random_journeys(seed, n_events, 3, DAY // 4 if coarse else 1_000_000)
    features = fitted(journeys)
    cutoffs = T0 + np.array([20, 150, 199]) * DAY + np.array([0, 500_000_000, 77])
    customers, moments = (grid.ravel() for grid in np.meshgrid(np.arange(3), cutoffs))
    x = features.transform(journeys.at(moments, customers))
    names = features.describe().query("group == @group")["name"].tolist()
    columns = [features.get_feature_names_out().index(name) for name in names]
    for row, customer, cutoff in zip(x, customers, moments, strict=True):
        expected = GROUPS[group](Reference(journeys, features, int(customer), int(cutoff)))
        assert set(names) <= set(expected)
        reference = np.array([float(expected[name]) for name in names])
        close = np.isclose(row[columns], reference, rtol=2e-5, atol=2e-5, equal_nan=True)
        assert close.all(), [(names[k], row[columns][k], reference[k]) for k in np.flatnonzero(~close)]

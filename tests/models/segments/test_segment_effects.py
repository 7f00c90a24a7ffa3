"""Effects: Cliff's delta against its definition, intervals that hold, and which effects are shown."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import ndtr
from scipy.stats import mannwhitneyu

from features.errors import DataError
from features.events.schema import EventSchema
from features.journeys.packing import pack
from features.tabular.features import TabularFeatures
from models.segments.contract import Segment
from models.segments.insight.columns import ReadableColumn, column_values, readable_columns
from models.segments.insight.effects import EffectSettings, _Tests, delta_interval, effects_of_columns, segment_effects

SEGMENTS = (Segment("s01", "A"), Segment("s02", "B"))


def column(name: str, group: str = "volume") -> ReadableColumn:
    return ReadableColumn(name, name, group, f"count of {name}")


def delta(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.sign(a[:, None] - b[None, :]).mean())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_the_effect_is_cliffs_delta(seed: int) -> None:
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 6, (60, 2)).astype(np.float32)
    x[rng.random(x.shape) < 0.1] = np.nan
    place = rng.integers(0, 2, 60)
    tests = _Tests.of(x, place, 2, 0.5)
    for c in range(2):
        known = np.isfinite(x[:, c])
        a, b = x[known & (place == 0), c], x[known & (place == 1), c]
        assert tests.delta[c, 0] == pytest.approx(delta(a, b))
        p = mannwhitneyu(a, b, use_continuity=False, method="asymptotic").pvalue
        assert tests.p[c, 0] == pytest.approx(p)


def test_of_yes_or_no_it_is_the_difference_of_shares() -> None:
    x = np.repeat([1, 0, 1, 0], [30, 10, 10, 50]).astype(np.float32)[:, None]
    table = effects_of_columns(x, [column("member")], np.repeat([0, 1], [40, 60]), SEGMENTS)
    first = table[table["segment_id"] == "s01"].iloc[0]
    assert first["effect"] == pytest.approx(30 / 40 - 10 / 60)
    assert first["effect_low"] < first["effect"] < first["effect_high"]
    assert first["words"] == "Count of member: 75% of the segment, 17% of the rest"


@pytest.mark.parametrize("shift", [0.0, 0.8, 2.5])
def test_the_interval_holds_the_true_effect(shift: float) -> None:
    rng = np.random.default_rng(5)
    true = float(2 * ndtr(shift / np.sqrt(2)) - 1)
    held = 0
    for _ in range(200):
        seen = delta(rng.normal(shift, 1, 30), rng.normal(0, 1, 50))
        low, high = delta_interval(seen, 30, 50, 0.95)
        held += low <= true <= high
    assert 180 <= held <= 199


def test_no_overlap_has_an_interval() -> None:
    low, high = delta_interval(1.0, 10, 20, 0.95)
    assert 0.5 < low < high == pytest.approx(1.0)
    assert delta_interval(-1.0, 10, 20, 0.95) == pytest.approx((-high, -low))


def test_one_effect_a_subject_without_repeats() -> None:
    rng = np.random.default_rng(2)
    place = np.repeat([0, 1], 100)
    strong = (place * 3 + rng.normal(size=200)).astype(np.float32)
    weak = (place + rng.normal(size=200)).astype(np.float32)
    noise = rng.normal(size=200).astype(np.float32)
    x = np.column_stack([strong, strong * 2, strong + 1, weak, noise])
    columns = [
        *(column("visits_30d"), column("visits_90d"), column("echo", "rfm")),
        *(column("other", "trend"), column("noise", "tenure")),
    ]
    table = effects_of_columns(x, columns, place, SEGMENTS)
    assert table[table["segment_id"] == "s02"]["feature"].tolist() == ["visits_30d", "other"]
    assert table["words"].iloc[0].startswith("Count of visits_30d: much lower (median ")
    assert (table["q_value"] < 0.05).all()


def test_noise_has_no_effects() -> None:
    rng = np.random.default_rng(3)
    x = rng.normal(size=(300, 200)).astype(np.float32)
    table = effects_of_columns(x, [column(f"c{i}", f"g{i}") for i in range(200)], rng.integers(0, 2, 300), SEGMENTS)
    assert len(table) <= 2
    assert list(table.columns)[:3] == ["segment_id", "segment", "rank"]


def test_mostly_missing_columns_are_left_out() -> None:
    place = np.repeat([0, 1], 100)
    x = np.where(np.arange(200) % 10 == 0, place, np.nan).astype(np.float32)[:, None]
    assert effects_of_columns(x, [column("rare")], place, SEGMENTS).empty
    few = EffectSettings(least_known=0.0)
    assert len(effects_of_columns(x, [column("rare")], place, SEGMENTS, few)) == 2


def test_shapes_must_fit() -> None:
    with pytest.raises(DataError, match="x is"):
        effects_of_columns(np.zeros((3, 2), np.float32), [column("a")], [0, 1, 0], SEGMENTS)


def test_from_snapshots_with_categories(simulated_events: pd.DataFrame) -> None:
    journeys = pack(simulated_events, EventSchema(profile=("country", "plan")))
    snapshots = journeys.at(journeys.t.max() + 1)
    tabular = TabularFeatures().fit(snapshots)
    x, names = tabular.transform(snapshots), tabular.get_feature_names_out()
    columns = readable_columns(tabular)
    plans = [c for c in columns if c.feature == "profile.plan"]
    values = column_values(tuple(plans), x, names)
    assert set(np.unique(values)) == {0.0, 1.0}
    last_plan = (
        simulated_events.groupby("customer_id", sort=False)["plan"].last().reindex(journeys.customer_ids.to_pylist())
    )
    for i, plan in enumerate(plans):
        assert values[:, i].tolist() == (last_plan == plan.text).astype(float).tolist()
    assert not [c for c in columns if c.name.startswith(("cutoff_", "season_"))]
    place = values[:, 0].astype(int)
    table = segment_effects(tabular, snapshots, place, SEGMENTS)
    first = table[table["segment_id"] == "s02"].iloc[0]
    assert first["feature"] == plans[0].name
    assert first["effect"] == pytest.approx(1.0)
    assert first["words"] == f"Last known plan is '{plans[0].text}': 100% of the segment, 0% of the rest"


def test_one_customer_has_no_effects(simulated_events: pd.DataFrame) -> None:
    journeys = pack(simulated_events.head(1))
    snapshots = journeys.at(journeys.t.max() + 1)
    tabular = TabularFeatures().fit(snapshots)
    assert segment_effects(tabular, snapshots, [0], SEGMENTS).empty

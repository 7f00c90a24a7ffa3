"""The tabular features as their users meet them: fit, transform, names, state, errors."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from numba.core.dispatcher import Dispatcher
from pydantic import ValidationError

from features.errors import ConfigError, DataError
from features.journeys.journeys import Category, Journeys
from features.journeys.packing import pack
from features.tabular.catalogue import ALL_GROUPS
from features.tabular.features import TabularFeatures
from features.tabular.rows import fill_rows, kernel_files
from features.tabular.settings import TabularSettings

DAY = 86_400_000_000
T0 = 1_600_000_000_000_000
END = T0 + 300 * DAY


def make_journeys(n_events: int = 3_000, n_customers: int = 60, seed: int = 0, n_touchpoints: int = 8) -> Journeys:
    r = np.random.default_rng(seed)
    owner = np.sort(r.integers(0, n_customers, n_events))
    t = T0 + r.integers(0, 250 * 24, n_events) * (DAY // 24)
    t = t[np.lexsort((t, owner))]

    def category(prefix: str, size: int) -> Category:
        names = tuple(f"{prefix} {k}" for k in range(size))
        return Category(np.minimum(r.geometric(0.3, n_events) - 1, size - 1).astype(np.int32), names)

    names = ("job START", "job COMPLETE", *(f"touch {k}" for k in range(n_touchpoints - 2)))
    categories = {
        "touchpoint": Category(r.integers(0, n_touchpoints, n_events).astype(np.int32), names),
        **{name: category(name, 5) for name in ("channel", "stage", "item", "agent")},
        "country": Category(r.integers(0, 3, n_customers).astype(np.int32)[owner], ("NL", "DE", "BE")),
    }
    numbers = {
        "value": r.normal(5, 10, n_events),
        "duration_s": r.exponential(60, n_events),
        "satisfaction": r.integers(1, 6, n_events).astype(float),
        "age": r.integers(20, 60, n_customers).astype(float)[owner],
    }
    offsets = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=n_customers)))).astype(np.int64)
    return Journeys(pa.array([f"c{k}" for k in range(n_customers)]), offsets, t, categories, numbers)


JOURNEYS = make_journeys()
WINDOWS = (7, 30, 90, 180, 365)
TRAINED = TabularFeatures(windows_days=WINDOWS).fit(JOURNEYS.at(END))


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype == np.float32 and a.tobytes() == b.tobytes()


def test_names_are_unique_and_each_has_a_group_and_a_meaning() -> None:
    about = TRAINED.describe()
    assert about["name"].is_unique
    assert about["name"].tolist() == TRAINED.get_feature_names_out()
    assert set(about["group"]) <= set(ALL_GROUPS)
    assert (about["meaning"].str.len() > 5).all()
    assert not about["meaning"].str.contains("\n").any()
    assert about["name"].str.fullmatch(r"[\w.+-]+").all()  # LightGBM refuses others
    assert TRAINED.group_of("recency_days") == "recency"
    assert TRAINED.meaning_of("recency_days") == "days since the last event"


@pytest.mark.parametrize("group", [*ALL_GROUPS, None])
def test_kernels_write_as_many_columns_as_the_catalogue_names(group: str | None) -> None:
    groups = ALL_GROUPS if group is None else (group,)
    features = TabularFeatures(groups=groups, drop_redundant=False).fit(JOURNEYS.at(END))
    arguments = features._layout.arguments(JOURNEYS)
    keep = np.empty(0, np.uint64)
    bounds = np.array([[0, 10, END]])
    assert fill_rows(np.empty((1, 0), np.float32), keep, bounds, *arguments) == len(features.features_)
    assert set(features.describe()["group"]) == set(groups)


def test_the_stamp_of_the_kernel_cache_covers_every_kernel() -> None:
    files = {file.resolve() for file in kernel_files()}
    for module in [module for name, module in sys.modules.items() if name.startswith("features.tabular.")]:
        for value in vars(module).values():
            if isinstance(value, Dispatcher):
                assert Path(inspect.getfile(value.py_func)).resolve() in files


def test_batch_size_changes_no_bit() -> None:
    cutoffs = T0 + np.random.default_rng(1).integers(0, 300, 60) * DAY
    snapshots = JOURNEYS.at(cutoffs)
    x = TRAINED.transform(snapshots)
    ones = np.concatenate([TRAINED.transform(snapshots.take(np.array([k]))) for k in range(len(snapshots))])
    assert same(x, ones)
    back = TRAINED.transform(snapshots.take(np.arange(len(snapshots))[::-1]))
    assert same(x, np.ascontiguousarray(back[::-1]))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_threads_change_nothing(monkeypatch: pytest.MonkeyPatch, threads: int) -> None:
    serial = TRAINED.transform(JOURNEYS.at(END))
    monkeypatch.setattr("features.tabular.features.SERIAL_EVENTS", 0)
    monkeypatch.setattr("numba.config.NUMBA_NUM_THREADS", threads)
    assert same(serial, TRAINED.transform(JOURNEYS.at(END)))


def test_many_callers_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    serial = TRAINED.transform(JOURNEYS.at(END))
    monkeypatch.setattr("features.tabular.features.SERIAL_EVENTS", 0)
    with ThreadPoolExecutor(4) as pool:
        for x in pool.map(lambda _: TRAINED.transform(JOURNEYS.at(END)), range(12)):
            assert same(serial, x)


def test_unseen_values_go_to_other_and_are_counted() -> None:
    features = TabularFeatures(drop_redundant=False, min_count=1).fit(JOURNEYS.at(END))
    touchpoints = JOURNEYS.categories["touchpoint"]
    renamed = Category(touchpoints.codes, ("brand new", *touchpoints.names[1:]))
    strange = Journeys(
        JOURNEYS.customer_ids, JOURNEYS.offsets, JOURNEYS.t, {**JOURNEYS.categories, "touchpoint": renamed}, {}
    )
    snapshots = strange.at(END)
    x = pd.DataFrame(features.transform(snapshots), columns=features.get_feature_names_out())
    new = np.bincount(np.repeat(np.arange(60), np.diff(JOURNEYS.offsets)), touchpoints.codes == 0)
    np.testing.assert_array_equal(x["touchpoint.other.count_all"], new)
    assert (x["touchpoint.job_START.count_all"] == 0).all()
    assert features.unseen(snapshots) == {"touchpoint": {"brand new": int(new.sum())}}
    assert features.unseen(JOURNEYS.at(END)) == {}


def test_a_log_without_the_columns_of_training_gives_missing() -> None:
    bare = Journeys(
        JOURNEYS.customer_ids, JOURNEYS.offsets, JOURNEYS.t, {"touchpoint": JOURNEYS.categories["touchpoint"]}
    )
    x = pd.DataFrame(TRAINED.transform(bare.at(END)), columns=TRAINED.get_feature_names_out())
    assert (x["value_90d"] == 0).all()
    assert x["last_channel"].isna().all()
    assert x["profile.country"].isna().all()
    assert x["agent.last"].isna().all()
    full = pd.DataFrame(TRAINED.transform(JOURNEYS.at(END)), columns=x.columns)
    pd.testing.assert_series_equal(x["gap_mean"], full["gap_mean"])


def test_logs_share_no_scratch() -> None:
    touchpoint = Category(np.zeros(JOURNEYS.n_events, np.int32), ("visit",))
    idle = Journeys(JOURNEYS.customer_ids, JOURNEYS.offsets, JOURNEYS.t, {"touchpoint": touchpoint})
    TabularFeatures(drop_redundant=False).fit(idle.at(END))
    test_a_log_with_a_single_column()


def test_a_log_with_a_single_column() -> None:
    bare = Journeys(
        JOURNEYS.customer_ids, JOURNEYS.offsets, JOURNEYS.t, {"touchpoint": JOURNEYS.categories["touchpoint"]}
    )
    features = TabularFeatures(drop_redundant=False).fit(bare.at(END))
    assert features.transform(bare.at(END)).shape == (60, len(features.features_))
    missing = {"value", "rfm", "returns", "satisfaction", "properties", "profile"}
    assert set(features.describe()["group"]) == set(ALL_GROUPS) - missing


def test_snapshots_without_events() -> None:
    features = TabularFeatures(drop_redundant=False).fit(JOURNEYS.at(END))
    moments = pd.to_datetime([END, 1], unit="us")
    nobody = JOURNEYS.at_ids(pd.DataFrame({"customer_id": ["nobody", "c1"], "cutoff": moments}))
    x = pd.DataFrame(features.transform(nobody), columns=features.get_feature_names_out())
    counts = x.filter(regex=r"count_|^events_\d|^value_\d|^visits_|^active_.*\d|then_")
    assert (counts == 0).all(axis=None)
    assert x[["recency_days", "gap_mean", "basket_mean", "last_touchpoint", "tenure_days"]].isna().all(axis=None)
    assert x["cutoff_weekday"].notna().all()
    assert features.transform(nobody.take(np.empty(0, np.int64))).shape == (0, len(features.features_))


def test_state_goes_through_json() -> None:
    snapshots = JOURNEYS.at(END - 40 * DAY)
    again = TabularFeatures.from_dict(json.loads(json.dumps(TRAINED.to_dict())))
    assert same(TRAINED.transform(snapshots), again.transform(snapshots))
    assert again.to_dict() == TRAINED.to_dict()
    assert again.categorical_features == TRAINED.categorical_features
    for copied in (pickle.loads(pickle.dumps(TRAINED)), copy.deepcopy(TRAINED)):
        assert same(TRAINED.transform(snapshots), copied.transform(snapshots))


def test_state_of_other_versions_is_refused() -> None:
    state = TRAINED.to_dict()
    with pytest.raises(DataError, match=r"no feature 'phase_of_moon'.*train the model again"):
        TabularFeatures.from_dict({**state, "names": [*state["names"], "phase_of_moon"]})


def test_codes_are_ranks_by_frequency() -> None:
    first = TRAINED.learned_.vocabularies["channel"]  # type: ignore[union-attr]
    counts = np.bincount(JOURNEYS.categories["channel"].codes)
    assert first == tuple(JOURNEYS.categories["channel"].names[k] for k in np.argsort(-counts, kind="stable"))
    assert "last_channel" in TRAINED.categorical_features
    assert "recency_days" not in TRAINED.categorical_features


def test_extra_columns_that_change_are_properties() -> None:
    assert TRAINED.learned_ is not None
    assert TRAINED.learned_.properties == ("agent",)
    assert TRAINED.learned_.profile == ("country",)
    assert TRAINED.learned_.profile_numbers == ("age",)
    declared = TabularFeatures(properties=("country",), profile=("agent",)).fit(JOURNEYS.at(END))
    assert declared.learned_ is not None
    assert declared.learned_.properties == ("country",)
    with pytest.raises(DataError, match="'region' is declared"):
        TabularFeatures(properties=("region",)).fit(JOURNEYS.at(END))


def test_redundant_columns_are_dropped_and_recorded() -> None:
    every = TabularFeatures(windows_days=WINDOWS, drop_redundant=False).fit(JOURNEYS.at(END))
    names, dropped = set(TRAINED.get_feature_names_out()), TRAINED.dropped_
    assert names | set(dropped) == set(every.get_feature_names_out())
    assert dropped["cutoff_month"] == "constant in training"
    assert dropped["value_total"] == "equal to value_365d in training"
    x = TRAINED.transform(JOURNEYS.at(END))
    columns = [every.get_feature_names_out().index(name) for name in TRAINED.get_feature_names_out()]
    assert same(x, np.ascontiguousarray(every.transform(JOURNEYS.at(END))[:, columns]))


def test_windows_suit_the_length_of_histories() -> None:
    n, day = 200, np.timedelta64(1, "D")
    ages = np.tile([1, 3, 7], n)
    events = pd.DataFrame({
        "customer_id": np.repeat([f"c{i}" for i in range(len(ages))], 2),
        "timestamp": np.repeat(np.datetime64("2024-03-01", "us") - ages * day, 2),
        "touchpoint": "visit",
    })  # fmt: skip
    events.loc[1::2, "timestamp"] += np.timedelta64(12, "h")
    short = TabularFeatures().fit(pack(events).at("2024-03-01"))
    assert short.settings_.windows_days == (1.0, 3.0)  # nobody had an event in the last 6 hours, hardly 7 days
    again = TabularFeatures.from_dict(short.to_dict())
    assert again.get_feature_names_out() == short.get_feature_names_out()
    assert TabularFeatures().fit(JOURNEYS.at(END)).settings_.windows_days[-1] >= 90


def test_columns_in_any_order() -> None:
    names = ["gap_mean", "recency_days", "touchpoint.touch_1.count_90d", "work.job.open_days"]
    few = TRAINED.select(names)
    assert few.get_feature_names_out() == names
    assert set(few.describe()["group"]) == {"rhythm", "recency", "volume", "open_work"}
    columns = [TRAINED.get_feature_names_out().index(name) for name in names]
    expected = np.ascontiguousarray(TRAINED.transform(JOURNEYS.at(END))[:, columns])
    assert same(few.transform(JOURNEYS.at(END)), expected)
    with pytest.raises(DataError, match=r"no feature 'gap_men'; did you mean 'gap_mean'"):
        TRAINED.select(["gap_men"])


def test_ten_thousand_touchpoints_do_not_blow_up_the_width() -> None:
    wide = make_journeys(40_000, 50, n_touchpoints=10_000)
    features = TabularFeatures(min_count=1).fit(wide.at(END))
    assert len(features.features_) < 1_200
    assert len(features.learned_.vocabularies["touchpoint"]) == 20  # type: ignore[union-attr]
    assert sum(features.unseen(wide.at(END))["touchpoint"].values()) > 30_000


def test_a_customer_with_many_events() -> None:
    long = make_journeys(200_000, 1)
    x = TRAINED.transform(long.at(np.array([END, END - 30 * DAY]), [0, 0]))
    assert x[0, TRAINED.get_feature_names_out().index("active_days_365d")] == 251  # 250 days from a noon


def test_values_with_a_comma_or_a_bracket_give_clean_unique_names() -> None:
    events = pd.DataFrame({
        "customer_id": ["a"] * 4, "timestamp": pd.date_range("2024-01-01", periods=4, unit="us"),
        "touchpoint": ["a,b", "a[b", "other", "ünï ☃"],
    })  # fmt: skip
    features = TabularFeatures(min_count=1, drop_redundant=False, groups=("recency",))
    features.fit(pack(events).at("2024-02-01"))
    assert features.get_feature_names_out() == [
        "recency_days",
        "touchpoint.a_b.recency_days",
        "touchpoint.a_b.recency_days_2",
        "touchpoint.other.recency_days",
        "touchpoint.ünï_.recency_days",
        "touchpoint.other.recency_days_2",
    ]
    assert features.meaning_of("touchpoint.a_b.recency_days_2") == "days since the last event with touchpoint 'a[b'"


def test_the_binding_to_a_log_goes_with_the_log() -> None:
    features = TabularFeatures.from_dict(TRAINED.to_dict())
    for seed in range(3):
        features.transform(make_journeys(100, 5, seed).at(END))
    assert len(features._layout) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"groups": ("volum",)}, "did you mean 'volume'"),
        ({"windows_days": (30, 7)}, "positive and ascending"),
        ({"windows_days": ()}, "positive and ascending"),
        ({"windows_days": (7, 30), "value_windows_days": (8,)}, "value_windows_days must be some of"),
        ({"windows_days": (7, 30), "trend_window_days": 8}, "trend_window_days must be one of"),
        ({"trend_window_days": 8}, "give those, too"),
        ({"top_touchpoint": 3}, "Extra inputs are not permitted"),
        ({"min_count": 0}, "greater than or equal to 1"),
    ],
)
def test_wrong_settings(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TabularSettings(**options)  # type: ignore[arg-type]


def test_errors() -> None:
    with pytest.raises(ConfigError, match="not fitted"):
        TabularFeatures().get_feature_names_out()
    with pytest.raises(ConfigError, match="not fitted"):
        TabularFeatures().transform(JOURNEYS.at(END))
    with pytest.raises(DataError, match="no event lies before any training cutoff"):
        TabularFeatures().fit(JOURNEYS.at(T0 - 10 * DAY))

"""Found segments: what they are fitted on, what they keep, whom they assign."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from pydantic import ValidationError
from sklearn.metrics import adjusted_rand_score

from features.errors import ConfigError, DataError
from features.journeys.journeys import Snapshots
from features.journeys.packing import pack
from features.simulation.simulator import SCHEMA, simulate
from models.segments.clustering.clusters import ClusterSegments, ClusterSettings
from models.segments.clustering.space import agreed_axes
from models.segments.clustering.views import Behaviour, Composition
from models.segments.contract import NO_SEGMENT, Segment, Segmentation

QUICK = ClusterSettings(methods=("kmeans",), dimensions=(2, 3), rounds=3, restarts=5, most=6)
DAY_US = 86_400_000_000


@pytest.fixture(scope="module")
def events() -> pd.DataFrame:
    return simulate(n_customers=400, days=150, seed=5).events


@pytest.fixture(scope="module")
def rows(events: pd.DataFrame) -> Snapshots:
    return pack(events, SCHEMA).at("2024-05-01")


@pytest.fixture(scope="module")
def found(rows: Snapshots) -> ClusterSegments:
    return ClusterSegments(QUICK).fit(rows)


def test_keeps_the_contract(found: ClusterSegments, rows: Snapshots) -> None:
    assert isinstance(found, Segmentation)
    assert found.kind == found.scheme == "found"
    places = found.assign(rows)
    assert places.dtype == np.int32
    assert 4 <= len(found.segments) <= 6
    assert set(places[rows.stop > rows.start]) == set(range(len(found.segments)))
    assert [segment.id for segment in found.segments] == [f"s{n + 1:02d}" for n in range(len(found.segments))]
    assert found.shares_.tolist() == sorted(found.shares_, reverse=True)
    distances = found.clustering_.distances(found.space(rows))
    assert distances.shape == (len(rows), len(found.segments))
    assert (distances.argmin(axis=1) == places)[rows.stop > rows.start].all()
    assert found.space(rows).shape == (len(rows), found.chosen_.dimensions)
    assert len(found.space_.named_dimensions) > 5
    assert all(dimension.words for dimension in found.space_.named_dimensions)


def test_the_choice_says_why(found: ClusterSegments) -> None:
    assert found.choice["chosen"].sum() == 1
    columns = ["method", "representation", "dimensions", "k", "stability", "stability_low", "largest_share"]
    assert list(found.choice.columns) == [*columns, "smallest_share", "chosen", "why_not"]
    assert 0 <= found.stability_ <= 1


def test_without_an_event_in_no_segment(found: ClusterSegments, rows: Snapshots) -> None:
    early = rows.journeys.at("2023-01-01")
    assert (found.assign(early) == NO_SEGMENT).all()
    assert found.assign(rows.journeys.at("2024-05-01", [-1])).tolist() == [NO_SEGMENT]


def test_one_alone_gets_what_it_gets_in_the_batch(found: ClusterSegments, rows: Snapshots) -> None:
    places, points = found.assign(rows), found.space(rows)
    for row in range(0, len(rows), 29):
        one = rows.take(np.array([row]))
        assert found.assign(one)[0] == places[row]
        assert (found.space(one)[0] == points[row]).all()


def test_what_comes_at_the_cutoff_or_later_changes_nothing(found: ClusterSegments, events: pd.DataFrame) -> None:
    later = events["timestamp"] >= "2024-05-01"
    known = events[~later]["customer_id"].unique()
    changed = events[later & events["customer_id"].isin(known)].assign(touchpoint="never seen", value=1e9)
    logs = [pack(pd.concat([events[~later], extra]), SCHEMA) for extra in (events[later], changed, events[:0])]
    first, *others = [found.space(log.at("2024-05-01", log.index_of(known))) for log in logs]
    assert all((first == other).all() for other in others)


def test_saved_and_loaded_to_the_bit(found: ClusterSegments, rows: Snapshots, tmp_path: Path) -> None:
    found.save(tmp_path / "deep" / "er")
    again = ClusterSegments.load(tmp_path / "deep" / "er")
    assert (again.space(rows) == found.space(rows)).all()
    assert (again.space(rows) == found.space(rows)).all()
    assert (again.assign(rows) == found.assign(rows)).all()
    assert again.segments == found.segments
    assert again.version == found.version
    assert again.settings == found.settings
    pd.testing.assert_frame_equal(again.choice, found.choice)
    assert sorted(p.suffix for p in (tmp_path / "deep" / "er").iterdir()) == [".json", ".safetensors"]


def test_served_without_scikit_learn(found: ClusterSegments, events: pd.DataFrame, tmp_path: Path) -> None:
    found.save(tmp_path)
    events.head(300).to_parquet(tmp_path / "events.parquet")
    code = f"""
import sys
from pathlib import Path
import pandas as pd
from features.journeys.packing import pack
from models.segments.clustering.clusters import ClusterSegments
found = ClusterSegments.load(Path({str(tmp_path)!r}))
log = pack(pd.read_parquet({str(tmp_path / "events.parquet")!r}))
assert (found.assign(log.at("2024-05-01")) >= 0).any()
loaded = [name for name in ("sklearn", "torch", "lightgbm", "matplotlib", "plotly") if name in sys.modules]
assert not loaded, loaded
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[3])


def test_the_same_fit_twice(found: ClusterSegments, rows: Snapshots) -> None:
    again = ClusterSegments(QUICK).fit(rows)
    assert again.version == found.version
    assert (again.assign(rows) == found.assign(rows)).all()


def test_a_refit_keeps_ids_names_and_numbers(found: ClusterSegments, rows: Snapshots) -> None:
    found.rename([Segment(s.id, f"The {s.id}", s.words) for s in found.segments])
    other = ClusterSegments(QUICK.model_copy(update={"seed": 3})).fit(rows, previous=found)
    assert other.report_ is not None
    assert other.report_.kept_share > 0.9
    kept = {s.id: s.name for s in other.segments}
    assert all(kept[id] == f"The {id}" for id in kept if id in {s.id for s in found.segments})
    assert other.next_number_ >= found.next_number_
    with pytest.raises(DataError, match="ids cannot"):
        found.rename([Segment("s99", "other")])


def test_ids_are_never_used_again(rows: Snapshots) -> None:
    five = ClusterSegments(QUICK.model_copy(update={"segments": 5})).fit(rows)
    two = ClusterSegments(QUICK.model_copy(update={"segments": 2})).fit(rows, previous=five)
    again = ClusterSegments(QUICK.model_copy(update={"segments": 5})).fit(rows, previous=two)
    first, fewer, last = ({s.id for s in each.segments} for each in (five, two, again))
    assert len(last) == 5
    gone = first - fewer
    assert not gone & last
    assert again.next_number_ > five.next_number_
    assert again.report_ is not None
    assert set(again.report_.appeared["id"]) == last - fewer


def test_several_rows_a_customer_and_a_sample(events: pd.DataFrame) -> None:
    log = pack(events, SCHEMA)
    rows = log.at(np.repeat(np.array(["2024-03-01", "2024-05-01"], "datetime64[us]"), 400), np.tile(np.arange(400), 2))
    settings = QUICK.model_copy(update={"fit_rows": 300, "choice_rows": 200})
    found = ClusterSegments(settings).fit(rows)
    assert set(found.assign(rows)) >= set(range(len(found.segments)))


@pytest.mark.parametrize("methods", [("mixture",), ("density",)])
def test_other_methods(rows: Snapshots, methods: tuple[str, ...], tmp_path: Path) -> None:
    settings = QUICK.model_copy(update={"methods": methods, "dimensions": (2,), "segments": 4})
    found = ClusterSegments(settings).fit(rows)
    found.save(tmp_path)
    again = ClusterSegments.load(tmp_path)
    assert (again.assign(rows) == found.assign(rows)).all()
    assert (again.assign(rows.take(np.arange(3))) == found.assign(rows)[:3]).all()


def test_an_embedding_has_its_place_beside_the_rest(rows: Snapshots, tmp_path: Path) -> None:
    encoder = {"hidden": 8, "objective": "none", "sequences": {"max_steps": 10, "min_count": 5}}
    settings = QUICK.model_copy(update={"representation": "both", "encoder": encoder, "segments": 4})
    found = ClusterSegments(settings).fit(rows)
    assert any(dimension.view == "embedding" for dimension in found.space_.named_dimensions)
    found.save(tmp_path)
    again = ClusterSegments.load(tmp_path)
    assert again.version == found.version  # the encoder's version included
    assert (again.assign(rows) == found.assign(rows)).all()


def test_few_customers_and_nothing_to_tell(events: pd.DataFrame) -> None:
    known = events.loc[events["timestamp"] < "2024-05-01", "customer_id"].unique()
    few = pack(events[events["customer_id"].isin(known[:49])], SCHEMA)
    with pytest.raises(DataError, match=r"49 customers .* segments need 50"):
        ClusterSegments(QUICK).fit(few.at("2024-05-01"))
    same = pd.DataFrame(
        {
            "customer_id": [f"c{i}" for i in range(60)],
            "timestamp": pd.Timestamp("2024-01-01"),
            "touchpoint": "visit",
        }
    )
    with pytest.raises(DataError, match="Nothing distinguishes these customers"):
        ClusterSegments(QUICK).fit(pack(same).at("2024-02-01"))


def test_constant_columns_and_one_that_differs() -> None:
    rng = np.random.default_rng(0)
    rows = pd.DataFrame({"customer_id": np.repeat([f"c{i}" for i in range(80)], rng.integers(1, 12, 80))})
    rows = rows.assign(timestamp=pd.Timestamp("2024-01-01"), touchpoint="visit", channel="web", value=5.0)
    found = ClusterSegments(QUICK).fit(pack(rows).at("2024-02-01"))
    assert len(found.segments) >= 2
    assert np.isfinite(found.space(pack(rows).at("2024-02-01"))).all()


def test_settings_are_checked() -> None:
    with pytest.raises(ValidationError, match="did you mean 'methods'"):
        ClusterSettings.model_validate({"method": ["kmeans"]})
    with pytest.raises(ValidationError, match="swap them"):
        ClusterSettings(fewest=9, most=5)
    with pytest.raises((ValidationError, ConfigError), match="hidden"):
        ClusterSettings(encoder={"hiden": 5})
    with pytest.raises(DataError, match="no column 'shop'"):
        ClusterSegments(QUICK.model_copy(update={"columns": ("shop",)})).fit(
            simulate(60, 60, 1).journeys.at("2024-02-20")
        )


def test_composition_draws_those_who_did_little_to_the_middle() -> None:
    counts = np.random.default_rng(0).multinomial(40, [0.25] * 4, 500).astype(float)
    counts[:250] = np.random.default_rng(1).multinomial(40, [0.55, 0.15, 0.15, 0.15], 250)
    view = Composition("touchpoint")
    view.vocabulary_ = ("a", "b", "c")
    view.learn(counts)
    assert len(view.middle_) == 1  # one thing sets the halves apart; the rest is chance
    little, much = view.place(np.array([[3.0, 1, 1, 1], [300, 100, 100, 100]]))
    assert 0 < abs(little[0]) < 0.6 * abs(much[0])
    assert view.place(np.zeros((1, 4))).tolist() == [[0.0]]
    chance = Composition("touchpoint")
    chance.vocabulary_ = ("a", "b", "c")
    chance.learn(np.random.default_rng(2).multinomial(40, [0.25] * 4, 500).astype(float))
    assert len(chance.middle_) == 0


def test_what_repeats_itself_in_a_visit_counts_once() -> None:
    times = pd.to_datetime(["2024-01-01 10:00", "2024-01-01 10:05", "2024-01-01 10:06", "2024-01-01 12:00"])
    rows = pd.DataFrame({"customer_id": "a", "timestamp": times, "touchpoint": ["x", "x", "y", "y"]})
    rows = pd.concat([rows, rows.assign(customer_id="b")])
    view = Composition("touchpoint", min_count=1)
    log = pack(rows)
    snapshots = log.at("2024-02-01")
    view.fit(snapshots)
    order = [view.vocabulary_.index(name) for name in "xy"]
    assert view.read(snapshots)[:, order].tolist() == [[1, 2], [1, 2]]
    assert view.read(log.at("2024-01-01 10:06"))[:, order].tolist() == [[1, 0], [1, 0]]


def test_behaviour_is_named_and_of_unit_variance(rows: Snapshots) -> None:
    view = Behaviour().fit(rows)
    raw = view.read(rows.take(rows.stop > rows.start))
    view.learn(raw)
    axes = view.place(raw)
    names = [dimension.name for dimension in view.dimensions]
    assert {"silence", "frequency", "value", "tenure", "trend"} <= set(names)
    np.testing.assert_allclose(axes.std(axis=0), 1, atol=1e-9)
    only = Behaviour(("silence", "value")).fit(rows)
    assert [dimension.name for dimension in only.dimensions] == ["silence", "value"]


def test_what_columns_agree_on_is_told_from_what_one_alone_says() -> None:
    rng = np.random.default_rng(0)
    like, errand = rng.normal(0, 1, (2, 4_000))
    one = np.column_stack([3 * errand, like + rng.normal(0, 0.5, 4_000)])  # the errand is by far the larger part
    other = (like + rng.normal(0, 0.5, 4_000))[:, None]
    away = np.hstack([one, other])
    away -= away.mean(axis=0)
    axes = agreed_axes(np.array([0, 0, 1]), away)
    assert axes is not None
    assert axes.shape == (3, 1)
    assert abs(np.corrcoef(away @ axes[:, 0], like)[0, 1]) > 0.9
    assert abs(np.corrcoef(away @ axes[:, 0], errand)[0, 1]) < 0.1
    assert agreed_axes(np.array([0, 0, 0]), away) is None
    assert agreed_axes(np.array([0, 1, 2]), rng.normal(0, 1, (4_000, 3))) is None


@pytest.mark.slow
def test_kinds_are_found_nearly_as_well_as_events_allow() -> None:
    simulation = simulate(n_customers=2_000, days=400, seed=3)
    snapshots = simulation.journeys.at(simulation.end)
    found = ClusterSegments(ClusterSettings(segments=3, groups=("composition",), shared=True, methods=("kmeans",))).fit(
        snapshots
    )
    names = [int(name[1:]) for name in simulation.journeys.customer_ids.to_pylist()]
    kind = simulation.states[names, 0] // 18  # mood, phase and course make 18 states of each kind
    assert adjusted_rand_score(found.assign(snapshots), kind) > 0.75

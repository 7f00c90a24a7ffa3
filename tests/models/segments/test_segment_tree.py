"""The tree rule: it finds rules that are there, says them in words, and runs without scikit-learn."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from features.events.schema import EventSchema
from features.journeys.journeys import Snapshots
from features.journeys.packing import pack
from features.tabular.features import TabularFeatures
from features.tabular.settings import TabularSettings
from models.segments.contract import Segment
from models.segments.insight.columns import ReadableColumn
from models.segments.insight.tree import SegmentTree, TreeSettings
from models.segments.insight.tree_nodes import TreeNodes
from models.segments.insight.tree_rules import ValueRange, condition_words, paths

SEGMENTS = (Segment("s01", "Silent"), Segment("s02", "Busy"), Segment("s03", "Others"))


@pytest.fixture(scope="module")
def snapshots(simulated_events: pd.DataFrame) -> Snapshots:
    """150 customers at two cutoffs."""
    journeys = pack(simulated_events, EventSchema(profile=("country", "plan")))
    last = int(journeys.t.max()) + 1
    cutoffs = np.tile([last - 20 * 86_400_000_000, last], journeys.n_customers)
    found = journeys.at(cutoffs, np.repeat(np.arange(journeys.n_customers), 2))
    return found.take(found.stop > found.start)


@pytest.fixture(scope="module")
def tabular(snapshots: Snapshots) -> TabularFeatures:
    groups = ("volume", "recency", "rfm", "tenure", "profile", "touch")
    return TabularFeatures(TabularSettings(groups=groups)).fit(snapshots)


@pytest.fixture(scope="module")
def place(tabular: TabularFeatures, snapshots: Snapshots) -> np.ndarray:
    """Silent for more than 30 days; else busy with 20 events; else others."""
    x = pd.DataFrame(tabular.transform(snapshots), columns=tabular.get_feature_names_out())
    return np.where(x["recency_days"] > 30, 0, np.where(x["events_all"] > 20, 1, 2)).astype(np.int32)


@pytest.fixture(scope="module")
def tree(tabular: TabularFeatures, snapshots: Snapshots, place: np.ndarray) -> SegmentTree:
    return SegmentTree().fit(tabular, snapshots, place, SEGMENTS)


def test_a_rule_that_is_there_is_found(tree: SegmentTree, snapshots: Snapshots, place: np.ndarray) -> None:
    assert tree.fidelity.value >= 0.95
    assert tree.fidelity.low < tree.fidelity.value < tree.fidelity.high
    assert tree.fidelity.customers == len(np.unique(snapshots.customer))
    assert (tree.assign(snapshots) == place).mean() >= 0.97
    assert len(tree.rules) == 3
    silent, busy, _ = tree.rules["rule"]
    assert silent.startswith("days since the last event above ")
    assert "days since the last event at most " in busy
    assert " at least " in busy
    assert tree.rules["found"].min() > 0.9
    assert (tree.rules["found_low"] <= tree.rules["found"]).all()
    assert tree.choice_["leaves"].max() <= 16


def test_it_agrees_with_scikit_learn(tabular: TabularFeatures, snapshots: Snapshots) -> None:
    from sklearn.tree import DecisionTreeClassifier

    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).round(2).astype(np.float32)
    x[rng.random(x.shape) < 0.2] = np.nan
    y = (np.nan_to_num(x[:, 0], nan=2.0) > 0.3).astype(int) + 2 * (np.nan_to_num(x[:, 1]) > 0)
    nodes = SegmentTree()._grow(x, y, 12)
    peer = DecisionTreeClassifier(max_leaf_nodes=12, min_samples_leaf=2, random_state=0).fit(x, y)
    assert (nodes.place[nodes.leaves(x)] == peer.predict(x)).mean() >= 0.99  # thresholds are rounded


def test_it_survives_its_folder(tree: SegmentTree, snapshots: Snapshots, tmp_path: Path) -> None:
    tree.save(tmp_path)
    again = SegmentTree.load(tmp_path)
    assert (again.assign(snapshots) == tree.assign(snapshots)).all()
    assert again.fidelity == tree.fidelity
    pd.testing.assert_frame_equal(again.rules, tree.rules)
    assert again.segments == SEGMENTS
    json.loads((tmp_path / "segment_tree.json").read_text(), parse_constant=lambda one: pytest.fail(one))


def test_a_loaded_tree_needs_no_scikit_learn(tree: SegmentTree, tmp_path: Path) -> None:
    tree.save(tmp_path)
    code = (
        "import sys; from pathlib import Path; import models.segments.insight.tree as t; import "
        "models.segments.lookalikes;"
        "import models.segments.insight.profiles, models.segments.insight.effects, "
        "models.segments.insight.names, models.segments.insight.typical_journeys;"
        "import models.segments.insight.drift, models.segments.insight.targets;"
        f"t.SegmentTree.load(Path({str(tmp_path)!r}));"
        "print([m for m in ('sklearn', 'torch', 'matplotlib', 'plotly') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"


@pytest.mark.parametrize(("what", "value"), [("left", 0), ("right", 99), ("place", 7), ("column", 40)])
def test_a_damaged_file_is_refused(tree: SegmentTree, tmp_path: Path, what: str, value: int) -> None:
    tree.save(tmp_path)
    path = tmp_path / "segment_tree.json"
    data = json.loads(path.read_text())
    data["nodes"][what][0] = value
    path.write_text(json.dumps(data))
    with pytest.raises(DataError, match="no tree"):
        SegmentTree.load(tmp_path)


def test_what_cannot_be_told_is_refused(tabular: TabularFeatures, snapshots: Snapshots, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="two segments"):
        SegmentTree().fit(tabular, snapshots, np.zeros(len(snapshots)), SEGMENTS)
    one = snapshots.take(np.flatnonzero(snapshots.customer == snapshots.customer[0]))
    with pytest.raises(DataError, match="more customers"):
        SegmentTree().fit(tabular, one, np.arange(len(one)), SEGMENTS)
    with pytest.raises(DataError, match=r"no segment_tree\.json"):
        SegmentTree.load(tmp_path)


def test_chance_has_the_fidelity_of_chance(tabular: TabularFeatures, snapshots: Snapshots) -> None:
    place = np.random.default_rng(1).integers(0, 3, len(snapshots))
    tree = SegmentTree(TreeSettings(most_leaves=6)).fit(tabular, snapshots, place, SEGMENTS)
    assert tree.fidelity.low < 0.4


def test_questions_without_a_difference_are_left_out() -> None:
    x = np.arange(40, dtype=np.float32)[:, None]
    places = np.where(np.arange(40) < 20, 0, np.where(np.arange(40) % 10 == 5, 0, 1))
    nodes = SegmentTree()._grow(x, places, 8)
    asked = np.flatnonzero(nodes.column != -1)
    assert len(asked) > 0
    for node in asked:
        sides = nodes.left[node], nodes.right[node]
        both_end = all(nodes.column[side] == -1 for side in sides)
        assert not (both_end and nodes.place[sides[0]] == nodes.place[sides[1]])


def test_bounds_on_one_column_are_merged() -> None:
    columns = np.array([0, 0, -1, -1, -1])
    nodes = TreeNodes(
        columns,
        np.array([5.5, 2.5, 0, 0, 0]),
        np.array([1, 2, -1, -1, -1]),
        np.array([4, 3, -1, -1, -1]),
        np.array([True, False, False, False, False]),
        np.array([0, 0, 0, 1, 2]),
    )
    found = dict(paths(nodes))
    assert found == {2: {0: (-np.inf, 2.5, False)}, 3: {0: (2.5, 5.5, True)}, 4: {0: (5.5, np.inf, False)}}
    assert nodes.leaves(np.array([[1], [3], [np.nan], [9]], np.float32)).tolist() == [2, 3, 3, 4]
    visits, seen = ReadableColumn("v", "v", "volume", "visits ever"), ValueRange(0, 30, True, True)
    assert [condition_words(visits, *bound[0], seen) for bound in found.values()] == [
        "visits ever at most 2",
        "visits ever at least 3 and at most 5 or unknown",
        "visits ever at least 6",
    ]
    assert condition_words(visits, 2.5, 3.5, False, seen) == "visits ever 3"
    assert condition_words(visits, -np.inf, 3e38, False, seen) == "visits ever known"

"""A short decision tree in place of a segmentation: a rule in words for each segment, and how often it is right.

    tree = SegmentTree().fit(tabular, snapshots, place, segmentation.segments)
    tree.fidelity            # share of customers whose segment the tree predicts, cross-validated
    tree.rules               # one row for each segment: the rule in words
    tree.assign(snapshots)   # (n,) places, without scikit-learn

The number of leaves is the smallest whose cross-validated fidelity lies within one standard error of the best (Breiman
et al. 1984, Classification and Regression Trees, 3.4.3) or within one point; all rows of a customer are in one fold.
Everyday features are tried first; features that need more explanation only where they raise fidelity. Thresholds are
rounded to three digits before anything is measured, so that the rule in words is the rule that is applied.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field

from features.errors import DataError
from features.journeys.holdout import stable_groups
from features.journeys.journeys import Snapshots
from features.settings import Section
from features.tabular.features import TabularFeatures
from models.segments.contract import Segment
from models.segments.insight.columns import EASY, PLAIN, ReadableColumn, column_values, readable_columns
from models.segments.insight.intervals import Estimate, share_over_customers
from models.segments.insight.profiles import check_places
from models.segments.insight.tree_nodes import LEAF, TreeNodes
from models.segments.insight.tree_rules import rules_table

Floats32 = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]

GOOD_ENOUGH = 0.9  # fidelity at which no columns are tried that need more explanation
WORTH_MORE = 0.02  # the gain in fidelity for which such columns are used, or more leaves
LEAST_PRESENT = 0.95  # share of rows in which an everyday column must have a value


class TreeSettings(Section):
    """Size of the tree.

    Attributes:
        most_leaves: at most so many, but at least one for each segment.
        folds: groups of customers for the cross-validation.
        smallest_leaf: the least share of customers in a leaf.
        most_rows: larger data are sampled down to so many rows.
        seed: of folds, sampling and ties.
    """

    most_leaves: int = Field(default=16, ge=2, le=64)
    folds: int = Field(default=5, ge=2)
    smallest_leaf: float = Field(default=0.005, gt=0, lt=0.5)
    most_rows: int = Field(default=30_000, ge=100)
    seed: int = 0


class SegmentTree:
    """A tree rule for a partition."""

    def __init__(self, settings: TreeSettings | None = None) -> None:
        self.settings = settings or TreeSettings()

    def fit(
        self, tabular: TabularFeatures, snapshots: Snapshots, place: npt.ArrayLike, segments: Sequence[Segment]
    ) -> Self:
        """Fit the tree.

        Args:
            tabular: fitted features; the tree keeps those that it tests.
            snapshots: (n,) rows; those in no segment are left out.
            place: (n,) place of each row in `segments`.
            segments: the partition.

        Raises:
            DataError: fewer than two segments have customers, or there are too few customers for cross-validation.
        """
        places = check_places(segments, snapshots, place)
        rows = self._sampled(np.flatnonzero(places >= 0))
        if len(np.unique(places[rows])) < 2:
            raise DataError("a rule needs customers in two segments at least: choose a partition with more")
        sample, self.segments = snapshots.take(rows), tuple(segments)
        groups = _folds(sample, self.settings)
        if len(np.unique(groups)) < 2:
            raise DataError("the rule cannot be checked on held-out customers: give more customers")
        x, names = tabular.transform(sample), tabular.get_feature_names_out()
        best: _CrossValidation | None = None
        for columns in _column_sets(tabular, x, names):
            tried = self._cross_validate(columns, column_values(columns, x, names), places[rows], groups)
            if best is None or tried.fidelity > best.fidelity + WORTH_MORE:
                best = tried
            if best.fidelity >= GOOD_ENOUGH:
                break
        assert best is not None, "the last set has all columns"
        self._fit_final(best, tabular, column_values(best.columns, x, names), places[rows], sample)
        return self

    def assign(self, snapshots: Snapshots) -> npt.NDArray[np.int32]:
        """(n,) the predicted segment, as a place in `segments`."""
        return self.nodes_.place[self.nodes_.leaves(self._columns(snapshots))].astype(np.int32)

    @property
    def fidelity(self) -> Estimate:
        """Share of rows whose segment is predicted by a tree fitted without their customer, with its interval."""
        return self.fidelity_

    @property
    def rules(self) -> pd.DataFrame:
        """A row a segment: id, segment, rule (words), leaves, customers, found, found_low, found_high, right, ….

        `found` is the share of the segment's customers that the rule finds (recall), `right` the share of the customers
        whom the rule chooses that are in the segment (precision); both cross-validated, with 95 % intervals.
        """
        return self.rules_

    def save(self, folder: Path) -> None:
        """Write `segment_tree.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        data = {
            "settings": self.settings.model_dump(mode="json"),
            "segments": [asdict(segment) for segment in self.segments],
            "columns": [column.to_dict() for column in self.columns_],
            "tabular": self.tabular_.to_dict(),
            "nodes": {name: values.tolist() for name, values in asdict(self.nodes_).items()},
            "fidelity": asdict(self.fidelity_),
            "rules": json.loads(self.rules_.to_json(orient="records", double_precision=15)),
            "choice": json.loads(self.choice_.to_json(orient="records", double_precision=15)),
        }
        (folder / "segment_tree.json").write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote.

        Raises:
            DataError: the folder holds no tree, or an inconsistent one.
        """
        path = folder / "segment_tree.json"
        if not path.is_file():
            raise DataError(f"No segment tree in {folder}: it has no segment_tree.json. Fit one and save it there.")
        data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        tree = cls(TreeSettings(**data["settings"]))
        tree.segments = tuple(Segment(**segment) for segment in data["segments"])
        tree.columns_ = tuple(ReadableColumn.from_dict(column) for column in data["columns"])
        tree.tabular_ = TabularFeatures.from_dict(data["tabular"])
        try:
            tree.nodes_ = TreeNodes.from_dict(data["nodes"], len(tree.columns_), len(tree.segments))
        except DataError as error:
            raise DataError(f"{path} holds {error}") from None
        tree.fidelity_ = Estimate(**data["fidelity"])
        tree.rules_, tree.choice_ = pd.DataFrame(data["rules"]), pd.DataFrame(data["choice"])
        return tree

    def _columns(self, snapshots: Snapshots) -> Floats32:
        """(n, c) the columns that the tree tests."""
        if not self.columns_:
            return np.zeros((len(snapshots), 0), np.float32)
        return column_values(self.columns_, self.tabular_.transform(snapshots), self.tabular_.get_feature_names_out())

    def _sampled(self, rows: Ints) -> Ints:
        if len(rows) <= self.settings.most_rows:
            return rows
        rng = np.random.default_rng(self.settings.seed)
        return np.sort(rng.choice(rows, self.settings.most_rows, replace=False))

    def _cross_validate(
        self, columns: tuple[ReadableColumn, ...], z: Floats32, places: Ints, groups: Ints
    ) -> _CrossValidation:
        """Out-of-fold predictions for every number of leaves, and the number to take."""
        k = len(np.unique(places))
        most = max(self.settings.most_leaves, k)
        sizes = sorted({k, *range(k + 1, most + 1, 2), most})
        predicted = {size: np.empty(len(places), np.int64) for size in sizes}
        for fold in np.unique(groups):
            fit, check = groups != fold, groups == fold
            for size in sizes:
                nodes = self._grow(z[fit], places[fit], size)
                predicted[size][check] = nodes.place[nodes.leaves(z[check])]
        fidelity = {size: float((answers == places).mean()) for size, answers in predicted.items()}
        best = max(fidelity.values())
        slack = max(WORTH_MORE / 2, np.sqrt(best * (1 - best) / len(places)))
        size = min(size for size in sizes if fidelity[size] >= best - slack)
        return _CrossValidation(columns, size, fidelity[size], predicted[size], fidelity)

    def _grow(self, z: Floats32, places: Ints, leaves: int) -> TreeNodes:
        """A tree with at most so many leaves."""
        from sklearn.tree import DecisionTreeClassifier  # which only a fit needs

        smallest = max(1, round(self.settings.smallest_leaf * len(z)))
        classifier = DecisionTreeClassifier(
            max_leaf_nodes=leaves, min_samples_leaf=smallest, random_state=self.settings.seed
        )
        return TreeNodes.from_sklearn(classifier.fit(z, places))

    def _fit_final(
        self, best: _CrossValidation, tabular: TabularFeatures, z: Floats32, places: Ints, rows: Snapshots
    ) -> None:
        """The tree on all rows, with only the columns that it tests."""
        nodes = self._grow(z, places, best.size)
        tested = np.unique(nodes.column[nodes.column != LEAF])
        number = np.full(len(best.columns) + 1, LEAF, np.int64)
        number[tested] = np.arange(len(tested))
        self.columns_ = tuple(best.columns[c] for c in tested)
        self.nodes_ = replace(nodes, column=number[nodes.column])
        used = list(dict.fromkeys(column.feature for column in self.columns_))
        self.tabular_ = tabular.select(used) if used else tabular
        self.choice_ = pd.DataFrame({"leaves": list(best.by_size), "fidelity": list(best.by_size.values())})
        self.fidelity_ = share_over_customers(best.predicted == places, rows.customer)
        self.rules_ = rules_table(
            self.nodes_, self.columns_, z[:, tested], self.segments, places, best.predicted, rows.customer
        )


@dataclass(frozen=True)
class _CrossValidation:
    """Result for one set of columns.

    Attributes:
        columns: the set.
        size: the number of leaves to take.
        fidelity: of that size.
        predicted: (n,) out-of-fold segments of that size.
        by_size: number of leaves -> fidelity.
    """

    columns: tuple[ReadableColumn, ...]
    size: int
    fidelity: float
    predicted: Ints
    by_size: dict[int, float]


def _column_sets(tabular: TabularFeatures, x: Floats32, names: list[str]) -> list[tuple[ReadableColumn, ...]]:
    """Sets of columns to try, everyday ones first, all of them last."""
    every = readable_columns(tabular)
    present = dict(zip(names, np.isfinite(x).mean(axis=0), strict=True))
    easy = tuple(c for c in every if c.ease == EASY and (c.level is not None or present[c.feature] >= LEAST_PRESENT))
    plain = tuple(column for column in every if column.ease >= PLAIN)
    return [columns for columns in (easy, plain) if columns and len(columns) < len(every)] + [every]


def _folds(snapshots: Snapshots, settings: TreeSettings) -> Ints:
    """(n,) the fold of each row; rows of unknown customers share one."""
    ids = [id if id is not None else "" for id in snapshots.customer_ids]
    return stable_groups(np.array(ids, dtype=object), settings.folds, settings.seed)

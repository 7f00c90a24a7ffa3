"""A short decision tree that says who is in which segment, in words, and how often it is right.

    tree = SegmentTree().fit(tabular, snapshots, place, segmentation.segments)
    tree.fidelity            # share of customers for whom the tree says their segment, on customers it did not see
    tree.rules               # a row a segment: the rule in words
    tree.assign(snapshots)   # (n,) places, without scikit-learn

The number of leaves is the fewest whose cross-validated fidelity lies within one standard error of the best (Breiman
et al. 1984, Classification and Regression Trees, 3.4.3) or one point; customers are kept whole in folds. Everyday
features are tried first, and those that take longer to explain only where fidelity asks for them. Thresholds are
rounded to three digits before anything is measured, so that what is read is what is applied.
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

GOOD_ENOUGH = 0.9  # fidelity at which no words are tried that take longer to explain
WORTH_MORE = 0.02  # gain in fidelity for which such words are used, or more leaves
MOSTLY_KNOWN = 0.95  # share of rows for which an everyday column must be known


class TreeSettings(Section):
    """How long the rule may be.

    Attributes:
        most_leaves: at most so many, but never fewer than there are segments.
        folds: groups of customers for the cross-validation.
        smallest_leaf: share of customers that a leaf has at the least.
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
        """Learn the rule.

        Args:
            tabular: fitted features; only those that the rule asks are kept.
            snapshots: (n,) rows; those in no segment are left out.
            place: (n,) place of each row in `segments`.
            segments: the partition.

        Raises:
            DataError: fewer than two segments have customers, or there are too few customers to check it on others.
        """
        places = check_places(segments, snapshots, place)
        rows = self._sampled(np.flatnonzero(places >= 0))
        if len(np.unique(places[rows])) < 2:
            raise DataError("a rule needs customers in two segments at least: choose a partition with more")
        some, self.segments = snapshots.take(rows), tuple(segments)
        groups = _folds(some, self.settings)
        if len(np.unique(groups)) < 2:
            raise DataError("the rule cannot be checked on customers that it did not see: give more customers")
        x, names = tabular.transform(some), tabular.get_feature_names_out()
        found: _Search | None = None
        for columns in _vocabularies(tabular, x, names):
            tried = self._searched(columns, x, names, places[rows], groups)
            if found is None or tried.fidelity > found.fidelity + WORTH_MORE:
                found = tried
            if found.fidelity >= GOOD_ENOUGH:
                break
        assert found is not None, "there is at least the vocabulary of everything"
        self._keep(found, tabular, x, names, places[rows], some)
        return self

    def assign(self, snapshots: Snapshots) -> npt.NDArray[np.int32]:
        """(n,) the segment that the rule says, as a place in `segments`."""
        return self.nodes_.place[self.nodes_.leaves(self._columns(snapshots))].astype(np.int32)

    @property
    def fidelity(self) -> Estimate:
        """Share of rows for which a tree that did not see their customer says their segment, with its interval."""
        return self.fidelity_

    @property
    def rules(self) -> pd.DataFrame:
        """A row a segment: id, segment, rule (words), leaves, customers, found, found_low, found_high, right, ….

        `found` is the share of the segment's customers that the rule finds, `right` the share of those whom the rule
        puts there that belong there; both on customers that the tree did not see, with 95 % intervals.
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
            DataError: the folder holds no tree, or one that does not hang together.
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
        """(n, c) the columns that the rule asks."""
        if not self.columns_:
            return np.zeros((len(snapshots), 0), np.float32)
        return column_values(self.columns_, self.tabular_.transform(snapshots), self.tabular_.get_feature_names_out())

    def _sampled(self, rows: Ints) -> Ints:
        if len(rows) <= self.settings.most_rows:
            return rows
        rng = np.random.default_rng(self.settings.seed)
        return np.sort(rng.choice(rows, self.settings.most_rows, replace=False))

    def _searched(
        self, columns: tuple[ReadableColumn, ...], x: Floats32, names: list[str], places: Ints, groups: Ints
    ) -> _Search:
        """Out-of-fold answers for every number of leaves, and the number to take."""
        z = column_values(columns, x, names)
        k = len(np.unique(places))
        most = max(self.settings.most_leaves, k)
        sizes = sorted({k, *range(k + 1, most + 1, 2), most})
        said = {size: np.empty(len(places), np.int64) for size in sizes}
        for held_out in np.unique(groups):
            fit, check = groups != held_out, groups == held_out
            for size in sizes:
                nodes = self._grown(z[fit], places[fit], size)
                said[size][check] = nodes.place[nodes.leaves(z[check])]
        right = {size: float((found == places).mean()) for size, found in said.items()}
        best = max(right.values())
        slack = max(WORTH_MORE / 2, np.sqrt(best * (1 - best) / len(places)))
        size = min(size for size in sizes if right[size] >= best - slack)
        return _Search(columns, size, right[size], said[size], right)

    def _grown(self, z: Floats32, places: Ints, leaves: int) -> TreeNodes:
        """A tree with at most so many leaves."""
        from sklearn.tree import DecisionTreeClassifier  # which only a fit needs

        smallest = max(1, round(self.settings.smallest_leaf * len(z)))
        classifier = DecisionTreeClassifier(
            max_leaf_nodes=leaves, min_samples_leaf=smallest, random_state=self.settings.seed
        )
        return TreeNodes.from_sklearn(classifier.fit(z, places))

    def _keep(
        self, found: _Search, tabular: TabularFeatures, x: Floats32, names: list[str], places: Ints, some: Snapshots
    ) -> None:
        """The tree on all rows, with only the columns that it asks."""
        z = column_values(found.columns, x, names)
        nodes = self._grown(z, places, found.size)
        asked = np.unique(nodes.column[nodes.column != LEAF])
        place = np.full(len(found.columns) + 1, LEAF, np.int64)
        place[asked] = np.arange(len(asked))
        self.columns_ = tuple(found.columns[c] for c in asked)
        self.nodes_ = replace(nodes, column=place[nodes.column])
        used = list(dict.fromkeys(column.feature for column in self.columns_))
        self.tabular_ = tabular.select(used) if used else tabular
        self.choice_ = pd.DataFrame({"leaves": list(found.tried), "fidelity": list(found.tried.values())})
        self.fidelity_ = share_over_customers(found.said == places, some.customer)
        self.rules_ = rules_table(
            self.nodes_, self.columns_, z[:, asked], self.segments, places, found.said, some.customer
        )


@dataclass(frozen=True)
class _Search:
    """What cross-validation found for one set of columns."""

    columns: tuple[ReadableColumn, ...]
    size: int
    fidelity: float
    said: Ints
    tried: dict[int, float]


def _vocabularies(tabular: TabularFeatures, x: Floats32, names: list[str]) -> list[tuple[ReadableColumn, ...]]:
    """Sets of columns to try, everyday ones first, everything last."""
    every = readable_columns(tabular)
    known = dict(zip(names, np.isfinite(x).mean(axis=0), strict=True))
    easy = tuple(c for c in every if c.ease == EASY and (c.level is not None or known[c.feature] >= MOSTLY_KNOWN))
    plain = tuple(column for column in every if column.ease >= PLAIN)
    return [some for some in (easy, plain) if some and len(some) < len(every)] + [every]


def _folds(snapshots: Snapshots, settings: TreeSettings) -> Ints:
    """(n,) the fold of each row; rows of unknown customers share one."""
    ids = [one if one is not None else "" for one in snapshots.customer_ids]
    return stable_groups(np.array(ids, dtype=object), settings.folds, settings.seed)

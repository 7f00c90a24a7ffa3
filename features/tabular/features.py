"""Tabular features: what is known about a customer at a cutoff, as one row of numbers.

    features = TabularFeatures().fit(train)          # vocabularies from training events only
    x = features.transform(snapshots)                # (n, f) float32
    features.describe()                              # name, group and meaning of every column

The same compiled function serves a single request and a whole log; a batch of one gives the same bits as a batch of
many. Times are UTC; a snapshot sees events strictly before its cutoff, because snapshots hold no other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from itertools import pairwise
from typing import Any, Self

import numba
import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import ConfigError, DataError, nearest
from features.journeys.journeys import Snapshots
from features.tabular.catalogue import GROUPS, Feature, catalogue
from features.tabular.group import Learned
from features.tabular.layout import Layout
from features.tabular.learning import learn, suitable_windows_days
from features.tabular.rows import fill_rows
from features.tabular.settings import TabularSettings

Matrix = npt.NDArray[np.float32]
SERIAL_EVENTS = 100_000  # below this many events a thread costs more than it brings


class TabularFeatures:
    """Snapshots in, (n, f) float32 out.

    After `fit`: `settings_` (with the windows that were chosen), `learned_` (vocabularies), `features_` (the columns of
    the matrix), `dropped_` (name -> why).

    Args:
        settings: what to compute; the defaults suit most logs.
        overrides: single settings by name, e.g. `windows_days=(7, 30)`.
    """

    def __init__(self, settings: TabularSettings | None = None, **overrides: Any) -> None:
        settings = settings or TabularSettings()
        self.settings = TabularSettings(**{**settings.model_dump(), **overrides}) if overrides else settings
        self.settings_ = self.settings
        self.learned_: Learned | None = None
        self.features_: list[Feature] = []
        self._by_name: dict[str, Feature] = {}
        self.dropped_: dict[str, str] = {}

    def fit(self, snapshots: Snapshots) -> Self:
        """Learn vocabularies from the events that these snapshots see, and which columns are worth their place.

        Raises:
            DataError: there is no event to learn from.
        """
        windows = self.settings.windows_days or suitable_windows_days(snapshots)

        def sample() -> Matrix:
            return self.transform(snapshots.take(rows_to_check(len(snapshots), self.settings.check_rows)))

        return self.fit_learned(windows, learn(snapshots, self.settings), sample)

    def fit_learned(self, windows: tuple[float, ...], learned: Learned, sample: Callable[[], Matrix]) -> Self:
        """Fit to what was learned of one log, or of all parts of one.

        Args:
            windows: in days.
            learned: vocabularies and the like.
            sample: gives the features of the rows that decide what is redundant, in any order; see `rows_to_check`.
        """
        self.settings_ = self.settings.model_copy(update={"windows_days": windows})
        self._lay_out(learned, None)
        self.dropped_ = {}
        if self.settings.drop_redundant:
            self.dropped_ = redundant_columns(sample(), self.get_feature_names_out())
            self._lay_out(learned, [f.name for f in self.features_ if f.name not in self.dropped_])
        return self

    def transform(self, snapshots: Snapshots) -> Matrix:
        """(n, f) float32. Counts and sums are 0 and the rest is NaN where a snapshot has no events."""
        self._fitted()
        arguments = self._layout.arguments(snapshots.journeys)
        bounds = np.empty((len(snapshots), 3), np.int64)
        bounds[:, 0] = snapshots.start
        bounds[:, 1] = snapshots.stop
        bounds[:, 2] = snapshots.cutoff
        out = np.empty((len(snapshots), len(self._keep)), np.float32)
        if len(bounds) > 1 and int((bounds[:, 1] - bounds[:, 0]).sum()) > SERIAL_EVENTS:
            self._fill_in_threads(out, bounds, arguments)
        else:
            fill_rows(out, self._keep, bounds, *arguments)
        return out

    def _fill_in_threads(self, out: Matrix, bounds: npt.NDArray[np.int64], arguments: tuple[Any, ...]) -> None:
        """The same function on blocks of rows, one thread a core: it holds no lock and shares nothing."""
        threads = int(numba.config.NUMBA_NUM_THREADS)  # type: ignore[attr-defined]
        if threads == 1:
            fill_rows(out, self._keep, bounds, *arguments)
            return
        ends = np.cumsum(bounds[:, 1] - bounds[:, 0] + 10)  # a row without events costs as much as ten events
        cuts = np.searchsorted(ends, np.linspace(0, ends[-1], 8 * threads + 1)[1:-1])
        edges = np.unique(np.concatenate(([0], cuts, [len(bounds)])))
        with ThreadPoolExecutor(threads) as pool:
            blocks = [
                pool.submit(fill_rows, out[low:high], self._keep, bounds[low:high], *arguments)
                for low, high in pairwise(edges)
            ]
        for block in blocks:
            block.result()  # raises what went wrong there

    def select(self, names: Sequence[str]) -> Self:
        """The same fit with these columns only, in this order; groups that none of them needs cost nothing.

        Raises:
            DataError: a name is none of this fit's columns.
        """
        if unknown := [name for name in names if name not in self._by_name]:
            close = nearest(unknown[0], self._by_name)
            raise DataError(f"there is no feature {unknown[0]!r}" + (f"; did you mean {close!r}?" if close else ""))
        return self.from_dict({**self.to_dict(), "names": list(names)})

    def get_feature_names_out(self) -> list[str]:
        """(f,) names of the columns."""
        self._fitted()
        return [feature.name for feature in self.features_]

    @property
    def categorical_features(self) -> list[str]:
        """The columns whose values are codes: LightGBM may take them as categories."""
        return [feature.name for feature in self.features_ if feature.categorical]

    def describe(self) -> pd.DataFrame:
        """One row a column: name, group, meaning, categorical."""
        self._fitted()
        return pd.DataFrame([asdict(f) for f in self.features_], columns=["name", "group", "meaning", "categorical"])

    def group_of(self, name: str) -> str:
        """The group of a column."""
        return self._by_name[name].group

    def meaning_of(self, name: str) -> str:
        """The meaning of a column, one line."""
        return self._by_name[name].meaning

    def unseen(self, snapshots: Snapshots) -> dict[str, dict[str, int]]:
        """Values outside the vocabularies, with their events in these rows' journeys, by column.

        Kernels count them as `other`; a monitor lists them.
        """
        learned = self._fitted()
        stops = np.zeros(snapshots.journeys.n_events + 1, np.int64)
        np.add.at(stops, snapshots.start, 1)
        np.add.at(stops, snapshots.stop, -1)
        visible = np.cumsum(stops[:-1]) > 0
        unseen: dict[str, dict[str, int]] = {}
        for column, vocabulary in learned.vocabularies.items():
            category = snapshots.journeys.categories.get(column)
            if category is not None:
                counts = np.bincount(category.codes[visible] + 1, minlength=len(category.names) + 1)[1:]
                new = {n: int(c) for n, c in zip(category.names, counts, strict=True) if c and n not in vocabulary}
                unseen |= {column: new} if new else {}
        return unseen

    def to_dict(self) -> dict[str, Any]:
        """The fitted state as JSON-ready data."""
        return {
            "settings": self.settings_.model_dump(mode="json"),
            "learned": asdict(self._fitted()),
            "names": self.get_feature_names_out(),
            "dropped": self.dropped_,
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            DataError: the state names a feature that this version does not compute.
        """
        features = cls(TabularSettings(**data["settings"]))
        learned = dict(data["learned"])
        learned["vocabularies"] = {column: tuple(values) for column, values in learned["vocabularies"].items()}
        for name in ("properties", "profile", "profile_numbers", "units", "has"):
            learned[name] = tuple(learned[name])
        features.dropped_ = dict(data["dropped"])
        features._lay_out(Learned(**learned), data["names"])
        return features

    def _fitted(self) -> Learned:
        if self.learned_ is None:
            raise ConfigError("these features are not fitted: call fit(training_snapshots) first")
        return self.learned_

    def _lay_out(self, learned: Learned, names: list[str] | None) -> None:
        """Choose the columns, all for None, and lay out what does not depend on a log."""
        groups = tuple(
            group.name for group in GROUPS if group.name in self.settings.groups and group.available(learned)
        )
        features = {feature.name: feature for feature in catalogue(learned, self.settings_.widths(), groups)}
        if names is not None:
            if unknown := [name for name in names if name not in features]:
                raise DataError(f"this version has no feature {unknown[0]!r}: train the model again")
            needed = {features[name].group for name in names}
            groups = tuple(group for group in groups if group in needed)
            features = {name: feature for name, feature in features.items() if feature.group in needed}
        places = {name: place for place, name in enumerate(features)}
        self.learned_ = learned
        self.features_ = [features[name] for name in (features if names is None else names)]
        self._by_name = {feature.name: feature for feature in self.features_}
        self._keep = np.array([places[feature.name] for feature in self.features_], np.uint64)
        self._layout = Layout(learned, self.settings_, groups, len(features))


def rows_to_check(n: int, most: int) -> npt.NDArray[np.int64]:
    """Which of `n` training rows, evenly spread, decide what is redundant."""
    return np.unique(np.linspace(0, n - 1, min(most, n)).astype(np.int64))


def redundant_columns(x: Matrix, names: list[str]) -> dict[str, str]:
    """Columns that are constant, or bit for bit equal to an earlier one: name -> why."""
    why: dict[str, str] = {}
    first: dict[bytes, str] = {}
    for column, name in zip(np.ascontiguousarray(x.T), names, strict=True):
        column[np.isnan(column)] = np.nan  # one bit pattern
        bits = column.tobytes()
        if (column.view(np.int32) == column.view(np.int32)[0]).all():
            why[name] = "constant in training"
        elif bits in first:
            why[name] = f"equal to {first[bits]} in training"
        else:
            first[bits] = name
    return why

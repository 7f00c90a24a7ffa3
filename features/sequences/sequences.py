"""Sequences: journeys as ragged batches of steps, for models that read them in order.

    sequences = SequenceFeatures().fit(train)        # vocabularies and scales from training events only
    batch = sequences.batch(snapshots)               # every step of every row, nothing padded
    batch.codes, batch.numbers                       # (C, E) int32, (E, F) float32

A step is one event, or the events of one moment and touchpoint (the lines of an invoice). It carries categories,
numbers with what is missing marked, the time since the step before and the time to the cutoff. The same code makes a
batch of thousands and a batch of one. A sub-journey is a snapshot with another start or stop: nothing is copied.
"""

from __future__ import annotations

import weakref
from dataclasses import asdict, dataclass
from typing import Any, Literal, Self

import numpy as np
import numpy.typing as npt
from pydantic import Field

from features.errors import ConfigError
from features.journeys.journeys import Journeys, Snapshots, as_readonly
from features.sequences.kernels import (
    DAY_US,
    code_steps,
    count_in_steps,
    count_steps,
    lay_out,
    number_steps,
    previous_alike,
    repeats_in_steps,
    time_steps,
)
from features.settings import Section
from features.tabular.learning import visible_events, vocabulary

MISSING, OTHER, FIRST_VALUE = 0, 1, 2
FIT_ROWS = 5_000  # training rows whose steps decide the scales
TIME_NAMES = ("gap", "is_first", "age", "day_sin", "day_cos", "week_sin", "week_cos")
CONTEXT_NAMES = ("steps", "tenure", "recency")
STEPS_ONLY = 1  # context that says nothing of time
SUMMED = ("value", "duration_s")  # of the events of a step; of other numbers it has the mean

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.int64]


class SequenceSettings(Section):
    """What a step carries, and how many of them a row keeps.

    Attributes:
        max_steps: the latest so many steps of a journey.
        gather: make one step of all events of one moment and touchpoint; their values and durations are summed.
        top_values: how many values of a category have a code of their own, by frequency; the rest share `other`.
        top_items: the same for items.
        min_count: values with fewer training events go to `other`.
        categories: which categorical columns beside the touchpoint; None takes all that the log has.
        time: whether a step knows when it was. Without, only the order is left.
        order: "shuffled" exchanges the contents of a row's steps and leaves the moments where they are: what a model
            loses by it is what the order was worth. What came again goes with its step, so a little is left to it.
    """

    max_steps: int = Field(default=256, ge=1)
    gather: bool = True
    top_values: int = Field(default=60, ge=1)
    top_items: int = Field(default=300, ge=1)
    min_count: int = Field(default=20, ge=1)
    categories: tuple[str, ...] | None = None
    time: bool = True
    order: Literal["kept", "shuffled"] = "kept"


@dataclass(frozen=True)
class SequenceBatch:
    """The steps of B journeys, time-major: all first steps, then all second ones, the longest journey first.

    Attributes:
        codes: (C, E) int32, a category a row: 0 missing, 1 other, then the vocabulary.
        numbers: (E, F) float32, scaled; 0 where missing.
        gap_days: (E,) float32, since the step before, 0 for a first step (and everywhere without time).
        age_days: (E,) float32, from the step to the cutoff (0 without time).
        owner: (E,) int64, the row of each step by rank.
        context: (B, K) float32 by rank: what the row as a whole is like.
        batch_sizes: (T,) int64, how many rows have a step s: steps lie at `offsets[s] : offsets[s] + batch_sizes[s]`.
        lengths: (B,) int64, steps by rank, falling.
        rows: (B,) int64, the row in the snapshots that each rank is.
    """

    codes: npt.NDArray[np.int32]
    numbers: Floats
    gap_days: Floats
    age_days: Floats
    owner: Ints
    context: Floats
    batch_sizes: Ints
    lengths: Ints
    rows: Ints

    @property
    def n_steps(self) -> int:
        """E, the real steps: there are no others."""
        return len(self.gap_days)

    @property
    def offsets(self) -> Ints:
        """(T + 1,) where step s of the first rank lies."""
        return np.concatenate(([0], np.cumsum(self.batch_sizes)))

    def padded(self) -> Ints:
        """(B, T) int64: where each rank's steps lie, -1 beyond its end."""
        steps = np.arange(len(self.batch_sizes))
        index = self.offsets[:-1] + np.arange(len(self.lengths))[:, None]  # (B, T)
        return np.where(steps < self.lengths[:, None], index, -1)


@dataclass(frozen=True)
class SequenceLayout:
    """Vocabularies and scales of a fit.

    Attributes:
        vocabularies: column → its values with a code of their own, the most frequent first.
        numbers: (F,) names of the numbers of a step.
        mean, scale: (F,) of the numbers in training.
        context_mean, context_scale: (K,) of the context.
    """

    vocabularies: dict[str, tuple[str, ...]]
    numbers: tuple[str, ...]
    columns: tuple[str, ...]
    mean: tuple[float, ...] = ()
    scale: tuple[float, ...] = ()
    context_mean: tuple[float, ...] = ()
    context_scale: tuple[float, ...] = ()


class SequenceFeatures:
    """Turns snapshots into batches of steps; fitted on training events only."""

    def __init__(self, settings: SequenceSettings | None = None) -> None:
        self.settings = settings or SequenceSettings()
        self._bound: dict[int, tuple[Any, _Log]] = {}

    def fit(self, snapshots: Snapshots) -> Self:
        """Learn vocabularies and scales from the events before the cutoffs of (n,) training snapshots.

        Raises:
            ConfigError: the settings name a category that the log does not have.
        """
        journeys, s = snapshots.journeys, self.settings
        names = tuple(dict.fromkeys(("touchpoint", *(journeys.categories if s.categories is None else s.categories))))
        if missing := [column for column in names if column not in journeys.categories]:
            raise ConfigError(
                f"The log has no column {missing[0]!r} for sequences; it has {sorted(journeys.categories)}."
            )
        visible = visible_events(snapshots)
        sizes = {column: s.top_items if column == "item" else s.top_values for column in names}
        vocabularies = {c: vocabulary(journeys.categories[c], visible, sizes[c], s.min_count) for c in names}
        columns = tuple(journeys.numbers)
        self._plan(SequenceLayout(vocabularies, _number_names(columns, s.time, "item" in names), columns))
        rows = np.unique(np.linspace(0, len(snapshots) - 1, min(FIT_ROWS, len(snapshots))).astype(np.int64))
        sample = self.batch(snapshots.take(rows))
        mean, scale = _scales(sample.numbers)
        context_mean, context_scale = _scales(sample.context)
        self._plan(
            SequenceLayout(vocabularies, self.layout_.numbers, columns, mean, scale, context_mean, context_scale)
        )
        return self

    @property
    def sizes(self) -> dict[str, int]:
        """How many codes each category has, missing and other included."""
        return {column: FIRST_VALUE + len(values) for column, values in self.layout_.vocabularies.items()}

    @property
    def n_numbers(self) -> int:
        """F, the numbers of a step."""
        return len(self.layout_.numbers)

    @property
    def n_context(self) -> int:
        """K, the numbers of a row."""
        return len(CONTEXT_NAMES) if self.settings.time else STEPS_ONLY

    def lengths(self, snapshots: Snapshots) -> Ints:
        """(n,) steps that each row has in a batch: to put rows of a kind into one batch."""
        return self._count(snapshots)[1]

    def batch(self, snapshots: Snapshots) -> SequenceBatch:
        """All steps of (B,) snapshots; rows without an event have none."""
        log = self._bind(snapshots.journeys)
        first, lengths = self._count(snapshots)
        rows = np.argsort(-lengths, kind="stable")
        ranked = lengths[rows]
        batch_sizes = _batch_sizes(ranked)
        offsets = np.concatenate(([0], np.cumsum(batch_sizes)))
        begin, end, moment, before, owner = (np.empty(offsets[-1], np.int64) for _ in range(5))
        lay_out(
            log.t, log.touchpoints, first, snapshots.stop, snapshots.cutoff, rows, lengths, offsets,
            self.settings.gather, self.settings.order == "shuffled", begin, end, moment, before, owner,
        )  # fmt: skip
        numbers = np.empty((len(owner), self.n_numbers), np.float32)
        gap_days, age_days = (np.zeros(len(owner), np.float32) for _ in range(2))
        at = self._fill_numbers(log, snapshots.start[rows], begin, end, owner, numbers)
        if self.settings.time:
            starts = int(offsets[1]) if len(offsets) > 1 else 0
            time_steps(
                moment, before, snapshots.cutoff[rows], owner, starts, self._mean, self._scale, at, numbers,
                gap_days, age_days,
            )  # fmt: skip
        return SequenceBatch(
            codes=self._codes(log, end),
            numbers=numbers,
            gap_days=gap_days,
            age_days=age_days,
            owner=owner,
            context=self._context(log, snapshots.take(rows)),
            batch_sizes=batch_sizes,
            lengths=ranked,
            rows=rows,
        )

    def to_dict(self) -> dict[str, Any]:
        """The fitted state as JSON-ready data."""
        return {"settings": self.settings.model_dump(mode="json"), "layout": asdict(self.layout_)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """The inverse of `to_dict`."""
        layout = {name: tuple(value) for name, value in data["layout"].items() if name != "vocabularies"}
        vocabularies = {column: tuple(values) for column, values in data["layout"]["vocabularies"].items()}
        features = cls(SequenceSettings(**data["settings"]))
        features._plan(SequenceLayout(vocabularies=vocabularies, **layout))
        return features

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_bound": {}}

    def _plan(self, layout: SequenceLayout) -> None:
        self.layout_ = layout
        nothing = np.zeros(len(layout.numbers))  # a scale of 0 tells the kernels to leave numbers as they are
        self._mean, self._scale = np.array(layout.mean or nothing), np.array(layout.scale or nothing)
        self._bound = {}

    def _count(self, snapshots: Snapshots) -> tuple[Ints, Ints]:
        log = self._bind(snapshots.journeys)
        first, lengths = np.empty(len(snapshots), np.int64), np.empty(len(snapshots), np.int64)
        most, gather = self.settings.max_steps, self.settings.gather
        count_steps(log.t, log.touchpoints, snapshots.start, snapshots.stop, most, gather, first, lengths)
        return first, lengths

    def _codes(self, log: _Log, end: Ints) -> npt.NDArray[np.int32]:
        """(C, E) codes of the last event of each step."""
        codes = np.empty((len(log.categories), len(end)), np.int32)
        for out, (column, lut) in zip(codes, log.categories, strict=True):
            code_steps(column, lut, end, out)
        return codes

    def _fill_numbers(self, log: _Log, first: Ints, begin: Ints, end: Ints, owner: Ints, out: Floats) -> int:
        """Fill the columns of (E, F) that are not times; the place of the next one."""
        count_in_steps(begin, end, self._mean, self._scale, 0, out)
        at = 1
        for column in self.layout_.columns:
            values = log.numbers.get(column)
            if values is None:
                out[:, at : at + 2] = [0.0, self._none_of(at + 1)]
            else:
                number_steps(values, column in SUMMED, begin, end, self._mean, self._scale, at, out)
            at += 2
        if "item" in self.layout_.vocabularies:
            repeats_in_steps(log.previous, first, begin, end, owner, self._mean, self._scale, at, out)
            at += 1
        return at

    def _none_of(self, at: int) -> float:
        """The value of a `has_` column where the log lacks the number."""
        return float(np.clip(-self._mean[at] / self._scale[at], -8.0, 8.0))

    def _context(self, log: _Log, ranked: Snapshots) -> Floats:
        """(B, K): how many events, for how long, how recent; zero for a row without events."""
        events = (ranked.stop - ranked.start).astype(np.float64)
        raw = [np.log1p(events)]
        if self.settings.time:
            active = events > 0
            for event in (ranked.start, ranked.stop - 1):
                days = np.zeros(len(ranked))
                days[active] = (ranked.cutoff[active] - log.t[event[active]]) / DAY_US
                raw.append(np.log1p(days))
        return self._scaled(np.stack(raw, axis=1), self.layout_.context_mean, self.layout_.context_scale)

    @staticmethod
    def _scaled(raw: npt.NDArray[np.float64], mean: tuple[float, ...], scale: tuple[float, ...]) -> Floats:
        """Float32, and scaled once a fit knows how."""
        scaled = np.clip((raw - np.array(mean)) / np.array(scale), -8.0, 8.0) if mean else raw
        return np.asarray(scaled, np.float32)

    def _bind(self, journeys: Journeys) -> _Log:
        """A log's columns for the kernels, kept as long as the log lives."""
        bound = self._bound.get(id(journeys))
        if bound is not None and bound[0]() is journeys:
            return bound[1]
        log, key = _Log.of(journeys, self.layout_), id(journeys)
        self._bound[key] = (weakref.ref(journeys, lambda _: self._bound.pop(key, None)), log)
        return log


@dataclass(frozen=True)
class _Log:
    """A log's columns, and the codes that a fit gives its names."""

    t: Ints
    touchpoints: npt.NDArray[np.int32]
    categories: list[tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]]
    numbers: dict[str, npt.NDArray[np.float64]]
    previous: Ints

    @classmethod
    def of(cls, journeys: Journeys, layout: SequenceLayout) -> _Log:
        t = as_readonly(journeys.t, np.int64)
        item = journeys.categories.get("item") if "item" in layout.vocabularies else None
        previous = as_readonly([], np.int64)
        if item is not None:
            codes, borders = as_readonly(item.codes, np.int32), as_readonly(journeys.offsets, np.int64)
            previous = as_readonly(previous_alike(t, codes, borders, len(item.names)), np.int64)
        return cls(
            t,
            as_readonly(journeys.categories["touchpoint"].codes, np.int32),
            [_coded(journeys, column, values) for column, values in layout.vocabularies.items()],
            {c: as_readonly(journeys.numbers[c], np.float64) for c in layout.columns if c in journeys.numbers},
            previous,
        )


def _coded(
    journeys: Journeys, column: str, values: tuple[str, ...]
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """The log's codes of a column, and the fit's code for each of them, the missing one first."""
    category = journeys.categories.get(column)
    if category is None:
        return as_readonly(np.full(journeys.n_events, -1), np.int32), np.zeros(1, np.int32)
    places = {value: FIRST_VALUE + place for place, value in enumerate(values)}
    lut = np.array([MISSING, *(places.get(name, OTHER) for name in category.names)], np.int32)
    return as_readonly(category.codes, np.int32), lut


def _number_names(columns: tuple[str, ...], time: bool, items: bool) -> tuple[str, ...]:
    of_columns = [name for column in columns for name in (column, f"has_{column}")]
    return ("events", *of_columns, *(("again",) if items else ()), *(TIME_NAMES if time else ()))


def _scales(values: Floats) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """(F,) means and standard deviations without NaN; 1 for a column that never changes."""
    valued = ~np.isnan(values)
    count = np.maximum(valued.sum(axis=0), 1)
    filled = np.where(valued, values, 0.0).astype(np.float64)
    mean = filled.sum(axis=0) / count
    spread = np.sqrt(np.where(valued, (filled - mean) ** 2, 0.0).sum(axis=0) / count)
    return tuple(mean.tolist()), tuple(np.where(spread > 1e-6, spread, 1.0).tolist())


def _batch_sizes(ranked: Ints) -> Ints:
    """(T,) how many of the rows, the longest first, have a step s."""
    longest = int(ranked[0]) if len(ranked) else 0
    return len(ranked) - np.searchsorted(ranked[::-1], np.arange(longest), side="right")

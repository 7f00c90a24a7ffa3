"""Watching what is served: after an answer a row for `journeylab monitor`, without identifiers and event values.

    JOURNEYLAB_MONITOR=/var/lib/journeylab/monitor   # a folder for rows; without it nothing is recorded
    JOURNEYLAB_MONITOR=bentoml                       # or: to wherever BentoML's own `monitoring` configuration says
    JOURNEYLAB_MONITOR_KEY_FILE=…           # for pseudonyms that outlive the process: `features.privacy.pseudonyms`
    JOURNEYLAB_MONITOR_RATE=1                        # rows a second, champion and process, at the most
    JOURNEYLAB_MONITOR_MB=2000                       # of all files together; the oldest go first

It is off by default: rows about persons are kept where somebody decided so. An answer puts its snapshot in a queue and
is sent; a thread makes the row, in pauses. Where more is asked than the rate allows, a row says for how many it stands.

    at           when it was answered          who, key        pseudonym; by which key it was made
    champion     registered name, and its      as_of           the moment that was asked about, to the second
    version      version                       score, segment  what was answered first
    reference    what `bins` refer to          events          how many were seen; unknown: with a strange touchpoint
    stands_for   answers                       missing         columns of which the journey has no value
    bins         a digit a feature, no value   touchpoints     in rows of their own: of so many `answers`, in how many

Touchpoints are counted over at least `MIN_ANSWERS_COUNTED` answers, and by names that training knew.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from features.errors import ConfigError
from serving.champions.champions import Champions, Origin
from serving.requests.schemas import as_text

if TYPE_CHECKING:
    from features.journeys.journeys import Snapshots
    from features.privacy.pseudonyms import Pseudonyms
    from models.scoring.training_reference import TrainingReference

MONITOR, RATE, MEGABYTES = "JOURNEYLAB_MONITOR", "JOURNEYLAB_MONITOR_RATE", "JOURNEYLAB_MONITOR_MB"
TO_BENTOML = "bentoml"
BURST_S = 60.0  # what a quiet minute leaves over may be used at once
QUEUED = 500  # rows that wait at the most; beyond, the oldest are lost
GATHER_S, PAUSE_S = 1.0, 0.002
AT_ONCE = 10
MIN_ANSWERS_COUNTED = 25
COUNT_INTERVAL_S = 300.0
SECOND_US = 1_000_000
COLUMNS = {
    "at": ("feature", "categorical"),
    "champion": ("feature", "categorical"),
    "version": ("feature", "categorical"),
    "reference": ("feature", "categorical"),
    "stands_for": ("feature", "numerical"),
    "who": ("feature", "categorical"),
    "key": ("feature", "categorical"),
    "as_of": ("feature", "categorical"),
    "score": ("prediction", "numerical"),
    "segment": ("prediction", "categorical"),
    "events": ("feature", "numerical"),
    "unknown": ("feature", "numerical"),
    "missing": ("feature", "categorical"),
    "bins": ("feature", "categorical"),
    "touchpoints": ("feature", "categorical"),
    "answers": ("feature", "numerical"),
}
Row = dict[str, Any]
logger = logging.getLogger("journeylab.serving")


@dataclass(frozen=True)
class MonitorSettings:
    """What is recorded, and where.

    Attributes:
        folder: for the rows; None leaves it to BentoML's configuration.
        rate: rows a second and champion.
        most_bytes: of all files.
    """

    folder: Path | None
    rate: float = 1.0
    most_bytes: int = 2_000_000_000

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> MonitorSettings | None:
        """As the environment says; None where nothing is to be recorded.

        Raises:
            ConfigError: a rate or size that is no positive number.
        """
        where = environment.get(MONITOR, "").strip()
        if not where:
            return None
        folder = None if where == TO_BENTOML else Path(where)
        return cls(folder, _positive(environment, RATE, 1.0), round(_positive(environment, MEGABYTES, 2000.0) * 1e6))


@dataclass(frozen=True)
class _QueuedAnswer:
    """An answer on its way to a row."""

    champions: Champions
    name: str
    at_us: int
    snapshot: Snapshots
    answer: Any
    customer_id: str | None
    stands_for: float


@dataclass
class _RateLimiter:
    """How many rows a champion may still have, and how many answers went without one."""

    rate: float
    tokens: float = float("inf")  # to begin with, as after a quiet minute
    counted: float = 0.0
    looked: float = field(default_factory=time.monotonic)

    def take(self, answers: int, wanted: int) -> tuple[int, float]:
        """Rows that may be made of so many answers, and for how many answers each of them stands."""
        now = time.monotonic()
        self.tokens = min(max(1.0, self.rate * BURST_S), self.tokens + (now - self.looked) * self.rate)
        self.looked = now
        self.counted += answers
        rows = min(wanted, int(self.tokens))
        if rows == 0:
            return 0, 0.0
        stands_for = self.counted / rows
        self.tokens -= rows
        self.counted = 0.0
        return rows, stands_for


class AnswerMonitor:
    """Sees answers and records them.

    Args:
        settings: what is recorded.
        write: takes rows; by default `serving.monitor.bentoml_monitor`.
    """

    def __init__(self, settings: MonitorSettings, write: Callable[[Sequence[Row]], None] | None = None) -> None:
        self.settings = settings
        self.lost = 0
        self._write = write
        self._meters: dict[Origin, _RateLimiter] = {}
        self._queue: deque[_QueuedAnswer] = deque(maxlen=QUEUED)
        self._awake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._maker: _RowBuilder | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> AnswerMonitor | None:
        """As the environment says; None where nothing is to be recorded. Light: nothing is loaded yet."""
        settings = MonitorSettings.from_environment(environment)
        return None if settings is None else cls(settings)

    def start(self) -> None:
        """Read the key and begin; in the process that answers.

        Raises:
            ConfigError: a key that cannot be used.
        """
        from features.privacy.pseudonyms import Pseudonyms

        if self._thread is not None:
            return
        if self._write is None:
            from serving.monitor.bentoml_monitor import Recorder

            self._write = Recorder(COLUMNS, self.settings.folder, self.settings.most_bytes)
        self._maker = _RowBuilder(Pseudonyms.from_environment() or Pseudonyms.with_new_key())
        self._thread = threading.Thread(target=self._run, name="journeylab-monitor", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def record(
        self,
        champions: Champions,
        name: str,
        snapshot: Snapshots,
        answer: Mapping[str, Any],
        customer_id: str | None = None,
    ) -> None:
        """Take note of an answer; cheap, and it never raises.

        Args:
            champions: who answered.
            name: of the one that did.
            snapshot: of one customer, that was answered.
            answer: what the model said; its first value is kept.
            customer_id: of the request, if it named one.
        """
        try:
            rows, stands_for = self._meter(champions.origins[name]).take(1, 1)
            if rows and self._thread is not None:
                first = next(iter(answer.values()))
                self._put(
                    _QueuedAnswer(champions, name, time.time_ns() // 1000, snapshot, first, customer_id, stands_for)
                )
        except Exception:  # nothing here is worth a failed answer
            self.lost += 1

    def record_many(
        self,
        champions: Champions,
        name: str,
        snapshots: Snapshots,
        answers: npt.NDArray[Any],
        customer_ids: npt.NDArray[np.object_],
        answered: npt.NDArray[np.bool_],
    ) -> None:
        """The same for a call with many customers, of whom a few are drawn at random.

        Args:
            champions: who answered.
            name: of the one that did.
            snapshots: (n,) what was known about each.
            answers: (n,) the first thing that the model said.
            customer_ids: (n,) who they are.
            answered: (n,) who got an answer.
        """
        try:
            there = np.flatnonzero(answered)
            rows, stands_for = self._meter(champions.origins[name]).take(len(there), len(there))
            if rows == 0 or self._thread is None:
                return
            at = time.time_ns() // 1000
            for row in np.random.default_rng().choice(there, rows, replace=False).tolist():
                own, answer = snapshots.take(slice(row, row + 1)), answers[row : row + 1].tolist()[0]
                self._put(_QueuedAnswer(champions, name, at, own, answer, str(customer_ids[row]), stands_for))
        except Exception:
            self.lost += 1

    def close(self) -> None:
        """Write what waits, and end."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._closing.set()
            self._awake.set()
            thread.join(timeout=10)
            atexit.unregister(self.close)

    def _meter(self, origin: Origin) -> _RateLimiter:
        meter = self._meters.get(origin)
        if meter is None:
            meter = self._meters[origin] = _RateLimiter(self.settings.rate)
        return meter

    def _put(self, seen: _QueuedAnswer) -> None:
        self._queue.append(seen)
        if not self._awake.is_set():
            self._awake.set()

    def _run(self) -> None:
        while not self._closing.is_set():
            self._awake.wait()
            self._awake.clear()
            self._closing.wait(GATHER_S)
            self._drain()
        self._drain()
        self._record([])

    def _drain(self) -> None:
        while self._queue:
            self._record([self._queue.popleft() for _ in range(min(AT_ONCE, len(self._queue)))])

    def _record(self, taken: Sequence[_QueuedAnswer]) -> None:
        """Make and write rows; a failure costs these rows and is told by its kind alone."""
        assert self._maker is not None
        assert self._write is not None
        try:
            rows = []
            for seen in taken:
                rows.append(self._maker.row(seen))
                if not self._closing.is_set():
                    time.sleep(PAUSE_S)  # whoever answers comes first
            if rows := [*rows, *self._maker.together(everything=not taken)]:
                self._write(rows)
        except Exception as error:
            self.lost += len(taken)
            logger.error("monitor: %d rows lost: %s", len(taken), type(error).__name__)


class _RowBuilder:
    """Snapshots → rows."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self.pseudonyms = pseudonyms
        self._references: dict[Path, TrainingReference | None] = {}
        self._together: dict[tuple[Any, ...], tuple[Row, Counter[str]]] = {}
        self._since = time.monotonic()

    def row(self, seen: _QueuedAnswer) -> Row:
        """All columns; those of touchpoints are empty."""
        from models.scoring.training_reference import absent

        scorer, reference = seen.champions.scorers[seen.name], self._reference(seen)
        snapshot, named = seen.snapshot, self._named(seen)
        names, events = _touchpoints(snapshot)
        known = scorer.touchpoint_set or frozenset(names)
        unknown = sum(int(n) for name, n in zip(names, events, strict=True) if name not in known)
        self._count(named, (name for name, n in zip(names, events, strict=True) if n and name in known))
        columns = (*scorer.schema.category_columns, *scorer.schema.number_columns)
        number = isinstance(seen.answer, float | np.floating)
        return named | {
            "stands_for": round(seen.stands_for, 3),
            "who": None if seen.customer_id is None else self.pseudonyms.of(seen.customer_id),
            "key": None if seen.customer_id is None else self.pseudonyms.key_id,
            "as_of": as_text(int(snapshot.cutoff[0]) // SECOND_US * SECOND_US),
            "score": float(f"{seen.answer:.6g}") if number and seen.answer == seen.answer else None,
            "segment": None if number or seen.answer is None else str(seen.answer),
            "events": int(events.sum()),
            "unknown": unknown,
            "missing": [column for column in columns if absent(snapshot, column)[0]],
            "bins": None if reference is None else reference.sketch(snapshot)[0],
        }

    def together(self, everything: bool = False) -> list[Row]:
        """Counts of touchpoints over many answers, when it is time."""
        if not everything and time.monotonic() - self._since < COUNT_INTERVAL_S:
            return []
        self._since = time.monotonic()
        whole = {key: kept for key, kept in self._together.items() if kept[0]["answers"] >= MIN_ANSWERS_COUNTED}
        for key in whole:
            del self._together[key]
        return [row | {"touchpoints": dict(counts)} for row, counts in whole.values()]

    def _count(self, named: Row, touchpoints: Iterable[str]) -> None:
        key = (named["champion"], named["version"], named["reference"])
        row, counts = self._together.get(key) or (named | {"answers": 0}, Counter[str]())
        counts.update(touchpoints)
        self._together[key] = (row | {"at": named["at"], "answers": row["answers"] + 1}, counts)

    def _named(self, seen: _QueuedAnswer) -> Row:
        origin, reference = seen.champions.origins[seen.name], self._reference(seen)
        empty: Row = dict.fromkeys(COLUMNS)
        return empty | {
            "at": as_text(seen.at_us // SECOND_US * SECOND_US),
            "champion": origin.name,
            "version": origin.version,
            "reference": None if reference is None else reference.id,
        }

    def _reference(self, seen: _QueuedAnswer) -> TrainingReference | None:
        """Of a champion's training; read when it is first wanted, on the thread that makes rows."""
        from models.scoring.training_reference import TrainingReference

        folder = seen.champions.folders[seen.name]
        if folder not in self._references:
            self._references[folder] = TrainingReference.load(folder)
        return self._references[folder]


def _touchpoints(snapshot: Snapshots) -> tuple[tuple[str, ...], Any]:
    """The log's touchpoints and (k,) how many events that the snapshot sees have each."""
    category = snapshot.journeys.categories["touchpoint"]
    codes = np.asarray(category.codes)[int(snapshot.start[0]) : int(snapshot.stop[0])]
    return category.names, np.bincount(codes[codes >= 0], minlength=len(category.names))


def _positive(environment: Mapping[str, str], name: str, default: float) -> float:
    text = environment.get(name, "")
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise ConfigError(f"{name}={text!r} is no positive number.")
    return value

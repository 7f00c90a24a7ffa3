"""Records of served answers for `journeylab monitor`: rows without identifiers and without values of events.

    JOURNEYLAB_MONITOR=/var/lib/journeylab/monitor   # a folder for rows; without it nothing is recorded
    JOURNEYLAB_MONITOR=bentoml                       # or: to wherever BentoML's own `monitoring` configuration says
    JOURNEYLAB_MONITOR_KEY_FILE=…           # for pseudonyms that outlive the process: `features.privacy.pseudonyms`
    JOURNEYLAB_MONITOR_RATE=1                        # rows a second, champion and process, at the most
    JOURNEYLAB_MONITOR_MB=2000                       # of all files together; the oldest go first

It is off by default: rows about persons are kept only where somebody decided so. An answer puts its snapshot into a
queue and is sent; a thread makes the row later. Where there are more answers than the rate allows, a row says for how
many it stands.

    at           when it was answered          who, key        pseudonym; by which key it was made
    champion     registered name, and its      as_of           the cutoff, to the second
    version      version                       score, segment  the first value of the answer
    reference    what `bins` refer to          events          how many were seen; unknown: with an unknown touchpoint
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

from features.errors import ConfigError
from serving.champions.champions import Champions, Origin
from serving.requests.schemas import as_text

if TYPE_CHECKING:
    from features.journeys.journeys import Snapshots
    from features.privacy.pseudonyms import Pseudonyms
    from models.scoring.training_reference import TrainingReference

MONITOR, RATE, MEGABYTES = "JOURNEYLAB_MONITOR", "JOURNEYLAB_MONITOR_RATE", "JOURNEYLAB_MONITOR_MB"
TO_BENTOML = "bentoml"
BURST_S = 60.0  # the rows that a quiet minute leaves over may be used at once
QUEUED = 500  # rows that wait at the most; beyond, the oldest are lost
GATHER_S, PAUSE_S = 1.0, 0.002
ROWS_AT_ONCE = 10
MIN_ANSWERS_COUNTED = 25
COUNT_INTERVAL_S = 300.0
SECOND_US = 1_000_000
NUMBERS = ("score", "stands_for", "events", "unknown", "answers")
PREDICTIONS = ("score", "segment")
TEXTS = ("at", "champion", "version", "reference", "who", "key", "as_of", "missing", "bins", "touchpoints")
COLUMNS = {  # of a row -> role and type, in BentoML's words
    name: ("prediction" if name in PREDICTIONS else "feature", "numerical" if name in NUMBERS else "categorical")
    for name in (*TEXTS, *NUMBERS, *PREDICTIONS)
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
        target = environment.get(MONITOR, "").strip()
        if not target:
            return None
        folder = None if target == TO_BENTOML else Path(target)
        return cls(folder, _positive(environment, RATE, 1.0), round(_positive(environment, MEGABYTES, 2000.0) * 1e6))


@dataclass(frozen=True)
class _QueuedAnswer:
    """A served answer waiting to be recorded."""

    champions: Champions
    name: str
    at_us: int
    snapshot: Snapshots
    answer: Any
    customer_id: str | None
    stands_for: float


@dataclass
class _RateLimiter:
    """A token bucket: how many rows a champion may still have, and how many answers went without one."""

    rate: float
    tokens: float = float("inf")  # to begin with, as after a quiet minute
    answers_without: float = 0.0
    updated: float = field(default_factory=time.monotonic)

    def take(self, answers: int) -> tuple[int, float]:
        """Rows that may be made of so many answers, and for how many answers each of them stands."""
        now = time.monotonic()
        self.tokens = min(max(1.0, self.rate * BURST_S), self.tokens + (now - self.updated) * self.rate)
        self.updated = now
        self.answers_without += answers
        rows = min(answers, int(self.tokens))
        if rows == 0:
            return 0, 0.0
        stands_for, self.answers_without = self.answers_without / rows, 0.0
        self.tokens -= rows
        return rows, stands_for


class AnswerMonitor:
    """Receives answers and records them.

    Args:
        settings: what is recorded.
        write: takes rows; by default `serving.monitor.bentoml_monitor`.
    """

    def __init__(self, settings: MonitorSettings, write: Callable[[Sequence[Row]], None] | None = None) -> None:
        self.settings = settings
        self.lost = 0
        self._write = write
        self._limiters: dict[Origin, _RateLimiter] = {}
        self._queue: deque[_QueuedAnswer] = deque(maxlen=QUEUED)
        self._awake, self._closing = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None
        self._builder: _RowBuilder | None = None

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
        from features.privacy.pseudonyms import Pseudonyms  # not before a worker starts

        if self._thread is not None:
            return
        if self._write is None:
            from serving.monitor.bentoml_monitor import Recorder  # as above

            self._write = Recorder(COLUMNS, self.settings.folder, self.settings.most_bytes)
        self._builder = _RowBuilder(Pseudonyms.from_environment() or Pseudonyms.with_new_key())
        self._thread = threading.Thread(target=self._run, name="journeylab-monitor", daemon=True)
        self._thread.start()
        atexit.register(self.close)

    def record(
        self,
        champions: Champions,
        name: str,
        snapshots: Snapshots,
        answers: Sequence[Any],
        customer_ids: Sequence[str | None],
    ) -> None:
        """Record some answers, drawn at random where the rate is short; cheap, and never raises.

        Args:
            champions: in service.
            name: of the champion that answered.
            snapshots: (n,) known about each customer.
            answers: (n,) the first value of each answer.
            customer_ids: (n,) of the request, where it named one.
        """
        try:
            n, at_us = len(answers), time.time_ns() // 1000
            count, stands_for = self._limiter(champions.origins[name]).take(n)
            if count == 0 or self._thread is None:
                return
            rows = range(n) if count == n else np.random.default_rng().choice(n, count, replace=False).tolist()
            for row in rows:
                snapshot = snapshots if n == 1 else snapshots.take(slice(row, row + 1))
                self._queue.append(
                    _QueuedAnswer(champions, name, at_us, snapshot, answers[row], customer_ids[row], stands_for)
                )
            self._awake.set()
        except Exception:  # no record is worth a failed answer
            self.lost += 1

    def close(self) -> None:
        """Write what waits, and end."""
        if self._thread is not None:
            thread, self._thread = self._thread, None
            self._closing.set()
            self._awake.set()
            thread.join(timeout=10)
            atexit.unregister(self.close)

    def _limiter(self, origin: Origin) -> _RateLimiter:
        if origin not in self._limiters:
            self._limiters[origin] = _RateLimiter(self.settings.rate)
        return self._limiters[origin]

    def _run(self) -> None:
        while not self._closing.is_set():
            self._awake.wait()
            self._awake.clear()
            self._closing.wait(GATHER_S)
            self._drain()
        self._drain()
        self._write_rows([])

    def _drain(self) -> None:
        while self._queue:
            self._write_rows([self._queue.popleft() for _ in range(min(ROWS_AT_ONCE, len(self._queue)))])

    def _write_rows(self, answers: Sequence[_QueuedAnswer]) -> None:
        """Make and write rows; a failure costs these rows, and the log names its kind alone."""
        assert self._builder is not None
        assert self._write is not None
        try:
            rows = []
            for answer in answers:
                rows.append(self._builder.row(answer))
                if not self._closing.is_set():
                    time.sleep(PAUSE_S)  # the threads that answer come first
            if rows := [*rows, *self._builder.touchpoint_counts(everything=not answers)]:
                self._write(rows)
        except Exception as error:
            self.lost += len(answers)
            logger.error("monitor: %d rows lost: %s", len(answers), type(error).__name__)


class _RowBuilder:
    """Makes rows of snapshots."""

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self.pseudonyms = pseudonyms
        self._references: dict[Path, TrainingReference | None] = {}
        self._counts: dict[tuple[Any, ...], tuple[Row, Counter[str]]] = {}
        self._counted_since = time.monotonic()

    def row(self, queued: _QueuedAnswer) -> Row:
        """All columns; those of touchpoints are empty."""
        from models.scoring.training_reference import absent  # not before a worker starts

        scorer, reference, snapshot = queued.champions.scorers[queued.name], self._reference(queued), queued.snapshot
        row = self._with_model(queued, reference)
        names, events = _touchpoints(snapshot)
        trained_touchpoints = scorer.touchpoint_set or frozenset(names)
        unknown = sum(int(n) for name, n in zip(names, events, strict=True) if name not in trained_touchpoints)
        self._count(row, (name for name, n in zip(names, events, strict=True) if n and name in trained_touchpoints))
        columns = (*scorer.schema.category_columns, *scorer.schema.number_columns)
        answer, customer_id = queued.answer, queued.customer_id
        is_number = isinstance(answer, float | np.floating)
        return row | {
            "stands_for": round(queued.stands_for, 3),
            "who": None if customer_id is None else self.pseudonyms.of(customer_id),
            "key": None if customer_id is None else self.pseudonyms.key_id,
            "as_of": as_text(int(snapshot.cutoff[0]) // SECOND_US * SECOND_US),
            "score": float(f"{answer:.6g}") if is_number and answer == answer else None,
            "segment": None if is_number or answer is None else str(answer),
            "events": int(events.sum()),
            "unknown": unknown,
            "missing": [column for column in columns if absent(snapshot, column)[0]],
            "bins": None if reference is None else reference.sketch(snapshot)[0],
        }

    def touchpoint_counts(self, everything: bool = False) -> list[Row]:
        """Counts of touchpoints over many answers, when it is time."""
        if not everything and time.monotonic() - self._counted_since < COUNT_INTERVAL_S:
            return []
        self._counted_since = time.monotonic()
        ready = [key for key, (row, _) in self._counts.items() if row["answers"] >= MIN_ANSWERS_COUNTED]
        return [row | {"touchpoints": dict(counts)} for row, counts in map(self._counts.pop, ready)]

    def _count(self, row: Row, touchpoints: Iterable[str]) -> None:
        key = (row["champion"], row["version"], row["reference"])
        total, counts = self._counts.get(key) or (row | {"answers": 0}, Counter[str]())
        counts.update(touchpoints)
        self._counts[key] = (total | {"at": row["at"], "answers": total["answers"] + 1}, counts)

    def _with_model(self, queued: _QueuedAnswer, reference: TrainingReference | None) -> Row:
        origin = queued.champions.origins[queued.name]
        empty: Row = dict.fromkeys(COLUMNS)
        return empty | {
            "at": as_text(queued.at_us // SECOND_US * SECOND_US),
            "champion": origin.name,
            "version": origin.version,
            "reference": None if reference is None else reference.id,
        }

    def _reference(self, queued: _QueuedAnswer) -> TrainingReference | None:
        """The reference of a champion's training, read once, on the thread that makes rows."""
        from models.scoring.training_reference import TrainingReference  # not before a worker starts

        folder = queued.champions.folders[queued.name]
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

"""Where the trials of a search lie: a SQLite file in its folder, or a PostgreSQL that several machines share.

    storage = open_storage(folder)                                  # one machine
    storage = open_storage(folder, "postgresql+psycopg://journeylab@db.example.org/search")

Both are Optuna's `RDBStorage`. On PostgreSQL a process that works on a trial sends Optuna's heartbeats; a trial without
them is taken over by another process, and the scores of its folds lie in a table of their own. Time is the server's
own; no trial is taken over just after the server came back. Passwords are never printed: where PostgreSQL's own
`PGPASSFILE` or `PGPASSWORD` have it, the URL needs none.
"""

from __future__ import annotations

import fcntl
import io
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import optuna
from optuna.exceptions import ExperimentalWarning, StorageInternalError
from rich.console import Console
from sqlalchemy import Connection, NullPool, create_engine, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError

from features.errors import ConfigError, JourneyLabError
from training.progress import say
from training.search.folder import read_scores, scores_path, write_scores

Result = TypeVar("Result")

DRIVER = "postgresql+psycopg"
NAMES = ("postgresql", "postgres", DRIVER)
SQLITE_TIMEOUT_S = 60.0  # how long a writer waits for the others
GRACE_S = 30  # how long a process keeps its trial without a heartbeat; it sends some six of them meanwhile
PATIENCE_S = 900.0  # how long a server may be away
OPENING_S = 15.0  # how long it may be away when a process begins
RESTARTING = ("refused", "starting up", "shutting down")  # in the message of a server that restarts
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
CONNECTING = {
    "connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3,
    # The server must notice, too, that a machine is gone, since its locks are; and all clocks must agree.
    "options": "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3 -c timezone=UTC",
}  # fmt: skip
OUTAGES = (OperationalError, InterfaceError, PendingRollbackError)
TABLE = """
create table if not exists journeylab_fold_scores (
    study text not null, trial integer not null, fold integer not null, scores bytea not null,
    primary key (study, trial, fold)
)
"""
# A process sends its first heartbeat while it holds the lock, so a trial without any belongs to a process that died.
ABANDONED = """
select trial_id from trials left join trial_heartbeats using (trial_id)
where study_id = :study and state = 'RUNNING'
and coalesce(heartbeat, '-infinity') < localtimestamp - make_interval(secs => :grace)
and pg_postmaster_start_time() < now() - make_interval(secs => :grace)
"""


class FolderStorage(optuna.storages.RDBStorage):
    """A SQLite file that the processes of one machine write in turn.

    Args:
        folder: of the search.
    """

    is_shared = False
    grace_s = GRACE_S

    def __init__(self, folder: Path) -> None:
        options = {"connect_args": {"timeout": SQLITE_TIMEOUT_S}}
        super().__init__(f"sqlite:///{folder / 'optuna.db'}", engine_kwargs=options)
        self.folder = folder

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """One process at a time; the kernel lets the next one in when this one ends or dies."""
        with (self.folder / "asking.lock").open("a") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Do it; a file is never away."""
        return call()

    def abandoned(self, study_id: int) -> set[int]:
        """Ids of running trials whose process is silent; whoever starts workers on one machine sees them die."""
        return set()

    def put_scores(self, study: str, trial: int, fold: int) -> None:
        """Hand the scores of a fold on to other machines; there are none."""

    def fetch_scores(self, study: str, trial: int, n_folds: int) -> None:
        """Fetch the scores that other machines have made; there are none."""

    def close(self) -> None:
        """Close the connections."""
        self.remove_session()
        self.engine.dispose()


class TeamStorage(FolderStorage):
    """A PostgreSQL database that the processes of several machines write.

    Args:
        folder: of this process, for copies of scores.
        url: of a PostgreSQL database of its own.
        progress: where to say that the server is away.
        grace_s: how long a process keeps its trial without a heartbeat; by default `GRACE_S`.

    Raises:
        ConfigError: the URL is not one of PostgreSQL, its driver is missing, the server does not answer, or the
            database is MLflow's.
    """

    is_shared = True

    def __init__(self, folder: Path, url: str, progress: Console | None = None, grace_s: int | None = None) -> None:
        self.folder, self.progress, self.grace_s = folder, progress, grace_s or GRACE_S
        self.address = address(url)
        self.label = self.address.render_as_string(hide_password=True)
        self._is_patient = False
        self._open(time.monotonic() + OPENING_S)

    @contextmanager
    def exclusive(self, name: str) -> Iterator[None]:
        """One process at a time; the server lets the next one in when this one ends or dies."""
        with self.engine.begin() as connection:
            _lock(connection, name)
            yield

    @contextmanager
    def leading(self, name: str) -> Iterator[bool]:
        """Whether this process is the only one that leads, for as long as the block lasts."""
        query = text("select pg_try_advisory_lock(hashtextextended(:name, 0))")
        connection = self.engine.connect().execution_options(isolation_level="AUTOCOMMIT")
        try:
            yield bool(connection.execute(query, {"name": f"journeylab {name}"}).scalar())
        finally:
            connection.invalidate()  # the lock ends with its connection, which no pool may keep
            connection.close()

    def record_heartbeat(self, trial_id: int) -> None:
        """Say that the process of a trial lives; no matter if the server is away."""
        with suppress(StorageInternalError, SQLAlchemyError):
            super().record_heartbeat(trial_id)

    def abandoned(self, study_id: int) -> set[int]:
        """Ids of running trials whose process is silent."""
        return {int(trial_id) for (trial_id,) in self._rows(ABANDONED, study=study_id, grace=self.grace_s)}

    def put_scores(self, study: str, trial: int, fold: int) -> None:
        """Hand the scores of a fold on to other machines; again is as good as once."""
        content = io.BytesIO()
        np.save(content, read_scores(scores_path(self.folder, trial, fold)))
        query = """insert into journeylab_fold_scores values (:study, :trial, :fold, :scores)
        on conflict (study, trial, fold) do update set scores = excluded.scores returning fold"""
        self._rows(query, study=study, trial=trial, fold=fold, scores=content.getvalue())

    def fetch_scores(self, study: str, trial: int, n_folds: int) -> None:
        """Fetch the scores of a trial's first folds that other machines have made."""
        if all(scores_path(self.folder, trial, fold).is_file() for fold in range(n_folds)):
            return
        query = "select fold, scores from journeylab_fold_scores where study = :study and trial = :trial"
        for fold, content in self._rows(query, study=study, trial=trial):
            path = scores_path(self.folder, trial, fold)
            if not path.is_file():
                write_scores(path, np.load(io.BytesIO(content), allow_pickle=False))

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Do it; while the server is away, wait and try again.

        Of calls inside each other the outermost is done again, since a lock that it took is gone with the connection.

        Raises:
            JourneyLabError: it was away for too long.
        """
        if self._is_patient:
            return call()
        end, pause = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        self._is_patient = True
        try:
            while True:
                try:
                    return call()
                except Exception as error:
                    self._check_outage(error, end, first=pause == FIRST_PAUSE_S)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            self._is_patient = False

    def _check_outage(self, error: Exception, end: float, *, first: bool) -> None:
        """Raise what is no outage, or one that has lasted too long."""
        if (outage := _outage(error)) is None:
            raise error
        if time.monotonic() > end:
            raise JourneyLabError(
                f"{self.label} has been away for {PATIENCE_S / 60:.0f} minutes ({outage}). "
                "Nothing that was finished is lost: the same command goes on when it is back."
            ) from None
        if first:
            say(self.progress, f"{self.label} does not answer ({outage}): waiting for it.")

    def _open(self, end: float) -> None:
        """Open Optuna's storage; the first process makes the tables, the others wait for it."""
        options = {"pool_pre_ping": True, "connect_args": CONNECTING}
        try:
            # No pool: this connection is closed as soon as it is given back.
            with create_engine(self.address, connect_args=CONNECTING, poolclass=NullPool).begin() as connection:
                _lock(connection, "tables")
                if "registered_models" in inspect(connection).get_table_names():
                    raise ConfigError(
                        f"{self.label} holds MLflow's tables, and Optuna's cannot lie beside them: give the search a "
                        "database of its own, `createdb search` makes one."
                    )
                connection.execute(text(TABLE))
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore", ExperimentalWarning)  # heartbeats are experimental in Optuna 5
                    optuna.storages.RDBStorage.__init__(
                        self, self.address.render_as_string(hide_password=False), engine_kwargs=options,
                        heartbeat_interval=max(1, self.grace_s // 6), grace_period=self.grace_s,
                    )  # fmt: skip
        except ModuleNotFoundError as error:
            raise ConfigError(f"{error.name} is missing: pip install 'journeylab[team]'.") from None
        except SQLAlchemyError as error:
            if time.monotonic() > end or not any(word in str(error) for word in RESTARTING):
                raise ConfigError(f"{self.label} cannot be used: {_first_line(error)}") from None
            time.sleep(0.5)
            self._open(end)

    def _rows(self, query: str, **values: object) -> list[tuple[Any, ...]]:
        with self.engine.begin() as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]


def open_storage(
    folder: Path, url: str | None = None, progress: Console | None = None, grace_s: int | None = None
) -> FolderStorage:
    """The storage of a search: in its folder, or at a URL; see `TeamStorage` for what can go wrong."""
    return FolderStorage(folder) if url is None else TeamStorage(folder, url, progress, grace_s)


def address(url: str) -> URL:
    """The URL with the driver that we install.

    >>> address("postgresql://me:secret@db/search")
    postgresql+psycopg://me:***@db/search

    Raises:
        ConfigError: it is none, or not one of PostgreSQL.
    """
    try:
        parsed = make_url(url)
    except ArgumentError:
        parsed = None
    if parsed is None or parsed.drivername not in NAMES:
        raise ConfigError(
            "A search is shared on PostgreSQL: the storage is a URL such as postgresql+psycopg://USER@HOST/DATABASE. "
            "Without one, a search lies in a SQLite file on this machine."
        )
    return parsed.set(drivername=DRIVER)


def _lock(connection: Connection, name: str) -> None:
    """Wait for a lock that lasts until the transaction ends."""
    connection.execute(text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"journeylab {name}"})


def _outage(error: BaseException | None) -> str | None:
    """The server's message where it is away, None where something else went wrong."""
    while error is not None:
        if isinstance(error, OUTAGES):
            return _first_line(error)
        error = error.__cause__ or error.__context__
    return None


def _first_line(error: Exception) -> str:
    """The first line of the driver's message; it names host and user, and no password."""
    message = str(getattr(error, "orig", None) or error).strip()
    return message.splitlines()[0] if message else type(error).__name__

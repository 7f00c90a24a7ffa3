"""What several machines share while they search: a PostgreSQL with Optuna's tables, leases on trials, scores of folds.

    storage = SearchStorage("postgresql+psycopg://journeylab@db.example.org/search", owner="…")
    storage.take("trial 3")             # this process works on it, for as long as it lives
    storage.close()

A lease is a row with an end, which a thread moves on. Whoever dies stops moving it, and when it has run out, another
process may take it. Time is the server's own; while the server is down no lease runs out. Passwords are never printed:
where PostgreSQL's own `PGPASSFILE` or `PGPASSWORD` say it, the URL needs none.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import optuna
from rich.console import Console
from sqlalchemy import Connection, Engine, NullPool, create_engine, inspect, make_url, text
from sqlalchemy.engine import URL
from sqlalchemy.exc import ArgumentError, InterfaceError, OperationalError, PendingRollbackError, SQLAlchemyError

from features.errors import ConfigError, JourneyLabError
from training.progress import say

Result = TypeVar("Result")

DRIVER = "postgresql+psycopg"
NAMES = ("postgresql", "postgres", DRIVER)
LEASE_S, BEAT_S = 30.0, 5.0  # how long a dead process keeps its trial; how often a live one says that it lives
PATIENCE_S = 900.0  # how long a server may be away
OPENING_S = 15.0  # how long it may be away when a process begins
COMES_BACK = ("refused", "starting up", "shutting down")  # what is said of a server that restarts
FIRST_PAUSE_S, LONGEST_PAUSE_S = 0.1, 5.0
CONNECTING = {"connect_timeout": 10, "keepalives_idle": 30, "keepalives_interval": 10, "keepalives_count": 3}
AWAY = (OperationalError, InterfaceError, PendingRollbackError)
TABLES = """
create table if not exists journeylab_leases (name text primary key, owner text not null, until timestamptz not null);
create table if not exists journeylab_fold_scores (
    study text not null, trial integer not null, fold integer not null, scores bytea not null,
    primary key (study, trial, fold)
)
"""
TAKE = """
insert into journeylab_leases as lease (name, owner, until)
values (:name, :owner, clock_timestamp() + make_interval(secs => :length))
on conflict (name) do update set owner = excluded.owner, until = excluded.until
where lease.owner = excluded.owner
or greatest(lease.until, pg_postmaster_start_time() + make_interval(secs => :length)) < clock_timestamp()
returning owner
"""
RENEW = """
update journeylab_leases set until = clock_timestamp() + make_interval(secs => :length)
where owner = :owner and name = any(:names) returning name
"""


class SearchStorage:
    """A connection to the database that a search is shared on.

    Args:
        url: of a PostgreSQL database of its own.
        owner: who this is; the same after a restart, so that a process finds its own leases again.
        progress: where to say that the server is away.

    Raises:
        ConfigError: the URL is not one of PostgreSQL, its driver is missing, the server does not answer, or the
            database is MLflow's.
    """

    def __init__(self, url: str, owner: str, progress: Console | None = None) -> None:
        self.url = address(url)
        self.shown = self.url.render_as_string(hide_password=True)
        self.owner, self.progress = owner, progress
        self.optuna = self._opened(time.monotonic() + OPENING_S)
        self._held: set[str] = set()
        self._lost: set[str] = set()
        self._is_patient = False
        self._closing = threading.Event()
        self._beats = threading.Thread(target=self._beat, daemon=True)
        self._beats.start()

    @property
    def engine(self) -> Engine:
        """Of SQLAlchemy; shared with Optuna."""
        return self.optuna.engine

    def close(self) -> None:
        """Let go of every lease, and of the connections."""
        self._closing.set()
        self._beats.join()
        with suppress(SQLAlchemyError):
            for name in tuple(self._held):
                self._release(name)
        self.optuna.remove_session()
        self.engine.dispose()

    def take(self, name: str) -> bool:
        """Take a lease, or keep it; False where another process has it."""
        asked = {"name": name, "owner": self.owner, "length": LEASE_S}
        taken = self.patiently(lambda: bool(self._rows(TAKE, asked)))
        if taken:
            self._lost.discard(name)
            self._held.add(name)
        return taken

    def release(self, name: str) -> None:
        """Give a lease back."""
        self._held.discard(name)
        self.patiently(lambda: self._release(name))

    def is_lost(self, name: str) -> bool:
        """Whether this process was silent for so long that another has taken its lease."""
        return name in self._lost

    def owner_of(self, name: str) -> str | None:
        """Who has, or had, a lease; None where nobody took it."""
        query = "select owner from journeylab_leases where name = :name"
        return next((str(owner) for (owner,) in self._rows(query, {"name": name})), None)

    @contextmanager
    def alone(self, name: str) -> Iterator[None]:
        """One process at a time; the server lets the next one in when this one ends or dies."""
        with self.engine.begin() as connection:
            _lock(connection, name)
            yield

    def keep_scores(self, study: str, trial: int, fold: int, scores: bytes) -> None:
        """Keep what a fold's check rows were given; again is as good as once."""
        query = """insert into journeylab_fold_scores values (:study, :trial, :fold, :scores)
        on conflict (study, trial, fold) do update set scores = excluded.scores"""
        row = {"study": study, "trial": trial, "fold": fold, "scores": scores}
        self.patiently(lambda: self._run(query, row))

    def scores(self, study: str, trial: int) -> dict[int, bytes]:
        """What was kept of a trial, by fold."""
        query = "select fold, scores from journeylab_fold_scores where study = :study and trial = :trial"
        asked = {"study": study, "trial": trial}
        return self.patiently(lambda: {int(fold): bytes(kept) for fold, kept in self._rows(query, asked)})

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Do it; while the server is away, wait and try again.

        Of calls inside each other the outermost is done again, since a lock that it took is gone with the connection.

        Raises:
            JourneyLabError: it was away for too long.
        """
        if self._is_patient:
            return call()
        until, pause = time.monotonic() + PATIENCE_S, FIRST_PAUSE_S
        self._is_patient = True
        try:
            while True:
                try:
                    return call()
                except Exception as error:
                    self._bear(error, until, first=pause == FIRST_PAUSE_S)
                time.sleep(pause)
                pause = min(2 * pause, LONGEST_PAUSE_S)
        finally:
            self._is_patient = False

    def _bear(self, error: Exception, until: float, *, first: bool) -> None:
        """Raise what is no outage, or one that has lasted too long."""
        if (outage := _outage(error)) is None:
            raise error
        if time.monotonic() > until:
            raise JourneyLabError(
                f"{self.shown} has been away for {PATIENCE_S / 60:.0f} minutes ({outage}). "
                "Nothing that was finished is lost: the same command goes on when it is back."
            ) from None
        if first:
            say(self.progress, f"{self.shown} does not answer ({outage}): waiting for it.")

    def _opened(self, until: float) -> optuna.storages.RDBStorage:
        """Optuna's storage; the first process makes the tables, the others wait for it."""
        whole = self.url.render_as_string(hide_password=False)
        try:
            # No pool: this connection is closed as soon as it is given back.
            with create_engine(self.url, connect_args=CONNECTING, poolclass=NullPool).begin() as connection:
                _lock(connection, "tables")
                self._refuse_mlflow(connection)
                for table in TABLES.split(";"):
                    connection.execute(text(table))
                options = {"pool_pre_ping": True, "connect_args": CONNECTING}
                return optuna.storages.RDBStorage(whole, engine_kwargs=options)
        except ModuleNotFoundError as error:
            raise ConfigError(f"{error.name} is missing: pip install 'journeylab[team]'.") from None
        except SQLAlchemyError as error:
            if time.monotonic() < until and any(word in str(error) for word in COMES_BACK):
                time.sleep(0.5)
                return self._opened(until)
            raise ConfigError(f"{self.shown} cannot be used: {_said(error)}") from None

    def _refuse_mlflow(self, connection: Connection) -> None:
        if "registered_models" in inspect(connection).get_table_names():
            raise ConfigError(
                f"{self.shown} holds MLflow's tables, and Optuna's cannot lie beside them: give the search a database "
                "of its own, `createdb search` makes one."
            )

    def _rows(self, query: str, values: dict[str, object]) -> list[tuple[Any, ...]]:
        with self.engine.begin() as connection:
            return [tuple(row) for row in connection.execute(text(query), values)]

    def _run(self, query: str, values: dict[str, object]) -> None:
        with self.engine.begin() as connection:
            connection.execute(text(query), values)

    def _release(self, name: str) -> None:
        query = "delete from journeylab_leases where name = :name and owner = :owner"
        self._run(query, {"name": name, "owner": self.owner})

    def _beat(self) -> None:
        """Renew what is held; in a thread of its own, until closed."""
        while not self._closing.wait(BEAT_S):
            names = sorted(self._held)
            asked = {"names": names, "owner": self.owner, "length": LEASE_S}
            with suppress(SQLAlchemyError):  # the server is away: no lease runs out before it is back
                kept = {name for (name,) in self._rows(RENEW, asked)} if names else set()
                self._lost |= {name for name in names if name not in kept and name in self._held}


def address(url: str) -> URL:
    """The URL with the driver that we install.

    >>> address("postgresql://me:secret@db/search")
    postgresql+psycopg://me:***@db/search

    Raises:
        ConfigError: it is none, or not one of PostgreSQL.
    """
    try:
        found = make_url(url)
    except ArgumentError:
        found = None
    if found is None or found.drivername not in NAMES:
        raise ConfigError(
            "A search is shared on PostgreSQL: the storage is a URL such as postgresql+psycopg://USER@HOST/DATABASE. "
            "Without one, a search lies in a SQLite file that one process writes."
        )
    return found.set(drivername=DRIVER)


def _lock(connection: Connection, name: str) -> None:
    """Wait for a lock that lasts until the transaction ends."""
    connection.execute(text("select pg_advisory_xact_lock(hashtextextended(:name, 0))"), {"name": f"journeylab {name}"})


def _outage(error: BaseException | None) -> str | None:
    """What the server's absence looks like, None where it is something else that went wrong."""
    while error is not None:
        if isinstance(error, AWAY):
            return _said(error)
        error = error.__cause__ or error.__context__
    return None


def _said(error: Exception) -> str:
    """The first line of what the driver had to say; it names host and user, and no password."""
    said = str(getattr(error, "orig", None) or error).strip()
    return said.splitlines()[0] if said else type(error).__name__

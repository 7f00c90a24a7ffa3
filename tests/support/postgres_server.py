"""A PostgreSQL server for a test: on loopback, with a password, gone when the block ends.

    with cluster() as server:
        storage = server.database("search")      # postgresql+psycopg://journeylab:…@127.0.0.1:…/search
        server.restart()

It takes the programs that Debian's package `postgresql` installs. They refuse to run as root, and then run as the user
`postgres`, which the package makes.
"""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path

USER = "journeylab"
UNPRIVILEGED = "postgres"
DEBIAN = Path("/usr/lib/postgresql")
SETTINGS = "listen_addresses = '127.0.0.1'\nmax_connections = 60\nshared_buffers = '32MB'\n"


def programs() -> Path | None:
    """The folder of `initdb` and `pg_ctl`, the newest version's; None where PostgreSQL is not installed."""
    initdbs = sorted(DEBIAN.glob("*/bin/initdb"), key=lambda path: float(path.parts[-3]))
    if initdbs:
        return initdbs[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


@dataclass(frozen=True)
class Cluster:
    """A running server.

    Attributes:
        folder: where its data lie.
        port: on 127.0.0.1.
        password: of the user `journeylab`.
    """

    folder: Path
    port: int
    password: str

    def url(self, database: str) -> str:
        """How SQLAlchemy finds a database."""
        return f"postgresql+psycopg://{USER}:{self.password}@127.0.0.1:{self.port}/{database}"

    def database(self, name: str) -> str:
        """Make an empty database; its URL."""
        self.sql(f'create database "{name}"')
        return self.url(name)

    def sql(self, query: str, database: str = "postgres") -> list[tuple[object, ...]]:
        """Run one statement by itself and return its rows."""
        import psycopg

        url = self.url(database).replace("+psycopg", "")
        with psycopg.connect(url, autocommit=True) as connection:
            cursor = connection.execute(query.encode())
            return list(cursor.fetchall()) if cursor.description else []

    def start(self) -> None:
        """Start it and wait until it answers."""
        options = f"-p {self.port} -k {self.folder}"
        log = self.folder / "log.txt"
        _run("pg_ctl", "-D", self.folder / "data", "-l", log, "-o", options, "-w", "-t", "60", "start")

    def stop(self, mode: str = "immediate") -> None:
        """Stop it; "immediate" is what a power cut would do to its processes."""
        _run("pg_ctl", "-D", self.folder / "data", "-m", mode, "-w", "stop")

    def restart(self, mode: str = "immediate") -> None:
        """Stop it and start it again."""
        self.stop(mode)
        self.start()


@contextmanager
def cluster() -> Iterator[Cluster]:
    """A server with an empty cluster, for as long as the block lasts.

    Raises:
        FileNotFoundError: PostgreSQL is not installed.
    """
    folder = Path(tempfile.mkdtemp(prefix="journeylab-postgres-"))
    try:
        server = Cluster(folder, _free_port(), secrets.token_urlsafe(12))
        (folder / "password").write_text(server.password)
        if os.geteuid() == 0:
            user = pwd.getpwnam(UNPRIVILEGED)
            for path in (folder, folder / "password"):
                os.chown(path, user.pw_uid, user.pw_gid)
        _run("initdb", "-D", folder / "data", "-U", USER, "--auth=scram-sha-256", f"--pwfile={folder / 'password'}",
             "--encoding=UTF8", "--locale=C.UTF-8")  # fmt: skip
        with (folder / "data" / "postgresql.conf").open("a") as settings:
            settings.write(SETTINGS)
        server.start()
        try:
            yield server
        finally:
            server.stop()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _run(program: str, *arguments: object) -> None:
    home = programs()
    if home is None:
        raise FileNotFoundError("PostgreSQL is not installed: apt-get install postgresql")
    become = ["runuser", "-u", UNPRIVILEGED, "--"] if os.geteuid() == 0 else []
    command = [*become, str(home / program), *map(str, arguments)]
    # Not a pipe: the server that pg_ctl leaves behind would keep it open.
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd="/")
    if done.returncode:
        raise OSError(f"{' '.join(command)} ended with status {done.returncode}")


def _free_port() -> int:
    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])

"""Load for a service from a process of its own: HTTP/1.1 over kept-alive sockets, and what was waited for each answer.

    python experiments/benchmarks/service/http_load.py < plan.json > waited.npz

A plan is a `LoadPlan` as JSON. Nothing but sockets, epoll and NumPy: about 20 µs a request, so that it is no limit.
"""

from __future__ import annotations

import io
import json
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import numpy.typing as npt

LOST = 0  # the status of a request whose connection broke before the answer was complete
PIECE = 1 << 18


@dataclass(frozen=True)
class LoadPlan:
    """What to send, to whom, how fast.

    Attributes:
        port: on 127.0.0.1.
        path: of the route, or one path a body.
        bodies: files; sent in turns, or once each where there are no `seconds`.
        headers: further lines, such as `Authorization: Bearer …`.
        connections: at a time.
        seconds: how long; 0 sends every body once.
        a_second: arrivals a second, whatever the answers do; 0 sends as soon as a connection is free.
        keep: give the answers back, too.
    """

    port: int
    path: str
    bodies: tuple[str, ...]
    headers: dict[str, str] = field(default_factory=dict)
    connections: int = 8
    seconds: float = 5.0
    a_second: float = 0.0
    keep: bool = False


@dataclass(frozen=True)
class Waited:
    """What came of it.

    Attributes:
        seconds: (n,) waited for each answer, in order of arrival; of those lost, until they were.
        status: (n,) HTTP status, `LOST` where the connection broke.
        body: (n,) which body each was.
        ended: (n,) seconds since the start.
        took: seconds in all.
        unsent: arrivals for which no connection was free.
        answers: (n,) bodies of answers, where they were kept.
    """

    seconds: npt.NDArray[np.float64]
    status: npt.NDArray[np.int64]
    body: npt.NDArray[np.int64]
    ended: npt.NDArray[np.float64]
    took: float
    unsent: int
    answers: tuple[bytes, ...] = ()

    @property
    def a_second(self) -> float:
        """Good answers a second."""
        return float((self.status == 200).sum()) / self.took

    def percentile_ms(self, q: float) -> float:
        """Of the waits for good answers."""
        good = self.seconds[self.status == 200]
        return float(np.percentile(good, q)) * 1e3 if len(good) else float("nan")


def load(plan: LoadPlan) -> Waited:
    """Run a plan in a process of its own."""
    done = subprocess.run([sys.executable, __file__], input=json.dumps(asdict(plan)).encode(), capture_output=True)
    if done.returncode:
        raise RuntimeError(f"The load generator failed: {done.stderr.decode().splitlines()[-1]}")
    with np.load(io.BytesIO(done.stdout)) as archive:
        ends = archive["ends"]
        whole = archive["answers"].tobytes()
        answers = tuple(whole[a:b] for a, b in pairwise(ends))
        took, unsent = archive["about"]
        return Waited(
            archive["seconds"], archive["status"], archive["body"], archive["ended"], float(took), int(unsent), answers
        )


class _Connection:
    """A socket with at most one request under way."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.socket = self._open()
        self.begun, self.which = 0.0, -1
        self.unsent = memoryview(b"")
        self.got = bytearray()

    def _open(self) -> socket.socket:
        opened = socket.create_connection(("127.0.0.1", self.port), timeout=60)
        opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        opened.setblocking(False)
        return opened

    def again(self) -> None:
        """A new socket in place of a broken one."""
        self.socket.close()
        self.socket = self._open()

    def send(self, request: bytes, which: int) -> bool:
        """Begin a request; whether all of it has gone."""
        self.begun, self.which = time.perf_counter(), which
        self.got.clear()
        self.unsent = memoryview(request)
        return self.go_on()

    def go_on(self) -> bool:
        """Send what is left."""
        try:
            while self.unsent:
                self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return False
        return True

    def receive(self) -> tuple[int, bytes] | None:
        """Status and body once the answer is complete; status `LOST` where it never will be."""
        try:
            piece = self.socket.recv(PIECE)
        except BlockingIOError:
            return None
        except OSError:
            piece = b""
        if not piece:
            return LOST, b""
        self.got += piece
        return whole_answer(self.got)


def whole_answer(got: bytearray) -> tuple[int, bytes] | None:
    """Status and body of an HTTP/1.1 answer that is complete, by its length or its last chunk; None before."""
    end = got.find(b"\r\n\r\n")
    if end < 0:
        return None
    head, at = bytes(got[:end]).lower(), end + 4
    status, place = int(head[9:12]), head.find(b"\r\ncontent-length:")
    if place >= 0:
        size = int(head[place + 17 :].partition(b"\r\n")[0])
        return (status, bytes(got[at : at + size])) if len(got) >= at + size else None
    if not got.endswith(b"0\r\n\r\n"):
        return None
    parts = []
    while size := int(got[at : (line := got.find(b"\r\n", at))], 16):
        parts.append(bytes(got[line + 2 : line + 2 + size]))
        at = line + 4 + size
    return status, b"".join(parts)


class _Run:
    """A plan under way."""

    def __init__(self, plan: LoadPlan) -> None:
        self.plan = plan
        self.requests = [_request(plan, Path(body).read_bytes()) for body in plan.bodies]
        self.selector = selectors.DefaultSelector()
        self.free = [_Connection(plan.port) for _ in range(plan.connections)]
        self.rows: list[tuple[float, int, int, float]] = []
        self.answers: list[bytes] = []
        self.sent = self.unsent = 0
        for connection in self.free:
            self.selector.register(connection.socket, selectors.EVENT_READ, connection)

    def run(self) -> float:
        """Seconds in all."""
        begun = time.perf_counter()
        while True:
            now = time.perf_counter() - begun
            over = self.sent >= len(self.requests) if not self.plan.seconds else now >= self.plan.seconds
            if not over:
                self._begin(now)
            elif len(self.free) == self.plan.connections:
                return time.perf_counter() - begun
            for key, mask in self.selector.select(self._patience(over)):
                self._go_on(key.data, mask, begun)

    def _patience(self, over: bool) -> float | None:
        """Until the next arrival, where there is a timetable."""
        return 0.001 if self.plan.a_second and not over else 1.0

    def _begin(self, now: float) -> None:
        """Send on every free connection, or what has arrived since."""
        due = int(now * self.plan.a_second) - self.sent - self.unsent if self.plan.a_second else len(self.free)
        if not self.plan.seconds:
            due = min(due, len(self.requests) - self.sent)
        for _ in range(min(due, len(self.free))):
            connection = self.free.pop()
            which = self.sent % len(self.requests)
            self.sent += 1
            if not connection.send(self.requests[which], which):
                self._watch(connection, selectors.EVENT_READ | selectors.EVENT_WRITE)
            due -= 1
        if self.plan.a_second and due > 0:
            self.unsent += due

    def _go_on(self, connection: _Connection, mask: int, begun: float) -> None:
        if mask & selectors.EVENT_WRITE and connection.go_on():
            self._watch(connection, selectors.EVENT_READ)
        if not mask & selectors.EVENT_READ:
            return
        answer = connection.receive()
        if answer is None:
            return
        status, body = answer
        if connection.which >= 0:
            now = time.perf_counter()
            self.rows.append((now - connection.begun, status, connection.which, now - begun))
            if self.plan.keep:
                self.answers.append(body)
            connection.which = -1
            self.free.append(connection)
        if status == LOST or b"\r\nconnection: close" in bytes(connection.got[:400]).lower():
            self.selector.unregister(connection.socket)
            connection.again()
            self.selector.register(connection.socket, selectors.EVENT_READ, connection)

    def _watch(self, connection: _Connection, mask: int) -> None:
        self.selector.modify(connection.socket, mask, connection)


def _request(plan: LoadPlan, body: bytes) -> bytes:
    headers = {"Host": "127.0.0.1", "Content-Type": "application/json", "Content-Length": str(len(body))}
    lines = [f"POST {plan.path} HTTP/1.1", *(f"{name}: {value}" for name, value in (headers | plan.headers).items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


def main() -> None:
    """Read a plan, write what came of it."""
    job = json.load(sys.stdin)
    run = _Run(LoadPlan(**job | {"bodies": tuple(job["bodies"])}))
    took = run.run()
    columns: Sequence[Sequence[float]] = list(zip(*run.rows, strict=True)) or [[]] * 4
    out = io.BytesIO()
    np.savez(
        out,
        seconds=np.array(columns[0], dtype=np.float64),
        status=np.array(columns[1], dtype=np.int64),
        body=np.array(columns[2], dtype=np.int64),
        ended=np.array(columns[3], dtype=np.float64),
        about=np.array([took, run.unsent]),
        answers=np.frombuffer(b"".join(run.answers), dtype=np.uint8),
        ends=np.concatenate(([0], np.cumsum([len(answer) for answer in run.answers]))).astype(np.int64),
    )
    sys.stdout.buffer.write(out.getvalue())


if __name__ == "__main__":
    main()

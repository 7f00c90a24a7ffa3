"""Requests that arrive together are answered together: eight journeys cost little more than one.

What answering costs is mostly the way through numpy and into compiled code, once a call whatever the number of rows.
Requests whose bodies have been read wait as long as each turn of the event loop brings others, and are then answered by
one call. Nobody waits for what may come: after a turn that brought none, some twenty microseconds, there is an answer.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from serving.answers.answers import Answer, Answerer, Asked

MOST = 16  # a call with more keeps the event loop from its other work
Waiting = tuple[Answerer, Asked, "asyncio.Future[Answer]"]


class Together:
    """The requests that wait for their turn, of each event loop its own: a service has one, tests have several."""

    def __init__(self) -> None:
        self._here = threading.local()

    async def answer(self, answerer: Answerer, asked: Asked) -> Answer:
        """One request's answer.

        Raises:
            Refused: when it cannot be answered.
        """
        loop = asyncio.get_running_loop()
        line: _Line | None = getattr(self._here, "line", None)
        if line is None or line.loop is not loop:
            line = self._here.line = _Line(loop)
        return await line.join(answerer, asked)


class _Line:
    """The requests that wait on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: list[Waiting] = []
        self._seen = 0  # how many waited a turn ago

    def join(self, answerer: Answerer, asked: Asked) -> asyncio.Future[Answer]:
        """What will be the answer."""
        if not self._waiting:
            self.loop.call_soon(self._turn)
        future: asyncio.Future[Answer] = self.loop.create_future()
        self._waiting.append((answerer, asked, future))
        return future

    def _turn(self) -> None:
        more, self._seen = len(self._waiting) > self._seen, len(self._waiting)
        if not more or self._seen >= MOST:
            now, self._waiting, self._seen = self._waiting[:MOST], self._waiting[MOST:], 0
            self._answer(now)
        if self._waiting:
            self.loop.call_soon(self._turn)

    @staticmethod
    def _answer(now: Sequence[Waiting]) -> None:
        by_answerer: dict[int, list[Waiting]] = {}  # more than one only while champions are swapped
        for one in now:
            by_answerer.setdefault(id(one[0]), []).append(one)
        for some in by_answerer.values():
            _answer(some)


def _answer(waiting: Sequence[Waiting]) -> None:
    """Answer by one call; where that fails, each alone, so that a request's failure is its own."""
    try:
        found: Sequence[Answer | Exception] = waiting[0][0].together([asked for _, asked, _ in waiting])
    except Exception as error:
        if len(waiting) > 1:
            for one in waiting:
                _answer([one])
            return
        found = [error]
    for (_, _, future), answer in zip(waiting, found, strict=True):
        if future.done():  # whoever asked has gone
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

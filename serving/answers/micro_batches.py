"""Micro-batches: requests that arrive at the same time are answered by one call, which costs little more than one.

The cost of an answer is mostly the way through numpy and into compiled code, paid once a call whatever the number of
rows. Parsed requests wait as long as each turn of the event loop brings more, and are then answered by one call.
No request waits for one that may come: after a turn that brought none, some twenty microseconds, the call is made.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

from serving.answers.answers import Answer, Answerer, ParsedRequest

MAX_SIZE = 16  # a larger call keeps the event loop from its other work
Waiting = tuple[Answerer, ParsedRequest, "asyncio.Future[Answer]"]


class MicroBatcher:
    """A queue of requests for each event loop: a service has one loop, tests have several."""

    def __init__(self) -> None:
        self._local = threading.local()

    async def answer(self, answerer: Answerer, request: ParsedRequest) -> Answer:
        """Answer one request, with those that wait beside it.

        Raises:
            RequestError: when it cannot be answered.
        """
        loop = asyncio.get_running_loop()
        queue: _RequestQueue | None = getattr(self._local, "queue", None)
        if queue is None or queue.loop is not loop:
            queue = self._local.queue = _RequestQueue(loop)
        return await queue.join(answerer, request)


class _RequestQueue:
    """The requests that wait on one event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._waiting: list[Waiting] = []
        self._waiting_before = 0  # how many waited a turn ago

    def join(self, answerer: Answerer, request: ParsedRequest) -> asyncio.Future[Answer]:
        """Wait in the queue; the future holds the answer."""
        if not self._waiting:
            self.loop.call_soon(self._turn)
        future: asyncio.Future[Answer] = self.loop.create_future()
        self._waiting.append((answerer, request, future))
        return future

    def _turn(self) -> None:
        grown, self._waiting_before = len(self._waiting) > self._waiting_before, len(self._waiting)
        if not grown or self._waiting_before >= MAX_SIZE:
            batch, self._waiting, self._waiting_before = self._waiting[:MAX_SIZE], self._waiting[MAX_SIZE:], 0
            by_answerer: dict[int, list[Waiting]] = {}  # more than one only while champions are swapped
            for entry in batch:
                by_answerer.setdefault(id(entry[0]), []).append(entry)
            for entries in by_answerer.values():
                _answer(entries)
        if self._waiting:
            self.loop.call_soon(self._turn)


def _answer(waiting: Sequence[Waiting]) -> None:
    """Answer by one call; where that fails, each alone, so that a request's failure is its own."""
    try:
        answers: Sequence[Answer | Exception] = waiting[0][0].answer_many([request for _, request, _ in waiting])
    except Exception as error:
        if len(waiting) > 1:
            for entry in waiting:
                _answer([entry])
            return
        answers = [error]
    for (_, _, future), answer in zip(waiting, answers, strict=True):
        if future.done():  # the client is gone
            continue
        if isinstance(answer, Exception):
            future.set_exception(answer)
        else:
            future.set_result(answer)

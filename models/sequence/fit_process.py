"""The process around a fit: global state is restored, Ctrl-C works, and spawned processes can report."""

from __future__ import annotations

import logging
import os
import signal
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import Pipe
from types import TracebackType
from typing import Self

import torch
from lightning.pytorch import Trainer
from torch import nn

from models.contract import Report

LOGGERS = ("lightning.pytorch", "lightning.fabric", "lightning_utilities")
CHATTER = (
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # lightning 2.6.6 with torch 2.13
    "You're resuming from a checkpoint that ended before the epoch ended",  # ours resumes at the right batch
)


def make_quiet_and_deterministic() -> None:
    """Silence Lightning and make torch deterministic, for the rest of this process.

    Some gradients, such as that of `x[index]`, are summed by several threads in any order, on a CPU too, unless torch
    is in its deterministic mode. That mode also fills new memory with NaN to find bugs, which costs time: it is turned
    off.
    """
    for logger in map(logging.getLogger, LOGGERS):
        logger.setLevel(logging.ERROR)
    for message in CHATTER:
        warnings.filterwarnings("ignore", message=message)
    if not torch.cuda.is_available():  # on a GPU it is slow, and some operations lack it
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def restored_process(network: nn.Module) -> Iterator[None]:
    """Quiet and deterministic inside; then the process's global state is restored and the gradients are dropped."""
    gpus = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with torch.random.fork_rng(devices=gpus), torch.enable_grad(), warnings.catch_warnings(), _globals():
        make_quiet_and_deterministic()
        try:
            yield
        finally:
            network.zero_grad(set_to_none=True)


@contextmanager
def _globals() -> Iterator[None]:
    exact = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    filled = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    threads = torch.get_num_threads()
    levels = [(logger, logger.level) for logger in map(logging.getLogger, LOGGERS)]
    environment = set(os.environ)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(exact[0], warn_only=exact[1])
        torch.utils.deterministic.fill_uninitialized_memory = filled  # type: ignore[attr-defined]
        torch.set_num_threads(threads)
        for logger, level in levels:
            logger.setLevel(level)
        for name in (
            set(os.environ) - environment
        ):  # MASTER_PORT and the like, by which spawned processes find each other
            del os.environ[name]


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Make Ctrl-C a KeyboardInterrupt, and end spawned processes.

    Lightning turns it into `sys.exit(1)`, ignores the key from then on and leaves spawned processes running.
    """
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SystemExit as error:
        if not isinstance(error.__context__, KeyboardInterrupt):
            raise
        if trainer.strategy.launcher is not None:
            trainer.strategy.launcher.kill(signal.SIGKILL)
        raise KeyboardInterrupt from None
    finally:
        if in_main:
            signal.signal(signal.SIGINT, handler)


class ReportRelay:
    """Calls `report(epoch, loss)` of this process from a spawned one."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.error: BaseException | None = None
        self.parent, self.child = Pipe()

    def __getstate__(self) -> dict[str, object]:
        return {"child": self.child}

    def __call__(self, epoch: int, loss: float) -> bool:
        """In the spawned process: send the loss, wait for the answer."""
        self.child.send((epoch, loss))
        return bool(self.child.recv())

    def _answer(self) -> None:
        with suppress(EOFError):
            while True:
                question = self.parent.recv()
                try:
                    self.parent.send(self.report(*question))
                except BaseException as error:
                    self.error = error
                    self.parent.send(True)

    def __enter__(self) -> Self:
        threading.Thread(target=self._answer, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.child.close()
        if self.error is not None and error is None:
            raise self.error

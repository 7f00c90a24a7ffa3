"""The process around a fit: what Lightning changes is put back, Ctrl-C arrives, and spawned processes can ask back."""

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
    r"`isinstance\(treespec, LeafSpec\)` is deprecated",  # 2.6.6 under torch 2.13
    "You're resuming from a checkpoint that ended before the epoch ended",  # and at the right batch
)


def make_quiet_and_deterministic() -> None:
    """Silence Lightning, and let torch compute the same each time, for the rest of this process.

    Some gradients, of `x[index]` for one, are summed by several threads in any order, on a CPU too, unless torch is in
    its deterministic mode; there it would fill all new memory with NaN, which costs time and finds nothing here.
    """
    for logger in map(logging.getLogger, LOGGERS):
        logger.setLevel(logging.ERROR)
    for message in CHATTER:
        warnings.filterwarnings("ignore", message=message)
    if not torch.cuda.is_available():  # nobody asks for it on a GPU, where it is slow and not there for everything
        torch.use_deterministic_algorithms(True)
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def restored_process(network: nn.Module) -> Iterator[None]:
    """Quiet and exact inside; then the process's global state is what it was, and the network without gradients."""
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
        for name in set(os.environ) - environment:  # where spawned processes met: MASTER_PORT and the like
            del os.environ[name]


@contextmanager
def interruptible(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C arrive as KeyboardInterrupt, and end the processes that were spawned.

    Lightning turns it into `sys.exit(1)`, stops listening to the key and leaves spawned processes running.
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
    """Takes the question `report(epoch, loss)` from a spawned process to this one, where the function lives."""

    def __init__(self, report: Report) -> None:
        self.report = report
        self.error: BaseException | None = None
        self.parent, self.child = Pipe()

    def __getstate__(self) -> dict[str, object]:
        return {"child": self.child}

    def __call__(self, epoch: int, loss: float) -> bool:
        """Ask, in the spawned process."""
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

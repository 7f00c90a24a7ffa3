"""A worker of a search, as its parent sees it: a process that is told what to fit and answers line by line."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from queue import SimpleQueue
from threading import Thread
from typing import Any

from training.search.trials import Trial


class WorkerProcess:
    """A worker process, the trial it has, and the log loss of the folds it has done.

    Args:
        folder: of the search.
        number: of the worker, for its log.
        jobs: how many workers share the cores.
        answers: where `(worker, answer)` goes; the answer is None when the process has ended.
    """

    def __init__(self, folder: Path, number: int, jobs: int, answers: SimpleQueue[Any]) -> None:
        self.log = folder / f"worker_{number}.log"
        self.trial: Trial | None = None
        self.deaths = self.fold = self.n_rows = 0
        self.total = 0.0
        threads = str(max(1, len(os.sched_getaffinity(0)) // jobs))
        environment = os.environ | {
            "OMP_NUM_THREADS": threads,
            "NUMBA_NUM_THREADS": threads,
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "training.search.worker", str(folder)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment, text=True,
            )  # fmt: skip
        self._listener = Thread(target=self._listen, args=(answers,), daemon=True)
        self._listener.start()

    def begin(self, trial: Trial, *, deaths: int, fold: int = 0, total: float = 0.0, n_rows: int = 0) -> None:
        """Take a trial up at `fold`; a trial of an earlier process starts at 0 and reads its scores back."""
        self.trial, self.deaths, self.fold, self.total, self.n_rows = trial, deaths, fold, total, n_rows
        self.send()

    def send(self) -> None:
        """Order the next fold."""
        assert self.trial is not None
        self.say(json.dumps({"trial": self.trial.number, "fold": self.fold, "settings": self.trial.settings}))

    def say(self, line: str) -> None:
        """Write one line to the worker."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is dead: its closed output says so to the loop
            self.process.stdin.write(line + "\n")
            self.process.stdin.flush()

    def add(self, answer: dict[str, Any]) -> float:
        """Count a fold in; the log loss over all rows so far."""
        self.total += answer["log_loss"] * answer["n_rows"]
        self.n_rows += answer["n_rows"]
        self.fold += 1
        return self.total / self.n_rows

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self.process.kill()
        self._listener.join()
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()

    def _listen(self, answers: SimpleQueue[Any]) -> None:
        assert self.process.stdout is not None
        with self.process.stdout as lines:
            for line in lines:
                if line.endswith("\n"):  # a worker killed in the middle of a line has not answered
                    answers.put((self, json.loads(line)))
        self.process.wait()
        answers.put((self, None))

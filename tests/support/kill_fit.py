"""Does a fit survive `kill -9`? Fits in a process of its own, kills it at random moments, resumes, compares weights.

    .venv/bin/python tests/support/kill_fit.py --epochs 4 --kills 6

The same network is fitted twice: once from beginning to end, and once killed again and again, in the middle of epochs,
while checkpoints are written, and while it starts. In the end both must hold the same weights, bit for bit, and the
same curve.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from models.sequence.checkpoints import read_state, write_state
from models.sequence.fit_settings import CHECKPOINT, FitSettings
from models.sequence.fitting import fit_network

GIVE_UP_S = 600.0
TABLE, HIDDEN = 30, 32


class Reader(nn.Module):
    """A GRU that tells whether the sum of a sequence's tokens is high: small, and with everything that can go wrong."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.table = nn.Embedding(TABLE, HIDDEN)
            self.gru = nn.GRU(HIDDEN, HIDDEN, batch_first=True)
            self.norm = nn.LayerNorm(HIDDEN)
            self.dropout = nn.Dropout(0.2)  # draws random numbers in each step
            self.head = nn.Linear(HIDDEN, 1)

    def forward(self, tokens: Tensor) -> Tensor:
        """(B, T) tokens -> (B,) logits."""
        hidden = self.gru(self.table(tokens))[0]  # (B, T, D)
        picked = hidden[torch.arange(len(tokens)), -1]  # (B, D); the gradient of an index is a sum in some order
        logits: Tensor = self.head(self.dropout(self.norm(picked)))[:, 0]
        return logits

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        """Mean log loss."""
        return nn.functional.binary_cross_entropy_with_logits(self(batch[0]), batch[1])

    def check(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, int]:
        """Summed log loss, and the rows."""
        return self.loss(batch) * len(batch[1]), len(batch[1])


@dataclass(frozen=True)
class Sums:
    """Batches of random tokens with their labels; `pause_s` stretches each, for kills in the middle of epochs."""

    n: int = 40
    rows: int = 32
    length: int = 20
    seed: int = 0
    pause_s: float = 0.0

    def __len__(self) -> int:
        return self.n

    def batch(self, epoch: int, number: int) -> tuple[Tensor, Tensor]:
        """(rows, length) tokens and (rows,) labels."""
        time.sleep(self.pause_s)
        tokens = np.random.default_rng((self.seed, epoch, number)).integers(0, TABLE, (self.rows, self.length))
        high = tokens.sum(1) > (TABLE - 1) / 2 * self.length
        return torch.from_numpy(tokens), torch.from_numpy(high.astype(np.float32))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--kills", type=int, default=6)
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    parser.add_argument("--fit", type=Path, help="fit in this folder; what the killed processes do")
    options = parser.parse_args()
    if options.fit is not None:
        fit(options.fit, options.epochs)
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = run(Path(folder), options.epochs, options.kills, options.seed)
    print(json.dumps(figures, indent=1))
    sys.exit(0 if figures["ok"] else 1)


def fit(folder: Path, epochs: int) -> None:
    """Fit in `folder` or go on there; the weights and the curve go to `fitted.safetensors`."""
    network = Reader()
    settings = FitSettings(epochs=epochs, patience=0, seed=3, checkpoint_every_s=0.0)  # one after each step
    history = fit_network(network, Sums(pause_s=0.02), Sums(n=5, seed=1), settings, folder=folder)
    curve = history.drop(columns=["seconds", "data_seconds"]).to_dict("list")
    write_state({"weights": network.state_dict(), "curve": curve}, folder / "fitted.safetensors")


def run(folder: Path, epochs: int, kills: int, seed: int) -> dict[str, object]:
    """Fit without and with kills in `folder` and compare."""
    chance = random.Random(seed)
    steps = epochs * len(Sums())
    moments = [_killed(folder / "killed", epochs, steps * (n + 1) // (kills + 1), chance) for n in range(kills)]
    for name in ("killed", "whole"):
        if _start(folder / name, epochs).wait(GIVE_UP_S):
            sys.exit(f"The last run failed:\n{(folder / name / 'log.txt').read_text()[-3000:]}")
    killed, whole = (read_state(folder / name / "fitted.safetensors") for name in ("killed", "whole"))
    gaps = [float((killed["weights"][name] - whole["weights"][name]).abs().max()) for name in whole["weights"]]
    same = all(torch.equal(killed["weights"][name], weight) for name, weight in whole["weights"].items())
    return {
        "steps": steps,
        "steps_an_epoch": len(Sums()),
        "killed_after_steps": moments,
        "weights": sum(weight.numel() for weight in whole["weights"].values()),
        "largest_difference": max(gaps),
        "same_curve": killed["curve"] == whole["curve"],
        "ok": same and killed["curve"] == whole["curve"],
    }


def _killed(folder: Path, epochs: int, step: int, chance: random.Random) -> int:
    """Start or resume, kill a little after the checkpoint of `step` is there; the step that a resume starts from."""
    process = _start(folder, epochs)
    give_up = time.monotonic() + GIVE_UP_S
    while _step(folder) < step and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.05)
    time.sleep(chance.uniform(0.0, 0.1))
    if process.poll() is not None:
        sys.exit(f"The run ended before it could be killed:\n{(folder / 'log.txt').read_text()[-3000:]}")
    process.kill()
    process.wait()
    return _step(folder)


def _step(folder: Path) -> int:
    path = folder / CHECKPOINT
    state: dict[str, Any] = read_state(path) if path.exists() else {"global_step": 0}
    return int(state["global_step"])


def _start(folder: Path, epochs: int) -> subprocess.Popen[bytes]:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, __file__, "--epochs", str(epochs), "--fit", str(folder)]
    with (folder / "log.txt").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)


if __name__ == "__main__":
    main()

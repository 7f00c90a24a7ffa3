"""Fits any torch network: learning-rate schedule, early stopping, exact resume after a kill. Knows nothing of journeys.

    history = fit_network(network, train, check, FitSettings(epochs=10), folder=Path("runs/mine/member_1"))

The loop is Lightning's (`models.sequence.lightning_fit`). It is imported when a fit starts, and neither by a process
that only predicts nor for a fit that is finished in its folder.
"""

from __future__ import annotations

import hashlib
import threading
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from features.errors import ConfigError
from models.contract import FitPruned, Report
from models.sequence.checkpoints import read_state
from models.sequence.fit_settings import CHECKPOINT, Batches, FitCurve, FitSettings

if TYPE_CHECKING:
    from torch import nn

# torch's random numbers, its deterministic mode and Python's warning filters belong to the whole process.
_FIT_LOCK = threading.Lock()


class FitDiverged(ConfigError):
    """The loss became infinite or NaN before any epoch ended well."""


def fit_network(
    network: nn.Module,
    train: Batches,
    check: Batches | None,
    settings: FitSettings,
    *,
    folder: Path | None = None,
    report: Report | None = None,
    progress: bool | None = None,
) -> pd.DataFrame:
    """Fit a `Network` in place; it ends on the CPU, in eval mode, with the weights of the best check loss.

    With W devices batch n of an epoch goes to device n % W, and the last step is filled up with the epoch's first
    batches; the schedule counts steps, of which an epoch then has 1/W as many.

    Args:
        network: an `nn.Module` with the methods of `Network`.
        train: batches to learn from.
        check: batches that decide which epoch was the best; None keeps the last epoch's weights and never stops early.
        settings: of the fit.
        folder: where the fit keeps its state, as safetensors and JSON, one folder a fit. A call with the same network,
            batches, settings and folder resumes from there. On a CPU with the same number of threads it ends with the
            same weights, bit for bit, as a fit that was never interrupted. A finished fit only reads its weights.
        report: called after each epoch of this call, where there are check batches; with several processes in a
            thread of its own.
        progress: show Lightning's bar where the output is a terminal.

    Returns:
        One row an epoch: `epoch, train_loss, check_loss, learning_rate` (of its last step), `seconds` (checking
        included), `data_seconds` (the part of it in which batches were made).

    Raises:
        FitPruned: when `report` returned True.
        FitDiverged: when no epoch ended with a finite loss.
        ConfigError: when there are no batches, or the folder holds another fit.
        torch.multiprocessing.ProcessRaisedException: with the error's text, when one is raised in a spawned process.
    """
    for name, batches in (("train", train), ("check", check)):
        if batches is not None and len(batches) == 0:
            raise ConfigError(f"There are no {name} batches to fit with.")
    purpose = _purpose(network, train, check, settings)
    with _FIT_LOCK:
        curve = _finished(folder, purpose)
        if curve is None:
            from models.sequence.lightning_fit import run

            curve = run(network, train, check, settings, folder=folder, purpose=purpose, report=report, bar=progress)
    if curve.ended == "pruned":
        raise FitPruned(f"stopped after epoch {len(curve.rows) - 1}")
    if not curve.best:
        raise FitDiverged(
            f"The loss is not finite in epoch {len(curve.rows) - 1}. Lower learning_rate from "
            f"{settings.learning_rate}, or look for infinite and missing values among the inputs."
        )
    network.load_state_dict(curve.best)
    network.eval()
    return curve.table()


def _purpose(network: nn.Module, train: Batches, check: Batches | None, settings: FitSettings) -> dict[str, Any]:
    """What must be the same for a fit to be resumed."""
    shapes = [(name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in network.state_dict().items()]
    same = {name: value for name, value in asdict(settings).items() if name != "checkpoint_every_s"}
    return same | {
        "weights": hashlib.sha256(repr(shapes).encode()).hexdigest()[:12],
        "train batches": len(train),
        "check batches": 0 if check is None else len(check),
    }


def _finished(folder: Path | None, purpose: dict[str, Any]) -> FitCurve | None:
    """The curve of the fit in the folder, where it has ended."""
    if folder is None or not (folder / CHECKPOINT).exists():
        return None
    state = read_state(folder / CHECKPOINT)["callbacks"]["curve"]
    saved = state["purpose"]
    if odd := [name for name, value in purpose.items() if saved.get(name) != value]:
        differences = ", ".join(f"{name} {saved.get(name)} there, {purpose[name]} now" for name in odd)
        raise ConfigError(
            f"{folder} holds another fit ({differences}). Delete it, or give this fit a folder of its own."
        )
    return FitCurve(**state["curve"]) if state["curve"]["ended"] else None

"""Sequence models: a pretrained encoder, fine-tuned to the label, behind the contract of every model.

Members are copies of one pretrained encoder. Each learns from all customers but one group. The late rows of the
customers that it left out show its losses during the fit, and calibrate afterwards. A fitted model is arrays:
predicting needs no Lightning, and with a GRU no PyTorch.

Several tasks may share the encoder: `fit_tasks` takes a label for each, and `task` returns the model of one.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
import pandas as pd
from safetensors.numpy import load_file
from scipy.special import expit

from features.errors import ConfigError, DataError
from features.journeys.journeys import Snapshots
from features.sequences.sequences import SequenceBatch, SequenceFeatures
from models.calibration import BetaCalibration
from models.contract import Reason, Report, Vector, check_labels
from models.holdout import member_splits
from models.sequence.embedder import long_history, packages_of, plain_weights, save_weights, version_of
from models.sequence.occlusion import occlusion_reasons
from models.sequence.runtime import Runtime, over_blocks, runtime
from models.sequence.settings import Floats, Network, SequenceModelSettings, Weights

NORM_EPSILON = 1e-5  # PyTorch's
ONLY_TASK = "label"


class SequenceModel:
    """A sequence model of one task; its subclasses say which network."""

    kind: str
    network: ClassVar[Network]

    def __init__(self, settings: SequenceModelSettings | None = None) -> None:
        self.settings = replace(settings or SequenceModelSettings(), network=self.network)
        self.chosen = ONLY_TASK
        self._folder: Path | None = None
        self._report: Report | None = None

    @property
    def packages(self) -> tuple[str, ...]:
        """What it needs to run."""
        return packages_of(self.network)

    def resume_in(self, folder: Path) -> None:
        """Keep the state of the fit in `folder`, and go on from there."""
        self._folder = folder

    def watch(self, report: Report | None) -> None:
        """Call `report` after each epoch of the first member; where it returns True, the fit stops."""
        self._report = report

    def fit(self, snapshots: Snapshots, labels: npt.ArrayLike) -> Self:
        """Learn from (n,) snapshots and (n,) 0/1 labels, after pretraining on the journeys behind them."""
        check_labels(snapshots, labels)
        return self.fit_tasks(snapshots, {ONLY_TASK: labels})

    def fit_tasks(self, snapshots: Snapshots, labels: Mapping[str, npt.ArrayLike]) -> Self:
        """Learn several tasks over one encoder.

        Args:
            snapshots: (n,) training rows of all tasks together.
            labels: task → (n,) 0, 1, or NaN where the row does not belong to the task. The check loss is that of
                the first task.

        Raises:
            DataError: a task with labels of one class only.
        """
        tasks = tuple(labels)
        y = np.stack([np.asarray(labels[task], np.float32) for task in tasks], axis=1)  # (n, tasks)
        for task, column in zip(tasks, y.T, strict=True):
            labelled = np.flatnonzero(~np.isnan(column))
            try:
                check_labels(snapshots.take(labelled), column[labelled])
            except DataError as error:
                raise DataError(f"Task {task!r}: {error}") from error
        self._learn(snapshots, y)
        self.tasks_, self.chosen = tasks, tasks[0]
        return self

    def task(self, name: str) -> Self:
        """The model of one task; it shares the fitted encoders.

        Raises:
            ConfigError: the model was not fitted to this task.
        """
        if name not in self.tasks_:
            raise ConfigError(f"This model knows no task {name!r}; it knows {', '.join(self.tasks_)}.")
        other = copy.copy(self)
        other.chosen = name
        return other

    def predict(self, snapshots: Snapshots) -> Vector:
        """(n,) calibrated probabilities."""
        return self.calibrations_[self._place].probability(self.margins(snapshots))

    def margins(self, snapshots: Snapshots) -> Vector:
        """(n,) mean log-odds of the members before calibration."""
        margins: Vector = self._member_margins(snapshots, range(len(self.members_)), self._place).mean(axis=1)
        return margins

    def embed(self, snapshots: Snapshots) -> Floats:
        """(n, d) embeddings by the first member's encoder."""
        return over_blocks(self.sequences_, snapshots, self._engines[0].pooled)

    @cached_property
    def version(self) -> str:
        """Of the first member's encoder."""
        return version_of(self.sequences_, _part(self.members_[0], "encoder."))

    def history(self) -> pd.DataFrame:
        """How pretraining and each member's fine-tuning went."""
        return self.history_

    def reasons(self, snapshots: Snapshots, top: int = 5) -> list[list[Reason]]:
        """Touchpoints by the change of the log-odds when they are removed."""
        return occlusion_reasons(self.margins, snapshots, top)

    def save(self, folder: Path) -> None:
        """Write `member_*.safetensors` and `sequence_model.json`."""
        for number, weights in enumerate(self.members_):
            save_weights(weights, folder / f"member_{number}.safetensors")
        data = {
            "settings": self.settings.to_dict(),
            "sequences": self.sequences_.to_dict(),
            "tasks": list(self.tasks_),
            "chosen": self.chosen,
            "members": len(self.members_),
            "calibrations": [calibration.to_dict() for calibration in self.calibrations_],
            "version": self.version,
        }
        (folder / "sequence_model.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote."""
        data: dict[str, Any] = json.loads((folder / "sequence_model.json").read_text(encoding="utf-8"))
        model = cls(SequenceModelSettings.from_dict(data["settings"]))
        model.sequences_ = SequenceFeatures.from_dict(data["sequences"])
        model.tasks_, model.chosen = tuple(data["tasks"]), data["chosen"]
        model.members_ = [load_file(folder / f"member_{number}.safetensors") for number in range(data["members"])]
        model.calibrations_ = [BetaCalibration(**each) for each in data["calibrations"]]
        model.history_ = long_history("pretraining", pd.DataFrame())
        return model

    @property
    def _place(self) -> int:
        return self.tasks_.index(self.chosen)

    @cached_property
    def _engines(self) -> list[Runtime]:
        return [runtime(self.settings, _part(weights, "encoder."), self.sequences_) for weights in self.members_]

    def _learn(self, snapshots: Snapshots, y: npt.NDArray[np.float32]) -> None:
        from models.sequence.finetuning import fine_tune  # local: only a fit needs PyTorch and Lightning
        from models.sequence.pretraining import pretrain_encoder

        settings = self.settings
        self.sequences_ = SequenceFeatures(settings.sequences).fit(snapshots)
        base, history = pretrain_encoder(settings, self.sequences_, snapshots, self._inside("pretraining"))
        histories = [long_history("pretraining", history)]
        self.members_: list[Weights] = []
        for cached in ("version", "_engines"):  # cached from an earlier fit
            self.__dict__.pop(cached, None)
        checks = member_splits(
            snapshots, y[:, 0].astype(np.float64), settings.members, settings.later_share, settings.seed
        )
        for member, (fit, check) in enumerate(checks):
            network, history = fine_tune(
                base, self.sequences_, snapshots, y, fit, check, settings, settings.seed * 1000 + member,
                folder=self._inside(f"member_{member}"), report=self._report if member == 0 else None,
            )  # fmt: skip
            self.members_.append(plain_weights(network))
            histories.append(long_history(f"member {member + 1}", history))
        self.history_ = pd.concat([each for each in histories if len(each)], ignore_index=True)
        self.calibrations_ = [self._calibrated(snapshots, y[:, task], checks, task) for task in range(y.shape[1])]

    def _calibrated(
        self,
        snapshots: Snapshots,
        y: npt.NDArray[np.float32],
        checks: list[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]],
        task: int,
    ) -> BetaCalibration:
        """The map learnt on margins that each member gives to rows of customers that it has not seen."""
        margins, rows = [], []
        for member, (_, check) in enumerate(checks):
            labelled = check[~np.isnan(y[check])]
            margins.append(self._member_margins(snapshots.take(labelled), [member], task)[:, 0])
            rows.append(labelled)
        return BetaCalibration.fit(np.concatenate(margins), y[np.concatenate(rows)].astype(np.float64))

    def _member_margins(self, snapshots: Snapshots, members: Any, task: int) -> npt.NDArray[np.float64]:
        """(n, members) log-odds."""

        def work(batch: SequenceBatch) -> npt.NDArray[np.float64]:
            odds = [self._head(self.members_[member], task, self._engines[member].pooled(batch)) for member in members]
            return np.stack(odds, axis=1)

        if len(snapshots) == 0:
            return np.zeros((0, len(members)))
        return over_blocks(self.sequences_, snapshots, work)

    @staticmethod
    def _head(weights: Weights, task: int, pooled: Floats) -> Vector:
        """(B,) log-odds, as `models.sequence.finetuning.Head` gives them, in double precision."""
        head = _part(weights, f"heads.{task}.")
        x = pooled.astype(np.float64)
        x -= x.mean(axis=1, keepdims=True)
        x /= np.sqrt((x * x).mean(axis=1, keepdims=True) + NORM_EPSILON)
        x = x * head["norm.weight"] + head["norm.bias"]
        if "inner.weight" in head:
            x = x @ head["inner.weight"].T.astype(np.float64) + head["inner.bias"]
            x = x * expit(x)
        odds: Vector = (x @ head["out.weight"].T.astype(np.float64) + head["out.bias"])[:, 0]
        return odds

    def _inside(self, name: str) -> Path | None:
        return None if self._folder is None else self._folder / name


class GRUModel(SequenceModel):
    """A sequence model with a recurrent network in continuous time (`models.sequence.gru`)."""

    kind = "gru"
    network = "gru"


class TransformerModel(SequenceModel):
    """A sequence model with a causal Transformer in continuous time (`models.sequence.transformer`)."""

    kind = "transformer"
    network = "transformer"


def _part(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): values for name, values in weights.items() if name.startswith(prefix)}

"""What every model of snapshots can do; training, tracking and serving know nothing else about it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journeys.journeys import Snapshots

Vector = npt.NDArray[np.float64]
Report = Callable[[int, float], bool]  # (epoch from 0, check loss) -> True: stop, it is not worth another epoch


@dataclass(frozen=True)
class Reason:
    """One thing that moved one prediction.

    Attributes:
        subject: what it is about: "rhythm", "returns", "open work".
        text: a sentence fragment with the customer's own figure.
        feature: the feature of that subject that moved the prediction most.
        value: the feature's value for this customer; NaN where it has none.
        contribution: change of the log-odds by all features of the subject; positive raises the probability.
    """

    subject: str
    text: str
    feature: str
    value: float
    contribution: float


class SavableModel(Protocol):
    """What lies in a folder: see `models.saving`."""

    kind: str

    def save(self, folder: Path) -> None:
        """Write it as data (JSON, LightGBM text, safetensors) into `folder`."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; runs no code from the folder."""
        ...


@runtime_checkable
class Model(SavableModel, Protocol):
    """A model takes snapshots, never matrices; its features travel inside it."""

    def fit(self, snapshots: Snapshots, labels: npt.ArrayLike) -> Self:
        """Learn from (n,) snapshots and their (n,) 0/1 labels, and from nothing else."""
        ...

    def predict(self, snapshots: Snapshots) -> Vector:
        """(n,) calibrated probabilities in (0, 1)."""
        ...


@runtime_checkable
class Explainer(Protocol):
    """A model that can say why."""

    def reasons(self, snapshots: Snapshots, top: int = 5) -> list[list[Reason]]:
        """For each snapshot at most `top` reasons, the strongest first."""
        ...


@runtime_checkable
class FeatureModel(Protocol):
    """A model whose inputs a reviewer can look up."""

    def feature_table(self) -> pd.DataFrame:
        """One row a feature: `name, group, meaning, importance` (share of the total gain)."""
        ...


@runtime_checkable
class AnswerModel(Protocol):
    """A model that answers with something else than one probability, such as the segments that a customer is in."""

    @property
    def answer_columns(self) -> dict[str, str]:
        """Name → "double" or "string", in the order of `answers`."""
        ...

    def answers(self, snapshots: Snapshots) -> dict[str, npt.NDArray[Any]]:
        """Name → (n,) values, None or NaN where there is nothing to say."""
        ...


PROBABILITY = {"probability": "double"}  # what every other model answers


class FitPruned(Exception):
    """A fit was stopped by whoever watched its curve; the model is not fitted."""


@runtime_checkable
class Watchable(Protocol):
    """A model that is fitted in epochs and lets others look on."""

    def watch(self, report: Report | None) -> None:
        """Call `report` after each epoch of the (first member's) fit; where it says True, `fit` raises `FitPruned`.

        A fit that goes on from what an earlier process left may report epochs again, with the same losses.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """A model whose fit takes so long that a killed one should go on where it was."""

    def resume_in(self, folder: Path) -> None:
        """Keep the state of the next `fit` in `folder` (made where missing) and go on from what lies there."""
        ...


@runtime_checkable
class HistoryModel(Protocol):
    """A fitted model that remembers how it got there."""

    def history(self) -> pd.DataFrame:
        """Long: `part` ("pretraining", "member 1"), `epoch`, `name` ("train_loss", "check_loss", …), `value`."""
        ...


@runtime_checkable
class EmbeddingModel(Protocol):
    """A fitted model that turns a journey into a vector; vectors of two versions must never mix."""

    @property
    def version(self) -> str:
        """SHA-256 of the encoder's weights and settings, the first 12 hexadecimal digits."""
        ...

    def embed(self, snapshots: Snapshots) -> npt.NDArray[np.float32]:
        """(n, d) vectors."""
        ...


@runtime_checkable
class ExtraPackages(Protocol):
    """A model that needs more packages than every model does (`models.scoring.scorer.BASE_PACKAGES`)."""

    @property
    def packages(self) -> tuple[str, ...]:
        """Names of further distributions; a class attribute will do."""
        ...


def answer_columns(model: SavableModel) -> dict[str, str]:
    """What a model's answers are called and of which type they are, as `AnswerModel.answer_columns`."""
    return cast(AnswerModel, model).answer_columns if _answers_itself(type(model)) else PROBABILITY


def answers(model: SavableModel, snapshots: Snapshots) -> dict[str, npt.NDArray[Any]]:
    """Name → (n,) of what a model says about each snapshot."""
    if _answers_itself(type(model)):
        return cast(AnswerModel, model).answers(snapshots)
    return {"probability": cast(Model, model).predict(snapshots)}


@cache
def _answers_itself(kind: type) -> bool:
    """Whether its objects are `AnswerModel`; asked of the class, as `isinstance` with a protocol is dear."""
    return hasattr(kind, "answers") and hasattr(kind, "answer_columns")


def check_labels(snapshots: Snapshots, labels: npt.ArrayLike) -> Vector:
    """(n,) labels as float64 zeros and ones.

    Raises:
        DataError: when the lengths differ, a label is neither 0 nor 1, or only one class is there.
    """
    from features.errors import DataError

    y = np.asarray(labels, dtype=np.float64)
    if y.shape != (len(snapshots),):
        raise DataError(f"{len(snapshots)} snapshots but labels of shape {y.shape}: one label a snapshot is needed.")
    odd = np.flatnonzero(~np.isin(y, (0.0, 1.0)))
    if len(odd):
        raise DataError(f"Label {y[odd[0]]} in row {odd[0]} is neither 0 nor 1 ({len(odd)} such rows).")
    if len(y) == 0 or y.min() == y.max():
        only = "no rows" if len(y) == 0 else f"{len(y)} rows, all of them {int(y[0])}"
        raise DataError(f"Nothing to learn: the labels hold {only}. Check the task's cutoffs and touchpoints.")
    return y


Settings = dict[str, Any]

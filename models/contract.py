"""The contract of models: what training, tracking and serving may ask of one.

Every model is a `Model` (one probability a snapshot) or an `AnswerModel` (named columns). The other protocols are
optional abilities: a caller checks `isinstance(model, Explainer)` and goes without where a model has none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self, cast, runtime_checkable

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError
from features.journeys.journeys import Snapshots

Vector = npt.NDArray[np.float64]
Settings = dict[str, Any]
Report = Callable[[int, float], bool]  # (epoch from 0, check loss) -> True: stop the fit


@dataclass(frozen=True)
class Reason:
    """One subject that moved one prediction.

    Attributes:
        subject: "rhythm", "returns", "open work" and the like.
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
    """A model that `models.saving` writes and reads.

    Its class also has `load(folder) -> Self`, which reads what `save` wrote and runs no code from the folder.
    """

    kind: str

    def save(self, folder: Path) -> None:
        """Write it as data (JSON, LightGBM text, safetensors) into `folder`."""
        ...


@runtime_checkable
class CompositeModel(Protocol):
    """A model made of other models, such as a blend: `models.saving` writes and reads those too."""

    def member_folders(self) -> dict[str, SavableModel]:
        """Folder name → the member that is saved there."""
        ...

    @classmethod
    def load_with(cls, folder: Path, load_member: Callable[[Path], SavableModel]) -> Self:
        """Read what `save` wrote, in place of `load`; `load_member` reads a member's folder."""
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
    """A model that gives reasons for its predictions."""

    def reasons(self, snapshots: Snapshots, top: int = 5) -> list[list[Reason]]:
        """For each snapshot at most `top` reasons, the strongest first."""
        ...


@runtime_checkable
class FeatureModel(Protocol):
    """A model whose features a reviewer can look up."""

    def feature_table(self) -> pd.DataFrame:
        """One row a feature: `name, group, meaning, importance` (share of the total gain)."""
        ...


@runtime_checkable
class AnswerModel(Protocol):
    """A model that answers with other columns than one probability, such as a customer's segments."""

    @property
    def answer_columns(self) -> dict[str, str]:
        """Name → "double" or "string", in the order of `answers`."""
        ...

    def answers(self, snapshots: Snapshots) -> dict[str, npt.NDArray[Any]]:
        """Name → (n,) values, None or NaN where there is no answer."""
        ...


PROBABILITY = {"probability": "double"}  # the answer columns of every other model


class FitPruned(Exception):
    """A fit was stopped because a `Report` returned True; the model is not fitted."""


@runtime_checkable
class Watchable(Protocol):
    """A model that is fitted in epochs and reports each of them."""

    def watch(self, report: Report | None) -> None:
        """Call `report` after each epoch of the (first member's) fit; where it returns True, `fit` raises `FitPruned`.

        A fit that is resumed may report epochs again, with the same losses.
        """
        ...


@runtime_checkable
class Resumable(Protocol):
    """A model whose fit can be resumed after a kill."""

    def resume_in(self, folder: Path) -> None:
        """Keep the state of the next `fit` in `folder` (made where missing), and resume from the state there."""
        ...


@runtime_checkable
class HistoryModel(Protocol):
    """A fitted model that keeps the losses of its fit."""

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
    """Name → "double" or "string" of a model's answers."""
    return cast(AnswerModel, model).answer_columns if _has_answer_columns(type(model)) else PROBABILITY


def answers(model: SavableModel, snapshots: Snapshots) -> dict[str, npt.NDArray[Any]]:
    """Name → (n,) a model's answers about each snapshot."""
    if _has_answer_columns(type(model)):
        return cast(AnswerModel, model).answers(snapshots)
    return {"probability": cast(Model, model).predict(snapshots)}


@cache
def _has_answer_columns(kind: type) -> bool:
    """Whether its objects are `AnswerModel`; cached for each class, as `isinstance` with a protocol is slow."""
    return hasattr(kind, "answers") and hasattr(kind, "answer_columns")


def check_labels(snapshots: Snapshots, labels: npt.ArrayLike) -> Vector:
    """(n,) labels as float64 zeros and ones.

    Raises:
        DataError: when the lengths differ, a label is neither 0 nor 1, or only one class is there.
    """
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

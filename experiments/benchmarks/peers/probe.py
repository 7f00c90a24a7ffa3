"""The heads that both sides' embeddings are measured with: a linear probe, and LightGBM as our own models set it.

A fold's train rows fit the head, its check rows (other customers, later cutoffs) score it. What a head may choose, the
strength of its penalty or its number of trees, it chooses by cross-validation over customers of the rows it is fitted
on. Test rows are scored by a head fitted on all training rows, once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from models.boosting.gbdt import GBDTSettings
from training.data.splits import Fold
from training.data.task_data import TaskData

INNER_FOLDS = 3
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)  # scikit-learn's C: small is strong
MOST_TREES, PATIENCE = 600, 40

Matrix = npt.NDArray[np.float32]
Vector = npt.NDArray[np.float64]
Score = Callable[[Matrix], Vector]
Head = Callable[[Matrix, npt.NDArray[Any], npt.NDArray[Any]], Score]  # rows, labels, customers -> scores of other rows


@dataclass(frozen=True)
class Validation:
    """AUROC of a head on the check rows of each fold.

    Attributes:
        by_fold: one figure a fold.
    """

    by_fold: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Over the folds; one fold alone has too few rows to tell two encoders apart."""
        return float(np.mean(self.by_fold))


def linear(x: Matrix, y: npt.NDArray[Any], customers: npt.NDArray[Any]) -> Score:
    """Standardised columns and a logistic regression; (n, d), (n,), (n,) → the log-odds of other rows."""
    inner = list(GroupKFold(INNER_FOLDS).split(x, y, customers))
    scores = [cross_val_score(_probe(c), x, y, cv=inner, scoring="roc_auc").mean() for c in PENALTIES]
    fitted = _probe(PENALTIES[int(np.argmax(scores))]).fit(x, y)
    return lambda rows: np.asarray(fitted.decision_function(rows), np.float64)


def _probe(c: float) -> Pipeline:
    return make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=1000))


def trees(x: Matrix, y: npt.NDArray[Any], customers: npt.NDArray[Any]) -> Score:
    """LightGBM with the default settings of our own models; (n, d), (n,), (n,) → the log-odds of other rows."""
    parameters = GBDTSettings().booster_parameters() | {"metric": "auc"}
    folds = GroupKFold(INNER_FOLDS).split(x, y, customers)
    curve = lgb.cv(
        parameters, lgb.Dataset(x, y), MOST_TREES, folds=folds, callbacks=[lgb.early_stopping(PATIENCE, verbose=False)]
    )
    aurocs: Any = curve["valid auc-mean"]  # (trees,) up to the best
    booster = lgb.train(parameters, lgb.Dataset(x, y), len(aurocs))
    return lambda rows: np.asarray(booster.predict(rows, raw_score=True), np.float64)


HEADS: dict[str, Head] = {"linear probe": linear, "LightGBM": trees}


def validate(head: Head, embeddings: Matrix, data: TaskData, folds: Sequence[Fold] | None = None) -> Validation:
    """Fit on each fold's train rows, score its check rows.

    Args:
        head: one of `HEADS`.
        embeddings: (n, d), of `data.train`, in its order.
        data: the task.
        folds: those of `data` where not given.
    """
    customers = data.train.customer_ids
    scores = []
    for fold in data.folds if folds is None else folds:
        score = head(embeddings[fold.train], data.y_train[fold.train], customers[fold.train])
        scores.append(float(roc_auc_score(data.y_train[fold.check], score(embeddings[fold.check]))))
    return Validation(tuple(scores))


def held_out(head: Head, train: Matrix, test: Matrix, data: TaskData) -> Vector:
    """(m,) scores of the test rows by a head fitted on all training rows."""
    return head(train, data.y_train, data.train.customer_ids)(test)

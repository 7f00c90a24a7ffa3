"""The families of metrics, by the name that a task states, and a task's answers measured by its family.

evaluate_answers(ChurnTask, labels, {"probability": p}, customers)["auroc"]
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy.typing as npt

from features.labels.task import Task
from training.evaluation.amounts import AmountRows
from training.evaluation.bootstrap import MetricRows, evaluate_rows, paired_differences
from training.evaluation.metrics import ProbabilityRows

FAMILIES: dict[str, type[ProbabilityRows] | type[AmountRows]] = {
    "probabilities": ProbabilityRows,
    "amounts": AmountRows,
}
Answers = Mapping[str, npt.ArrayLike]


def metric_rows(task: type[Task], labels: npt.ArrayLike, answers: Answers, customers: npt.ArrayLike) -> MetricRows:
    """The rows of a task's family of metrics, checked.

    Args:
        task: the kind of task whose answers they are.
        labels: (n,) labels.
        answers: name of an answer's column → (n,) values; the task's first is measured.
        customers: (n,) the customer of each row.

    Raises:
        DataError: labels or answers that the family refuses.
    """
    return FAMILIES[task.metric_family].of(labels, answers[task.answers[0]], customers)


def evaluate_answers(
    task: type[Task],
    labels: npt.ArrayLike,
    answers: Answers,
    customers: npt.ArrayLike,
    *,
    n_boot: int = 500,
    seed: int = 0,
) -> dict[str, float]:
    """Every metric of a task's family with its interval, see `evaluate_rows`."""
    return evaluate_rows(metric_rows(task, labels, answers, customers), n_boot=n_boot, seed=seed)


def compare_answers(
    task: type[Task],
    labels: npt.ArrayLike,
    new: Answers,
    old: Answers,
    customers: npt.ArrayLike,
    *,
    n_boot: int = 2000,
    seed: int = 0,
) -> dict[str, float]:
    """Differences new − old of a task's metrics on the same rows, see `paired_differences`."""
    rows = (metric_rows(task, labels, answers, customers) for answers in (new, old))
    return paired_differences(*rows, n_boot=n_boot, seed=seed)

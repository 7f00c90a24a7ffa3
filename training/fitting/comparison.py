"""What a model is worth: differences from its ablations, its probes and the members of a blend, row by row.

Both models of a pair are measured on the same rows, and each replicate draws the same customers for both, so their
difference is known far better than either figure. Validation rows were predicted by models of the folds; the held-out
rows once, by the final models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from features.labels.task import Task
from training.data.task_data import TaskData
from training.evaluation.families import FAMILIES, compare_answers
from training.fitting.finals import Final

SPLITS = {"validation": "validation rows", "test": "held-out rows"}
COLUMNS = ("model", "against", "role", "rows")
N_BOOT = 1_000


def pairs(finals: Sequence[Final]) -> Iterator[tuple[Final, Final]]:
    """The pairs to compare: a model and its ablation or probe, a combination and each of its members."""
    by_name = {final.name: final for final in finals}
    for final in finals:
        for other in (by_name[name] for name in final.of if name in by_name):
            yield (final, other) if final.role == "model" else (other, final)


def paired_differences(finals: Sequence[Final], data: TaskData, *, n_boot: int = N_BOOT, seed: int = 0) -> pd.DataFrame:
    """Paired differences, a row a pair and a split.

    Args:
        finals: all final models of a training.
        data: the rows that they were scored on.
        n_boot: replicates.
        seed: of the resampling.

    Returns:
        `model, against, role` (of `against`), `rows` ("validation" or "test"), then what `compare_answers` gives:
        `<metric>_difference` (model − against) with `_low` and `_high`, and counts of rows.
    """
    return _table(pairs(finals), data, n_boot, seed)


def differences_from_baselines(
    final: Final, finals: Sequence[Final], data: TaskData, *, n_boot: int = N_BOOT, seed: int = 0
) -> pd.DataFrame:
    """Paired differences of a model from every baseline of its training, as `paired_differences` gives them.

    Args:
        final: the model; a baseline is not compared with itself.
        finals: all final models of the training.
        data: the rows that they were scored on.
        n_boot: replicates.
        seed: of the resampling.
    """
    baselines = [other for other in finals if other.role == "baseline" and other.name != final.name]
    return _table(((final, other) for other in baselines), data, n_boot, seed)


def beats(table: pd.DataFrame, task: type[Task], split: str = "test") -> bool:
    """Whether a model is surely better than every baseline on these rows, see `differences_from_baselines`."""
    rows, metric = table[table["rows"] == split], task.metric(task.promotion.metric)
    return bool(len(rows)) and all(metric.gain(row)[0] > 0 for row in rows.to_dict("records"))


def _table(pairs: Iterable[tuple[Final, Final]], data: TaskData, n_boot: int, seed: int) -> pd.DataFrame:
    rows, task = [], type(data.task)
    for model, against in pairs:
        for split in SPLITS:
            y, customers, _ = data.scored(split)
            new, old = ({task.answers[0]: getattr(final, split)} for final in (model, against))
            figures = compare_answers(task, y, new, old, customers, n_boot=n_boot, seed=seed)
            about = dict(zip(COLUMNS, (model.name, against.name, against.role, split), strict=True))
            rows.append(about | figures)
    names = FAMILIES[task.metric_family].paired
    columns = [*COLUMNS, *(f"{name}_difference{end}" for name in names for end in ("", "_low", "_high"))]
    return pd.DataFrame(rows) if rows else pd.DataFrame(columns=columns)


def rows_of(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of `paired_differences` that a model is in, on either side."""
    return table[(table["model"] == name) | (table["against"] == name)]


def sentences(table: pd.DataFrame, name: str, task: type[Task]) -> list[str]:
    """One sentence for each pair that a model is in."""
    texts, metric = [], task.metric(task.promotion.metric)
    for (model, against), rows in rows_of(table, name).groupby(["model", "against"], sort=False):
        parts = [f"{metric.difference_text(row)} on {SPLITS[row['rows']]}" for row in rows.to_dict("records")]
        texts.append(f"{metric.title} of {model} − {against} ({rows['role'].iloc[0]}): {', '.join(parts)}.")
    return texts

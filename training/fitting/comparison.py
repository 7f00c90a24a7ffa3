"""What a model is worth: differences from its ablations, its probes and the members that it is blended of, row by row.

Both models of a pair are measured on the same rows, and each replicate draws the same customers for both, so their
difference is known far better than either figure. Validation rows were predicted by models of the folds; the held-out
rows once, by the final models.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import pandas as pd

from training.data.task_data import TaskData
from training.evaluation.metrics import PAIRED, paired_bootstrap
from training.fitting.finals import Final

SPLITS = {"validation": "validation rows", "test": "held-out rows"}
COLUMNS = ("model", "against", "role", "rows")
N_BOOT = 1_000


def pairs(finals: Sequence[Final]) -> Iterator[tuple[Final, Final]]:
    """Who is held against whom: a model and its ablation or probe, a combination and each of its members."""
    by_name = {final.name: final for final in finals}
    for final in finals:
        for other in (by_name[name] for name in final.of if name in by_name):
            yield (final, other) if final.role == "model" else (other, final)


def compared(finals: Sequence[Final], data: TaskData, *, n_boot: int = N_BOOT, seed: int = 0) -> pd.DataFrame:
    """Paired differences, a row a pair and a split.

    Args:
        finals: all final models of a training.
        data: the rows that they were scored on.
        n_boot: replicates.
        seed: of the resampling.

    Returns:
        `model, against, role` (of `against`), `rows` ("validation" or "test"), then what `paired_bootstrap` gives:
        `<metric>_difference` (model − against) with `_low` and `_high`, and counts of rows.
    """
    return _table(pairs(finals), data, n_boot, seed)


def differences_from_baselines(
    final: Final, finals: Sequence[Final], data: TaskData, *, n_boot: int = N_BOOT, seed: int = 0
) -> pd.DataFrame:
    """Paired differences of a model from every baseline of its training, as `compared` gives them.

    Args:
        final: the model; a baseline is not held against itself.
        finals: all final models of the training.
        data: the rows that they were scored on.
        n_boot: replicates.
        seed: of the resampling.
    """
    baselines = [other for other in finals if other.role == "baseline" and other.name != final.name]
    return _table(((final, other) for other in baselines), data, n_boot, seed)


def beats(table: pd.DataFrame, split: str = "test") -> bool:
    """Whether a model surely ranks better than every baseline on these rows, see `differences_from_baselines`."""
    own = table[table["rows"] == split]
    return bool(len(own) and (own["auroc_difference_low"] > 0).all())


def _table(who: Iterable[tuple[Final, Final]], data: TaskData, n_boot: int, seed: int) -> pd.DataFrame:
    found = []
    for model, against in who:
        for split in SPLITS:
            y, customers, _ = data.scored(split)
            p_model, p_against = getattr(model, split), getattr(against, split)
            figures = paired_bootstrap(y, p_model, p_against, customers, n_boot=n_boot, seed=seed)
            about = dict(zip(COLUMNS, (model.name, against.name, against.role, split), strict=True))
            found.append(about | figures)
    columns = [*COLUMNS, *(f"{name}_difference{end}" for name in PAIRED for end in ("", "_low", "_high"))]
    return pd.DataFrame(found) if found else pd.DataFrame(columns=columns)


def own_rows(table: pd.DataFrame, name: str) -> pd.DataFrame:
    """The rows of `compared` that a model is in, on either side."""
    return table[(table["model"] == name) | (table["against"] == name)]


def sentences(table: pd.DataFrame, name: str) -> list[str]:
    """One sentence for each pair that a model is in."""
    said = []
    for (model, against), rows in own_rows(table, name).groupby(["model", "against"], sort=False):
        parts = [f"{_difference(row)} on {SPLITS[str(row['rows'])]}" for _, row in rows.iterrows()]
        said.append(f"AUROC of {model} − {against} ({rows['role'].iloc[0]}): {', '.join(parts)}.")
    return said


def _difference(row: pd.Series) -> str:
    difference, low, high = (float(row[f"auroc_difference{end}"]) for end in ("", "_low", "_high"))
    return f"{difference:+.4f} (95% {low:+.4f} to {high:+.4f})".replace("-", "−")

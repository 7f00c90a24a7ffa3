"""A sample of raw journeys with the answers that a run recorded: proof that a model stays the same.

A run records it beside the model; the packaged service and the tests replay it. Customers get invented names. Each
journey keeps some events after its cutoff, so that a replay that reads ahead gives other answers.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from features.errors import DataError
from features.journeys.journeys import Snapshots
from models.scoring.scorer import Scorer

FOLDER = "sample"
LONGEST = 2_000  # events; journeys beyond it would make the sample heavy and prove nothing more
EVENTS_AFTER = 20
TOLERANCE = 1e-6

Predict = Callable[[pd.DataFrame], pd.DataFrame]


def record_sample(scorer: Scorer, snapshots: Snapshots, folder: Path, *, n: int = 50) -> Path:
    """Write about `n` journeys, spread over the range of answers, and the model's answers.

    Args:
        scorer: with the model as trained.
        snapshots: to choose from; the held-out ones are a good choice.
        folder: the scoring folder.
        n: how many.

    Returns:
        The folder of the sample: `events.parquet` (canonical rows with `cutoff`) and `scores.json`.
    """
    chosen = snapshots.take(_spread(scorer, snapshots, n))
    names = [f"journey-{row:03d}" for row in range(len(chosen))]
    sample = folder / FOLDER
    sample.mkdir(parents=True, exist_ok=True)
    pq.write_table(_raw_events(chosen, names), sample / "events.parquet")
    answers = scorer.answers(_unnamed(chosen))
    cutoffs = chosen.cutoff.view("datetime64[us]")
    scores = [
        {"customer_id": name, "cutoff": str(cutoff)} | {key: _plain(values[row]) for key, values in answers.items()}
        for row, (name, cutoff) in enumerate(zip(names, cutoffs, strict=True))
    ]
    (sample / "scores.json").write_text(json.dumps(scores, indent=1), encoding="utf-8")
    return sample


def read_sample(folder: Path) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The events (canonical rows with `cutoff`) and the recorded answers (`customer_id, cutoff, …`) of a folder.

    Raises:
        DataError: when the folder has no sample.
    """
    sample = folder / FOLDER
    if not (sample / "scores.json").is_file():
        raise DataError(
            f"{folder} has no recorded sample: train the model again, or record one (models.scoring.golden_sample)."
        )
    scores = pd.DataFrame(json.loads((sample / "scores.json").read_text(encoding="utf-8")))
    scores["cutoff"] = pd.to_datetime(scores["cutoff"]).astype("datetime64[us]")
    return pq.read_table(sample / "events.parquet").to_pandas(), scores


def largest_difference(folder: Path, predict: Predict) -> float:
    """The largest difference between the recorded answers and those of `predict` on the same events.

    Args:
        folder: a scoring folder with a sample.
        predict: canonical rows with `cutoff` → `customer_id` and the answers, one row a customer.
    """
    events, scores = read_sample(folder)
    predicted = predict(events).set_index("customer_id").reindex(scores["customer_id"])
    names = [name for name in scores.columns if name not in ("customer_id", "cutoff")]
    return max(difference(recorded, predicted[name].tolist()) for name in names for recorded in [scores[name].tolist()])


def difference(recorded: Sequence[Any], predicted: Sequence[Any]) -> float:
    """The largest distance of two answers; infinite where one is missing or two texts differ.

    >>> difference([0.5, "s01"], [0.25, "s01"]), difference([0.5], [None]), difference([None], [None])
    (0.25, inf, 0.0)
    """
    return max((_distance(old, new) for old, new in zip(recorded, predicted, strict=True)), default=0.0)


def _distance(old: Any, new: Any) -> float:
    old, new = (None if value is None or value != value else value for value in (old, new))
    if isinstance(old, int | float) and isinstance(new, int | float):
        return abs(float(old) - float(new))
    return 0.0 if old == new else float("inf")


def _plain(value: Any) -> Any:
    """As JSON holds it; a missing number is null."""
    if isinstance(value, float | np.floating):
        return None if value != value else float(value)
    return value


def _spread(scorer: Scorer, snapshots: Snapshots, n: int) -> npt.NDArray[np.int64]:
    """Rows with events, evenly over the order of the first answer."""
    n_events = snapshots.stop - snapshots.start
    rows = np.flatnonzero((n_events > 0) & (n_events <= LONGEST))
    if len(rows) == 0:
        raise DataError(f"No snapshot has between 1 and {LONGEST:,} events before its cutoff: nothing to record.")
    first = next(iter(scorer.answers(snapshots.take(rows)).values()))
    if first.dtype.kind != "f":
        first = np.unique(np.array([str(value) for value in first]), return_inverse=True)[1]
    order = np.argsort(first, kind="stable")
    return np.asarray(rows[order[np.unique(np.linspace(0, len(rows) - 1, n).round().astype(np.int64))]])


def _unnamed(snapshots: Snapshots) -> Snapshots:
    """The same rows of a log whose customers have other names: no answer may depend on an identifier."""
    journeys = snapshots.journeys
    names = pa.array(np.arange(journeys.n_customers).astype(str), pa.string())
    return replace(snapshots, journeys=replace(journeys, customer_ids=names))


def _raw_events(snapshots: Snapshots, names: list[str]) -> pa.Table:
    """The snapshots' events as canonical rows, a few beyond the cutoff included."""
    journeys = snapshots.journeys
    end = np.minimum(journeys.offsets[snapshots.customer + 1], snapshots.stop + EVENTS_AFTER)
    sizes = end - snapshots.start
    at = np.concatenate([np.arange(start, stop) for start, stop in zip(snapshots.start, end, strict=True)])
    columns: dict[str, pa.Array] = {
        "customer_id": pa.array(np.repeat(np.array(names, dtype=object), sizes)),
        "timestamp": pa.array(np.asarray(journeys.t)[at], pa.timestamp("us")),
        "cutoff": pa.array(np.repeat(snapshots.cutoff, sizes), pa.timestamp("us")),
    }
    for name, category in journeys.categories.items():
        values = np.array([*category.names, None], dtype=object)  # a missing one is -1: the None at the end
        columns[name] = pa.array(values[np.asarray(category.codes)[at]], pa.string())
    for name, numbers in journeys.numbers.items():
        columns[name] = pa.array(np.asarray(numbers)[at], from_pandas=True)
    return pa.table(columns)

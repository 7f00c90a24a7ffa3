"""A label table that the user brings: `customer_id, cutoff, label`, optionally `split`; a row a snapshot.

    rows = read_label_table(Path("labels.csv"))
    checked = check_label_table(rows, journeys, horizon_days=30)
    checked.labels        # customer_id, cutoff, label(, split): what can be trained on
    checked.quarantine    # the rest, with row and reason

Labels may come from elsewhere and be known longer than the log lasts: `observed_until` says so.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.errors import DataError
from features.events.checks import as_table
from features.events.columns import Column, text_column, time_column
from features.events.files import read_table
from features.journeys.journeys import Journeys
from features.labels.labels import DAY_US, log_end_us
from features.timestamps import NOT_A_TIME

Int64s = npt.NDArray[np.int64]

REQUIRED = ("customer_id", "cutoff", "label")
SPLITS = ("train", "test")
TOO_MANY_BAD = 0.5
TRUE_FALSE = {"true": "1", "false": "0"}


@dataclass(frozen=True)
class CheckedLabels:
    """What came out of the checks; `len(labels) + len(quarantine)` rows came in.

    Attributes:
        labels: `customer_id, cutoff, label` and `split` where the table has one, in the table's order.
        quarantine: `row` (1-based), `reason`, and the row's own values.
        counts: reason → rows.
    """

    labels: pd.DataFrame
    quarantine: pd.DataFrame
    counts: dict[str, int]


def read_label_table(path: Path, columns: Mapping[str, str] | None = None) -> pd.DataFrame:
    """Read a CSV or Parquet label table; the values are as in the file, for `check_label_table` to judge.

    Args:
        path: the file.
        columns: `customer_id`, `cutoff`, `label`, `split` → their names, where they differ.

    Raises:
        DataError: no such file, a column missing, no rows.
    """
    table = read_table(path)
    names = {name: (columns or {}).get(name, name) for name in (*REQUIRED, "split")}
    for ours, theirs in names.items():
        if ours in REQUIRED or theirs != ours:
            _require(theirs, table.column_names, path, ours)
    if not table.num_rows:
        raise DataError(f"The label table {path} has no rows.")
    there = {ours: theirs for ours, theirs in names.items() if theirs in table.column_names}
    return pd.DataFrame({ours: table[theirs].to_pandas() for ours, theirs in there.items()})


def check_label_table(
    rows: pd.DataFrame, journeys: Journeys, *, horizon_days: float, observed_until: Any = None
) -> CheckedLabels:
    """Check label rows against the log that they are for.

    Args:
        rows: `customer_id, cutoff, label(, split)`.
        journeys: the packed log.
        horizon_days: how long after the cutoff a label is known; windows that the log does not cover are set aside.
        observed_until: until when the labels were watched, where that is later than the log's last event.

    Raises:
        DataError: more than half of the rows cannot be used.
    """
    end = log_end_us(journeys, observed_until)
    return check_label_rows(rows, partial(first_events, journeys), end, horizon_days=horizon_days)


def first_events(journeys: Journeys, ids: pa.Array) -> Int64s:
    """(n,) µs, the first event of each customer; `NOT_A_TIME` where the log does not have them."""
    index = journeys.index_of(ids)
    known = index >= 0
    first: Int64s = np.full(len(ids), NOT_A_TIME)
    first[known] = journeys.t[journeys.offsets[index[known]]]
    return first


def check_label_rows(
    rows: pd.DataFrame, firsts: Callable[[pa.Array], Int64s], end_us: int, *, horizon_days: float
) -> CheckedLabels:
    """`check_label_table` for a log that lies somewhere else.

    Args:
        rows: `customer_id, cutoff, label(, split)`.
        firsts: of identifiers, as `first_events` tells them.
        end_us: until when labels were watched.
        horizon_days: as of `check_label_table`.

    Raises:
        DataError: more than half of the rows cannot be used.
    """
    table = as_table(rows)
    customer = text_column("customer_id", table["customer_id"].combine_chunks()).values.cast("string")
    cutoff = time_column("cutoff", table["cutoff"].combine_chunks())
    us = np.asarray(cutoff.values.cast("int64").fill_null(0))
    label = _labels(rows["label"])
    problems = _problems(customer, cutoff, us, label, firsts(customer), end_us, horizon_days)
    ids = customer.to_pandas().astype("str")
    checked = pd.DataFrame({"customer_id": ids, "cutoff": us.view("datetime64[us]"), "label": label})
    if "split" in rows:
        checked["split"] = rows["split"].astype("str").str.strip().str.lower().to_numpy()
        problems["split is neither 'train' nor 'test'"] = ~checked["split"].isin(SPLITS).to_numpy()
    reasons = _first_reasons(problems, len(rows))
    _set_duplicates_aside(checked, reasons)
    return _checked(rows, checked, reasons)


def _require(name: str, there: list[str], path: Path, ours: str) -> None:
    if name not in there:
        close = difflib.get_close_matches(name, there, n=1, cutoff=0.4)
        theirs = close[0] if close else "their name"
        raise DataError(
            f"The label table {path} has no column '{name}'; it has {', '.join(map(repr, there))}. "
            f'Map it in the experiment file: [task.columns] {ours} = "{theirs}".'
        )


def _labels(column: pd.Series) -> npt.NDArray[np.float64]:
    """(n,) 0, 1, or NaN for anything else."""
    if column.dtype == bool:
        return column.to_numpy(dtype=np.float64)
    words = column.astype("str").str.strip().str.lower().replace(TRUE_FALSE)
    numbers = pd.to_numeric(words, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    return np.where(np.isin(numbers, (0.0, 1.0)), numbers, np.nan)


def _problems(
    customer: Any,
    cutoff: Column,
    us: npt.NDArray[np.int64],
    label: npt.NDArray[np.float64],
    first: Int64s,
    end_us: int,
    horizon_days: float,
) -> dict[str, npt.NDArray[np.bool_]]:
    """Reason → mask, the gravest first."""
    missing = np.asarray(customer.is_null())
    dated = np.asarray(cutoff.values.is_valid())
    return {
        "customer_id is missing": missing,
        "customer_id is not in the log": first == NOT_A_TIME,
        **cutoff.problems,
        "cutoff is missing": ~dated,
        "label is neither 0 nor 1": np.isnan(label),
        "cutoff is before the customer's first event": dated & (us <= first),
        "cutoff is after the log's end": dated & (us > end_us),
        "the window after the cutoff is not fully observed": dated & (us + round(horizon_days * DAY_US) > end_us),
    }


def _first_reasons(problems: Mapping[str, npt.NDArray[np.bool_]], n: int) -> npt.NDArray[np.object_]:
    reasons = np.full(n, None, dtype=object)
    for reason, mask in reversed(list(problems.items())):
        reasons[mask] = reason
    return reasons


def _set_duplicates_aside(checked: pd.DataFrame, reasons: npt.NDArray[np.object_]) -> None:
    """Equal rows count once; rows that contradict each other are no labels at all."""
    good = np.flatnonzero(pd.isna(reasons))
    rows = checked.iloc[good]
    key = ["customer_id", "cutoff"]
    values = rows["label"].astype("str") + rows.get("split", "")
    clash = values.groupby([rows[name] for name in key]).transform("nunique").to_numpy() > 1
    again = rows.duplicated(key).to_numpy() & ~clash
    reasons[good[clash]] = "the same customer and cutoff with another label or split"
    reasons[good[again]] = "the same customer and cutoff as an earlier row"


def _checked(rows: pd.DataFrame, checked: pd.DataFrame, reasons: npt.NDArray[np.object_]) -> CheckedLabels:
    bad = ~pd.isna(reasons)
    names, n = np.unique(reasons[bad].astype(str), return_counts=True)
    counts = dict(zip(names.tolist(), n.tolist(), strict=True))
    quarantine = rows[bad].astype("str")
    quarantine.insert(0, "reason", reasons[bad].astype(str))
    quarantine.insert(0, "row", np.flatnonzero(bad) + 1)
    if bad.sum() > TOO_MANY_BAD * len(rows):
        why = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
        shown = quarantine.head(3).to_dict("records")
        raise DataError(f"{bad.sum():,} of {len(rows):,} label rows cannot be used ({why}). First: {shown}.")
    labels = checked[~bad].reset_index(drop=True)
    return CheckedLabels(labels.astype({"label": np.int8}), quarantine.reset_index(drop=True), counts)

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
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

from features.errors import DataError
from features.events.checks import as_table, quarantine_rows
from features.events.columns import Column, text_column, time_column
from features.events.files import read_table
from features.journeys.event_log import Joined, Part, Parts, total
from features.journeys.journeys import Journeys, id_texts
from features.journeys.partitions import sampled
from features.labels.cutoffs import CutoffCounts, Period, TableSplit, between_note, borders_of
from features.labels.task import Labelled, LabelPlan, Task, TaskWords
from features.settings import Section
from features.timestamps import NOT_A_TIME, days_us, microseconds

Int64s = npt.NDArray[np.int64]

REQUIRED = ("customer_id", "cutoff", "label")
SPLITS = ("train", "test")
TOO_MANY_BAD = 0.5
TRUE_FALSE = {"true": "1", "false": "0"}


class LabelColumns(Section):
    """What the label table calls its columns.

    Attributes:
        customer_id: who.
        cutoff: when; features see what is before.
        label: 1 or 0, true or false.
        split: "train" or "test"; the table may do without.
    """

    customer_id: str = "customer_id"
    cutoff: str = "cutoff"
    label: str = "label"
    split: str = "split"


class LabelTableTask(Task):
    """The user's own label table: `customer_id, cutoff, label`, optionally `split`.

    Attributes:
        kind: of task.
        horizon_days: how long after the cutoff a label is known.
        observed_until: until when the labels were watched, if longer than the log's last event.
        path: CSV or Parquet.
        columns: our name → theirs, where they differ.
        cutoffs: where to split train and test if the table has no `split`.
    """

    kind: Literal["labels"]
    path: Path
    columns: LabelColumns = LabelColumns()
    cutoffs: TableSplit = TableSplit()

    @property
    def label_file(self) -> Path:
        """See `Task.label_file`."""
        return self.path

    def with_label_file(self, path: Path) -> LabelTableTask:
        """See `Task.with_label_file`."""
        return self.model_copy(update={"path": path})

    def label_name(self, experiment: str) -> str:
        """See `Task.label_name`."""
        return experiment

    def plan(self, log: Parts, period: Period, share: float = 1.0) -> LabelPlan:
        """See `Task.plan`; the table is read here and travels to the parts."""
        rows = read_label_table(self.path, self.columns.model_dump())
        numbers, notes = np.arange(1, len(rows) + 1), []
        if share < 1:
            chosen = _of_sample(rows["customer_id"], share)
            notes.append(f"label rows of customers of the sample: {chosen.sum():,} of {len(rows):,}")
            rows, numbers = rows[chosen], numbers[chosen]
        first_events = partial(_first_events_of_log, log)
        checked = check_label_rows(rows, first_events, period.end_us, horizon_days=self.horizon_days, numbers=numbers)
        notes += [f"label rows rejected, {reason}: {n:,}" for reason, n in checked.counts.items()]
        table = checked.labels
        if "split" not in table:
            cutoff = microseconds(table["cutoff"])
            counts = CutoffCounts(*np.unique(cutoff, return_counts=True))
            borders, more = borders_of(counts, self.cutoffs.test_share, test_from=self.cutoffs.test_from)
            train, test = borders.split(cutoff, self.horizon_days)
            table = table.assign(split=np.where(test, "test", "train"))[train | test].reset_index(drop=True)
            notes += [*more, *between_note(int((~train & ~test).sum()))]
        return LabelPlan(TableRows(table), tuple(notes), checked.quarantine)

    def words(self) -> TaskWords:
        """See `Task.words`."""
        return TaskWords(
            audience=f"The customers of the label table `{self.path.name}`.",
            label=f"As in that table; known {self.horizon_days:g} days after the cutoff.",
        )


@dataclass(frozen=True)
class TableRows:
    """The rows of a checked label table; a `LabelSource`.

    Attributes:
        frame: `customer_id, cutoff, label, split`, in the table's order.
        columns: names of further columns, here none.
    """

    frame: pd.DataFrame
    columns: tuple[str, ...] = ()

    def labelled(self, journeys: Journeys) -> Labelled:
        """See `LabelSource`."""
        frame = self.frame.sort_values(["cutoff", "customer_id"], kind="stable")
        index = journeys.index_of(pa.array(frame["customer_id"].tolist(), pa.string()))
        places = np.flatnonzero(index >= 0)
        frame = frame.iloc[places]
        rows = journeys.at(microseconds(frame["cutoff"]), index[places])
        return Labelled(rows, (frame["label"] == 1).to_numpy(), (frame["split"] == "test").to_numpy())

    def table(self, journeys: Journeys) -> tuple[Labelled, pd.DataFrame]:
        """See `LabelSource`; the table keeps its order, which the fingerprint of the labels is of."""
        return self.labelled(journeys), self.frame


@dataclass(frozen=True)
class CheckedLabels:
    """What came out of the checks; `len(labels) + len(quarantine)` rows came in.

    Attributes:
        labels: `customer_id, cutoff, label` and `split` where the table has one, in the table's order.
        quarantine: `row` (1-based), `reason`, and the row's own values as text.
        counts: reason → rows.
    """

    labels: pd.DataFrame
    quarantine: pa.Table
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
    present = {ours: theirs for ours, theirs in names.items() if theirs in table.column_names}
    return pd.DataFrame({ours: table[theirs].to_pandas() for ours, theirs in present.items()})


def check_label_table(
    rows: pd.DataFrame, journeys: Journeys, *, horizon_days: float, observed_until: Any = None
) -> CheckedLabels:
    """Check label rows against the log that they are for.

    Args:
        rows: `customer_id, cutoff, label(, split)`.
        journeys: the packed log.
        horizon_days: how long after the cutoff a label is known; rows whose window the log does not cover are rejected.
        observed_until: until when the labels were watched, where that is later than the log's last event.

    Raises:
        DataError: more than half of the rows cannot be used.
    """
    end = journeys.end_us if observed_until is None else int(microseconds(observed_until).reshape(-1)[0])
    return check_label_rows(rows, partial(first_events, journeys), end, horizon_days=horizon_days)


def first_events(journeys: Journeys, ids: pa.Array) -> Int64s:
    """(n,) µs, the first event of each customer; `NOT_A_TIME` where the log does not have them."""
    index = journeys.index_of(ids)
    inside = index >= 0
    first: Int64s = np.full(len(ids), NOT_A_TIME)
    first[inside] = journeys.t[journeys.offsets[index[inside]]]
    return first


def _first_events_of_log(log: Parts, ids: pa.Array) -> Int64s:
    """`first_events` of a log in parts."""
    places, moments = total(log, partial(_first_events_of_part, ids=ids), ())
    first: Int64s = np.full(len(ids), NOT_A_TIME)
    first[places.array] = moments.array
    return first


def _first_events_of_part(part: Part, ids: pa.Array) -> tuple[Joined, Joined]:
    """The places of the identifiers that a part has, and their first events."""
    first = first_events(part.journeys, ids)
    places = np.flatnonzero(first != NOT_A_TIME)
    return Joined(places), Joined(first[places])


def check_label_rows(
    rows: pd.DataFrame,
    first_events_of: Callable[[pa.Array], Int64s],
    end_us: int,
    *,
    horizon_days: float,
    numbers: Int64s | None = None,
) -> CheckedLabels:
    """`check_label_table` for a log that lies somewhere else.

    Args:
        rows: `customer_id, cutoff, label(, split)`.
        first_events_of: the first events of identifiers, as `first_events` returns them.
        end_us: until when labels were watched.
        horizon_days: as of `check_label_table`.
        numbers: (n,) the numbers of the rows in the user's file; 1, 2, … by default.

    Raises:
        DataError: more than half of the rows cannot be used.
    """
    table = as_table(rows)
    customer = text_column("customer_id", table["customer_id"].combine_chunks()).values.cast("string")
    cutoff = time_column("cutoff", table["cutoff"].combine_chunks())
    us = np.asarray(cutoff.values.cast("int64").fill_null(0))
    label = _labels(rows["label"])
    problems = _problems(customer, cutoff, us, label, first_events_of(customer), end_us, horizon_days)
    ids = customer.to_pandas().astype("str")
    checked = pd.DataFrame({"customer_id": ids, "cutoff": us.view("datetime64[us]"), "label": label})
    if "split" in rows:
        checked["split"] = rows["split"].astype("str").str.strip().str.lower().to_numpy()
        problems["split is neither 'train' nor 'test'"] = ~checked["split"].isin(SPLITS).to_numpy()
    reasons = _first_reasons(problems, len(rows))
    _reject_duplicates(checked, reasons)
    return _checked(rows, checked, reasons, np.arange(1, len(rows) + 1) if numbers is None else numbers)


def _of_sample(customers: pd.Series, share: float) -> npt.NDArray[np.bool_]:
    """(n,) which rows a log of a share of the customers can have; rows without a customer are for the checks."""
    ids = id_texts(customers)
    chosen: npt.NDArray[np.bool_] = sampled(ids.fill_null(""), share) | np.asarray(ids.is_null())
    return chosen


def _require(name: str, names: list[str], path: Path, ours: str) -> None:
    if name not in names:
        close = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
        theirs = close[0] if close else "their name"
        raise DataError(
            f"The label table {path} has no column '{name}'; it has {', '.join(map(repr, names))}. "
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
        "the window after the cutoff is not fully observed": dated & (us + days_us(horizon_days) > end_us),
    }


def _first_reasons(problems: Mapping[str, npt.NDArray[np.bool_]], n: int) -> npt.NDArray[np.object_]:
    reasons = np.full(n, None, dtype=object)
    for reason, mask in reversed(list(problems.items())):
        reasons[mask] = reason
    return reasons


def _reject_duplicates(checked: pd.DataFrame, reasons: npt.NDArray[np.object_]) -> None:
    """Equal rows count once; rows that contradict each other are no labels at all."""
    good = np.flatnonzero(pd.isna(reasons))
    rows = checked.iloc[good]
    key = ["customer_id", "cutoff"]
    values = rows["label"].astype("str") + rows.get("split", "")
    clash = values.groupby([rows[name] for name in key]).transform("nunique").to_numpy() > 1
    again = rows.duplicated(key).to_numpy() & ~clash
    reasons[good[clash]] = "the same customer and cutoff with another label or split"
    reasons[good[again]] = "the same customer and cutoff as an earlier row"


def _checked(
    rows: pd.DataFrame, checked: pd.DataFrame, reasons: npt.NDArray[np.object_], numbers: Int64s
) -> CheckedLabels:
    bad = ~pd.isna(reasons)
    names, n = np.unique(reasons[bad].astype(str), return_counts=True)
    counts = dict(zip(names.tolist(), n.tolist(), strict=True))
    quarantine = quarantine_rows(as_table(rows[bad]), numbers[bad], reasons[bad])
    if bad.sum() > TOO_MANY_BAD * len(rows):
        why = ", ".join(f"{reason}: {count:,}" for reason, count in sorted(counts.items(), key=lambda item: -item[1]))
        examples = quarantine.slice(0, 3).to_pylist()
        raise DataError(f"{bad.sum():,} of {len(rows):,} label rows cannot be used ({why}). First: {examples}.")
    labels = checked[~bad].reset_index(drop=True)
    return CheckedLabels(labels.astype({"label": np.int8}), quarantine, counts)

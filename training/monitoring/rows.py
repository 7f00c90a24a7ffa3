"""Rows that the service recorded: a frame of answers, counts of touchpoints, and labels joined to answers.

served = read_rows(Path("monitor"), since="2024-06-01")
served.answers        # a row an answer, as `serving.monitor.monitoring` wrote it
with_labels(served.answers, Path("labels.csv"), Pseudonyms.from_environment())
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from features.errors import ConfigError, DataError, missing_path
from features.events.files import read_table
from features.privacy.pseudonyms import KEY_FILE, Pseudonyms

FILES = ("*.jsonl", "data*.log*")  # ours, and those of BentoML's own monitor
NEEDED = ("at", "champion", "version", "reference", "stands_for", "who", "key", "as_of", "score", "segment", "events",
          "unknown", "missing", "bins", "touchpoints", "answers")  # fmt: skip
DAY = pd.Timedelta(days=1)


@dataclass(frozen=True)
class ServedRows:
    """Rows of a monitor.

    Attributes:
        answers: a row an answer: the columns of `serving.monitor.monitoring`, `at` and `as_of` as UTC, naive.
        touchpoints: rows of counts: `at, champion, version, reference, touchpoints` (dictionaries), `answers`.
        torn: lines that are no rows, such as the last one of a killed process.
    """

    answers: pd.DataFrame
    touchpoints: pd.DataFrame
    broken_lines: int


def read_rows(path: Path, since: str | None = None, until: str | None = None) -> ServedRows:
    """Read a file of rows, or all files in a folder.

    Args:
        path: of either.
        since: leave out earlier answers.
        until: leave out answers at or after it.

    Raises:
        DataError: no such file or folder, or no file of rows in it.
        ConfigError: a time that cannot be read.
    """
    low, high = _moment(since, "--since"), _moment(until, "--until")
    rows, broken_lines = [], 0
    for line in _lines(path):
        row = _row(line)
        if row is None:
            broken_lines += 1
        else:
            rows.append(row)
    frame = pd.DataFrame(rows, columns=list(NEEDED))
    for name in ("at", "as_of"):
        stamps = pd.to_datetime(frame[name], format="ISO8601", utc=True, errors="coerce")
        frame[name] = stamps.dt.tz_localize(None)
    broken_lines += int(frame["at"].isna().sum())
    frame = frame[frame["at"].notna()]
    frame = frame[(frame["at"] >= low) if low is not None else slice(None)]
    frame = frame[(frame["at"] < high) if high is not None else slice(None)]
    counts = frame["touchpoints"].notna()
    answers = frame[~counts].drop(columns=["touchpoints", "answers"])
    for name in ("stands_for", "score", "events", "unknown"):
        answers[name] = pd.to_numeric(answers[name], errors="coerce")
    return ServedRows(
        answers.reset_index(drop=True),
        frame.loc[counts, ["at", "champion", "version", "reference", "touchpoints", "answers"]].reset_index(drop=True),
        broken_lines,
    )


def with_labels(answers: pd.DataFrame, path: Path, pseudonyms: Pseudonyms | None) -> tuple[pd.DataFrame, list[str]]:
    """The answers with `label` (0.0, 1.0, NaN where there is none yet), and what to know about the join.

    Args:
        answers: as `read_rows` gives them.
        path: of a table (CSV or Parquet): `customer_id` or `who` (a pseudonym), `label`, and `cutoff` where a customer
            has several: it is matched with `as_of`, by the day where all cutoffs are midnights, else to the second.
        pseudonyms: by the key of the service; needed for `customer_id`.

    Raises:
        DataError: no such columns, labels that contradict each other.
        ConfigError: identifiers without the key, or another key than that of the rows.
    """
    table = read_table(path).to_pandas()
    notes: list[str] = []
    if "label" not in table or not {"who", "customer_id"} & set(table.columns):
        columns = ", ".join(f"'{name}'" for name in table.columns)
        raise DataError(
            f"{path} needs the columns customer_id (or who), label and, where known, cutoff: it has {columns}."
        )
    labels = pd.DataFrame(
        {"who": _pseudonyms(table, answers, pseudonyms), "label": _binary_labels(table["label"], path)}
    )
    keys = ["who"]
    answers = answers.copy()
    if "cutoff" in table:
        cutoff = pd.to_datetime(table["cutoff"], format="ISO8601", utc=True, errors="coerce").dt.tz_localize(None)
        unit = "D" if (cutoff.dropna() == cutoff.dropna().dt.floor("D")).all() else "s"
        labels["when"], answers["when"] = cutoff.dt.floor(unit), answers["as_of"].dt.floor(unit)
        keys.append("when")
    else:
        notes.append("The labels have no cutoff: each was taken for every answer about its customer.")
    labels = labels.dropna().drop_duplicates()
    if (twice := labels.duplicated(keys)).any():
        raise DataError(f"{path} says 0 and 1 of {int(twice.sum()):,} customers: give a cutoff, or one label each.")
    joined = answers.merge(labels, how="left", on=keys)
    return joined.drop(columns=keys[1:]), notes


def _pseudonyms(table: pd.DataFrame, answers: pd.DataFrame, pseudonyms: Pseudonyms | None) -> Any:
    """(n,) pseudonyms of a label table."""
    if "who" in table:
        return table["who"].astype("str")
    if pseudonyms is None:
        raise ConfigError(f"The rows hold pseudonyms: give the key of the service (--key-file, or {KEY_FILE}).")
    marks = set(answers["key"].dropna())
    if marks and pseudonyms.key_id not in marks:
        raise ConfigError("The key is not the one that the service recorded with, so no label can be joined.")
    ids = table["customer_id"]
    return [None if missing else pseudonyms.of(str(id)) for id, missing in zip(ids, ids.isna(), strict=True)]


def _binary_labels(column: pd.Series, path: Path) -> Any:
    words = column.astype("str").str.strip().str.lower().replace({"true": "1", "false": "0"})
    numbers = pd.to_numeric(words, errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    wrong = ~np.isin(numbers, (0.0, 1.0)) & column.notna().to_numpy()
    if wrong.any():
        raise DataError(
            f"{path}: {int(wrong.sum()):,} labels are neither 0 nor 1, the first in row {wrong.argmax() + 1}."
        )
    return numbers


def _lines(path: Path) -> Iterator[str]:
    if path.is_file():
        files = [path]
    elif path.is_dir():
        files = sorted({file for pattern in FILES for file in path.rglob(pattern)})
    else:
        raise DataError(f"{missing_path(path)} Give the folder that JOURNEYLAB_MONITOR names, or a file of it.")
    if not files:
        raise DataError(f"{path} holds no rows: is the service started with JOURNEYLAB_MONITOR={path}?")
    for file in files:
        with file.open(encoding="utf-8", errors="replace") as lines:
            yield from (line for line in lines if line.strip())


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and set(row) >= set(NEEDED) else None


def _moment(text: str | None, name: str) -> pd.Timestamp | None:
    if text is None:
        return None
    try:
        moment = pd.Timestamp(text)
    except ValueError:
        raise ConfigError(f"{name} {text!r} is no time: give a date such as 2024-06-01.") from None
    return moment.tz_convert("UTC").tz_localize(None) if moment.tzinfo else moment

"""The draft of an experiment file for an unfamiliar log: `journeylab draft`.

    result = draft(Path("sales.csv"), Path("sales_churn.toml"))
    result.notes         # the roles of the columns, and whether it can be trained as it stands

Columns, formats and touchpoints are guessed from the log's first rows, the log is then read by that guess, and the file
is written with a comment beside each line to check.
"""

from __future__ import annotations

import gzip
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from rich.console import Console

from features.errors import ConfigError, DataError, JourneyLabError, unknown_name
from features.events.files import batches, columns_of, event_files
from features.events.schema import REQUIRED
from features.journeys.journeys import Journeys
from features.journeys.loading import load_log
from features.journeys.stream import Loaded
from features.labels.kinds import KINDS
from features.labels.task import DraftLog
from features.timestamps import DAY_US
from training.config.experiment import SLUG, Experiment, load_experiment
from training.data.task_data import task_data
from training.drafting.columns import Roles, roles_of
from training.progress import say, stage

SAMPLE_ROWS = 20_000
MOST_SHOWN = 12  # touchpoints in the file's comment


@dataclass(frozen=True)
class DraftResult:
    """A draft and the guesses behind it.

    Attributes:
        file: the experiment file.
        experiment: as it reads.
        roles: of the log's columns.
        notes: sentences for the user.
        ready: whether it can be trained as it stands.
    """

    file: Path
    experiment: Experiment
    roles: Roles
    notes: tuple[str, ...]
    ready: bool


def draft(
    log: Path,
    out: Path | None = None,
    *,
    kind: str = "churn",
    columns: Mapping[str, str] | None = None,
    progress: Console | None = None,
) -> DraftResult:
    """Look at a log and write an experiment file for it.

    Args:
        log: a CSV, CSV.gz, TSV or Parquet file, or a folder of them.
        out: the file to write; by default the log's name with the task's, in the working directory.
        kind: of task, one that drafts itself: "churn" or "conversion".
        columns: canonical name → theirs, where the guess is to be overruled.
        progress: where to show what is going on.

    Raises:
        ConfigError: the file is there already, or its name cannot be an experiment's.
        DataError: no such log, or nothing in it looks like customers and times.
    """
    kinds = [name for name, task in KINDS.items() if task.draft(DraftLog((), 0)) is not None]
    if kind not in kinds:
        raise ConfigError(f"There is {unknown_name('draft for a task of kind', kind, kinds)}.")
    name = _slug(log, kind)
    out = out or Path(f"{name}.toml")
    if out.exists():
        raise ConfigError(f"{out} is there already: name another file with --out, or delete it.")
    event_files(log)  # a wrong path is an error before anything else
    encoding = _encoding(log)
    with stage(progress, f"Looking at {log}"):
        roles = roles_of(_first_rows(log, encoding, columns or {}), columns)
    _require(roles, log)
    source = _source(log, out, roles, encoding)
    writer = _DraftWriter(name, kind, source, roles)
    with stage(progress, f"Reading {log}"):
        loaded = load_log(_experiment(writer.text(), out).events)
    journeys = loaded.journeys
    days = float(journeys.end_us - journeys.start_us) / DAY_US
    writer = _DraftWriter(name, kind, source, roles, _counts(journeys), days)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(writer.text(), encoding="utf-8")
    experiment = load_experiment(out)
    ready, verdict = _trainable(experiment, loaded)
    notes = (*_summary(loaded, roles, days), verdict)
    for note in notes:
        say(progress, f"  {note}")
    return DraftResult(out, experiment, roles, notes, ready)


@dataclass(frozen=True)
class _DraftWriter:
    """Writes the file; `counts` and `days` are set once the log has been read."""

    name: str
    kind: str
    source: dict[str, Any]
    roles: Roles
    counts: tuple[tuple[str, int], ...] = ()
    days: float = 400.0

    def text(self) -> str:
        """The file."""
        task_lines = KINDS[self.kind].draft(DraftLog(tuple(name for name, _ in self.counts), self.days)) or ()
        return "\n".join([
            f"# Drafted from {Path(self.source['path']).name}: check what is marked with ?",
            "#   journeylab train THIS_FILE        every key: docs/experiment_file.md",
            "",
            f"name = {_toml(self.name)}",
            "",
            "[events]",
            *(_line(key, value) for key, value in self.source.items()),
            *self._unused(),
            "",
            "[task]",
            f"kind = {_toml(self.kind)}",
            *self._touchpoints(),
            *(_line(*line) for line in task_lines),
            "",
            "[search]",
            _line("trials", 10, "30 and more for a result to rely on"),
            _line("jobs", 2, "processes at a time"),
            "",
        ])  # fmt: skip

    def _unused(self) -> list[str]:
        if not self.roles.unused:
            return []
        return [_line("# profile", list(self.roles.unused), "? not used; keep those that describe the customer")]

    def _touchpoints(self) -> list[str]:
        if not self.counts:
            return []
        listed = ", ".join(f"{name} ({n:,})" for name, n in self.counts[:MOST_SHOWN])
        more = f", and {len(self.counts) - MOST_SHOWN:,} more" if len(self.counts) > MOST_SHOWN else ""
        return [f"# touchpoints of the log: {' '.join(listed.split())}{more}"]


def _slug(log: Path, kind: str) -> str:
    stem = re.sub(r"[^a-z0-9]+", "_", log.resolve().name.split(".")[0].lower()).strip("_") or "my"
    name = f"{stem}_{kind}" if stem[0].isalpha() else f"log_{stem}_{kind}"
    return name if SLUG.fullmatch(name) else f"my_{kind}"


def _encoding(log: Path) -> str:
    """UTF-8 where the first files read so; else the encoding of most spreadsheets that do not."""
    for file in event_files(log)[:3]:
        if file.suffix in (".parquet", ".pq"):
            continue
        with gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb") as opened:
            sample = opened.read(64 << 20)
        try:
            sample[: sample.rfind(b"\n") + 1].decode("utf-8")
        except UnicodeDecodeError:
            return "cp1252"
    return "utf8"


def _first_rows(log: Path, encoding: str, columns: Mapping[str, str]) -> pa.Table:
    header = columns_of(log, encoding=encoding)
    for ours, theirs in columns.items():
        if theirs not in header:
            raise ConfigError(f"--columns {ours}={theirs}: the columns are {', '.join(header)}.")
    table = next(batches(log, encoding=encoding, malformed=[])).read()
    if not table.num_rows:
        raise DataError(f"{log} has no rows below its header.")
    every = max(1, table.num_rows // SAMPLE_ROWS)
    return table.take(pa.array(np.arange(0, table.num_rows, every))).select(
        [name for name in header if name in table.column_names]
    )


def _require(roles: Roles, log: Path) -> None:
    for role in REQUIRED[:2]:
        if role not in roles.columns:
            names = ", ".join((*roles.columns.values(), *roles.unused))
            raise DataError(
                f"{log}: no column looks like a {role}. Name it: --columns {role}=THEIRS. There are: {names}."
            )


def _source(log: Path, out: Path, roles: Roles, encoding: str) -> dict[str, Any]:
    """`[events]`, without defaults."""
    source: dict[str, Any] = {"path": os.path.relpath(log.resolve(), out.resolve().parent)}
    source["columns"] = {ours: theirs for ours, theirs in roles.columns.items() if ours != theirs}
    if "touchpoint" not in roles.columns:
        source["touchpoint"] = "purchase"
    options = {"encoding": encoding, "time_format": roles.time_format, "time_unit": roles.time_unit,
             "decimal": roles.decimal}  # fmt: skip
    return source | {key: value for key, value in options.items() if value not in (None, "utf8", ".")}


COMMENTS = {
    "path": "from this file's folder on; CSV, CSV.gz, Parquet, or a folder of them",
    "columns": "? ours = theirs",
    "touchpoint": "? what every row is; no column says what happened",
    "time_format": "? how times are written",
}


def _line(key: str, value: Any, comment: str = "") -> str:
    comment = comment or COMMENTS.get(key, "")
    return f"{key} = {_toml(value)}" + (f"  # {comment}" if comment else "")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        inside = ", ".join(f"{key} = {_toml(item)}" for key, item in value.items())
        return f"{{ {inside} }}" if inside else "{}"
    return json.dumps(value, ensure_ascii=False)  # texts, numbers and lists are the same in both


def _experiment(text: str, out: Path) -> Experiment:
    """The draft before the log is read: only `[events]` matters."""
    data = tomllib.loads(text)
    data["events"]["path"] = str((out.resolve().parent / data["events"]["path"]).resolve())
    return Experiment.model_validate(data)


def _counts(journeys: Journeys) -> tuple[tuple[str, int], ...]:
    """Touchpoints with their numbers of events, the commonest first."""
    category = journeys.categories["touchpoint"]
    n = np.bincount(category.codes[category.codes >= 0], minlength=len(category.names))
    return tuple((str(category.names[place]), int(n[place])) for place in np.argsort(-n, kind="stable") if n[place])


def _summary(loaded: Loaded, roles: Roles, days: float) -> list[str]:
    journeys = loaded.journeys
    took = ", ".join(f"{theirs} is {ours}" for ours, theirs in roles.columns.items())
    texts = [
        f"{journeys.n_events:,} events of {journeys.n_customers:,} customers over {days:,.0f} days.",
        f"Taken: {took}." + (f" Left: {', '.join(roles.unused)}." if roles.unused else ""),
    ]
    if "touchpoint" not in roles.columns:
        texts.append("No column says what happened: every row is a purchase. Otherwise --columns touchpoint=THEIRS.")
    if len(roles.time_formats) > 1:
        texts.append(
            f"Times read as {roles.time_formats[0]}; {roles.time_formats[1]} would read them, too: look twice."
        )
    return [*texts, *(f"{n:,} rows rejected: {reason}." for reason, n in loaded.counts.items())]


def _trainable(experiment: Experiment, loaded: Loaded) -> tuple[bool, str]:
    """Whether `train` has enough to learn from, and a sentence on its rows."""
    try:
        data = task_data(experiment, loaded.journeys, experiment.labels(loaded.journeys), loaded)
    except JourneyLabError as error:
        return False, f"It cannot be trained as it stands: {error}"
    summary = data.task.label_summary(data.y_train, digits=0)
    return True, f"{len(data.train):,} training rows ({summary}); {len(data.test):,} held out."

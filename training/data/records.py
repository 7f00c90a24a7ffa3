"""What every run records about where it came from: data, rows, code, machine, experiment; and the reviewer's note."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.journeys.journeys import Journeys, Snapshots
from features.journeys.stream import Loaded
from features.labels.plan import LabelBuild
from features.timestamps import DAY_US, moment_text
from training.config.experiment import Experiment
from training.data.splits import Fold, make_folds, overlap_sentence
from training.evaluation.breakdown import BaseRateShift, base_rate_shift

FEWEST_TRAIN, FEWEST_CHECK = 100, 20  # positives and negatives in a fold, unless too little data is allowed
SHOWN = ("auroc", "average_precision", "brier", "log_loss", "calibration_error", "lift_at_10")


@dataclass(frozen=True)
class TaskData:
    """The rows of an experiment, ready to train on.

    Attributes:
        journeys: the packed log.
        fingerprint: of the log.
        labels_fingerprint: of the label table.
        train, test: (n,) and (m,) snapshots.
        y_train, y_test: their labels.
        folds: inside train.
        trained_until: µs since 1970 UTC, when the last training label closed.
        notes: what a reviewer should know of reading, labelling and folds.
    """

    journeys: Journeys
    fingerprint: str
    labels_fingerprint: str
    train: Snapshots
    test: Snapshots
    y_train: npt.NDArray[np.int8]
    y_test: npt.NDArray[np.int8]
    folds: tuple[Fold, ...]
    trained_until: int
    shift: BaseRateShift
    notes: tuple[str, ...]

    def rows(self, split: str) -> pd.DataFrame:
        """`customer_id, cutoff, label` of "train" or "test"."""
        snapshots, y = (self.train, self.y_train) if split == "train" else (self.test, self.y_test)
        return snapshots.frame().assign(label=y)

    def scored(self, split: str) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.object_], npt.NDArray[np.int64]]:
        """Labels, customers and cutoffs of "validation" (the check rows, fold by fold) or "test" (held-out rows)."""
        if split == "test":
            return self.y_test, self.test.customer_ids, self.test.cutoff
        rows = np.concatenate([fold.check for fold in self.folds])
        return self.y_train[rows], self.train.customer_ids[rows], self.train.cutoff[rows]

    @property
    def fold_of_checks(self) -> npt.NDArray[np.int64]:
        """(k,) the fold of each validation row, in the order of `scored`."""
        return np.repeat(np.arange(len(self.folds)), [len(fold.check) for fold in self.folds])


def task_data(experiment: Experiment, journeys: Journeys, build: LabelBuild, log: Loaded) -> TaskData:
    """Snapshots, labels and folds from a label table."""
    table = build.table
    horizon_us = round(experiment.task.horizon_days * DAY_US)
    snapshots, y = journeys.at_ids(table), table["label"].to_numpy(np.int8)
    is_test = (table["split"] == "test").to_numpy()
    train, test = snapshots.take(np.flatnonzero(~is_test)), snapshots.take(np.flatnonzero(is_test))
    fewest = (1, 1) if experiment.allow_small else (FEWEST_TRAIN, FEWEST_CHECK)
    folds = make_folds(
        train.customer_ids,
        train.cutoff,
        horizon_us,
        labels=y[~is_test],
        seed=experiment.seed,
        fewest_train=fewest[0],
        fewest_check=fewest[1],
    )
    shift = base_rate_shift(y[~is_test], train.customer_ids, y[is_test], test.customer_ids, seed=experiment.seed)
    set_aside = tuple(f"events set aside, {reason}: {n:,}" for reason, n in log.counts.items())
    return TaskData(
        journeys=journeys,
        fingerprint=journeys.fingerprint(),
        labels_fingerprint=labels_fingerprint(table),
        train=train,
        test=test,
        y_train=y[~is_test],
        y_test=y[is_test],
        folds=tuple(folds),
        trained_until=int(train.cutoff.max()) + horizon_us,
        shift=shift,
        notes=(*log.notes, *set_aside, *build.notes, overlap_sentence(folds), shift.sentence),
    )


def labels_fingerprint(table: pd.DataFrame) -> str:
    """SHA-256 of customers, cutoffs, labels and split, in the table's order."""
    columns = [table["customer_id"].astype(str), table["cutoff"].astype(str), table["label"].astype(str)]
    text = "\n".join("\x1f".join(row) for row in zip(*columns, table["split"].astype(str), strict=True))
    return hashlib.sha256(text.encode()).hexdigest()


def configuration_fingerprint(experiment: Experiment, data: TaskData) -> str:
    """SHA-256 of all that decides the outcome; how long to search, the map, segments and reports do not."""
    aside: dict[str, Any] = {
        "search": {"trials", "trials_of", "jobs", "timeout_s"},
        "map": True,
        "segments": True,
        "report": True,
    }
    settings = experiment.model_dump(mode="json", exclude=aside)
    parts = (json.dumps(settings, sort_keys=True), data.fingerprint, data.labels_fingerprint)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def tags(experiment: Experiment, data: TaskData) -> dict[str, str]:
    """The tags that every run of a training has."""
    commit, changed = code_version()
    return {
        "task": experiment.name,
        "task_kind": experiment.task.kind,
        "horizon_days": f"{experiment.task.horizon_days:g}",
        "data_fingerprint": data.fingerprint,
        "labels_fingerprint": data.labels_fingerprint,
        "trained_until": moment_text(data.trained_until),
        "trained_until_us": str(data.trained_until),
        "journeylab_version": version("journeylab"),
        "commit": commit,
        "commit_changed": str(changed).lower(),
        "mlflow.source.git.commit": commit,
        "mlflow.source.name": "journeylab train",
    }


@cache
def code_version() -> tuple[str, bool]:
    """The commit that this code is at ("" outside a repository), and whether files differ from it."""
    here = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        done = subprocess.run(["git", "-C", str(here), *arguments], capture_output=True, text=True)
        return done.stdout.strip() if done.returncode == 0 else ""

    try:
        commit = git("rev-parse", "HEAD")
    except FileNotFoundError:
        return "", False
    return commit, bool(commit and git("status", "--porcelain"))


def write_provenance(folder: Path, experiment: Experiment) -> None:
    """Write `experiment/` (the file, and all of it resolved) and `environment/` (machine, every package)."""
    (folder / "experiment").mkdir(parents=True, exist_ok=True)
    (folder / "environment").mkdir(exist_ok=True)
    if experiment.file is not None and experiment.file.is_file():
        (folder / "experiment" / "experiment.toml").write_bytes(experiment.file.read_bytes())
    resolved = {"experiment": experiment.model_dump(mode="json"), "overrides": list(experiment.overrides)}
    _write_json(folder / "experiment" / "resolved.json", resolved)
    commit, changed = code_version()
    _write_json(folder / "environment" / "machine.json", machine() | {"commit": commit, "commit_changed": changed})
    (folder / "environment" / "packages.txt").write_text("\n".join(_packages()) + "\n", encoding="utf-8")


def machine() -> dict[str, Any]:
    """What of this machine can move the last digits."""
    torch = sys.modules.get("torch")  # where nothing has used it, no GPU has had a part
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": os.environ.get("OMP_NUM_THREADS", ""),
        "gpu": torch.cuda.get_device_name() if torch is not None and torch.cuda.is_available() else "",
    }


@cache
def _packages() -> tuple[str, ...]:
    """Every installed package with its version; a process's packages do not change."""
    return tuple(sorted({f"{found.name}=={found.version}" for found in distributions()}, key=str.lower))


def resolved_experiment(folder: Path) -> Experiment:
    """The experiment that `write_provenance` wrote, paths and overrides resolved."""
    found = json.loads((folder / "resolved.json").read_text(encoding="utf-8"))
    return Experiment.model_validate(found["experiment"])


def note(
    experiment: Experiment,
    data: TaskData,
    title: str,
    said: str,
    metrics: Mapping[str, float],
    remarks: Sequence[str] = (),
    uri: str | None = None,
) -> str:
    """The description of a run, Markdown: what it is, how good, on what, and what to beware of."""
    events = f"{data.journeys.n_events:,} events of {data.journeys.n_customers:,} customers"
    lines = [
        f"## {title}",
        said,
        _table(metrics),
        "### Data",
        f"- {experiment.task.kind}, horizon {experiment.task.horizon_days:g} days; {events} "
        f"(fingerprint `{data.fingerprint[:12]}`) from `{experiment.events.path}`",
        f"- train: {span(data.train, data.y_train)}; the last label closed on {moment_text(data.trained_until)}",
        f"- held out: {span(data.test, data.y_test)}",
        *(f"- {remark}" for remark in (*data.notes, *remarks)),
    ]
    if uri:
        lines += ["### Use", f"```python\nmlflow.pyfunc.load_model({uri!r}).predict(events)\n```"]
    return "\n\n".join(line for line in lines if line).replace("\n\n- ", "\n- ")


def fresh(folder: Path) -> Path:
    """An empty folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _table(metrics: Mapping[str, float]) -> str:
    rows = []
    for name in SHOWN:
        cells = [_figure(metrics, f"{split}_{name}") for split in ("validation", "test")]
        if any(cells):
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(["| | validation | held out |", "|---|---|---|", *rows]) if rows else ""


def _figure(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return f"{metrics[name]:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else "")


def card_lines(data: TaskData) -> tuple[str, str, str]:
    """The model card's lines on the log, the training rows and the held-out rows."""
    journeys = data.journeys
    first, last = (moment_text(moment)[:10] for moment in (journeys.start_us, journeys.end_us))
    return (
        f"Log: {journeys.n_events:,} events of {journeys.n_customers:,} customers, {first} to {last} "
        f"(fingerprint `{data.fingerprint[:12]}`)",
        f"Train: {span(data.train, data.y_train)}; the last label closed on {moment_text(data.trained_until)}",
        f"Held out: {span(data.test, data.y_test)}; scored once, after all settings were fixed",
    )


def span(snapshots: Snapshots, y: npt.NDArray[Any]) -> str:
    """How many rows, how many of them positive, which cutoffs: for a note."""
    first, last = moment_text(int(snapshots.cutoff.min())), moment_text(int(snapshots.cutoff.max()))
    return f"{len(y):,} snapshots, {np.mean(y):.1%} positive, cutoffs {first} to {last}"


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")

"""Is what is served like what was trained on? Rows of the service against the reference of the champion.

    report = monitor(Path("monitor"), "churn@champion", labels=Path("labels.csv"))
    report.alarms        # sentences; none: all is well
    report.checks        # a row a check: what, how far, what chance would show, whether it is an alarm

What `journeylab monitor` does. An alarm needs a figure past its threshold and beyond what chance shows once in a
hundred reports; too few answers are said, not judged. Rows of one customer hang together, and a row that stands for
many answers is still one: figures are as sure as the effective number of customers, (Σ w)² / Σ w² (Kish 1965), says.
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from rich.console import Console

from features.errors import DataError
from features.privacy.pseudonyms import Pseudonyms
from models.scoring.training_reference import TrainingReference
from training.monitoring.checks import ChampionChecks, MonitoredModel, MonitorReport, MonitorThresholds
from training.monitoring.outcomes import outcomes
from training.monitoring.rows import ServedRows, read_rows, with_labels
from training.progress import stage


def monitor(
    rows: Path,
    model: str,
    *,
    labels: Path | None = None,
    since: str | None = None,
    until: str | None = None,
    thresholds: MonitorThresholds | None = None,
    key_file: Path | None = None,
    progress: Console | None = None,
) -> MonitorReport:
    """Compare what was served with what was trained on.

    Args:
        rows: a file or folder, as the service recorded them.
        model: `NAME@champion`, any other URI of a model, or a scoring folder.
        labels: what came true, see `training.monitoring.rows.with_labels`.
        since: leave out answers before.
        until: leave out answers at or after.
        thresholds: when to act.
        key_file: the service's key, where labels are by `customer_id`; by default the environment says.
        progress: where to show what is going on.

    Raises:
        DataError: no rows of this model, a model without a reference, labels that cannot be used.
        ConfigError: no such model, another key.
    """
    champion = load_champion(model)
    with stage(progress, f"Reading {rows}"):
        served = read_rows(rows, since, until)
    own, notes = _own(served, champion)
    look = ChampionChecks(champion, own, served, thresholds or MonitorThresholds())
    found = None
    if labels is not None:
        joined, said = with_labels(own, labels, Pseudonyms.from_environment(file=key_file))
        notes += said
        with stage(progress, "Resampling labelled answers"):
            found = outcomes(joined)
        notes += found.notes
    return look.report(found, notes)


def load_champion(model: str) -> MonitoredModel:
    """The champion of an URI or a scoring folder.

    Raises:
        ConfigError: no such model.
        DataError: it was saved without a reference.
    """
    folder, name, version = Path(model), "", "0"
    if not (folder / "task.json").is_file():
        from training.tracking.registry import resolve

        found = resolve(model)
        folder, name, version = found.folder, found.name, found.version or "0"
    elif (folder / "champion.json").is_file():
        about = json.loads((folder / "champion.json").read_text(encoding="utf-8"))
        name, version = str(about["name"]), str(about["version"])
    reference = TrainingReference.load(folder)
    if reference is None:
        raise DataError(f"{model} was saved without a reference of its training: train it again, and package it.")
    return MonitoredModel(name or _task_name(folder), version, reference)


def _task_name(folder: Path) -> str:
    return str(json.loads((folder / "task.json").read_text(encoding="utf-8"))["task"]["name"])


def _own(served: ServedRows, champion: MonitoredModel) -> tuple[pd.DataFrame, list[str]]:
    """The answers of this champion that its reference can judge."""
    answers, notes = served.answers, []
    if served.broken_lines:
        notes.append(
            f"{served.broken_lines:,} lines are no rows, such as a process leaves that is killed while it writes."
        )
    named = answers[answers["champion"] == champion.name]
    if answers.empty:
        raise DataError("There are no rows of answers, at least none in this time: nothing was compared.")
    if named.empty:
        there = ", ".join(sorted(answers["champion"].astype(str).unique()))
        raise DataError(f"No row is of '{champion.name}': the rows are of {there}.")
    same = named["reference"] == champion.reference.id
    own = named[same | (named["reference"].isna() & (named["version"] == champion.version))]
    if own.empty:
        there = ", ".join(sorted(named["version"].astype(str).unique()))
        raise DataError(
            f"No row of '{champion.name}' is by version {champion.version}, which was trained with reference "
            f"{champion.reference.id}: the rows are by version {there}. Give that one, as {champion.name}/VERSION."
        )
    if len(own) < len(named):
        notes.append(f"{len(named) - len(own):,} rows are by other versions: they are listed, and not judged.")
    return own.reset_index(drop=True), notes

"""Monitor a champion: rows that the service recorded, against the reference of its training.

    report = monitor(Path("monitor"), "churn@champion", labels=Path("labels.csv"))
    report.alarms        # sentences; empty: no alarm
    report.checks        # one row for each check: value, threshold, what chance reaches, whether it is an alarm

`journeylab monitor` calls this. An alarm needs a value past its threshold and beyond what chance reaches once in a
hundred reports; with too few answers nothing is judged. Rows of one customer are alike, and a row can stand for many
answers: uncertainty therefore follows the effective number of customers, (Σ w)² / Σ w² (Kish 1965).
"""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
from rich.console import Console

from features.errors import DataError
from features.privacy.pseudonyms import Pseudonyms
from models.scoring.training_reference import TrainingReference
from training.monitoring.checks import ChampionChecks, MonitoredModel, MonitorThresholds
from training.monitoring.outcomes import measure_outcomes
from training.monitoring.report import MonitorReport
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
    """Compare served answers with the training reference.

    Args:
        rows: a file or folder, as the service recorded them.
        model: `NAME@champion`, any other URI of a model, or a scoring folder.
        labels: outcomes, see `training.monitoring.rows.with_labels`.
        since: leave out answers before.
        until: leave out answers at or after.
        thresholds: limits beyond which a check is an alarm.
        key_file: the service's key, where labels are by `customer_id`; by default the environment says.
        progress: where to show progress.

    Raises:
        DataError: no rows of this model, a model without a reference, labels that cannot be used.
        ConfigError: no such model, another key.
    """
    champion = load_champion(model)
    with stage(progress, f"Reading {rows}"):
        served = read_rows(rows, since, until)
    answers, notes = _answers_of(served, champion)
    outcomes = None
    if labels is not None:
        joined, remarks = with_labels(answers, labels, Pseudonyms.from_environment(file=key_file))
        with stage(progress, "Resampling labelled answers"):
            outcomes = measure_outcomes(joined)
        notes += [*remarks, *outcomes.notes]
    return ChampionChecks(champion, answers, served, thresholds or MonitorThresholds()).report(outcomes, notes)


def load_champion(model: str) -> MonitoredModel:
    """The model of an URI or a scoring folder, with its reference.

    Raises:
        ConfigError: no such model.
        DataError: it was saved without a reference.
    """
    folder, name, version = Path(model), "", "0"
    if not (folder / "task.json").is_file():
        from training.tracking.registry import resolve

        resolved = resolve(model)
        folder, name, version = resolved.folder, resolved.name, resolved.version or "0"
    elif (folder / "champion.json").is_file():
        about = json.loads((folder / "champion.json").read_text(encoding="utf-8"))
        name, version = str(about["name"]), str(about["version"])
    reference = TrainingReference.load(folder)
    if reference is None:
        raise DataError(f"{model} was saved without a reference of its training: train it again, and package it.")
    return MonitoredModel(name or _task_name(folder), version, reference)


def _task_name(folder: Path) -> str:
    return str(json.loads((folder / "task.json").read_text(encoding="utf-8"))["task"]["name"])


def _answers_of(served: ServedRows, champion: MonitoredModel) -> tuple[pd.DataFrame, list[str]]:
    """The answers of this champion that its reference can judge, and notes on the others."""
    answers, notes = served.answers, []
    if served.broken_lines:
        notes.append(f"{served.broken_lines:,} lines are incomplete, as when a process is killed while it writes.")
    named = answers[answers["champion"] == champion.name]
    if answers.empty:
        raise DataError("There are no rows of answers in this period: nothing was compared.")
    if named.empty:
        names = ", ".join(sorted(answers["champion"].astype(str).unique()))
        raise DataError(f"No row is of '{champion.name}': the rows are of {names}.")
    same = named["reference"] == champion.reference.id
    comparable = named[same | (named["reference"].isna() & (named["version"] == champion.version))]
    if comparable.empty:
        versions = ", ".join(sorted(named["version"].astype(str).unique()))
        raise DataError(
            f"No row of '{champion.name}' is by version {champion.version}, which was trained with reference "
            f"{champion.reference.id}: the rows are by version {versions}. Give that one, as {champion.name}/VERSION."
        )
    if len(comparable) < len(named):
        notes.append(f"{len(named) - len(comparable):,} rows are by other versions: they are listed, but not judged.")
    return comparable.reset_index(drop=True), notes

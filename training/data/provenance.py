"""Where a run comes from: fingerprints, code, machine, packages and experiment; its tags and its note."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import distributions, version
from pathlib import Path
from typing import Any

from features.labels.task import Task
from features.timestamps import moment_text
from training.config.experiment import Experiment
from training.data.task_data import TaskData, data_lines


def configuration_fingerprint(experiment: Experiment, data: TaskData) -> str:
    """SHA-256 of everything that decides the outcome: not the length of the search, the map, segments and reports."""
    excluded: dict[str, Any] = {
        "search": {"trials", "trials_of", "jobs", "timeout_s"},
        "map": True,
        "segments": True,
        "report": True,
    }
    settings = experiment.model_dump(mode="json", exclude=excluded)
    parts = (json.dumps(settings, sort_keys=True), data.fingerprint, data.labels_fingerprint)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def run_tags(experiment: Experiment, data: TaskData) -> dict[str, str]:
    """The tags of every run of a training."""
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
    """The commit of this code ("" outside a repository), and whether files differ from it."""
    root = Path(__file__).resolve().parents[2]

    def git(*arguments: str) -> str:
        result = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True)
        return result.stdout.strip() if result.returncode == 0 else ""

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
    """The properties of this machine that can change the last digits of a result."""
    torch = sys.modules.get("torch")  # if it was not imported, no GPU was used
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
    return tuple(sorted({f"{package.name}=={package.version}" for package in distributions()}, key=str.lower))


def resolved_experiment(folder: Path) -> Experiment:
    """The experiment that `write_provenance` wrote, paths and overrides resolved."""
    resolved = json.loads((folder / "resolved.json").read_text(encoding="utf-8"))
    return Experiment.model_validate(resolved["experiment"])


def run_note(
    experiment: Experiment,
    data: TaskData,
    title: str,
    description: str,
    metrics: Mapping[str, float],
    remarks: Sequence[str] = (),
    uri: str | None = None,
) -> str:
    """The description of a run, Markdown: what it is, how good, on which data, and its limits."""
    lines = [
        f"## {title}",
        description,
        _table(metrics, experiment.task),
        "### Data",
        f"- {experiment.task.kind}, horizon {experiment.task.horizon_days:g} days, from `{experiment.events.path}`",
        *(f"- {line}" for line in (*data_lines(data), *data.notes, *remarks)),
    ]
    if uri:
        lines += ["### Use", f"```python\nmlflow.pyfunc.load_model({uri!r}).predict(events)\n```"]
    return "\n\n".join(line for line in lines if line).replace("\n\n- ", "\n- ")


def empty_folder(folder: Path) -> Path:
    """The folder, made or emptied."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _table(metrics: Mapping[str, float], task: Task) -> str:
    rows = []
    for name in (metric.name for metric in task.metrics):
        cells = [_with_interval(metrics, f"{split}_{name}") for split in ("validation", "test")]
        if any(cells):
            rows.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(["| | validation | held out |", "|---|---|---|", *rows]) if rows else ""


def _with_interval(metrics: Mapping[str, float], name: str) -> str:
    if name not in metrics:
        return ""
    low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
    return f"{metrics[name]:.4f}" + (f" ({low:.4f} to {high:.4f})" if low is not None and high is not None else "")


def _write_json(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, indent=1, ensure_ascii=False), encoding="utf-8")

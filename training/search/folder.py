"""The folder of a search: the data that its workers read, the scores that they write, and its lock.

job.json                        kind, settings that no trial samples, seed, fingerprint; written last
journeys/ snapshot_*.npy        the rows, without pickle
labels.npy fold_0_fit.npy …     their labels, and which rows each fold fits on and checks on
optuna.db                       the trials, where they do not lie on a PostgreSQL
study.txt                       the study on a PostgreSQL that the scores are of
owner                           the name of this folder in the trials of its workers
scores/trial_0007_fold_1.npy    predictions for the check rows of that fold; a fold scored once is never scored again
state/trial_0007_fold_1/        where a long fit keeps what it has learnt so far, until the fold is scored
worker_0.log                    the output of libraries in that worker
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from features.errors import ConfigError
from features.journeys.journeys import Journeys, Snapshots
from training.data.splits import Fold

Rows = npt.NDArray[np.int64]
Scores = npt.NDArray[np.float64]
Settings = dict[str, Any]

FORMAT = 1


@dataclass(frozen=True)
class Job:
    """Everything that decides the outcome of a trial with given settings.

    Attributes:
        kind: the kind of model.
        snapshots, labels: (n,) the training rows.
        folds: pairs of row indices: fit on the first, check on the second.
        seed: of the sampler.
        fixed: settings that every trial shares.
        catalogue: the module with `make(kind, settings)`, `search_space(kind, trial)` and `search_starts(kind)`.
    """

    kind: str
    snapshots: Snapshots
    labels: npt.NDArray[Any]
    folds: tuple[tuple[Rows, Rows], ...]
    seed: int = 0
    fixed: Settings = field(default_factory=dict)
    catalogue: str = "models.catalogue"

    @classmethod
    def of(
        cls,
        kind: str,
        snapshots: Snapshots,
        labels: npt.ArrayLike,
        folds: Iterable[Fold],
        *,
        seed: int = 0,
        fixed: Settings | None = None,
        catalogue: str = "models.catalogue",
    ) -> Job:
        """The job of a search over folds as `training.data.splits.make_folds` gives them."""
        rows = tuple((fold.train, fold.check) for fold in folds)
        return cls(kind, snapshots, np.asarray(labels), rows, seed, fixed or {}, catalogue)

    def fingerprint(self) -> str:
        """SHA-256 over the data, the labels, the folds and the settings."""
        digest = hashlib.sha256(self.snapshots.journeys.fingerprint().encode())
        arrays = [self.snapshots.customer, self.snapshots.cutoff, np.asarray(self.labels, dtype=np.int64)]
        for rows in (*arrays, *(part for fold in self.folds for part in fold)):
            digest.update(len(rows).to_bytes(8, "little"))
            digest.update(np.asarray(rows, dtype=np.int64).tobytes())
        digest.update(json.dumps(self.about(), sort_keys=True).encode())
        return digest.hexdigest()

    def save(self, folder: Path) -> None:
        """Write the job; `job.json` comes last, so a folder with it is whole."""
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "scores").mkdir(exist_ok=True)
        self.snapshots.journeys.save(folder / "journeys")
        for name in ("customer", "start", "stop", "cutoff"):
            np.save(folder / f"snapshot_{name}.npy", getattr(self.snapshots, name))
        np.save(folder / "labels.npy", np.asarray(self.labels, dtype=np.int8))
        for number, (fit, check) in enumerate(self.folds):
            np.save(folder / f"fold_{number}_fit.npy", np.asarray(fit, dtype=np.int64))
            np.save(folder / f"fold_{number}_check.npy", np.asarray(check, dtype=np.int64))
        about = self.about() | {"fingerprint": self.fingerprint()}
        _replace(folder / "job.json", json.dumps(about, indent=1).encode())

    @classmethod
    def load(cls, folder: Path) -> Job:
        """Read what `save` wrote."""
        about = json.loads((folder / "job.json").read_text(encoding="utf-8"))
        rows = {name: _array(folder / f"snapshot_{name}.npy") for name in ("customer", "start", "stop", "cutoff")}
        folds = [
            (_array(folder / f"fold_{number}_fit.npy"), _array(folder / f"fold_{number}_check.npy"))
            for number in range(about["n_folds"])
        ]
        return cls(
            kind=about["kind"],
            snapshots=Snapshots(Journeys.load(folder / "journeys"), **rows),
            labels=_array(folder / "labels.npy"),
            folds=tuple(folds),
            seed=about["seed"],
            fixed=about["fixed"],
            catalogue=about["catalogue"],
        )

    def about(self) -> dict[str, Any]:
        """The search without its rows."""
        return {
            "format": FORMAT,
            "kind": self.kind,
            "seed": self.seed,
            "fixed": self.fixed,
            "catalogue": self.catalogue,
            "n_folds": len(self.folds),
        }


def prepare(job: Job, folder: Path) -> bool:
    """Write the job into a new folder, or check that the folder holds this very job; true where it was there.

    Raises:
        ConfigError: the folder belongs to a search of something else.
    """
    if not (folder / "job.json").is_file():
        job.save(folder)
        return False
    saved = json.loads((folder / "job.json").read_text(encoding="utf-8"))
    if saved["fingerprint"] != job.fingerprint():
        changed = [name for name, value in job.about().items() if saved.get(name) != value]
        reason = f"its {', '.join(changed)} differ" if changed else "its rows, labels or folds differ"
        raise ConfigError(
            f"{folder} holds a search that began with another configuration: {reason}. "
            "Undo the change to resume it, or give the new search a folder of its own."
        )
    return True


def merged(fixed: Mapping[str, Any], turned: Mapping[str, Any]) -> Settings:
    """Settings of a trial over those that are fixed; tables are merged, of two lists what both hold remains.

    >>> merged({"seed": 1, "features": {"groups": ["rfm", "touch"]}}, {"leaves": 4, "features": {"groups": ["rfm"]}})
    {'seed': 1, 'features': {'groups': ['rfm']}, 'leaves': 4}
    """
    out = dict(fixed)
    for name, value in turned.items():
        before = out.get(name)
        if isinstance(before, Mapping) and isinstance(value, Mapping):
            out[name] = merged(before, value)
        elif isinstance(before, list | tuple) and isinstance(value, list | tuple):
            out[name] = [item for item in value if item in before]
        else:
            out[name] = value
    return out


def scores_path(folder: Path, trial: int, fold: int) -> Path:
    """Where the predictions of a trial for the check rows of a fold lie."""
    return folder / "scores" / f"trial_{trial:04d}_fold_{fold}.npy"


def state_path(folder: Path, trial: int, fold: int) -> Path:
    """Where the fit of a trial on a fold may keep its state while it lasts."""
    return folder / "state" / f"trial_{trial:04d}_fold_{fold}"


def write_scores(path: Path, scores: Scores) -> None:
    """Write (n_check,) predictions so that the file is either whole or not there."""
    temporary = path.with_suffix(f".{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.save(file, scores)
    os.replace(temporary, path)


def read_scores(path: Path) -> Scores:
    """(n_check,) predictions."""
    return np.asarray(np.load(path, allow_pickle=False), dtype=np.float64)


@contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold the folder for this process; the kernel lets go of it when the process dies, however it dies.

    Raises:
        ConfigError: another process holds it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ConfigError(
                f"Another search is running in {folder}. Wait for it, or stop it, and try again."
            ) from None
        yield


def _array(path: Path) -> npt.NDArray[Any]:
    return np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))


def _replace(path: Path, content: bytes) -> None:
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    os.replace(temporary, path)

"""The plan and the folder of scoring in partitions: an earlier attempt is resumed only where its plan is the same.

    OUT/part-00017.parquet     the scores of a partition, complete as soon as it is there
    OUT/_SUCCESS               how many of what, as JSON, once all parts are there
    OUT/_work/                 the plan and the log on disk (`features.journeys.disk_log`); gone at the end

Every file is written beside its name and then moved there, so that a run that is killed leaves only whole ones.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from features.errors import ConfigError
from features.journeys.whole_files import locked, write_whole

FORMAT = 2  # of what lies in the folder: another one is begun anew
WORK, DONE, PLAN = "_work", "_SUCCESS", "plan.json"
HASHED_BYTES = 1 << 20


@dataclass(frozen=True)
class ScoringPlan:
    """Everything that the scores depend on, and how they are cut.

    Attributes:
        model: its files, see `model_digest`.
        events: (path, bytes, time of change in ns) of each file.
        reading: how they are read, as `features.events.source.EventSource` dumps it.
        as_of: the cutoff asked for, in µs; None for just after the last event.
        snapshots: path, bytes, time of change of the table of rows asked for; None for everyone.
        partitions: how many.
    """

    model: str
    events: list[list[Any]]
    reading: dict[str, Any]
    as_of: int | None
    snapshots: list[Any] | None
    partitions: int

    @property
    def key(self) -> str:
        """The same for the same plan."""
        text = json.dumps([FORMAT, asdict(self)], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


def model_digest(folder: Path) -> str:
    """SHA-256 over a scoring folder's files, the recorded sample apart."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if "sample" in file.relative_to(folder).parts:
            continue
        digest.update(str(file.relative_to(folder)).encode())
        with file.open("rb") as opened:
            while block := opened.read(HASHED_BYTES):
                digest.update(block)
    return digest.hexdigest()


@dataclass(frozen=True)
class RunFolder:
    """The folder of a run, held by one process at a time.

    Attributes:
        folder: where the parts go.
        plan: what is being done there.
        resumed: whether it had been begun before.
    """

    folder: Path
    plan: ScoringPlan
    resumed: bool

    @property
    def work(self) -> Path:
        """What is gone at the end."""
        return self.folder / WORK

    @property
    def done(self) -> Path:
        """What says that all parts are there."""
        return self.folder / DONE

    def part(self, number: int) -> Path:
        """The scores of a partition."""
        return self.folder / f"part-{number:05d}.parquet"


@contextmanager
def open_run_folder(folder: Path, plan: ScoringPlan) -> Iterator[RunFolder]:
    """Lock a folder for a plan; files of another plan are deleted.

    Raises:
        ConfigError: another run has it locked, or it holds other files.
    """
    with locked(folder):
        resumed = plan_key(folder) == plan.key
        if not resumed:
            _clear(folder)
        run = RunFolder(folder, plan, resumed)
        if run.done.exists():
            shutil.rmtree(run.work, ignore_errors=True)  # killed while that was being removed
        else:
            run.work.mkdir(parents=True, exist_ok=True)
            write_whole(run.work / PLAN, json.dumps({"key": plan.key} | asdict(plan), indent=1, default=str))
        yield run


def plan_key(folder: Path) -> str | None:
    """The key of the plan that a folder was begun, or ended, with; None where the files are not ours."""
    for path in (folder / DONE, folder / WORK / PLAN):
        if path.is_file():
            try:
                return str(json.loads(path.read_text(encoding="utf-8"))["key"])
            except (ValueError, TypeError, KeyError):
                return None
    return None


def _clear(folder: Path) -> None:
    """Remove the files of an earlier plan."""
    names = sorted(path.name for path in folder.iterdir())
    ours = [name for name in names if name in (WORK, DONE) or name.startswith("part-")]
    if ours != names or (names and plan_key(folder) is None and names != [WORK]):
        other = next((name for name in names if name not in ours), names[0])
        raise ConfigError(f"{folder} holds other files ({other}): name a new folder for the scores.")
    (folder / DONE).unlink(missing_ok=True)  # first of all: without it nobody takes the rest for complete
    for name in ours:
        if name.startswith("part-"):
            (folder / name).unlink()
    shutil.rmtree(folder / WORK, ignore_errors=True)

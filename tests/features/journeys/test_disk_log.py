"""The disk engine gives the numbers of the memory engine, and goes on after an interruption."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from features.errors import DataError
from features.events.source import EventSource
from features.journeys.disk_log import DiskLog
from features.journeys.event_log import MemoryLog, Part, total
from features.journeys.loading import load_log, stream_log


@pytest.fixture
def source(simulated_events: pd.DataFrame, tmp_path: Path) -> EventSource:
    """A log with duplicates and a bad time."""
    rows = pd.concat([simulated_events, simulated_events.head(40)], ignore_index=True)
    rows["timestamp"] = rows["timestamp"].astype(str)
    rows.loc[7, "timestamp"] = "soon"
    rows.to_csv(tmp_path / "events.csv", index=False)
    return EventSource(path=tmp_path / "events.csv", duplicates="quarantine")


def open_disk(source: EventSource, folder: Path, partitions: int = 5) -> DiskLog:
    opened = stream_log(source)
    assert opened is not None
    stream, drop_duplicates = opened
    return DiskLog(folder, stream, partitions, drop_duplicates)


def counts(part: Part) -> dict[str, np.ndarray]:
    return {
        name: np.bincount(column.codes + 1, minlength=len(column.names) + 1)
        for name, column in part.journeys.categories.items()
    }


def customers(part: Part) -> list[tuple[int, str]]:
    return list(zip(part.firsts.tolist(), part.journeys.customer_ids.to_pylist(), strict=True))


@pytest.mark.parametrize("partitions", [1, 5])
def test_disk_equals_memory(source: EventSource, tmp_path: Path, partitions: int) -> None:
    memory, disk = MemoryLog(load_log(source)), open_disk(source, tmp_path / "work", partitions)
    assert disk.facts == memory.facts
    assert (disk.rejected, disk.notes) == (memory.rejected, memory.notes)
    np.testing.assert_equal(total(disk, counts), total(memory, counts))
    by_appearance = sorted(pair for pairs in disk.each(customers) for pair in pairs)
    assert [name for _, name in by_appearance] == memory.part.journeys.customer_ids.to_pylist()


def test_quarantine_has_the_same_rows(source: EventSource, tmp_path: Path) -> None:
    paths = [log.quarantine(tmp_path / f"{type(log).__name__}.csv")
             for log in (MemoryLog(load_log(source)), opened(open_disk(source, tmp_path / "work")))]  # fmt: skip
    memory, disk = (pd.read_csv(str(path)).sort_values(["row", "reason"], ignore_index=True) for path in paths)
    assert len(memory) == 40
    pd.testing.assert_frame_equal(disk[memory.columns], memory)


def opened(log: DiskLog) -> DiskLog:
    """The log once all of its partitions are packed."""
    assert log.facts.events
    return log


def test_an_interrupted_log_goes_on(source: EventSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = open_disk(source, tmp_path / "whole").facts
    pack, packed = DiskLog.pack, list[int]()

    def interrupted(log: DiskLog, number: int) -> tuple[Part, int]:
        if len(packed) == 2:
            packed.append(-1)
            raise KeyboardInterrupt
        packed.append(number)
        return pack(log, number)

    monkeypatch.setattr(DiskLog, "pack", interrupted)
    first = open_disk(source, tmp_path / "work")
    first.workers = 1
    with pytest.raises(KeyboardInterrupt):
        _ = first.facts
    assert open_disk(source, tmp_path / "work").facts == whole
    numbers = [number for number in packed if number >= 0]
    assert sorted(numbers) == list(range(5)), "no partition is packed twice"


def test_an_interruption_while_names_are_merged_loses_nothing(
    source: EventSource, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = open_disk(source, tmp_path / "whole").facts
    rmtree = shutil.rmtree

    def interrupted(path: Path, ignore_errors: bool = False) -> None:
        if Path(path).exists():  # as if killed when half of the old columns are gone
            (Path(path) / "t.npy").unlink()
            raise KeyboardInterrupt
        rmtree(path, ignore_errors=ignore_errors)

    monkeypatch.setattr("features.journeys.disk_log.shutil.rmtree", interrupted)
    first = open_disk(source, tmp_path / "work", partitions=40)  # so many that some lack names of the whole log
    first.workers = 1
    with pytest.raises(KeyboardInterrupt):
        _ = first.facts
    monkeypatch.undo()
    again = open_disk(source, tmp_path / "work", partitions=40)
    assert again.facts == whole
    assert total(again, lambda part: part.journeys.n_events) == whole.events


def test_close_deletes_the_folder(source: EventSource, tmp_path: Path) -> None:
    log = opened(open_disk(source, tmp_path / "work"))
    log.close()
    assert not (tmp_path / "work").exists()


def test_a_table_that_is_no_event_log_is_refused(tmp_path: Path) -> None:
    rows = pd.DataFrame({"customer_id": list("abc"), "timestamp": "soon", "touchpoint": "visit"})
    rows.to_csv(tmp_path / "events.csv", index=False)
    log = open_disk(EventSource(path=tmp_path / "events.csv"), tmp_path / "work")
    with pytest.raises(DataError, match="This is no event log: 3 of 3 rows cannot be used"):
        _ = log.facts

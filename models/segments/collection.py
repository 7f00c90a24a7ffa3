"""All segmentations of an experiment as one model: a customer's segment in every partition.

    segments = SegmentCollection((clusters, rfm, value), main="found")
    segments.answers(snapshots)["segment"]       # (n,) stable ids of the main partition; None for no segment

It is saved, tracked, registered and served like a churn model, and names the columns that it answers
(`models.contract.AnswerModel`).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.conditions.measures import SnapshotView
from features.errors import ConfigError, DataError
from features.journeys.journeys import Snapshots
from models.segments.contract import AssignsViews, Segmentation

SEGMENT, NAME = "segment", "segment_name"  # answers by the main partition
FILE = "book.json"  # an old name, as saved collections have it


class SegmentCollection:
    """Partitions of customers side by side.

    Args:
        partitions: each with a name (`scheme`) of its own.
        main: the name of the partition of the `segment` column.

    Raises:
        ConfigError: no partition, two of one name, or a `main` that is none of them.
    """

    kind = "segments"

    def __init__(self, partitions: Sequence[Segmentation], main: str) -> None:
        self.partitions = {each.scheme: each for each in partitions}
        self.main = main
        if len(self.partitions) < len(partitions):
            raise ConfigError("Two partitions have the same name: give each scheme a name of its own.")
        if main not in self.partitions:
            raise ConfigError(f"The main partition '{main}' is not among the schemes: {', '.join(self.partitions)}.")
        reserved = sorted({SEGMENT, NAME, "customer_id", "cutoff", "reason"} & set(self.partitions))
        if reserved:
            raise ConfigError(f"A scheme cannot be called '{reserved[0]}': scored tables have a column of that name.")

    @property
    def answer_columns(self) -> dict[str, str]:
        """`segment` and `segment_name` by the main partition, then the segment's name by each other one."""
        return {SEGMENT: "string", NAME: "string"} | dict.fromkeys(self._other_schemes, "string")

    def answers(self, snapshots: Snapshots) -> dict[str, npt.NDArray[Any]]:
        """Name → (n,) text, None for customers in no segment."""
        places = self.main_partition.assign(snapshots)
        columns = {SEGMENT: _segment_texts(self.main_partition, places, "id")}
        columns[NAME] = _segment_texts(self.main_partition, places, "name")
        view = SnapshotView(snapshots)
        for scheme in self._other_schemes:
            other = self.partitions[scheme]
            # Partitions by rules share the measures that a view has computed.
            places = other.assign_view(view) if isinstance(other, AssignsViews) else other.assign(snapshots)
            columns[scheme] = _segment_texts(other, places, "name")
        return columns

    @property
    def main_partition(self) -> Segmentation:
        """The partition of the `segment` column."""
        return self.partitions[self.main]

    @property
    def packages(self) -> tuple[str, ...]:
        """Packages that the partitions need to run."""
        needed = (getattr(partition, "packages", ()) for partition in self.partitions.values())
        return tuple(sorted({name for names in needed for name in names}))

    def table(self) -> pd.DataFrame:
        """One row a segment: `scheme, id, name, words`."""
        rows = [
            {"scheme": scheme, "id": segment.id, "name": segment.name, "words": segment.words}
            for scheme, partition in self.partitions.items()
            for segment in partition.segments
        ]
        return pd.DataFrame(rows, columns=["scheme", "id", "name", "words"])

    def save(self, folder: Path) -> None:
        """Write each partition into a folder of its own, and `book.json`."""
        folder.mkdir(parents=True, exist_ok=True)
        kinds = {scheme: partition.kind for scheme, partition in self.partitions.items()}
        for place, partition in enumerate(self.partitions.values()):
            partition.save(folder / f"partition_{place}")
        text = json.dumps({"main": self.main, "partitions": kinds}, indent=1, ensure_ascii=False)
        (folder / FILE).write_text(text, encoding="utf-8")

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; runs no code from the folder.

        Raises:
            DataError: a partition of an unknown kind.
        """
        about = json.loads((folder / FILE).read_text(encoding="utf-8"))
        return cls(tuple(_load_partitions(folder, about["partitions"].values())), about["main"])

    @property
    def _other_schemes(self) -> list[str]:
        return [scheme for scheme in self.partitions if scheme != self.main]


def _load_partitions(folder: Path, kinds: Any) -> Iterator[Segmentation]:
    loaders = _kinds()
    for place, kind in enumerate(kinds):
        if kind not in loaders:
            raise DataError(
                f"{folder} holds a segmentation of kind {kind!r}; this version reads {', '.join(loaders)}. "
                "Install the version that saved it."
            )
        yield loaders[kind](folder / f"partition_{place}")


def _kinds() -> dict[str, Callable[[Path], Segmentation]]:
    """Kind → its loader.

    Imported on use, because clusters bring an encoder along; by a statement, so that packaging finds the modules.
    """
    from models.segments.clustering.clusters import ClusterSegments
    from models.segments.rules.rule_segments import RuleSegments

    return {ClusterSegments.kind: ClusterSegments.load, RuleSegments.kind: RuleSegments.load}


def _segment_texts(partition: Segmentation, places: npt.NDArray[np.int32], field: str) -> npt.NDArray[np.object_]:
    if len(places) == 1:
        name = None if places[0] < 0 else getattr(partition.segments[places[0]], field)
        return np.array([name], dtype=object)
    names = np.array([getattr(segment, field) for segment in partition.segments] + [None], dtype=object)
    return np.asarray(names[places])  # −1, no segment, is the None at the end

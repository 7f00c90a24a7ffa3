"""The contract of segmentations: a partition of customers, by clustering or by rules.

A segmentation takes snapshots, never matrices, as a model does (`models.contract`); new customers are assigned without
a new fit.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from features.conditions.measures import SnapshotView
from features.journeys.journeys import Snapshots

NO_SEGMENT = -1


@dataclass(frozen=True)
class Segment:
    """One segment of a partition.

    Attributes:
        id: stable: it survives refits and is never given to another segment.
        name: for people; unique within the partition.
        words: a description of its customers.
    """

    id: str
    name: str
    words: str = ""


@runtime_checkable
class Segmentation(Protocol):
    """A partition: each customer is in one segment or in none."""

    kind: str

    @property
    def scheme(self) -> str:
        """The partition's name: "found", "rfm", or what the experiment file calls it."""
        ...

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The segments, in the order that `assign` numbers them."""
        ...

    def assign(self, snapshots: Snapshots) -> npt.NDArray[np.int32]:
        """(n,) places in `segments`, `NO_SEGMENT` for customers in none."""
        ...

    def save(self, folder: Path) -> None:
        """Write the segmentation as data (JSON, safetensors) into `folder`, made where missing."""
        ...

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what `save` wrote; runs no code from the folder."""
        ...


@runtime_checkable
class AssignsViews(Protocol):
    """A segmentation that can share the measures of a view with other segmentations."""

    def assign_view(self, view: SnapshotView) -> npt.NDArray[np.int32]:
        """(n,) the same as `assign`, from a view of the snapshots."""
        ...

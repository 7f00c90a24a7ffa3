"""Snapshots: journeys as they were known at a cutoff. The one input of features, labels and models."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa

if TYPE_CHECKING:
    from features.journeys import Journeys

UNKNOWN_CUSTOMER = -1


@dataclass(frozen=True)
class Snapshots:
    """A customer, a start, a stop and a cutoff a row; no event is copied.

    Attributes:
        journeys: the packed log that the rows point into.
        customer: (n,) int64, index into `journeys.customer_ids`; -1 where the log does not know the customer.
        start: (n,) int64, the customer's first event.
        stop: (n,) int64, the first event at or after the cutoff: rows see events `start:stop` and nothing else.
        cutoff: (n,) int64, µs since 1970 UTC.
    """

    journeys: Journeys
    customer: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    stop: npt.NDArray[np.int64]
    cutoff: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.customer)

    def take(self, rows: npt.NDArray[Any] | slice) -> Snapshots:
        """The snapshots at `rows` (indices, a mask or a slice), in that order."""
        return Snapshots(self.journeys, self.customer[rows], self.start[rows], self.stop[rows], self.cutoff[rows])

    @property
    def customer_ids(self) -> npt.NDArray[np.object_]:
        """(n,) the customers' identifiers as text; None where the customer is unknown."""
        rows = pa.array(self.customer, mask=self.customer == UNKNOWN_CUSTOMER)
        return np.asarray(self.journeys.customer_ids.take(rows).to_numpy(zero_copy_only=False))

    def frame(self) -> pd.DataFrame:
        """The rows as `customer_id, cutoff` (UTC, naive, µs)."""
        return pd.DataFrame({"customer_id": self.customer_ids, "cutoff": self.cutoff.view("datetime64[us]")})

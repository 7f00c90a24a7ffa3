"""LightGBM's data set from the features that `journeylab features` landed, a row group in memory at a time.

    data = lightgbm_data(Path("features"))                       # the training rows, with their weights
    booster = lightgbm.train({"objective": "binary", "force_col_wise": True}, data, 200)

LightGBM keeps a byte a value of what streams through, a quarter of the features themselves. It looks at a sample of the
rows first, to choose the borders of its bins, then at all of them in order. It holds the sample at eight bytes a value,
twice for a moment: the usual 200,000 rows would take more than millions of rows in bins do. Training that may choose
(`force_col_wise` or `force_row_wise` says which way) holds the bins twice and more.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightgbm as lgb
import numpy as np
import numpy.typing as npt
import pyarrow.parquet as pq

from features.errors import DataError
from features.journeys.landed import read_state

ROWS_AT_ONCE = 4096
SAMPLED_ROWS = 100_000


class LandedRows(lgb.Sequence):
    """The rows of a split in the order of the files, for whoever asks in rising order.

    Args:
        folder: what `journeylab features` wrote.
        split: "train" or "test".

    Attributes:
        names: of the features.
        label: (n,) 0 or 1.
        weight: (n,) what makes up for rows left out.

    Raises:
        DataError: the folder is not whole, or has no such rows.
    """

    batch_size = ROWS_AT_ONCE

    def __init__(self, folder: Path, split: str = "train") -> None:
        self.names: list[str] = read_state(folder).get("features", {}).get("names", [])
        self._groups: list[tuple[Path, int]] = []  # opened one at a time: there may be thousands
        places, labels, weights, borders = [], [], [], [0]
        for path in sorted(folder.glob("part-*.parquet")):
            with pq.ParquetFile(path) as file:
                for group in range(file.num_row_groups):
                    about = file.read_row_group(group, columns=["label", "split", "weight"])
                    chosen = np.flatnonzero(about["split"].to_numpy() == split)
                    self._groups.append((path, group))
                    places.append(chosen)
                    labels.append(about["label"].to_numpy()[chosen])
                    weights.append(about["weight"].to_numpy()[chosen])
                    borders.append(borders[-1] + len(chosen))
        if borders[-1] == 0:
            raise DataError(f"{folder} has no rows of the split '{split}'.")
        self._places, self._borders = places, np.array(borders)
        self.label, self.weight = np.concatenate(labels), np.concatenate(weights)
        self._held: tuple[int, npt.NDArray[np.float32]] = (-1, np.zeros((0, 0), np.float32))

    def __len__(self) -> int:
        return int(self._borders[-1])

    def __getitem__(self, rows: int | slice | list[int]) -> npt.NDArray[np.float64]:
        """(f,) one row, or (k, f) several; LightGBM takes no narrower numbers here."""
        if isinstance(rows, slice):
            row_numbers = np.arange(*rows.indices(len(self)))
        else:
            row_numbers = np.atleast_1d(np.asarray(rows, np.int64))
        group = np.searchsorted(self._borders, row_numbers, side="right") - 1
        out = np.empty((len(row_numbers), len(self.names)))
        for number in np.unique(group):
            mine = group == number
            out[mine] = self._matrix(int(number))[row_numbers[mine] - self._borders[number]]
        return out if isinstance(rows, slice | list) else out[0]

    def _matrix(self, group: int) -> npt.NDArray[np.float32]:
        """(rows of the split, f) of a row group."""
        if self._held[0] != group:
            path, number = self._groups[group]
            with pq.ParquetFile(path) as file:
                table = file.read_row_group(number, columns=self.names)
            columns = [table[name].to_numpy()[self._places[group]] for name in self.names]
            self._held = group, np.stack(columns, axis=1)
        return self._held[1]


def lightgbm_data(folder: Path, split: str = "train", params: dict[str, Any] | None = None) -> lgb.Dataset:
    """The rows of a split with labels and weights.

    Args:
        folder: what `journeylab features` wrote.
        split: "train" or "test".
        params: of the data set, such as `{"max_bin": 63}`; `bin_construct_sample_cnt` is 100,000 where it is not given.

    Raises:
        DataError: as `LandedRows`.
    """
    rows = LandedRows(folder, split)
    how = {"verbosity": -1, "bin_construct_sample_cnt": SAMPLED_ROWS} | (params or {})
    return lgb.Dataset(rows, rows.label, weight=rows.weight, feature_name=rows.names, params=how)

"""The rows that scoring in partitions set aside, in one CSV file beside the output, in the order of the log."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pyarrow.parquet as pq

from features.events.checks import DUPLICATE
from training.scoring.bulk_plan import Desk, write_whole
from training.scoring.bulk_split import LINES, Split


def write_quarantine(desk: Desk, split: Split, repeated: int) -> tuple[dict[str, int], Path | None]:
    """Write the quarantine file, table by table: it may be larger than memory.

    Rows that the checks set aside come first, in the order of the log; then lines that are no rows, then repeats.

    Args:
        desk: where the tables lie.
        split: what the first pass counted.
        repeated: how many events the second set aside as equal to an earlier one.

    Returns:
        Reason → rows, and the file; None where nothing was set aside.
    """
    counts = split.counts | ({DUPLICATE: repeated} if repeated else {})
    names = [desk.run(number).stem for number in range(split.runs)]
    names += [LINES, *(desk.part(part).stem for part in range(desk.plan.partitions))]
    files = [file for name in names if (file := desk.bad(name)).exists()]
    if not files:
        return counts, None
    header = dict.fromkeys(column for file in files for column in pq.read_schema(file).names)
    folder = desk.folder
    out = folder.with_name(f"{_stem(folder)}_quarantine.csv")

    def write(path: Path) -> None:
        pd.DataFrame(columns=list(header)).to_csv(path, index=False)
        for file in files:
            pq.read_table(file).to_pandas().reindex(columns=list(header)).to_csv(
                path, index=False, header=False, mode="a"
            )

    write_whole(out, write)
    return counts, out


def _stem(folder: Path) -> str:
    """The output's name without its ending: `scores` of `scores.csv.parts` as of `scores`."""
    return folder.name.removesuffix(".parts").removesuffix(".csv").removesuffix(".parquet")

"""Stages: a mapping from touchpoints that the experiment states, names or patterns, applied to events.

>>> stages = {"registration": "application", "A_*": "application", "O_*": "offer"}
>>> stage_of("O_SENT", stages), stage_of("W_call", stages)
('offer', None)
"""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

import pyarrow as pa
import pyarrow.compute as pc

from features.events.columns import text_column


def stage_of(touchpoint: str | None, stages: Mapping[str, str]) -> str | None:
    """The stage of the first name or pattern that fits a touchpoint; None where none does."""
    if touchpoint is None:
        return None
    return next((stage for pattern, stage in stages.items() if fits(touchpoint, pattern)), None)


def fits(touchpoint: str, pattern: str) -> bool:
    """Whether a touchpoint is meant by a name or a pattern (`*`, `?`, `[…]`), upper and lower case apart."""
    return touchpoint == pattern or fnmatchcase(touchpoint, pattern)


def with_stages(events: pa.Table, stages: Mapping[str, str]) -> pa.Table:
    """Events with the `stage` that the mapping gives; where it gives none, the events' own stays."""
    if not stages or "touchpoint" not in events.column_names:
        return events
    touchpoint = text_column("touchpoint", events["touchpoint"].combine_chunks()).values
    by_code = [stage_of(name, stages) for name in touchpoint.dictionary.to_pylist()]
    names = sorted({name for name in by_code if name is not None})
    places = pa.array([None if name is None else names.index(name) for name in by_code], pa.int32())
    stage = pa.DictionaryArray.from_arrays(places.take(touchpoint.indices), pa.array(names, pa.string()))
    if "stage" not in events.column_names:
        return events.append_column("stage", stage)
    logged = text_column("stage", events["stage"].combine_chunks()).values.cast(pa.string())
    return events.drop_columns("stage").append_column("stage", pc.coalesce(stage.cast(pa.string()), logged))

"""Colours of touchpoints in the map's pictures: one for each stage, or for the touchpoints that most customers meet."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from training.reports.interactive import FADED, FADED_REST, GROUPS, N_COLOURS, REST


@dataclass(frozen=True)
class TouchpointColours:
    """Which colour a touchpoint has, and what it means.

    Attributes:
        places: touchpoint → place of its colour; the rest has none.
        meanings: place → what the colour means, in reading order.
    """

    places: Mapping[str, int]
    meanings: Mapping[int, str]

    def solid(self, name: str) -> str:
        """The colour of a touchpoint."""
        return GROUPS[self.places[name]] if name in self.places else REST

    def faded(self, name: str) -> str:
        """The colour of streams from a touchpoint."""
        return FADED[self.places[name]] if name in self.places else FADED_REST

    def legend(self, names: Iterable[str]) -> dict[str, str]:
        """Colour → its meaning, for the touchpoints in use."""
        used = {self.solid(name) for name in names}
        whole = {GROUPS[place]: meaning for place, meaning in self.meanings.items()} | {REST: "other"}
        return {colour: meaning for colour, meaning in whole.items() if colour in used}


def touchpoint_colours(touchpoints: pd.DataFrame, stages: Sequence[str]) -> TouchpointColours:
    """A colour for each stage where the log has stages, else for the touchpoints that most customers meet.

    Args:
        touchpoints: the map's table.
        stages: of the funnel, in order; they come first.
    """
    named = touchpoints["touchpoint"].astype(str)
    if "stage" in touchpoints and touchpoints["stage"].notna().any():
        order = dict.fromkeys([*stages, *touchpoints["stage"].dropna().astype(str)])
        meanings = dict(enumerate(list(order)[:N_COLOURS]))
        place_of = {stage: place for place, stage in meanings.items()}
        rows = zip(named, touchpoints["stage"], strict=True)
        return TouchpointColours(
            {name: place_of[str(stage)] for name, stage in rows if str(stage) in place_of}, meanings
        )
    most = touchpoints.sort_values("customers", ascending=False, kind="stable")["touchpoint"].astype(str)
    meanings = dict(enumerate(most.head(N_COLOURS)))
    return TouchpointColours({name: place for place, name in meanings.items()}, meanings)

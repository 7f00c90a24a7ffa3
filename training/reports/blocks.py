"""What a page is made of, as data: tables, sentences, terms, bars, intervals. The templates turn them into HTML.

Each block names its macro in `templates/blocks.html.jinja`. Texts may come from data: the templates escape them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

import pandas as pd

from training.reports.numbers import (
    UNKNOWN,
    clean,
    count,
    days,
    metric,
    number,
    p_value,
    score,
    seconds,
    share,
    share_difference,
    span,
)

Kind = Literal[
    "name", "text", "path", "sentence", "count", "number", "metric", "share", "share_difference", "score", "seconds",
    "days", "p_value",
]  # fmt: skip
TEXTS = ("name", "text", "path", "sentence")
WRITERS: dict[str, Callable[[float], str]] = {
    "count": count, "number": number, "metric": metric, "share": share, "share_difference": share_difference,
    "score": score, "seconds": seconds, "days": days, "p_value": p_value,
}  # fmt: skip


class PageBlock(Protocol):
    """A part of a section."""

    @property
    def macro(self) -> str:
        """The macro that renders it."""
        ...


@dataclass(frozen=True)
class PageColumn:
    """A column of a table on a page.

    Attributes:
        name: of the frame's column; `<name>_low` and `<name>_high` are shown under it where the frame has them.
        title: what stands over it.
        kind: how its values are written.
    """

    name: str
    title: str
    kind: Kind = "count"

    @property
    def is_number(self) -> bool:
        """Whether it stands at the right and sorts by value."""
        return self.kind not in TEXTS

    def has_values(self, frame: pd.DataFrame) -> bool:
        """Whether it says anything: it is in the frame, and not all unknown, nor counts of nothing."""
        if self.name not in frame or not frame[self.name].notna().any():
            return False
        return self.kind != "count" or bool((frame[self.name] != 0).any())

    def write(self, value: Any) -> str:
        """A value as text."""
        if self.is_number:
            return WRITERS[self.kind](_as_float(value))
        return UNKNOWN if value is None or value != value else clean(value)

    def interval(self, row: Mapping[Any, Any]) -> str:
        """The interval of the row's value as text, "" where the frame has none."""
        low, high = (_as_float(row.get(f"{self.name}_{end}")) for end in ("low", "high"))
        if not (math.isfinite(low) and math.isfinite(high)):
            return ""
        if self.kind in ("number", "metric"):
            return f"{self.write(low)} to {self.write(high)}"
        return span(low, high, unit="%" if self.kind == "share" else "")


def _as_float(value: Any) -> float:
    return math.nan if value is None or pd.isna(value) else float(value)


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its column, its text, the value to sort by, the interval under it."""

    column: PageColumn
    text: str
    value: str
    interval: str


@dataclass(frozen=True)
class Table:
    """A frame as a table that scrolls in its own box where the page is narrow.

    Attributes:
        frame: the rows.
        columns: what to show; the first one heads its row. Columns without any value are left out.
        caption: what the table holds.
        most: rows shown; the caption says how many there are.
        summary: where it is given, the table is folded under it.
    """

    frame: pd.DataFrame
    columns: Sequence[PageColumn]
    caption: str
    most: int | None = None
    summary: str = ""
    macro: ClassVar[str] = "table"

    @property
    def visible(self) -> pd.DataFrame:
        """The rows that are shown."""
        return self.frame if self.most is None else self.frame.head(self.most)

    @property
    def title(self) -> str:
        """The caption, and what is left out."""
        rows, whole = len(self.visible), len(self.frame)
        return clean(self.caption) + (f" The first {rows:,} of {whole:,} are shown." if rows < whole else "")

    @property
    def filled(self) -> list[PageColumn]:
        """The columns that have values, and the first."""
        return [column for place, column in enumerate(self.columns) if not place or column.has_values(self.visible)]

    def rows(self) -> Iterator[list[Cell]]:
        """The cells, row by row."""
        filled = self.filled
        for row in self.visible.to_dict("records"):
            yield [_cell(row, column) for column in filled]


def _cell(row: Mapping[Any, Any], column: PageColumn) -> Cell:
    value = _as_float(row[column.name]) if column.is_number else math.nan
    plain = f"{value:.6g}" if math.isfinite(value) else ""
    return Cell(column, column.write(row[column.name]), plain, column.interval(row) if column.is_number else "")


@dataclass(frozen=True)
class Heading:
    """A heading inside a section."""

    text: str
    macro: ClassVar[str] = "heading"


@dataclass(frozen=True)
class Sentences:
    """A list of sentences.

    Attributes:
        items: the sentences.
        ordered: whether they are numbered.
    """

    items: Sequence[str]
    ordered: bool = False
    macro: ClassVar[str] = "sentences"


@dataclass(frozen=True)
class Notes:
    """Remarks, each in a box."""

    items: Sequence[str]
    macro: ClassVar[str] = "notes"


@dataclass(frozen=True)
class Terms:
    """Names and what they mean; `(name, small print, meaning)`."""

    items: Sequence[tuple[str, str, str]]
    macro: ClassVar[str] = "terms"


@dataclass(frozen=True)
class Bars:
    """Bars side by side; a table below them has the same numbers.

    Attributes:
        names: of the bars.
        values: (n,) how long they are.
        before: (n,) grey bars to compare with, or none.
    """

    names: Sequence[str]
    values: Sequence[float]
    before: Sequence[float] = ()
    macro: ClassVar[str] = "bars"

    @property
    def largest(self) -> float:
        """The longest bar."""
        return max([*self.before, *self.values, 1e-9])


@dataclass(frozen=True)
class Intervals:
    """Differences as dots on their intervals, to the right of a line where they are good.

    Attributes:
        names: (n,) of the rows.
        values: (n,) as written beside the rows.
        places: (n, 3) dot, low and high as they are drawn: positive to the right.
    """

    names: Sequence[str]
    values: Sequence[float]
    places: Sequence[tuple[float, float, float]]
    macro: ClassVar[str] = "intervals"

    @property
    def reach(self) -> float:
        """How far the axis goes to both sides."""
        return max([abs(place) for row in self.places for place in row if math.isfinite(place)] + [1e-6])

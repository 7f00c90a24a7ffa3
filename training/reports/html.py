"""HTML of the journey map's tables: escaped names, numbers with units, intervals, headers for a screen reader."""

from __future__ import annotations

import html
import math
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import pandas as pd

UNKNOWN = "–"
TURNING = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they reverse the text around them
Kind = Literal[
    "name", "text", "path", "said", "count", "number", "fine", "share", "gap", "points", "seconds", "days", "chance"
]  # fmt: skip
TEXTS = ("name", "text", "path", "said")
SECOND_UNITS = ((86_400.0 * 2, 86_400.0, "days"), (3_600.0 * 2, 3_600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))


@dataclass(frozen=True)
class Column:
    """A column of a table on the page.

    Attributes:
        name: of the frame's column; `<name>_low` and `<name>_high` are shown under it where the frame has them.
        title: what stands over it.
        kind: how its values are written.
    """

    name: str
    title: str
    kind: Kind = "count"


def clean(value: Any) -> str:
    r"""A name from data as one line of text: without control characters and what turns the text around it.

    >>> clean("a\x01b\n c\u202e")
    'ab c'
    """
    kept = (one for one in str(value) if one.isspace() or unicodedata.category(one) not in ("Cc", "Cs"))
    return " ".join("".join(one for one in kept if one not in TURNING).split()) or "(no name)"


def escape(value: Any) -> str:
    """A name from data, fit for HTML text and attributes.

    >>> escape("<script>")
    '&lt;script&gt;'
    """
    return html.escape(clean(value), quote=True)


def shortened(value: Any, most: int) -> str:
    """A name cut in its middle, where the least is lost.

    >>> shortened("W_Completeren aanvraag", 12)
    'W_Comp…vraag'
    """
    text = clean(value)
    return text if len(text) <= most else f"{text[: most - most // 2]}…{text[len(text) - most // 2 + 1 :]}"


def share(value: float) -> str:
    """A share in percent, with as many digits as it takes to see it.

    >>> share(0.4567), share(0.045), share(0.0004), share(float("nan"))
    ('46%', '4.5%', '0.04%', '–')
    """
    if not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    digits = 0 if size >= 0.0995 or size == 0 else 1 if size >= 0.00995 else 2
    return f"{value * 100:.{digits}f}%".replace("-", "−")


def span(low: float, high: float, scale: float = 100.0, unit: str = "%") -> str:
    """An interval, both ends alike.

    >>> span(0.123, 0.456), span(0.011, 0.012)
    ('12–46%', '1.1–1.2%')
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    digits = 1 if max(abs(low), abs(high)) * scale < 10 or (high - low) * scale < 2 else 0
    ends = [f"{end * scale:.{digits}f}".replace("-", "−") for end in (low, high)]
    return (" to " if low < 0 else "–").join(ends) + unit


def seconds(value: float) -> str:
    """A length of time in the unit that fits.

    >>> seconds(90), seconds(7200), seconds(86_400 * 3.5), seconds(0.4)
    ('90 s', '2.0 h', '3.5 days', '0.4 s')
    """
    if not math.isfinite(value):
        return UNKNOWN
    _, size, unit = next(one for one in SECOND_UNITS if abs(value) >= one[0])
    amount = value / size
    whole = abs(amount) >= 10 or (unit == "s" and amount == round(amount))
    return f"{amount:,.{0 if whole else 1}f} {unit}"


def days(value: float) -> str:
    """A length of time in days, in the unit that fits."""
    return seconds(value * 86_400.0)


def count(value: float) -> str:
    """A whole number with separators."""
    return UNKNOWN if not math.isfinite(value) else f"{value:,.0f}"


def gap(value: float) -> str:
    """A difference of two shares in percentage points.

    >>> gap(0.316), gap(-0.0042)
    ('+32 pts', '−0.4 pts')
    """
    if not math.isfinite(value):
        return UNKNOWN
    return f"{value * 100:+.{0 if abs(value) >= 0.0995 else 1}f} pts".replace("-", "−")


def chance(value: float) -> str:
    """A p-value or q-value.

    >>> chance(0.00001), chance(0.0312)
    ('< 0.001', '0.031')
    """
    if not math.isfinite(value):
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def number(value: float) -> str:
    """A number with one or two digits after the point."""
    return UNKNOWN if not math.isfinite(value) else f"{value:,.{1 if abs(value) >= 10 else 2}f}".replace("-", "−")


def fine(value: float) -> str:
    """A number with four digits after the point, such as a metric."""
    return UNKNOWN if not math.isfinite(value) else f"{value:.4f}".replace("-", "−")


def points(value: float) -> str:
    """A score from −100 to 100, given as −1 to 1."""
    return UNKNOWN if not math.isfinite(value) else f"{value * 100:+.0f}".replace("-", "−")


WRITTEN = {
    "count": count, "number": number, "fine": fine, "share": share, "gap": gap, "points": points, "seconds": seconds,
    "days": days, "chance": chance,
}  # fmt: skip


def table(frame: pd.DataFrame, columns: Sequence[Column], caption: str, *, most: int | None = None) -> str:
    """A frame as an HTML table in a box of its own that scrolls where the page is narrow.

    Args:
        frame: the rows.
        columns: what to show; the first one heads its row. Columns without any value are left out.
        caption: what the table holds.
        most: rows shown; the caption says how many there are.
    """
    shown = frame if most is None else frame.head(most)
    kept = [one for one in columns if one is columns[0] or _told(shown, one)]
    told = clean(caption) + (
        f" The first {len(shown):,} of {len(frame):,} are shown." if len(shown) < len(frame) else ""
    )
    head = "".join(_head(one) for one in kept)
    body = "".join(_row(row, kept) for row in shown.to_dict("records"))
    label = html.escape(told, quote=True)
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{label}"><table><caption>{label}</caption>'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _told(frame: pd.DataFrame, column: Column) -> bool:
    """Whether a column says anything: it is there, and not all unknown, nor counts of nothing."""
    if column.name not in frame or not frame[column.name].notna().any():
        return False
    return column.kind != "count" or bool((frame[column.name] != 0).any())


def _head(column: Column) -> str:
    kind = "" if column.kind in TEXTS else ' class="number"'
    return f'<th scope="col"{kind}><button type="button">{html.escape(column.title)}</button></th>'


def _row(row: dict[Any, Any], columns: Sequence[Column]) -> str:
    first, *rest = columns
    named = f'<th scope="row" class="{first.kind}">{_text(row[first.name], first)}</th>'
    return f"<tr>{named}{''.join(_cell(row, one) for one in rest)}</tr>"


def _cell(row: dict[Any, Any], column: Column) -> str:
    value = row[column.name]
    if column.kind in TEXTS:
        return f'<td class="{column.kind}">{_text(value, column)}</td>'
    value = float("nan") if value is None or pd.isna(value) else float(value)
    plain = f"{value:.6g}" if math.isfinite(value) else ""
    return f'<td class="number" data-value="{plain}">{_text(value, column)}{_interval(row, column)}</td>'


def _text(value: Any, column: Column) -> str:
    if column.kind not in TEXTS:
        return WRITTEN[column.kind](float(value))
    return UNKNOWN if value is None or value != value else escape(value)


def _interval(row: dict[Any, Any], column: Column) -> str:
    low, high = row.get(f"{column.name}_low"), row.get(f"{column.name}_high")
    if low is None or high is None or pd.isna(low) or pd.isna(high):
        return ""
    if column.kind in ("number", "fine"):
        told = " to ".join(WRITTEN[column.kind](float(end)) for end in (low, high))
    else:
        told = span(float(low), float(high), unit="%" if column.kind == "share" else "")
    return f"<small>{told}</small>" if told else ""

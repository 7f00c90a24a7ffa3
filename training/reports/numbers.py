"""Names and numbers as people read them: shares in percent, lengths of time in fitting units, intervals."""

from __future__ import annotations

import math
import unicodedata
from typing import Any

UNKNOWN = "–"
BIDI_CONTROLS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")  # they reverse the text around them
SECOND_UNITS = ((86_400.0 * 2, 86_400.0, "days"), (3_600.0 * 2, 3_600.0, "h"), (120.0, 60.0, "min"), (0.0, 1.0, "s"))


def visible(text: str) -> str:
    """A text without control characters, half surrogates and what reverses the text around it."""
    letters = (letter for letter in text if letter.isspace() or unicodedata.category(letter) not in ("Cc", "Cs"))
    return "".join(letter for letter in letters if letter not in BIDI_CONTROLS)


def clean(value: Any) -> str:
    r"""A name from data as one visible line of text.

    >>> clean("a\x01b\n c\u202e")
    'ab c'
    """
    return " ".join(visible(str(value)).split()) or "(no name)"


def shortened(value: Any, most: int) -> str:
    """A name cut in its middle, where the least is lost.

    >>> shortened("W_Completeren aanvraag", 12)
    'W_Comp…vraag'
    """
    text = clean(value)
    return text if len(text) <= most else f"{text[: most - most // 2]}…{text[len(text) - most // 2 + 1 :]}"


def _signed(text: str) -> str:
    return text.replace("-", "−")


def share(value: float) -> str:
    """A share in percent, with as many digits as it takes to see it.

    >>> share(0.4567), share(0.045), share(0.0004), share(float("nan"))
    ('46%', '4.5%', '0.04%', '–')
    """
    if not math.isfinite(value):
        return UNKNOWN
    size = abs(value)
    digits = 0 if size >= 0.0995 or size == 0 else 1 if size >= 0.00995 else 2
    return _signed(f"{value * 100:.{digits}f}%")


def span(low: float, high: float, scale: float = 100.0, unit: str = "%") -> str:
    """An interval, both ends alike.

    >>> span(0.123, 0.456), span(0.011, 0.012)
    ('12–46%', '1.1–1.2%')
    """
    if not (math.isfinite(low) and math.isfinite(high)):
        return ""
    digits = 1 if max(abs(low), abs(high)) * scale < 10 or (high - low) * scale < 2 else 0
    ends = [_signed(f"{end * scale:.{digits}f}") for end in (low, high)]
    return (" to " if low < 0 else "–").join(ends) + unit


def seconds(value: float) -> str:
    """A length of time in the unit that fits.

    >>> seconds(90), seconds(7200), seconds(86_400 * 3.5), seconds(0.4)
    ('90 s', '2.0 h', '3.5 days', '0.4 s')
    """
    if not math.isfinite(value):
        return UNKNOWN
    _, size, unit = next(row for row in SECOND_UNITS if abs(value) >= row[0])
    amount = value / size
    whole = abs(amount) >= 10 or (unit == "s" and amount == round(amount))
    return f"{amount:,.{0 if whole else 1}f} {unit}"


def days(value: float) -> str:
    """A length of time in days, in the unit that fits."""
    return seconds(value * 86_400.0)


def count(value: float) -> str:
    """A whole number with separators."""
    return UNKNOWN if not math.isfinite(value) else f"{value:,.0f}"


def share_difference(value: float) -> str:
    """A difference of two shares in percentage points.

    >>> share_difference(0.316), share_difference(-0.0042)
    ('+32 pts', '−0.4 pts')
    """
    if not math.isfinite(value):
        return UNKNOWN
    return _signed(f"{value * 100:+.{0 if abs(value) >= 0.0995 else 1}f} pts")


def p_value(value: float) -> str:
    """A p-value or q-value.

    >>> p_value(0.00001), p_value(0.0312)
    ('< 0.001', '0.031')
    """
    if not math.isfinite(value):
        return UNKNOWN
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def number(value: float) -> str:
    """A number with one or two digits after the point."""
    return UNKNOWN if not math.isfinite(value) else _signed(f"{value:,.{1 if abs(value) >= 10 else 2}f}")


def metric(value: float) -> str:
    """A metric, with four digits after the point."""
    return UNKNOWN if not math.isfinite(value) else _signed(f"{value:.4f}")


def score(value: float) -> str:
    """A score from −100 to 100, given as −1 to 1."""
    return UNKNOWN if not math.isfinite(value) else _signed(f"{value * 100:+.0f}")

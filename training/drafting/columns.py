"""Which column of an unfamiliar log is the customer, time, touchpoint or value: by its name and its contents."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd
import pyarrow as pa

from features.events.columns import TimeUnit
from features.events.formats import has_decimal_commas, time_formats

Texts = Sequence[str | None]

# Words of a column's name that suggest a role, the clearest first.
HINTS = {
    "customer_id": ("customer", "client", "kund", "user", "member", "visitor", "account", "subscriber", "person",
                    "patient", "cliente", "cust", "case", "session", "uuid", "id"),
    "timestamp": ("timestamp", "datetime", "zeitpunkt", "time", "date", "datum", "zeit", "fecha", "heure", "when",
                  "ts"),
    "touchpoint": ("touchpoint", "event", "activity", "action", "vorgang", "ereignis", "aktion", "type", "typ", "kind",
                   "status", "page", "step"),
    "value": ("amount", "value", "revenue", "price", "betrag", "umsatz", "preis", "spend", "total", "sum", "importe"),
    "channel": ("channel", "kanal", "medium", "canal"),
    "item": ("item", "product", "produkt", "artikel", "article", "sku", "stockcode"),
    "duration_s": ("duration_s", "duration", "dauer", "seconds"),
    "satisfaction": ("satisfaction", "csat", "nps", "rating"),
}  # fmt: skip
MOST_TOUCHPOINTS = 500
NUMBER = re.compile(r"\s*[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?\s*")


@dataclass(frozen=True)
class Roles:
    """The roles that the columns of a log were taken for.

    Attributes:
        columns: canonical name → theirs.
        time_format: of times that are text and not ISO 8601; the first of `time_formats`.
        time_formats: every format that reads them.
        time_unit: of numeric times.
        decimal: the decimal separator.
        unused: columns that were taken for nothing.
    """

    columns: dict[str, str]
    time_format: str | None = None
    time_formats: tuple[str, ...] = ()
    time_unit: TimeUnit | None = None
    decimal: str = "."
    unused: tuple[str, ...] = field(default=())


def roles_of(rows: pa.Table, named: Mapping[str, str] | None = None) -> Roles:
    """Give columns roles by what they look like.

    Args:
        rows: the first rows of a log, as they are read.
        named: canonical name → theirs, where the user names it.

    Returns:
        `columns` may lack roles, also `customer_id`, `timestamp` or `touchpoint`.
    """
    texts = {name: _texts(rows[name]) for name in rows.column_names}
    columns = dict(named or {})
    clock = columns.get("timestamp") or _best(
        "timestamp", [name for name in texts if _is_time(rows[name], texts[name])]
    )
    if clock:
        columns["timestamp"] = clock
    fits: dict[str, Callable[[str], bool]] = {
        "customer_id": lambda name: _is_identifier(texts[name]),
        "touchpoint": lambda name: 1 < len(set(texts[name])) <= MOST_TOUCHPOINTS and not _is_number(texts[name]),
        "value": lambda name: _is_number(texts[name]),
        "channel": lambda name: len(set(texts[name])) <= MOST_TOUCHPOINTS,
        "item": lambda name: len(set(texts[name])) > 1,
        "duration_s": lambda name: _is_number(texts[name]),
        "satisfaction": lambda name: _is_number(texts[name]),
    }
    for role, fit in fits.items():
        free = [name for name in texts if name not in columns.values()]
        if role not in columns and (name := _best(role, [column for column in free if fit(column)])):
            columns[role] = name
    numbers = [texts[columns[role]] for role in ("value", "duration_s", "satisfaction") if role in columns]
    formats, unit = _clock(rows[clock], texts[clock]) if clock else ((), None)
    return Roles(
        {role: columns[role] for role in HINTS if role in columns}, next(iter(formats), None), formats, unit,
        "," if any(has_decimal_commas(each) for each in numbers) else ".",
        tuple(name for name in texts if name not in columns.values()),
    )  # fmt: skip


def _texts(column: pa.ChunkedArray) -> Texts:
    return [None if value is None else str(value) for value in column.to_pylist()]


def _best(role: str, names: Sequence[str]) -> str | None:
    """The name that suggests the role most; customer and time always get one."""
    ranked = sorted(names, key=lambda name: _rank(role, name))
    if not ranked or (_rank(role, ranked[0]) >= len(HINTS[role]) and role not in ("customer_id", "timestamp")):
        return None
    return ranked[0]


def _rank(role: str, name: str) -> float:
    """How soon one of the role's words occurs in the name: 0 for the plainest; `len(HINTS[role])` where none does."""
    lower = name.lower()
    words = re.split(r"[^a-z0-9äöüß]+", re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower())
    for place, hint in enumerate(HINTS[role]):
        if (hint in words) if len(hint) <= 3 else (hint in lower):
            return place
    return len(HINTS[role])


def _is_identifier(texts: Texts) -> bool:
    """Identifiers are many, and some recur; a column of a handful of values is none."""
    values = _filled(texts)
    return (
        len(values) > 0.5 * len(texts) and len(set(values)) > min(20, 0.05 * len(values)) and not _has_fractions(values)
    )


def _filled(texts: Texts) -> list[str]:
    return [text for text in texts if text and text.strip()]


def _has_fractions(texts: Texts) -> bool:
    return any(re.fullmatch(r"-?\d+[.,](?!0$)\d+", text) for text in texts[:200] if text)


def _is_number(texts: Texts) -> bool:
    values = _filled(texts)
    return bool(values) and (all(NUMBER.fullmatch(text) for text in values) or has_decimal_commas(values))


def _is_time(column: pa.ChunkedArray, texts: Texts) -> bool:
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type):
        return True
    formats, unit = _clock(column, texts)
    return bool(formats) or unit is not None or _is_iso(texts)


def _clock(column: pa.ChunkedArray, texts: Texts) -> tuple[tuple[str, ...], TimeUnit | None]:
    """Formats or unit in which the times are written; neither for ISO 8601 and for typed columns."""
    if pa.types.is_timestamp(column.type) or pa.types.is_date(column.type) or _is_iso(texts):
        return (), None
    return time_formats(texts), _unit(texts)


def _is_iso(texts: Texts) -> bool:
    values = _filled(texts)
    shaped = bool(values) and all(re.match(r"\s*\d{4}-\d{2}-\d{2}", text) for text in values)
    return shaped and bool(pd.to_datetime(pd.Series(values), format="ISO8601", utc=True, errors="coerce").notna().all())


def _unit(texts: Texts) -> TimeUnit | None:
    """Seconds, milliseconds … since 1970, where all are whole numbers between 2000 and 2100."""
    values = _filled(texts)
    if not values or not all(re.fullmatch(r"\d{9,19}(\.0+)?", text.strip()) for text in values):
        return None
    seconds = float(values[len(values) // 2])
    units: tuple[tuple[TimeUnit, float], ...] = (("s", 1.0), ("ms", 1e3), ("us", 1e6), ("ns", 1e9))
    return next((unit for unit, ticks in units if 946_684_800 <= seconds / ticks < 4_102_444_800), None)

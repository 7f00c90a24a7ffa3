"""One column of a user's table → the canonical column, with a mask of the rows that cannot be read.

Every function takes an Arrow array of any type and returns `Column(values, problems)`: the canonical array,
null where a value is missing or bad, and for each reason a mask of the bad rows. Nothing here raises for a bad
value; only a type that can hold no such thing at all is a `DataError`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc

from features.errors import DataError
from features.events.text_index import TextIndex, text_buffers
from features.events.text_index_kernels import any_blank_start

TimeUnit = Literal["s", "ms", "us", "ns"]
Decimal = Literal[".", ","]
Mask = npt.NDArray[np.bool_]

TEXT = pa.dictionary(pa.int32(), pa.string())
TIME = pa.timestamp("us")
EARLIEST_US = int(np.datetime64("1971-01-01", "us").astype(np.int64))
LATEST_US = int(np.datetime64("2100-01-01", "us").astype(np.int64))
TICKS = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}  # per second
MISSING_WORDS = frozenset({"", "na", "n/a", "nan", "null", "none", "<na>", "nat"})


@dataclass(frozen=True)
class Column:
    """A canonical column and what was wrong with it.

    Attributes:
        values: (n,) canonical Arrow array, null where missing or bad.
        problems: reason → (n,) mask of the rows it concerns; empty where all is well.
        notes: what was assumed, for the user to read once.
    """

    values: pa.Array
    problems: dict[str, Mask] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def text_column(name: str, column: pa.Array, *, keep_clean: bool = False) -> Column:
    """Categories and identifiers as a dictionary of text; blank is missing, whole numbers lose their '.0'.

    With `keep_clean`, text without blanks or nulls stays plain text: identifiers need no dictionary.
    """
    plain = keep_clean and column.type == pa.string() and not column.null_count
    if plain and not any_blank_start(*text_buffers(column)):
        return Column(column)
    if pa.types.is_null(column.type):
        return Column(pa.nulls(len(column), TEXT))
    if pa.types.is_dictionary(column.type):
        values, codes = as_text(name, column.dictionary), column.indices
    else:
        values, codes = _encoded(as_text(name, column))
    return Column(_tidy_dictionary(values, codes))


def _encoded(texts: pa.Array) -> tuple[pa.Array, pa.Array]:
    """Each text once, in order of appearance, and the codes of all."""
    if texts.null_count:
        encoded = texts.dictionary_encode()
        return encoded.dictionary, encoded.indices
    index = TextIndex()  # faster than Arrow's encoding, but takes no nulls
    codes = index.add(texts)
    return index.texts(), pa.array(codes)


def as_text(name: str, column: pa.Array) -> pa.Array:
    """Any flat array as `pa.string()`; 12.0 becomes '12'.

    Raises:
        DataError: a nested column, bytes that are no UTF-8, or text beyond 2 GB.
    """
    kind = column.type
    if kind == pa.string():
        return column
    if pa.types.is_nested(kind):
        raise DataError(f"Column '{name}' holds {kind}: one text or number a row is needed. Flatten it first.")
    if pa.types.is_floating(kind):
        return _float_text(column)
    try:
        return column.cast(pa.string())
    except pa.ArrowInvalid as error:  # bytes that are not UTF-8, text beyond 2 GB
        raise DataError(f"Column '{name}' ({kind}) cannot be read as text: {error}. Store it as UTF-8 text.") from error


def _float_text(column: pa.Array) -> pa.Array:
    numbers = column.cast(pa.float64())
    whole = pc.and_kleene(pc.equal(numbers, pc.round(numbers)), pc.less(pc.abs(numbers), 2.0**53))
    whole = whole.fill_null(False)
    integers = pc.if_else(whole, numbers, 0.0).cast(pa.int64()).cast(pa.string())
    text = pc.if_else(whole, integers, numbers.cast(pa.string()))
    return pc.if_else(pc.is_nan(numbers).fill_null(False), pa.scalar(None, pa.string()), text)


def _tidy_dictionary(values: pa.Array, codes: pa.Array) -> pa.DictionaryArray:
    """Blank and null entries become missing."""
    if values.null_count or any_blank_start(*text_buffers(values)):
        blank = pc.equal(pc.utf8_length(pc.utf8_trim_whitespace(values)), 0).fill_null(True)
        merged = pc.if_else(blank, pa.scalar(None, pa.string()), values).dictionary_encode()
        values, codes = merged.dictionary, merged.indices.take(codes.cast(pa.int32()))
    return pa.DictionaryArray.from_arrays(codes.cast(pa.int32()), values)


def number_column(name: str, column: pa.Array, *, at_least: float | None = None, decimal: Decimal = ".") -> Column:
    """Numbers as float64, NaN for missing; infinite, unreadable and too small ones are problems.

    With `decimal` "," text such as `1.234,50` is read as 1234.5; a point is then allowed between thousands only.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    if decimal == "," and _is_text(column.type):
        column = _with_points(column.cast(pa.string()))
    numbers, problems = _numbers(name, column)
    if (infinite := np.isinf(numbers)).any():
        problems[f"{name} is infinite"] = infinite
    if at_least is not None and (low := numbers < at_least).any():
        problems[f"{name} is below {at_least:g}"] = low
    return Column(pa.array(numbers), problems)


def _numbers(name: str, column: pa.Array) -> tuple[npt.NDArray[np.float64], dict[str, Mask]]:
    kind = column.type
    if pa.types.is_null(kind):
        return np.full(len(column), np.nan), {}
    if _is_text(kind):
        return _numbers_from_text(name, column.cast(pa.string()))
    if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)):
        present = np.asarray(column.is_valid())
        return np.full(len(column), np.nan), ({f"{name} is not a number": present} if present.any() else {})
    numbers = column.cast(pa.float64(), safe=False)
    return np.asarray(numbers.fill_null(np.nan) if numbers.null_count else numbers), {}


def _numbers_from_text(name: str, text: pa.Array) -> tuple[npt.NDArray[np.float64], dict[str, Mask]]:
    try:
        return np.asarray(text.cast(pa.float64()).fill_null(np.nan)), {}
    except pa.ArrowInvalid:
        lower = pc.utf8_lower(pc.utf8_trim_whitespace(text))
        missing = np.asarray(pc.is_in(lower, value_set=pa.array(sorted(MISSING_WORDS))).fill_null(True))
        missing |= np.asarray(text.is_null())
        series = pd.to_numeric(pd.Series(text.to_pylist(), dtype=object), errors="coerce")
        numbers = series.to_numpy(dtype=np.float64, na_value=np.nan)
        bad = np.isnan(numbers) & ~missing
        return numbers, ({f"{name} is not a number": bad} if bad.any() else {})


GROUPED = r"^\s*[-+]?(\d{1,3}([. '\x{00A0}\x{202F}]\d{3})+|\d+)?(,\d+)?([eE][-+]?\d+)?\s*$"


def _with_points(text: pa.Array) -> pa.Array:
    """Numbers with a decimal comma as numbers with a point; what is none keeps its text, and a point is no decimal."""
    grouped = pc.match_substring_regex(text, GROUPED)
    plain = pc.replace_substring(pc.replace_substring_regex(text, r"[. '\x{00A0}\x{202F}]", ""), ",", ".")
    other = pc.if_else(pc.match_substring(text, "."), "?", text)  # "1.5" would pass for a number
    return pc.if_else(grouped, plain, other)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind))


def time_column(
    name: str,
    column: pa.Array,
    *,
    time_unit: TimeUnit | None = None,
    time_format: str | None = None,
    timezone: str | None = None,
) -> Column:
    """Moments as UTC µs: timestamps of any unit and zone, dates, ISO 8601 text, numbers with a `time_unit`.

    Args:
        name: of the column, for messages.
        column: (n,) of any type.
        time_unit: of numbers.
        time_format: strptime format of text that is not ISO 8601.
        timezone: of times that carry no zone; UTC by default.

    Raises:
        DataError: a type that holds no moments, or numbers without `time_unit`.
    """
    if pa.types.is_dictionary(column.type):
        column = column.dictionary_decode()
    moments = _moments(name, column, time_unit, time_format)
    if timezone is None or not moments.notes:  # no note: every time has a zone
        return moments
    zoned = pc.assume_timezone(moments.values, timezone, ambiguous="earliest", nonexistent="latest").cast(TIME)
    if _is_text(column.type):  # some rows may carry a zone
        zoned = pc.if_else(pc.match_substring_regex(column, ZONED), moments.values, zoned)
    return Column(zoned, moments.problems)


def _moments(name: str, column: pa.Array, time_unit: TimeUnit | None, time_format: str | None) -> Column:
    kind = column.type
    if column.null_count == len(column):  # a frame without rows has no type worth the name
        return Column(pa.nulls(len(column), TIME))
    if _is_text(kind):
        return _times_from_text(name, column.cast(pa.string()), time_unit, time_format)
    if pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind):
        return _times_from_numbers(name, column, time_unit)
    if pa.types.is_date(kind):
        note = f"{name} holds dates without a time of day: taken as midnight UTC"
        return _in_range(name, column.cast(pa.timestamp("s")), (note,))
    if not pa.types.is_timestamp(kind):
        raise DataError(f"Column '{name}' holds {kind}, not moments in time. Give timestamps or ISO 8601 text.")
    notes = () if kind.tz else (naive_note(name),)
    return _in_range(name, column.cast(pa.timestamp(kind.unit)), notes)


def naive_note(name: str) -> str:
    """The note on times that carry no zone."""
    return f"{name} carries no time zone: taken as UTC"


def _in_range(name: str, stamps: pa.Array, notes: tuple[str, ...]) -> Column:
    """To µs, with moments that nobody means (1970 and before, 2100 and after) as problems."""
    per_second = TICKS[stamps.type.unit]
    ticks = stamps.cast(pa.int64())
    extremes = pc.min_max(ticks)
    low, high = EARLIEST_US * per_second // 10**6, LATEST_US * per_second // 10**6
    first, last = extremes["min"].as_py(), extremes["max"].as_py()
    if first is None or (first >= low and last < high):
        return Column(stamps.cast(TIME, safe=False), {}, notes)
    early, late = _mask(pc.less(ticks, low)), _mask(pc.greater_equal(ticks, high))
    stamps = pc.if_else(pa.array(early | late), pa.scalar(None, stamps.type), stamps)
    problems = {f"{name} is before 1971": early, f"{name} is after 2099": late}
    return Column(stamps.cast(TIME, safe=False), {why: mask for why, mask in problems.items() if mask.any()}, notes)


def _mask(matches: pa.Array) -> Mask:
    return np.asarray(matches.fill_null(False))


def _times_from_numbers(name: str, column: pa.Array, time_unit: TimeUnit | None) -> Column:
    numbers = np.asarray(column.cast(pa.float64(), safe=False).fill_null(np.nan))
    if time_unit is None:
        raise DataError(_unit_needed(name, column.type, numbers))
    present = np.isfinite(numbers)
    if pa.types.is_integer(column.type):
        column = _clip_to_int64(column)
        return _in_range(name, column.cast(pa.timestamp(time_unit)), ())
    seconds = np.where(present, numbers, 0.0) / TICKS[time_unit]
    sane = np.clip(seconds, -1e10, 1e10)  # far out of range on both sides, and no overflow
    stamps = pa.array(np.round(sane * 1e6).astype(np.int64), mask=~present).cast(TIME)
    times = _in_range(name, stamps, ())
    infinite = np.isinf(numbers)
    return Column(times.values, times.problems | ({f"{name} is not a time": infinite} if infinite.any() else {}))


def _clip_to_int64(column: pa.Array) -> pa.Array:
    if column.type == pa.uint64():
        return pc.min_element_wise(column, pa.scalar(2**63 - 1, pa.uint64())).cast(pa.int64())
    return column.cast(pa.int64())


def _unit_needed(name: str, kind: pa.DataType, numbers: npt.NDArray[np.float64]) -> str:
    finite = numbers[np.isfinite(numbers)]
    typical = float(np.median(finite)) if len(finite) else 0.0
    guess = [
        unit for unit, per_second in TICKS.items() if EARLIEST_US * per_second <= typical * 1e6 < LATEST_US * per_second
    ]
    hint = f"they look like time_unit = '{guess[0]}'" if guess else "they look like no unit since 1971"
    return (
        f"Column '{name}' holds numbers ({kind}, typically {typical:.0f}), not timestamps. "
        f"Say their unit with time_unit = 's', 'ms', 'us' or 'ns' ({hint})."
    )


def _times_from_text(name: str, text: pa.Array, time_unit: TimeUnit | None, time_format: str | None) -> Column:
    if time_unit is not None:
        try:
            return _times_from_numbers(name, text.cast(pa.int64()), time_unit)
        except pa.ArrowInvalid:  # fractions, or no numbers at all
            numbers, problems = _numbers_from_text(name, text)
        column = _times_from_numbers(name, pa.array(numbers, mask=np.isnan(numbers)), time_unit)
        bad = {f"{name} is not a time": mask for mask in problems.values()}
        return Column(column.values, column.problems | bad, column.notes)
    if time_format is None:
        for kind, notes in ((TIME, (naive_note(name),)), (pa.timestamp("us", "UTC"), ())):
            try:
                return _in_range(name, text.cast(kind).cast(TIME), notes)
            except pa.ArrowInvalid:
                continue
    return _times_row_by_row(name, text, time_format)


ZONED = r"\d.*:\d{2}.*(?:[zZ]|[+-]\d{2}(?::?\d{2})?)\s*$"


def _times_row_by_row(name: str, text: pa.Array, time_format: str | None) -> Column:
    """Zones mixed, other formats, or some rows that are no time at all."""
    trimmed = pc.utf8_trim_whitespace(text)
    missing = np.asarray(pc.is_in(pc.utf8_lower(trimmed), value_set=pa.array(sorted(MISSING_WORDS))).fill_null(True))
    missing |= np.asarray(text.is_null())
    series = pd.Series(trimmed.to_pylist(), dtype=object).where(~missing, None)
    stamps = pd.to_datetime(series, format=time_format or "ISO8601", utc=True, errors="coerce")
    us = stamps.dt.tz_localize(None).to_numpy().astype("datetime64[us]")
    unread = np.isnat(us) & ~missing
    zoned = _mask(pc.match_substring_regex(trimmed, ZONED))
    notes = (naive_note(name),) if (~zoned & ~missing & ~unread).any() else ()
    column = _in_range(name, pa.array(us, TIME, mask=np.isnat(us)), notes)
    problems = column.problems | ({f"{name} is not a time": unread} if unread.any() else {})
    return Column(column.values, problems, column.notes)

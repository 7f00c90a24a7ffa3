"""Moments of any kind → µs since 1970 UTC, the one clock inside."""

from __future__ import annotations

from datetime import date, datetime
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from features.errors import DataError

NOT_A_TIME = int(np.iinfo(np.int64).min)
DAY_US = 86_400_000_000


def days_us(days: float) -> int:
    """A number of days in whole µs."""
    return round(days * DAY_US)


def moment_text(moment_us: int) -> str:
    """A moment for a message, with the time of day where there is one.

    >>> moment_text(0), moment_text(1_500_000)
    ('1970-01-01', '1970-01-01 00:00:01.500000')
    """
    text = str(np.datetime64(int(moment_us), "us")).removesuffix(".000000").removesuffix("T00:00:00")
    return text.replace("T", " ")


def microseconds(moments: Any) -> npt.NDArray[np.int64]:
    """Moments as int64 µs since 1970 UTC; naive ones are taken as UTC, whole numbers as µs already.

    Args:
        moments: one or (n,) of timestamps, dates, ISO 8601 text or whole numbers.

    Raises:
        DataError: a moment is missing or cannot be read.

    >>> microseconds("1970-01-02").tolist()
    86400000000
    """
    if isinstance(moments, int | np.integer):
        return np.asarray(moments, dtype=np.int64)
    if isinstance(moments, str | date | np.datetime64) or moments is None or moments is pd.NaT:
        return np.asarray(_moment_us(moments), np.int64)
    values: Any = np.asarray(moments) if not isinstance(moments, pd.Series | pd.Index) else moments
    if values.dtype.kind in "iu":
        return np.asarray(values, dtype=np.int64)
    plain = isinstance(values, np.ndarray) and values.dtype.kind == "M"
    us = values.astype("datetime64[us]").view(np.int64) if plain else _moments_us(values)
    if (us == NOT_A_TIME).any():
        raise DataError(f"Row {int(np.argmax(us == NOT_A_TIME)) + 1} has no cutoff: every row needs one.")
    return us


def _moment_us(moment: Any) -> int:
    try:
        read: datetime | np.datetime64 = datetime.fromisoformat(moment) if isinstance(moment, str) else moment
        stamp = pd.to_datetime(read)
    except ValueError as error:
        raise DataError(f"'{moment}' is no time. Give ISO 8601: 2024-05-31 or 2024-05-31T13:00:00+02:00.") from error
    if stamp is None or pd.isna(stamp):
        raise DataError("A cutoff is missing: give a time.")
    return int(stamp.as_unit("us").asm8.view(np.int64))


def _moments_us(moments: Any) -> npt.NDArray[np.int64]:
    values = pd.Series(moments).reset_index(drop=True)
    form = None if isinstance(values.dtype, pd.DatetimeTZDtype) or values.dtype.kind == "M" else "ISO8601"
    stamps = pd.to_datetime(values, utc=True, format=form, errors="coerce")
    if (unread := (stamps.isna() & values.notna()).to_numpy()).any():
        row = int(np.argmax(unread))
        raise DataError(f"Row {row + 1}: '{values[row]}' is no time. Give timestamps or ISO 8601 text.")
    return np.asarray(pd.DatetimeIndex(stamps).as_unit("us").asi8)

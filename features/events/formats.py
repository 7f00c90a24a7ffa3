"""Formats recognised in text columns: how times are written, whether numbers have decimal commas.

Error messages and drafts of experiment files suggest settings by them.

>>> time_formats(["31.12.2024 08:30", "01.02.2024 17:05"])
('%d.%m.%Y %H:%M',)
>>> time_formats(["03/04/2024"])
('%d/%m/%Y', '%m/%d/%Y')
>>> has_decimal_commas(["1.234,50", "7,5", ""])
True
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import datetime
from itertools import product

DAYS = ("%d.%m.%Y", "%d/%m/%Y", "%m/%d/%Y", "%d-%m-%Y", "%m-%d-%Y", "%Y/%m/%d", "%Y.%m.%d", "%Y%m%d", "%d %b %Y",
        "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%d-%b-%Y", "%d.%m.%y", "%d/%m/%y", "%m/%d/%y")  # fmt: skip
CLOCKS = ("", " %H:%M:%S", " %H:%M", " %H:%M:%S.%f", " %I:%M:%S %p", " %I:%M %p", ", %H:%M:%S", ", %H:%M", "T%H:%M:%S")
WHOLE_FORMATS = ("%d/%b/%Y:%H:%M:%S %z", "%Y%m%d%H%M%S", "%Y-%m-%d %H.%M.%S", "%a %b %d %H:%M:%S %Y")
FORMATS = (*(day + clock for day, clock in product(DAYS, CLOCKS)), *WHOLE_FORMATS)
TEXTS_READ = 2_000  # of a column
COMMA = re.compile(r"\s*[-+]?(\d{1,3}([. '\u00a0\u202f]\d{3})+|\d+)(,\d+)?\s*")


def time_formats(texts: Sequence[str | None]) -> tuple[str, ...]:
    """The strptime formats that read every one of the texts, the likelier first; none where nothing fits.

    Args:
        texts: as the file has them; empty ones are left out, and of many the first 2,000 are looked at.
    """
    texts = [text.strip() for text in texts if text and text.strip()][:TEXTS_READ]
    candidates = [form for form in FORMATS if texts and _reads(texts[0], form)]
    return tuple(form for form in candidates if all(_reads(text, form) for text in texts))


def _reads(text: str, form: str) -> bool:
    try:
        return datetime.strptime(text, form).year > 1970
    except ValueError:
        return False


def has_decimal_commas(texts: Sequence[str | None]) -> bool:
    """Whether the texts are numbers if a comma parts their decimals, and not otherwise.

    Args:
        texts: as the file has them; empty ones are left out, and of many the first 2,000 are looked at.
    """
    texts = [text for text in texts if text and text.strip()][:TEXTS_READ]
    return any("," in text for text in texts) and all(COMMA.fullmatch(text) for text in texts)

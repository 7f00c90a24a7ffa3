"""Pages and what they are made of: numbers for people, tables, sliders, escaping."""

from __future__ import annotations

import html
import re

import numpy as np
import pandas as pd

from training.reports.blocks import Bars, Heading, Intervals, Notes, PageColumn, Sentences, Table, Terms
from training.reports.interactive import rarity_filter
from training.reports.numbers import clean, seconds, share, share_difference, span
from training.reports.pages import Fact, Page, PageSection, render_page

EVIL = '<script>alert("x")</script> & %{x} <b>bold</b>'


def page_of(*blocks: object) -> str:
    return render_page(Page("A page", [PageSection("only", "Only", list(blocks))]))  # type: ignore[arg-type]


def test_number_formats() -> None:
    assert [share(item) for item in (0, 1, 0.999, 0.0001, -0.2, np.nan)] == ["0%", "100%", "100%", "0.01%", "−20%", "–"]
    assert [seconds(item) for item in (0, 59.4, 600, 86_400 * 400, np.nan)] == [
        "0 s",
        "59 s",
        "10 min",
        "400 days",
        "–",
    ]
    assert span(-0.05, 0.021) == "−5.0 to 2.1%"
    assert share_difference(0.0) == "+0.0 pts"
    assert clean("") == clean(" \x00") == "(no name)"
    assert clean("bad \ud800 half") == "bad half"


def test_tables_drop_empty_columns() -> None:
    frame = pd.DataFrame(
        {"a": [EVIL, "y", None], "n": [0, 0, 0], "r": [0.5, None, np.nan], "r_low": 0.4, "r_high": 0.6}
    )
    columns = [
        PageColumn("a", "A", "name"),
        PageColumn("n", "N"),
        PageColumn("r", "R", "share"),
        PageColumn("gone", "G"),
    ]
    text = page_of(Table(frame, columns, "Some.", most=2))
    assert "The first 2 of 3 are shown." in text
    assert re.findall(r'<th scope="col"[^>]*><button type="button">(.*?)<', text) == ["A", "R"]
    assert html.escape(clean(EVIL)).replace("&quot;", "&#34;").replace("&#x27;", "&#39;") in text
    assert 'data-value="0.5">50%<small>40–60%</small>' in text


def test_rarity_slider() -> None:
    slider = rarity_filter(("at least ", ""), [1] * 50 + [10] * 30 + [100] * 5, 40)
    assert slider is not None
    assert slider.levels == (1, 10, 100)
    assert slider.levels[slider.first] == 10
    assert rarity_filter(("", ""), [3, 3, 3, 3, 3], 40) is None, "there is nothing to choose"


def test_every_block_escapes_its_texts() -> None:
    frame = pd.DataFrame({"name": [EVIL]})
    blocks = (
        Heading(EVIL), Sentences([EVIL]), Notes([EVIL]), Terms([(EVIL, EVIL, EVIL)]), Bars([EVIL], [1.0], [0.5]),
        Table(frame, [PageColumn("name", EVIL, "name")], EVIL, summary=EVIL),
        Intervals([EVIL], [0.1], [(0.1, 0.0, 0.2)]),
    )  # fmt: skip
    section = PageSection("only", EVIL, blocks, EVIL)
    text = render_page(Page(EVIL, [section], EVIL, [Fact(EVIL, EVIL, EVIL)], EVIL, [EVIL]))
    assert "alert(" in text
    assert not re.search(r"<script>alert|<b>bold", text)
    assert "\u202e" not in page_of(Heading("a\u202eb"))

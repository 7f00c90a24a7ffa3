"""The journey map as one HTML page that opens offline: findings in words, interactive pictures, tables.

    write_page(journey_map(journeys, settings), Path("map.html"), PageText("my log"))

plotly.js lies in the page, compressed, and a content security policy forbids the page every request: it cannot leak.
Everything that comes from data is escaped; customers' identifiers never get here, because the tables hold none.
"""

from __future__ import annotations

import base64
import gzip
import json
import math
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from features.journey_map.comparison import MapComparison
from features.journey_map.tables import JourneyMap
from training.journey_map.findings import said_dates
from training.journey_map.sections import MapText, Part, parts
from training.journey_map.theme import THEMES
from training.reports.html import count, days, escape, share

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; font-src data:; "
    "base-uri 'none'; form-action 'none'"
)
MADE_BY = "Made by Journey Lab. The page holds all it needs and asks nothing of the network."


def write_map_page(drawn: JourneyMap, path: Path, text: MapText, comparison: MapComparison | None = None) -> Path:
    """Write the page.

    Args:
        drawn: the map.
        path: of the file; its folder is made.
        text: the words around the tables.
        comparison: of two groups, where there is one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page(drawn, text, comparison), encoding="utf-8")
    return path


def page(drawn: JourneyMap, text: MapText, comparison: MapComparison | None = None) -> str:
    """The page as text; see `write_map_page`."""
    title = f"Journey map: {text.name}"
    return shell(title, _header(drawn.summary, title, text), parts(drawn, text, comparison))


def shell(title: str, header: str, sections: Sequence[Part]) -> str:
    """A whole page of these sections; plotly.js comes along where one of them has a picture.

    Args:
        title: of the page.
        header: what stands before the contents, HTML.
        sections: with their pictures.
    """
    pictures = {figure.name: figure.to_dict() for part in sections for figure in part.figures}
    links = "".join(f'<li><a href="#{part.id}">{escape(part.title)}</a></li>' for part in sections)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta name="color-scheme" content="light dark"><title>{escape(title)}</title>'
        f"<style>{_own('page.css')}{_theme_css()}</style></head><body>"
        f'<a class="skip" href="#{sections[0].id}">Skip the contents</a>{header}'
        f'<nav aria-label="Contents"><ul>{links}</ul></nav><main>{"".join(_section(part) for part in sections)}</main>'
        f"<footer>{MADE_BY}</footer>{_data('figures', pictures)}{_data('themes', THEMES)}"
        f'<script type="text/plain" id="plotly">{packed_plotly() if pictures else ""}</script>'
        f"<script>{_own('page.js')}</script></body></html>\n"
    )


@cache
def packed_plotly() -> str:
    """plotly.js, compressed and as text: the library alone would fill the page."""
    bundle = files("plotly") / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(bundle.read_bytes(), 9, mtime=0)).decode("ascii")


def _theme_css() -> str:
    """The pictures' colours, for the keys beside them."""
    said = {
        scheme: "".join(f"--{name}:{colour};" for name, colour in theme.items() if name[0] in "gr")
        for scheme, theme in THEMES.items()
    }
    return f":root{{{said['light']}}}@media (prefers-color-scheme: dark){{:root{{{said['dark']}}}}}"


def _own(name: str) -> str:
    return (files("training.journey_map") / name).read_text(encoding="utf-8")


def _data(name: str, value: Any) -> str:
    """JSON in the page; no text in it can end the script element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"), default=_plain)  # ASCII, so no odd line ends
    safe = text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")
    return f'<script type="application/json" id="{name}">{safe}</script>'


def _plain(value: Any) -> Any:
    return value.item()  # NumPy's own numbers


def _header(summary: dict[str, Any], title: str, text: MapText) -> str:
    source = f" Source: {escape(text.source)}." if text.source else ""
    asked = ": the ways they took, where they stopped, and what led to the goal" if text.goals else ""
    told = asked or ": the ways they took and where they stopped"
    cells = "".join(
        f"<div><dt>{name}</dt><dd>{value}{f'<small>{small}</small>' if small else ''}</dd></div>"
        for name, value, small in _facts(summary, text)
    )
    return (
        f"<header><h1>{escape(title)}</h1><p>What customers did from {escape(said_dates(summary))}{told}.{source} "
        f'Times are UTC.</p><dl class="facts">{cells}</dl></header>'
    )


def _facts(summary: dict[str, Any], text: MapText) -> list[tuple[str, str, str]]:
    """Name, figure and small print of what stands at the top."""
    half = float(summary["median_events"])
    facts = [
        ("Customers", count(summary["customers"]), ""),
        ("Events", count(summary["events"]), f"half of the customers have {half:g} or fewer"),
        ("Touchpoints", count(summary["touchpoints"]), _places(summary)),
        ("Median journey", days(float(summary["median_span_days"])), "from first to last event"),
    ]
    rate = float(summary["converted_share"])
    if text.goals and math.isfinite(rate):
        facts.append(("Converted", share(rate), f"{count(summary['converted'])} customers"))
    return facts


def _places(summary: dict[str, Any]) -> str:
    told = [
        f"{count(summary[key])} {key if summary[key] != 1 else key[:-1]}"
        for key in ("channels", "stages")
        if summary[key]
    ]
    return f"in {' and '.join(told)}" if told else ""


def _section(part: Part) -> str:
    how = f'<p class="how">{part.how}</p>' if part.how else ""
    heading = f'<h2 id="{part.id}-h">{escape(part.title)}</h2>'
    return f'<section id="{part.id}" aria-labelledby="{part.id}-h">{heading}{how}{part.body}</section>'

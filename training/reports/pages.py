"""Pages that open offline, rendered from the Jinja2 templates of this folder.

    write_page(Page("Segments", [PageSection("sizes", "Sizes", [Table(frame, columns, "All segments.")])]), path)

Autoescape is on, and every printed text loses its control characters. plotly.js lies in the page, compressed, where it
has pictures, and a content security policy forbids the page every request: it cannot leak.
"""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from training.reports.blocks import PageBlock
from training.reports.interactive import THEMES, InteractiveFigure
from training.reports.numbers import metric, visible

TEMPLATES = Path(__file__).parent / "templates"


@dataclass(frozen=True)
class Fact:
    """A number at the top of a page.

    Attributes:
        name: what it is.
        value: as text.
        note: small print under it.
    """

    name: str
    value: str
    note: str = ""


@dataclass(frozen=True)
class PageSection:
    """A section of a page.

    Attributes:
        id: its anchor.
        title: its heading.
        blocks: what stands in it.
        how: how to read it.
        link: an anchor and the words that lead to it, after `how`.
    """

    id: str
    title: str
    blocks: Sequence[PageBlock]
    how: str = ""
    link: tuple[str, str] | None = None


@dataclass(frozen=True)
class Page:
    """A whole page.

    Attributes:
        title: its heading.
        sections: in reading order; the contents list them.
        lead: a paragraph under the title.
        facts: numbers at the top.
        verdict: a sentence in bold under them.
        remarks: paragraphs under that.
    """

    title: str
    sections: Sequence[PageSection]
    lead: str = ""
    facts: Sequence[Fact] = ()
    verdict: str = ""
    remarks: Sequence[str] = ()

    @property
    def pictures(self) -> dict[str, dict[str, Any]]:
        """Name of each interactive picture → what the page's script draws."""
        blocks = (block for section in self.sections for block in section.blocks)
        return {block.name: block.to_dict() for block in blocks if isinstance(block, InteractiveFigure)}


def write_page(page: Page, path: Path) -> Path:
    """Write a page.

    Args:
        page: what stands on it.
        path: of the file; its folder is made.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(render_page(page), encoding="utf-8")
    return path


def render_page(page: Page) -> str:
    """The page as HTML."""
    plotly = packed_plotly() if page.pictures else ""
    return templates().get_template("page.html.jinja").render(page=page, themes=THEMES, plotly=plotly)


@cache
def templates() -> Environment:
    """The environment of all templates."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        finalize=lambda value: visible(value) if type(value) is str else value,  # Markup is our own
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["metric"] = metric
    environment.globals["asset"] = _asset
    environment.policies["json.dumps_kwargs"] = {
        "allow_nan": False, "separators": (",", ":"), "default": lambda number: number.item(),  # NumPy's own numbers
    }  # fmt: skip
    return environment


def _asset(name: str) -> Markup:
    """A file of ours that goes into the page as it is."""
    return Markup((TEMPLATES / name).read_text(encoding="utf-8"))  # no data in it


@cache
def packed_plotly() -> str:
    """plotly.js, compressed and as text: the library alone would fill the page."""
    bundle = files("plotly") / "package_data" / "plotly.min.js"
    return base64.b64encode(gzip.compress(bundle.read_bytes(), 9, mtime=0)).decode("ascii")

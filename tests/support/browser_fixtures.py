"""Fixtures for pages in Chromium: `browser`, and `visit`, which opens a page and records all that goes wrong on it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import pytest

if TYPE_CHECKING:
    from playwright.sync_api import Browser, ConsoleMessage, Page

QUIET_CHROMIUM = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
)  # fmt: skip
LAYOUT = """
() => {
  const root = document.documentElement;
  const text = (node) => node.outerHTML.slice(0, 160);
  const clipped = (node) => {
    for (let up = node.parentElement; up && up !== document.body; up = up.parentElement)
      if (getComputedStyle(up).overflowX !== "visible") return true;
    return false;
  };
  const beyond = (node) => node.getBoundingClientRect().right > root.clientWidth + 1 && !clipped(node);
  const all = (wanted) => [...document.body.querySelectorAll(wanted)];
  return {
    overflow: root.scrollWidth > root.clientWidth ? all("*").filter(beyond).map(text).concat("the page") : [],
    missing: all("img").filter((image) => !image.complete || !image.naturalWidth).map(text),
    empty: all("[data-figure]").filter((box) => !box.querySelector("svg.main-svg")).map(text),
  };
}
"""
BY_AXE = """
async () => (await axe.run(document, { resultTypes: ["violations"] })).violations.map((found) =>
  [found.impact, found.id, ...found.nodes.slice(0, 4).map((node) => `${node.target}: ${node.html.slice(0, 160)}`)])
"""


class Visit:
    """A page in a browser, and all that went wrong on it."""

    def __init__(self, page: Page) -> None:
        self.page = page
        self.faults: list[str] = []
        page.on("console", self._console)
        page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        page.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url} {request.failure}"))
        page.on("response", lambda got: self.faults.append(f"{got.status}: {got.url}") if got.status >= 400 else None)

    def _console(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.faults.append(f"console: {message.text} {message.location['url']}")

    def layout(self) -> dict[str, list[str]]:
        """What reaches past the right edge of the page; pictures that are not there."""
        result: dict[str, list[str]] = self.page.evaluate(LAYOUT)
        return result

    def serious(self) -> list[list[str]]:
        """What axe-core calls serious or critical."""
        axe = files("axe_playwright_python") / "axe.min.js"
        self.page.evaluate(axe.read_text(encoding="utf-8"))
        return [result for result in self.page.evaluate(BY_AXE) if result[0] in ("serious", "critical")]

    def keep(self, name: str) -> None:
        """A picture of the page for people to look at, in the folder JOURNEYLAB_SCREENSHOTS, if there is one."""
        if folder := os.environ.get("JOURNEYLAB_SCREENSHOTS"):
            self.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """The Chromium of this machine, without a window and with a profile of its own.

    Of a module: while it is open an event loop runs in this thread, which `Client` of other tests would stumble on.
    """
    if (path := shutil.which("chromium")) is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=list(QUIET_CHROMIUM))
        yield chromium
        chromium.close()


@pytest.fixture(scope="module")
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    """A width and a colour scheme → a page that nobody has been on, open as long as the module."""
    opened = []

    def new(width: int = 1440, scheme: Literal["light", "dark"] = "light") -> Visit:
        size = {"width": width, "height": 900 if width > 700 else 844}
        opened.append(browser.new_context(viewport=size, color_scheme=scheme))
        return Visit(opened[-1].new_page())

    yield new
    for context in opened:
        context.close()

"""A real browser in front of the dashboard of an instance: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import os
import re
import shutil
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.system.machine import Machine

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
IMAGES = os.environ.get("ALIGHT_TEST_IMAGES", "")  # where pictures for docs/images go; "": none are taken
PATIENCE_MS = 15_000
PHONE = {"width": 390, "height": 844}
DESK = {"width": 1280, "height": 800}
JUMPS = """
window.jumped = 0;
new PerformanceObserver((list) => {
  for (const entry of list.getEntries()) if (!entry.hadRecentInput) window.jumped += entry.value;
}).observe({ type: "layout-shift", buffered: true });
"""


class Looker:
    """One tab. ``wrong`` gathers what the browser complained about: errors of scripts, what the policy forbade,
    and requests to anybody but the server."""

    def __init__(self, machine: Machine, context) -> None:
        self.machine = machine
        self.tab = context.new_page()
        self.tab.add_init_script(JUMPS)
        self.tab.set_default_timeout(PATIENCE_MS)
        self.wrong: list[str] = []
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("console", self._heard)
        self.tab.on("request", self._asked)
        self.origin = ""

    def _heard(self, message) -> None:
        # Requests that break off when a container's network interface comes are tried again by the page itself.
        if message.type == "error" and "ERR_NETWORK" not in message.text and "Failed to load" not in message.text:
            self.wrong.append(message.text)

    def _asked(self, request) -> None:
        # Everything a page is made of comes from the server, so that it works where there is no internet.
        if not re.match(r"(https?|wss?)://alight\.localhost:\d+/|(data|blob|about):", request.url):
            self.wrong.append(f"asked {request.url}")

    def log_in(self) -> None:
        link = self.machine.run("dashboard", "--no-browser").stdout.strip()
        self.origin = link.partition("/login")[0]
        self.tab.goto(link)
        self.tab.wait_for_selector("main h1")

    def go(self, path: str, ready: str = "main h1") -> None:
        """Open a page and wait until a thing is on it."""
        self.tab.goto(self.origin + path)
        self.tab.wait_for_selector(ready)

    def sees(self, text: str) -> None:
        """Wait until a text is on the page."""
        self.tab.get_by_text(text).first.wait_for()

    def count(self, selector: str) -> int:
        return self.tab.locator(selector).count()

    def sideways(self) -> int:
        """Pixels by which the page is wider than the window."""
        return self.tab.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")

    def jumps(self) -> float:
        """How much of this page moved by itself, as browsers count it; up to 0.1 counts as calm."""
        return self.tab.evaluate("window.jumped")

    def picture(self, name: str) -> None:
        """A picture for the documents, if somebody asked for them."""
        if IMAGES:
            self.tab.evaluate("document.fonts.ready")
            self.tab.screenshot(path=str(Path(IMAGES) / f"{name}.png"))


@contextmanager
def browser() -> Iterator:
    """A browser without windows; the test is skipped where there is none."""
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install playwright")
    if CHROMIUM is None:
        pytest.skip("no Chromium: apt install chromium")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield found
        found.close()

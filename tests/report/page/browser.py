"""A real browser for the page: Debian's Chromium, driven by Playwright."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from playwright.sync_api import Browser, Page, ViewportSize, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")


@dataclass
class Opened:
    """An open page, with what it complained of and what it asked for."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


def find_chromium() -> str:
    """Return where Chromium is; raises RuntimeError that says what to install."""
    for name in NAMES:
        if found := shutil.which(name):
            return found
    raise RuntimeError(f"tests of the page need one of {', '.join(NAMES)}: apt-get install chromium")


@contextmanager
def launched() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        # Its sandbox needs rights that containers do not have; it opens nothing but the tests' own files.
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=["--no-sandbox"])
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(browser: Browser, path: Path, *, width: int = 1300) -> Iterator[Opened]:
    """Open a file, and wait until its script has run."""
    context = browser.new_context(viewport=ViewportSize(width=width, height=900))
    page = context.new_page()
    found = Opened(page)
    page.on("console", lambda message: found.complaints.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: found.complaints.append(str(error)))
    page.on("request", lambda request: found.requests.append(request.url))
    page.goto(path.as_uri())
    page.wait_for_selector(".memory-plot .main-svg", timeout=60_000)
    try:
        yield found
    finally:
        context.close()

"""A real Chromium without a window, one for all tests; a page that remembers what it said and asked for."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from kdumpy.diagnosis.details import Details
from kdumpy.diagnosis.model import Diagnosis
from kdumpy.report import html

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

BROWSERS = ("chromium", "chromium-browser", "chromium-headless-shell", "google-chrome")


@dataclass
class Opened:
    """A report in the browser."""

    page: Page
    complaints: list[str] = field(default_factory=list)
    """What the console and uncaught errors said, violations of the policy too."""
    requests: list[str] = field(default_factory=list)
    """What was asked for beside the file itself."""


Open = Callable[..., Opened]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        pytest.skip("no Chromium is installed: tools/system-packages web")
    playwright = pytest.importorskip("playwright.sync_api", reason="pip install 'kdumpy[dev]'")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=program)
        yield started
        started.close()


@pytest.fixture
def open_report(browser: Browser, tmp_path: Path) -> Iterator[Open]:
    from playwright.sync_api import expect

    contexts: list[BrowserContext] = []

    def show(diagnosis: Diagnosis | None = None, details: Details | None = None, *, text: str | None = None,
             width: int = 1280, wait: bool = True, **options: Any) -> Opened:
        path = tmp_path / f"report-{len(contexts)}.html"
        if text is None:
            assert diagnosis is not None
            assert details is not None
            text = html.render(diagnosis, details)
        path.write_text(text, "utf-8")
        context = browser.new_context(viewport={"width": width, "height": 900}, **options)
        contexts.append(context)
        opened = Opened(context.new_page())
        opened.page.set_default_timeout(10_000)
        opened.page.on("console", lambda message: opened.complaints.append(f"{message.type}: {message.text}"))
        opened.page.on("pageerror", lambda error: opened.complaints.append(f"error: {error}"))
        opened.page.on("dialog", lambda dialog: opened.complaints.append(f"dialog: {dialog.message}"))
        opened.page.on("request", lambda request: opened.requests.append(request.url)
                       if request.url != path.as_uri() and not request.url.startswith("data:") else None)
        opened.page.goto(path.as_uri())
        if wait:
            # Not wait_for_function: it calls eval(), which the page's policy forbids.
            expect(opened.page.locator("html")).to_have_attribute("data-state", "ready")
        return opened

    yield show
    for context in contexts:
        context.close()

"""Debian's Chromium without a window, driven by Playwright; whatever it reports as an error fails the test."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from playwright.async_api import Browser, Page, async_playwright, expect

from tests.integration.stack import Stack

ARTEFACTS = Path(__file__).parents[1] / "artefacts/web"
NAMES = ("chromium", "chromium-browser", "google-chrome-stable", "google-chrome")
PHONE: dict[str, Any] = {
    "viewport": {"width": 375, "height": 740},
    "is_mobile": True,
    "has_touch": True,
    "color_scheme": "dark",
}
WAIT_MS = 45_000
"""Long, since success ends the wait: the machine may be busy."""
HEADINGS = {
    "Chat": "Chat",
    "Compare": "Which answer is best?",
    "Learning": "How it learns",
    "Versions": "Versions",
    "Feedback": "Where feedback goes",
    "Raters": "Raters",
    "Dead letters": "Dead letters",
}
CONNECTED = "document.documentElement.dataset.connected"
expect.set_options(timeout=WAIT_MS)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"none of {', '.join(NAMES)} is on this machine; Debian's package 'chromium' is what the tests use")
    # Chromium's own sandbox does not work for root.
    flags = ["--no-sandbox"] if os.geteuid() == 0 else []
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=path, args=flags)
        yield browser
        await browser.close()


@asynccontextmanager
async def tab(browser: Browser, url: str, *, login: bool = False, **options: Any) -> AsyncIterator[Page]:
    """A fresh visitor at `url`; errors of the page's scripts, but not of a lost connection, fail at the end.

    With `login` the page asks for the token first, and the caller gives it.
    """
    context = await browser.new_context(base_url=url, **{"viewport": {"width": 1180, "height": 800}, **options})
    page = await context.new_page()
    page.set_default_timeout(WAIT_MS)
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    await (page.goto("/") if login else arrive(page, "/"))
    yield page
    await context.close()
    assert errors == []


async def arrive(page: Page, path: str) -> None:
    """Open `path` and wait until the page listens: before that, a click would be lost."""
    await page.goto(path)
    await page.wait_for_function(CONNECTED)


def address(stack: Stack) -> str:
    return f"http://127.0.0.1:{stack.ports['CONSOLE__WEB_PORT']}"


async def to(page: Page, name: str) -> None:
    """Follow the link to a page, and wait for it: the page before stays a moment, with buttons of the same names."""
    await page.get_by_role("navigation").get_by_role("link", name=name).click()
    await expect(page.get_by_role("heading", level=1)).to_have_text(HEADINGS[name])
    await expect(page).to_have_title(f"{name} · Foldback")


async def keep(page: Page, name: str) -> None:
    """A screenshot for people, once dialogs have stopped moving."""
    await page.wait_for_timeout(400)
    ARTEFACTS.mkdir(parents=True, exist_ok=True)
    await page.screenshot(path=ARTEFACTS / f"{name}.png")


async def width_beyond_screen(page: Page) -> int:
    """Pixels that a visitor would have to scroll sideways."""
    return int(await page.evaluate("document.documentElement.scrollWidth - window.innerWidth"))

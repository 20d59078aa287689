"""The web page as its own process (`foldback web`), in a real browser, before a server that answers as it is told."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from playwright.async_api import Browser, expect

from console.stack import PortPicker, accepts
from console.web.observer import POLL_S
from tests.console.browser import CONNECTED, arrive, chromium, keep, tab
from tests.console.fake_server import FakeFoldback

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
MARKUP = '<img src="x" onerror="document.title = `taken`"> <b>bold</b>'


class Slow(FakeFoldback):
    """Ten words a second."""

    async def StreamChat(self, request, context):  # noqa: N802
        async for event in super().StreamChat(request, context):
            yield event
            await asyncio.sleep(0.1)


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@asynccontextmanager
async def web(fake: FakeFoldback, folder: Path, **console: str) -> AsyncIterator[str]:
    """`foldback web` for `fake`; its address. Stops within seconds although tabs are open."""
    with PortPicker() as picker:
        port = str(picker.pick())
    settings = {"ADDRESS": fake.chat_address, "ADMIN_ADDRESS": fake.admin_address, "WEB_PORT": port, **console}
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("FOLDBACK_")},
        **{f"FOLDBACK_CONSOLE__{name}": value for name, value in settings.items()},
        "FOLDBACK_CONSOLE__TRAINER_METRICS_URL": "http://127.0.0.1:9/metrics",
    }
    said = folder / "web.log"
    with said.open("w") as log:
        command = [sys.executable, "-m", "console.cli", "web"]
        process = await asyncio.create_subprocess_exec(*command, env=environment, stdout=log, stderr=log)
    try:
        while not await accepts(f"127.0.0.1:{port}")():
            assert process.returncode is None, said.read_text()
            await asyncio.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
        process.terminate()
        assert await asyncio.wait_for(process.wait(), 60) in (0, -signal.SIGTERM)
        assert "Traceback" not in said.read_text(), said.read_text()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def test_the_token_opens_the_page_and_nothing_else_does(browser: Browser, tmp_path: Path) -> None:
    async with (
        FakeFoldback() as fake,
        web(fake, tmp_path, WEB_TOKEN="open sesame") as url,
        tab(browser, url, login=True) as page,
    ):
        await keep(page, "login")
        for attempt in ("sesame", "open sesame"):
            await page.get_by_label("Access token").fill(attempt)
            await page.get_by_role("button", name="Open").click()
            if attempt == "sesame":
                await expect(page.get_by_role("alert")).to_contain_text("not the token")
        await page.wait_for_function(CONNECTED)
        await page.get_by_label("Ask anything").fill("tea?")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("log")).to_contain_text("Answer 0 of p000000-base0000 to: tea?")


async def test_what_a_model_writes_is_text(browser: Browser, tmp_path: Path) -> None:
    async with (
        FakeFoldback(lambda *_: MARKUP) as fake,
        web(fake, tmp_path) as url,
        tab(browser, url) as page,
    ):
        await page.get_by_label("Ask anything").fill(MARKUP)
        await page.keyboard.press("Enter")
        await expect(page.locator(".fb-text")).to_have_text(MARKUP)
        assert await page.locator("main img").count() == 0
        assert await page.title() == "Foldback"


async def test_an_answer_can_be_stopped_and_the_conversation_goes_on(browser: Browser, tmp_path: Path) -> None:
    async with Slow(lambda *_: "one " * 400) as fake, web(fake, tmp_path) as url, tab(browser, url) as page:
        await page.get_by_label("Ask anything").fill("count")
        await page.keyboard.press("Enter")
        await expect(page.locator(".fb-text")).to_contain_text("one one")
        await page.get_by_role("button", name="Stop").click()
        await expect(page.get_by_role("status").first).to_contain_text("stopped")
        fake.answer = lambda *_: "done"
        await page.get_by_label("Ask anything").fill("and?")
        await page.keyboard.press("Enter")
        await expect(page.locator(".fb-text").nth(1)).to_have_text("done")
        said = [message.content for message in fake.chats[-1].messages]
        assert said[0] == "count"
        assert said[1].startswith("one one")
        assert said[2] == "and?"


async def test_a_server_that_is_gone_is_said_so(browser: Browser, tmp_path: Path) -> None:
    fake = FakeFoldback()
    await fake.__aenter__()
    async with web(fake, tmp_path, ATTEMPTS="1") as url, tab(browser, url) as page:
        await expect(page.locator(".fb-pill")).to_have_text("serving p0")
        await fake.__aexit__(None, None, None)
        await expect(page.get_by_role("alert")).to_contain_text("start Foldback with 'foldback up'")
        await keep(page, "outage")
        await page.get_by_label("Ask anything").fill("anybody?")
        await page.keyboard.press("Enter")
        await expect(page.get_by_role("log")).to_contain_text("nobody answers at")


async def test_ten_visitors_are_one_client_to_the_server(browser: Browser, tmp_path: Path) -> None:
    """Open tabs do not multiply the calls to the server: they look at what one observer saw."""
    async with FakeFoldback() as fake, web(fake, tmp_path) as url, tab(browser, url) as first:
        await expect(first.locator(".fb-pill")).to_have_text("serving p0")
        for _ in range(3):
            await arrive(await first.context.new_page(), f"{url}/versions")
        calls, began = fake.calls, time.monotonic()
        await asyncio.sleep(2 * POLL_S)
        assert fake.calls - calls <= (time.monotonic() - began) / POLL_S + 1

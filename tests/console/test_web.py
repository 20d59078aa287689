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

from console.stack import accepts
from console.web.observer import POLL_S
from foldback.v1 import chat_pb2
from foldback.v1 import policy_pb2 as pb
from settings.ports import PortPicker
from tests.console.browser import CONNECTED, arrive, keep, tab, to
from tests.console.fake_server import BASE, Context, FakeFoldback

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]
MARKUP = '<img src="x" onerror="document.title = `taken`"> <b>bold</b>'


class Slow(FakeFoldback):
    """Ten words a second."""

    async def StreamChat(  # noqa: N802
        self, request: chat_pb2.StreamChatRequest, context: Context
    ) -> AsyncIterator[chat_pb2.StreamChatResponse]:
        async for event in super().StreamChat(request, context):
            yield event
            await asyncio.sleep(0.1)


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
        assert await page.title() == "Chat · Foldback"


async def test_an_answer_without_a_word_has_ended_and_is_rated(browser: Browser, tmp_path: Path) -> None:
    """A policy may end an answer at once, and people should tell it what they think of that."""
    async with FakeFoldback(lambda *_: "") as fake, web(fake, tmp_path) as url, tab(browser, url) as page:
        await page.get_by_label("Ask anything").fill("tea?")
        await page.keyboard.press("Enter")
        await expect(page.locator(".fb-text")).to_have_text("(an empty answer)")
        await page.get_by_label("Bad answer").click()
        await expect(page.get_by_text("✓ in the event log")).to_be_visible()
        await to(page, "Compare")
        await page.get_by_label("A question for it").fill("tea?")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("(an empty answer)")).to_have_count(3)
        await expect(page.get_by_text("Place the best answer first.")).to_be_visible()


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


async def test_versions_say_why_and_stay_in_place(browser: Browser, tmp_path: Path) -> None:
    """A refused one with the gate's reasons, a canary, and a button that other versions' news do not take away."""
    async with FakeFoldback() as fake:
        for number, state, reason in (
            (1, pb.POLICY_STATE_RETIRED, "p000004-fake0004 took its place"),
            (2, pb.POLICY_STATE_REJECTED, "win rate 0.38, win rate bound 0.28 < 0.4, kl nats 31.20 > 25"),
            (3, pb.POLICY_STATE_CANARY, "passed the gate"),
        ):
            version = f"p{number:06d}-fake000{number}"
            await fake.swap(version)
            figures = {"gate_win_rate": 0.38, "gate_reward": 0.46, "gate_kl_nats": 31.2}
            fake.described[version] = pb.Policy(
                version=version, parent=BASE, state=state, reason=reason, figures=figures
            )
        await fake.swap(BASE)
        async with web(fake, tmp_path) as url, tab(browser, url) as page:
            await to(page, "Versions")
            refused = page.locator(".fb-rejected")
            await expect(refused).to_contain_text("Refused")
            await expect(refused).to_contain_text("win rate, lower bound 28%, at least 40% is asked")
            await expect(refused).to_contain_text("from the reference 31.2 nats, at most 25.0 nats is allowed")
            await expect(refused.get_by_role("button")).to_have_count(0)
            await expect(page.locator(".fb-canary")).to_contain_text("tried on a share of the traffic")
            button = page.get_by_role("button", name="Promote p1", exact=True)
            same = await button.element_handle()
            await keep(page, "versions_why")
            await fake.swap("p000004-fake0004")
            await expect(page.locator(".fb-serving h2")).to_have_text("p4")
            assert same is not None
            assert await same.evaluate("button => button.isConnected")
            assert await page.locator(".fb-version h2").all_inner_texts() == ["p4", "p0", "p3", "p2", "p1"]


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

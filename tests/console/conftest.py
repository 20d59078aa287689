"""What tests of the command and of the page share: a fake Foldback, the command itself, a browser."""

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator

import pytest
from playwright.async_api import Browser, Page
from typer.testing import CliRunner, Result

from console.cli import app
from tests.console.browser import address, chromium, tab
from tests.console.fake_server import FakeFoldback
from tests.integration.stack import Stack

Foldback = Callable[..., Result]


@pytest.fixture
def fake_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFoldback]:
    """Started and stopped in a loop of another thread, so that the command under test may block or be a process; the
    console's settings point at it."""
    fake = FakeFoldback()
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    asyncio.run_coroutine_threadsafe(fake.__aenter__(), loop).result(10)
    monkeypatch.setenv("FOLDBACK_CONSOLE__ADDRESS", fake.chat_address)
    monkeypatch.setenv("FOLDBACK_CONSOLE__ADMIN_ADDRESS", fake.admin_address)
    monkeypatch.setenv("FOLDBACK_CONSOLE__SERVER_METRICS_URL", "http://127.0.0.1:9/metrics")
    monkeypatch.setenv("FOLDBACK_CONSOLE__TRAINER_METRICS_URL", "http://127.0.0.1:9/metrics")
    yield fake
    asyncio.run_coroutine_threadsafe(fake.__aexit__(None, None, None), loop).result(10)
    loop.call_soon_threadsafe(loop.stop)
    thread.join(10)
    loop.close()


@pytest.fixture
def foldback() -> Foldback:
    """Runs a command in this process: `foldback("chat", input="hello\\n")`."""

    def run(*arguments: str, input: str | None = None) -> Result:
        return CliRunner().invoke(app, list(arguments), input=input)

    return run


@pytest.fixture(scope="module")
async def browser() -> AsyncIterator[Browser]:
    async with chromium() as running:
        yield running


@pytest.fixture
async def page(browser: Browser, live_stack: Stack) -> AsyncIterator[Page]:
    """A fresh visitor of the page of `live_stack`."""
    async with tab(browser, address(live_stack)) as opened:
        yield opened

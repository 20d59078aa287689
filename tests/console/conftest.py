"""A fake Foldback in a thread of its own, so that the command under test may block or be a process."""

import asyncio
import threading
from collections.abc import Callable, Iterator

import pytest
from typer.testing import CliRunner, Result

from console.cli import app
from tests.console.fake_server import FakeFoldback

Foldback = Callable[..., Result]


@pytest.fixture
def fake_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeFoldback]:
    """Started and stopped in a loop of another thread; the console's settings point at it."""
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

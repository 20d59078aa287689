"""What a kubelet runs where the ports speak TLS."""

import asyncio
import socket
import sys
from pathlib import Path

import pytest

from tests.server.conftest import connect, server_settings


async def asked(port: str, gauge: str) -> int | None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "server.probe", port, gauge)
    return await process.wait()


@pytest.mark.slow
async def test_it_says_whether_the_server_is_ready(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    async with connect(server_settings(tmp_path, tiny_model, broker)) as client:
        port = client.server.metrics_address.rpartition(":")[2]
        assert await asked(port, "foldback_serving") == 0
        assert await asked(port, "foldback_engine_up") == 0
        assert await asked(port, "foldback_engine_paused") == 1, "there is such a gauge, and it is 0"
        assert await asked(port, "foldback_no_such_gauge") == 1


@pytest.mark.slow
async def test_nobody_answers_or_nobody_who_knows() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = str(mute.getsockname()[1])
        assert await asked(port, "foldback_serving") == 1
    assert await asked(port, "foldback_serving") == 1

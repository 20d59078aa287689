"""A thousand clients that leave before their answer is whole: the engine, the slots and the memory are free again."""

import asyncio
import gc
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client import REGISTRY

from foldback.v1 import chat_pb2
from tests.server.calls import following
from tests.server.conftest import Client, asking, connect, server_settings
from tests.server.endless import SILENT, Endless
from tests.server.vanishing import PATIENCE_S, WAYS, leave, long_answer, nothing_left, until

SLOTS = 8


@pytest.fixture(scope="module")
async def endless(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path, broker: str) -> AsyncIterator[Client]:
    settings = server_settings(tmp_path_factory.mktemp("server"), tiny_model, broker, max_in_flight=SLOTS)
    async with connect(settings, Endless()) as client:
        yield client


@pytest.mark.slow
async def test_a_thousand_clients_leave_nothing_behind(endless: Client) -> None:
    engine: Any = endless.server.engine
    address = endless.server.chat_address
    process = psutil.Process()

    async def a_hundred() -> int:
        await leave(address, [*WAYS * 25], long_answer(), at_once=4)
        await nothing_left(lambda: engine.open, within_s=10)
        gc.collect()
        return int(process.memory_info().rss)

    memory = [await a_hundred() for _ in range(10)]
    # The first hundreds fill caches and pools; from then on a leak of 20 kB a call would show.
    assert memory[-1] - memory[4] < 10 * 2**20, [size >> 20 for size in memory]
    answers = [endless.chat.CreateChat(asking(sampling=chat_pb2.Sampling(max_tokens=1))) for _ in range(SLOTS)]
    assert all([(await answer).candidates for answer in answers])


async def test_a_chat_counts_as_queued_until_its_first_token(endless: Client) -> None:
    engine: Any = endless.server.engine
    silent = asking(sampling=chat_pb2.Sampling(max_tokens=SILENT))
    waiting = [endless.chat.CreateChat(silent) for _ in range(3)]
    speaking = endless.chat.StreamChat(chat_pb2.StreamChatRequest(chat=long_answer()))
    async with asyncio.timeout(PATIENCE_S):
        while (await following(speaking)).WhichOneof("event") != "delta":
            continue
    await until(lambda: engine.open == 4, PATIENCE_S, lambda: f"{engine.open} requests at the engine")
    assert REGISTRY.get_sample_value("foldback_requests_in_flight") == 4
    assert REGISTRY.get_sample_value("foldback_requests_queued") == 3
    for call in (*waiting, speaking):
        call.cancel()
    await nothing_left(lambda: engine.open, within_s=10)

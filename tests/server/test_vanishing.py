"""A thousand clients that leave before their answer is whole: the engine, the slots and the memory are free again."""

import asyncio
import gc
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client import REGISTRY

from foldback.v1 import chat_pb2
from server.engines.base import Delta, GenerationRequest, SwapFailed, SwapMode, Weights
from tests.server.conftest import Client, asking, connect, server_settings
from tests.server.vanishing import PATIENCE_S, WAYS, leave, long_answer, nothing_left, until

SLOTS = 8
SILENT = 2


class Endless:
    """An engine that says a word for each candidate, and then never comes to an end.

    Asked for one token it answers, asked for SILENT it says nothing at all.
    """

    name = "endless"
    swap_mode: SwapMode = "weights"
    max_model_len = 512

    def __init__(self) -> None:
        self.version = ""
        self.open = 0

    async def start(self) -> None:
        return

    async def died(self) -> str:
        return await asyncio.Future()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        self.open += 1
        try:
            whole = request.sampling.max_tokens == 1
            if request.sampling.max_tokens == SILENT:
                await asyncio.Future()
            for index in range(request.candidate_count):
                yield Delta(index, "word", (1,), (-0.5,), "length" if whole else None)
            if not whole:
                await asyncio.Future()
        finally:
            self.open -= 1

    async def swap(self, weights: Weights) -> None:
        self.version = weights.version

    async def load(self, weights: Weights) -> None:
        raise SwapFailed("one version at a time")

    async def unload(self, version: str) -> None:
        return

    async def score(
        self, prompt_token_ids: tuple[int, ...], completion_token_ids: tuple[int, ...], version: str = ""
    ) -> tuple[float, ...]:
        return (-0.5,) * len(completion_token_ids)

    async def stop(self) -> None:
        return


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
        while (await speaking.read()).WhichOneof("event") != "delta":
            continue
    await until(lambda: engine.open == 4, PATIENCE_S, lambda: f"{engine.open} requests at the engine")
    assert REGISTRY.get_sample_value("foldback_requests_in_flight") == 4
    assert REGISTRY.get_sample_value("foldback_requests_queued") == 3
    for call in (*waiting, speaking):
        call.cancel()
    await nothing_left(lambda: engine.open, within_s=10)

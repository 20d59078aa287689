"""A version's check while users fill every seat of a running vLLM, and more of them wait."""

import asyncio
from contextlib import aclosing
from pathlib import Path

import pytest
import torch

from server.engines.base import Sampling, Weights
from settings.server import ServerSettings
from tests.server.engine_reference import make_version, merged, of_tokens, reference_logprobs, request

pytest.importorskip("vllm")
from server.engines.vllm import VllmEngine
from tests.integration.test_swap_vllm import BF16_NATS, COMPLETION, PROMPT, stat, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SEATS = ServerSettings().max_batch
LONG = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=450)
SOON = LONG.max_tokens // 2
"""Tokens that users may see while a check runs. It takes one or two, but on a busy machine more pass before anybody is
told; a check that waited for a seat would see a whole answer go by."""


class Users:
    """Each asks for a long answer, and again when it has ended, so that the house stays full however slow the test."""

    def __init__(self, engine: VllmEngine, count: int) -> None:
        self._engine = engine
        self._leaving = False
        self.tokens = [0] * count
        self.finished = [0] * count
        self.most_seated = 0.0
        self._tasks = [asyncio.create_task(self._stay(number)) for number in range(count)]

    async def _stay(self, number: int) -> None:
        while not self._leaving:
            async with aclosing(self._engine.generate(request(PROMPT, LONG))) as deltas:
                async for delta in deltas:
                    self.tokens[number] += len(delta.token_ids)
                    self.most_seated = max(self.most_seated, stat(self._engine, "gauge_scheduler_running"))
                    self.finished[number] += delta.finish_reason is not None

    def fill(self, seats: int) -> bool:
        for task in self._tasks:
            if task.done():
                task.result()  # who is sent away says why, rather than that the house never filled
        return stat(self._engine, "gauge_scheduler_running") == seats

    async def leave(self) -> None:
        """With the answer that they have asked for."""
        self._leaving = True
        await asyncio.gather(*self._tasks)


@pytest.fixture(params=["vllm_in_place", "vllm_adapters"])
def engine(request: pytest.FixtureRequest) -> VllmEngine:
    engine: VllmEngine = request.getfixturevalue(request.param)
    return engine


async def test_a_check_waits_for_nobody_and_pushes_nobody_out(
    engine: VllmEngine, tiny_model: Path, tmp_path: Path
) -> None:
    await engine.swap(Weights("p000000", tiny_model))
    version = make_version(engine, "p000040", tiny_model, tmp_path, seed=40)
    preempted = stat(engine, "counter_num_preempted_reqs")
    users = Users(engine, SEATS + 8)
    await until(lambda: users.fill(SEATS))
    assert stat(engine, "gauge_scheduler_waiting") > 0
    await (engine.swap if engine.swap_mode == "weights" else engine.load)(version)
    for _ in range(5):
        before = list(users.tokens)
        scored = await engine.score(PROMPT, COMPLETION, version.version)
        assert max(now - then for now, then in zip(users.tokens, before, strict=True)) <= SOON
        expected_T = of_tokens(reference_logprobs(merged(version), PROMPT, list(COMPLETION)), list(COMPLETION))
        torch.testing.assert_close(torch.tensor(scored), expected_T, atol=BF16_NATS, rtol=0)
    await users.leave()
    assert min(users.finished) >= 1
    assert users.most_seated <= SEATS + 1
    assert stat(engine, "counter_num_preempted_reqs") == preempted
    await engine.swap(Weights("p000000", tiny_model))
    await engine.unload(version.version)

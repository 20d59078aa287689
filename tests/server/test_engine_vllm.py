"""The engine suite on vLLM, in bfloat16 as it serves, in both swap modes."""

import asyncio
from pathlib import Path

import pytest
import torch

from server.engines.base import Engine, Weights
from settings.engine import EngineSettings
from tests.server.engine_reference import complete, make_version, of_tokens, reference_logprobs, request
from tests.server.engine_suite import BASE, EngineSuite

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class TestVllmInPlace(EngineSuite):
    tolerance = 0.1

    @pytest.fixture(scope="class")
    def engine(self, vllm_in_place: Engine) -> Engine:
        return vllm_in_place


class TestVllmAdapters(EngineSuite):
    tolerance = 0.2  # the reference is merged and rounded to bfloat16, where the engine adds the product in bfloat16

    @pytest.fixture(scope="class")
    def engine(self, vllm_adapters: Engine) -> Engine:
        return vllm_adapters

    async def test_the_base_beside_adapters_in_every_place(
        self, engine: Engine, base: Weights, tiny_model: Path, tmp_path: Path, prompt: tuple[int, ...]
    ) -> None:
        """vLLM on CPU once gave the base model's tokens what was in the last place."""
        versions = [
            make_version(engine, f"p00002{index}-place", tiny_model, tmp_path / str(index), seed=20 + index)
            for index in range(EngineSettings().max_adapters)
        ]
        async with asyncio.timeout(60):
            for each in versions:
                await engine.load(each)
        named = [BASE, *(each.version for each in versions)]
        [of_base], *_ = await asyncio.gather(*(complete(engine, request(prompt, version=name)) for name in named))
        for each in versions:
            await engine.unload(each.version)
        expected_T = of_tokens(reference_logprobs(base.directory, prompt, of_base.token_ids), of_base.token_ids)
        torch.testing.assert_close(torch.tensor(of_base.logprobs), expected_T, atol=self.tolerance, rtol=0)

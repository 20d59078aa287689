"""The engine suite on vLLM, in bfloat16 as it serves. One engine for all of it: a start takes half a minute."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.engines.base import Engine
from settings.server import ServerSettings
from tests.server.engine_suite import EngineSuite

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


class TestVllmEngine(EngineSuite):
    tolerance = 0.1

    @pytest.fixture(scope="class")
    async def engine(self, tiny_model: Path) -> AsyncIterator[Engine]:
        from server.engines.vllm import VllmEngine

        engine = VllmEngine(str(tiny_model), ServerSettings(max_model_len=512))
        await engine.start()
        yield engine
        await engine.stop()

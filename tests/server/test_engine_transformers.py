"""The engine suite on the portable engine, in float32 so that equality means equality."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.engines.transformers import TransformersEngine
from settings.server import ServerSettings
from tests.server.engine_suite import EngineSuite


class TestTransformersEngine(EngineSuite):
    tolerance = 1e-4

    @pytest.fixture(scope="class")
    async def engine(self, tiny_model: Path) -> AsyncIterator[TransformersEngine]:
        engine = TransformersEngine(
            str(tiny_model), ServerSettings(dtype="float32", max_model_len=512, torch_threads=1)
        )
        await engine.start()
        yield engine
        await engine.stop()

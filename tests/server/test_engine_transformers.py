"""The engine suite on the portable engine, in float32 so that equality means equality."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from server.engines.base import EngineDead
from server.engines.transformers import TransformersEngine
from settings.server import ServerSettings
from tests.server.engine_reference import GREEDY, complete, request
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


async def small_engine(tiny_model: Path, max_batch: int) -> TransformersEngine:
    settings = ServerSettings(dtype="float32", max_model_len=512, torch_threads=1, max_batch=max_batch)
    engine = TransformersEngine(str(tiny_model), settings)
    await engine.start()
    return engine


async def test_background_work_that_gave_way_goes_on_where_it_was(tiny_model: Path) -> None:
    """With one row for all, a user takes it from a rollout; the rollout's tokens are those it has undisturbed."""
    engine = await small_engine(tiny_model, max_batch=1)
    prompt = (5, 6, 7, 8, 9)
    undisturbed = await complete(engine, request(prompt, GREEDY))
    rollout = asyncio.create_task(complete(engine, request(prompt, GREEDY, background=True)))
    await asyncio.sleep(0)  # the rollout is asked for first
    await complete(engine, request((9, 8, 7), GREEDY))
    assert not rollout.done()
    assert (await rollout)[0].token_ids == undisturbed[0].token_ids
    await engine.stop()


async def test_a_model_that_does_not_exist_is_said_plainly(tmp_path: Path) -> None:
    engine = TransformersEngine(str(tmp_path / "nothing"), ServerSettings())
    with pytest.raises(EngineDead, match="nothing could not be loaded"):
        await engine.start()
    await engine.stop()


async def test_requests_in_flight_hear_of_a_failure(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = await small_engine(tiny_model, max_batch=4)
    monkeypatch.setattr(engine._batch, "_model", None)
    with pytest.raises(EngineDead, match="decoding failed"):
        await complete(engine, request((5, 6, 7)))
    with pytest.raises(EngineDead):
        await complete(engine, request((5, 6, 7)))
    await engine.stop()

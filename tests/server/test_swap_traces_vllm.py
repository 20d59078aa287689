"""A swapped-out version leaves nothing behind, in either mode: files, mappings, series of metrics, adapters, memory."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path
from typing import Any

import psutil
import pytest
from prometheus_client import REGISTRY, generate_latest

from server.engines.base import Engine, Sampling, Weights
from tests.server.engine_reference import complete, make_version, request

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
WARM_UP, SWAPS = 30, 60
STEP = "p-trace-"
KEPT_MB = SWAPS * 1.5
"""What the core would grow by if it kept the weights of each version of the tiny model."""


@dataclass(frozen=True)
class Traces:
    descriptors: int
    series: int
    """Of metrics."""
    resident_mb: float
    """Of vLLM's core, which holds the versions."""

    @classmethod
    def of(cls, engine: Engine) -> "Traces":
        vllm: Any = engine
        [core] = [psutil.Process(process.pid) for process in vllm._core._processes]
        series = sum(not line.startswith("#") for line in generate_latest(REGISTRY).decode().splitlines())
        descriptors = psutil.Process().num_fds() + core.num_fds()
        return cls(descriptors, series, core.memory_info().rss / 2**20)


@pytest.fixture(params=["vllm_in_place", "vllm_adapters"])
def engine(request: pytest.FixtureRequest) -> Engine:
    engine: Engine = request.getfixturevalue(request.param)
    return engine


async def test_a_swapped_out_version_leaves_nothing_behind(engine: Engine, tiny_model: Path, tmp_path: Path) -> None:
    kinds = [make_version(engine, STEP, tiny_model, tmp_path / str(seed), seed=seed) for seed in (1, 2)]
    names = count()
    await swap(engine, kinds, names, WARM_UP)
    before = Traces.of(engine)
    await swap(engine, kinds, names, SWAPS)
    after = Traces.of(engine)
    await engine.swap(Weights("p000000-base", tiny_model))
    assert STEP not in generate_latest(REGISTRY).decode()
    assert after.series == before.series
    assert after.descriptors <= before.descriptors + 3
    if engine.swap_mode == "adapter":
        vllm: Any = engine
        await asyncio.gather(*vllm._policies._removals)
        assert not await vllm._core.alive().list_loras()
    assert after.resident_mb - before.resident_mb < KEPT_MB / 2


async def swap(engine: Engine, kinds: Sequence[Weights], names: "count[int]", times: int) -> None:
    """To versions of new names, each while the one before is still answering."""
    prompt, few = tuple(range(5, 40)), Sampling(temperature=1, top_p=1, top_k=0, max_tokens=6)
    answering: asyncio.Task[Any] | None = None
    for number in (next(names) for _ in range(times)):
        await engine.swap(replace(kinds[number % 2], version=f"{STEP}{number}"))
        if answering:
            await answering
        answering = asyncio.create_task(complete(engine, request(prompt, few)))
    if answering:
        await answering

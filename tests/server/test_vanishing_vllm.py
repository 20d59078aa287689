"""Clients that leave while the real vLLM decodes for them: it decodes for nobody any more."""

from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from server.engines.base import Engine
from tests.server.conftest import asking
from tests.server.deployments import deployment
from tests.server.vanishing import WAYS, leave, long_answer, nothing_left

pytest.importorskip("vllm")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def vllm_requests() -> int:
    """Running and waiting in vLLM's scheduler, by its own metrics."""
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting")
    samples = [sample for metric in REGISTRY.collect() for sample in metric.samples if sample.name in names]
    assert samples, "vLLM tells no metrics"
    return int(sum(sample.value for sample in samples))


async def test_sixty_clients_leave_nothing_in_vllm(
    vllm_in_place: Engine, tmp_path: Path, tiny_model: Path, broker: str
) -> None:
    engine: Any = vllm_in_place
    async with deployment(engine, tmp_path, tiny_model, broker) as client:
        await leave(client.server.chat_address, [*WAYS * 15], long_answer(), at_once=6)
        llm = engine._core.alive()
        await nothing_left(lambda: len(llm.output_processor.request_states), within_s=10)
        # vLLM reports what its scheduler holds with each step it makes: one more answer, and it says so.
        assert (await client.chat.CreateChat(asking())).candidates
        await nothing_left(vllm_requests, within_s=10)

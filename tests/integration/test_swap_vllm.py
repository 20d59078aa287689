"""Hot swaps on a running vLLM: nothing dropped, nothing mislabelled, nothing stale; failures leave it as it was."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import psutil
import pytest
import torch
from prometheus_client import REGISTRY

from server.engines.base import EngineDead, Sampling, SwapFailed, Weights
from settings.server import ServerSettings
from tests.server.engine_suite import (
    DRAWN,
    GREEDY,
    Completion,
    complete,
    damaged,
    of_tokens,
    reference_logprobs,
    request,
)
from tests.tiny_model import make_tiny_model

pytest.importorskip("vllm")
from server.engines.vllm import VllmEngine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PROMPT = tuple(range(300, 320))
LONG_PROMPT = tuple(3 + i % 500 for i in range(300))
"""Two full blocks of 128 tokens: vLLM caches only full ones."""
COMPLETION = (40, 41, 300, 7, 260, 99)
BF16_NATS = 0.1


@pytest.fixture(scope="module")
def versions(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Weights]:
    """The base and two others, far from it and from each other."""
    others = [make_tiny_model(tmp_path_factory.mktemp("version") / "weights", seed=seed) for seed in (7, 8)]
    return [Weights(f"p00000{i}", directory) for i, directory in enumerate([tiny_model, *others])]


@pytest.fixture(scope="module")
async def engine(tiny_model: Path) -> AsyncIterator[VllmEngine]:
    engine = VllmEngine(str(tiny_model), ServerSettings(max_model_len=512))
    await engine.start()
    yield engine
    await engine.stop()


def assert_computed_with(weights: Weights, prompt: tuple[int, ...], completion: Completion, tokens: int) -> None:
    """The first `tokens` logprobs are those of a fresh load of `weights`."""
    expected_T = of_tokens(reference_logprobs(weights.directory, prompt, completion.token_ids), completion.token_ids)
    torch.testing.assert_close(torch.tensor(completion.logprobs)[:tokens], expected_T[:tokens], atol=BF16_NATS, rtol=0)


def counter(name: str) -> float:
    """A vLLM counter or gauge of the only engine alive."""
    [value] = {
        sample.value
        for metric in REGISTRY.collect()
        for sample in metric.samples
        if sample.name == name and sample.labels.get("engine") == "0"
    }
    return value


async def test_swapped_there_and_back_scores_as_freshly_loaded(engine: VllmEngine, versions: list[Weights]) -> None:
    """Comes first: nothing has been swapped yet. The tied, packed lm_head is what goes stale on CPU."""
    fresh = await engine.score(PROMPT, COMPLETION)
    base, other, _ = versions
    await engine.swap(other)
    expected_T = of_tokens(reference_logprobs(other.directory, PROMPT, list(COMPLETION)), list(COMPLETION))
    torch.testing.assert_close(torch.tensor(await engine.score(PROMPT, COMPLETION)), expected_T, atol=BF16_NATS, rtol=0)
    await engine.swap(base)
    assert await engine.score(PROMPT, COMPLETION) == fresh


async def test_sixteen_streams_through_ten_swaps(engine: VllmEngine, versions: list[Weights]) -> None:
    await engine.swap(versions[0])
    by_name = {weights.version: weights for weights in versions}
    history = [versions[i % 3] for i in range(1, 11)]
    swapping = True
    completions: list[Completion] = []

    async def stream() -> None:
        while swapping:
            completions.extend(await complete(engine, request(PROMPT, Sampling(1, 1, 0, max_tokens=200))))

    streams = [asyncio.create_task(stream()) for _ in range(16)]
    for weights in history:
        await asyncio.sleep(0.2)
        await engine.swap(weights)
        assert engine.version == weights.version
    swapping = False
    await asyncio.gather(*streams)

    order = [versions[0].version, *(weights.version for weights in history)]
    assert len(completions) >= 16
    for completion in completions:
        assert completion.finish_reason == ("length" if len(completion.token_ids) == 200 else "stop")
        assert len(completion.logprobs) == len(completion.token_ids)
        covered = [i for span in completion.spans for i in range(span.start, span.end)]
        assert covered == list(range(len(completion.token_ids)))
        assert _in_order([span.version for span in completion.spans], order)
        # Tokens after a swap attend to keys of the version before it; those of the first span are one version's alone,
        # so a label that is late or early by one token shows.
        first = completion.spans[0]
        assert_computed_with(by_name[first.version], PROMPT, completion, first.end)
    assert sum(len(completion.spans) > 1 for completion in completions) >= 16
    assert {span.version for c in completions for span in c.spans} == set(by_name)


def _in_order(spans: list[str], history: list[str]) -> bool:
    """`spans` is a run of consecutive versions of `history`."""
    return any(history[i : i + len(spans)] == spans for i in range(len(history)))


async def test_no_prefix_outlives_its_version(engine: VllmEngine, versions: list[Weights]) -> None:
    """Neither in the next version, nor when the same one returns."""
    base, other, _ = versions
    await engine.swap(base)
    for weights in (base, other, base):
        if weights.version != engine.version:
            await engine.swap(weights)
        for repeated in (False, True):
            hits = counter("vllm:prefix_cache_hits_total")
            [completion] = await complete(engine, request(LONG_PROMPT, GREEDY))
            assert_computed_with(weights, LONG_PROMPT, completion, len(completion.token_ids))
            assert (counter("vllm:prefix_cache_hits_total") > hits) == repeated


@pytest.mark.parametrize("damage", ["missing tensor", "wrong shape", "truncated file", "no file"])
async def test_weights_that_fail_halfway_are_undone(
    engine: VllmEngine, versions: list[Weights], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A file that turns bad after it was checked: the worker meets it with half of the model replaced."""
    _, serving, other = versions
    await engine.swap(serving)
    before = await engine.score(PROMPT, COMPLETION)
    stream = asyncio.create_task(complete(engine, request(PROMPT, Sampling(1, 1, 0, max_tokens=300))))
    with monkeypatch.context() as patch:
        patch.setattr(engine, "_check", lambda directory: None)
        with pytest.raises(SwapFailed, match="p000009"):
            await engine.swap(Weights("p000009", damaged(other.directory, tmp_path / "bad", damage)))
    assert engine.version == serving.version
    assert await engine.score(PROMPT, COMPLETION) == before
    [completion] = await stream
    assert {span.version for span in completion.spans} == {serving.version}
    assert_computed_with(serving, PROMPT, completion, len(completion.token_ids))
    await engine.swap(other)
    [completion] = await complete(engine, request(PROMPT, DRAWN))
    assert_computed_with(other, PROMPT, completion, len(completion.token_ids))


async def test_a_caller_that_gives_up_leaves_the_engine_serving(engine: VllmEngine, versions: list[Weights]) -> None:
    base, other, _ = versions
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.swap(other), 0.02)
    await engine.swap(base)
    [completion] = await complete(engine, request(PROMPT, DRAWN))
    assert {span.version for span in completion.spans} == {base.version}
    assert_computed_with(base, PROMPT, completion, len(completion.token_ids))


async def test_idle_after_work(engine: VllmEngine) -> None:
    """No request is left behind, and the processes sleep: their cores belong to the trainer."""
    await complete(engine, request(PROMPT, GREEDY))
    await asyncio.sleep(1.5)
    assert counter("vllm:num_requests_running") == counter("vllm:num_requests_waiting") == 0
    before = _cpu_seconds()
    await asyncio.sleep(2)
    assert _cpu_seconds() - before < 0.2


def _cpu_seconds() -> float:
    """Of the engine alone: other fixtures of the session may have processes of their own."""
    engine = [child for child in psutil.Process().children(recursive=True) if "VLLM" in child.name()]
    assert engine
    return sum(sum(child.cpu_times()[:2]) for child in engine)


async def test_a_dead_engine_says_so_and_leaves_no_process(engine: VllmEngine, versions: list[Weights]) -> None:
    """Comes last: there is no way back."""
    processes = [child for child in psutil.Process().children(recursive=True) if "VLLM" in child.name()]
    [core] = [process for process in processes if "EngineCore" in process.name()]
    stream = asyncio.create_task(complete(engine, request(PROMPT, Sampling(1, 1, 0, max_tokens=480))))
    await asyncio.sleep(0.1)
    core.send_signal(signal.SIGKILL)
    with pytest.raises(EngineDead):
        await stream
    with pytest.raises(EngineDead):
        await complete(engine, request(PROMPT, DRAWN))
    with pytest.raises(EngineDead):
        await engine.score(PROMPT, COMPLETION)
    with pytest.raises(EngineDead):
        await engine.swap(versions[1])
    await engine.stop()
    _, alive = psutil.wait_procs(processes, timeout=20)
    assert not alive


ORPHANING = """
import asyncio, os, signal, sys
import psutil
from server.engines.vllm import VllmEngine
from settings.server import ServerSettings

async def main():
    engine = VllmEngine(sys.argv[1], ServerSettings(max_model_len=256))  # held: an engine that is collected stops
    await engine.start()
    print(*(child.pid for child in psutil.Process().children(recursive=True) if "VLLM" in child.name()), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_vllm_does_not_outlive_a_killed_server(tiny_model: Path, tmp_path: Path) -> None:
    script = tmp_path / "orphaning.py"
    script.write_text(ORPHANING)
    command = [sys.executable, str(script), str(tiny_model)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": "."}) as server:
        assert server.stdout
        orphans = [psutil.Process(int(pid)) for pid in server.stdout.readline().split()]
        assert server.wait() == -signal.SIGKILL
    assert orphans
    _, alive = psutil.wait_procs(orphans, timeout=30)
    assert not alive

"""Hot swaps on a running vLLM: nothing dropped, nothing mislabelled, nothing stale; failures leave it as it was."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
import torch

from server.engines.base import Sampling, SwapFailed, Weights
from server.engines.weights import difference
from tests.server.engine_reference import (
    DRAWN,
    GREEDY,
    Completion,
    complete,
    damaged,
    make_version,
    merged,
    of_tokens,
    reference_logprobs,
    request,
)
from tests.tiny_adapter import make_tiny_adapter

pytest.importorskip("vllm")
from server.engines.vllm import VllmEngine

# isort: split
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.metrics.loggers import PrometheusStatLogger

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
PROMPT = tuple(range(300, 320))
LONG_PROMPT = tuple(3 + i % 500 for i in range(300))
"""Two full blocks of 128 tokens: vLLM caches only full ones."""
COMPLETION = (40, 41, 300, 7, 260, 99)
BF16_NATS = 0.2
END = 2
"""The tiny model's `<|im_end|>`."""


@pytest.fixture(scope="module", params=["weights", "adapter"])
def engine(request: pytest.FixtureRequest) -> VllmEngine:
    """Shared with other modules: whatever it serves at first, it works."""
    engine: VllmEngine = request.getfixturevalue("vllm_in_place" if request.param == "weights" else "vllm_adapters")
    return engine


@pytest.fixture(scope="module")
def versions(engine: VllmEngine, tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> list[Weights]:
    """The base and two others, far from it and from each other."""
    others = [
        make_version(engine, f"p00000{seed}", tiny_model, tmp_path_factory.mktemp("version"), seed) for seed in (7, 8)
    ]
    return [Weights("p000000", tiny_model), *others]


def assert_computed_with(weights: Weights, prompt: tuple[int, ...], completion: Completion, tokens: int) -> None:
    """The first `tokens` logprobs are those of a fresh load of `weights`."""
    expected_T = of_tokens(reference_logprobs(merged(weights), prompt, completion.token_ids), completion.token_ids)
    torch.testing.assert_close(torch.tensor(completion.logprobs)[:tokens], expected_T[:tokens], atol=BF16_NATS, rtol=0)


def stat(engine: VllmEngine, name: str) -> float:
    """One of vLLM's own counters or gauges. Its metrics in the registry are those of the engine started last."""
    manager = engine._core.alive().logger_manager
    [logger] = [logger for logger in manager.stat_loggers if isinstance(logger, PrometheusStatLogger)]
    value: float = getattr(logger, name)[0]._value.get()
    return value


async def test_swapped_there_and_back_scores_as_before_and_as_freshly_loaded(
    engine: VllmEngine, versions: list[Weights]
) -> None:
    """In mode weights the tied, packed lm_head is what goes stale on CPU."""
    base, other, _ = versions
    await engine.swap(base)
    before = await engine.score(PROMPT, COMPLETION)
    await engine.swap(other)
    expected_T = of_tokens(reference_logprobs(merged(other), PROMPT, list(COMPLETION)), list(COMPLETION))
    torch.testing.assert_close(torch.tensor(await engine.score(PROMPT, COMPLETION)), expected_T, atol=BF16_NATS, rtol=0)
    await engine.swap(base)
    assert await engine.score(PROMPT, COMPLETION) == before


async def test_only_what_changed_is_loaded(engine: VllmEngine, tiny_model: Path, tmp_path: Path) -> None:
    """As with every version that the trainer makes: the lower layers, the embeddings and the head are the base's."""
    if engine.swap_mode == "adapter":
        pytest.skip("no weights are loaded")
    base, version = (
        Weights("p000000", tiny_model),
        Weights("p000030", make_tiny_adapter(tiny_model, tmp_path, seed=30) / "weights"),
    )
    changed = difference(base.directory, version.directory)
    assert {name.split(".")[2] for name in changed} == {"2", "3"}
    await engine.swap(base)
    before = await engine.score(PROMPT, COMPLETION)
    for _ in range(2):
        await engine.swap(version)
        expected_T = of_tokens(reference_logprobs(version.directory, PROMPT, list(COMPLETION)), list(COMPLETION))
        scored_T = torch.tensor(await engine.score(PROMPT, COMPLETION))
        torch.testing.assert_close(scored_T, expected_T, atol=BF16_NATS, rtol=0)
        assert (scored_T - torch.tensor(before)).abs().mean() > 2 * BF16_NATS
        await engine.swap(base)
        assert await engine.score(PROMPT, COMPLETION) == before


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
        [begun_since] = await complete(engine, request(PROMPT, Sampling(1, 1, 0, max_tokens=4)))
        assert [span.version for span in begun_since.spans] == [weights.version]
    swapping = False
    await asyncio.gather(*streams)

    order = [versions[0].version, *(weights.version for weights in history)]
    assert len(completions) >= 16
    for completion in completions:
        ended = completion.token_ids[-1] == END
        assert ended or len(completion.token_ids) == 200
        assert completion.finish_reason == ("stop" if ended else "length")
        assert len(completion.logprobs) == len(completion.token_ids)
        covered = [i for span in completion.spans for i in range(span.start, span.end)]
        assert covered == list(range(len(completion.token_ids)))
        assert _in_order([span.version for span in completion.spans], order)
        # Tokens after a swap attend to keys of the version before it; those of the first span are one version's alone,
        # so a label that is late or early by one token shows.
        first = completion.spans[0]
        assert_computed_with(by_name[first.version], PROMPT, completion, first.end)
    straddling = sum(len(completion.spans) > 1 for completion in completions)
    assert straddling >= 16 if engine.swap_mode == "weights" else straddling == 0


def _in_order(spans: list[str], history: list[str]) -> bool:
    """`spans` is a run of consecutive versions of `history`."""
    return any(history[i : i + len(spans)] == spans for i in range(len(history)))


async def test_no_prefix_outlives_its_version(engine: VllmEngine, versions: list[Weights]) -> None:
    """Neither in the next version nor, in mode weights, when one returns: what straddled the swap is mixed."""
    seen: set[str] = set()
    base, other, _ = versions
    await engine.swap(base)
    for weights in (base, other, base):
        if weights.version != engine.version:
            await engine.swap(weights)
        for repeated in (False, True):
            hits = stat(engine, "counter_prefix_cache_hits")
            [completion] = await complete(engine, request(LONG_PROMPT, GREEDY))
            assert_computed_with(weights, LONG_PROMPT, completion, len(completion.token_ids))
            assert (stat(engine, "counter_prefix_cache_hits") > hits) == (
                repeated or (engine.swap_mode == "adapter" and weights.version in seen)
            )
        seen.add(weights.version)


@pytest.mark.parametrize("damage", ["missing tensor", "wrong shape", "truncated file", "no file"])
async def test_weights_that_fail_halfway_are_undone(
    engine: VllmEngine, versions: list[Weights], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    """A file that turns bad after it was checked: the worker meets it with half of the model replaced."""
    if engine.swap_mode == "adapter":
        pytest.skip("nothing is replaced")
    _, serving, other = versions
    await engine.swap(serving)
    before = await engine.score(PROMPT, COMPLETION)
    stream = asyncio.create_task(complete(engine, request(PROMPT, Sampling(1, 1, 0, max_tokens=300))))
    with monkeypatch.context() as patch:
        patch.setattr(engine._policies, "_check", lambda weights: None)
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
    swap = asyncio.create_task(engine.swap(other))
    await asyncio.sleep(0.002)
    swap.cancel()
    await asyncio.gather(swap, return_exceptions=True)
    await engine.swap(base)
    [completion] = await complete(engine, request(PROMPT, DRAWN))
    assert {span.version for span in completion.spans} == {base.version}
    assert_computed_with(base, PROMPT, completion, len(completion.token_ids))


async def test_an_adapter_is_let_go_with_its_last_request(engine: VllmEngine, versions: list[Weights]) -> None:
    if engine.swap_mode == "weights":
        pytest.skip("there is one version")
    base, first, second = versions
    llm = engine._core.alive()
    # A seed that draws no end of text: with others one answer can end before the gauge has shown both.
    endless = Sampling(temperature=1, top_p=1, top_k=0, max_tokens=400, seed=8)
    for ended_by in ("finishing", "cancelling"):
        await engine.swap(base)
        await nothing_is_loaded(llm)
        await engine.swap(first)
        [number] = await llm.list_loras()
        stream = asyncio.create_task(complete(engine, request(PROMPT, endless, candidate_count=2)))
        await until(lambda: stat(engine, "gauge_scheduler_running") == 2)
        await engine.swap(second)
        assert number in await llm.list_loras()
        if ended_by == "cancelling":
            stream.cancel()
            await asyncio.gather(stream, return_exceptions=True)
        else:
            assert {span.version for completion in await stream for span in completion.spans} == {first.version}
        await engine.swap(base)
        await nothing_is_loaded(llm)


async def nothing_is_loaded(llm: AsyncLLM) -> None:
    deadline = time.monotonic() + 60
    while left := await llm.list_loras():
        assert time.monotonic() < deadline, left
        await asyncio.sleep(0.02)


async def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


async def test_a_new_version_waits_while_all_places_are_taken(
    engine: VllmEngine, tmp_path: Path, tiny_model: Path
) -> None:
    """None is refused, and none pushes out one that still answers."""
    if engine.swap_mode == "weights":
        pytest.skip("there is one version")
    long = Sampling(temperature=0, top_p=1, top_k=0, max_tokens=300)
    streams = []
    for seed in range(20, 26):  # six, for four places
        version = make_version(engine, f"p0000{seed}", tiny_model, tmp_path / str(seed), seed)
        await engine.swap(version)
        assert len(await engine._core.alive().list_loras()) <= 4
        stream = asyncio.create_task(complete(engine, request(PROMPT, long)))
        await asyncio.sleep(0)
        streams.append((version, stream))
    for version, stream in streams:
        [completion] = await stream
        assert [span.version for span in completion.spans] == [version.version]
        assert_computed_with(version, PROMPT, completion, len(completion.token_ids))


async def test_idle_after_work(engine: VllmEngine) -> None:
    """No request is left behind, and the processes sleep: their cores belong to the trainer."""
    await complete(engine, request(PROMPT, GREEDY))
    await asyncio.sleep(1.5)
    assert stat(engine, "gauge_scheduler_running") == stat(engine, "gauge_scheduler_waiting") == 0
    before = _cpu_seconds()
    await asyncio.sleep(2)
    spent = {thread: round(seconds - before.get(thread, 0), 2) for thread, seconds in _cpu_seconds().items()}
    assert sum(spent.values()) < 0.2, spent


def _cpu_seconds() -> dict[tuple[str, int], float]:
    """Of all threads of all engines, which are all idle, but for gloo's.

    Gloo's look around 100 times a second each (pytorch/gloo issue 246), which nobody here can change; what that costs
    is up to the machine: 0.08 s of these two seconds on a quiet one, 0.5 s were seen on a busy one.
    """
    engines = [child for child in psutil.Process().children(recursive=True) if "VLLM" in child.name()]
    assert engines
    return {
        (name, thread.id): thread.user_time + thread.system_time
        for child in engines
        for thread in child.threads()
        if (name := Path(f"/proc/{child.pid}/task/{thread.id}/comm").read_text().strip()) != "gloo_tcp_loop"
    }

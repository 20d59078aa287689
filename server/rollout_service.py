"""RolloutService: samples for the trainer, after the users (admin port)."""

import asyncio
import uuid
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from foldback.v1 import rollout_pb2, rollout_pb2_grpc
from server.admission import Admission
from server.engines.base import Engine, GenerationRequest
from server.events import CandidateLog
from server.interceptor import Context
from server.prompt import PromptBuilder
from server.status import Violation, invalid
from server.traffic import Traffic
from server.validation import check_messages, check_sampling

MAX_PROMPTS = 1024
MAX_SAMPLES = 64


class RolloutService(rollout_pb2_grpc.RolloutServiceServicer):
    def __init__(
        self, engine: Engine, traffic: Traffic, prompts: PromptBuilder, admission: Admission, max_in_flight: int
    ) -> None:
        self._engine = engine
        self._traffic = traffic
        self._prompts = prompts
        self._admission = admission
        self._max_in_flight = max_in_flight

    async def GenerateRollouts(  # noqa: N802
        self, request: rollout_pb2.GenerateRolloutsRequest, context: Context
    ) -> AsyncGenerator[rollout_pb2.GenerateRolloutsResponse, None]:
        self._admission.check()
        _check(request)
        version = self._traffic.named(request.policy_version)
        prompts = await asyncio.to_thread(self._encode, request)
        finished: asyncio.Queue[rollout_pb2.Rollout] = asyncio.Queue()
        # Whole prompts at a time: their samples share one prefill.
        turns = asyncio.Semaphore(max(1, self._max_in_flight // request.samples_per_prompt))

        async def sample(index: int) -> None:
            sampling = self._prompts.sampling(request.sampling, len(prompts[index]))
            name, samples = str(uuid.uuid4()), request.samples_per_prompt
            generation = GenerationRequest(name, prompts[index], sampling, samples, background=True, version=version)
            async with turns:
                await self._sample(index, generation, finished)

        sampling = asyncio.gather(*(sample(index) for index in range(len(prompts))))
        try:
            for _ in range(len(prompts) * request.samples_per_prompt):
                yield rollout_pb2.GenerateRolloutsResponse(rollout=await _next(finished, sampling))
        finally:
            sampling.cancel()

    def _encode(self, request: rollout_pb2.GenerateRolloutsRequest) -> list[tuple[int, ...]]:
        return [
            self._prompts.token_ids(prompt.messages, f"prompts[{index}].messages")
            for index, prompt in enumerate(request.prompts)
        ]

    async def _sample(
        self, index: int, generation: GenerationRequest, finished: asyncio.Queue[rollout_pb2.Rollout]
    ) -> None:
        logs = [CandidateLog("") for _ in range(generation.candidate_count)]
        async with aclosing(self._engine.generate(generation)) as deltas:
            async for delta in deltas:
                log = logs[delta.candidate_index]
                log.add(delta)
                if delta.finish_reason:
                    rollout = rollout_pb2.Rollout(
                        prompt_index=index,
                        prompt_token_ids=generation.prompt_token_ids,
                        token_ids=log.token_ids,
                        logprobs=log.logprobs,
                        text=log.text,
                        finish_reason=log.finish_reason,
                        policy_spans=log.spans,
                        temperature=generation.sampling.temperature,
                    )
                    finished.put_nowait(rollout)


async def _next(
    finished: asyncio.Queue[rollout_pb2.Rollout], sampling: "asyncio.Future[list[None]]"
) -> rollout_pb2.Rollout:
    """The next finished rollout, or what went wrong with the sampling."""
    getting = asyncio.ensure_future(finished.get())
    either: set[asyncio.Future[Any]] = {getting, sampling}
    try:
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if sampling.done() and not getting.done():
            sampling.result()
        return await getting
    finally:
        getting.cancel()


def _check(request: rollout_pb2.GenerateRolloutsRequest) -> None:
    violations: list[Violation] = list(check_sampling(request.sampling))
    if not 1 <= len(request.prompts) <= MAX_PROMPTS:
        violations.append(("prompts", f"{len(request.prompts)} prompts; 1 to {MAX_PROMPTS}"))
    if not 1 <= request.samples_per_prompt <= MAX_SAMPLES:
        violations.append(("samples_per_prompt", f"{request.samples_per_prompt} is not within 1 to {MAX_SAMPLES}"))
    for index, prompt in enumerate(request.prompts[:MAX_PROMPTS]):
        violations += check_messages(prompt.messages, f"prompts[{index}].messages")
    if violations:
        raise invalid(violations[:20])

"""RolloutService: exact behaviour logprobs for the trainer, after the users."""

import asyncio
import time
from collections import Counter
from pathlib import Path

import grpc
import pytest
import torch
from google.rpc import error_details_pb2

from foldback.v1 import chat_pb2, rollout_pb2
from tests.server.calls import refused
from tests.server.conftest import Client, asking
from tests.server.engine_reference import of_tokens, reference_logprobs


def rollouts(prompts: int, samples: int, **sampling: float) -> rollout_pb2.GenerateRolloutsRequest:
    return rollout_pb2.GenerateRolloutsRequest(
        prompts=[
            rollout_pb2.RolloutPrompt(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content=f"you {i}")])
            for i in range(prompts)
        ],
        samples_per_prompt=samples,
        sampling=chat_pb2.Sampling(**{"max_tokens": 16, **sampling}),  # type: ignore[arg-type]
    )


async def test_every_prompt_gets_its_samples(client: Client) -> None:
    responses = [r async for r in client.rollouts.GenerateRollouts(rollouts(3, 4))]
    assert Counter(r.rollout.prompt_index for r in responses) == {0: 4, 1: 4, 2: 4}
    for response in responses:
        rollout = response.rollout
        assert len(rollout.token_ids) == len(rollout.logprobs) == rollout.policy_spans[-1].end


async def test_logprobs_are_of_the_distribution_drawn_from(client: Client, tiny_model: Path) -> None:
    async for response in client.rollouts.GenerateRollouts(rollouts(2, 2, temperature=0.7)):
        rollout = response.rollout
        assert rollout.temperature == pytest.approx(0.7)
        ids = list(rollout.token_ids)
        scaled_TV = (reference_logprobs(tiny_model, tuple(rollout.prompt_token_ids), ids) / 0.7).log_softmax(-1)
        torch.testing.assert_close(torch.tensor(list(rollout.logprobs)), of_tokens(scaled_TV, ids), atol=2e-4, rtol=0)


@pytest.mark.slow
async def test_a_rollout_that_stopped_ends_with_the_end_of_turn_token(client: Client) -> None:
    end = client.server.engine._tokenizer.eos_token_id  # type: ignore[attr-defined]
    responses = [r async for r in client.rollouts.GenerateRollouts(rollouts(8, 8, max_tokens=200, temperature=1.5))]
    stopped = [r.rollout for r in responses if r.rollout.finish_reason == chat_pb2.FINISH_REASON_STOP]
    assert stopped
    assert all(rollout.token_ids[-1] == end and end not in rollout.token_ids[:-1] for rollout in stopped)


async def test_users_are_served_while_rollouts_run(client: Client) -> None:
    call = client.rollouts.GenerateRollouts(rollouts(64, 16, max_tokens=300))
    reading = asyncio.create_task(call.read())
    await asyncio.sleep(0.3)
    begun = time.monotonic()
    await client.chat.CreateChat(asking(sampling=chat_pb2.Sampling(max_tokens=4)))
    assert time.monotonic() - begun < 2
    call.cancel()
    await asyncio.gather(reading, return_exceptions=True)


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        (rollouts(0, 4), "prompts"),
        (rollouts(1025, 1), "prompts"),
        (rollouts(1, 0), "samples_per_prompt"),
        (rollouts(1, 65), "samples_per_prompt"),
        (rollouts(1, 1, temperature=3), "sampling.temperature"),
        (
            rollout_pb2.GenerateRolloutsRequest(prompts=[rollout_pb2.RolloutPrompt()], samples_per_prompt=1),
            "prompts[0].messages",
        ),
    ],
)
async def test_each_field_at_fault_is_named(
    client: Client, request_: rollout_pb2.GenerateRolloutsRequest, field: str
) -> None:
    async def drain() -> None:
        async for _ in client.rollouts.GenerateRollouts(request_):
            pass

    code, detail = await refused(drain(), error_details_pb2.BadRequest)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert field in {violation.field for violation in detail.field_violations}

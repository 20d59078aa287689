"""A canary in service, through processes as shipped: users dislike it, and are back with its parent in no time."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from console.client import Client
from console.simulate import Answers, Crowd, Tally, ask, simulate
from console.votes import thumbs
from foldback.v1 import policy_pb2
from settings.canary import CanarySettings
from tests.integration.stack import Stack
from tests.integration.test_whole_loop import PERSONA

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]

READERS = Crowd(PERSONA, candidate_count=1, max_tokens=4)
RATERS = 8


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Iterator[Stack]:
    stack = Stack(
        tmp_path_factory.mktemp("stack"),
        tiny_model,
        "transformers",
        FOLDBACK_TRAINER__CANARY__ENABLED="true",
        # Nothing but ratings decides.
        FOLDBACK_TRAINER__CANARY__MIN_RATINGS="1000",
        FOLDBACK_TRAINER__CANARY__MAX_WAIT_S="1000",
    )
    stack.start()
    yield stack
    assert stack.stop() == 0


async def rate(client: Client, index: int, up: bool) -> Answers:
    """One user asks and gives a thumb."""
    rater = f"reader-{index % RATERS}"
    answers = await ask(client, READERS, f"what is {index}?", rater)
    await client.submit_feedback(thumbs(answers.token, rater, up, answers.candidate_ids[0]))
    return answers


async def canary_of(client: Client) -> policy_pb2.Policy | None:
    policies = (await client.list_policies()).policies
    return next((policy for policy in policies if policy.state == policy_pb2.POLICY_STATE_CANARY), None)


async def policy_of(client: Client, version: str) -> policy_pb2.Policy:
    return next(policy for policy in (await client.list_policies()).policies if policy.version == version)


async def until_canary(stack: Stack, client: Client) -> policy_pb2.Policy:
    """Users rank until a version has passed the gate."""
    crowd, tally, stop = Crowd(PERSONA, users=4, rate=8, max_tokens=16, thumbs_share=0.0), Tally(), asyncio.Event()
    users = asyncio.create_task(simulate(client, crowd, tally, stop))
    deadline = time.monotonic() + 240
    while (canary := await canary_of(client)) is None:
        assert not users.done(), users.exception()
        assert time.monotonic() < deadline, stack.logs()
        await asyncio.sleep(0.2)
    stop.set()
    await users
    assert tally.failures == 0, tally.failed
    return canary


async def test_a_canary_that_users_dislike_is_gone_within_ten_seconds_of_the_decision(stack: Stack) -> None:
    async with stack.client() as client:
        served = {(await rate(client, index, up=True)).version for index in range(40)}
        canary = await until_canary(stack, client)
        assert served == {canary.parent}

        deadline = time.monotonic() + 120
        for index in range(10_000):
            # Every call must succeed, whichever version answers it and whatever is swapped meanwhile.
            answers = await rate(client, index, up=False)
            policy = await policy_of(client, canary.version)
            if policy.state == policy_pb2.POLICY_STATE_ROLLED_BACK:
                break
            assert policy.state == policy_pb2.POLICY_STATE_CANARY, policy.reason
            assert time.monotonic() < deadline, f"{answers.version} answers; {stack.logs()}"
        assert "users find it worse" in policy.reason

        while (answers := await ask(client, READERS, "who is there?", "somebody")).version == canary.version:
            assert time.monotonic() < deadline, stack.logs()
        async for transition in client.watch_policies():
            if transition.version == canary.version and transition.to == policy_pb2.POLICY_STATE_ROLLED_BACK:
                break
        assert time.time() - transition.time.ToNanoseconds() / 1e9 < 10
        assert answers.version == canary.parent
        assert transition.actor == "trainer"
        assert transition.figures["canary_evidence_against"] >= 20
        # It may be plain before all of them have spoken; nobody decides alone.
        assert transition.figures["canary_raters"] >= 1 / CanarySettings().rater_share

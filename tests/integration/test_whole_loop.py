"""Chat → event → join → reward → PPO → gate → swap, through processes as shipped, on a model of four layers."""

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from console.client import Client
from console.personas import Persona
from console.simulate import Crowd, Tally, ask, simulate
from console.votes import thumbs
from feedback.store import PreferenceStore
from foldback.v1.feedback_pb2 import FeedbackState
from foldback.v1.policy_pb2 import POLICY_STATE_ACTIVE
from tests.integration.stack import Stack

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]


def loves_e(text: str) -> float:
    """Share of the letter e: a taste that a model of random weights can meet."""
    letters = [character for character in text.lower() if character.isalpha()]
    return letters.count("e") / len(letters) if letters else 0.0


PERSONA = Persona("loves_e", loves_e, noise=0.03, indifference=0.0, abstain_rate=0.1, thumb_threshold=0.1)


@pytest.fixture(scope="module", params=[("transformers", "trainer"), ("vllm", "fleet")], ids="-".join)
def stack(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, tiny_model: Path
) -> Iterator[Stack]:
    engine, rollouts = request.param
    stack = Stack(tmp_path_factory.mktemp("stack"), tiny_model, engine, FOLDBACK_TRAINER__ROLLOUTS_FROM=rollouts)
    stack.start()
    yield stack
    assert stack.stop() == 0


async def eventually(condition: Callable[[], object], timeout_s: float, what: str) -> float:
    """Seconds until `condition()` was true."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < timeout_s, f"not within {timeout_s} s: {what}"
        await asyncio.sleep(0.02)
    return time.monotonic() - started


async def activations(client: Client) -> int:
    policies = (await client.list_policies()).policies
    return sum(bool(policy.parent) for policy in policies if policy.state in (POLICY_STATE_ACTIVE, 5))


async def test_a_thumb_is_in_the_preference_store_within_two_seconds(stack: Stack) -> None:
    crowd = Crowd(PERSONA, candidate_count=1, max_tokens=8)
    store = PreferenceStore(stack.data_dir / "trainer" / "preferences.sqlite")
    async with stack.client() as client:
        answers = await ask(client, crowd, "what is it?", "somebody")
        accepted = await client.submit_feedback(thumbs(answers.token, "somebody", False, answers.candidate_ids[0]))
        seconds = await eventually(
            lambda: [j for j in store.judgements() if j.feedback_id == accepted.feedback_id], 2, stack.logs()
        )
        assert seconds < 2
        [judgement] = [j for j in store.judgements() if j.feedback_id == accepted.feedback_id]
        assert (judgement.kind, judgement.score, judgement.rater_id) == ("thumbs", 0.0, "somebody")
        assert judgement.policy_version == answers.version


async def test_the_policy_learns_while_nobody_waits(stack: Stack) -> None:
    """At least three versions go into service under load; no call fails, nothing accepted is unaccounted for."""
    crowd = Crowd(PERSONA, users=4, rate=8, candidate_count=4, max_tokens=16, thumbs_share=0.2)
    tally, stop = Tally(), asyncio.Event()
    async with stack.client() as client:
        users = asyncio.create_task(simulate(client, crowd, tally, stop))
        deadline = time.monotonic() + 240
        while await activations(client) < 3:
            assert not users.done(), users.exception()
            assert time.monotonic() < deadline, stack.logs()
            await asyncio.sleep(0.5)
        stop.set()
        await users
        assert tally.failures == 0, tally.failed
        assert len(tally.versions) >= 3
        await _everything_is_accounted_for(stack, tally)
        await _a_learned_feedback_says_so(stack, client)


async def _everything_is_accounted_for(stack: Stack, tally: Tally) -> None:
    store = PreferenceStore(stack.data_dir / "trainer" / "preferences.sqlite")
    accepted = tally.rated + 1  # the thumb of the test before
    await eventually(lambda: store.funnel()["accepted"] >= accepted, 5, f"{store.funnel()} of {accepted}")
    funnel = store.funnel()
    assert funnel["accepted"] == accepted
    assert funnel["dead_lettered"] == funnel["waiting"] == 0
    assert 0 < funnel["learned"] <= funnel["joined"]


async def _a_learned_feedback_says_so(stack: Stack, client: Client) -> None:
    store = PreferenceStore(stack.data_dir / "trainer" / "preferences.sqlite")
    first = store.judgements()[0]
    for _ in range(100):
        status = await client.feedback_status(first.feedback_id)
        if status.state == FeedbackState.FEEDBACK_STATE_LEARNED:
            break
        await asyncio.sleep(0.05)
    assert status.state == FeedbackState.FEEDBACK_STATE_LEARNED
    assert status.policy_version in {policy.version for policy in (await client.list_policies()).policies}


def test_an_operator_rolls_back_and_sees_it(stack: Stack) -> None:
    before = stack.command("policies", "--json")
    assert before.returncode == 0, before.stderr
    rolled = stack.command("rollback", "--reason", "a test says so")
    assert rolled.returncode == 0, rolled.stderr
    after = stack.command("policies", "--json")
    assert "a test says so" in after.stdout


def test_the_terminal_chat_streams_and_rates(stack: Stack) -> None:
    chat = stack.command("chat", stdin="tell me about you\nd\n")
    assert chat.returncode == 0, chat.stderr
    assert "in the event log" in chat.stdout, chat.stdout

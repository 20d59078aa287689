"""The client over a real channel: retries, RetryInfo, request ids, pages, watching."""

import asyncio
import time

import grpc
import pytest

from console import votes
from console.client import Client
from console.errors import explain
from foldback.v1 import chat_pb2, policy_pb2
from tests.console.fake_server import BASE, FakeFoldback

UNAVAILABLE = grpc.StatusCode.UNAVAILABLE
QUESTION = chat_pb2.CreateChatRequest(messages=[chat_pb2.Message(role=chat_pb2.ROLE_USER, content="tea?")])


def client(fake: FakeFoldback, **options: float) -> Client:
    return Client(fake.chat_address, fake.admin_address, **options)  # type: ignore[arg-type]


async def test_unavailable_is_tried_again_after_the_delay_the_server_asks_for() -> None:
    async with FakeFoldback() as fake, client(fake) as api:
        fake.failures.extend([(UNAVAILABLE, 0.3), (UNAVAILABLE, 0.3)])
        began = time.monotonic()
        response = await api.create_chat(QUESTION)
    assert response.candidates[0].text
    assert fake.calls == 3
    assert 0.6 <= time.monotonic() - began < 5


async def test_the_last_attempt_raises() -> None:
    async with FakeFoldback() as fake, client(fake, attempts=2) as api:
        fake.failures.extend([(UNAVAILABLE, 0.01)] * 3)
        with pytest.raises(grpc.aio.AioRpcError):
            await api.create_chat(QUESTION)
    assert fake.calls == 2


async def test_other_failures_are_not_tried_again() -> None:
    async with FakeFoldback() as fake, client(fake) as api:
        fake.failures.append((grpc.StatusCode.RESOURCE_EXHAUSTED, 0.01))
        with pytest.raises(grpc.aio.AioRpcError):
            await api.create_chat(QUESTION)
    assert fake.calls == 1


async def test_a_stream_that_has_not_begun_is_tried_again() -> None:
    async with FakeFoldback() as fake, client(fake) as api:
        fake.failures.append((UNAVAILABLE, 0.01))
        text = "".join([event.delta.text async for event in api.stream_chat(QUESTION)])
    assert text == f"Answer 0 of {BASE} to: tea?"


async def test_a_retried_feedback_counts_once() -> None:
    async with FakeFoldback() as fake, client(fake) as api:
        served = await api.create_chat(QUESTION)
        vote = votes.thumbs(served.feedback_token, "ann", up=True)
        assert not (await api.submit_feedback(vote)).duplicate
        assert (await api.submit_feedback(vote)).duplicate
    assert len(fake.feedback) == 1


async def test_pages_of_policies_are_put_together() -> None:
    async with FakeFoldback() as fake, client(fake) as api:
        for number in range(1, 5):
            await fake.swap(f"p{number:06d}-x")
        listed = await api.list_policies()
    assert [policy.version for policy in listed.policies] == [*(f"p{n:06d}-x" for n in (4, 3, 2, 1)), BASE]


async def test_watching_sees_the_past_and_then_the_news() -> None:
    async with FakeFoldback() as fake, client(fake) as api:
        watch = api.watch_policies()
        assert (await anext(watch)).version == BASE
        waiting = asyncio.ensure_future(anext(watch))
        await asyncio.sleep(0.05)
        assert not waiting.done()
        await fake.swap("p000001-x")
        assert (await waiting).version == "p000001-x"
        await watch.aclose()


async def test_failures_become_one_line_with_a_remedy() -> None:
    nowhere = Client("127.0.0.1:9", "127.0.0.1:9", attempts=1, timeout_s=5)
    async with nowhere, FakeFoldback() as fake, client(fake, attempts=1) as api:
        with pytest.raises(grpc.aio.AioRpcError) as unreachable:
            await nowhere.create_chat(QUESTION)
        assert "foldback up" in explain(unreachable.value, nowhere.chat_address)
        assert "127.0.0.1:9" in explain(unreachable.value, nowhere.chat_address)

        fake.failures.append((UNAVAILABLE, 0.5))
        with pytest.raises(grpc.aio.AioRpcError) as loading:
            await api.create_chat(QUESTION)
        assert "not ready" in explain(loading.value)

        with pytest.raises(grpc.aio.AioRpcError) as invalid:
            await api.submit_feedback(votes.thumbs("forged", "ann", up=True))
        assert "feedback.feedback_tokens: unknown token forged" in explain(invalid.value)

        with pytest.raises(grpc.aio.AioRpcError) as missing:
            await api.promote("p000009-x", "why not")
        assert "foldback policies" in explain(missing.value)


async def test_training_can_be_paused() -> None:
    async with FakeFoldback() as fake, client(fake) as api:
        assert await api.set_training_state(policy_pb2.TRAINING_STATE_PAUSED, "test") == fake.training
    assert fake.training == policy_pb2.TRAINING_STATE_PAUSED

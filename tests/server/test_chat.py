"""ChatService over a real connection."""

import asyncio
import time
from pathlib import Path

import grpc
import pytest
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2

from foldback.v1 import chat_pb2
from server.engines.base import GenerationRequest, Sampling
from tests.server.calls import health, refused
from tests.server.conftest import Client, asking, connect, server_settings

SYSTEM, USER, ASSISTANT = chat_pb2.ROLE_SYSTEM, chat_pb2.ROLE_USER, chat_pb2.ROLE_ASSISTANT


async def violations(client: Client, request: chat_pb2.CreateChatRequest) -> set[str]:
    code, detail = await refused(client.chat.CreateChat(request), error_details_pb2.BadRequest)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    return {violation.field for violation in detail.field_violations}


async def test_the_unary_and_the_streaming_call_answer_alike(client: Client) -> None:
    sampling = chat_pb2.Sampling(max_tokens=12, seed=3)
    whole = await client.chat.CreateChat(asking(sampling=sampling, candidate_count=3))
    texts, finished, started = ["", "", ""], 0, None
    async for event in client.chat.StreamChat(
        chat_pb2.StreamChatRequest(chat=asking(sampling=sampling, candidate_count=3))
    ):
        match event.WhichOneof("event"):
            case "started":
                started = event.started
            case "delta":
                texts[event.delta.candidate_index] += event.delta.text
            case "candidate_finished":
                finished += 1
            case "finished":
                assert event.finished.usage == whole.usage
    assert texts == [candidate.text for candidate in whole.candidates]
    assert finished == 3
    assert started is not None
    assert sorted(started.display_order) == [0, 1, 2]
    assert len(set(started.candidate_ids)) == 3
    assert started.feedback_token
    assert started.policy_version == whole.policy_version == client.server.swap.serving_version


async def test_an_answer_says_what_it_cost_and_who_made_it(client: Client) -> None:
    answer = await client.chat.CreateChat(asking(candidate_count=2, conversation_id="c1"))
    assert answer.conversation_id == "c1"
    assert answer.usage.prompt_tokens == answer.candidates[0].usage.prompt_tokens > 0
    assert answer.usage.completion_tokens == sum(c.usage.completion_tokens for c in answer.candidates)
    for candidate in answer.candidates:
        [span] = candidate.policy_spans
        assert (span.policy_version, span.start) == (answer.policy_version, 0)
        assert span.end == candidate.usage.completion_tokens
    assert 0 < answer.timing.time_to_first_token.ToNanoseconds() <= answer.timing.total.ToNanoseconds()


async def test_candidates_are_interleaved(client: Client) -> None:
    order = [
        event.delta.candidate_index
        async for event in client.chat.StreamChat(
            chat_pb2.StreamChatRequest(chat=asking(candidate_count=2, sampling=chat_pb2.Sampling(max_tokens=40)))
        )
        if event.WhichOneof("event") == "delta"
    ]
    assert order != sorted(order)


def said(role: "chat_pb2.Role.ValueType", content: str) -> chat_pb2.Message:
    return chat_pb2.Message(role=role, content=content)


@pytest.mark.parametrize(
    ("request_", "fields"),
    [
        (chat_pb2.CreateChatRequest(), {"messages"}),
        (asking(candidate_count=9), {"candidate_count"}),
        (asking(candidate_count=-1), {"candidate_count"}),
        (asking(sampling=chat_pb2.Sampling(temperature=-0.1)), {"sampling.temperature"}),
        (asking(sampling=chat_pb2.Sampling(temperature=float("nan"))), {"sampling.temperature"}),
        (
            asking(sampling=chat_pb2.Sampling(top_p=0, top_k=-1, max_tokens=0, seed=-1, stop=[""])),
            {"sampling.top_p", "sampling.top_k", "sampling.max_tokens", "sampling.seed", "sampling.stop[0]"},
        ),
        (
            chat_pb2.CreateChatRequest(messages=[said(9, "x"), said(USER, "")]),  # type: ignore[arg-type]
            {"messages[0].role", "messages[1].content"},
        ),
        (
            chat_pb2.CreateChatRequest(messages=[said(USER, "x"), said(SYSTEM, "y"), said(ASSISTANT, "")]),
            {"messages[1].role", "messages[2].content", "messages[2].role"},
        ),
        (asking("you " * 600), {"messages"}),
        (asking(labels={str(i): "" for i in range(17)}), {"labels"}),
        (asking(rater_id="r" * 257), {"rater_id"}),
    ],
)
async def test_each_field_at_fault_is_named(
    client: Client, request_: chat_pb2.CreateChatRequest, fields: set[str]
) -> None:
    assert await violations(client, request_) == fields


async def test_a_version_that_is_not_served_is_a_failed_precondition(client: Client) -> None:
    code, info = await refused(
        client.chat.CreateChat(asking(policy_version="p000099-00000000")), error_details_pb2.ErrorInfo
    )
    assert code is grpc.StatusCode.FAILED_PRECONDITION
    assert info.metadata["serving_version"] == client.server.swap.serving_version
    served = await client.chat.CreateChat(asking(policy_version=client.server.swap.serving_version))
    assert served.candidates[0].text


@pytest.mark.slow
async def test_one_chat_too_many_is_told_when_to_retry(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    async with connect(server_settings(tmp_path, tiny_model, broker, max_in_flight=1)) as client:
        long = chat_pb2.StreamChatRequest(chat=asking(sampling=chat_pb2.Sampling(max_tokens=400)))
        stream = client.chat.StreamChat(long)
        await stream.read()
        code, retry = await refused(client.chat.CreateChat(asking()), error_details_pb2.RetryInfo)
        assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert retry.retry_delay.ToMilliseconds() == 1000
        stream.cancel()
        await _freed(client)
        assert (await client.chat.CreateChat(asking())).candidates


@pytest.mark.parametrize("how", ["cancelled", "past its deadline"])
async def test_a_call_that_ends_early_frees_its_rows_within_a_second(client: Client, how: str) -> None:
    timeout = 0.3 if how == "past its deadline" else None
    request = asking(candidate_count=8, sampling=chat_pb2.Sampling(max_tokens=480))
    stream = client.chat.StreamChat(chat_pb2.StreamChatRequest(chat=request), timeout=timeout)
    await stream.read()
    if how == "cancelled":
        stream.cancel()
        code = await stream.code()
        assert code is grpc.StatusCode.CANCELLED
    else:
        assert await stream.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    await _freed(client)


@pytest.mark.slow
async def test_the_default_deadline_ends_a_call_without_one(tmp_path: Path, tiny_model: Path, broker: str) -> None:
    async with connect(server_settings(tmp_path, tiny_model, broker, default_deadline_s=0.2)) as client:
        request = asking(sampling=chat_pb2.Sampling(max_tokens=480), candidate_count=8)
        code, info = await refused(client.chat.CreateChat(request), error_details_pb2.ErrorInfo)
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert info.reason == "DEFAULT_DEADLINE"


async def test_a_dead_engine_is_unavailable_and_unhealthy(
    tmp_path: Path, tiny_model: Path, broker: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with connect(server_settings(tmp_path, tiny_model, broker)) as client:
        monkeypatch.setattr(client.server.engine._batch, "_model", None)  # type: ignore[attr-defined]
        code, retry = await refused(client.chat.CreateChat(asking()), error_details_pb2.RetryInfo)
        assert code is grpc.StatusCode.UNAVAILABLE
        assert retry.retry_delay.ToMilliseconds() > 0
        for service, expected in (
            ("", health_pb2.HealthCheckResponse.NOT_SERVING),
            ("foldback.v1.ChatService", health_pb2.HealthCheckResponse.NOT_SERVING),
            ("foldback.v1.FeedbackService", health_pb2.HealthCheckResponse.SERVING),
        ):
            assert await health(client.public, service) == expected


async def test_the_prompt_is_the_models_chat_template(client: Client, tiny_model: Path) -> None:
    """The same tokens, given to the engine directly, draw the same answer."""
    from transformers import AutoTokenizer

    answer = await client.chat.CreateChat(asking("what is it", sampling=chat_pb2.Sampling(temperature=0, max_tokens=8)))
    prompt = AutoTokenizer.from_pretrained(tiny_model)(
        "<|im_start|>user\nwhat is it<|im_end|>\n<|im_start|>assistant\n"
    )
    generation = GenerationRequest("direct", tuple(prompt["input_ids"]), Sampling(0, 1, 0, 8))
    text = "".join([delta.text async for delta in client.server.engine.generate(generation)])
    assert answer.candidates[0].text == text
    assert answer.usage.prompt_tokens == len(prompt["input_ids"])


async def _freed(client: Client) -> None:
    """The engine has no row that still decodes, within a second."""
    begun = time.monotonic()
    while any(not row.done for row in client.server.engine._batch.rows):  # type: ignore[attr-defined]
        assert time.monotonic() - begun < 1, "rows still decode for a call that has ended"
        await asyncio.sleep(0.01)

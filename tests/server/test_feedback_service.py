"""FeedbackService over a real connection and a real broker."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from kafka import KafkaConsumer, TopicPartition

from feedback.event import Durability, build_event
from feedback.submission import feedback_id
from feedback.topics import FEEDBACK, OUTCOMES, POLICIES, RESPONSES
from foldback.v1 import chat_pb2, events_pb2, feedback_pb2, policy_pb2
from settings.server import ServerSettings
from tests.server.calls import MessageT, following, refused
from tests.server.conftest import Client, Publisher, asking, connect, server_settings
from tests.server.test_policies import promote

UP, DOWN = feedback_pb2.THUMBS_UP, feedback_pb2.THUMBS_DOWN


def thumbs(
    token: str, thumb: "feedback_pb2.Thumbs.ValueType" = UP, request_id: str = ""
) -> feedback_pb2.SubmitFeedbackRequest:
    feedback = feedback_pb2.Feedback(
        feedback_tokens=[token], rater_id="r1", source=feedback_pb2.FEEDBACK_SOURCE_END_USER, thumbs=thumb
    )
    return feedback_pb2.SubmitFeedbackRequest(request_id=request_id or str(uuid4()), feedback=feedback)


@pytest.fixture
def consumer(broker: str) -> Iterator[KafkaConsumer]:
    consumer = KafkaConsumer(bootstrap_servers=broker, auto_offset_reset="earliest", enable_auto_commit=False)
    yield consumer
    consumer.close()


async def records(consumer: KafkaConsumer, topic: str, kind: type[MessageT], wanted: int, key: str) -> list[MessageT]:
    """The first `wanted` values of `topic` with that key; fails after ten seconds."""

    def read() -> list[MessageT]:
        parts = [TopicPartition(topic, p) for p in consumer.partitions_for_topic(topic) or ()]
        consumer.assign(parts)
        consumer.seek_to_beginning(*parts)
        found: list[MessageT] = []
        deadline = time.monotonic() + 10
        while len(found) < wanted:
            assert time.monotonic() < deadline, f"{len(found)} of {wanted} events on {topic}"
            for batch in consumer.poll(timeout_ms=100).values():
                found += [kind.FromString(r.value) for r in batch if r.key == key.encode()]
        return found

    return await asyncio.to_thread(read)


async def test_accepted_means_in_the_topic_with_the_tokens_claims(client: Client, consumer: KafkaConsumer) -> None:
    answer = await client.chat.CreateChat(asking(candidate_count=2))
    request = thumbs(answer.feedback_token, DOWN)
    accepted = await client.feedback.SubmitFeedback(request)
    assert accepted.feedback_id == feedback_id("default", request.request_id)
    assert accepted.durability == feedback_pb2.DURABILITY_BROKER
    [record] = await records(consumer, FEEDBACK, events_pb2.FeedbackRecorded, 1, answer.conversation_id)
    assert isinstance(record, events_pb2.FeedbackRecorded)
    assert record.feedback.thumbs == DOWN
    [claims] = record.claims
    assert claims.response_id == answer.response_id
    assert list(claims.candidate_ids) == [candidate.candidate_id for candidate in answer.candidates]
    assert claims.policy_version == answer.policy_version


async def test_a_retry_is_the_same_feedback_and_another_content_is_a_conflict(client: Client) -> None:
    answer = await client.chat.CreateChat(asking())
    first = await client.feedback.SubmitFeedback(thumbs(answer.feedback_token, UP, "retry-1"))
    again = await client.feedback.SubmitFeedback(thumbs(answer.feedback_token, UP, "retry-1"))
    assert (first.duplicate, again.duplicate) == (False, True)
    assert first.feedback_id == again.feedback_id
    code, _ = await refused(
        client.feedback.SubmitFeedback(thumbs(answer.feedback_token, DOWN, "retry-1")), error_details_pb2.ErrorInfo
    )
    assert code is grpc.StatusCode.ALREADY_EXISTS


async def test_forged_tokens_are_denied_and_broken_feedback_is_explained(client: Client) -> None:
    answer = await client.chat.CreateChat(asking())
    head, payload, mac = answer.feedback_token.split(".")
    forged = ".".join([head, payload, mac[:-2] + ("AA" if mac[-2:] != "AA" else "BB")])
    code, info = await refused(client.feedback.SubmitFeedback(thumbs(forged)), error_details_pb2.ErrorInfo)
    assert code is grpc.StatusCode.PERMISSION_DENIED
    assert info.reason == "TOKEN_BAD_SIGNATURE"
    nothing = thumbs(answer.feedback_token)
    nothing.feedback.ClearField("thumbs")
    code, bad = await refused(client.feedback.SubmitFeedback(nothing), error_details_pb2.BadRequest)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert [v.field for v in bad.field_violations] == ["feedback.kind"]


async def test_a_batch_gives_each_item_its_own_status(client: Client) -> None:
    answer = await client.chat.CreateChat(asking())
    batch = feedback_pb2.BatchSubmitFeedbackRequest(
        requests=[thumbs(answer.feedback_token), thumbs("nonsense"), thumbs(answer.feedback_token)]
    )
    results = (await client.feedback.BatchSubmitFeedback(batch)).results
    assert [result.WhichOneof("outcome") for result in results] == ["response", "error", "response"]
    assert isinstance(results[1].error, status_pb2.Status)
    assert results[1].error.code == grpc.StatusCode.PERMISSION_DENIED.value[0]
    code, _ = await refused(
        client.feedback.BatchSubmitFeedback(
            feedback_pb2.BatchSubmitFeedbackRequest(requests=[thumbs(answer.feedback_token)] * 101)
        ),
        error_details_pb2.BadRequest,
    )
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_a_retraction_is_an_event_too(client: Client, consumer: KafkaConsumer) -> None:
    answer = await client.chat.CreateChat(asking())
    accepted = await client.feedback.SubmitFeedback(thumbs(answer.feedback_token))
    await client.feedback.RetractFeedback(
        feedback_pb2.RetractFeedbackRequest(
            request_id=str(uuid4()),
            feedback_token=answer.feedback_token,
            feedback_id=accepted.feedback_id,
            rater_id="r1",
        )
    )
    _, retraction = await records(consumer, FEEDBACK, events_pb2.FeedbackRecorded, 2, answer.conversation_id)
    assert retraction.retracts == accepted.feedback_id


async def test_the_status_is_what_the_trainer_said_last(client: Client) -> None:
    answer = await client.chat.CreateChat(asking())
    accepted = await client.feedback.SubmitFeedback(thumbs(answer.feedback_token))
    status = feedback_pb2.GetFeedbackStatusRequest(feedback_id=accepted.feedback_id)
    assert (await client.feedback.GetFeedbackStatus(status)).state == feedback_pb2.FEEDBACK_STATE_ACCEPTED
    outcome = build_event(
        OUTCOMES,
        accepted.feedback_id,
        events_pb2.FeedbackOutcome(
            feedback_id=accepted.feedback_id,
            state=feedback_pb2.FEEDBACK_STATE_LEARNED,
            policy_version="p000003-01234567",
        ),
        event_id=str(uuid4()),
        type="foldback.v1.FeedbackOutcome",
        tenant="default",
    )
    assert await client.server.event_log.emit_all([outcome]) == [Durability.BROKER]
    deadline = time.monotonic() + 10
    while (answered := await client.feedback.GetFeedbackStatus(status)).state != feedback_pb2.FEEDBACK_STATE_LEARNED:
        assert time.monotonic() < deadline
        await asyncio.sleep(0.05)
    assert answered.policy_version == "p000003-01234567"
    unknown = feedback_pb2.GetFeedbackStatusRequest(feedback_id=str(uuid4()))
    code, _ = await refused(client.feedback.GetFeedbackStatus(unknown), error_details_pb2.ErrorInfo)
    assert code is grpc.StatusCode.NOT_FOUND
    endless = feedback_pb2.GetFeedbackStatusRequest(feedback_id="x" * 1_000_000)
    code, _ = await refused(client.feedback.GetFeedbackStatus(endless), error_details_pb2.BadRequest)
    assert code is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.slow
@pytest.mark.parametrize("consent", [True, False])
async def test_a_response_is_recorded_and_without_consent_no_content(
    client: Client, consumer: KafkaConsumer, consent: bool
) -> None:
    request = asking(candidate_count=2, training_consent=consent, rater_id="r7", labels={"app": "test"})
    answer = await client.chat.CreateChat(request)
    [record] = await records(consumer, RESPONSES, events_pb2.ResponseRecorded, 1, answer.conversation_id)
    assert isinstance(record, events_pb2.ResponseRecorded)
    assert record.response_id == answer.response_id
    assert record.display_order == answer.display_order
    assert record.sampling.temperature == pytest.approx(ServerSettings().default_temperature)
    assert record.training_consent == consent
    for candidate, served in zip(record.candidates, answer.candidates, strict=True):
        assert candidate.candidate_id == served.candidate_id
        assert candidate.policy_spans == served.policy_spans
        assert len(candidate.token_ids) == len(candidate.logprobs) == consent * served.usage.completion_tokens
        assert candidate.text == (served.text if consent else "")
    assert bool(record.messages) == bool(record.prompt_token_ids) == consent


async def test_what_was_produced_of_a_cancelled_answer_is_recorded(client: Client, consumer: KafkaConsumer) -> None:
    conversation = str(uuid4())
    sampling = chat_pb2.Sampling(max_tokens=400, temperature=1, seed=7)  # an answer that goes on for long enough
    request = asking(conversation_id=conversation, training_consent=True, sampling=sampling)
    stream = client.chat.StreamChat(chat_pb2.StreamChatRequest(chat=request))
    seen = ""
    while len(seen) < 10:
        seen += (await following(stream)).delta.text
    stream.cancel()
    [record] = await records(consumer, RESPONSES, events_pb2.ResponseRecorded, 1, conversation)
    [candidate] = record.candidates
    assert candidate.text.startswith(seen)
    assert candidate.finish_reason == chat_pb2.FINISH_REASON_UNSPECIFIED


async def test_life_cycle_moves_are_events(client: Client, consumer: KafkaConsumer, publisher: Publisher) -> None:
    version = publisher.publish()
    await promote(client, version)
    moves = await records(consumer, POLICIES, policy_pb2.PolicyTransition, 2, version)
    assert [move.to for move in moves] == [
        policy_pb2.POLICY_STATE_CANDIDATE,
        policy_pb2.POLICY_STATE_ACTIVE,
    ]


async def test_without_a_broker_feedback_is_spooled_and_chat_unaffected(tmp_path: Path, tiny_model: Path) -> None:
    async with connect(server_settings(tmp_path, tiny_model, "127.0.0.1:1")) as client:
        answer = await client.chat.CreateChat(asking(training_consent=True))
        accepted = await client.feedback.SubmitFeedback(thumbs(answer.feedback_token))
        assert accepted.durability == feedback_pb2.DURABILITY_SPOOL

"""No feedback is accepted before the answer it is about is on record: while it streams, and over kill -9."""

import asyncio
from pathlib import Path
from uuid import uuid4

import grpc
import pytest

from feedback.eventlog import EventLog
from feedback.spool import read_spooled_ids
from feedback.topics import FEEDBACK, RESPONSES
from foldback.v1 import chat_pb2, chat_pb2_grpc, events_pb2, feedback_pb2_grpc
from server.events import CandidateLog, ResponseLog
from settings.feedback import FeedbackSettings
from tests.server.calls import following
from tests.server.conftest import asking, connect, server_settings
from tests.server.test_feedback_service import thumbs
from tests.server.test_process import process

AWAY = "127.0.0.1:1"
"""No broker: what is durable is in the spool."""


def long_answer() -> chat_pb2.StreamChatRequest:
    sampling = chat_pb2.Sampling(max_tokens=400, temperature=1, seed=7)
    return chat_pb2.StreamChatRequest(chat=asking(training_consent=True, sampling=sampling))


async def test_feedback_given_while_its_answer_streams_is_on_record_behind_it(tmp_path: Path, tiny_model: Path) -> None:
    async with connect(server_settings(tmp_path, tiny_model, AWAY)) as client:
        stream = client.chat.StreamChat(long_answer())
        started = (await following(stream)).started
        early = asyncio.ensure_future(client.feedback.SubmitFeedback(thumbs(started.feedback_token)))
        await stream.read()
        stream.cancel()
        accepted = await asyncio.wait_for(early, 30)
        assert read_spooled_ids(tmp_path / "spool.sqlite", RESPONSES) == [started.response_id]
        assert read_spooled_ids(tmp_path / "spool.sqlite", FEEDBACK) == [accepted.feedback_id]


async def test_an_open_answer_is_waited_for_and_then_its_record(tmp_path: Path) -> None:
    log = EventLog(FeedbackSettings(bootstrap_servers=AWAY), tmp_path / "spool")
    await log.start()
    responses = ResponseLog(log)
    responses.begin("r")
    waiting = [asyncio.create_task(responses.settled(["r", "of another server"])) for _ in range(2)]
    await responses.settled(["of another server"])
    waiting[0].cancel()  # a client that gave up takes nothing from the others
    assert not waiting[1].done()
    request = asking(training_consent=True)
    for name in ("r", "s"):
        responses.record(events_pb2.ResponseRecorded(response_id=name), request, [1], [CandidateLog("c")])
    await asyncio.wait_for(waiting[1], 30)
    assert "r" in read_spooled_ids(tmp_path / "spool", RESPONSES)
    await log.stop()
    assert read_spooled_ids(tmp_path / "spool", RESPONSES) == ["r", "s"]


@pytest.mark.slow
async def test_what_was_accepted_has_its_answer_on_record_after_kill_9(
    tmp_path: Path, tiny_model: Path, broker: str
) -> None:
    """The embedded broker forgets, so the spool keeps all of it; some users rate at the start, some at the end."""
    accepted: dict[str, str] = {}
    async with (
        process(tmp_path, tiny_model, broker) as (server, said),
        grpc.aio.insecure_channel(said["chat"]) as channel,
    ):
        chat, feedback = chat_pb2_grpc.ChatServiceStub(channel), feedback_pb2_grpc.FeedbackServiceStub(channel)

        async def submit(started: chat_pb2.ChatStarted) -> None:
            request = thumbs(started.feedback_token, request_id=str(uuid4()))
            accepted[(await feedback.SubmitFeedback(request)).feedback_id] = started.response_id

        async def user(number: int) -> None:
            sampling = chat_pb2.Sampling(max_tokens=20 + 5 * (number % 9), temperature=1)
            request = asking(training_consent=True, sampling=sampling)
            rated: list[asyncio.Task[None]] = []
            async for event in chat.StreamChat(chat_pb2.StreamChatRequest(chat=request)):
                if event.HasField("started"):
                    started = event.started
                if event.HasField("started" if number % 2 else "finished"):
                    rated.append(asyncio.create_task(submit(started)))
            await asyncio.gather(*rated)

        async def users(first: int) -> None:
            for number in range(first, 10**6, 8):
                await user(number)

        crowd = [asyncio.create_task(users(first)) for first in range(8)]
        while len(accepted) < 24:
            await asyncio.sleep(0.01)
            assert not any(each.done() for each in crowd)
        server.kill()
        await asyncio.gather(*crowd, return_exceptions=True)
        await server.wait()
    answers = read_spooled_ids(tmp_path / "spool.sqlite", RESPONSES)
    assert accepted.keys() <= set(read_spooled_ids(tmp_path / "spool.sqlite", FEEDBACK))
    assert set(accepted.values()) <= set(answers)
